"""After a run: card, note, name, more steps, comparison and export, as the page calls them; no model."""

import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest

from playground.config import Paths, TrainConfig
from playground.core import scorecard
from playground.core.question_sets import Question
from playground.errors import PlaygroundError
from playground.services import runs
from playground.services.datasets import Datasets
from playground.services.jobs import Jobs
from playground.services.runs import Events
from playground.services.scorecards import Scorecards
from playground.services.templates import Templates
from playground.ui import train_tab
from playground.ui.train import card, compare, exporting
from playground.ui.train.compare import HELD_OUT, TRAINING


@pytest.fixture
def services(tmp_path, tokenizer_folder):
    paths = Paths(tmp_path)
    sources = SimpleNamespace(
        entry=lambda name: SimpleNamespace(name=name, hub=""), find=lambda name: tokenizer_folder, entries=lambda: []
    )
    trainer = "import sys; from playground.services import runs; runs.Events(sys.argv[1]).state('finished', '2 steps')"
    jobs = Jobs(paths, sources, command=(sys.executable, "-c", trainer))
    stores = {"datasets": Datasets(paths), "templates": Templates(paths)}
    return SimpleNamespace(paths=paths, sources=sources, jobs=jobs, engine=None, **stores)


@pytest.fixture
def store(services):
    return Scorecards(services.paths)


def run_of(services, name="a", held=(2.0, 1.0), answers=("no", "yes"), every=10, adapter=True, **settings):
    """A finished run that was evaluated every `every` steps."""
    run = runs.create(TrainConfig(name=name, **settings), services.paths)
    log = Events(run.folder)
    for number, (loss, text) in enumerate(zip(held, answers, strict=True)):
        log.write("step", step=every * number + 1, steps=20, loss=loss / 2)
        log.write("eval", step=every * number, eval_loss=loss)
        log.write("sample", step=every * number, prompt="<i>Well?", text=text)
    log.write("scores", summary=f"{name} 8 of 9")
    log.write("plan", trainable=len(name) * 1000)
    if adapter:
        (run.folder / "adapter").mkdir()
        for file in ("adapter_model.safetensors", "adapter_config.json"):
            (run.folder / "adapter" / file).write_text("{}")
    log.state("finished", "done")
    return run


# ---- card ------------------------------------------------------------------------------------------------------


def test_the_card_stands_on_the_page_and_in_the_folder(services, store):
    run = run_of(services, rank=4)
    shown, note, _, name = card.shown_card(services, store, "a")
    assert (note, name) == ("", "a")
    assert "<th>rank</th><td>4</td>" in shown
    assert "&lt;i&gt;Well?" in shown
    assert "<i>Well" not in shown
    assert "does not say: " in shown  # there is no playground.json
    assert "## Repeat it" in (run.folder / "run-card.md").read_text()
    assert card.shown_card(services, store, None) == [card.EMPTY, "", "", ""]
    assert card.card_now(services, store, "gone") == card.EMPTY


def test_a_live_runs_note_and_card_are_left_alone_while_it_goes_on(services, store, monkeypatch):
    run_of(services)
    monkeypatch.setattr(runs.Run, "_alive", lambda self: True)
    monkeypatch.setattr(runs, "ENDED", ())
    Events(services.paths.runs / "a").state("running")
    assert card.card_now(services, store, "a") == gr.skip()
    assert "What was trained" in card.card_now(services, store, "a", live=True)


def test_scorecards_of_the_adapter_are_named_under_its_old_name_too(services, store, monkeypatch):
    entry = SimpleNamespace(
        id="1", name="demo <40>", created=0.0, done=4, total=9, columns=[SimpleNamespace(title="tuned")]
    )
    monkeypatch.setattr(store, "of_adapter", lambda name: [entry] if name == "a" else [])
    run_of(services)
    assert "demo &lt;40&gt;: 4 of 9 replies, tuned" in card.shown_card(services, store, "a")[0]
    runs.rename(runs.find(services.paths, "a"), "b")
    assert "demo &lt;40&gt;" in card.shown_card(services, store, "b")[0]
    run_of(services, "a")  # the old name is another run's now
    assert "None yet" in card.shown_card(services, store, "b")[0]


def test_a_scorecard_says_what_the_adapter_was_worth_and_what_it_changed(services, store):
    def column(title, adapter):
        return scorecard.Column(title, "m", adapter, "chatml-tools", "hermes")

    asked = [Question(str(n), "no tool", [{"role": "user", "content": str(n)}], [], []) for n in range(4)]
    words = (["valid", "no_call", "no_call", "no_call"], ["no_call", "valid", "valid", "valid"])
    rows = [scorecard.Row(c, q, word, "") for c, said in enumerate(words) for q, word in enumerate(said)]
    columns = (column("plain <b>", None), column("tuned <b>", "a"))
    made = scorecard.Card("20260101-000000-abcdef", "demo", 0.0, columns, tuple(asked), tuple(rows), "done")
    services.paths.scorecards.mkdir()
    runs.write_json(services.paths.scorecards / f"{made.id}.json", scorecard.to_json(made))
    run_of(services)
    shown = card.shown_card(services, store, "a")[0]
    assert "tuned &lt;b&gt;: 3 of 4 valid, 75% (30% to 95%); before 1 of 4: 3 gained, 1 lost" in shown
    assert f'data-scorecard="{made.id}"' in shown
    assert card.figures(store, made.id, ["b"]) == ""
    assert card.figures(store, "20260101-000000-000000", ["a"]) == ""


def test_a_note_is_kept_and_shown_as_text(services, store):
    run_of(services)
    shown, known = card.keep_note(services, store, "a", "<b>good", "")
    assert "<blockquote>&lt;b&gt;good</blockquote>" in shown
    assert known == "<b>good"
    with pytest.raises(PlaygroundError, match="select a run first"):
        card.keep_note(services, store, None, "x", "")


def test_a_note_of_another_tab_is_not_lost_unseen(services, store, monkeypatch):
    run, said = run_of(services), []
    monkeypatch.setattr(gr, "Warning", said.append)
    _, _, mine, _ = card.shown_card(services, store, "a")
    _, _, theirs, _ = card.shown_card(services, store, "a")
    card.keep_note(services, store, "a", "theirs", theirs)
    shown, mine = card.keep_note(services, store, "a", "mine", mine)
    assert "<blockquote>theirs</blockquote>" in shown
    assert "another page has kept the note “theirs”" in said[0]
    assert (run.note, mine) == ("theirs", "theirs")
    card.keep_note(services, store, "a", "mine", mine)
    assert (run.note, len(said)) == ("mine", 1)


def test_a_renamed_run_is_the_one_that_is_shown(services, store):
    run_of(services)
    values = card.rename(services, store, lambda name: [name], "a", "b")
    assert (values[0], values[-1]) == ("b", "b")


def test_more_steps_are_a_new_run_that_goes_on_from_the_adapter(services):
    run_of(services, rank=4, steps=20, recipe="tool-calling")
    assert card.extend(services, lambda name: [name], "a", 30) == ["a-more"]
    new = runs.find(services.paths, "a-more")
    assert asdict(new.config) == asdict(
        TrainConfig(name="a-more", rank=4, steps=30, recipe="tool-calling", continue_from="a")
    )
    if process := new.process():
        process.wait(10)


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        (None, "more steps must be a whole number, got nothing"),
        (2.5, "more steps must be a whole number, got 2.5"),
        (0, "how many more steps, 1 or more; got 0"),
        (-1, "how many more steps, 1 or more; got -1"),
    ],
)
def test_more_steps_are_a_whole_number(services, steps, sentence):
    with pytest.raises(PlaygroundError, match=sentence):
        card.extended(run_of(services), steps)


@pytest.mark.parametrize("method", ["full", "prompt"])
def test_a_method_that_cannot_be_gone_on_from_is_said(services, method):
    with pytest.raises(PlaygroundError, match=f"a run of method {method} cannot be gone on from"):
        card.extended(run_of(services, method=method, adapter=method == "prompt"), 10)


def test_without_an_adapter_there_is_nothing_to_go_on_from(services):
    with pytest.raises(PlaygroundError, match="no adapter to go on from"):
        card.extended(run_of(services, adapter=False), 10)


def test_pissa_goes_on_as_the_lora_that_it_was_saved_as(services):
    run = run_of(services, method="pissa", rank=4)
    (run.folder / "adapter" / "adapter_config.json").write_text('{"r": 8, "lora_alpha": 16}')
    more = card.extended(run, 10)
    assert (more.method, more.rank, more.alpha, more.continue_from) == ("lora", 8, 16.0, "a")
    with pytest.raises(PlaygroundError, match="method prompt cannot be gone on from"):
        card.extended(run_of(services, "b", method="prompt"), 10)


# ---- comparison ------------------------------------------------------------------------------------------------


def test_runs_are_compared_at_the_last_evaluation_that_both_have(services):
    run_of(services, "a", rank=4)
    run_of(services, "b", held=(2.0, 1.5, 0.5), answers=("no", "perhaps", "<u>late"), rank=8)
    plot, tables = compare.compare(services, ["a", "b"])
    lines = plot["value"]
    assert lines[lines["kind"] == "b"]["value"].tolist() == [2.0, 1.5, 0.5]
    assert "Answers at step 10" in tables
    for words in ("<td>4</td><td>8</td>", "<pre>yes</pre>", "<pre>perhaps</pre>", "a 8 of 9", "&lt;i&gt;Well?"):
        assert words in tables
    assert "late" not in tables
    assert "learning rate" not in tables  # the same in both
    assert '<th scope="row">Trained parameters</th><td>1,000</td><td>1,000</td>' in tables


def test_runs_that_share_no_evaluation_are_compared_at_their_last(services):
    run_of(services, "a", held=(1.0,), answers=("first",), every=10)
    other = run_of(services, "b", held=(), answers=())
    Events(other.folder).write("sample", step=7, prompt="<i>Well?", text="seventh")
    tables = compare.compare(services, ["a", "b"])[1]
    assert "never asked at the same step" in tables
    assert "<pre>first</pre><" in tables
    assert "<pre>seventh</pre>" in tables


def test_curves_can_be_training_losses_or_perplexities(services):
    run_of(services, "a")
    run_of(services, "b")
    plot, _ = compare.compare(services, ["a", "b"], TRAINING, "perplexity")
    assert plot["value"]["value"].tolist() == [2.718, 1.649] * 2
    steps = list(compare.drawn(services, ["a", "b"], TRAINING, "perplexity"))
    assert steps[0][0]["value"].equals(plot["value"])
    assert list(steps[1][0]["color_map"]) == ["a", "b"]


def test_two_to_four_runs_are_compared(services):
    for name in "abcde":
        run_of(services, name)
    hidden, text = compare.compare(services, ["a"])
    assert (hidden["visible"], text) == (False, compare.EMPTY)
    assert "the same settings" in compare.compare(services, ["a", "b", "c", "d"], HELD_OUT)[1]
    with pytest.raises(PlaygroundError, match="two to 4 runs"):
        compare.compare(services, list("abcde"))
    with pytest.raises(PlaygroundError, match="no run 'gone'"):
        compare.compare(services, ["a", "gone"])


def test_the_choice_forgets_runs_that_are_gone(services):
    run_of(services, "a")
    update = compare.choices(services, ["a", "gone"])
    assert (update["choices"], update["value"]) == (["a"], ["a"])


# ---- export ----------------------------------------------------------------------------------------------------


def exported(services, kind, selected="a", dtype="auto", repo="", token="", private=True):
    return list(exporting.run_export(services, selected, kind, dtype, repo, token, private))


def test_an_export_is_offered_for_download(services):
    run_of(services)
    stages = exporting.run_export(services, "a", "adapter", "auto", "", "", True)
    assert "Packing adapter/" in next(stages)[2]
    *buttons, sentence, file = next(stages)
    assert buttons[0]["interactive"] is True
    assert "PeftModel" in sentence
    assert file["value"].endswith("a-adapter.zip")
    assert Path(file["value"]).read_bytes().startswith(b"PK")  # it is there while gradio takes its copy
    stages.close()


def test_the_notebook_and_the_card_need_no_adapter(services):
    run_of(services, adapter=False, template="chatml", model="tiny")
    for kind in ("notebook", "card"):
        assert exported(services, kind)[-1][3]["visible"] is True
    with pytest.raises(PlaygroundError, match="no adapter"):
        exported(services, "adapter")
    with pytest.raises(PlaygroundError, match="select a run first"):
        exported(services, "card", None)


def test_the_command_line_makes_the_same_export_and_holds_no_token():
    assert exporting.command("a", "merged", "float32", "", True) == "playground export a --as merged --dtype float32"
    assert exporting.command("a", "hub", "auto", "ada/a", False) == "playground export a --as hub --repo ada/a --public"
    assert exporting.command("a", "hub", "auto", None, True) == "playground export a --as hub --repo OWNER/NAME"
    shown = exporting.choose("hub")
    assert [update["visible"] for update in shown] == [False, True, True, True]


def test_no_handler_that_shows_errors_is_without_a_queue(services):
    with gr.Blocks() as page:
        train_tab.build(services)
    raising = [
        event
        for event in page.fns.values()
        if any(hasattr(f, "may_raise") for f in (event.fn, getattr(event.fn, "func", None)))
    ]
    assert len(raising) > 8
    assert [event.fn for event in raising if not event.queue] == []


# ---- by heart, or learned? -------------------------------------------------------------------------------------------


def test_rows_by_heart_need_a_number(services):
    from playground.ui.train import by_heart

    run_of(services)
    with pytest.raises(PlaygroundError, match="rows of each kind must be a whole number, got nothing"):
        by_heart.start(SimpleNamespace(start=None), services, "a", None)


def test_rows_by_heart_are_shown_as_they_come_and_after_a_restart():
    from playground.ui.train import by_heart

    row = {"kind": "trained", "prompt": "p" * 500 + "<b>", "expected": "x", "base": "", "tuned": "x"}
    found = {"state": "running", "total": 2, "sentence": "", "rows": [{**row, "base_loss": 2.0, "tuned_loss": 0.1}]}
    said = by_heart.rows_html(found, asking=True)
    assert "1 of 2 rows asked" in said
    assert "&lt;b&gt;" in said
    assert "<b>" not in said
    assert said.count("p" * 157) == 1
    assert "p" * 158 not in said
    assert "mean loss 2.00 → 0.10" in said
    assert by_heart.NOTHING in said
    assert by_heart.CUT in by_heart.rows_html(found, asking=False)
    assert "Cancelled after 1 of 2 rows" in by_heart.rows_html({**found, "state": "cancelled"}, asking=False)
    failed = by_heart.rows_html({"state": "failed", "total": 0, "rows": [], "sentence": "no <data>"}, asking=False)
    assert 'class="bad">no &lt;data&gt;' in failed
    assert by_heart.rows_html({}, asking=False) == by_heart.EMPTY
