"""Model and adapter folders: read without torch, loaded once with it."""

import hashlib
import json
from pathlib import Path

import pytest

from playground.core import models
from playground.core.models import check_adapter, check_folder, read_adapter, read_safetensors_header, revision
from playground.errors import PlaygroundError


def write_tensors(path: Path, shapes: dict[str, tuple]) -> Path:
    """A safetensors file of zeros, by hand: the reader is checked against the format, not against itself."""
    header, end = {}, 0
    for name, (rows, columns) in shapes.items():
        header[name] = {"dtype": "F32", "shape": [rows, columns], "data_offsets": [end, end + 4 * rows * columns]}
        end += 4 * rows * columns
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))
    return path


def write_adapter(folder: Path, rank=2, out=6, columns=4, config=None, details=None) -> Path:
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    write_tensors(
        folder / "adapter_model.safetensors",
        {f"{layer}.lora_A.weight": (rank, columns), f"{layer}.lora_B.weight": (out, rank)},
    )
    values = {"peft_type": "LORA", "r": rank, "base_model_name_or_path": "owner/Tiny-1B"} | (config or {})
    (folder / "adapter_config.json").write_text(json.dumps(values))
    if details is not None:
        (folder / "playground.json").write_text(json.dumps(details))
    return folder


def write_base(folder: Path, out=6, columns=4) -> Path:
    write_tensors(folder / "model.safetensors", {"model.layers.0.self_attn.q_proj.weight": (out, columns)})
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    return folder


# ---- folders ---------------------------------------------------------------------------------------------------


def test_the_header_is_what_safetensors_writes(tmp_path):
    numpy = pytest.importorskip("numpy")
    from safetensors.numpy import save_file

    save_file({"a": numpy.zeros((2, 3), "float32")}, tmp_path / "x.safetensors", metadata={"format": "pt"})
    header = read_safetensors_header(tmp_path / "x.safetensors")
    assert {name: entry["shape"] for name, entry in header.items()} == {"a": [2, 3]}


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda data: data[:-1], "incomplete"),
        (lambda data: data + b"x", "incomplete"),
        (lambda data: data[:20], "cut short"),
        (lambda data: b"", "cut short"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\n", "cut short or not a safetensors"),
        (lambda data: (10).to_bytes(8, "little") + b"x" * 40, "not a safetensors"),
        (lambda data: (2).to_bytes(8, "little") + b"[]", "not a safetensors"),
    ],
)
def test_a_damaged_weight_file_is_named_with_the_reason(tmp_path, change, reason):
    folder = write_base(tmp_path / "m")
    file = folder / "model.safetensors"
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(PlaygroundError, match=rf"model\.safetensors .*{reason}"):
        check_folder(folder)


def test_every_shard_must_be_there(tmp_path):
    folder = write_base(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(PlaygroundError, match=r"model-00002-of-00002\.safetensors is missing"):
        check_folder(folder)
    write_tensors(folder / "model-00002-of-00002.safetensors", {"b": (1, 1)})
    assert check_folder(folder) == folder


def test_pickled_weights_are_refused(tmp_path):
    folder = write_base(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(PlaygroundError, match="safetensors only"):
        check_folder(folder)


def test_which_weights_they_are(tmp_path):
    assert revision(tmp_path / "models--o--m" / "snapshots" / "abc") == "abc"
    assert revision(tmp_path) == ""
    (tmp_path / "source.json").write_text('{"sha256": "123"}')
    assert revision(tmp_path) == "123"


# ---- adapters --------------------------------------------------------------------------------------------------


def test_an_adapter_brings_its_template_and_its_base(tmp_path):
    text = "{{ messages }}"
    details = {
        "base_model": "tiny-1b",
        "template_name": "chatml-tools",
        "template_text": text,
        "template_hash": hashlib.sha256(text.encode()).hexdigest(),
        "mask_rule": "generation",
    }
    info = read_adapter(write_adapter(tmp_path / "runs" / "calm-owl" / "adapter", details=details))
    assert (info.name, info.rank, info.base_model) == ("calm-owl", 2, "tiny-1b")
    assert (info.template.name, info.template.text) == ("chatml-tools", text)
    assert info.details["mask_rule"] == "generation"
    assert info.shapes == {"model.layers.0.self_attn.q_proj": (6, 4)}


def test_odd_values_beside_an_adapters_weights_say_nothing(tmp_path):
    details = {"base_model": ["x"], "template_name": 3, "template_text": "a", "template_hash": 1, "later": [1]}
    info = read_adapter(write_adapter(tmp_path / "a", details=details))
    assert (info.base_model, info.template.name, info.template.text) == ("owner/Tiny-1B", "adapter", "a")
    assert info.details == {"template_text": "a", "later": [1]}


def test_a_plain_peft_adapter_has_no_template(tmp_path):
    info = read_adapter(write_adapter(tmp_path / "plain"))
    assert (info.name, info.template, info.base_model) == ("plain", None, "owner/Tiny-1B")


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda folder: (folder / "adapter_config.json").unlink(), "it has no adapter_config.json"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "not complete JSON"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "no adapter_model.safetensors"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"x" * 30), "cut short"),
        (lambda folder: write_adapter(folder, config={"peft_type": "IA3"}), "of type IA3"),
        (lambda folder: write_adapter(folder, config={"r": 16}), "has rank 2, but its adapter_config.json says 16"),
        (
            lambda folder: write_adapter(folder, details={"template_text": ["a"]}),
            r"template_text must be a text, got .*a",
        ),
        (
            lambda folder: write_adapter(folder, details={"template_text": "a", "template_hash": "b"}),
            "does not match its hash",
        ),
        (lambda folder: write_tensors(folder / "adapter_model.safetensors", {"x": (1, 1)}), "no LoRA matrices"),
        (
            lambda folder: write_tensors(
                folder / "adapter_model.safetensors",
                {"base_model.model.q.lora_A.weight": (2, 4), "base_model.model.q.lora_B.weight": (4, 3)},
            ),
            "do not belong together",
        ),
    ],
)
def test_a_damaged_adapter_is_refused_with_the_reason(tmp_path, damage, reason):
    folder = write_adapter(tmp_path / "a")
    damage(folder)
    with pytest.raises(PlaygroundError, match=reason):
        read_adapter(folder)


@pytest.mark.parametrize("name", ["owner/Tiny-1B", "tiny-1b", "/some/where/tiny-1b/", "Tiny 1B"])
def test_an_adapter_fits_its_base_by_any_of_its_names(tmp_path, name):
    check_adapter(read_adapter(write_adapter(tmp_path / "a")), name, write_base(tmp_path / "base"))


@pytest.mark.parametrize(
    "name, out, reason",
    [
        ("other/huge", 6, "'a' was trained on owner/Tiny-1B, it does not fit other/huge"),
        ("tiny-1b", 8, r"for owner/Tiny-1B\) does not fit tiny-1b: .*q_proj is 6 × 4, the model has 8 × 4"),
    ],
)
def test_an_adapter_for_another_base_is_refused_naming_both(tmp_path, name, out, reason):
    info = read_adapter(write_adapter(tmp_path / "a"))
    with pytest.raises(PlaygroundError, match=reason):
        check_adapter(info, name, write_base(tmp_path / "base", out=out))


# ---- with torch ------------------------------------------------------------------------------------------------


SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A two-layer Llama with a byte-level tokenizer, saved as a model folder."""
    import torch
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *alphabet, "Ġ1", "12"])}
    backend = Tokenizer(BPE(vocabulary, [("Ġ", "1"), ("1", "2")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        bos_token_id=1,
        eos_token_id=2,
        max_position_embeddings=64,
    )
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=SPECIAL[1], eos_token=SPECIAL[2])
    tokenizer.save_pretrained(folder)
    return folder


def test_load_on_the_cpu(tiny):
    import torch

    loaded = models.load(tiny, device="cpu")
    assert (loaded.device.type, loaded.dtype, loaded.model.dtype) == ("cpu", torch.bfloat16, torch.bfloat16)
    assert not loaded.model.training
    ids, _ = loaded.tokenizer.encode("hi")
    with torch.no_grad():
        assert loaded.model(input_ids=torch.tensor([ids])).logits.shape == (1, 2, 261)
    assert models.load(tiny, dtype="float32", device="cpu").model.dtype == torch.float32


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"device": "tpu"}, "device must be one of auto, cuda, mps, cpu, got 'tpu'"),
        ({"dtype": "int8"}, "dtype must be one of auto, bfloat16, float16, float32, got 'int8'"),
    ],
)
def test_what_cannot_be_loaded_is_told(tiny, options, reason):
    with pytest.raises(PlaygroundError, match=reason):
        models.load(tiny, **options)


def test_weights_are_held_in_4_bits_on_a_cpu_too(tiny):
    pytest.importorskip("bitsandbytes")
    import torch

    model = models.load(tiny, device="cpu", load_in_4bit=True).model
    assert type(model.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16
    with torch.inference_mode():
        four = model(input_ids=torch.tensor([[1, 2, 3]])).logits
        full = models.load(tiny, device="cpu").model(input_ids=torch.tensor([[1, 2, 3]])).logits
    assert torch.cosine_similarity(four.flatten().float(), full.flatten().float(), dim=0) > 0.9
    assert models.weights_size(tiny, in_4bit=True) < models.weights_size(tiny)
    assert models.weights_size(tiny) < sum(file.stat().st_size for file in tiny.glob("*.safetensors"))


@pytest.mark.parametrize(
    "here, reason",
    [
        (("torch.backends.mps.is_available", lambda: True), "for CUDA GPUs and CPUs, and the device is mps"),
        (("playground.core.models.find_spec", lambda name: None), "pip install bitsandbytes"),
    ],
)
def test_where_4_bits_cannot_be_had_it_is_told(tiny, monkeypatch, here, reason):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(*here)
    with pytest.raises(PlaygroundError, match=reason):
        models.load(tiny, load_in_4bit=True)


def test_a_device_that_is_not_here_is_told(tiny, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PlaygroundError, match="there is no cuda device here; there is .*cpu"):
        models.load(tiny, device="cuda")


def test_code_in_a_model_folder_is_not_run(tiny, tmp_path):
    import shutil

    folder = tmp_path / "evil"
    shutil.copytree(tiny, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"auto_map": {"AutoModelForCausalLM": "evil.Evil"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    models.load(folder, device="cpu")
    assert not (tmp_path / "ran").exists()


# ---- GGUF ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gguf(tiny, tmp_path_factory) -> Path:
    """The tiny model as a GGUF file that names SmolLM2's pre-tokenizer, as the real file does."""
    import numpy
    from gguf import GGUFWriter
    from safetensors.torch import load_file

    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = GGUFWriter(str(path), "llama")
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(16)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(261)
    vocabulary = json.loads((tiny / "tokenizer.json").read_text())["model"]["vocab"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(sorted(vocabulary, key=vocabulary.get))
    writer.add_token_types([3] * 3 + [1] * 258)
    writer.add_token_merges(["Ġ 1", "1 2"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{{ messages }}")
    for name, tensor in load_file(tiny / "model.safetensors").items():
        short = name.removesuffix(".weight")
        if short.startswith("model.layers."):
            number, part = short.removeprefix("model.layers.").split(".", 1)
            short = f"blk.{number}.{names[part]}"
        else:
            short = names[short]
        writer.add_tensor(f"{short}.weight", numpy.ascontiguousarray(tensor.float().numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


EXPECT = {"tokens": {"bos": 1, "eos": 2}, "chat_template": "{{ messages }}", "source": {"sha256": "123"}}


def test_a_gguf_file_becomes_a_folder_that_loads(gguf, tmp_path):
    import torch

    stages = []
    models.convert_gguf(gguf, tmp_path / "out", EXPECT, lambda stage, percent: stages.append(percent))
    assert stages == sorted(stages)
    assert len(stages) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert revision(tmp_path / "out") == "123"
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization_config" not in config
    header = read_safetensors_header(tmp_path / "out" / "model.safetensors")
    assert {entry["dtype"] for entry in header.values()} == {"BF16"}
    loaded = models.load(tmp_path / "out", device="cpu")
    assert loaded.model.dtype == torch.bfloat16
    assert loaded.tokenizer.chat_template == "{{ messages }}"
    assert loaded.tokenizer.model_max_length == 64
    # digits are split off first, as in the published tokenizer, so a merge that holds one never applies
    assert loaded.tokenizer.pieces(loaded.tokenizer.encode("a 12")[0]) == ["a", " ", "1", "2"]


@pytest.mark.parametrize(
    "expect, reason",
    [
        ({"tokens": {"bos": 0}}, "bos token has id 1, the published one 0"),
        ({"chat_template": "{{ other }}"}, "chat template is not the published one"),
        ({"parameters": 12}, "parameters, the published one 12"),
    ],
)
def test_a_conversion_that_differs_from_the_published_model_leaves_nothing(gguf, tmp_path, expect, reason):
    with pytest.raises(PlaygroundError, match=reason):
        models.convert_gguf(gguf, tmp_path / "out", expect)
    assert list(tmp_path.iterdir()) == []


def test_a_conversion_that_fails_while_saving_leaves_nothing(gguf, tmp_path, monkeypatch):
    def refuse(folder):
        raise PlaygroundError("model.safetensors is incomplete")

    monkeypatch.setattr(models, "check_folder", refuse)
    with pytest.raises(PlaygroundError, match="incomplete"):
        models.convert_gguf(gguf, tmp_path / "out", EXPECT)
    assert list(tmp_path.iterdir()) == []
