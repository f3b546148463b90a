"""GigaChat 3: `{"name", "arguments"}` after `function call<|role_sep|>` or (3.1) `<|function_call|>`; one call a turn.

Source: the chat templates of https://huggingface.co/ai-sage/GigaChat3-10B-A1.8B and GigaChat3.1-10B-A1.8B.
"""

import json

from playground.core.streaming import Marker, dropped
from playground.core.tool_formats import tool_list
from playground.core.tool_formats.reading import json_body, read_json_calls
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "gigachat"
OPEN, OPEN_31, END = "function call<|role_sep|>", "<|function_call|>", "<|message_sep|>"
STOPS = ("function result<|role_sep|>",)
_END = json_body((END,))
MARKERS = (
    Marker("call", OPEN, END, end=_END),
    Marker("call", OPEN_31, END, end=_END),
    dropped("assistant<|role_sep|>"),
    dropped(END),
)


def announce(tools) -> str:
    return (
        "Call available functions when they help to answer. The functions are:\n"
        + tool_list.as_lines(tools, False)
        + f'\n\nTo call one, write {OPEN_31}{{"name": NAME, "arguments": {{…}}}}{END}'
    )


def write(calls: list[Call]) -> str:
    pieces = ({"name": c.name, "arguments": c.arguments} for c in calls)
    return "".join(f"{OPEN_31}{json.dumps(one, ensure_ascii=False)}{END}" for one in pieces)


def read(body: str, raw: str, closed: bool, tools=()) -> list[Call | Fault]:
    return read_json_calls(body, raw, closed, "of the call")


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return f"function result<|role_sep|>\n{content}{END}"
