"""Templates: one example under several chat templates side by side, as text and as tokens, with the loss mask."""

import html
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import gradio as gr

from playground.core import datasets, templates
from playground.core.messages import Conversation, check_messages, parse_conversation
from playground.core.templates import Rendered, Span
from playground.core.tokenizer import Tokenizer
from playground.errors import PlaygroundError
from playground.ui.common import QUEUED, Services, shown

DEFAULT_TEMPLATES = ["chatml-tools", "alpaca", "plain"]
DEFAULT_SAMPLE = "Tool call with its result"
TEXT, TOKENS = "Text", "Tokens"
SHOWN_CHARACTERS = 12_000  # of one card; longer texts are cut in the middle, counts are of the whole
SHOWN_TOKENS = 3_000
SPACES = {"\n": "↵\n", "\t": "⇥\t", "\r": "␍"}

CSS = """
.templates-intro { margin: 0; font-size: var(--text-md); color: var(--body-text-color-subdued); }
.templates-view {
  --system: #fbe7b8; --user: #cfe3fb; --assistant: #cdeed3; --tool: #e6d8f8; --trained: #0a6b3d; --warn: #8f2a12;
}
.dark .templates-view {
  --system: #58430c; --user: #1d4370; --assistant: #17502b; --tool: #4a3470; --trained: #5fdd96; --warn: #ffb199;
}
.templates-cards {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); gap: 12px; align-items: start;
}
.templates-card {
  border: 1px solid var(--border-color-primary); border-radius: var(--radius-lg);
  background: var(--block-background-fill); min-width: 0;
}
.templates-card header { padding: 10px 14px 8px; border-bottom: 1px solid var(--border-color-primary); }
.templates-card h3 { margin: 0; font-size: var(--text-lg); font-weight: 600; line-height: 1.3; }
.templates-card p { margin: 4px 0 0; font-size: var(--text-sm); color: var(--body-text-color-subdued); }
.templates-card .counts { font-variant-numeric: tabular-nums; color: var(--body-text-color); }
.templates-card .counts b { font-weight: 600; }
.templates-view p.warn { color: var(--warn); }
.templates-card .body {
  padding: 10px 14px 14px; font-family: var(--font-mono); font-size: var(--text-md); line-height: 1.75;
  white-space: pre-wrap; overflow-wrap: anywhere; color: var(--body-text-color);
}
.templates-view .r { border-radius: 3px; padding: 1px 0; box-decoration-break: clone; }
.templates-view .system { background: var(--system); }
.templates-view .user { background: var(--user); }
.templates-view .assistant { background: var(--assistant); }
.templates-view .tool { background: var(--tool); }
.templates-view .template { color: var(--body-text-color-subdued); }
.templates-view .trained {
  color: var(--body-text-color); text-decoration: underline solid var(--trained) 0.16em;
  text-underline-offset: 0.28em; text-decoration-skip-ink: none;
}
.templates-view .special { font-weight: 700; border: 1px solid currentColor; border-radius: 4px; padding: 0 2px; }
.templates-view .space { opacity: 0.6; user-select: none; font-weight: 400; }
.templates-view .tokens { line-height: 2.15; }
.templates-view .tokens .r {
  display: inline-block; border: 1px solid var(--border-color-primary); border-radius: 4px; padding: 1px 2px;
  margin: 0 1px; line-height: 1.35; white-space: pre; max-width: 100%; overflow: hidden; vertical-align: bottom;
  text-decoration: none;
}
.templates-view .tokens .special { border-color: currentColor; }
.templates-view .tokens .trained { border-bottom: 3px solid var(--trained); }
.templates-view .tokens .r:hover { outline: 2px solid var(--color-accent); }
.templates-legend {
  display: flex; flex-wrap: wrap; gap: 6px 16px; font-size: var(--text-sm); align-items: center; margin: 0 0 10px;
}
.templates-legend .r { font-family: var(--font-mono); padding: 1px 5px; }
.templates-note { margin: 0 0 10px; font-size: var(--text-md); }
.templates-empty {
  padding: 28px 16px; text-align: center; border: 1px dashed var(--border-color-primary);
  border-radius: var(--radius-lg); color: var(--body-text-color-subdued); font-size: var(--text-md);
}
.templates-cut { display: block; color: var(--body-text-color-subdued); font-style: italic; }
.templates-example textarea { font-family: var(--font-mono); font-size: var(--text-sm); line-height: 1.5; }
"""
INTRO = (
    '<p class="templates-intro">A chat template turns messages into the one text that a model reads. Pick an example '
    "and see it in several templates: who wrote what, and, underlined, what training would learn.</p>"
)

LEGEND = (
    '<div class="templates-legend" aria-label="Legend">'
    + "".join(
        f'<span><span class="r {role}">{role}</span> {text}</span>'
        for role, text in (
            ("system", ""),
            ("user", ""),
            ("assistant", ""),
            ("tool", "result"),
            ("template", "written by the template"),
        )
    )
    + '<span><span class="r template trained">underlined</span> trained: the loss is on it</span>'
    '<span><span class="r"><span class="special">&lt;…&gt;</span></span> one special token</span>'
    '<span><span class="r"><span class="space">↵</span></span> new line</span></div>'
)


@dataclass(frozen=True)
class Reader:
    """What the handlers need of the process: which models there are, and their tokenizers, kept once read."""

    services: Services
    load: Callable

    def tokenizer(self, model: str) -> Tokenizer | None:
        folder = self.services.sources.find(model)
        return self.load(folder) if folder is not None else None

    def entry(self, model: str):
        return next((entry for entry in self.services.sources.entries() if entry.name == model), None)

    def title(self, model: str) -> str:
        return getattr(self.entry(model), "title", "") or model

    def context(self, model: str) -> int:
        return getattr(self.entry(model), "context", 0) or 0


def build(services: Services) -> None:
    """The tab. Text is shown without any model; tokens as soon as the model's tokenizer is on the machine."""
    reader = Reader(services, lru_cache(maxsize=4)(Tokenizer.load))
    gr.HTML(INTRO)
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            with gr.Row():
                example = gr.Dropdown(
                    example_choices(),
                    value=DEFAULT_SAMPLE,
                    label="Start from",
                    scale=3,
                    min_width=180,
                    filterable=False,
                )
                row = gr.Number(1, label="Row", precision=0, minimum=1, visible=False, scale=1, min_width=80)
            text = gr.Textbox(
                example_text(datasets.samples()[DEFAULT_SAMPLE]),
                label="Example: messages as JSON, or plain text",
                lines=7,
                max_lines=14,
                elem_classes="templates-example",
            )
            with gr.Accordion("Your own template", open=False):
                own = gr.Textbox(
                    label="A Jinja chat template: its card comes first",
                    placeholder="{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
                    lines=6,
                    max_lines=18,
                    elem_classes="templates-example",
                )
        with gr.Column(scale=2, min_width=300):
            chosen = gr.Dropdown(
                template_choices(), value=DEFAULT_TEMPLATES, multiselect=True, label="Templates, side by side"
            )
            view = gr.Radio([TEXT, TOKENS], value=TEXT, label="View")
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
    cards = gr.HTML()
    waiting = gr.Timer(3.0, active=False)
    quiet = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    inputs, outputs = [text, chosen, own, view, model, generation, sanitize], [cards, waiting]
    gr.on([example.input, row.change], shown(pick), [example, row], [text, row], trigger_mode="always_last", **QUEUED)
    # without triggers: when the page loads, and at every change of an input
    gr.on(None, partial(draw, reader), inputs, outputs, trigger_mode="always_last", **quiet)
    waiting.tick(partial(draw, reader), inputs, outputs, **quiet)


# --- the example ---


def example_choices() -> list[tuple[str, str]]:
    """Built-in samples, then the built-in data sets, whose rows can be picked."""
    return [(title, title) for title in datasets.samples()] + [
        (f"Data set: {name}", f"data:{name}") for name in datasets.names()
    ]


def template_choices() -> list[tuple[str, str]]:
    built_in = [(templates.load(name).title, name) for name in templates.names()]
    return [*built_in, ("The model's own", templates.MODEL)]


def pick(example: str, row: float | None) -> tuple:
    """The picked example as text, and the row field, shown for a data set only."""
    if not example.startswith("data:"):
        return example_text(datasets.samples()[example]), gr.update(visible=False)
    conversations = datasets.load(example.removeprefix("data:")).conversations
    number = min(max(int(row or 1), 1), len(conversations))
    label = f"Row of {len(conversations):,}"
    return example_text(conversations[number - 1]), gr.update(visible=True, label=label, maximum=len(conversations))


def example_text(conversation: Conversation) -> str:
    """The conversation as JSON, one message and one tool per line."""

    def lines(values: list[dict]) -> str:
        return "[\n" + ",\n".join(f"  {json.dumps(value, ensure_ascii=False)}" for value in values) + "\n]"

    keys = {"messages": lines(conversation.messages)}
    if conversation.tools:
        keys["tools"] = lines(conversation.tools)
    keys |= {name: json.dumps(value, ensure_ascii=False) for name, value in conversation.variables.items()}
    return "{" + ",\n".join(f'"{name}": {value}' for name, value in keys.items()) + "}"


# --- the cards ---


def draw(reader: Reader, text, names, own, view, model, generation, sanitize) -> tuple[str, gr.Timer]:
    """The cards as HTML, and whether to look again soon for a tokenizer that is not here yet."""
    tokenizer, note = None, ""
    try:
        tokenizer = reader.tokenizer(model)
    except PlaygroundError as error:
        note = notice(f"The tokenizer cannot be read, so there are no token ids: {error}", warn=True)
    missing = tokenizer is None and not note
    if missing:
        note = notice(
            f"{reader.title(model)} is not on this machine yet, so there are no token ids: this is the text alone, "
            "without the model's own begin and end tokens. Get the model with the button at the top of the page."
        )
    return page(text, names, own, view, tokenizer, generation, sanitize, note, reader.context(model)), gr.Timer(
        active=missing
    )


def page(text, names, own, view, tokenizer, generation=False, sanitize=True, note="", context=0) -> str:
    """Legend, notes and one card per template; instead of cards what is wrong, or what to do first."""
    if not (text or "").strip():
        return view_of(note + empty("Pick an example under “Start from”, or paste messages as JSON or a line of text."))
    own = (own or "").strip("\n")
    if not names and not own.strip():
        return view_of(note + empty("Choose one or more templates to see the example in each of them."))
    try:
        conversation = parse_conversation(text)
        check_messages(conversation.messages)
    except PlaygroundError as error:
        return view_of(note + notice(f"This example cannot be rendered: {error}.", warn=True))
    wanted = [partial(templates.pasted, own, "your own")] if own.strip() else []
    wanted += [partial(templates.load, name, tokenizer) for name in names]
    cards = [card(find, conversation, tokenizer, view, generation, sanitize, context) for find in wanted]
    return view_of(LEGEND + note + f'<div class="templates-cards">{"".join(cards)}</div>')


def view_of(body: str) -> str:
    return f'<div class="templates-view">{body}</div>'


def empty(sentence: str) -> str:
    return f'<div class="templates-empty">{html.escape(sentence)}</div>'


def notice(sentence: str, warn: bool = False) -> str:
    kind = "templates-note warn" if warn else "templates-note"
    return f'<p class="{kind}" role="{"alert" if warn else "note"}">{html.escape(sentence)}</p>'


def card(find: Callable, conversation, tokenizer, view, generation, sanitize, context) -> str:
    """The card of the template that `find` gives: counts, what it leaves out, and the rendered example."""
    title = "The model's own"
    try:
        template = find()
        title = template.title
        done = templates.render(template, conversation, tokenizer, generation, sanitize)
    except PlaygroundError as error:
        sentence = f"{error}"
        body = f'<p class="warn" role="alert">{html.escape(sentence[:1].upper() + sentence[1:])}</p>'
        return f'<section class="templates-card"><header><h3>{html.escape(title)}</h3>{body}</header></section>'
    notes = [f'<p class="counts">{counts(done)}</p>', *remarks(template, conversation, tokenizer, done, context)]
    if view == TOKENS and tokenizer is not None:
        body = f'<div class="body tokens">{token_chips(done, tokenizer)}</div>'
    else:
        body = f'<div class="body">{marked_text(done, special_ranges(done, tokenizer))}</div>'
    head = f'<header title="{html.escape(template.description)}"><h3>{html.escape(title)}</h3>{"".join(notes)}</header>'
    return f'<section class="templates-card">{head}{body}</section>'


def counts(done: Rendered) -> str:
    characters = f"<b>{len(done.text):,}</b> characters"
    if done.ids is None:
        trained, whole = len(done.trained_text), len(done.text)
        return f"{characters} · <b>{trained:,}</b> of them trained ({_share(trained, whole)})"
    trained, whole = sum(done.mask), len(done.ids)
    return f"{characters} · <b>{whole:,}</b> tokens · <b>{trained:,}</b> trained ({_share(trained, whole)})"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "0%"


def remarks(template, conversation, tokenizer, done: Rendered, context: int) -> list[str]:
    """What a reader of this card should know: what is left out, how the mask is found, what does not fit."""
    found = []
    left_out = dropped(template, conversation, tokenizer)
    if left_out:
        plural = len(left_out) > 1 or left_out[0].endswith("s")
        found.append(f"No place here for {_listed(left_out)}: the model never sees {'them' if plural else 'it'}.")
    if any(message["role"] == "assistant" for message in conversation.messages):
        if done.mask_rule == "none":
            found.append(
                "Nothing can be trained: it has no {% generation %} marks, and the text of a longer conversation does "
                "not begin with the text of the shorter one."
            )
        elif not done.trained_text:
            found.append("Nothing is trained: no word of the assistant reaches this text.")
    if context and done.ids is not None and len(done.ids) > context:
        found.append(f"Longer than the model's context of {context:,} tokens: training cuts it, chat refuses it.")
    typed = typed_control_tokens(conversation, tokenizer, done)
    if typed:
        found.append(
            f"A message holds {_listed(typed)} as a real control token: the model takes it for the template's."
        )
    notes = [f'<p class="warn">{html.escape(sentence)}</p>' for sentence in found]
    if done.mask_rule == "prefix":
        notes.append("<p>It has no {% generation %} marks; trained is what each answer adds to its prompt.</p>")
    if done.shape:
        notes.append(f"<p>It fails on the usual form of the messages; given here: {html.escape(done.shape)}.</p>")
    return notes


def dropped(template, conversation: Conversation, tokenizer) -> list[str]:
    """The parts of this conversation that the template does not write."""
    messages = conversation.messages
    parts = {
        "system": ("the system message", any(m["role"] == "system" for m in messages)),
        "tools": ("the tools", bool(conversation.tools)),
        "tool_results": ("tool results", any(m["role"] == "tool" for m in messages)),
        "reasoning": ("the reasoning", any(m.get("reasoning_content") for m in messages)),
    }
    wanted = {key: words for key, (words, there) in parts.items() if there}
    if not wanted:
        return []
    can = templates.abilities(template, tokenizer)
    return [words for key, words in wanted.items() if not getattr(can, key)]


def typed_control_tokens(conversation: Conversation, tokenizer, done: Rendered) -> list[str]:
    """Special tokens that stand in a message and were encoded as such."""
    if tokenizer is None:
        return []
    contents = [m[key] for m in conversation.messages for key in ("content", "reasoning_content") if m.get(key)]
    typed = [token for token in tokenizer.special_tokens if any(token in content for content in contents)]
    return [
        token for token in typed if any(_role_at(done, a) != "template" for a, b in _places(done, tokenizer, token))
    ]


def _places(done: Rendered, tokenizer, token: str) -> list[tuple[int, int]]:
    wanted = tokenizer.backend.token_to_id(token)
    return [where for i, where in zip(done.ids, done.offsets, strict=True) if i == wanted]


def _role_at(done: Rendered, at: int) -> str:
    return next((span.role for span in done.spans if span.start <= at < span.end), "template")


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


# --- text view ---


def special_ranges(done: Rendered, tokenizer) -> list[tuple[int, int]]:
    """Where the text holds special tokens, by their ids: text that only looks like one is not among them."""
    if tokenizer is None:
        return []
    pairs = zip(done.ids, done.offsets, strict=True)
    return [where for i, where in pairs if i in tokenizer.special_ids]


def marked_text(done: Rendered, special: list[tuple[int, int]]) -> str:
    pieces = []
    for start, end in shown_ranges(len(done.text)):
        if pieces:
            gap = len(done.text) - SHOWN_CHARACTERS
            pieces.append(f'<span class="templates-cut">… {gap:,} characters not shown …</span>')
        for span in done.spans:
            if span.start < end and span.end > start:
                inner = with_special(done.text, max(span.start, start), min(span.end, end), special)
                pieces.append(f'<span class="{span_class(span)}" title="{span_title(span)}">{inner}</span>')
    return "".join(pieces)


def shown_ranges(length: int) -> list[tuple[int, int]]:
    """The characters that are drawn: all, or the first and last part of a long text."""
    if length <= SHOWN_CHARACTERS:
        return [(0, length)]
    tail = SHOWN_CHARACTERS // 4
    return [(0, SHOWN_CHARACTERS - tail), (length - tail, length)]


def with_special(text: str, start: int, end: int, special: list[tuple[int, int]]) -> str:
    pieces, here = [], start
    for a, b in special:
        if a >= here and b <= end:
            pieces.append(visible(text[here:a]))
            pieces.append(f'<span class="special">{visible(text[a:b])}</span>')
            here = b
    return "".join([*pieces, visible(text[here:end])])


def visible(text: str) -> str:
    """Escaped, with line breaks and tabs marked."""
    escaped = html.escape(text)
    for mark, seen in SPACES.items():
        escaped = escaped.replace(mark, f'<span class="space">{seen[0]}</span>{seen[1:]}')
    return escaped


def span_class(span: Span, special: bool = False) -> str:
    return f"r {span.role}" + (" trained" if span.trained else "") + (" special" if special else "")


def span_title(span: Span) -> str:
    who = "written by the template" if span.role == "template" else span.role
    return f"{who}, {'trained' if span.trained else 'not trained'}"


# --- token view ---


def token_chips(done: Rendered, tokenizer: Tokenizer) -> str:
    """One chip per token; its id, place, role and whether it is trained are in its title."""
    pieces, chips, spans, n = tokenizer.pieces(done.ids[:SHOWN_TOKENS]), [], done.spans, 0
    for at, piece in enumerate(pieces):
        start, end = done.offsets[at]
        while n + 1 < len(spans) and spans[n].end <= start:
            n += 1
        # a token across a border, such as a space and a word, belongs to whom most of it is from
        most = max(spans[n : n + 3], key=lambda span: min(span.end, end) - max(span.start, start))
        span = Span(start, end, most.role, done.mask[at])
        id = done.ids[at]
        title = html.escape(f"id {id} · token {at + 1:,} · {span_title(span)}", quote=True)
        special = id in tokenizer.special_ids
        chips.append(f'<span class="{span_class(span, special)}" title="{title}">{chip_text(piece)}</span>')
        if piece.endswith("\n"):
            chips.append("<br>")
    rest = len(done.ids) - len(pieces)
    if rest:
        chips.append(f'<span class="templates-cut">… {rest:,} more tokens …</span>')
    return "".join(chips)


def chip_text(piece: str) -> str:
    escaped = html.escape(piece).replace("\n", "↵").replace("\t", "⇥").replace("\r", "␍")
    return escaped.replace(" ", '<span class="space">·</span>') or '<span class="space">∅</span>'
