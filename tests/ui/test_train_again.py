"""Settings put into the form again: a run's, and those that the browser kept; called as the page calls them."""

import html
import json
import re
from types import SimpleNamespace

import gradio as gr
import pytest

from playground.config import Paths, TrainConfig, fields
from playground.core import datasets
from playground.core.training import collate
from playground.core.training.recipes import recipes
from playground.errors import PlaygroundError
from playground.services import runs
from playground.services.datasets import Datasets
from playground.services.runs import Events
from playground.services.templates import Templates
from playground.ui import train_tab
from playground.ui.train import again, form
from playground.ui.train.form import NAMES


class Sources:
    def __init__(self, folder):
        self.folder = folder

    def entries(self):
        return [SimpleNamespace(name="tiny", title="Tiny")]

    def find(self, name):
        if name != "tiny":
            raise PlaygroundError(f"unknown model {name!r}; give one of tiny")
        return self.folder


@pytest.fixture
def services(tmp_path, tokenizer_folder):
    paths = Paths(tmp_path)
    stores = {"datasets": Datasets(paths), "templates": Templates(paths)}
    return SimpleNamespace(paths=paths, sources=Sources(tokenizer_folder), jobs=None, engine=None, **stores)


ROW = '{"instruction": "Say hi", "output": "hi"}\n'


def filled(values: list) -> dict:
    """Values for `Form.filled` by name; of an update, the value in it, and nothing where it leaves the field alone."""
    named = dict(zip(("recipe", "about", *NAMES), values, strict=True))
    found = {name: value.get("value", gr.skip()) if isinstance(value, dict) else value for name, value in named.items()}
    return {name: value for name, value in found.items() if value != gr.skip()}


def again_of(services, name) -> dict:
    return filled(form.settings_of(services, name))


def run_of(services, **settings):
    config = {"model": "tiny", "data": "instructions", "template": "chatml", **settings}
    return runs.create(TrainConfig(**config), services.paths)


def test_a_runs_settings_fill_the_form(services):
    run_of(services, name="a", rank=5, targets="q_proj,v_proj", recipe="follow-instructions", restore_best=False)
    found = again_of(services, "a")
    assert set(found) == {"recipe", "about", *NAMES}
    assert (found["recipe"], found["rank"], found["targets"]) == ("follow-instructions", 5, ["q_proj", "v_proj"])
    assert found["restore_best"] is False
    assert found["name"] == ""  # a run of its own
    assert "These are the settings of <b>a</b>.</p>" in found["about"]
    assert recipes()["follow-instructions"].description[:20] in html.unescape(found["about"])
    again_config = form.config_from(found["recipe"], tuple(found[name] for name in NAMES))
    assert again_config == TrainConfig(**{**runs.find(services.paths, "a").settings, "name": ""})


@pytest.mark.parametrize(
    ("settings", "left", "said"),
    [
        ({"data": "gone.jsonl"}, "data", "not taken over</b>, data: "),
        ({"model": "elsewhere"}, "model", "model: unknown model 'elsewhere'"),
        ({"template": "mine:gone"}, "template", "there is no saved template 'gone'; it may have been deleted"),
        ({"continue_from": "deleted"}, "continue_from", "there is no adapter 'deleted' to continue from"),
        ({"recipe": "of-old"}, None, "recipe: there is no recipe 'of-old'"),
        ({"rank": 100_000}, "rank", "rank must be between 1 and 256, got 100,000"),
        ({"method": "ia3"}, "method", "method must be one of lora"),
        ({"steps": "many"}, "steps", "steps must be a number, got 'many'"),
        ({"of_a_later_version": 1}, None, "of a later version: a setting that this version does not know"),
        ({"eval_every": None}, "eval_every", "eval_every must be a number, got nothing"),
    ],
)  # fmt: skip
def test_what_a_run_names_and_is_gone_is_said_and_its_field_left(services, settings, left, said):
    run = run_of(services, name="a", rank=5)
    runs.write_json(run.folder / "config.json", {**run.settings, **settings})
    found = again_of(services, "a")
    assert said in html.unescape(found["about"])
    assert {*NAMES, "recipe"} - set(found) == ({left} if left else set())
    assert found["recipe"] == ""
    assert found.get("rank", 5) == 5


def test_a_run_of_an_older_version_has_the_usual_values_where_it_says_nothing(services):
    run = run_of(services, name="a", rank=5)
    older = {name: value for name, value in run.settings.items() if name not in ("beta2", "patience")}
    runs.write_json(run.folder / "config.json", older)
    found = again_of(services, "a")
    assert (found["rank"], found["beta2"], found["patience"]) == (5, TrainConfig.beta2, TrainConfig.patience)
    assert "the run's folder does not say beta2, patience: the usual values are taken" in found["about"]


@pytest.mark.parametrize("changed", [False, True])
def test_it_is_said_when_the_data_has_changed_since_the_run(services, tmp_path, changed):
    file = tmp_path / "rows.jsonl"
    file.write_text(ROW)
    run = run_of(services, name="a", data=str(file))
    digest = collate.data_hash(datasets.load(str(file), services.paths).conversations)
    Events(run.folder).write("plan", data_hash=digest)
    if changed:
        file.write_text(ROW + ROW.replace("hi", "no"))
    assert ("holds other rows now" in again_of(services, "a")["about"]) is changed


@pytest.mark.parametrize(
    ("selected", "said"), [(None, "select a run first"), ("../a", "a run's name is"), ("b", "no run")]
)
def test_a_run_that_is_not_there_is_a_sentence(services, selected, said):
    with pytest.raises(PlaygroundError, match=said):
        form.settings_of(services, selected)


def test_what_a_run_says_is_no_markup(services):
    run = run_of(services, name="a")
    runs.write_json(run.folder / "config.json", {**run.settings, "data": "<script>alert(1)</script>", "<b>": 1})
    about = again_of(services, "a")["about"]
    assert "<script>" not in about
    assert "<b>:" not in about


def reopened(services, kept):
    way, *values = form.reopened(services, kept)
    return way, filled(values)


def test_the_form_is_as_the_browser_kept_it(services):
    settings = {f.name: f.default for f in fields(TrainConfig)}
    settings |= {"model": "tiny", "data": "instructions", "template": "chatml", "rank": 3, "name": "mine"}
    kept = {**settings, "targets": ["q_proj", "o_proj"], "way": form.KEEP, "recipe": "follow-instructions"}
    way, found = reopened(services, json.dumps(kept))
    assert (way, found["rank"], found["name"], found["targets"]) == (form.KEEP, 3, "mine", ["q_proj", "o_proj"])
    assert found["recipe"] == "follow-instructions"
    assert found["about"] == form.about_html("follow-instructions")


@pytest.mark.parametrize("kept", ["", "null", "no json", "[]", "7", '"text"'])
def test_what_no_form_has_kept_changes_nothing(services, kept):
    assert reopened(services, kept) == (gr.skip(), {})
    assert ("tool-calling", "tool-calling") in dict(zip(NAMES, form.reopened(services, kept)[3:], strict=True))[
        "continue_from"
    ]["choices"]


def test_what_the_browser_kept_and_is_gone_is_said(services):
    way, found = reopened(services, json.dumps({"model": "tiny", "data": "gone.jsonl", "rank": 3, "way": "nonsense"}))
    assert way == gr.skip()
    assert found["rank"] == 3
    assert "data" not in found
    assert "<p>As you left it, but:</p><ul><li>data: " in found["about"]


def test_the_browser_keeps_the_forms_settings_and_nothing_else(services):
    with gr.Blocks() as page:
        train_tab.build(services)
    (keeping,) = [event for event in page.fns.values() if f"localStorage.setItem('{again.KEY}'" in str(event.js)]
    kept = json.loads(re.search(r"fromEntries\((\[.*?\])", keeping.js)[1])
    labels = [component.label for component in keeping.inputs]
    assert kept == ["way", "recipe", *NAMES]
    assert labels == ["Models of the Chat tab", "Recipe", *(name.replace("_", " ").capitalize() for name in NAMES)]
    assert keeping.fn is None  # the server is not asked


def test_the_way_back_to_the_recipe_is_shown_where_something_differs():
    values = form.use_recipe("tool-calling")[1:]
    assert form.followed("tool-calling", *values)[1]["visible"] is False
    values[NAMES.index("rank")] = 3
    assert form.followed("tool-calling", *values)[1]["visible"] is True
    assert form.followed("", *values)[1]["visible"] is False
