"""Functionary v3.2: `>>>name`, a new line, the arguments; `>>>all` begins what is said to all.

The prompt ends with the first `>>>`, so a reply begins with a name. Source: the chat template of
https://huggingface.co/meetkai/functionary-medium-v3.2.
"""

import json
import re

from playground.core.streaming import Marker
from playground.core.tool_formats import tool_list
from playground.core.tool_formats.reading import json_body, read_arguments
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "functionary_v32"
STOPS = ()
OPEN, ALL = ">>>", "all"
_SAID = re.compile(r"(?:\A|>>>)all\n")
_CALLED = re.compile(r"(?:\A|>>>)(?!all\n)([A-Za-z_][\w.-]*)\n(?=\s*\{)")
_MAY_OPEN = re.compile(r"(?:\A|>{1,3})(?:(?<=>>>)|\A)[\w.-]*\n?\s*$|>{1,2}$")


def _find(pattern: re.Pattern, whole: bool):
    def find(text: str, at: int, final: bool):
        found = pattern.search(text, at)
        if found:
            return found.start(), found.end() if whole else found.start(1)
        begun = None if final else _MAY_OPEN.search(text, at)
        return (begun.start(), -1) if begun else None

    return find


_END = json_body()


def _call_ends(text: str, start: int):
    return _END(text, text.index("\n", start) + 1)


MARKERS = (
    Marker("content", "", "", find=_find(_SAID, True), end=lambda _, start: start),
    Marker("call", "", "", find=_find(_CALLED, False), end=_call_ends),
)


def announce(tools) -> str:
    return (
        "You are capable of executing available function(s) if required.\nUse JSON for function arguments.\nRespond in "
        f"this format:\n{OPEN}${{recipient}}\n${{content}}\nThe recipient of a spoken answer is {ALL}. Available "
        "functions:\n" + tool_list.as_lines(tools, False)
    )


def write(calls: list[Call]) -> str:
    return "".join(f"{OPEN}{c.name}\n{json.dumps(c.arguments, ensure_ascii=False)}" for c in calls)


def read(body: str, raw: str, closed: bool, tools=()) -> Call | Fault:
    name, _, arguments = body.partition("\n")
    return read_arguments(name.strip(), arguments, raw, closed, "of the arguments")


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return content
