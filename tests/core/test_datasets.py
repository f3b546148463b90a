import gzip
import json
from pathlib import Path

import pytest

from playground.config import Paths
from playground.core import datasets
from playground.core.datasets import load, read_rows, recognise, to_conversation
from playground.core.messages import Conversation, check_messages
from playground.errors import PlaygroundError

SHARED = Path(__file__).parents[3] / "shared" / "data"


def user(text, **more):
    return {"role": "user", "content": text, **more}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


SYSTEM = {"role": "system", "content": "S"}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}

ROWS = [
    ({"messages": [user("Q"), assistant("A")], "tools": [{"name": "f"}]}, "messages", [user("Q"), assistant("A")]),
    ({"conversations": [user("Q"), assistant("A")]}, "messages", [user("Q"), assistant("A")]),
    ({"messages": '[{"role": "user", "content": "Q"}]'}, "messages", [user("Q")]),
    (
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}], "system": "S"},
        "sharegpt",
        [SYSTEM, user("Q"), assistant("A")],
    ),
    (
        {
            "conversations": [
                {"from": "human", "value": "Q"},
                {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
                {"from": "observation", "value": "R"},
                {"from": "gpt", "value": "A"},
            ],
            "tools": '[{"name": "f"}]',
        },
        "sharegpt",
        [user("Q"), assistant("", tool_calls=[CALL]), {"role": "tool", "content": "R"}, assistant("A")],
    ),
    ({"instruction": "I", "input": "", "output": "O"}, "alpaca", [user("I"), assistant("O")]),
    ({"Instruction": "I", "Output": "O", "system": "S"}, "alpaca", [SYSTEM, user("I"), assistant("O")]),
    (
        {"instruction": "I", "input": "X", "output": "O", "history": [["Q", "A"]]},
        "alpaca",
        [user("Q"), assistant("A"), user("I\n\nX", instruction="I", input="X"), assistant("O")],
    ),
    (
        {"instruction": "I", "context": "X", "response": "R", "category": "qa"},
        "dolly",
        [user("I\n\nX", instruction="I", input="X"), assistant("R")],
    ),
    ({"prompt": "P", "completion": "C"}, "prompt-completion", [user("P"), assistant("C")]),
    ({"prompt": [SYSTEM, user("P")], "completion": [assistant("C")]}, "prompt-completion", None),
    ({"prompt": "P", "response": "C", "system": "S"}, "prompt-completion", [SYSTEM, user("P"), assistant("C")]),
    ({"question": "Q", "answer": "A"}, "question-answer", [user("Q"), assistant("A")]),
    (
        {"question": "Q", "choices": ["x", "y"], "answer": "B"},
        "question-answer",
        [user("Q\nA. x\nB. y"), assistant("B")],
    ),
    ({"prompt": "P", "chosen": "good", "rejected": "bad"}, "preference", [user("P"), assistant("good")]),
    ({"chosen": [user("P"), assistant("good")], "rejected": []}, "preference", [user("P"), assistant("good")]),
    (
        {
            "conversations": [{"from": "human", "value": "P"}],
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        },
        "preference",
        [user("P"), assistant("good")],
    ),
    (
        {"instruction": "I", "chosen": "good", "rejected": "bad"},
        "preference",
        [user("I"), assistant("good")],
    ),
]


@pytest.mark.parametrize("row, format, messages", ROWS)
def test_formats(row, format, messages):
    assert recognise(row) == format
    conversation = to_conversation(row)
    assert conversation.messages == (messages or [SYSTEM, user("P"), assistant("C")])
    assert bool(conversation.tools) == ("tools" in row)


@pytest.mark.parametrize(
    "row, sentence",
    [
        ({"left": 1, "right": 2}, "no known format has the columns left, right; known formats are alpaca"),
        ({}, "no known format has the columns none"),
        ({"instruction": "I", "input": 3, "output": "O"}, "the row does not keep to the format alpaca"),
        ({"messages": [], "conversations": [], "text": "x"}, "no known format has the columns messages, conv"),
        ({"conversations": [{"from": "function_call", "value": "{x"}]}, "a function call is not valid JSON"),
    ],
)
def test_rows_that_are_no_conversation(row, sentence):
    with pytest.raises(PlaygroundError) as error:
        to_conversation(row)
    assert sentence in str(error.value)


def test_a_format_that_is_not_there():
    with pytest.raises(PlaygroundError, match="there is no format 'xml'; known formats are"):
        to_conversation({}, "xml")


JSONL = '{"question": "Q", "answer": "A"}\n\n{"question": "Q2", "answer": "A2"}\n'
QA = [{"question": "Q", "answer": "A"}, {"question": "Q2", "answer": "A2"}]


@pytest.mark.parametrize(
    "name, data",
    [
        ("a.jsonl", JSONL.encode()),
        ("a.ndjson", b"\xef\xbb\xbf" + JSONL.replace("\n", "\r\n").encode()),
        ("a.json", JSONL.encode()),  # one object per line under the wrong ending
        ("a.json", json.dumps(QA).encode()),
        ("a.json", json.dumps({"version": 1, "data": QA}).encode()),
        ("a.jsonl.gz", gzip.compress(JSONL.encode())),
        ("a.csv", b"question,answer\nQ,A\nQ2,A2\n"),
        ("a.csv", b"question;answer\r\nQ;A\r\nQ2;A2\r\n"),
        ("a.TSV", b"question\tanswer\nQ\tA\nQ2\tA2\n"),
    ],
)
def test_read_rows(name, data, tmp_path):
    (tmp_path / name).write_bytes(data)
    assert read_rows(tmp_path / name) == QA


def test_parquet_gives_plain_values(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame([{"messages": [user("Q"), assistant("A")], "score": float("nan")}])
    frame.to_parquet(tmp_path / "a.parquet")
    rows = read_rows(tmp_path / "a.parquet")
    assert rows == [{"messages": [user("Q"), assistant("A")], "score": None}]
    assert json.loads(json.dumps(rows)) == rows


@pytest.mark.parametrize(
    "name, data, sentence",
    [
        ("a.jsonl", b'{"question": "Q"\n', "a.jsonl, line 1: not valid JSON: Expecting ',' delimiter at column"),
        ("a.jsonl", b'{"question": "Q"}\n[1]\n', "a.jsonl, line 2: not a JSON object"),
        ("a.json", b'[{"a": 1},\n {"a" 2}]', "a.json is not valid JSON: Expecting ':' delimiter at line 2, column 7"),
        ("a.json", b"[" * 100_000, "a.json is nested too deeply"),
        ("a.json", b'[1, {"a": 1}]', "a.json, row 1: not a JSON object"),
        ("a.json", b"3", "a.json must hold a list of rows"),
        ("a.jsonl", b"  \n", "a.jsonl is empty"),
        ("a.jsonl", b'{"a": "\xff"}', "a.jsonl is not UTF-8 text: line 1 holds a byte that cannot be read"),
        ("a.csv", b"question,answer\nQ\n", "a.csv, row 1: 1 cells under 2 column names"),
        ("a.csv", b"question,answer\nQ,A,B\n", "a.csv, row 1: 3 cells under 2 column names"),
        ("a.csv", b'question,answer\n"Q"x,A\n', "a.csv, row 1: ',' expected after '\"' (line 2)"),
        ("a.csv", b"question,answer\nQ\0,A\n", "a.csv holds NUL bytes"),
        ("a.parquet", b"PAR1", "a.parquet is not a Parquet file"),
        ("a.jsonl.gz", b"no gzip", "a.jsonl.gz cannot be read: Not a gzipped file"),
        ("a.txt", b"Hi", "a.txt: data files end in .json, .jsonl"),
    ],
)
def test_files_that_cannot_be_read(name, data, sentence, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(PlaygroundError) as error:
        read_rows(tmp_path / name)
    assert sentence in str(error.value)


def test_a_file_larger_than_the_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "MAX_BYTES", 2**20)
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(b"0" * 2**21))
    with pytest.raises(PlaygroundError, match=r"a.json.gz is larger than 1 MB"):
        read_rows(tmp_path / "a.json.gz")


def test_a_cell_of_a_megabyte(tmp_path):
    (tmp_path / "a.csv").write_text("question,answer\n" + "x" * 2**20 + ",A\n")
    assert len(read_rows(tmp_path / "a.csv")[0]["question"]) == 2**20


def test_good_rows_are_kept_and_bad_ones_listed(tmp_path):
    lines = [
        {"question": "Q", "answer": "A"},
        "broken",
        {"question": "Q", "answer": " "},
        {"instruction": "I", "output": "O"},
        {"x": 1},
        {"messages": [{"role": "human", "content": "Q"}]},
        {"question": "Q", "answer": "A"},
    ]
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (tmp_path / "mixed.jsonl").write_text(text)
    found = load(tmp_path / "mixed.jsonl")
    assert (found.name, found.format) == ("mixed.jsonl", "question-answer")
    assert [c.messages[0]["content"] for c in found.conversations] == ["Q", "I", "Q"]
    assert [problem[:55] for problem in found.problems] == [
        "line 2: not valid JSON: Expecting value at column 1",
        "row 3: message 2 (assistant) is empty",
        "row 5: no known format has the columns x; known formats are"[:55],
        "row 6: message 1 has the role 'human'; roles are system, user"[:55],
    ]


def test_no_rows_left(tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"x": 1}\n{"x": 2}\n')
    with pytest.raises(PlaygroundError) as error:
        load(tmp_path / "bad.jsonl")
    assert str(error.value).startswith("bad.jsonl has no rows left that can be used, of 2; row 1: no known format")


def test_uploads_are_found_by_name(tmp_path):
    paths = Paths(home=tmp_path)
    paths.data.mkdir()
    (paths.data / "mine.jsonl").write_text(JSONL)
    assert len(load("mine.jsonl", paths).conversations) == 2
    with pytest.raises(PlaygroundError, match="there is no data set 'mine.jsonl'; choose tool-calls, instructions"):
        load("mine.jsonl")
    with pytest.raises(PlaygroundError, match="there is no data set '../data/mine.jsonl'"):
        load("../data/mine.jsonl", paths)
    with pytest.raises(PlaygroundError, match="is a folder"):
        load(tmp_path)


def test_built_in_instructions():
    found = load("instructions")
    assert (found.format, found.problems) == ("alpaca", [])
    questions = [c.messages[0]["content"] for c in found.conversations]
    assert len(questions) >= 60
    assert len(set(questions)) == len(questions)
    assert any("input" in c.messages[0] for c in found.conversations)


def test_built_in_tool_calls():
    pytest.importorskip("playground.core.synthesis")
    found = load("tool-calls")
    assert len(found.conversations) == datasets.TOOL_CALL_ROWS
    assert found.problems == []
    assert all(c.tools for c in found.conversations)


def test_samples_are_good_conversations():
    found = datasets.samples()
    for conversation in found.values():
        check_messages(conversation.messages)
        assert conversation.messages[-1]["role"] == "assistant"
    roles = {(m["role"], bool(m.get("tool_calls"))) for c in found.values() for m in c.messages}
    assert {("system", False), ("assistant", True), ("tool", False)} <= roles
    assert any(m.get("reasoning_content") for c in found.values() for m in c.messages)
    assert any("<|im_end|>" in m["content"] for c in found.values() for m in c.messages)
    assert isinstance(found["Question and answer"], Conversation)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder ../shared/data is not there")
@pytest.mark.parametrize(
    "file, format, count",
    [
        ("llms_from_scratch/instruction-data.json", "alpaca", 1100),
        ("llms_from_scratch/instruction-data-with-preference.json", "alpaca", 1100),
        ("llamafactory/glaive_toolcall_en_demo.json", "sharegpt", 300),
        ("llamafactory/reason_tool_use_demo_50.jsonl", "messages", 50),
        ("llamafactory/dpo_en_demo.json", "preference", 300),
        ("llamafactory/kto_en_demo.json", "messages", 300),
        ("llamafactory/identity.json", "alpaca", 91),
        ("gsm8k/test.jsonl", "question-answer", 1319),
        ("mmlu/mmlu_dev.jsonl", "question-answer", 285),
        ("mt_bench/dummy_conversation.json", "sharegpt", 500),
        ("truthfulqa/TruthfulQA.csv", "question-answer", 790),
        ("gpteacher/toolformer-similarity-0.6-dataset.json.gz", "alpaca", 2396),
        ("bbh/navigate.json", "question-answer", 250),
    ],
)
def test_real_files(file, format, count):
    found = load(SHARED / file)
    assert (found.format, len(found.conversations), found.problems) == (format, count, [])
