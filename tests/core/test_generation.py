"""The batch: rows come and go, each with its own adapter, and none notices the others (fp32, exact)."""

import numpy
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from playground.config import SamplingConfig
from playground.core import adapters
from playground.core.adapters import AdapterBank, layers_by_input
from playground.core.generation import Batch, Row, Sampler, StopWatcher
from playground.errors import PlaygroundError

GREEDY = SamplingConfig(temperature=0, repetition_penalty=1.0)
SHORT, LONG = [5, 9, 2], [7, 3, 11, 60, 21, 44, 8, 15, 90, 33]


def tiny_model(**changes) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=101, num_hidden_layers=2, max_position_embeddings=256, **(sizes | changes))
    return LlamaForCausalLM(config).float().eval()


def save_adapter(folder, seed: int, **options):
    """A PEFT adapter with random, non-zero matrices, large enough to change what the model says."""
    torch.manual_seed(seed)
    config = LoraConfig(**({"r": 4, "lora_alpha": 8, "target_modules": "all-linear"} | options))
    model = get_peft_model(tiny_model(), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.5)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    home = tmp_path_factory.mktemp("adapters")
    return {
        "a": save_adapter(home / "a", 1),
        "b": save_adapter(home / "b", 2, r=2, target_modules=["q_proj", "down_proj"], use_rslora=True),
    }


@pytest.fixture(scope="module")
def bank(folders):
    bank = AdapterBank(tiny_model())
    for name, folder in folders.items():
        bank.load(name, folder)
    return bank


def row(prompt, adapter=None):
    return Row(prompt, adapter, Sampler(GREEDY))


def alone(bank, prompt, adapter, count):
    batch = Batch(bank.model, bank)
    tokens = batch.add([row(prompt, adapter)])
    for _ in range(count - 1):
        tokens += batch.step()
    return tokens


@pytest.mark.parametrize("name", [None, "a", "b"])
def test_a_row_alone_equals_transformers_and_peft(bank, folders, name):
    from peft import PeftModel

    model = tiny_model()
    if name:
        model = PeftModel.from_pretrained(model, folders[name]).eval()
    expected = model.generate(
        input_ids=torch.tensor([LONG]), max_new_tokens=20, do_sample=False, eos_token_id=None, pad_token_id=0
    )[0, len(LONG) :].tolist()
    assert alone(bank, LONG, name, 20) == expected


def test_adapters_change_what_is_said(bank):
    said = {tuple(alone(bank, LONG, name, 12)) for name in (None, "a", "b")}
    assert len(said) == 3


@pytest.mark.parametrize("few", [0, adapters.FEW])
def test_rows_that_join_and_leave_say_what_they_say_alone(bank, few, monkeypatch):
    monkeypatch.setattr(adapters, "FEW", few)  # one matrix for all rows, or one for each
    asked = [(LONG, None), (SHORT, "a"), (SHORT, "b"), (LONG, "a"), (SHORT, None), (LONG, "b")]
    said: dict[int, list[int]] = {}
    batch = Batch(bank.model, bank)

    def join(*numbers):
        rows = [row(*asked[number]) for number in numbers]
        for number, entry in zip(numbers, rows, strict=True):
            entry.tag = number
        for number, token in zip(numbers, batch.add(rows), strict=True):
            said[number] = [token]

    def steps(count):
        for _ in range(count):
            rows = list(batch.rows)
            for entry, token in zip(rows, batch.step(), strict=True):
                said[entry.tag].append(token)

    join(0, 1)
    steps(4)
    join(2, 3)  # mid-way, two at once
    steps(5)
    batch.keep([i for i, entry in enumerate(batch.rows) if entry.tag not in (0, 3)])  # the longest rows leave
    steps(3)
    join(4)
    steps(2)
    batch.keep([2])
    join(5)
    steps(150)  # past the cache's spare room
    assert {number: len(tokens) for number, tokens in said.items()} == {0: 10, 1: 15, 2: 11, 3: 6, 4: 153, 5: 151}
    for number, tokens in said.items():
        assert tokens == alone(bank, *asked[number], len(tokens)), f"row {number}"


class Only:
    """A guide that allows a few tokens, and says what was chosen."""

    def __init__(self, *allowed):
        self.tokens, self.chosen = list(allowed), []

    def allowed(self):
        mask = numpy.zeros(90, dtype=bool)  # the model's head has 101
        mask[self.tokens] = True
        return mask

    def accept(self, token):
        self.chosen.append(token)


def test_a_guide_holds_its_own_row_and_no_other(bank):
    guide = Only(17, 60)
    batch = Batch(bank.model, bank)
    held = Row(LONG, "a", Sampler(GREEDY), guide=guide)
    said = [batch.add([row(LONG, "a"), held, row(SHORT)])]
    said += [batch.step() for _ in range(9)]
    first, second, third = (list(tokens) for tokens in zip(*said, strict=True))
    assert (first, third) == (alone(bank, LONG, "a", 10), alone(bank, SHORT, None, 10))
    assert second == guide.chosen != first
    assert set(second) <= {17, 60}


@pytest.mark.parametrize("settings", [{"temperature": 1.5, "top_p": 1.0}, {"top_k": 5}, {"min_p": 0.1}])
def test_a_guide_holds_where_tokens_are_drawn(settings):
    sampler = Sampler(SamplingConfig(**{"temperature": 1.0, "top_p": 0.9, "repetition_penalty": 1.3} | settings))
    held = Row([], None, sampler, guide=Only(3, 4))
    logits = torch.arange(0, 101).float()
    assert {held.choose(logits) for _ in range(50)} <= {3, 4}


def test_leaving_rows_free_the_positions_nobody_needs(bank):
    batch = Batch(bank.model, bank)
    batch.add([row(LONG), row(SHORT)])
    batch.keep([1])
    assert batch.mask.tolist() == [[1, 1, 1]]
    assert batch.cache.layers[0].keys.shape[2] == len(SHORT)


def test_layers_that_read_the_same_input_are_joined_without_a_second_copy():
    model = tiny_model()
    names = [sorted(name.rsplit(".", 1)[1] for name in group) for group in layers_by_input(model)]
    assert names == [["k_proj", "q_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]] * 2
    before = model(input_ids=torch.tensor([LONG])).logits
    AdapterBank(model)
    attention = model.model.layers[0].self_attn
    assert attention.q_proj.weight.untyped_storage().data_ptr() == attention.v_proj.weight.untyped_storage().data_ptr()
    torch.testing.assert_close(model(input_ids=torch.tensor([LONG])).logits, before, rtol=0, atol=1e-6)


def test_an_adapter_for_another_model_is_refused(folders):
    other = AdapterBank(tiny_model(hidden_size=64))
    with pytest.raises(
        PlaygroundError, match="expects model.layers.0.mlp.down_proj to be 48 → 32, this model has 48 → 64"
    ):
        other.load("a", folders["a"])


# ---- sampling -----------------------------------------------------------------------------------------------------


def draws(logits, count=400, **settings):
    sampler = Sampler(SamplingConfig(**({"repetition_penalty": 1.0, "temperature": 1.0, "top_p": 1.0} | settings)))
    sampled = []
    for _ in range(count):
        sampler.seen.clear()
        sampled.append(sampler(torch.tensor(logits)))
    return sampled


@pytest.mark.parametrize(
    "settings, kept",
    [
        ({"temperature": 0}, {3}),
        ({"top_k": 1}, {3}),
        ({"top_k": 2}, {3, 1}),
        ({"top_p": 0.5}, {3}),  # 0.64 of the mass is on token 3
        ({"top_p": 0.7}, {3, 1}),
        ({"min_p": 0.2}, {3, 1}),
        ({"top_p": 1.0}, {0, 1, 2, 3}),
    ],
)
def test_filters_keep_the_tokens_they_should(settings, kept):
    assert set(draws([0.0, 2.0, 0.5, 3.0], **settings)) == kept


@pytest.mark.parametrize("unlikely", [0, 3000])
def test_frequencies_follow_the_softmax_past_the_first_candidates(unlikely):
    """Flat: the likeliest 512 hold a quarter of the mass; with `unlikely` more, not all have to be sorted."""
    logits = torch.cat([torch.full((unlikely,), -30.0), torch.zeros(2000)])
    sampled = draws(logits.tolist(), count=800, top_p=0.99)
    assert len(set(sampled)) > 550
    assert min(sampled) >= unlikely


def test_frequencies_follow_the_softmax_without_a_filter():
    sampled = draws([1.0, 0.0], count=4000)
    assert sampled.count(0) / 4000 == pytest.approx(1 / (1 + torch.exp(torch.tensor(-1.0)).item()), abs=0.03)


def test_same_seed_same_tokens():
    logits = torch.randn(300, generator=torch.Generator().manual_seed(1)).tolist()
    assert draws(logits, 20, seed=7) == draws(logits, 20, seed=7) != draws(logits, 20, seed=8)


def test_repetition_penalty_makes_seen_tokens_less_likely():
    sampler = Sampler(SamplingConfig(temperature=0, repetition_penalty=2.0), prompt_ids=[0])
    assert [sampler(torch.tensor([3.0, 2.0, 1.0])) for _ in range(3)] == [1, 0, 0]
    negative = Sampler(SamplingConfig(temperature=0, repetition_penalty=2.0), prompt_ids=[0])
    assert negative(torch.tensor([-1.0, -1.5])) == 1


# ---- stop strings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pieces, shown, stopped",
    [
        (["Hello"], "Hello", False),
        (["Hello<|im", "_end|>junk"], "Hello", True),
        (["a<", "b<|im_end|", "x"], "a<b<|im_end|x", False),
        (["Paris\nUs", "er", ": and"], "Paris\n", True),
        (["<|im_end|>"], "", True),
        (["one<|im_end|>two\nUser:"], "one", True),
    ],
)
def test_stop_strings_may_span_pieces(pieces, shown, stopped):
    watcher = StopWatcher(["<|im_end|>", "User:", ""])
    text = "".join(watcher.feed(piece) for piece in pieces)
    assert (text + watcher.flush(), watcher.stopped) == (shown, stopped)
    watcher = StopWatcher(["<|im_end|>", "User:"])
    assert "".join(watcher.feed(character) for character in "".join(pieces)) + watcher.flush() == shown


def test_what_may_become_a_stop_string_is_held_back():
    watcher = StopWatcher(["<|im_end|>"])
    assert watcher.feed("Hi <|im_e") == "Hi "
    assert watcher.feed("!") == "<|im_e!"
