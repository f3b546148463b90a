"""Every kind of adapter in one running batch: greedy tokens equal those of peft's own forward passes (fp32, exact)."""

import shutil

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, PromptTuningConfig, get_peft_model

from playground.core.adapters import AdapterBank
from playground.core.generation import Batch, Row, Sampler
from playground.core.prefixes import Prefixes
from playground.core.training.loss import embedded, keep_soft_prompt, soft_prompt
from playground.errors import PlaygroundError
from tests.core.test_generation import GREEDY, LONG, SHORT, tiny_model

NEW = [40, 101, 102]  # a token that the model knows, and two past its vocabulary
ENDS = {"model.embed_tokens": NEW, "lm_head": NEW}
LORA = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}
BIASED = {"attention_bias": True}
KINDS = {
    "plain": LoraConfig(**LORA),
    "dora": LoraConfig(**LORA, use_dora=True),
    "dora, some layers": LoraConfig(r=2, target_modules=["q_proj", "v_proj", "down_proj"], use_dora=True),
    "tokens": LoraConfig(**LORA, trainable_token_indices=ENDS),
    "dora and tokens": LoraConfig(**LORA, use_dora=True, trainable_token_indices=ENDS),
    "soft": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
    "longer soft": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=40),
}


def grown(model, kind):
    if getattr(KINDS.get(kind), "trainable_token_indices", None):
        model.resize_token_embeddings(max(NEW) + 1, mean_resizing=False)
    return model


def save(folder, kind, seed, **changes):
    torch.manual_seed(seed)
    model = get_peft_model(grown(tiny_model(**changes), kind), KINDS[kind])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                parameter.normal_(0, 0.4)
            elif "magnitude" in name:
                parameter.mul_(torch.empty_like(parameter).uniform_(0.5, 1.5))
            elif parameter.requires_grad:
                parameter.normal_(0, 1.0)
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


def said_by_peft(folder, kind, prompt, count, **changes):
    """Each token by a forward pass over everything before it; peft's generate takes no soft prompt (5.24)."""
    model = PeftModel.from_pretrained(grown(tiny_model(**changes), kind), folder).eval()
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(count):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    home = tmp_path_factory.mktemp("kinds")
    return {kind: save(home / kind, kind, seed) for seed, kind in enumerate(KINDS)}


@pytest.fixture(scope="module")
def bank(folders):
    bank = AdapterBank(tiny_model())
    for kind, folder in folders.items():
        bank.load(kind, folder)
    return bank


def decoded(batch, rows, count):
    said = [[token] for token in batch.add(rows)]
    for _ in range(count - 1):
        for tokens, token in zip(said, batch.step()[-len(rows) :], strict=True):
            tokens.append(token)
    return said


def row(prompt, kind):
    return Row(prompt, kind, Sampler(GREEDY))


def test_all_kinds_in_one_batch_say_what_peft_says(bank, folders):
    asked = [(prompt, kind) for kind in (None, *KINDS) for prompt in (LONG, SHORT)]
    said = decoded(Batch(bank.model, bank), [row(*one) for one in asked], 12)
    for (prompt, kind), tokens in zip(asked, said, strict=True):
        if kind:
            assert tokens == said_by_peft(folders[kind], kind, prompt, 12), kind
    untouched = AdapterBank(tiny_model())
    assert said[0] == decoded(Batch(untouched.model, untouched), [row(LONG, None)], 12)[0]
    assert len({tuple(tokens) for tokens in said[::2]}) == len(KINDS) + 1
    assert {token for tokens in said for token in tokens if token > 100} == {101, 102}


def test_rows_of_all_kinds_join_and_leave(bank, folders):
    batch = Batch(bank.model, bank)
    first = decoded(batch, [row(LONG, "soft"), row(SHORT, "tokens"), row(SHORT, "dora")], 3)
    batch.keep([1, 2])
    joined = decoded(batch, [row(SHORT, "longer soft"), row(LONG, None)], 6)
    assert joined[0] == said_by_peft(folders["longer soft"], "longer soft", SHORT, 6)
    assert first[1] == said_by_peft(folders["tokens"], "tokens", SHORT, 3)
    batch.keep([0])
    last = [batch.step()[0] for _ in range(3)]
    assert last == said_by_peft(folders["tokens"], "tokens", SHORT, 3 + 5 + 3)[-3:]


def test_lora_behind_a_soft_prompt_says_what_it_said_in_training(folders, tmp_path):
    folder = tmp_path / "both"
    shutil.copytree(folders["dora"], folder)
    shutil.copytree(folders["soft"], folder / "soft_prompt")
    bank = AdapterBank(tiny_model())
    bank.load("both", folder)
    said = decoded(Batch(bank.model, bank), [row(LONG, "both"), row(SHORT, None), row(SHORT, "both")], 8)
    model = PeftModel.from_pretrained(tiny_model(), folders["dora"]).eval()
    keep_soft_prompt(model, bank.adapters["both"].soft)
    for prompt, tokens in ((LONG, said[0]), (SHORT, said[2])):
        ids = list(prompt)
        with torch.inference_mode():
            for _ in range(8):
                inputs = embedded(model, torch.tensor([ids]), soft_prompt(model))
                ids.append(int(model.base_model(**inputs).logits[0, -1].argmax()))
        assert tokens == ids[len(prompt) :]


@pytest.mark.parametrize("kind", ["longer soft", "tokens"])
def test_what_was_read_before_is_found_again_under_the_same_adapter(bank, folders, kind):
    batch = Batch(bank.model, bank, Prefixes())
    history = (LONG * 4) + [101 if kind == "tokens" else 7, 3]
    said = decoded(batch, [row(history, kind)], 4)[0]
    batch.keep([])
    again = row(history + said + SHORT, kind)
    assert decoded(batch, [again], 4)[0] == said_by_peft(folders[kind], kind, again.prompt_ids, 4)
    assert again.reused >= len(history)
    other = row([min(token, 100) for token in history], "plain")
    batch.add([other])
    assert other.reused == 0


@pytest.mark.parametrize(
    "kind, changes", [("dora", BIASED), ("tokens", {"tie_word_embeddings": True}), ("dora and tokens", BIASED)]
)
def test_models_with_biases_and_tied_heads(tmp_path, kind, changes):
    folder = save(tmp_path / "a", kind, 9, **changes)
    model = tiny_model(**changes)
    torch.manual_seed(3)
    biases = {n: torch.randn_like(p) / 10 for n, p in model.named_parameters() if n.endswith("bias")}

    def base():
        model = tiny_model(**changes)
        model.load_state_dict(biases, strict=False)
        return model

    bank = AdapterBank(base())
    bank.load(kind, folder)
    said = decoded(Batch(bank.model, bank), [row(LONG, None), row(LONG, kind)], 10)
    tuned = PeftModel.from_pretrained(grown(base(), kind), folder).eval()
    ids = list(LONG)
    with torch.inference_mode():
        for _ in range(10):
            ids.append(int(tuned(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    assert said[1] == ids[len(LONG) :] != said[0]


def test_without_own_tokens_and_dora_nothing_is_added_to_a_step(bank):
    bank.use([None, "plain"])
    assert bank.own.active == []
    assert all(group.stretch is None for group in bank.groups)


@pytest.mark.parametrize(
    "config, changes, sentence",
    [
        (IA3Config(target_modules=["k_proj"], feedforward_modules=[]), {}, "is IA3; lanes take LoRA, DoRA and soft"),
        (LoraConfig(**LORA, modules_to_save=["lm_head"]), {}, "is one with whole modules"),
        (KINDS["soft"], {"hidden_size": 64}, "its soft prompt is 32 wide, and this model's embeddings are 64"),
    ],
)
def test_what_cannot_be_served_is_refused(tmp_path, config, changes, sentence):
    get_peft_model(tiny_model(), config).save_pretrained(tmp_path / "odd")
    bank = AdapterBank(tiny_model(**changes))
    with pytest.raises(PlaygroundError, match=sentence):
        bank.load("odd", tmp_path / "odd")
    assert bank.adapters == {}


def test_a_model_with_a_second_table_of_tokens_is_refused(folders):
    model = tiny_model()
    model.per_layer = torch.nn.Embedding(101, 2)
    bank = AdapterBank(model)
    with pytest.raises(PlaygroundError, match="looks tokens up in a second table \\(per_layer\\)"):
        bank.load("soft", folders["soft"])
    bank.load("dora", folders["dora"])
    assert list(bank.adapters) == ["dora"]
