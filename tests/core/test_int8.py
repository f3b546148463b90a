"""8-bit weights: near the bf16 result for few rows, the very same for many."""

import pytest
import torch

from playground.core import int8
from playground.core.adapters import AdapterBank
from playground.core.generation import Batch
from playground.errors import PlaygroundError
from tests.core.test_generation import LONG, SHORT, row, save_adapter, tiny_model


def test_a_weight_is_its_scale_times_whole_numbers():
    torch.manual_seed(0)
    weight = torch.randn(64, 32).bfloat16()
    packed, scales = int8.quantized(weight)
    assert packed.dtype == torch.int8
    assert int(packed.abs().amax()) == 127
    error = (packed.float() * scales.float()[:, None] - weight.float()).abs().amax(dim=1)
    assert bool((error <= 0.51 * scales.float() + 0.004 * weight.float().abs().amax(dim=1)).all())
    assert int8.quantized(torch.zeros(2, 32).bfloat16())[0].abs().sum() == 0


@pytest.mark.parametrize("rows", [1, int8.MAX_ROWS, int8.MAX_ROWS + 1])
@pytest.mark.parametrize("bias", [False, True])
def test_few_rows_are_near_and_many_the_same(rows, bias):
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 96, bias=bias).bfloat16()
    quick = int8.quick(layer.forward, layer.weight, layer.bias)
    x = torch.randn(rows, 1, 64).bfloat16()
    with torch.inference_mode():
        ours, theirs = quick(x).float(), layer(x).float()
    assert ours.shape == theirs.shape
    assert bool((ours == theirs).all()) == (rows > int8.MAX_ROWS)
    assert float((ours - theirs).abs().amax()) < 0.03


def four_bit_weight(out, size):
    """As a GGUF file's Q4_1 has them: blocks of 32 with a scale and an offset."""
    steps = torch.randint(0, 16, (out, size // 32, 32)).float()
    steps[..., 0], steps[..., 1] = 0, 15
    scale, low = torch.rand(out, size // 32, 1) * 0.01 + 0.001, -torch.rand(out, size // 32, 1) * 0.1
    return (steps * scale + low).view(out, size).bfloat16()


@pytest.mark.parametrize("rows", [1, int8.MAX_ROWS])
def test_weights_that_were_4_bits_are_put_back_and_come_nearer_than_8_bits(rows):
    torch.manual_seed(0)
    weight, x = four_bit_weight(96, 64), torch.randn(rows, 64).bfloat16()
    assert int8.four_bits(weight) is not None
    exact = x.float() @ weight.float().t()
    with torch.inference_mode():
        four = int8.quick(torch.nn.Identity(), weight)(x).float()
        eight = torch._weight_int8pack_mm(x, *int8.quantized(weight)).float()
    assert float((four - exact).norm()) < float((eight - exact).norm())
    assert float((four - exact).norm() / exact.norm()) < 0.005


@pytest.mark.parametrize(
    "weight",
    [torch.randn(96, 64).bfloat16(), four_bit_weight(96, 64)[:7], four_bit_weight(96, 64)[:, :48]],
    ids=["others", "rows", "columns"],
)
def test_what_4_bits_would_lose_or_cannot_hold_stays_at_8(weight):
    assert int8.four_bits(weight) is None
    x = torch.randn(1, weight.shape[1]).bfloat16()
    y = int8.quick(torch.nn.Identity(), weight)(x)
    assert torch.equal(y, torch._weight_int8pack_mm(x, *int8.quantized(weight)))


def test_lanes_with_adapters_decode(tmp_path):
    folder = save_adapter(tmp_path / "a", 1)
    said = {}
    for fast in (False, True):
        bank = AdapterBank(tiny_model().bfloat16(), fast=fast)
        bank.load("a", folder)
        batch = Batch(bank.model, bank)
        batch.add([row(SHORT), row(LONG, "a")])
        batch.bank.use([None, "a"])
        with torch.inference_mode():
            said[fast] = bank.model(input_ids=batch.tokens[:, None]).logits[:, -1].float()
    assert torch.nn.functional.cosine_similarity(said[False], said[True]).min() > 0.99
    assert not torch.equal(said[False], said[True])


def test_other_models_are_refused():
    with pytest.raises(PlaygroundError, match="8-bit weights are for bfloat16 models on a CPU; this one is float32"):
        AdapterBank(tiny_model(), fast=True)
