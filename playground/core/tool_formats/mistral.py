"""Mistral: `[TOOL_CALLS]`, then a JSON list (to v7), or for each call its name, `[ARGS]` and an object (v11 on).

v11 of Small 3.2 puts `[CALL_ID]` and an id before `[ARGS]`; v11 of the API leaves `[ARGS]` out. Reasoning models think
between `[THINK]` and `[/THINK]`. Source: https://docs.mistral.ai and mistral-common's chat templates.
"""

import json
import re

from playground.core.streaming import Marker
from playground.core.tool_formats import tool_list
from playground.core.tool_formats.reading import json_end, read_arguments, read_json_calls
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "mistral"
STOPS = ("[TOOL_RESULTS]",)
OPEN, CALL_ID, ARGS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"
_HEAD = re.compile(
    r"\s*([^\s\[\]{}](?:[^\[\]{}\n]{0,200}[^\s\[\]{}])?)[ \t]*(?:\[CALL_ID\][^\[\]{}]{0,200})?(?:\[ARGS\])?\s*(?=\{)"
)
_LIST = re.compile(r"[^\[\]{}]*(?=\[\s*\{)")


def _end(text: str, start: int):
    """The end of the list, or of the object after a name; -1 where neither is whole."""
    head = _HEAD.match(text, start) or _LIST.match(text, start)
    body = head.end() if head else start
    again = text.find(OPEN, body)
    end = json_end(text, body, again if again >= 0 else None)
    if end < 0 and '"' in text[body : max(again, body)]:
        end = json_end(text, body)  # a text of the call may hold the marker
    return (end, end) if end >= 0 else -1


MARKERS = (
    Marker("call", OPEN, "", end=_end, until=(OPEN,)),
    Marker("reasoning", "[THINK]", "[/THINK]", unclosed=(OPEN,)),
    Marker("reasoning", "<think>", "</think>", unclosed=(OPEN,)),
)


def announce(tools) -> str:
    return f"[AVAILABLE_TOOLS]{tool_list.as_list(tools)}[/AVAILABLE_TOOLS]"


def write(calls: list[Call]) -> str:
    return OPEN + json.dumps([{"name": c.name, "arguments": c.arguments} for c in calls], ensure_ascii=False)


def read(body: str, raw: str, closed: bool, tools=()) -> Call | Fault | list[Call | Fault]:
    head = _HEAD.match(body)
    if head:
        return read_arguments(head[1], body[head.end() :], raw, closed, f"after {ARGS}")
    listed = _LIST.match(body)
    text = body[listed.end() :] if listed else body.strip()
    if text.startswith(("[", "{")) or not text:
        return read_json_calls(text, raw, closed, f"after {OPEN}")
    kind = "malformed" if "\n" in text or closed else "truncated"
    return Fault(kind, f"{OPEN} must be followed by calls, got {text[:40]!r}.", raw)


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return f"[TOOL_RESULTS]{json.dumps({'content': content}, ensure_ascii=False)}[/TOOL_RESULTS]"
