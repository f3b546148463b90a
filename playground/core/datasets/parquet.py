"""The rows of a Parquet file as JSON values."""

import datetime
import decimal
import io
import shutil
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from playground.core.datasets import reading
from playground.core.datasets.problems import Problem
from playground.core.datasets.reading import MB, Row
from playground.errors import PlaygroundError

BATCH = 64  # rows; a page of one repeated value unpacks to many times its size, so that batches are small


def parquet_rows(name: str, source: io.BufferedReader) -> Iterator[Row | Problem]:
    """Rows with lists, objects, texts and numbers; times as ISO text, binary data as text where it is UTF-8.

    The end of the file says where its parts are: bytes that come as a stream go to disk first.
    """
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(source, file)
        yield from _rows(name, file)


def _rows(name: str, source: BinaryIO) -> Iterator[Row | Problem]:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(source)
        batches = file.iter_batches(batch_size=BATCH)
    except Exception as error:  # noqa: BLE001 (pyarrow has many)
        raise PlaygroundError(f"{name} is not a Parquet file that can be read: {_short(error)}") from None
    number = size = 0
    while True:
        try:
            batch = next(batches, None)
        except Exception as error:  # noqa: BLE001
            yield Problem(name, number + 1, None, f"cannot be read: {_short(error)}; the rows after it are not read")
            return
        if batch is None:
            return
        size += batch.nbytes
        if size > reading.MAX_BYTES:
            raise PlaygroundError(f"{name} unpacks to more than {reading.MAX_BYTES // MB} MB")
        columns = {field.name: _values(pyarrow, batch.column(i)) for i, field in enumerate(batch.schema)}
        for position in range(batch.num_rows):
            number += 1
            yield Row(number, {column: plain(values[position], top=True) for column, values in columns.items()})


def _values(pyarrow, column) -> list:
    faults = (ValueError, OverflowError, TypeError, pyarrow.ArrowException)

    def one(scalar):
        try:
            return scalar.as_py()
        except faults:
            pass
        try:
            if isinstance(scalar, (pyarrow.StringScalar, pyarrow.LargeStringScalar)):
                return scalar.as_buffer().to_pybytes()  # text that is no UTF-8
            return scalar.cast(pyarrow.string()).as_py()  # a time past the year 9999
        except faults:
            return None

    try:
        return column.to_pylist()
    except faults:
        return [one(scalar) for scalar in column]


def plain(value, top: bool = False):
    """A value of Arrow's as JSON has it. Keys without a value are dropped: Parquet gives every object every key."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if value - value == 0 else None  # no NaN, no infinity
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value if top else None
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return int(value) if value.is_finite() and value == int(value) else str(value)
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)


def _short(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")[:200] or type(error).__name__
