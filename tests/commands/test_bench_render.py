"""`playground bench render` as a user calls it, on few rows: that it runs, not how fast."""

import json

import pytest

from playground import cli
from playground.bench import render

FIGURES = ("report_s", "bare_s", "ratio", "tokens_per_row", "peak_mb")


@pytest.fixture(autouse=True)
def no_models(tmp_path, monkeypatch):
    monkeypatch.setenv("PLAYGROUND_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PLAYGROUND_MODELS", "")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def run(capsys, *words) -> dict:
    cli.main(["bench", "render", "--json", "--rounds", "1", "--keystrokes", "3", *words])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_bench_measures_both_promises(capsys, tokenizer_folder):
    found = run(capsys, "--rows", "40", "--tokenizer", str(tokenizer_folder))
    assert (found["rows"], found["tokenizer"], found["template"]) == (40, tokenizer_folder.name, "chatml-tools")
    for data in ("tool_calls", "short_rows"):
        assert all(found[f"{data}_{figure}"] > 0 for figure in FIGURES)
    assert found["ratio"] == max(found["tool_calls_ratio"], found["short_rows_ratio"])
    assert 0 < found["p50_ms"] <= found["p95_ms"]
    assert 0 < found["pasted_p50_ms"] <= found["pasted_p95_ms"]


def test_without_a_model_a_tokenizer_is_trained():
    name, tokenizer = render.find_tokenizer("")
    assert name == "a byte-level tokenizer trained on the spot"
    assert tokenizer.encode("<|im_end|>")[0] == [tokenizer.eos_id]
    assert len(tokenizer.encode("What is the weather like in Lisbon?")[0]) < 12


def test_wrong_numbers(capsys):
    with pytest.raises(SystemExit):
        run(capsys, "--rows", "0")
    assert "rows, rounds and keystrokes must be at least 1; got 0, 1 and 3" in capsys.readouterr().err


def test_rows():
    short = render.short_rows(50)
    assert [len(row.messages) for row in short] == [2] * 50
    assert render.short_rows(50) == short
    assert len({row.messages[0]["content"] for row in short}) == 50
    assert len(render.tool_rows(7)) == 7
