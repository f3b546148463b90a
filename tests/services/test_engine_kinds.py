"""What runs of every method leave behind, as lanes beside their base; and models that make way for a run."""

import json
import os
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model

from playground.config import Paths, SamplingConfig
from playground.core import models
from playground.core.tokenizer import Tokenizer
from playground.core.training.methods import add_tokens, save_tokenizer
from playground.errors import PlaygroundError
from playground.services import engine as engine_module
from playground.services.engine import Engine, Lane
from playground.services.runs import Events, Run, note_process, take_chat_memory, write_json
from playground.services.sources import Sources
from tests.services.test_engine import CHATML, ask, finish, tiny_model, write_tokenizer

GREEDY = SamplingConfig(temperature=0, repetition_penalty=1.0, max_new_tokens=12)
TARGETS = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}
# the template puts the new token into every prompt
THINKING = CHATML.replace("assistant\n", "assistant\n<think>")


def run(home, name, base, made):
    """A finished run whose `made` folder (adapter or model) is still to be written."""
    folder = home / "runs" / name
    (folder / made).mkdir(parents=True)
    write_json(folder / "config.json", {"model": str(base), "name": name})
    (folder / "events.jsonl").write_text(
        json.dumps({"kind": "state", "time": 1.0, "state": "finished", "sentence": "", "reason": ""}) + "\n"
    )
    return folder / made


def about(folder, base, template=CHATML):
    write_json(folder / "playground.json", {"base_model": str(base), "template_text": template})


def randomised(model, scale=0.4):
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "magnitude" in name:
                parameter.mul_(torch.empty_like(parameter).uniform_(0.5, 1.5))
            elif parameter.requires_grad:
                parameter.normal_(0, scale)
    return model


def with_new_token(base):
    model, tokenizer = tiny_model(), Tokenizer.load(base)
    ids = add_tokens(model, tokenizer, ("<think>",))
    return model, tokenizer, ids


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    base = home / "tiny"
    tiny_model().save_pretrained(base)
    write_tokenizer(base)
    adapters = {
        "dora": LoraConfig(**TARGETS, use_dora=True),
        "soft": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=20),
    }
    for name, config in adapters.items():
        folder = run(home, name, base, "adapter")
        randomised(get_peft_model(tiny_model(), config)).save_pretrained(folder)
        about(folder, base)
    model, tokenizer, ids = with_new_token(base)
    folder = run(home, "tokens", base, "adapter")
    config = LoraConfig(**TARGETS, trainable_token_indices={"model.embed_tokens": ids, "lm_head": ids})
    randomised(get_peft_model(model, config)).save_pretrained(folder, save_embedding_layers=False)
    save_tokenizer(tokenizer, folder, base)
    about(folder, base, THINKING)
    folder = run(home, "full", base, "model")
    write_whole(folder, base, 0.2)
    return home


def write_whole(folder, base, scale):
    randomised(tiny_model(), scale).save_pretrained(folder)
    write_tokenizer(folder)
    about(folder, base)


@pytest.fixture
def engine(home):
    engine = Engine(Sources(Paths(home), folders=[]), Paths(home), dtype="float32")
    yield engine
    engine.close()


def tuned(home, name):
    """The model as peft or transformers loads it."""
    base = home / "tiny"
    if name == "full":
        return models.load(home / "runs/full/model", "float32", "cpu").model
    model = with_new_token(base)[0] if name == "tokens" else tiny_model()
    return PeftModel.from_pretrained(model, home / "runs" / name / "adapter").eval() if name else model.eval()


def test_every_method_of_a_run_is_a_lane_beside_its_base(engine, home):
    names = [None, "dora", "soft", "tokens", "full"]
    lanes = [Lane(str(home / "tiny"), adapter=name, sampling=GREEDY) for name in names]
    replies = engine.replies([(lane, ask()) for lane in lanes])
    finish(*replies)
    for name, reply in zip(names, replies, strict=True):
        ids, model = list(reply.prompt.ids), tuned(home, name)
        with torch.inference_mode():
            for token in reply.ids:
                assert int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()) == token, name
                ids.append(token)
    assert len({reply.text for reply in replies}) == len(names)
    assert 258 in replies[3].prompt.ids  # the token that only this adapter knows
    assert sorted(engine.models()) == sorted(["full (all weights)", str(home / "tiny")])
    assert (engine.state(str(home / "tiny"), "full"), engine.state(str(home / "tiny"))) == ("ready", "ready")
    assert [info.name for info in engine.adapters() if info.whole] == ["full"]


def test_a_full_fine_tune_takes_room_of_its_own(home):
    size = engine_module.weights_size(home / "tiny")
    engine = Engine(Sources(Paths(home), folders=[]), Paths(home), dtype="float32", budget=int(1.5 * size))
    lane = Lane(str(home / "tiny"), adapter="full", sampling=GREEDY)
    try:
        finish(engine.reply(Lane(str(home / "tiny"), sampling=GREEDY), ask()))
        finish(engine.reply(lane, ask()))
        assert engine.models() == ["full (all weights)"]
        engine.unload("full (all weights)")
        assert engine.models() == []
    finally:
        engine.close()


def test_a_full_fine_tune_that_was_written_again_is_loaded_again(engine, home):
    lane = Lane(str(home / "tiny"), adapter="full", sampling=GREEDY)
    folder = home / "runs/full/model"
    before = finish(engine.reply(lane, ask()))[0]
    written = (folder / "model.safetensors").read_bytes()
    try:
        write_whole(folder, home / "tiny", 0.3)
        os.utime(folder / "model.safetensors", ns=(1, 1))
        assert finish(engine.reply(lane, ask()))[0] != before
    finally:
        (folder / "model.safetensors").write_bytes(written)


def test_an_adapter_that_was_written_again_takes_the_place_of_the_older_one(engine, home):
    lane = Lane(str(home / "tiny"), adapter="dora", sampling=GREEDY)
    for time in (1, 2):
        os.utime(home / "runs/dora/adapter/adapter_model.safetensors", ns=(time, time))
        finish(engine.reply(lane, ask()))
        assert list(engine._decoders[str(home / "tiny")].bank.adapters) == [f"dora@{time}"]


def test_a_soft_prompt_counts_towards_the_context(engine, home):
    lane = Lane(str(home / "tiny"), sampling=GREEDY)
    long = ask("x" * (200 - 12 - 20 - len(engine.prompt(lane, ask("x")).ids) + 2))
    engine.prompt(lane, long)
    with pytest.raises(
        PlaygroundError, match="tokens after a soft prompt of 20 and the reply may take 12; .* reads 200"
    ):
        engine.prompt(Lane(str(home / "tiny"), adapter="soft", sampling=GREEDY), long)


def test_a_soft_prompt_of_another_width_is_refused_before_anything_runs(engine, home, tmp_path):
    other = tmp_path / "tiny"
    tiny_model(hidden_size=64).save_pretrained(other)
    write_tokenizer(other)
    with pytest.raises(PlaygroundError, match="its soft prompt is 32 wide, the model's embeddings are 64"):
        engine.reply(Lane(str(other), adapter="soft", sampling=GREEDY), ask())
    assert engine.models() == []


def test_models_that_are_loaded_at_once_leave_transformers_as_it_was(home, tmp_path):
    from transformers import PreTrainedModel

    before = PreTrainedModel.tie_weights
    folders = [tmp_path / str(number) for number in range(4)]
    for folder in folders:
        shutil.copytree(home / "tiny", folder)
    engine = Engine(Sources(Paths(home), folders=[]), Paths(home), dtype="float32")
    try:
        for _ in range(3):
            finish(*engine.replies([(Lane(str(folder), sampling=GREEDY), ask()) for folder in folders]))
            engine.close()
        assert PreTrainedModel.tie_weights is before
    finally:
        engine.close()
        PreTrainedModel.tie_weights = before


# ---- making way for a run ----------------------------------------------------------------------------------------


@pytest.fixture
def live(home):
    """A run that is live, as this process, and that the chat's models make way for."""
    folder = run(home, "big", home / "tiny", "adapter").parent
    Events(folder).state("running")
    note_process(folder)
    take_chat_memory(Run(folder))
    yield folder
    shutil.rmtree(folder)


def test_models_make_way_for_a_run_and_load_again_after_it(engine, home, live):
    lane = Lane(str(home / "tiny"), sampling=GREEDY)
    Events(live).state("finished")
    before = finish(engine.reply(lane, ask()))
    Events(live).state("running")
    engine.make_way("big").join(20)
    assert engine.models() == []
    with pytest.raises(
        PlaygroundError, match="have made way for the run big, .* load again at the first question after"
    ):
        engine.reply(lane, ask())
    engine.warm(str(home / "tiny"))  # as when the app is started again
    assert engine.models() == []
    Events(live).state("finished")
    assert engine.resting() == ""
    assert finish(engine.reply(lane, ask())) == before


@pytest.mark.parametrize(("grace", "reason"), [(20, "length"), (0, "error")])
def test_a_reply_is_let_finish_or_told_why_it_was_cut_off(engine, home, grace, reason):
    lane = Lane(str(home / "tiny"), sampling=SamplingConfig(temperature=0, max_new_tokens=150, repetition_penalty=1.0))
    reply = engine.reply(lane, ask())
    while not reply.ids:
        reply.wait(0.01)
    engine.make_way("big", grace).join(20)
    assert (engine.models(), reply.finish_reason) == ([], reason)
    assert reply.error == (None if reason == "length" else CUT_OFF)


CUT_OFF = "stopped, because the model made way for the run big; ask again when the run has ended"
