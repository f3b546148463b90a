"""The loop: optimizer steps over the batches, evaluations, probe answers and checkpoints, told through events.

Nothing is printed here. `emit(kind, **values)` gets "step", "eval", "sample" and "checkpoint"; whoever calls
`fit` writes them to a file, to a terminal, or to a list in a test.
"""

import contextlib
import errno
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from playground.config import TrainConfig
from playground.core.cores import fixed
from playground.core.training.best import Best, write_whole
from playground.core.training.collate import (
    TOKENS_AT_ONCE,
    Batch,
    Example,
    Examples,
    batches_of_epoch,
    held_batches,
    shares,
    total_steps,
    unshared,
)
from playground.core.training.fused import fused
from playground.core.training.loss import KeptPrefix, soft_prompt, step_gradients, step_loss
from playground.core.training.master import Master, rate
from playground.core.training.memory import GROWTH, give_back, memory
from playground.core.training.methods import base_of
from playground.core.training.ranks import ALONE, Ranks
from playground.errors import PlaygroundError

DISK_FULL = ("No space left on device", "unexpected pos")  # the second is what torch.save says of a full disk
STEP_COST = 500  # a step takes as long as so many tokens, however few it has


@dataclass(frozen=True)
class Outcome:
    step: int
    steps: int
    loss: float | None
    eval_loss: float | None
    seconds: float
    stopped: bool
    best_step: int | None = None
    early: bool = False  # ended because the held-out loss no longer got better
    restored: bool = False  # the weights are those of best_step

    def sentence(self, patience: int, seconds: float) -> str:
        """How a run that was not stopped has ended, and whose weights it has."""
        text = f"{self.step:,} steps in {seconds:.0f} s"
        if self.early:
            text = (
                f"stopped early after {text} of {self.steps:,}, because the held-out loss had not got better in "
                f"{patience} evaluations"
            )
        if not self.restored:
            return text
        best = f"step {self.best_step:,}, with a held-out loss of {self.eval_loss:.4f}"
        return f"{text}; the weights are those of {best}" + ("" if self.early else ", the best on the way")


def fit(
    model,
    examples: Examples,
    config: TrainConfig,
    pad_id: int,
    emit: Callable[..., None],
    should_stop: Callable[[], bool] = lambda: False,
    probe: Callable[[], list[dict]] | None = None,
    checkpoints: Path | None = None,
    batches: list[Batch] | None = None,
    unit: Callable = fixed,
    ranks: Ranks = ALONE,
) -> Outcome:
    """Train what is trainable in `model` (a PeftModel, or a plain model) and leave it there.

    `probe()` is called at each evaluation, with the model in evaluation mode; each of what it returns is a "sample".
    With `checkpoints`, the newest checkpoint in that folder is continued and a new one is written at each evaluation
    and at a stop. With held-out rows, `config.patience` evaluations without a better loss end the training, and the
    best weights are put back at the end; not after a stop, where the newest stay. `batches` gives the steps' batches
    where their order is not to be drawn. `unit(work)` is entered around each step, to choose its threads.
    `ranks`: the processes that share the run; each is called with the same arguments, and only the first one's events
    say anything. A stop asked of any of them stops all.
    Raises PlaygroundError when the loss is no number.
    """
    base = base_of(model)
    device = next(base.parameters()).device
    room = config.piece_tokens or TOKENS_AT_ONCE.get(device.type, TOKENS_AT_ONCE["cpu"])
    steps = total_steps(config, len(examples.train))
    master = Master([p for p in model.parameters() if p.requires_grad], config, ranks)
    schedule = torch.optim.lr_scheduler.LambdaLR(master.optimizer, rate(config, steps))
    held_out = held_batches(examples, config, room)
    kept = KeptPrefix(config.prefix_every) if config.prefix_every else None

    done, losses, eval_loss = 0, [], None
    best = Best(config, steps, checkpoints, ranks)
    saved = newest_checkpoint(checkpoints) if checkpoints else None
    if saved:
        done, eval_loss = _restore(saved, master, schedule, best, device)
    started, first = time.monotonic(), done

    def stop_asked() -> bool:
        return bool(ranks.total(float(bool(should_stop()))))

    def evaluate() -> float | None:
        model.eval()
        loss = evaluation_loss(base, held_out, pad_id, soft_prompt(model), ranks) if held_out else None
        if loss is not None:
            emit("eval", step=done, eval_loss=loss)
            if done:
                best.note(done, loss, master.weights)
        if probe and ranks.needs():
            for sample in probe():
                emit("sample", step=done, **sample)
        model.train()
        return loss

    def keep() -> None:
        if checkpoints:
            _save(checkpoints, done, eval_loss, master, schedule, best)
            ranks.wait()
            emit("checkpoint", step=done)
        if kept:
            kept.forget()

    order, usual = _batches_from(done, examples.train, config, batches), 0
    with fused(model, base) if device.type == "cpu" and not ranks.sharded else contextlib.nullcontext():
        model.train()
        if not saved and not stop_asked():
            eval_loss = evaluate()
        while done < steps and not best.over and not stop_asked():
            begun = time.monotonic()
            now = next(order)
            learning_rate = schedule.get_last_lr()[0]
            with unit(STEP_COST + now.laid, "step"):
                work = work_of(now, room, ranks)
                mine = step_gradients(
                    base, work, pad_id, now.trained, soft_prompt(model), room, kept, config.skip_above
                )
                loss = ranks.total(mine)
                norm = master.step()
            schedule.step()
            done += 1
            _check_number(loss, norm, done, config)
            losses.append(loss)
            held = memory(device)
            usual = usual or held
            if device.type == "cpu" and held > usual + GROWTH:
                give_back()
            seconds = time.monotonic() - begun
            emit(
                "step",
                step=done,
                steps=steps,
                loss=loss,
                lr=learning_rate,
                grad_norm=norm,
                seconds=seconds,
                tokens_per_second=now.tokens / seconds,
                rows_per_second=len(now.rows) / seconds,
                memory=held,
                # evaluations and probes are part of the time that is left, so the mean is over everything so far
                eta=(time.monotonic() - started) / (done - first) * (steps - done),
            )
            if done % config.eval_every == 0 or done == steps:
                eval_loss = evaluate()
                keep()
        stopped = done < steps and not best.over
        if stopped and done > first:
            keep()
    restored = False
    if not stopped and best.step not in (None, done) and (weights := best.kept()):
        master.put(weights)
        eval_loss, restored = best.loss, True
    if best.over and done < steps:
        emit("early_stop", step=done, best_step=best.step, best_loss=best.loss, waited=best.waited)
    last = losses[-1] if losses else None
    seconds = time.monotonic() - started
    return Outcome(done, steps, last, eval_loss, seconds, stopped, best.step, best.over and done < steps, restored)


def _batches_from(step: int, rows: list[Example], config: TrainConfig, given: list[Batch] | None) -> Iterator[Batch]:
    """The batches of the steps after `step`, epoch after epoch; those `given`, over and over, where there are any."""
    per_epoch = len(given) if given else math.ceil(len(rows) / config.batch_size)
    for epoch in itertools.count(step // per_epoch):
        order = given or batches_of_epoch(rows, config, epoch)
        yield from order[step % per_epoch :]
        step = 0


def _check_number(loss: float, norm: float, step: int, config: TrainConfig) -> None:
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise PlaygroundError(
            f"the loss is no longer a number at step {step} (loss {loss}, gradient norm {norm}); "
            f"try a learning rate below {config.learning_rate:g} or more warm-up than {config.warmup_steps} steps"
        )


def work_of(step: Batch, room: int, ranks: Ranks = ALONE) -> list[tuple[Batch, bool]]:
    """The pieces of a step that this process computes, each with whether it counts.

    With shares of layers, all processes have to run the model equally often: who has too little to do runs a row that
    does not count. And no prefix is run apart there: the backward pass would come back to a layer that is put away.
    """
    if not ranks.sharded:
        return [(part, True) for part in shares(step, ranks.count, room)[ranks.rank]]
    dealt = shares(unshared(step), ranks.count, room)
    mine, filler = dealt[ranks.rank], Batch((), unshared(step).rows[:1])
    return [(part, True) for part in mine] + [(filler, False)] * (max(map(len, dealt)) - len(mine))


@torch.no_grad()
def evaluation_loss(
    base, batches: list[Batch], pad_id: int, soft: torch.Tensor | None = None, ranks: Ranks = ALONE
) -> float:
    """Mean loss over the labelled tokens of the batches."""
    total = 0.0
    for start in range(0, len(batches), ranks.count):
        mine = batches[start + ranks.rank : start + ranks.rank + 1]
        if mine:
            total += step_loss(base, mine[0], pad_id, soft).item()
        elif ranks.sharded:
            step_loss(base, batches[0], pad_id, soft)
    return ranks.total(total) / sum(b.trained for b in batches)


def newest_checkpoint(folder: Path) -> Path | None:
    found = sorted(folder.glob("step-*.pt")) if folder.is_dir() else []
    return found[-1] if found else None


def _save(folder: Path, step: int, eval_loss, master: Master, schedule, best: Best) -> None:
    """Write whole, then rename, then drop the older ones: a kill at any moment leaves a checkpoint that loads."""
    weights = master.state()
    if not master.ranks.first:
        return
    rng = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        rng["cuda"] = torch.cuda.get_rng_state()
    state = {"step": step, "eval_loss": eval_loss, "schedule": schedule.state_dict(), "rng": rng, **weights}
    state["best"] = best.state()
    state["schedule"].pop("lr_lambdas", None)
    path = folder / f"step-{step:08d}.pt"
    write_whole(state, path)
    for old in folder.glob("step-*.pt"):
        if old != path:
            old.unlink()
    best.forget_older()


def _restore(path: Path, master: Master, schedule, best: Best, device) -> tuple[int, float | None]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        master.restore(state)
    except (RuntimeError, KeyError, ValueError) as error:
        raise PlaygroundError(
            f"the checkpoint {path.name} does not fit this run ({error}); delete the run and start it again"
        ) from None
    schedule.load_state_dict({**state["schedule"], "lr_lambdas": [None]})
    torch.set_rng_state(state["rng"]["cpu"])
    if "best" in state:
        best.restore(state["best"])
    if "cuda" in state["rng"] and device.type == "cuda":
        torch.cuda.set_rng_state(state["rng"]["cuda"])
    return state["step"], state["eval_loss"]


def failure(error: BaseException, config: TrainConfig) -> tuple[str, str] | None:
    """(reason, sentence) for the ways a run fails that are not faults of ours; None for any other exception."""
    text = str(error)
    if isinstance(error, PlaygroundError):
        return ("nan" if "no longer a number" in text else "refused"), text
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text:
        return "memory", (
            f"out of memory: try piece_tokens {config.piece_tokens // 2 or 512} (the same result in smaller pieces), a "
            f"batch size below {config.batch_size}, a max_length below {config.max_length:,}, or a smaller model"
        )
    if isinstance(error, torch.distributed.DistError) or "gloo" in text:
        return "process", (
            "another of the run's processes has ended, and log.txt has its last words; its last checkpoint is kept: "
            "resume the run"
        )
    if (isinstance(error, OSError) and error.errno == errno.ENOSPC) or any(mark in text for mark in DISK_FULL):
        return "disk", "the disk is full: free some space, then resume the run; its last checkpoint is kept"
    return None
