"""GLM-4.5 and later: `<tool_call>name`, then `<arg_key>` and `<arg_value>` in turn; texts bare, all else JSON.

Source: the chat template of https://huggingface.co/zai-org/GLM-4.5.
"""

import re

from playground.core.streaming import Marker
from playground.core.tool_formats import tool_list
from playground.core.tool_formats.arguments import Tagged
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.typed import schema_of, typed, write_text
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "glm4"
STOPS = ("<|observation|>",)
OPEN, CLOSE = "<tool_call>", "</tool_call>"
KEY, KEY_CLOSE, VALUE, VALUE_CLOSE = "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"
_PAIR = re.compile(r"\s*<arg_key>(.{0,500}?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)


def _end(text: str, start: int) -> int:
    """The first `</tool_call>` that no value holds."""
    while True:
        close, value = text.find(CLOSE, start), text.find(VALUE, start)
        if close < 0 or value < 0 or close < value:
            return close
        start = text.find(VALUE_CLOSE, value)
        if start < 0:
            return -1


ARGUMENT_FORM = Tagged(f"{KEY}NAME{KEY_CLOSE}\n{VALUE}", f"{VALUE_CLOSE}\n", (VALUE, VALUE_CLOSE))
MARKERS = (
    Marker("call", OPEN, CLOSE, end=_end),
    Marker("reasoning", "<think>", "</think>", unclosed=(OPEN,)),
)


def announce(tools) -> str:
    return (
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with "
        "function signatures within <tools></tools> XML tags:\n<tools>\n" + tool_list.as_lines(tools) + "\n</tools>\n\n"
        "For each function call, output the function name and arguments within the following XML format:\n"
        f"{OPEN}{{function-name}}\n{KEY}{{arg-key-1}}{KEY_CLOSE}\n{VALUE}{{arg-value-1}}{VALUE_CLOSE}\n...\n{CLOSE}"
    )


def write(calls: list[Call]) -> str:
    def one(call: Call) -> str:
        pairs = (f"{KEY}{k}{KEY_CLOSE}\n{VALUE}{write_text(v)}{VALUE_CLOSE}\n" for k, v in call.arguments.items())
        return f"{OPEN}{call.name}\n{''.join(pairs)}{CLOSE}"

    return "\n".join(map(one, calls))


def read(body: str, raw: str, closed: bool, tools=()) -> Call | Fault:
    if not closed:
        where = f"inside the call, after {body[-30:]!r}" if body.strip() else "before the call was written"
        return Fault("truncated", f"The reply ended {where}.", raw)
    key = body.find(KEY)
    name = (body if key < 0 else body[:key]).strip()
    if not name or "\n" in name or "<" in name or name.startswith("{"):
        return Fault("malformed", f"{OPEN} must be followed by the name of one tool, got {name[:40]!r}.", raw)
    properties = schema_of(tools, name)
    arguments: dict = {}
    at = key if key >= 0 else len(body)
    while pair := _PAIR.match(body, at):
        argument = pair[1].strip()
        if KEY in argument or VALUE in argument:
            break
        arguments[argument] = typed(pair[2], properties.get(argument))
        at = pair.end()
    rest = body[at:].strip()
    if rest:
        return Fault("malformed", f"{KEY} and {VALUE} must come in turn, got {rest[:40]!r}.", raw, name)
    return Call(name, arguments, raw)


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return f"<|observation|>\n<tool_response>\n{content}\n</tool_response>"
