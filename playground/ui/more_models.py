"""Getting another model: choose it, read and accept its terms where it has any, watch it come."""

import html
from functools import partial

import gradio as gr

from playground.errors import PlaygroundError
from playground.ui.common import QUEUED, Services, fetch_notice, shown

CSS = """
.terms { max-height: 16em; overflow-y: auto; white-space: pre-wrap; font-size: var(--text-sm); padding: 8px;
  border: 1px solid var(--border-color-primary); border-radius: var(--radius-md); }
"""


def build(services: Services) -> None:
    """An accordion with the choice, the terms and the progress."""
    entries = services.sources.entries()
    base = next((entry.name for entry in entries if entry.role == "base"), entries[0].name if entries else None)
    with gr.Accordion("Get a base model, or another one", open=False):
        gr.HTML(
            "<div>A base model has only read text: it goes on writing where the prompt ends. Until one is here, lane 1"
            " shows the instruct model without its chat template.</div>"
        )
        choice = gr.Dropdown([(entry.title, entry.name) for entry in entries], value=base, label="Model")
        terms = gr.HTML()
        accept = gr.Checkbox(False, label="I accept these terms", visible=False)
        with gr.Row():
            get_button = gr.Button("Get this model", variant="primary", size="sm")
            cancel_button = gr.Button("Cancel", size="sm", visible=False)
        notice = gr.HTML()
        timer = gr.Timer(1.0, active=False)
    outputs = [terms, accept, get_button, cancel_button, notice, timer]
    look = partial(shown(show), services)
    # when the page opens and when the choice changes; the terms of a gated model may take seconds to fetch
    gr.on(None, look, choice, outputs, show_progress="minimal", api_visibility="private")
    timer.tick(look, choice, outputs, **QUEUED)
    get_button.click(partial(shown(get), services), [choice, accept], outputs, **QUEUED)
    cancel_button.click(partial(shown(cancel), services), choice, outputs, **QUEUED)


def show(services: Services, name: str) -> tuple:
    """terms, accept, get, cancel, notice, timer for the model chosen under "Get a base model"."""
    state = services.sources.status(name)
    fetch = services.fetches.find(name)
    running = fetch is not None and fetch.state == "running"
    terms = services.sources.licence_text(name) if state == "needs licence" else ""
    notice = '<div class="notice"><p>This model is here: choose it in a lane.</p></div>'
    return (
        f'<div class="terms">{html.escape(terms)}</div>' if terms else "",
        gr.update(visible=bool(terms)),
        gr.update(visible=state != "here" and not running),
        gr.update(visible=running),
        notice if state == "here" else fetch_notice(services, name),
        gr.Timer(1.0, active=running),
    )


def get(services: Services, name: str, accepted: bool) -> tuple:
    if services.sources.status(name) == "needs licence":
        if not accepted:
            raise PlaygroundError("read the terms and tick the box before this model is fetched")
        services.sources.accept_licence(name)
    services.fetches.start(name)
    return show(services, name)


def cancel(services: Services, name: str) -> tuple:
    services.fetches.cancel(name)
    return show(services, name)
