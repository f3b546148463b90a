"""Votes on pairs of replies, in one SQLite file.

Kept: the battle, the two lanes with their settings, what they were sent, both replies, the choice and the time.
Not kept: anything about who voted.
"""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playground.errors import PlaygroundError

CHOICES = ("left", "right", "tie", "both bad")
SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE votes (
    id INTEGER PRIMARY KEY,
    battle_id TEXT NOT NULL UNIQUE,
    time REAL NOT NULL,
    left_name TEXT NOT NULL,
    right_name TEXT NOT NULL,
    left_lane TEXT NOT NULL,
    right_lane TEXT NOT NULL,
    left_messages TEXT NOT NULL,
    right_messages TEXT NOT NULL,
    left_reply TEXT NOT NULL,
    right_reply TEXT NOT NULL,
    choice TEXT NOT NULL CHECK (choice IN ('left', 'right', 'tie', 'both bad'))
) STRICT
"""


@dataclass(frozen=True)
class Side:
    """One side of a battle: the lane's name, its settings (JSON values), the messages it was sent, its reply."""

    name: str
    lane: dict
    messages: list[dict]
    reply: str


@dataclass(frozen=True)
class Count:
    """All votes on one pair of names, whichever side each stood on (`first` sorts before `second`)."""

    first: str
    second: str
    first_wins: int = 0
    second_wins: int = 0
    ties: int = 0
    both_bad: int = 0

    @property
    def total(self) -> int:
        return self.first_wins + self.second_wins + self.ties + self.both_bad


class Votes:
    """The votes database at `path`, made on first use. One connection per call: threads and processes may share it."""

    def __init__(self, path: Path, wait: float = 5.0):
        self.path = Path(path)
        self.wait = wait  # seconds to wait for another writer

    def add(self, battle_id: str, left: Side, right: Side, choice: str) -> None:
        """Store one vote; on return it is on the disk. PlaygroundError if this battle has its vote already."""
        if choice not in CHOICES:
            raise PlaygroundError(f"a vote is one of {', '.join(CHOICES)}, got {choice!r}")
        if left.messages[-1:] != right.messages[-1:]:
            raise PlaygroundError("these two lanes were not asked the same thing; send a prompt to both, then vote")
        values = (left.lane, right.lane, left.messages, right.messages)
        row = (
            battle_id,
            time.time(),
            left.name,
            right.name,
            *(json.dumps(value, ensure_ascii=False) for value in values),
            left.reply,
            right.reply,
            choice,
        )
        with self._open() as connection:
            try:
                connection.execute(
                    "INSERT INTO votes (battle_id, time, left_name, right_name, left_lane, right_lane,"
                    " left_messages, right_messages, left_reply, right_reply, choice)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    row,
                )
            except sqlite3.IntegrityError:
                raise PlaygroundError(
                    "this pair of replies has its vote already; ask something new to vote again"
                ) from None

    def counts(self) -> list[Count]:
        """One row per pair of names, most votes first."""
        sums: dict[tuple[str, str], dict[str, int]] = {}
        with self._open() as connection:
            rows = connection.execute(
                "SELECT left_name, right_name, choice, count(*) FROM votes GROUP BY left_name, right_name, choice"
            ).fetchall()
        for left, right, choice, number in rows:
            flipped = left > right
            first, second = (right, left) if flipped else (left, right)
            winner = {
                "left": "second_wins" if flipped else "first_wins",
                "right": "first_wins" if flipped else "second_wins",
            }
            field = {"tie": "ties", "both bad": "both_bad", **winner}[choice]
            pair = sums.setdefault((first, second), {})
            pair[field] = pair.get(field, 0) + number
        counts = [Count(first, second, **numbers) for (first, second), numbers in sums.items()]
        return sorted(counts, key=lambda count: (-count.total, count.first, count.second))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        connection = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=self.wait, isolation_level=None)
            # FULL: in WAL mode the log is synced at every commit, so an acknowledged vote survives a power cut too
            connection.execute("PRAGMA synchronous = FULL")
            self._migrate(connection)
            yield connection
        except (sqlite3.Error, OSError) as error:
            raise PlaygroundError(f"the votes in {self.path} cannot be used: {error}") from error
        finally:
            if connection:
                connection.close()

    def _migrate(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise PlaygroundError(
                f"the votes in {self.path} are of version {version}, this app knows up to {SCHEMA_VERSION};"
                " update the app, or move the file away to start a new one"
            )
        if version == SCHEMA_VERSION:
            return
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        # another process may have made the table while we waited for the lock
        if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            connection.execute(SCHEMA)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
