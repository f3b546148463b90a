"""Finds calls that are JSON in the middle of a text, with nothing around them that says so.

An object is a call when it has a "name" that is a text and its arguments; any other JSON is left in the content.
"""

import json
import re
from collections.abc import Callable

from playground.core.tool_formats.reading import json_end

ARGUMENTS = ("arguments", "parameters")
_BEGINS = re.compile(r'\{\s*"(?:name|type|id|function|arguments|parameters)"\s*:')
_MAY_BEGIN = re.compile(r'(?:\[\s*)?(?:\{\s*(?:"[a-z]{0,10}"?\s*)?)?$')
_CALLISH = re.compile(r'"name"\s*:\s*"[^"]*"\s*,\s*"(?:arguments|parameters)"\s*:|"(?:arguments|parameters)"\s*:\s*\{')
_SEPARATOR = re.compile(r"\s*[;,]?\s*(?=\{)")


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
            held = max((n for word in begun for n in range(1, len(word)) if text.endswith(word[:n])), default=0)
            if held and len(text) - held >= at:
                return len(text) - held, -1
        return None

    return find


def _verdict(text: str, body: int, final: bool) -> str:
    """Whether what begins at `body` is a "call", may become one ("wait"), is another JSON "value", or no JSON at all."""
    window = text[body : body + 400]
    end = json_end(text, body)
    if end >= 0:
        piece = text[body:end]
        try:
            value = json.loads(piece)
        except (ValueError, RecursionError):
            return "call" if _BEGINS.match(window.lstrip("[ \n\t\r")) and _CALLISH.search(piece) else "no"
        items = value if isinstance(value, list) else [value]
        calls = [is_call(item) for item in items]
        return "call" if calls and any(calls) and isinstance(items[0], dict) else "value"
    if _BEGINS.match(window[1:].lstrip() if window.startswith("[") else window):
        # The text ended inside an object that says what a call says first.
        return "call" if final or _CALLISH.search(text, body) else "wait"
    return "wait" if not final and _MAY_BEGIN.match(window) else "no"


def is_call(value) -> bool:
    if not isinstance(value, dict):
        return False
    value = value.get("function") if isinstance(value.get("function"), dict) else value
    return isinstance(value.get("name"), str) and any(key in value for key in ARGUMENTS)


def until_next(text: str, start: int):
    """An `end` for one object: where it ends; a separator before the next object goes with it."""
    end = json_end(text, start)
    if end < 0:
        return -1
    separator = _SEPARATOR.match(text, end)
    if separator and _BEGINS.match(text, separator.end()):
        return end, separator.end()
    return end, end


def _fixed(pattern: str) -> list[str]:
    """The fixed beginnings in an alternation of escaped texts, to be held back while they grow."""
    return [re.sub(r"\\(.)", r"\1", part.removesuffix(r"\s*")) for part in pattern.split("|") if part]
