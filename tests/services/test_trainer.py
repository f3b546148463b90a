"""A run from its folder to its adapter, in this process: tiny model, real tokenizer, templates and data."""

import dataclasses
import errno
import json

import pytest

from playground.config import Paths, TrainConfig
from playground.errors import PlaygroundError
from playground.services import runs

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # more only wait for each other at this size

from playground.core.training import loop, truth  # noqa: E402
from playground.services import trainer  # noqa: E402

ROWS = [
    {"instruction": f"Say {word} twice", "output": f"{word} {word}"} for word in ("one", "two", "three", "four", "five")
]
# a rate that moves a random model far enough for the truth check in a few steps
CONFIG = TrainConfig(
    model="tiny", template="chatml", rank=2, steps=4, batch_size=2, eval_every=2, learning_rate=0.05, probe_tokens=3
)


@pytest.fixture(scope="module")
def model_folder(tokenizer_folder, tmp_path_factory):
    import shutil

    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "tiny"
    shutil.copytree(tokenizer_folder, folder)
    torch.manual_seed(0)
    settings = {"vocab_size": 512, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048}
    LlamaForCausalLM(LlamaConfig(**settings, **heads)).save_pretrained(folder)
    return folder


@pytest.fixture
def world(tmp_path, model_folder, monkeypatch):
    """(train(**settings) → run and result, paths): a run with CONFIG and changes."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    paths = Paths(tmp_path)
    data = tmp_path / "rows.json"
    data.write_text(json.dumps(ROWS))

    class Sources:
        def get(self, name, progress=None, cancel=None):
            return model_folder

    def train(run=None, **settings):
        run = run or runs.create(dataclasses.replace(CONFIG, data=str(data), **settings), paths)
        return run, trainer.train(run, paths, Sources())

    return train, paths


def kinds(run):
    return [event["kind"] for event in run.events()]


def states(run):
    return [event["state"] for event in run.events() if event["kind"] == "state"]


def test_a_run_ends_with_an_adapter_that_is_true(world):
    train, paths = world
    run, result = train()
    assert (run.state, result["state"], result["steps"]) == ("finished", "finished", 4)
    assert states(run) == ["queued", "preparing", "running", "finished"]
    assert kinds(run).count("step") == 4
    assert kinds(run).count("sample") == kinds(run).count("eval") == 3
    assert "truth" in kinds(run)
    assert json.loads((run.folder / "truth.json").read_text())["passed"] is True
    assert runs.adapters(paths)[-1] == run.folder / "adapter"
    about = json.loads((run.adapter / "playground.json").read_text())
    assert about["template_name"] == "chatml"
    assert "generation %}" in about["template_text"]
    assert (about["mask_rule"], about["base_model"], about["config"]["rank"]) == ("generation", "tiny", 2)
    adapter = json.loads((run.adapter / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "tiny"  # no path of this machine
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "adapter", "checkpoints", "config.json", "events.jsonl", "process.json", "truth.json"
    ]  # fmt: skip


def test_the_adapter_can_be_read_for_the_chat(world):
    from playground.core.models import read_adapter

    train, _ = world
    run, _ = train(name="mine")
    info = read_adapter(run.adapter)
    assert (info.name, info.base_model, info.rank, info.template.name) == ("mine", "tiny", 2, "chatml")


def test_stop_and_keep_then_resume(world):
    train, _ = world
    whole, _ = train()
    run = runs.create(whole.config, world[1])
    write = runs.Events.write

    def stop_at_two(self, kind, **values):
        if kind == "step" and values["step"] == 2:
            (run.folder / "stop").touch()
        return write(self, kind, **values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs.Events, "write", stop_at_two)
        train(run)
    assert states(run)[-2:] == ["stopping", "stopped"]
    assert "step 2 of 4; the adapter is kept" in run.status.sentence
    assert run.adapter
    (run.folder / "stop").unlink()
    train(run)
    assert run.state == "finished"
    loss = {e["step"]: e["loss"] for e in run.events() if e["kind"] == "step"}
    assert loss == {e["step"]: e["loss"] for e in whole.events() if e["kind"] == "step"}


def test_a_run_that_is_stopped_before_it_starts_says_so(world):
    train, paths = world
    run = runs.create(CONFIG, paths)
    (run.folder / "stop").touch()
    train(run)
    assert run.state == "stopped"
    assert "nothing to keep" in run.status.sentence


def test_a_resumed_run_wants_the_rows_it_began_with(world):
    train, _ = world
    run, _ = train()
    data = run.config.data
    with open(data, "w") as file:
        json.dump(ROWS[1:], file)
    _, result = train(run)
    assert result["state"] == "failed"
    assert "the data has changed" in result["sentence"]


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"max_length": 4096}, "past the model's context of 2,048"),
        ({"max_length": 8}, "nothing to train on: none of the 5 rows is left"),
        ({"template": "nonsense"}, "nonsense"),
    ],
)
def test_settings_that_cannot_work_fail_in_a_sentence(world, settings, sentence):
    run, result = world[0](**settings)
    assert (run.state, run.status.reason) == ("failed", "refused")
    assert sentence in result["sentence"]
    assert run.adapter is None


@pytest.mark.parametrize(
    "error, reason, words",
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk", "the disk is full"),
        (torch.OutOfMemoryError("CUDA out of memory"), "memory", "batch size below 2"),
        (PlaygroundError("the loss is no longer a number at step 1"), "nan", "no longer a number"),
    ],
)
def test_what_goes_wrong_in_the_loop_is_named(world, monkeypatch, error, reason, words):
    def fails(*args, **kwargs):
        raise error

    monkeypatch.setattr(loop, "step_loss", fails)
    run, _ = world[0]()
    assert (run.state, run.status.reason) == ("failed", reason)
    assert words in run.status.sentence


def test_a_fault_of_ours_stays_loud(world, monkeypatch, capsys):
    def fails(*args, **kwargs):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(loop, "step_loss", fails)
    with pytest.raises(ZeroDivisionError):
        world[0]()
    run = runs.list_runs(world[1])[0]
    assert (run.state, run.status.reason) == ("failed", "fault")
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_failed_truth_check_fails_the_run(world, monkeypatch):
    monkeypatch.setattr(truth, "check", lambda *args: truth.Truth(False, "all its B matrices are zero"))
    run, _ = world[0]()
    assert (run.state, run.status.reason) == ("failed", "truth")
    assert "all its B matrices are zero" in run.status.sentence
    assert run.adapter is None


def test_a_tool_recipe_counts_exact_calls(world, monkeypatch):
    monkeypatch.setattr(trainer, "SCORED_ROWS", 8)
    run, result = world[0](recipe="tool-calling", template="chatml-tools")
    assert result["scores"]["rows"] == 8
    assert 0 <= result["scores"]["tuned"] <= 1
    assert "scores" in kinds(run)
