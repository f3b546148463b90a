"""Who wrote which characters of a rendered conversation.

Every string of a message is rendered once more between private-use characters. Where the text without them is the
same text, they say exactly which characters are whose. Templates that take contents apart (split at a marker, compare
a prefix) render differently then; for those the contents are looked up in what each message adds to the text.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby, pairwise

from playground.core.messages import ROLES


@dataclass(frozen=True)
class Span:
    """Characters [start, end) of the text, who wrote them, and whether the loss is on them."""

    start: int
    end: int
    role: str  # system, user, assistant, tool; template for everything that no message holds
    trained: bool


_CLOSE = "\U0010fffd"
_FIRST_OPEN = 0x100000  # one opening character per unit
_MAX_UNITS = 0xFFF0
_SENTINELS = re.compile("[\U00100000-\U0010fffd]")
_ROLE_NAMES = {"developer": "system", "model": "assistant", "ipython": "tool", "function": "tool"}


class Units:
    """Hands out the sentinels; `roles[n]` belongs to the opening character number n."""

    def __init__(self):
        self.roles: list[tuple[str, bool]] = []  # (role, whether the surrounding JSON object is its too)

    def wrap(self, text: str, role: str, grow: bool = False) -> str:
        core = text.strip()
        if not core or len(self.roles) >= _MAX_UNITS:
            return text
        start = text.index(core)
        self.roles.append((role, grow))
        return f"{text[:start]}{chr(_FIRST_OPEN + len(self.roles) - 1)}{core}{_CLOSE}{text[start + len(core) :]}"


def sentinel_calls(call: dict) -> list[tuple[dict, Units]]:
    """The call with every string of a message marked, and with contents only (for templates that read the others).

    A message that holds such characters itself does no harm: the text without them is another one then.
    """
    calls = []
    for everything in (True, False):
        units = Units()
        messages = [_marked_message(message, units, everything) for message in call["messages"]]
        calls.append(({**call, "messages": messages}, units))
    return calls if calls[0][0] != calls[1][0] else calls[:1]


def _marked_message(message: dict, units: Units, everything: bool) -> dict:
    role = message.get("role") if isinstance(message.get("role"), str) else ""
    role = _ROLE_NAMES.get(role, role if role in ROLES else "template")
    marked = dict(message)
    keys = ("content", "reasoning_content", "thinking", "reasoning", "instruction", "input")
    for key in keys if everything else ("content",):
        value = message.get(key)
        if isinstance(value, str):
            marked[key] = units.wrap(value, role)
        elif key == "content" and isinstance(value, list):
            marked[key] = [
                {**part, "text": units.wrap(part["text"], role)}
                if isinstance(part, dict) and isinstance(part.get("text"), str)
                else part
                for part in value
            ]
    if everything and isinstance(message.get("tool_calls"), list):
        marked["tool_calls"] = [_marked_call(call, units, role) for call in message["tool_calls"]]
    return marked


def _marked_call(call, units: Units, role: str):
    if not isinstance(call, dict):
        return call
    function = call.get("function", call)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return call
    arguments = function.get("arguments")

    def leaves(value):
        if isinstance(value, str):
            return units.wrap(value, role, grow=True)
        if isinstance(value, dict):  # keys too: an argument may be a number, which cannot be marked
            return {units.wrap(k, role, grow=True) if isinstance(k, str) else k: leaves(v) for k, v in value.items()}
        return [leaves(v) for v in value] if isinstance(value, list) else value

    function = {**function, "name": units.wrap(function["name"], role, grow=True)}
    if isinstance(arguments, (dict, str)):
        function["arguments"] = leaves(arguments)
    return {**call, "function": function} if "function" in call else function


def locate(text: str, results: list[dict], units: list["Units"]) -> list[tuple[int, int, str]] | None:
    """(start, end, role) of the message contents in `text`, from the results of `sentinel_calls`; None if none fits."""
    for result, used in zip(results, units, strict=True):
        if "error" not in result and _SENTINELS.sub("", result["text"]) == text:
            return _read_sentinels(text, result["text"], used)
    return None


def _read_sentinels(text: str, marked: str, units: Units) -> list[tuple[int, int, str]]:
    located, opened = [], []
    for cut, match in enumerate(_SENTINELS.finditer(marked)):
        at = match.start() - cut
        if match[0] != _CLOSE:
            opened.append((at, units.roles[ord(match[0]) - _FIRST_OPEN]))
        elif opened:
            start, (role, grow) = opened.pop()
            if not opened:  # a content quoted inside another belongs to the outer one
                located.append((*(_json_around(text, start, at, located) if grow else (start, at)), role))
    return located


def _json_around(text: str, start: int, end: int, located) -> tuple[int, int]:
    """The outermost JSON object around [start, end) on its line, so that a call is shown whole."""
    floor = max([text.rfind("\n", 0, start) + 1] + [e for _, e, _ in located[-1:]])
    at, decoder = text.find("{", floor, start), json.JSONDecoder()
    for _ in range(8):
        if at < 0:
            break
        try:
            stop = decoder.raw_decode(text, at)[1]
        except (ValueError, RecursionError):
            stop = -1
        if stop >= end:
            return at, stop
        at = text.find("{", at + 1, start)
    return start, end


def locate_by_prefixes(text: str, call: dict, run: Callable[[list[dict]], list[dict]]) -> list[tuple[int, int, str]]:
    """The same, looked up in what each message adds; empty where prefixes do not render to prefixes."""
    messages = call["messages"]
    prefixes = [{**call, "messages": messages[: i + 1], "add_generation_prompt": False} for i in range(len(messages))]
    located, before = [], 0
    for message, result in zip(messages, run(prefixes), strict=True):
        if "error" in result or not text.startswith(result["text"]):
            return []
        after, content = len(result["text"]), message.get("content")
        core = content.strip() if isinstance(content, str) else ""
        at = text.find(core, before, after) if core else -1
        if at >= 0 and message.get("role") in ROLES:
            located.append((at, at + len(core), message["role"]))
        before = after
    return located


def tile(text: str, located: list[tuple[int, int, str]], ranges) -> list[Span]:
    """Spans that cover the text once, in order; where located pieces overlap the earlier one wins."""
    edges = sorted({0, len(text), *(e for piece in located for e in piece[:2]), *(e for r in ranges for e in r)})
    cells = []
    located, i = sorted(located), 0
    trained, t = sorted(ranges), 0
    for start, end in pairwise(edges):
        while i < len(located) and located[i][1] <= start:
            i += 1
        while t < len(trained) and trained[t][1] <= start:
            t += 1
        role = located[i][2] if i < len(located) and located[i][0] <= start else "template"
        cells.append(Span(start, end, role, t < len(trained) and trained[t][0] <= start))
    joined = []
    for (role, is_trained), group in groupby(cells, key=lambda cell: (cell.role, cell.trained)):
        group = list(group)
        joined.append(Span(group[0].start, group[-1].end, role, is_trained))
    return joined
