"""JSON lines: what is a line, and what is wrong with one."""

import pytest

from playground.core import jsonl
from playground.errors import PlaygroundError


def test_only_a_newline_ends_a_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes('\ufeff{"a": "x\u2028y\x85"}\r\n\n{"b": "\\ud800"}'.encode())
    rows = jsonl.rows(path)
    assert rows == [(1, {"a": "x\u2028y\x85"}), (3, {"b": "\ud800"})]
    assert jsonl.printable(rows[1][1]) == {"b": "?"}


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "rows.jsonl has no rows"),
        (b"{}\n{", "rows.jsonl, line 2 is not JSON"),
        (b"[" * 100_000, "rows.jsonl, line 1 is not JSON"),
        (b"[1]", "rows.jsonl, line 1 must be a JSON object"),
        (b"\xff\xfe", "rows.jsonl is not UTF-8 text"),
        (None, "cannot be read: No such file"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, content, reason):
    path = tmp_path / "rows.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PlaygroundError, match=reason):
        jsonl.rows(path, "line")


def test_a_file_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "MAX_BYTES", 1_000_000)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b" " * 1_000_001)
    with pytest.raises(PlaygroundError, match="larger than 1 MB"):
        jsonl.rows(path)
