"""How the long work of a view is shown, and how its visitor cancels it."""

import html
import itertools
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import gradio as gr

from playground.core.progress import Progress

PAUSE = 0.3  # seconds between two signs of progress


class Cancel(threading.Event):
    """Of one visitor: gr.State copies its first value for each session, and a copy is an event of its own."""

    def __deepcopy__(self, memo):
        return Cancel()


@dataclass(frozen=True)
class UntilCancelled:
    """Rows that end when the visitor cancels; the length is that of all of them."""

    rows: Sequence
    cancel: threading.Event

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator:
        return itertools.takewhile(lambda _: not self.cancel.is_set(), self.rows)


def calmly(steps: Iterable[Progress]) -> Iterator[Progress]:
    """The first and the last step, and those between that are `PAUSE` seconds apart."""
    shown, held = float("-inf"), None
    for step in steps:
        held = step
        if time.monotonic() - shown >= PAUSE:
            yield step
            shown, held = time.monotonic(), None
    if held is not None:
        yield held


def line(step: Progress, what: str) -> str:
    """What is done, rows done of all, rate and time left, with a bar."""
    parts = [f"{step.done:,} of {step.total:,} rows" if step.total is not None else f"{step.done:,} rows"]
    if step.done:
        parts.append(f"{step.rate:,.0f} rows/s")
    if step.eta is not None:
        parts.append(f"{duration(step.eta)} left")
    bar = f'<div class="bar"><b style="width:{min(1.0, step.done / step.total):.0%}"></b></div>' if step.total else ""
    return f'<div class="notice" role="status"><p>{html.escape(what)}: {", ".join(parts)}</p>{bar}</div>'


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def running() -> tuple:
    """Start and Cancel while the work goes on."""
    return gr.update(visible=False), gr.update(visible=True)


def idle() -> tuple:
    return gr.update(visible=True), gr.update(visible=False)


def cancel(stop: Cancel) -> None:
    stop.set()
