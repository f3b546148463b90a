"""Gemma's way to write a call: `call:name{key:value,…}`, keys bare, texts between two marks that are no letters."""

import json
import re
from dataclasses import dataclass
from functools import cached_property

from playground.core.tool_formats.values import Call, Fault

MAX_DEPTH = 100
_HEAD = re.compile(r"\s*call:\s*([^{}\s]+)\s*\{")
_BARE = re.compile(r"[^,{}\[\]<]+")
_SPACE = re.compile(r"\s*")


class _Broken(Exception):
    def __init__(self, reason: str, cut: bool = False):
        super().__init__(reason)
        self.cut = cut


@dataclass(frozen=True)
class Braces:
    """`quote` opens and closes a text, `close` ends a call."""

    quote: str
    close: str

    @cached_property
    def key(self) -> re.Pattern:
        quote = re.escape(self.quote)
        return re.compile(rf"\s*(?:{quote}(.*?){quote}|([^:{{}}\[\],<]{{1,200}}))\s*:", re.DOTALL)

    def end(self, text: str, start: int) -> int:
        """The first `close` that no text holds."""
        while True:
            close, quote = text.find(self.close, start), text.find(self.quote, start)
            if close < 0 or quote < 0 or close < quote:
                return close
            start = text.find(self.quote, quote + len(self.quote))
            if start < 0:
                return -1
            start += len(self.quote)

    def write(self, value) -> str:
        if isinstance(value, dict):
            return "{" + ",".join(f"{key}:{self.write(one)}" for key, one in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ",".join(map(self.write, value)) + "]"
        return f"{self.quote}{value}{self.quote}" if isinstance(value, str) else json.dumps(value)

    def read(self, body: str, raw: str, closed: bool) -> Call | Fault:
        head = _HEAD.match(body)
        if not head:
            if not closed and "{" not in body:
                return Fault("truncated", "The reply ended before the arguments of the call.", raw)
            return Fault("malformed", f"A call must be call:NAME{{…}}, got {body[:40]!r}.", raw)
        try:
            arguments, end = self._object(body, head.end() - 1, 0)
        except _Broken as error:
            if error.cut and not closed:
                return Fault("truncated", f"The reply ended inside the call, after {body[-30:]!r}.", raw, head[1])
            return Fault("malformed", f"The arguments of {head[1][:60]} cannot be read: {error}.", raw, head[1])
        rest = body[end:].strip()
        if rest and (closed or not self.close.startswith(rest)):
            reason = f"There is text after the arguments of {head[1][:60]}: {rest[:30]!r}."
            return Fault("malformed", reason, raw, head[1])
        return Call(head[1], arguments, raw)

    def _object(self, text: str, at: int, depth: int) -> tuple[dict, int]:
        pairs: dict = {}
        at += 1
        while True:
            at = _SPACE.match(text, at).end()
            if text.startswith("}", at):
                return pairs, at + 1
            key = self.key.match(text, at)
            if not key:
                raise _Broken(f"expected key:value, got {text[at : at + 30]!r}", cut=self._runs_out(text, at))
            value, at = self._value(text, key.end(), depth + 1)
            pairs[key[1] if key[1] is not None else key[2].strip()] = value
            at = self._next(text, at, "}")

    def _list(self, text: str, at: int, depth: int) -> tuple[list, int]:
        values: list = []
        at += 1
        while True:
            at = _SPACE.match(text, at).end()
            if text.startswith("]", at):
                return values, at + 1
            value, at = self._value(text, at, depth + 1)
            values.append(value)
            at = self._next(text, at, "]")

    def _value(self, text: str, at: int, depth: int):
        if depth > MAX_DEPTH:
            raise _Broken("it is nested too deeply")
        at = _SPACE.match(text, at).end()
        if text.startswith(self.quote, at):
            end = text.find(self.quote, at + len(self.quote))
            if end < 0:
                raise _Broken("a text is not closed", cut=True)
            return text[at + len(self.quote) : end], end + len(self.quote)
        if text.startswith("{", at):
            return self._object(text, at, depth)
        if text.startswith("[", at):
            return self._list(text, at, depth)
        bare = _BARE.match(text, at)
        if not bare:
            raise _Broken(f"a value is missing at {text[at : at + 30]!r}", cut=self._runs_out(text, at))
        if bare.end() >= len(text):
            raise _Broken("a value is not closed", cut=True)
        return _plain(bare[0].strip()), bare.end()

    def _next(self, text: str, at: int, close: str) -> int:
        """After the comma, which may be missing behind a text."""
        at = _SPACE.match(text, at).end()
        if text.startswith(",", at):
            return at + 1
        if text.startswith(close, at) or text.endswith(self.quote, 0, at):
            return at
        raise _Broken(f"expected a comma or {close!r}, got {text[at : at + 30]!r}", cut=at >= len(text))

    def _runs_out(self, text: str, at: int) -> bool:
        """Whether the text just ends there, maybe inside of a quote or a key."""
        rest = text[at:]
        begun = rest.startswith(self.quote) and rest.count(self.quote) < 2
        return self.quote.startswith(rest) or begun or rest.isidentifier()


def _plain(text: str):
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, float) and value in (float("inf"), float("-inf")) else value
