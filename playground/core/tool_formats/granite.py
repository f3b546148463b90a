"""Granite 3: `<|tool_call|>` (3.0) or `<tool_call>` (3.1 and later) before a JSON list of calls; the 20B function
calling model writes `<function_call>` before each object, Granite 4 closes a `<tool_call>`.

Source: https://www.ibm.com/granite/docs/models/granite.
"""

import json

from playground.core.streaming import Marker, dropped
from playground.core.tool_formats import tool_list
from playground.core.tool_formats.reading import json_body, read_json_calls
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "granite"
STOPS = ("<|start_of_role|>tool_response",)
OPENS = ("<|tool_call|>", "<tool_call>", "<function_call>")
CLOSES = ("</tool_call>", "</function_call>")
MARKERS = (
    *(Marker("call", open, "", end=json_body(CLOSES), until=OPENS) for open in OPENS),
    *map(dropped, CLOSES),
    Marker("reasoning", "<think>", "</think>"),
)


def announce(tools) -> str:
    return (
        "You are a helpful AI assistant with access to the following tools. When a tool is required to answer the "
        "user's query, respond with <|tool_call|> followed by a JSON list of tools used.\n\n"
        + tool_list.as_list(tools, False)
    )


def write(calls: list[Call]) -> str:
    return OPENS[0] + json.dumps([{"name": c.name, "arguments": c.arguments} for c in calls], ensure_ascii=False)


def read(body: str, raw: str, closed: bool, tools=()) -> list[Call | Fault]:
    return read_json_calls(body, raw, closed, "of the call")


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return content
