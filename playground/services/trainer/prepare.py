"""Before the first step: rows, model and template read and checked, and the plan of the run told."""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from playground.config import TrainConfig
from playground.core import datasets, estimate
from playground.core.models import Loaded, check_adapter, read_adapter
from playground.core.training import layers, methods
from playground.core.training.collate import Examples, check_batch, data_hash, total_steps
from playground.core.training.collate import prepare as examples_of
from playground.errors import PlaygroundError
from playground.services import runs
from playground.services.templates import Templates
from playground.services.trainer.job import Job, StoppedEarly


@dataclass
class Prepared:
    """All that a run needs, loaded and checked. `loaded` is the base, after the training a fresh one."""

    folder: Path
    loaded: Loaded | None
    template: object
    conversations: list
    examples: Examples
    data_hash: str
    tokens: list[int] = field(default_factory=list)  # ids of the new tokens

    @property
    def pad(self) -> int:
        pad = self.loaded.tokenizer.pad_id
        return 0 if pad is None else pad


def prepare(job: Job) -> Prepared:
    config, ranks = job.config, job.ranks
    # the data is read first: it is quick, and most mistakes are there
    data = datasets.load(config.data, job.paths)
    digest = data_hash(data.conversations)
    _check_unchanged(job.run, digest)
    try:
        folder = ranks.from_first(lambda: job.sources.get(config.model, progress=_fetching(job.emit), cancel=job.stop))
    except PlaygroundError:
        if ranks.from_first(job.stop):
            raise StoppedEarly from None
        raise
    layers.check_folder(folder, config)
    loaded = methods.load_base(folder, config, "cpu" if ranks.sharded else "auto")
    if ranks.sharded and ranks.device.type != "cpu":  # the shares go to their devices once they are made
        loaded.model.set_attn_implementation("sdpa")
        loaded = dataclasses.replace(loaded, device=ranks.device)
    tokens = methods.add_tokens(loaded.model, loaded.tokenizer, config.added_tokens) if config.added_tokens else []
    template = Templates(job.paths).load(config.template, loaded.tokenizer)
    examples = examples_of(config, data.conversations, template, loaded.tokenizer, data)
    check_batch(config, examples)
    return Prepared(folder, loaded, template, data.conversations, examples, digest, tokens)


def _check_unchanged(run: runs.Run, digest: str) -> None:
    """A resumed run must go on with the rows it began with."""
    before = next((event["data_hash"] for event in run.events() if event["kind"] == "plan"), digest)
    if before != digest and any((run.folder / "checkpoints").rglob("*.pt")):
        raise PlaygroundError("the data has changed since this run began, so it cannot be resumed; start a new run")


def _fetching(emit: Callable) -> Callable:
    """Reports of a download as events, one every two seconds."""
    last = 0.0

    def report(progress) -> None:
        nonlocal last
        if time.monotonic() - last >= 2:
            last = time.monotonic()
            emit("fetch", text=progress.text)

    return report


def continued_folder(job: Job, base: Path) -> Path | None:
    """The adapter to go on from, checked against the base; `continue_from` is a folder or the name of an adapter."""
    config = job.config
    if not config.continue_from:
        return None
    folder = runs.adapter_to_go_on_from(job.paths, config.continue_from)
    # the kind is told apart later, in a sentence that names both sides; here it is about the base
    info = read_adapter(folder)
    check_adapter(info, config.model, base)
    return folder


def tell_plan(job: Job, ready: Prepared, trainable: int | None = None) -> dict:
    """Emit the plan; `trainable` numbers as they were counted, or else as estimated."""
    config, report, guess = job.config, ready.examples.report, _estimate(job, ready)
    plan = {
        **dataclasses.asdict(report),
        "sentence": report.sentence(),
        "train_rows": len(ready.examples.train),
        "held_out_rows": len(ready.examples.held_out),
        "steps": total_steps(config, len(ready.examples.train)) + config.prompt_steps,
        "method": config.method,
        "trainable": (guess or {}).get("trainable") if trainable is None else trainable,
        "data_hash": ready.data_hash,
        "device": str(ready.loaded.device),
        "dtype": str(ready.loaded.dtype).removeprefix("torch."),
        "processes": job.ranks.count,
        "sharded": job.ranks.sharded,
        "estimate": guess,
    }
    job.emit("plan", **plan)
    return plan


def _estimate(job: Job, ready: Prepared) -> dict | None:
    """Memory and time for these rows on this device; None for a model whose config does not say its shape."""
    try:
        shape = estimate.read_shape(ready.folder)
    except PlaygroundError:
        return None
    device = methods.device(ready.loaded.device.type)
    config = dataclasses.replace(job.config, processes=job.ranks.count, shard=job.ranks.sharded)

    def work(config: TrainConfig) -> estimate.Work:
        return estimate.work_of(ready.examples, config, device)

    return estimate.estimate(shape, config, device, work(config), work).as_dict()
