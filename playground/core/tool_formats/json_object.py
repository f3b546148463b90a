"""Plain JSON: the reply is `{"name": …, "arguments": {…}}`, or a list of such objects, and nothing marks it.

The layout of function-calling pairs (a question, and the call as its answer); also in a ```json fence.
"""

import json

from playground.core.streaming import Marker
from playground.core.tool_formats import tool_list
from playground.core.tool_formats.bare_json import finder, until_next
from playground.core.tool_formats.reading import json_body, read_json_calls
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "json"
STOPS = ()
_FENCED = json_body(("```",))


def _end(text: str, start: int):
    fenced = text[:start].rstrip().endswith(("```", "```json"))
    return _FENCED(text, start) if fenced or text[start : start + 1] == "[" else until_next(text, start)


MARKERS = (
    Marker("call", "", "", find=finder(before=r"```json\s*|```\s*"), end=_end),
    Marker("reasoning", "<think>", "</think>"),
)


def announce(tools) -> str:
    return (
        "You have access to the following functions. Use them if required:\n\n" + tool_list.as_list(tools) + "\n\n"
        'To call one, answer with only a JSON object {"name": function name, "arguments": {argument: value}}, or with '
        "a list of such objects."
    )


def write(calls: list[Call]) -> str:
    written = [{"name": c.name, "arguments": c.arguments} for c in calls]
    return json.dumps(written[0] if len(written) == 1 else written, ensure_ascii=False)


def read(body: str, raw: str, closed: bool, tools=()) -> list[Call | Fault]:
    return read_json_calls(body, raw, closed, "of the call")


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return content
