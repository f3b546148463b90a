"""The rows of a JSON file: a list, objects one after the other, or an object that wraps a list.

The file is read in pieces: a list of any length needs no more memory than its longest row. After a row that cannot be
read, reading goes on at the next one where the rows begin lines of their own, which is how programs write them.
"""

import codecs
import io
import json
import re
from collections.abc import Iterator

from playground.core.datasets import reading
from playground.core.datasets.formats import recognise
from playground.core.datasets.problems import Problem
from playground.core.datasets.reading import DECODER, Row, as_row, bad_byte, json_fault, too_long
from playground.errors import PlaygroundError

WRAPPERS = ("data", "rows", "examples", "train", "instances", "items", "samples", "questions", "conversations")
_SPACE = re.compile(r"[ \t\r\n]*")
PIECE = 2**18  # bytes that are read at a time
_LIST = re.compile(r"\[\s*\{")
_UNFINISHED = 20  # characters from the end within which a fault may only mean that the text goes on
_ESCAPED = re.compile("[\udc80-\udcff]")


class _Broken(Exception):
    """A row that cannot be read. `after` says where the text stands then: before it, behind it, or at its end."""

    def __init__(self, column: int | None, reason: str, after: str = "before"):
        super().__init__(reason)
        self.column, self.reason, self.after = column, reason, after


class _Text:
    """The text at hand: `text[at:]` is not used yet, and more is read as it is asked for."""

    def __init__(self, stream: io.BufferedReader):
        self.stream, self.text, self.at, self.ended = stream, "", 0, False
        self.decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self.dropped, self.lines, self.before = 0, 1, 0  # before `text`: bytes, lines + 1, characters of its line
        self.escaped = False  # whether there are bytes that are no UTF-8

    def more(self, size: int = PIECE) -> None:
        """Read on; what is used is forgotten."""
        newline = self.text.rfind("\n", 0, self.at)
        start = newline if self.at - newline < 4096 and newline >= 0 else self.at  # keep what begins the line
        used = self.text[:start]
        self.dropped += len(used) if used.isascii() else len(used.encode("utf-8", "surrogateescape"))
        self.lines += used.count("\n")
        self.before = len(used) - used.rfind("\n") - 1 if "\n" in used else self.before + len(used)
        data = self.stream.read(size)
        self.ended = not data
        new = self.decoder.decode(data, final=self.ended)
        self.escaped = self.escaped or (not new.isascii() and _ESCAPED.search(new) is not None)
        self.text, self.at = self.text[start:] + new, self.at - start

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            self.at = _SPACE.match(self.text, self.at).end()
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self.more()

    def value(self, whole: bool = False):
        """The JSON value here. Raises _Broken where there is none, or (unless it is `whole`) where it is too long."""
        size = PIECE
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.at)
                if end < len(self.text) or self.ended:  # a number may go on
                    self._check_bytes(end)
                    start, self.at = self.at, end
                    if end - start > reading.MAX_ROW and not whole:
                        raise _Broken(None, too_long(), "behind")
                    return value
                broken = len(self.text)
            except json.JSONDecodeError as error:
                broken = error.pos  # not the error itself: it would keep the text, in a cycle with this frame
                final = error.pos < len(self.text) - _UNFINISHED and not error.msg.startswith("Unterminated")
                if final or self.ended:
                    raise self._broken(error) from None
            except RecursionError:
                raise _Broken(None, "is nested too deeply to be read") from None
            except ValueError as error:  # a number of thousands of digits
                raise _Broken(None, f"cannot be read: {str(error).split(':')[0]}") from None
            if len(self.text) - self.at > reading.MAX_ROW:
                raise _Broken(self.column(broken), too_long())
            self.more(size)
            size *= 2

    def _broken(self, error: json.JSONDecodeError) -> _Broken:
        at_end = error.pos >= len(self.text.rstrip()) - 1 or error.msg.startswith("Unterminated")
        line, column = self.lines + self.text.count("\n", 0, error.pos), self.column(error.pos)
        told = f"{json_fault(self.text, error).removesuffix(' starting at')} at line {line}, column {column}"
        if at_end and self.ended:
            return _Broken(column, f"{told}: the file ends inside this row", "end")
        return _Broken(column, told)

    def _check_bytes(self, end: int) -> None:
        found = _ESCAPED.search(self.text, self.at, end) if self.escaped else None
        if found is None:
            return
        column = self.column(found.start())
        data = self.text[: found.end()].encode("utf-8", "surrogateescape")
        error = UnicodeDecodeError("utf-8", data, len(data) - 1, len(data), "")
        self.at = end
        raise _Broken(column, bad_byte(data, error, self.dropped), "behind")

    def column(self, position: int) -> int:
        newline = self.text.rfind("\n", 0, position)
        return position - newline if newline >= 0 else self.before + position + 1

    def line(self) -> int:
        return self.lines + self.text.count("\n", 0, self.at)

    def indent(self) -> str | None:
        """The white space before the value here, where it begins a line; else None."""
        start = self.text.rfind("\n", 0, self.at)
        before = self.text[start + 1 : self.at]
        return before if (start >= 0 or not self.before) and not before.strip() else None

    def holds(self, pattern: re.Pattern) -> bool:
        """Whether the text goes on with a short pattern."""
        while len(self.text) - self.at < 2**10 and not self.ended:
            self.more()
        return pattern.match(self.text, self.at) is not None

    def skip_to(self, mark: str) -> bool:
        """Go to the next line that begins so; False where there is none."""
        mark = "\n" + mark
        while (found := self.text.find(mark, self.at)) < 0:
            if self.ended:
                return False
            self.at = max(self.at, len(self.text) - len(mark))
            self.more()
        self.at = found + len(mark) - 1
        return True


def json_rows(name: str, stream: io.BufferedReader) -> Iterator[Row | Problem]:
    text = _Text(stream)
    if text.peek() == "[":
        text.at += 1
        yield from _whole_chat(_sequence(name, text, "]"))
        return
    if text.peek() == "{":
        try:
            value = text.value(whole=True)
        except _Broken as broken:
            if broken.reason == too_long():
                yield from _wrapped(name, text)
                return
        else:
            if not text.peek():
                yield from unwrapped(name, value)
                return
            yield as_row(name, 1, value)
            yield from _sequence(name, text, "", 1)
            return
    yield from _sequence(name, text, "")


def _sequence(name: str, text: _Text, close: str, number: int = 0, inside: bool = False) -> Iterator[Row | Problem]:
    """Rows up to `close`: those of a list, or (where it is empty) objects one after the other to the end."""
    indent, comma, begun = None, False, False
    while (mark := text.peek()) and mark != close:
        if comma and mark != ",":
            reason = f"no comma follows this row (line {text.line():,}); the rows after it are not read"
            yield Problem(name, number, text.column(text.at), reason)
            return
        if comma:
            text.at += 1
            comma = False
            continue
        indent, begun = indent if begun else text.indent(), True
        number += 1
        try:
            row = as_row(name, number, text.value())
        except _Broken as broken:
            reason, goes_on = broken.reason, broken.after == "behind"
            if broken.after == "before":
                goes_on = indent is not None and text.skip_to(indent + "{")
                reason += "" if goes_on else "; the rows after it are not read"
            yield Problem(name, number, broken.column, reason)
            if not goes_on:
                return
            comma = bool(close) and broken.after == "behind"
        else:
            yield row
            comma = bool(close)
    if close and not mark:
        yield Problem(name, number or None, None, "the file ends after this row, and its list is not closed")
    text.at += 1
    if close and not inside and text.peek():
        yield Problem(name, None, None, f"there is more after the list of rows (line {text.line():,}); it is not read")


def _wrapped(name: str, text: _Text) -> Iterator[Row | Problem]:
    """The rows of the first list of objects in an object too long to be read whole."""
    text.at += 1
    try:
        while text.peek() == '"':
            text.value()
            text.peek()
            text.at += 1  # the colon
            text.peek()
            if text.holds(_LIST):
                text.at += 1
                yield from _sequence(name, text, "]", inside=True)
                return
            text.value()
            text.peek()
            text.at += 1  # the comma
    except _Broken as broken:
        yield Problem(name, None, broken.column, broken.reason)
    else:
        yield Problem(name, 1, None, too_long())


def _whole_chat(rows: Iterator[Row | Problem]) -> Iterator[Row | Problem]:
    """A list of messages alone in its file is one conversation, and one row."""
    first = next(rows, None)
    if first is None:
        return
    keys = set(first.value) if isinstance(first, Row) else set()
    if keys >= {"role", "content"} or keys == {"from", "value"}:
        found = [first, *rows]
        yield from (row for row in found if isinstance(row, Problem))
        yield Row(1, {"messages": [row.value for row in found if isinstance(row, Row)]})
        return
    yield first
    yield from rows


def unwrapped(name: str, value) -> Iterator[Row | Problem]:
    """The rows in a lone object: itself, the list it wraps, or a table by columns or by keys, as pandas writes them."""
    if not isinstance(value, dict):
        raise PlaygroundError(f"{name} must hold a list of rows")
    yield from (as_row(name, number, row) for number, row in enumerate(_inside(value), 1))


def _inside(value: dict) -> list:
    if recognise(value) is not None:
        return [value]
    lists = {key: item for key, item in value.items() if isinstance(item, list) and item and isinstance(item[0], dict)}
    if lists:
        found = lists[next((key for key in WRAPPERS if key in lists), max(lists, key=lambda key: len(lists[key])))]
        wrapped = [row.get("row") for row in found if isinstance(row, dict)]  # as the Hub's data viewer gives them
        return wrapped if wrapped and all(isinstance(row, dict) for row in wrapped) else found
    columns = list(value.values())
    if columns and all(isinstance(column, list) for column in columns) and len({len(c) for c in columns}) == 1:
        return [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]
    if columns and all(isinstance(column, dict) and column for column in columns):
        by_key = [dict(zip(value, cells, strict=True)) for cells in zip(*(c.values() for c in columns), strict=False)]
        same = all(column.keys() == columns[0].keys() for column in columns)
        return by_key if same and by_key and recognise(by_key[0]) else columns if recognise(columns[0]) else [value]
    return [value]
