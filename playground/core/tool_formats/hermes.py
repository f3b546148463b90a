"""Hermes / Qwen calls: `<tool_call>` JSON `</tool_call>`, results in `<tool_response>`.

Source of the format: https://github.com/NousResearch/Hermes-Function-Calling. Reasoning is `<think>…</think>`.
"""

import json

from playground.core.streaming import Marker, close_outside_strings
from playground.core.tool_formats import tool_list
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.reading import read_json_call
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "hermes"
STOPS = ("<tool_response>",)  # the model must not write the result itself
OPEN, CLOSE = "<tool_call>", "</tool_call>"
CALL = Marker("call", OPEN, CLOSE, end=close_outside_strings(CLOSE), until=(OPEN,))
MARKERS = (CALL, Marker("reasoning", "<think>", "</think>"))


def announce(tools) -> str:
    return (
        "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
        + tool_list.as_lines(tools)
        + "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
        f'{OPEN}{CLOSE} XML tags:\n{OPEN}\n{{"name": <function-name>, "arguments": <args-json-object>}}\n{CLOSE}'
    )


def write(calls: list[Call]) -> str:
    return "\n".join(
        f"{OPEN}\n{json.dumps({'name': c.name, 'arguments': c.arguments}, ensure_ascii=False)}\n{CLOSE}" for c in calls
    )


def read(body: str, raw: str, closed: bool, tools=()) -> Call | Fault:
    """A whole JSON object counts even where the closing tag is missing: nothing about it is guessed."""
    return read_json_call(body, raw, closed, where=f"between {OPEN} and {CLOSE}")


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return f"<tool_response>\n{content}\n</tool_response>"
