"""MiniMax M2: `<minimax:tool_call>`, `<invoke name="…">`, and each argument as bare text in `<parameter name="…">`.

Source: https://huggingface.co/MiniMaxAI/MiniMax-M2/blob/main/docs/tool_calling_guide.md.
"""

import re

from playground.core.streaming import Marker
from playground.core.tool_formats import tool_list
from playground.core.tool_formats.arguments import Tagged
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.tagged import Tags
from playground.core.tool_formats.typed import write_text
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "minimax_m2"
STOPS = ()
OPEN, CLOSE = "<minimax:tool_call>", "</minimax:tool_call>"
_TAGS = Tags(
    call=re.compile(r'<invoke name="?([^">\n]+)"?>'),
    call_begins="<invoke name=",
    call_close="</invoke>",
    argument=re.compile(r'<parameter name="?([^">\n]+)"?>'),
    argument_begins="<parameter name=",
    argument_close="</parameter>",
    section_close=CLOSE,
)
ARGUMENT_FORM = Tagged('<parameter name="NAME">', "</parameter>\n", ("</parameter>", "</invoke>"))
MARKERS = (
    Marker("call", OPEN, CLOSE, end=_TAGS.end),
    Marker("reasoning", "<think>", "</think>", unclosed=(OPEN,)),
)


def announce(tools) -> str:
    return (
        "# Tools\nYou may call one or more tools to assist with the user query.\nHere are the tools available in "
        "JSONSchema format:\n\n<tools>\n" + tool_list.as_lines(tools, False) + "\n</tools>\n\nWhen making tool calls, "
        f'use XML format to invoke tools and pass parameters:\n\n{OPEN}\n<invoke name="tool-name-1">\n<parameter '
        f'name="param-key-1">param-value-1</parameter>\n...\n</invoke>\n{CLOSE}'
    )


def write(calls: list[Call]) -> str:
    return f"{OPEN}\n" + "".join(map(_write_one, calls)) + CLOSE


def _write_one(call: Call) -> str:
    pieces = (f'<parameter name="{k}">{write_text(v)}</parameter>\n' for k, v in call.arguments.items())
    return f'<invoke name="{call.name}">\n{"".join(pieces)}</invoke>\n'


def read(body: str, raw: str, closed: bool, tools=()) -> list[Call | Fault]:
    return _TAGS.read(body, raw, closed, tools)


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return f"<response>{content}</response>"
