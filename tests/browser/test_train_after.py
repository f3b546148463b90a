"""Fine-tune, once a run has ended: its answers, name, note, comparison, exports and deletion, all by clicks."""

import dataclasses
import json
import re
import shutil
import zipfile

import pytest

from playground.config import ASSETS, Paths, TrainConfig
from playground.core import templates
from playground.services import runs
from playground.services.runs import Events
from tests.browser.conftest import settle

ANSWERS = ("It is 1000.", "It is 1080, I think.", '<tool_call>{"name": "calculator"}</tool_call>')


def finished(home, name: str, **settings) -> runs.Run:
    """A run that ended, made of the shipped adapter, with three evaluations."""
    config = TrainConfig(name=name, steps=4, eval_every=2, **settings)
    run = runs.create(config, Paths(home))
    shutil.copytree(ASSETS / "adapters" / "tool-calling", run.folder / "adapter")
    about = json.loads((run.folder / "adapter" / "playground.json").read_text())
    about |= {"config": dataclasses.asdict(config), "template_text": templates.load(config.template).text}
    runs.write_json(run.folder / "adapter" / "playground.json", about)
    events = Events(run.folder)
    events.state("running")
    for step, answer in zip((0, 2, 4), ANSWERS, strict=True):
        for at in (step - 1, step) if step else ():
            events.write("step", step=at, steps=4, loss=3.0 / at, lr=1e-3, grad_norm=1.0, seconds=1.0, memory=2**30)
        events.write("eval", step=step, eval_loss=3.0 / (step + 1))
        events.write("sample", step=step, prompt=config.probe, text=answer)
    events.state("finished", "4 steps in 4 s")
    return run


@pytest.fixture(scope="module")
def home(app):
    return app.home


@pytest.fixture
def after(visit, home):
    """`after(name)`: the Fine-tune tab with a finished run of that name selected."""

    def after(name: str, **context):
        finished(home, name)
        visitor = visit(permissions=["clipboard-read", "clipboard-write"], **context)
        visitor.open("Fine-tune")
        visitor.page.locator(".run-state").get_by_text(name).first.wait_for()
        return visitor

    return after


def copied(visitor, box) -> str:
    """What the copy button of a text box puts on the clipboard."""
    box.get_by_role("button", name=re.compile("copy", re.IGNORECASE)).click()
    return visitor.page.evaluate("navigator.clipboard.readText()")


def export(visitor, kind: str):
    visitor.choose("Export", kind)
    visitor.page.locator("button", has_text=re.compile(r"^\s*Export\s*$")).last.click()
    return visitor.page.locator(".export")


def downloaded(visitor, kind: str):
    """The file that an export offers, as the browser keeps it."""
    export(visitor, kind)
    link = visitor.page.locator(".block:visible a[download]").first
    link.wait_for()
    with visitor.page.expect_download() as download:
        link.click()
    return download.value


def test_the_answers_can_be_scrubbed(after):
    visitor = after("scrubbed")
    page, shown = visitor.page, visitor.page.locator(".answers", has_text="Asked as it learns").first
    shown.get_by_text("step 4").wait_for()
    assert shown.locator("ins").count()  # what changed since step 2
    slider = page.locator("input[type=range]:visible").first
    slider.focus()
    page.keyboard.press("Home")
    shown.get_by_text("Before it learned anything.").wait_for()
    assert ANSWERS[0] in shown.inner_text()
    page.keyboard.press("ArrowRight")
    shown.get_by_text("Changed since step 0").wait_for()


def test_a_note_a_name_and_a_deletion_that_is_asked_about(after, home):
    visitor = after("named-first")
    page = visitor.page
    visitor.unfold("Run card, note and name")
    page.locator(".card").get_by_text("Repeat it").wait_for()
    visitor.field("Note").fill("For Tuesday's class")
    page.get_by_role("button", name="Keep the note").click()
    page.locator(".card blockquote", has_text="For Tuesday's class").wait_for()
    name = visitor.field("Name of the run and its adapter")
    name.fill("a/b")
    page.get_by_role("button", name="Rename").click()
    page.get_by_test_id("toast-body").wait_for()
    assert (home / "runs" / "named-first").is_dir()
    name.fill("named-then")
    page.get_by_role("button", name="Rename").click()
    page.locator(".run-state").get_by_text("named-then").first.wait_for()
    assert (home / "runs" / "named-then" / "adapter").is_dir()

    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_text("Delete named-then with its adapter, its curve and its log?").wait_for()
    page.get_by_role("button", name="No", exact=True).click()
    page.get_by_text("Delete named-then with").wait_for(state="hidden")
    assert (home / "runs" / "named-then").is_dir()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Yes", exact=True).click()
    page.locator(".run-list").get_by_text("named-then").wait_for(state="detached")
    assert not (home / "runs" / "named-then").exists()


def test_a_note_of_another_tab_is_shown_before_it_is_replaced(after, visit, home):
    mine, theirs = after("noted"), visit()
    theirs.open("Fine-tune")
    theirs.page.locator(".run-state").get_by_text("noted").first.wait_for()
    for visitor in (theirs, mine):
        visitor.unfold("Run card, note and name")
        visitor.page.locator(".card").get_by_text("Repeat it").wait_for()

    def keep(visitor, note):
        visitor.field("Note").fill(note)
        visitor.page.get_by_role("button", name="Keep the note").click()

    keep(theirs, "theirs")
    theirs.page.locator(".card blockquote", has_text="theirs").wait_for()
    keep(mine, "mine")
    mine.page.get_by_test_id("toast-body").get_by_text("another page has kept the note “theirs”").wait_for()
    mine.page.locator(".card blockquote", has_text="theirs").wait_for()
    assert mine.field("Note").input_value() == "mine"
    mine.page.get_by_role("button", name="Keep the note").click()
    mine.page.locator(".card blockquote", has_text="mine").wait_for()
    assert runs.Run(home / "runs" / "noted").note == "mine"


def test_what_is_exported_downloaded_and_copied(after, home, tmp_path):
    visitor = after("taken")
    page = visitor.page
    visitor.unfold("Export")
    packed = downloaded(visitor, "Adapter (zip)")
    assert packed.suggested_filename == "taken-adapter.zip"
    packed.save_as(tmp_path / "adapter.zip")
    assert "taken/adapter_model.safetensors" in zipfile.ZipFile(tmp_path / "adapter.zip").namelist()
    for kind, name in (("Notebook", "taken.ipynb"), ("TRL script", "taken-trl.zip")):
        visitor.choose("Export", kind)
        page.locator("button", has_text=re.compile(r"^\s*Export\s*$")).last.click()
        page.wait_for_function(
            "(name) => [...document.querySelectorAll('a[download]')].some((a) => a.download === name)", arg=name
        )
    line = page.locator(".command").filter(has=page.get_by_text("The same from the command line")).last
    assert copied(visitor, line) == "playground export taken --as trl"

    said = export(visitor, "Merged model")
    said.get_by_text("tokens as base and adapter").wait_for(timeout=180_000)
    assert (home / "runs" / "taken" / "exports" / "taken-merged" / "model.safetensors").exists()
    export(visitor, "Ollama").get_by_text("ollama create taken").wait_for(timeout=180_000)
    assert "TEMPLATE" in (home / "runs" / "taken" / "exports" / "taken-ollama" / "Modelfile").read_text()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_runs_settings_are_taken_into_the_form(after, home, width):
    finished(home, f"repeated-{width}", rank=5, data="gone.jsonl", recipe="think-first")
    visitor = after(f"another-{width}", viewport={"width": width, "height": 844})
    page = visitor.page
    page.locator(".run-list label", has_text=f"repeated-{width}").click()
    page.locator(".run-state").get_by_text(f"repeated-{width}").first.wait_for()
    page.get_by_role("button", name="These settings again").click()
    said = page.locator("#run-settings")
    said.get_by_text(f"These are the settings of repeated-{width}").wait_for()
    assert "gone.jsonl" in said.locator("li").inner_text()
    page.wait_for_function("document.querySelector('#run-settings').getBoundingClientRect().top >= 0")
    settle(page)
    assert visitor.field("Rank").input_value() == "5"
    assert visitor.field("Recipe").input_value() == "Think first"
    assert visitor.field("Data").input_value() == "tool-calls"  # as it was
    assert visitor.fits()


def test_the_form_says_its_command_line_and_whether_7b_fits(after):
    visitor = after("asked")
    page = visitor.page
    visitor.unfold("The same from the command line")
    assert copied(visitor, page.locator(".command:visible").first).startswith("playground train --recipe tool-calling")
    visitor.unfold("Would it fit on another device?")  # the one click
    page.locator(".fit table").get_by_text("weights").wait_for()
    refused = page.locator(".fit.red", has=page.locator("table"))  # rows as long as max length allows, eight at once
    refused.get_by_text("The cheapest changes that would make it fit").wait_for()
    assert refused.locator("li").count() == 3
    visitor.field("Memory of a GPU, in GiB").fill("80")
    page.locator(".fit", has=page.locator("table")).get_by_text("It fits into 80.0 GiB").wait_for()


def test_two_runs_beside_each_other(after, home):
    finished(home, "left", rank=4)
    visitor = after("right")
    page = visitor.page
    visitor.unfold("Compare runs")
    for name in ("left", "right"):
        visitor.choose("Runs to compare", name)
    table = page.locator(".compare")
    table.get_by_role("row", name=re.compile(r"rank\s*4\s*8")).wait_for()
    assert table.get_by_text("Answers at step 4").count() == 1


@pytest.mark.parametrize(
    "look", [{}, {"viewport": {"width": 390, "height": 844}}, {"color_scheme": "dark"}], ids=["wide", "phone", "dark"]
)
def test_it_can_be_read_everywhere(after, home, look):
    width = look.get("viewport", {}).get("width", 0)
    finished(home, f"beside-{width}{look.get('color_scheme', '')}", rank=4)
    visitor = after(f"read-{width}{look.get('color_scheme', '')}", **look)
    for title in ("Run card, note and name", "Export", "Compare runs", "Would it fit on another device?"):
        visitor.unfold(title)
    visitor.page.locator(".card").get_by_text("Repeat it").wait_for()
    visitor.page.locator(".fit table").get_by_text("weights").wait_for()
    assert visitor.fits()
