"""Phi-4-mini: `functools[{"name": …, "arguments": {…}}]`, or the list between `<|tool_call|>` and `<|/tool_call|>`.

Source: https://huggingface.co/microsoft/Phi-4-mini-instruct; FireFunction v2 writes `functools` too.
"""

import json
import re

from playground.core.streaming import Marker
from playground.core.tool_formats import tool_list
from playground.core.tool_formats.reading import json_body, read_json_calls
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "phi4_mini"
STOPS = ()
OPEN, CLOSE = "<|tool_call|>", "<|/tool_call|>"
WORD = "functools"
TRIGGER = WORD + "["  # where a grammar takes over
_LIST = re.compile(WORD + r"\s*(?=\[)")
_MAY_BEGIN = re.compile(WORD + r"\s*$")


def _find(text: str, at: int, final: bool):
    found = _LIST.search(text, at)
    if found:
        return found.start(), found.end()
    if final:
        return None
    begun = _MAY_BEGIN.search(text, at)
    held = begun.start() if begun else len(text) - max(n for n in range(len(WORD)) if text.endswith(WORD[:n]))
    return (held, -1) if at <= held < len(text) else None


MARKERS = (
    Marker("call", "", "", find=_find, end=json_body((CLOSE,))),
    Marker("call", OPEN, CLOSE, end=json_body((CLOSE,)), until=(OPEN,)),
)


def announce(tools) -> str:
    return (
        "In addition to plain text responses, you can choose to call one or more of the provided functions. Prefix "
        "function calls with functools marker (no closing marker required). All function calls should be generated in "
        'a single JSON list formatted as functools[{"name": [function name], "arguments": [function arguments as '
        f"JSON]}}, ...]\n\n{tool_list.as_lines(tools)}"
    )


def write(calls: list[Call]) -> str:
    return WORD + json.dumps([{"name": c.name, "arguments": c.arguments} for c in calls], ensure_ascii=False)


def read(body: str, raw: str, closed: bool, tools=()) -> list[Call | Fault]:
    return read_json_calls(body, raw, closed, f"after {WORD}")


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return json.dumps({"result": content}, ensure_ascii=False)
