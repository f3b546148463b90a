"""Votes: one per battle, counted whichever side a lane stood on, on the disk once acknowledged."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest

from playground.errors import PlaygroundError
from playground.services.votes import SCHEMA_VERSION, Count, Side, Votes

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
    votes.add("b1", side("base", "5"), side("tuned", "4"), "right")
    with sqlite3.connect(votes.path) as connection:
        connection.row_factory = sqlite3.Row
        row = dict(connection.execute("SELECT * FROM votes").fetchone())
    assert set(row) == {
        "id", "battle_id", "time", "left_name", "right_name", "left_lane", "right_lane",
        "left_messages", "right_messages", "left_reply", "right_reply", "choice",
    }  # fmt: skip
    assert row["left_reply"] == "5"
    assert row["right_lane"] == '{"model": "tuned", "temperature": 0.7}'
    assert "What is 2 + 2?" in row["left_messages"]


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


def test_kill_9_in_a_storm_of_votes_loses_no_acknowledged_one(tmp_path):
    path = tmp_path / "votes.sqlite3"
    script = (
        "import sys, itertools\n"
        "from playground.services.votes import Side, Votes\n"
        "votes, asked = Votes(sys.argv[1]), [{'role': 'user', 'content': 'x'}]\n"
        "for n in itertools.count():\n"
        "    votes.add(f'b{n}', Side('a', {}, asked, 'r'), Side('b', {}, asked, 'r'), 'left')\n"
        "    print(n, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    acknowledged = [process.stdout.readline() for _ in range(20)]
    os.kill(process.pid, signal.SIGKILL)
    acknowledged += process.stdout.readlines()
    process.wait()
    acknowledged = {int(line) for line in acknowledged if line.endswith("\n")}
    with sqlite3.connect(path) as connection:
        kept = {int(row[0][1:]) for row in connection.execute("SELECT battle_id FROM votes")}
    assert len(acknowledged) >= 20
    assert acknowledged <= kept
    assert Votes(path).counts()[0].total == len(kept)
