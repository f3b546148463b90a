"""The fast-CPU switch: 8-bit weights for the few rows of a decoding step.

Decoding a few rows reads every weight once and does little with it, so half the bytes are nearly half the time. Each
row of a weight matrix gets one scale (largest magnitude = 127); activations stay bf16 (weight-only, as LLM.int8's
row scales, Dettmers et al. 2022, arXiv:2208.07339, without its outlier columns). Prompts, which are many rows, go
through the bf16 weights as before, so these stay in memory: half as much comes on top.
"""

from collections.abc import Callable

import torch

from playground.errors import PlaygroundError

MAX_ROWS = 4  # measured: 2 to 3 times as fast for one row, level at eight


def check(model: torch.nn.Module) -> None:
    """Raise PlaygroundError where the switch does nothing."""
    if model.device.type != "cpu" or model.dtype != torch.bfloat16:
        raise PlaygroundError(
            f"8-bit weights are for bfloat16 models on a CPU; this one is {str(model.dtype).removeprefix('torch.')} "
            f"on {model.device.type}"
        )


def quantized(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`weight` [out, in] as int8 [out, in] and its scales [out], in the weight's own dtype."""
    scales = (weight.float().abs().amax(dim=1) / 127).clamp(min=1e-12).to(weight.dtype)
    return (weight.float() / scales.float()[:, None]).round().clamp(-127, 127).to(torch.int8), scales


def quick(
    plain: Callable[[torch.Tensor], torch.Tensor], weight: torch.Tensor, bias: torch.Tensor | None = None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The linear function `plain`, by 8-bit weights where it is asked for few rows."""
    packed, scales = quantized(weight.detach())

    def forward(x: torch.Tensor) -> torch.Tensor:
        rows = x.numel() // x.shape[-1]
        if rows > MAX_ROWS:
            return plain(x)
        y = torch._weight_int8pack_mm(x.reshape(rows, x.shape[-1]), packed, scales)
        y = y if bias is None else y + bias
        return y.view(*x.shape[:-1], y.shape[-1])

    return forward
