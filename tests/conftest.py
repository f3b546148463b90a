"""Tokenizers built in the process: no network, no files of anybody's, a tenth of a second."""

import gc
import json
import os
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from playground.core.tokenizer import Tokenizer

# Before torch: nothing here is compiled, and bitsandbytes would load the whole compiler with itself.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
# While everything is imported nothing becomes garbage, and looking for it takes seconds.
gc.disable()

# Folders whose tests carry the folder's name as a marker, and run only where `-m` asks for them.
SUITES = ("integration", "real_model", "browser")
HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path, config):
    """What `-m` leaves out is not even imported."""
    name, wanted = collection_path.name, config.option.markexpr
    left_out = f"not {name}" in wanted or (wanted in SUITES and name != wanted)
    return True if left_out and collection_path.parent == HERE else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """`-n 2` gives each process half of the files, so that what a file's tests share is made once."""
    if config.option.dist == "load":
        from xdist.scheduler import WorkStealingScheduling

        return WorkStealingScheduling(config, log)
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        suite = item.path.relative_to(HERE).parts[0]
        if suite in SUITES:
            item.add_marker(suite)


def pytest_collection_finish():
    """What was imported and collected stays: a look through those million objects costs a quarter of a second."""
    gc.freeze()
    gc.enable()


CORPUS = [
    "The capital of France is Paris. What is 23 * 47? It is 1081.",
    '{"name": "calculator", "arguments": {"expression": "23 * 47"}}',
    "system user assistant tool Instruction Response Question Final_Answer\n\nBelow is an instruction",
    "Write a response that appropriately completes the request. おはようございます ☀️ ¿Qué tal?",
] * 4


def byte_level() -> tokenizers.Tokenizer:
    """A byte-level BPE with ChatML's special tokens, as SmolLM2 has; `<tool_call>` is added but not special."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.add_tokens([tokenizers.AddedToken("<tool_call>", special=False)])
    return backend


def metaspace() -> tokenizers.Tokenizer:
    """A SentencePiece-like BPE with byte fallback and `<s>`, as Llama-2 has: a space before the text's first word."""
    backend = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))],
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    state = json.loads(backend.to_str())
    state["added_tokens"] = state["added_tokens"][:3]  # the byte pieces are ordinary vocabulary
    return tokenizers.Tokenizer.from_str(json.dumps(state))


TOKENIZERS = {
    "byte-level": (byte_level, {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}),
    "metaspace": (metaspace, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}),
}
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' "
    "+ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="session")
def tokenizer_folders(tmp_path_factory):
    """A model folder without weights for each of TOKENIZERS, by name."""
    folders = {}
    for name, (build, variables) in TOKENIZERS.items():
        folder = folders[name] = tmp_path_factory.mktemp(name)
        build().save(str(folder / "tokenizer.json"))
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **variables}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        (folder / "chat_template.jinja").write_text(CHATML)
    return folders


@pytest.fixture(scope="session")
def tokenizer_folder(tokenizer_folders):
    return tokenizer_folders["byte-level"]


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder) -> Tokenizer:
    """The byte-level tokenizer with ChatML's special tokens and an unmarked ChatML template of its own."""
    return Tokenizer.load(tokenizer_folder)
