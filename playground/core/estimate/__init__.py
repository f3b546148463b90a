"""Does a run fit into a device's memory, and how long does it take? Arithmetic on a model's config.json; no torch.

    shape      the model's sizes, and how many of its numbers are trained
    work       the device, and the passes over the rows
    memory     bytes, part by part
    seconds    the time
    changes    what could be changed so that it fits

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
them. The time is rough: floating-point operations over a rate, for steps and held-out rows (on a CPU, those of the head
at labelled positions and those of the attention for each pair); the probe's answers are written at the speed at which
the weights are read.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations

from playground.config import TrainConfig, check
from playground.core.estimate.changes import candidates
from playground.core.estimate.memory import GIB, SLACK, parts, size
from playground.core.estimate.seconds import seconds
from playground.core.estimate.shape import KNOWN, Shape, read_shape, shape_of, trainable
from playground.core.estimate.work import CPU_RATE, Device, Work, assumed_work, cpu, gpu, scaled, work_of
from playground.errors import PlaygroundError

__all__ = [
    "CPU_RATE",
    "GIB",
    "KNOWN",
    "SLACK",
    "Change",
    "Device",
    "Estimate",
    "Shape",
    "Work",
    "cpu",
    "estimate",
    "gpu",
    "read_shape",
    "shape_of",
    "size",
    "trainable",
    "work_of",
]

TIGHT = 0.85  # of the free memory; above it, a little more than counted is too much


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
    held = parts(shape, config, device, work, trained)
    total = sum(held.values())
    free = device.free if device.kind == "cuda" else device.free // config.processes
    verdict = "fits" if total <= TIGHT * free else "tight" if total <= free else "exceeds"
    time = seconds(shape, config, device, work)
    found = Estimate(verdict, total, free, held, trained, time, config.processes)
    if verdict == "exceeds" and suggest:
        return dataclasses.replace(found, changes=tuple(_changes(shape, config, device, work, again)))
    return found


def _changes(
    shape: Shape, config: TrainConfig, device: Device, work: Work, again: Callable | None, count: int = 3
) -> Iterator[Change]:
    """The `count` cheapest changes; several at once only where none alone is enough. Cheapest: least in the result."""
    single = list(candidates(config, device, work))
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
