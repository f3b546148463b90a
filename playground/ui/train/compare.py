"""Two to four runs beside each other: curves overlaid, settings that differ, answers, scores."""

import html
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import gradio as gr

from playground.core import run_card
from playground.errors import PlaygroundError
from playground.services import runs
from playground.services.runs import Run
from playground.ui.common import QUEUED, QUIET, Services, shown
from playground.ui.train import answers, curves
from playground.ui.train.curves import LOSS, PERPLEXITY, Y_TITLE

MOST = 4
LISTED = 100
HELD_OUT, TRAINING = "held out", "training"
COLORS = ("#0d9488", "#ea580c", "#7c6ff0", "#ca8a04")  # of the runs, in the order they were chosen
CURVES = {HELD_OUT: ("eval", "eval_loss"), TRAINING: ("step", "loss")}
NONE = "–"

CSS = """
.compare :is(table, thead, tbody, tr) { border: 0 !important; }
.compare table { border-collapse: collapse; font-size: var(--text-sm); min-width: 100%; }
.compare th, .compare td { padding: 4px 10px; border: 0 !important; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--border-color-primary) !important; overflow-wrap: anywhere; min-width: 7em; }
.compare thead th { font-weight: 600; }
.compare tbody th { font-weight: 400; color: var(--body-text-color-subdued); }
.compare pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font-family: var(--font-mono); }
.compare h4 { margin: 10px 0 2px; font-size: var(--text-md); font-weight: 600; }
.compare p { margin: 4px 0; font-size: var(--text-sm); }
.compare-scroll { overflow-x: auto; }
"""
EMPTY = (
    '<div class="compare"><p>Choose two to four runs: their curves, what differs in their settings, and their answers.'
    "</p></div>"
)


@dataclass(frozen=True)
class Panel:
    chosen: gr.Dropdown
    line: gr.Radio
    measure: gr.Radio
    plot: gr.LinePlot
    tables: gr.HTML


def build() -> Panel:
    with gr.Row():
        chosen = gr.Dropdown([], label="Runs to compare", multiselect=True, max_choices=MOST, min_width=260, scale=3)
        line = gr.Radio([HELD_OUT, TRAINING], value=HELD_OUT, label="Curve", min_width=180)
        measure = gr.Radio([LOSS, PERPLEXITY], value=LOSS, label="As", min_width=180)
    plot = curves.plot(Y_TITLE, 260, color="kind")
    return Panel(chosen, line, measure, plot, gr.HTML(EMPTY))


def wire(services: Services, panel: Panel, opened) -> None:
    """`opened`: events at which the list of runs is looked up."""
    gr.on(opened, partial(choices, services), panel.chosen, panel.chosen, **QUIET)
    gr.on(
        [panel.chosen.input, panel.line.input, panel.measure.input],
        shown(partial(drawn, services)),
        [panel.chosen, panel.line, panel.measure],
        [panel.plot, panel.tables],
        **QUEUED,
    )


def choices(services: Services, chosen: list[str] | None) -> dict:
    names = [run.name for run in runs.list_runs(services.paths)[:LISTED]]
    return gr.update(choices=names, value=[name for name in chosen or [] if name in names])


def drawn(services: Services, names: list[str] | None, line: str = HELD_OUT, measure: str = LOSS) -> Iterator[tuple]:
    """The comparison; then the colours, by themselves: they make the plot draw anew, with the runs that are chosen."""
    yield compare(services, names, line, measure)
    yield gr.update(color_map=dict(zip(names or [], COLORS, strict=False))), gr.skip()


def compare(services: Services, names: list[str] | None, line: str = HELD_OUT, measure: str = LOSS) -> tuple:
    """The overlaid curves, and the tables as HTML."""
    names = list(dict.fromkeys(names or []))
    if len(names) < 2:
        return gr.update(visible=False), EMPTY
    if len(names) > MOST:
        raise PlaygroundError(f"two to {MOST} runs can be compared, {len(names)} are chosen")
    chosen = [runs.find(services.paths, name) for name in names]
    events = [run.events() for run in chosen]
    return overlaid(chosen, events, line, measure), tables(chosen, events)


def overlaid(chosen: list[Run], events: list[list[dict]], line: str, measure: str) -> dict:
    kind, key = CURVES[line]
    lines = [
        (run.name, curves.measured(curves.points(own, kind, key), measure))
        for run, own in zip(chosen, events, strict=True)
    ]
    return curves.shown(curves.table(lines))


def tables(chosen: list[Run], events: list[list[dict]]) -> str:
    names = [run.name for run in chosen]
    differing = run_card.config_differences([run.settings for run in chosen])
    parts = ["<h4>Settings that differ</h4>"]
    if differing:
        parts.append(table(names, [(name.replace("_", " "), values) for name, values in differing]))
    else:
        parts.append("<p>None: the runs have the same settings.</p>")
    parts += ["<h4>How they went</h4>", table(names, results(events)), *_answers(names, events)]
    return f'<div class="compare">{"".join(parts)}</div>'


def table(names: list[str], rows: list[tuple[str, list[str]]], pre: bool = False) -> str:
    """A table with a column for each run, in a box of its own that scrolls."""

    def cell(value: str) -> str:
        return f"<td><pre>{html.escape(value)}</pre></td>" if pre else f"<td>{html.escape(value)}</td>"

    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in names)
    body = "".join(
        f'<tr><th scope="row">{html.escape(label)}</th>{"".join(map(cell, values))}</tr>' for label, values in rows
    )
    return (
        f'<div class="compare-scroll"><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def results(events: list[list[dict]]) -> list[tuple[str, list[str]]]:
    """Losses, scores and truth checks, a column for each run."""

    def column(own: list[dict]) -> list[str]:
        newest = {event["kind"]: event for event in own}
        held = [loss for _, loss in curves.points(own, "eval", "eval_loss")]
        trained = curves.points(own, "step", "loss")
        truth = newest.get("truth")
        return [
            run_card.trained_words(own) or NONE,
            f"{trained[-1][0]:,}" if trained else NONE,
            f"{trained[-1][1]:.4f}" if trained else NONE,
            f"{held[-1]:.4f}" if held else NONE,
            f"{min(held):.4f}" if held else NONE,
            str(newest.get("scores", {}).get("summary", NONE)),
            NONE if truth is None else "passed" if truth.get("passed") else "failed",
        ]

    labels = (
        "Trained parameters",
        "Steps",
        "Training loss",
        "Held-out loss",
        "Best held-out loss",
        "Scores",
        "Truth check",
    )
    columns = [column(own) for own in events]
    return [(label, [values[row] for values in columns]) for row, label in enumerate(labels)]


def _answers(names: list[str], events: list[list[dict]]) -> list[str]:
    """The probe's answers at the last evaluation that all runs have; else at the last one of each."""
    found = [dict(answers.evaluations(own)) for own in events]
    if not all(found):
        return []
    common = set.intersection(*(set(own) for own in found))
    steps = [max(common)] * len(found) if common else [max(own) for own in found]
    title = f"Answers at step {steps[0]:,}" if common else "Answers at the last evaluation"
    note = "" if common else "<p>These runs were never asked at the same step.</p>"
    prompts = dict.fromkeys(prompt for own, step in zip(found, steps, strict=True) for prompt in own[step])
    rows = [
        (prompt, [own[step].get(prompt, "").strip() or NONE for own, step in zip(found, steps, strict=True)])
        for prompt in prompts
    ]
    if not common:
        rows.insert(0, ("step", [f"{step:,}" for step in steps]))
    return [f"<h4>{title}</h4>{note}", table(names, rows, pre=True)]
