"""Data in: read a file, recognise what its rows are, turn each into a conversation.

Two pure steps: `read_rows` gives plain dicts, `to_conversation` gives messages. `load` does both for a file or a
built-in name, keeps the good rows and lists the bad ones.
"""

import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from playground.config import ASSETS, Paths
from playground.core.messages import Conversation, check_messages, from_row, load_json
from playground.errors import PlaygroundError

MAX_BYTES = 200 * 2**20
SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
TOOL_CALLS = "tool-calls"  # generated, not stored
TOOL_CALL_ROWS = 600


@dataclass(frozen=True)
class Dataset:
    """Conversations that can be rendered, the commonest format of the rows, and a sentence per row that cannot."""

    name: str
    format: str
    conversations: list[Conversation]
    problems: list[str] = field(default_factory=list)


def names() -> list[str]:
    """The built-in data sets."""
    return [TOOL_CALLS, *sorted(file.stem for file in (ASSETS / "data").glob("*.jsonl"))]


def samples() -> dict[str, Conversation]:
    """Built-in examples for the preview tab, by title: one or more per task."""
    rows = json.loads((ASSETS / "data" / "samples.json").read_text(encoding="utf-8"))
    return {row["title"]: from_row({k: v for k, v in row.items() if k != "title"}) for row in rows}


def load(name_or_path, paths: Paths | None = None) -> Dataset:
    """A built-in data set by name, or a JSON, JSONL, CSV or Parquet file (also gzipped) by path.

    A bare file name is also looked for in `paths.data`, where uploads are kept.
    """
    name = str(name_or_path)
    if name == TOOL_CALLS:
        from playground.core import synthesis  # only this data set needs it

        rows, problems = list(enumerate(synthesis.tool_calls(TOOL_CALL_ROWS, seed=0), 1)), []
    elif name in names():
        rows, problems = _read(ASSETS / "data" / f"{name}.jsonl")
    else:
        file = _find(name, paths)
        name = file.name
        rows, problems = _read(file)
    conversations, formats = [], Counter()
    for number, row in rows:
        try:
            format = recognise(row)
            conversation = to_conversation(row, format)
            check_messages(conversation.messages)
        except PlaygroundError as error:
            problems.append(f"row {number}: {error}")
        else:
            formats[format] += 1
            conversations.append(conversation)
    if not conversations:
        count = len({problem.split(":")[0] for problem in problems})
        first = f"; {problems[0]}" if problems else ""
        raise PlaygroundError(f"{name} has no rows left that can be used, of {count}{first}")
    return Dataset(name, formats.most_common(1)[0][0], conversations, problems)


def _find(name: str, paths: Paths | None) -> Path:
    file = Path(name).expanduser()
    if file.is_file():
        return file
    if paths is not None and Path(name).name == name and (paths.data / name).is_file():
        return paths.data / name
    if file.is_dir():
        raise PlaygroundError(f"{name} is a folder; give a file that ends in {', '.join(SUFFIXES)}")
    raise PlaygroundError(f"there is no data set {name!r}; choose {', '.join(names())} or the path of a file")


# Reading --------------------------------------------------------------------------------------------------------------


def read_rows(path) -> list[dict]:
    """The rows of a JSON, JSONL, CSV, TSV or Parquet file (also gzipped), as they stand.

    Raises PlaygroundError at the first row that cannot be read, naming the file, the line and the column.
    """
    rows, problems = _read(Path(path))
    if problems:
        raise PlaygroundError(f"{Path(path).name}, {problems[0]}")
    return [row for _, row in rows]


def _read(file: Path) -> tuple[list[tuple[int, dict]], list[str]]:
    """Numbered rows, and a sentence for each line that is none."""
    suffixes = [s.lower() for s in file.suffixes[-2:]]
    kind = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) == 2 else (suffixes or [""])[-1]
    if kind not in SUFFIXES:
        raise PlaygroundError(f"{file.name}: data files end in {', '.join(SUFFIXES)}, also with .gz")
    data = _bytes(file, suffixes[-1] == ".gz")
    if not data.strip():
        raise PlaygroundError(f"{file.name} is empty")
    if kind == ".parquet":
        return _parquet_rows(file.name, data), []
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise PlaygroundError(f"{file.name} is not UTF-8 text: line {line} holds a byte that cannot be read") from None
    if kind in (".csv", ".tsv"):
        return _csv_rows(file.name, text, kind)
    if kind == ".json":
        return _json_rows(file.name, text)
    return _jsonl_rows(text)


def _bytes(file: Path, zipped: bool) -> bytes:
    try:
        with gzip.open(file) if zipped else open(file, "rb") as source:
            data = source.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise PlaygroundError(f"there is no file {file}") from None
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PlaygroundError(f"{file.name} cannot be read: {reason}") from None
    if len(data) > MAX_BYTES:
        raise PlaygroundError(f"{file.name} is larger than {MAX_BYTES // 2**20} MB")
    return data


def _jsonl_rows(text: str) -> tuple[list[tuple[int, dict]], list[str]]:
    rows, problems = [], []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            problems.append(f"line {number}: not valid JSON: {error.msg} at column {error.colno}")
        except RecursionError:
            problems.append(f"line {number}: nested too deeply to be read")
        else:
            if isinstance(row, dict):
                rows.append((number, row))
            else:
                problems.append(f"line {number}: not a JSON object")
    return rows, problems


def _json_rows(name: str, text: str) -> tuple[list[tuple[int, dict]], list[str]]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # one object per line under the wrong ending
            rows, problems = _jsonl_rows(text)
            if len(rows) > 1:
                return rows, problems
        value = load_json(text, name)
    except RecursionError:
        raise PlaygroundError(f"{name} is nested too deeply to be read") from None
    if isinstance(value, dict) and recognise(value) is None:
        for key in ("data", "rows", "examples", "train"):
            if isinstance(value.get(key), list):
                value = value[key]
                break
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise PlaygroundError(f"{name} must hold a list of rows")
    rows = [(number, row) for number, row in enumerate(value, 1) if isinstance(row, dict)]
    others = [number for number, row in enumerate(value, 1) if not isinstance(row, dict)]
    return rows, [f"row {number}: not a JSON object" for number in others]


def _csv_rows(name: str, text: str, kind: str) -> tuple[list[tuple[int, dict]], list[str]]:
    if "\0" in text:
        raise PlaygroundError(f"{name} holds NUL bytes; it is not a CSV text file")
    header = text.split("\n", 1)[0]
    delimiter = "\t" if kind == ".tsv" else max(",;\t", key=header.count)
    csv.field_size_limit(MAX_BYTES)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, problems, number = [], [], 0
    try:
        for number, row in enumerate(reader, 1):
            if None in row or None in row.values():
                given = len(reader.fieldnames) + (len(row[None]) if None in row else -list(row.values()).count(None))
                problems.append(f"row {number}: {given} cells under {len(reader.fieldnames)} column names")
            else:
                rows.append((number, row))
    except csv.Error as error:
        problems.append(f"row {number + 1}: {error} (line {reader.line_num + 1}); the rows after it are not read")
    return rows, problems


def _parquet_rows(name: str, data: bytes) -> list[tuple[int, dict]]:
    import pandas

    try:
        frame = pandas.read_parquet(io.BytesIO(data))
    except Exception as error:  # noqa: BLE001 (pyarrow has many)
        raise PlaygroundError(f"{name} is not a Parquet file that can be read: {error}") from None
    return [(number, _plain(row)) for number, row in enumerate(frame.to_dict("records"), 1)]


def _plain(value):
    """Arrays and numpy scalars from Parquet as JSON values; NaN as None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and value != value:
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


# Recognising ----------------------------------------------------------------------------------------------------------
# A format is a row in FORMATS: its name, whether a row is one, and the conversation of such a row. The first that fits
# is taken. Column names are compared in lower case.


@dataclass(frozen=True)
class Format:
    name: str
    fits: Callable[[dict], bool]
    convert: Callable[[dict], Conversation]


def recognise(row: dict) -> str | None:
    """The name of the row's format, or None."""
    lower = _lower(row)
    return next((format.name for format in FORMATS if format.fits(lower)), None)


def to_conversation(row: dict, format: str | None = None) -> Conversation:
    """The row as a conversation. Raises PlaygroundError where the format is unknown or the row does not keep to it."""
    format = format or recognise(row)
    found = next((f for f in FORMATS if f.name == format), None)
    if found is None:
        known, columns = ", ".join(f.name for f in FORMATS), ", ".join(map(str, row)) or "none"
        given = f"there is no format {format!r}" if format else f"no known format has the columns {columns}"
        raise PlaygroundError(f"{given}; known formats are {known}")
    try:
        return found.convert(_lower(row))
    except (KeyError, TypeError, AttributeError) as error:
        raise PlaygroundError(f"the row does not keep to the format {format}: {error}") from None


def _lower(row: dict) -> dict:
    return {str(key).strip().lower(): value for key, value in row.items()}


def _turns(row: dict):
    """The list of turns of a chat row, whatever its column is called; JSON in a CSV cell is read."""
    turns = next((row[key] for key in ("messages", "conversations", "conversation") if row.get(key)), None)
    if isinstance(turns, str) and turns.lstrip().startswith("["):
        turns = load_json(turns, "the list of turns")
    return turns if isinstance(turns, list) and turns else None


def _has_turns(row: dict, key: str) -> bool:
    turns = _turns(row)
    return turns is not None and isinstance(turns[0], dict) and key in turns[0]


def _messages(row: dict) -> Conversation:
    tools = row.get("tools") or row.get("functions") or []
    return from_row({"messages": _turns(row), "tools": tools})


_SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "system": "system",
    "observation": "tool",
    "tool": "tool",
    "function_response": "tool",
}


def _sharegpt(row: dict) -> Conversation:
    messages = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    for turn in _turns(row):
        sender, value = turn.get("from"), turn.get("value")
        if sender in ("function_call", "tool_call"):
            calls = load_json(value, "a function call") if isinstance(value, str) else value
            messages.append(
                {"role": "assistant", "content": "", "tool_calls": calls if isinstance(calls, list) else [calls]}
            )
        else:
            messages.append({"role": _SHAREGPT_ROLES.get(sender, sender), "content": value})
    return from_row({"messages": messages, "tools": row.get("tools") or []})


def _alpaca(row: dict) -> Conversation:
    messages = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    for question, answer in row.get("history") or []:
        messages += _pair(question, answer).messages
    # The Alpaca template writes instruction and input apart; every other template reads the two joined.
    instruction, extra = row["instruction"], row.get("input") or ""
    user = {"role": "user", "content": instruction}
    if extra.strip():
        user = {"role": "user", "content": f"{instruction}\n\n{extra}", "instruction": instruction, "input": extra}
    return Conversation([*messages, user, {"role": "assistant", "content": row["output"]}])


def _dolly(row: dict) -> Conversation:
    return _alpaca({**row, "input": row.get("context"), "output": row["response"]})


def _pair(prompt, completion, system=None) -> Conversation:
    """Prompt and completion, each text or a list of messages."""
    messages = [{"role": "system", "content": system}] if system else []
    messages += prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    messages += completion if isinstance(completion, list) else [{"role": "assistant", "content": completion}]
    return from_row({"messages": messages})


def _preference(row: dict) -> Conversation:
    """The preferred reply of a chosen/rejected pair, after the prompt, the instruction or the turns so far."""
    chosen = row["chosen"]
    if isinstance(chosen, dict):  # one turn
        chosen = chosen.get("value", chosen.get("content"))
    if _turns(row) is not None:
        before = (_sharegpt if _has_turns(row, "from") else _messages)(row)
        return _pair(before.messages, chosen)
    if "instruction" in row:
        return _alpaca({**row, "output": chosen})
    if isinstance(chosen, list) and "prompt" not in row:
        return from_row({"messages": chosen})
    return _pair(row["prompt"], chosen, row.get("system"))


def _question(row: dict) -> Conversation:
    question, answer = _columns(row, _QUESTIONS, _ANSWERS)
    choices = row.get("choices")
    if isinstance(choices, list) and choices:
        question = "\n".join([question, *(f"{chr(65 + n)}. {choice}" for n, choice in enumerate(choices))])
    return _pair(question, answer, row.get("system"))


def _columns(row: dict, first: tuple[str, ...], second: tuple[str, ...]):
    """The values under the first of each group of column names that the row has, or None."""
    a, b = next((key for key in first if key in row), None), next((key for key in second if key in row), None)
    return (row[a], row[b]) if a and b else None


_PROMPTS, _COMPLETIONS = ("prompt",), ("completion", "response", "output", "answer")
_QUESTIONS, _ANSWERS = ("question", "query", "input"), ("answer", "response", "best answer", "output", "target")

FORMATS = (
    Format("alpaca", lambda row: "instruction" in row and "output" in row, _alpaca),
    Format("preference", lambda row: "chosen" in row and "rejected" in row, _preference),
    Format("messages", lambda row: _has_turns(row, "role"), _messages),
    Format("sharegpt", lambda row: _has_turns(row, "from"), _sharegpt),
    Format("dolly", lambda row: "instruction" in row and "response" in row, _dolly),
    Format(
        "prompt-completion",
        lambda row: bool(_columns(row, _PROMPTS, _COMPLETIONS)),
        lambda row: _pair(*_columns(row, _PROMPTS, _COMPLETIONS), row.get("system")),
    ),
    Format(
        "question-answer",
        lambda row: bool(_columns(row, _QUESTIONS, _ANSWERS)),
        _question,
    ),
)
