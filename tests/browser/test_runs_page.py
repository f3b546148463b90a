"""Fine-tune, what came with run cards: estimate, measures, probe timeline, card, export, two runs beside each other."""

import re
import zipfile
from pathlib import Path

import pytest

from tests.browser.conftest import Visitor

SETTINGS = {"Rows": 12, "Steps": 6, "Batch size": 2, "Eval every": 2, "Eval rows": 2, "Probe tokens": 5}
SECTIONS = (
    *("All answers", "Learning rate and gradient norm", "Log"),
    *("Run card, note and name", "By heart, or learned?", "Export", "Compare runs"),
)
LINE = "svg.marks .mark-line path"
PHONE = {"viewport": {"width": 390, "height": 844}}


def opened(visitor) -> Visitor:
    visitor.wait_for_model()
    visitor.open("Fine-tune")
    return visitor


def section(visitor, title):
    return visitor.page.locator("button.label-wrap:visible", has_text=re.compile(rf"^\s*{re.escape(title)}"))


@pytest.fixture(scope="module")
def names(chromium, app) -> tuple[str, str]:
    """Two short runs, started from the form one after the other; the second waits for the first."""
    visitor = opened(Visitor(chromium, app.url))
    page = visitor.page
    visitor.choose("Recipe", "My own settings")
    section(visitor, "All settings").click()
    for label, value in SETTINGS.items():
        visitor.field(label).fill(str(value))
    page.locator(".plan", has_text="6 steps of 2 rows").wait_for()
    assert re.search(r"It fits.*of .* free", page.locator(".plan .fit").inner_text())
    found = "short-run", "shorter-run"
    for name, rank in zip(found, (8, 2), strict=True):
        visitor.field("Name").fill(name)
        visitor.field("Rank").fill(str(rank))
        page.get_by_role("button", name="Start training").click()
        page.locator(".run-list label", has_text=name).first.wait_for()
    page.locator(".run-list").get_by_text(re.compile(r"^shorter-run · finished")).wait_for(timeout=600_000)
    assert visitor.complaints == visitor.foreign() == []
    visitor.close()
    return found


@pytest.fixture
def tuning(visit, names):
    """The page with the first of the two runs shown."""
    visitor = opened(visit())
    select(visitor, names[0])
    return visitor


def select(visitor, name):
    visitor.page.locator(".run-list label", has_text=name).first.click()
    visitor.page.locator(".run-state", has_text=f"Finished {name}").wait_for()


def test_the_curve_is_a_loss_or_a_perplexity_and_the_answers_have_a_past(tuning):
    page = tuning.page
    page.locator(LINE).first.wait_for()
    losses = page.locator(LINE).first.get_attribute("d")
    for measure, same in (("perplexity", "!=="), ("loss", "===")):
        page.get_by_role("radio", name=measure).first.check()
        page.wait_for_function(f"(d) => document.querySelector('{LINE}').getAttribute('d') {same} d", arg=losses)
    answer = page.locator(".answers:visible")
    answer.get_by_text("step 6").wait_for()
    slider = tuning.field("Watch it learn")
    slider.fill("0")
    slider.press("Enter")
    answer.get_by_text("step 0").wait_for()
    assert "Before it learned anything." in answer.inner_text()
    section(tuning, "All answers").click()
    page.wait_for_function("document.querySelectorAll('.answers td.prompt').length >= 5")


def test_a_run_has_a_card_and_a_note_and_is_exported(tuning, names):
    page = tuning.page
    section(tuning, "Run card, note and name").click()
    card = page.locator(".card:visible")
    for words in ("What was trained", "How it went", "Truth check", "Repeat it"):
        card.get_by_text(words, exact=True).first.wait_for()
    assert f"--name {names[0]}" in card.locator("pre").last.inner_text()
    tuning.field("Note").fill("A <b>first</b> try.")
    page.get_by_role("button", name="Keep the note").click()
    card.locator("blockquote", has_text="A <b>first</b> try.").wait_for()

    section(tuning, "Export").click()
    page.get_by_role("button", name="Export", exact=True).last.click()
    link = page.locator("a[download]:visible", has_text=re.compile("zip|MB|KB|MiB|KiB"))
    link.first.wait_for()
    with page.expect_download() as coming:
        link.first.click()
    inside = zipfile.ZipFile(Path(coming.value.path())).namelist()
    assert {"adapter_model.safetensors", "adapter_config.json"} <= {Path(name).name for name in inside}


def test_rows_it_trained_on_stand_beside_held_out_ones_and_stay(tuning, visit, names):
    section(tuning, "By heart, or learned?").click()
    tuning.field("Rows of each kind").fill("1")
    tuning.page.get_by_role("button", name="Ask the rows").click()
    tuning.page.locator(".by-heart [role=status]", has_text="mean loss").wait_for()
    again = opened(visit(**PHONE))  # another page shows what the folder has
    select(again, names[0])
    section(again, "By heart, or learned?").click()
    rows = again.page.locator(".by-heart article")
    rows.nth(1).wait_for()
    assert rows.count() == 2
    assert "loss" in rows.last.locator("dd").last.inner_text()


def test_two_runs_stand_beside_each_other(tuning, names):
    page = tuning.page
    section(tuning, "Compare runs").click()
    for name in names:
        tuning.choose("Runs to compare", name)
    page.locator(".role-legend:visible", has_text=names[1]).wait_for()
    tables = page.locator(".compare table:visible")
    tables.nth(2).wait_for()
    assert tables.first.locator("thead th").all_inner_texts() == ["", *names]
    assert tables.first.locator("tr", has_text="rank").locator("td").all_inner_texts() == ["8", "2"]
    assert "passed" in tables.nth(1).locator("tr", has_text="Truth check").inner_text()
    page.get_by_text("Answers at step 6").wait_for()


def test_a_run_card_opens_the_scorecard_it_names(visit, names):
    visitor = visit()
    visitor.wait_for_model()
    visitor.open("Tools")
    page = visitor.page
    section(visitor, "Scorecard").click()
    page.locator("#score-lanes label", has_text="1").first.click()
    visitor.field("How many").fill("1")
    visitor.choose("Model 1", "SmolLM2 135M Instruct")
    adapter = page.locator("#tools-scorecard .block:visible", has_text="Adapter").first.locator("input")
    adapter.click()
    page.get_by_role("option", name=f"{names[0]} (for").click()
    page.locator("#score-start").click()
    page.locator("#score-status", has_text="Done · 1 of 1 replies").wait_for(timeout=180_000)
    other = opened(visit(**PHONE))
    select(other, names[0])
    section(other, "Run card, note and name").click()
    card = other.page.locator(".card:visible")
    card.get_by_text(re.compile(r"\d of 1 valid")).wait_for()
    card.get_by_role("button", name="Open it under Tools").click()
    status = other.page.locator("#score-status", has_text="Done · 1 of 1 replies")
    status.wait_for()
    assert names[0] in other.page.locator("#score-chooser input").input_value()
    other.page.wait_for_function("document.querySelector('#tools-scorecard').getBoundingClientRect().top < innerHeight")
    assert other.fits()


@pytest.mark.parametrize("look", [PHONE, {"color_scheme": "dark"}, PHONE | {"color_scheme": "dark"}])
def test_every_section_fits_the_page(visit, names, look):
    visitor = opened(visit(**look))
    select(visitor, names[0])
    for title in SECTIONS:
        section(visitor, title).click()
    for name in names:
        visitor.choose("Runs to compare", name)
    visitor.page.locator(".compare table:visible").nth(2).wait_for()
    assert visitor.fits()
