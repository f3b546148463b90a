"""Functionary for Llama 3.1: `<function=name>{…}</function>`.

Source: the chat template of https://huggingface.co/meetkai/functionary-medium-v3.1.
"""

import json

from playground.core.streaming import Marker, close_outside_strings, dropped
from playground.core.tool_formats import tool_list
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.reading import read_arguments
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "functionary_v31"
STOPS = ()
OPEN, CLOSE = "<function=", "</function>"
MARKERS = (Marker("call", OPEN, CLOSE, end=close_outside_strings(CLOSE), until=(OPEN,)), dropped("<|eom_id|>"))


def announce(tools) -> str:
    return (
        "You have access to the following functions:\n\n" + tool_list.as_lines(tools, False) + "\n\nIf you choose to "
        f"call a function ONLY reply in the following format:\n{OPEN}example_function_name>"
        f'{{"example_name": "example_value"}}{CLOSE}'
    )


def write(calls: list[Call]) -> str:
    return "".join(f"{OPEN}{c.name}>{json.dumps(c.arguments, ensure_ascii=False)}{CLOSE}" for c in calls)


def read(body: str, raw: str, closed: bool, tools=()) -> Call | Fault:
    name, bracket, arguments = body.partition(">")
    if not bracket:
        kind = "malformed" if closed else "truncated"
        return Fault(kind, f"The call ends inside the name of its tool: {name[:40]!r}.".replace("\n", " "), raw)
    return read_arguments(name.strip(), arguments, raw, closed, "of the arguments")


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return content
