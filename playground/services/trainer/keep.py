"""What is left of a run: the adapter (or model) with what playground.json says of it, and its score."""

import dataclasses
import importlib.metadata
import json
import shutil
import time
from pathlib import Path

from playground.config import TrainConfig
from playground.core.adapter_files import SOFT
from playground.core.adapters import AdapterBank
from playground.core.generation import check_decodable
from playground.core.models import Loaded, load, read_adapter, revision
from playground.core.tokenizer import Tokenizer
from playground.core.training import methods
from playground.core.training.loop import Outcome
from playground.core.training.ranks import full_state
from playground.core.training.recipes import Recipe, recipe
from playground.core.training.scores import Lane, as_dict
from playground.core.training.scores import score as count
from playground.services import runs
from playground.services.trainer.job import Job, StoppedEarly
from playground.services.trainer.prepare import Prepared

SCORED_ROWS = 120
INITIAL = "initial"  # in checkpoints/: PiSSA's start


def rated(config: TrainConfig) -> Recipe | None:
    """The run's recipe, where something is counted after it."""
    known = recipe(config.recipe) if config.recipe else None
    return known if known and known.score else None


def scores(job: Job, ready: Prepared, recipe: Recipe, saved: Path) -> dict:
    """The recipe's score with what was saved, beside that of the base: the lanes that Chat makes of them are asked.

    The base is `ready.loaded`, which is given up, or else loaded.
    Raises StoppedEarly where the run is asked to stop, and PlaygroundError for a model that no lane can be made of.
    """
    started = time.monotonic()

    def counted(model: Loaded, bank: AdapterBank, adapter: str | None, tuned: bool):
        def tell(done: int, of: int) -> None:
            job.emit("scoring", tuned=tuned, done=done, of=of)
            if job.stop():
                raise StoppedEarly

        own = read_adapter(saved).tokenizer if adapter else None
        tokenizer = Tokenizer.load(own) if own else model.tokenizer
        return count(Lane(bank, adapter, tokenizer, job.unit, tell), ready.template, recipe, SCORED_ROWS)

    base, ready.loaded = ready.loaded or _loaded(ready.folder, job.config), None
    bank, adapter = _bank(base), None
    untuned = counted(base, bank, None, tuned=False)
    if job.config.method == "full":
        del base, bank  # one model at a time
        base = _loaded(saved, job.config)
        bank = _bank(base)
    else:
        adapter = "tuned"
        bank.load(adapter, saved)
    return as_dict(recipe.score, untuned, counted(base, bank, adapter, tuned=True), time.monotonic() - started)


def _loaded(folder: Path, config: TrainConfig) -> Loaded:
    return load(folder, config.dtype, load_in_4bit=config.quantised)


def _bank(loaded: Loaded) -> AdapterBank:
    check_decodable(loaded.model)
    return AdapterBank(loaded.model)


def about(ready: Prepared, config: TrainConfig, outcome: Outcome) -> dict:
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
        "scores": None,
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


def note_scores(saved: Path, scores: dict) -> None:
    """Put the scores into what playground.json says."""
    about = json.loads((saved / "playground.json").read_text(encoding="utf-8"))
    runs.write_json(saved / "playground.json", about | {"scores": scores})
