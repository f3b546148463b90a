"""A model's sizes, read from its config.json or its weights' headers, and how many numbers a run trains of it."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from playground.config import ATTENTION, EVERY_LINEAR, TrainConfig
from playground.core.training.layers import ATTENTION_LAYERS, Linear, linear_layers, parameters
from playground.errors import PlaygroundError

UNGATED = ("gpt2", "falcon", "gpt_neox", "phi", "opt", "bloom", "gptj")
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


def trainable(shape: Shape, config: TrainConfig) -> int:
    if config.method == "full":
        return shape.numbers
    if config.method == "prompt":
        return config.prompt_tokens * shape.hidden
    layers = chosen(shape, config)
    magnitudes = sum(one.count * one.outputs for one in layers) if config.method == "dora" else 0
    rows = len(config.added_tokens) * shape.hidden * (1 if shape.tied else 2)
    return sum(one.count * config.rank * (one.inputs + one.outputs) for one in layers) + magnitudes + rows


def chosen(shape: Shape, config: TrainConfig) -> list[Linear]:
    """The linear layers that get an adapter."""
    targets = config.targets
    names = ATTENTION_LAYERS if targets == ATTENTION else tuple(map(str.strip, targets.split(",")))
    found = [one for one in shape.linears if targets == EVERY_LINEAR or one.name in names]
    share = max(0, shape.layers - config.first_layer) / shape.layers
    return [dataclasses.replace(one, count=round(one.count * share)) for one in found]


def learning_layers(shape: Shape, config: TrainConfig) -> int:
    """The layers that a backward pass goes through; new tokens' embeddings are before all of them."""
    return shape.layers if config.added_tokens else max(0, shape.layers - config.first_layer)
