"""A page gives what gradio's Blocks gives, and makes nothing anew that is left as it is."""

import asyncio

import gradio as gr
import pytest
from gradio.state_holder import SessionState

from playground.ui.page import Page

CASES = {
    "a few of the outputs": lambda box, number, html, state: {box: "hello", html: gr.update(visible=False)},
    "one of them": lambda box, number, html, state: {number: 3},
    "a state": lambda box, number, html, state: {state: [1, 2]},
    "a list with some skipped": lambda box, number, html, state: [gr.skip(), 4, "<b>", gr.skip()],
    "all in a tuple": lambda box, number, html, state: ("a", 5, gr.update(value="x"), {"k": 1}),
    "none": lambda box, number, html, state: gr.skip(),
    "none, by an empty dict": lambda box, number, html, state: {box: gr.skip()},
    "a component": lambda box, number, html, state: {box: gr.Textbox(label="new", value="v")},
}


def given(kind, made):
    """(the outputs' data, the state's value) for what a handler returned."""
    with kind() as page:
        box, number, html, state = gr.Textbox(), gr.Number(), gr.HTML(), gr.State(0)
        gr.Button().click(lambda: None, None, [box, number, html, state])
    (function,) = page.fns.values()
    session = SessionState(page)
    data = asyncio.run(page.postprocess_data(function, made(box, number, html, state), session))
    for one in data:  # what gradio adds for an HTML component that is left as it is says nothing
        if isinstance(one, dict) and one.get("props") == gr.skip():
            del one["props"]
    return data, session[state._id]


@pytest.mark.parametrize("case", CASES)
def test_it_gives_what_gradio_gives(case):
    assert given(Page, CASES[case]) == given(gr.Blocks, CASES[case])


def test_what_is_left_as_it_is_costs_nothing(monkeypatch):
    described = []
    whole = gr.blocks.BlocksConfig.config_for_block

    def describe(key, *rest):
        described.append(key)
        return whole(key, *rest)

    monkeypatch.setattr(gr.blocks.BlocksConfig, "config_for_block", staticmethod(describe))
    given(gr.Blocks, CASES["one of them"])
    by_gradio = len(described)
    described.clear()
    given(Page, CASES["one of them"])
    assert len(described) <= by_gradio - 2


def test_a_wrong_number_of_values_is_said_as_gradio_says_it():
    with pytest.raises(ValueError, match="output"):
        given(Page, lambda *outputs: ["a", 1])


def test_the_app_is_such_a_page(services):
    from playground.ui import app

    assert isinstance(app.build(services), Page)
