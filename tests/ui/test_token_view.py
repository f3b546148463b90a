"""Token chips of a reply, and the form for lanes elsewhere."""

from types import SimpleNamespace

import gradio as gr
import pytest

from playground.core.generation import Choice
from playground.errors import PlaygroundError
from playground.services.remote import Remotes
from playground.ui import endpoints, token_view
from playground.ui.common import Services

PIECES = {1: "<b>", 2: " cat", 3: "\n"}
TOKENIZER = SimpleNamespace(pieces=lambda ids: [PIECES[i] for i in ids])


def test_tokens_are_shown_with_their_alternatives_and_escaped():
    said = [Choice(1, 0.25, ((2, 0.7), (1, 0.25))), Choice(3, 0.0001, ((2, 0.9), (1, 0.05)))]
    shown = token_view.tokens_html(TOKENIZER, said)
    assert "<b>" not in shown.replace('<b tabindex="0"', "")
    assert "&lt;b&gt;" in shown
    assert "70.0 %  cat" in shown
    assert "→ 25.0 % &lt;b&gt;" in shown
    assert "&lt; 0.1 % ↵" in shown
    assert shown.count('id 1"') == shown.count('id 3"') == 1  # each token's own number
    assert "2 tokens; 0% of them were the likeliest" in shown
    assert token_view.tokens_html(TOKENIZER, []) == token_view.EMPTY


def test_a_reply_whose_lane_is_gone_is_said_so():
    def gone(model, adapter):
        raise PlaygroundError(f"there is no adapter called {adapter} <b>")

    engine = SimpleNamespace(tokenizer=gone)
    lane = SimpleNamespace(model="small", adapter="tuned")
    reply = SimpleNamespace(lane=lane, text="Hi", choices=[Choice(2, 1.0, ((2, 1.0),))])
    assert "no adapter called tuned &lt;b&gt;" in token_view.reply_html(engine, reply)
    elsewhere = SimpleNamespace(lane=lane, text="Hi", choices=[])  # also after its server was removed
    assert token_view.reply_html(engine, elsewhere) == token_view.ELSEWHERE
    assert token_view.reply_html(engine, None) == token_view.EMPTY


@pytest.fixture
def services():
    entry = SimpleNamespace(name="small", title="Small")
    engine = SimpleNamespace(remotes=Remotes())
    sources = SimpleNamespace(entries=lambda: [entry])
    return Services(None, sources, engine, None, None, model="small")


def choices(services):
    return [("Small", "small"), *((e.name, e.name) for e in services.engine.remotes.all())]


def test_a_server_is_named_and_forgotten(services):
    table, named, remove, key, first, second = endpoints.add(
        services, choices, " big ", "http://h:1/v1", "m<i>", "k", "small", ""
    )
    assert "m&lt;i&gt;" in table
    assert "with a key" in table
    assert key == ""
    assert remove["choices"] == ["big"]
    assert endpoints.named(services) == [table, named, remove]  # also where the page is opened later
    assert first["choices"] == [("Small", "small"), ("big", "big")]
    assert (first["value"], second["value"]) == ("small", "small")
    table, removal, _, _, first = endpoints.remove(services, choices, "big", "big")
    assert "None yet" in table
    assert (named["visible"], removal["visible"]) == (True, False)
    assert (first["choices"], first["value"]) == ([("Small", "small")], "small")


@pytest.mark.parametrize(
    "given, sentence",
    [
        (("small", "http://h/v1", "m", ""), "small is a model of the catalog"),
        (("", "http://h/v1", "m", ""), "an endpoint's name is"),
        (("big", "h/v1", "m", ""), "must begin with http"),
        (("big", None, None, None), "must begin with http"),
    ],
)
def test_bad_servers_are_sentences(services, given, sentence):
    with pytest.raises(PlaygroundError, match=sentence):
        endpoints.add(services, choices, *given)


@pytest.mark.parametrize("host, form", [("", True), ("127.0.0.1", True), ("0.0.0.0", False)])
def test_only_this_machines_page_names_servers(services, host, form):
    from dataclasses import replace

    with gr.Blocks() as page:
        endpoints.build(replace(services, host=host), choices, [gr.Dropdown()])
    labels = [getattr(block, "label", None) for block in page.blocks.values()]
    assert ("Address" in labels) is form


def test_only_lanes_that_the_page_shows_can_be_chosen():
    assert token_view.shown_lanes(2, 1) == gr.update(choices=[("lane 1", 0), ("lane 2", 1)], value=1)
    assert token_view.shown_lanes(2, 3)["value"] == token_view.shown_lanes(2, None)["value"] == 0
