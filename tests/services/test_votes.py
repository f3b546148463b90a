"""Votes: one per battle, counted whichever side a lane stood on, on the disk once acknowledged."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest

from playground.errors import PlaygroundError
from playground.services import vote_file
from playground.services.votes import SCHEMA_VERSION, Battle, Count, Side, Ticket, Votes

ASKED = [{"role": "user", "content": "What is 2 + 2?"}]


def side(name, reply="4", asked=ASKED):
    return Side(name, {"model": name, "temperature": 0.7}, asked, reply)


@pytest.fixture
def votes(tmp_path):
    return Votes(tmp_path / "deep" / "votes.sqlite3", wait=0.2)


def test_votes_on_a_pair_are_counted_whichever_side_a_lane_stood_on(votes):
    for number, (left, right, choice) in enumerate(
        [
            ("base", "tuned", "right"),
            ("tuned", "base", "left"),
            ("tuned", "base", "right"),
            ("base", "tuned", "tie"),
            ("tuned", "base", "both bad"),
            ("base", "instruct", "left"),
        ]
    ):
        votes.add(f"battle {number}", side(left), side(right), choice)
    assert votes.counts() == [
        Count("base", "tuned", first_wins=1, second_wins=2, ties=1, both_bad=1),
        Count("base", "instruct", first_wins=1),
    ]
    assert votes.counts()[0].total == 5


def test_no_votes_no_counts(votes):
    assert votes.counts() == []


def test_everything_but_the_voter_is_kept(votes):
    votes.add("b1", side("base", "5"), side("tuned", "4"), "right", "Monday", "maths")
    (row,) = votes.export()
    assert row.pop("time") > 1e9
    assert row == {
        "left": "base", "right": "tuned", "winner": "right", "prompt": "What is 2 + 2?", "kind": "open",
        "session": "Monday", "category": "maths", "left_lane": {"model": "base", "temperature": 0.7},
        "right_lane": {"model": "tuned", "temperature": 0.7}, "left_messages": ASKED, "right_messages": ASKED,
        "left_reply": "5", "right_reply": "4", "left_leaks": [], "right_leaks": [], "judge": None, "details": {},
        "battle_id": "b1",
    }  # fmt: skip
    with sqlite3.connect(votes.path) as connection:
        columns = {
            row[1] for table in ("votes", "battles") for row in connection.execute(f"PRAGMA table_info({table})")
        }
    assert columns == {
        *("id", "token_hash", "started_at", "finished_at", "revealed_at", "kind", "session", "category"),
        *(f"{side}_{what}" for side in ("left", "right") for what in ("name", "lane", "messages", "reply", "leaks")),
        *("battle_id", "judge", "time", "choice", "details"),
    }


def test_one_vote_per_battle(votes):
    votes.add("b1", side("base"), side("tuned"), "left")
    with pytest.raises(PlaygroundError, match="vote already"):
        votes.add("b1", side("base"), side("tuned"), "right")
    assert votes.counts() == [Count("base", "tuned", first_wins=1)]


@pytest.mark.parametrize(
    ("left", "right", "choice", "sentence"),
    [
        (side("a"), side("b"), "middle", "left, right, tie, both bad, got 'middle'"),
        (side("a"), side("b", asked=[{"role": "user", "content": "other"}]), "left", "not asked the same"),
    ],
)
def test_what_is_no_vote_is_refused(votes, left, right, choice, sentence):
    with pytest.raises(PlaygroundError, match=sentence):
        votes.add("b1", left, right, choice)
    assert votes.counts() == []


def test_a_database_of_a_newer_version_is_left_alone(votes):
    votes.add("b1", side("a"), side("b"), "left")
    with sqlite3.connect(votes.path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(PlaygroundError, match=f"version {SCHEMA_VERSION + 1}, this app knows up to {SCHEMA_VERSION}"):
        votes.add("b2", side("a"), side("b"), "left")


def test_a_locked_database_is_said_so_and_works_again_afterwards(votes):
    votes.add("b1", side("a"), side("b"), "left")
    other = sqlite3.connect(votes.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(PlaygroundError, match=r"votes\.sqlite3 cannot be used: database is locked"):
        votes.add("b2", side("a"), side("b"), "left")
    other.execute("ROLLBACK")
    votes.add("b2", side("a"), side("b"), "left")
    assert votes.counts()[0].total == 2


def test_a_read_only_or_broken_file_is_said_so(votes, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PlaygroundError, match="cannot be used"):
        Votes(tmp_path / "file" / "votes.sqlite3").counts()
    (tmp_path / "text.sqlite3").write_text("this is no database " * 100)
    with pytest.raises(PlaygroundError, match="not a database"):
        Votes(tmp_path / "text.sqlite3").counts()


def test_many_threads_vote_at_once(tmp_path):
    votes = Votes(tmp_path / "votes.sqlite3", wait=30)
    failures = []

    def storm(name):
        try:
            for number in range(10):
                votes.add(f"{name}-{number}", side("a"), side("b"), "left")
        except PlaygroundError as error:
            failures.append(error)

    threads = [threading.Thread(target=storm, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert votes.counts() == [Count("a", "b", first_wins=60)]


LATER = tuple(  # what is sent with a second question
    [*ASKED, {"role": "assistant", "content": reply}, {"role": "user", "content": "And one more?"}]
    for reply in ("five", "four")
)


def begin(votes, finished=True, **more):
    ticket = votes.start(Battle("blind", side("base", ""), side("tuned", ""), **more))
    if finished:
        votes.finish(ticket, "five", "four", (["gemma"], []))
    return ticket


def test_a_blind_battle_is_stored_from_its_start(votes):
    ticket = begin(votes, finished=False, session="Monday", category="writing")
    assert votes.met("Monday") == {("base", "tuned"): 1}
    with pytest.raises(PlaygroundError, match="both replies must be there"):
        votes.vote(ticket, "left")
    votes.finish(ticket, "five", "four", (["gemma"], []))
    votes.vote(ticket, "left")
    (row,) = votes.rows()
    assert (row["kind"], row["session"], row["category"]) == ("blind", "Monday", "writing")
    assert (row["left_length"], row["right_length"], row["leaked"], row["judge"]) == (4, 4, 1, None)
    assert votes.categories() == ["writing"]


def test_replies_are_stored_once(votes):
    ticket = begin(votes)
    with pytest.raises(PlaygroundError, match="stored already"):
        votes.finish(ticket, "other", "words")
    with pytest.raises(PlaygroundError, match="stored already"):
        votes.go_on(ticket, (ASKED, ASKED), "other", "words")  # no turn more than there was
    assert votes.battles()[0]["left_reply"] == "five"


def test_a_battle_goes_on_until_the_vote_which_is_on_all_of_it(votes):
    ticket = begin(votes)
    votes.go_on(ticket, LATER, "six", "seven!", (["gemma"], []))
    votes.vote(ticket, "right")
    (row,) = votes.export()
    assert [message["content"] for message in row["left_messages"]] == ["What is 2 + 2?", "five", "And one more?"]
    assert (row["left_reply"], row["right_reply"], row["prompt"]) == ("six", "seven!", "And one more?")
    (row,) = votes.rows()
    assert (row["left_length"], row["right_length"]) == (len("five" + "six"), len("four" + "seven!"))
    with pytest.raises(PlaygroundError, match="has its vote already"):
        votes.vote(ticket, "left")


@pytest.mark.parametrize(
    ("close", "sentence"),
    [
        (lambda votes, ticket: votes.vote(ticket, "left"), "has its vote already"),
        (lambda votes, ticket: votes.reveal(ticket), "names of this battle have been shown"),
        (lambda votes, ticket: votes.add_judgement(votes.battles()[0], "J", "left", {}), "a judge has voted on this"),
    ],
)
def test_a_battle_that_is_over_goes_on_no_more(votes, close, sentence):
    ticket = begin(votes)
    close(votes, ticket)
    with pytest.raises(PlaygroundError, match=sentence):
        votes.go_on(ticket, LATER, "six", "seven")
    with sqlite3.connect(votes.path) as connection:
        assert connection.execute("SELECT left_reply FROM battles").fetchone() == ("five",)


def test_a_judge_votes_on_what_it_has_read(votes):
    ticket = begin(votes)
    (read,) = votes.battles()
    votes.go_on(ticket, LATER, "six", "seven")
    assert votes.add_judgement(read, "J", "left", {}) is False
    assert votes.add_judgement(votes.battles()[0], "J", "left", {}) is True


def test_a_double_click_is_one_vote(votes):
    ticket, results = begin(votes), []
    start = threading.Barrier(4)
    votes.wait = 30

    def click():
        start.wait()
        try:
            results.append(votes.vote(ticket, "left"))
        except PlaygroundError as error:
            results.append(str(error)[:40])

    threads = [threading.Thread(target=click) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results, key=str) == [None, *["this pair of replies has its vote already"[:40]] * 3]
    assert votes.counts()[0].total == 1


def test_no_vote_after_the_reveal_whoever_asks(votes):
    ticket = begin(votes)
    late = sqlite3.connect(votes.path, isolation_level=None)
    votes.reveal(ticket)
    with pytest.raises(PlaygroundError, match="names of this battle have been shown"):
        votes.vote(ticket, "left")
    # the database says so to any connection, not the app alone
    with pytest.raises(sqlite3.IntegrityError, match="revealed"):
        late.execute("INSERT INTO votes (battle_id, time, choice) VALUES (?, 0, 'left')", (ticket.id,))
    late.execute("PRAGMA foreign_keys = ON")
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        late.execute("INSERT INTO votes (battle_id, time, choice) VALUES ('no such', 0, 'left')")
    late.close()
    assert votes.counts() == []


def test_a_vote_reveals_and_a_second_one_says_that_there_is_one(votes):
    ticket = begin(votes)
    votes.vote(ticket, "tie")
    votes.reveal(ticket)
    with pytest.raises(PlaygroundError, match="has its vote already"):
        votes.vote(ticket, "left")
    assert votes.rows()[0]["winner"] == "tie"


@pytest.mark.parametrize("act", ["vote", "reveal", "finish", "go_on"])
def test_a_battle_of_another_visitor_is_left_alone(votes, act):
    mine, other = begin(votes), begin(votes)
    arguments = {"vote": ["left"], "reveal": [], "finish": ["a", "b"], "go_on": [LATER, "a", "b"]}[act]
    for ticket in (Ticket(mine.id, other.token), Ticket(mine.id, "")):
        with pytest.raises(PlaygroundError, match="not yours"):
            getattr(votes, act)(ticket, *arguments)
    with pytest.raises(PlaygroundError, match="no such battle"):
        getattr(votes, act)(Ticket("x", mine.token), *arguments)
    votes.vote(mine, "left")
    assert [row["battle_id"] for row in votes.rows()] == [mine.id]


def test_an_open_battle_cannot_be_voted_on_with_an_empty_token(votes):
    votes.add("b1", side("a"), side("b"), "left")
    with pytest.raises(PlaygroundError, match="not yours"):
        votes.vote(Ticket("b1", ""), "right")


def test_the_token_is_stored_as_a_hash_and_never_shown(votes):
    ticket = begin(votes)
    assert ticket.token not in repr(ticket)
    stored = b"".join(file.read_bytes() for file in votes.path.parent.iterdir())
    assert ticket.id.encode() in stored
    assert ticket.token.encode() not in stored


def test_judges_are_counted_apart_from_people(votes):
    ticket = begin(votes)
    (battle,) = votes.battles()
    assert votes.add_judgement(battle, "lane J", "right", {"first": "B", "second": "A"}) is True
    assert votes.add_judgement(battle, "lane J", "left", {}) is False
    assert votes.counts() == []
    votes.vote(ticket, "left")  # a judge reveals nothing
    assert votes.counts() == [Count("base", "tuned", first_wins=1)]
    assert [(row["judge"], row["winner"]) for row in votes.rows()] == [("lane J", "right"), (None, "left")]
    assert votes.battles(judge="lane J") == []
    assert votes.battles(judge="lane K")[0]["choice"] == "left"


# --- sessions ---


def test_a_session_has_a_name_a_pool_and_prompts(votes):
    assert votes.session().name == ""
    votes.set_pool(["a", "b", "a"])
    first = votes.open_session("  Monday   class ")
    assert (first.name, first.pool) == ("Monday class", ("a", "b"))  # a new class goes on with the lanes of the last
    assert votes.set_prompts(["one", " ", "two ", "one"]).prompts == ("one", "two")
    votes.open_session("Tuesday")
    assert votes.session().prompts == ()
    assert votes.open_session("Monday class").prompts == ("one", "two")
    assert votes.sessions() == {"": 0, "Monday class": 0, "Tuesday": 0}
    with pytest.raises(PlaygroundError, match="at most 80 characters, got 81"):
        votes.open_session("x" * 81)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [([str(n) for n in range(501)], "at most 500 prompts, got 501"), (["a", "b" * 20_001], "prompt 2 of the list")],
)
def test_a_list_of_prompts_has_its_bounds(votes, lines, sentence):
    with pytest.raises(PlaygroundError, match=sentence):
        votes.set_prompts(lines)


def test_a_reset_deletes_one_session_and_keeps_a_copy_beside_it(votes):
    votes.vote(begin(votes, session="Monday"), "left")
    begin(votes, session="Monday")
    votes.vote(begin(votes, session="Tuesday"), "right")
    kept = votes.reset("Monday")
    assert [row["session"] for row in votes.rows()] == ["Tuesday"]
    assert votes.met("Monday") == {}
    (line,) = kept.read_text().splitlines()
    assert (json.loads(line)["winner"], json.loads(line)["left_reply"]) == ("left", "five")
    assert votes.reset("Monday") is None


# --- the file ---


VERSION_1 = """
CREATE TABLE votes (
    id INTEGER PRIMARY KEY, battle_id TEXT NOT NULL UNIQUE, time REAL NOT NULL, left_name TEXT NOT NULL,
    right_name TEXT NOT NULL, left_lane TEXT NOT NULL, right_lane TEXT NOT NULL, left_messages TEXT NOT NULL,
    right_messages TEXT NOT NULL, left_reply TEXT NOT NULL, right_reply TEXT NOT NULL,
    choice TEXT NOT NULL CHECK (choice IN ('left', 'right', 'tie', 'both bad'))
) STRICT;
PRAGMA journal_mode = WAL;
PRAGMA user_version = 1;
"""


@pytest.fixture
def version_1(votes):
    votes.path.parent.mkdir()
    with sqlite3.connect(votes.path) as connection:
        connection.executescript(VERSION_1)
        asked = json.dumps(ASKED)
        for number, choice in enumerate(("left", "tie", "both bad")):
            connection.execute(
                "INSERT INTO votes VALUES (NULL, ?, ?, 'a', 'b', '{\"model\": \"m\"}', '{}', ?, ?, 'é', '4', ?)",
                (f"b{number}", 1000.5 + number, asked, asked, choice),
            )
    connection.close()
    return votes


def test_a_file_of_version_1_keeps_every_vote(version_1):
    assert version_1.counts() == [Count("a", "b", first_wins=1, ties=1, both_bad=1)]
    rows = version_1.export()
    assert [(row["battle_id"], row["time"], row["winner"]) for row in rows] == [
        ("b0", 1000.5, "left"), ("b1", 1001.5, "tie"), ("b2", 1002.5, "both bad"),
    ]  # fmt: skip
    assert (rows[0]["left_reply"], rows[0]["left_lane"], rows[0]["kind"]) == ("é", {"model": "m"}, "open")
    with pytest.raises(PlaygroundError, match="vote already"):
        version_1.add("b1", side("a"), side("b"), "left")
    with sqlite3.connect(version_1.path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_a_file_of_version_2_keeps_its_votes_and_its_open_battles_can_go_on(votes):
    votes.vote(begin(votes), "left")
    ticket = begin(votes)
    with sqlite3.connect(votes.path) as connection:
        connection.executescript(
            "DROP TRIGGER replies_are_final;"
            "CREATE TRIGGER replies_are_final BEFORE UPDATE OF left_reply, right_reply ON battles"
            " WHEN OLD.finished_at IS NOT NULL BEGIN SELECT RAISE(ABORT, 'finished'); END;"
            "PRAGMA user_version = 2;"
        )
    connection.close()
    assert votes.counts() == [Count("base", "tuned", first_wins=1)]
    votes.go_on(ticket, LATER, "six", "seven")
    votes.vote(ticket, "right")
    assert votes.counts()[0].total == 2


def test_a_migration_that_fails_leaves_the_old_file_as_it_was(version_1, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(vote_file, "FROM_VERSION_1", "INSERT INTO nowhere VALUES (1);\n")
        with pytest.raises(PlaygroundError, match="cannot be used: no such table: nowhere"):
            version_1.counts()
    with sqlite3.connect(version_1.path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM votes").fetchone() == (3,)
    connection.close()
    assert version_1.counts()[0].total == 3


def test_a_file_that_may_only_be_read_shows_its_votes_and_says_why_it_takes_none(votes, monkeypatch):
    ticket = begin(votes)
    votes.add("b1", side("a"), side("b"), "left")
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, **more: connect(f"file:{path}?mode=ro", uri=True, **more))
    assert votes.counts()[0].total == 1
    with pytest.raises(PlaygroundError, match="cannot be used: attempt to write a readonly database"):
        votes.vote(ticket, "left")


def test_kill_9_in_a_storm_of_votes_loses_no_acknowledged_one(tmp_path):
    path = tmp_path / "votes.sqlite3"
    script = (
        "import sys, itertools\n"
        "from playground.services.votes import Battle, Side, Votes\n"
        "votes, asked = Votes(sys.argv[1]), [{'role': 'user', 'content': 'x'}]\n"
        "for n in itertools.count():\n"
        "    battle = Battle('blind', Side('a', {}, asked), Side('b', {}, asked), category=str(n))\n"
        "    ticket = votes.start(battle)\n"
        "    votes.finish(ticket, 'x', 'y')\n"
        "    votes.vote(ticket, 'left')\n"
        "    print(n, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    acknowledged = [process.stdout.readline() for _ in range(20)]
    os.kill(process.pid, signal.SIGKILL)
    acknowledged += process.stdout.readlines()
    process.wait()
    acknowledged = {int(line) for line in acknowledged if line.endswith("\n")}
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT category FROM votes JOIN battles ON battles.id = battle_id")
        kept = {int(row[0]) for row in rows}
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert len(acknowledged) >= 20
    assert acknowledged <= kept
    assert Votes(path).counts()[0].total == len(kept)
