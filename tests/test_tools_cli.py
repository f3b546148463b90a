"""`playground tools`: `parse` on a reply and on files of cases, `run` and `score` with a fake engine; text and JSON."""

import io
import json
from types import SimpleNamespace

import pytest

from playground.cli import main
from tests.services.test_scorecards import Engine, Reply

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
        (["--cases", "EMPTY"], "has no rows"),
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


# --- run and score ---

SUM = '<tool_call>\n{"name": "calculator", "arguments": {"expression": "23 * 47"}}\n</tool_call>'


class Finished(Reply):
    """A reply that is there at once."""

    prompt = SimpleNamespace(text="the exact prompt")

    def __init__(self, text):
        super().__init__(text)
        self.finish_reason = "stop"

    def __iter__(self):
        yield SimpleNamespace(text=self.text)


@pytest.fixture
def engine(monkeypatch, tmp_path):
    """An engine that calls the calculator, and then answers."""

    class Calling(Engine):
        closed = False

        def reply(self, lane, conversation, stop=()):
            return self.replies([(lane, conversation)], stop)[0]

        def close(self):
            self.closed = True

    made = Calling(lambda lane, conversation: Finished(SUM if conversation.messages[-1]["role"] == "user" else "1081."))
    monkeypatch.setenv("PLAYGROUND_HOME", str(tmp_path))
    monkeypatch.setattr("playground.services.engine.Engine", lambda sources, paths: made)
    return made


def test_run_prints_every_step(engine, capsys):
    main(["tools", "run", "What is 23 * 47?", "--lane", "m+learned", "--show-prompt"])
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "m+learned, template chatml-tools, calls in the hermes format"
    assert [line.split()[0] for line in out if not line.startswith(" ")][1:] == [
        *("---", "prompt", "raw", "call", "verdict", "result"),
        *("---", "prompt", "raw", "answer"),
    ]
    assert 'call       calculator {"expression": "23 * 47"}' in out
    assert 'result     {"result": 1081}' in out
    assert out[-1] == "answer     1081."
    assert engine.closed


def test_run_as_json(engine, capsys):
    main(["tools", "run", "What is 23 * 47?", "--lane", "m+learned", "--tools", "calculator", "--json"])
    result = last_line(capsys)
    assert (result["answer"], result["stopped"], result["format"]) == ("1081.", None, "hermes")
    assert [step["step"] for step in result["steps"]] == [
        *("prompt", "raw", "call", "verdict", "result"),
        *("prompt", "raw", "answer"),
    ]
    assert result["steps"][3] == {"step": "verdict", "turn": 1, "valid": True}
    assert [tool["function"]["name"] for tool in engine.asked[0][1].tools] == ["calculator"]


@pytest.mark.parametrize("names", ["all", "plot,convert_units,calculator"])
def test_run_offers_any_tool_of_the_app(engine, capsys, names):
    main(["tools", "run", "Hi", "--lane", "m+learned", "--tools", names, "--json"])
    offered = [tool["function"]["name"] for tool in engine.asked[0][1].tools]
    assert {"plot", "calculator"} < set(offered)
    assert (len(offered) == 3) == (names != "all")


def test_run_tells_what_is_wrong_with_a_call_and_stops_in_the_end(engine, capsys):
    main(["tools", "run", "Hi", "--lane", "m+learned", "--tools", "get_weather", "--max-turns", "1", "--json"])
    result = last_line(capsys)
    assert (result["answer"], result["stopped"]) == (None, "turns")
    verdict = next(step for step in result["steps"] if step["step"] == "verdict")
    assert (verdict["valid"], verdict["fault"]) == (False, "wrong_function")


def test_run_tells_a_tools_error_from_a_call_that_was_not_run(engine, capsys):
    for expression, ran in (("1 / 0", True), ("", False)):
        arguments = {"expression": expression} if ran else {}
        call = "<tool_call>" + json.dumps({"name": "calculator", "arguments": arguments}) + "</tool_call>"
        engine.answer = lambda lane, talk, call=call: Finished(call if talk.messages[-1]["role"] == "user" else "No.")
        main(["tools", "run", "Hi", "--lane", "m+learned", "--json"])
        (result,) = [step for step in last_line(capsys)["steps"] if step["step"] == "result"]
        assert (result["run"], "error" in result["text"]) == (ran, True)


def test_run_in_a_format_by_name_tells_it_in_every_turn(engine, capsys):
    main(["tools", "run", "Hi", "--lane", "m+learned", "--format", "xlam", "--json"])
    assert last_line(capsys)["format"] == "xlam"
    for _, conversation, _ in engine.asked:
        assert conversation.messages[0]["role"] == "system"
        assert conversation.tools == []


def test_score_counts_by_lane(engine, capsys, tmp_path):
    call = {"name": "calculator", "arguments": {"expression": "23*47"}}
    rows = [{"question": "What is 23 * 47?", "expected": [call]}, {"question": "Hello", "expected": []}]
    path = write(tmp_path / "mine.jsonl", *rows)
    main(["tools", "score", "--questions", path, "--lanes", "m", "m+learned", "--json"])
    result = last_line(capsys)
    assert [lane["lane"] for lane in result["lanes"]] == ["m", "m+learned"]
    for lane in result["lanes"]:
        assert (lane["total"], lane["valid"], lane["rate"]) == (2, 1, 0.5)
        assert lane["interval"] == [0.0945, 0.9055]
        assert lane["outcomes"]["unwanted_call"]["count"] == 1
        assert lane["kinds"]["calculator"]["valid"] == 1
    stored = json.loads((tmp_path / "scorecards" / f"{result['scorecard']}.json").read_text())
    assert (stored["state"], len(stored["rows"])) == ("done", 4)
    assert engine.closed


def test_score_as_text(engine, capsys):
    main(["tools", "score", "--n", "5", "--lanes", "m+learned"])
    out = capsys.readouterr().out
    assert out.startswith("demo, seed 0, 5 questions, ")
    assert "m+learned (template chatml-tools, calls as hermes): 0 of 5 valid, 0% (95 % interval 0% to 43%)" in out
    assert "  value error" in out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["run", " "], "the question is empty"),
        (["run", "Hi", "--tools", "drill"], "no tool named 'drill'"),
        (["run", "Hi", "--tools", ","], "--tools names no tool; there are all, or calculator"),
        (["mcp", "--tools", "drill"], "no tool named 'drill'"),
        (["mcp", "--port", "0"], "--port must be between 1 and 65535"),
        (["run", "Hi", "--max-turns", "0"], "--max-turns must be at least 1"),
        (["run", "Hi", "--lane", "m+gone"], "no adapter called 'gone'"),
        (["score", "--questions", "nowhere.jsonl"], "no question set and no file 'nowhere.jsonl'; the sets are demo"),
        (["score", "--n", "0"], "must be between 1 and"),
        (["score", "--lanes", "m", "m"], "two lanes are the same"),
        (["score", "--lanes", "m", "--decoding", "odd"], "a lane decodes in the mode"),
        (["score", "--lanes", "m", "--batch", "99"], "batch must be between 1 and 16"),
    ],
)
def test_what_cannot_be_run_or_scored_is_said(engine, capsys, arguments, message):
    with pytest.raises(SystemExit) as exit:
        main(["tools", *arguments])
    assert exit.value.code == 1
    assert message in capsys.readouterr().err
