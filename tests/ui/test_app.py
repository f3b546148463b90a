"""The page around the tabs: header, model state, banner, errors; nothing that needs another host."""

import collections
import re
from functools import partial
from types import SimpleNamespace

import gradio as gr
import pytest

from playground.errors import PlaygroundError
from playground.services.downloads import Progress
from playground.services.fetches import Fetch
from playground.ui import app, theme
from playground.ui.common import fetch_notice, shown, sparing
from tests.ui.conftest import make_services

MODEL = "smollm2-135m-instruct"
PROGRESS = Progress("downloading", 41e6, 93e6, 12e6, 4.3)


def state(services):
    names = ("state", "banner", "notice", "get", "cancel", "timer")
    return SimpleNamespace(**dict(zip(names, app.model_state(services), strict=True)))


def test_a_ready_model_needs_no_banner_and_little_polling(services):
    now = state(services)
    assert 'class="model-state ready"' in now.state
    assert (now.banner["visible"], now.timer["value"]) == (False, 5.0)


def test_a_loading_model_is_polled_each_second(services):
    services.engine.states[MODEL] = "loading"
    now = state(services)
    assert ('class="model-state loading"' in now.state, now.timer["value"], now.banner["visible"]) == (True, 1.0, False)


def test_without_the_model_the_banner_offers_to_get_it(services):
    services.sources.here.clear()
    now = state(services)
    assert "not on this machine yet" in now.state
    assert (now.banner["visible"], now.get["visible"], now.cancel["visible"]) == (True, True, False)
    app.get_model(services)
    assert services.fetches.started == [MODEL]


def test_a_fetch_shows_amount_rate_and_time_left_and_can_be_cancelled(services):
    services.sources.here.clear()
    services.fetches.fetches[MODEL] = Fetch(MODEL, progress=PROGRESS)
    now = state(services)
    assert "downloading: 41.0 of 93.0 MB, 12.0 MB/s, 4 s left" in now.notice
    assert "width:44%" in now.notice
    assert (now.get["visible"], now.cancel["visible"]) == (False, True)
    app.cancel_model(services)
    assert services.fetches.cancelled == [MODEL]


@pytest.mark.parametrize(
    ("fetch", "sentence"),
    [
        (Fetch(MODEL, "failed", error="- Hub: no <route>\n- wheel: no index"), "no &lt;route&gt;\n- wheel: no index"),
        (Fetch(MODEL, "cancelled"), "was cancelled. What was downloaded is kept."),
    ],
)
def test_a_fetch_that_ended_says_how_and_can_be_tried_again(services, fetch, sentence):
    services.sources.here.clear()
    services.fetches.fetches[MODEL] = fetch
    now = state(services)
    assert sentence in now.notice
    assert (now.get["visible"], now.get["value"]) == (True, "Try again")


def test_a_model_that_failed_to_load_says_why(services):
    services.engine.states[MODEL] = "failed: out of <memory>"
    assert "failed: out of &lt;memory&gt;" in state(services).state
    assert 'class="model-state failed"' in state(services).state


def test_a_fetch_without_progress_yet_says_that_it_has_begun(services):
    services.fetches.fetches[MODEL] = Fetch(MODEL)
    assert "Fetching SmolLM2 135M Instruct …" in fetch_notice(services, MODEL)


def test_playground_errors_are_shown_as_text_and_others_are_not_touched():
    def fails(error):
        raise error

    def streams(error):
        yield 1
        raise error

    with pytest.raises(gr.Error, match="no &lt;b&gt; here") as caught:
        shown(fails)(PlaygroundError("no <b> here"))
    assert caught.value.print_exception is False
    stream = shown(streams)(PlaygroundError("later"))
    assert next(stream) == 1
    with pytest.raises(gr.Error, match="later"):
        next(stream)
    with pytest.raises(ZeroDivisionError):
        shown(fails)(ZeroDivisionError())
    assert shown(lambda a, b: a + b)(1, 2) == 3


def test_what_a_timer_asks_for_is_sent_where_it_differs_from_what_was_sent():
    outputs = [gr.HTML(), gr.Button(), gr.HTML()]
    made = [["a", gr.update(visible=True), "x"]]
    look = sparing(lambda: made[0], outputs)
    *values, sent = look(None)
    assert values == made[0]
    assert look(sent) == [gr.skip()] * 4
    made[0] = ["b", gr.update(visible=True), gr.skip()]
    *values, later = look(sent)
    assert values == ["b", gr.skip(), gr.skip()]
    made[0] = {outputs[0]: "b", outputs[2]: "x"}  # as a handler may say it; what it leaves out stays
    assert look(later) == [gr.skip()] * 4
    made[0] = {outputs[2]: "y"}
    assert look(later)[:3] == [gr.skip(), gr.skip(), "y"]


def test_the_state_of_the_model_is_sent_once(services):
    look = sparing(partial(app.model_state, services), range(6))
    *_, sent = look(None)
    assert look(sent) == [gr.skip()] * 7
    services.engine.states[MODEL] = "loading"
    (line, *rest) = look(sent)
    assert "loading" in line
    assert rest[:4] == [gr.skip()] * 4


def test_a_handler_that_has_nothing_to_say_leaves_the_page_as_it_is():
    """gradio 6.31 empties every output of a generator that ends without a yield."""

    def steps(*said):
        yield from said

    assert list(shown(steps)()) == [gr.skip()]
    assert list(shown(steps)(1, 2)) == [1, 2]


def test_the_look_needs_no_other_host():
    everything = theme.THEME._get_theme_css() + app.CSS + theme.HEAD + theme.MASTHEAD
    # an SVG's namespace is a name, not an address
    assert re.findall(r"https?://(?!www\.w3\.org/).{20}|@import|//fonts", everything) == []


def test_all_text_sizes_follow_the_font_scale():
    css = theme.THEME._get_theme_css()
    sizes = re.findall(r"--text-\w+: (.*);", css)
    assert len(sizes) >= 7
    assert all("var(--font-scale" in size for size in sizes)


def test_every_tab_brings_its_css_and_the_titles_stand_in_order():
    assert [title for title, _ in app.TABS] == ["Templates", "Fine-tune", "Chat", "Tools"]
    assert all(tab.CSS in app.CSS for _, tab in app.TABS)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    services = make_services(tmp_path_factory.mktemp("page"))
    with gr.Blocks() as page:
        for tab in (app.arena_tab, app.train_tab, app.tools_tab, app.preview_tab):
            tab.build(services)
    return page


def test_no_two_listeners_of_an_event_wait_for_their_turn(page):
    """Two that do start each other again without end, see `whenever`."""
    waiting = collections.Counter()
    for listener in page.fns.values():
        if listener.trigger_mode == "always_last" and listener.fn is not None:
            waiting.update(
                target for target in listener.targets if target[0] in page.blocks
            )  # not what follows another
    assert len(waiting) > 10
    several = [(page.blocks[block], event) for (block, event), count in waiting.items() if count > 1]
    assert [one for one in several if one[1] != "load"] == []  # when the page opens, they are started singly


def test_whatever_may_raise_goes_through_the_queue(page):
    """Without the queue gradio answers 500 and the page shows nothing."""
    # a handler is wrapped by `shown` either inside a partial or around one
    handlers = [(event, getattr(event.fn, "func", event.fn), event.fn) for event in page.fns.values()]
    raising = [event for event, *functions in handlers if any(hasattr(f, "may_raise") for f in functions)]
    assert len(raising) > 10
    assert [event.fn for event in raising if not event.queue] == []
