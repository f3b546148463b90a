"""The guided loop: rows, training, score, the weakest error, rows for it, and again; each step a button."""

import html
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import gradio as gr

from playground.core import rounds
from playground.core.generator import schemas, writer
from playground.core.messages import load_json
from playground.core.rounds import Kit, Weakness
from playground.errors import PlaygroundError
from playground.services.loops import AFRESH, IMPROVE, SCORE, SCORING, TRAIN, TRAINING, WAYS, Loop, Loops
from playground.services.scorecards import Scorecards
from playground.ui import scorecard_view
from playground.ui.common import QUEUED, QUIET, Services, components, shown, whole
from playground.ui.lab.progress import line
from playground.ui.tools import loop_view
from playground.ui.train import words

NEW = ""  # in the list of loops
DEMO, OWN = "demo", "own"
TICK = 1.5
LANGUAGES = {"en": "English", "de": "German", "fr": "French", "es": "Spanish"}
CSS = loop_view.CSS
EXAMPLE = [
    {
        "name": "book_table",
        "description": "Books a table in a restaurant.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "date": {"type": "string", "description": "YYYY-MM-DD"},
                "guests": {"type": "integer", "minimum": 1, "maximum": 12},
            },
            "required": ["city", "date", "guests"],
        },
    },
    {
        "name": "convert_length",
        "description": "Converts a length.",
        "parameters": {
            "type": "object",
            "properties": {
                "value": {"type": "number"},
                "from_unit": {"type": "string", "enum": ["km", "miles", "meters", "feet"]},
                "to_unit": {"type": "string", "enum": ["km", "miles", "meters", "feet"]},
            },
            "required": ["value", "from_unit", "to_unit"],
        },
    },
]


@dataclass(frozen=True)
class View:
    """The components that handlers write to."""

    chooser: gr.Dropdown
    delete: gr.Button
    confirm: gr.Group
    steps: gr.HTML
    new: gr.Column
    making: gr.HTML
    going: gr.Column
    rows: gr.HTML
    training: gr.Row
    way: gr.Radio
    run: gr.HTML
    stop: gr.Button
    score: gr.Button
    cancel: gr.Button
    status: gr.HTML
    table: gr.HTML
    improving: gr.Column
    weak: gr.Dropdown
    weakest: gr.HTML
    offered: gr.HTML
    compared: gr.HTML
    seen: gr.State

    @property
    def all(self) -> list:
        return components(self)


def build(services: Services, cards: Scorecards) -> View:
    """Lay out the panel and wire it; called inside an accordion."""
    loops = Loops(services.paths, services.datasets, services.jobs, cards, services.engine)
    page = gr.context.Context.root_block
    gr.Markdown(loop_view.INTRO)
    with gr.Row(equal_height=False):
        chooser = gr.Dropdown(choices(loops), value=NEW, label="Loop", elem_id="loop-chooser", scale=3)
        delete_button = gr.Button("Delete", visible=False, min_width=100, elem_id="loop-delete")
    with gr.Group(visible=False) as confirm:
        gr.HTML("<p>Delete this loop? Its runs, scorecards and data sets stay.</p>")
        with gr.Row():
            yes = gr.Button("Yes, delete it", variant="stop", size="sm")
            no = gr.Button("No", size="sm")
    steps = gr.HTML(loop_view.steps(None), elem_id="loop-steps")
    with gr.Column() as new:
        with gr.Row():
            recipe = gr.Radio(
                [("Tool calls in a chat", "tool-calling"), ("JSON and nothing else", "json-calls")],
                value="tool-calling",
                label="What is learned",
                info="the recipe's settings are used",
                min_width=260,
            )
            which = gr.Radio(
                [("Calculator and weather", DEMO), ("Your own", OWN)],
                value=DEMO,
                label="Tools",
                elem_id="loop-tools",
                min_width=260,
            )
        with gr.Column(visible=False) as own:
            text = gr.Code(
                json.dumps(EXAMPLE, indent=2),
                language="json",
                label="Their JSON schemas, a list",
                lines=8,
                max_lines=16,
                wrap_lines=True,
            )
            languages = gr.CheckboxGroup(
                [(LANGUAGES[code], code) for code in writer.LANGUAGES],
                value=["en"],
                label="Questions in",
            )
        with gr.Row():
            count = gr.Number(600, label="Rows to train on", precision=0, minimum=1, maximum=rounds.MAX_ROWS,
                              min_width=120, elem_id="loop-rows")  # fmt: skip
            questions = gr.Number(40, label="Held-out questions", precision=0, minimum=1, maximum=rounds.MAX_QUESTIONS,
                                  min_width=120, elem_id="loop-questions")  # fmt: skip
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=90)
        make = gr.Button("Make the rows", variant="primary", elem_id="loop-make")
    making = gr.HTML(elem_id="loop-making", visible=False)
    with gr.Column(visible=False) as going:
        gr.HTML('<div class="loop"><h4>1 · Rows</h4></div>')
        rows = gr.HTML(elem_id="loop-report")
        gr.HTML('<div class="loop"><h4>2 · Training</h4></div>')
        with gr.Row() as training:
            way = gr.Radio([(title, key) for key, title in WAYS.items()], value=AFRESH, label="How", min_width=260)
            most = gr.Number(
                0, label="Steps", info="0: once over the rows", precision=0, minimum=0, min_width=120,
                elem_id="loop-train-steps",
            )  # fmt: skip
            train_button = gr.Button("Train", variant="primary", elem_id="loop-train", min_width=120)
        run = gr.HTML(elem_id="loop-run")
        stop = gr.Button("Stop and keep", size="sm", visible=False, elem_id="loop-stop")
        gr.HTML('<div class="loop"><h4>3 · Score on the held-out questions</h4></div>')
        score_button = gr.Button("Score", variant="primary", visible=False, elem_id="loop-score")
        cancel_button = gr.Button("Cancel", visible=False)
        status = gr.HTML(elem_id="loop-status")
        with gr.Accordion("Outcomes in words", open=False):
            table = gr.HTML(elem_id="loop-table")
        gr.HTML('<div class="loop"><h4>4 · The weakest error, and rows for it</h4></div>')
        with gr.Column(visible=False) as improving:
            weak = gr.Dropdown([], label="Error", elem_id="loop-weak")
            weakest = gr.HTML(elem_id="loop-weakest")
            with gr.Row():
                added = gr.Number(150, label="Rows to add", precision=0, minimum=1, maximum=rounds.MAX_ROWS,
                                  min_width=120, elem_id="loop-added")  # fmt: skip
                look = gr.Button("Show some of them", min_width=140, elem_id="loop-look")
                add_button = gr.Button("Add them: next round", variant="primary", min_width=140, elem_id="loop-add")
            offered = gr.HTML(elem_id="loop-offered")
        compared = gr.HTML(elem_id="loop-compared")
    view = View(
        chooser, delete_button, confirm, steps, new, making, going, rows, training, way, run, stop, score_button,
        cancel_button, status, table, improving, weak, weakest, offered, compared, gr.State(None),
    )  # fmt: skip

    show_one = partial(show, services, loops, view)
    which.change(lambda value: gr.update(visible=value == OWN), which, own, **QUIET)
    form = [recipe, which, text, languages, count, questions, seed]
    make.click(shown(partial(begin, services, loops, view)), form, view.all, **QUEUED)
    chooser.input(show_one, chooser, view.all, **QUIET)
    page.load(partial(opened, services, loops, view), None, view.all, **QUIET)
    gr.Timer(TICK).tick(partial(tick, services, loops, view), [chooser, view.seen, weak], view.all, **QUIET)

    def step(button: gr.Button, do: Callable, *inputs):
        button.click(shown(partial(act, services, loops, view, do)), [chooser, *inputs], view.all, **QUEUED)

    step(train_button, train, way, most)
    step(stop, partial(stop_run, services))
    step(score_button, score)
    step(cancel_button, cancel)
    step(add_button, add, weak, added)
    step(yes, delete)
    weak.input(partial(weakest_now, loops), [chooser, weak], [weakest, offered], **QUIET)
    look.click(shown(partial(looked_at, loops)), [chooser, weak, added], offered, **QUEUED)
    delete_button.click(lambda: gr.update(visible=True), None, confirm, **QUIET)
    no.click(lambda: gr.update(visible=False), None, confirm, **QUIET)
    return view


# --- what is shown ---


def choices(loops: Loops) -> list[tuple[str, str]]:
    return [("A new one", NEW), *((loop.title, loop.id) for loop in loops.all())]


def opened(services: Services, loops: Loops, view: View) -> list:
    """A fresh page shows the newest loop, wherever that is."""
    found = loops.all()
    update = show(services, loops, view, found[0].id if found else NEW)
    return [update.get(component, gr.skip()) for component in view.all]


def show(services: Services, loops: Loops, view: View, id: str | None, weak: str | None = None) -> dict:
    """Everything about one loop; where it is gone, the form for a new one."""
    try:
        loop = loops.load(id) if id else None
        told = ""
    except PlaygroundError as error:
        loop, told = None, f'<div class="loop"><p>{html.escape(str(error))}</p></div>'
    common = {
        view.chooser: gr.update(choices=choices(loops), value=loop.id if loop else NEW),
        view.delete: gr.update(visible=loop is not None),
        view.confirm: gr.update(visible=False),
        view.new: gr.update(visible=loop is None),
        view.going: gr.update(visible=loop is not None),
        view.making: gr.update(value=told, visible=bool(told)),
        view.offered: "",
    }
    if loop is None:
        return {**common, view.steps: loop_view.steps(None), view.seen: state_of(loops, NEW)}
    return {**common, **_going(services, loops, view, loop, weak)}


def _going(services: Services, loops: Loops, view: View, loop: Loop, chosen: str | None) -> dict:
    stage, run, card = loops.stage(loop), loops.run(loop), loops.card(loop)
    found = loops.weaknesses(loop)
    weak = next((one for one in found if key(one) == chosen), found[0] if found else None)
    column = loops.column(loop)
    return {
        view.steps: loop_view.steps(stage),
        view.rows: loop_view.rows(loop),
        view.training: gr.update(visible=stage == TRAIN),
        view.way: gr.update(visible=len(loop.rounds) > 1),
        view.run: words.state_html(services, run, run.events()) if run else "",
        view.stop: gr.update(visible=stage == TRAINING),
        view.score: gr.update(visible=stage == SCORE),
        view.cancel: gr.update(visible=stage == SCORING),
        view.status: scorecard_view.status(card, loops.cards.running) if card else "",
        view.table: scorecard_view.tables(card) if card else "",
        view.improving: gr.update(visible=stage == IMPROVE),
        view.weak: gr.update(
            choices=[(one.sentence(), key(one)) for one in found], value=key(weak) if weak else None,
            visible=len(found) > 1,
        ),
        view.weakest: loop_view.weakest(found, card, column, weak, loop.kit) if stage == IMPROVE else "",
        view.compared: loop_view.compared(loops.compared(loop)),
        view.seen: state_of(loops, loop.id),
    }  # fmt: skip


def key(weak: Weakness) -> str:
    return f"{weak.word}:{weak.kind}"


def state_of(loops: Loops, id: str) -> tuple:
    """Equal as long as there is nothing new to show."""
    known = tuple(sorted(loops.ids()))
    try:
        loop = loops.load(id) if id else None
    except PlaygroundError:
        return known, "gone"
    if loop is None:
        return known, None
    run, card = loops.run(loop), loops.card(loop)
    events = (run.folder / "events.jsonl").stat().st_size if run else 0
    return known, loop.id, loops.stage(loop), events, len(card.rows) if card else 0


def tick(services: Services, loops: Loops, view: View, id: str | None, seen, weak: str | None) -> dict:
    now = state_of(loops, id or NEW)
    if seen is None or now == seen:
        return {view.seen: now}
    update = show(services, loops, view, id, weak)
    update.pop(view.making)
    return update


def weakest_now(loops: Loops, id: str | None, weak: str | None) -> tuple[str, str]:
    loop, found = _weak(loops, id, weak)
    card = loops.card(loop)
    return loop_view.weakest(loops.weaknesses(loop), card, loops.column(loop), found, loop.kit), ""


def looked_at(loops: Loops, id: str | None, weak: str | None, n: float | None) -> str:
    loop, found = _weak(loops, id, weak)
    return loop_view.offered(loops.more(loop, found, whole(n, "rows to add")))


def _weak(loops: Loops, id: str | None, weak: str | None) -> tuple[Loop, Weakness]:
    loop = loops.load(id or "")
    found = loops.weaknesses(loop)
    chosen = next((one for one in found if key(one) == weak), found[0] if found else None)
    if chosen is None:
        raise PlaygroundError("the last round made no error, so there are no rows to add for one")
    return loop, chosen


# --- what the buttons do ---


def begin(services: Services, loops: Loops, view: View, recipe, which, text, languages, count, questions, seed):
    """Make the first rows, with progress; then show the loop."""
    tools, told = (), ""
    if which == OWN:
        given = load_json(text or "", "the list of schemas")
        given = given.get("tools", given) if isinstance(given, dict) else given
        found, left_out = schemas.specs(given if isinstance(given, list) else [given])
        tools = tuple(spec.schema for spec in found)
        told = "".join(f"<p>Left out: {html.escape(reason)}</p>" for reason in left_out)
    kit = Kit(recipe, tools, tuple(languages or ()) if tools else ("en",))
    asked = [whole(value, name) for value, name in ((count, "rows"), (questions, "questions"), (seed, "the seed"))]
    for step in loops.create(kit, *asked, services.model):
        if step.result is None:
            yield {view.making: gr.update(value=line(step, "Making rows"), visible=True)}
        else:
            update = show(services, loops, view, step.result.id)
            yield {**update, view.making: gr.update(value=f'<div class="loop">{told}</div>', visible=bool(told))}


def act(services: Services, loops: Loops, view: View, do: Callable, id: str | None, *values) -> dict:
    """Do a step of the loop that is shown, and show what became of it."""
    if not id:
        raise PlaygroundError("choose a loop first, or make the rows of a new one")
    do(loops, id, *values)
    return show(services, loops, view, id)


def train(loops: Loops, id: str, way: str, most: float | None) -> None:
    loops.train(id, way if len(loops.load(id).rounds) > 1 else AFRESH, whole(most, "steps"))


def stop_run(services: Services, loops: Loops, id: str) -> None:
    run = loops.run(loops.load(id))
    if run is not None:
        services.jobs.stop(run)


def score(loops: Loops, id: str) -> None:
    loops.score(id)


def cancel(loops: Loops, id: str) -> None:
    loops.cards.cancel(loops.load(id).now.card)


def add(loops: Loops, id: str, weak: str | None, n: float | None) -> None:
    _, found = _weak(loops, id, weak)
    loops.add(id, found, whole(n, "rows to add"))


def delete(loops: Loops, id: str) -> None:
    loops.delete(id)
