"""Calls in tags: one that opens a call with its name, and one around each argument, with the value as bare text."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from playground.core.tool_formats.typed import schema_of, typed
from playground.core.tool_formats.values import Call, Fault

_SPACE = re.compile(r"\s*")
Value = Callable[[str, re.Match, object], object]  # (the text, its opening tag, the argument's schema) → the value


class Unreadable(Exception):
    """Why an argument's text is no value; for a `Value` to raise."""


def by_schema(text: str, tag: re.Match, schema) -> object:
    return typed(text, schema)


@dataclass(frozen=True)
class Tags:
    """`call` and `argument` match opening tags whose group 1 is the name; `begins` are their first letters."""

    call: re.Pattern
    call_begins: str
    call_close: str
    argument: re.Pattern
    argument_begins: str
    argument_close: str
    section_close: str
    value: Value = by_schema

    @cached_property
    def _value_ends(self) -> re.Pattern:
        """A value may hold the closing tag: it ends at one that something of the format follows."""
        after = "|".join(map(re.escape, (self.argument_begins, self.call_close)))
        return re.compile(rf"{re.escape(self.argument_close)}(?=\s*(?:{after}|$))")

    @cached_property
    def _section_ends(self) -> re.Pattern:
        return re.compile(rf"{re.escape(self.call_close)}\s*({re.escape(self.section_close)})")

    def end(self, text: str, start: int):
        """An `end` of a section: where its closing tag follows a whole call."""
        call, close = text.find(self.call_begins, start), text.find(self.section_close, start)
        if call < 0 or 0 <= close < call:
            return close
        found = self._section_ends.search(text, call)
        return found.start(1) if found else -1

    def read(self, body: str, raw: str, closed: bool, tools: Sequence[dict]) -> list[Call | Fault]:
        calls: list[Call | Fault] = []
        at = _SPACE.match(body).end()
        while at < len(body) or not calls:
            found = self.call.match(body, at)
            if not found:
                calls.append(self._no_call(body[at:], raw, closed))
                break
            call, at = self._one(body, found, closed, tools)
            calls.append(call)
            at = _SPACE.match(body, at).end()
        return calls

    def _no_call(self, rest: str, raw: str, closed: bool) -> Fault:
        begun = self.call_begins.startswith(rest) or (rest.startswith(self.call_begins) and ">" not in rest)
        if begun and not closed:
            return Fault("truncated", "The reply ended before the call was written.", rest or raw)
        reason = f"A call must begin with {self.call_begins}…>, got {rest[:40]!r}."
        return Fault("malformed", reason.replace("\n", " "), rest or raw)

    def _one(self, text: str, opening: re.Match, closed: bool, tools) -> tuple[Call | Fault, int]:
        name, start, at = opening[1].strip(), opening.start(), opening.end()
        properties, arguments = schema_of(tools, name), {}
        while True:
            at = _SPACE.match(text, at).end()
            if text.startswith(self.call_close, at):
                at += len(self.call_close)
                return Call(name, arguments, text[start:at]), at
            tag = self.argument.match(text, at)
            if not tag:
                return self._broken(text, start, at, closed, name), len(text)
            end = self._value_ends.search(text, tag.end())
            if not end:
                return self._cut(f"inside {tag[1][:40]!r}", text[start:], closed, name), len(text)
            try:
                arguments[tag[1]] = self.value(text[tag.end() : end.start()], tag, properties.get(tag[1]))
            except Unreadable as error:
                reason = f"The argument {tag[1][:40]!r} of {name[:60]} {error}."
                return Fault("malformed", reason.replace("\n", " "), text[start:], name), len(text)
            at = end.end()

    def _broken(self, text: str, start: int, at: int, closed: bool, name: str) -> Fault:
        rest = text[at:]
        opened = rest.startswith(self.argument_begins) and ">" not in rest
        if opened or any(word.startswith(rest) for word in (self.argument_begins, self.call_close)):
            return self._cut(f"before {self.call_close}", text[start:], closed, name)
        reason = f"In the call of {name[:60]} a {self.argument_begins}…> is expected, got {rest[:30]!r}."
        return Fault("malformed", reason.replace("\n", " "), text[start:], name)

    @staticmethod
    def _cut(where: str, raw: str, closed: bool, name: str) -> Fault:
        if closed:
            return Fault("malformed", f"The call ends {where}.", raw, name)
        return Fault("truncated", f"The reply ended {where}.", raw, name)
