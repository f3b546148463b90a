"""The selected run as it goes: state, curves, overfit light, answers, log, and its buttons."""

import html
from abc import ABCMeta
from dataclasses import dataclass
from functools import partial

import gradio as gr

from playground.errors import PlaygroundError
from playground.services import runs
from playground.services.runs import Run
from playground.ui.common import QUEUED, QUIET, Services, components, shown
from playground.ui.train import answers, curves, words
from playground.ui.train.curves import COLORS, LOSS, MEANING, MEASURES, PERPLEXITY, Y_TITLE

LISTED = 30  # newest runs
TICK = 1.5

CSS = """
.run-list { max-height: 16em; overflow-y: auto; }
.run-list label { width: 100%; }
.run-empty { padding: 24px 12px; color: var(--body-text-color-subdued); }
"""
NOTHING = ("", None)  # no question is open
EMPTY = (
    '<div class="run-empty"><b>No run yet.</b><p>Pick a recipe on the left and press <i>Start training</i>. '
    "The loss, the time left and the model's answer to the probe prompt then appear here as it learns. "
    "The run goes on when this page is closed.</p></div>"
)


class Plain(type(gr.Radio)):
    """Makes a component of our own without the .pyi file that gradio's would write beside this one."""

    def __new__(cls, name, bases, attrs):
        return ABCMeta.__new__(cls, name, bases, attrs)


class Chooser(gr.Radio, metaclass=Plain):
    """A list of runs that takes the name of one that is gone: it was deleted or renamed while a page asked about it.

    gradio's own answers that with an error of its own, in the middle of what somebody else does.
    """

    is_template = True  # for the page, it is a Radio

    def preprocess(self, payload):
        return payload


class Timeline(gr.Slider, metaclass=Plain):
    """A slider that takes a place past its end: a page asked while it changed to a run of fewer evaluations."""

    is_template = True

    def preprocess(self, payload):
        return payload


@dataclass(frozen=True)
class View:
    """The components that show the selected run."""

    runs: gr.Radio
    state: gr.HTML
    measure: gr.Radio
    plot: gr.LinePlot
    light: gr.HTML
    rate: gr.LinePlot
    norm: gr.LinePlot
    slider: gr.Slider
    answer: gr.HTML
    answers: gr.HTML
    after: gr.Column
    log: gr.Textbox
    stop: gr.Button
    discard: gr.Button
    resume: gr.Button
    delete: gr.Button
    again: gr.Button
    seen: gr.State

    @property
    def all(self) -> list:
        return components(self)


@dataclass(frozen=True)
class Panel:
    """The view and what only its own events touch."""

    view: View
    confirm: gr.Group
    question: gr.HTML
    yes: gr.Button
    no: gr.Button
    pending: gr.State

    @property
    def asked(self) -> list:
        """Inputs of `show_run` after the services."""
        return [self.view.runs, self.view.seen, self.view.measure, self.view.slider]


def build(services: Services) -> Panel:
    state = gr.HTML(EMPTY, elem_id="run-state")
    measure = gr.Radio(
        [("loss", LOSS), ("perplexity", PERPLEXITY)],
        value=LOSS,
        label=MEASURES,
        info=MEANING,
        visible=False,
    )
    plot = curves.plot(Y_TITLE, 260, color="kind", color_map=COLORS)
    light = gr.HTML()
    with gr.Row():
        stop = gr.Button("Stop and keep", size="sm", visible=False)
        discard = gr.Button("Stop and discard", size="sm", visible=False)
        resume = gr.Button("Resume", size="sm", visible=False)
        delete = gr.Button("Delete", size="sm", visible=False)
        again = gr.Button("These settings again", size="sm", visible=False)
    with gr.Group(visible=False) as confirm:
        question = gr.HTML()
        with gr.Row():
            yes = gr.Button("Yes", variant="stop", size="sm")
            no = gr.Button("No", size="sm")
    slider = Timeline(
        0, 1, 0, step=1, label="Watch it learn", info="evaluations, from the first to the newest", visible=False
    )
    answer = gr.HTML()
    chooser = Chooser([], label="Runs", visible=False, elem_classes="run-list")
    with gr.Column(visible=False) as after:
        with gr.Accordion("All answers", open=False):
            every = gr.HTML()
        with gr.Accordion("Learning rate and gradient norm", open=False), gr.Row():
            with gr.Column(min_width=260):
                rate = curves.plot("learning rate", 150)
            with gr.Column(min_width=260):
                norm = curves.plot("gradient norm", 150)
        with gr.Accordion("Log", open=False):
            log = gr.Textbox(lines=8, max_lines=16, show_label=False, interactive=False, autoscroll=True)
    drawn = (chooser, state, measure, plot, light, rate, norm, slider, answer, every, after, log)
    view = View(*drawn, stop, discard, resume, delete, again, gr.State())
    return Panel(view, confirm, question, yes, no, gr.State(NOTHING))


def wire(services: Services, panel: Panel) -> None:
    view, page = panel.view, gr.context.Context.root_block
    show = partial(show_run, services)
    page.load(partial(show, fresh=True), panel.asked, view.all, **QUIET)
    gr.on([view.runs.input, view.measure.input], partial(show, fresh=True), panel.asked, view.all, **QUIET)
    gr.Timer(TICK).tick(show, panel.asked, view.all, **QUIET)
    view.slider.input(
        partial(scrub, services), [view.runs, view.slider], view.answer, trigger_mode="always_last", **QUIET
    )
    view.stop.click(shown(partial(act, services, "stop")), view.runs, view.all, **QUEUED)
    view.resume.click(shown(partial(act, services, "resume")), view.runs, view.all, **QUEUED)
    for action, button in (("discard", view.discard), ("delete", view.delete)):
        button.click(partial(ask, action), view.runs, [panel.confirm, panel.question, panel.pending], **QUIET)
    panel.yes.click(
        shown(partial(confirmed, services)), panel.pending, [panel.confirm, panel.pending, *view.all], **QUEUED
    )
    panel.no.click(lambda: gr.update(visible=False), None, panel.confirm, **QUIET)


@dataclass(frozen=True)
class Seen:
    """What a page shows, so that nothing is sent while nothing changes."""

    run: str | None
    listed: tuple  # (name, state, sizes of the files if selected)
    evaluations: int = 0  # when the slider was last set

    def __deepcopy__(self, memo):
        return self


def show_run(
    services: Services, selected: str | None, seen: Seen | None, measure=LOSS, at=None, fresh: bool = False
) -> list:
    """Values for `View.all`; all skipped when nothing has changed since `seen`.

    Without a selection the newest run is shown, so that a page that is opened again finds its run.
    """
    found = runs.list_runs(services.paths)[:LISTED]
    run = _selected(found, selected)
    name = run.name if run else None
    listed = tuple((other.name, other.state, _changed(other, run)) for other in found)
    if not fresh and seen is not None and (name, listed) == (seen.run, seen.listed):
        return [gr.skip()] * len(View.__dataclass_fields__)
    if run is None:
        hidden = gr.update(visible=False)
        empty = gr.update(choices=[], value=None, visible=False)
        drawn = [hidden, hidden, "", hidden, hidden, hidden, "", "", hidden, ""]  # from the measure to the log
        return [empty, EMPTY, *drawn, *[hidden] * 5, Seen(None, listed)]
    events, status, same = run.events(), run.status, seen is not None and seen.run == run.name
    evaluations = answers.evaluations(events)
    plot = curves.shown(curves.curve(events, measure), "training")
    at = answers.position(evaluations, at if same else None, seen.evaluations if same else 0)
    return [
        _list(services, found, run, seen, selected),
        words.state_html(services, run, events),
        gr.update(visible=plot["visible"]),
        plot,
        curves.light_html(events, not status.live),
        curves.shown(curves.pace(events, "lr")),
        curves.shown(curves.pace(events, "grad_norm")),
        answers.slider(evaluations, at),
        answers.one_html(evaluations, at),
        answers.list_html(evaluations),
        gr.update(visible=True),
        run.log(),
        gr.update(visible=status.live, interactive=status.state != "stopping"),
        gr.update(visible=status.live),
        gr.update(visible=run.resumable),
        gr.update(visible=not status.live),
        gr.update(visible=True),
        Seen(run.name, listed, len(evaluations)),
    ]


def _selected(found: list[Run], selected: str | None) -> Run | None:
    """The selected run, also where somebody renamed it meanwhile; else the newest."""
    named = next((run for run in found if run.name == selected), None)
    renamed = (run for run in found if selected and selected in run.former_names)
    return named or next(renamed, found[0] if found else None)


def _list(services: Services, found: list[Run], run: Run, seen: Seen | None, selected: str | None):
    """Update of the list of runs; skipped while its labels stay as they are.

    It selects a run only where the page cannot know it: what was asked before a start, or before another run was
    chosen, and is answered after it, would select the old one again.
    """
    old = [(name, state) for name, state, _ in seen.listed] if seen else []
    same = seen is not None and seen.run == run.name and old == [(other.name, other.state) for other in found]
    if same and not any(other.status.live for other in found):
        return gr.skip()
    value = {} if seen is not None and selected == run.name else {"value": run.name}
    return gr.update(choices=[(words.run_label(services, other), other.name) for other in found], visible=True, **value)


def _changed(run: Run, selected: Run | None) -> tuple:
    """What changes when the run has something new to show; the others are known by their state and step."""
    if run.name != selected.name:
        return ()
    return tuple(path.stat().st_size for name in ("events.jsonl", "log.txt") if (path := run.folder / name).exists())


def scrub(services: Services, selected: str | None, at: float) -> str:
    """The answers at the evaluation that the slider was moved to."""
    try:
        return answers.one_html(answers.evaluations(runs.find(services.paths, selected or "").events()), int(at))
    except PlaygroundError:  # it was deleted meanwhile; the next tick shows what there is
        return ""


# ---- buttons ---------------------------------------------------------------------------------------------------


def act(services: Services, action: str, selected: str | None) -> list:
    """Do what a button says to the selected run, and show what became of it."""
    if not selected:
        raise PlaygroundError("select a run first")
    run = runs.find(services.paths, selected)
    match action:
        case "stop":
            services.jobs.stop(run)
        case "discard":
            services.jobs.stop(run, keep=False)
        case "resume":
            services.jobs.resume(run)
            if runs.alone(services.paths):  # as it was when the run was started
                services.engine.make_way(run.name)
        case "delete":
            services.jobs.delete(run)
    return show_run(services, selected, None)


def ask(action: str, selected: str | None) -> tuple:
    """Ask before something is lost. The question stays about this run, whichever is selected when it is answered."""
    what = {
        "discard": f"Stop {selected} now and keep nothing of what it learned since its last checkpoint?",
        "delete": f"Delete {selected} with its adapter, its curve and its log?",
    }[action]
    return gr.update(visible=bool(selected)), f"<p>{html.escape(what)}</p>", (action, selected)


def confirmed(services: Services, pending: tuple[str, str | None]) -> list:
    """Do what was asked about, once: a second press on "Yes" finds nothing to do."""
    action, selected = pending
    if not action:
        return [gr.update(visible=False), NOTHING, *[gr.skip()] * len(View.__dataclass_fields__)]
    return [gr.update(visible=False), NOTHING, *act(services, action, selected)]
