"""OLMo 3: calls in Python's form, one a line, between `<function_calls>` and `</function_calls>`.

Source: the chat template of https://huggingface.co/allenai/Olmo-3-7B-Instruct.
"""

from playground.core.streaming import Marker
from playground.core.tool_formats import literals, tool_list
from playground.core.tool_formats.arguments import PYTHON
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "olmo3"
STOPS = ("<|im_start|>environment",)
OPEN, CLOSE = "<function_calls>", "</function_calls>"
ARGUMENT_FORM = PYTHON
MARKERS = (
    Marker("call", OPEN, CLOSE, until=(OPEN,)),
    Marker("reasoning", "<think>", "</think>", unclosed=(OPEN,)),
)


def announce(tools) -> str:
    return (
        "You are a helpful function-calling AI assistant. You are provided with function signatures within "
        f"<functions></functions> XML tags. Output any function calls within {OPEN}{CLOSE} XML tags. Do not make "
        f"assumptions about what values to plug into functions.<functions>{tool_list.as_list(tools)}</functions>"
    )


def write(calls: list[Call]) -> str:
    return OPEN + "\n".join(map(literals.write_call, calls)) + CLOSE


def read(body: str, raw: str, closed: bool, tools=()) -> list[Call | Fault]:
    return literals.read_calls(body, closed)


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return content
