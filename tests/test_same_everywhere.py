"""One rendering, everywhere: what the page shows is what the trainer trains on, and what the chat sends begins it.

For every built-in template and the model's own, every built-in example and each of the test tokenizers, through the
functions that the page's handlers, the trainer and the chat engine themselves call.
"""

import json
import re
import shutil
from types import SimpleNamespace

import pytest

from playground.config import Paths, TrainConfig
from playground.core import datasets, templates
from playground.core.messages import Conversation
from playground.core.tokenizer import Tokenizer
from playground.core.training import collate
from playground.errors import PlaygroundError
from playground.services.datasets import Datasets
from playground.services.engine import Engine, Lane
from playground.services.templates import Templates
from playground.ui import preview_tab
from playground.ui.lab.browse import example_text
from playground.ui.lab.cards import TOKENS
from playground.ui.lab.shared import Reader

NAMES = [*templates.names(), templates.MODEL]
SAMPLES = datasets.samples()
CHIP = re.compile(r'<span class="r ([^"]*)" title="id (\d+) ')


@pytest.fixture(scope="module", params=["byte-level", "metaspace"])
def place(request, tokenizer_folders, tmp_path_factory):
    """An engine and a page's reader over one model folder; the engine reads a config for the context's length."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    shutil.copytree(tokenizer_folders[request.param], folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 100_000}))
    entry = SimpleNamespace(name="tiny", title="Tiny", context=0)
    sources = SimpleNamespace(find=lambda name: folder, entries=lambda: [entry], entry=lambda name: entry)
    paths = Paths(tmp_path_factory.mktemp("home"))
    services = SimpleNamespace(sources=sources, datasets=Datasets(paths), templates=Templates(paths))
    return SimpleNamespace(engine=Engine(sources, paths), reader=Reader(services, Tokenizer.load), folder=folder)


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("name", NAMES)
def test_preview_trainer_and_chat_see_the_same_tokens(place, name, sample):
    conversation = SAMPLES[sample]
    page, _ = preview_tab.draw(place.reader, example_text(conversation), [name], TOKENS, "tiny", False, False)
    chips = CHIP.findall(page)
    shown_ids = [int(id) for _, id in chips]
    shown_mask = ["trained" in kind.split() for kind, _ in chips]

    tokenizer = Tokenizer.load(place.folder)
    template = place.reader.services.templates.load(name, tokenizer)
    config = TrainConfig(model="tiny", template=name, eval_share=0.0, max_length=100_000)
    if not any(shown_mask):
        with pytest.raises(PlaygroundError):
            collate.prepare(config, [conversation], template, tokenizer)
        return
    (row,) = collate.prepare(config, [conversation], template, tokenizer).train
    assert list(row.ids) == shown_ids
    assert [label != collate.IGNORE for label in row.labels] == shown_mask
    assert [label for label in row.labels if label != collate.IGNORE] == [
        id for id, trained in zip(shown_ids, shown_mask, strict=True) if trained
    ]

    last = max(i for i, message in enumerate(conversation.messages) if message["role"] == "assistant")
    before = Conversation(conversation.messages[:last], conversation.tools, conversation.variables)
    prompt = place.engine.prompt(Lane(model="tiny", template=name, sanitize=False), before)
    assert shown_ids[: len(prompt.ids)] == prompt.ids
    assert not shown_mask[len(prompt.ids) - 1]
    assert shown_mask[len(prompt.ids)]
