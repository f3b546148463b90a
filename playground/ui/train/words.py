"""A run in words: its state, its newest figures, the time that is left."""

import html
import time

from playground.core.estimate import size
from playground.core.run_card import early_words
from playground.services.runs import Run
from playground.ui.common import Services

WORDS = {
    "queued": "Waiting for its turn",
    "preparing": "Getting ready",
    "running": "Training",
    "stopping": "Stopping after this step",
    "finished": "Finished",
    "stopped": "Stopped",
    "failed": "Failed",
    "killed": "Ended by the system",
}
KINDS = {"failed": "bad", "killed": "bad", "finished": "good", "stopped": "calm"}
NONE = "–"

CSS = """
#run-state { scroll-margin: 10px 0 320px; }
.run-state.bad b { color: #a32019; }
.dark .run-state.bad b { color: #ff9c94; }
.run-state.good b { color: var(--color-accent); }
.dark .run-state.good b { color: var(--primary-300); }
.run-state p:first-child b { font-size: var(--text-lg); }
.run-state p { margin: 2px 0; overflow-wrap: anywhere; }
.figures { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 6px 0; }
.figures dt { font-size: var(--text-xs); color: var(--body-text-color-subdued); }
.figures dd { margin: 0; font-size: var(--text-md); font-variant-numeric: tabular-nums; }
"""


def into_view(id: str) -> str:
    """The script that brings an element on the screen: on a phone, what a button changes may be far from it."""
    return f"() => document.querySelector('#{id}')?.scrollIntoView({{ block: 'nearest' }})"


def run_label(services: Services, run: Run) -> str:
    """A run in the list: name, state, and where it stands."""
    status = run.status
    words = word_of(status.state).lower()
    if status.state == "queued" and (before := services.jobs.position(run)):
        words += f", {before} before it"
    if status.state in ("running", "stopping") and (step := run.last("step")) and "steps" in step:
        words += f", step {step['step']:,} of {step['steps']:,}"
    return f"{run.name} · {words} · {time.strftime('%d %b %H:%M', time.localtime(run.created))}"


def word_of(state: str) -> str:
    """A state that another version wrote is shown as it is."""
    return WORDS.get(state, state)


def state_html(services: Services, run: Run, events: list[dict]) -> str:
    """State in words, the newest figures, the count of rows, the scores and the truth check."""
    status = run.status
    lines = [f"<p><b>{html.escape(word_of(status.state))}</b> {html.escape(run.name)}</p>"]
    if status.state == "queued" and (before := services.jobs.position(run)):
        lines.append(f"<p>{before} {'run is' if before == 1 else 'runs are'} before this one; it starts by itself.</p>")
    elif status.sentence:
        lines.append(f"<p>{html.escape(status.sentence)}</p>")
    newest = {event["kind"]: event for event in events}
    if status.state == "preparing" and "fetch" in newest and "plan" not in newest:
        lines.append(f"<p>{html.escape(str(newest['fetch'].get('text', '')))}</p>")
    if stage := newest.get("stage"):
        text = f"{stage.get('name', '')}, {stage.get('trainable', 0):,} trained parameters"
        lines.append(f"<p>Stage {stage.get('stage')} of 2: {html.escape(text)}</p>")
    if "step" in newest:
        lines.append(_figures(newest, status.state in ("running", "stopping")))
    if status.live and "scoring" in newest:
        lines.append(f"<p>{counting_words(newest['scoring'])}</p>")
    for kind, key, title in (
        ("plan", "sentence", "Rows"),
        ("scores", "summary", str(newest.get("scores", {}).get("what", "Exact calls")) + " on held-out questions"),
    ):
        if key in newest.get(kind, {}):
            lines.append(f"<p>{html.escape(title[:1].upper() + title[1:])}: {html.escape(str(newest[kind][key]))}</p>")
    if estimate := (newest.get("plan", {}).get("estimate") or {}).get("sentence"):
        lines.append(f"<p>Memory, as estimated: it {html.escape(str(estimate))}{_measured(run, events)}</p>")
    if "early_stop" in newest:
        lines.append(f"<p>Stopped early: {html.escape(early_words(newest['early_stop']))}.</p>")
    if "truth" in newest and not status.live:  # of a resumed run, it is about what it was before
        passed = newest["truth"].get("passed")
        word = "Truth check passed" if passed else "Truth check failed"
        lines.append(f"<p>{word}: {html.escape(str(newest['truth'].get('sentence', '')))}</p>")
        if passed and run.adapter:
            lines.append(f"<p>Its adapter is in the Chat tab as <b>{html.escape(run.name)}</b>.</p>")
    return f'<div class="run-state {KINDS.get(status.state, "")}">{"".join(lines)}</div>'


def counting_words(event: dict) -> str:
    """How far the recipe's questions have been answered."""
    who = "the adapter's" if event.get("tuned") else "the base model's"
    return f"Counting {who} answers: {event.get('done', 0):,} of {event.get('of', 0):,}"


def _measured(run: Run, events: list[dict]) -> str:
    """The peak beside the estimate: that of the whole run once it has ended, and of its steps before."""
    live = run.status.live
    steps = (event["memory"] for event in events if event["kind"] == "step" and "memory" in event)
    peak = (0 if live else run.about.get("peak_memory")) or max(steps, default=0)
    return f"; measured{' so far' if live else ''}: {size(peak)} at the most" if peak else ""


def _figures(newest: dict[str, dict], live: bool) -> str:
    """What the newest step says; an older version's step may say less."""
    step = newest["step"]
    figures = [("Step", f"{step.get('step', 0):,} of {step.get('steps', 0):,}")]
    if live:
        figures.append(("Time left", duration(step["eta"]) if "eta" in step else NONE))
    figures.append(("Loss", _number(step, "loss", "{:.3f}")))
    if "eval" in newest:
        figures.append(("Held-out loss", _number(newest["eval"], "eval_loss", "{:.3f}")))
    figures += [
        ("Tokens/s", _number(step, "tokens_per_second", "{:,.0f}")),
        ("Memory", f"{step['memory'] / 2**30:.1f} GiB" if "memory" in step else NONE),
        ("Learning rate", _number(step, "lr", "{:.1e}")),
        ("Gradient norm", _number(step, "grad_norm", "{:.2f}")),
    ]
    return f'<dl class="figures">{"".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in figures)}</dl>'


def _number(event: dict, key: str, form: str) -> str:
    return form.format(event[key]) if isinstance(event.get(key), int | float) else NONE


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
