"""What could be changed so that a run fits, the cheapest first."""

from collections.abc import Iterable, Iterator

from playground.config import ATTENTION, EVERY_LINEAR, TrainConfig
from playground.core.estimate.work import Device, Work


def candidates(config: TrainConfig, device: Device, work: Work) -> Iterable[tuple[dict, str]]:
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
