"""`playground arena`: votes out of the app and in again, ratings that never mix people and judges."""

import json

import pytest

from playground import cli
from playground.config import Paths
from playground.services.votes import Side, Votes

ASKED = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def votes(tmp_path, monkeypatch):
    monkeypatch.setenv("PLAYGROUND_HOME", str(tmp_path / "home"))
    votes = Votes(Paths().votes)
    votes.add("b1", Side("base", {}, ASKED, "one"), Side("tuned", {}, ASKED, "two"), "right", "Monday")
    votes.add("b2", Side("base", {}, ASKED, "one"), Side("tuned", {}, ASKED, "two"), "right", "Tuesday")
    for battle in votes.battles():
        votes.add_judgement(battle, "J", "left", {"first": "A", "second": "B"})
    return votes


def arena(capsys, *words):
    cli.main(["arena", *map(str, words), "--json"])
    out = capsys.readouterr().out
    return json.loads(out.splitlines()[-1]), out


@pytest.mark.parametrize("name", ["votes.jsonl", "votes.csv", "votes.parquet"])
def test_votes_go_out_and_come_back(votes, tmp_path, capsys, monkeypatch, name):
    file = tmp_path / name
    assert arena(capsys, "export", file)[0]["rows"] == 4
    monkeypatch.setenv("PLAYGROUND_HOME", str(tmp_path / "other"))
    assert arena(capsys, "import", file)[0]["added"] == 4
    assert Votes(Paths().votes).export() == votes.export()
    assert arena(capsys, "import", file)[0] == {"added": 0, "known": 4, "left_out": 0, "problems": []}


def test_ratings_of_a_file_count_people_or_one_judge(votes, tmp_path, capsys):
    file = tmp_path / "votes.csv"
    arena(capsys, "export", file)
    people, out = arena(capsys, "ratings", "--votes", file)
    assert (people["votes"], people["apart"], people["leaderboard"][0]["model"]) == (2, 2, "tuned")
    assert "2 votes of judges are not counted here" in out
    judge, _ = arena(capsys, "ratings", "--votes", file, "--judge", "J")
    assert (judge["votes"], judge["leaderboard"][0]["model"]) == (2, "base")


def test_one_session_and_its_pairs(votes, tmp_path, capsys):
    file = tmp_path / "pairs.jsonl"
    assert arena(capsys, "export", file, "--session", "Monday", "--format", "pairs")[0]["rows"] == 1
    assert json.loads(file.read_text())["chosen"] == [{"role": "assistant", "content": "two"}]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["export", "{}/x.xls"], "does not say what to write"),
        (["export", "{}/home/votes.sqlite3", "--format", "csv"], "exists already"),
        (["export", "{}/x.csv", "--session", "Friday"], "no session 'Friday'; the sessions are: 'Monday', 'Tuesday'"),
        (["import", "{}/none.csv"], "none.csv"),
        (["ratings", "--votes", "{}/plain.csv", "--style"], "no replies of different length"),
    ],
)
def test_what_cannot_be_done_is_said(votes, tmp_path, capsys, words, sentence):
    (tmp_path / "plain.csv").write_text("left,right,winner\na,b,left\n")
    with pytest.raises(SystemExit):
        cli.main(["arena", *(word.format(tmp_path) for word in words)])
    assert sentence in capsys.readouterr().err


def test_bad_rows_are_printed_with_their_numbers(votes, tmp_path, capsys):
    file = tmp_path / "log.csv"
    file.write_text("left,right,winner\na,a,left\n" + "a,b,maybe\n" * 12 + "a,b,left\n")
    result, out = arena(capsys, "import", file, "--session", "Old")
    assert (result["added"], result["left_out"]) == (1, 13)
    assert "log.csv, row 1: a stands against itself" in out
    assert "left out: 3 more" in out
    assert votes.sessions()["Old"] == 1


def test_length_is_taken_out_of_exported_votes(votes, tmp_path, capsys):
    long, short = Side("base", {}, ASKED, "word " * 9), Side("tuned", {}, ASKED, "word")
    for number in range(8):
        sides = (long, short) if number % 2 else (short, long)
        votes.add(f"c{number}", *sides, "left" if number < 6 else "right")
    file = tmp_path / "votes.jsonl"
    arena(capsys, "export", file)
    plain, styled = (arena(capsys, "ratings", "--votes", file, *more)[0]["leaderboard"] for more in ([], ["--style"]))
    assert plain != styled


@pytest.mark.parametrize("names", [("model_a", "model_b", "winner"), ("left", "right", "label")])
def test_a_log_is_rated_under_the_names_it_has(tmp_path, capsys, names):
    file = tmp_path / "log.jsonl"
    rows = [dict(zip(names, ("x", "y", word), strict=True)) for word in ("model_a", "model_a", "tie", "model_b")]
    file.write_text("".join(json.dumps({**row, "response_a": "long " * 9, "response_b": "s"}) + "\n" for row in rows))
    result, _ = arena(capsys, "ratings", "--votes", file, "--style")
    assert [(line["model"], line["votes"]) for line in result["leaderboard"]] == [("x", 4), ("y", 4)]
