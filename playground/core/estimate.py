"""Does a run fit into a device's memory, and how long does it take? Arithmetic on a model's config.json; no torch.

What is counted, in bytes (b per number: 2 in bf16, 4 in fp32):

weights      parameters · b; in 4 bits 0.516 for a linear layer (NF4 with double quantisation, arXiv:2305.14314)
adapter      trained numbers · b
gradients    trained numbers · b; for bf16 their fp32 copies too, which the optimizer makes when the activations have
             gone: only what of them is larger than those counts
optimizer    AdamW's two fp32 moments, and for bf16 the fp32 copies of what is trained
activations  what a forward pass keeps for the backward pass, for the tokens of the largest pass of a step; padding is
             among them where rows are not laid end to end
logits       a chunk of labelled positions times the vocabulary, never a whole batch: in fp32, and once more for their
             logsumexp. Where the head is trained, its gradient too
runtime      the libraries themselves and the kernels they keep, or the CUDA context

It is what one process needs. Several on a CPU have its memory together; several GPUs have their own. With shard (FSDP),
the linear layers and what is trained in them are divided by the number of processes; one layer at a time, and the next
that is fetched meanwhile, is whole.

The activations of a layer agree with a count of autograd's saved tensors to a tenth (LoRA, full; eager, sdpa and the
fused layers of a CPU): 800 KB a padded token for SmolLM2 135M. SLACK is what the allocator and the backward pass add to
them. The time is rough: floating-point operations over a rate, for steps and held-out rows; the probe's answers are
written at the speed at which the weights are read.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import psutil

from playground.config import ATTENTION, EVERY_LINEAR, TrainConfig, check
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
from playground.core.training.layers import ATTENTION_LAYERS, Linear, linear_layers, parameters
from playground.errors import PlaygroundError

GIB = 2**30
NF4_BYTES = 0.516
LOGIT_ROWS = 512  # as in loss.CHUNK
# Of the activations, what the backward pass and the allocator add: gradients of one layer at a time, and room between
# blocks of many sizes that malloc cannot use again.
SLACK = {"cpu": 1.25, "cuda": 1.15, "mps": 1.5}
# CPU: 0.45 GiB for Python, torch, transformers, peft, the tokenizer and the rows (measured before the weights are
# touched), the rest for the kernels that cli.KERNEL_CACHES bounds. CUDA: the context and the libraries' workspaces.
RUNTIME = {"cpu": 0.6 * GIB, "cuda": 0.6 * GIB, "mps": 1.0 * GIB}
# Floating-point operations a second that training reaches: per CPU core (bf16, measured on two cores), per GPU name.
CPU_RATE = 1.25e11
CPU_LAYER = 0.008  # seconds of a layer in one pass, forward and back, however few its tokens are: its many small parts
CPU_READS = 5.5e9  # bytes of weights a second while decoding: 20 tokens/s for SmolLM2 135M in bf16 on two cores
GPU_TOKEN = 0.025  # seconds for a token of a probe's answer: launching the kernels, for any model that fits
GPU_SHARE = 0.35  # of the card's dense bf16 matrix rate
GPU_RATES = {
    **{"H200": 990e12, "H100": 990e12, "A100": 312e12, "L40S": 362e12, "L40": 181e12, "L4": 121e12, "A10": 125e12},
    **{"4090": 165e12, "3090": 71e12, "V100": 112e12, "T4": 65e12},
}
TIGHT = 0.85  # of the free memory; above it, a little more than counted is too much
# Layers whose input is that of another, so that it is kept once.
SAME_INPUT = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}
UNGATED = ("gpt2", "falcon", "gpt_neox", "phi", "opt", "bloom", "gptj")
VERDICTS = ("fits", "tight", "exceeds")
# Shapes to ask about without a download: the figures of the published config.json files.
KNOWN = {
    "llama-7b": {
        **{"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32},
        **{"intermediate_size": 11008, "vocab_size": 32000, "tie_word_embeddings": False},
    },
    "falcon-7b": {
        **{"model_type": "falcon", "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71},
        **{"multi_query": True, "vocab_size": 65024, "tie_word_embeddings": True},
    },
    "llama-3.2-1b": {
        **{"model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32},
        **{"num_key_value_heads": 8, "intermediate_size": 8192, "vocab_size": 128256, "tie_word_embeddings": True},
    },
    "smollm2-1.7b": {
        **{"model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32},
        **{"intermediate_size": 8192, "vocab_size": 49152, "tie_word_embeddings": True},
    },
    "smollm2-135m": {
        **{"model_type": "llama", "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9},
        **{"num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49152, "tie_word_embeddings": True},
    },
}


@dataclass(frozen=True)
class Shape:
    """A decoder's sizes. `linears` are the layers an adapter can go to; `numbers` are all its parameters.

    `capped`: with bounds on scores or logits (Gemma 2), where the attention on a CPU is transformers' own.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head: int
    intermediate: int
    vocab: int
    tied: bool
    gated: bool
    linears: tuple[Linear, ...]
    numbers: int
    capped: bool = False

    @property
    def in_linears(self) -> int:
        return sum(one.count * one.inputs * one.outputs for one in self.linears)


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
    each row: their keys and values are copied. `passes` are those of a step, that of the prefix included.
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


@dataclass(frozen=True)
class Change:
    """Settings that would make a run fit, why they cost little, and the estimate with them."""

    settings: dict
    words: str
    estimate: "Estimate"


@dataclass(frozen=True)
class Estimate:
    """`parts` in bytes; `seconds` of steps and evaluations, None where steps or speed are not known.

    All is for each of `processes`, `free` too.
    """

    verdict: str
    total: int
    free: int
    parts: dict[str, int]
    trainable: int
    seconds: float | None
    processes: int = 1
    changes: tuple[Change, ...] = field(default=())

    def sentence(self) -> str:
        text = {"fits": "fits", "tight": "fits, but it is tight", "exceeds": "does not fit"}[self.verdict]
        text += f": about {size(self.total)} of {size(self.free)} free"
        text += f" for each of {self.processes:,} processes" if self.processes > 1 else ""
        largest = sorted(self.parts.items(), key=lambda part: -part[1])[:3]
        return f"{text}, most of it {', '.join(f'{name} {size(number)}' for name, number in largest)}"

    def as_dict(self) -> dict:
        flat = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "changes"}
        changes = [
            {"settings": c.settings, "words": c.words, "verdict": c.estimate.verdict, "total": c.estimate.total}
            for c in self.changes
        ]
        return {**flat, "sentence": self.sentence(), "changes": changes}


def size(number: float) -> str:
    return f"{number / GIB:.1f} GiB" if number >= GIB / 10 else f"{number / 2**20:.0f} MiB"


# ---- the model ------------------------------------------------------------------------------------------------


def read_shape(folder: Path) -> Shape:
    """The shape of a model folder; its adapter layers come from the weights' headers where those are there."""
    try:
        values = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlaygroundError(f"the config.json in {folder} cannot be read: {error}") from None
    shape = shape_of(values)
    if not any(Path(folder).glob("model*.safetensors")):
        return shape
    return dataclasses.replace(shape, linears=tuple(linear_layers(folder)), numbers=parameters(folder))


def shape_of(values: dict) -> Shape:
    """The shape that the values of a config.json describe; PlaygroundError names the first that is missing."""
    values = values.get("text_config") or values
    kind = str(values.get("model_type", ""))
    layers = _value(values, "num_hidden_layers", "n_layer", "num_layers")
    hidden = _value(values, "hidden_size", "n_embd", "d_model")
    heads = _value(values, "num_attention_heads", "n_head")
    kv = 1 if values.get("multi_query") else None
    kv_heads = kv or _value(values, "num_key_value_heads", "num_kv_heads", default=heads)
    head = _value(values, "head_dim", default=hidden // heads)
    wide = _value(values, "intermediate_size", "ffn_hidden_size", "n_inner", default=4 * hidden)
    vocab = _value(values, "vocab_size")
    tied = values.get("tie_word_embeddings", kind.startswith(("gemma", "gpt2", "falcon")))
    gated = kind not in UNGATED
    linears = _linears(layers, hidden, heads * head, kv_heads * head, wide, gated)
    in_linears = sum(one.count * one.inputs * one.outputs for one in linears)
    numbers = in_linears + vocab * hidden * (1 if tied else 2) + (2 * layers + 1) * hidden
    capped = any(values.get(name) for name in ("attn_logit_softcapping", "final_logit_softcapping"))
    return Shape(layers, hidden, heads, kv_heads, head, wide, vocab, bool(tied), gated, linears, numbers, capped)


def _value(values: dict, *names: str, default: int | None = None) -> int:
    found = next((values[name] for name in names if isinstance(values.get(name), int) and values[name] > 0), default)
    if found is None:
        raise PlaygroundError(f"the model's config.json has no {names[0]}, so its memory cannot be worked out")
    return found


def _linears(layers: int, hidden: int, queries: int, keys: int, wide: int, gated: bool) -> tuple[Linear, ...]:
    made = [
        ("q_proj", hidden, queries),
        ("k_proj", hidden, keys),
        ("v_proj", hidden, keys),
        ("o_proj", queries, hidden),
    ]
    made += [("gate_proj", hidden, wide)] * gated + [("up_proj", hidden, wide), ("down_proj", wide, hidden)]
    return tuple(Linear(name, layers, inputs, outputs) for name, inputs, outputs in made)


# ---- the device and the work -----------------------------------------------------------------------------------


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
    sizes = [_sizes(pieces, config.soft_tokens, laid) for one in runs for pieces in one]
    tokens, pairs, repeated, longest = (max(column) for column in zip(*sizes, strict=True))
    labelled = max(sum(piece.trained for piece in pieces) for one in runs for pieces in one)
    begun = [len(pieces[0].prefix) + config.soft_tokens for pieces in mine]  # is run once for all passes of a step
    run = sum(size[0] for size in sizes) - sum(n * (len(one) - 1) for n, one in zip(begun, runs, strict=True))
    count = len(sizes) + sum(n > 0 for n in begun)
    held = sum(asked.laid if laid else asked.padded for asked in held_batches(examples, config, most))
    steps, each = total_steps(config, len(examples.train)), len(batches)
    return Work(tokens, longest, labelled, steps, run / each, float(held), pairs, repeated, count / each)


def _cut(row: Example, length: int) -> Example:
    return row if len(row.ids) <= length else Example(row.ids[:length], row.labels[:length])


def _sizes(pieces: list[Batch], soft: int, laid: bool) -> tuple[int, int, int, int]:
    """Of one pass: tokens, pairs of a query and a key, tokens of the copied prefix, and the longest row.

    Rows of a piece attend as if all were as long as its longest one, also where nothing else is padded.
    """
    begun = len(pieces[0].prefix) + soft
    shapes = [(len(piece.rows), max(len(row.ids) for row in piece.rows)) for piece in pieces]
    own = sum(piece.laid - len(piece.prefix) for piece in pieces) if laid else sum(n * row for n, row in shapes)
    pairs = begun**2 + sum(n * row * (begun + row) for n, row in shapes)
    return begun + own, pairs, sum(n for n, _ in shapes) * begun, begun + max(row for _, row in shapes)


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


# ---- the estimate ----------------------------------------------------------------------------------------------


def estimate(
    shape: Shape,
    config: TrainConfig,
    device: Device,
    work: Work | None = None,
    again: Callable[[TrainConfig], Work] | None = None,
    suggest: bool = True,
) -> Estimate:
    """Memory and time of a run; with `suggest`, the cheapest changes that would make it fit, where it does not.

    Without `work`, the most that the settings allow. `again` gives the work under changed settings, where the rows are
    at hand; else it is scaled.
    """
    if work is None:
        work, again = assumed_work(config, device), lambda changed: assumed_work(changed, device)
    trained = trainable(shape, config)
    mine, wide = _mine(shape, config, trained), _bytes(config, device)
    activations = int(_activations(shape, config, device, work) * SLACK.get(device.kind, 1.5))
    logits = _logits(shape, config, work, wide)
    copies = mine * (4 if wide == 2 else 0)  # in fp32, of weights and of gradients
    parts_ = {
        "weights": _weights(shape, config, device),
        "adapter": 0 if config.method == "full" else mine * wide,
        "gradients": mine * wide + max(0, copies - activations - logits),
        "optimizer": mine * 8 + copies,
        "activations": activations,
        "logits": logits,
        "runtime": int(RUNTIME.get(device.kind, GIB)),
    }
    total = sum(parts_.values())
    free = device.free if device.kind == "cuda" else device.free // config.processes
    verdict = "fits" if total <= TIGHT * free else "tight" if total <= free else "exceeds"
    seconds = _seconds(shape, config, device, work)
    found = Estimate(verdict, total, free, parts_, trained, seconds, config.processes)
    if verdict == "exceeds" and suggest:
        return dataclasses.replace(found, changes=tuple(_changes(shape, config, device, work, again)))
    return found


def _mine(shape: Shape, config: TrainConfig, trained: int) -> int:
    """Trained numbers that one process holds."""
    if not config.shard:
        return trained
    whole = shape.numbers - shape.in_linears if config.method == "full" else 0  # embeddings are not shared out
    return whole + (trained - whole) // config.processes


def trainable(shape: Shape, config: TrainConfig) -> int:
    if config.method == "full":
        return shape.numbers
    if config.method == "prompt":
        return config.prompt_tokens * shape.hidden
    chosen = _chosen(shape, config.targets)
    magnitudes = sum(one.count * one.outputs for one in chosen) if config.method == "dora" else 0
    rows = len(config.added_tokens) * shape.hidden * (1 if shape.tied else 2)
    return sum(one.count * config.rank * (one.inputs + one.outputs) for one in chosen) + magnitudes + rows


def _chosen(shape: Shape, targets: str) -> list[Linear]:
    if targets == EVERY_LINEAR:
        return list(shape.linears)
    names = ATTENTION_LAYERS if targets == ATTENTION else tuple(map(str.strip, targets.split(",")))
    return [one for one in shape.linears if one.name in names]


def _bytes(config: TrainConfig, device: Device) -> int:
    if config.dtype == "auto":
        return 4 if device.kind == "mps" else 2
    return 4 if config.dtype == "float32" else 2


def _weights(shape: Shape, config: TrainConfig, device: Device) -> int:
    wide = _bytes(config, device)
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
    wide, queries, keys = _bytes(config, device), shape.heads * shape.head, shape.kv_heads * shape.head
    norms = 2 * 4 * shape.hidden  # in fp32
    pairs = work.pairs or work.tokens * work.longest
    if device.kind != "cpu":  # the fused kernels keep keys and values of every head, and their output, but no scores
        attention, scores = 4 * queries * wide, 0
    elif shape.capped:  # eager: so does it, and the scores in fp32 and as they are multiplied
        attention, scores = 3 * queries * wide, 4 + wide
    else:  # training.fused: keys and values once for the heads that share them, and the probabilities
        attention, scores = (queries + 2 * keys) * wide, wide
    mlp = (3 if shape.gated else 2) * shape.intermediate * wide
    kept = work.tokens * shape.layers * (norms + attention + mlp) + work.tokens * _inputs(shape, config) * wide
    kept += pairs * shape.layers * shape.heads * scores + work.repeated * shape.layers * 2 * keys * wide
    if config.method != "dora":
        return kept
    # DoRA keeps its outputs before and after scaling, and the weights whose norms it takes
    outputs = sum(one.count * one.outputs for one in shape.linears)
    return kept + work.tokens * 2 * outputs * wide + 1.3 * shape.in_linears * wide


def _inputs(shape: Shape, config: TrainConfig) -> int:
    """Numbers kept for each token for the gradients of what is trained: the inputs of its layers."""
    if config.method == "prompt":
        return 0
    chosen = shape.linears if config.method == "full" else _chosen(shape, config.targets)
    kept = {SAME_INPUT.get(one.name, one.name): one.count * one.inputs for one in chosen}
    if config.method == "full":
        return sum(kept.values()) + 2 * shape.layers * shape.hidden  # the norms' weights are trained too
    low = sum(one.count for one in chosen) * config.rank
    if not config.dropout:
        return sum(kept.values()) + low
    return 2 * sum(one.count * one.inputs for one in chosen) + low  # each layer draws its own: what it left, and where


def _logits(shape: Shape, config: TrainConfig, work: Work, wide: int) -> int:
    """Bytes of one chunk of logits (`loss.LabelledLoss`)."""
    rows = min(LOGIT_ROWS, work.labelled) * shape.vocab * (16 if shape.capped else 8)
    head = config.method == "full" or config.added_tokens
    return rows + (shape.vocab * shape.hidden * (4 + wide) if head else 0)


def _seconds(shape: Shape, config: TrainConfig, device: Device, work: Work) -> float | None:
    """2 operations a parameter forward, 2 for the inputs' gradients, 2 more for the weights' where they are trained."""
    if not (work.steps and device.rate):
        return None
    forward = 2 * shape.numbers * (1.5 if config.method == "dora" else 1.0) / device.rate
    evaluations = 1 + math.ceil(work.steps / config.eval_every)
    tokens = (3 if config.method == "full" else 2) * work.step_tokens * work.steps + work.held * evaluations
    # several processes on a CPU have the same cores
    seconds = forward * tokens / (config.processes if device.kind == "cuda" else 1)
    seconds += work.passes * work.steps * shape.layers * CPU_LAYER if device.kind == "cpu" else 0
    asked = sum(bool(line.strip()) for line in config.probe.splitlines()) * config.probe_tokens * evaluations
    token = GPU_TOKEN if device.kind == "cuda" else shape.numbers * _bytes(config, device) / CPU_READS
    return seconds + asked * token


# ---- what would make it fit ------------------------------------------------------------------------------------


def _changes(
    shape: Shape, config: TrainConfig, device: Device, work: Work, again: Callable | None, count: int = 3
) -> Iterator[Change]:
    """The `count` cheapest changes; several at once only where none alone is enough. Cheapest: least in the result."""
    single = list(_candidates(config, device, work))
    yielded, seen = 0, set()
    for number in (1, 2, 3):
        for chosen in combinations(single, number):
            settings = {key: value for one, _ in chosen for key, value in one.items()}
            if len(settings) < number or frozenset(settings) in seen:
                continue  # two values for one setting, or a larger step of a change that is enough already
            try:
                changed = check(dataclasses.replace(config, **settings))
                after = estimate(shape, changed, device, scaled(work, config, changed, device), suggest=False)
                if again and after.verdict != "exceeds":  # it may fit: counted with the rows themselves
                    after = estimate(shape, changed, device, again(changed), suggest=False)
            except PlaygroundError:
                continue
            if after.verdict == "exceeds":
                continue
            yield Change(settings, "; ".join(words for _, words in chosen), after)
            yielded += 1
            seen.add(frozenset(settings))
            if yielded == count:
                return
        if yielded:
            return


def _candidates(config: TrainConfig, device: Device, work: Work) -> Iterable[tuple[dict, str]]:
    """Changes with what they cost, the least first; of one setting the smallest change first."""
    if config.dtype == "float32":
        yield {"dtype": "bfloat16"}, "hold the weights in bfloat16: half the memory, a little less exact"
    if work.tokens > work.longest:
        yield (
            {"piece_tokens": max(8, work.longest)},
            f"run a step in pieces of {work.longest:,} tokens: the same result, a little slower",
        )
    if config.method in ("full", "dora"):
        yield {"method": "lora"}, "train a LoRA adapter: far fewer numbers, nearly as good for a new format"
    if config.processes > 1 and not config.shard:
        yield {"shard": True}, f"share the layers out over the {config.processes:,} processes: a little slower"
    if not config.quantised and config.method not in ("full", "pissa"):
        slower = "slow on a CPU" if device.kind == "cpu" else "a little slower"
        name = {"method": "qlora"} if config.method == "lora" else {"load_in_4bit": True}
        yield name, f"hold the base in 4 bits: a quarter of the weights' memory, {slower}"
    if config.is_lora and config.targets == EVERY_LINEAR:
        yield {"targets": ATTENTION}, "adapt the attention layers only: learns a little less"
    for smaller in _halves(config.rank, 4) if config.is_lora else ():
        yield {"rank": smaller}, f"rank {smaller}: a smaller adapter"
    for smaller in _halves(config.batch_size, 1):
        yield {"batch_size": smaller}, f"batch size {smaller}: noisier steps, so lower the learning rate"
    for shorter in _halves(work.longest, 64):
        yield {"max_length": shorter}, f"cut rows at {shorter:,} tokens: longer rows lose their end"


def _halves(value: int, low: int) -> Iterator[int]:
    while value // 2 >= low:
        value //= 2
        yield value
