"""What is left of a run: its score, and the adapter (or model) with what playground.json says of it."""

import dataclasses
import importlib.metadata
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from playground.config import TrainConfig
from playground.core.adapter_files import SOFT
from playground.core.models import revision
from playground.core.training import methods, short
from playground.core.training.loop import Outcome
from playground.core.training.ranks import full_state
from playground.core.training.recipes import Recipe, recipe
from playground.core.training.scores import as_dict
from playground.core.training.scores import score as count
from playground.services import runs
from playground.services.trainer.job import Job
from playground.services.trainer.prepare import Prepared

SCORED_ROWS = 120
INITIAL = "initial"  # in checkpoints/: PiSSA's start


def rated(config: TrainConfig) -> Recipe | None:
    """The run's recipe, where something is counted after it."""
    known = recipe(config.recipe) if config.recipe else None
    return known if known and known.score else None


def score(model, ready: Prepared, recipe: Recipe, unit: Callable):
    base = methods.base_of(model)
    before = base.config._attn_implementation
    # what is faster for a training step is slower for many rows with a long cache
    base.set_attn_implementation("sdpa")
    try:
        if recipe.score == short.NAME:
            return short.score(model, ready.loaded.tokenizer, ready.template, recipe, unit)
        return count(model, ready.loaded.tokenizer, ready.template, recipe, SCORED_ROWS, unit)
    finally:
        base.set_attn_implementation(before)


def scores(model, ready: Prepared, recipe: Recipe, before, unit: Callable) -> dict:
    """The recipe's score with what was trained, beside `before`: that without it, counted here where it is None."""
    started = time.monotonic()
    tuned = score(model, ready, recipe, unit)
    if before is None and hasattr(model, "prompt_encoder"):
        before = score(methods.base_of(model), ready, recipe, unit)
    elif before is None:
        with model.disable_adapter():
            before = score(methods.base_of(model), ready, recipe, unit)  # a soft prompt is the adapter's
    return as_dict(recipe.score, before, tuned, time.monotonic() - started)


def about(ready: Prepared, config: TrainConfig, outcome: Outcome, scores: dict | None) -> dict:
    """What playground.json says: enough to use the adapter as it was trained, and to train it again.

    `served_per_row`: whether lanes share the base with other adapters while they use this one.
    """
    return {
        "method": config.method,
        "served_per_row": config.method != "full",
        "new_tokens": list(config.added_tokens),
        "template_name": ready.template.name,
        "template_text": ready.template.text,
        "template_hash": ready.template.hash,
        "mask_rule": ready.examples.report.mask_rule,
        "base_model": config.model,
        "base_revision": revision(ready.folder),
        "data_hash": ready.data_hash,
        "config": dataclasses.asdict(config),
        "steps": outcome.step,
        "loss": outcome.loss,
        "eval_loss": outcome.eval_loss,
        "best_step": outcome.best_step,
        "scores": scores,
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft")},
    }


def save(job: Job, model, config: TrainConfig, about: dict, ready: Prepared, soft: Path | None = None) -> Path:
    """`adapter/` (plain PEFT) or, after a full fine-tune, `model/`; with playground.json, whole or not at all.

    `config`: the settings of what is saved. `soft`: the folder of the soft prompt that the adapter was trained behind;
    it goes into the adapter's.
    """
    final = job.run.folder / ("model" if config.method == "full" else "adapter")
    state = full_state(model) if job.ranks.sharded else None
    if not job.ranks.first:
        return final
    part = final.with_name(f"{final.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    if config.method == "full":
        methods.save_model(model, ready.loaded.tokenizer, part, ready.folder, state)
    else:
        initial = job.checkpoints / INITIAL if config.method == "pissa" else None
        methods.save_adapter(model, part, config.model, initial, state)
        if soft:
            shutil.copytree(soft, part / SOFT)
        if config.added_tokens:
            methods.save_tokenizer(ready.loaded.tokenizer, part, ready.folder)
    runs.write_json(part / "playground.json", about)
    shutil.rmtree(final, ignore_errors=True)
    part.rename(final)
    return final
