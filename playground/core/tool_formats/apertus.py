"""Apertus: a JSON list of `{name: arguments}` between `<|tools_prefix|>` and `<|tools_suffix|>`.

Source: the chat template of https://huggingface.co/swiss-ai/Apertus-8B-Instruct-2509.
"""

import json

from playground.core.streaming import Marker, close_outside_strings
from playground.core.tool_formats import tool_list
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.reading import read_json_calls
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "apertus"
STOPS = ()
OPEN, CLOSE = "<|tools_prefix|>", "<|tools_suffix|>"
MARKERS = (
    Marker("call", OPEN, CLOSE, end=close_outside_strings(CLOSE)),
    Marker("reasoning", "<|inner_prefix|>", "<|inner_suffix|>", unclosed=(OPEN,)),
)


def announce(tools) -> str:
    return (
        "Tool Capabilities:\n" + tool_list.as_lines(tools, False) + f"\n\nTo call tools, write {OPEN}, a JSON list "
        f'with {{"NAME": ARGUMENTS}} for each call, and {CLOSE}.'
    )


def write(calls: list[Call]) -> str:
    return OPEN + json.dumps([{c.name: c.arguments} for c in calls], ensure_ascii=False) + CLOSE


def _make(value, raw: str, where: str) -> Call | Fault:
    if not isinstance(value, dict) or len(value) != 1:
        return Fault("malformed", 'A call must be an object with one key, {"NAME": ARGUMENTS}.', raw)
    ((name, arguments),) = value.items()
    if not isinstance(arguments, dict):
        return Fault("malformed", f"The arguments of {name[:60]} must be a JSON object.", raw, name)
    return Call(name, arguments, raw)


def read(body: str, raw: str, closed: bool, tools=()) -> list[Call | Fault]:
    return read_json_calls(body, raw, closed, f"between {OPEN} and {CLOSE}", make=_make)


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return f"[{content}]"
