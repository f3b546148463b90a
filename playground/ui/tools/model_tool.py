"""Another model as a tool: choose who answers, and the model that is asked may put questions to it."""

from functools import partial

import gradio as gr

from playground.config import SamplingConfig
from playground.core.tools import Tool
from playground.errors import PlaygroundError
from playground.services import ask_model
from playground.services.engine import Lane
from playground.services.tool_limits import ToolLimits
from playground.ui.common import QUEUED, QUIET, Services, shown, sparing
from playground.ui.lanes import check_here, first_choices, model_choices
from playground.ui.own_tools import offered
from playground.ui.tools.choices import adapter_choices

TOKENS = 128
GRACE = 5.0  # seconds beyond the tool's own clock


def build(services: Services, toolbox: list[Tool], own: gr.State, groups: list) -> list:
    """The form; returns the events that change `own`."""
    with gr.Accordion("Another model as a tool", open=False, elem_id="tools-model-tool"):
        gr.Markdown(
            "Offer a model to the model: it may ask it a question in words and goes on with the answer."
            f" An answer has at most {TOKENS} tokens."
        )
        model = gr.Dropdown(
            first_choices(services, services.model),
            value=services.model,
            label="Who is asked",
            allow_custom_value=True,
            elem_id="tools-model-tool-model",
        )
        adapter = gr.Dropdown(adapter_choices(services), value="", label="Its adapter")
        add = gr.Button("Offer it as ask_model", size="sm", elem_id="tools-model-tool-add")
    sent = gr.State()
    look = sparing(partial(refreshed, services), [model, adapter])
    gr.Timer(10).tick(look, [adapter, sent], [model, adapter, sent], **QUIET)
    offer = shown(partial(with_model, services, toolbox))
    return [add.click(offer, [own, *groups, model, adapter], [own, *groups], **QUEUED)]


def refreshed(services: Services, adapter: str) -> tuple:
    """Models fetched and runs finished meanwhile."""
    models, adapters = model_choices(services), adapter_choices(services)
    gone = adapter not in {value for _, value in adapters}
    return (
        gr.update(choices=models) if models else gr.skip(),
        gr.update(choices=adapters, **({"value": ""} if gone else {})),
    )


def with_model(
    services: Services, toolbox: list[Tool], own: list[Tool], on: list[str], asking: list[str], model: str, adapter: str
) -> tuple:
    """One model is asked at a time: the next takes the last one's place."""
    if not model:
        raise PlaygroundError("choose the model that shall be asked")
    check_here(services, model)
    sampling = SamplingConfig(temperature=0.0, max_new_tokens=TOKENS)
    lane = Lane(model, adapter or None, "", sampling)
    services.engine.template(lane)  # says at once what cannot be asked
    tool = ask_model.make(services.engine, lane, lane.name)
    bounded = ToolLimits().bounded(tool, ask_model.SECONDS + GRACE)
    kept = [known for known in own if known.name != ask_model.NAME]
    gr.Info(f"{ask_model.NAME} is on offer; it stands among the tools above.", duration=5)
    return offered(toolbox, [*kept, bounded], [*on, ask_model.NAME], asking)
