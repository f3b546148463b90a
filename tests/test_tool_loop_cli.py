"""`playground tools loop` with stand-ins for trainer and engine: rounds from the first row to the last score."""

import json
from types import SimpleNamespace

import pytest

from playground.cli import main
from playground.config import Paths
from playground.core.tool_formats import Call, hermes
from playground.services import runs
from playground.services.runs import Events
from tests.services.test_scorecards import Engine
from tests.test_tools_cli import Finished, last_line, write

SHORT = ["--rows", "40", "--added", "20", "--questions", "12"]


@pytest.fixture
def home(monkeypatch, tmp_path):
    """Training ends at once; an adapter of the first round answers everything, one of the second as it should."""

    class Jobs:
        ends = "finished"

        def __init__(self, paths, sources):
            self.paths = paths

        def start(self, config):
            run = runs.create(config, self.paths)
            if Jobs.ends == "finished":
                (run.folder / "adapter").mkdir()
                for name in ("adapter_model.safetensors", "adapter_config.json"):
                    (run.folder / "adapter" / name).write_text("{}")
            Events(run.folder).state(Jobs.ends, "three steps")
            return run

    def said(lane, conversation):
        due = {}
        for file in Paths(tmp_path).loops.glob("*/held-out.json"):
            due |= {json.dumps(one["messages"]): one["expected"] for one in json.loads(file.read_text())}
        calls = [Call(one["name"], one["arguments"]) for one in due[json.dumps(conversation.messages)]]
        learned = (lane.adapter or "").endswith("-round-2")
        return Finished(hermes.write(calls) if calls and learned else "Hello.")

    made = Engine(said)
    made.adapter = lambda name: SimpleNamespace(name=name)
    made.close = lambda: None
    monkeypatch.setenv("PLAYGROUND_HOME", str(tmp_path))
    monkeypatch.setattr("playground.services.engine.Engine", lambda sources, paths: made)
    monkeypatch.setattr("playground.services.jobs.Jobs", Jobs)
    return SimpleNamespace(path=tmp_path, jobs=Jobs)


def test_two_rounds_as_json(home, capsys):
    main(["tools", "loop", "--rounds", "2", *SHORT, "--json"])
    result = last_line(capsys)
    assert set(result) == {"loop", "rounds", "scores", "errors_left"}
    first, second = result["rounds"]
    assert (first["number"], first["rows"], second["rows"], second["added"]) == (1, 40, 60, 20)
    assert (first["way"], second["way"], first["reason"]) == ("afresh", "afresh", "")
    assert second["reason"].startswith("No call (a call was due, none was made) in 4 of 4 questions of the kind")
    *_, before, after = result["scores"]
    assert before["errors"]["no_call"] == before["total"] - before["valid"] == after["gained"] > 0
    assert (after["valid"], after["total"], after["lost"], after["errors"]) == (12, 12, 0, {})
    assert after["interval"][0] < after["rate"] == 1.0
    assert result["errors_left"] == []


def test_a_round_is_told_in_words_and_the_loop_goes_on_by_its_id(home, capsys):
    main(["tools", "loop", "--rounds", "1", *SHORT])
    lines = capsys.readouterr().out.splitlines()
    id = lines[0].removeprefix("loop ")
    assert lines[1].startswith("round 1: 40 rows")
    assert any(line.startswith("weakest: ") for line in lines)
    main(["tools", "loop", "--loop", id, "--rounds", "2", "--added", "20", "--train", "on", "--json"])
    result = last_line(capsys)
    assert (result["loop"], [made["way"] for made in result["rounds"]]) == (id, ["afresh", "on"])


def test_without_an_error_there_is_no_second_round(home, capsys):
    main(["tools", "loop", "--rounds", "2", *SHORT])
    id = capsys.readouterr().out.splitlines()[0].removeprefix("loop ")
    main(["tools", "loop", "--loop", id, "--rounds", "9", "--json"])
    assert len(last_line(capsys)["rounds"]) == 2


def test_a_run_that_ends_without_an_adapter_says_how_to_go_on(home, capsys):
    home.jobs.ends = "failed"
    with pytest.raises(SystemExit):
        main(["tools", "loop", *SHORT])
    assert "ended without an adapter: three steps; loop " in capsys.readouterr().err


TOOL = {"name": "find_book", "parameters": {"type": "object", "properties": {"title": {"type": "string"}}}}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--rounds", "0"], "--rounds must be between 1 and 20, got 0"),
        (["--rounds", "21"], "--rounds must be between 1 and 20, got 21"),
        (["--loop", "20260101-000000-abcd"], "there is no loop '20260101-000000-abcd'"),
        (["--loop", "../runs"], "no loop '../runs'"),
        (["--recipe", "magic"], "magic"),
        (["--languages", "de"], "--languages goes with --schemas FILE"),
        (["--schemas", "nowhere.json"], "nowhere.json"),
        (["--schemas", "EMPTY"], "empty.json"),
        (["--schemas", "TOOL", "--languages", "tlh"], "tlh"),
        (["--rows", "0"], "rows"),
        (["--questions", "0"], "questions"),
        ([*SHORT, "--added", "0"], "between"),
        ([*SHORT, "--steps", "-1"], "steps"),
        (["--model", "no-such-model"], "no-such-model"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(home, capsys, arguments, message):
    files = {"EMPTY": write(home.path / "empty.json"), "TOOL": write(home.path / "tool.json", TOOL)}
    with pytest.raises(SystemExit) as exit:
        main(["tools", "loop", "--json", *(files.get(argument, argument) for argument in arguments)])
    assert exit.value.code == 1
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1
