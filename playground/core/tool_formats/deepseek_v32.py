"""DeepSeek V3.2 and V4: `<｜DSML｜invoke name="…">` in a section; an argument's tag says whether it is a text.

Source: the chat templates of https://huggingface.co/deepseek-ai/DeepSeek-V3.2 and V4 (its section is `tool_calls`).
"""

import json
import re

from playground.core.streaming import Marker
from playground.core.tool_formats import tool_list
from playground.core.tool_formats.arguments import Tagged
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.reading import read_json
from playground.core.tool_formats.tagged import Tags, Unreadable
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "deepseek_v32"
STOPS = ("<function_results>",)
_D = "｜DSML｜"
OPEN, CLOSE = f"<{_D}function_calls>", f"</{_D}function_calls>"
OPEN_V4, CLOSE_V4 = f"<{_D}tool_calls>", f"</{_D}tool_calls>"


def _value(text: str, tag: re.Match, schema):
    if tag[2] == "true":
        return text
    value = read_json(text, text, True, "of the argument")
    if isinstance(value, Fault):
        raise Unreadable(f'is said to be no text (string="false"), and is no JSON either: {text[:40]!r}')
    return value


def _tags(close: str) -> Tags:
    return Tags(
        call=re.compile(rf'<{_D}invoke name="([^">\n]+)">'),
        call_begins=f'<{_D}invoke name="',
        call_close=f"</{_D}invoke>",
        argument=re.compile(rf'<{_D}parameter name="([^">\n]+)" string="(true|false)">'),
        argument_begins=f'<{_D}parameter name="',
        argument_close=f"</{_D}parameter>",
        section_close=close,
        value=_value,
    )


_TAGS, _TAGS_V4 = _tags(CLOSE), _tags(CLOSE_V4)
ARGUMENT_FORM = Tagged(
    f'<{_D}parameter name="NAME" string="true">',
    f"</{_D}parameter>\n",
    (f"</{_D}parameter>", f"</{_D}invoke>"),
    json_open=f'<{_D}parameter name="NAME" string="false">',
)
MARKERS = (
    Marker("call", OPEN, CLOSE, end=_TAGS.end),
    Marker("call", OPEN_V4, CLOSE_V4, end=_TAGS_V4.end),
    Marker("reasoning", "<think>", "</think>", unclosed=(OPEN, OPEN_V4)),
)


def announce(tools) -> str:
    return (
        "## Tools\n\nYou have access to a set of tools you can use to answer the user's question. You can invoke "
        f'functions by writing a block like this:\n{OPEN}\n<{_D}invoke name="$FUNCTION_NAME">\n<{_D}parameter '
        f'name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</{_D}parameter>\n...\n</{_D}invoke>\n{CLOSE}\n\n'
        'String parameters are written as they are, with string="true"; all others as JSON, with string="false".\n\n'
        "Here are the functions available in JSONSchema format:\n<functions>\n"
        + tool_list.as_lines(tools, False)
        + "\n</functions>"
    )


def write(calls: list[Call]) -> str:
    return f"{OPEN}\n" + "".join(map(_write_one, calls)) + CLOSE


def _write_one(call: Call) -> str:
    pieces = []
    for key, value in call.arguments.items():
        is_text = isinstance(value, str)
        text = value if is_text else json.dumps(value, ensure_ascii=False)
        pieces.append(f'<{_D}parameter name="{key}" string="{str(is_text).lower()}">{text}</{_D}parameter>\n')
    return f'<{_D}invoke name="{call.name}">\n{"".join(pieces)}</{_D}invoke>\n'


def read(body: str, raw: str, closed: bool, tools=()) -> list[Call | Fault]:
    return _TAGS.read(body, raw, closed, tools)


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return f"<function_results>\n<result>{content}</result>\n</function_results>"
