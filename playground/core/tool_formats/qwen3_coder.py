"""Qwen3-Coder: `<tool_call>`, `<function=name>`, and each argument as bare text in `<parameter=key>`.

Its models at times leave `<tool_call>` or `</parameter>` out, or indent the tags. Source: the chat template of
https://huggingface.co/Qwen/Qwen3-Coder-30B-A3B-Instruct.
"""

import re

from playground.core.streaming import Marker, dropped
from playground.core.tool_formats import tool_list
from playground.core.tool_formats.arguments import Tagged
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.typed import schema_of, typed, write_text
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "qwen3_coder"
STOPS = ("<tool_response>",)
OPEN, CLOSE = "<tool_call>", "</tool_call>"
FUNCTION, FUNCTION_CLOSE = "<function=", "</function>"
PARAMETER, PARAMETER_CLOSE = "<parameter=", "</parameter>"
_CLOSED = re.compile(r"</function>\s*(</tool_call>)?")
_SPACE = re.compile(r"\s*")
_AGAIN = re.compile(r"<tool_call>\s*<function=")
# A value whose closing tag stands on a line of its own, indented: the blanks around it are layout.
_INDENTED = re.compile(r"\n(?:.*\n)?[ \t]+", re.DOTALL)
_VALUE_ENDS = re.compile(r"</parameter>(?=\s*(?:<parameter=|</function>|</tool_call>|$))|(?=<parameter=|</function>)")


def _end(text: str, start: int):
    """After the last function of the call, where that is closed; what a parameter holds does not end a call."""
    function = text.find(FUNCTION, start)
    close = text.find(CLOSE, start)
    if function < 0 or 0 <= close < function:
        return -1 if close < 0 else close
    again = _AGAIN.search(text, function)
    limit = again.start() if again else len(text)
    at = start
    while closed := _CLOSED.search(text, at, limit):
        if closed[1]:
            return closed.start(1), closed.end()
        at = closed.end()
    return (limit, limit) if again else -1


def _end_bare(text: str, start: int):
    closed = text.find(FUNCTION_CLOSE, start)
    return closed + len(FUNCTION_CLOSE) if closed >= 0 else -1


def _find_bare(text: str, at: int, final: bool):
    position = text.find(FUNCTION, at)
    return (position, position) if position >= 0 else None


ARGUMENT_FORM = Tagged(
    f"{PARAMETER}NAME>\n",
    f"\n{PARAMETER_CLOSE}\n",
    (PARAMETER, PARAMETER_CLOSE, FUNCTION, FUNCTION_CLOSE),
)
MARKERS = (
    Marker("call", OPEN, CLOSE, end=_end),
    Marker("call", FUNCTION, "", end=_end_bare, find=_find_bare),
    dropped(CLOSE),
    Marker("reasoning", "<think>", "</think>", unclosed=(OPEN,)),
)


def announce(tools) -> str:
    return (
        "# Tools\n\nYou have access to the following functions:\n\n<tools>\n" + tool_list.as_lines(tools) + "\n"
        "</tools>\n\nIf you choose to call a function ONLY reply in the following format with NO suffix:\n\n"
        f"{OPEN}\n{FUNCTION}example_function_name>\n{PARAMETER}example_parameter>\nvalue\n{PARAMETER_CLOSE}\n"
        f"{FUNCTION_CLOSE}\n{CLOSE}"
    )


def write(calls: list[Call]) -> str:
    return "\n".join(f"{OPEN}\n{_write_one(call)}\n{CLOSE}" for call in calls)


def _write_one(call: Call) -> str:
    pieces = (f"{PARAMETER}{k}>\n{write_text(v)}\n{PARAMETER_CLOSE}\n" for k, v in call.arguments.items())
    return f"{FUNCTION}{call.name}>\n{''.join(pieces)}{FUNCTION_CLOSE}"


def read(body: str, raw: str, closed: bool, tools=()) -> list[Call | Fault]:
    calls: list[Call | Fault] = []
    at = body.find(FUNCTION)
    if at < 0:
        if closed or not FUNCTION.startswith(body.strip()):
            return [Fault("malformed", f"There is no {FUNCTION}name> in the call, got {body.strip()[:40]!r}.", raw)]
        return [Fault("truncated", "The reply ended before the call was written.", raw)]
    while at >= 0:
        call, at = _read_one(body, at, raw, closed, tools)
        calls.append(call)
        at = body.find(FUNCTION, at)
    return calls


def _read_one(text: str, at: int, raw: str, closed: bool, tools) -> tuple[Call | Fault, int]:
    bracket = text.find(">", at)
    if bracket < 0:
        return _cut("inside the name of its tool", text[at:], closed), len(text)
    name = text[at + len(FUNCTION) : bracket].strip()
    if not name:
        return Fault("malformed", f"{FUNCTION} must be followed by the name of a tool.", text[at:]), len(text)
    properties = schema_of(tools, name)
    arguments: dict = {}
    start, at = at, bracket + 1
    while True:
        at = _SPACE.match(text, at).end()
        if text.startswith(FUNCTION_CLOSE, at):
            at += len(FUNCTION_CLOSE)
            return Call(name, arguments, text[start:at]), at
        if not text.startswith(PARAMETER, at):
            if at >= len(text) and closed and arguments:
                return Call(name, arguments, text[start:]), at
            if at >= len(text) or (not closed and len(text) - at < len(PARAMETER)):
                return _cut(f"before {FUNCTION_CLOSE}", text[start:], closed, name), len(text)
            reason = f"In the call of {name[:60]} a {PARAMETER} is expected, got {text[at : at + 30]!r}."
            return Fault("malformed", reason.replace("\n", " "), text[start:], name), len(text)
        bracket = text.find(">", at)
        if bracket < 0:
            return _cut("inside the name of an argument", text[start:], closed, name), len(text)
        key = text[at + len(PARAMETER) : bracket].strip()
        end = _VALUE_ENDS.search(text, bracket + 1)
        if not end or (not end[0] and not closed and end.start() >= len(text)):
            return _cut(f"inside {key[:40]!r}", text[start:], closed, name), len(text)
        arguments[key] = typed(_unframed(text[bracket + 1 : end.start()]), properties.get(key))
        at = end.end()


def _unframed(value: str) -> str:
    """`value` without the line breaks that stand around it, and without the indentation of an indented call."""
    if _INDENTED.fullmatch(value):
        return value.strip()
    return value.removeprefix("\n").removesuffix("\n")


def _cut(where: str, raw: str, closed: bool, name: str = "") -> Fault:
    if closed:
        return Fault("malformed", f"The call ends {where}.", raw, name)
    return Fault("truncated", f"The reply ended {where}.", raw, name)


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return f"<tool_response>\n{content}\n</tool_response>"
