"""The loop: optimizer steps over the batches, evaluations, probe answers and checkpoints, told through events.

Nothing is printed here. `emit(kind, **values)` gets "step", "eval", "sample" and "checkpoint"; whoever calls
`fit` writes them to a file, to a terminal, or to a list in a test.
"""

import contextlib
import ctypes
import errno
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from playground.config import TrainConfig
from playground.core.training.collate import Batch, Examples, batch, batches_of_epoch, parts, total_steps
from playground.core.training.loss import step_loss
from playground.errors import PlaygroundError

# Padded tokens in one forward and backward pass; a step of more is done in pieces. About 1.7 MB each for a model of
# 135M, so this sets the peak memory; on two cores, pieces of 768 tokens took about a quarter longer.
TOKENS_AT_ONCE = {"cuda": 16_384, "cpu": 2_048}
# A process that holds this many bytes more than after its first step gives memory back. That is not free: what was
# given back has to be asked for again, page by page; done after every step it cost a quarter of the time.
GROWTH = 3 * 2**30
ATTENTION_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "query_key_value", "qkv_proj", "c_attn", "dense")


@dataclass(frozen=True)
class Outcome:
    step: int
    steps: int
    loss: float | None
    eval_loss: float | None
    seconds: float
    stopped: bool


def add_adapter(model, config: TrainConfig):
    """The model with a fresh LoRA adapter in the weights' own precision; only the adapter is trained."""
    from peft import LoraConfig, get_peft_model

    targets = config.targets
    if targets == "attention":
        names = {name.rsplit(".", 1)[-1] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
        targets = sorted(names & set(ATTENTION_LAYERS))
        if not targets:
            raise PlaygroundError("this model has no attention layers that we know by name; use targets all-linear")
    torch.manual_seed(config.seed)
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, lora, autocast_adapter_dtype=False)


class Master:
    """AdamW on fp32 copies of bf16 parameters: small late updates would otherwise round away.

    An adapter is a few million numbers, so the copies cost nothing beside the base. fp32 parameters are used
    as they are.
    """

    def __init__(self, parameters: list, config: TrainConfig):
        self.parameters = parameters
        self.copied = any(p.dtype != torch.float32 for p in parameters)
        self.masters = [p.detach().float().requires_grad_() for p in parameters] if self.copied else parameters
        self.optimizer = torch.optim.AdamW(
            self.masters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.clip = config.clip

    def step(self) -> float:
        """Clip, update, write back, forget the gradients; returns the gradient norm before clipping."""
        if self.copied:
            for master, parameter in zip(self.masters, self.parameters, strict=True):
                master.grad = None if parameter.grad is None else parameter.grad.float()
        norm = torch.nn.utils.clip_grad_norm_(self.masters, self.clip).item()
        self.optimizer.step()
        if self.copied:
            with torch.no_grad():
                torch._foreach_copy_(self.parameters, self.masters)
        for parameter in [*self.parameters, *self.masters]:
            parameter.grad = None
        return norm

    def state(self) -> dict:
        return {"masters": [m.detach().clone() for m in self.masters], "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict) -> None:
        with torch.no_grad():
            torch._foreach_copy_(self.masters, [m.to(self.masters[0].device) for m in state["masters"]])
            if self.copied:
                torch._foreach_copy_(self.parameters, self.masters)
        self.optimizer.load_state_dict(state["optimizer"])


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
    probe: Callable[[], dict] | None = None,
    checkpoints: Path | None = None,
    batches: list[Batch] | None = None,
    adapt: Callable[[], object] = lambda: None,
) -> Outcome:
    """Train the adapter in `model` (a PeftModel) and leave it there.

    `probe()` is called at each evaluation, with the model in evaluation mode; what it returns goes into a "sample".
    With `checkpoints`, the newest checkpoint in that folder is continued and a new one is written at each evaluation
    and at a stop. `batches` gives the steps' batches where their order is not to be drawn. `adapt()` is called before
    each step, to choose its threads.
    Raises PlaygroundError when the loss is no number.
    """
    base = model.get_base_model()
    device = next(base.parameters()).device
    room = TOKENS_AT_ONCE.get(device.type, TOKENS_AT_ONCE["cpu"])
    steps = total_steps(config, len(examples.train))
    master = Master([p for p in model.parameters() if p.requires_grad], config)
    schedule = torch.optim.lr_scheduler.LambdaLR(master.optimizer, rate(config, steps))
    # Evaluations hold no gradients, so they can take more rows at once; sorted, so that padding stays small.
    held = sorted(examples.held_out, key=lambda row: len(row.ids))
    held_batches = [batch(held[i : i + config.batch_size]) for i in range(0, len(held), config.batch_size)]

    done, losses, eval_loss = 0, [], None
    saved = newest_checkpoint(checkpoints) if checkpoints else None
    if saved:
        done, eval_loss = _restore(saved, master, schedule, device)
    started, first = time.monotonic(), done

    def evaluate() -> float | None:
        model.eval()
        loss = evaluation_loss(base, held_batches, pad_id) if held_batches else None
        if loss is not None:
            emit("eval", step=done, eval_loss=loss)
        if probe:
            emit("sample", step=done, **probe())
        model.train()
        return loss

    def keep() -> None:
        if checkpoints:
            _save(checkpoints, done, eval_loss, master, schedule)
            emit("checkpoint", step=done)

    model.train()
    if not saved and not should_stop():
        eval_loss = evaluate()
    per_epoch = len(batches) if batches else math.ceil(len(examples.train) / config.batch_size)
    order, epoch, usual = [], -1, 0
    while done < steps and not should_stop():
        begun = time.monotonic()
        adapt()
        if done // per_epoch != epoch:
            epoch = done // per_epoch
            order = batches or batches_of_epoch(examples.train, config, epoch)
        now: Batch = order[done % per_epoch]
        learning_rate = schedule.get_last_lr()[0]
        loss = 0.0
        for part in parts(now, room):
            share = step_loss(base, part, pad_id) / now.trained
            share.backward()
            loss += share.item()
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
    stopped = done < steps
    if stopped and done > first:
        keep()
    return Outcome(done, steps, losses[-1] if losses else None, eval_loss, time.monotonic() - started, stopped)


@torch.no_grad()
def evaluation_loss(base, batches: list[Batch], pad_id: int) -> float:
    """Mean loss over the labelled tokens of the batches."""
    return sum(step_loss(base, b, pad_id).item() for b in batches) / sum(b.trained for b in batches)


def memory(device) -> int:
    """Bytes: the most that CUDA has held, or what the process holds now."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated()
    return psutil.Process().memory_info().rss


def _give_back_memory() -> None:
    """Return what malloc holds in pieces: steps of many shapes otherwise make the process grow from 2 to 4 GiB."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def newest_checkpoint(folder: Path) -> Path | None:
    found = sorted(folder.glob("step-*.pt")) if folder.is_dir() else []
    return found[-1] if found else None


def _save(folder: Path, step: int, eval_loss, master: Master, schedule) -> None:
    """Write whole, then rename, then drop the older ones: a kill at any moment leaves a checkpoint that loads."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        rng["cuda"] = torch.cuda.get_rng_state()
    state = {"step": step, "eval_loss": eval_loss, "schedule": schedule.state_dict(), "rng": rng, **master.state()}
    state["schedule"].pop("lr_lambdas", None)
    path = folder / f"step-{step:08d}.pt"
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)
    for old in folder.glob("step-*.pt"):
        if old != path:
            old.unlink()


def _restore(path: Path, master: Master, schedule, device) -> tuple[int, float | None]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        master.restore(state)
    except (RuntimeError, KeyError, ValueError) as error:
        raise PlaygroundError(
            f"the checkpoint {path.name} does not fit this run ({error}); delete the run and start it again"
        ) from None
    schedule.load_state_dict({**state["schedule"], "lr_lambdas": [None]})
    torch.set_rng_state(state["rng"]["cpu"])
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
            f"out of memory: try a batch size below {config.batch_size}, a max_length below {config.max_length:,}, "
            "or a smaller model"
        )
    if (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "No space left on device" in text:
        return "disk", "the disk is full: free some space, then resume the run; its last checkpoint is kept"
    return None
