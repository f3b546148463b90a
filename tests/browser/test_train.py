"""Fine-tune: a short run from the form to its adapter in the chat, seen again from another page."""

import os
import re

import pytest

from tests.browser.conftest import settle

SETTINGS = {
    "Name": "browser-run",
    "Rows": 40,
    "Steps": 300,
    "Batch size": 2,
    "Eval every": 2,
    "Eval rows": 2,
    "Patience": 0,
}


@pytest.fixture
def tuning(visit):
    visitor = visit()
    visitor.wait_for_model()
    visitor.open("Fine-tune")
    return visitor


def set_all(visitor, **settings):
    visitor.page.get_by_role("button", name="All settings").click()
    for label, value in settings.items():
        visitor.field(label).fill(str(value))
    visitor.page.get_by_role("button", name="All settings").click()


def state(visitor):
    return visitor.page.locator(".run-state")


def test_a_run_is_watched_stopped_kept_and_used_in_the_chat(tuning, visit, picture):
    page = tuning.page
    set_all(tuning, **SETTINGS, **{"Probe tokens": 12})
    page.get_by_text(re.compile(r"300 steps of 2 rows")).wait_for()
    page.get_by_role("button", name="Start training").click()
    figures = state(tuning).locator(".figures")
    enough = 60 if os.environ.get("PLAYGROUND_SCREENSHOTS") else 5  # a curve worth a picture
    step = "[...document.querySelectorAll('.figures dd')].find((e) => e.textContent.endsWith(' of 300'))?.textContent"
    page.wait_for_function(f"(enough) => parseInt({step}) >= enough", arg=enough, timeout=600_000)
    assert re.search(r"Loss\s+\d\.\d+", figures.inner_text())
    assert "Time left" in figures.inner_text()
    page.locator(".answers td", has_text="step").first.wait_for()
    page.locator("canvas, svg.marks").first.wait_for()
    picture(tuning, "fine-tune", 1150)

    # whoever comes later sees the same run
    other = visit()
    other.open("Fine-tune")
    state(other).get_by_text("browser-run").first.wait_for()

    page.get_by_role("button", name="Stop and keep").click()
    state(tuning).get_by_text("Stopped", exact=True).wait_for(timeout=180_000)
    state(tuning).get_by_text("Truth check passed").wait_for(timeout=60_000)

    # its adapter is a choice in the chat that was open all the while
    other.open("Chat")
    other.page.locator("#lane-1 .lane-settings button").first.click()
    other.page.wait_for_timeout(11_000)  # the choices are looked up every ten seconds
    other.choose("Adapter", "browser-run")
    other.page.locator("#lane-1").get_by_text("adapter browser-run").first.wait_for()
    other.page.locator("#arena-prompt textarea").fill("Hello")
    other.page.locator("#arena-send").click()
    other.page.locator("#lane-1 .lane-status", has_text=re.compile("finished|cut at")).wait_for(timeout=180_000)


def test_a_wrong_value_is_said_before_anything_starts(tuning):
    tuning.page.locator(".plan", has_text="rows to train on").wait_for()
    usual = tuning.field("Learning rate").input_value()
    tuning.field("Learning rate").fill("9")
    said = tuning.page.locator(".plan.bad", has_text="learning_rate must be above 0.0")
    said.wait_for()
    tuning.field("Learning rate").fill(usual)
    said.wait_for(state="detached")
    tuning.page.locator(".plan", has_text="rows to train on").wait_for()
    tuning.field("Rank").fill("0")
    tuning.page.get_by_role("button", name="Start training").click()
    toast = tuning.page.get_by_test_id("toast-body")
    toast.wait_for()
    assert "rank must be between 1 and 256, got 0" in toast.inner_text()


def test_a_reload_leaves_the_form_as_it_was_and_one_click_brings_the_recipe_back(tuning, visit):
    page, back = tuning.page, tuning.page.get_by_role("button", name="Back to the recipe's values")
    tuning.choose("Recipe", "Follow instructions")
    page.locator("#run-settings", has_text="Alpaca-style").wait_for()
    settle(page)
    assert not back.is_visible()
    usual = tuning.field("Rank").input_value()
    tuning.field("Rank").fill("5")
    tuning.unfold("All settings")
    tuning.choose("Targets", "attention only")
    back.wait_for()
    settle(page)

    page.reload()
    tuning.wait_for_model()
    tuning.open("Fine-tune")
    back.wait_for()
    assert tuning.field("Recipe").input_value() == "Follow instructions"
    assert tuning.field("Data").input_value() == "instructions"
    assert tuning.field("Rank").input_value() == "5"
    page.get_by_role("button", name="The same from the command line").click()
    command = page.locator(".command textarea")
    assert "--rank 5 --targets all-linear,attention" in command.input_value()

    back.click()
    back.wait_for(state="hidden")
    assert tuning.field("Rank").input_value() == usual
    assert command.input_value() == "playground train --recipe follow-instructions"

    # another browser begins afresh
    other = visit()
    other.open("Fine-tune")
    assert other.field("Recipe").input_value() != "Follow instructions"


def test_a_phone_is_shown_the_run_that_it_started(visit):
    visitor = visit(viewport={"width": 390, "height": 844})
    visitor.wait_for_model()
    visitor.open("Fine-tune")
    page = visitor.page
    set_all(visitor, **{**SETTINGS, "Name": "on-a-phone"})
    page.get_by_text(re.compile(r"300 steps of 2 rows")).wait_for()
    page.get_by_role("button", name="Start training").click()
    state(visitor).get_by_text("on-a-phone").first.wait_for()
    box = "document.querySelector('.run-state').getBoundingClientRect()"
    page.wait_for_function(f"{box}.top >= 0 && {box}.bottom <= innerHeight")
    page.get_by_role("button", name="Stop and discard").click()
    page.get_by_role("button", name="Yes", exact=True).click()
    state(visitor).get_by_text("Stopped", exact=True).wait_for()
