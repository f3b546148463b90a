"""Server-sent events (HTML standard, "Server-sent events") that each hold a JSON object; the server is not trusted.

for event in events(parts):      # parts: bytes, cut anywhere; until `data: [DONE]`
    ...
"""

import json
import re
from collections.abc import Iterable, Iterator

from playground.errors import PlaygroundError

MAX_LINE = 4 * 2**20  # bytes
_ENDS = re.compile(rb"[\r\n]")  # nothing else ends a line: JSON text may hold what Python takes for one (U+2028)


def events(parts: Iterable[bytes]) -> Iterator[dict]:
    """The object of each event, up to `[DONE]`. Raises PlaygroundError for what is none."""
    for line in _lines(parts):
        if not line.startswith("data:"):
            continue  # a comment, an event's name, an empty line
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        yield _object(data)


def whole(parts: Iterable[bytes]) -> dict:
    """The object of an answer that was not streamed. Raises PlaygroundError for what is none."""
    held = bytearray()
    for part in parts:
        held += part
        if len(held) > MAX_LINE:
            raise PlaygroundError(f"sent an answer of more than {MAX_LINE // 2**20} MB")
    return _object(held.decode("utf-8", "replace"))


def _object(data: str) -> dict:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise no_event(data)
    return value


def no_event(data) -> PlaygroundError:
    """What to raise for an event that is not as it should be."""
    return PlaygroundError(f"sent what is no event: {data if isinstance(data, str) else json.dumps(data)!r}")


def _lines(parts: Iterable[bytes]) -> Iterator[str]:
    held = bytearray()
    for part in parts:
        *whole, rest = _ENDS.split(part)
        for line in whole:
            yield (bytes(held) + line).decode("utf-8", "replace")
            held.clear()
        held += rest
        if len(held) > MAX_LINE:
            raise PlaygroundError(f"sent an event of more than {MAX_LINE // 2**20} MB")
    yield held.decode("utf-8", "replace")
