"""Leaderboard, judge and files of votes: what the page shows of votes, and what it keeps apart."""

import json
import re
import shutil
from pathlib import Path

import gradio as gr
import pytest

from playground.core import datasets
from playground.errors import PlaygroundError
from playground.services.judge import Judging
from playground.services.votes import Battle, Side
from playground.ui import lanes
from playground.ui.arena import files, judge, leaderboard
from playground.ui.arena.leaderboard import ALL, EMPTY, NARROW, Boards
from tests.ui.conftest import make_services

MODEL = "smollm2-135m-instruct"
BASE, INSTRUCT, TUNED = "SmolLM2 135M", "SmolLM2 135M Instruct", "SmolLM2 135M Instruct · adapter t"
ASKED = [{"role": "user", "content": "Hi"}]


def vote(services, left, right, choice, session="", category="", replies=("one", "two"), leaks=((), ())):
    sides = (Side(name, {"model": name}, ASKED) for name in (left, right))
    ticket = services.votes.start(Battle("blind", *sides, session, category))
    services.votes.finish(ticket, *replies, leaks)
    services.votes.vote(ticket, choice)
    return ticket.id


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """A file of votes: tuned beats instruct beats base, nearly always."""
    services = make_services(tmp_path_factory.mktemp("voted"))
    for first, second in ((TUNED, INSTRUCT), (INSTRUCT, BASE), (TUNED, BASE)):
        for number in range(8):
            vote(services, first, second, "right" if number == 0 else "left", "Monday", "writing")
            vote(services, second, first, "right", "Tuesday", "maths")
    return services.paths.votes


@pytest.fixture
def voted(services, counted):
    shutil.copy(counted, services.paths.votes)
    return services


def look(services, session=ALL, category=ALL, kind="", base=ALL, leaks=False, style=False, seen=None):
    names = ("seen", "session", "category", "base", "table", "details", "matrix", "times")
    shown = leaderboard.refresh(services, Boards(services), seen, session, category, kind, base, leaks, style)
    return dict(zip(names, shown, strict=True))


def rows_of(table):
    body = table.split("<tbody>")[1].split("</tbody>")[0]
    return [
        [re.sub("<[^>]+>", "", cell) for cell in re.findall(r"<td.*?>(.*?)</td>", row)]
        for row in body.split("</tr>")[:-1]
    ]


# --- leaderboard ---


def test_the_board_ranks_by_votes_with_the_base_model_at_zero(voted):
    shown = look(voted)
    rows = rows_of(shown["table"])
    # nobody is surely better than the second, so that it is first too
    assert [row[:2] for row in rows] == [["1", TUNED], ["1", INSTRUCT], ["3", BASE]]
    assert rows[2][2] == "+0"
    assert f"{BASE} is 0" in shown["table"]
    assert 'data-votes="48"' in shown["table"]
    assert shown["matrix"].count('class="met"') == 6
    assert "94%" in shown["matrix"]  # 15 of 16
    assert "48 votes from" in shown["times"]


def test_the_board_is_the_same_for_the_same_votes_and_new_for_new_ones(voted):
    first, second = look(voted), look(voted)
    assert first == second
    assert set(map(str, look(voted, seen=first["seen"]).values())) == {str(gr.skip())}
    vote(voted, TUNED, BASE, "both bad")
    third = look(voted, seen=first["seen"])
    assert third["table"] != first["table"]
    assert rows_of(third["table"])[0][-1] == "1"  # both bad
    assert 'data-votes="48"' in third["table"]  # and decides nothing


def test_filters_choose_the_votes(voted):
    assert 'data-votes="24"' in look(voted, session="Monday")["table"]
    assert 'data-votes="24"' in look(voted, category="maths")["table"]
    assert look(voted, kind="open")["table"] == NARROW
    assert [name for _, name in look(voted)["session"]["choices"]] == [ALL, "Monday", "Tuesday"]
    assert f"{TUNED} is 0" in look(voted, base=TUNED)["table"]


def test_no_votes_say_what_to_do(services):
    shown = look(services)
    assert (shown["table"], shown["matrix"], shown["times"]) == (EMPTY, "", "")
    assert shown["details"] == gr.update(visible=False)


def test_few_votes_give_no_rank(services):
    for choice in ("left", "right", "left"):
        vote(services, BASE, TUNED, choice)
    table = look(services)["table"]
    assert [row[0] for row in rows_of(table)] == ["not enough votes"] * 2
    assert "there is no rank yet" in table


def test_battles_that_gave_a_name_away_are_left_out_unless_asked_for(voted):
    vote(voted, TUNED, BASE, "right", leaks=(["smollm2"], []))
    shown = look(voted)
    assert 'data-votes="48"' in shown["table"]
    assert "a reply gave away a name: 1." in shown["table"]
    assert 'data-votes="49"' in look(voted, leaks=True)["table"]


def test_judges_never_change_the_ratings_of_people(voted):
    before = look(voted)
    for battle in voted.votes.battles(judge="J"):
        voted.votes.add_judgement(battle, "J", "right", {"first": "B", "second": "A"})
    assert look(voted)["table"] == before["table"]


def test_style_control_says_what_length_is_worth(services):
    for number in range(40):
        longer_left = number % 2 == 0
        replies = ("long " * 20, "short") if longer_left else ("short", "long " * 20)
        voters = longer_left != (number % 8 == 0)
        vote(
            services,
            *((BASE, TUNED) if number % 4 < 2 else (TUNED, BASE)),
            "left" if voters else "right",
            replies=replies,
        )
    assert "voters prefer longer replies" in look(services, style=True)["table"]


def test_names_are_escaped_everywhere(services):
    for choice in ("left", "right"):
        vote(services, "<b>x</b>", "<i>y</i>", choice, "<u>s</u>")
    shown = look(services)
    assert not any(tag in str(shown[part]) for part in ("table", "matrix", "times") for tag in ("<b>x", "<i>y", "<u>"))
    assert "&lt;b&gt;x" in shown["table"]


def test_a_vote_on_a_lane_against_itself_is_reported(voted):
    vote(voted, TUNED, TUNED, "left")
    assert f"Votes that cannot be rated: 1; the first: vote 49: {TUNED} against itself" in look(voted)["table"]


def test_votes_over_years_and_over_minutes_have_bars(services):
    assert leaderboard.times_of([0.0, 30.0]).count("<span") == 1
    over_years = leaderboard.times_of([0.0, 86_400 * 3650.0])
    assert over_years.count("<span") <= 12 * leaderboard.MOST_BARS + 1
    assert "per four weeks" in over_years


def test_an_unusable_database_is_said(services):
    services.votes.path.write_text("no database " * 100)
    assert "not a database" in look(services)["table"]
    assert "not a database" in judge.refresh(services, Judging(services.engine, services.votes), None)[3]


# --- judge ---


def test_a_judge_is_started_watched_and_reported(services):
    services.sources.here.add("smollm2-135m")
    ids = [vote(services, TUNED, BASE, "left"), vote(services, TUNED, BASE, "right")]
    for text in ("[[A]]", "[[B]]", "[[A]]", "[[B]]"):
        services.engine.enqueue(text)
    work = Judging(services.engine, services.votes, pause=lambda seconds: services.engine.step())
    key = dict(lanes.lane_choices(services))[INSTRUCT]
    seen, start, cancel, status, _ = judge.start(services, work, key, ALL, 10)
    work.wait(10)
    assert "2 battles" in status
    seen, start, cancel, status, table = judge.refresh(services, work, seen)
    assert (start["visible"], cancel["visible"]) == (True, False)
    assert "is finished: 2 of 2 battles judged, 2 votes" in status
    (row,) = rows_of(table)
    assert row == [INSTRUCT, "2", "100%", "0%", "0%", "2", "50%", "0.00", "50% of 2", f"{TUNED} (not enough votes)"]
    assert {r["battle_id"] for r in services.votes.rows() if r["judge"]} == set(ids)
    assert judge.refresh(services, work, seen)[0] == gr.skip()


def test_a_judge_without_a_single_vote_says_what_to_do(services):
    vote(services, TUNED, BASE, "left")
    for text in ("Both are fine.", "[[A]]"):
        services.engine.enqueue(text)
    work = Judging(services.engine, services.votes, pause=lambda seconds: services.engine.step())
    judge.start(services, work, lanes.lane_key(MODEL), ALL, 10)
    work.wait(10)
    status = judge.refresh(services, work, None)[3]
    assert "1 without a vote: it gave no clear verdict" in status
    assert "Choose a larger model, or a lane elsewhere." in status


@pytest.mark.parametrize(
    ("lane", "limit", "sentence"),
    [
        (None, 10, "choose the lane that judges"),
        (lanes.lane_key(MODEL), 0, "a judge takes 1 to 2,000 battles at a time, got 0"),
        (lanes.lane_key(MODEL), None, "how many battles at most must be a whole number, got nothing"),
        (lanes.lane_key(MODEL), 10, "no battle here that SmolLM2 135M Instruct has not judged"),
    ],
)
def test_a_judge_that_cannot_begin_is_refused(services, lane, limit, sentence):
    with pytest.raises(PlaygroundError, match=sentence):
        judge.start(services, Judging(services.engine, services.votes), lane, ALL, limit)


# --- files ---


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_votes_go_out_and_come_in_again(voted, tmp_path, format):
    made = files.export(voted, "Monday", format)
    download, told = next(made)
    copy = tmp_path / f"copy.{format}"
    copy.write_bytes(Path(download["value"]).read_bytes())
    made.close()
    assert "24 votes are ready" in told
    other = make_services(tmp_path / "other")
    told, _ = files.take(other, str(copy), "")
    assert "24 votes added." in told
    assert other.votes.export() == voted.votes.export("Monday")
    assert "24 were here already" in files.take(other, str(copy), "")[0]


def test_a_dirty_log_is_reported_by_row_and_escaped(services, tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("left,right,winner\na,b,left\n<i>c</i>,<i>c</i>,left\na,b,perhaps\n")
    told, _ = files.take(services, str(log), "Old  log")
    assert "1 vote added, 2 rows left out:" in told
    assert "row 2: &lt;i&gt;c&lt;/i&gt; stands against itself" in told
    assert "row 3: the winner must be" in told
    assert services.votes.sessions() == {"Old log": 1}
    with pytest.raises(PlaygroundError, match="add a file of votes first"):
        files.take(services, None, "")


def test_pairs_become_a_data_set_that_every_tab_offers(voted):
    told = files.keep_pairs(voted, ALL)
    name = re.search("“(.*?)”", told).group(1)
    data = voted.datasets.load(name)
    assert (data.format, len(data.conversations)) == ("preference", 48)
    assert datasets.recognise(json.loads(voted.datasets.file(name).read_text().splitlines()[0])) == "preference"
    made = files.export(voted, ALL, "pairs")
    assert "48 pairs are ready" in next(made)[1]


def test_without_votes_nothing_can_be_exported_or_kept(services):
    with pytest.raises(PlaygroundError, match="no votes to write yet"):
        next(files.export(services, ALL, "csv"))
    with pytest.raises(PlaygroundError, match="no pair to keep: there are no votes"):
        files.keep_pairs(services, ALL)


def test_a_reset_asks_and_deletes_one_session_only(voted):
    with pytest.raises(PlaygroundError, match="choose the class session"):
        files.ask_reset(voted, ALL)
    group, question = files.ask_reset(voted, "Monday")
    assert (group["visible"], "24 votes" in question) == (True, True)
    assert len(voted.votes.rows()) == 48
    _, told, _ = files.reset(voted, "Monday")
    assert "deleted-votes-" in told
    assert {row["session"] for row in voted.votes.rows()} == {"Tuesday"}


def test_a_filter_whose_session_is_gone_stays_among_the_choices(voted):
    seen = look(voted, session="Monday")
    files.reset(voted, "Monday")
    shown = look(voted, session="Monday", seen=seen["seen"])
    assert ("Monday (gone)", "Monday") in shown["session"]["choices"]
    assert shown["table"] == NARROW
    assert files.session_choices(voted)["choices"] == [("all sessions", ALL), ("Tuesday", "Tuesday")]
