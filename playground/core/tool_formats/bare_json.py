"""Finds calls that are JSON in the middle of a text, with nothing around them that says so.

An object that begins with a key of a call is one when it has a "name" that is a text, and arguments; any other JSON is
left in the content.
"""

import json
import re
from collections.abc import Callable

from playground.core.tool_formats.reading import json_end

ARGUMENTS = ("arguments", "parameters")
_BEGINS = re.compile(r'(?:\[\s*)?\{\s*"(?:name|type|id|function|arguments|parameters)"\s*:')
_MAY_BEGIN = re.compile(r'(?:\[\s*)?(?:\{\s*(?:"[a-z]{0,10}"?\s*)?)?$')
_CALLISH = re.compile(r'"name"\s*:\s*"[^"]*"\s*,\s*"(?:arguments|parameters)"\s*:|"(?:arguments|parameters)"\s*:\s*\{')
_SEPARATOR = re.compile(r"\s*[;,]?\s*")


def finder(
    lists: bool = True, objects: bool = True, before: str = ""
) -> Callable[[str, int, bool], tuple[int, int] | None]:
    """A `find` for JSON lists and objects of calls, after one of the openings that the pattern `before` allows."""
    lead = f"(?:{before})?" if before else ""
    start = re.compile(lead + (r"[\[{]" if lists and objects else r"\[(?=\s*(?:\{|$))" if lists else r"\{"))
    begun = tuple(_fixed(before))

    def find(text: str, at: int, final: bool):
        position = at
        while found := start.search(text, position):
            body = found.end() - 1
            verdict = _verdict(text, body, final)
            if verdict == "call":
                return found.start(), body
            if verdict == "wait":
                return found.start(), -1
            end = json_end(text, body) if verdict == "value" else -1
            position = max(end, found.end())
        if not final:
            written = text.rstrip()
            held = max((n for word in begun for n in range(1, len(word) + 1) if written.endswith(word[:n])), default=0)
            if held and len(written) - held >= at:
                return len(written) - held, -1
        return None

    return find


def _verdict(text: str, body: int, final: bool) -> str:
    """Whether what begins at `body` is a "call", may become one ("wait"), is another JSON "value", or none ("no")."""
    window = text[body : body + 200]
    if not _BEGINS.match(window):
        # Only what begins as a call does is read on: a text of nothing but brackets must not take forever.
        return "wait" if not final and body + 200 > len(text) and _MAY_BEGIN.match(window) else "no"
    end = json_end(text, body)
    if end < 0:
        # The text ended inside an object that says what a call says first.
        return "call" if final or _CALLISH.search(text, body) else "wait"
    piece = text[body:end]
    try:
        value = json.loads(piece)
    except (ValueError, RecursionError):
        return "call" if _CALLISH.search(piece) else "no"
    return "call" if any(map(is_call, value if isinstance(value, list) else [value])) else "value"


def is_call(value) -> bool:
    if not isinstance(value, dict):
        return False
    value = value.get("function") if isinstance(value.get("function"), dict) else value
    return isinstance(value.get("name"), str) and any(key in value for key in ARGUMENTS)


def until_next(text: str, start: int):
    """An `end` for one object: where it ends; a separator before the next object, or at the end, goes with it."""
    end = json_end(text, start)
    if end < 0:
        return -1
    after = _SEPARATOR.match(text, end).end()
    return (end, after) if _MAY_BEGIN.match(text, after) or _BEGINS.match(text, after) else (end, end)


def _fixed(pattern: str) -> list[str]:
    """The fixed beginnings in an alternation of escaped texts, to be held back while they grow."""
    return [re.sub(r"\\(.)", r"\1", part.removesuffix(r"\s*")) for part in pattern.split("|") if part]
