"""Data in: read a file, recognise what its rows are, turn each into conversations.

Two pure steps: `read_rows` gives plain dicts (`reading`), `to_conversation` gives messages (`formats`). `load` does
both for a file or a built-in name, keeps the good rows and lists the bad ones. Where the columns do not tell, a
`Mapping` does. Nothing here imports torch, transformers or Gradio.
"""

import itertools
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from playground.config import ASSETS, Paths
from playground.core.datasets.cells import BadCell
from playground.core.datasets.formats import FORMATS, NAMES, examples, recognise, to_conversation
from playground.core.datasets.mapping import Mapping, guess, remember, remembered
from playground.core.datasets.problems import Problem
from playground.core.datasets.reading import SUFFIXES, Row, rows
from playground.core.messages import Conversation, check_messages, from_row
from playground.errors import PlaygroundError

__all__ = [
    "FORMATS",
    "NAMES",
    "SUFFIXES",
    "BadCell",
    "Dataset",
    "Mapping",
    "Preview",
    "Problem",
    "examples",
    "find",
    "guess",
    "load",
    "names",
    "preview",
    "read_rows",
    "recognise",
    "remember",
    "remembered",
    "rows",
    "samples",
    "to_conversation",
]

TOOL_CALLS = "tool-calls"  # generated, not stored
TOOL_CALL_ROWS = 1280
MAX_PROBLEMS = 200  # kept; all are counted
MAX_DEPTH = 100  # of tools and calls: they are written out again by code that recurses
GIVE_UP = 100_000  # bad rows one after the other
MAX_PREVIEW = 100


@dataclass(frozen=True)
class Dataset:
    """Conversations that can be rendered, the commonest format of the rows, and a sentence per row that cannot.

    `numbers[i]` is the row that `conversations[i]` comes from, and `extras[i]` what the row says besides: `reference`
    (the answer to score against), `rejected` (the messages of the reply that was not preferred), `desirable` (False: a
    reply that was not liked), `label`. `problems` is bounded; `bad` counts all rows that were left out.
    """

    name: str
    format: str
    conversations: list[Conversation]
    problems: list[str] = field(default_factory=list)
    formats: dict[str, int] = field(default_factory=dict)
    numbers: list[int] = field(default_factory=list)
    extras: list[dict] = field(default_factory=list)
    bad: int = 0

    @property
    def rows(self) -> int:
        """Rows of the file that gave a conversation; a row may give several."""
        return len(set(self.numbers)) if self.numbers else len(self.conversations)


class NoRows(PlaygroundError):
    """Nothing in the file could be used; `problems` says why, row by row."""

    def __init__(self, sentence: str, problems: list[str], bad: int):
        super().__init__(sentence)
        self.problems, self.bad = problems, bad


def names() -> list[str]:
    """The built-in data sets."""
    return [TOOL_CALLS, *sorted(file.stem for file in (ASSETS / "data").glob("*.jsonl"))]


def samples() -> dict[str, Conversation]:
    """Built-in examples for the preview tab, by title: one or more per task."""
    rows = json.loads((ASSETS / "data" / "samples.json").read_text(encoding="utf-8"))
    return {row["title"]: from_row({k: v for k, v in row.items() if k != "title"}) for row in rows}


def load(name_or_path, paths: Paths | None = None, mapping: Mapping | None = None) -> Dataset:
    """A built-in data set by name, or a JSON, JSONL, CSV or Parquet file (also gzipped) by path.

    A bare file name is also looked for in `paths.data`, where uploads are kept. Without a `mapping`, the one that is
    remembered there for a file of this content is used, if there is one. Raises NoRows where no row can be used.
    """
    name = str(name_or_path)
    if name == TOOL_CALLS:
        from playground.core import synthesis  # only this data set needs it

        source = (Row(number, row) for number, row in enumerate(synthesis.tool_calls(TOOL_CALL_ROWS, seed=0), 1))
    else:
        file = find(name, paths)
        name = name if name in names() else file.name
        if mapping is None and paths is not None and file.parent != ASSETS / "data":
            mapping = remembered(paths.data, file)
        source = rows(file, mapping.encoding if mapping else "")
    return _collect(name, source, mapping or Mapping())


def _collect(name: str, source, mapping: Mapping) -> Dataset:
    conversations, numbers, extras, formats, problems, bad, last = [], [], [], Counter(), [], 0, 0
    for row in source:
        faults = [row] if isinstance(row, Problem) else []
        if isinstance(row, Row):
            format, found, faults = _converted(name, row, mapping)
            formats.update([format] * bool(found))
            for one in found:
                conversations.append(one.conversation)
                numbers.append(row.number)
                extras.append(one.extras)
        bad += bool(faults)
        problems += faults[: max(0, MAX_PROBLEMS - len(problems))]
        last = 0 if not faults else last + 1
        if last > GIVE_UP:
            reason = f"more than {GIVE_UP:,} rows one after the other cannot be used; the rest is not read"
            problems.append(Problem(name, row.number if isinstance(row, Row) else row.row, None, reason))
            break
    if not conversations:
        first = f"; {problems[0]}" if problems else ""
        raise NoRows(f"{name} has no row that can be used, of {bad:,}{first}", problems, bad)
    return Dataset(name, formats.most_common(1)[0][0], conversations, problems, dict(formats), numbers, extras, bad)


def _converted(name: str, row: Row, mapping: Mapping) -> tuple[str, list, list[Problem]]:
    """The row's format, its good examples and a Problem for each other one."""
    try:
        format, found = mapping.examples(row.value)
    except BadCell as fault:
        given = next((column for column in row.value if str(column).strip().lower() == fault.column), fault.column)
        return "", [], [Problem(name, row.number, given, fault.reason)]
    except PlaygroundError as fault:
        return "", [], [Problem(name, row.number, None, str(fault))]
    good, faults = [], []
    for position, one in enumerate(found, 1):
        try:
            check_messages(one.conversation.messages)
            _check_writable(one.conversation)
        except PlaygroundError as fault:
            which = f"conversation {position}: " if len(found) > 1 else ""
            faults.append(Problem(name, row.number, None, f"{which}{fault}"))
        else:
            good.append(one)
    return format, good, faults


def _check_writable(conversation: Conversation) -> None:
    """Raise PlaygroundError for what can be read and never be written again."""
    calls = [message["tool_calls"] for message in conversation.messages if message.get("tool_calls")]
    if not _is_shallow([conversation.tools, calls, conversation.variables], MAX_DEPTH):
        raise PlaygroundError(f"tools or calls are nested more than {MAX_DEPTH} deep")
    _check_text(conversation)


def _is_shallow(value, depth: int) -> bool:
    if isinstance(value, (dict, list)):
        inner = value.values() if isinstance(value, dict) else value
        return depth > 0 and all(_is_shallow(item, depth - 1) for item in inner)
    return True


def _check_text(conversation: Conversation) -> None:
    """Half a surrogate pair (`\\ud83d` alone, from a text cut in the middle of an emoji) can be encoded by nothing."""
    try:
        for message in conversation.messages:
            for value in message.values():
                if isinstance(value, str) and not value.isascii():
                    value.encode()
    except UnicodeEncodeError as error:
        letter = f"\\u{ord(error.object[error.start]):04x}"
        raise PlaygroundError(f"a message holds half of a character ({letter})") from None


def find(name: str, paths: Paths | None = None) -> Path:
    """The file of a data set: built-in, a path, or a name in `paths.data`."""
    if name in names() and name != TOOL_CALLS:
        return ASSETS / "data" / f"{name}.jsonl"
    file = Path(name).expanduser()
    if file.is_file():
        return file
    if paths is not None and Path(name).name == name and (paths.data / name).is_file():
        return paths.data / name
    if file.is_dir():
        raise PlaygroundError(f"{name} is a folder; give a file that ends in {', '.join(SUFFIXES)}")
    raise PlaygroundError(f"there is no data set {name!r}; choose {', '.join(names())} or the path of a file")


def read_rows(path) -> list[dict]:
    """The rows of a JSON, JSONL, CSV, TSV or Parquet file (also gzipped), as they stand.

    Raises PlaygroundError at the first row that cannot be read, naming the file, the row and the column.
    """
    found = []
    for row in rows(Path(path)):
        if isinstance(row, Problem):
            raise PlaygroundError(row)
        found.append(row.value)
    return found


@dataclass(frozen=True)
class Preview:
    """The first rows of a file as they stand and as a mapping reads them: a conversation, or what is wrong."""

    columns: list[str]
    mapping: Mapping
    format: str
    rows: list[tuple[int, dict, Conversation | None, str]]
    problems: list[str]


def preview(file: Path, mapping: Mapping | None = None, count: int = 5) -> Preview:
    """The first `count` rows under a mapping; without one, recognised, or under a mapping guessed as far as it goes."""
    encoding = mapping.encoding if mapping else ""
    head = list(itertools.islice(rows(file, encoding), min(count, MAX_PREVIEW) if count else 1))
    found = [row for row in head if isinstance(row, Row)]
    if mapping is None:
        known = any(recognise(row.value) for row in found)
        mapping = Mapping() if known else guess([row.value for row in found])
    shown, formats = [], Counter()
    for row in found:
        format, good, faults = _converted(file.name, row, mapping)
        formats[format] += 1
        shown.append((row.number, row.value, good[0].conversation if good else None, str(faults[0]) if faults else ""))
    columns = list(dict.fromkeys(str(column) for row in found for column in row.value))
    format = formats.most_common(1)[0][0] if formats else ""
    return Preview(columns, mapping, format, shown, [row for row in head if isinstance(row, Problem)])
