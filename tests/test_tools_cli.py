"""`playground tools parse`: one reply, and files of cases, as text and as JSON."""

import io
import json

import pytest

from playground.cli import main

REPLY = 'Sure.\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>\n<tool_call>{"name": "f", "arg'
CASE = {"format": "hermes", "id": "one", "input": REPLY, "expected": {"call_names": ["add"], "content": "Sure."}}


def last_line(capsys) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def write(path, *rows) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def reply(tmp_path):
    path = tmp_path / "reply.txt"
    path.write_text(REPLY, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("before", [True, False])
def test_a_reply_as_json(reply, capsys, before):
    main(["tools", *(["--json"] if before else []), "parse", reply, *([] if before else ["--json"])])
    result = last_line(capsys)
    assert result["format"] == "hermes"
    assert result["content"] == "Sure."
    assert result["calls"][0] == {"name": "add", "arguments": {"a": 1}}
    assert result["calls"][1]["fault"] == "truncated"
    assert result["calls"][1]["raw"] == '<tool_call>{"name": "f", "arg'


def test_a_reply_as_text(reply, capsys):
    main(["tools", "parse", "--format", "qwen3", reply])
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["format", "hermes"]
    assert out[1].split() == ["content", "Sure."]
    assert out[2] == 'call       add {"a": 1}'
    assert out[3].startswith("fault      truncated: The reply ended inside the call")


def test_standard_input_and_the_reasoning(capsys, monkeypatch):
    for argument, content, reasoning in (([], "Hi", "so"), (["--keep-reasoning"], "<think>so</think>Hi", "")):
        monkeypatch.setattr("sys.stdin", io.StringIO("<think>so</think>Hi"))
        main(["tools", "parse", "-", "--format", "hermes", "--json", *argument])
        result = last_line(capsys)
        assert (result["content"], result["reasoning"], result["calls"]) == (content, reasoning, [])


def test_a_reply_without_a_call_has_no_format(tmp_path, capsys):
    path = tmp_path / "reply.txt"
    path.write_text("Hello.", encoding="utf-8")
    main(["tools", "parse", str(path), "--json"])
    assert last_line(capsys) == {"format": None, "content": "Hello.", "reasoning": "", "calls": []}


def test_schemas_say_what_bare_arguments_are(tmp_path, capsys):
    path = tmp_path / "reply.txt"
    path.write_text("<tool_call>f<arg_key>a</arg_key><arg_value>3</arg_value></tool_call>", encoding="utf-8")
    tool = {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}
    for arguments, value in (([], 3), (["--tools", write(tmp_path / "tools.json", tool)], "3")):
        main(["tools", "parse", str(path), "--json", *arguments])
        assert last_line(capsys)["calls"] == [{"name": "f", "arguments": {"a": value}}]


def test_half_a_surrogate_pair_does_not_stop_the_output(tmp_path, capsys):
    path = tmp_path / "reply.txt"
    path.write_text('<tool_call>{"name": "f", "arguments": {"a": "\\ud800"}}</tool_call>', encoding="utf-8")
    main(["tools", "parse", str(path), "--json"])
    assert last_line(capsys)["calls"][0]["arguments"] == {"a": "?"}


def test_cases_are_counted_by_format(tmp_path, capsys):
    wrong = {**CASE, "id": "two", "expected": {"call_count": 2}}
    other = {"format": "llama4_pythonic", "id": "three", "input": "[now()]", "expected": {"call_names": ["now"]}}
    path = write(tmp_path / "cases.jsonl", CASE, wrong, other)
    main(["tools", "parse", "--cases", path, "--json"])
    result = last_line(capsys)
    assert (result["passed"], result["total"]) == (2, 3)
    assert result["formats"] == {
        "hermes": {"passed": 1, "total": 2},
        "llama4_pythonic": {"passed": 1, "total": 1},
    }
    assert result["failures"] == [
        {"line": 2, "format": "hermes", "id": "two", "reason": "expected 2 calls, got 1"},
    ]
    main(["tools", "parse", "--cases", path])
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "line 2, hermes, two: expected 2 calls, got 1"
    assert out[-1].split() == ["all", "2", "of", "3"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "what should be read?"),
        (["nowhere.txt"], "nowhere.txt cannot be read: No such file"),
        (["--cases", "REPLY"], "line 1 is not JSON"),
        (["--cases", "EMPTY"], "has no cases"),
        (["--cases", "LIST"], "line 1 must be a JSON object"),
        (["--cases", "BARE"], 'line 1: a case needs "format"'),
        (["REPLY", "--cases", "REPLY"], "not both"),
        (["REPLY", "--format", "toml"], "no tool-call format named 'toml'"),
        (["REPLY", "--tools", "REPLY"], "is not JSON"),
        (["REPLY", "--tools", "LIST"], "must hold a list of tool schemas"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, reply, capsys, arguments, message):
    files = {
        "REPLY": reply,
        "EMPTY": write(tmp_path / "empty.jsonl").rstrip(),
        "LIST": write(tmp_path / "list.jsonl", [1]),
        "BARE": write(tmp_path / "bare.jsonl", {"format": "hermes"}),
    }
    with pytest.raises(SystemExit) as exit:
        main(["tools", "parse", *(files.get(argument, argument) for argument in arguments)])
    assert exit.value.code == 1
    assert message in capsys.readouterr().err
