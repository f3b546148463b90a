"""Command R7B, Command A and later: a JSON list of `{"tool_name", "parameters"}` after `<|START_ACTION|>`.

Source: the chat template of https://huggingface.co/CohereLabs/c4ai-command-r7b-12-2024.
"""

import json

from playground.core.streaming import Marker, close_outside_strings
from playground.core.tool_formats import tool_list
from playground.core.tool_formats.reading import call_from, read_json_calls
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "cohere"
STOPS = ("<|START_TOOL_RESULT|>",)
OPEN, CLOSE = "<|START_ACTION|>", "<|END_ACTION|>"
MARKERS = (
    Marker("call", OPEN, CLOSE, end=close_outside_strings(CLOSE)),
    Marker("reasoning", "<|START_THINKING|>", "<|END_THINKING|>", unclosed=(OPEN,)),
    Marker("content", "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    Marker("content", "<|START_TEXT|>", "<|END_TEXT|>"),
)


def announce(tools) -> str:
    return (
        "You can use these tools:\n" + tool_list.as_lines(tools, False) + f"\n\nTo use them, write {OPEN} followed by "
        'a list of JSON-formatted tool calls, each with "tool_call_id", "tool_name" and "parameters" fields, then '
        f"{CLOSE}. To answer, write <|START_RESPONSE|>, the answer, and <|END_RESPONSE|>."
    )


def write(calls: list[Call]) -> str:
    entries = (
        json.dumps({"tool_call_id": str(n), "tool_name": c.name, "parameters": c.arguments}, ensure_ascii=False)
        for n, c in enumerate(calls)
    )
    return f"{OPEN}[\n    " + ",\n    ".join(entries) + f"\n]{CLOSE}"


def make(value, raw: str, where: str) -> Call | Fault:
    if isinstance(value, dict) and "tool_name" in value:
        value = {"name": value["tool_name"], **{k: v for k, v in value.items() if k not in ("tool_name", "name")}}
    return call_from(value, raw, where, ("parameters",))


def read(body: str, raw: str, closed: bool, tools=()) -> list[Call | Fault]:
    return read_json_calls(body, raw, closed, f"between {OPEN} and {CLOSE}", make=make)


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    result = {"tool_call_id": "0", "results": {"0": content}, "is_error": None}
    return f"<|START_TOOL_RESULT|>[\n    {json.dumps(result, ensure_ascii=False)}\n]<|END_TOOL_RESULT|>"
