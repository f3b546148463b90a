"""Llama 3.2 and 4, Gemma 3, ToolACE: a Python list of calls, `[f(city='Paris'), g(days=3)]`.

Llama 4 may put `<|python_start|>` and `<|python_end|>` around it. Source:
https://github.com/meta-llama/llama-models/blob/main/models/llama3_2/text_prompt_format.md
"""

import re

from playground.core.streaming import Marker, dropped
from playground.core.tool_formats import literals, tool_list
from playground.core.tool_formats.arguments import PYTHON
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "pythonic"
BARE = r"\[\s*[A-Za-z_][A-Za-z0-9_.\-]*\("  # how a call begins that nothing marks
STOPS = ("<|start_header_id|>ipython", "<|header_start|>ipython")
_LIST = re.compile(r"(?:(?<=[\s>])|(?<!.))\[\s*[^\W\d][\w.\-]*\(\s*(?:\)|[^\W\d]\w*\s*=|$)", re.DOTALL)
_MAY_BEGIN = re.compile(r"(?:(?<=[\s>])|(?<!.))\[\s*(?:[^\W\d][\w.\-]*(?:\(\s*(?:[^\W\d]\w*\s*)?)?)?$", re.DOTALL)


def find(text: str, at: int, final: bool):
    """`[` and the name of a call, at the beginning of a word; `a[f(x)]` and `[a](link)` are text."""
    found = _LIST.search(text, at)
    if found:
        return found.start(), found.start()
    begun = None if final else _MAY_BEGIN.search(text, max(at, len(text) - 200))
    return (begun.start(), -1) if begun else None


def end(text: str, start: int):
    stop = literals.bracket_end(text, start)
    return (stop, stop) if stop >= 0 else -1


ARGUMENT_FORM = PYTHON
MARKERS = (
    Marker("call", "", "", find=find, end=end),
    dropped("<|python_start|>"),
    dropped("<|python_end|>"),
    Marker("reasoning", "<think>", "</think>"),
)


def announce(tools) -> str:
    return (
        "You have access to the following functions. To call functions, please respond with a python list of the "
        "calls. Respond in the format [func_name1(params_name1=params_value1, params_name2=params_value2...), "
        "func_name2(params)] Do not use variables.\n\n" + tool_list.as_lines(tools)
    )


def write(calls: list[Call]) -> str:
    return f"[{', '.join(map(literals.write_call, calls))}]"


def read(body: str, raw: str, closed: bool, tools=()) -> list[Call | Fault]:
    return literals.read_calls(body, closed)


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return content
