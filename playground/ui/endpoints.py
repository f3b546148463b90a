"""Lanes elsewhere: name a server that speaks OpenAI's format, and it can be chosen as a lane's model."""

import html
from functools import partial

import gradio as gr

from playground.errors import PlaygroundError
from playground.services.hosts import is_local
from playground.services.remote import Endpoint
from playground.ui.common import QUEUED, QUIET, Services, shown

ABOUT = (
    "A lane can be a model on another server: vLLM (also one of its LoRA names), llama.cpp, Ollama, TGI, or a provider."
    " The key stays in this process's memory: it is not stored, and not shown again."
)
ELSEWHERE = "Servers can be named on this machine's own page only. Start the app with --endpoints to offer one here."
CSS = """
.endpoints { overflow-x: auto; font-size: var(--text-sm); }
.endpoint-remove { align-items: flex-end; }
.endpoints :is(table, tbody, tr, td) { border: 0 !important; }
.endpoints td { padding: 3px 10px 3px 0; overflow-wrap: anywhere; }
"""


def build(services: Services, choices, dropdowns: list[gr.Dropdown]) -> None:
    """The form; `choices(services)` are then the models that `dropdowns` offer."""
    remotes = services.engine.remotes
    with gr.Accordion("Lanes elsewhere (vLLM, llama.cpp, Ollama, providers)", open=False, elem_id="endpoints"):
        if not is_local(services.host):
            gr.Markdown(ELSEWHERE)
            gr.HTML(listed(remotes))
            return
        gr.Markdown(ABOUT)
        with gr.Row():
            name = gr.Textbox(label="Name of the lane", placeholder="big", min_width=120, elem_id="endpoint-name")
            url = gr.Textbox(
                label="Address", placeholder="http://localhost:8000/v1", min_width=200, elem_id="endpoint-url"
            )
            model = gr.Textbox(
                label="Model there", placeholder="its name there", min_width=160, elem_id="endpoint-model"
            )
            key = gr.Textbox(label="Key, if it asks for one", type="password", min_width=140)
        add_button = gr.Button("Add", size="sm", elem_id="endpoint-add")
        table = gr.HTML(listed(remotes))
        with gr.Row(visible=bool(remotes.all()), elem_classes="endpoint-remove") as removal:
            chosen = gr.Dropdown(
                [endpoint.name for endpoint in remotes.all()], label="Remove", value=None, min_width=140
            )
            remove_button = gr.Button("Remove", size="sm", min_width=100)
    outputs = [table, removal, chosen, key, *dropdowns]
    gr.on(None, partial(named, services), None, outputs[:3], **QUIET)  # when the page opens
    add_button.click(shown(partial(add, services, choices)), [name, url, model, key, *dropdowns], outputs, **QUEUED)
    remove_button.click(shown(partial(remove, services, choices)), [chosen, *dropdowns], outputs, **QUEUED)


def add(services: Services, choices, name: str, url: str, model: str, key: str, *now: str) -> list:
    name = (name or "").strip()
    if any(entry.name == name for entry in services.sources.entries()):
        raise PlaygroundError(f"{name} is a model of the catalog; give the lane another name")
    services.engine.remotes.add(Endpoint(name, (url or "").strip(), (model or "").strip(), (key or "").strip()))
    return _after(services, choices, now)


def remove(services: Services, choices, name: str | None, *now: str) -> list:
    if not name:
        raise PlaygroundError("choose which lane to remove")
    services.engine.remotes.remove(name)
    return _after(services, choices, now)


def _after(services: Services, choices, now: tuple) -> list:
    """The table, the list to remove from, an empty key, and the dropdowns; a lane that has gone is chosen no more."""
    offered = choices(services)
    known = {value for _, value in offered}
    kept = [gr.update(choices=offered, value=value if value in known else services.model) for value in now]
    return [*named(services), "", *kept]


def named(services: Services) -> list:
    """The table of the servers, and what one of them is removed with, where there is one."""
    remotes = services.engine.remotes
    names = [endpoint.name for endpoint in remotes.all()]
    return [listed(remotes), gr.update(visible=bool(names)), gr.update(choices=names, value=None)]


def listed(remotes) -> str:
    if not remotes.all():
        return '<div class="endpoints">None yet.</div>'
    rows = "".join(
        f"<tr><td><b>{html.escape(e.name)}</b></td><td>{html.escape(e.model)}</td><td>{html.escape(e.url)}</td>"
        f"<td>{'with a key' if e.key else 'no key'}</td></tr>"
        for e in remotes.all()
    )
    return f'<div class="endpoints"><table>{rows}</table></div>'
