"""Time: floating-point operations over a rate for steps and held-out rows, and the reading speed for answers."""

import math

from playground.config import TrainConfig
from playground.core.estimate.memory import bytes_of
from playground.core.estimate.shape import Shape, learning_layers
from playground.core.estimate.work import Device, Work

CPU_LAYER = 0.008  # seconds of a layer in one pass, forward and back, however few its tokens are: its many small parts
CPU_READS = 5.5e9  # bytes of weights a second while decoding: 20 tokens/s for SmolLM2 135M in bf16 on two cores
CPU_PAIR = 2.7  # what an operation of the attention takes, in one of a matrix product: it is softmax and small products
GPU_TOKEN = 0.025  # seconds for a token of a probe's answer: launching the kernels, for any model that fits


def seconds(shape: Shape, config: TrainConfig, device: Device, work: Work) -> float | None:
    """2 operations a parameter forward, 2 for the inputs' gradients, 2 more for the weights' where they are trained."""
    if not (work.steps and device.rate):
        return None
    forward = 2 * shape.numbers * (1.5 if config.method == "dora" else 1.0) / device.rate
    evaluations = 1 + math.ceil(work.steps / config.eval_every)
    back = learning_layers(shape, config) / shape.layers
    tokens = (3 if config.method == "full" else 1 + back) * work.step_tokens * work.steps + work.held * evaluations
    # several processes on a CPU have the same cores
    total = forward * tokens / (config.processes if device.kind == "cuda" else 1)
    total += _apart(shape, work, back) * work.steps / device.rate if device.kind == "cpu" and work.step_labelled else 0
    total += work.passes * work.steps * shape.layers * CPU_LAYER if device.kind == "cpu" else 0
    asked = sum(bool(line.strip()) for line in config.probe.splitlines()) * config.probe_tokens * evaluations
    token = GPU_TOKEN if device.kind == "cuda" else shape.numbers * bytes_of(config, device) / CPU_READS
    return total + asked * token


def _apart(shape: Shape, work: Work, back: float) -> float:
    """Operations of a step on a CPU beside those of every parameter for every token, forward and back.

    `back` is the share of the layers that a backward pass goes through.

    The head is computed at labelled positions alone, and embeddings are only looked up: a step whose rows share a long
    prefix has few tokens and many labels. Each query meets every key: such a step has many pairs. Of steps of either
    kind, taken by turns, those of eight tool rows (633 tokens) took as long as those of 16 instructions (949).
    """
    table = shape.vocab * shape.hidden
    counted = work.step_tokens * (1 if shape.tied else 2)  # tied, the table is the head and counted once
    head = 4 * table * work.step_labelled - 2 * (1 + back) * table * counted
    attention = CPU_PAIR * (1 + 2 * back) * 4 * shape.heads * shape.head * shape.layers * work.step_pairs
    return head + attention
