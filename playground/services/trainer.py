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

from playground.config import Paths, TrainConfig
from playground.core.cores import Cores
from playground.errors import PlaygroundError
from playground.services import runs
from playground.services.jobs import wait_for_device
from playground.services.runs import Events, Run

SCORED_ROWS = 120


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


def train(run: Run, paths: Paths, sources, tell: Callable[[dict], None] = lambda event: None) -> dict:
    """Do the run and leave its end in the folder; `tell` gets every event as it is written.

    Returns {run, state, sentence, adapter, step, steps, seconds, loss, eval_loss, truth, scores}.
    Faults of ours are written as a failed state too, and raised.
    """
    runs.note_process(run.folder)
    log = Events(run.folder)

    def emit(kind: str, **values) -> None:
        tell(log.write(kind, **values))

    def state(name: str, sentence: str = "", reason: str = "") -> None:
        emit("state", state=name, sentence=sentence, reason=reason)

    config = run.config
    result = {"run": run.name, "adapter": None, "steps": 0, "seconds": 0.0, "loss": None, "eval_loss": None}
    stop = Stop(run, lambda: state("stopping"))
    lock = None
    try:
        with stop.signals():
            runs.reserve(run.folder)
            lock = wait_for_device(run, paths, stop, lambda n: emit("queue", before=n))
            if lock is None:
                raise StoppedEarly
            state("preparing")
            result |= _train(run, config, paths, sources, emit, state, stop)
    except StoppedEarly:
        state("stopped", "stopped before the first step; there is nothing to keep")
    except BaseException as error:
        _last_words(run, config, error, state)
        if not isinstance(error, PlaygroundError) and run.status.reason == "fault":
            raise
    finally:
        runs.free_reserve(run.folder)
        if lock is not None:
            lock.release()
    status = run.status
    return {**result, "state": status.state, "sentence": status.sentence}


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


def _train(run: Run, config: TrainConfig, paths: Paths, sources, emit, state, stop) -> dict:
    started = time.monotonic()
    # Threads that wait by spinning take the cores from whoever works on them (beside a busy browser on two cores, steps
    # took 10 times as long); threads that never spin wake up late. So: spin for a moment (GNU OpenMP's count; ten times
    # as many are a fifth quicker on a machine with nothing else to do). Must be set before torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    import torch

    if config.threads:
        torch.set_num_threads(config.threads)
    adapt = (lambda: None) if config.threads else Cores(torch.set_num_threads).adapt
    ready = _prepare(run, config, paths, sources, emit, stop)
    from playground.core.training import loop, truth
    from playground.core.training.recipes import recipe

    model = loop.add_adapter(ready.loaded.model, config)
    _tell_plan(model, ready, config, emit)
    state("running")
    outcome = loop.fit(
        model,
        ready.examples,
        config,
        _pad(ready),
        emit,
        stop,
        _probe(model, ready, config),
        run.folder / "checkpoints",
        adapt=adapt,
    )
    result = {
        "steps": outcome.step,
        "loss": outcome.loss,
        "eval_loss": outcome.eval_loss,
        "seconds": round(outcome.seconds, 1),
    }
    if outcome.step == 0:
        raise StoppedEarly
    row = min(ready.examples.held_out or ready.examples.train, key=lambda row: len(row.ids))
    model.eval()
    trained = truth.log_probabilities(model, row)
    scores = None
    if config.recipe and recipe(config.recipe).scored and not outcome.stopped:
        scores = _score(model, ready, adapt)
        emit("scores", **scores)
    save(model, run.folder, config.model, _about(ready, config, outcome, scores))
    # from here on it is about the file on the disk and a base that no training has touched
    del model
    ready.loaded = None
    gc.collect()
    verdict = truth.check(_load(ready.folder, config).model, run.folder / "adapter", row, trained)
    runs.write_json(run.folder / "truth.json", verdict.as_dict())
    emit("truth", **verdict.as_dict())
    result |= {"adapter": str(run.folder / "adapter"), "truth": verdict.as_dict(), "scores": scores}
    if not verdict.passed:
        state("failed", f"trained, but the truth check failed: {verdict.sentence}", "truth")
    elif outcome.stopped:
        state("stopped", f"stopped at step {outcome.step:,} of {outcome.steps:,}; the adapter is kept")
    else:
        state("finished", f"{outcome.steps:,} steps in {time.monotonic() - started:.0f} s")
    return result


def _prepare(run: Run, config: TrainConfig, paths: Paths, sources, emit, stop) -> _Prepared:
    from playground.core import datasets
    from playground.core.training.collate import data_hash, prepare
    from playground.services.templates import Templates

    # the data is read first: it is quick, and most mistakes are there
    data = datasets.load(config.data, paths)
    digest = data_hash(data.conversations)
    _check_unchanged(run, digest)
    try:
        folder = sources.get(config.model, progress=_fetching(emit), cancel=stop)
    except PlaygroundError:
        if stop():
            raise StoppedEarly from None
        raise
    loaded = _load(folder, config)
    template = Templates(paths).load(config.template, loaded.tokenizer)
    context = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)
    if context and config.max_length > context:
        raise PlaygroundError(f"max_length {config.max_length:,} is past the model's context of {context:,} tokens")
    examples = prepare(config, data.conversations, template, loaded.tokenizer, data.problems)
    return _Prepared(folder, loaded, template, data.conversations, examples, digest)


def _fetching(emit) -> Callable:
    """Reports of a download as events, one every two seconds."""
    last = 0.0

    def report(progress) -> None:
        nonlocal last
        if time.monotonic() - last >= 2:
            last = time.monotonic()
            emit("fetch", text=progress.text)

    return report


def _load(folder: Path, config: TrainConfig):
    from playground.core import models

    loaded = models.load(folder, dtype=config.dtype, load_in_4bit=config.load_in_4bit)
    if loaded.device.type == "cpu":
        # measured: a fifth faster than sdpa for short padded batches
        loaded.model.set_attn_implementation("eager")
    return loaded


def _pad(ready: _Prepared) -> int:
    pad = ready.loaded.tokenizer.pad_id
    return 0 if pad is None else pad


def _tell_plan(model, ready: _Prepared, config: TrainConfig, emit) -> None:
    from playground.core.training.collate import total_steps

    report = ready.examples.report
    emit(
        "plan",
        **dataclasses.asdict(report),
        sentence=report.sentence(),
        train_rows=len(ready.examples.train),
        held_out_rows=len(ready.examples.held_out),
        steps=total_steps(config, len(ready.examples.train)),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        data_hash=ready.data_hash,
        device=str(ready.loaded.device),
        dtype=str(ready.loaded.dtype).removeprefix("torch."),
    )


def _probe(model, ready: _Prepared, config: TrainConfig) -> Callable[[], dict] | None:
    if not config.probe.strip():
        return None
    from playground.core.templates import render
    from playground.core.training.answer import answer_batch, stops

    tokenizer = ready.loaded.tokenizer
    conversation = probe_conversation(config.probe, ready.conversations)
    ids = render(ready.template, conversation, tokenizer, add_generation_prompt=True).ids
    stop_ids, stop_strings = stops(ready.template, tokenizer)

    def probe() -> dict:
        texts = answer_batch(model, tokenizer, [ids], config.probe_tokens, stop_ids, stop_strings)
        return {"prompt": config.probe, "text": texts[0]}

    return probe


def _score(model, ready: _Prepared, adapt: Callable) -> dict:
    """Exact calls on held-out questions, with the adapter and without it."""
    from playground.core import synthesis
    from playground.core.training.scores import exact_calls

    started, rows = time.monotonic(), synthesis.tool_calls(SCORED_ROWS, seed=0, split="test")
    tokenizer, template = ready.loaded.tokenizer, ready.template
    # eager attention is faster for a training step, and slower for many rows with a long cache
    model.get_base_model().set_attn_implementation("sdpa")
    tuned = exact_calls(model, tokenizer, template, rows, adapt=adapt)
    with model.disable_adapter():
        untuned = exact_calls(model, tokenizer, template, rows, adapt=adapt)
    return {
        "rows": tuned.total,
        "untuned": untuned.rate,
        "tuned": tuned.rate,
        "interval": tuned.interval,
        "outcomes": tuned.outcomes,
        "kinds": tuned.kinds,
        "summary": f"untuned {untuned.summary()}, tuned {tuned.summary()}",
        "seconds": time.monotonic() - started,
    }


def _about(ready: _Prepared, config: TrainConfig, outcome, scores: dict | None) -> dict:
    """What playground.json says about an adapter: enough to use it as it was trained, and to train it again."""
    from playground.core.models import revision

    return {
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
        "scores": scores,
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft")},
    }


def probe_conversation(prompt: str, conversations: list):
    """The prompt as the data would put it: with its tools, and with the system message if all rows share one."""
    from playground.core.messages import Conversation

    systems = {c.messages[0]["content"] if c.messages[0]["role"] == "system" else None for c in conversations}
    system = systems.pop() if len(systems) == 1 else None
    messages = [{"role": "system", "content": system}] if system else []
    tools = next((c.tools for c in conversations if c.tools), [])
    return Conversation([*messages, {"role": "user", "content": prompt}], tools)


def _check_unchanged(run: Run, digest: str) -> None:
    """A resumed run must go on with the rows it began with."""
    before = next((event["data_hash"] for event in run.events() if event["kind"] == "plan"), digest)
    if before != digest and any((run.folder / "checkpoints").glob("*.pt")):
        raise PlaygroundError("the data has changed since this run began, so it cannot be resumed; start a new run")


def save(model, folder: Path, base: str, about: dict) -> None:
    """Plain PEFT plus playground.json, whole or not at all; the base is named as in the catalog, not by a path."""
    part, final = folder / "adapter.part", folder / "adapter"
    shutil.rmtree(part, ignore_errors=True)
    model.peft_config["default"].base_model_name_or_path = base
    model.save_pretrained(part, save_embedding_layers=False)
    (part / "README.md").unlink(missing_ok=True)
    runs.write_json(part / "playground.json", about)
    shutil.rmtree(final, ignore_errors=True)
    part.rename(final)
