"""A PEFT adapter's folder read into what a running batch needs: factors, magnitudes, a soft prompt, own tokens.

Format: `adapter_config.json` and `adapter_model.safetensors` as written by `PeftModel.save_pretrained`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from playground.errors import PlaygroundError

SOFT = "soft_prompt"  # the folder of the soft prompt that a LoRA adapter was trained behind, in the adapter's
PREFIX, DELTA = "base_model.model.", ".token_adapter.trainable_tokens_delta"  # of names in the file


@dataclass
class Factors:
    """One layer's factors: `a` [in, r] and `b` [r, out], with the scale already in `b`.

    `stretch` [out], of DoRA alone: how much longer the magnitudes make each output, less 1; it is in `b` already.
    """

    a: torch.Tensor
    b: torch.Tensor
    stretch: torch.Tensor | None = None


@dataclass
class Weights:
    """An adapter in memory. Embeddings are rows [tokens, width] as the model's embedding layer would give them.

    `soft` stands before every prompt. `tokens` are the ids whose embeddings and head rows the adapter replaces or adds.
    """

    factors: dict[str, Factors] = field(default_factory=dict)  # by module name
    soft: torch.Tensor | None = None
    tokens: list[int] = field(default_factory=list)
    embeddings: torch.Tensor | None = None
    head: torch.Tensor | None = None


def read_weights(model: torch.nn.Module, folder: Path, weight: Callable[[str], torch.Tensor]) -> Weights:
    """The adapter in `folder`, on the model's device and in its dtype. PlaygroundError where it cannot be served.

    `weight` gives a layer's weight [out, in] by its name: the model may hold it in another form.
    """
    from safetensors.torch import load_file

    try:
        config = json.loads((folder / "adapter_config.json").read_text())
        tensors = load_file(folder / "adapter_model.safetensors")
    except FileNotFoundError as error:
        raise PlaygroundError(
            f"adapter {folder.name} is not complete: {Path(error.filename).name} is missing"
        ) from None
    except Exception as error:
        raise PlaygroundError(f"adapter {folder.name} cannot be read: {error}") from error
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        # 0 × NaN is NaN: beside other rows it would make theirs into none, too (see core.adapters)
        raise PlaygroundError(
            f"adapter {folder.name} holds NaN or infinite numbers: its training diverged; train again, with a lower "
            "learning rate"
        )
    kind = config.get("peft_type")
    if kind == "PROMPT_TUNING":
        return Weights(soft=_soft_prompt(model, folder, config, tensors))
    if kind != "LORA" or config.get("modules_to_save"):
        what = "one with whole modules" if kind == "LORA" else kind
        raise PlaygroundError(f"adapter {folder.name} is {what}; lanes take LoRA, DoRA and soft prompts")
    modules = dict(model.named_modules())
    factors = {
        name: _factors(model, modules.get(name), name, tensors, folder, config, weight)
        for key in tensors
        if key.endswith(".lora_A.weight") and (name := key.removeprefix(PREFIX).removesuffix(".lora_A.weight"))
    }
    if not factors:
        raise PlaygroundError(f"adapter {folder.name} holds no LoRA weights")
    before = soft_folder(folder)
    soft = read_weights(model, before, weight).soft if before else None
    return Weights(factors, soft, *_own_tokens(model, config, tensors))


def soft_folder(adapter: Path) -> Path | None:
    """The soft prompt that a LoRA adapter was trained behind, a plain PEFT folder in the adapter's; None without."""
    folder = Path(adapter) / SOFT
    return folder if (folder / "adapter_config.json").exists() else None


def soft_rows(folder: Path) -> torch.Tensor:
    """The virtual tokens [tokens, width] of the PEFT folder of a soft prompt."""
    from safetensors.torch import load_file

    return load_file(Path(folder) / "adapter_model.safetensors")["prompt_embeddings"]


def _factors(model, module, name: str, tensors: dict, folder: Path, config: dict, weight) -> Factors:
    a, b = (tensors[f"{PREFIX}{name}.lora_{half}.weight"] for half in "AB")
    shape = None if module is None else (getattr(module, "in_features", None), getattr(module, "out_features", None))
    if shape != (a.shape[1], b.shape[0]):
        base = config.get("base_model_name_or_path") or "another model"
        found = "no such layer" if shape is None else f"{shape[0]} → {shape[1]}"
        raise PlaygroundError(
            f"adapter {folder.name} was made for {base}: it expects {name} to be "
            f"{a.shape[1]} → {b.shape[0]}, this model has {found}"
        )
    device = model.device
    # On a CPU a product this small costs 3 µs in fp32 and 20 µs in bf16, which goes through another library.
    dtype = torch.float32 if device.type == "cpu" else model.dtype
    scaled = b.to(device).float() * _scale(config, name)
    stretch = None
    if (magnitude := tensors.get(f"{PREFIX}{name}.lora_magnitude_vector")) is not None:
        longer = _longer(weight(name), a.to(device), scaled, magnitude.to(device))
        scaled, stretch = scaled * longer[:, None], (longer - 1).to(model.dtype)
    return Factors(a.t().to(device, dtype).contiguous(), scaled.t().to(dtype).contiguous(), stretch)


@torch.inference_mode()
def _longer(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
    """DoRA's factor for each output, m / ‖W + BA‖ (Liu et al. 2024, arXiv:2402.09353), in fp32."""
    return magnitude.float() / torch.linalg.norm(weight.float() + b @ a.float(), dim=1)


def _soft_prompt(model, folder: Path, config: dict, tensors: dict) -> torch.Tensor:
    soft, width = tensors.get("prompt_embeddings"), model.get_input_embeddings().weight.shape[1]
    if soft is None:
        raise PlaygroundError(f"adapter {folder.name} holds no soft prompt")
    if soft.shape[1] != width:
        base = config.get("base_model_name_or_path") or "another model"
        raise PlaygroundError(
            f"adapter {folder.name} was made for {base}: its soft prompt is {soft.shape[1]} wide, and this model's "
            f"embeddings are {width}"
        )
    return soft.to(model.device, model.dtype)


def _own_tokens(model, config: dict, tensors: dict) -> tuple[list[int], torch.Tensor | None, torch.Tensor | None]:
    """The ids of trained tokens with their embeddings and head rows; the file has them once where the two are tied."""
    found = config.get("trainable_token_indices")
    if not found:
        return [], None, None
    ids = next(iter(found.values())) if isinstance(found, dict) else found
    rows = {
        key.removeprefix(PREFIX).removesuffix(DELTA): value.to(model.device, model.dtype)
        for key, value in tensors.items()
        if key.endswith(DELTA)
    }
    modules = dict(model.named_modules())
    embedding, output = model.get_input_embeddings(), model.get_output_embeddings()
    of = {part: rows[name] for name in rows for part in (embedding, output) if modules.get(name) is part}
    if embedding not in of:
        raise PlaygroundError("this adapter's trained tokens have no embeddings in its file")
    scale = getattr(embedding, "embed_scale", None)  # Gemma 3 scales what it looks up
    embeddings = of[embedding] if scale is None else of[embedding] * torch.as_tensor(scale).to(of[embedding])
    tied = output is not None and output.weight is embedding.weight
    return list(ids), embeddings, of.get(output, of[embedding] if tied else None)


def _scale(config: dict, module_name: str) -> float:
    rank = _pattern(config.get("rank_pattern"), module_name, config["r"])
    alpha = _pattern(config.get("alpha_pattern"), module_name, config["lora_alpha"])
    return alpha / rank**0.5 if config.get("use_rslora") else alpha / rank


def _pattern(patterns: dict | None, module_name: str, default):
    from peft.utils.other import get_pattern_key

    return (patterns or {}).get(get_pattern_key((patterns or {}).keys(), module_name), default)
