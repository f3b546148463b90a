"""Calls written as Python, `f(city='Paris', days=3)`, and their values: literals only, read by hand, never evaluated.

Besides Python's own literals JSON's true, false and null are taken, sets become lists, and a text may run over lines.
"""

import json
import re

from playground.core.tool_formats.values import Call, Fault

_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"[^\W\d][\w.\-]*")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_WORD = re.compile(r"[A-Za-z_]\w*")
_WORDS = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{1,3})|(.))", re.DOTALL)
_PLAIN = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a", "\n": ""}
_BRACKETS = re.compile(r"'[^'\\]*(?:\\.[^'\\]*)*('?)|\"[^\"\\]*(?:\\.[^\"\\]*)*(\"?)|[()\[\]{}]", re.DOTALL)
_ARGUMENT_ENDS = re.compile(r"\s*(?:,\s*[^\W\d]\w*\s*=|\)\s*(?:[,\]\n]|$))")
MAX_DEPTH = 100


class Broken(Exception):
    """Not a literal: `reason` in a sentence; `cut` when the text just ended."""

    def __init__(self, reason: str, cut: bool = False):
        super().__init__(reason)
        self.cut = cut


def bracket_end(text: str, start: int) -> int:
    """The index after the bracket that closes the one at `start`, quotes respected; -1 where none does."""
    depth = 0
    for token in _BRACKETS.finditer(text, start):
        if token[0] in "([{":
            depth += 1
        elif token[0] in ")]}":
            depth -= 1
            if depth <= 0:
                return token.end()
        elif not (token[1] or token[2]):
            return -1
    return -1


def read_calls(text: str, closed: bool, loose_quotes: bool = False) -> list[Call | Fault]:
    """The calls of `[f(a=1), g()]`, or of calls one below the other. A broken one is a Fault; the others are read."""
    text = text.strip()
    if not text:
        kind, end = ("malformed", "There is nothing in the call.") if closed else ("truncated", "The reply ended here.")
        return [Fault(kind, end)]
    at, listed = (1, True) if text.startswith("[") else (0, False)
    calls: list[Call | Fault] = []
    while True:
        at = _skip(text, at, " \t\r\n,;" if calls else " \t\r\n")
        if at >= len(text):
            if listed and not calls:
                calls.append(_fault(Broken("the reply ended before the call was written", cut=True), text, closed))
            return calls
        if listed and text[at] == "]":
            rest = text[at + 1 :].strip()
            if rest:
                calls.append(Fault("malformed", f"There is text after the list of calls: {rest[:30]!r}.", rest))
            return calls
        # In a text that was cut off, where a loose quote ends would be a guess.
        call, after = _read_one(text, at, closed, loose_quotes and closed)
        calls.append(call)
        at = after


def _read_one(text: str, start: int, closed: bool, loose_quotes: bool) -> tuple[Call | Fault, int]:
    name = _NAME.match(text, start)
    opening = _SPACE.match(text, name.end()).end() if name else start
    if not name or not text.startswith("(", opening):
        cut = bool(name) and opening >= len(text)
        return _fault(Broken(f"expected a call, got {text[start : start + 30]!r}", cut), text[start:], closed), len(
            text
        )
    broken = None
    for loose in (False, True) if loose_quotes else (False,):
        try:
            arguments, after = _read_arguments(text, opening + 1, loose)
            return Call(name[0], arguments, text[start:after]), after
        except Broken as error:
            broken = broken or error
    end = bracket_end(text, opening)
    after = end if end >= 0 else len(text)
    return _fault(broken, text[start:after], (closed and end < 0) or end >= 0, name[0]), after


def _read_arguments(text: str, at: int, loose: bool) -> tuple[dict, int]:
    arguments: dict = {}
    while True:
        at = _SPACE.match(text, at).end()
        if at >= len(text):
            raise Broken("the arguments are not closed", cut=True)
        if text[at] == ")":
            return arguments, at + 1
        name = _NAME.match(text, at)
        equals = _SPACE.match(text, name.end()).end() if name else at
        if not name or not text.startswith("=", equals):
            cut = bool(name) and equals >= len(text)
            raise Broken(f"expected name=value, got {text[at : at + 30]!r}", cut)
        if name[0] in arguments:
            raise Broken(f"the argument {name[0]!r} is given twice")
        value, at = read_value(text, equals + 1, loose=loose)
        arguments[name[0]] = value
        at = _SPACE.match(text, at).end()
        if at < len(text) and text[at] == ",":
            at += 1
        elif at < len(text) and text[at] != ")":
            raise Broken(f"expected a comma or the end of the arguments, got {text[at : at + 30]!r}")


def read_value(text: str, at: int, depth: int = 0, loose: bool = False):
    """(value, index after it) of the literal at `at`; Broken where there is none."""
    if depth > MAX_DEPTH:
        raise Broken("it is nested too deeply")
    at = _SPACE.match(text, at).end()
    if at >= len(text):
        raise Broken("a value is missing", cut=True)
    if text[at] in "'\"":
        return _read_string(text, at, loose and depth == 0)
    if text[at] in "[(":
        return _read_list(text, at, "]" if text[at] == "[" else ")", depth)
    if text[at] == "{":
        return _read_braces(text, at, depth)
    number = _NUMBER.match(text, at)
    if number:
        return _number(number[0]), number.end()
    word = _WORD.match(text, at)
    if word and word[0] in _WORDS:
        return _WORDS[word[0]], word.end()
    cut = bool(word) and word.end() >= len(text)
    raise Broken(f"{text[at : at + 30]!r} is not a value", cut)


def _read_list(text: str, at: int, close: str, depth: int):
    values: list = []
    at += 1
    while True:
        at = _SPACE.match(text, at).end()
        if text.startswith(close, at):
            return values, at + 1
        value, at = read_value(text, at, depth + 1)
        values.append(value)
        at = _after_item(text, at, close)


def _read_braces(text: str, at: int, depth: int):
    """A dict, or a set as a list."""
    pairs: dict = {}
    values: list = []
    at += 1
    while True:
        at = _SPACE.match(text, at).end()
        if text.startswith("}", at):
            return (values if values else pairs), at + 1
        key, at = read_value(text, at, depth + 1)
        at = _SPACE.match(text, at).end()
        if text.startswith(":", at) and not values:
            value, at = read_value(text, at + 1, depth + 1)
            if isinstance(key, dict | list):
                raise Broken("a key must be a text")
            pairs[key if isinstance(key, str) else json.dumps(key)] = value
        elif pairs:
            raise Broken(f"expected key: value, got {text[at : at + 30]!r}", cut=at >= len(text))
        else:
            values.append(key)
        at = _after_item(text, at, "}")


def _after_item(text: str, at: int, close: str) -> int:
    at = _SPACE.match(text, at).end()
    if at >= len(text):
        raise Broken(f"a {close!r} is missing", cut=True)
    if text[at] == ",":
        return at + 1
    if text[at] != close:
        raise Broken(f"expected a comma or {close!r}, got {text[at : at + 30]!r}")
    return at


def _read_string(text: str, at: int, loose: bool) -> tuple[str, int]:
    quote = text[at]
    mark = quote * 3 if text.startswith(quote * 3, at) else quote
    start = at = at + len(mark)
    while True:
        end = text.find(mark, at)
        if end < 0:
            raise Broken("a text is not closed", cut=True)
        backslashes = 0
        while end - backslashes > start and text[end - backslashes - 1] == "\\":
            backslashes += 1
        if backslashes % 2 == 0 and (not loose or _ARGUMENT_ENDS.match(text, end + len(mark))):
            return _ESCAPE.sub(_unescape, text[start:end]), end + len(mark)
        at = end + 1


def _unescape(match: re.Match) -> str:
    hexadecimal = match[1] or match[2] or match[3]
    if hexadecimal:
        code = int(hexadecimal, 16)
        return chr(code) if code <= 0x10FFFF else match[0]
    if match[4]:
        return chr(int(match[4], 8))
    if match[5] in "'\"\\":
        return match[5]
    return _PLAIN.get(match[5], match[0])


def _number(text: str):
    try:
        value = int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError as error:
        raise Broken(str(error)) from None
    if value in (float("inf"), float("-inf")):
        raise Broken(f"{text} is too large a number")
    return value


def _skip(text: str, at: int, characters: str) -> int:
    while at < len(text) and text[at] in characters:
        at += 1
    return at


def _fault(error: Broken, raw: str, closed: bool, name: str = "") -> Fault:
    if error.cut and not closed:
        return Fault("truncated", f"The reply ended inside the call, after {raw[-30:]!r}.", raw, name)
    return Fault("malformed", f"The call cannot be read: {error}.", raw, name)


def write_call(call: Call) -> str:
    return f"{call.name}({', '.join(f'{name}={write_value(value)}' for name, value in call.arguments.items())})"


def write_value(value) -> str:
    """`value` as a Python literal, with texts in JSON's quotes (which Python reads the same)."""
    if isinstance(value, dict):
        pairs = (f"{json.dumps(k, ensure_ascii=False)}: {write_value(v)}" for k, v in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(write_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
