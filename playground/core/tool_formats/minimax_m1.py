"""MiniMax M1: JSON objects, one a line, between `<tool_calls>` and `</tool_calls>`; Hunyuan A13B's list there too.

Source: https://huggingface.co/MiniMaxAI/MiniMax-M1-80k, its guide to function calls.
"""

import json

from playground.core.streaming import Marker, close_outside_strings
from playground.core.tool_formats import tool_list
from playground.core.tool_formats.reading import json_end, read_json_call, read_json_calls
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "minimax_m1"
STOPS = ()
OPEN, CLOSE = "<tool_calls>", "</tool_calls>"
MARKERS = (
    Marker("call", OPEN, CLOSE, end=close_outside_strings(CLOSE)),
    Marker("reasoning", "<think>", "</think>"),
)


def announce(tools) -> str:
    return (
        "You are provided with these tools:\n<tools>\n" + tool_list.as_lines(tools, False) + "\n</tools>\n\n"
        f'To call tools, write {OPEN} and {CLOSE}, with {{"name": tool name, "arguments": arguments}} for each call '
        "on a line of its own between them."
    )


def write(calls: list[Call]) -> str:
    written = (json.dumps({"name": c.name, "arguments": c.arguments}, ensure_ascii=False) for c in calls)
    return f"{OPEN}\n" + "\n".join(written) + f"\n{CLOSE}"


def read(body: str, raw: str, closed: bool, tools=()) -> list[Call | Fault]:
    where, text = f"between {OPEN} and {CLOSE}", body.strip()
    if text.startswith("["):
        return read_json_calls(body, raw, closed, where)
    found: list[Call | Fault] = []
    while text or not found:
        end = json_end(text, 0)
        # what is not an object is one fault, up to the end of its line
        cut = end if end >= 0 else len(text) if text.startswith("{") else (text + "\n").index("\n")
        part, text = text[:cut], text[cut:].lstrip(" \t\r\n,")
        found.append(read_json_call(part, part or raw, closed or bool(text), where, ("arguments", "parameters")))
    return found


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return content
