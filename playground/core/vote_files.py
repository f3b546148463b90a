"""Votes as files: JSONL, CSV and Parquet out and in, and preference pairs out.

A row is what `Votes.export` gives: left, right, winner, prompt, both replies with their lanes and messages, the
battle's kind, session and category, the judge (None: people), the time. Only left, right and winner must be there.
"""

import csv
import hashlib
import json
import math
import re
import time
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from playground.core.datasets import Problem
from playground.core.datasets import rows as read_rows
from playground.core.jsonl import printable
from playground.core.judge import shared_turns
from playground.core.ratings import MEANING
from playground.errors import PlaygroundError

FORMATS = {"jsonl": ".jsonl", "csv": ".csv", "parquet": ".parquet", "pairs": ".jsonl"}
NAMES = {"left": ("left", "model_a", "model_x"), "right": ("right", "model_b", "model_y")}
REPLIES = {
    "left": ("left_reply", "response_a", "conversation_a"),
    "right": ("right_reply", "response_b", "conversation_b"),
}
WINNER = ("winner", "choice", "label", "preference")
PROMPT = ("prompt", "question", "instruction")
PEOPLE = re.compile(r"(arena_user|author|expert|human|user)(_|\b)", re.IGNORECASE)
MAX_PROBLEMS = 200  # kept; all are counted
MAX_NAME = 200
NAMESPACE = uuid.UUID("5e2b6f0a-3d0c-4c1e-9a74-8f0e6ad0c3b1")


def write(rows: list[dict], path: Path, format: str) -> int:
    """Write votes as `format` (see FORMATS) and return how many rows the file has. Raises PlaygroundError."""
    if format not in FORMATS:
        raise PlaygroundError(f"votes are written as {', '.join(FORMATS)}, got {format!r}")
    if format == "pairs":
        rows, why = pairs(rows)
        if not rows:
            raise PlaygroundError(f"there is no pair to write: {why}")
    if not rows:
        raise PlaygroundError("there are no votes to write yet; vote on some battles first")
    try:
        if format == "parquet":
            _write_parquet(rows, path)
        elif format == "csv":
            _write_csv(rows, path)
        else:
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    except OSError as error:
        raise PlaygroundError(f"{path} cannot be written: {error.strerror or error}") from None
    return len(rows)


def _flat(row: Mapping) -> dict:
    """Lists and objects as JSON text: CSV has nothing else, and Parquet's columns have one type."""
    return {
        name: json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value
        for name, value in row.items()
    }


def _write_csv(rows: list[dict], path: Path) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(map(_flat, rows))


def _write_parquet(rows: list[dict], path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    types = {"time": pyarrow.float64()}
    schema = pyarrow.schema([(name, types.get(name, pyarrow.string())) for name in rows[0]])
    parquet.write_table(pyarrow.Table.from_pylist([_flat(row) for row in rows], schema=schema), path)


def pairs(rows: Iterable[dict]) -> tuple[list[dict], str]:
    """Preference pairs of people's votes, {prompt, chosen, rejected}; and a sentence on the votes that give none.

    `prompt` holds the messages that both sides were sent alike. After several turns, in which each side has replied in
    its own way, `chosen` and `rejected` are the rest of the two conversations and end with the last replies.
    """
    found, undecided, unlike, empty = [], 0, 0, 0
    for row in rows:
        if row["judge"]:
            continue
        if row["winner"] not in ("left", "right"):
            undecided += 1
            continue
        other = "right" if row["winner"] == "left" else "left"
        chosen, rejected = row[f"{row['winner']}_reply"], row[f"{other}_reply"]
        kept, lost = row[f"{row['winner']}_messages"], row[f"{other}_messages"]
        shared = shared_turns(kept, lost)
        if not chosen.strip() or not rejected.strip() or not kept or (chosen == rejected and kept == lost):
            empty += 1
        elif not shared or _asked(kept) != _asked(lost):
            unlike += 1
        else:
            found.append(
                {
                    "prompt": kept[:shared],
                    "chosen": [*kept[shared:], {"role": "assistant", "content": chosen}],
                    "rejected": [*lost[shared:], {"role": "assistant", "content": rejected}],
                }
            )
    left_out = [
        (undecided, "with no preference"),
        (unlike, "on replies to different conversations"),
        (empty, "with an empty reply, two equal ones or no prompt"),
    ]
    told = ", ".join(f"{number:,} {why}" for number, why in left_out if number)
    if told:
        return found, f"votes left out: {told}"
    return found, "" if found else "there are no votes of people yet"


def _asked(messages: list[dict]) -> list[dict]:
    """What does not come from the model."""
    return [message for message in messages if message.get("role") != "assistant"]


def read(path: Path, session: str = "") -> tuple[list[dict], list[Problem], int]:
    """Votes of a JSON, JSONL, CSV or Parquet file, the first problems by row, and how many rows were left out.

    `session` is where votes go whose row names none. Raises PlaygroundError for a file that cannot be read at all.
    """
    found, problems, bad, seen = [], [], 0, set()
    digest = _digest(path)
    for row in read_rows(path):
        if not isinstance(row, Problem):
            try:
                values = printable({str(name).strip().lower(): value for name, value in row.value.items()})
                vote = _vote(values, digest, row.number)
            except PlaygroundError as error:
                row = Problem(path.name, row.number, None, str(error))
            else:
                key = vote["battle_id"], vote["judge"] or ""
                if key not in seen:
                    seen.add(key)
                    found.append({**vote, "session": vote["session"] or session})
                    continue
                row = Problem(path.name, row.number, None, "a vote on this battle stands in an earlier row")
        bad += 1
        problems += [row][: max(0, MAX_PROBLEMS - len(problems))]
    return found, problems, bad


def named(row: Mapping) -> dict:
    """A row of a log under the names that `ratings.count` reads, whichever of the known ones it has."""
    known = {**NAMES, "winner": WINNER, **{f"{side}_reply": names[:2] for side, names in REPLIES.items()}}
    found = {ours: next((row[name] for name in theirs if name in row), None) for ours, theirs in known.items()}
    return {**row, **{ours: value for ours, value in found.items() if value is not None}}


def _digest(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise PlaygroundError(f"{path} cannot be read: {error.strerror or error}") from None


def _vote(row: dict, digest: str, number: int) -> dict:
    names = {side: _name(row, side) for side in NAMES}
    if names["left"] == names["right"]:
        raise PlaygroundError(f"{names['left']} stands against itself; a vote compares two models")
    winner = _column(row, WINNER, "winner")
    outcome = MEANING.get(str(winner).strip().lower())
    if outcome is None:
        raise PlaygroundError(f"the winner must be left, right, tie or both bad, got {str(winner)[:60]!r}")
    prompt = next((str(row[name]) for name in PROMPT if row.get(name) not in (None, "")), "")
    conversations = {side: _conversation(row, side, prompt) for side in NAMES}
    # a row without an id of its own gets one of the file's content: the same file twice gives the same votes
    id = str(row.get("battle_id") or "").strip() or uuid.uuid5(NAMESPACE, f"{digest} {number}").hex
    return {
        "battle_id": id[:100],
        "winner": outcome,
        "kind": row["kind"] if row.get("kind") in ("open", "blind") else "open",
        "session": " ".join(str(row.get("session") or "").split())[:MAX_NAME],
        "category": " ".join(str(row.get("category") or "").split())[:MAX_NAME],
        "judge": judge_of(row.get("judge")),
        "time": _time(row.get("time", row.get("tstamp"))),
        "details": _json(row.get("details"), dict),
        **{side: names[side] for side in NAMES},
        **{f"{side}_lane": _json(row.get(f"{side}_lane"), dict) for side in NAMES},
        **{f"{side}_messages": conversations[side][0] for side in NAMES},
        **{f"{side}_reply": conversations[side][1] for side in NAMES},
        **{f"{side}_leaks": _json(row.get(f"{side}_leaks"), list) for side in NAMES},
    }


def _column(row: dict, names: tuple[str, ...], what: str):
    found = next((name for name in names if name in row), None)
    if found is None:
        columns = ", ".join(list(row)[:20]) or "none"
        raise PlaygroundError(f"there is no column {what} (or {', '.join(names[1:])}); the columns are {columns}")
    return row[found]


def _name(row: dict, side: str) -> str:
    value = _column(row, NAMES[side], side)
    name = "" if value is None or value != value else str(value).strip()
    if not name:
        raise PlaygroundError(f"the {side} side has no name")
    return name[:MAX_NAME]


def judge_of(value) -> str | None:
    """The model that voted; None for people, whom LMSYS's logs number in this column: their numbers are not kept."""
    text = value.strip() if isinstance(value, str) else ""
    return text[:MAX_NAME] if text and not PEOPLE.match(text) else None


def _conversation(row: dict, side: str, prompt: str) -> tuple[list[dict], str]:
    """The messages that were sent and the reply; `conversation_a` of LMSYS's logs holds both."""
    value = next((row[name] for name in REPLIES[side] if row.get(name) not in (None, "")), "")
    turns = _json(value, list) if not isinstance(value, str) or value.lstrip().startswith("[") else []
    if turns and all(isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in turns):
        last = turns[-1] if turns[-1]["role"] == "assistant" else None
        return turns[:-1] if last else turns, str(last["content"]) if last else ""
    messages = _json(row.get(f"{side}_messages"), list)
    if not all(isinstance(message, dict) for message in messages):
        raise PlaygroundError(f"{side}_messages must be a list of messages")
    return messages or ([{"role": "user", "content": prompt}] if prompt else []), str(value)


def _json(value, kind: type):
    """A list or an object, given as such or as JSON text; an empty one for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return kind()
    return value if isinstance(value, kind) else kind()


def _time(value) -> float:
    """Seconds since 1970: given so, or as ISO text; now where it is not told."""
    if isinstance(value, str):
        try:
            found = datetime.fromisoformat(value)
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
        except ValueError:
            pass
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return time.time()
    return seconds if math.isfinite(seconds) and 0 < seconds < 1e11 else time.time()
