"""The fine-tune tab's handlers, called as the page calls them; a stand-in trainer, no model."""

import html
import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest

from playground.config import Paths, TrainConfig, fields
from playground.core import datasets, estimate
from playground.errors import PlaygroundError
from playground.services import runs
from playground.services.datasets import Datasets
from playground.services.jobs import Jobs
from playground.services.runs import Events
from playground.services.templates import Templates
from playground.ui import train_tab
from playground.ui.train import answers, curves, fit, form, watch
from playground.ui.train.form import NAMES
from playground.ui.train.watch import View

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
    return SimpleNamespace(paths=paths, sources=sources, jobs=jobs, engine=None, **stores)


def values(**changes):
    settings = {f.name: f.default for f in fields(TrainConfig)}
    settings |= {"model": "tiny", "data": "instructions", "template": "chatml", **changes}
    return [form.form_value(name, settings[name]) for name in NAMES]


def show(services, selected=None, seen=None, **given):
    return dict(zip(FIELDS, watch.show_run(services, selected, seen, **given), strict=True))


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
    about, *filled = form.use_recipe("tool-calling")
    settings = dict(zip(NAMES, filled, strict=True))
    assert (settings["data"], settings["template"], settings["rank"]) == ("tool-calls", "chatml-tools", 8)
    assert "calculator" in about
    assert form.use_recipe("")[1:] == [gr.skip()] * len(NAMES)


def test_rows_tokens_and_steps_are_counted_before_the_run(services):
    text = form.shown_plan(services, *values(rows=40, batch_size=4, eval_share=0.1, epochs=2))
    assert "40 of 40 rows" in text
    assert "36 rows to train on and 4 held out: 18 steps of 4 rows" in text


def test_a_mistake_in_what_is_not_counted_comes_and_goes_in_place(services):
    right, wrong = values(rows=40), values(rows=40, learning_rate=9)
    said = form.shown_plan(services, *right)
    assert form.checked_plan(services, said, *right) == gr.skip()
    mistake = form.checked_plan(services, said, *wrong)
    assert "learning_rate must be above 0.0 and at most 1.0, got 9.0" in mistake
    assert form.checked_plan(services, mistake, *right) == said


@pytest.mark.parametrize("steps, said", [(5, True), (6, False)])
def test_a_warm_up_that_never_ends_is_said(services, steps, said):
    text = form.shown_plan(services, *values(rows=40, steps=steps, warmup_steps=5))
    assert ("The warm-up of 5 steps is no shorter" in text) == said


def test_a_large_data_set_is_estimated_from_its_first_rows(services, monkeypatch):
    monkeypatch.setattr(form, "COUNT_ROWS", 20)
    text = form.shown_plan(services, *values(rows=60, eval_share=0.1, batch_size=10))
    assert "about 60 of 60 rows" in text
    assert "54 rows to train on and 6 held out: 6 steps" in text


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"rank": 0}, "rank must be between 1 and 256, got 0"),
        ({"learning_rate": "abc"}, "learning_rate must be a number, got &#x27;abc&#x27;"),
        ({"rank": None}, "rank must be a number, got nothing"),
        ({"batch_size": 2.5}, "batch_size must be a whole number"),
        ({"rank": 10**400}, "rank must be a number, got 1000"),
        ({"name": "a/b"}, "a run&#x27;s name is 1 to 64 letters"),
        ({"probe": "a\nb\n\nc\nd"}, "the probe has 4 lines; at most 3 prompts are asked"),
        ({"new_tokens": "<|a|>,b c"}, "new_tokens has &#x27;b c&#x27;"),
        ({"rows": 1}, "batch_size is 8, and there is 1 row to train on; set batch_size to 1, or add rows"),
        ({"data": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"data": '{"instruction": "Say hi"}' * 20}, "data is a name or a path, no part of it longer than 255 bytes"),
        ({"model": "m" * 300}, "model is a name or a path"),
        ({"template": "{% for message in messages %}" * 20}, "template is a name or a path"),
        ({"continue_from": "a/" + "é" * 130}, "got 132 characters, &#x27;a/é"),
        ({"probe": "What?\ud800"}, "probe holds half a character"),
        ({"template": "nonsense"}, "nonsense"),
        ({"model": "nonsense"}, "unknown model"),
        ({"max_length": 8}, "nothing to train on"),
    ],
)
def test_a_mistake_is_said_in_place_and_starts_nothing(services, changes, sentence):
    text = form.shown_plan(services, *values(**changes))
    assert 'class="plan bad"' in text
    assert sentence in text
    with pytest.raises(PlaygroundError):
        form.start_run(services, "", *values(**changes))
    assert runs.list_runs(services.paths) == []


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"batch_size": 200, "rows": 60}, "batch_size is 200, and there are 57 rows to train on beside 3 that"),
        ({"max_length": 4096}, "max_length 4,096 is past the model's context of 2,048 tokens; set max_length to 2,048"),
        ({"max_length": 2048, "method": "prompt"}, "2,048 after 16 prompt_tokens is past the model's context of 2,048"),
        ({"targets": "q_proj,nothing"}, "no linear layer called 'nothing'; it has q_proj"),
    ],
)
def test_what_the_model_and_the_rows_contradict_is_said_before_the_run(services, tmp_path, changes, sentence):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    folder = tmp_path / "model"
    shutil.copytree(services.sources.folder, folder)
    (folder / "config.json").write_text('{"max_position_embeddings": 2048}')
    save_file({"model.layers.0.q_proj.weight": torch.zeros(2, 2)}, folder / "model.safetensors")
    services.sources.folder = folder
    assert sentence in html.unescape(form.shown_plan(services, *values(**changes)))
    with pytest.raises(PlaygroundError):
        form.start_run(services, "", *values(**changes))
    assert runs.list_runs(services.paths) == []


def test_a_model_that_is_not_here_is_fetched_by_the_run(services):
    services.sources.folder = None
    assert "fetched when the run starts" in form.shown_plan(services, *values())


def test_terms_come_before_the_run(services):
    services.sources.terms = "needs licence"
    with pytest.raises(PlaygroundError, match="terms of tiny"):
        form.start_run(services, "", *values())


def test_an_uploaded_file_is_kept_and_chosen(services, tmp_path):
    upload = tmp_path / "mine.jsonl"
    upload.write_text('{"instruction": "Say hi", "output": "hi"}\n')
    update = form.add_file(services, str(upload))
    assert update["value"] == "mine.jsonl"
    assert "mine.jsonl" in update["choices"]
    upload.write_text('{"instruction": "Say no", "output": "no"}\n')
    assert form.add_file(services, str(upload))["value"] == "mine-2.jsonl"
    assert datasets.load("mine.jsonl", services.paths).conversations[0].messages[-1]["content"] == "hi"
    upload.write_text("not json")
    with pytest.raises(PlaygroundError):
        form.add_file(services, str(upload))


def test_start_launches_a_run_and_shows_it(services):
    started = form.start_run(services, "", *values(name="mine", rows=8, batch_size=4))
    shown = dict(zip(FIELDS, train_tab.show_named(services, started.name), strict=True))
    assert shown["runs"]["value"] == "mine"
    run = runs.find(services.paths, "mine")
    assert (run.config.rows, run.config.data) == (8, "instructions")
    if process := run.process():  # it may have ended already
        process.wait(10)
    assert run.state == "finished"


@pytest.mark.parametrize(
    ("way", "crowded", "made"),
    [(form.IF_TIGHT, True, True), (form.IF_TIGHT, False, False), (form.UNLOAD, False, True), (form.KEEP, True, False)],
)
def test_the_models_of_the_chat_make_way_where_it_is_chosen_or_tight(services, monkeypatch, way, crowded, made):
    told = []
    services.engine = SimpleNamespace(make_way=told.append)
    monkeypatch.setattr(form.fit, "crowded", lambda *asked: crowded)
    run = form.start_run(services, "", *values(name="mine", rows=8, batch_size=4), way=way)
    assert told == ["mine"] * made
    assert json.loads((run.folder / "page.json").read_text() if made else "{}").get("alone", False) is made
    if process := run.process():
        process.wait(10)
    assert runs.alone(services.paths) is None  # it has ended


@pytest.mark.parametrize(("free", "crowded"), [(200 * 2**30, False), (2**20, True)])
def test_it_is_crowded_where_a_run_does_not_fit_beside_the_models(services, monkeypatch, free, crowded):
    shape = estimate.shape_of(estimate.KNOWN["llama-3.2-1b"])
    monkeypatch.setattr(form.fit.estimate, "read_shape", lambda folder: shape)
    monkeypatch.setattr(form.fit, "_free", lambda kind: free)
    config = form.config_from("", values(rows=8, batch_size=4))
    found = form.plan(services, config)
    assert form.fit.crowded(config, found.folder, found.examples) is crowded


def test_every_setting_stands_in_one_group_and_an_unknown_one_under_advanced(monkeypatch):
    placed = [*form.SIMPLE, *(name for _, names in form.groups() for name in names)]
    assert sorted(placed) == sorted(NAMES)
    monkeypatch.setattr(form, "NAMES", (*NAMES, "something_new"))
    assert "something_new" in dict(form.groups())["Advanced"]


def test_the_command_line_follows_the_form():
    assert form.command_line("", *values(rank=4, name="mine")).endswith("--rank 4 --name mine")
    assert form.command_line("", *values(rank=0)) == ""
    recipe = form.use_recipe("tool-calling")[1:]
    assert form.command_line("tool-calling", *recipe) == "playground train --recipe tool-calling"


def test_layers_are_a_list_on_the_form_and_a_text_in_the_settings():
    chosen = [["q_proj", "v_proj"] if name == "targets" else value for name, value in zip(NAMES, values(), strict=True)]
    assert form.config_from("", tuple(chosen)).targets == "q_proj,v_proj"


def test_adapters_can_be_gone_on_from(services):
    assert ("tool-calling", "tool-calling") in form.adapter_choices(services)


SHAPE = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 128, "vocab_size": 500, "tie_word_embeddings": True,
}  # fmt: skip


def test_the_estimate_stands_beside_the_count(services, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    shutil.copytree(services.sources.folder, folder)
    (folder / "config.json").write_text(json.dumps(SHAPE))
    services.sources.folder = folder
    text = form.shown_plan(services, *values(rows=40, steps=12))
    assert "It fits:" in text
    assert "for 12 steps" in text
    small = estimate.Device("cuda", 500 * 2**20)
    monkeypatch.setattr(fit, "this_device", lambda: small)
    text = form.shown_plan(services, *values(rows=40, batch_size=32))
    assert "It does not fit:" in text


def test_whether_a_7b_fits_into_24_gib_is_one_look(services):
    config_from = form.config_from
    text = fit.elsewhere(services, config_from, "llama-7b", 24, *values(max_length=512, batch_size=1))
    assert "24.0 GiB" in text
    assert "<td>weights</td>" in text
    assert "It does not fit" in fit.elsewhere(services, config_from, "llama-7b", 8, *values(max_length=512))
    for memory, given in ((0, "0"), (-3, "-3"), (20_000, "20000"), (None, "nothing")):
        told = fit.elsewhere(services, config_from, "llama-7b", memory, *values())
        assert f"above 0 and at most 10,000; got {given}" in told
    assert "rank must be" in fit.elsewhere(services, config_from, "llama-7b", 24, *values(rank=0))
    services.sources.folder = None
    assert "not on this machine yet" in fit.elsewhere(services, config_from, fit.THIS, 24, *values())


def test_an_early_stop_and_the_estimate_are_said(services):
    early = {"step": 9, "best_step": 6, "best_loss": 1.5, "waited": 3}
    plan = {"sentence": "5 rows", "estimate": {"sentence": "fits: about 2 GiB"}}
    run_of(services, events=[("plan", plan), step(9), ("early_stop", early)], state="finished")
    state = show(services)["state"]
    assert "3 evaluations without a better held-out loss than 1.5000 at step 6" in state
    assert "it fits: about 2 GiB" in state


# ---- a run on the page -----------------------------------------------------------------------------------------


def test_without_runs_the_page_says_what_to_do(services):
    shown = show(services)
    assert "No run yet" in shown["state"]
    assert shown["runs"]["visible"] is False
    assert shown["plot"]["visible"] is shown["measure"]["visible"] is shown["after"]["visible"] is False
    run_of(services)
    assert show(services)["after"]["visible"] is True


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
        "value": [1.5, 1.25, 2.0],
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


def test_an_answer_that_comes_late_does_not_select_the_old_run_again(services):
    run_of(services, "old", "finished")
    seen = show(services)["seen"]
    run_of(services, "new")  # started while the page asked about the old one
    late = show(services, "old", seen)["runs"]
    assert "value" not in late
    assert [name for _, name in late["choices"]] == ["new", "old"]
    assert show(services, "deleted", seen)["runs"]["value"] == "new"
    assert dict(zip(FIELDS, train_tab.show_named(services, "new"), strict=True))["runs"]["value"] == "new"


def test_the_newest_run_is_shown_unless_another_is_selected(services):
    run_of(services, "old", "finished")
    run_of(services, "new", "finished")
    assert show(services)["runs"]["value"] == "new"
    assert show(services, "old")["runs"]["value"] == "old"
    assert show(services, "deleted meanwhile")["runs"]["value"] == "new"
    runs.rename(runs.find(services.paths, "old"), "older")
    assert show(services, "old")["runs"]["value"] == "older"  # another page renamed it


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


@pytest.mark.parametrize(
    "live, peak, words",
    [(True, 3 * 2**30, "measured so far: 2.0 GiB at the most"), (False, 3 * 2**30, "measured: 3.0 GiB at the most")],
)
def test_the_measured_peak_stands_beside_the_estimate(services, live, peak, words):
    plan = "plan", {"sentence": "5 rows", "estimate": {"sentence": "fits: about 1.0 GiB"}}
    run = run_of(services, state="running" if live else "finished", live=live, events=[plan, step(1)])
    (run.folder / "adapter").mkdir()
    runs.write_json(run.folder / "adapter" / "playground.json", {"peak_memory": peak})
    assert f"it fits: about 1.0 GiB; {words}" in show(services)["state"]


def test_a_resumed_run_does_not_show_the_truth_check_of_before(services):
    truth = "truth", {"passed": True, "sentence": "all is well"}
    run_of(services, name="a", state="stopped", live=False, events=[truth])
    assert "Truth check passed" in show(services)["state"]
    runs.Events(services.paths.runs / "a").state("queued")
    runs.note_process(services.paths.runs / "a", os.getpid())
    assert "Truth check" not in show(services)["state"]


def test_a_failed_truth_check_is_said(services):
    verdict = {"passed": False, "sentence": "all its B matrices are zero"}
    run_of(services, state="failed", events=[step(1), ("truth", verdict)])
    assert "Truth check failed: all its B matrices are zero" in show(services)["state"]


def test_a_long_curve_is_thinned_and_a_resumed_one_has_each_step_once():
    events = [{"kind": "step", "step": n, "loss": 1.0} for n in range(1, 2002)]
    thin = curves.curve(events)
    assert len(thin) <= curves.POINTS
    assert thin["step"].iloc[-1] == 2001
    again = [*events[:5], {"kind": "step", "step": 4, "loss": 9.0}]
    assert curves.curve(again)["value"].tolist() == [1.0, 1.0, 1.0, 9.0, 1.0]


def test_something_is_lost_only_after_a_question(services):
    run = run_of(services, state="finished")
    group, question, pending = watch.ask("delete", "a")
    assert (group["visible"], pending) == (True, ("delete", "a"))
    assert "Delete a" in question
    assert run.folder.exists()
    other = run_of(services, "b", state="finished")  # it is newer, so it is what a page shows meanwhile
    hidden, pending, *_ = watch.confirmed(services, pending)
    assert hidden["visible"] is False
    assert not run.folder.exists()
    watch.confirmed(services, pending)
    assert other.folder.exists()


@pytest.mark.parametrize("action", ["stop", "resume", "delete"])
def test_a_button_without_a_run_is_a_sentence(services, action):
    with pytest.raises(PlaygroundError, match="select a run first"):
        watch.act(services, action, None)


def evaluated(*texts, prompt="What?"):
    return [("sample", {"step": 10 * number, "prompt": prompt, "text": text}) for number, text in enumerate(texts)]


def test_the_slider_follows_the_newest_evaluation_until_it_is_put_back(services):
    run = run_of(services, events=evaluated("one", "one two"))
    first = show(services)
    assert (first["slider"]["value"], first["slider"]["maximum"]) == (1, 1)
    Events(run.folder).write("sample", step=20, prompt="What?", text="one two three")
    follows = show(services, "a", first["seen"], at=1)
    assert (follows["slider"]["value"], follows["slider"]["maximum"]) == (2, 2)
    assert "step 20" in follows["answer"]
    Events(run.folder).write("sample", step=30, prompt="What?", text="four")
    stays = show(services, "a", follows["seen"], at=0)
    assert (stays["slider"]["value"], stays["slider"]["maximum"]) == (0, 3)
    assert "step 0" in stays["answer"]
    other = run_of(services, "b", events=evaluated("x", "y", "z"))
    assert show(services, other.name, stays["seen"], at=0)["slider"]["value"] == 2


def test_an_answer_is_shown_with_what_changed_since_the_one_before(services):
    run_of(services, events=evaluated("It is <b>1</b>.", "It is 1081.", "It is 1081."))
    text = watch.scrub(services, "a", 1)
    assert "<ins>1081</ins>" in text
    assert "&lt;b&gt;" in text
    assert "<b>1</b>" not in text
    assert "The same as before" in watch.scrub(services, "a", 2)
    assert "Before it learned anything" in watch.scrub(services, "a", 0)
    assert "step 20" in watch.scrub(services, "a", 99)
    assert watch.scrub(services, "deleted", 0) == ""


def test_several_prompts_of_one_evaluation_stand_together():
    events = [
        {"kind": "sample", "step": step, "prompt": prompt, "text": f"{prompt} at {step}"}
        for step in (0, 10)
        for prompt in ("first", "second", "third")
    ]
    found = answers.evaluations(events)
    assert [(step, len(texts)) for step, texts in found] == [(0, 3), (10, 3)]
    assert answers.one_html(found, 1).count("<tr>") == 3
    assert answers.list_html(found).count("<tr>") == 6


def test_perplexity_is_the_exponential_of_the_loss(services):
    run_of(services, events=[step(1, 1.0), step(2, 0.0), ("eval", {"step": 2, "eval_loss": 900.0})])
    shown = show(services, measure="perplexity")["plot"]
    assert shown["value"]["value"].tolist()[:2] == [2.718, 1.0]
    assert shown["value"]["value"].iloc[2] < 1e9  # a loss that is far off does not overflow
    assert set(shown) == set(show(services, measure="loss")["plot"])  # nothing but the values may change with it


def test_learning_rate_and_gradient_norm_have_plots_of_their_own(services):
    run_of(services, events=[step(1), step(2)])
    shown = show(services)
    assert shown["rate"]["value"]["value"].tolist() == [1e-3, 1e-3]
    assert shown["norm"]["value"]["value"].tolist() == [0.5, 0.5]


def test_the_light_says_in_words_that_it_learns_by_heart(services):
    losses = [("eval", {"step": 10 * n, "eval_loss": loss}) for n, loss in enumerate((2.0, 1.0, 1.2, 1.5))]
    run_of(services, events=[*(step(n, 1.0 - n / 40) for n in range(1, 31)), *losses])
    light = show(services)["light"]
    assert 'class="light red"' in light
    assert "from 1.00 at step 10 to 1.50" in light


def test_a_step_of_an_older_version_is_shown_with_what_it_says(services):
    run_of(services, events=[("step", {"step": 1}), ("step", {"step": 2, "loss": 1.0}), ("eval", {"step": 2})])
    shown = show(services)
    assert "2 of 0" in shown["state"]
    assert "–" in shown["state"]


def test_a_page_that_asks_about_a_run_that_is_gone_gets_no_error():
    chooser = watch.Chooser(["here"])
    assert chooser.preprocess("gone") == "gone"
    assert chooser.get_block_name() == "radio"
    assert not Path(watch.__file__).with_suffix(".pyi").exists()


def test_a_page_that_asks_from_a_run_of_more_evaluations_gets_no_error(services):
    """The tick on its way still has the place of the run that was shown before."""
    slider = watch.Timeline(0, 1, 0, step=1)
    assert slider.preprocess(5) == 5
    assert slider.get_block_name() == gr.Slider(0, 1).get_block_name()
    found = [(0, {}), (9, {}), (18, {})]
    assert answers.position(found, 5, 9) == 2
    run_of(services, events=[("sample", {"step": 0, "prompt": "p", "text": "t"})])
    assert watch.scrub(services, "a", 5) == answers.one_html([(0, {"p": "t"})], 0)
