"""What a page that runs for days holds on to: a gradio state holder, filled by hand."""

import datetime
import platform

import gradio as gr
import psutil
import pytest
from gradio.state_holder import StateHolder

from playground.ui import housekeeping


@pytest.fixture
def page():
    with gr.Blocks() as page:
        page.ended = []
        page.chat = gr.State([], delete_callback=page.ended.append)
    page.state_session_capacity = 128
    StateHolder().set_blocks(page)
    return page


def visit(page, name, closed=True, minutes_ago=10):
    state = page.state_holder[name]
    state[page.chat._id] = name
    state.is_closed = closed
    page.state_holder.time_last_used[name] = datetime.datetime.now() - datetime.timedelta(minutes=minutes_ago)


def test_of_closed_pages_only_the_newest_are_kept(page, monkeypatch):
    monkeypatch.setattr(housekeeping, "CLOSED", 2)
    for number in range(5):
        visit(page, f"closed {number}")
    visit(page, "open", closed=False, minutes_ago=60)
    assert housekeeping.forget_closed(page) == 3
    assert list(page.state_holder.session_data) == ["closed 3", "closed 4", "open"]
    assert set(page.state_holder.time_last_used) == {"closed 3", "closed 4", "open"}
    assert page.ended == ["closed 0", "closed 1", "closed 2"]  # what a chat had running is ended
    assert housekeeping.forget_closed(page) == 0


def test_a_page_that_came_back_keeps_its_chat(page, monkeypatch):
    monkeypatch.setattr(housekeeping, "CLOSED", 1)
    visit(page, "back", minutes_ago=0)  # gradio still calls it closed
    visit(page, "gone")
    visit(page, "newest")
    assert housekeeping.forget_closed(page) == 1
    assert list(page.state_holder.session_data) == ["back", "newest"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries give it back by themselves, or not")
def test_freed_memory_goes_back_to_the_system():
    process = psutil.Process()
    blocks = [bytearray(b"1" * 50_000) for _ in range(1500)]
    last = blocks.pop()  # at the heap's end, so that nothing before it goes back by itself
    del blocks
    before = process.memory_info().rss
    assert housekeeping.give_back()
    assert before - process.memory_info().rss > 30 * 2**20
    assert len(last) == 50_000
