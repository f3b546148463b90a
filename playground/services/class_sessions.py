"""Class sessions in the votes database: a name, the lanes its battles are drawn from, its shared list of prompts."""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass

from playground.core.jsonl import printable
from playground.errors import PlaygroundError
from playground.services.vote_file import VoteFile

MAX_SESSION_NAME = 80
MAX_PROMPTS = 500
MAX_PROMPT = 20_000  # characters


@dataclass(frozen=True)
class Session:
    """A class: the lanes it draws from (`pool`, keys of the page) and its shared list of prompts."""

    name: str = ""
    pool: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()


class Sessions(VoteFile):
    """The sessions; the one opened last is on."""

    def session(self) -> Session:
        """The class that is on now: the one opened last; one without a name where none was."""
        with self._open() as connection:
            row = connection.execute("SELECT name, pool, prompts FROM sessions ORDER BY opened_at DESC").fetchone()
        return Session(row[0], tuple(json.loads(row[1])), tuple(json.loads(row[2]))) if row else Session()

    def open_session(self, name: str) -> Session:
        """Go on with the session called `name`, or begin it; battles started from now on belong to it."""
        name = printable(" ".join((name or "").split()))
        if len(name) > MAX_SESSION_NAME:
            raise PlaygroundError(
                f"a session's name may have at most {MAX_SESSION_NAME} characters, got {len(name):,}; shorten it"
            )
        before = self.session()
        with self._open(write=True) as connection:
            latest = connection.execute("SELECT max(opened_at) FROM sessions").fetchone()[0] or 0.0
            connection.execute(
                "INSERT INTO sessions (name, opened_at, pool) VALUES (?, ?, ?)"
                " ON CONFLICT (name) DO UPDATE SET opened_at = excluded.opened_at",
                (name, max(time.time(), latest + 1e-3), json.dumps(before.pool)),
            )
        return self.session()

    def set_pool(self, pool: Iterable[str]) -> Session:
        """The lanes that the session's battles are drawn from."""
        return self._set("pool", list(dict.fromkeys(pool)))

    def set_prompts(self, lines: Iterable[str]) -> Session:
        """The session's shared list of prompts, a line each; empty lines and repeated ones are left out."""
        prompts = printable(list(dict.fromkeys(line.strip() for line in lines if line.strip())))
        if len(prompts) > MAX_PROMPTS:
            raise PlaygroundError(f"a shared list takes at most {MAX_PROMPTS} prompts, got {len(prompts):,}")
        long = next((number for number, prompt in enumerate(prompts, 1) if len(prompt) > MAX_PROMPT), None)
        if long:
            raise PlaygroundError(f"prompt {long} of the list is longer than {MAX_PROMPT:,} characters; shorten it")
        return self._set("prompts", prompts)

    def sessions(self) -> dict[str, int]:
        """Name → votes of people, for every session that was opened or has battles."""
        with self._open() as connection:
            rows = connection.execute(
                "SELECT session, count(votes.id) FROM battles LEFT JOIN votes ON battle_id = battles.id"
                " AND judge IS NULL GROUP BY session"
            ).fetchall()
            opened = connection.execute("SELECT name, 0 FROM sessions").fetchall()
        return dict(sorted({**dict(opened), **dict(rows)}.items()))

    def _set(self, column: str, value: list) -> Session:
        current = self.session()
        text = json.dumps(value, ensure_ascii=False)
        with self._open() as connection:
            connection.execute(
                f"INSERT INTO sessions (name, opened_at, {column}) VALUES (?, ?, ?)"
                f" ON CONFLICT (name) DO UPDATE SET {column} = excluded.{column}",
                (current.name, time.time(), text),
            )
        return self.session()
