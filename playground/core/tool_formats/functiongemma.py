"""FunctionGemma: `<start_function_call>call:name{city:<escape>Paris<escape>,days:3}<end_function_call>`.

Texts stand between two `<escape>`; keys have no quotes. Source:
https://ai.google.dev/gemma/docs/functiongemma/formatting-and-best-practices.
"""

from playground.core.streaming import Marker
from playground.core.tool_formats import arguments, tool_list
from playground.core.tool_formats.braces import Braces
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "functiongemma"
STOPS = ("<start_function_response>",)
OPEN, CLOSE, QUOTE = "<start_function_call>", "<end_function_call>", "<escape>"
_BRACES = Braces(QUOTE, CLOSE)
ARGUMENT_FORM = arguments.braces(QUOTE)
MARKERS = (Marker("call", OPEN, CLOSE, end=_BRACES.end),)


def announce(tools) -> str:
    return (
        "You are a model that can do function calling with the following functions\n"
        + tool_list.as_lines(tools)
        + f"\nTo call one, write {OPEN}call:NAME{{argument:value}}{CLOSE}, with texts as {QUOTE}text{QUOTE}."
    )


def write(calls: list[Call]) -> str:
    return "".join(f"{OPEN}call:{call.name}{_BRACES.write(call.arguments)}{CLOSE}" for call in calls)


def read(body: str, raw: str, closed: bool, tools=()) -> Call | Fault:
    return _BRACES.read(body, raw, closed)


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return f"<start_function_response>response:{name}{{value:{QUOTE}{content}{QUOTE}}}<end_function_response>"
