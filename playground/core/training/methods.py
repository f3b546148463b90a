"""Fine-tuning methods: the model made ready for training, saved as what it became, and put on a fresh base again.

Every adapter is plain PEFT on the original base. LoRA in all its kinds is an `adapter/` folder; PiSSA, which changes
the base, is converted to a LoRA of twice the rank when it is saved. A full fine-tune is a model folder, `model/`.
"""

import dataclasses
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch

from playground.config import ATTENTION, EVERY_LINEAR, TrainConfig
from playground.core.adapter_files import soft_folder
from playground.core.training import layers
from playground.core.training.collate import batch
from playground.core.training.loss import tensors
from playground.errors import PlaygroundError

STARTS = {"pissa": "pissa_niter_4", "eva": "eva"}
EVA_ROWS = 4  # in one forward pass; it looks at eight times as many
TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def load_base(folder: Path, config: TrainConfig, device: str = "auto"):
    """The base model for a run; on a CPU, 4 bits too (bitsandbytes has kernels for it, slow ones)."""
    from playground.core import models

    device = "cpu" if config.quantised and not torch.cuda.is_available() else device
    loaded = models.load(folder, config.dtype, device, load_in_4bit=config.quantised)
    if loaded.device.type == "cpu":
        # measured: a fifth faster than sdpa for short padded batches
        loaded.model.set_attn_implementation("eager")
    # In evaluation mode bitsandbytes repacks the weights for a kernel that has no backward pass, and keeps them so: the
    # training after the first evaluation would then go on with wrong gradients.
    for part in loaded.model.modules():
        if hasattr(part, "support_avx512bf16_for_cpu"):
            part.support_avx512bf16_for_cpu = False
    return loaded


def can_serve(config: TrainConfig, device: torch.device) -> bool:
    """Whether a base from `load_base` becomes one to answer with: no token was added, no quick kernel switched off."""
    return not config.added_tokens and not (config.quantised and device.type == "cpu")


def serve(loaded):
    """A base from `load_base` with the attention that it would have had without."""
    if loaded.model._supports_sdpa:
        loaded.model.set_attn_implementation("sdpa")
    return loaded


def base_of(model):
    """The transformers model in a PeftModel; a model without an adapter is its own base."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def device(kind: str):
    """The device of this process as the estimate wants it: what is free on it, and what this process holds already."""
    from playground.core import estimate

    if kind == "cuda":
        free = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
        return estimate.gpu(torch.cuda.get_device_name(), free)
    here = estimate.cpu()
    return dataclasses.replace(here, kind=kind, free=here.free + psutil.Process().memory_info().rss)


# ---- before training -------------------------------------------------------------------------------------------


def add_adapter(model, config: TrainConfig, tokens: Sequence[int] = (), initial: Path | None = None, rows=()):
    """The model with what the config's method trains, fresh, in the weights' own precision; the rest is frozen.

    `tokens` are the ids of new tokens whose embeddings are trained too. `initial` is where PiSSA keeps its start, and
    `rows` are the examples that EVA looks at.
    """
    if config.method == "full":
        return _all_weights(model)
    from peft import EvaConfig, LoraConfig, PromptTuningConfig, PromptTuningInit, get_peft_model

    torch.manual_seed(config.seed)
    if config.method == "prompt":
        settings = PromptTuningConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=config.prompt_tokens,
            prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB,
        )
        return get_peft_model(model, settings, autocast_adapter_dtype=False)
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        **layer_choice(model, config),
        use_rslora=config.method == "rslora",
        use_dora=config.method == "dora",
        init_lora_weights=STARTS.get(config.method, True),
        eva_config=EvaConfig(rho=1.0) if config.method == "eva" else None,
        trainable_token_indices=_token_layers(model, tokens) if tokens else None,
        task_type="CAUSAL_LM",
    )
    tuned = get_peft_model(model, lora, autocast_adapter_dtype=False)
    if config.method == "pissa" and initial is not None:
        _keep_initial(tuned, initial)
    if config.method == "eva":
        _start_from_rows(tuned, config, rows)
    return tuned


def _start_from_rows(model, config: TrainConfig, rows) -> None:
    """EVA (arXiv:2410.07170): A from the singular vectors of what each layer gets to see; every rank as configured."""
    from peft import initialize_lora_eva_weights

    settings = model.peft_config["default"]
    seen = [batch(list(rows[i : i + EVA_ROWS]), share=False) for i in range(0, min(len(rows), 8 * EVA_ROWS), EVA_ROWS)]
    if min((one.tokens for one in seen), default=0) < config.rank:
        raise PlaygroundError(
            f"method eva needs rows of more tokens than the rank {config.rank}; add rows or lower rank"
        )
    device = next(model.parameters()).device
    inputs = [dict(zip(("input_ids", "attention_mask"), tensors(one, 0, device)[:2], strict=True)) for one in seen]
    initialize_lora_eva_weights(model, inputs, show_progress_bar=False)
    settings.init_lora_weights, settings.eva_config = True, None  # what is saved is a plain LoRA


def _all_weights(model):
    number = sum(p.numel() for p in model.parameters())
    layers.check_full(number)
    return model.requires_grad_(True)


def layer_choice(model, config: TrainConfig) -> dict:
    """peft's settings for the layers that get an adapter: `config.targets`, from `config.first_layer` on."""
    if not config.first_layer:
        return {"target_modules": target_modules(model, config.targets)}
    layers.check_first_layer(config.first_layer, max(_place(name)[1] for name in _linear(model)) + 1)
    chosen = _chosen(model, config)
    stacks, numbers = zip(*map(_place, chosen), strict=True)
    names = sorted({name.rsplit(".", 1)[-1] for name in chosen})  # of all-linear peft makes no choice by number
    return {"target_modules": names, "layers_to_transform": sorted(set(numbers)), "layers_pattern": stacks[0]}


def _chosen(model, config: TrainConfig) -> list[str]:
    """The layers that get an adapter, by full name."""
    targets = target_modules(model, config.targets)
    return [
        name
        for name in _linear(model)
        if (targets == EVERY_LINEAR or name.rsplit(".", 1)[-1] in targets)
        and (not config.first_layer or _place(name)[1] >= config.first_layer)
    ]


def _place(name: str) -> tuple[str, int]:
    """Of a layer's full name the stack that it is in and its number there: "model.layers.3.mlp.up" → "layers", 3."""
    found = re.search(r"(?:^|\.)([^.]+)\.(\d+)\.", name)
    return (found[1], int(found[2])) if found else ("", -1)


def target_modules(model, targets: str) -> str | list[str]:
    """peft's `target_modules` for the config's `targets`; PlaygroundError names the layers that there are."""
    if targets == EVERY_LINEAR:
        return targets
    there = {name.rsplit(".", 1)[-1] for name in _linear(model)}
    if targets == ATTENTION:
        chosen = sorted(there & set(layers.ATTENTION_LAYERS))
        if not chosen:
            raise PlaygroundError("this model has no attention layers that we know by name; use targets all-linear")
        return chosen
    return layers.check_names(targets, there)


def _linear(model) -> list[str]:
    """The linear layers by full name, without the output head."""
    head = model.get_output_embeddings()
    return [
        name
        for name, part in model.named_modules()
        if part is not head and hasattr(part, "in_features") and hasattr(part, "out_features")
    ]


def _token_layers(model, tokens) -> dict[str, list[int]]:
    """Input embedding and output head by name: peft treats them as one where they are tied."""
    wanted = (model.get_input_embeddings(), model.get_output_embeddings())
    return {name: list(tokens) for name, part in model.named_modules() if any(part is one for one in wanted)}


def add_tokens(model, tokenizer, tokens: tuple[str, ...]) -> list[int]:
    """Give the tokenizer special tokens and the model rows for them; their ids.

    A new row starts as the mean of the rows of the pieces that its text was read as before. The rows of tokens that the
    tokenizer knew already stay as they are.
    """
    pieces = {token: tokenizer.encode(token)[0] for token in tokens}
    known = {token for token in tokens if tokenizer.backend.token_to_id(token) is not None}
    if empty := [token for token in tokens if not pieces[token] or any(c.isspace() for c in token)]:
        raise PlaygroundError(f"a new token is a text without blanks, such as <|thinking|>; got {empty[0]!r}")
    tokenizer.backend.add_special_tokens(list(tokens))
    for cached in ("special_ids", "special_tokens", "added_tokens", "_added"):
        tokenizer.__dict__.pop(cached, None)
    ids = [tokenizer.backend.token_to_id(token) for token in tokens]
    rows = model.get_input_embeddings().weight.shape[0]
    if max(ids) >= rows:
        model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
    with torch.no_grad():
        for part in (model.get_input_embeddings(), model.get_output_embeddings()):
            for token, i in zip(tokens, ids, strict=True):
                if token not in known:
                    part.weight[i] = part.weight[pieces[token]].float().mean(0).to(part.weight.dtype)
    return ids


def continued(model, config: TrainConfig, folder: Path, tokens: Sequence[int] = ()):
    """The model with the LoRA adapter in `folder`, to be trained further under the same settings."""
    from peft import LoraConfig, PeftModel

    from playground.core.models import read_adapter

    before = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    if soft_folder(folder):
        raise PlaygroundError(
            f"the adapter in {folder} was trained behind a soft prompt, so it cannot be continued; start afresh"
        )
    _check_same(config, folder, before, tokens)
    ours = set(_chosen(model, config))
    theirs = set(read_adapter(folder).shapes)
    if ours != theirs:
        words = [", ".join(sorted({name.rsplit(".", 1)[-1] for name in names})) for names in (ours, theirs)]
        raise PlaygroundError(
            f"targets {config.targets!r} from first_layer {config.first_layer} on are {len(ours)} layers ({words[0]}), "
            f"and the adapter to continue from has {len(theirs)} ({words[1]}); set both to its layers"
        )
    torch.manual_seed(config.seed)
    lora = LoraConfig.from_pretrained(str(folder))
    lora.lora_dropout, lora.inference_mode = config.dropout, False
    return PeftModel.from_pretrained(model, folder, config=lora, is_trainable=True, autocast_adapter_dtype=False)


def _check_same(config: TrainConfig, folder: Path, before: dict, tokens) -> None:
    kind = before.get("peft_type")
    if kind != "LORA":
        raise PlaygroundError(f"only a LoRA adapter can be continued, and the one in {folder} is {kind}")
    method = "dora" if before.get("use_dora") else "rslora" if before.get("use_rslora") else "lora"
    asked = "lora" if config.method == "qlora" else config.method  # the kind of what is saved
    for name, ours, theirs in (
        ("method", asked, method),
        ("rank", config.rank, before.get("r")),
        ("alpha", config.alpha, before.get("lora_alpha")),
    ):
        if ours != theirs:
            raise PlaygroundError(
                f"{name} is {ours}, and the adapter to continue from has {name} {theirs}; set {name} to {theirs}"
            )
    has = before.get("trainable_token_indices") or {}
    if sorted({i for ids in (has.values() if isinstance(has, dict) else [has]) for i in ids}) != sorted(tokens):
        raise PlaygroundError(
            f"new_tokens is {config.new_tokens!r}, and the adapter to continue from trains other tokens; set them alike"
        )


def _keep_initial(model, folder: Path) -> None:
    """Write PiSSA's first factors; on a resume, refuse to go on from others, which another base would belong to."""
    from safetensors.torch import load_file

    file = folder / "adapter_model.safetensors"
    if not file.exists():
        # peft takes them for a LoRA's own start when they are loaded again
        settings, model.peft_config["default"].init_lora_weights = model.peft_config["default"].init_lora_weights, True
        model.save_pretrained(folder, save_embedding_layers=False)
        model.peft_config["default"].init_lora_weights = settings
        return
    now = {name.replace(".default.", "."): p for name, p in model.named_parameters() if p.requires_grad}
    if any(not torch.equal(value, now[name].cpu()) for name, value in load_file(file).items()):
        raise PlaygroundError(
            "PiSSA's start came out differently from the first time (another library or number of threads), so this "
            "run cannot be resumed; start it again"
        )


def start_of(model, before: Path | None = None) -> dict[str, torch.Tensor]:
    """What the tensors of the adapter's file are before the training, where they are not zero: see `truth.check`.

    A soft prompt's start is drawn by the run's seed, so a resumed run, too, begins by making it. `before` is the folder
    of an adapter that is continued.
    """
    from safetensors.torch import load_file

    if before is not None:
        return load_file(before / "adapter_model.safetensors")
    if not hasattr(model, "prompt_encoder"):
        return {}
    return {"prompt_embeddings": model.prompt_encoder["default"].embedding.weight.detach().cpu().clone()}


# ---- after training --------------------------------------------------------------------------------------------


def save_adapter(model, folder: Path, base: str, initial: Path | None = None, state: dict | None = None) -> None:
    """Plain PEFT for the original base; the base is named as in the catalog, not by a path of this machine.

    `state`: the weights, where the model itself has only shares of them.
    """
    model.peft_config["default"].base_model_name_or_path = base
    more = {"path_initial_model_for_weight_conversion": str(initial)} if initial else {}
    more |= {"state_dict": state} if state is not None else {}
    model.save_pretrained(folder, save_embedding_layers=False, **more)
    (folder / "README.md").unlink(missing_ok=True)


def save_model(model, tokenizer, folder: Path, base_folder: Path, state: dict | None = None) -> None:
    """A model folder like the base's, with the trained weights (`state`, where the model has only shares of them)."""
    model.config._name_or_path = ""
    model.save_pretrained(folder, state_dict=state)
    save_tokenizer(tokenizer, folder, base_folder)


def save_tokenizer(tokenizer, folder: Path, base_folder: Path) -> None:
    """The base's tokenizer files, with the tokens that were added."""
    for name in TOKENIZER_FILES:
        if (Path(base_folder) / name).exists():
            shutil.copyfile(Path(base_folder) / name, folder / name)
    tokenizer.backend.save(str(folder / "tokenizer.json"))
