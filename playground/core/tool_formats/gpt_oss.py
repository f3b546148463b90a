"""gpt-oss (harmony): each message has a header with a channel and, for a call, whom it is to.

`<|channel|>analysis<|message|>` is reasoning, `final` and `commentary` are content, `to=functions.name` is a call. The
prompt ends with `<|start|>assistant`, so the first header lacks it. Source:
https://github.com/openai/harmony/blob/main/docs/format.md.
"""

import json
import re

from playground.core.streaming import Marker
from playground.core.tool_formats import tool_list
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.reading import read_arguments
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "gpt_oss"
STOPS = ("<|start|>functions.",)
START, CHANNEL, MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
ENDS = ("<|end|>", "<|call|>", "<|return|>")
# A header, from what begins a message to <|message|>; none of it holds a "<" of its own.
_HEADER = re.compile(
    r"(?:<\|start\|>[^<]*|(?<!.)\s*(?:assistant\s*)?to=[^<]*)?(?:<\|(?:channel|constrain)\|>[^<]*){0,6}<\|message\|>",
    re.DOTALL,
)
_BEGINS = re.compile(
    r"(?:<\|start\|>[^<]*|(?<!.)\s*(?:assistant\s*)?(?:to=[^<]*|to?)?)?"
    r"(?:<\|(?:channel|constrain)\|>[^<]*){0,6}(?:<\|?[a-z]{0,9}\|?)?$",
    re.DOTALL,
)
_TO = re.compile(r"to=([^\s<]+)")
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w*)")
_STOPS = re.compile("|".join(map(re.escape, (*ENDS, START, CHANNEL))))
# A header whose message never came says who a call was to: the reply was cut off.
_CUT = re.compile(r"(?:<\|start\|>[^<]*|(?<!.)\s*to=[^<]*)?(?:<\|(?:channel|constrain)\|>[^<]*){0,6}$", re.DOTALL)


def kind_of(header: str) -> str:
    recipient = _recipient(header)
    if recipient:
        return "call"
    channels = _CHANNEL.findall(header)
    return "reasoning" if channels and channels[-1] == "analysis" else "content"


def _recipient(header: str) -> str:
    """Whom the message is to, "" for the user."""
    return next((to for to in reversed(_TO.findall(header)) if to not in ("assistant", "user")), "")


def _finder(kind: str):
    def find(text: str, at: int, final: bool):
        for header in _HEADER.finditer(text, at):
            if kind_of(header[0]) == kind:
                return header.start(), header.end()
        if final:
            cut = _unfinished(text, at, _CUT) if kind == "call" else None
            return (cut, len(text)) if cut is not None and _recipient(text[cut:]) else None
        begun = _unfinished(text, at, _BEGINS)
        return (begun, -1) if begun is not None else None

    return find


def _unfinished(text: str, at: int, pattern: re.Pattern) -> int | None:
    """Where a header begins that the text ends in."""
    tail = max(at, text.rfind(MESSAGE) + 1)
    found = pattern.search(text, tail) if tail < len(text) else None
    while found and not found[0] and found.end() < len(text):
        found = pattern.search(text, found.end() + 1)
    return found.start() if found and (found[0].strip() or (found.start() == 0 and pattern is _BEGINS)) else None


def _end(text: str, start: int):
    """A message ends with its end marker, or where the next one begins."""
    stop = _STOPS.search(text, start)
    if not stop:
        return -1
    return (stop.start(), stop.end()) if stop[0] in ENDS else (stop.start(), stop.start())


MARKERS = tuple(Marker(kind, "", "", find=_finder(kind), end=_end) for kind in ("call", "reasoning", "content"))


def announce(tools) -> str:
    """The tools as the TypeScript that gpt-oss was trained on, without their descriptions of single values."""
    lines = ["# Tools", "", "## functions", "", "namespace functions {", ""]
    for function in tool_list.functions(tools):
        properties = (function.get("parameters") or {}).get("properties", {})
        required = (function.get("parameters") or {}).get("required", [])
        lines.append(f"// {function.get('description', '')}")
        fields = ", ".join(f"{name}{'' if name in required else '?'}: {_type(s)}" for name, s in properties.items())
        lines += [f"type {function['name']} = ({f'_: {{{fields}}}' if fields else ''}) => any;", ""]
    return "\n".join([*lines, "} // namespace functions"])


def _type(schema) -> str:
    given = schema.get("type", "any") if isinstance(schema, dict) else "any"
    names = {"integer": "number", "array": "any[]", "dict": "object"}
    return " | ".join(names.get(one, str(one)) for one in (given if isinstance(given, list) else [given]))


def write(calls: list[Call]) -> str:
    pieces = (
        f"{CHANNEL}commentary to=functions.{c.name} <|constrain|>json{MESSAGE}"
        f"{json.dumps(c.arguments, ensure_ascii=False)}<|call|>"
        for c in calls
    )
    return f"{START}assistant".join(pieces)


def reply(said) -> list[str]:
    """A grammar's rules for a reply around its `calls`: thoughts, then calls, or an answer with or without a header."""
    end = said(ENDS[0])
    return [
        "start: thought* (calls | answer)",
        f"thought: {said(f'{CHANNEL}analysis{MESSAGE}')} thinking {said(f'{START}assistant')}",
        f"thinking: TEXT {end}" if "<[" in end else f"thinking[lazy]: TEXT {end}",
        f"answer: {said(f'{CHANNEL}final{MESSAGE}')} TEXT | PLAIN",
        r"TEXT: /(?s:.*)/ & ~/(?s:.*)<\|(?s:.*)/",
        r"PLAIN: /(?s:.*)/ & ~/(?s:.*)(<\||to=)(?s:.*)/",
    ]


def read(body: str, raw: str, closed: bool, tools=()) -> Call | Fault:
    header, message, _ = raw.partition(MESSAGE)
    name = _recipient(header).removeprefix("functions.")
    if not message:
        return Fault("truncated", "The reply ended before the arguments of the call.", raw, name)
    return read_arguments(name, body, raw, closed, "of the arguments")


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return f"{START}functions.{name} to=assistant{CHANNEL}commentary{MESSAGE}{content}<|end|>"
