"""Weights of linear layers kept in the block order in which a CPU's matrix kernel reads them (oneDNN).

torch puts a bfloat16 weight into that order again at every product. Decoding a few rows does little else, so laying it
down once makes such products one and a half to two and a half times as fast (one row to sixteen, Zen 4), and long
prompts a tenth. The packed weight takes the place of the plain one, of the same size, and can be turned back exactly.

The two operators are those that torch's own compiler (inductor) freezes models with.
"""

import torch


def pack(weight: torch.Tensor) -> torch.Tensor | None:
    """`weight` [out, in], packed; None where this gains nothing: other dtypes and devices, a CPU without AVX-512."""
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16 or not _known():
        return None
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), 1)


def linear(packed: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    """x [..., in] → [..., out], as torch.nn.functional.linear; the bias is added before the one rounding."""
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


def unpack(packed: torch.Tensor) -> torch.Tensor:
    """The weight [out, in] that was packed."""
    return packed.to_dense()


def _known() -> bool:
    ops = torch.ops.mkldnn
    return (
        torch.backends.mkldnn.is_available()
        and all(hasattr(ops, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))
        and bool(ops._is_mkldnn_bf16_supported())
    )
