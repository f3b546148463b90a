"""Take a run elsewhere: files to download, folders on this machine, the Hub, and the command line for each."""

import html
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gradio as gr

from playground.errors import PlaygroundError
from playground.services import runs
from playground.services.exports import KINDS, Export, Exporter
from playground.ui.common import QUEUED, QUIET, Services, shown, whenever

# These are too large to go through the browser: they stay in the run's folder.
FOLDERS = ("merged", "ollama", "gguf")

CSS = """
.export p { margin: 4px 0; font-size: var(--text-sm); overflow-wrap: anywhere; }
.export code { font-family: var(--font-mono); user-select: all; }
"""
EMPTY = '<div class="export"><p>Choose what to make of the selected run, and press Export.</p></div>'


@dataclass(frozen=True)
class Panel:
    kind: gr.Dropdown
    dtype: gr.Dropdown
    repo: gr.Textbox
    token: gr.Textbox
    private: gr.Checkbox
    export: gr.Button
    cancel: gr.Button
    state: gr.HTML
    file: gr.File
    command: gr.Textbox

    @property
    def options(self) -> list:
        return [self.kind, self.dtype, self.repo, self.token, self.private]


def build() -> Panel:
    kind = gr.Dropdown([(title, name) for name, title in KINDS.items()], value="adapter", label="Export", min_width=260)
    with gr.Row():
        dtype = gr.Dropdown(
            [("as it was trained", "auto"), "bfloat16", "float32"], value="auto", label="Weights",
            info="float32 is exact and twice as large", visible=False, min_width=180,
        )  # fmt: skip
        repo = gr.Textbox(label="Repository", placeholder="owner/name", visible=False, min_width=180)
        token = gr.Textbox(
            label="Token", type="password", info="with write access; used once and kept nowhere (empty: HF_TOKEN)",
            visible=False, min_width=180,
        )  # fmt: skip
        private = gr.Checkbox(True, label="Private", visible=False, min_width=100)
    with gr.Row():
        export = gr.Button("Export", size="sm", min_width=120)
        cancel = gr.Button("Cancel", size="sm", visible=False, min_width=120)
    state = gr.HTML(EMPTY)
    file = gr.File(label="Download", visible=False, interactive=False)
    command = gr.Textbox(
        label="The same from the command line", interactive=False, buttons=["copy"], elem_classes="command"
    )
    return Panel(kind, dtype, repo, token, private, export, cancel, state, file, command)


def wire(services: Services, panel: Panel, chooser) -> None:
    outputs = [panel.export, panel.cancel, panel.state, panel.file]
    panel.kind.input(choose, panel.kind, [panel.dtype, panel.repo, panel.token, panel.private], **QUIET)
    asked = [chooser, panel.kind, panel.dtype, panel.repo, panel.private]
    whenever(command, asked, panel.command, [component.change for component in asked])
    running = panel.export.click(shown(partial(run_export, services)), [chooser, *panel.options], outputs, **QUEUED)
    # an error ends the generator before it gives the buttons back
    running.failure(idle, None, outputs[:2], **QUIET)
    panel.cancel.click(cancelled, None, outputs, cancels=[running], **QUIET)
    whenever(lambda: [EMPTY, gr.update(visible=False)], None, [panel.state, panel.file], [chooser.change])


def choose(kind: str) -> list:
    """Which options a kind has."""
    hub = gr.update(visible=kind == "hub")
    return [gr.update(visible=kind in FOLDERS), hub, hub, hub]


def command(selected: str | None, kind: str, dtype: str, repo: str | None, private: bool) -> str:
    """The line that makes the same export; the token is never in it. A field that was never shown is None."""
    words = ["playground", "export", selected or "RUN", "--as", kind]
    if kind in FOLDERS and dtype != "auto":
        words += ["--dtype", dtype]
    if kind == "hub":
        words += ["--repo", (repo or "").strip() or "OWNER/NAME", *([] if private else ["--public"])]
    return shlex.join(words)


def run_export(
    services: Services, selected: str | None, kind: str, dtype: str, repo: str | None, token: str | None, private: bool
) -> Iterator[tuple]:
    """What is being done, and at the end what was made: export button, cancel button, sentence, file."""
    if not selected:
        raise PlaygroundError("select a run first")
    run = runs.find(services.paths, selected)
    options = {"dtype": dtype} if kind in FOLDERS else {}
    options |= {"repo": repo or "", "token": token or "", "private": private} if kind == "hub" else {}
    exporter = Exporter(services.paths, services.sources, services.templates)
    busy = gr.update(interactive=False), gr.update(visible=True)
    with tempfile.TemporaryDirectory(prefix="playground-") as folder:  # gradio takes a copy of what is downloaded
        out = None if kind in FOLDERS else Path(folder)
        for step in exporter.make(kind, run, out, **options):
            if isinstance(step, Export):
                yield *idle(), result_html(step), _file(step)
            else:
                yield *busy, f'<div class="export"><p>{html.escape(step.capitalize())} …</p></div>', gr.skip()


def idle() -> tuple:
    return gr.update(interactive=True), gr.update(visible=False)


def cancelled() -> tuple:
    return (
        *idle(),
        '<div class="export"><p>Cancelled; nothing half-made was kept.</p></div>',
        gr.update(visible=False),
    )


def _file(made: Export) -> dict:
    if made.path is None or made.kind in FOLDERS:
        return gr.update(visible=False)
    return gr.update(value=str(made.path), visible=True)


def result_html(made: Export) -> str:
    where = ""
    if made.kind in FOLDERS:
        where = f"<p>It is on the app's machine in <code>{html.escape(str(made.path))}</code></p>"
    said = html.escape(made.sentence)
    if made.url:
        address = html.escape(made.url)
        said = said.replace(address, f'<a href="{address}" target="_blank" rel="noopener">{address}</a>')
    return f'<div class="export"><p>{said}</p>{where}</div>'
