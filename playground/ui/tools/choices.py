"""What the Tools tab offers: models, adapters, templates' notes, and the tools of this process."""

import html
import json
from collections.abc import Sequence

import gradio as gr

from playground.core import tool_formats
from playground.core.tools import Tool, catalog, make_tools
from playground.core.tools.catalog import PYTHON
from playground.services.python_tool import Python
from playground.services.tool_limits import ToolLimits
from playground.services.web import fetch_json
from playground.ui.common import Services
from playground.ui.lanes import model_choices
from playground.ui.tools.view import View

NOBODY = ("None: one lane", "")


def adapter_choices(services: Services) -> list[tuple[str, str]]:
    return [("None: the model as it is", ""), *((info.name, info.name) for info in services.engine.adapters())]


def default_adapter(services: Services) -> str:
    """The first adapter for this model that was trained on tool calls, else none."""
    for info in services.engine.adapters():
        if info.base_model == services.model and info.template and tool_formats.for_template(info.template):
            return info.name
    return ""


def empty_state(services: Services) -> str:
    """What the chat says before the first question."""
    if not model_choices(services):
        return "No model is on this machine yet. Get one with the button at the top of the page; then ask here."
    if not default_adapter(services):
        return (
            "No tool-calling adapter is here yet, so the untuned model answers: it rarely calls a tool."
            " Train one under Fine-tune with the recipe Tool calling."
        )
    return "Ask something that needs a tool, or something that does not."


def refresh(services: Services, view: View, *adapters: str) -> dict:
    """Models fetched and runs finished meanwhile; what is chosen stays chosen."""
    models, offered = model_choices(services), adapter_choices(services)
    update = {}
    for i, (adapter, (model_box, adapter_box, _)) in enumerate(zip(adapters, view.settings, strict=True)):
        gone = adapter not in {value for _, value in offered}
        update[model_box] = gr.update(choices=[NOBODY, *models] if i else models) if models else gr.skip()
        update[adapter_box] = gr.update(choices=offered, **({"value": ""} if gone else {}))
    return update


def opened(services: Services, view: View) -> dict:
    """What a fresh page shows: the adapter that calls tools is chosen, and the chat says what to do first."""
    adapter = default_adapter(services)
    return {
        **refresh(services, view, adapter, ""),
        view.settings[0][1]: gr.update(choices=adapter_choices(services), value=adapter),
        view.lanes[0].chatbot: gr.update(placeholder=empty_state(services)),
    }


def schema_text(toolbox: list[Tool], names: list[str], own: list[Tool] = ()) -> str:
    offered = [tool.schema for tool in (*toolbox, *own) if tool.name in names]
    return "\n".join(json.dumps(schema, ensure_ascii=False, indent=2) for schema in offered) or "no tools"


def available_tools(services: Services, python: Python | None) -> list[Tool]:
    """The tools of this process, each within bounds of time and size; weather remembers when there is no network."""
    limits = ToolLimits()
    names = [entry.name for entry in catalog(python=python is not None)]
    made = make_tools(names, fetch_json, python)
    # the Python tool has a queue and a clock of its own
    return [limits.bounded(tool, 20 if tool.name == PYTHON else None) for tool in made]


def tool_choices(toolbox: list[Tool]) -> list[str]:
    return [tool.name for tool in toolbox]


def first_offered(toolbox: list[Tool]) -> list[str]:
    """The tools that are on when the page opens: those the shipped adapter was trained with."""
    default = {entry.name for entry in catalog() if entry.default}
    return [tool.name for tool in toolbox if tool.name in default]


def about_tools(toolbox: list[Tool], own: Sequence[Tool] = ()) -> str:
    """What each tool does, whether it needs the network, and what can go wrong; of `own` what it says of itself."""
    names = {tool.name for tool in toolbox}
    rows = [
        _about(entry.title, entry.name, f"{entry.description} {entry.risk} Network: {entry.network}.")
        for entry in catalog()
        if entry.name in names
    ]
    rows += [
        _about(f"From {tool.source}" if tool.source else "Your own", tool.name, tool.description or "Says nothing.")
        for tool in own
    ]
    return f'<dl class="tools-about">{"".join(rows)}</dl>'


def _about(title: str, name: str, text: str) -> str:
    title, name, text = map(html.escape, (title, name, text))
    return f"<dt><b>{title}</b> <code>{name}</code></dt><dd>{text}</dd>"
