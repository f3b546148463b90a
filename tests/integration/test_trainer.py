"""A run from its folder to its adapter, in this process: tiny model, real tokenizer, templates and data."""

import dataclasses
import errno
import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from playground.config import Paths, TrainConfig
from playground.errors import PlaygroundError
from playground.services import runs

torch = pytest.importorskip("torch")

from playground.core import models  # noqa: E402
from playground.core.scoring import Score  # noqa: E402
from playground.core.training import formats, loop, master, truth  # noqa: E402
from playground.core.training.recipes import recipe  # noqa: E402
from playground.services import trainer  # noqa: E402
from playground.services.trainer import keep  # noqa: E402

ROWS = [
    {"instruction": f"Say {word} twice", "output": f"{word} {word}"} for word in ("one", "two", "three", "four", "five")
]
# a rate that moves a random model far enough for the truth check in a few steps
CONFIG = TrainConfig(
    model="tiny", template="chatml", rank=2, steps=4, batch_size=2, eval_every=2, learning_rate=0.05, probe_tokens=3,
    threads=1,
)  # fmt: skip


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
    run, result = train(threads=0)  # as many as are fastest
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
        "adapter", "checkpoints", "config.json", "events.jsonl", "process.json", "run-card.md", "truth.json"
    ]  # fmt: skip


def test_the_adapter_can_be_read_for_the_chat(world):
    from playground.core.models import read_adapter

    train, _ = world
    run, _ = train(name="mine")
    info = read_adapter(run.adapter)
    assert (info.name, info.base_model, info.rank, info.template.name) == ("mine", "tiny", 2, "chatml")


def stopped_at_two(run, train):
    """The run, asked to stop at its second step."""
    write = runs.Events.write

    def note(self, kind, **values):
        if kind == "step" and values["step"] == 2:
            (run.folder / "stop").touch()
        return write(self, kind, **values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs.Events, "write", note)
        train(run)


def test_stop_and_keep_then_resume(world):
    train, _ = world
    whole, _ = train()
    run = runs.create(whole.config, world[1])
    stopped_at_two(run, train)
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


def test_a_data_set_that_changes_during_the_run_changes_nothing(world, monkeypatch):
    train, _ = world
    whole, _ = train()
    write, changed = runs.Events.write, []

    def change_at_one(self, kind, **values):
        if kind == "step" and values["step"] == 1:
            with open(whole.config.data, "w") as file:
                json.dump(ROWS[1:], file)
            changed.append(whole.config.data)
        return write(self, kind, **values)

    monkeypatch.setattr(runs.Events, "write", change_at_one)
    run, result = train()
    assert changed
    assert result["state"] == "finished"
    losses = [[e["loss"] for e in one.events() if e["kind"] == "step"] for one in (whole, run)]
    assert losses[0] == losses[1]
    assert run.about["data_hash"] == whole.about["data_hash"]


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


@pytest.mark.parametrize("new_tokens", ["", "<|made-up|>"])
def test_a_tool_recipe_counts_exact_calls(world, monkeypatch, new_tokens):
    loads, load = [], models.load
    monkeypatch.setattr(models, "load", lambda *given, **more: loads.append(1) or load(*given, **more))
    monkeypatch.setattr(keep, "load", models.load)
    monkeypatch.setattr(keep, "SCORED_ROWS", 8)
    run, result = world[0](recipe="tool-calling", template="chatml-tools", new_tokens=new_tokens)
    # for the training, and fresh for check and score; a base with more tokens is none to be scored beside
    assert len(loads) == (3 if new_tokens else 2)
    assert result["scores"]["rows"] == 8
    assert 0 <= result["scores"]["tuned"] <= 1
    assert "scores" in kinds(run)


@pytest.mark.parametrize(
    "name, template",
    [
        ("json-calls", "chatml"),
        ("think-first", "reasoning"),
        ("react", "react"),
        ("persona", "chatml"),
        ("follow-instructions", "alpaca"),
    ],
)
def test_other_recipes_count_what_they_teach(world, monkeypatch, name, template):
    monkeypatch.setattr(keep, "SCORED_ROWS", 6)
    monkeypatch.setattr("playground.core.training.scores.LONGEST", dict.fromkeys(formats.SCORES, 4))
    _, result = world[0](recipe=name, template=template)
    scores = result["scores"]
    assert scores["score"] == recipe(name).score
    assert scores["rows"] == (len(recipe(name).questions) or 6)
    assert scores["what"] == formats.SCORES[scores["score"]]
    assert "untuned 0/" in scores["summary"] or scores["score"] == "json_calls"


def test_figures_are_written_for_tensorboard(world):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, _ = world[0](log_to="tensorboard")
    assert run.state == "finished", run.status.sentence
    read = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    steps = [event for event in run.events() if event["kind"] == "step"]
    for name, key in (("loss", "loss"), ("learning_rate", "lr"), ("grad_norm", "grad_norm")):
        found = [(point.step, point.value) for point in read.Scalars(f"train/{name}")]
        assert found == [(e["step"], pytest.approx(e[key], rel=1e-6)) for e in steps]
    assert [point.step for point in read.Scalars("eval/loss")] == [0, 2, 4]
    assert {"train/tokens_per_second", "train/memory_gib"} <= set(read.Tags()["scalars"])


def test_figures_are_written_for_trackio(tmp_path):
    if importlib.util.find_spec("trackio") is None:
        pytest.skip("trackio is not installed")
    import sqlite3

    # in a process of its own, as a run is: which folder it writes to is settled when it is imported
    code = """
import sys
from playground.services.figures import Log
log = Log("trackio", sys.argv[1])
log({"kind": "step", "step": 1, "loss": 2.5, "lr": 0.1, "grad_norm": 1.0, "tokens_per_second": 9, "memory": 2**30})
log.close()
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "mine")], check=True)
    file = next((tmp_path / "mine" / "trackio").glob("*.db"))
    rows = sqlite3.connect(file).execute("select run_name, step, metrics from metrics").fetchall()
    assert [row[:2] for row in rows] == [("mine", 1)]
    assert json.loads(rows[0][2])["train/loss"] == 2.5


def test_a_viewer_that_is_not_installed_is_named_before_anything_is_trained(world, monkeypatch):
    monkeypatch.setattr("playground.services.figures.find_spec", lambda name: None)
    run, result = world[0](log_to="trackio")
    assert (run.state, run.status.reason) == ("failed", "refused")
    assert "log_to trackio needs the package trackio, which is not installed: pip install" in result["sentence"]
    assert "plan" not in kinds(run)


# ---- methods ---------------------------------------------------------------------------------------------------


def test_a_soft_prompt_that_learned_nothing_fails_the_run(world, monkeypatch):
    """Weights that stay as they were drawn change the model too."""
    monkeypatch.setattr(master.Master, "step", lambda self: 0.0)
    run, _ = world[0](method="prompt")
    assert (run.state, run.status.reason) == ("failed", "truth")
    assert "all its soft prompts are as at the start" in run.status.sentence


@pytest.mark.parametrize("method", ["rslora", "dora", "pissa", "eva", "prompt"])
def test_every_method_ends_with_an_adapter_that_is_true(world, method):
    run, result = world[0](method=method, recipe="persona")
    assert run.state == "finished", run.status.sentence
    assert result["truth"]["passed"]
    about = json.loads((run.adapter / "playground.json").read_text())
    assert about["method"] == method
    assert about["served_per_row"] is True
    assert result["peak_memory"] == about["peak_memory"] > 1e6
    plan = run.last("plan")
    assert plan["estimate"] == about["estimate"]
    assert plan["estimate"]["verdict"] in ("fits", "tight", "exceeds")
    assert plan["trainable"] == plan["estimate"]["trainable"]


@pytest.mark.parametrize("method", ["lora", "pissa", "full"])
def test_what_is_counted_is_the_saved_file_beside_the_original_base(world, model_folder, monkeypatch, method):
    """Not the model in memory: PiSSA and a full fine-tune have changed the base there."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    asked, seen = torch.arange(8)[None], []

    @torch.no_grad()
    def count(lane, *rest):
        lane.bank.use([lane.adapter])
        seen.append(lane.bank.model(input_ids=asked).logits)
        return Score(1, 0, {})

    monkeypatch.setattr(keep, "count", count)
    run, _ = world[0](method=method, recipe="persona", dtype="float32")
    assert run.state == "finished", run.status.sentence
    untuned, tuned = seen
    with torch.no_grad():
        base = AutoModelForCausalLM.from_pretrained(model_folder)
        assert torch.allclose(untuned, base(input_ids=asked).logits, atol=1e-4)
        whole = method == "full"
        saved = AutoModelForCausalLM.from_pretrained(run.folder / "model") if whole else None
        saved = saved or PeftModel.from_pretrained(base, run.adapter)
        assert torch.allclose(tuned, saved(input_ids=asked).logits, atol=1e-4)
    assert not torch.allclose(untuned, tuned, atol=1e-3)


def test_a_run_stopped_while_its_answers_are_counted_keeps_its_adapter(world, monkeypatch):
    def emit_and_stop(lane, *rest):
        (runs.list_runs(world[1])[0].folder / "stop").write_text("keep")
        lane.tell(40, 120)

    monkeypatch.setattr(keep, "count", emit_and_stop)
    run, result = world[0](recipe="persona")
    assert run.state == "finished"
    assert run.status.sentence.endswith("; stopped while its answers were being counted")
    assert run.last("scoring") | {"time": 0} == {"kind": "scoring", "time": 0, "tuned": False, "done": 40, "of": 120}
    assert run.adapter is not None
    assert result["scores"] is None


def test_a_model_that_no_lane_can_be_made_of_is_trained_and_not_counted(world, monkeypatch):
    def refuse(model):
        raise PlaygroundError("llama keeps a recurrent state")

    monkeypatch.setattr(keep, "check_decodable", refuse)
    run, result = world[0](recipe="persona")
    assert run.state == "finished"
    assert run.status.sentence.endswith("; its answers were not counted: llama keeps a recurrent state")
    assert result["truth"]["passed"]


# ---- two stages: a soft prompt, then LoRA behind it ------------------------------------------------------------

TWO = {"prompt_steps": 3, "prompt_tokens": 4, "prompt_learning_rate": 0.3, "dtype": "float32"}


def told(run, kind, key):
    return [(event.get("stage"), event["step"], event[key]) for event in run.events() if event["kind"] == kind]


def test_a_soft_prompt_first_and_then_lora_behind_it(world, model_folder):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    run, result = world[0](**TWO, method="dora", recipe="persona")
    assert run.state == "finished", run.status.sentence
    assert run.status.sentence.startswith("3 steps of a soft prompt, then 4 steps in")
    assert [(stage, step) for stage, step, _ in told(run, "step", "loss")] == [
        (1, 1), (1, 2), (1, 3), (2, 4), (2, 5), (2, 6), (2, 7)
    ]  # fmt: skip
    held = told(run, "eval", "eval_loss")
    best = min(loss for stage, step, loss in held if stage == 1 and step)
    start = next(loss for stage, step, loss in held if (stage, step) == (2, 3))
    assert start == pytest.approx(best, rel=1e-6)  # LoRA starts where the soft prompt was best
    lora = 2 * 2 * (32 * 4 + 2 * (32 + 16) + 3 * (32 + 48)) + 2 * (32 * 2 + 16 * 2 + 48 * 2 + 32)
    assert [(e["stage"], e["trainable"]) for e in run.events() if e["kind"] == "stage"] == [(1, 4 * 32), (2, lora)]
    card = (run.folder / "run-card.md").read_text()
    assert f"128 (soft prompt), then {lora:,} (LoRA behind the soft prompt)" in card
    # the truth check looks at both: 14 B matrices and the soft prompt
    assert (result["truth"]["matrices"], result["truth"]["zero"], result["steps"]) == (15, 0, 7)
    about = json.loads((run.adapter / "playground.json").read_text())
    assert [(s["name"], s["trainable"], s["steps"]) for s in about["stages"]] == [
        ("soft prompt", 128, 3), ("LoRA", lora, 4)
    ]  # fmt: skip
    assert about["served_per_row"] is False
    # both are plain PEFT
    kinds = [json.loads((f / "adapter_config.json").read_text()) for f in (run.adapter, run.adapter / "soft_prompt")]
    assert [(kind["peft_type"], kind["base_model_name_or_path"]) for kind in kinds] == [
        ("LORA", "tiny"), ("PROMPT_TUNING", "tiny")
    ]  # fmt: skip
    for folder in (run.adapter, run.adapter / "soft_prompt"):
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_folder), folder)


@pytest.mark.parametrize("at, kept", [(2, "soft prompt"), (5, "adapter")])
def test_a_run_of_two_stages_that_was_stopped_in_either_goes_on_exactly(world, at, kept):
    train, paths = world
    whole, _ = train(**TWO)
    run = runs.create(whole.config, paths)
    write = runs.Events.write

    def stop_there(self, kind, **values):
        if kind == "step" and values["step"] == at:
            (run.folder / "stop").touch()
        return write(self, kind, **values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs.Events, "write", stop_there)
        train(run)
    assert run.state == "stopped"
    assert f"step {at} of {3 if at < 3 else 7}; the {kept} is kept" in run.status.sentence
    saved = json.loads((run.adapter / "adapter_config.json").read_text())
    assert saved["peft_type"] == ("PROMPT_TUNING" if kept == "soft prompt" else "LORA")
    (run.folder / "stop").unlink()
    train(run)
    assert run.state == "finished", run.status.sentence
    assert (run.adapter / "soft_prompt").is_dir()
    loss = {e["step"]: e["loss"] for e in run.events() if e["kind"] == "step"}
    assert loss == {e["step"]: e["loss"] for e in whole.events() if e["kind"] == "step"}


def test_an_adapter_behind_a_soft_prompt_is_a_lane_and_can_be_merged_but_not_continued(world, model_folder):
    from transformers import AutoModelForCausalLM

    from playground.core.adapters import AdapterBank
    from playground.services.exports import Exporter

    run, _ = world[0](**TWO, name="two")
    base = AutoModelForCausalLM.from_pretrained(model_folder)
    bank = AdapterBank(base)
    bank.load("two", run.adapter)
    assert bank.adapters["two"].soft is not None
    assert bank.adapters["two"].factors
    sources = SimpleNamespace(find=lambda name: model_folder, entry=lambda name: SimpleNamespace(hub=""))
    *_, said = Exporter(world[1], sources).make("merged", run)
    assert "with which the template begins every prompt" in said.sentence
    _, result = world[0](continue_from="two")
    assert "was trained behind a soft prompt, so it cannot be continued" in result["sentence"]


def test_a_full_fine_tune_leaves_a_model(world):
    from playground.core.models import check_folder

    run, result = world[0](method="full", learning_rate=5e-3, recipe="persona")
    assert run.state == "finished", run.status.sentence
    assert result["adapter"] is None
    folder = check_folder(run.folder / "model")
    assert result["model"] == str(folder)
    assert json.loads((folder / "playground.json").read_text())["method"] == "full"
    assert not (run.folder / "adapter").exists()


def test_new_tokens_are_saved_with_their_tokenizer(world):
    from playground.core.tokenizer import Tokenizer

    run, _ = world[0](new_tokens="<|thinking|>, </|thinking|>")
    assert run.state == "finished", run.status.sentence
    about = json.loads((run.adapter / "playground.json").read_text())
    assert (about["new_tokens"], about["served_per_row"]) == (["<|thinking|>", "</|thinking|>"], True)
    assert len(Tokenizer.load(run.adapter).encode("<|thinking|></|thinking|>")[0]) == 2


def test_a_run_goes_on_from_the_adapter_of_another(world):
    train, _ = world
    train(name="first")
    run, _ = train(name="second", continue_from="first")
    assert run.state == "finished", run.status.sentence
    losses = [
        [e["loss"] for e in runs.find(world[1], name).events() if e["kind"] == "step"] for name in ("first", "second")
    ]
    assert losses[1][0] < losses[0][0]
    _, result = train(continue_from="nobody")
    assert "there is no adapter 'nobody' to continue from; the adapters are" in result["sentence"]
    _, result = train(continue_from="first", rank=4)
    assert "rank is 4, and the adapter to continue from has rank 2" in result["sentence"]


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"batch_size": 5}, "batch_size is 5, and there are 4 rows to train on"),
        ({"targets": "q_proj,nothing"}, "no linear layer called 'nothing'; it has down_proj"),
    ],
)
def test_contradictions_with_rows_and_model_are_refused(world, settings, sentence):
    run, result = world[0](**settings)
    assert (run.state, run.status.reason) == ("failed", "refused")
    assert sentence in result["sentence"]


def test_a_pissa_run_that_was_stopped_goes_on_exactly(world):
    train, paths = world
    whole, _ = train(method="pissa")
    run = runs.create(whole.config, paths)
    stopped_at_two(run, train)
    (run.folder / "stop").unlink()
    train(run)
    assert run.state == "finished", run.status.sentence
    loss = {e["step"]: e["loss"] for e in run.events() if e["kind"] == "step"}
    assert loss == {e["step"]: e["loss"] for e in whole.events() if e["kind"] == "step"}


def test_early_stopping_is_told(world):
    run, result = world[0](steps=200, eval_every=1, patience=2, learning_rate=0.3, warmup_steps=0)
    assert run.state == "finished", run.status.sentence
    event = run.last("early_stop")
    assert result["steps"] == event["step"] < 200
    assert f"stopped early after {event['step']} steps" in result["sentence"]
    assert (f"those of step {event['best_step']}," in result["sentence"]) == (event["best_step"] != event["step"])


# ---- the command -----------------------------------------------------------------------------------------------


def test_the_command_estimates_and_trains_nothing(world, model_folder, monkeypatch, capsys):
    from playground import cli

    _, paths = world
    monkeypatch.setenv("PLAYGROUND_HOME", str(paths.home))
    rows = str(paths.home / "rows.json")
    common = ["train", "--estimate", "--data", rows, "--template", "chatml"]
    assert not cli.main([*common, "--model", str(model_folder), "--batch-size", "2", "--rank", "2"])
    text = capsys.readouterr().out
    assert "method lora: fits: about" in text
    assert "for 2 steps" in text
    trainable = 2 * 2 * (32 * 4 + 2 * (32 + 16) + 3 * (32 + 48))
    assert f"{trainable:,} of " in text
    assert not cli.main([*common, "--model", "llama-7b", "--device-memory", "24"])
    text = capsys.readouterr().out
    assert "does not fit" in text
    assert "--piece-tokens 1024: run a step in pieces" in text
    assert runs.list_runs(paths) == []


def test_more_than_one_process_is_launched_in_place_of_this_one(world, monkeypatch, capsys):
    import os

    from playground import cli

    class Became(Exception):
        pass

    def become(program, words):
        raise Became(words)

    _, paths = world
    monkeypatch.setenv("PLAYGROUND_HOME", str(paths.home))
    monkeypatch.setattr(os, "execv", become)
    with pytest.raises(Became) as became:
        cli.main(["train", "--data", str(paths.home / "rows.json"), "--processes", "3", "--name", "shared"])
    words = became.value.args[0]
    assert words[words.index("--num_processes") + 1] == "3"
    assert words[-4:] == ["playground", "train", "--run-folder", str(paths.runs / "shared")]
    assert "--num_processes 3" in capsys.readouterr().out
