"""RMSNorm in fewer operations: the numbers of transformers' own, and only where a norm is a plain one."""

import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # more only wait for each other at this size

from transformers.models.gemma.modeling_gemma import GemmaRMSNorm  # noqa: E402
from transformers.models.llama.modeling_llama import LlamaRMSNorm  # noqa: E402

from playground.core import norms  # noqa: E402
from tests.core.test_generation import tiny_model  # noqa: E402


def of(norm, dtype=torch.float32):
    """A tiny model whose last norm is `norm`, with its weights drawn."""
    model = tiny_model()
    model.model.norm = norm
    torch.nn.init.uniform_(norm.weight, 0.5, 2.0)
    return model.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1, 64), (3, 1, 64), (2, 7, 64), (5, 64)])
def test_the_numbers_are_those_of_transformers(dtype, shape):
    model = of(LlamaRMSNorm(64, 1e-5), dtype)
    norm, x = model.model.norm, 3 * torch.randn(shape).to(dtype)
    wanted, before = norm(x), x.clone()
    norms.quicken(model)
    assert norm.forward.func is norms._forward
    assert torch.equal(x, before)
    torch.testing.assert_close(norm(x), wanted, rtol=0.008 if dtype == torch.bfloat16 else 1e-6, atol=1e-6)


def test_every_norm_of_a_model_is_quickened_and_training_keeps_its_own():
    model = tiny_model()
    ids = torch.tensor([[5, 6, 7]])
    wanted = model(ids, labels=ids).loss
    wanted.backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    norms.quicken(model)
    assert all("forward" in vars(m) for m in model.modules() if type(m).__name__.endswith("RMSNorm"))
    loss = model(ids, labels=ids).loss
    loss.backward()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("norm", [GemmaRMSNorm(64), torch.nn.RMSNorm(64, elementwise_affine=False)])
def test_a_norm_of_another_kind_is_left(norm):
    model = tiny_model()
    model.model.norm = norm
    norms.quicken(model)
    assert "forward" not in vars(norm)
