"""Models and adapters as folders: check, convert, load.

A model folder is what `save_pretrained` writes: `config.json`, safetensors weights, `tokenizer.json`.
Nothing here imports torch or transformers before it must: checking a folder and reading an adapter's
description take milliseconds, because a safetensors file starts with its own table of contents.
"""

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from math import prod
from pathlib import Path

from playground.core import kinds
from playground.errors import PlaygroundError

DTYPES = ("auto", "bfloat16", "float16", "float32")
DEVICES = ("auto", "cuda", "mps", "cpu")
NF4_BYTES = 0.52  # of a weight: 4 bits, and a scale for each 64, itself held in 8 bits
# How far each stage of a conversion is, in percent of its time (measured on SmolLM2 135M and Gemma 3 270M).
STAGES = {"reading the tokenizer": 5, "reading the weights": 35, "checking": 90, "saving": 92}


@dataclass(frozen=True)
class Loaded:
    """A model in memory. `tokenizer` is a `core.tokenizer.Tokenizer`; `device` and `dtype` are torch's."""

    model: object
    tokenizer: object
    folder: Path
    device: object
    dtype: object


@dataclass(frozen=True)
class AdapterInfo:
    """What a run has made as read from disk, without its weights in memory: LoRA, a soft prompt, or a model of its own.

    `template` is None where the folder does not say which template it was trained with. `config` is PEFT's
    `adapter_config.json` ({} for a model); `details` is our `playground.json` (mask rule, data hash, the run's config),
    or {}. `shapes` has one (out, in) pair per adapted layer of the base model; `rank` is 0 where there are none.
    """

    name: str
    folder: Path
    base_model: str
    rank: int
    template: object | None
    config: dict
    details: dict
    shapes: dict[str, tuple[int, int]]
    soft: tuple[int, int] = (0, 0)  # tokens and width of a soft prompt

    @property
    def whole(self) -> bool:
        """All weights were trained: `folder` is a model's."""
        return not self.config

    @property
    def tokenizer(self) -> Path | None:
        """The folder of a tokenizer of its own; None where it is the base model's."""
        return self.folder if (self.folder / "tokenizer.json").exists() else None


# ---- folders ---------------------------------------------------------------------------------------------------


def read_safetensors_header(path: Path) -> dict[str, dict]:
    """The table of contents of a safetensors file: tensor name → dtype, shape, data_offsets.

    Format: 8 bytes little-endian length, that many bytes of JSON, then the data; see
    https://huggingface.co/docs/safetensors. Raises PlaygroundError where the file is cut short or is not one.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise PlaygroundError(f"{path.name} is cut short or not a safetensors file ({size:,} bytes)")
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except FileNotFoundError:
        raise PlaygroundError(f"{path.name} is missing in {path.parent}") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise PlaygroundError(f"{path.name} is not a safetensors file") from None
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise PlaygroundError(f"{path.name} has {size:,} bytes where {expected:,} are expected: it is incomplete")
    header.pop("__metadata__", None)
    return header


def weights_size(folder: Path, in_4bit: bool = False) -> int:
    """Bytes that a model folder's weights take in memory: as on the disk, or held in 4 bits (see `load`)."""
    size = 0
    for file in Path(folder).glob("*.safetensors"):
        for name, entry in read_safetensors_header(file).items():
            begin, end = entry["data_offsets"]
            linear = len(entry["shape"]) == 2 and not re.search("embed|lm_head|wte", name)
            size += int(prod(entry["shape"]) * NF4_BYTES) if in_4bit and linear else end - begin
    return size


def check_folder(folder: Path) -> Path:
    """Return `folder` if it holds a complete model that we can load, or raise PlaygroundError with the reason."""
    folder = Path(folder)
    if not folder.is_dir():
        raise PlaygroundError(f"there is no folder {folder}")
    for name in ("config.json", "tokenizer.json"):
        try:
            with open(folder / name, "rb") as file:
                # a tokenizer can have 30 MB, and pages ask often: the two ends tell a whole file from a cut one
                first = file.read(1)
                file.seek(max(1, os.fstat(file.fileno()).st_size - 16))
                ends = first + file.read().rstrip()[-1:]
        except FileNotFoundError:
            raise PlaygroundError(f"{folder} has no {name}") from None
        if ends != b"{}":
            raise PlaygroundError(f"{name} in {folder} is not complete JSON")
    for path in _weight_files(folder):
        read_safetensors_header(path)
    return folder


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            return [folder / name for name in sorted(set(json.loads(index.read_bytes())["weight_map"].values()))]
        except (ValueError, KeyError, AttributeError):
            raise PlaygroundError(f"{index.name} in {folder} is not complete") from None
    if (folder / "model.safetensors").exists():
        return [folder / "model.safetensors"]
    raise PlaygroundError(f"{folder} has no model.safetensors (weights are loaded from safetensors only)")


def revision(folder: Path) -> str:
    """Which weights these are: the Hub commit, or the SHA-256 of the GGUF file they were converted from; else ""."""
    if folder.parent.name == "snapshots":
        return folder.name
    try:
        return json.loads((folder / "source.json").read_bytes()).get("sha256", "")
    except (OSError, ValueError):
        return ""


# ---- GGUF → safetensors ----------------------------------------------------------------------------------------


def convert_gguf(
    gguf: Path, out: Path, expect: dict | None = None, report: Callable[[str, int], None] | None = None
) -> None:
    """Turn a GGUF file into a bf16 model folder, whole or not at all: it is written beside `out` and renamed.

    `expect` may hold `tokens` (bos, eos, pad ids), `chat_template`, `parameters`, and `source` (kept in
    `source.json`); a converted model that differs raises PlaygroundError and leaves nothing.
    `report(stage, percent)` is called as it goes.
    """
    expect, report = expect or {}, report or (lambda stage, percent: None)
    gguf, out = Path(gguf), Path(out)
    if not gguf.is_file():
        raise PlaygroundError(f"there is no GGUF file {gguf}")

    def stage(name):
        report(name, STAGES[name])

    stage("reading the tokenizer")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.quantization_config import GgufConfig

    where = {"gguf_file": gguf.name, "local_files_only": True, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **where)
    _restore_pre_tokenizer(tokenizer, gguf)
    stage("reading the weights")
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32, **where
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model = model.to(torch.bfloat16)
    model.config._name_or_path = ""
    tokenizer.model_max_length = model.config.max_position_embeddings

    stage("checking")
    _check_converted(tokenizer, model, expect)
    stage("saving")
    partial = out.parent / f".{out.name}.partial-{uuid.uuid4().hex[:8]}"
    try:
        partial.mkdir(parents=True)
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        (partial / "source.json").write_text(json.dumps(expect.get("source", {"file": gguf.name}), indent=2) + "\n")
        check_folder(partial)
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _restore_pre_tokenizer(tokenizer, gguf: Path) -> None:
    """Split digits off before byte-level BPE where the GGUF file says `smollm`, as the published tokenizer does.

    transformers rebuilds the vocabulary and the merges from a GGUF file but not the pre-tokenizer, which the file
    only names. Without this a list ("...\\n\\n1.") gets other ids than the model was trained on.
    """
    from gguf import GGUFReader
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    name = GGUFReader(str(gguf)).get_field("tokenizer.ggml.pre")
    if name is not None and name.contents() == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
            [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
        )


def _check_converted(tokenizer, model, expect: dict) -> None:
    for kind, expected in expect.get("tokens", {}).items():
        got = getattr(tokenizer, f"{kind}_token_id")
        if got != expected:
            raise PlaygroundError(f"the converted tokenizer's {kind} token has id {got}, the published one {expected}")
    template = expect.get("chat_template")
    if template is not None and tokenizer.chat_template != template:
        raise PlaygroundError("the converted model's chat template is not the published one")
    got, expected = sum(p.numel() for p in model.parameters()), expect.get("parameters")
    if expected and got != expected:
        raise PlaygroundError(f"the converted model has {got:,} parameters, the published one {expected:,}")


# ---- loading ---------------------------------------------------------------------------------------------------


def load(folder: Path, dtype: str = "auto", device: str = "auto", load_in_4bit: bool = False) -> Loaded:
    """Load a model folder for inference or training. No network, no code from the folder, safetensors only.

    Auto means CUDA in bf16, else Apple MPS in fp32, else CPU in bf16. 4-bit is NF4 with double quantisation, on CUDA
    or a CPU; the input embedding and the output head stay as they are. Threads must take turns (`services.loading`).
    """
    if dtype not in DTYPES:
        raise PlaygroundError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if device not in DEVICES:
        raise PlaygroundError(f"device must be one of {', '.join(DEVICES)}, got {device!r}")
    folder = check_folder(folder)
    import torch
    from transformers import AutoModelForCausalLM

    from playground.core.tokenizer import Tokenizer

    here = [
        name
        for name, available in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available()))
        if available
    ] + ["cpu"]
    if device == "auto":
        device = here[0]
    elif device not in here:
        raise PlaygroundError(f"there is no {device} device here; there is {', '.join(here)}")
    if load_in_4bit and device == "mps":
        raise PlaygroundError("4-bit weights are for CUDA GPUs and CPUs, and the device is mps; switch it off")
    if load_in_4bit and find_spec("bitsandbytes") is None:
        raise PlaygroundError(
            "4-bit weights need the package bitsandbytes, which is not installed: pip install bitsandbytes"
        )
    if dtype == "auto":
        dtype = "float32" if device == "mps" else "bfloat16"
    options = {}
    if load_in_4bit:
        from transformers import BitsAndBytesConfig

        # under a launcher, each process has a card of its own
        options["device_map"] = {"": torch.cuda.current_device() if device == "cuda" else device}
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, dtype),
        )
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            **options,
        )
        if not load_in_4bit:
            model = model.to(device)
    except torch.cuda.OutOfMemoryError:
        raise PlaygroundError(f"the GPU has too little free memory for {folder.name}; try 4-bit or the CPU") from None
    if load_in_4bit and device == "cpu":
        _leave_file(model)
        for part in model.modules():
            # bitsandbytes repacks weights for AVX512-BF16 in blocks, and fails on a layer that they do not fill
            if hasattr(part, "support_avx512bf16_for_cpu") and (part.out_features % 32 or part.in_features % 64):
                part.support_avx512bf16_for_cpu = False
    return Loaded(model.eval(), Tokenizer.load(folder), folder, torch.device(device), getattr(torch, dtype))


def _leave_file(model) -> None:
    """Let go of the file that a model was read from: one embedding that lies in it keeps all of its pages in memory.

    What the conversion has used goes back too. A process that holds SmolLM2 135M in 4 bits has 0.57 GB, not 0.91.
    """
    from playground.core.training.memory import give_back

    for kept in model.parameters():
        if kept.is_floating_point():
            kept.data = kept.data.clone()
    give_back()


# ---- adapters --------------------------------------------------------------------------------------------------


def read_adapter(folder: Path) -> AdapterInfo:
    """Read a PEFT adapter's folder (`adapter_config.json`, `adapter_model.safetensors`, `playground.json`).

    Raises PlaygroundError where it is incomplete, neither LoRA nor a soft prompt, or contradicts itself.
    """
    folder = Path(folder)
    config = _read_json(folder / "adapter_config.json")
    details = _details(folder) if (folder / "playground.json").exists() else {}
    kind, weights = config.get("peft_type"), folder / "adapter_model.safetensors"
    if kind not in ("LORA", "PROMPT_TUNING"):
        raise PlaygroundError(
            f"the adapter in {folder} is of type {kind}; LORA and PROMPT_TUNING adapters can be used here"
        )
    if not weights.exists():
        raise PlaygroundError(f"{folder} has no adapter_model.safetensors (weights are loaded from safetensors only)")
    template, rank, shapes, soft = _trained_with(folder, details), 0, {}, (0, 0)
    if kind == "LORA":
        ranks, shapes = _lora_layers(weights)
        rank = max(ranks.values())
        if rank != config.get("r") and not config.get("rank_pattern"):
            said = config.get("r")
            raise PlaygroundError(f"the adapter in {folder} has rank {rank}, but its adapter_config.json says {said}")
    else:
        soft = _soft_prompt(weights)
    base = str(details.get("base_model") or config.get("base_model_name_or_path") or "")
    return AdapterInfo(_run_name(folder), folder, base, rank, template, config, details, shapes, soft)


def read_whole(folder: Path) -> AdapterInfo:
    """Read what a full fine-tune has made: a model's folder with our `playground.json`, read without its weights."""
    folder = Path(folder)
    details = _details(folder)
    base, template = details.get("base_model") or "", _trained_with(folder, details)
    return AdapterInfo(_run_name(folder), folder, base, 0, template, {}, details, {})


def _details(folder: Path) -> dict:
    """What playground.json says, less the values that are not of their kind; an adapter's template may not be odd."""
    said = _read_json(folder / "playground.json")
    text = said.get("template_text")
    if text is not None and not isinstance(text, str):
        raise PlaygroundError(f"playground.json in {folder}: template_text must be a text, got {str(text)[:60]!r}")
    return kinds.sound(said, kinds.ABOUT)


def _run_name(folder: Path) -> str:
    """A run keeps what it made in adapter/ or model/."""
    return folder.parent.name if folder.name in ("adapter", "model") else folder.name


def _trained_with(folder: Path, details: dict):
    """The template in playground.json; None where it holds none."""
    from playground.core.templates import Template

    text = details.get("template_text")
    if text is None:
        return None
    template = Template(details.get("template_name") or "adapter", text, source="adapter")
    if details.get("template_hash", template.hash) != hashlib.sha256(text.encode()).hexdigest():
        raise PlaygroundError(f"playground.json in {folder}: the template's text does not match its hash")
    return template


def check_adapter(info: AdapterInfo, base_model: str, base_folder: Path) -> None:
    """Raise PlaygroundError, naming both, unless `info` was trained on `base_model`, whose weights `base_folder` holds.

    Names are compared by their last part without punctuation, so that a catalog name, a Hub id and a folder
    of the same model agree; the layers' sizes must agree as well.
    """
    if info.base_model and _plain_name(info.base_model) != _plain_name(base_model):
        raise PlaygroundError(
            f"adapter {info.name!r} was trained on {info.base_model}, it does not fit {base_model}; "
            f"choose {info.base_model} or another adapter"
        )
    if info.soft[1]:
        width = _read_json(Path(base_folder) / "config.json").get("hidden_size")
        if width not in (info.soft[1], None):
            raise PlaygroundError(
                f"adapter {info.name!r} (for {info.base_model or 'an unnamed base'}) does not fit {base_model}: its "
                f"soft prompt is {info.soft[1]} wide, the model's embeddings are {width}"
            )
    if not info.shapes:
        return
    sizes = {}
    for path in _weight_files(Path(base_folder)):
        sizes |= {name: entry["shape"] for name, entry in read_safetensors_header(path).items()}
    for layer, (rows, columns) in info.shapes.items():
        size = sizes.get(f"{layer}.weight")
        if size is None or list(size) != [rows, columns]:
            has = "has no such layer" if size is None else f"has {size[0]} × {size[1]} there"
            raise PlaygroundError(
                f"adapter {info.name!r} (for {info.base_model or 'an unnamed base'}) does not fit {base_model}: "
                f"its layer {layer} is {rows} × {columns}, the model {has}"
            )


def _plain_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", str(name).rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1].lower())


def _soft_prompt(path: Path) -> tuple[int, int]:
    entry = read_safetensors_header(path).get("prompt_embeddings")
    if entry is None or len(entry["shape"]) != 2:
        raise PlaygroundError(f"{path} holds no soft prompt")
    return tuple(entry["shape"])


def _lora_layers(path: Path) -> tuple[dict[str, int], dict[str, tuple[int, int]]]:
    """Rank and (out, in) of each adapted layer, from PEFT's names `base_model.model.LAYER.lora_A.weight`."""
    halves: dict[str, dict[str, list[int]]] = {}
    for name, entry in read_safetensors_header(path).items():
        match = re.fullmatch(r"base_model\.model\.(.+)\.lora_([AB])(?:\.\w+)?\.weight", name)
        if match:
            halves.setdefault(match[1], {})[match[2]] = entry["shape"]
    ranks, shapes = {}, {}
    for layer, half in halves.items():
        a, b = half.get("A"), half.get("B")
        if not (a and b and len(a) == len(b) == 2 and a[0] == b[1]):
            raise PlaygroundError(f"{path}: the A and B matrices of {layer} do not belong together ({a} and {b})")
        ranks[layer], shapes[layer] = a[0], (b[0], a[1])
    if not ranks:
        raise PlaygroundError(f"{path} holds no LoRA matrices")
    return ranks, shapes


def _read_json(path: Path) -> dict:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise PlaygroundError(f"{path.parent} is not an adapter: it has no {path.name}") from None
    except ValueError:
        raise PlaygroundError(f"{path} is not complete JSON") from None
    if not isinstance(value, dict):
        raise PlaygroundError(f"{path} must hold a JSON object")
    return value
