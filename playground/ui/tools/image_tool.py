"""An image model as a tool, where diffusers is installed: choose one, and the model may have pictures drawn."""

import html
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from functools import partial

import gradio as gr

from playground.core.tools import Tool
from playground.errors import PlaygroundError
from playground.services import draw
from playground.services.hosts import is_local
from playground.services.tool_limits import ToolLimits
from playground.ui.common import QUEUED, Services, shown
from playground.ui.own_tools import offered
from playground.ui.tool_talk import Talk

TICK = 1.0  # seconds between two looks at a model that is being loaded
GRACE = 30.0  # seconds beyond the tool's own clock: it looks at it between steps
ABOUT = (
    "Offer an image model to the model: it describes a picture in words, and the picture stands in the chat. Stop ends"
    " it at its next step. A model that draws in 1 to 4 steps suits a CPU."
)
UNCHOSEN = "No image model was chosen for this server: `playground serve --image-model`."


def build(services: Services, toolbox: list[Tool], talk: gr.State, own: gr.State, groups: list) -> list:
    """The form, or why there is none; returns the events that change `own`."""
    with gr.Accordion("An image model as a tool", open=False, elem_id="tools-image-tool"):
        missing = why_not(services)
        gr.Markdown(missing or ABOUT)
        if missing:
            return []
        where = gr.Textbox(
            services.image_model,
            label="Folder or Hub id",
            placeholder="stabilityai/sd-turbo",
            max_lines=1,
            interactive=is_local(services.host),
            elem_id="tools-image-where",
        )
        steps = gr.Slider(1, draw.MAX_STEPS, value=draw.STEPS, step=1, label="Steps of a picture")
        add = gr.Button(f"Offer it as {draw.NAME}", size="sm", elem_id="tools-image-add")
        state = gr.HTML(elem_id="tools-image-state")
    offer = shown(partial(with_image, services, toolbox, draw.Studio()))
    return [add.click(offer, [talk, own, *groups, where, steps], [own, *groups, state], **QUEUED)]


def why_not(services: Services) -> str:
    if not draw.installed():
        return f"An image model can be a tool too, but {draw.ABSENT}."
    return "" if services.image_model or is_local(services.host) else UNCHOSEN


def with_image(
    services: Services,
    toolbox: list[Tool],
    studio: draw.Studio,
    talk: Talk,
    own: list[Tool],
    on: list[str],
    asking: list[str],
    where: str,
    steps: float,
) -> Iterator[tuple]:
    """Load the model in the background, then offer it; the next takes the last one's place."""
    # whoever is far away does not choose what this machine fetches
    where = (where if is_local(services.host) else services.image_model or "").strip()
    if not where:
        raise PlaygroundError("name an image model: a folder in the layout of diffusers, or a Hub id")
    loading, waited = studio.begin(where), 0.0
    try:
        while not wait([loading], TICK).done:
            waited += TICK
            yield (*_kept(), _said(f"Loading the image model, {waited:.0f} seconds so far."))
        tool = draw.make(loading.result(), where.rstrip("/").rsplit("/", 1)[-1], steps, watch(talk), lock=studio.lock)
    except PlaygroundError:
        yield (*_kept(), "")
        raise
    kept = [known for known in own if known.name != draw.NAME]
    bounded = ToolLimits().bounded(tool, draw.SECONDS + GRACE)
    yield (*offered(toolbox, [*kept, bounded], [*on, draw.NAME], asking), _said(f"{where} draws: it is on offer."))


def watch(talk: Talk) -> Callable[[], Callable[[], bool]]:
    """For each picture: whether the question that it was drawn for has been stopped or cleared."""

    def begin() -> Callable[[], bool]:
        number = talk.asked
        return lambda: talk.cancelled or talk.asked != number

    return begin


def _kept() -> tuple:
    return gr.skip(), gr.skip(), gr.skip()


def _said(text: str) -> str:
    return f'<p class="tools-status">{html.escape(text)}</p>'
