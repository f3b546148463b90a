"""Templates: an example under several chat templates side by side, the batch it becomes, what a linter says of it,
a report on all rows, and an editor for a template of one's own. Tokenizers only: no weights are needed here."""

import json
from functools import partial

import gradio as gr

from playground.core.messages import parse_conversation
from playground.errors import PlaygroundError
from playground.ui.common import QUEUED, QUIET, Services, shown, whenever
from playground.ui.lab import add, batch, browse, cards, lessons, lint, own, report, variables
from playground.ui.lab.cards import DIFF, TEXT, TOKENS
from playground.ui.lab.shared import Lab, Reader, conversation_of, empty, first_upper, notice, view_of

DEFAULT_TEMPLATES = ["chatml-tools", "alpaca", "plain"]
LIVE = {**QUIET, "trigger_mode": "always_last"}
VIEWS = (add, browse, cards, batch, lint, report, own, variables, lessons)

CSS = """
.templates-intro { margin: 0; font-size: var(--text-md); color: var(--body-text-color-subdued); }
.templates-note { margin: 0 0 10px; font-size: var(--text-md); }
.templates-empty {
  padding: 28px 16px; text-align: center; border: 1px dashed var(--border-color-primary);
  border-radius: var(--radius-lg); color: var(--body-text-color-subdued); font-size: var(--text-md);
}
.templates-example textarea { font-family: var(--font-mono); font-size: var(--text-sm); line-height: 1.5; }
""" + "".join(getattr(view, "CSS", "") for view in VIEWS)
INTRO = (
    '<p class="templates-intro">A chat template turns messages into the one text that a model reads. Pick an example '
    "and see it in several templates: who wrote what, and, underlined, what training would learn.</p>"
)


def build(services: Services) -> None:
    """The tab. Text is shown without any model; tokens as soon as the model's tokenizer is on the machine."""
    reader = Reader.of(services)
    gr.HTML(INTRO)
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            browser = browse.build(reader)
            with gr.Accordion("System prompt and tools", open=False):
                system = gr.Textbox(label="System prompt", lines=2, max_lines=8)
                tools = gr.Textbox(
                    label="Tools: JSON schemas in a list", lines=3, max_lines=12, elem_classes="templates-example"
                )
                told = gr.HTML()
            add.build(reader, browser.source)
        with gr.Column(scale=2, min_width=300):
            chosen = gr.Dropdown(
                services.templates.choices(),
                value=DEFAULT_TEMPLATES,
                multiselect=True,
                allow_custom_value=True,  # see browse.build
                label="Templates, side by side",
                elem_id="lab-templates",
            )
            model = gr.Dropdown(
                [(entry.title or entry.name, entry.name) for entry in services.sources.entries()],
                value=services.model,
                label="Tokenizer of",
            )
            generation = gr.Checkbox(
                False, label="Generation prompt", info="End with what asks the assistant to speak, as chat does."
            )
            sanitize = gr.Checkbox(
                True,
                label="Control tokens typed by the user stay text",
                info="Unchecked, a typed <|im_end|> ends the turn and can open a system turn of its own.",
            )
            values = gr.State({})
            lab = Lab(reader, browser.source, browser.example, chosen, model, values, browser.row)
            with gr.Accordion("Template variables", open=False):
                variables.build(lab)
            lesson = lessons.build(lab)
    with gr.Tabs():
        with gr.Tab("Side by side", id="side"):
            view = gr.Radio([TEXT, TOKENS, DIFF], value=TEXT, label="View", show_label=False)
            side = gr.HTML()
        with gr.Tab("As a batch", id="batch"):
            batch.build(lab)
        with gr.Tab("Linter", id="lint"):
            lint.build(lab)
        with gr.Tab("Report and split", id="report"):
            report.build(lab, partial(browse.source_choices, reader))
        with gr.Tab("Write your own", id="own"):
            own.build(lab, partial(cards.card, view=TEXT))
    waiting = gr.Timer(3.0, active=False)
    inputs = [lab.example, chosen, view, model, generation, sanitize, values]
    whenever(partial(draw, reader), inputs, [side, waiting])
    waiting.tick(partial(draw, reader), inputs, [side, waiting], **LIVE)
    whenever(system_and_tools, [lab.example], [system, tools, told])
    for field, edit in ((system, with_system), (tools, with_tools)):
        field.input(edit, [lab.example, field], [lab.example, told], **LIVE)
    lesson.click(
        shown(partial(lessons.start, reader)), None, [lab.example, chosen, view, generation, lab.source], **QUEUED
    )


# --- system prompt and tools, edited in place ---


def system_and_tools(text: str) -> tuple:
    """The example's system message and tools for their fields; an example that cannot be read leaves them alone."""
    try:
        conversation = parse_conversation(text or "")
    except PlaygroundError:
        return gr.skip(), gr.skip(), ""
    said = [m.get("content") or "" for m in conversation.messages if isinstance(m, dict) and m.get("role") == "system"]
    listed = json.dumps(conversation.tools, ensure_ascii=False, indent=1) if conversation.tools else ""
    return said[0] if said else "", listed, ""


def with_system(text: str, system: str) -> tuple:
    """The example with this system message: in place of the first one, before all others, or none."""
    return _edited(text, lambda row: {**row, "messages": _led_by(row["messages"], system)})


def _led_by(messages: list[dict], system: str) -> list[dict]:
    first = next((place for place, message in enumerate(messages) if message["role"] == "system"), None)
    rest = [message for place, message in enumerate(messages) if place != first]
    return [{"role": "system", "content": system}, *rest] if system.strip() else rest


def with_tools(text: str, tools: str) -> tuple:
    try:
        given = json.loads(tools) if tools.strip() else []
    except ValueError as error:
        return gr.skip(), notice(f"The tools are not valid JSON yet: {error}.", warn=True)
    if not isinstance(given, list) or not all(isinstance(tool, dict) for tool in given):
        return gr.skip(), notice("The tools must be a list of JSON schemas: [{…}, …].", warn=True)
    return _edited(text, lambda row: {**row, "tools": given})


def _edited(text: str, edit) -> tuple:
    """The example after `edit`, and what is wrong with it."""
    try:
        conversation = conversation_of(text)
    except PlaygroundError as error:
        return gr.skip(), notice(f"The example has to be mended first: {error}.", warn=True)
    row = edit({"messages": conversation.messages, "tools": conversation.tools})
    return browse.example_text(type(conversation)(row["messages"], row["tools"], conversation.variables)), ""


# --- the cards ---


def draw(reader: Reader, text, names, view, model, generation, sanitize, values=None) -> tuple[str, gr.Timer]:
    """The cards as HTML, and whether to look again soon for a tokenizer that is not here yet."""
    tokenizer, note, missing = reader.tokenizer_or_note(
        model,
        "there are no token ids",
        "there are no token ids: this is the text alone, without the model's own begin and end tokens.",
    )
    body = page(reader, text, names, view, tokenizer, generation, sanitize, note, reader.context(model), values)
    return body, gr.Timer(active=missing)


def page(
    reader, text, names, view=TEXT, tokenizer=None, generation=False, sanitize=True, note="", context=0, values=None
) -> str:
    """Legend, notes and one card per template; instead of cards what is wrong, or what to do first."""
    if not (text or "").strip():
        return view_of(note + empty("Pick an example under “Start from”, or paste messages as JSON or a line of text."))
    if not names:
        return view_of(note + empty("Choose one or more templates to see the example in each of them."))
    try:
        conversation = conversation_of(text, values)
    except PlaygroundError as error:
        return view_of(note + notice(f"This example cannot be rendered: {error}.", warn=True))
    found = [_found(reader, name, tokenizer) for name in names]
    if view == DIFF:
        return view_of(note + _difference(found, conversation, tokenizer, generation, sanitize))
    drawn = [
        cards.failed(*template)
        if isinstance(template, tuple)
        else cards.card(template, conversation, tokenizer, view, generation, sanitize, context)
        for template in found
    ]
    return view_of(cards.LEGEND + note + f'<div class="templates-cards">{"".join(drawn)}</div>')


def _found(reader: Reader, name: str, tokenizer):
    """The template, or its title and why it cannot be had."""
    try:
        return reader.template(name, tokenizer)
    except PlaygroundError as error:
        titles = {key: title for title, key in reader.services.templates.choices()}
        return titles.get(name, name), first_upper(str(error))


def _difference(found: list, conversation, tokenizer, generation, sanitize) -> str:
    usable = [template for template in found if not isinstance(template, tuple)]
    if len(usable) < 2:
        return empty("Choose two templates: the difference between the first and each of the others is shown.")
    first, *others = usable
    drawn = [cards.diff_card(first, other, conversation, tokenizer, generation, sanitize) for other in others]
    return f'<div class="templates-cards wide">{"".join(drawn)}</div>'
