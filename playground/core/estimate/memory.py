"""Bytes, part by part, of one process. The package's text says what is counted."""

from playground.config import TrainConfig
from playground.core.estimate.shape import Shape, chosen, learning_layers
from playground.core.estimate.work import Device, Work
from playground.core.training.collate import logit_rows

GIB = 2**30
NF4_BYTES = 0.516
# Of the activations, what the backward pass and the allocator add: gradients of one layer at a time, and room between
# blocks of many sizes that malloc cannot use again.
SLACK = {"cpu": 1.35, "cuda": 1.15, "mps": 1.5}
# CPU: 0.45 GiB for Python, torch, transformers, peft, the tokenizer and the rows (measured before the weights are
# touched), the rest for the kernels that cli.KERNEL_CACHES bounds. CUDA: the context and the libraries' workspaces.
RUNTIME = {"cpu": 0.6 * GIB, "cuda": 0.6 * GIB, "mps": 1.0 * GIB}
# Layers whose input is that of another, so that it is kept once.
SAME_INPUT = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}


def size(number: float) -> str:
    return f"{number / GIB:.1f} GiB" if number >= GIB / 10 else f"{number / 2**20:.0f} MiB"


def parts(shape: Shape, config: TrainConfig, device: Device, work: Work, trained: int) -> dict[str, int]:
    """What one process holds, by the names that the package's text explains; `trained` numbers in all processes."""
    mine, wide = _mine(shape, config, trained), bytes_of(config, device)
    activations = int(_activations(shape, config, device, work) * SLACK.get(device.kind, 1.5))
    logits = _logits(shape, config, device, work)
    copies = mine * (4 if wide == 2 else 0)  # in fp32, of weights and of gradients
    return {
        "weights": _weights(shape, config, device),
        "adapter": 0 if config.method == "full" else mine * wide,
        "gradients": mine * wide + max(0, copies - activations - logits),
        "optimizer": mine * 8 + copies,
        "activations": activations,
        "logits": logits,
        "runtime": int(RUNTIME.get(device.kind, GIB)),
    }


def _mine(shape: Shape, config: TrainConfig, trained: int) -> int:
    """Trained numbers that one process holds."""
    if not config.shard:
        return trained
    whole = shape.numbers - shape.in_linears if config.method == "full" else 0  # embeddings are not shared out
    return whole + (trained - whole) // config.processes


def bytes_of(config: TrainConfig, device: Device) -> int:
    if config.dtype == "auto":
        return 4 if device.kind == "mps" else 2
    return 4 if config.dtype == "float32" else 2


def _weights(shape: Shape, config: TrainConfig, device: Device) -> int:
    wide = bytes_of(config, device)
    if config.shard:
        standing = min(shape.layers, 2) * shape.in_linears // shape.layers
        shared = shape.in_linears // config.processes
        return (shape.numbers - shape.in_linears + min(shared + standing, shape.in_linears)) * wide
    if not config.quantised:
        return shape.numbers * wide
    # a 4-bit layer is unpacked to be multiplied with, one at a time
    unpacked = max((one.inputs * one.outputs for one in shape.linears), default=0) * wide
    return int(shape.in_linears * NF4_BYTES + (shape.numbers - shape.in_linears) * wide + unpacked)


def _activations(shape: Shape, config: TrainConfig, device: Device, work: Work) -> float:
    """Bytes that autograd keeps for the largest piece."""
    wide, queries, keys = bytes_of(config, device), shape.heads * shape.head, shape.kv_heads * shape.head
    # training.fused keeps their inputs, and what the models' own keep is in fp32
    norms = 2 * shape.hidden * (wide if device.kind == "cpu" and config.method != "full" else 4)
    pairs = work.pairs or work.tokens * work.longest
    if device.kind != "cpu":  # the fused kernels keep keys and values of every head, and their output, but no scores
        attention, scores = 4 * queries * wide, 0
    elif shape.capped:  # eager: so does it, and the scores in fp32 and as they are multiplied
        attention, scores = 3 * queries * wide, 4 + wide
    else:  # training.fused: keys and values once for the heads that share them, and the probabilities
        attention, scores = (queries + 2 * keys) * wide, wide
    mlp = (3 if shape.gated else 2) * shape.intermediate * wide
    layers = learning_layers(shape, config)
    kept = work.tokens * layers * (norms + attention + mlp) + work.tokens * _inputs(shape, config) * wide
    kept += pairs * layers * shape.heads * scores + work.repeated * layers * 2 * keys * wide
    if config.method != "dora":
        return kept
    # DoRA keeps its outputs before and after scaling, and the weights whose norms it takes
    outputs = sum(one.count * one.outputs for one in shape.linears)
    return kept + work.tokens * 2 * outputs * wide + 1.3 * shape.in_linears * wide


def _inputs(shape: Shape, config: TrainConfig) -> int:
    """Numbers kept for each token for the gradients of what is trained: the inputs of its layers."""
    if config.method == "prompt":
        return 0
    layers = shape.linears if config.method == "full" else chosen(shape, config)
    kept = {SAME_INPUT.get(one.name, one.name): one.count * one.inputs for one in layers}
    if config.method == "full":
        return sum(kept.values()) + 2 * shape.layers * shape.hidden  # the norms' weights are trained too
    low = sum(one.count for one in layers) * config.rank
    if not config.dropout:
        return sum(kept.values()) + low
    return 2 * sum(one.count * one.inputs for one in layers) + low  # each layer draws its own: what it left, and where


def _logits(shape: Shape, config: TrainConfig, device: Device, work: Work) -> int:
    """Bytes of one chunk of logits and of what is worked out from them (`loss.LabelledLoss`)."""
    wide = bytes_of(config, device)
    rows = logit_rows(work.labelled, shape.vocab, wide, device.kind)
    chunk = rows * shape.vocab * (16 if shape.capped else 2 * wide)
    head = config.method == "full" or config.added_tokens
    return chunk + (shape.vocab * shape.hidden * (4 + wide) if head else 0)
