"""Tools as a test bench: faults by name, calls held to a schema, scorecards, servers attached, small and dark pages."""

import json
import re
import sys

import pytest

from tests.browser.conftest import settle

SERVER = '''
from mcp.server.fastmcp import FastMCP

server = FastMCP("library")


@server.tool()
def shelf_of(title: str) -> str:
    """The shelf of the library on which a book stands"""
    return "B 12"


server.run()
'''
REPLY = 180_000  # ms; a reply on a busy machine
PANELS = ("tools-what", "tools-second", "tools-own", "tools-mcp", "tools-model-tool", "tools-loop", "tools-scorecard")


@pytest.fixture
def bench(visit):
    """`bench(…)` opens the Tools tab; the options are those of `visit`."""

    def bench(**context):
        visitor = visit(**context)
        visitor.wait_for_model()
        visitor.open("Tools")
        visitor.page.locator("#tools-question").wait_for()
        return visitor

    return bench


def ask(page, question: str):
    """Ask and wait for the end; the chat."""
    chat = begin(page, question)
    page.locator("#tools-stop").wait_for()
    idle(page)
    return chat


def idle(page):
    """Wait for the end of what runs. Stop is shown a moment before Ask is hidden, so it is Stop that tells."""
    page.locator("#tools-stop").wait_for(state="hidden", timeout=REPLY)
    page.locator("#tools-ask").wait_for()


def last(chat, words):
    """Wait until the chat's last bubble has these words."""
    chat.locator("[data-testid='bot']").last.filter(has_text=words).wait_for()


def offer(page, *names: str):
    """Only these tools are on offer."""
    for label in page.locator("#tools-chosen label").all():
        label.locator("input").set_checked(label.inner_text().strip() in names)


def decode(page, mode: str):
    page.locator("#tools-mode label", has_text=mode).click()


def ask_before(page, name: str):
    """A call of this tool waits for a yes."""
    page.locator("#tools-ask-first input").click()
    page.get_by_role("option", name=name, exact=True).click()
    page.locator("#tools-ask-first input").press("Escape")


def begin(page, question: str):
    """Ask, and do not wait; the chat."""
    page.locator("#tools-question textarea").fill(question)
    page.locator("#tools-ask").click()
    return page.locator("#tools-chat")


def end(page):
    """Stop it if it has not ended by itself; the chat stays."""
    page.evaluate("document.querySelector('#tools-stop')?.click()")
    idle(page)


def unfold(page, name: str):
    page.locator(f"#{name} > button").first.click()
    settle(page)


def test_a_wrong_call_is_named_and_the_model_has_a_second_try(bench):
    page = bench().page
    chat = ask(page, "How warm is it in Pariss?")
    chat.get_by_text("Result: tool error").wait_for()
    assert "did you mean Paris?" in chat.inner_text(), "the reason stands unfolded"
    chat.get_by_text("The model writes (turn 2)").wait_for()
    page.locator("#tools-status", has_text="answered · faults: tool error").wait_for()
    last(chat, re.compile(r"\w"))


def test_the_untuned_model_is_held_to_the_schemas_and_the_cost_is_shown(bench):
    visitor = bench()
    page = visitor.page
    page.locator("#tools-adapter input").click()
    page.get_by_role("option", name="None: the model as it is").first.click()
    decode(page, "must call")
    chat = begin(page, "What's the weather in Paris?")
    chat.get_by_text("Check: fits the tool's schema").first.wait_for(timeout=REPLY)
    cost = re.compile(r"in tokens/s: (valid calls .*)?must call [\d.]+ \([\d.]+ ms a token for the grammar\)")
    page.locator("#tools-status", has_text=cost).wait_for()
    end(page)


def test_a_function_of_ones_own_is_called_with_a_text_until_a_grammar_asks_for_a_number(bench):
    page = bench().page
    unfold(page, "tools-own")
    page.locator("#tools-own").get_by_role("tab", name="Python", exact=True).click()
    page.get_by_role("button", name="Add this function").click()
    page.locator("#tools-chosen label:has(input:checked)", has_text="area_of_circle").wait_for()
    offer(page, "area_of_circle")
    question = "What is the area of a circle of radius 2?"
    chat = ask(page, question)
    chat.get_by_text("Check: wrong type").wait_for()
    chat.get_by_text("The model writes (turn 2)").wait_for()
    decode(page, "must call")
    begin(page, question)
    chat.get_by_text('Result: {"result": 12.566370614359172}').wait_for(timeout=REPLY)
    both = re.compile(
        r"in tokens/s: off [\d.]+, (valid calls .*)?must call [\d.]+ \([\d.]+ ms a token for the grammar\)"
    )
    page.locator("#tools-status", has_text=both).wait_for(timeout=REPLY)
    end(page)


def test_a_plot_is_a_picture_in_the_chat_and_stays_there_after_stop(bench):
    page = bench().page
    offer(page, "plot")
    decode(page, "must call")
    chat = begin(page, "Draw x**2 from -3 to 3")
    picture = chat.locator("img.tools-picture").first
    picture.wait_for(timeout=REPLY)
    assert picture.get_attribute("alt") == "Line chart of x**2 from -3 to 3"
    page.wait_for_function("document.querySelector('img.tools-picture').naturalWidth > 100")
    end(page)
    drawn = chat.locator("img.tools-picture").count()
    ask_before(page, "plot")  # a call that waits keeps the next question from ending before it is stopped
    begin(page, "Draw x**3 from -2 to 2")
    page.locator("#tools-permission").first.get_by_text("plot(").wait_for(timeout=REPLY)
    assert picture.is_visible()
    page.locator("#tools-stop").click()
    idle(page)
    page.locator("#tools-status", has_text="stopped").wait_for()
    chat.get_by_text("Result: not run").wait_for()
    assert picture.is_visible()
    assert chat.locator("img.tools-picture").count() == drawn
    assert page.locator("#tools-question textarea").input_value() == ""


def test_python_that_the_model_writes_is_run_or_refused(bench):
    page = bench().page
    offer(page, "python")
    decode(page, "must call")
    chat = begin(page, "Run import socket")
    chat.get_by_text("socket is not available in the Python tool").first.wait_for(timeout=REPLY)
    end(page)
    page.locator("#tools-clear").click()
    ask(page, "Run print(6*7)")
    chat.get_by_text('Result: {"value": "42"}').wait_for()
    last(chat, "42")


def test_a_call_waits_for_a_yes_and_another_result_is_put_in_its_place(bench):
    page = bench().page
    ask_before(page, "get_weather")
    chat = begin(page, "What's the weather in Paris?")
    permission = page.locator("#tools-permission").first
    permission.get_by_text('get_weather(city = "Paris")').wait_for(timeout=REPLY)
    permission.get_by_role("button", name="No", exact=True).click()
    chat.get_by_text("Result: declined").wait_for(timeout=REPLY)
    end(page)
    page.locator("#tools-clear").click()
    begin(page, "What's the weather in Paris?")
    permission.get_by_role("button", name="Yes, run it").click(timeout=REPLY)
    page.locator("#tools-status", has_text="answered").wait_for(timeout=REPLY)
    assert "-40" not in chat.inner_text()
    unfold(page, "tools-steps")
    held = page.locator("#tools-steps textarea")
    said = json.loads(held.input_value())
    held.fill(json.dumps({**said, "temperature_c": -40}))
    page.locator("#tools-again").click()
    page.locator("#tools-stop").wait_for()
    chat.get_by_text("What if get_weather had said").wait_for()
    idle(page)
    last(chat, "40")


def test_a_pasted_schema_answers_what_was_written_for_it_and_a_broken_one_is_refused(bench):
    page = bench(viewport={"width": 390, "height": 844}).page
    unfold(page, "tools-own")
    held = page.locator("#tools-own .cm-content").first
    schema = held.inner_text()
    held.fill("{")
    page.get_by_role("button", name="Add this tool").click()
    page.get_by_text("the schema is not JSON").wait_for()
    held.fill(schema)
    page.get_by_role("button", name="Add this tool").click()
    page.locator("#tools-chosen label:has(input:checked)", has_text="find_book").wait_for()
    offer(page, "find_book")
    chat = ask(page, "Find the book Momo")
    chat.get_by_text('Result: {"shelf": "B 12", "copies": 2}').wait_for()


NOTE_STATUS = """() => {
    window.statusShown = [];
    new MutationObserver(() => {
        const text = document.querySelector("#score-status")?.textContent ?? "";
        if (text !== window.statusShown.at(-1)) window.statusShown.push(text);
    }).observe(document.body, {childList: true, subtree: true, characterData: true});
}"""


def test_a_scorecard_of_the_model_before_and_after_it_learned_to_call(bench):
    visitor = bench()
    page = visitor.page
    unfold(page, "tools-scorecard")
    visitor.field("How many").fill("2")
    page.evaluate(NOTE_STATUS)  # a quick machine shows it for less time than there is between two looks
    page.locator("#score-start").click()
    status = page.locator("#score-status")
    status.get_by_text(re.compile(r"Done · 4 of 4 replies")).wait_for(timeout=REPLY)
    shown = page.evaluate("window.statusShown")
    assert any(re.search(r"Asking · \d of 4 replies", text) for text in shown), shown
    heads = page.locator("#score-table table").first.locator("thead th")
    assert heads.count() == 3, "the outcome, the untuned lane, the tuned lane"
    valid = page.locator("#score-table tr.valid td")
    assert re.match(r"\d", valid.last.inner_text())
    page.get_by_role("button", name="Replies, one by one").click()
    rows = page.locator("#score-rows details")
    rows.first.locator("summary").click()
    opened = rows.first.inner_text()
    assert rows.count() == 4
    assert all(part in opened for part in ("Asked", "Raw reply", "Parsed", "Expected")), opened
    page.locator("#score-start").wait_for()


def test_a_guided_loop_makes_rows_trains_a_step_and_another_page_finds_it(bench):
    page = bench().page
    unfold(page, "tools-loop")
    page.locator("#loop-rows input").fill("24")
    page.locator("#loop-questions input").fill("4")
    page.locator("#loop-make").click()
    page.locator("#loop-report", has_text="24 rows (").wait_for()
    report = page.locator("#loop-report").inner_text()
    assert "each fits its schema" in report
    assert "4 held-out questions" in report
    page.locator("#loop-train-steps input").fill("1")
    page.locator("#loop-train").click()
    page.locator("#loop-run", has_text="-round-1").wait_for()
    other = bench().page
    unfold(other, "tools-loop")
    other.locator("#loop-steps li.now", has_text="Score").wait_for(timeout=2 * REPLY)
    assert "Finished" in other.locator("#loop-run").inner_text()
    other.locator("#loop-score").wait_for()
    assert other.locator("#loop-train").is_hidden()


def test_a_server_is_attached_its_tool_listed_and_let_go(bench, tmp_path):
    script = tmp_path / "library.py"
    script.write_text(SERVER)
    page = bench().page
    unfold(page, "tools-mcp")
    unfold(page, "tools-what")
    page.locator("#tools-mcp-where").locator("input, textarea").fill(f'"{sys.executable}" "{script}"')
    page.locator("#tools-mcp-attach").click()
    servers = page.locator("#tools-mcp-servers")
    servers.get_by_role("cell", name="attached", exact=True).wait_for(timeout=60_000)  # a Python has to start
    page.locator("#tools-chosen label:has(input:checked)", has_text="shelf_of").wait_for()
    page.locator("#tools-ask-first", has_text="shelf_of").wait_for()
    what = page.locator("#tools-what dd", has_text="The shelf of the library on which a book stands")
    what.wait_for()
    page.locator("#tools-mcp-detach").click()
    page.locator("#tools-mcp-servers", has_text="No server is attached").wait_for()
    what.wait_for(state="detached")
    assert page.locator("#tools-chosen label", has_text="shelf_of").count() == 0


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_opened_panel_fits_the_page(bench, width, scheme):
    visitor = bench(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = visitor.page
    for name in PANELS:
        unfold(page, name)
    page.locator("#tools-own textarea:visible, #tools-own .cm-content:visible").first.wait_for()
    page.locator("#score-start").wait_for()
    assert visitor.fits()
