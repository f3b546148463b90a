"""The votes database as a file: its tables, how an older file becomes a new one, and connections to it.

Version 1 had one table of votes. Since version 2 a battle (two replies to one prompt) is a row of its own, written when
it starts; people and judges vote on it. The database itself refuses a second vote of people on a battle, a vote after
its reveal, and a vote before both replies are there. Since version 3 a battle may go on for more turns until then: its
messages and replies are those of the last turn, and the vote is on the whole conversation.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playground.errors import PlaygroundError

SCHEMA_VERSION = 3
# What the triggers below say, in words.
REFUSALS = {
    "voted": "this pair of replies has its vote already; ask something new to vote again",
    "revealed": "the names of this battle have been shown, so it takes no vote any more; start a new one",
    "unfinished": "both replies must be there before the vote; wait until they are finished",
    "judged": "a judge has voted on this battle already, so it ends here; vote on it, or skip it",
    "finished": "the replies of this battle are stored already; start a new one",
}
TABLES = """
CREATE TABLE battles (
    id TEXT PRIMARY KEY,
    token_hash TEXT NOT NULL,
    started_at REAL NOT NULL,
    finished_at REAL,
    revealed_at REAL,
    kind TEXT NOT NULL CHECK (kind IN ('open', 'blind')),
    session TEXT NOT NULL DEFAULT '',
    category TEXT NOT NULL DEFAULT '',
    left_name TEXT NOT NULL,
    right_name TEXT NOT NULL,
    left_lane TEXT NOT NULL,
    right_lane TEXT NOT NULL,
    left_messages TEXT NOT NULL,
    right_messages TEXT NOT NULL,
    left_reply TEXT NOT NULL DEFAULT '',
    right_reply TEXT NOT NULL DEFAULT '',
    left_leaks TEXT NOT NULL DEFAULT '[]',
    right_leaks TEXT NOT NULL DEFAULT '[]'
) STRICT;
CREATE INDEX battles_of_session ON battles (session);
CREATE TABLE votes (
    id INTEGER PRIMARY KEY,
    battle_id TEXT NOT NULL REFERENCES battles (id) ON DELETE CASCADE,
    judge TEXT,
    time REAL NOT NULL,
    choice TEXT NOT NULL CHECK (choice IN ('left', 'right', 'tie', 'both bad')),
    details TEXT NOT NULL DEFAULT '{}'
) STRICT;
CREATE UNIQUE INDEX one_vote ON votes (battle_id, coalesce(judge, ''));
CREATE TABLE sessions (
    name TEXT PRIMARY KEY,
    opened_at REAL NOT NULL,
    pool TEXT NOT NULL DEFAULT '[]',
    prompts TEXT NOT NULL DEFAULT '[]'
) STRICT;
"""
# In this order: a battle that has its vote says so, although its vote has revealed it too.
TRIGGERS = """
CREATE TRIGGER no_vote_after_reveal BEFORE INSERT ON votes
WHEN NEW.judge IS NULL
BEGIN
    SELECT RAISE(ABORT, 'voted') WHERE EXISTS (SELECT 1 FROM votes WHERE battle_id = NEW.battle_id AND judge IS NULL);
    SELECT RAISE(ABORT, 'revealed') FROM battles WHERE id = NEW.battle_id AND revealed_at IS NOT NULL;
    SELECT RAISE(ABORT, 'unfinished') FROM battles WHERE id = NEW.battle_id AND finished_at IS NULL;
END;
CREATE TRIGGER a_vote_reveals AFTER INSERT ON votes
WHEN NEW.judge IS NULL
BEGIN
    UPDATE battles SET revealed_at = NEW.time WHERE id = NEW.battle_id;
END;
"""
# What people or a judge have voted on stays as it was; until then only further turns may come.
REPLIES_ARE_FINAL = """
CREATE TRIGGER replies_are_final BEFORE UPDATE OF left_messages, right_messages, left_reply, right_reply ON battles
WHEN OLD.finished_at IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'voted') WHERE EXISTS (SELECT 1 FROM votes WHERE battle_id = OLD.id AND judge IS NULL);
    SELECT RAISE(ABORT, 'revealed') WHERE OLD.revealed_at IS NOT NULL;
    SELECT RAISE(ABORT, 'judged') WHERE EXISTS (SELECT 1 FROM votes WHERE battle_id = OLD.id);
    SELECT RAISE(ABORT, 'finished') WHERE json_array_length(NEW.left_messages) <= json_array_length(OLD.left_messages)
        OR json_array_length(NEW.right_messages) <= json_array_length(OLD.right_messages);
END;
"""
FROM_VERSION_1 = """
INSERT INTO battles (id, token_hash, started_at, finished_at, kind, left_name, right_name, left_lane, right_lane,
                     left_messages, right_messages, left_reply, right_reply)
SELECT battle_id, '', time, time, 'open', left_name, right_name, left_lane, right_lane,
       left_messages, right_messages, left_reply, right_reply FROM votes_1;
INSERT INTO votes (battle_id, time, choice) SELECT battle_id, time, choice FROM votes_1 ORDER BY id;
DROP TABLE votes_1;
"""


def migrate(connection: sqlite3.Connection, where: str) -> None:
    """Make the tables of SCHEMA_VERSION, keeping every vote of an older file; all or nothing.

    Raises PlaygroundError for a file of a newer version.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise PlaygroundError(
            f"the votes in {where} are of version {version}, this app knows up to {SCHEMA_VERSION};"
            " update the app, or move the file away to start a new one"
        )
    if version == SCHEMA_VERSION:
        return
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        # another process may have done it while we waited for the lock
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 1:
            connection.execute("ALTER TABLE votes RENAME TO votes_1")
        if version < 2:
            _run(connection, TABLES)
            _run(connection, TRIGGERS)
            _run(connection, FROM_VERSION_1 if version == 1 else "")
        if version < SCHEMA_VERSION:
            connection.execute("DROP TRIGGER IF EXISTS replies_are_final")
            _run(connection, REPLIES_ARE_FINAL)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _run(connection: sqlite3.Connection, script: str) -> None:
    """Statement by statement: `executescript` would commit what is under way."""
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""


class Refused(PlaygroundError):
    """This battle takes no vote from this visitor, now or later."""


class VoteFile:
    """The database at `path`, made on first use. One connection per call: threads and processes may share it."""

    def __init__(self, path: Path, wait: float = 5.0):
        self.path = Path(path)
        self.wait = wait  # seconds to wait for another writer

    @contextmanager
    def _open(self, write: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection; with `write` in one transaction, which an error undoes."""
        connection = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=self.wait, isolation_level=None)
            # FULL: in WAL mode the log is synced at every commit, so an acknowledged vote survives a power cut too
            connection.execute("PRAGMA synchronous = FULL")
            migrate(connection, str(self.path))
            connection.execute("PRAGMA foreign_keys = ON")
            if write:
                connection.execute("BEGIN IMMEDIATE")
            yield connection
            if write:
                connection.execute("COMMIT")
        except sqlite3.IntegrityError as error:
            known = REFUSALS.get(str(error)) or (REFUSALS["voted"] if "UNIQUE" in str(error) else None)
            if known:
                raise Refused(known) from None
            raise PlaygroundError(f"the votes in {self.path} refuse this: {error}") from None
        except (sqlite3.Error, OSError) as error:
            raise PlaygroundError(f"the votes in {self.path} cannot be used: {error}") from error
        finally:
            if connection:
                connection.close()  # what was not committed is undone
