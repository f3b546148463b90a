"""Kimi K2: `<|tool_call_begin|>functions.name:0<|tool_call_argument_begin|>{…}<|tool_call_end|>` in a section.

The call's id holds the tool's name and a running number. Source:
https://github.com/MoonshotAI/Kimi-K2/blob/main/docs/tool_call_guidance.md.
"""

import json
import re

from playground.core.streaming import Marker, close_outside_strings, dropped
from playground.core.tool_formats import tool_list
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.reading import read_arguments
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "kimi_k2"
STOPS = ()
SECTION, SECTION_END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
OPEN, ARGUMENTS, CLOSE = "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"
_ID = re.compile(r"(?:functions\.)?(.+):\d+", re.DOTALL)
# Some of its models leave out the plural in the section's markers.
_SECTIONS = (SECTION, SECTION_END, SECTION.replace("calls", "call"), SECTION_END.replace("calls", "call"))
_SECTION_ENDS = re.compile("|".join(map(re.escape, _SECTIONS[1::2])))
THINK, THOUGHT = "<think>", "</think>"


def _find_resumed(text: str, at: int, final: bool):
    """The end of a section that stood inside of thoughts, where these go on after it."""
    for end in _SECTION_ENDS.finditer(text, at):
        if text.rfind(THINK, 0, end.start()) <= text.rfind(THOUGHT, 0, end.start()):
            continue  # no thoughts were open
        if THOUGHT in text[end.end() :]:
            return end.start(), end.end()
        return None if final else (end.start(), -1)
    return None


MARKERS = (
    Marker("reasoning", "", THOUGHT, find=_find_resumed, until=(*_SECTIONS[::2], OPEN)),
    *map(dropped, _SECTIONS),
    Marker("call", OPEN, CLOSE, end=close_outside_strings(CLOSE), until=(OPEN, *_SECTIONS[1::2])),
    # Its models call in the middle of their thoughts.
    Marker("reasoning", THINK, THOUGHT, until=(*_SECTIONS[::2], OPEN)),
)


def announce(tools) -> str:
    return f"tool_declare\n{tool_list.as_list(tools)}"


def write(calls: list[Call]) -> str:
    pieces = (
        f"{OPEN}functions.{c.name}:{number}{ARGUMENTS}{json.dumps(c.arguments, ensure_ascii=False)}{CLOSE}"
        for number, c in enumerate(calls)
    )
    return SECTION + "".join(pieces) + SECTION_END


def read(body: str, raw: str, closed: bool, tools=()) -> Call | Fault:
    head, separator, arguments = body.partition(ARGUMENTS)
    if not separator:
        kind, end = ("malformed", "is closed") if closed else ("truncated", "ends")
        return Fault(kind, f"The call {end} before its {ARGUMENTS}.", raw)
    name = _ID.fullmatch(head.strip())
    if not name:
        reason = f"The call's id must be functions.NAME:NUMBER, got {head.strip()[:40]!r}."
        return Fault("malformed", reason, raw)
    return read_arguments(name[1], arguments, raw, closed, "of the arguments")


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return f"## Return of functions.{name}:0\n{content}"
