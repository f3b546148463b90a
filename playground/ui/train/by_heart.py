"""By heart, or learned? Rows that a run trained on beside rows it held out: expected, base, tuned, losses."""

import html
from dataclasses import dataclass
from functools import partial

import gradio as gr

from playground.core.by_heart import HELD_OUT, TRAINED, Row, mean
from playground.errors import PlaygroundError
from playground.services import by_heart, runs
from playground.services.by_heart import ByHeart
from playground.ui.common import QUEUED, QUIET, Services, shown, whenever, whole
from playground.ui.train.answers import NOTHING

ROWS, TICK, SHOWN = 4, 2.0, 160  # rows of each kind; seconds; characters of a prompt, from its end

CSS = """
.by-heart p { margin: 4px 0; font-size: var(--text-sm); overflow-wrap: anywhere; }
.by-heart .bad { color: #a32019; } .dark .by-heart .bad { color: #ff9c94; }
.by-heart h4 { margin: 10px 0 2px; font-size: var(--text-md); font-weight: 600; }
.by-heart article { border-top: 1px solid var(--border-color-primary); padding: 6px 0; }
.by-heart dl { display: grid; grid-template-columns: minmax(4.5em, max-content) 1fr; gap: 2px 10px; margin: 0;
  font-size: var(--text-sm); }
.by-heart dt { color: var(--body-text-color-subdued); } .by-heart dd { margin: 0; min-width: 0; }
.by-heart pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font-family: var(--font-mono); }
.by-heart i { font-style: normal; color: var(--body-text-color-subdued); font-variant-numeric: tabular-nums; }
"""
EMPTY = (
    '<div class="by-heart"><p>Some rows that it trained on and some that were held out are asked again, with and '
    "without what was trained. Where only the first are answered as expected, it learned them by heart.</p></div>"
)
CUT = "The app ended while these rows were asked; ask them again for the rest."


@dataclass(frozen=True)
class Panel:
    count: gr.Number
    ask: gr.Button
    cancel: gr.Button
    rows: gr.HTML
    seen: gr.State

    @property
    def shown(self) -> list:
        return [self.ask, self.cancel, self.rows, self.seen]


def build() -> Panel:
    with gr.Row():
        count = gr.Number(ROWS, label="Rows of each kind", min_width=160, scale=2)
        ask = gr.Button("Ask the rows", size="sm", min_width=120, scale=1)
        cancel = gr.Button("Cancel", size="sm", min_width=120, scale=1, visible=False)
    return Panel(count, ask, cancel, gr.HTML(EMPTY), gr.State())


def wire(services: Services, panel: Panel, chooser, opened) -> None:
    """`opened`: the event at which the panel is opened."""
    asker = ByHeart(services.engine, services.paths)
    look = partial(show, asker, services)
    whenever(look, [chooser], panel.shown, [chooser.change, opened])
    gr.Timer(TICK).tick(look, [chooser, panel.seen], panel.shown, **QUIET)
    panel.ask.click(shown(partial(start, asker, services)), [chooser, panel.count], panel.shown, **QUEUED)
    panel.cancel.click(shown(partial(cancel, asker, services)), chooser, panel.shown, **QUEUED)


def start(asker: ByHeart, services: Services, selected: str | None, count: float | None) -> list:
    asker.start(_run(services, selected), whole(count, "rows of each kind"))
    return show(asker, services, selected)


def cancel(asker: ByHeart, services: Services, selected: str | None) -> list:
    asker.cancel(_run(services, selected))
    return show(asker, services, selected)


def _run(services: Services, selected: str | None) -> runs.Run:
    if not selected:
        raise PlaygroundError("select a run first")
    return runs.find(services.paths, selected)


def show(asker: ByHeart, services: Services, selected: str | None, seen=None) -> list:
    """The buttons and the rows; all skipped while nothing has changed since `seen`."""
    try:
        run = _run(services, selected)
    except PlaygroundError:
        return [gr.update(visible=True), gr.update(visible=False), EMPTY, None]
    asking, path = asker.asking(run), run.folder / by_heart.FILE
    now = (run.name, asking, path.stat().st_mtime_ns if path.exists() else 0)
    if seen is not None and tuple(seen) == now:
        return [gr.skip()] * 4
    return [gr.update(visible=not asking), gr.update(visible=asking), rows_html(by_heart.read(run), asking), now]


def rows_html(found: dict, asking: bool) -> str:
    if not found:
        return EMPTY
    rows, total, words = by_heart.rows_of(found), found.get("total", 0), found.get("sentence", "")
    if asking:
        words = f"{len(rows)} of {total} rows asked …" if total else "Reading the rows …"
    elif found["state"] == "running":
        words = CUT
    elif found["state"] == "cancelled":
        words = f"Cancelled after {len(rows)} of {total} rows. {words}"
    bad = ' class="bad"' if found["state"] == "failed" else ""
    body = "".join(_kind(rows, kind) for kind in (TRAINED, HELD_OUT))
    return f'<div class="by-heart"><p role="status"{bad}>{html.escape(words)}</p>{body}</div>'


def _kind(rows: list[Row], kind: str) -> str:
    own = [row for row in rows if row.kind == kind]
    if not own:
        return ""
    title = {TRAINED: "Rows that it trained on", HELD_OUT: "Rows that were held out"}[kind]
    losses = f"mean loss {mean(own, kind, 'base_loss'):.2f} → {mean(own, kind, 'tuned_loss'):.2f}"
    return f"<h4>{title} <i>· {losses}</i></h4>" + "".join(map(_row, own))


def _row(row: Row) -> str:
    prompt = row.prompt if len(row.prompt) <= SHOWN else "…" + row.prompt[-SHOWN:]
    parts = [
        ("Prompt", prompt, ""),
        ("Expected", row.expected, ""),
        ("Base", row.base, f" · loss {row.base_loss:.2f}"),
        ("Tuned", row.tuned, f" · loss {row.tuned_loss:.2f}"),
    ]
    cells = "".join(
        f"<dt>{name}</dt><dd><pre>{html.escape(text.strip()) or NOTHING}</pre><i>{note.removeprefix(' · ')}</i></dd>"
        for name, text, note in parts
    )
    return f"<article><dl>{cells}</dl></article>"
