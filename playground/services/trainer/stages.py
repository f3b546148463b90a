"""The training itself: in one stage, or a soft prompt first and then LoRA behind it; then truth check and score.

A model that has been trained is checked and scored on a fresh base, from its file: what is on the disk is what counts.
"""

import dataclasses
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from playground.config import TrainConfig, check
from playground.core.cores import Cores, available, fixed
from playground.core.training import loop, methods, truth
from playground.core.training.collate import Example
from playground.core.training.loop import Outcome
from playground.core.training.loss import keep_soft_prompt, soft_prompt
from playground.core.training.memory import peak_memory
from playground.core.training.probe import probe
from playground.core.training.ranks import ALONE, shard
from playground.errors import PlaygroundError
from playground.services import runs
from playground.services.trainer import keep
from playground.services.trainer.job import Job, StoppedEarly
from playground.services.trainer.prepare import Prepared, continued_folder, prepare, tell_plan

FIRST = "prompt"  # in checkpoints/: those of the first of two stages, and its adapter


@dataclass
class Soft:
    """The first of two stages: its model, the soft prompt as it was drawn and as it became, and its folder."""

    model: object
    trainable: int  # counted before the second stage puts its layers into the same base
    outcome: Outcome
    start: dict
    prompt: object
    folder: Path


@dataclass
class Trained:
    """What the steps have left. `start` is what the adapter's file was before them, where that was not zero.

    With two stages, `soft` is the first; where `behind`, the second has done a step, and model and outcome are its.
    """

    model: object
    outcome: Outcome
    plan: dict
    start: dict
    rounding: float = 0.0  # how far PiSSA's start has moved the model from the base
    soft: Soft | None = None
    behind: bool = False

    @property
    def before(self) -> Outcome | None:
        """The stage before the one that `outcome` tells of."""
        return self.soft.outcome if self.behind else None

    @property
    def steps(self) -> int:
        return self.outcome.step + (self.before.step if self.before else 0)

    def config(self, whole: TrainConfig) -> TrainConfig:
        """The settings of what is saved: of a soft prompt alone, those of its stage."""
        return whole.first_stage if self.soft and not self.behind else whole


def do(job: Job) -> dict:
    """Train, save, check and score; raises StoppedEarly where there is nothing to keep."""
    import torch

    started = time.monotonic()
    config, ranks = job.config, job.ranks or ALONE
    check(dataclasses.replace(config, shard=ranks.sharded))
    if config.threads:
        torch.set_num_threads(config.threads)
    unit = fixed if config.threads else Cores(torch.set_num_threads, max(1, available() // ranks.count)).unit
    job = dataclasses.replace(job, ranks=ranks, unit=unit)
    ready = prepare(job)
    row = min(ready.examples.held_out or ready.examples.train, key=lambda row: len(row.ids))
    trained = (_two_stages if config.prompt_steps else _one_stage)(job, ready, row)
    peak = peak_memory(ready.loaded.device)
    if trained.outcome.step == 0:
        raise StoppedEarly
    numbers = truth.log_probabilities(trained.model.eval(), row)
    saved = _save(job, ready, trained, peak)
    result = _figures(trained, peak)
    if not ranks.first:
        return result
    # from here on it is about the file on the disk and a base that no training has touched
    trained.model = ready.loaded = None
    if trained.soft:
        trained.soft.model = None
    gc.collect()
    fresh = methods.load_base(ready.folder, config)
    if config.added_tokens:
        methods.add_tokens(fresh.model, fresh.tokenizer, config.added_tokens)
    verdict = truth.check(fresh.model, saved, row, numbers, trained.rounding, trained.start)
    runs.write_json(job.run.folder / "truth.json", verdict.as_dict())
    job.emit("truth", **verdict.as_dict())
    ready.loaded = methods.serve(fresh) if methods.can_serve(config, fresh.device) else None
    del fresh
    scores, why = _scores(job, ready, saved) if verdict.passed and not trained.outcome.stopped else (None, "")
    kind = "model" if config.method == "full" else "adapter"
    _tell_end(job, trained, verdict, kind, why, time.monotonic() - started)
    return {**result, kind: str(saved), "truth": verdict.as_dict(), "scores": scores}


# ---- the stages ------------------------------------------------------------------------------------------------


def _one_stage(job: Job, ready: Prepared, row: Example) -> Trained:
    model, rounding = _learner(job, ready, row)
    start = methods.start_of(model, continued_folder(job, ready.folder))
    plan = tell_plan(job, ready, _trainable(model))
    shard(methods.base_of(model), job.ranks)
    job.state("running")
    return Trained(model, _fit(job, ready, model, job.config, job.checkpoints, job.emit), plan, start, rounding)


def _two_stages(job: Job, ready: Prepared, row: Example) -> Trained:
    plan = tell_plan(job, ready)
    job.state("running")
    soft = _soft_stage(job, ready)
    # stopped before the second has done a step: what there is, is the soft prompt
    alone = Trained(soft.model, dataclasses.replace(soft.outcome, stopped=True), plan, soft.start, soft=soft)
    if soft.outcome.stopped or job.ranks.from_first(job.stop):
        return alone
    model, _ = _learner(job, ready, row)
    keep_soft_prompt(model, soft.prompt)
    job.emit("stage", stage=2, name="LoRA behind the soft prompt", trainable=_trainable(model))
    emit = _staged(job.emit, 2, soft.outcome.step)
    outcome = _fit(job, ready, model, job.config, job.checkpoints, emit)
    return dataclasses.replace(alone, model=model, outcome=outcome, behind=True) if outcome.step else alone


def _soft_stage(job: Job, ready: Prepared) -> Soft:
    config, folder = job.config.first_stage, job.checkpoints / FIRST
    model = methods.add_adapter(ready.loaded.model, config)
    start = methods.start_of(model)
    trainable = _trainable(model)
    job.emit("stage", stage=1, name="soft prompt", trainable=trainable)
    outcome = _fit(job, ready, model, config, folder, _staged(job.emit, 1, 0))
    saved = folder / "adapter"
    if not outcome.stopped:
        methods.save_adapter(model, saved, config.model)
    return Soft(model, trainable, outcome, start, soft_prompt(model).detach().clone(), saved)


def _fit(job: Job, ready: Prepared, model, config: TrainConfig, checkpoints: Path, emit: Callable) -> Outcome:
    asked = probe(model, ready.loaded.tokenizer, ready.template, ready.conversations, config)
    more = {"probe": asked, "checkpoints": checkpoints, "unit": job.unit, "ranks": job.ranks}
    return loop.fit(model, ready.examples, config, ready.pad, emit, job.stop, **more)


def _staged(emit: Callable, stage: int, before: int) -> Callable:
    """Events of one of two stages, their steps counted on from the stage before."""

    def tell(kind: str, **values) -> None:
        steps = {key: values[key] + before for key in ("step", "steps", "best_step") if values.get(key) is not None}
        emit(kind, **{**values, **steps, "stage": stage})

    return tell


def _learner(job: Job, ready: Prepared, row: Example) -> tuple[object, float]:
    """The model with what is to be trained, and how far PiSSA's rounding has moved it from the base."""
    config, ranks = job.config, job.ranks
    model, tokens = ready.loaded.model, ready.tokens
    if before := continued_folder(job, ready.folder):
        return methods.continued(model, config, before, tokens), 0.0
    if config.method != "pissa":
        return methods.add_adapter(model, config, tokens, rows=ready.examples.train), 0.0
    plain = truth.log_probabilities(model, row)
    if not ranks.first:
        ranks.wait()  # the first process writes its start, the others compare theirs with it
    model = methods.add_adapter(model, config, tokens, job.checkpoints / keep.INITIAL)
    if ranks.first:
        ranks.wait()
    model.eval()
    return model, truth.apart(plain, truth.log_probabilities(model, row))


def _trainable(model) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


# ---- after them ------------------------------------------------------------------------------------------------


def _scores(job: Job, ready: Prepared, saved: Path) -> tuple[dict | None, str]:
    """What the recipe counts, and why it was not counted where it was not."""
    recipe = keep.rated(job.config)
    if recipe is None:
        return None, ""
    try:
        scores = keep.scores(job, ready, recipe, saved)
    except StoppedEarly:
        return None, "stopped while its answers were being counted"
    except PlaygroundError as error:
        return None, f"its answers were not counted: {error}"
    keep.note_scores(saved, scores)
    job.emit("scores", **scores)
    return scores, ""


def _save(job: Job, ready: Prepared, trained: Trained, peak: int) -> Path:
    config = trained.config(job.config)
    about = keep.about(ready, config, trained.outcome)
    about |= {"peak_memory": peak, "estimate": trained.plan.get("estimate")}
    if trained.soft:
        about |= {"config": dataclasses.asdict(job.config), "stages": _stages(trained), "served_per_row": False}
    return keep.save(job, trained.model, config, about, ready, trained.soft.folder if trained.behind else None)


def _stages(trained: Trained) -> list[dict]:
    """What playground.json says of each stage."""
    done = [("soft prompt", trained.soft.trainable, trained.soft.outcome)]
    done += [("LoRA", _trainable(trained.model), trained.outcome)] if trained.behind else []
    return [
        {"name": name, "trainable": number, "steps": o.step, "loss": o.loss, "eval_loss": o.eval_loss}
        for name, number, o in done
    ]


def _figures(trained: Trained, peak: int) -> dict:
    outcome, before = trained.outcome, trained.before
    return {
        "steps": trained.steps,
        "loss": outcome.loss,
        "eval_loss": outcome.eval_loss,
        "best_step": outcome.best_step,
        "seconds": round(outcome.seconds + (before.seconds if before else 0), 1),
        "peak_memory": peak,
    }


def _tell_end(job: Job, trained: Trained, verdict: truth.Truth, kind: str, uncounted: str, seconds: float) -> None:
    outcome, before = trained.outcome, trained.before
    if not verdict.passed:
        job.state("failed", f"trained, but the truth check failed: {verdict.sentence}", "truth")
    elif outcome.stopped:
        total = outcome.steps + (before.step if before else 0)
        what = "soft prompt" if trained.soft and not trained.behind else kind
        job.state("stopped", f"stopped at step {trained.steps:,} of {total:,}; the {what} is kept")
    else:
        first = f"{before.step:,} steps of a soft prompt, then " if before else ""
        sentence = first + outcome.sentence(job.config.patience, seconds)
        job.state("finished", f"{sentence}; {uncounted}" if uncounted else sentence)
