"""An image model as a tool, with a stand-in for diffusers' pipeline: bounds, stopping, one at a time, sentences."""

import base64
import re
import threading
from types import SimpleNamespace

import pytest
from PIL import Image

from playground.core import tools
from playground.core.tools import ToolError
from playground.errors import PlaygroundError
from playground.services import draw
from playground.services.draw import Studio, make
from playground.services.tool_limits import LONGEST_PICTURE, ToolLimits


class Pipeline:
    """Paints one colour, a step at a time; `at` is called before each look."""

    def __init__(self, size=(1600, 800), at=lambda step: None, error=None):
        self.size, self.at, self.error, self.steps = size, at, error, 0

    def __call__(self, prompt, num_inference_steps, callback_on_step_end):
        if self.error:
            raise self.error
        for step in range(num_inference_steps):
            self.steps += 1
            self.at(step)
            assert callback_on_step_end(self, step, 0, {"latents": 1}) == {"latents": 1}
        return SimpleNamespace(images=[Image.effect_noise(self.size, 90)])


def test_words_become_a_picture_that_the_model_does_not_see():
    pipeline = Pipeline()
    tool = ToolLimits().bounded(make(pipeline, "tiny", 3))
    result = tool.run(prompt="a red <cat>")
    assert pipeline.steps == 3
    assert tools.without_picture(result) == {"drawn": "a red <cat>", "model": "tiny", "size": "1600 x 800", "steps": 3}
    picture = tools.picture(result)
    assert picture["alt"] == "Picture drawn by tiny: a red <cat>"
    assert 'width="512" height="256"' in picture["svg"]
    jpeg = base64.b64decode(re.search(r"base64,([^\"]+)", picture["svg"])[1])
    assert jpeg.startswith(b"\xff\xd8")
    assert len(picture["svg"]) < LONGEST_PICTURE
    assert "_picture" not in tools.result_text(result)
    assert tool.schema["function"]["parameters"]["required"] == ["prompt"]


def test_it_ends_at_the_step_where_the_visitor_stopped_or_time_is_up():
    stopped = threading.Event()
    pipeline = Pipeline(at=lambda step: step == 1 and stopped.set())
    with pytest.raises(ToolError, match="The visitor stopped before the picture was done"):
        make(pipeline, "tiny", 9, lambda: stopped.is_set).run(prompt="a cat")
    assert pipeline.steps == 2
    with pytest.raises(ToolError, match="not done within 0 seconds: 1 of 9 steps"):
        make(Pipeline(), "tiny", 9, seconds=0).run(prompt="a cat")


@pytest.mark.parametrize(
    ("pipeline", "prompt", "sentence"),
    [
        (Pipeline(), " ", "The prompt is empty"),
        (Pipeline(), "x" * 401, "The prompt has 401 characters, at most 400"),
        (Pipeline(error=RuntimeError("out of memory\ntrace")), "a cat", "could not be drawn: out of memory$"),
        (Pipeline(error=TypeError("missing image")), "a cat", "could not be drawn: missing image"),
    ],
)
def test_what_cannot_be_drawn_is_an_error_of_the_tool(pipeline, prompt, sentence):
    tool = make(pipeline, "tiny")
    with pytest.raises(ToolError, match=sentence):
        tool.run(prompt=prompt)


def test_one_picture_at_a_time():
    refused = []

    def meanwhile(step):
        with pytest.raises(ToolError) as error:
            make(Pipeline(), "tiny", lock=lock).run(prompt="another")
        refused.append(str(error.value))

    lock = threading.Lock()
    make(Pipeline(at=meanwhile), "tiny", 1, lock=lock).run(prompt="a cat")
    assert refused == ["Another picture is being drawn; ask again when it is done."]
    make(Pipeline(), "tiny", 1, lock=lock).run(prompt="a third")


@pytest.mark.parametrize("steps", [0, 51, 2.5])
def test_steps_are_bounded(steps):
    with pytest.raises(PlaygroundError, match=f"a picture takes 1 to 50 steps, got {steps}"):
        make(Pipeline(), "tiny", steps)


def test_a_model_is_loaded_once_and_gives_way_to_the_next():
    loaded = []
    studio = Studio(lambda where: loaded.append(where) or f"pipeline of {where}")
    said = [studio.begin(where).result(5) for where in ("a", " a ", "b", "a")]
    assert said == ["pipeline of a", "pipeline of a", "pipeline of b", "pipeline of a"]
    assert loaded == ["a", "b", "a"]


def test_what_is_no_image_model_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(draw, "installed", lambda: False)
    with pytest.raises(PlaygroundError, match=r"diffusers is not installed here: pip install -e '.\[images\]'"):
        draw.load_pipeline("owner/name")
    monkeypatch.setattr(draw, "installed", lambda: True)
    for where, sentence in (
        ("", "'' is no image model: give a folder with a model_index.json, or a Hub id"),
        ("/nowhere/at/all", "'/nowhere/at/all' is no image model"),
        (str(tmp_path), "has no model_index.json"),
    ):
        with pytest.raises(PlaygroundError) as error:
            draw.load_pipeline(where)
        assert sentence in str(error.value)
