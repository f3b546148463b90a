"""What the trainer process does with a run's folder, from waiting for the device to the truth check.

Imported by that process alone: torch, transformers and peft are imported here when the run's turn has come.
"""

import contextlib
import dataclasses
import gc
import importlib.metadata
import os
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from playground.config import Paths, TrainConfig, check
from playground.core.cores import Cores, available, fixed
from playground.errors import PlaygroundError
from playground.services import runs
from playground.services.figures import Log
from playground.services.jobs import wait_for_device
from playground.services.runs import Events, Run

SCORED_ROWS = 120
INITIAL = "initial"  # in checkpoints/: PiSSA's start
FIRST = "prompt"  # in checkpoints/: those of the first of two stages, and its adapter


class Stop:
    """The request to stop: a file in the folder, Ctrl-C, or SIGTERM. A second Ctrl-C ends the process at once."""

    def __init__(self, run: Run, asked: Callable[[], None]):
        self.file, self.signalled, self.told, self.asked = run.folder / "stop", False, False, asked

    def __call__(self) -> bool:
        wanted = self.signalled or self.file.exists()
        if wanted and not self.told:
            self.told = True
            self.asked()
        return wanted

    is_set = __call__  # a download takes it for a threading.Event

    @contextlib.contextmanager
    def signals(self):
        def on_signal(number, frame):
            if self.signalled and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.signalled = True

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, old in before.items():
                signal.signal(number, old)


class StoppedEarly(Exception):
    """Asked to stop before there was anything to keep."""


def train(run: Run, paths: Paths, sources, tell: Callable[[dict], None] = lambda event: None, ranks=None) -> dict:
    """Do the run and leave its end in the folder; `tell` gets every event as it is written.

    `ranks` (core.training.ranks): the processes that do it together; the first of them alone writes the folder.
    Returns {run, state, sentence, adapter (or model), steps, seconds, loss, eval_loss, best_step, peak_memory, truth,
    scores}.
    Faults of ours are written as a failed state too, and raised.
    """
    first = ranks is None or ranks.first
    if first:
        runs.note_process(run.folder)
    log = Events(run.folder)

    def emit(kind: str, **values) -> None:
        if first:
            event = log.write(kind, **values)
            tell(event)
            if figures:
                figures(event)

    def state(name: str, sentence: str = "", reason: str = "") -> None:
        emit("state", state=name, sentence=sentence, reason=reason)

    config = run.config
    result = {"run": run.name, "adapter": None, "steps": 0, "seconds": 0.0, "loss": None, "eval_loss": None}
    stop = Stop(run, lambda: state("stopping"))
    lock = figures = None
    try:
        with stop.signals():
            if first:
                runs.reserve(run.folder)
                lock = wait_for_device(run, paths, stop, lambda n: emit("queue", before=n))
            if not _all_of(ranks, lambda: lock is not None):
                raise StoppedEarly
            state("preparing")
            figures = Log(config.log_to, run.folder)
            result |= _train(run, config, paths, sources, emit, state, stop, ranks)
    except StoppedEarly:
        state("stopped", "stopped before the first step; there is nothing to keep")
    except BaseException as error:
        if not first:  # the first process says what became of the run; the log has what happened here
            raise
        _last_words(run, config, error, state)
        if not isinstance(error, PlaygroundError) and run.status.reason == "fault":
            raise
    finally:
        if first:
            runs.free_reserve(run.folder)
        if figures:
            figures.close()
        if lock is not None:
            lock.release()
    if first:
        runs.write_card(run)
    status = run.status
    return {**result, "state": status.state, "sentence": status.sentence}


def _all_of(ranks, work: Callable):
    """What `work` returns in the first process, for all of them."""
    return work() if ranks is None else ranks.from_first(work)


def _last_words(run: Run, config: TrainConfig, error: BaseException, state) -> None:
    """Put the reason of a failure into the folder, in one sentence."""
    runs.free_reserve(run.folder)
    if isinstance(error, KeyboardInterrupt):
        state("stopped", "stopped at once; what was not in a checkpoint is lost", "interrupted")
        return
    from playground.core.training.loop import failure

    reason, sentence = failure(error, config) or ("fault", f"{type(error).__name__}: {error}; log.txt has the rest")
    if reason == "fault":
        traceback.print_exc()
    state("failed", sentence, reason)


@dataclasses.dataclass
class _Prepared:
    """All that a run needs, loaded and checked."""

    folder: Path
    loaded: object
    template: object
    conversations: list
    examples: object
    data_hash: str
    tokens: list[int] = dataclasses.field(default_factory=list)


def _train(run: Run, config: TrainConfig, paths: Paths, sources, emit, state, stop, ranks) -> dict:
    started = time.monotonic()
    # Threads that wait by spinning take the cores from whoever works on them (beside a busy browser on two cores, steps
    # took 10 times as long); threads that never spin wake up late. So: spin for a moment (GNU OpenMP's count; ten times
    # as many are a fifth quicker on a machine with nothing else to do). Must be set before torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    import torch

    from playground.core.training import loop, methods, truth
    from playground.core.training.ranks import ALONE, shard

    ranks = ranks or ALONE
    check(dataclasses.replace(config, shard=ranks.sharded))
    if config.threads:
        torch.set_num_threads(config.threads)
    unit = fixed if config.threads else Cores(torch.set_num_threads, max(1, available() // ranks.count)).unit
    ready = _prepare(run, config, paths, sources, emit, stop, ranks)
    from playground.core.training.loss import keep_soft_prompt
    from playground.core.training.probe import probe
    from playground.core.training.recipes import recipe

    row = min(ready.examples.held_out or ready.examples.train, key=lambda row: len(row.ids))
    rated = recipe(config.recipe) if config.recipe else None
    scored = rated is not None and bool(rated.score)
    before = None
    if scored and config.method in ("full", "pissa"):  # their base is not there any more afterwards
        before = _score(ready.loaded.model, ready, rated, unit)
    checkpoints = run.folder / "checkpoints"

    def fit(model, config: TrainConfig, folder: Path, emit: Callable):
        asked = probe(model, ready.loaded.tokenizer, ready.template, ready.conversations, config)
        return loop.fit(model, ready.examples, config, _pad(ready), emit, stop, asked, folder, unit=unit, ranks=ranks)

    first = start = None
    if config.prompt_steps:
        plan = _tell_plan(None, ready, config, emit, ranks)
        state("running")
        first = _first_stage(ready, config, checkpoints / FIRST, fit, emit)
        start = first.start
    if first and (first.outcome.stopped or ranks.from_first(stop)):
        model, rounding, outcome, two = first.model, 0.0, first.outcome, False
    else:
        model, rounding = _learner(run, config, paths, ready, row, ranks)
        two = first is not None
        if two:
            keep_soft_prompt(model, first.soft)
            emit("stage", stage=2, name="LoRA behind the soft prompt", trainable=_trainable(model))
        else:
            before_it = _continued_folder(config, paths, ready.folder) if config.continue_from else None
            start = methods.start_of(model, before_it)
            plan = _tell_plan(model, ready, config, emit, ranks)
            shard(methods.base_of(model), ranks)
            state("running")
        steps = first.outcome.step if two else 0
        outcome = fit(model, config, checkpoints, _staged(emit, 2, steps) if two else emit)
        if two and not outcome.step:  # stopped between the two: what there is, is the soft prompt
            model, outcome, two = first.model, dataclasses.replace(first.outcome, stopped=True), False
    done = outcome.step + (first.outcome.step if two else 0)
    peak = loop.peak_memory(ready.loaded.device)
    result = {
        "steps": done,
        "loss": outcome.loss,
        "eval_loss": outcome.eval_loss,
        "best_step": outcome.best_step,
        "seconds": round(outcome.seconds + (first.outcome.seconds if two else 0), 1),
        "peak_memory": peak,
    }
    if outcome.step == 0:
        raise StoppedEarly
    model.eval()
    trained = truth.log_probabilities(model, row)
    scores = None
    if scored and not outcome.stopped and ranks.needs():
        scores = _scores(model, ready, rated, before, unit)
        emit("scores", **scores)
    kept = config if two or not first else config.first_stage
    about = _about(ready, kept, outcome, scores) | {"peak_memory": peak, "estimate": plan.get("estimate")}
    if first:
        about |= {"config": dataclasses.asdict(config), "stages": _stages(first, model, outcome, two)}
        about["served_per_row"] = False
    saved = save(model, run.folder, kept, about, ready, ranks, first.folder if two else None)
    if not ranks.first:
        return result
    # from here on it is about the file on the disk and a base that no training has touched
    del model
    ready.loaded = None
    gc.collect()
    fresh = methods.load_base(ready.folder, config)
    if config.added_tokens:
        methods.add_tokens(fresh.model, fresh.tokenizer, config.added_tokens)
    verdict = truth.check(fresh.model, saved, row, trained, rounding, start)
    runs.write_json(run.folder / "truth.json", verdict.as_dict())
    emit("truth", **verdict.as_dict())
    kind = "model" if config.method == "full" else "adapter"
    result |= {kind: str(saved), "truth": verdict.as_dict(), "scores": scores}
    if not verdict.passed:
        state("failed", f"trained, but the truth check failed: {verdict.sentence}", "truth")
    elif outcome.stopped:
        total = outcome.steps + (first.outcome.step if two else 0)
        what = kind if two or not first else "soft prompt"
        state("stopped", f"stopped at step {done:,} of {total:,}; the {what} is kept")
    else:
        before = f"{first.outcome.step:,} steps of a soft prompt, then " if two else ""
        state("finished", before + outcome.sentence(config.patience, time.monotonic() - started))
    return result


@dataclasses.dataclass
class _First:
    """The first of two stages: its model, the soft prompt as it was drawn and as it became, and its folder."""

    model: object
    trainable: int  # counted before the second stage puts its layers into the same base
    outcome: object
    start: dict
    soft: object
    folder: Path


def _first_stage(ready: _Prepared, config: TrainConfig, folder: Path, fit: Callable, emit) -> _First:
    from playground.core.training import methods
    from playground.core.training.loss import soft_prompt

    model = methods.add_adapter(ready.loaded.model, config.first_stage)
    start = methods.start_of(model)
    trainable = _trainable(model)
    emit("stage", stage=1, name="soft prompt", trainable=trainable)
    outcome = fit(model, config.first_stage, folder, _staged(emit, 1, 0))
    saved = folder / "adapter"
    if not outcome.stopped:
        methods.save_adapter(model, saved, config.model)
    return _First(model, trainable, outcome, start, soft_prompt(model).detach().clone(), saved)


def _staged(emit, stage: int, before: int) -> Callable:
    """Events of one of two stages, their steps counted on from the stage before."""

    def tell(kind: str, **values) -> None:
        steps = {key: values[key] + before for key in ("step", "steps", "best_step") if values.get(key) is not None}
        emit(kind, **{**values, **steps, "stage": stage})

    return tell


def _stages(first: _First, model, outcome, two: bool) -> list[dict]:
    """What playground.json says of each stage."""
    done = [("soft prompt", first.trainable, first.outcome)]
    done += [("LoRA", _trainable(model), outcome)] if two else []
    return [
        {"name": name, "trainable": number, "steps": o.step, "loss": o.loss, "eval_loss": o.eval_loss}
        for name, number, o in done
    ]


def _trainable(model) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _learner(run: Run, config: TrainConfig, paths: Paths, ready: _Prepared, row, ranks) -> tuple[object, float]:
    """The model with what is to be trained, and how far PiSSA's rounding has moved it from the base."""
    from playground.core.training import methods, truth

    model, tokens = ready.loaded.model, ready.tokens
    if config.continue_from:
        return methods.continued(model, config, _continued_folder(config, paths, ready.folder), tokens), 0.0
    if config.method != "pissa":
        return methods.add_adapter(model, config, tokens, rows=ready.examples.train), 0.0
    plain = truth.log_probabilities(model, row)
    kept = run.folder / "checkpoints" / INITIAL
    if not ranks.first:
        ranks.wait()  # the first process writes its start, the others compare theirs with it
    model = methods.add_adapter(model, config, tokens, kept)
    if ranks.first:
        ranks.wait()
    model.eval()
    return model, truth.apart(plain, truth.log_probabilities(model, row))


def _continued_folder(config: TrainConfig, paths: Paths, base: Path) -> Path:
    """The adapter to go on from, checked against the base; `continue_from` is a folder or the name of an adapter."""
    from playground.core.models import check_adapter, read_adapter

    known = {(f.parent if f.name == "adapter" else f).name: f for f in runs.adapters(paths)}
    folder = known.get(config.continue_from) or Path(config.continue_from).expanduser()
    if not (folder / "adapter_config.json").exists():
        raise PlaygroundError(
            f"there is no adapter {config.continue_from!r} to continue from; the adapters are {', '.join(known)}"
        )
    # the kind is told apart later, in a sentence that names both sides; here it is about the base
    info = read_adapter(folder)
    check_adapter(info, config.model, base)
    return folder


def _prepare(run: Run, config: TrainConfig, paths: Paths, sources, emit, stop, ranks) -> _Prepared:
    from playground.core import datasets
    from playground.core.training import layers, methods
    from playground.core.training.collate import check_batch, data_hash, prepare
    from playground.services.templates import Templates

    # the data is read first: it is quick, and most mistakes are there
    data = datasets.load(config.data, paths)
    digest = data_hash(data.conversations)
    _check_unchanged(run, digest)
    try:
        folder = ranks.from_first(lambda: sources.get(config.model, progress=_fetching(emit), cancel=stop))
    except PlaygroundError:
        if ranks.from_first(stop):
            raise StoppedEarly from None
        raise
    layers.check_folder(folder, config)
    loaded = methods.load_base(folder, config, "cpu" if ranks.sharded else "auto")
    if ranks.sharded and ranks.device.type != "cpu":  # the shares go to their devices once they are made
        loaded.model.set_attn_implementation("sdpa")
        loaded = dataclasses.replace(loaded, device=ranks.device)
    tokens = methods.add_tokens(loaded.model, loaded.tokenizer, config.added_tokens) if config.added_tokens else []
    template = Templates(paths).load(config.template, loaded.tokenizer)
    examples = prepare(config, data.conversations, template, loaded.tokenizer, data.problems)
    check_batch(config, len(examples.train))
    return _Prepared(folder, loaded, template, data.conversations, examples, digest, tokens)


def _fetching(emit) -> Callable:
    """Reports of a download as events, one every two seconds."""
    last = 0.0

    def report(progress) -> None:
        nonlocal last
        if time.monotonic() - last >= 2:
            last = time.monotonic()
            emit("fetch", text=progress.text)

    return report


def _pad(ready: _Prepared) -> int:
    pad = ready.loaded.tokenizer.pad_id
    return 0 if pad is None else pad


def _tell_plan(model, ready: _Prepared, config: TrainConfig, emit, ranks) -> dict:
    from playground.core.training.collate import total_steps

    report, estimate = ready.examples.report, _estimate(ready, config, ranks)
    trainable = _trainable(model) if model is not None else (estimate or {}).get("trainable")
    plan = {
        **dataclasses.asdict(report),
        "sentence": report.sentence(),
        "train_rows": len(ready.examples.train),
        "held_out_rows": len(ready.examples.held_out),
        "steps": total_steps(config, len(ready.examples.train)) + config.prompt_steps,
        "method": config.method,
        "trainable": trainable,
        "data_hash": ready.data_hash,
        "device": str(ready.loaded.device),
        "dtype": str(ready.loaded.dtype).removeprefix("torch."),
        "processes": ranks.count,
        "sharded": ranks.sharded,
        "estimate": estimate,
    }
    emit("plan", **plan)
    return plan


def _estimate(ready: _Prepared, config: TrainConfig, ranks) -> dict | None:
    """Memory and time for these rows on this device; None for a model whose config does not say its shape."""
    from playground.core import estimate
    from playground.core.training import methods

    try:
        shape = estimate.read_shape(ready.folder)
    except PlaygroundError:
        return None
    device = methods.device(ready.loaded.device.type)
    config = dataclasses.replace(config, processes=ranks.count, shard=ranks.sharded)
    work = estimate.work_of(ready.examples, config, device)
    return estimate.estimate(shape, config, device, work).as_dict()


def _score(model, ready: _Prepared, recipe, unit: Callable):
    from playground.core.training import methods
    from playground.core.training.scores import score

    base = methods.base_of(model)
    before = base.config._attn_implementation
    # what is faster for a training step is slower for many rows with a long cache
    base.set_attn_implementation("sdpa")
    try:
        return score(model, ready.loaded.tokenizer, ready.template, recipe, SCORED_ROWS, unit)
    finally:
        base.set_attn_implementation(before)


def _scores(model, ready: _Prepared, recipe, before, unit: Callable) -> dict:
    """The recipe's score with what was trained, beside `before`: that without it, counted here where it is None."""
    from playground.core.training import methods
    from playground.core.training.scores import as_dict

    started = time.monotonic()
    tuned = _score(model, ready, recipe, unit)
    if before is None and hasattr(model, "prompt_encoder"):
        before = _score(methods.base_of(model), ready, recipe, unit)
    elif before is None:
        with model.disable_adapter():
            before = _score(methods.base_of(model), ready, recipe, unit)  # a soft prompt is the adapter's
    return as_dict(recipe.score, before, tuned, time.monotonic() - started)


def _about(ready: _Prepared, config: TrainConfig, outcome, scores: dict | None) -> dict:
    """What playground.json says: enough to use the adapter as it was trained, and to train it again.

    `served_per_row`: whether lanes share the base with other adapters while they use this one.
    """
    from playground.core.models import revision

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


def _check_unchanged(run: Run, digest: str) -> None:
    """A resumed run must go on with the rows it began with."""
    before = next((event["data_hash"] for event in run.events() if event["kind"] == "plan"), digest)
    if before != digest and any((run.folder / "checkpoints").rglob("*.pt")):
        raise PlaygroundError("the data has changed since this run began, so it cannot be resumed; start a new run")


def save(model, folder: Path, config: TrainConfig, about: dict, ready: _Prepared, ranks, soft=None) -> Path:
    """`adapter/` (plain PEFT) or, after a full fine-tune, `model/`; with playground.json, whole or not at all.

    `soft`: the folder of the soft prompt that the adapter was trained behind; it goes into the adapter's.
    """
    from playground.core.adapter_files import SOFT
    from playground.core.training import methods
    from playground.core.training.ranks import full_state

    final = folder / ("model" if config.method == "full" else "adapter")
    state = full_state(model) if ranks.sharded else None
    if not ranks.first:
        return final
    part = final.with_name(f"{final.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    if config.method == "full":
        methods.save_model(model, ready.loaded.tokenizer, part, ready.folder, state)
    else:
        initial = folder / "checkpoints" / INITIAL if config.method == "pissa" else None
        methods.save_adapter(model, part, config.model, initial, state)
        if soft:
            shutil.copytree(soft, part / SOFT)
        if config.added_tokens:
            methods.save_tokenizer(ready.loaded.tokenizer, part, ready.folder)
    runs.write_json(part / "playground.json", about)
    shutil.rmtree(final, ignore_errors=True)
    part.rename(final)
    return final
