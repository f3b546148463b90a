"""Gemma 4: `<|tool_call>call:name{city:<|"|>Paris<|"|>,days:3}<tool_call|>`, thoughts in `<|channel>thought`.

Source: the chat template of https://huggingface.co/google/gemma-4-31B-it.
"""

from playground.core.streaming import Marker
from playground.core.tool_formats import arguments, tool_list
from playground.core.tool_formats.braces import Braces
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "gemma4"
STOPS = ("<|tool_response>",)
OPEN, CLOSE, QUOTE = "<|tool_call>", "<tool_call|>", '<|"|>'
_BRACES = Braces(QUOTE, CLOSE)
ARGUMENT_FORM = arguments.braces(QUOTE)
MARKERS = (
    Marker("call", OPEN, CLOSE, end=_BRACES.end),
    Marker("reasoning", "<|channel>thought", "<channel|>", unclosed=(OPEN,)),
)


def announce(tools) -> str:
    return (
        "You can call these functions:\n"
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
    return f"<|tool_response>response:{name}{{value:{QUOTE}{content}{QUOTE}}}<tool_response|>"
