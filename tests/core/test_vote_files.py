"""Votes out and in again: every format, other people's logs, dirty rows, and preference pairs."""

import json

import pytest

from playground.core import datasets, vote_files
from playground.errors import PlaygroundError
from playground.services.votes import Battle, Side, Votes

ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": 'Name a fruit,\n"any" one.'}]


def side(name, reply, messages=ASKED):
    return Side(name, {"model": name}, messages, reply)


@pytest.fixture
def votes(tmp_path):
    """A blind battle with a vote of people and one of a judge, and two open ones."""
    votes = Votes(tmp_path / "home" / "votes.sqlite3")
    ticket = votes.start(Battle("blind", side("base", ""), side("tuned", ""), "Monday", "writing"))
    votes.finish(ticket, "Apfel é", "Pear\n🍐", (["gemma"], []))
    votes.vote(ticket, "right")
    votes.add_judgement(votes.battles()[0], "judge", "left", {"first": "A", "second": "B"})
    votes.add("b2", side("base", "one"), side("tuned", "two"), "tie")
    votes.add("b3", side("base", "one"), side("tuned", "two", ASKED[1:]), "left")
    return votes


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_what_is_written_is_read_back_whole(votes, tmp_path, format):
    file = tmp_path / f"votes{vote_files.FORMATS[format]}"
    assert vote_files.write(votes.export(), file, format) == 4
    rows, problems, bad = vote_files.read(file)
    assert (problems, bad) == ([], 0)
    other = Votes(tmp_path / "other.sqlite3")
    assert other.import_rows(rows) == (4, 0)
    assert other.export() == votes.export()
    assert other.import_rows(rows) == (0, 4)  # the same file again adds nothing
    assert other.counts() == votes.counts()


def write(tmp_path, *rows, name="log.jsonl"):
    file = tmp_path / name
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return file


def test_dirty_rows_are_named_by_number_and_the_good_ones_kept(tmp_path):
    good = {"left": "a", "right": "b", "winner": "left"}
    file = write(
        tmp_path, good, {**good, "right": "a"}, {**good, "winner": "maybe"}, {"left": "a", "right": "b"}, "{broken",
        {**good, "left": " "}, {"model_a": "a", "model_b": "b", "winner": "tie (bothbad)"},
        {**good, "battle_id": "x"}, {**good, "battle_id": "x"},
    )  # fmt: skip
    rows, problems, bad = vote_files.read(file, session="Monday")
    assert [(row["left"], row["winner"], row["session"]) for row in rows] == [
        ("a", "left", "Monday"), ("a", "both bad", "Monday"), ("a", "left", "Monday"),
    ]  # fmt: skip
    assert bad == 6
    assert [problem.row for problem in problems] == [2, 3, 4, 5, 6, 9]
    assert "a stands against itself" in problems[0]
    assert "left, right, tie or both bad, got 'maybe'" in problems[1]
    assert "no column winner" in problems[2]
    assert "no name" in problems[4]
    assert "earlier row" in problems[5]


def test_what_no_database_takes_is_replaced(tmp_path):
    good = {"left": "a", "right": "b", "winner": "left"}
    file = write(
        tmp_path,
        {
            **good,
            "left": "a\ud83d",
            "left_reply": "half \ud83d",
            "left_messages": [{"role": "user", "content": "\ude00"}],
        },
        {**good, "time": 10**400},
        '{"left": "a", "right": "b", "winner": "tie", "time": Infinity, "details": {"x": NaN}}',
        {**good, "left_messages": [{"role": "user", "content": 5}, {}]},
        {**good, "session": " all", "category": ["x"], "judge": 5},
    )
    rows, problems, bad = vote_files.read(file)
    assert (problems, bad) == ([], 0)
    votes = Votes(tmp_path / "votes.sqlite3")
    assert votes.import_rows(rows) == (5, 0)
    first = votes.export()[0]
    assert (first["left"], first["left_reply"], first["prompt"]) == ("a?", "half ?", "?")
    assert all(1e9 < row["time"] < 1e11 for row in votes.rows())  # a time that is none is now
    assert [row["session"] for row in votes.rows()] == ["", "", "", "", "all"]  # never " all", which is the page's word
    for format in ("jsonl", "csv", "parquet"):
        assert vote_files.write(votes.export(), tmp_path / f"out{vote_files.FORMATS[format]}", format) == 5
    assert vote_files.pairs(votes.export())[0] == []


def test_an_arena_log_with_whole_conversations_is_understood(tmp_path):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    file = write(
        tmp_path,
        {"model_a": "x", "model_b": "y", "winner": "model_b", "conversation_a": turns, "conversation_b": turns,
         "tstamp": 1682351591.1, "judge": "arena_user_1"},
        {"left": "x", "right": "y", "winner": "a", "prompt": "Hi", "response_a": "1", "response_b": "2", "kind": "odd"},
    )  # fmt: skip
    (first, second), _, _ = vote_files.read(file)
    assert (first["left_messages"], first["left_reply"], first["time"]) == (turns[:1], "Hello", 1682351591.1)
    assert (second["left_messages"], second["right_reply"]) == ([{"role": "user", "content": "Hi"}], "2")
    assert second["kind"] == "open"
    assert first["judge"] is None  # a person, and not kept which


def test_a_preference_file_opens_as_a_data_set(votes, tmp_path):
    file = tmp_path / "pairs.jsonl"
    assert vote_files.write(votes.export(), file, "pairs") == 1
    data = datasets.load(file)
    assert (data.format, data.problems) == ("preference", [])
    assert data.conversations[0].messages == [*ASKED, {"role": "assistant", "content": "Pear\n🍐"}]
    assert data.extras[0]["rejected"] == [{"role": "assistant", "content": "Apfel é"}]


def test_votes_without_a_pair_are_counted_by_reason(votes):
    found, told = vote_files.pairs(votes.export())
    assert len(found) == 1
    assert told == "votes left out: 1 with no preference, 1 on replies to different conversations"


def test_a_pair_of_several_turns_holds_both_conversations(tmp_path):
    votes = Votes(tmp_path / "votes.sqlite3")
    ticket = votes.start(Battle("blind", side("base", ""), side("tuned", "")))
    votes.finish(ticket, "Fig", "Pear")
    more = {"role": "user", "content": "Another one."}
    sent = tuple([*ASKED, {"role": "assistant", "content": reply}, more] for reply in ("Fig", "Pear"))
    votes.go_on(ticket, sent, "Plum", "Plum")
    votes.vote(ticket, "right")
    (pair,), told = vote_files.pairs(votes.export())
    assert (pair["prompt"], told) == (ASKED, "")
    assert [m["content"] for m in pair["chosen"]] == ["Pear", "Another one.", "Plum"]
    assert [m["content"] for m in pair["rejected"]] == ["Fig", "Another one.", "Plum"]
    file = tmp_path / "pairs.jsonl"
    vote_files.write(votes.export(), file, "pairs")
    data = datasets.load(file)
    assert data.conversations[0].messages == [*sent[1], {"role": "assistant", "content": "Plum"}]
    assert data.extras[0]["rejected"] == pair["rejected"]


@pytest.mark.parametrize(
    ("rows", "format", "sentence"),
    [
        ([], "csv", "no votes to write yet"),
        ([], "pairs", "no pair to write: there are no votes of people"),
        ([{}], "xls", "got 'xls'"),
    ],
)
def test_what_cannot_be_written_is_said(tmp_path, rows, format, sentence):
    with pytest.raises(PlaygroundError, match=sentence):
        vote_files.write(rows, tmp_path / "out", format)
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(PlaygroundError, match="nothing.jsonl"):
        vote_files.read(tmp_path / "nothing.jsonl")
    (tmp_path / "votes.txt").write_text("x")
    with pytest.raises(PlaygroundError, match="data files end in"):
        vote_files.read(tmp_path / "votes.txt")
