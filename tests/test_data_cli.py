import gzip
import json
from pathlib import Path

import pytest

from playground import cli
from playground.core import datasets
from playground.core.datasets import load

QA = '{"question": "What?", "answer": "That."}\n'
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
CHAT = {
    "messages": [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "", "tool_calls": [CALL], "reasoning_content": "T"},
        {"role": "tool", "name": "f", "content": "R"},
        {"role": "assistant", "content": "It’s ☀️."},
    ],
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "chat_template_kwargs": {"enable_thinking": True},
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PLAYGROUND_HOME", str(tmp_path / "home"))


def run(capsys, *words) -> tuple[int, str, str]:
    status = 0
    try:
        cli.main([str(word) for word in ("data", *words)])
    except SystemExit as stop:
        status = stop.code
    said = capsys.readouterr()
    return status, said.out, said.err


def upload(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_check_as_one_object(capsys, tmp_path):
    lines = [QA, "broken\n", json.dumps(CHAT) + "\n", '{"prompt": "P"}\n', '{"question": "Q", "answer": ""}\n']
    file = upload(tmp_path, "a.jsonl", "".join(lines))
    status, out, _ = run(capsys, "check", file, "--json")
    assert status == 0
    found = json.loads(out)  # one object and nothing else
    assert list(found)[:5] == ["file", "format", "rows", "bad_rows", "problems"]
    assert found == {
        "file": str(file),
        "format": "question-answer",
        "rows": 3,
        "bad_rows": 2,
        "problems": [
            "a.jsonl, row 2, column 1: not valid JSON: Expecting value",
            "a.jsonl, row 5, column answer: is empty",
        ],
        "notes": ["1 conversation without an assistant turn at the end: prompts to answer, nothing to train on"],
        "formats": {"question-answer": 1, "messages": 1, "prompts": 1},
        "conversations": 3,
        "no_answer": 1,
        "roles": {"user": 3, "assistant": 3, "system": 1, "tool": 1},
        "turns": {"0": 1, "1": 1, "2": 1},
        "with_reasoning": 1,
        "tools": {"f": 1},
        "calls": {"f": 1},
        "characters": 32,
        "longest": {"row": 3, "characters": 21},
        "shortest": {"row": 4, "characters": 1},
        "placeholders": {},
    }
    assert run(capsys, "--json", "check", file)[1] == out  # the flag may stand before the subcommand


def test_check_for_people(capsys, tmp_path):
    file = upload(tmp_path, "a.jsonl", QA + json.dumps(CHAT) + "\n" + "broken\n" * 12)
    status, out, err = run(capsys, "check", file)
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        f"{file}: question-answer (1 question-answer, 1 messages)",
        "rows      2, 12 left out",
        "roles     user 2, assistant 3, system 1, tool 1",
        "tools     f 1",
        "calls     f 1",
        "longest   21 characters (row 2)",
        "shortest  10 characters (row 1)",
        *(f"problem   a.jsonl, row {n}, column 1: not valid JSON: Expecting value" for n in range(3, 13)),
        "          and 2 more",
    ]


def test_check_points_out_placeholders(capsys, tmp_path):
    rows = [{"instruction": "hi {{user}}", "input": "", "output": "I am {{name}}, by {{ author }}."}]
    rows += [{"instruction": "hi", "input": "", "output": "I am {{name}}. In Jinja: {% if a %} or {{ a.b }}"}]
    file = upload(tmp_path, "identity.json", json.dumps(rows))
    found = json.loads(run(capsys, "check", file, "--json")[1])
    assert (found["rows"], found["bad_rows"]) == (2, 0)
    assert found["placeholders"] == {"{{ author }}": 1, "{{name}}": 2}
    assert found["problems"] == [
        "identity.json, row 1: the placeholder {{ author }} is not filled in (1 rows hold it)",
        "identity.json, row 1: the placeholder {{name}} is not filled in (2 rows hold it)",
    ]


def test_check_says_what_preference_rows_are(capsys, tmp_path):
    rows = [{"prompt": "P", "chosen": "A", "rejected": "B"}, {"prompt": "P", "completion": "A", "label": False}]
    file = upload(tmp_path, "a.json", json.dumps(rows))
    assert json.loads(run(capsys, "check", file, "--json")[1])["notes"] == [
        "1 conversation rated as undesirable: training on them as they are teaches what was not liked",
        "1 conversation of pairs: the chosen reply is taken, the rejected one is kept beside it",
    ]


@pytest.mark.parametrize(
    "name, text, sentence, problems, bad",
    [
        (
            "a.jsonl",
            '{"x": 1}\n{"x": 2}\n',
            "a.jsonl has no row that can be used, of 2; a.jsonl, row 1: no known",
            2,
            2,
        ),
        ("a.jsonl", "", "a.jsonl is empty", 1, 0),
        ("a.txt", "x", "a.txt: data files end in", 1, 0),
        (None, "", "there is no data set '{file}'", 1, 0),
    ],
)
def test_only_where_nothing_can_be_read_is_the_status_1(name, text, sentence, problems, bad, capsys, tmp_path):
    file = upload(tmp_path, name, text) if name else tmp_path / "none.json"
    status, out, err = run(capsys, "check", file, "--json")
    assert status == 1
    assert err.startswith("playground data: " + sentence.format(file=file))
    assert len(err.splitlines()) == 1
    found = json.loads(out)
    assert (found["file"], found["format"], found["rows"], found["bad_rows"]) == (str(file), None, 0, bad)
    assert len(found["problems"]) == problems
    assert found["error"].startswith(sentence.format(file=file))
    assert run(capsys, "check", file)[:2] == (1, "")


def test_columns_can_be_named(capsys, tmp_path):
    file = upload(tmp_path, "a.csv", "eins,zwei\nQ,A\n")
    assert run(capsys, "check", file)[0] == 1
    found = json.loads(run(capsys, "check", file, "--json", "--prompt", "eins", "--answer", "zwei")[1])
    assert (found["format"], found["rows"], found["roles"]) == ("mapped", 1, {"user": 1, "assistant": 1})
    file.write_bytes("question,answer\nQ,caf\xe9\n".encode("cp1252"))
    assert run(capsys, "check", file, "--encoding", "cp1252")[0] == 0
    assert run(capsys, "check", file, "--format", "xml")[0] == 1


ALPACA = {"instruction": "I", "input": "X", "output": "O"}
KTO = {"messages": CHAT["messages"][:2] + CHAT["messages"][-1:], "label": False}
SHAREGPT = {
    "conversations": [
        {"from": "human", "value": "Q"},
        {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
        {"from": "observation", "value": "R"},
        {"from": "gpt", "value": "<think>T</think>A"},
    ],
    "tools": '[{"name": "f"}]',
}


@pytest.mark.parametrize("out", ["out.jsonl", "new/out.jsonl.gz"])
@pytest.mark.parametrize(
    "row", [CHAT, ALPACA, KTO, SHAREGPT, {"question": "Q", "answer": "1\n#### 2"}, {"prompt": "P"}]
)
def test_convert_writes_what_loads_to_the_same_conversations(row, out, capsys, tmp_path):
    file = upload(tmp_path, "in.json", json.dumps([row, row]))
    status, said, _ = run(capsys, "convert", file, "--to", "messages", "--out", tmp_path / out, "--json")
    assert status == 0
    assert json.loads(said)["written"] == 2
    before, after = load(file), load(tmp_path / out)
    assert after.conversations == before.conversations
    assert [e.get("desirable") for e in after.extras] == [e.get("desirable") for e in before.extras]
    data = (tmp_path / out).read_bytes()
    lines = (gzip.decompress(data) if out.endswith(".gz") else data).decode().splitlines()
    assert [set(json.loads(line)) - {"tools", "chat_template_kwargs", "label"} for line in lines] == [{"messages"}] * 2
    assert [p.name for p in (tmp_path / out).parent.glob("*.part")] == []
    assert (tmp_path / out).stat().st_mode == file.stat().st_mode  # readable to whom other files are


def test_convert_of_built_in_data_and_of_broken_rows(capsys, tmp_path):
    out = tmp_path / "calls.jsonl"
    assert (
        run(capsys, "convert", "tool-calls", "--to", "messages", "--out", out)[1]
        == f"{datasets.TOOL_CALL_ROWS:,} rows in {out}\n"
    )
    assert load(out).conversations == load("tool-calls").conversations
    file = upload(tmp_path, "a.jsonl", QA + "broken\n")
    said = run(capsys, "convert", file, "--to", "messages", "--out", out)[1]
    assert said == f"1 rows in {out}; 1 left out (`playground data check` says why)\n"
    assert json.loads(run(capsys, "convert", file, "--to", "messages")[1])["messages"][0]["content"] == "What?"


def test_convert_leaves_the_old_file_where_it_cannot_write(capsys, tmp_path):
    file = upload(tmp_path, "a.jsonl", QA)
    (tmp_path / "folder").mkdir()
    status, _, err = run(capsys, "convert", file, "--to", "messages", "--out", tmp_path / "folder")
    assert (status, len(err.splitlines())) == (1, 1)
    assert f"cannot write {tmp_path / 'folder'}" in err
    assert not list(tmp_path.glob("*.part"))


def test_list(capsys, tmp_path):
    data = tmp_path / "home" / "data"
    data.mkdir(parents=True)
    upload(data, "mine.jsonl", QA)
    upload(data, "odd.csv", "eins,zwei\nQ,A\n")
    found = json.loads(run(capsys, "list", "--json")[1])["datasets"]
    assert [(row["name"], row["built_in"], row["format"], row["rows"]) for row in found] == [
        ("tool-calls", True, "messages", datasets.TOOL_CALL_ROWS),
        ("instructions", True, "alpaca", len(load("instructions").conversations)),
        ("json-calls", True, "alpaca", 600),
        ("persona", True, "alpaca", 20),
        ("react", True, "messages", 160),
        ("think-first", True, "messages", 48),
        ("mine.jsonl", False, "question-answer", 1),
        ("odd.csv", False, "", 0),
    ]
    lines = run(capsys, "list")[1].splitlines()
    assert lines[-2].split() == ["mine.jsonl", "question-answer", "1", "rows", "0.0", "MB"]
    assert run(capsys, "check", "mine.jsonl")[0] == 0  # by its name


def test_tool_calls(capsys, tmp_path):
    out = tmp_path / "calls.jsonl"
    said = json.loads(run(capsys, "tool-calls", "--n", "20", "--out", out, "--json")[1].splitlines()[-1])
    assert (said["rows"], said["out"]) == (20, str(out))
    assert load(out).format == "messages"
    assert len(run(capsys, "tool-calls", "--n", "3")[1].splitlines()) == 3


def test_help_names_every_field_of_a_mapping(capsys):
    status, out, _ = run(capsys, "check", "--help")
    assert status == 0
    assert all(
        f"--{name}" in out for name in ("prompt", "answer", "system", "reasoning", "messages", "tools", "format")
    )


def test_tool_calls_for_any_schemas(capsys, tmp_path):
    tool = {
        "name": "book_table",
        "description": "Book a table",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "guests": {"type": "integer"}, "date": {"type": "string"}},
            "required": ["city", "guests"],
        },
    }
    schemas = upload(tmp_path, "tools.json", json.dumps([tool, {"name": "f", "parameters": {"type": "string"}}]))
    given = ["tool-calls", "--schemas", str(schemas), "--n", "80", "--languages", "en,de"]
    out = tmp_path / "rows.jsonl"
    said = json.loads(run(capsys, *given, "--out", str(out), "--json")[1].splitlines()[-1])
    assert (said["rows"], said["format"], said["tools"], said["out"]) == (80, "messages", 1, str(out))
    assert sum(said["kinds"].values()) == sum(said["languages"].values()) == 80
    assert said["arguments_proven"] > 80
    assert len(said["tools_left_out"]) == 1
    found = json.loads(run(capsys, "check", str(out), "--json")[1])
    assert (found["rows"], found["bad_rows"], found["format"]) == (80, 0, "messages")
    text = run(capsys, *given, "--out", str(out), "--format", "qwen3")[1]
    assert "each read from the words of its question" in text
    assert "<tool_call>" in out.read_text()
    pairs = run(capsys, *given, "--format", "pairs")[1].splitlines()
    assert 0 < len(pairs) < 80
    assert json.loads(pairs[0])["input"]["user_question"]
    for wrong in (["--format", "toml"], ["--languages", "xx"]):
        assert run(capsys, *given, *wrong)[0] == 1
    assert "--format goes with --schemas" in run(capsys, "tool-calls", "--n", "3", "--format", "hermes")[2]
