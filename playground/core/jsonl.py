"""JSON lines: one object a line."""

import json
from pathlib import Path

from playground.errors import PlaygroundError

MAX_BYTES = 20_000_000


def rows(path: Path, word: str = "row") -> list[tuple[int, dict]]:
    """(line number, object) of each line that is not empty. `word` is what errors call a line.

    Only "\\n" ends a line: a JSON text may hold the other characters that Python takes for one.
    """
    found = []
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise PlaygroundError(f"{path.name}, {word} {number} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise PlaygroundError(f"{path.name}, {word} {number} must be a JSON object, one for each line")
        found.append((number, row))
    if not found:
        raise PlaygroundError(f"{path.name} has no rows")
    return found


def printable(value):
    """A JSON value without lone halves of surrogate pairs, which an escape can make and no file or page takes."""
    return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise PlaygroundError(f"{path.name} is larger than {MAX_BYTES // 1_000_000} MB")
        # newline="": a text in a row is taken as it is
        with path.open(encoding="utf-8-sig", newline="") as file:
            return file.read()
    except OSError as error:
        raise PlaygroundError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise PlaygroundError(f"{path.name} is not UTF-8 text") from None
