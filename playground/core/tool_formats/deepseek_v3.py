"""DeepSeek V3 and R1: calls between `<｜tool▁call▁begin｜>` and `<｜tool▁call▁end｜>`, several in one section.

V3 and R1 write `function<｜tool▁sep｜>name` and the arguments in a ```json fence, V3.1 `name<｜tool▁sep｜>{…}`. Source:
the chat templates of https://huggingface.co/deepseek-ai/DeepSeek-V3 and -V3.1.
"""

import json

from playground.core.streaming import Marker, close_outside_strings, dropped
from playground.core.tool_formats import tool_list
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.reading import read_arguments
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "deepseek_v3"
STOPS = ("<｜tool▁outputs▁begin｜>",)
SECTION, SECTION_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
OPEN, SEPARATOR, CLOSE = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
RESULT, RESULT_END = "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"
FENCE = "```"
MARKERS = (
    dropped(SECTION),
    dropped(SECTION_END),
    Marker("call", OPEN, CLOSE, end=close_outside_strings(CLOSE), until=(OPEN, SECTION_END)),
    dropped(RESULT),
    dropped(RESULT_END),
    Marker("reasoning", "<think>", "</think>", unclosed=(SECTION, OPEN)),
)


def announce(tools) -> str:
    return (
        "## Tools\n\nYou have access to the following tools:\n\n" + tool_list.as_lines(tools) + "\n\n"
        f"To call tools, write {SECTION}{OPEN}function{SEPARATOR}NAME\n{FENCE}json\nARGUMENTS\n{FENCE}{CLOSE}"
        f"{SECTION_END}, with one {OPEN} for each call."
    )


def write(calls: list[Call]) -> str:
    written = (json.dumps(c.arguments, ensure_ascii=False) for c in calls)
    pieces = (
        f"{OPEN}function{SEPARATOR}{c.name}\n{FENCE}json\n{one}\n{FENCE}{CLOSE}"
        for c, one in zip(calls, written, strict=True)
    )
    return SECTION + "\n".join(pieces) + SECTION_END


def read(body: str, raw: str, closed: bool, tools=()) -> Call | Fault:
    head, separator, tail = body.partition(SEPARATOR)
    if not separator:
        kind, end = ("malformed", "is closed") if closed else ("truncated", "ends")
        return Fault(kind, f"The call {end} before its {SEPARATOR}.", raw)
    head, tail = head.strip(), tail.strip()
    if head == "function" and not tail.startswith("{"):
        name, newline, tail = tail.partition("\n")
        if not newline and not closed:
            return Fault("truncated", "The reply ended inside the name of the tool.", raw)
        head = name.strip()
    arguments = tail.strip()
    if arguments.startswith(FENCE):
        arguments = arguments.removeprefix(FENCE).removeprefix("json").strip()
        arguments = arguments.removesuffix(FENCE)
    elif not closed and FENCE.startswith(arguments):
        arguments = ""
    return read_arguments(head, arguments, raw, closed, "of the arguments")


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return f"{RESULT}{content}{RESULT_END}"
