"""What the formats share: from spans to calls, and JSON read without guessing."""

import json
import math
import re
from collections.abc import Callable, Sequence

from playground.core.streaming import Marker, Span, split
from playground.core.tool_formats.values import Call, Fault, Parsed

Read = Callable[[str, str, bool, Sequence[dict]], Call | Fault | list[Call | Fault]]


def parse(
    text: str, markers: tuple[Marker, ...], read: Read, reasoning: bool = True, tools: Sequence[dict] = ()
) -> Parsed:
    """`text` as content, reasoning and calls; `read(body, raw, closed, tools)` reads one call span.

    Without `reasoning`, what a model thinks stays in the content, markers and all.
    """
    return from_spans(split(text, visible(markers, reasoning), final=True, reasoning=reasoning), read, tools)


def visible(markers: tuple[Marker, ...], reasoning: bool) -> tuple[Marker, ...]:
    return markers if reasoning else tuple(marker for marker in markers if marker.kind != "reasoning")


def from_spans(spans: Sequence[Span], read: Read, tools: Sequence[dict] = ()) -> Parsed:
    content, thoughts, calls = [], [], []
    for span in spans:
        if span.kind == "call":
            found = read(span.text, span.raw, span.closed, tools)
            calls.extend(found if isinstance(found, list) else [found])
        else:
            (thoughts if span.kind == "reasoning" else content).append(span.text)
    thought = "\n".join(stripped for t in thoughts if (stripped := t.strip()))
    return Parsed("".join(content).strip(), thought, tuple(calls))


Make = Callable[[object, str, str], Call | Fault]  # (the JSON value of a call, as written, where) → the call


def read_json_call(body: str, raw: str, closed: bool, where: str, keys=("arguments",)) -> Call | Fault:
    """A call from `{"name": …, "arguments": {…}}`, or the fault that says what is wrong with it."""
    value = read_json(body, raw, closed, where)
    return value if isinstance(value, Fault) else call_from(value, raw, where, keys)


def read_json_calls(
    body: str,
    raw: str,
    closed: bool,
    where: str,
    keys=("arguments", "parameters"),
    make: Make | None = None,
) -> list[Call | Fault]:
    """The calls of a JSON list, or of one object. What is whole is read, also where a later call is not."""
    make = make or (lambda value, raw, where: call_from(value, raw, where, keys))

    def one(part: str, raw: str, closed: bool) -> Call | Fault:
        value = read_json(part, raw, closed, where)
        return value if isinstance(value, Fault) else make(value, raw, where)

    text = body.strip()
    if not text.startswith("["):
        return [one(text, raw, closed)]
    calls: list[Call | Fault] = []
    at = 1
    while True:
        at = _SPACE.match(text, at).end()
        if calls and text.startswith(",", at):
            at = _SPACE.match(text, at + 1).end()
        if text.startswith("]", at):
            rest = text[at + 1 :].strip()
            if rest:
                calls.append(Fault("malformed", f"There is text after the list of calls: {rest[:30]!r}.", rest))
            return calls
        end = json_end(text, at)
        if end < 0:
            rest = text[at:]
            if rest or not calls:
                value = read_json(rest, rest or raw, closed, where)
                not_object = Fault("malformed", f"A call must be one JSON object, got {_kind(value)}.", rest or raw)
                calls.append(value if isinstance(value, Fault) else not_object)
            return calls
        calls.append(one(text[at:end], text[at:end], True))
        at = end


def call_from(value, raw: str, where: str, keys=("arguments",)) -> Call | Fault:
    """A call from the JSON value of one, its arguments under one of `keys`."""
    if not isinstance(value, dict):
        return Fault("malformed", f"A call must be one JSON object, got {_kind(value)} {where}.", raw)
    if isinstance(value.get("function"), dict):
        value = value["function"]  # {"type": "function", "function": {"name": …, "arguments": …}}
    name = value.get("name")
    if not isinstance(name, str) or not name:
        return Fault("malformed", 'The call has no "name" (a text) that says which tool to use.', raw)
    key = next((key for key in keys if key in value), None)
    if key is None:
        return Fault("malformed", f'The call of {name[:60]} has no "{keys[0]}" object.', raw, name)
    arguments = value[key]
    if isinstance(arguments, str):
        # OpenAI's wire format carries the arguments as a JSON text.
        arguments = read_json(arguments, raw, True, f'in "{key}"')
        if isinstance(arguments, Fault):
            return Fault(arguments.kind, arguments.reason, raw, name)
    if not isinstance(arguments, dict):
        return Fault("malformed", f'"{key}" of {name[:60]} must be a JSON object, got {_kind(arguments)}.', raw, name)
    return Call(name, arguments, raw)


def read_arguments(name: str, body: str, raw: str, closed: bool, where: str) -> Call | Fault:
    """A call whose name stands outside of the JSON object of its arguments."""
    if not name or "\n" in name or "<" in name:
        return Fault("malformed", f"The call must begin with the name of one tool, got {name[:40]!r}.", raw)
    value = read_json(body, raw, closed, where)
    if isinstance(value, Fault):
        return Fault(value.kind, value.reason, raw, name)
    if not isinstance(value, dict):
        return Fault("malformed", f"The arguments of {name[:60]} must be a JSON object, got {_kind(value)}.", raw, name)
    return Call(name, value, raw)


_SPACE = re.compile(r"\s*")
_JSON_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*("?)|[{}\[\]]', re.DOTALL)


def json_end(text: str, start: int, limit: int | None = None) -> int:
    """Where the JSON object or list that begins at `start` (after blanks) ends, before `limit`; -1 where none does."""
    start = _SPACE.match(text, start).end()
    if text[start : start + 1] not in ("{", "["):
        return -1
    depth = 0
    for token in _JSON_TOKEN.finditer(text, start, len(text) if limit is None else limit):
        if token[0] in "{[":
            depth += 1
        elif token[0] in "}]":
            depth -= 1
            if depth == 0:
                return token.end()
        elif not token[1]:
            return -1
    return -1


def json_body(closes: tuple[str, ...] = ()) -> Callable[[str, int], int | tuple[int, int]]:
    """An `end` for bodies that are one JSON value: they end with it, and with one of `closes` where that follows.

    The beginning of a close at the very end of the text is taken for one.
    """

    def end(text: str, start: int):
        stop = json_end(text, start)
        if stop < 0:
            return -1
        after = _SPACE.match(text, stop).end()
        close = next((c for c in closes if text.startswith(c, after)), None)
        if close:
            return stop, after + len(close)
        begun = closes and len(text) - after < max(map(len, closes)) and any(c.startswith(text[after:]) for c in closes)
        return (stop, len(text)) if begun else (stop, stop)

    return end


def read_json(body: str, raw: str, closed: bool, where: str):
    """The JSON value of `body`, or a Fault: "truncated" where the text just ended, "malformed" where it is wrong."""
    text = body.strip()
    if not text:
        if closed:
            return Fault("malformed", f"There is nothing {where}.", raw)
        return Fault("truncated", "The reply ended before the call was written.", raw)
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        if not closed and _unfinished(text):
            return Fault("truncated", f"The reply ended inside the call, after {text[-30:]!r}.", raw)
        return Fault("malformed", f"The JSON {where} is broken at character {error.pos + 1}: {error.msg}.", raw)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        return Fault("malformed", f"The JSON {where} cannot be used: {reason}.", raw)


def _unfinished(text: str) -> bool:
    """Whether brackets or a string are still open at the end."""
    depth, quoted, i = 0, False, 0
    while i < len(text):
        if quoted:
            if text[i] == "\\":
                i += 1
            elif text[i] == '"':
                quoted = False
        elif text[i] == '"':
            quoted = True
        else:
            depth += (text[i] in "{[") - (text[i] in "}]")
        i += 1
    return quoted or depth > 0


def _refuse_constant(name: str):
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large a number")
    return number


def _kind(value) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return kinds.get(type(value), "a number")
