"""The loop: optimizer steps over the batches, evaluations, probe answers and checkpoints, told through events.

Nothing is printed here. `emit(kind, **values)` gets "step", "eval", "sample" and "checkpoint"; whoever calls
`fit` writes them to a file, to a terminal, or to a list in a test.
"""

import contextlib
import ctypes
import errno
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from playground.config import TrainConfig
from playground.core.cores import fixed
from playground.core.training.best import Best, write_whole
from playground.core.training.collate import (
    TOKENS_AT_ONCE,
    Batch,
    Examples,
    batches_of_epoch,
    held_batches,
    shares,
    total_steps,
    unshared,
)
from playground.core.training.fused import fused
from playground.core.training.loss import soft_prompt, step_gradients, step_loss
from playground.core.training.methods import add_adapter, base_of
from playground.core.training.ranks import ALONE, Ranks, is_share, local, share, whole
from playground.errors import PlaygroundError

__all__ = ["Master", "Outcome", "add_adapter", "evaluation_loss", "failure", "fit", "memory", "peak_memory", "rate"]
# A process that holds this many bytes more than after its first step gives memory back. That is not free: what was
# given back has to be asked for again, page by page; done after every step it cost a quarter of the time.
GROWTH = 3 * 2**30
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


class Master:
    """AdamW on fp32 copies of bf16 parameters: small late updates would otherwise round away.

    An adapter is a few million numbers, so the copies cost nothing beside the base. fp32 parameters are used
    as they are.
    """

    def __init__(self, parameters: list, config: TrainConfig, ranks: Ranks = ALONE):
        self.parameters, self.ranks = parameters, ranks
        self.copied = ranks.sharded or any(p.dtype != torch.float32 for p in parameters)
        self.masters = (
            [local(p.detach()).float().clone().requires_grad_() for p in parameters] if self.copied else parameters
        )
        with torch.no_grad():
            ranks.alike([m for m, p in zip(self.masters, parameters, strict=True) if not is_share(p)])
        if self.copied and ranks.count > 1:
            self._write_back()
        self.optimizer = torch.optim.AdamW(
            self.masters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.clip = config.clip

    def step(self) -> float:
        """Add up, clip, update, write back, forget the gradients; returns the gradient norm before clipping."""
        if self.copied:
            for master, parameter in zip(self.masters, self.parameters, strict=True):
                master.grad = None if parameter.grad is None else local(parameter.grad).float()
        norm = self._clipped()
        self.optimizer.step()
        if self.copied:
            self._write_back()
        for parameter in [*self.parameters, *self.masters]:
            parameter.grad = None
        return norm

    def _clipped(self) -> float:
        if self.ranks.count == 1:
            return torch.nn.utils.clip_grad_norm_(self.masters, self.clip).item()
        own, common = [], []  # gradients of a share are added up already, as a mean
        for master, parameter in zip(self.masters, self.parameters, strict=True):
            master.grad = torch.zeros_like(master) if master.grad is None else master.grad  # it may have had no rows
            (own if is_share(parameter) else common).append(master.grad)
        self.ranks.add_up(common)
        for gradient in own:
            gradient.mul_(self.ranks.count)
        squares = self.ranks.total(sum(g.square().sum().item() for g in own)) if self.ranks.sharded else 0.0
        norm = math.sqrt(squares + sum(g.square().sum().item() for g in common))
        if (scale := self.clip / (norm + 1e-6)) < 1:  # as in clip_grad_norm_
            torch._foreach_mul_([*own, *common], scale)
        return norm

    def _write_back(self) -> None:
        with torch.no_grad():
            torch._foreach_copy_([local(p.detach()) for p in self.parameters], self.masters)

    def weights(self) -> list[torch.Tensor]:
        """The trained weights, whole. With shares, all processes must ask."""
        return [whole(m.detach(), p) for m, p in zip(self.masters, self.parameters, strict=True)]

    def state(self) -> dict:
        optimizer = self.optimizer.state_dict()
        if self.ranks.sharded:
            optimizer["state"] = self._moments(optimizer["state"], whole)
        return {"masters": [w.clone() for w in self.weights()], "optimizer": optimizer}

    def _moments(self, states: dict, change: Callable) -> dict:
        """AdamW's state with `change(tensor, parameter)` done to the tensors that are like the parameter."""
        return {
            i: {k: change(v, self.parameters[i]) if v.dim() else v for k, v in state.items()}
            for i, state in states.items()
        }

    def put(self, weights: list) -> None:
        """Set the trained weights, given whole."""
        with torch.no_grad():
            to = self.masters[0].device
            torch._foreach_copy_(
                self.masters, [share(w.to(to), p) for w, p in zip(weights, self.parameters, strict=True)]
            )
        if self.copied:
            self._write_back()

    def restore(self, state: dict) -> None:
        self.put(state["masters"])
        optimizer = state["optimizer"]
        if self.ranks.sharded:
            optimizer = {**optimizer, "state": self._moments(optimizer["state"], share)}
        self.optimizer.load_state_dict(optimizer)


def rate(config: TrainConfig, steps: int) -> Callable[[int], float]:
    """Share of the peak rate at each step: linear warm-up, then linear decay to `final_lr_share` at the last step."""

    def share(step: int) -> float:
        if step < config.warmup_steps:
            return (step + 1) / (config.warmup_steps + 1)
        done = (step - config.warmup_steps) / max(1, steps - 1 - config.warmup_steps)
        return 1 - (1 - config.final_lr_share) * min(1.0, done)

    return share


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
    leaner = next(base.parameters()).device.type == "cpu" and not ranks.sharded
    with fused(model, base) if leaner else contextlib.nullcontext():
        return _fit(model, base, examples, config, pad_id, emit, should_stop, probe, checkpoints, batches, unit, ranks)


def _fit(model, base, examples, config, pad_id, emit, should_stop, probe, checkpoints, batches, unit, ranks) -> Outcome:
    device = next(base.parameters()).device
    room = config.piece_tokens or TOKENS_AT_ONCE.get(device.type, TOKENS_AT_ONCE["cpu"])
    steps = total_steps(config, len(examples.train))
    master = Master([p for p in model.parameters() if p.requires_grad], config, ranks)
    schedule = torch.optim.lr_scheduler.LambdaLR(master.optimizer, rate(config, steps))
    held_out = held_batches(examples, config)

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

    model.train()
    if not saved and not stop_asked():
        eval_loss = evaluate()
    per_epoch = len(batches) if batches else math.ceil(len(examples.train) / config.batch_size)
    order, epoch, usual = [], -1, 0
    while done < steps and not best.over and not stop_asked():
        begun = time.monotonic()
        if done // per_epoch != epoch:
            epoch = done // per_epoch
            order = batches or batches_of_epoch(examples.train, config, epoch)
        now: Batch = order[done % per_epoch]
        learning_rate = schedule.get_last_lr()[0]
        with unit(STEP_COST + now.laid, "step"):
            work = work_of(now, room, ranks)
            loss = ranks.total(step_gradients(base, work, pad_id, now.trained, soft_prompt(model), room))
            norm = master.step()
        schedule.step()
        done += 1
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise PlaygroundError(
                f"the loss is no longer a number at step {done} (loss {loss}, gradient norm {norm}); "
                f"try a learning rate below {config.learning_rate:g} or more warm-up than {config.warmup_steps} steps"
            )
        losses.append(loss)
        held = memory(device)
        usual = usual or held
        if device.type == "cpu" and held > usual + GROWTH:
            _give_back_memory()
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


def memory(device) -> int:
    """Bytes: the most that CUDA has held, or what the process holds now."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated()
    return psutil.Process().memory_info().rss


def peak_memory(device) -> int:
    """Bytes: the most that CUDA has held, or the most that this process has held, since its start."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated()
    info = psutil.Process().memory_info()
    if hasattr(info, "peak_wset"):  # Windows
        return info.peak_wset
    # Linux hands getrusage's maximum on to a child, so that a trainer would start with the peak of the app
    with contextlib.suppress(OSError, ValueError, StopIteration), open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("VmHWM:")).split()[1]) * 1024
    import resource

    # kilobytes, but bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _give_back_memory() -> None:
    """Return what malloc holds in pieces: steps of many shapes otherwise make the process grow from 2 to 4 GiB."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


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
