"""One conversation under one template as a card: counts, what is left out, and the rendering as text or as tokens."""

import html
from functools import lru_cache

from playground.core import lint, templates
from playground.core.differences import differences, shared_share
from playground.core.messages import Conversation
from playground.core.templates import Rendered, Span, Template
from playground.core.tokenizer import Tokenizer
from playground.errors import PlaygroundError
from playground.ui.lab.shared import first_upper, listed

TEXT, TOKENS, DIFF = "Text", "Tokens", "Difference"
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
.templates-view .badges { display: flex; flex-wrap: wrap; gap: 4px 6px; margin-top: 6px; }
.templates-view .badge {
  border: 1px solid var(--border-color-primary); border-radius: 999px; padding: 0 8px; font-size: var(--text-sm);
  line-height: 1.6; white-space: nowrap; color: var(--body-text-color);
}
.templates-view .badge.off { color: var(--body-text-color-subdued); border-style: dashed; }
.templates-view del, .templates-view ins { text-decoration: none; border-radius: 3px; padding: 1px 0; }
.templates-view del { background: #ffd7d0; }
.templates-view ins { background: #c9efd2; }
.dark .templates-view del { background: #6a2a1f; }
.dark .templates-view ins { background: #1b5a31; }
.templates-view .key del, .templates-view .key ins {
  padding: 1px 6px; margin-right: 6px; color: var(--body-text-color);
}
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


def card(template: Template, conversation, tokenizer, view=TEXT, generation=False, sanitize=True, context=0) -> str:
    """Counts, what the template can do and leaves out, and the rendered example; or why it cannot be rendered."""
    try:
        done = templates.render(template, conversation, tokenizer, generation, sanitize)
    except PlaygroundError as error:
        return failed(template.title, str(error))
    notes = [
        f'<p class="counts">{counts(done, tokenizer)}</p>',
        f'<p class="badges">{badge_row(template, tokenizer)}</p>',
        *remarks(template, conversation, tokenizer, done, context),
    ]
    if view == TOKENS and tokenizer is not None:
        body = f'<div class="body tokens">{token_chips(done, tokenizer)}</div>'
    else:
        body = f'<div class="body">{marked_text(done, special_ranges(done, tokenizer))}</div>'
    head = f'<header title="{html.escape(template.description)}"><h3>{html.escape(template.title)}</h3>{"".join(notes)}'
    return f'<section class="templates-card">{head}</header>{body}</section>'


def failed(title: str, sentence: str) -> str:
    body = f'<p class="warn" role="alert">{html.escape(first_upper(sentence))}</p>'
    return f'<section class="templates-card"><header><h3>{html.escape(title)}</h3>{body}</header></section>'


@lru_cache(maxsize=512)
def _badges(text: str, source: str, tokenizer) -> tuple:
    return tuple(lint.badges(Template("", text, source=source), tokenizer))


def badge_row(template: Template, tokenizer) -> str:
    """What the template can do, in short; what it cannot is struck through and says so when pointed at."""
    try:
        found = _badges(template.text, template.source, tokenizer)
    except PlaygroundError:  # the card itself says what is wrong
        return ""
    return "".join(
        f'<span class="badge {"on" if badge.on else "off"}" title="{html.escape(badge.what)}">'
        f"{'✓' if badge.on else '✗'} {html.escape(badge.name)}</span>"
        for badge in found
    )


def counts(done: Rendered, tokenizer=None) -> str:
    characters = f"<b>{len(done.text):,}</b> characters"
    if done.ids is None:
        trained, whole = len(done.trained_text), len(done.text)
        return f"{characters} · <b>{trained:,}</b> of them trained ({_share(trained, whole)})"
    trained, whole = sum(done.mask), len(done.ids)
    special = sum(i in tokenizer.special_ids for i in done.ids) if tokenizer else 0
    return (
        f"{characters} · <b>{whole:,}</b> tokens · <b>{trained:,}</b> trained ({_share(trained, whole)}) · "
        f"<b>{special:,}</b> special"
    )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "0%"


def remarks(template, conversation, tokenizer, done: Rendered, context: int) -> list[str]:
    """What a reader of this card should know: what is left out, how the mask is found, what does not fit."""
    found = []
    left_out = dropped(template, conversation, tokenizer)
    if left_out:
        plural = len(left_out) > 1 or left_out[0].endswith("s")
        found.append(f"No place here for {listed(left_out)}: the model never sees {'them' if plural else 'it'}.")
    if any(message["role"] == "assistant" for message in conversation.messages):
        if done.mask_rule == "none":
            found.append(
                "Nothing can be trained: it has no {% generation %} marks, and the text of a longer conversation does "
                "not begin with the text of the shorter one."
            )
        elif not done.trained_text:
            found.append("Nothing is trained: no word of the assistant reaches this text.")
    if context and done.ids is not None and len(done.ids) > context:
        found.append(
            f"Longer than the model's context of {context:,} tokens: training cuts it, chat leaves its first turns out."
        )
    typed = typed_control_tokens(conversation, tokenizer, done)
    if typed:
        found.append(f"A message holds {listed(typed)} as a real control token: the model takes it for the template's.")
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


# --- the difference of two ---


def diff_card(first: Template, second: Template, conversation, tokenizer, generation=False, sanitize=True) -> str:
    """One example in two templates as one text: what only the first writes, and what only the second does."""
    texts = []
    for template in (first, second):
        try:
            texts.append(templates.render(template, conversation, tokenizer, generation, sanitize).text)
        except PlaygroundError as error:
            return failed(template.title, str(error))
    found = differences(*texts)
    pieces = []
    for part in found:
        if part.same:
            pieces.append(_middle_cut(part.left))
            continue
        pieces += [
            f'<{tag} title="only in {html.escape(template.title)}">{_middle_cut(text)}</{tag}>'
            for tag, template, text in (("del", first, part.left), ("ins", second, part.right))
            if text
        ]
    said = (
        "Both write the same text."
        if texts[0] == texts[1]
        else f"{shared_share(found):.0%} of the characters are the same."
    )
    key = f"<del>only {html.escape(first.title)}</del> <ins>only {html.escape(second.title)}</ins>"
    return (
        f'<section class="templates-card"><header><h3>{html.escape(first.title)} and {html.escape(second.title)}</h3>'
        f'<p class="counts">{said}</p><p class="key">{key}</p></header><div class="body diff">{"".join(pieces)}</div>'
        "</section>"
    )


def _middle_cut(text: str) -> str:
    if len(text) <= SHOWN_CHARACTERS:
        return visible(text)
    half, gap = SHOWN_CHARACTERS // 2, len(text) - SHOWN_CHARACTERS
    cut = f'<span class="templates-cut">… {gap:,} characters not shown …</span>'
    return f"{visible(text[:half])}{cut}{visible(text[-half:])}"


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
