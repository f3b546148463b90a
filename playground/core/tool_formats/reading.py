"""What the formats share: from spans to calls, and JSON read without guessing."""

import json
from collections.abc import Callable

from playground.core.streaming import Marker, split
from playground.core.tool_formats.values import Call, Fault, Parsed


def parse(
    text: str, markers: tuple[Marker, ...], read: Callable[[str, str, bool], Call | Fault], reasoning: bool = True
) -> Parsed:
    """`text` as content, reasoning and calls; `read(body, raw, closed)` reads one call span."""
    content, thoughts, calls = [], [], []
    for span in split(text, markers, final=True, reasoning=reasoning):
        if span.kind == "call":
            calls.append(read(span.text, span.raw, span.closed))
        else:
            (thoughts if span.kind == "reasoning" else content).append(span.text)
    return Parsed("".join(content).strip(), "\n".join(t.strip() for t in thoughts).strip(), tuple(calls))


def read_json_call(body: str, raw: str, closed: bool, where: str) -> Call | Fault:
    """A call from `{"name": …, "arguments": {…}}`, or the fault that says what is wrong with it."""
    value = read_json(body, raw, closed, where)
    if isinstance(value, Fault):
        return value
    if not isinstance(value, dict):
        return Fault("malformed", f"A call must be one JSON object, got {_kind(value)} {where}.", raw)
    name = value.get("name")
    if not isinstance(name, str) or not name:
        return Fault("malformed", 'The call has no "name" (a text) that says which tool to use.', raw)
    if "arguments" not in value:
        return Fault("malformed", f'The call of {name} has no "arguments" object.', raw, name)
    arguments = value["arguments"]
    if isinstance(arguments, str):
        # OpenAI's wire format carries the arguments as a JSON text.
        arguments = read_json(arguments, raw, True, 'in "arguments"')
        if isinstance(arguments, Fault):
            return arguments
    if not isinstance(arguments, dict):
        return Fault("malformed", f'"arguments" of {name} must be a JSON object, got {_kind(arguments)}.', raw, name)
    return Call(name, arguments, raw)


def read_json(body: str, raw: str, closed: bool, where: str):
    """The JSON value of `body`, or a Fault: "truncated" where the text just ended, "malformed" where it is wrong."""
    text = body.strip()
    if not text:
        if closed:
            return Fault("malformed", f"There is nothing {where}.", raw)
        return Fault("truncated", "The reply ended before the call was written.", raw)
    try:
        return json.loads(text, parse_constant=_refuse_constant)
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


def _kind(value) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return kinds.get(type(value), "a number")
