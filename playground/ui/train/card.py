"""What became of a run: its card, its note, its name, the scorecards made with it, and more steps."""

import contextlib
import html
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import gradio as gr

from playground.config import TrainConfig
from playground.core import scorecard
from playground.errors import PlaygroundError
from playground.services import runs
from playground.services.runs import Run
from playground.services.scorecards import Scorecards
from playground.ui.common import QUEUED, QUIET, Services, shown, whenever, whole
from playground.ui.train import words

CSS = """
.card :is(table, thead, tbody, tr) { border: 0 !important; }
.card table { border-collapse: collapse; width: 100%; table-layout: fixed; font-size: var(--text-sm); }
.card th, .card td { padding: 3px 8px; border: 0 !important; text-align: left; vertical-align: top;
  border-top: 1px solid var(--border-color-primary) !important; overflow-wrap: anywhere; }
.card th { font-weight: 400; color: var(--body-text-color-subdued); width: 30%; }
.card h4 { margin: 10px 0 2px; font-size: var(--text-md); font-weight: 600; }
.card p { margin: 4px 0; font-size: var(--text-sm); overflow-wrap: anywhere; }
.card pre { margin: 4px 0; white-space: pre-wrap; overflow-wrap: anywhere; font-family: var(--font-mono);
  font-size: var(--text-sm); }
.card-scroll { overflow-x: auto; }
.card button { font-size: var(--text-sm); padding: 2px 8px; margin: 3px 0; border-radius: var(--radius-md);
  border: 1px solid var(--primary-600); color: inherit; }
.card button:hover { background: var(--background-fill-secondary); }
.card blockquote { margin: 4px 0; padding-left: 10px; border-left: 3px solid var(--primary-600);
  white-space: pre-wrap; }
"""
# The cards name their scorecards: a press on one is a `select` of the card, with the scorecard's id.
OPENS = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-scorecard]");
  if (button) trigger("select", { scorecard: button.dataset.scorecard });
});
"""
EMPTY = (
    '<div class="card"><p>Select a run above: its card says what was trained, how it went and how to repeat it.</p>'
    "</div>"
)
MORE = 50  # steps offered


@dataclass(frozen=True)
class Panel:
    card: gr.HTML
    note: gr.Textbox
    keep: gr.Button
    name: gr.Textbox
    rename: gr.Button
    more: gr.Number
    extend: gr.Button
    known: gr.State  # the note as this page has seen it

    @property
    def shown(self) -> list:
        """What `show` gives values for."""
        return [self.card, self.note, self.known, self.name]


def build() -> Panel:
    card = gr.HTML(EMPTY, js_on_load=OPENS)
    with gr.Row():
        note = gr.Textbox(label="Note", lines=2, max_lines=6, max_length=runs.MAX_NOTE, min_width=240, scale=3)
        keep = gr.Button("Keep the note", size="sm", min_width=120, scale=1)
    with gr.Row():
        name = gr.Textbox(label="Name of the run and its adapter", max_length=64, min_width=240, scale=3)
        rename = gr.Button("Rename", size="sm", min_width=120, scale=1)
    with gr.Row():
        more = gr.Number(
            MORE, label="More steps", info="a new run that goes on from this adapter", min_width=240, scale=3
        )
        extend = gr.Button("Go on", size="sm", min_width=120, scale=1)
    return Panel(card, note, keep, name, rename, more, extend, gr.State(""))


def wire(services: Services, panel: Panel, view, opened, show_run) -> None:
    """`opened`: the event at which the panel is opened. `show_run(name)` gives the values of `view`, its view."""
    chooser = view.runs
    store = Scorecards(services.paths)
    whenever(partial(shown_card, services, store), [chooser], panel.shown, [chooser.change])
    # written when the run has come further; note and name are left alone, for somebody may be typing there
    view.state.change(partial(card_now, services, store), chooser, panel.card, **QUIET)
    opened(partial(card_now, services, store, live=True), chooser, panel.card, **QUIET)
    panel.keep.click(
        shown(partial(keep_note, services, store)),
        [chooser, panel.note, panel.known],
        [panel.card, panel.known],
        **QUEUED,
    )
    panel.rename.click(
        shown(partial(rename, services, store, show_run)), [chooser, panel.name], [*view.all, *panel.shown], **QUEUED
    )
    more = panel.extend.click(shown(partial(extend, services, show_run)), [chooser, panel.more], view.all, **QUEUED)
    more.success(None, js=words.into_view("run-state"))


def selected_run(services: Services, selected: str | None) -> Run:
    if not selected:
        raise PlaygroundError("select a run first")
    return runs.find(services.paths, selected)


def shown_card(services: Services, store: Scorecards, selected: str | None) -> list:
    """The card, the note and the name of the selected run."""
    try:
        run = selected_run(services, selected)
    except PlaygroundError:
        return [EMPTY, "", "", ""]
    return [card_html(services, store, run), run.note, run.note, run.name]


def card_now(services: Services, store: Scorecards, selected: str | None, live: bool = False):
    """The card of a run that has ended; a live run's only where `live` says so: reading it all at each step is much."""
    try:
        run = selected_run(services, selected)
    except PlaygroundError:
        return EMPTY
    return gr.skip() if run.status.live and not live else card_html(services, store, run)


def card_html(services: Services, store: Scorecards, run: Run) -> str:
    try:
        card = runs.card(run)
        if not run.status.live:
            with contextlib.suppress(OSError):  # a full disk; the page shows it all the same
                runs.write_card(run)
    except PlaygroundError as error:
        return f'<div class="card"><p>{html.escape(str(error))}</p></div>'
    lines = [f"<blockquote>{html.escape(card.note)}</blockquote>"] if card.note else []
    for title, pairs in card.sections:
        rows = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in pairs)
        lines.append(f'<h4>{html.escape(title)}</h4><div class="card-scroll"><table>{rows}</table></div>')
    lines.append(scorecards_html(services, store, run))
    lines.append(f"<h4>Repeat it</h4><pre>{html.escape(card.command)}</pre>")
    if card.missing:
        lines.append(f"<p>This run's folder does not say: {html.escape(', '.join(card.missing))}.</p>")
    return f'<div class="card">{"".join(lines)}</div>'


def scorecards_html(services: Services, store: Scorecards, run: Run) -> str:
    """The scorecards that its adapter takes part in, under its name or one it had before."""
    taken = {other.name for other in runs.list_runs(services.paths)} - {run.name}
    names = [run.name, *(name for name in run.former_names if name not in taken)]
    found = {entry.id: entry for name in names for entry in store.of_adapter(name)}
    if not found:
        return (
            "<h4>Scorecards</h4><p>None yet. In the Tools tab, under Scorecard, this adapter can be counted beside the "
            "model without it.</p>"
        )
    rows = "".join(
        f"<tr><th>{time.strftime('%d %b %H:%M', time.localtime(entry.created))}</th>"
        f"<td>{html.escape(entry.name)}: {entry.done:,} of {entry.total:,} replies, "
        f"{html.escape(', '.join(column.title for column in entry.columns))}{figures(store, entry.id, names)}<br>"
        f'<button type="button" data-scorecard="{html.escape(entry.id)}">Open it under Tools</button></td></tr>'
        for entry in found.values()
    )
    return (
        "<h4>Scorecards</h4><p>They stand in the Tools tab, under Scorecard, where any two are compared too.</p>"
        f"<table>{rows}</table>"
    )


def figures(store: Scorecards, id: str, names: Sequence[str]) -> str:
    """What the adapter was worth in a scorecard, and what it changed against the model without it there."""
    try:
        card = store.load(id)
    except PlaygroundError:
        return ""
    lines = []
    for number, column in enumerate(card.columns):
        valid = scorecard.cells(card.of(number))[scorecard.VALID]
        if column.adapter not in names or not valid.total:
            continue
        low, high = valid.interval
        said = f"{column.title}: {valid.count} of {valid.total} valid, {valid.rate:.0%} ({low:.0%} to {high:.0%})"
        plain = next((i for i, other in enumerate(card.columns) if _is_before(other, column)), None)
        if plain is not None and (change := scorecard.compare(card, plain, card, number)).questions:
            before = change.words[scorecard.VALID][0]
            said += f"; before {before.count} of {before.total}: {change.gained} gained, {change.lost} lost"
        lines.append(f"<br>{html.escape(said)}")
    return "".join(lines)


def _is_before(other: scorecard.Column, column: scorecard.Column) -> bool:
    """Whether it is the same lane without the adapter."""
    return other.adapter is None and (other.model, other.mode) == (column.model, column.mode)


def keep_note(services: Services, store: Scorecards, selected: str | None, text: str, known: str | None) -> list:
    """Keep the note; one that another page has kept since this page looked (`known`) is first shown, then replaced."""
    run, text = selected_run(services, selected), (text or "").strip()
    if run.note in (known or "", text):
        runs.write_note(run, text)
    else:
        gr.Warning(
            f"Meanwhile another page has kept the note “{html.escape(run.note[:200])}”. Press again to put yours in "
            "its place."
        )
    return [card_html(services, store, run), run.note]


def rename(services: Services, store: Scorecards, show_run, selected: str | None, name: str) -> list:
    run = runs.rename(selected_run(services, selected), name or "")
    return [*show_run(run.name), *shown_card(services, store, run.name)]


def extend(services: Services, show_run, selected: str | None, steps: float | None) -> list:
    """Start a run that goes on from the selected run's adapter with the same settings."""
    run = selected_run(services, selected)
    return show_run(services.jobs.start(extended(run, steps)).name)


def extended(run: Run, steps: float | None) -> TrainConfig:
    """The settings of a run that trains `run`'s adapter for so many more steps."""
    config = run.config
    if not config.is_lora:
        raise PlaygroundError(f"a run of method {config.method} cannot be gone on from; one with LoRA can")
    if not run.adapter:
        raise PlaygroundError(f"{run.name} has no adapter to go on from: it is {run.state}")
    if (more := whole(steps, "more steps")) < 1:
        raise PlaygroundError(f"say how many more steps, 1 or more; got {more}")
    name = run.name if len(run.name) <= 58 else run.name[:58].rstrip("-._")
    config = replace(config, continue_from=run.name, steps=more, name=f"{name}-more")
    if config.method in ("pissa", "eva"):  # they are starts of a LoRA; PiSSA's is saved with twice the rank
        saved = json.loads((run.adapter / "adapter_config.json").read_text(encoding="utf-8"))
        config = replace(config, method="lora", rank=saved["r"], alpha=float(saved["lora_alpha"]))
    return config
