"""The linear layers that an adapter can go to, read from the files' headers. No torch: the page lists them.

And what settings a model's folder contradicts, so that it is said before the weights are read.
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from playground.config import ATTENTION, EVERY_LINEAR, FULL_LIMIT, TrainConfig
from playground.errors import PlaygroundError

ATTENTION_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "query_key_value", "qkv_proj", "c_attn", "dense")


@dataclass(frozen=True)
class Linear:
    """Layers of one name: how many there are, and the size of each (of the first, where they differ)."""

    name: str
    count: int
    inputs: int
    outputs: int

    @property
    def attention(self) -> bool:
        return self.name in ATTENTION_LAYERS


def linear_layers(folder: Path) -> list[Linear]:
    """The linear layers in a model folder's blocks by name, in the model's order, from the safetensors headers alone.

    They are the two-dimensional weights in numbered blocks; embeddings and the output head are outside of those.
    """
    found: dict[str, Linear] = {}
    for tensor, shape in sorted(_shapes(folder).items(), key=lambda pair: _order(pair[0])):
        match = re.fullmatch(r"(?:.+\.)?\d+\.(?:.+\.)?([^.]+)\.weight", tensor)
        if not match or len(shape) != 2:
            continue
        before = found.get(match[1])
        found[match[1]] = Linear(match[1], before.count + 1 if before else 1, *(_sizes(before, shape)))
    return list(found.values())


def parameters(folder: Path) -> int:
    """Numbers in the weight files (tied weights are stored once)."""
    return sum(math.prod(shape) for shape in _shapes(folder).values())


def check_folder(folder: Path, config: TrainConfig) -> None:
    """What can be refused before the weights are read: the context, the layers, a full fine-tune of a large model."""
    check_context(folder, config)
    check_first_layer(config.first_layer, depth(folder))
    if config.method == "full":
        check_full(parameters(folder))
    if config.targets not in (EVERY_LINEAR, ATTENTION):
        check_names(config.targets, [layer.name for layer in linear_layers(folder)])


def check_first_layer(first: int, depth: int | None) -> None:
    if first and depth is not None and first >= depth:
        raise PlaygroundError(
            f"first_layer {first:,} is past the model's last layer, {depth - 1:,}; set first_layer to {depth - 1:,} or "
            "less (0: all layers get an adapter)"
        )


def check_context(folder: Path, config: TrainConfig) -> None:
    """Refuse rows longer than the model's context; a config.json that does not say it is no reason to."""
    context = context_length(folder)
    if context is None or config.max_length + config.soft_tokens <= context:
        return
    before = f" after {config.soft_tokens:,} prompt_tokens" if config.soft_tokens else ""
    raise PlaygroundError(
        f"max_length {config.max_length:,}{before} is past the model's context of {context:,} tokens; "
        f"set max_length to {context - config.soft_tokens:,} or less"
    )


def context_length(folder: Path) -> int | None:
    """How many tokens the model reads at most, from its `config.json`; None where that does not say it."""
    return _count(folder, "max_position_embeddings", "n_positions")


def depth(folder: Path) -> int | None:
    """How many layers the model has, from its `config.json`; None where that does not say it."""
    return _count(folder, "num_hidden_layers", "n_layer")


def _count(folder: Path, *names: str) -> int | None:
    path = Path(folder) / "config.json"
    values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    values = values.get("text_config") or values
    found = next((values[name] for name in names if name in values), None)
    return found if isinstance(found, int) else None


def check_full(parameters: int) -> None:
    if parameters > FULL_LIMIT:
        raise PlaygroundError(
            f"method full trains every weight and is for models of at most {FULL_LIMIT / 1e6:,.0f} million parameters; "
            f"this one has {parameters / 1e6:,.0f} million: choose lora, or a smaller model"
        )


def check_names(targets: str, there: Iterable[str]) -> list[str]:
    """The names in `targets`, or PlaygroundError with those that this model has."""
    names = sorted(set(filter(None, map(str.strip, targets.split(",")))))
    there = sorted(there)
    has = f"it has {', '.join(there)} (or use targets all-linear or attention)"
    if not names:
        raise PlaygroundError(f"targets names no layer of this model; {has}")
    if unknown := [name for name in names if name not in there]:
        raise PlaygroundError(f"this model has no linear layer called {unknown[0]!r}; {has}")
    return names


def _shapes(folder: Path) -> dict[str, list[int]]:
    from playground.core.models import read_safetensors_header

    files = sorted(Path(folder).glob("model*.safetensors"))
    if not files:
        raise PlaygroundError(f"{folder} has no model.safetensors")
    return {name: entry["shape"] for path in files for name, entry in read_safetensors_header(path).items()}


def _order(name: str) -> tuple:
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in name.split("."))


def _sizes(before: Linear | None, shape) -> tuple[int, int]:
    return (before.inputs, before.outputs) if before else (shape[1], shape[0])
