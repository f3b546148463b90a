"""The merged model as GGUF in a real llama.cpp: the same greedy tokens as base and adapter in transformers."""

import os
import shutil

import pytest

from playground.config import ASSETS, Paths, TrainConfig
from playground.core import templates
from playground.core.messages import Conversation
from playground.core.tokenizer import Tokenizer
from playground.errors import PlaygroundError
from playground.services import exports, runs
from playground.services.runs import Events
from playground.services.sources import Sources
from playground.services.templates import Templates

NAME = "smollm2-135m-instruct"
COUNT = 24
PROMPTS = ("What is 23 * 47?", "Name three primary colours.")


@pytest.fixture
def converter():
    try:
        exports.check_converter(script := exports.find_converter())
    except PlaygroundError as error:
        pytest.skip(str(error))
    return script


def test_llama_cpp_writes_what_we_write(converter, tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: pip install -e '.[bench]'")
    import torch
    from peft import PeftModel

    from playground.core import models
    from playground.services.merging import greedy

    folder = Sources(Paths()).get(NAME)
    paths = Paths(tmp_path)
    run = runs.create(TrainConfig(name="mine", model=str(folder), dtype="float32"), paths)
    shutil.copytree(ASSETS / "adapters" / "tool-calling", run.folder / "adapter")
    Events(run.folder).state("finished", "")
    *_, made = exports.Exporter(paths, Sources(paths)).make("gguf", run)

    tokenizer = Tokenizer.load(folder)
    template = Templates(paths).load(run.about.get("template_name", "chatml-tools"), tokenizer)
    loaded = models.load(folder, "float32", "cpu")
    tuned = PeftModel.from_pretrained(loaded.model, run.folder / "adapter").eval()
    llama = llama_cpp.Llama(
        str(made.path), n_ctx=512, n_threads=min(2, os.cpu_count() or 1), logits_all=False, verbose=False
    )
    for prompt in PROMPTS:
        asked = Conversation([{"role": "user", "content": prompt}])
        ids = templates.render(template, asked, tokenizer, add_generation_prompt=True, spans=False).ids
        text = tokenizer.decode(ids)
        assert llama.tokenize(text.encode(), add_bos=False, special=True) == ids
        ours = greedy(tuned, ids, COUNT)
        llama.reset()
        theirs = []
        for token in llama.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0):
            theirs.append(token)
            if len(theirs) == COUNT:
                break
        assert theirs == ours, (tokenizer.decode(theirs), tokenizer.decode(ours))
        with torch.inference_mode(), tuned.disable_adapter():
            assert greedy(tuned, ids, COUNT) != ours or prompt != PROMPTS[0]  # the adapter does something
