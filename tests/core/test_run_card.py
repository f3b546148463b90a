"""The run card, what differs between runs, and what is written from a run's settings; dicts in, text out."""

import json
import subprocess
import sys

import pytest

from playground.config import TrainConfig
from playground.core import export, run_card
from playground.core.messages import Conversation
from playground.errors import PlaygroundError

CONFIG = {"name": "mine", "model": "tiny", "data": "rows.json", "template": "chatml", "rank": 4, "learning_rate": 2e-3}
ABOUT = {
    "template_name": "chatml", "template_hash": "abc123", "mask_rule": "generation", "data_hash": "def456",
    "versions": {"torch": "2.13.0"},
}  # fmt: skip
EVENTS = [
    {"kind": "state", "time": 1.0, "state": "queued"},
    {"kind": "plan", "time": 2.0, "sentence": "5 of 5 rows", "trainable": 1234, "device": "cpu", "dtype": "bfloat16"},
    {"kind": "eval", "time": 3.0, "step": 0, "eval_loss": 3.0},
    {"kind": "sample", "time": 3.0, "step": 0, "prompt": "2+2?", "text": "5 | *no*"},
    {"kind": "step", "time": 4.0, "step": 1, "steps": 2, "loss": 2.0, "memory": 2**30, "tokens_per_second": 100.0},
    {"kind": "step", "time": 9.0, "step": 2, "steps": 2, "loss": 1.5, "memory": 2**31, "tokens_per_second": 300.0},
    {"kind": "eval", "time": 9.0, "step": 2, "eval_loss": 1.25},
    {"kind": "sample", "time": 9.0, "step": 2, "prompt": "2+2?", "text": "4"},
    {"kind": "truth", "time": 10.0, "passed": True, "sentence": "it changes the model"},
    {"kind": "scores", "time": 11.0, "summary": "untuned 0 of 9, tuned 8 of 9"},
]


def facts(card):
    return {label: value for _, pairs in card.sections for label, value in pairs}


def test_a_whole_run_says_everything_and_misses_nothing():
    card = run_card.card("mine", "finished", CONFIG, ABOUT, EVENTS, "tried twice")
    said = facts(card)
    assert (said["Template hash (SHA-256)"], said["Data hash (SHA-256)"]) == ("abc123", "def456")
    assert said["Loss mask"].startswith("generation")
    assert said["Held-out loss"] == "3.0000 at step 0, 1.2500 at step 2, best 1.2500 at step 2"
    assert said["Truth check"] == "passed: it changes the model"
    assert said["Scores"] == "untuned 0 of 9, tuned 8 of 9"
    assert said["Measured peak"] == "2.00 GiB"
    assert said["“2+2?” at step 2"] == "4"
    assert (said["rank"], said["learning rate"], said["torch"]) == ("4", "0.002", "2.13.0")
    assert card.missing == ()
    assert card.command == "playground train --model tiny --data rows.json --template chatml --rank 4 --name mine"


def test_estimate_and_measured_peak_stand_beside_each_other():
    about = {**ABOUT, "estimate": {"total": 2**30}, "peak_memory": 2**31}
    said = facts(run_card.card("mine", "finished", CONFIG, about, EVENTS))
    assert (said["Measured peak"], said["Estimate ÷ measured"]) == ("2.00 GiB", "0.50")


@pytest.mark.parametrize(
    "again, steps, said",
    [
        ([], 2, {"Estimate (time)": "4 s", "Steps and evaluations took": "8 s", "Estimate ÷ measured (time)": "0.50"}),
        ([], 9, {"Steps and evaluations took": "8 s"}),  # it was stopped, so it did not do what was estimated
        ([{"kind": "state", "time": 8.0, "state": "running"}], 2, {}),  # resumed: who knows how long it stood
    ],
)
def test_estimated_and_measured_time_stand_beside_each_other(again, steps, said):
    begun = {"kind": "state", "time": 1.0, "state": "running"}
    events = [begun, *({**event, "steps": steps} if "steps" in event else event for event in EVENTS), *again]
    about = {**ABOUT, "estimate": {"total": 2**30, "seconds": 4.0}}
    found = dict(run_card.card("mine", "finished", CONFIG, about, events).sections)
    assert dict(found.get("Time: estimate and measured", ())) == said


def test_an_early_stop_is_on_the_card():
    early = {"kind": "early_stop", "time": 9.5, "step": 2, "best_step": 1, "best_loss": 1.25, "waited": 3}
    said = facts(run_card.card("mine", "finished", CONFIG, ABOUT, [*EVENTS, early]))
    assert said["Stopped early"] == "3 evaluations without a better held-out loss than 1.2500 at step 1"


def test_a_folder_that_lacks_things_says_which():
    card = run_card.card("old", "finished", {"model": "tiny"}, {}, [])
    assert {"any step", "the versions of the libraries", "the template's hash", "the data"} <= set(card.missing)
    text = run_card.markdown(card)
    assert "This run's folder does not say: the data, " in text


def test_settings_of_a_newer_version_are_shown_and_not_repeated():
    card = run_card.card("new", "finished", {**CONFIG, "hologram": 3}, ABOUT, EVENTS)
    assert facts(card)["hologram"] == "3 (a setting that this version does not know)"
    assert "hologram" not in card.command


def test_a_setting_out_of_its_bounds_still_gives_a_card():
    card = run_card.card("odd", "finished", {**CONFIG, "rank": 9999}, ABOUT, EVENTS)
    assert card.command.startswith("# this version cannot repeat it: rank must be between")


def test_markdown_keeps_what_a_model_wrote_in_its_cell():
    text = run_card.markdown(run_card.card("mine", "finished", CONFIG, ABOUT, EVENTS, "a note\nof two lines"))
    assert r"5 \| \*no\*" in text
    assert "> a note\n> of two lines" in text
    assert text.count("```") == 2


def test_only_what_differs_is_compared():
    found = run_card.config_differences([CONFIG, {**CONFIG, "name": "other", "rank": 8, "old": 1}, {"model": "tiny"}])
    assert dict(found)["rank"] == ["4", "8", f"not set ({TrainConfig.rank})"]
    assert dict(found)["old"] == ["not set", "1", "not set"]
    assert "name" not in dict(found)
    assert "model" not in dict(found)
    assert run_card.config_differences([CONFIG, {**CONFIG, "name": "b"}]) == []


# ---- command line and scripts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{}, {"rank": 3, "learning_rate": 5e-5}, {"probe": "it's 5 o'clock?"}, {"recipe": "tool-calling", "epochs": 0.5}],
)
def test_the_command_line_gives_the_same_settings(changes):
    import shlex

    from playground import cli
    from playground.commands.train import config_of

    config = TrainConfig(**changes)
    words = shlex.split(export.cli_line(vars(config)))
    assert config_of(cli.build_parser("train").parse_args(words[1:])) == config


def test_the_notebook_has_the_command_as_it_is():
    """Also one of several lines, which a "!" line would end at, and with what IPython would fill in there."""
    command = export.cli_line({"probe": "Two\nlines, {x} and $HOME"})
    made = export.notebook("mine", command, "t", "m", "", {})
    (train,) = ("".join(cell["source"]) for cell in made["cells"] if cell["id"] == "train")
    assert train == f"%%bash\n{command}"


def test_a_trl_script_holds_the_template_and_the_settings():
    template = "{% generation %}'''\"\"\"\\n{% endgeneration %}"
    config = TrainConfig(rank=4, learning_rate=1e-4, warmup_steps=3, seed=7, beta2=0.98)
    script = export.trl_script(config, template, 20, "someone/tiny")
    compile(script, "train_trl.py", "exec")
    assert repr(template) in script
    for words in ("r=4,", "learning_rate=0.0001,", "max_steps=20,", "seed=7,", "adam_beta2=0.98,"):
        assert words in script


def test_the_trl_scripts_rate_is_that_of_the_run():
    """Run on real libraries once, four full-batch steps then had the losses and gradient norms of ours to 4 digits."""
    from playground.core.training.master import rate

    config = TrainConfig(warmup_steps=3, final_lr_share=0.1)
    script = export.trl_script(config, "{% generation %}", 20, "someone/tiny")
    alone = script[script.index("def rate(") : script.index("class Trainer")]
    code = f"{alone}\nprint(*(rate(step) for step in range(20)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = rate(config, 20)
    assert list(map(float, done.stdout.split())) == pytest.approx([ours(step) for step in range(20)])


@pytest.mark.parametrize(
    "changes, template, words",
    [
        ({}, "{% if add_generation_prompt %}>{% endif %}", "no {% generation %} marks"),
        ({"method": "prompt"}, "{% generation %}", "method prompt cannot"),
        ({"prompt_steps": 5}, "{% generation %}", "a run with prompt_steps cannot"),
    ],
)
def test_what_trl_cannot_do_is_a_sentence(changes, template, words):
    with pytest.raises(PlaygroundError, match=words):
        export.trl_script(TrainConfig(**changes), template, 20, "m")


def test_rows_for_trl_are_json_lines():
    rows = [Conversation([{"role": "user", "content": "é"}]), Conversation([], [{"type": "function"}])]
    lines = export.rows_of(rows).splitlines()
    assert json.loads(lines[0])["messages"][0]["content"] == "é"
    assert json.loads(lines[1])["tools"] == [{"type": "function"}]
    assert export.rows_of([]) == ""
