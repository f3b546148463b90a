"""ReAct with tags: `<Thought>`, `<Action>` name, `<Action_Input>` JSON, `<Observation>` result, `<Final_Answer>`.

The idea is Yao et al., https://arxiv.org/abs/2210.03629; tags instead of "Action:" lines say where each part ends.
"""

import json

from playground.core.streaming import Marker, close_outside_strings
from playground.core.tool_formats import tool_list
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.reading import read_json
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "react"
STOPS = ("<Observation>",)  # the model must not write the result itself
OPEN, CLOSE = "<Action>", "</Action_Input>"
NAME_CLOSE, INPUT_OPEN = "</Action>", "<Action_Input>"
MARKERS = (
    Marker("call", OPEN, CLOSE, end=close_outside_strings(CLOSE), until=(OPEN, "<Observation>", "<Final_Answer>")),
    Marker("reasoning", "<Thought>", "</Thought>", until=(OPEN, "<Final_Answer>")),
    Marker("content", "<Final_Answer>", "</Final_Answer>"),
)


def announce(tools) -> str:
    return (
        "You can use these tools:\n" + tool_list.as_lines(tools, False) + "\n\n"
        f"Think in <Thought></Thought>. To use a tool, write {OPEN}NAME{NAME_CLOSE} and "
        f"{INPUT_OPEN}JSON object{CLOSE}; its result comes as <Observation></Observation>. Answer in "
        "<Final_Answer></Final_Answer>."
    )


def write(calls: list[Call]) -> str:
    return "\n".join(
        f"{OPEN}{c.name}{NAME_CLOSE}\n{INPUT_OPEN}{json.dumps(c.arguments, ensure_ascii=False)}{CLOSE}" for c in calls
    )


def read(body: str, raw: str, closed: bool, tools=()) -> Call | Fault:
    name, found, arguments = body.partition(INPUT_OPEN)
    name = name.strip().removesuffix(NAME_CLOSE).strip()
    if not found:
        kind, end = ("malformed", "is closed") if closed else ("truncated", "ends")
        return Fault(kind, f"The action {end} before its {INPUT_OPEN}.", raw, name)
    if not name or "<" in name or "\n" in name:
        return Fault("malformed", f"{OPEN} must hold the name of one tool, got {name[:40]!r}.", raw)
    value = read_json(arguments, raw, closed, f"in {INPUT_OPEN}")
    if isinstance(value, Fault):
        return value
    if not isinstance(value, dict):
        return Fault(
            "malformed", f"{INPUT_OPEN} must hold a JSON object of arguments, got {arguments[:40]!r}.", raw, name
        )
    return Call(name, value, raw)


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return f"<Observation>{content}</Observation>"
