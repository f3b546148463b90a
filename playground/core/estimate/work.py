"""Where a run would be, and what there is to do: the passes over its rows, as the loop cuts them."""

import math
from dataclasses import dataclass

import psutil

from playground.config import TrainConfig
from playground.core.training.collate import (
    TOKENS_AT_ONCE,
    Batch,
    Example,
    Examples,
    batches_of_epoch,
    held_batches,
    passes,
    shares,
    total_steps,
    unshared,
)
from playground.errors import PlaygroundError

# Floating-point operations a second that training reaches: per CPU core (bf16, measured on two cores), per GPU name.
CPU_RATE = 1.25e11
GPU_SHARE = 0.35  # of the card's dense bf16 matrix rate
GPU_RATES = {
    **{"H200": 990e12, "H100": 990e12, "A100": 312e12, "L40S": 362e12, "L40": 181e12, "L4": 121e12, "A10": 125e12},
    **{"4090": 165e12, "3090": 71e12, "V100": 112e12, "T4": 65e12},
}


@dataclass(frozen=True)
class Device:
    """Where a run would be: `free` bytes of memory, and operations a second (0: not known)."""

    kind: str
    free: int
    rate: float = 0.0
    name: str = ""


@dataclass(frozen=True)
class Work:
    """What there is to do: tokens in the largest pass of a step, its longest row, steps and tokens of each.

    `held` are the tokens of the held-out rows, which each evaluation runs. `pairs` are a pass's queries times
    the keys of each (0: as if every row were the longest), and `repeated` the tokens of its shared prefix, once for
    each row: their keys and values are copied. `passes` are those of a step, that of the prefix included;
    `step_labelled` and `step_pairs` the labelled positions and pairs of all of them (0: not known).
    """

    tokens: int
    longest: int
    labelled: int
    steps: int = 0
    step_tokens: float = 0.0
    held: float = 0.0
    pairs: int = 0
    repeated: int = 0
    passes: float = 1.0
    step_labelled: float = 0.0
    step_pairs: float = 0.0


def cpu() -> Device:
    """This computer without a GPU."""
    return Device("cpu", psutil.virtual_memory().available, CPU_RATE * (psutil.cpu_count(logical=False) or 1), "CPU")


def gpu(name: str, free: int) -> Device:
    rate = next((rate for known, rate in GPU_RATES.items() if known in name), 0.0)
    return Device("cuda", free, rate * GPU_SHARE, name)


def room(config: TrainConfig, device: Device) -> int:
    """Most padded tokens in one pass, as the loop has it."""
    return config.piece_tokens or TOKENS_AT_ONCE.get(device.kind, TOKENS_AT_ONCE["cpu"])


def work_of(examples: Examples, config: TrainConfig, device: Device) -> Work:
    """The work that these rows are: the first pass over them, in the pieces the loop makes.

    Rows longer than max_length are cut. PlaygroundError where nothing that is trained would be left.
    """
    rows = [row for row in (_cut(row, config.max_length) for row in examples.train) if row.trained]
    if not rows:
        raise PlaygroundError(f"no row has anything to train within max_length {config.max_length:,}; raise it")
    most = room(config, device)
    batches = batches_of_epoch(rows, config, 0)
    dealt = [shares(unshared(one) if config.shard else one, config.processes, most) for one in batches]
    mine = [pieces for one in dealt for pieces in one if pieces]
    laid = device.kind == "cpu" and not config.shard  # end to end, as the loop has them there
    runs = [passes(pieces, most) if laid else [[piece] for piece in pieces] for pieces in mine]
    every = config.prefix_every
    sizes = [_sizes(pieces, config.soft_tokens, laid, apart=bool(every)) for one in runs for pieces in one]
    tokens, pairs, repeated, longest = (max(column) for column in zip(*sizes, strict=True))
    labelled = max(sum(piece.trained for piece in pieces) for one in runs for pieces in one)
    begun = [len(pieces[0].prefix) + config.soft_tokens for pieces in mine]  # is run once for all passes of a step
    # of each step's prefix, how often it is run more than in the passes over its rows
    more_often = [1 / every if every else 1 - len(one) for one in runs]
    run = sum(size[0] for size in sizes) + sum(n * often for n, often in zip(begun, more_often, strict=True))
    seen = sum(size[1] for size in sizes) + sum(n**2 * often for n, often in zip(begun, more_often, strict=True))
    # where one pass has all rows of a step, it begins with the prefix
    joined = laid and not config.soft_tokens
    own = [1 / every if every else not (joined and len(one) == 1) for one in runs]  # passes of a step's prefix alone
    count = len(sizes) + sum(times for n, times in zip(begun, own, strict=True) if n)
    held = sum(asked.laid if laid else asked.padded for asked in held_batches(examples, config, most))
    steps, each = total_steps(config, len(examples.train)), len(batches)
    more = {"step_labelled": sum(row.trained for row in rows) / each, "step_pairs": seen / each}
    return Work(tokens, longest, labelled, steps, run / each, float(held), pairs, repeated, count / each, **more)


def _cut(row: Example, length: int) -> Example:
    return row if len(row.ids) <= length else Example(row.ids[:length], row.labels[:length])


def _sizes(pieces: list[Batch], soft: int, laid: bool, apart: bool) -> tuple[int, int, int, int]:
    """Of one pass: tokens, pairs of a query and a key, tokens of the copied prefix, and the longest row.

    Rows of a piece attend as if all were as long as its longest one, also where nothing else is padded. `apart`: the
    prefix is there already, and no part of the pass.
    """
    begun = len(pieces[0].prefix) + soft
    shapes = [(len(piece.rows), max(len(row.ids) for row in piece.rows)) for piece in pieces]
    own = sum(piece.laid - len(piece.prefix) for piece in pieces) if laid else sum(n * row for n, row in shapes)
    run = 0 if apart else begun
    pairs = run**2 + sum(n * row * (begun + row) for n, row in shapes)
    return run + own, pairs, sum(n for n, _ in shapes) * begun, begun + max(row for _, row in shapes)


def assumed_work(config: TrainConfig, device: Device) -> Work:
    """The most that the settings allow: every row as long as max_length, and every token trained."""
    longest = config.max_length
    step = longest * config.batch_size
    mine = longest * math.ceil(config.batch_size / config.processes)
    tokens = max(longest, min(mine, room(config, device) // longest * longest))
    return Work(tokens, longest, tokens, config.steps, step)


def scaled(work: Work, before: TrainConfig, after: TrainConfig, device: Device) -> Work:
    """The same work under other settings, as far as it can be told without the rows."""
    longest = min(work.longest, after.max_length)
    step = work.step_tokens * after.batch_size / before.batch_size * longest / work.longest
    whole = max(work.tokens, min(work.step_tokens, room(before, device)))
    whole *= after.batch_size / before.batch_size * longest / work.longest
    tokens = max(longest, min(int(whole), room(after, device)))
    labelled = max(1, work.labelled * tokens // work.tokens)
    pairs = work.pairs * tokens * longest // (work.tokens * work.longest)
    return Work(tokens, longest, labelled, work.steps, step, work.held, pairs, work.repeated, work.passes)
