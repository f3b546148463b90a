"""An image model on the Tools tab: offered where diffusers is, loaded in the background, stopped with the question."""

import threading
from types import SimpleNamespace

import gradio as gr
import pytest

from playground.core.tools import calculator
from playground.errors import PlaygroundError
from playground.services import draw
from playground.services.draw import Studio
from playground.ui.tool_talk import Talk
from playground.ui.tools import image_tool
from tests.services.test_draw import Pipeline


def services(host="", image_model=""):
    return SimpleNamespace(host=host, image_model=image_model)


def offer(studio, talk=None, own=(), where="tiny/model", steps=2, **about):
    given = [calculator.make()], studio, talk or Talk(), list(own), ["calculator"], []
    return list(image_tool.with_image(services(**about), *given, where, steps))


def test_a_model_is_loaded_while_the_page_says_so_and_then_offered(monkeypatch):
    monkeypatch.setattr(image_tool, "TICK", 0.01)
    loaded = threading.Event()
    studio = Studio(lambda where: loaded.wait(5) and Pipeline((64, 64)))
    steps = image_tool.with_image(services(), [calculator.make()], studio, Talk(), [], ["calculator"], [], "tiny/m", 2)
    *kept, said = next(steps)
    assert kept == [gr.skip()] * 3
    assert "Loading the image model" in said
    loaded.set()
    (own, on, asking, said) = list(steps)[-1]
    assert on["value"] == ["calculator", "draw_picture"]
    assert asking["value"] == []
    assert "tiny/m draws" in said
    assert own[0].run(prompt="a cat")["model"] == "m"
    (own, *_, said) = offer(studio, own=own, where="<b>/other")[-1]
    assert [tool.name for tool in own] == ["draw_picture"]
    assert "<b>" not in said


def test_a_picture_ends_with_its_question():
    talk = Talk()
    pipeline = Pipeline(at=lambda step: setattr(talk, "asked", talk.asked + 1))  # cleared, and asked again
    (own, *_) = offer(Studio(lambda where: pipeline), talk, steps=9)[-1]
    with pytest.raises(draw.ToolError, match="stopped"):
        own[0].run(prompt="a cat")
    assert pipeline.steps == 1


def test_what_cannot_be_offered_is_said_and_nothing_changes():
    def fail(where):
        raise PlaygroundError(f"{where} cannot be loaded as an image model: no such file")

    steps = image_tool.with_image(services(), [], Studio(fail), Talk(), [], [], [], "tiny/m", 2)
    assert next(step for step in steps if step[-1] == "")[:3] == (gr.skip(),) * 3
    with pytest.raises(PlaygroundError, match="no such file"):
        next(steps)
    with pytest.raises(PlaygroundError, match="name an image model"):
        offer(Studio(fail), where=" ")


def test_a_visitor_from_elsewhere_does_not_choose_what_is_fetched():
    asked = []
    studio = Studio(lambda where: asked.append(where) or Pipeline((8, 8)))
    offer(studio, where="evil/model", host="0.0.0.0", image_model="tiny/m")
    assert asked == ["tiny/m"]


@pytest.mark.parametrize(
    ("installed", "about", "sentence"),
    [
        (False, {}, "diffusers is not installed here"),
        (True, {"host": "0.0.0.0"}, "No image model was chosen for this server"),
        (True, {"host": "0.0.0.0", "image_model": "tiny/m"}, ""),
        (True, {}, ""),
    ],
)
def test_without_diffusers_or_a_model_the_page_says_what_is_missing(monkeypatch, installed, about, sentence):
    monkeypatch.setattr(draw, "installed", lambda: installed)
    assert sentence in image_tool.why_not(services(**about))
    with gr.Blocks() as page:
        events = image_tool.build(services(**about), [], gr.State(Talk()), gr.State([]), [gr.CheckboxGroup([])] * 2)
    assert bool(events) == (not sentence)
    assert any(isinstance(block, gr.Textbox) for block in page.blocks.values()) == (not sentence)
