"""FunctionGemma: `<start_function_call>call:name{city:<escape>Paris<escape>,days:3}<end_function_call>`.

Texts stand between two `<escape>`; keys have no quotes. Source:
https://ai.google.dev/gemma/docs/functiongemma/formatting-and-best-practices.
"""

import json
import re

from playground.core.streaming import Marker
from playground.core.tool_formats import tool_list
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "functiongemma"
STOPS = ("<start_function_response>",)
OPEN, CLOSE, QUOTE = "<start_function_call>", "<end_function_call>", "<escape>"
MAX_DEPTH = 100
_HEAD = re.compile(r"\s*call:\s*([^{}\s]+)\s*\{")
_BARE = re.compile(r"[^,{}\[\]<]+")
_KEY = re.compile(r"\s*(?:<escape>(.*?)<escape>|([^:{}\[\],<]{1,200}))\s*:", re.DOTALL)
_SPACE = re.compile(r"\s*")


def _end(text: str, start: int) -> int:
    """The first `<end_function_call>` that no text holds."""
    while True:
        close, quote = text.find(CLOSE, start), text.find(QUOTE, start)
        if close < 0 or quote < 0 or close < quote:
            return close
        start = text.find(QUOTE, quote + len(QUOTE))
        if start < 0:
            return -1
        start += len(QUOTE)


MARKERS = (Marker("call", OPEN, CLOSE, end=_end),)


class _Broken(Exception):
    def __init__(self, reason: str, cut: bool = False):
        super().__init__(reason)
        self.cut = cut


def announce(tools) -> str:
    return (
        "You are a model that can do function calling with the following functions\n"
        + tool_list.as_lines(tools)
        + f"\nTo call one, write {OPEN}call:NAME{{argument:value}}{CLOSE}, with texts as {QUOTE}text{QUOTE}."
    )


def write(calls: list[Call]) -> str:
    return "".join(f"{OPEN}call:{call.name}{_write(call.arguments)}{CLOSE}" for call in calls)


def _write(value) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_write(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_write, value)) + "]"
    return f"{QUOTE}{value}{QUOTE}" if isinstance(value, str) else json.dumps(value)


def read(body: str, raw: str, closed: bool, tools=()) -> Call | Fault:
    head = _HEAD.match(body)
    if not head:
        if not closed and "{" not in body:
            return Fault("truncated", "The reply ended before the arguments of the call.", raw)
        return Fault("malformed", f"A call must be call:NAME{{…}}, got {body[:40]!r}.", raw)
    try:
        arguments, end = _object(body, head.end() - 1, 0)
    except _Broken as error:
        if error.cut and not closed:
            return Fault("truncated", f"The reply ended inside the call, after {body[-30:]!r}.", raw, head[1])
        return Fault("malformed", f"The arguments of {head[1][:60]} cannot be read: {error}.", raw, head[1])
    rest = body[end:].strip()
    if rest and (closed or not CLOSE.startswith(rest)):
        return Fault("malformed", f"There is text after the arguments of {head[1][:60]}: {rest[:30]!r}.", raw, head[1])
    return Call(head[1], arguments, raw)


def _object(text: str, at: int, depth: int) -> tuple[dict, int]:
    pairs: dict = {}
    at += 1
    while True:
        at = _SPACE.match(text, at).end()
        if text.startswith("}", at):
            return pairs, at + 1
        key = _KEY.match(text, at)
        if not key:
            raise _Broken(f"expected key:value, got {text[at : at + 30]!r}", cut=_runs_out(text, at))
        value, at = _value(text, key.end(), depth + 1)
        pairs[key[1] if key[1] is not None else key[2].strip()] = value
        at = _next(text, at, "}")


def _list(text: str, at: int, depth: int) -> tuple[list, int]:
    values: list = []
    at += 1
    while True:
        at = _SPACE.match(text, at).end()
        if text.startswith("]", at):
            return values, at + 1
        value, at = _value(text, at, depth + 1)
        values.append(value)
        at = _next(text, at, "]")


def _value(text: str, at: int, depth: int):
    if depth > MAX_DEPTH:
        raise _Broken("it is nested too deeply")
    at = _SPACE.match(text, at).end()
    if text.startswith(QUOTE, at):
        end = text.find(QUOTE, at + len(QUOTE))
        if end < 0:
            raise _Broken("a text is not closed", cut=True)
        return text[at + len(QUOTE) : end], end + len(QUOTE)
    if text.startswith("{", at):
        return _object(text, at, depth)
    if text.startswith("[", at):
        return _list(text, at, depth)
    bare = _BARE.match(text, at)
    if not bare:
        raise _Broken(f"a value is missing at {text[at : at + 30]!r}", cut=_runs_out(text, at))
    if bare.end() >= len(text):
        raise _Broken("a value is not closed", cut=True)
    return _plain(bare[0].strip()), bare.end()


def _plain(text: str):
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, float) and value in (float("inf"), float("-inf")) else value


def _next(text: str, at: int, close: str) -> int:
    """After the comma, which may be missing behind a text."""
    at = _SPACE.match(text, at).end()
    if text.startswith(",", at):
        return at + 1
    if text.startswith(close, at) or text.endswith(QUOTE, 0, at):
        return at
    raise _Broken(f"expected a comma or {close!r}, got {text[at : at + 30]!r}", cut=at >= len(text))


def _runs_out(text: str, at: int) -> bool:
    """Whether the text just ends there, maybe inside of an `<escape>` or a key."""
    rest = text[at:]
    return QUOTE.startswith(rest) or (rest.startswith(QUOTE) and rest.count(QUOTE) < 2) or rest.isidentifier()


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return f"<start_function_response>response:{name}{{value:{QUOTE}{content}{QUOTE}}}<end_function_response>"
