"""A run's curves as tables for the plots, and the overfit light as HTML."""

import html
import math

import gradio as gr
import pandas as pd

from playground.core.overfit import light

POINTS = 400  # of a curve on the plot
LOSS, PERPLEXITY = "loss", "perplexity"
MEASURES = "Loss or perplexity"
MEANING = "on the trained tokens; perplexity is how many tokens the model wavers between"
# One title for both: a plot whose title changes together with its values keeps drawing the old values (gradio 6.31).
Y_TITLE = "per trained token"
COLORS = {"training": "#0f766e", "held out": "#c2410c"}
STEEPEST = 20.0  # a loss above it is drawn as this one's perplexity

CSS = """
.light { display: flex; gap: 8px; align-items: baseline; font-size: var(--text-sm); margin: 2px 4px; }
.light i { flex: none; width: 11px; height: 11px; border-radius: 50%; background: #9aa5b1; }
.light.green i { background: #0f9d6b; } .light.amber i { background: #d18b00; } .light.red i { background: #c8322b; }
.light span { overflow-wrap: anywhere; }
"""


def plot(title: str, height: int, **look) -> gr.LinePlot:
    """An empty plot of `value` over `step`."""
    return gr.LinePlot(
        table([]), x="step", y="value", x_title="step", y_title=title, height=height, visible=False, **look
    )


def table(lines: list[tuple[str, list[tuple[int, float]]]]) -> pd.DataFrame:
    """Lines by name, thinned out; each still ends with its last point."""
    rows = []
    for name, points in lines:
        every = max(1, -(-len(points) // POINTS))
        kept = points[len(points) - 1 :: -every][::-1] if points else []
        rows += [{"step": step, "value": value, "kind": name} for step, value in kept]
    return pd.DataFrame(rows, columns=["step", "value", "kind"])


def points(events: list[dict], kind: str, key: str) -> list[tuple[int, float]]:
    """A figure by step; after a resume the later value of a step counts."""
    return sorted({event["step"]: event[key] for event in events if event["kind"] == kind and key in event}.items())


def measured(values: list[tuple[int, float]], measure: str) -> list[tuple[int, float]]:
    """Losses, or the perplexities they are the logarithm of."""
    if measure == PERPLEXITY:
        return [(step, round(math.exp(min(loss, STEEPEST)), 3)) for step, loss in values]
    return [(step, round(loss, 4)) for step, loss in values]


def curve(events: list[dict], measure: str = LOSS) -> pd.DataFrame:
    """Training and held-out loss (or perplexity) by step."""
    lines = [("training", "step", "loss"), ("held out", "eval", "eval_loss")]
    return table([(name, measured(points(events, kind, key), measure)) for name, kind, key in lines])


def pace(events: list[dict], key: str) -> pd.DataFrame:
    """The learning rate ("lr") or the gradient norm ("grad_norm") by step."""
    return table([(key, points(events, "step", key))])


def shown(frame: pd.DataFrame, kind: str | None = None) -> dict:
    """Update of a plot: one point is no curve, and a plot that begins without a line never gets it into its legend."""
    count = len(frame) if kind is None else (frame["kind"] == kind).sum()
    return gr.update(value=frame, visible=True) if count > 1 else gr.update(visible=False)


def light_html(events: list[dict], ended: bool) -> str:
    """The overfit light; "" before the first evaluation, and where an ended run has too few to say anything."""
    found = light(events)
    if not any(event["kind"] == "step" for event in events) or (ended and not found.colour):
        return ""
    word = {"green": "Green: ", "amber": "Amber: ", "red": "Red: "}.get(found.colour, "")
    return (
        f'<div class="light {found.colour}" role="status"><i></i><span>{word}{html.escape(found.sentence)}</span></div>'
    )
