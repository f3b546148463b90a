"""The fine-tune tab's handlers, called as the page calls them; a stand-in trainer, no model."""

import os
import sys
from types import SimpleNamespace

import gradio as gr
import pytest

from playground.config import Paths, TrainConfig, fields
from playground.core import datasets
from playground.errors import PlaygroundError
from playground.services import runs
from playground.services.datasets import Datasets
from playground.services.jobs import Jobs
from playground.services.runs import Events
from playground.services.templates import Templates
from playground.ui import train_tab
from playground.ui.train_tab import NAMES, View

FIELDS = list(View.__dataclass_fields__)


class Sources:
    """One model, here, whose folder holds a tokenizer."""

    def __init__(self, folder):
        self.folder, self.terms = folder, "here"

    def entries(self):
        return [SimpleNamespace(name="tiny", title="Tiny")]

    def entry(self, name):
        if name != "tiny":
            raise PlaygroundError(f"unknown model {name!r}; give one of tiny")

    def find(self, name):
        self.entry(name)
        return self.folder

    def status(self, name):
        return self.terms


@pytest.fixture
def services(tmp_path, tokenizer_folder):
    paths, sources = Paths(tmp_path), Sources(tokenizer_folder)
    trainer = "import sys; from playground.services import runs; runs.Events(sys.argv[1]).state('finished', '2 steps')"
    jobs = Jobs(paths, sources, command=(sys.executable, "-c", trainer))
    stores = {"datasets": Datasets(paths), "templates": Templates(paths)}
    return SimpleNamespace(paths=paths, sources=sources, jobs=jobs, **stores)


def values(**changes):
    settings = {f.name: f.default for f in fields(TrainConfig)}
    settings |= {"model": "tiny", "data": "instructions", "template": "chatml", **changes}
    return [settings[name] for name in NAMES]


def show(services, selected=None, seen=None):
    return dict(zip(FIELDS, train_tab.show_run(services, selected, seen), strict=True))


def run_of(services, name="a", state="running", live=True, events=()):
    run = runs.create(TrainConfig(name=name), services.paths)
    log = Events(run.folder)
    for kind, given in events:
        log.write(kind, **given)
    log.state(state, f"{state} because")
    if live:
        runs.note_process(run.folder, os.getpid())
    return run


def step(number, loss=1.0, steps=20):
    figures = {"lr": 1e-3, "grad_norm": 0.5, "tokens_per_second": 700.0, "memory": 2**31, "eta": 75}
    return "step", {"step": number, "steps": steps, "loss": loss, **figures}


# ---- before a run ----------------------------------------------------------------------------------------------


def test_the_tab_is_built_with_one_component_for_each_setting(services):
    with gr.Blocks() as page, gr.Tabs(), gr.Tab("Fine-tune"):
        train_tab.build(services)
    labels = {getattr(block, "label", None) for block in page.blocks.values()}
    assert {name.replace("_", " ").capitalize() for name in NAMES} <= labels


def test_a_recipe_fills_in_the_form():
    about, *filled = train_tab.use_recipe("tool-calling")
    settings = dict(zip(NAMES, filled, strict=True))
    assert (settings["data"], settings["template"], settings["rank"]) == ("tool-calls", "chatml-tools", 8)
    assert "calculator" in about
    assert train_tab.use_recipe("")[1:] == [gr.skip()] * len(NAMES)


def test_rows_tokens_and_steps_are_counted_before_the_run(services):
    text = train_tab.shown_plan(services, *values(rows=40, batch_size=4, eval_share=0.1, epochs=2))
    assert "40 of 40 rows" in text
    assert "36 rows to train on and 4 held out: 18 steps of 4 rows" in text


def test_a_large_data_set_is_estimated_from_its_first_rows(services, monkeypatch):
    monkeypatch.setattr(train_tab, "COUNT_ROWS", 20)
    text = train_tab.shown_plan(services, *values(rows=60, eval_share=0.1, batch_size=10))
    assert "about 60 of 60 rows" in text
    assert "54 rows to train on and 6 held out: 6 steps" in text


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"rank": 0}, "rank must be between 1 and 256, got 0"),
        ({"learning_rate": "abc"}, "learning_rate must be a number, got &#x27;abc&#x27;"),
        ({"rank": None}, "rank must be a number, got None"),
        ({"batch_size": 2.5}, "batch_size must be a whole number"),
        ({"data": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"template": "nonsense"}, "nonsense"),
        ({"model": "nonsense"}, "unknown model"),
        ({"max_length": 8}, "nothing to train on"),
    ],
)
def test_a_mistake_is_said_in_place_and_starts_nothing(services, changes, sentence):
    text = train_tab.shown_plan(services, *values(**changes))
    assert 'class="plan bad"' in text
    assert sentence in text
    with pytest.raises(PlaygroundError):
        train_tab.start_run(services, "", *values(**changes))
    assert runs.list_runs(services.paths) == []


def test_a_model_that_is_not_here_is_fetched_by_the_run(services):
    services.sources.folder = None
    assert "fetched when the run starts" in train_tab.shown_plan(services, *values())


def test_terms_come_before_the_run(services):
    services.sources.terms = "needs licence"
    with pytest.raises(PlaygroundError, match="terms of tiny"):
        train_tab.start_run(services, "", *values())


def test_an_uploaded_file_is_kept_and_chosen(services, tmp_path):
    upload = tmp_path / "mine.jsonl"
    upload.write_text('{"instruction": "Say hi", "output": "hi"}\n')
    update = train_tab.add_file(services, str(upload))
    assert update["value"] == "mine.jsonl"
    assert "mine.jsonl" in update["choices"]
    upload.write_text('{"instruction": "Say no", "output": "no"}\n')
    assert train_tab.add_file(services, str(upload))["value"] == "mine-2.jsonl"
    assert datasets.load("mine.jsonl", services.paths).conversations[0].messages[-1]["content"] == "hi"
    upload.write_text("not json")
    with pytest.raises(PlaygroundError):
        train_tab.add_file(services, str(upload))


def test_start_launches_a_run_and_shows_it(services):
    shown = dict(zip(FIELDS, train_tab.start_run(services, "", *values(name="mine", rows=8)), strict=True))
    assert shown["runs"]["value"] == "mine"
    run = runs.find(services.paths, "mine")
    assert (run.config.rows, run.config.data) == (8, "instructions")
    if process := run.process():  # it may have ended already
        process.wait(10)
    assert run.state == "finished"


# ---- a run on the page -----------------------------------------------------------------------------------------


def test_without_runs_the_page_says_what_to_do(services):
    shown = show(services)
    assert "No run yet" in shown["state"]
    assert shown["runs"]["visible"] is False
    assert shown["plot"]["visible"] is False


def test_a_running_run_is_shown_from_its_folder(services):
    sample = {"step": 2, "prompt": "<b>?", "text": "<script>alert(1)</script>"}
    run = run_of(
        services, events=[("eval", {"step": 0, "eval_loss": 2.0}), step(1, 1.5), step(2, 1.25), ("sample", sample)]
    )
    (run.folder / "log.txt").write_text("a line")
    shown = show(services)
    for words in ("Training", "2 of 20", "1 min 15 s", "1.250", "2.000", "700", "2.0 GiB"):
        assert words in shown["state"]
    assert shown["plot"]["value"].to_dict("list") == {
        "step": [1, 2, 0],
        "loss": [1.5, 1.25, 2.0],
        "kind": ["training", "training", "held out"],
    }
    assert "&lt;script&gt;" in shown["answers"]
    assert "<script>" not in shown["answers"]
    assert shown["log"] == "a line"
    visible = {name: shown[name]["visible"] for name in ("stop", "discard", "resume", "delete")}
    assert visible == {"stop": True, "discard": True, "resume": False, "delete": False}
    assert shown["runs"]["choices"][0][0].startswith("a · training, step 2 of 20 · ")


def test_nothing_is_sent_while_nothing_changes(services):
    run = run_of(services, events=[step(1)])
    seen = show(services)["seen"]
    assert all(value == gr.skip() for value in show(services, "a", seen).values())
    Events(run.folder).write(*step(2)[:1], **step(2)[1])
    assert "2 of 20" in show(services, "a", seen)["state"]


def test_the_newest_run_is_shown_unless_another_is_selected(services):
    run_of(services, "old", "finished")
    run_of(services, "new", "finished")
    assert show(services)["runs"]["value"] == "new"
    assert show(services, "old")["runs"]["value"] == "old"
    assert show(services, "deleted meanwhile")["runs"]["value"] == "new"


def test_a_queued_run_says_how_many_come_first(services):
    run_of(services, "first")
    run_of(services, "second", "queued")
    shown = show(services)
    assert "1 run is before this one" in shown["state"]
    assert "waiting for its turn, 1 before it" in shown["runs"]["choices"][0][0]


@pytest.mark.parametrize(
    "state, live, mark", [("failed", True, "bad"), ("running", False, "bad"), ("finished", True, "good")]
)
def test_a_bad_end_is_red(services, state, live, mark):
    run = run_of(services, state=state, live=live)
    if not live:
        (run.folder / "process.json").write_text('{"pid": 1, "created": 1}')
    shown = show(services)
    assert f'class="run-state {mark}"' in shown["state"]
    assert shown["resume"]["visible"] is (mark == "bad")
    assert shown["delete"]["visible"] is True


def test_a_failed_truth_check_is_said(services):
    verdict = {"passed": False, "sentence": "all its B matrices are zero"}
    run_of(services, state="failed", events=[step(1), ("truth", verdict)])
    assert "Truth check failed: all its B matrices are zero" in show(services)["state"]


def test_a_long_curve_is_thinned_and_a_resumed_one_has_each_step_once():
    events = [{"kind": "step", "step": n, "loss": 1.0} for n in range(1, 2002)]
    thin = train_tab.curve(events)
    assert len(thin) <= train_tab.POINTS
    assert thin["step"].iloc[-1] == 2001
    again = [*events[:5], {"kind": "step", "step": 4, "loss": 9.0}]
    assert train_tab.curve(again)["loss"].tolist() == [1.0, 1.0, 1.0, 9.0, 1.0]


def test_something_is_lost_only_after_a_question(services):
    run = run_of(services, state="finished")
    group, question, pending = train_tab.ask("delete", "a")
    assert (group["visible"], pending) == (True, "delete")
    assert "Delete a" in question
    assert run.folder.exists()
    hidden, *_ = train_tab.confirmed(services, "a", pending)
    assert hidden["visible"] is False
    assert not run.folder.exists()


@pytest.mark.parametrize("action", ["stop", "resume", "delete"])
def test_a_button_without_a_run_is_a_sentence(services, action):
    with pytest.raises(PlaygroundError, match="select a run first"):
        train_tab.act(services, action, None)
