"""Weights packed for a CPU's kernel, and attention of one query per row: the same as torch's own, in less time."""

import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # more only wait for each other at this size

from transformers.integrations.sdpa_attention import sdpa_attention_forward  # noqa: E402

from playground.core import attention, packed  # noqa: E402
from playground.core.adapters import AdapterBank  # noqa: E402
from tests.core.test_generation import tiny_model  # noqa: E402

known = pytest.mark.skipif(not packed._known(), reason="this CPU or torch has no packed bfloat16 products")


@known
@pytest.mark.parametrize("shape", [(96, 64), (33, 17), (1, 8)])
@pytest.mark.parametrize("rows", [(1, 1), (3, 1), (2, 7)])
@pytest.mark.parametrize("biased", [False, True])
def test_a_packed_weight_gives_the_same_product_and_comes_back(shape, rows, biased):
    out, size = shape
    weight = torch.randn(out, size).bfloat16()
    bias = torch.randn(out).bfloat16() if biased else None
    block = packed.pack(weight)
    x = torch.randn(*rows, size).bfloat16()
    wanted = torch.nn.functional.linear(x.float(), weight.float(), None if bias is None else bias.float())
    torch.testing.assert_close(packed.linear(block, bias, x).float(), wanted, rtol=1e-2, atol=5e-2)
    assert torch.equal(packed.unpack(block), weight)


def test_only_bfloat16_is_packed():
    assert packed.pack(torch.randn(8, 8)) is None


@known
@pytest.mark.parametrize("tied", [True, False])
def test_a_bank_packs_its_model_and_says_what_it_adds(tied):
    model = tiny_model(tie_word_embeddings=tied).bfloat16()
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        before = model(input_ids=ids).logits
        size = model.lm_head.weight.nbytes
        names = [name for name, module in model.named_modules() if type(module) is torch.nn.Linear]
        weights = {name: model.get_submodule(name).weight.clone() for name in names if name != "lm_head"}
        bank = AdapterBank(model)
        torch.testing.assert_close(model(input_ids=ids).logits, before, rtol=2e-2, atol=2e-2)
    assert bank.added == (size if tied else 0)
    assert all(torch.equal(bank._weight(name), weight) for name, weight in weights.items())
    assert all(model.get_submodule(name).weight.is_meta for name in weights), "no weight is held twice"


@pytest.mark.parametrize("heads, groups", [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("masked", ["nothing", "bools", "additive"])
def test_one_query_attends_as_in_torch(heads, groups, masked):
    rows, length, size = 3, 9, 16
    room = torch.randn(2, rows, groups, length + 5, size)
    key, value = room[0, :, :, :length], room[1, :, :, :length]  # views with room behind them, as in the cache
    query = torch.randn(rows, heads, 1, size)
    seen = torch.ones(rows, 1, 1, length, dtype=torch.bool)
    seen[1, ..., :4] = False
    additive = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    mask = {"nothing": None, "bools": seen, "additive": additive}[masked]
    module = torch.nn.Module()
    module.num_key_value_groups = heads // groups
    ours, _ = attention.attend(module, query, key, value, mask, scaling=0.3)
    theirs, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=0.3)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_prompts_and_what_it_does_not_know_go_through_torch(monkeypatch):
    seen = []
    monkeypatch.setattr(
        attention, "sdpa_attention_forward", lambda *args, **more: seen.append(more) or ("theirs", None)
    )
    module, one = torch.nn.Module(), torch.randn(1, 2, 1, 8)
    prompt = torch.randn(1, 2, 3, 8)
    assert attention.attend(module, prompt, prompt, prompt, None)[0] == "theirs"
    assert attention.attend(module, one, prompt, prompt, None, softcap=20.0)[0] == "theirs"
    assert torch.is_tensor(attention.attend(module, one, prompt, prompt, None)[0])
    assert seen == [{"dropout": 0.0, "scaling": None}, {"dropout": 0.0, "scaling": None, "softcap": 20.0}]
