"""From a file to rows, one at a time: JSON, JSONL, CSV, TSV and Parquet, each also gzipped.

Nothing is held but the row at hand (a JSON file up to one row's bound is read whole). A row that cannot be read is
given as a Problem in its place, and reading goes on where that is possible.
"""

import codecs
import csv
import gzip
import io
import json
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from playground.core.datasets.problems import Problem
from playground.errors import PlaygroundError

MB = 2**20
MAX_BYTES = 200 * MB  # of a file, and of what a packed one unpacks to
MAX_ROW = 32 * MB  # of one row
SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
BOMS = (
    (codecs.BOM_UTF8, ""),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# NaN and Infinity are no JSON and could not be written back; they become a missing value.
DECODER = json.JSONDecoder(parse_constant=lambda _: None)


class Row(NamedTuple):
    number: int
    value: dict


def rows(file: Path, encoding: str = "") -> Iterator[Row | Problem]:
    """The rows of a file, with a Problem in the place of each that cannot be read.

    Raises PlaygroundError where the file as a whole is no data file: unknown ending, empty, too large, unreadable.
    """
    name, kind = file.name, kind_of(file)
    some = False
    with _opened(file) as (packed, source):
        if kind == ".parquet" or source.peek(4)[:4] == b"PAR1":
            from playground.core.datasets.parquet import parquet_rows

            found = parquet_rows(name, source)
        else:
            stream = _utf8(source, name, encoding)
            if kind == ".json":
                from playground.core.datasets.json_values import json_rows

                found = json_rows(name, stream)
            else:
                found = _jsonl_rows(name, stream) if kind in (".jsonl", ".ndjson") else _csv_rows(name, stream, kind)
        for row in found:
            some = True
            yield row
        if packed.fault:
            yield Problem(name, None, None, f"{packed.fault}; what comes after is lost")
        elif not packed.count or not some:
            raise PlaygroundError(f"{name} is empty" if packed.blank else f"{name} holds no rows")


def kind_of(file: Path) -> str:
    """The ending that says what a file holds, `.gz` put aside."""
    suffixes = [suffix.lower() for suffix in file.suffixes[-2:]]
    kind = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) == 2 else (suffixes or [""])[-1]
    if kind not in SUFFIXES:
        raise PlaygroundError(f"{file.name}: data files end in {', '.join(SUFFIXES)}, also with .gz")
    return kind


# Bytes ----------------------------------------------------------------------------------------------------------------


_BLANK = b" \t\r\n" + b"".join(bom for bom, _ in BOMS)


class _Bounded(io.RawIOBase):
    """Bytes, unpacked where they are packed and counted as they come: a small file must not become a large one.

    Ends early, and keeps the reason in `fault`, where the packed bytes are broken.
    """

    def __init__(self, inner, name: str):
        self.inner, self.name, self.count, self.fault, self.blank = inner, name, 0, "", True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        try:
            data = self.inner.read1(len(buffer))
        except (OSError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or error
            if not self.count:
                raise PlaygroundError(f"{self.name} cannot be read: {reason}") from None
            self.fault, data = f"the file breaks off after {self.count:,} bytes ({reason})", b""
        self.count += len(data)
        if self.count > MAX_BYTES:
            raise PlaygroundError(f"{self.name} is larger than {MAX_BYTES // MB} MB")
        self.blank = self.blank and not data.strip(_BLANK)
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def _opened(file: Path):
    try:
        raw = open(file, "rb")  # noqa: SIM115 (closed below)
    except FileNotFoundError:
        raise PlaygroundError(f"there is no file {file}") from None
    except OSError as error:
        raise PlaygroundError(f"{file.name} cannot be read: {error.strerror or error}") from None
    with raw:
        packed = raw.peek(2)[:2] == b"\x1f\x8b" or file.suffix.lower() == ".gz"
        bounded = _Bounded(gzip.GzipFile(fileobj=raw) if packed else raw, file.name)
        yield bounded, io.BufferedReader(bounded, 2**16)


class _Recoded(io.RawIOBase):
    """Bytes of another encoding as UTF-8."""

    def __init__(self, inner: io.BufferedReader, name: str, encoding: str):
        self.inner, self.name, self.encoding, self.ready, self.count = inner, name, encoding, b"", 0
        self.decoder = codecs.getincrementaldecoder(encoding)()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self.ready:
            data = self.inner.read(2**15)
            try:
                text = self.decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                position = self.count + error.start
                told = f"{self.name} is not {self.encoding} text: the byte at position {position:,} cannot be read"
                raise PlaygroundError(told) from None
            self.count += len(data)
            self.ready = text.encode("utf-8", "surrogatepass")
            if not data:
                break
        piece, self.ready = self.ready[: len(buffer)], self.ready[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)


def _utf8(source: io.BufferedReader, name: str, encoding: str) -> io.BufferedReader:
    """The bytes as UTF-8 without a byte-order mark, from `encoding` or what the mark says."""
    head = source.peek(4)
    mark, found = next(((bom, codec) for bom, codec in BOMS if head.startswith(bom)), (b"", ""))
    source.read(len(mark))
    encoding = found or encoding
    try:
        encoding = codecs.lookup(encoding).name if encoding else "utf-8"
        codecs.getincrementaldecoder(encoding)
    except LookupError:
        raise PlaygroundError(f"there is no encoding {encoding!r}; common ones are utf-8, utf-16, cp1252") from None
    if encoding != "utf-8":
        return io.BufferedReader(_Recoded(source, name, encoding), 2**16)
    for codec, nul, other in (("utf-16-le", 1, 0), ("utf-16-be", 0, 1)):
        even = head[: len(head) // 2 * 2]
        if len(even) >= 4 and not any(even[nul::2]) and all(even[other::2]):
            raise PlaygroundError(f"{name} looks like {codec} text without a byte-order mark; name this encoding")
    return source


def bad_byte(data: bytes, error: UnicodeDecodeError, offset: int) -> str:
    """What is wrong with bytes that are no UTF-8, and what they would be in the encoding of older Windows programs."""
    byte = data[error.start]
    told = f"the byte 0x{byte:02X} at position {offset + error.start:,} of the file is not UTF-8"
    try:
        letter = bytes([byte]).decode("cp1252")
    except UnicodeDecodeError:
        return told
    return f"{told}; in Windows-1252 it is {letter!r}: save the file as UTF-8, or name the encoding cp1252"


class _Lines:
    """Numbered lines of bytes with their offsets; of one past the bound, only its beginning."""

    def __init__(self, stream: io.BufferedReader):
        self.stream, self.offset, self.number = stream, 0, 0

    def __iter__(self):
        return self

    def __next__(self) -> tuple[int, int, bytes]:
        line = self.stream.readline(MAX_ROW)
        if not line:
            raise StopIteration
        start, self.number = self.offset, self.number + 1
        self.offset += len(line)
        if len(line) == MAX_ROW and not line.endswith(b"\n"):
            while rest := self.stream.readline(MB):
                self.offset += len(rest)
                if rest.endswith(b"\n"):
                    break
        return self.number, start, line


def too_long() -> str:
    return f"the row is longer than {MAX_ROW // MB} MB"


# JSONL ----------------------------------------------------------------------------------------------------------------


def _jsonl_rows(name: str, stream: io.BufferedReader) -> Iterator[Row | Problem]:
    for number, offset, line in _Lines(stream):
        if len(line) >= MAX_ROW:
            yield Problem(name, number, None, too_long())
            continue
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            yield Problem(name, number, error.start + 1, bad_byte(line, error, offset))
            continue
        if text.strip():
            yield parsed(name, number, text.rstrip("\r\n"))


def parsed(name: str, number: int, text: str) -> Row | Problem:
    """One row of JSON text."""
    try:
        value = DECODER.decode(text.strip("\0") if not text.strip("\0 \r\n\t") else text)
    except json.JSONDecodeError as error:
        return Problem(name, number, error.colno, json_fault(text, error))
    except RecursionError:
        return Problem(name, number, None, "is nested too deeply to be read")
    except ValueError as error:  # a number of thousands of digits
        return Problem(name, number, None, f"cannot be read: {str(error).split(':')[0]}")
    return as_row(name, number, value)


def as_row(name: str, number: int, value) -> Row | Problem:
    """A JSON value as a row: an object, or a bare list of messages."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        value = {"messages": value}
    if not isinstance(value, dict):
        return Problem(name, number, None, "not a JSON object")
    return Row(number, value)


def json_fault(text: str, error: json.JSONDecodeError) -> str:
    if "\0" in text[max(0, error.pos - 1) : error.pos + 1]:
        return "not valid JSON: it holds a NUL byte"
    return f"not valid JSON: {error.msg}"


# CSV ------------------------------------------------------------------------------------------------------------------
# A quote that is never closed swallows the rows after it. When such a row fails, reading starts again at the line after
# its first; the bound on lines read twice keeps a file of nothing but open quotes from taking for ever.

MAX_REREAD = 64 * MB


class _CsvLines:
    """Lines as text for the csv module, which keeps those of the row at hand so that they can be read again."""

    def __init__(self, stream: io.BufferedReader):
        self.lines, self.again, self.taken = _Lines(stream), deque(), []
        self.size = self.reread = 0
        self.fault: tuple[int, str] | None = None

    def __iter__(self):
        return self

    def __next__(self) -> str:
        if not self.again:
            number, offset, line = next(self.lines)
            for piece in line.splitlines(keepends=True):  # some programs end lines with a carriage return alone
                self.again.append((number, offset, piece))
                offset += len(piece)
        number, offset, line = self.again.popleft()
        self.taken.append((number, offset, line))
        self.size += len(line)
        if self.size >= MAX_ROW:
            raise csv.Error(too_long())
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            self.fault = self.fault or (error.start + 1, bad_byte(line, error, offset))
            return line.decode("utf-8", "replace")

    def begin(self) -> None:
        self.taken.clear()
        self.size, self.fault = 0, None

    def rewind(self) -> None:
        """To the second line of the row at hand."""
        size = sum(len(line) for _, _, line in self.taken[1:])
        if self.reread + size <= MAX_REREAD:
            self.reread += size
            self.again.extendleft(reversed(self.taken[1:]))


def _csv_rows(name: str, stream: io.BufferedReader, kind: str) -> Iterator[Row | Problem]:
    head = (stream.peek(2**16).splitlines() or [b""])[0].decode("utf-8", "replace").strip()
    lines = _CsvLines(stream)
    if head.lower().startswith("sep=") and len(head) == 5:  # Excel's own line
        delimiter = head[4]
        next(lines)
    else:
        delimiter = "\t" if kind == ".tsv" else max(",;\t|", key=lambda mark: _cells(head, mark))
    csv.field_size_limit(MAX_ROW)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    number = 0
    while True:
        lines.begin()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if columns is None:
                raise PlaygroundError(f"{name}: the line of column names cannot be read: {error}") from None
            number += 1
            line = lines.taken[0][0] if lines.taken else number + 1
            reason = "a quote is opened and not closed" if str(error) == "unexpected end of data" else str(error)
            yield Problem(name, number, None, f"{reason} (line {line:,})")
            lines.rewind()
            continue
        if not cells:
            continue
        if columns is None:
            if lines.fault:
                raise PlaygroundError(f"{name}: the line of column names cannot be read: {lines.fault[1]}")
            columns = _names(cells)
            continue
        number += 1
        yield _csv_row(name, number, columns, cells, lines)


def _cells(line: str, delimiter: str) -> int:
    try:
        return len(next(csv.reader([line], delimiter=delimiter), ()))
    except csv.Error:
        return 0


def _names(cells: list[str]) -> list[str]:
    """Column names that are all there and all different."""
    if any("\0" in cell for cell in cells):
        raise PlaygroundError("the line of column names holds NUL bytes; this is no CSV text")
    names: list[str] = []
    for number, cell in enumerate(cells, 1):
        name = cell.strip() or f"column {number}"
        names.append(name if name not in names else f"{name} ({number})")
    return names


def _csv_row(name: str, number: int, columns: list[str], cells: list[str], lines: _CsvLines) -> Row | Problem:
    if lines.fault:
        return Problem(name, number, None, f"{lines.fault[1]} (line {lines.taken[0][0]:,})")
    while len(cells) > len(columns) and not cells[-1]:
        cells.pop()
    if len(cells) != len(columns):
        told = f"{len(cells)} cells under {len(columns)} column names (line {lines.taken[0][0]:,})"
        return Problem(name, number, None, told)
    if broken := next((column for column, cell in zip(columns, cells, strict=True) if "\0" in cell), None):
        return Problem(name, number, broken, f"holds a NUL byte (line {lines.taken[0][0]:,})")
    return Row(number, dict(zip(columns, cells, strict=True)))
