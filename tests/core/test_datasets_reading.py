"""Files as they come: every ending, and every way of being broken."""

import copy
import gzip
import io
import json
import pickle
import tracemalloc
from pathlib import Path

import pytest

from playground.config import Paths
from playground.core import datasets
from playground.core.datasets import (
    Mapping,
    NoRows,
    Problem,
    Row,
    load,
    preview,
    read_rows,
    reading,
    remember,
    remembered,
    rows,
)
from playground.errors import PlaygroundError

QA = [{"question": "Q", "answer": "A"}, {"question": "Q2", "answer": "A2"}]
JSONL = "".join(json.dumps(row) + "\n" for row in QA)
CSV = b"question,answer\nQ,A\nQ2,A2\n"
MESSAGES = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]


def write(folder: Path, name: str, data) -> Path:
    file = folder / name
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return file


def parquet(table: dict, **options) -> bytes:
    import pyarrow
    from pyarrow import parquet

    out = io.BytesIO()
    parquet.write_table(pyarrow.table(table), out, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    "name, data",
    [
        ("a.jsonl", JSONL),
        ("a.jsonl", JSONL.replace("\n", "\n\n")),
        ("a.ndjson", b"\xef\xbb\xbf" + JSONL.replace("\n", "\r\n").encode()),
        ("a.jsonl", JSONL.encode("utf-16")),
        ("a.csv", CSV.decode().encode("utf-16")),
        ("a.json", json.dumps(QA).encode("utf-32")),
        ("a.json", JSONL),  # one object per line under the wrong ending
        ("a.json", json.dumps(QA[0], indent=1) + json.dumps(QA[1], indent=1)),
        ("a.json", json.dumps(QA)),
        ("a.json", b"\xef\xbb\xbf" + json.dumps(QA, indent=4).encode()),
        ("a.json", json.dumps({"version": 1, "data": QA})),
        ("a.json", json.dumps({"canary": "…", "tests": QA})),
        (
            "a.json",
            json.dumps({"features": [{"name": "question"}], "rows": [{"row_idx": 0, "row": row} for row in QA]}),
        ),
        ("a.json", json.dumps({"question": ["Q", "Q2"], "answer": ["A", "A2"]})),  # a table by columns
        ("a.json", json.dumps({"question": {"0": "Q", "1": "Q2"}, "answer": {"0": "A", "1": "A2"}})),
        ("a.json", json.dumps({"0": QA[0], "1": QA[1]})),
        ("a.jsonl.gz", gzip.compress(JSONL.encode(), mtime=0)),
        (
            "a.json.gz",
            gzip.compress(json.dumps(QA[:1]).encode()[:-1], mtime=0)
            + gzip.compress(b"," + json.dumps(QA[1:]).encode()[1:], mtime=0),
        ),
        ("a.jsonl", gzip.compress(JSONL.encode(), mtime=0)),  # packed, and not called so
        ("a.csv.gz", gzip.compress(CSV, mtime=0)),
        ("a.csv", CSV),
        ("a.csv", b"\xef\xbb\xbfquestion;answer\r\nQ;A\r\n\r\nQ2;A2\r\n"),
        ("a.csv", b"question,answer\rQ,A\rQ2,A2\r"),
        ("a.csv", b"sep=|\nquestion|answer\nQ|A\nQ2|A2\n"),
        ("a.csv", b"question,answer\nQ,A,,\nQ2,A2\n"),  # empty cells that Excel leaves
        ("a.TSV", b"question\tanswer\nQ\tA\nQ2\tA2\n"),
        ("a.parquet", parquet({"question": ["Q", "Q2"], "answer": ["A", "A2"]})),
        ("a.parquet.gz", gzip.compress(parquet({"question": ["Q", "Q2"], "answer": ["A", "A2"]}), mtime=0)),
    ],
)
def test_read_rows(name, data, tmp_path):
    assert read_rows(write(tmp_path, name, data)) == QA


@pytest.mark.parametrize(
    "data, expected",
    [
        (json.dumps({"messages": MESSAGES, "tools": []}), [{"messages": MESSAGES, "tools": []}]),  # one row
        (json.dumps(MESSAGES), [{"messages": MESSAGES}]),  # one conversation
        (json.dumps([MESSAGES, MESSAGES]), [{"messages": MESSAGES}] * 2),
        ('[{"a": NaN, "b": -Infinity}]', [{"a": None, "b": None}]),
        ("[]", "holds no rows"),
        ('{"a": 1}', [{"a": 1}]),
        ("3", "a.json, row 1: not a JSON object"),
        ('"text"', "a.json, row 1: not a JSON object"),
    ],
)
def test_what_a_json_file_may_hold(data, expected, tmp_path):
    file = write(tmp_path, "a.json", data)
    if isinstance(expected, str):
        with pytest.raises(PlaygroundError, match=expected):
            read_rows(file)
    else:
        assert read_rows(file) == expected


def test_quoted_cells_of_csv(tmp_path):
    file = write(tmp_path, "a.csv", 'a,b\n"x, ""y""\nz",1\n')
    assert read_rows(file) == [{"a": 'x, "y"\nz', "b": "1"}]


def test_column_names_are_all_there_and_all_different(tmp_path):
    file = write(tmp_path, "a.csv", "a,,a\n1,2,3\n")
    assert read_rows(file) == [{"a": "1", "column 2": "2", "a (3)": "3"}]


GOOD = '{"question": "Q", "answer": "A"}\n'
LONG = 1000


@pytest.mark.parametrize(
    "name, data, good, sentence",
    [
        # JSON lines
        (
            "a.jsonl",
            GOOD + '{"q": "Q"\n' + GOOD,
            2,
            "a.jsonl, row 2, column 10: not valid JSON: Expecting ',' delimiter",
        ),
        ("a.jsonl", GOOD + "[1]\n" + GOOD, 2, "a.jsonl, row 2: not a JSON object"),
        (
            "a.jsonl",
            GOOD + '{"a": ' + "[" * 100_000 + "\n" + GOOD,
            2,
            "a.jsonl, row 2: is nested too deeply to be read",
        ),
        (
            "a.jsonl",
            GOOD + '{"a": ' + "1" * 5000 + "}\n" + GOOD,
            2,
            "a.jsonl, row 2: cannot be read: Exceeds the limit",
        ),
        ("a.jsonl", GOOD + '{"a": "\0"}\n' + GOOD, 2, "a.jsonl, row 2, column 8: not valid JSON: it holds a NUL byte"),
        ("a.jsonl", GOOD + "\0\0\0\n" + GOOD, 2, "a.jsonl, row 2, column 1: not valid JSON: it holds a NUL byte"),
        (
            "a.jsonl",
            GOOD.encode() + '{"a": "it’s"}\n'.encode("cp1252") + GOOD.encode(),
            2,
            "a.jsonl, row 2, column 10: the byte 0x92 at position 42 of the file is not UTF-8; "
            "in Windows-1252 it is '’': save the file as UTF-8, or name the encoding cp1252",
        ),
        ("a.jsonl", GOOD.encode() + b'{"a": "\x81"}\n', 1, "the byte 0x81 at position 40 of the file is not UTF-8"),
        ("a.jsonl", GOOD + '{"a": "' + "x" * LONG + '"}\n' + GOOD, 2, "a.jsonl, row 2: the row is longer than 0 MB"),
        (
            "a.jsonl",
            GOOD + '{"a": "cut',
            1,
            "a.jsonl, row 2, column 7: not valid JSON: Unterminated string starting at",
        ),
        # JSON
        (
            "a.json",
            '[{"a": 1},\n {"a" 2}]',
            1,
            "a.json, row 2, column 7: not valid JSON: Expecting ':' delimiter at line 2, column 7; the rows after",
        ),
        (
            "a.json",
            '[\n {"a": 1},\n {"a" 2},\n {"a": 3}\n]',
            2,
            "a.json, row 2, column 7: not valid JSON: Expecting ':' delimiter at line 3, column 7",
        ),
        (
            "a.json",
            '{"a": 1}\n{"a" 2}\n{"a": 3}\n',
            2,
            "a.json, row 2, column 6: not valid JSON: Expecting ':' delimiter at line 2",
        ),
        (
            "a.json",
            '[{"a": 1}, {"a": 2}, {"a": "cu',
            2,
            "row 3, column 28: not valid JSON: Unterminated string at line 1, column 28: the file ends inside this row",
        ),
        ("a.json", '[{"a": 1}, {"a": 2}', 2, "a.json, row 2: the file ends after this row, and its list is not closed"),
        (
            "a.json",
            '[{"a": 1} {"a": 2}]',
            1,
            "a.json, row 1, column 11: no comma follows this row (line 1); the rows after it",
        ),
        ("a.json", '[{"a": 1}] [2]', 1, "a.json: there is more after the list of rows (line 1); it is not read"),
        ("a.json", '[1, {"a": 1}]', 1, "a.json, row 1: not a JSON object"),
        ("a.json", '[{"role": "user", "content": "Q"}, 1]', 1, "a.json, row 2: not a JSON object"),
        (
            "a.json",
            '[\n{"a": 1},\n{"a": ' + "[" * 100_000 + ",\n" + '{"a": 3}\n]',
            2,
            "a.json, row 2: is nested too deeply",
        ),
        ("a.json", "[" * 100_000, 0, "a.json, row 1: is nested too deeply"),
        (
            "a.json",
            b'[{"a": 1}, {"a": "\xff"}, {"a": 3}]',
            2,
            "row 2, column 19: the byte 0xFF at position 18 of the file is not UTF-8; in Windows-1252 it is 'ÿ'",
        ),
        ("a.json", '[{"a": "' + "x" * LONG + '"}, {"a": 2}]', 1, "a.json, row 1: the row is longer than 0 MB"),
        # CSV
        ("a.csv", "q,a\nQ\nQ,A\n", 1, "a.csv, row 1: 1 cells under 2 column names (line 2)"),
        ("a.csv", "q,a\nQ,A\nQ,A,B\n", 1, "a.csv, row 2: 3 cells under 2 column names (line 3)"),
        ("a.csv", 'q,a\n"Q"x,A\nQ,A\n', 1, "a.csv, row 1: ',' expected after '\"' (line 2)"),
        ("a.csv", 'q,a\n"Q,A\nQ,A\nQ,A\n', 2, "a.csv, row 1: a quote is opened and not closed (line 2)"),
        ("a.csv", 'q,a\n"Q,A\nQ,A\n"Q",A\nQ,A\n', 3, "a.csv, row 1: ',' expected after '\"' (line 2)"),
        ("a.csv", "q,a\nQ\0,A\nQ,A\n", 1, "a.csv, row 1, column q: holds a NUL byte (line 2)"),
        (
            "a.csv",
            b"q,a\nQ,caf\xe9\nQ,A\n",
            1,
            "a.csv, row 1: the byte 0xE9 at position 9 of the file is not UTF-8; in Windows-1252 it is 'é'",
        ),
        ("a.csv", "q,a\n" + "x" * LONG + ",A\nQ,A\n", 1, "a.csv, row 1: the row is longer than 0 MB"),
        # packed
        (
            "a.jsonl.gz",
            gzip.compress(GOOD.encode(), mtime=0)[:-4],
            1,
            "a.jsonl.gz: the file breaks off after 33 bytes (Compressed file ended",
        ),
        (
            "a.jsonl.gz",
            gzip.compress(GOOD.encode(), mtime=0) + b"garbage",
            1,
            "a.jsonl.gz: the file breaks off after 33 bytes",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_good_rows_are_kept_and_the_bad_one_is_named(name, data, good, sentence, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_ROW", 900 if "longer than" in sentence else reading.MAX_ROW)
    found = list(rows(write(tmp_path, name, data)))
    problems = [row for row in found if isinstance(row, Problem)]
    assert [len(problems), len(found)] == [1, good + 1]
    assert sentence in problems[0]
    with pytest.raises(PlaygroundError) as error:
        read_rows(tmp_path / name)
    assert str(error.value) == problems[0]


@pytest.mark.parametrize(
    "name, data, sentence",
    [
        ("a.jsonl", b"", "a.jsonl is empty"),
        ("a.jsonl", b"  \n", "a.jsonl is empty"),
        ("a.json", b"\xef\xbb\xbf \n", "a.json is empty"),
        ("a.csv", b"", "a.csv is empty"),
        ("a.csv", b"question,answer\n", "a.csv holds no rows"),
        ("a.csv", b"ques\0tion,answer\nQ,A\n", "the line of column names holds NUL bytes"),
        (
            "a.csv",
            b"caf\xe9,answer\nQ,A\n",
            "a.csv: the line of column names cannot be read: the byte 0xE9 at position 3",
        ),
        ("a.csv", b'"question,answer\nQ,A\n', "a.csv: the line of column names cannot be read: unexpected end of data"),
        ("a.jsonl", JSONL.encode("utf-16-le"), "a.jsonl looks like utf-16-le text without a byte-order mark; name"),
        ("a.jsonl", JSONL.encode("utf-16-be"), "a.jsonl looks like utf-16-be text without a byte-order mark; name"),
        ("a.jsonl", b"\xff\xfe\x00\xd8a\x00", "a.jsonl is not utf-16-le text: the byte at position 0 cannot be read"),
        ("a.parquet", b"PAR1", "a.parquet is not a Parquet file that can be read"),
        ("a.parquet", b"no", "a.parquet is not a Parquet file that can be read"),
        ("a.jsonl.gz", b"no gzip", "a.jsonl.gz cannot be read: Not a gzipped file"),
        ("a.jsonl.gz", gzip.compress(b"", mtime=0), "a.jsonl.gz is empty"),
        ("a.txt", b"Hi", "a.txt: data files end in .json, .jsonl, .ndjson, .csv, .tsv, .parquet, also with .gz"),
    ],
)
def test_files_that_are_no_data(name, data, sentence, tmp_path):
    with pytest.raises(PlaygroundError) as error:
        read_rows(write(tmp_path, name, data))
    assert sentence in str(error.value)


def test_no_file(tmp_path):
    with pytest.raises(PlaygroundError, match="there is no file"):
        read_rows(tmp_path / "a.json")


def test_another_encoding_can_be_named(tmp_path):
    file = write(tmp_path, "a.csv", "question,answer\nQ,it’s café\n".encode("cp1252"))
    assert load(file, mapping=Mapping(encoding="cp1252")).conversations[0].messages[1]["content"] == "it’s café"
    with pytest.raises(PlaygroundError, match="there is no encoding 'latin-99'; common ones are utf-8"):
        load(file, mapping=Mapping(encoding="latin-99"))
    with pytest.raises(PlaygroundError, match="a.csv is not ascii text: the byte at position 20 cannot be read"):
        load(file, mapping=Mapping(encoding="ascii"))


# Bounds ---------------------------------------------------------------------------------------------------------------


def peak(work) -> int:
    """Bytes that `work` holds at most."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["bomb.jsonl.gz", "bomb.json.gz", "bomb.csv.gz", "bomb.jsonl"])
def test_a_gzip_bomb_is_stopped_while_it_unpacks(name, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_BYTES", 2**20)
    start = b'[{"a": "' if "json" in name else b"question,answer\n"
    file = write(tmp_path, name, gzip.compress(start + b"0" * 2**24, 1, mtime=0))

    def read():
        with pytest.raises(PlaygroundError, match=f"{name} is larger than 1 MB"):
            read_rows(file)

    assert peak(read) < 2**23


def test_a_file_larger_than_the_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_BYTES", 2**20)
    with pytest.raises(PlaygroundError, match="a.csv is larger than 1 MB"):
        read_rows(write(tmp_path, "a.csv", b"q,a\n" + b"Q,A" * 2**19))


def test_a_parquet_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_BYTES", 2**20)
    data = parquet({"text": ["x" * 2**16] * 500}, compression="zstd")
    assert len(data) < 2**17
    with pytest.raises(PlaygroundError, match="a.parquet unpacks to more than 1 MB"):
        read_rows(write(tmp_path, "a.parquet", data))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_rows_are_read_one_at_a_time(name, tmp_path):
    """Eight megabytes of rows pass through a few: nothing but the row at hand (and a piece of the file) is held."""
    values = [{"question": "Q" * 8000, "answer": "A"}] * 1000
    if name == "a.csv":
        data = "question,answer\n" + "".join(f"{v['question']},A\n" for v in values)
    else:
        data = json.dumps(values) if name == "a.json" else "".join(json.dumps(v) + "\n" for v in values)
    file = write(tmp_path, name, data)
    del data
    assert peak(lambda: sum(isinstance(row, Row) for row in rows(file))) < 2**22
    assert sum(isinstance(row, Row) for row in rows(file)) == 1000


def test_a_row_past_the_bound_is_left_out_however_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_ROW", 300_000)  # pieces of 262,144 bytes are read, then twice as much
    values = [{"a": "x" * size} for size in (10, 290_000, 310_000, 20, 500_000, 30)]
    found = list(rows(write(tmp_path, "a.json", json.dumps(values))))
    assert [row.number for row in found if isinstance(row, Row)] == [1, 2, 4]
    assert [row.row for row in found if isinstance(row, Problem)] == [3, 5]
    found = list(rows(write(tmp_path, "a.json", json.dumps(values, indent=1))))
    assert [row.number for row in found if isinstance(row, Row)] == [1, 2, 4, 6]


def test_an_object_too_long_for_a_row_is_read_through(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_ROW", 2**20)
    row = {"question": "Q" * 1000, "answer": "A"}
    wrapped = {"canary": "c", "empty": [], "numbers": [1, 2], "examples": [row] * 3000, "after": 1}
    assert read_rows(write(tmp_path, "a.json", json.dumps(wrapped))) == [row] * 3000
    with pytest.raises(PlaygroundError, match=r"a.json, row 1, .*the row is longer than 1 MB|row is longer than 1 MB"):
        read_rows(write(tmp_path, "a.json", json.dumps({"a": "x" * 3 * 2**20})))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_a_cell_of_a_megabyte(name, tmp_path):
    row = {"question": "x" * 2**20, "answer": "A"}
    data = (
        f"question,answer\n{row['question']},A\n" if name == "a.csv" else json.dumps([row] if name == "a.json" else row)
    )
    assert read_rows(write(tmp_path, name, data)) == [row]


def test_a_file_of_open_quotes_does_not_take_for_ever(tmp_path, monkeypatch):
    from playground.core.datasets import reading

    monkeypatch.setattr(reading, "MAX_REREAD", 10_000)
    found = list(rows(write(tmp_path, "a.csv", "q,a\n" + '"Q,A\n' * 2000)))
    assert found
    assert not any(isinstance(row, Row) for row in found)


# Parquet --------------------------------------------------------------------------------------------------------------


def test_parquet_gives_plain_values(tmp_path):
    import datetime
    import decimal

    import pyarrow

    table = {
        "messages": [
            [{"role": "user", "content": "Q", "name": None}, {"role": "assistant", "content": "A", "name": "b"}]
        ],
        "score": [float("nan")],
        "ratio": [0.5],
        "price": [decimal.Decimal("1.50")],
        "when": [datetime.datetime(2024, 1, 2, 3, 4)],
        "late": pyarrow.array([300_000_000_000], pyarrow.timestamp("s")),
        "lasts": [datetime.timedelta(seconds=90)],
        "picture": [b"\xff\xd8"],
        "bytes": [b"text"],
        "box": [{"x": 1, "y": None, "raw": b"\xff"}],
        "kind": pyarrow.array(["a"]).dictionary_encode(),
        "pairs": pyarrow.array([[("k", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int8())),
        "nothing": pyarrow.nulls(1),
        "yes": [True],
    }
    row = read_rows(write(tmp_path, "a.parquet", parquet(table)))[0]
    assert row.pop("late").startswith("11476-08-15")
    assert row.pop("picture") == b"\xff\xd8"
    assert row == {
        "messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A", "name": "b"}],
        "score": None,
        "ratio": 0.5,
        "price": "1.50",
        "when": "2024-01-02T03:04:00",
        "lasts": "0:01:30",
        "bytes": "text",
        "box": {"x": 1, "raw": None},
        "kind": "a",
        "pairs": [["k", 1]],
        "nothing": None,
        "yes": True,
    }
    assert json.loads(json.dumps(row)) == row
    assert load(tmp_path / "a.parquet").conversations[0].messages[1]["content"] == "A"


@pytest.mark.parametrize("cast", [False, True])
def test_binary_where_text_should_be(cast, tmp_path):
    import pyarrow

    column = pyarrow.array([b"\xff\xd8", b"Q"])
    column = pyarrow.StringArray.from_buffers(2, column.buffers()[1], column.buffers()[2]) if cast else column
    data = parquet({"question": column, "answer": ["A", "A"]})
    found = load(write(tmp_path, "a.parquet", data))
    assert len(found.conversations) == 1
    assert found.problems == ["a.parquet, row 1, column question: must be text, got binary data"]


# Loading --------------------------------------------------------------------------------------------------------------


def test_good_rows_are_kept_and_bad_ones_listed(tmp_path):
    lines = [
        {"question": "Q", "answer": "A"},
        "broken",
        {"Question": "Q", "Answer": " "},
        {"instruction": "I", "output": "O"},
        {"x": 1},
        {"messages": [{"role": "narrator", "content": "Q"}]},
        {"question": "\ud83d", "answer": "A"},
        {"messages": [{"role": "assistant", "content": "A"}]},
        {"instruction": "I", "instances": [{"input": "", "output": "A"}, {"input": "", "output": "B"}]},
        {"question": "Q", "answer": "A"},
    ]
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    found = load(write(tmp_path, "mixed.jsonl", text))
    assert (found.name, found.format, found.rows, found.bad) == ("mixed.jsonl", "question-answer", 4, 6)
    assert found.formats == {"question-answer": 2, "alpaca": 1, "self-instruct": 1}
    assert [c.messages[0]["content"] for c in found.conversations] == ["Q", "I", "I", "I", "Q"]
    assert found.numbers == [1, 4, 9, 9, 10]
    assert [problem[:66] for problem in found.problems] == [
        "mixed.jsonl, row 2, column 1: not valid JSON: Expecting value",
        "mixed.jsonl, row 3, column Answer: is empty",
        "mixed.jsonl, row 5: no known format has the columns x; known formats are"[:66],
        "mixed.jsonl, row 6: message 1 has the role 'narrator'; roles are system"[:66],
        "mixed.jsonl, row 7: a message holds half of a character (\\ud83d)"[:66],
        "mixed.jsonl, row 8: message 1 is from the assistant; a conversation"[:66],
    ]
    assert [(p.row, p.column, p.reason) for p in found.problems[:2]] == [
        (2, 1, "not valid JSON: Expecting value"),
        (3, "Answer", "is empty"),
    ]


def nested(depth: int):
    value = "x"
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [MESSAGES[0], {"role": "assistant", "tool_calls": [{"name": "f", "arguments": nested(700)}]}]},
        {"messages": MESSAGES, "tools": [{"name": "f", "parameters": nested(700)}]},
        {"messages": MESSAGES, "chat_template_kwargs": nested(700)},
        {"question": [MESSAGES], "function": [nested(700)]},
        {"question": "Q", "answer": nested(700)},
    ],
)
def test_what_is_nested_deeply_is_refused_or_written_as_text(row, tmp_path):
    text = json.dumps({"question": "Q", "answer": "A"}) + "\n" + json.dumps(row)
    found = load(write(tmp_path, "a.jsonl", text))
    if "answer" in row:
        assert found.conversations[1].messages[1]["content"] == json.dumps(row["answer"])
    else:
        assert (len(found.conversations), len(found.problems)) == (1, 1)
        assert "nested" in found.problems[0]


def test_a_file_of_nothing_but_bad_rows_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "GIVE_UP", 1000)
    found = load(write(tmp_path, "a.jsonl", JSONL + "x\n" * 5000))
    assert (len(found.conversations), found.bad) == (2, 1001)
    assert (
        "row 1,003: more than 1,000 rows one after the other cannot be used; the rest is not read" in found.problems[-1]
    )
    found = load(write(tmp_path, "b.jsonl", (JSONL + "x\n" * 900) * 3))
    assert (len(found.conversations), found.bad) == (6, 2700)


def test_the_list_of_problems_is_bounded_and_all_are_counted(tmp_path):
    found = load(write(tmp_path, "a.jsonl", JSONL + "x\n" * 5000))
    assert (len(found.conversations), len(found.problems), found.bad) == (2, 200, 5000)


def test_a_problem_survives_copies():
    problem = Problem("a.csv", 3, "answer", "is empty")
    assert problem == "a.csv, row 3, column answer: is empty"
    for same in (copy.deepcopy(problem), pickle.loads(pickle.dumps(problem))):
        assert (same, same.row, same.column) == (problem, 3, "answer")


def test_no_rows_left(tmp_path):
    with pytest.raises(NoRows) as error:
        load(write(tmp_path, "bad.jsonl", '{"x": 1}\n{"x": 2}\n'))
    sentence = "bad.jsonl has no row that can be used, of 2; bad.jsonl, row 1: no known format has the columns x"
    assert str(error.value).startswith(sentence)
    assert (error.value.bad, len(error.value.problems)) == (2, 2)


def test_uploads_are_found_by_name(tmp_path):
    paths = Paths(home=tmp_path)
    paths.data.mkdir()
    write(paths.data, "mine.jsonl", JSONL)
    assert len(load("mine.jsonl", paths).conversations) == 2
    with pytest.raises(PlaygroundError, match="there is no data set 'mine.jsonl'; choose tool-calls, instructions"):
        load("mine.jsonl")
    with pytest.raises(PlaygroundError, match="there is no data set '../data/mine.jsonl'"):
        load("../data/mine.jsonl", paths)
    with pytest.raises(PlaygroundError, match="is a folder"):
        load(tmp_path)


# Mappings -------------------------------------------------------------------------------------------------------------


def test_a_mapping_is_remembered_by_content(tmp_path):
    paths = Paths(home=tmp_path)
    paths.data.mkdir()
    file = write(paths.data, "a.csv", "x,y\nQ,A\n")
    with pytest.raises(NoRows):
        load("a.csv", paths)
    mapping = Mapping(prompt="x", answer="y")
    remember(paths.data, file, mapping)
    found = load("a.csv", paths)
    assert (found.format, [m["content"] for m in found.conversations[0].messages]) == ("mapped", ["Q", "A"])
    other = write(tmp_path, "b.csv", "x,y\nQ,A\n")  # the same content under another name
    assert load(other, paths).format == "mapped"
    assert remembered(paths.data, write(tmp_path, "c.csv", "x,y\nQ,B\n")) is None
    remember(paths.data, file, None)
    assert remembered(paths.data, file) is None
    remember(paths.data, file, mapping)
    for kept in (paths.data / ".mappings").iterdir():
        kept.write_text('{"prompt": ["not a name"], "unknown": 1}')  # of another version
    assert remembered(paths.data, file) is None


def test_preview_of_a_file_that_needs_a_mapping(tmp_path):
    file = write(tmp_path, "a.csv", "customer,bot\nQ,A\nQ,\n")
    shown = preview(file)
    assert shown.columns == ["customer", "bot"]
    assert (shown.mapping, shown.format) == (Mapping(prompt="customer", answer="bot"), "mapped")
    (number, row, conversation, reason), (_, _, nothing, why) = shown.rows
    assert (number, row, reason) == (1, {"customer": "Q", "bot": "A"}, "")
    assert [m["content"] for m in conversation.messages] == ["Q", "A"]
    assert (nothing, why) == (None, "a.csv, row 2, column bot: is empty")


def test_preview_of_a_file_that_is_recognised(tmp_path):
    file = write(tmp_path, "a.jsonl", "x\n" + JSONL * 10)
    shown = preview(file, count=3)
    assert (shown.format, shown.mapping, [number for number, *_ in shown.rows]) == (
        "question-answer",
        Mapping(),
        [2, 3],
    )
    assert shown.problems == ["a.jsonl, row 1, column 1: not valid JSON: Expecting value"]
