"""Llama 3.1 and later: a bare JSON object `{"name": …, "parameters": {…}}`; several stand behind one another.

Sources: https://www.llama.com/docs/model-cards-and-prompt-formats/llama3_1/ (JSON based tool calling, `<|python_tag|>`
with `tool.call(…)` for the built-in tools, `<function=name>{…}</function>`).
"""

import json
import re

from playground.core.streaming import Marker, close_outside_strings, dropped
from playground.core.tool_formats import literals, tool_list
from playground.core.tool_formats.bare_json import finder, until_next
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.reading import read_arguments, read_json_calls
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "llama3_json"
STOPS = ("<|start_header_id|>ipython",)
PYTHON_TAG, FUNCTION, FUNCTION_CLOSE = "<|python_tag|>", "<function=", "</function>"
_BUILT_IN = re.compile(r"\s*([^\W\d]\w*)\.call(?=\()")


def _find_built_in(text: str, at: int, final: bool):
    """`<|python_tag|>` before anything that is not JSON."""
    position = text.find(PYTHON_TAG, at)
    if position < 0:
        return None
    body = position + len(PYTHON_TAG)
    rest = text[body:].lstrip()
    if not rest and not final:
        return position, -1
    return None if rest[:1] in ("{", "[") else (position, body)


MARKERS = (
    Marker("call", "", "<|eom_id|>", find=_find_built_in, unclosed=("<|eot_id|>",)),
    dropped(PYTHON_TAG),
    dropped("<|eom_id|>"),
    Marker("call", FUNCTION, FUNCTION_CLOSE, end=close_outside_strings(FUNCTION_CLOSE), until=(FUNCTION,)),
    Marker("call", "", "", find=finder(lists=False), end=until_next),
    Marker("reasoning", "<think>", "</think>"),
)


def announce(tools) -> str:
    return (
        "Given the following functions, please respond with a JSON for a function call with its proper arguments that "
        "best answers the given prompt.\n\n"
        'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}. '
        "Do not use variables.\n\n" + tool_list.as_lines(tools)
    )


def write(calls: list[Call]) -> str:
    return "; ".join(json.dumps({"name": c.name, "parameters": c.arguments}, ensure_ascii=False) for c in calls)


def read(body: str, raw: str, closed: bool, tools=()) -> Call | Fault | list[Call | Fault]:
    if raw.startswith(FUNCTION):
        name, bracket, arguments = body.partition(">")
        if not bracket:
            return Fault("malformed" if closed else "truncated", "The call ends inside the name of its tool.", raw)
        return read_arguments(name.strip(), arguments, raw, closed, "of the arguments")
    if raw.startswith(PYTHON_TAG):
        built_in = _BUILT_IN.match(body)
        if not built_in:
            return Fault("malformed", f"{PYTHON_TAG} must be followed by a call, got {body[:40]!r}.", raw)
        return literals.read_calls(built_in[1] + body[built_in.end() :].strip(), closed)
    return read_json_calls(body, raw, closed, "of the call", ("parameters", "arguments"))


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return json.dumps({"output": content}, ensure_ascii=False)
