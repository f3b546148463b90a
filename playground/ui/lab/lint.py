"""Linter: what goes wrong between each chosen template, the tokenizer and the example, and on all rows of the data."""

import html
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial

import gradio as gr

from playground.core import templates
from playground.core.lint import Tally, badges, lint, lint_rows
from playground.core.lint_case import Habits, habits
from playground.core.lint_checks import ERROR, NOTE, SEVERITIES, WARNING, Finding
from playground.core.messages import Conversation
from playground.core.progress import Progress
from playground.core.templates import Abilities, Rendered, Template
from playground.core.tokenizer import Tokenizer
from playground.errors import PlaygroundError
from playground.ui.common import QUEUED, QUIET, whenever
from playground.ui.lab import progress
from playground.ui.lab.cards import chip_text, failed, visible
from playground.ui.lab.progress import Cancel, UntilCancelled, calmly
from playground.ui.lab.shared import DATA, Lab, Reader, conversation_of, empty, first_upper, listed, notice, view_of

WORDS = {ERROR: "Error", WARNING: "Warning", NOTE: "Note"}
AROUND = 60  # characters shown before and after the place that a finding points at
MARKED = 200  # characters of a place without tokens
CHIPS, PLACES = 12, 3  # tokens of one place, places of one finding
ROWS_NAMED = 6

CSS = """
.lint-findings { list-style: none; margin: 0; padding: 0; }
.lint-findings li { margin: 0; padding: 10px 14px; border-left: 4px solid var(--border-color-primary); }
.templates-view .lint-findings li > p { display: block; }
.lint-findings li + li { border-top: 1px solid var(--border-color-primary); }
.lint-findings li.error { border-left-color: var(--warn); }
.lint-findings li.warning { border-left-color: #b7791f; }
.templates-card .lint-findings p.lint-what { margin: 0; font-size: var(--text-md); color: var(--body-text-color);
  overflow-wrap: anywhere; }
.lint-error { color: var(--warn); }
.lint-place { margin: 6px 0 0; padding: 6px 8px; font-family: var(--font-mono); font-size: var(--text-sm);
  line-height: 1.9; white-space: pre-wrap; overflow-wrap: anywhere; color: var(--body-text-color-subdued);
  border: 1px dashed var(--border-color-primary); border-radius: 6px; }
.lint-place mark { background: none; color: var(--body-text-color); outline: 1px solid currentColor;
  border-radius: 3px; }
.lint-chip { display: inline-block; border: 1px solid currentColor; border-radius: 4px; margin: 0 1px; padding: 0 3px;
  line-height: 1.4; color: var(--body-text-color); background: var(--block-background-fill); }
.lint-chip small { color: var(--body-text-color-subdued); font-size: 0.85em; margin-left: 4px; }
.templates-card p.lint-none { margin: 0; padding: 14px; font-size: var(--text-md); }
.lint-tallies .templates-card { margin: 0 0 12px; }
.lint-scroll { overflow-x: auto; contain: inline-size; }
.lint-scroll table { border-collapse: collapse; width: 100%; min-width: 46rem; font-size: var(--text-sm); }
.lint-scroll th, .lint-scroll td { text-align: left; vertical-align: top; padding: 6px 10px;
  border-bottom: 1px solid var(--border-color-primary); }
.lint-scroll td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.lint-scroll td.words { min-width: 14rem; overflow-wrap: anywhere; }
"""
NOTHING_YET = "Press “Check all rows” to look for these faults in every row of the data set, not only in this one."


def build(lab: Lab) -> None:
    """The findings for the example, at every change; below, the same over all rows when asked for."""
    reader = lab.reader
    with gr.Row():
        length = gr.Number(
            0,
            label="Longest row, in tokens",
            info="What is longer is cut in training. 0 or empty: the model's context.",
            precision=0,
            min_width=220,
        )
        stops = gr.Textbox(
            "",
            label="Stop strings of your server",
            info="Where replies are ended, separated by commas, such as <|im_end|>, </s>. May stay empty.",
            min_width=260,
        )
    cards = gr.HTML()
    waiting = gr.Timer(3.0, active=False)
    with gr.Row():
        start = gr.Button("Check all rows", min_width=160)
        cancel = gr.Button("Cancel", visible=False, min_width=160)
    tallies = gr.HTML(view_of(empty(NOTHING_YET)))
    stop = gr.State(Cancel())
    inputs = [lab.example, lab.variables, lab.chosen, lab.model, length, stops]
    whenever(partial(draw, reader), inputs, [cards, waiting])
    waiting.tick(partial(draw, reader), inputs, [cards, waiting], **QUIET)
    whole = [lab.source, lab.variables, lab.chosen, lab.model, length, stops, stop]
    started = start.click(progress.running, None, [start, cancel], **QUIET)
    checked = started.then(partial(check_all, reader), whole, tallies, **QUEUED)
    checked.then(progress.idle, None, [start, cancel], **QUIET)
    cancel.click(progress.cancel, stop, None, **QUIET)


# --- the example ---


def draw(reader: Reader, text, variables, chosen, model, length, stops) -> tuple[str, gr.Timer]:
    """The cards, and whether to look again soon for a tokenizer that is not here yet."""
    tokenizer, note, missing = reader.tokenizer_or_note(
        model, "only the text is checked", "only the text is checked, not its tokens."
    )
    try:
        most = longest(length, reader.context(model))
        body = page(reader, text, variables, chosen, tokenizer, most, stop_list(stops))
    except PlaygroundError as error:
        body = notice(first_upper(f"{error}."), warn=True)
    return view_of(note + body), gr.Timer(active=missing)


def longest(length: float | None, context: int) -> int | None:
    """The length at which rows are cut: the given one, else the model's context, where it is known."""
    if not length:
        return context or None
    if length < 1:
        raise PlaygroundError(f"the longest row must have 1 token or more, got {length:,.0f}; 0 is the model's context")
    return int(length)


def stop_list(given: str | None) -> list[str] | None:
    """The strings of a comma-separated list; None for an empty one, which says nothing about a server."""
    return [stop.strip() for stop in (given or "").split(",") if stop.strip()] or None


def page(reader: Reader, text, variables, chosen, tokenizer, most=None, stops=None) -> str:
    """One card per template, or what to do first. Raises PlaygroundError for an example that is none."""
    if not (text or "").strip():
        return empty("Pick an example under “Start from”, or paste messages as JSON: the linter looks at it.")
    if not chosen:
        return empty("Choose one or more templates: the linter looks at the example in each of them.")
    conversation = conversation_of(text, variables)
    cards = [card(reader, key, conversation, tokenizer, most, stops) for key in chosen]
    return f'<div class="templates-cards">{"".join(cards)}</div>'


def card(reader: Reader, key: str, conversation: Conversation, tokenizer, most=None, stops=None) -> str:
    try:
        template = reader.template(key, tokenizer)
        usual = _habits(template, tokenizer, _settings(conversation))
        found = lint(template, conversation, tokenizer, most, stops, usual)
        places = _places(template, conversation, tokenizer, found)
        marks = badge_list(template, tokenizer)
    except PlaygroundError as error:
        return failed(title_of(reader, key, tokenizer), str(error))
    if not found:
        unseen = "" if tokenizer else " in the text; its tokens are not checked"
        body = f'<p class="lint-none">No finding{unseen}.</p>'
    else:
        items = [finding_item(finding, place) for finding, place in zip(found, places, strict=True)]
        body = f'<ul class="lint-findings">{"".join(items)}</ul>'
    head = f"<h3>{html.escape(template.title or template.name)}</h3><p>{counted(found)}</p>{marks}"
    return f'<section class="templates-card"><header>{head}</header>{body}</section>'


def title_of(reader: Reader, key: str, tokenizer: Tokenizer | None = None) -> str:
    """The template's title; the key of one that cannot be loaded."""
    try:
        template = reader.template(key, tokenizer)
    except PlaygroundError:
        return "The model's own" if key == templates.MODEL else key
    return template.title or template.name


def counted(found: list[Finding]) -> str:
    """2 errors, 1 note."""
    numbers = {severity: sum(f.severity == severity for f in found) for severity in SEVERITIES}
    words = [f"{n} {WORDS[severity].lower()}{'s' if n > 1 else ''}" for severity, n in numbers.items() if n]
    return ", ".join(words) or "No finding"


def badge_list(template: Template, tokenizer: Tokenizer | None) -> str:
    items = [
        f'<span class="badge {"on" if badge.on else "off"}" title="{html.escape(first_upper(badge.what))}">'
        f"{html.escape(badge.name)}: {'yes' if badge.on else 'no'}</span>"
        for badge in badges(template, tokenizer, _abilities(template, tokenizer))
    ]
    return f'<p class="badges" aria-label="What the template can do">{"".join(items)}</p>'


@lru_cache(maxsize=32)
def _abilities(template: Template, tokenizer: Tokenizer | None) -> Abilities:
    return templates.abilities(template, tokenizer)


@lru_cache(maxsize=32)
def _habits(template: Template, tokenizer: Tokenizer | None, variables: str) -> Habits:
    return habits(template, tokenizer, json.loads(variables))


def _settings(conversation: Conversation) -> str:
    """The variables that the linter renders with, as text."""
    return json.dumps({k: v for k, v in conversation.variables.items() if k != "add_generation_prompt"})


# --- a finding and its place ---


def finding_item(finding: Finding, place: str) -> str:
    what = f'<b class="lint-{finding.severity}">{WORDS[finding.severity]}:</b> {html.escape(finding.what)}'
    return (
        f'<li class="{finding.severity}" data-rule="{finding.rule}"><p class="lint-what">{what}</p>'
        f"<p>Why it matters: {html.escape(finding.why)}</p>{place}</li>"
    )


def _places(template: Template, conversation: Conversation, tokenizer, found: list[Finding]) -> list[str]:
    if not any(finding.characters for finding in found):
        return [""] * len(found)
    variables = json.loads(_settings(conversation))
    done = templates.render(template, replace(conversation, variables=variables), tokenizer, spans=False)
    return [place_of(finding, done, tokenizer) for finding in found]


def place_of(finding: Finding, done: Rendered, tokenizer: Tokenizer | None) -> str:
    """The rendered text around what the finding is about: tokens as chips with their ids, else the text marked."""
    if finding.characters is None:
        return ""
    if finding.tokens and tokenizer is not None:
        runs = _runs(finding.tokens)
        shown = "".join(_token_place(run, done, tokenizer) for run in runs[:PLACES])
        rest = len(runs) - PLACES
        return shown + (f"<p>and {rest} more place{'s' if rest > 1 else ''}</p>" if rest > 0 else "")
    start, end = finding.characters
    cut = end - start > MARKED
    marked = visible(done.text[start : start + MARKED] if cut else done.text[start:end]) + ("…" if cut else "")
    return _excerpt(done.text, start, end, f"<mark>{marked or 'here'}</mark>", after=not cut)


def _runs(tokens: tuple[int, ...]) -> list[list[int]]:
    """Neighbouring tokens together."""
    runs: list[list[int]] = []
    for token in sorted(set(tokens)):
        if runs and token == runs[-1][-1] + 1:
            runs[-1].append(token)
        else:
            runs.append([token])
    return runs


def _token_place(run: list[int], done: Rendered, tokenizer: Tokenizer) -> str:
    shown, rest = run[:CHIPS], len(run) - CHIPS
    ids = [done.ids[at] for at in shown]
    chips = "".join(_chip(*token) for token in zip(shown, ids, tokenizer.pieces(ids), strict=True))
    more = f" … {rest:,} more token{'s' if rest > 1 else ''}" if rest > 0 else ""
    return _excerpt(done.text, done.offsets[run[0]][0], done.offsets[run[-1]][1], chips + more, after=rest <= 0)


def _chip(at: int, id: int, piece: str) -> str:
    return f'<span class="lint-chip" title="token {at + 1:,}, id {id}">{chip_text(piece)}<small>{id}</small></span>'


def _excerpt(text: str, start: int, end: int, middle: str, after: bool = True) -> str:
    before = ("…" if start > AROUND else "") + visible(text[max(0, start - AROUND) : start])
    behind = visible(text[end : end + AROUND]) + ("…" if end + AROUND < len(text) else "") if after else ""
    return f'<div class="lint-place">{before}{middle}{behind}</div>'


# --- all rows ---


def check_all(reader: Reader, source, variables, chosen, model, length, stops, stop: Cancel) -> Iterator[str]:
    """The tallies of each template while the rows are read; those found until a cancel stay."""
    stop.clear()
    if not (source or "").startswith(DATA):
        sentence = "This example is one row, and the findings above are about all of it. "
        yield view_of(empty(sentence + "Pick a data set under “Start from” to check many rows."))
        return
    if not chosen:
        yield view_of(empty("Choose one or more templates: the rows are checked with each of them."))
        return
    try:
        data, tokenizer = reader.data(source), reader.tokenizer(model)
        most = longest(length, reader.context(model))
    except PlaygroundError as error:
        yield view_of(notice(first_upper(f"{error}."), warn=True))
        return
    rows = UntilCancelled(with_variables(data.conversations, variables), stop)
    finished, read, titles = [], 0, [title_of(reader, key, tokenizer) for key in chosen]
    for number, (key, title) in enumerate(zip(chosen, titles, strict=True), 1):
        try:
            template = reader.template(key, tokenizer)
            for step in calmly(lint_rows(template, rows, tokenizer, most, stop_list(stops))):
                table, read = tally_card(title, step, data.numbers), step.done
                line = progress.line(step, f"Template {number} of {len(chosen)}, {title}")
                yield _tallies(line, [*finished, table])
        except PlaygroundError as error:
            table, read = failed(title, str(error)), 0
        finished.append(table)
        if stop.is_set():
            break
    yield _tallies(_outcome(data.name, len(rows), read, titles[len(finished) :], stop), finished)


def with_variables(conversations: list[Conversation], variables: dict | None) -> list[Conversation]:
    """The rows with the page's template variables, which win over a row's own."""
    if not variables:
        return conversations
    return [replace(row, variables={**row.variables, **variables}) for row in conversations]


def _tallies(line: str, cards: list[str]) -> str:
    return view_of(f'{line}<div class="lint-tallies">{"".join(cards)}</div>')


def _outcome(name: str, rows: int, read: int, left: list[str], stop: Cancel) -> str:
    if not stop.is_set() or (read == rows and not left):
        return notice(f"All {rows:,} rows of {name} are checked.")
    unread = f" Not checked: {listed(left)}." if left else ""
    return notice(
        f"Cancelled after {read:,} of {rows:,} rows of the last template shown; what was found until then is kept."
        + unread
    )


def tally_card(title: str, step: Progress, numbers: list[int]) -> str:
    """The table of one template; `numbers` are the rows' numbers in their file."""
    head = f"<header><h3>{html.escape(title)}</h3><p>{step.done:,} rows checked</p></header>"
    if not step.result:
        body = '<p class="lint-none">No finding.</p>'
    else:
        columns = ("Severity", "Finding", "Rows", "Share", "First rows", "In the first of them", "Why it matters")
        titles = "".join(f'<th scope="col">{column}</th>' for column in columns)
        lines = "".join(tally_line(tally, step.done, numbers) for tally in step.result)
        body = f'<div class="lint-scroll"><table><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table></div>'
    return f'<section class="templates-card">{head}{body}</section>'


def tally_line(tally: Tally, rows: int, numbers: list[int]) -> str:
    places = [numbers[row - 1] if numbers else row for row in tally.rows]
    first = ", ".join(f"{number:,}" for number in list(dict.fromkeys(places))[:ROWS_NAMED])
    more = " …" if tally.count > ROWS_NAMED else ""
    return (
        f'<tr><td><b class="lint-{tally.severity}">{WORDS[tally.severity]}</b></td><td>{html.escape(tally.rule)}</td>'
        f'<td class="number">{tally.count:,}</td><td class="number">{tally.count / rows:.1%}</td>'
        f'<td>{first}{more}</td><td class="words">{html.escape(tally.example.what)}</td>'
        f'<td class="words">{html.escape(tally.why)}</td></tr>'
    )
