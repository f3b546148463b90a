"""Scorecard: lanes asked a set of questions, counted by what went wrong, before and after a fine-tune."""

import html
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gradio as gr

from playground.core import question_sets, scorecard, tool_formats
from playground.core.question_sets import SETS
from playground.core.scorecard import FAILED, VALID, WORDS, Card, Row
from playground.errors import PlaygroundError
from playground.services.engine import Lane
from playground.services.scorecards import AUTO, FREE, MODES, SAMPLING, Entry, Scorecards, entrants
from playground.ui import scorecard_view
from playground.ui.common import QUEUED, QUIET, Services, components, shown, whole
from playground.ui.lanes import (
    MAX_LANES,
    adapter_choices,
    check_here,
    first_choices,
    lane_title,
    model_choices,
    template_choices,
)
from playground.ui.scorecard_view import PAGE, difference, empty, row_list, status, tables

CSS = scorecard_view.CSS
OWN = "file"
DATA = "data:"  # before the name of a data set
ALL, NOT_VALID = "all", "not valid"
TICK = 1.5  # seconds between two looks at the running scorecard

FILE_HELP = (
    'A JSONL file with {"question", "tools", "expected": [{"name", "arguments"}]} in each row; or a file of the '
    "Berkeley Function Calling Leaderboard together with its possible answers"
)


@dataclass(frozen=True)
class View:
    """The components that handlers write to."""

    chooser: gr.Dropdown
    status: gr.HTML
    table: gr.HTML
    start: gr.Button
    cancel: gr.Button
    delete: gr.Button
    confirm: gr.Group
    word: gr.Dropdown
    lane: gr.Dropdown
    page: gr.Slider
    rows: gr.HTML
    before: gr.Dropdown
    after: gr.Dropdown
    seen: gr.State

    @property
    def all(self) -> list:
        return components(self)


def build(services: Services, cards: Scorecards | None = None) -> View:
    """Lay out the panel and wire it; called inside a tab or an accordion."""
    cards = cards or Scorecards(services.paths, services.engine)
    page = gr.context.Context.root_block
    with gr.Row():
        source = gr.Dropdown(
            source_choices(services),
            value="demo",
            label="Questions",
            min_width=260,
            scale=2,
        )
        count = gr.Number(
            40, label="How many", precision=0, minimum=1, maximum=question_sets.MAX_QUESTIONS, min_width=90
        )
        seed = gr.Number(0, label="Seed", info="of a file, 0 takes the first", precision=0, min_width=90)
        formats = gr.Dropdown(
            [("the template's own", AUTO), *((name, name) for name in tool_formats.FORMATS)],
            value=[AUTO],
            multiselect=True,
            label="Call format",
            info="any other is told to the model in the system prompt",
            min_width=220,
        )
        modes = gr.Dropdown(
            [(title, mode) for mode, title in MODES.items()],
            value=[FREE],
            multiselect=True,
            label="Decoding",
            info="constrained: only calls that fit a schema can be written",
            min_width=220,
        )
    files = gr.File(label=FILE_HELP, file_count="multiple", file_types=[".json", ".jsonl"], visible=False, height=120)
    first = first_lanes(services)
    lanes_wanted = gr.Radio(list(range(1, MAX_LANES + 1)), value=len(first), label="Lanes", elem_id="score-lanes")
    lane_rows, lane_inputs = [], []
    for number in range(MAX_LANES):
        row, inputs = _lane(services, number, first)
        lane_rows.append(row)
        lane_inputs += inputs
    with gr.Row():
        start_button = gr.Button("Start", variant="primary", elem_id="score-start", min_width=100)
        cancel_button = gr.Button("Cancel", visible=False, elem_id="score-cancel", min_width=100)
    view, no, yes = _results(cards, start_button, cancel_button)

    source.change(lambda name: gr.update(visible=name == OWN), source, files, **QUIET)
    lanes_wanted.change(
        lambda n: [gr.update(visible=number < n) for number in range(MAX_LANES)], lanes_wanted, lane_rows, **QUIET
    )
    source.focus(lambda: gr.update(choices=source_choices(services)), None, source, **QUIET)
    asked = [source, files, count, seed, formats, modes, lanes_wanted, *lane_inputs]
    start_button.click(shown(partial(start, services, cards, view)), asked, view.all, **QUEUED)
    cancel_button.click(partial(cancel, cards, view), view.chooser, view.all, **QUIET)
    look = [view.chooser, view.seen, view.word, view.lane, view.page]
    page.load(partial(opened, services, cards, view), None, [*view.all, *lane_inputs], **QUIET)
    gr.Timer(TICK).tick(partial(tick, cards, view), look, view.all, **QUIET)
    view.chooser.input(partial(choose, cards, view), view.chooser, view.all, **QUIET)
    narrowed = [view.chooser, view.word, view.lane, view.page]
    gr.on([view.word.input, view.lane.input], partial(narrow, cards, view), narrowed, [view.page, view.rows], **QUIET)
    view.page.release(partial(turn, cards), narrowed, view.rows, **QUIET)
    view.delete.click(lambda: gr.update(visible=True), None, view.confirm, **QUIET)
    no.click(lambda: gr.update(visible=False), None, view.confirm, **QUIET)
    yes.click(shown(partial(delete, cards, view)), view.chooser, view.all, **QUEUED)
    return view


def _lane(services: Services, number: int, first: Sequence[tuple[str, str]]):
    model, adapter = first[number] if number < len(first) else first[0]
    with gr.Row(visible=number < len(first)) as row:
        inputs = [
            gr.Dropdown(
                first_choices(services, services.model),
                value=model,
                label=f"Model {number + 1}",
                allow_custom_value=True,
                min_width=160,
            ),
            gr.Dropdown(adapter_choices(services), value=adapter, label="Adapter", min_width=160),
            gr.Dropdown(template_choices(services), value="", label="Template", min_width=160),
        ]
    return row, inputs


def _results(cards: Scorecards, start_button: gr.Button, cancel_button: gr.Button):
    with gr.Row(equal_height=False):
        chooser = gr.Dropdown(choices(cards), value=None, label="Scorecards", elem_id="score-chooser", scale=3)
        delete_button = gr.Button("Delete", visible=False, elem_id="score-delete", min_width=100)
    with gr.Group(visible=False) as confirm:
        gr.HTML("<p>Delete this scorecard with all its replies?</p>")
        with gr.Row():
            yes = gr.Button("Yes, delete it", variant="stop", size="sm", elem_id="score-yes")
            no = gr.Button("No", size="sm")
    status = gr.HTML(elem_id="score-status")
    table = gr.HTML(empty(), elem_id="score-table")
    with gr.Accordion("Replies, one by one", open=False):
        with gr.Row():
            word = gr.Dropdown(word_choices(), value=ALL, label="Outcome", elem_id="score-word", min_width=160)
            lane = gr.Dropdown([("All lanes", -1)], value=-1, label="Lane", min_width=160)
            number = gr.Slider(1, 2, value=1, step=1, label="Page", visible=False, min_width=160)
        rows = gr.HTML(elem_id="score-rows")
    with gr.Accordion("Before and after", open=False):
        with gr.Row():
            before = gr.Dropdown(column_choices(cards), value=None, label="Before", elem_id="score-before")
            after = gr.Dropdown(column_choices(cards), value=None, label="After", elem_id="score-after")
        difference = gr.HTML(elem_id="score-difference")
    gr.on([before.input, after.input], partial(compared, cards), [before, after], difference, **QUIET)
    view = View(
        chooser, status, table, start_button, cancel_button, delete_button, confirm, word, lane, number, rows, before,
        after, gr.State(None),
    )  # fmt: skip
    return view, no, yes


# --- what there is to choose ---


def first_lanes(services: Services) -> list[tuple[str, str]]:
    """(model, adapter) of each lane to begin with: the model as it is, and with an adapter that learned to call."""
    for info in services.engine.adapters():
        template = getattr(info, "template", None)
        if info.base_model == services.model and template and tool_formats.for_template(template):
            return [(services.model, ""), (services.model, info.name)]
    return [(services.model, "")]


def choices(cards: Scorecards) -> list[tuple[str, str]]:
    return [(entry_title(entry), entry.id) for entry in cards.entries()]


def entry_title(entry: Entry) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.created))
    lanes = ", ".join(column.title for column in entry.columns)
    state = "" if entry.state == "done" else f" ({entry.state}, {entry.done} of {entry.total})"
    return f"{when} · {entry.name} · {lanes}{state}"


def column_choices(cards: Scorecards) -> list[tuple[str, str]]:
    return [
        (f"{column.title} · {entry.name} · {time.strftime('%m-%d %H:%M', time.localtime(entry.created))}",
         f"{entry.id}:{number}")
        for entry in cards.entries()
        for number, column in enumerate(entry.columns)
    ]  # fmt: skip


def word_choices(card: Card | None = None) -> list[tuple[str, str]]:
    """Outcomes with how often each was given."""
    words = [row.word for row in card.rows] if card else []

    def counted(text: str, number: int) -> str:
        return f"{text} ({number})" if card else text

    wrong = sum(word not in (VALID, FAILED) for word in words)
    return [
        (counted("all", len(words)), ALL),
        (counted("all that are not valid", wrong), NOT_VALID),
        *((counted(scorecard.title(word), words.count(word)), word) for word in (*WORDS, FAILED)),
    ]


def source_choices(services: Services) -> list[tuple[str, str]]:
    """The built-in sets, a file, and the data sets that the Templates and Fine-tune tabs have too."""
    stored = [entry.name for entry in services.datasets.entries() if not entry.built_in] if services.datasets else []
    return [
        *((text, name) for name, text in SETS.items()),
        ("A file: BFCL, or your own questions", OWN),
        *((f"Data set {name}", DATA + name) for name in stored),
    ]


def asked_questions(services: Services, source: str, files: list[str] | None, count: float | None, seed: float | None):
    """(name, questions) of the form. Raises PlaygroundError."""
    count, seed = whole(count, "how many questions"), whole(seed, "the seed")
    if source.startswith(DATA):
        name = source.removeprefix(DATA)
        questions = question_sets.of_data(name, services.datasets.load(name).conversations)
        return f"{name}, seed {seed}", question_sets.choose(questions, count, seed)
    if source != OWN:
        return f"{source}, seed {seed}", question_sets.built_in(source, count, seed)
    if not files:
        raise PlaygroundError("add a file of questions first")
    paths = [Path(file) for file in files]
    questions = question_sets.choose(question_sets.read(paths), count, seed)
    return f"{paths[0].name}, seed {seed}", questions


def asked_lanes(services: Services, wanted: int, values: Sequence[str]) -> list[Lane]:
    lanes = []
    for number in range(wanted):
        model, adapter, template = (value or "" for value in values[3 * number : 3 * number + 3])
        if not model:
            raise PlaygroundError(f"lane {number + 1} has no model; choose one")
        check_here(services, model)
        title = lane_title(services, model, adapter, template)
        lanes.append(Lane(model, adapter or None, template, SAMPLING, title))
    return lanes


# --- handlers ---


def start(
    services: Services, cards: Scorecards, view: View, source, files, count, seed, formats, modes, wanted, *values
) -> dict:
    name, questions = asked_questions(services, source, files, count, seed)
    asked = entrants(services.engine, asked_lanes(services, wanted, values), formats or [AUTO], modes or [FREE])
    id = cards.start(name, asked, questions)
    return {**show(cards, view, id), view.chooser: gr.update(choices=choices(cards), value=id)}


def cancel(cards: Scorecards, view: View, id: str | None) -> dict:
    """Whoever looks at the running scorecard may cancel it."""
    cards.cancel(id or "")
    return {view.cancel: gr.update(interactive=False, value="Cancelling …")}


def opened(services: Services, cards: Scorecards, view: View) -> list:
    """A fresh page: what runs is shown, else the newest; lanes have what was fetched and trained meanwhile."""
    found = cards.entries()
    id = cards.running.card.id if cards.running else (found[0].id if found else None)
    update = {**show(cards, view, id), view.chooser: gr.update(choices=choices(cards), value=id)}
    models = model_choices(services)
    lane = [
        gr.update(choices=models) if models else gr.skip(),
        gr.update(choices=adapter_choices(services)),
        gr.update(choices=template_choices(services)),
    ]
    return [update.get(component, gr.skip()) for component in view.all] + lane * MAX_LANES


def open_stored(cards: Scorecards, view: View, id: str) -> dict:
    """One that was chosen elsewhere on the page; PlaygroundError where it has been deleted meanwhile."""
    cards.load(id)
    return {**show(cards, view, id), view.chooser: gr.update(choices=choices(cards), value=id)}


def tick(cards: Scorecards, view: View, id: str | None, seen, word: str, lane: int, number: int) -> dict:
    """Only what has changed; opened rows stay open while others are answered."""
    now = state_of(cards, id)
    if now == seen:
        return {view.seen: gr.skip()}
    update = show(cards, view, id, word, lane, number)
    running = cards.running is not None and cards.running.card.id == id
    if running:
        update.pop(view.rows)
        update.pop(view.page)
    if seen is None or now[0] != seen[0]:
        update[view.chooser] = gr.update(choices=choices(cards))
    return update


def state_of(cards: Scorecards, id: str | None) -> tuple:
    """Equal as long as there is nothing new to show: the list, and what is shown of it."""
    entries = cards.entries()
    mine = next((entry.done for entry in entries if entry.id == id), None)
    return tuple((entry.id, entry.state) for entry in entries), id, mine


def choose(cards: Scorecards, view: View, id: str | None) -> dict:
    return show(cards, view, id)


def show(cards: Scorecards, view: View, id: str | None, word: str = ALL, lane: int = -1, number: int = 1) -> dict:
    """Everything about one scorecard."""
    card, line = None, ""
    try:
        card = cards.load(id) if id else None
    except PlaygroundError as error:
        line = f'<div class="score"><p class="failed">{html.escape(str(error))}</p></div>'
    running = cards.running
    mine = running is not None and card is not None and running.card.id == card.id
    columns = column_choices(cards)
    titles = [column.title for column in card.columns] if card else []
    lane = lane if lane is not None and lane < len(titles) else -1
    return {
        view.status: line or status(card, running),
        view.table: tables(card) if card else empty(),
        view.start: gr.update(visible=running is None),
        view.cancel: gr.update(visible=mine, interactive=True, value="Cancel"),
        view.delete: gr.update(visible=card is not None and not mine),
        view.confirm: gr.update(visible=False),
        view.word: gr.update(choices=word_choices(card), value=word),
        view.lane: gr.update(choices=[("All lanes", -1), *((t, n) for n, t in enumerate(titles))], value=lane),
        view.before: gr.update(choices=columns),
        view.after: gr.update(choices=columns),
        view.seen: state_of(cards, id),
        **_list(view, card, word, lane, number),
    }


def narrow(cards: Scorecards, view: View, id: str | None, word: str, lane: int, number: int) -> dict:
    """Another outcome or lane: its first page."""
    return _list(view, found(cards, id), word, lane, 1)


def turn(cards: Scorecards, id: str | None, word: str, lane: int, number: int) -> str:
    card = found(cards, id)
    return row_list(card, filtered(card, word, lane), int(number or 1)) if card else ""


def delete(cards: Scorecards, view: View, id: str | None) -> dict:
    if id:
        cards.delete(id)
    left = cards.entries()
    newest = left[0].id if left else None
    return {**show(cards, view, newest), view.chooser: gr.update(choices=choices(cards), value=newest)}


def found(cards: Scorecards, id: str | None) -> Card | None:
    try:
        return cards.load(id) if id else None
    except PlaygroundError:
        return None


def filtered(card: Card, word: str, lane: int) -> list[Row]:
    rows = [row for row in card.rows if lane in (None, -1) or row.column == lane]
    if word == NOT_VALID:
        rows = [row for row in rows if row.word not in (VALID, FAILED)]
    elif word in WORDS or word == FAILED:
        rows = [row for row in rows if row.word == word]
    return sorted(rows, key=lambda row: (row.question, row.column))


def _list(view: View, card: Card | None, word: str, lane: int, number: int) -> dict:
    rows = filtered(card, word, lane) if card else []
    pages = max(1, -(-len(rows) // PAGE))
    number = min(max(1, int(number or 1)), pages)
    return {
        view.page: gr.update(visible=pages > 1, maximum=max(2, pages), value=number, label=f"Page, of {pages}"),
        view.rows: row_list(card, rows, number) if card else "",
    }


def compared(cards: Scorecards, before: str | None, after: str | None) -> str:
    if not before or not after:
        return '<div class="score"><p>Choose two: the same questions are compared one by one.</p></div>'
    try:
        sides = [(cards.load(id), int(number)) for id, _, number in (one.partition(":") for one in (before, after))]
        if any(number >= len(card.columns) for card, number in sides):
            raise PlaygroundError("one of the two lanes is not there any more")
    except (PlaygroundError, ValueError) as error:
        return f'<div class="score"><p class="failed">{html.escape(str(error))}</p></div>'
    (old, column), (new, other) = sides
    return difference(scorecard.compare(old, column, new, other), old.columns[column].title, new.columns[other].title)
