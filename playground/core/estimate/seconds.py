"""Time: floating-point operations over a rate for steps and held-out rows, and the reading speed for answers."""

import math

from playground.config import TrainConfig
from playground.core.estimate.memory import bytes_of
from playground.core.estimate.shape import Shape, learning_layers
from playground.core.estimate.work import Device, Work

CPU_LAYER = 0.008  # seconds of a layer in one pass, forward and back, however few its tokens are: its many small parts
CPU_READS = 5.5e9  # bytes of weights a second while decoding: 20 tokens/s for SmolLM2 135M in bf16 on two cores
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
    total += work.passes * work.steps * shape.layers * CPU_LAYER if device.kind == "cpu" else 0
    asked = sum(bool(line.strip()) for line in config.probe.splitlines()) * config.probe_tokens * evaluations
    token = GPU_TOKEN if device.kind == "cuda" else shape.numbers * bytes_of(config, device) / CPU_READS
    return total + asked * token
