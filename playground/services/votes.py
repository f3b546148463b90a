"""Battles and the votes on them, in one SQLite file.

Kept: the battle with both lanes, what they were sent, both replies, the choice and the time. Not kept: anything about
who voted. A battle belongs to the visitor who holds its token, of which only a hash is kept.

    ticket = votes.start(Battle("blind", left, right, category="writing"))
    votes.finish(ticket, "reply of left", "reply of right")
    votes.go_on(ticket, (asked_left, asked_right), "second reply of left", "second reply of right")  # or none, or more
    votes.vote(ticket, "left")          # or votes.reveal(ticket): then there is no vote any more
"""

import hashlib
import json
import secrets
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playground.errors import PlaygroundError
from playground.services.class_sessions import Session, Sessions
from playground.services.vote_file import REFUSALS, SCHEMA_VERSION, Refused

__all__ = ["CHOICES", "KINDS", "SCHEMA_VERSION", "Battle", "Count", "Refused", "Session", "Side", "Ticket", "Votes"]

CHOICES = ("left", "right", "tie", "both bad")
KINDS = ("open", "blind")
COLUMNS = (
    *("id", "started_at", "finished_at", "revealed_at", "kind", "session", "category"),
    *("left_name", "right_name", "left_lane", "right_lane", "left_messages", "right_messages"),
    *("left_reply", "right_reply", "left_leaks", "right_leaks"),
)
JSON_COLUMNS = ("left_lane", "right_lane", "left_messages", "right_messages", "left_leaks", "right_leaks")


@dataclass(frozen=True)
class Side:
    """One side of a battle: the lane's name, its settings (JSON values), the messages up to its reply, its reply.

    After several turns the messages hold the earlier replies too; where the first of them did not fit into the lane's
    context any more, the settings say so as `left_out`. `leaks`: words in its replies that give it away.
    """

    name: str
    lane: dict
    messages: list[dict]
    reply: str = ""
    leaks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Battle:
    """Two lanes asked the same; `kind` "blind" where the voter is not told the names before the vote."""

    kind: str
    left: Side
    right: Side
    session: str = ""
    category: str = ""


@dataclass(frozen=True)
class Ticket:
    """What the visitor whose battle it is holds."""

    id: str
    token: str = field(repr=False)


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


class Votes(Sessions):
    """Battles and votes in the database at `path`; see `VoteFile`."""

    # Battles ----------------------------------------------------------------------------------------------------------

    def start(self, battle: Battle) -> Ticket:
        """Store a battle without replies yet; only the holder of the ticket can finish it, vote on it and reveal it."""
        ticket = Ticket(uuid.uuid4().hex, secrets.token_urlsafe(24))
        with self._open() as connection:
            _insert_battle(connection, ticket.id, battle, _hash(ticket.token), time.time(), None)
        return ticket

    def finish(
        self, ticket: Ticket, left: str, right: str, leaks: tuple[Iterable[str], Iterable[str]] = ((), ())
    ) -> None:
        """Store both replies; they can be voted on now."""
        self._replied(ticket, {"left_reply": left, "right_reply": right}, leaks)

    def go_on(
        self,
        ticket: Ticket,
        messages: tuple[list[dict], list[dict]],
        left: str,
        right: str,
        leaks: tuple[Iterable[str], Iterable[str]] = ((), ()),
        left_out: tuple[str, str] = ("", ""),
    ) -> None:
        """Store a further turn: each side's talk up to the question, and what it replied.

        `left_out`: what of the talk a side was not sent, in a sentence, where it had outgrown its context.
        Refused once there is a vote, of people or of a judge, and after the reveal.
        """
        sent = {f"{side}_messages": _json(turns) for side, turns in zip(("left", "right"), messages, strict=True)}
        self._replied(ticket, {**sent, "left_reply": left, "right_reply": right}, leaks, left_out)

    def _replied(self, ticket: Ticket, values: dict[str, str], leaks: tuple, left_out: tuple = ("", "")) -> None:
        words = {f"{side}_leaks": _json(list(found)) for side, found in zip(("left", "right"), leaks, strict=True)}
        values = {**values, **words, "finished_at": time.time()}
        with self._owned(ticket) as connection:
            columns = ", ".join(f"{column} = ?" for column in values)
            connection.execute(f"UPDATE battles SET {columns} WHERE id = ?", (*values.values(), ticket.id))
            for side, sentence in zip(("left", "right"), left_out, strict=True):
                if sentence:
                    told = f"{side}_lane = json_set({side}_lane, '$.left_out', ?)"
                    connection.execute(f"UPDATE battles SET {told} WHERE id = ?", (sentence, ticket.id))

    def vote(self, ticket: Ticket, choice: str) -> None:
        """Store the vote of people on a battle; on return it is on the disk, and the names may be shown."""
        _check_choice(choice)
        with self._owned(ticket) as connection:
            connection.execute(
                "INSERT INTO votes (battle_id, time, choice) VALUES (?, ?, ?)", (ticket.id, time.time(), choice)
            )

    def reveal(self, ticket: Ticket) -> None:
        """The names are shown without a vote: from now on the database refuses one."""
        with self._owned(ticket) as connection:
            connection.execute(
                "UPDATE battles SET revealed_at = coalesce(revealed_at, ?) WHERE id = ?", (time.time(), ticket.id)
            )

    def add(self, battle_id: str, left: Side, right: Side, choice: str, session: str = "", category: str = "") -> None:
        """Store an open battle and its vote in one; PlaygroundError if this battle has its vote already."""
        _check_choice(choice)
        if left.messages[-1:] != right.messages[-1:]:
            raise PlaygroundError("these two lanes were not asked the same thing; send a prompt to both, then vote")
        now, battle = time.time(), Battle("open", left, right, session, category)
        with self._open(write=True) as connection:
            if connection.execute("SELECT 1 FROM battles WHERE id = ?", (battle_id,)).fetchone():
                raise Refused(REFUSALS["voted"])
            _insert_battle(connection, battle_id, battle, "", now, now)
            connection.execute("INSERT INTO votes (battle_id, time, choice) VALUES (?, ?, ?)", (battle_id, now, choice))

    def add_judgement(self, battle: dict, judge: str, choice: str, details: dict) -> bool:
        """Store a judge's vote on a battle (a row of `battles`), apart from those of people.

        False where this judge has voted on it already, or the battle has gone on since the row was read.
        """
        _check_choice(choice)
        if not judge:
            raise PlaygroundError("a judge needs a name")
        with self._open() as connection:
            done = connection.execute(
                "INSERT OR IGNORE INTO votes (battle_id, judge, time, choice, details)"
                " SELECT id, ?, ?, ?, ? FROM battles WHERE id = ? AND finished_at = ?",
                (judge, time.time(), choice, _json(details), battle["id"], battle["finished_at"]),
            )
            return done.rowcount == 1

    def import_rows(self, rows: Iterable[dict]) -> tuple[int, int]:
        """Store votes as `core.vote_files.read` gives them: (new ones, ones that were here already); all or nothing."""
        new = known = 0
        with self._open(write=True) as connection:
            for row in rows:
                sides = [
                    Side(
                        row[side],
                        row[f"{side}_lane"],
                        row[f"{side}_messages"],
                        row[f"{side}_reply"],
                        tuple(row[f"{side}_leaks"]),
                    )
                    for side in ("left", "right")
                ]
                battle = Battle(row["kind"], *sides, row["session"], row["category"])
                if not connection.execute("SELECT 1 FROM battles WHERE id = ?", (row["battle_id"],)).fetchone():
                    _insert_battle(connection, row["battle_id"], battle, "", row["time"], row["time"])
                if _has_vote(connection, row["battle_id"], row["judge"]):
                    known += 1
                    continue
                connection.execute(
                    "INSERT INTO votes (battle_id, judge, time, choice, details) VALUES (?, ?, ?, ?, ?)",
                    (
                        row["battle_id"],
                        row["judge"],
                        row["time"],
                        row["winner"],
                        _json(row["details"]),
                    ),
                )
                new += 1
        return new, known

    # What there is ----------------------------------------------------------------------------------------------------

    def counts(self) -> list[Count]:
        """Votes of people, one row per pair of names, most votes first."""
        sums: dict[tuple[str, str], dict[str, int]] = {}
        with self._open() as connection:
            rows = connection.execute(
                "SELECT left_name, right_name, choice, count(*) FROM votes JOIN battles ON battles.id = battle_id"
                " WHERE judge IS NULL GROUP BY left_name, right_name, choice"
            ).fetchall()
        for left, right, choice, number in rows:
            flipped = left > right
            first, second = (right, left) if flipped else (left, right)
            winner = {
                "left": "second_wins" if flipped else "first_wins",
                "right": "first_wins" if flipped else "second_wins",
            }
            name = {"tie": "ties", "both bad": "both_bad", **winner}[choice]
            pair = sums.setdefault((first, second), {})
            pair[name] = pair.get(name, 0) + number
        counts = [Count(first, second, **numbers) for (first, second), numbers in sums.items()]
        return sorted(counts, key=lambda count: (-count.total, count.first, count.second))

    def state(self) -> tuple:
        """Equal as long as no vote came or went."""
        with self._open() as connection:
            return tuple(connection.execute("SELECT count(*), max(id), max(time), total(time) FROM votes").fetchone())

    def rows(self, session: str | None = None) -> list[dict]:
        """Every vote in the order given, of people (`judge` None) and judges, without replies and settings.

        `left_length` and `right_length` are the characters of what was voted on: a blind battle's replies of all turns,
        an open one's last. `leaked` says that one gave away a name.
        """
        where, values = ("WHERE session = ?", (session,)) if session is not None else ("", ())
        with self._open() as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute(
                "SELECT battle_id, time, left_name AS 'left', right_name AS 'right', choice AS winner, judge, kind,"
                f" session, category, {_length('left')} AS left_length, {_length('right')} AS right_length,"
                " left_leaks != '[]' OR right_leaks != '[]' AS leaked, details"
                f" FROM votes JOIN battles ON battles.id = battle_id {where} ORDER BY votes.id",
                values,
            ).fetchall()
        return [{**dict(row), "details": json.loads(row["details"])} for row in found]

    def export(self, session: str | None = None) -> list[dict]:
        """Every vote with all that is kept of it; what `import_rows` takes."""
        where, values = ("WHERE session = ?", (session,)) if session is not None else ("", ())
        columns = ", ".join(f"battles.{column}" for column in COLUMNS if column not in ("started_at", "finished_at"))
        with self._open() as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute(
                f"SELECT {columns}, judge, time, choice, details FROM votes JOIN battles ON battles.id = battle_id"
                f" {where} ORDER BY votes.id",
                values,
            ).fetchall()
        return [_exported(dict(row)) for row in found]

    def battles(self, session: str | None = None, judge: str = "") -> list[dict]:
        """Finished battles that `judge` has not voted on, those that people have voted on first."""
        where = "AND session = ?" if session is not None else ""
        values = (judge, *([session] if session is not None else []))
        with self._open() as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute(
                f"SELECT {', '.join(COLUMNS)},"
                " (SELECT choice FROM votes WHERE battle_id = battles.id AND judge IS NULL) AS choice FROM battles"
                " WHERE finished_at IS NOT NULL AND left_reply != '' AND right_reply != ''"
                f" AND NOT EXISTS (SELECT 1 FROM votes WHERE battle_id = battles.id AND judge = ?) {where}"
                " ORDER BY choice IS NULL, started_at, id",
                values,
            ).fetchall()
        return [_read(dict(row)) for row in found]

    def met(self, session: str) -> dict[tuple[str, str], int]:
        """How often each pair of names (sorted) has been drawn for a blind battle in this session."""
        with self._open() as connection:
            rows = connection.execute(
                "SELECT min(left_name, right_name), max(left_name, right_name), count(*) FROM battles"
                " WHERE kind = 'blind' AND session = ? GROUP BY 1, 2",
                (session,),
            ).fetchall()
        return {(first, second): number for first, second, number in rows}

    def categories(self) -> list[str]:
        with self._open() as connection:
            rows = connection.execute(
                "SELECT DISTINCT category FROM battles JOIN votes ON battle_id = battles.id WHERE category != ''"
                " ORDER BY category"
            ).fetchall()
        return [row[0] for row in rows]

    def reset(self, session: str) -> Path | None:
        """Delete a session's battles and votes; they are written to a file beside the database first, whose path is
        returned (None where there was no vote)."""
        rows = self.export(session)
        kept = None
        if rows:
            kept = self.path.with_name(f"deleted-votes-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}.jsonl")
            try:
                kept.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
            except OSError as error:
                raise PlaygroundError(
                    f"the votes cannot be kept in {kept.parent} ({error.strerror or error}), so none was deleted"
                ) from None
        last = max((row["time"] for row in rows), default=0.0)
        with self._open(write=True) as connection:
            late = connection.execute(
                "SELECT count(*) FROM votes JOIN battles ON battles.id = battle_id WHERE session = ? AND time > ?",
                (session, last),
            ).fetchone()[0]
            if late:
                raise PlaygroundError("a vote came in just now, so nothing was deleted; try again")
            connection.execute(
                "DELETE FROM votes WHERE battle_id IN (SELECT id FROM battles WHERE session = ?)", (session,)
            )
            connection.execute("DELETE FROM battles WHERE session = ?", (session,))
        return kept

    @contextmanager
    def _owned(self, ticket: Ticket) -> Iterator[sqlite3.Connection]:
        """A connection, once the ticket's token has been found to be that of the battle."""
        with self._open(write=True) as connection:
            row = connection.execute("SELECT token_hash FROM battles WHERE id = ?", (ticket.id,)).fetchone()
            if row is None:
                raise Refused("there is no such battle any more; the session may have been reset: start anew")
            if not secrets.compare_digest(row[0], _hash(ticket.token)):
                raise Refused("this battle is not yours, so you cannot vote on it; start one of your own")
            yield connection


def _length(side: str) -> str:
    """SQL for the characters of a side's replies. Most battles have one turn, whose messages need not be parsed."""
    before = (
        f"(SELECT coalesce(sum(length(turn.value ->> 'content')), 0) FROM json_each({side}_messages) AS turn"
        " WHERE turn.value ->> 'role' = 'assistant')"
    )
    several = f"kind = 'blind' AND instr({side}_messages, '\"assistant\"')"
    return f"length({side}_reply) + CASE WHEN {several} THEN {before} ELSE 0 END"


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _json(value) -> str:
    return json.dumps(value, ensure_ascii=False)


def _check_choice(choice: str) -> None:
    if choice not in CHOICES:
        raise PlaygroundError(f"a vote is one of {', '.join(CHOICES)}, got {choice!r}")


def _has_vote(connection: sqlite3.Connection, battle_id: str, judge: str | None) -> bool:
    return bool(
        connection.execute(
            "SELECT 1 FROM votes WHERE battle_id = ? AND coalesce(judge, '') = ?", (battle_id, judge or "")
        ).fetchone()
    )


def _insert_battle(connection, id: str, battle: Battle, token_hash: str, started: float, finished: float | None):
    if battle.kind not in KINDS:
        raise PlaygroundError(f"a battle is {' or '.join(KINDS)}, got {battle.kind!r}")
    left, right = battle.left, battle.right
    texts = [left.lane, right.lane, left.messages, right.messages, list(left.leaks), list(right.leaks)]
    connection.execute(
        "INSERT INTO battles (id, token_hash, started_at, finished_at, kind, session, category, left_name, right_name,"
        " left_reply, right_reply, left_lane, right_lane, left_messages, right_messages, left_leaks, right_leaks)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(id, token_hash, started, finished, battle.kind, battle.session, battle.category),
            *(left.name, right.name, left.reply, right.reply),
            *map(_json, texts),
        ),
    )


def _read(row: dict) -> dict:
    return {**row, **{column: json.loads(row[column]) for column in JSON_COLUMNS}}


def _exported(row: dict) -> dict:
    """A vote under the names of its file: what `playground arena ratings` reads comes first."""
    row = _read(row)
    first = {"left": row.pop("left_name"), "right": row.pop("right_name"), "winner": row.pop("choice")}
    row["details"], row["battle_id"] = json.loads(row["details"]), row.pop("id")
    row.pop("revealed_at")
    asked = [message.get("content", "") for message in row["left_messages"] if message.get("role") == "user"]
    return {**first, "prompt": str(asked[-1] or "") if asked else "", **row}
