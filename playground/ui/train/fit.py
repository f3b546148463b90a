"""Will it fit, and how long will it take: the estimate before a run, and the same question for another device."""

import html
from dataclasses import replace
from functools import partial
from pathlib import Path

import gradio as gr

from playground.config import TrainConfig
from playground.core import estimate
from playground.core.estimate import Device, Estimate
from playground.core.training.collate import Examples
from playground.errors import PlaygroundError
from playground.ui.common import Services, whenever
from playground.ui.train.words import duration

WORDS = {"fits": "It fits", "tight": "It fits, but it is tight", "exceeds": "It does not fit"}
COLOURS = {"fits": "green", "tight": "amber", "exceeds": "red"}
THIS = "the model above"

CSS = """
.fit :is(table, tbody, tr) { border: 0 !important; }
.fit table { border-collapse: collapse; font-size: var(--text-sm); margin: 4px 0; }
.fit td { padding: 2px 10px 2px 0; border: 0 !important; font-variant-numeric: tabular-nums; }
.fit td:last-child { text-align: right; }
.fit p, .fit li { margin: 2px 0; font-size: var(--text-sm); overflow-wrap: anywhere; }
.fit ul { margin: 2px 0; padding-left: 20px; }
.fit.red b { color: #a32019; } .dark .fit.red b { color: #ff9c94; }
.fit.amber b { color: #8a5a00; } .dark .fit.amber b { color: #f0b849; }
"""


def this_device() -> Device:
    """Where a run of this machine would be."""
    import torch

    from playground.core.training import methods

    mps = "mps" if torch.backends.mps.is_available() else "cpu"
    return methods.device("cuda" if torch.cuda.is_available() else mps)


def before_run(config: TrainConfig, folder: Path, examples: Examples, steps: int) -> str:
    """The estimate for rows that were counted, as HTML; "" where the model does not say its shape."""
    try:
        shape, device = estimate.read_shape(folder), this_device()
        again = partial(estimate.work_of, examples, device=device)
        work = replace(again(config), steps=steps)
        return short_html(estimate.estimate(shape, config, device, work, again), steps)
    except PlaygroundError:
        return ""


def crowded(config: TrainConfig, folder: Path, examples: Examples) -> bool:
    """Whether the run would be tight, or would not fit, in what is free while the chat's models stay in memory."""
    try:
        shape, device = estimate.read_shape(folder), this_device()
        beside = replace(device, free=_free(device.kind))
        return estimate.estimate(shape, config, beside, estimate.work_of(examples, config, beside)).verdict != "fits"
    except PlaygroundError:
        return False


def _free(kind: str) -> int:
    """Bytes that nobody holds: `methods.device` counts what this process holds as free."""
    import torch

    return torch.cuda.mem_get_info()[0] if kind == "cuda" else estimate.cpu().free


def short_html(found: Estimate, steps: int) -> str:
    time = f" About {duration(found.seconds)} for {steps:,} steps and their evaluations." if found.seconds else ""
    each = f" for each of {found.processes:,} processes" if found.processes > 1 else ""
    return (
        f'<div class="fit {COLOURS[found.verdict]}"><p><b>{WORDS[found.verdict]}:</b> about '
        f"{estimate.size(found.total)} of {estimate.size(found.free)} free{each}.{time}</p>{_changes(found)}</div>"
    )


def _changes(found: Estimate) -> str:
    if not found.changes:
        return ""
    items = "".join(
        f"<li>{html.escape(', '.join(f'{name} {value}' for name, value in change.settings.items()))}: "
        f"{html.escape(change.words)} ({change.estimate.verdict}, {estimate.size(change.estimate.total)})</li>"
        for change in found.changes
    )
    return f"<p>The cheapest changes that would make it fit:</p><ul>{items}</ul>"


def table_html(found: Estimate, config: TrainConfig) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{estimate.size(number)}</td></tr>" for name, number in found.parts.items()
    )
    rows += f"<tr><td><b>together</b></td><td>{estimate.size(found.total)}</td></tr>"
    return (
        f'<div class="fit {COLOURS[found.verdict]}"><p><b>{WORDS[found.verdict]}</b> into '
        f"{estimate.size(found.free)}; {found.trainable:,} numbers are trained.</p><table>{rows}</table>"
        f"<p>Every row is counted as {config.max_length:,} tokens, which max length allows.</p>{_changes(found)}</div>"
    )


def build() -> tuple[gr.Dropdown, gr.Number, gr.HTML]:
    with gr.Row():
        model = gr.Dropdown([THIS, *estimate.KNOWN], value="llama-7b", label="Model", min_width=150)
        memory = gr.Number(24, label="Memory of a GPU, in GiB", min_width=150)
    return model, memory, gr.HTML()


def wire(services: Services, parts: tuple, opened, inputs: list, config_from) -> None:
    """`inputs` are the form's values, which `config_from` makes settings of."""
    model, memory, out = parts
    ask = partial(elsewhere, services, config_from)
    whenever(ask, [model, memory, *inputs], out, [opened, model.change, memory.change])


def elsewhere(services: Services, config_from, model: str, gib: float | None, *values) -> str:
    """Whether the settings on the form would fit into a GPU with so much free memory."""
    try:
        config = config_from("", values)
        if not gib or not 0 < gib <= 10_000:
            given = "nothing" if gib is None else f"{gib:g}"
            raise PlaygroundError(f"say how many GiB the GPU has free, above 0 and at most 10,000; got {given}")
        device = estimate.gpu("", int(gib * estimate.GIB))
        return table_html(estimate.estimate(_shape(services, config, model), config, device), config)
    except PlaygroundError as error:
        return f'<div class="fit red"><p>{html.escape(str(error))}</p></div>'


def _shape(services: Services, config: TrainConfig, model: str):
    if model in estimate.KNOWN:
        return estimate.shape_of(estimate.KNOWN[model])
    folder = services.sources.find(config.model)
    if folder is None:
        raise PlaygroundError(
            f"{config.model} is not on this machine yet, so its shape is not known; choose another model"
        )
    return estimate.read_shape(Path(folder))
