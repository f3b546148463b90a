"""Seed-OSS: `<seed:tool_call>`, `<function=name>`, and each argument as bare text in `<parameter=key>`.

Source: the chat template of https://huggingface.co/ByteDance-Seed/Seed-OSS-36B-Instruct.
"""

import re

from playground.core.streaming import Marker
from playground.core.tool_formats import tool_list
from playground.core.tool_formats.arguments import Tagged
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.tagged import Tags
from playground.core.tool_formats.typed import write_text
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "seed_oss"
STOPS = ()
OPEN, CLOSE = "<seed:tool_call>", "</seed:tool_call>"
_TAGS = Tags(
    call=re.compile(r"<function=([^>\n]+)>"),
    call_begins="<function=",
    call_close="</function>",
    argument=re.compile(r"<parameter=([^>\n]+)>"),
    argument_begins="<parameter=",
    argument_close="</parameter>",
    section_close=CLOSE,
)
ARGUMENT_FORM = Tagged("<parameter=NAME>", "</parameter>\n", ("</parameter>", "</function>"))
MARKERS = (
    Marker("call", OPEN, CLOSE, end=_TAGS.end),
    # how much it has thought stands inside of its thoughts
    Marker("reasoning", "<seed:think>", "</seed:think>", unclosed=(OPEN,)),
)


def announce(tools) -> str:
    return (
        "You may call one or more functions to assist with the user query. The functions are:\n"
        + tool_list.as_lines(tools)
        + f"\n\nCall them in this form:\n{OPEN}\n<function=example_function_name>\n<parameter=example_parameter>value"
        f"</parameter>\n</function>\n{CLOSE}"
    )


def write(calls: list[Call]) -> str:
    return "\n".join(f"{OPEN}\n{_write_one(call)}\n{CLOSE}" for call in calls)


def _write_one(call: Call) -> str:
    pieces = (f"<parameter={k}>{write_text(v)}</parameter>\n" for k, v in call.arguments.items())
    return f"<function={call.name}>\n{''.join(pieces)}</function>"


def read(body: str, raw: str, closed: bool, tools=()) -> list[Call | Fault]:
    return _TAGS.read(body, raw, closed, tools)


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return content
