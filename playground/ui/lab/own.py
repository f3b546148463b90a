"""Write your own template: an editor with the example under it, where it is wrong, and the templates saved here."""

import dataclasses
import html
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from inspect import isgeneratorfunction
from pathlib import Path

import gradio as gr

from playground.core import templates
from playground.core.messages import Conversation
from playground.core.template_faults import fault
from playground.core.templates import MODEL, Template
from playground.errors import PlaygroundError
from playground.services.templates import MINE, SUFFIXES, TakenError
from playground.ui.common import QUEUED, QUIET, shown, whenever
from playground.ui.lab import faults, reference
from playground.ui.lab.shared import Lab, Reader, conversation_of, empty, notice, view_of

START = """\
{%- for message in messages %}
{{- '<|' + message.role + '|>\\n' }}
{%- if message.role == 'assistant' %}
{%- generation %}{{ message.content + eos_token | default('</s>') }}{% endgeneration %}
{%- else %}
{{- message.content }}
{%- endif %}
{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|assistant|>\\n' }}
{%- endif %}"""

PAUSE = 0.5  # seconds between two signs of progress
GIVE_UP = 30  # seconds: three files, ten seconds each

CSS = faults.CSS + reference.CSS

# in the browser: what stands in the editor, saved or not, without a copy on the server
DOWNLOAD = """(text, name) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text ?? ""], {type: "text/plain;charset=utf-8"}));
  link.download = ((name ?? "").trim().replace(/[^\\p{L}\\p{N}_.-]+/gu, "-") || "chat_template") + ".jinja";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}"""


def build(lab: Lab, card: Callable[[Template, Conversation, object], str] | None = None) -> None:
    """The view. `card(template, conversation, tokenizer)` gives the HTML of the example under the template."""
    reader, part = lab.reader, {"chosen": lab.chosen}
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            part["start"] = gr.Dropdown(
                reader.services.templates.choices(), value=None, label="Start from a copy of", filterable=True
            )
            part["editor"] = gr.Code(
                START,
                language="jinja2",
                lines=14,
                max_lines=28,
                wrap_lines=True,
                label="Chat template, in Jinja",
                interactive=True,
            )
            part["editor"].postprocess = _as_it_is
            problem = gr.HTML()
        with gr.Column(scale=2, min_width=300):
            with gr.Row(equal_height=False):
                part["name"] = gr.Textbox(
                    label="Name", placeholder="my-template", max_lines=1, scale=2, min_width=140, max_length=80
                )
                save = gr.Button("Save as mine", variant="primary", size="sm", min_width=120)
            with gr.Row():
                download = gr.DownloadButton("Download .jinja", size="sm", min_width=120)
                part["delete"] = gr.Button("Delete this template", size="sm", min_width=120, visible=False)
            with gr.Group(visible=False) as part["confirm"]:
                part["question"] = gr.HTML()
                with gr.Row():
                    part["yes"] = gr.Button("Yes", variant="stop", size="sm", min_width=100)
                    no = gr.Button("No", size="sm", min_width=100)
            part["said"] = gr.HTML()
            with gr.Accordion("Open a template from a file or a model", open=False):
                upload = gr.UploadButton(
                    "Upload a template file", file_types=[*SUFFIXES, ".txt", ".json"], size="sm", variant="secondary"
                )
                where = gr.Textbox(
                    label="Open from a model",
                    info=_where_info(),
                    placeholder="Qwen/Qwen3-0.6B",
                    max_lines=1,
                )
                with gr.Row():
                    fetch = gr.Button("Get its template", size="sm", min_width=120)
                    stop = gr.Button("Cancel", size="sm", min_width=100, visible=False)
            with gr.Accordion("Snippet for tokenizer_config.json", open=False):
                snippet = gr.Code(
                    language="json",
                    interactive=False,
                    lines=3,
                    max_lines=10,
                    wrap_lines=True,
                    buttons=["copy"],
                    label="Put this key into the model's tokenizer_config.json",
                )
            with gr.Accordion("What a template can use", open=False):
                gr.HTML(reference.usable())
    preview = gr.HTML()
    opened, current, pending, cancel = gr.State(START), gr.State(""), gr.State(("", "")), gr.State()
    part |= {"opened": opened, "current": current, "pending": pending}
    editor, name = part["editor"], part["name"]

    def wire(trigger, handler, inputs, **more):
        """`handler` gives {name of a part: value}."""
        # the editor's value is never an update: that would make gradio forget `_as_it_is`
        give = shown(partial(_parted_steps if isgeneratorfunction(handler) else _parted, handler, part))
        return trigger(give, inputs, list(part.values()), **QUEUED, **more)

    wire(part["start"].input, partial(start, reader), [part["start"], editor, opened, lab.model])
    wire(save.click, partial(save_as, reader), [name, editor, lab.chosen])
    wire(part["delete"].click, ask_delete, [current])
    wire(part["yes"].click, partial(confirmed, reader), [pending, editor, lab.chosen, lab.model])
    wire(no.click, declined, [current])
    wire(upload.upload, partial(add_file, reader), [upload, editor, opened, lab.chosen])
    began = fetch.click(lambda: (threading.Event(), gr.update(visible=True)), None, [cancel, stop], **QUIET)
    inputs = [where, editor, opened, lab.chosen, cancel]
    wire(began.then, partial(get, reader), inputs, concurrency_limit=4).then(
        lambda: gr.update(visible=False), None, stop, **QUIET
    )
    stop.click(lambda event: event.set(), cancel, None, **QUIET)
    download.click(None, [editor, name], None, js=DOWNLOAD, **QUIET)
    drawn = partial(draw, reader, card or plain_card)
    whenever(drawn, [editor, lab.example, lab.model, lab.variables], [problem, preview, snippet])
    if gr.context.Context.root_block is not None:
        gr.context.Context.root_block.load(partial(listed_now, reader), None, [part["start"], lab.chosen], **QUIET)


def _as_it_is(value):
    """gr.Code would strip a template's outer white space, which is part of what it writes."""
    return value


def _parted(handler: Callable, part: dict, *args) -> dict:
    return {part[name]: value for name, value in handler(*args).items()}


def _parted_steps(handler: Callable, part: dict, *args) -> Iterator[dict]:
    for step in handler(*args):
        yield {part[name]: value for name, value in step.items()}


def _where_info() -> str:
    return (
        "A model of the Hugging Face Hub, owner/name or owner/name@revision, or a folder that begins with / or ~ or ."
    )


# --- the live card ---


def draw(reader: Reader, card: Callable, text: str, example: str, model: str, variables: dict) -> tuple:
    """Where the template is wrong, the example under it, and the snippet; a card stays while the text is half typed."""
    text = text or ""
    snippet = json.dumps({"chat_template": text}, ensure_ascii=False, indent=2)
    if not text.strip():
        first = "Type a chat template, or start from a copy of one: the example appears here as it would be written."
        return "", view_of(empty(first)), snippet
    if found := fault(text):
        note = "Until that is mended, the example below stays as the last version wrote it."
        return view_of(faults.place(found, text, note)), gr.skip(), snippet
    try:
        conversation = conversation_of(example, variables)
    except PlaygroundError as error:
        return "", view_of(notice(f"The example cannot be rendered: {error}.", warn=True)), snippet
    tokenizer = _tokenizer(reader, model)
    template = dataclasses.replace(templates.pasted(text, "being written"), title="Your template")
    try:
        templates.render(template, conversation, tokenizer, spans=False)
    except PlaygroundError as error:
        return view_of(faults.failure(text, str(error))), "", snippet
    return "", view_of(card(template, conversation, tokenizer)), snippet


def plain_card(template: Template, conversation: Conversation, tokenizer) -> str:
    """The rendered text alone."""
    return f"<pre>{html.escape(templates.render(template, conversation, tokenizer, spans=False).text)}</pre>"


def _tokenizer(reader: Reader, model: str):
    try:
        return reader.tokenizer(model)
    except PlaygroundError:  # the top of the tab says so; the text can be shown without it
        return None


# --- opening, saving, deleting ---


def listed_now(reader: Reader) -> tuple:
    """What is saved when the page opens; others may have saved since the app started."""
    choices = gr.update(choices=reader.services.templates.choices())
    return choices, choices


def start(reader: Reader, key: str, text: str, opened: str, model: str) -> dict:
    """Copy a template into the editor, or ask first where that would lose changes."""
    if _changed(text, opened):
        return _ask("replace", key, "The editor holds changes that are not saved. Replace them?", "Replace them")
    return open_copy(reader, key, model)


def open_copy(reader: Reader, key: str, model: str) -> dict:
    tokenizer = reader.tokenizer(model) if key == MODEL else None
    template = reader.services.templates.load(key, tokenizer)
    text = template.text.replace("\r\n", "\n").replace("\r", "\n")  # as the browser's editor holds it
    mine = key.startswith(MINE)
    name = template.name if mine else f"my-{template.name}"
    return {
        **_settled(),
        "editor": text,
        "opened": text,
        "current": key,
        "start": gr.update(value=key),
        "name": name,
        "delete": gr.update(visible=mine),
        "said": "",
    }


def save_as(reader: Reader, name: str, text: str, chosen: list[str], overwrite: bool = False) -> dict:
    """Save, or ask first where that would overwrite another template; what is saved is shown beside the others."""
    if not (name or "").strip():
        raise PlaygroundError("the template needs a name: type one into the field beside “Save as mine”")
    try:
        key = reader.services.templates.save(name, text or "", overwrite)
    except TakenError:
        return _ask(
            "overwrite", name, f"There is a saved template “{name.strip()}” already. Overwrite it?", "Overwrite"
        )
    return {
        **_settled(),
        **_lists(reader, [*dict.fromkeys([*(chosen or []), key])], key),
        "opened": text,
        "current": key,
        "name": key.removeprefix(MINE),
        "delete": gr.update(visible=True),
        "said": notice(f"Saved as “{key.removeprefix(MINE)}”; it is among the chosen templates now."),
    }


def ask_delete(current: str) -> dict:
    if not (current or "").startswith(MINE):
        raise PlaygroundError("only a template that was saved here can be deleted; start from one of those first")
    name = current.removeprefix(MINE)
    return _ask("delete", current, f"Delete the saved template “{name}”? Its text stays in the editor.", "Delete it")


def remove(reader: Reader, key: str, chosen: list[str]) -> dict:
    reader.services.templates.remove(key)
    return {
        **_settled(),
        **_lists(reader, [name for name in chosen or [] if name != key], None),
        "opened": "",
        "current": "",
        "delete": gr.update(visible=False),
        "said": notice(f"“{key.removeprefix(MINE)}” is deleted. Its text is still in the editor."),
    }


def confirmed(reader: Reader, pending: tuple[str, str], text: str, chosen: list[str], model: str) -> dict:
    """Do what was asked about."""
    what, name = pending
    if what == "replace":
        return open_copy(reader, name, model)
    if what == "overwrite":
        return save_as(reader, name, text, chosen, overwrite=True)
    if what == "delete":
        return remove(reader, name, chosen)
    return _settled()


def declined(current: str) -> dict:
    return {**_settled(), "start": gr.update(value=current or None)}


def _changed(text: str, opened: str) -> bool:
    return bool((text or "").strip()) and (text or "") != opened


def _ask(what: str, name: str, question: str, yes: str) -> dict:
    sentence = f'<p class="templates-note" role="alert">{html.escape(question)}</p>'
    shown_now = {"confirm": gr.update(visible=True), "yes": gr.update(value=yes)}
    return {**shown_now, "question": sentence, "pending": (what, name)}


def _settled() -> dict:
    return {"confirm": gr.update(visible=False), "pending": ("", "")}


def _lists(reader: Reader, chosen: list[str], key: str | None) -> dict:
    """Both lists of templates with what is saved now."""
    choices = reader.services.templates.choices()
    return {
        "start": gr.update(choices=choices, value=key),
        "chosen": gr.update(choices=choices, value=chosen),
    }


# --- from files and models ---


def add_file(reader: Reader, file: str, text: str, opened: str, chosen: list[str]) -> dict:
    path = Path(file)
    generic = path.stem in ("chat_template", "tokenizer_config", "processor_config")
    keys = reader.services.templates.add_file(path, "uploaded" if generic else path.stem)
    return added(reader, keys, text, opened, chosen)


def added(reader: Reader, keys: list[str], text: str, opened: str, chosen: list[str]) -> dict:
    """Show the first of the templates that were just kept, in the editor too unless that would lose changes."""
    names = ", ".join(key.removeprefix(MINE) for key in keys)
    lists = _lists(reader, [*dict.fromkeys([*(chosen or []), keys[0]])], keys[0])
    said = {"said": notice(f"Saved among your templates: {names}.")}
    if _changed(text, opened):
        question = "The editor holds changes that are not saved. Replace them by the new template?"
        return {**lists, **_ask("replace", keys[0], question, "Replace them"), **said}
    return {**open_copy(reader, keys[0], ""), **lists, **said}


def get(reader: Reader, where: str, text: str, opened: str, chosen: list[str], cancel) -> Iterator[dict]:
    """The template of a model on the Hub or in a folder; says how long it has been asking."""
    where = (where or "").strip()
    if not where:
        raise PlaygroundError("name a model of the Hub, as in Qwen/Qwen3-0.6B, or a folder on this machine")
    store = reader.services.templates
    if where[0] in "/~." or "\\" in where:
        yield added(reader, store.add_folder(Path(where)), text, opened, chosen)
        return
    repo, _, revision = where.partition("@")
    began, pool = time.monotonic(), ThreadPoolExecutor(1)
    asking = pool.submit(store.add_hub, repo, revision or None, cancel)
    pool.shutdown(wait=False)
    try:
        while not asking.done() and not cancel.is_set():
            yield {"said": notice(f"Asking the Hub for the template of {repo} … {_waited(began)}")}
            wait([asking], timeout=PAUSE)
        keys = [] if cancel.is_set() else asking.result()
    finally:
        cancel.set()  # the page may be gone
    yield added(reader, keys, text, opened, chosen) if keys else {"said": notice("Cancelled. Nothing was saved.")}


def _waited(began: float) -> str:
    seconds = time.monotonic() - began
    return f"{seconds:.0f} s; it gives up within {max(1, GIVE_UP - seconds):.0f} s more"
