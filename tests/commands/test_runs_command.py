"""`playground runs` and `playground export` as a user calls them; no model, no network."""

import json
import zipfile

import pytest

from playground import cli
from playground.config import Paths, TrainConfig
from playground.services import runs
from playground.services.runs import Events


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.setenv("PLAYGROUND_HOME", str(tmp_path))
    return Paths()


@pytest.fixture
def run(paths):
    made = runs.create(TrainConfig(name="mine", rank=4), paths)
    (made.folder / "adapter").mkdir()
    (made.folder / "adapter" / "adapter_config.json").write_text("{}")
    (made.folder / "adapter" / "adapter_model.safetensors").write_bytes(b"")
    Events(made.folder).state("finished", "done")
    return made


def call(capsys, *words):
    code = 0
    try:
        cli.main(list(words))
    except SystemExit as ended:
        code = ended.code
    return code, *capsys.readouterr()


def test_no_runs_say_how_to_start_one(paths, capsys):
    assert "playground train --recipe" in call(capsys, "runs")[1]
    assert json.loads(call(capsys, "runs", "--json")[1]) == {"runs": []}


def test_a_run_is_listed_described_noted_and_renamed(run, capsys):
    assert call(capsys, "runs", "list")[1].split()[:2] == ["mine", "finished"]
    assert "## Repeat it" in call(capsys, "runs", "card", "mine")[1]
    call(capsys, "runs", "note", "mine", "try again")
    assert call(capsys, "runs", "rename", "mine", "better")[1] == "mine is now better\n"
    card = json.loads(call(capsys, "runs", "card", "better", "--json")[1])
    assert (card["name"], card["note"], card["state"]) == ("better", "try again", "finished")


def test_compare_prints_what_differs(run, paths, capsys):
    runs.create(TrainConfig(name="other", rank=8), paths)
    out = json.loads(call(capsys, "runs", "--json", "compare", "mine", "other")[1])
    assert out["differ"] == {"rank": ["4", "8"]}
    code, _, error = call(capsys, "runs", "compare", "mine")
    assert (code, "two runs or more" in error) == (1, True)


def test_delete_asks(run, paths, capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert call(capsys, "runs", "delete", "mine")[0] == 1
    assert runs.list_runs(paths)
    call(capsys, "runs", "delete", "mine", "--yes")
    assert not runs.list_runs(paths)


def test_export_writes_where_it_is_told(run, tmp_path, capsys):
    code, out, _ = call(capsys, "export", "mine", "--out", str(tmp_path / "here"), "--json")
    made = json.loads(out.splitlines()[-1])
    assert (code, made["kind"]) == (0, "adapter")
    assert "mine/adapter_config.json" in zipfile.ZipFile(made["path"]).namelist()


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["other"], "no run 'other'"),
        (["mine", "--dtype", "float32"], "--dtype is for merged"),
        (["mine", "--repo", "a/b"], "are for --as hub"),
        (["../mine"], "a run's name is"),
    ],
)
def test_a_wrong_export_is_one_sentence(run, capsys, words, sentence):
    code, _, error = call(capsys, "export", *words)
    assert (code, sentence in error) == (1, True)
