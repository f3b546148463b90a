"""Chat, what came with battles: hidden lanes, one vote, the board, token view, difference, snapshot, far lanes."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

EVIL = '<img src=x onerror="window.obeyed=1">'
DONE = re.compile("finished|cut at|stopped")
PHONE = {"viewport": {"width": 390, "height": 844}}


@pytest.fixture
def chat(visit):
    visitor = visit()
    visitor.wait_for_model()
    visitor.open("Chat")
    return visitor


def ask_lanes(visitor, text, lanes=(1, 2), tokens=6):
    page = visitor.page
    page.get_by_role("button", name="System prompt, tools and sampling").click()
    page.get_by_label("max new tokens", exact=False).first.fill(str(tokens))
    page.get_by_role("button", name="System prompt, tools and sampling").click()
    page.locator("#arena-prompt textarea").fill(text)
    page.locator("#arena-send").click()
    for number in lanes:
        page.locator(f"#lane-{number} .lane-status", has_text=DONE).wait_for(timeout=120_000)


def votes_rated(visitor) -> int:
    board = visitor.page.locator("#board-table .board")
    return int(board.get_attribute("data-votes") or 0)


def downloaded(visitor, press) -> str:
    with visitor.page.expect_download() as coming:
        press()
    return Path(coming.value.path()).read_text(encoding="utf-8")


def test_a_blind_battle_is_voted_on_once_and_counted(chat):
    page = chat.page
    chat.open("Leaderboard")
    page.get_by_label("Count battles in which a reply gave away a name").check()
    page.locator("#board-table .board").wait_for()
    before = votes_rated(chat)
    chat.open("Blind battle")
    page.locator("#battle-prompt textarea").fill("What is 2 + 2? Answer with one word.")
    page.locator("#battle-ask").click()
    sides = page.locator(".battle-side:visible")
    for index in range(2):
        sides.nth(index).locator(".battle-line", has_text=re.compile("writing|finished")).wait_for()
    # one of them may ramble on; what they wrote until now can be voted on
    page.evaluate("document.querySelector('#battle-stop')?.click()")
    page.wait_for_function("!document.querySelector('#battle-left').disabled")
    hidden = sides.nth(0).inner_text() + sides.nth(1).inner_text()
    assert "SmolLM2-135M" not in hidden
    assert page.locator("#battle-reveal").inner_text().strip() == ""
    assert not any(button.is_visible() for button in sides.get_by_role("button").all())  # no bin to empty one side
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("1")
    page.locator("#battle-reveal", has_text="Left was").wait_for()
    assert "Your vote: left is better. Votes you gave: 1" in page.locator("#battle-reveal").inner_text()
    page.keyboard.press("2")
    page.locator("#battle-left").dispatch_event("click")
    page.locator("#battle-ask", has_text="Next battle").wait_for()

    chat.open("Leaderboard")
    page.locator(f"#board-table [data-votes='{before + 1}']").wait_for()
    page.locator("#board-matrix td.met").first.wait_for()
    chat.unfold("Export, import, reset")
    page.locator("#votes-export").click()
    page.locator("#votes-told", has_text="ready to download").wait_for()
    rows = [json.loads(line) for line in downloaded(chat, page.locator("#votes-download").click).splitlines()]
    assert [row["winner"] for row in rows if row["kind"] == "blind"] == ["left"]  # the second press gave no vote


def test_a_blind_battle_goes_on_before_its_vote(chat):
    page = chat.page
    chat.open("Blind battle")
    sides = page.locator(".battle-side:visible")
    for text in ("Name a fruit.", "And a colour?"):
        page.locator("#battle-prompt textarea").fill(text)
        page.locator("#battle-ask").click()
        for index in range(2):
            sides.nth(index).locator(".user.message", has_text=text).wait_for()
            sides.nth(index).locator(".battle-line", has_text=re.compile("writing|finished|cut")).wait_for()
        page.evaluate("document.querySelector('#battle-stop')?.click()")
        page.wait_for_function("!document.querySelector('#battle-left').disabled")
        page.wait_for_function("!document.querySelector('#battle-prompt textarea').disabled")
    assert "SmolLM2-135M" not in sides.nth(0).inner_text() + sides.nth(1).inner_text()
    assert [sides.nth(index).locator(".user.message").count() for index in range(2)] == [2, 2]
    page.locator("#battle-tie").click()
    page.locator("#battle-reveal", has_text="It is on all 2 turns").wait_for()


def test_replies_are_taken_apart_compared_and_kept(chat):
    page = chat.page
    assert not page.locator("#arena-edit").is_visible()
    ask_lanes(chat, EVIL)
    page.locator("#arena-edit").wait_for()
    chat.unfold("Token by token")
    chips = page.locator(".token-view b")
    chips.first.wait_for()
    likely = chips.first.get_attribute("data-likely")
    assert re.match(r"(\d+\.\d|< 0\.1) % ", likely)
    assert likely.count("%") == 6  # its own and the five likeliest
    box = "getComputedStyle(document.querySelector('.token-view b'), '::after').content"
    assert page.evaluate(box) == "none"
    chips.first.focus()  # by keyboard, and by a finger
    assert page.evaluate(box).count("%") == 6
    shades = chips.evaluate_all("chips => chips.map((chip) => getComputedStyle(chip).backgroundColor)")
    assert len(set(shades)) > 1  # the less likely, the darker
    assert re.search(r"\d+ tokens; \d+% of them", page.locator(".token-view").inner_text())

    page.locator(".vote-row").scroll_into_view_if_needed()
    chat.unfold("What differs between the two replies")
    page.locator(".reply-difference", has_text="of the longer reply is the same").wait_for()

    page.locator("#arena-snapshot").click()
    button = page.get_by_text("Download the snapshot (HTML)")
    button.wait_for()
    text = downloaded(chat, button.click)
    assert text.count("&lt;img src=x") >= 2
    assert "<img" not in text
    assert page.evaluate("window.obeyed") is None


class Elsewhere(BaseHTTPRequestHandler):
    """An OpenAI-compatible server that says two words and ends."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for text, reason in (("Hello from ", None), ("far <b>away</b>.", "stop")):
            event = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]}
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *args):
        pass


@pytest.fixture
def elsewhere():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def test_a_lane_elsewhere_is_added_asked_and_removed(chat, elsewhere):
    page = chat.page
    chat.unfold("Lanes elsewhere")
    page.locator("#endpoint-name input, #endpoint-name textarea").first.fill("far")
    page.locator("#endpoint-url input, #endpoint-url textarea").first.fill(elsewhere)
    page.locator("#endpoint-model input, #endpoint-model textarea").first.fill("stub")
    page.locator("#endpoint-add").click()
    page.locator(".endpoints td", has_text="far").first.wait_for()
    lane = page.locator("#lane-2")
    lane.locator(".lane-settings button").first.click()
    lane.get_by_label("Model").click()
    page.get_by_role("option", name="far (elsewhere)").click()
    lane.get_by_role("button", name=re.compile("^Lane 2: far")).wait_for()
    ask_lanes(chat, "Hello", lanes=(2,))
    lane.locator(".message", has_text="Hello from far <b>away</b>.").first.wait_for()
    assert lane.locator(".message b").count() == 0

    page.locator("#lane-1 .lane-status", has_text=DONE).wait_for(timeout=120_000)
    page.locator("#endpoints").get_by_label("Remove").click()
    page.get_by_role("option", name="far", exact=True).click()
    page.locator("#endpoints").get_by_role("button", name="Remove", exact=True).click()
    page.locator(".endpoints", has_text="None yet").wait_for()
    lane.get_by_role("button", name=re.compile("^Lane 2: SmolLM2")).wait_for()


@pytest.mark.parametrize("look", [PHONE, {"color_scheme": "dark"}, PHONE | {"color_scheme": "dark"}])
def test_everything_open_fits_the_page(visit, look):
    visitor = visit(**look)
    page = visitor.page
    visitor.wait_for_model()
    visitor.open("Chat")
    titles = ("System prompt", "What differs", "Token by token", "Lanes elsewhere")
    views = {
        "Side by side": titles,
        "Blind battle": ("For the teacher",),
        "Leaderboard": ("A model as judge", "Export, import, reset"),
    }
    for view, titles in views.items():
        visitor.open(view)
        for title in titles:
            visitor.unfold(title)
            page.wait_for_timeout(150)  # it slides open
        assert visitor.fits(), view
