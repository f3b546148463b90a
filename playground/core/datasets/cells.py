"""One cell of a row: read as text, as JSON or as a list, with a fault that names its column."""

import ast
import json
from contextlib import suppress

from playground.errors import PlaygroundError


class BadCell(PlaygroundError):
    """A cell that cannot be used; `column` and `reason` are kept apart for lists of faults."""

    def __init__(self, column: str, reason: str):
        super().__init__(f"column {column}: {reason}")
        self.column, self.reason = column, reason


def lower(row: dict) -> dict:
    """The row with its column names in lower case: `Instruction` and `instruction` are one."""
    return {str(key).strip().lower(): value for key, value in row.items()}


def is_scalar(value) -> bool:
    """Whether the value could stand in a cell of text; a missing one (None) could, and is a fault of its row."""
    return value is None or isinstance(value, (str, int, float, bytes))


def first(row: dict, names: tuple[str, ...]) -> str | None:
    """The first of the column names that the row has, or None."""
    for name in names:  # a plain loop: these two run dozens of times for every row
        if name in row:
            return name
    return None


def filled(row: dict, names: tuple[str, ...]) -> str | None:
    """The first of the columns that the row has and that holds something."""
    for name in names:
        if name in row and row[name] not in (None, "", [], {}):
            return name
    return None


def text(row: dict, column: str, empty: bool = False) -> str:
    """The cell as text. Numbers are written out; anything else, and an empty cell unless `empty`, is a fault."""
    value = row.get(column)
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    if value is None and empty:
        return ""
    if not isinstance(value, str):
        raise BadCell(column, f"must be text, got {kind(value)}")
    if not value.strip() and not empty:
        raise BadCell(column, "is empty")
    return value


def written(row: dict, column: str) -> str:
    """An answer as text; an object or a list is written as JSON."""
    value = row.get(column)
    if isinstance(value, (dict, list)) and value:
        return json.dumps(value, ensure_ascii=False)
    return text(row, column)


def structure(value):
    """A list or an object written into a cell of text (JSON, or Python's own notation as pandas writes it), read."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    with suppress(ValueError, RecursionError):
        return json.loads(value)
    if len(value) <= 2**20:  # the parser of Python literals takes some hundred times the memory of its text
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return ast.literal_eval(value.strip())
    return value


def kind(value) -> str:
    """A value's type in words."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}
    names[bytes] = "binary data"
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else type(value).__name__)
