"""Which column is what, where the names do not tell; remembered for a file by the hash of its content."""

import hashlib
import json
import os
import re
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from playground.config import fields, parse, setting
from playground.core.datasets import cells, formats, turns
from playground.core.datasets.converters import Example, assistant, example, user
from playground.errors import PlaygroundError

FOLDER = ".mappings"


@dataclass(frozen=True)
class Mapping:
    """Columns by name; an empty name means that there is none. All empty: the rows are recognised as they are."""

    prompt: str = setting("", "column of the question or instruction")
    input: str = setting("", "column of a text that the prompt is about")
    answer: str = setting("", "column of the reply to learn")
    system: str = setting("", "column of the system message")
    reasoning: str = setting("", "column of the thoughts before the reply")
    messages: str = setting("", "column of a whole list of turns (instead of prompt and answer)")
    tools: str = setting("", "column of the tools' JSON schemas")
    rejected: str = setting("", "column of a reply that was not preferred")
    format: str = setting("", "read the rows as this format instead of recognising it")
    encoding: str = setting("", "encoding of the text (empty: UTF-8, or what the file's first bytes say)")

    @cached_property
    def columns(self) -> dict[str, str]:
        """The column of each field that has one."""
        given = {f.name: getattr(self, f.name) for f in fields(Mapping) if f.name not in ("format", "encoding")}
        return {name: column for name, column in given.items() if column}

    def examples(self, row: dict) -> tuple[str, list[Example]]:
        """The row's format and conversations under this mapping. Raises PlaygroundError as `formats.examples` does."""
        if not self.columns:
            return formats.examples(row, self.format or None)
        row = {str(key).strip(): value for key, value in row.items()}
        for name, column in self.columns.items():
            if column not in row:
                told = ", ".join(row) or "none"
                raise PlaygroundError(f"there is no column {column!r} for the {name}; the columns are {told}")
        if self.prompt == "" and self.messages == "":
            raise PlaygroundError("the mapping names no column for the prompt (or for messages)")
        known = {name: row[self.columns[name]] for name in ("system", "tools") if name in self.columns}
        rejected = cells.text(row, self.rejected, empty=True) if self.rejected else ""
        extras = {"rejected": [assistant(rejected)]} if rejected.strip() else {}
        return "mapped", [example(known, self._messages(row), **extras)]

    def _messages(self, row: dict) -> list[dict]:
        if self.messages:
            return turns.messages(row[self.messages])
        extra = cells.text(row, self.input, empty=True) if self.input else ""
        asked = turns.messages(row[self.prompt]) if turns.shape(row[self.prompt]) else None
        asked = asked or [user(cells.text(row, self.prompt, empty=bool(extra.strip())), extra)]
        if not self.answer or row[self.answer] is None:
            return asked
        reasoning = cells.text(row, self.reasoning, empty=True) if self.reasoning else ""
        return [*asked, assistant(cells.written(row, self.answer), reasoning)]


# Words that column names are made of, the surest first; a name is cut at everything that is no letter.
_WORDS = {
    "messages": ("messages", "conversations", "conversation", "dialog", "dialogue", "turns", "chat"),
    "system": ("system", "persona"),
    "tools": ("tools", "functions"),
    "rejected": ("rejected", "incorrect", "wrong", "bad"),
    "reasoning": ("reasoning", "thinking", "think", "thought", "thoughts", "rationale", "cot", "explanation", "steps"),
    "answer": (
        *("answer", "completion", "response", "output", "reply", "target", "solution", "assistant", "bot", "gpt"),
        *("a", "result", "summary", "translation", "label", "sql", "code", "text"),
    ),
    "prompt": (
        *("prompt", "question", "instruction", "query", "user", "human", "problem", "request", "task", "ask"),
        *("customer", "q", "input", "source", "title", "utterance", "text"),
    ),
    "input": ("input", "context", "passage", "document", "article", "background"),
}


def guess(sample: list[dict]) -> Mapping:
    """What the columns' names and contents tell; a field that they do not tell is left empty."""
    sample = [row for row in sample if isinstance(row, dict)][:20]
    columns = list(dict.fromkeys(str(key).strip() for row in sample for key in row))
    texts = [column for column in columns if any(_is_text(row.get(column)) for row in sample)]
    found: dict[str, str] = {}
    lists = [column for column in columns if any(turns.shape(row.get(column), "dialog") for row in sample)]
    if lists:
        found["messages"] = lists[0]
    for field in ("system", "tools", "rejected", "reasoning", "prompt", "answer", "input"):
        if "messages" in found and field not in ("system", "tools"):
            continue
        open_columns = [c for c in (columns if field == "tools" else texts) if c not in found.values()]
        named = {c: _rank(c, _WORDS[field]) for c in open_columns}
        if best := min((c for c in open_columns if named[c] is not None), key=lambda c: named[c], default=None):
            found[field] = best
    left = [column for column in texts if column not in found.values()]
    if "messages" not in found and "prompt" in found and "answer" not in found and len(left) == 1:
        found["answer"] = left[0]
    elif "messages" not in found and "prompt" not in found and left:
        found["prompt"] = left[0]
        if "answer" not in found and len(left) == 2:
            found["answer"] = left[1]
    return Mapping(**found)


def _rank(column: str, words: tuple[str, ...]) -> int | None:
    parts = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column).lower())
    return next((rank for rank, word in enumerate(words) if word in parts), None)


def _is_text(value) -> bool:
    return isinstance(value, str) and bool(value.strip()) and not value.strip().replace(".", "", 1).isdigit()


# Remembering ----------------------------------------------------------------------------------------------------------


def digest(file: Path) -> str:
    """SHA-256 of the file's bytes."""
    with open(file, "rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def remembered(folder: Path, file: Path) -> Mapping | None:
    """The mapping kept in `folder` for a file of this content; None where there is none that can be used."""
    if not (folder / FOLDER).is_dir():
        return None
    try:
        return parse(Mapping, json.loads((folder / FOLDER / f"{digest(file)}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError, PlaygroundError):
        return None


def remember(folder: Path, file: Path, mapping: Mapping | None) -> None:
    """Keep a mapping for every file of this content; None, or one that says nothing, is forgotten."""
    kept = folder / FOLDER / f"{digest(file)}.json"
    try:
        if mapping is None or mapping == Mapping():
            kept.unlink(missing_ok=True)
            return
        kept.parent.mkdir(parents=True, exist_ok=True)
        values = {f.name: getattr(mapping, f.name) for f in fields(Mapping)}
        handle, part = tempfile.mkstemp(dir=kept.parent, suffix=".part")
        with open(handle, "w", encoding="utf-8") as out:
            json.dump(values, out, ensure_ascii=False)
        os.replace(part, kept)
    except OSError as error:
        raise PlaygroundError(f"the mapping cannot be kept in {folder}: {error.strerror or error}") from None
