"""Bring data in: a file, pasted text or rows from the Hub; say what its columns mean; remove what was added."""

import html
import json
import queue
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import gradio as gr

from playground.core import datasets
from playground.core.datasets.mapping import Mapping
from playground.core.progress import Clock
from playground.errors import PlaygroundError
from playground.services.datasets import Entry
from playground.ui.common import QUEUED, QUIET, shown, whole
from playground.ui.lab.browse import source_choices
from playground.ui.lab.shared import DATA, Reader, empty, notice

COLUMNS = ("prompt", "input", "answer", "system", "reasoning", "messages", "tools", "rejected")
NO_COLUMN = "–"

CSS = """
.lab-preview { overflow-x: auto; contain: inline-size; }
.lab-preview table { border-collapse: collapse; font-size: var(--text-sm); width: 100%; }
.lab-preview td, .lab-preview th {
  border: 1px solid var(--border-color-primary); padding: 4px 8px; text-align: left; vertical-align: top;
  overflow-wrap: anywhere; min-width: 9rem; max-width: 30rem;
}
.lab-preview .bad { color: var(--warn); }
"""


def build(reader: Reader, source: gr.Dropdown) -> None:
    """Forms in an accordion; what is added is selected in `source`."""
    with gr.Accordion("Add your own data", open=False):
        with gr.Tabs():
            with gr.Tab("File"):
                file = gr.File(
                    label="JSON, JSONL, CSV or Parquet, also packed with gzip; up to 200 MB",
                    file_types=[*datasets.SUFFIXES, ".gz"],
                    height=120,
                )
            with gr.Tab("Paste"):
                text = gr.Textbox(
                    label="Rows as JSON, JSON lines or CSV with a line of column names",
                    lines=5,
                    max_lines=12,
                    elem_classes="templates-example",
                )
                name = gr.Textbox("pasted", label="Name", max_lines=1)
                paste = gr.Button("Add the rows", size="sm")
            with gr.Tab("Hugging Face Hub"):
                repo = gr.Textbox(label="Data set", placeholder="owner/name, as in openai/gsm8k", max_lines=1)
                with gr.Row():
                    config = gr.Textbox(label="Configuration", placeholder="optional", max_lines=1, min_width=100)
                    split = gr.Textbox(label="Split", placeholder="train", max_lines=1, min_width=100)
                    count = gr.Number(1000, label="First rows", precision=0, minimum=1, min_width=100)
                with gr.Row():
                    fetch = gr.Button("Get the rows", size="sm")
                    stop = gr.Button("Cancel", size="sm", visible=False)
            with gr.Tab("Columns, remove"):
                known = gr.Dropdown(_stored(reader), label="Added data set", filterable=True)
                told = gr.HTML(empty("Data that you add is listed here."))
                fields = {}
                with gr.Column(visible=False) as form:
                    with gr.Row():
                        for field in COLUMNS:
                            fields[field] = gr.Dropdown(
                                [NO_COLUMN],
                                value=NO_COLUMN,
                                label=field.capitalize(),
                                info=_help(field),
                                min_width=150,
                                filterable=False,
                            )
                    preview = gr.HTML(elem_classes="lab-preview")
                    with gr.Row():
                        keep = gr.Button("Read the rows this way", size="sm", variant="primary")
                        forget = gr.Button("Recognise by itself", size="sm")
                        remove = gr.Button("Remove this data set", size="sm")
                    with gr.Group(visible=False) as confirm:
                        question = gr.HTML()
                        with gr.Row():
                            yes = gr.Button("Yes, remove it", variant="stop", size="sm")
                            no = gr.Button("No", size="sm")
        said = gr.HTML()
    cancel = gr.State()
    added, columns = [source, known, said], list(fields.values())
    file.upload(shown(partial(add_file, reader)), file, added, **QUEUED)
    paste.click(shown(partial(add_text, reader)), [text, name], added, **QUEUED)
    opened = fetch.click(lambda: (threading.Event(), gr.update(visible=True)), None, [cancel, stop], **QUIET)
    opened.then(
        shown(partial(add_hub, reader)), [repo, config, split, count, cancel], added, concurrency_limit=4, **QUEUED
    ).then(lambda: gr.update(visible=False), None, stop, **QUIET)
    stop.click(lambda event: event.set(), cancel, None, **QUIET)
    gr.on([known.change], shown(partial(columns_of, reader)), known, [told, form, preview, confirm, *columns], **QUEUED)
    for field in columns:
        field.input(shown(partial(preview_of, reader)), [known, *columns], preview, **QUEUED)
    keep.click(shown(partial(remember, reader)), [known, *columns], added, **QUEUED)
    forget.click(shown(partial(remember, reader)), known, added, **QUEUED)
    remove.click(ask, known, [confirm, question], **QUIET)
    no.click(lambda: gr.update(visible=False), None, confirm, **QUIET)
    yes.click(shown(partial(removed, reader)), [known, source], [confirm, form, *added], **QUEUED)
    page = gr.context.Context.root_block
    if page is not None:
        page.load(lambda: gr.update(choices=_stored(reader)), None, known, **QUIET)


def _stored(reader: Reader) -> list[str]:
    return [name for name in reader.services.datasets.names() if name not in datasets.names()]


def _help(field: str) -> str:
    return Mapping.__dataclass_fields__[field].metadata["help"]


# --- adding ---


def add_file(reader: Reader, file: str) -> tuple:
    return selected(reader, reader.services.datasets.add(Path(file)))


def add_text(reader: Reader, text: str, name: str) -> tuple:
    return selected(reader, reader.services.datasets.add_text(text or "", (name or "").strip() or "pasted"))


def add_hub(reader: Reader, repo: str, config: str, split: str, count: float, cancel) -> Iterator[tuple]:
    """Rows as they come, then the data set selected; a cancel keeps nothing."""
    if not (repo or "").strip():
        raise PlaygroundError("which data set? Write owner/name, as in openai/gsm8k")
    steps: queue.Queue = queue.Queue()
    count = whole(count, "the first rows to get")

    def work() -> None:
        try:
            steps.put(reader.services.datasets.add_hub(repo, config, split, count, steps.put, cancel))
        except Exception as error:  # noqa: BLE001 - raised again where it is shown
            steps.put(error)

    threading.Thread(target=work, daemon=True).start()
    clock = Clock(count)
    try:
        while True:
            step = steps.get()
            if isinstance(step, Exception):
                raise step
            if isinstance(step, Entry):
                yield selected(reader, step)
                return
            if steps.empty():  # only the newest is shown
                now = clock.progress("reading", step)
                left = f", about {now.eta:.0f} s left" if step and now.eta is not None else ""
                yield gr.skip(), gr.skip(), notice(f"{repo}: {step:,} of {count:,} rows{left}")
    finally:
        cancel.set()  # the visitor is gone, or it is over


def selected(reader: Reader, entry: Entry) -> tuple:
    """The source list with the data set selected where it can be used, the list of added ones, and what was found."""
    choices = source_choices(reader)
    stored = gr.update(choices=_stored(reader), value=entry.name)
    if entry.problem:
        words = f"{entry.name} was added, but its rows are not understood yet: {entry.problem}. "
        return gr.update(choices=choices), stored, notice(words + "Say what its columns mean under “Columns”.", True)
    bad = f"; {entry.bad:,} rows cannot be used" if entry.bad else ""
    words = f"{entry.name}: {entry.rows:,} rows in the {entry.format} format{bad}. It is selected under “Start from”."
    return gr.update(choices=choices, value=f"{DATA}{entry.name}"), stored, notice(words)


# --- what columns mean ---


def columns_of(reader: Reader, name: str | None) -> list:
    """Values for told, form, preview, confirm and the columns."""
    hidden = gr.update(visible=False)
    if not name:
        return [empty("Data that you add is listed here."), hidden, "", hidden, *[gr.skip()] * len(COLUMNS)]
    found = reader.services.datasets.preview(name)
    entry = reader.services.datasets.entry(name)
    told = notice(entry.problem, True) if entry.problem else notice(f"Read as {entry.format}: {entry.rows:,} rows.")
    choices = [NO_COLUMN, *found.columns]
    values = [gr.update(choices=choices, value=getattr(found.mapping, field) or NO_COLUMN) for field in COLUMNS]
    return [told, gr.update(visible=True), preview_html(found), hidden, *values]


def mapping_of(values: tuple) -> Mapping:
    given = {field: value for field, value in zip(COLUMNS, values, strict=True) if value and value != NO_COLUMN}
    return Mapping(**given)


def preview_of(reader: Reader, name: str, *values) -> str:
    return preview_html(reader.services.datasets.preview(name, mapping_of(values)))


def preview_html(found) -> str:
    """The first rows as they stand, beside the conversation that is read from each."""
    rows = []
    for number, row, conversation, fault in found.rows:
        if conversation is None:
            read = f'<span class="bad">{html.escape(_short(fault or "no conversation"))}</span>'
        else:
            said = [(m["role"], str(m.get("content") or m.get("tool_calls") or "")) for m in conversation.messages[:6]]
            read = "<br>".join(f"<b>{html.escape(role)}</b>: {html.escape(_short(text))}" for role, text in said)
        given = html.escape(_short(json.dumps(row, ensure_ascii=False, default=str), 400))
        rows.append(f"<tr><td>{number:,}</td><td>{given}</td><td>{read}</td></tr>")
    head = "<tr><th>Row</th><th>As it stands</th><th>Read as</th></tr>"
    return f'<div class="templates-view"><table>{head}{"".join(rows)}</table></div>'


def _short(text: str, length: int = 160) -> str:
    return text if len(text) <= length else f"{text[:length]} …"


def remember(reader: Reader, name: str | None, *values) -> tuple:
    """Read the data set by these columns from now on; without any, as it is recognised."""
    if not name:
        raise PlaygroundError("choose one of the added data sets first")
    return selected(reader, reader.services.datasets.remember(name, mapping_of(values) if values else None))


# --- removing ---


def ask(name: str | None) -> tuple:
    if not name:
        return gr.update(visible=False), ""
    return gr.update(visible=True), notice(f"Remove {name}? Its copy in this app is deleted, for every visitor.", True)


def removed(reader: Reader, name: str, source: str) -> tuple:
    """Values for confirm, form, source, known and said; what is looked at stays when it is another one."""
    reader.services.datasets.remove(name)
    hidden = gr.update(visible=False)
    first = next(iter(datasets.samples()))
    choices = source_choices(reader)
    value = first if source == f"{DATA}{name}" else source
    known = gr.update(choices=_stored(reader), value=None)
    return hidden, hidden, gr.update(choices=choices, value=value), known, notice(f"{name} was removed.")
