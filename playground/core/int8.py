"""The fast-CPU switch: 8-bit weights for the few rows of a decoding step.

Decoding a few rows reads every weight once and does little with it, so half the bytes are nearly half the time. Each
row of a weight matrix gets one scale (largest magnitude = 127); activations stay bf16 (weight-only, as LLM.int8's
row scales, Dettmers et al. 2022, arXiv:2208.07339, without its outlier columns). Prompts, which are many rows, go
through the bf16 weights as before, so these stay in memory: half as much comes on top.

Weights that were 4 bits before (a GGUF file's Q4_0 or Q4_1: blocks of 32 with a scale and an offset) are put back into
4 bits: measured, five times closer than 8 bits come, and twice as fast again.
"""

from collections.abc import Callable

import torch

from playground.errors import PlaygroundError

# Measured beside packed bf16 (core.packed): 4 bits take a third of the time for one row, half for three, as long for
# eight; 8 bits take two thirds for one row, and as long for three.
MAX_ROWS = 4
BLOCK = 32  # weights of a row that share a scale and an offset in 4 bits
LOSS = 0.005  # relative error up to which weights count as 4-bit ones; others come to 0.08, and 8 bits to 0.01


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


def four_bits(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """`weight` [out, in] as torch's packed 4 bits with (scale, offset) [in / BLOCK, out, 2] in bf16.

    None where something would be lost, or where the kernel does not take the shape.
    """
    out, size = weight.shape
    if out % 16 or size % BLOCK:
        return None
    blocks = weight.float().view(out, size // BLOCK, BLOCK)
    low, high = blocks.aminmax(dim=-1, keepdim=True)
    scale = ((high - low) / 15).clamp(min=1e-12)
    steps = ((blocks - low) / scale).round()
    # the kernel computes (steps - 8) * scale + offset
    pair = torch.cat([scale, low + 8 * scale], dim=-1).bfloat16()
    again = (steps - 8) * pair[..., :1].float() + pair[..., 1:].float()
    if (again - blocks).norm() > LOSS * blocks.norm():
        return None
    packed = torch._convert_weight_to_int4pack_for_cpu(steps.to(torch.int32).view(out, size), 1)
    return packed, pair.transpose(0, 1).contiguous()


def quick(
    plain: Callable[[torch.Tensor], torch.Tensor], weight: torch.Tensor, bias: torch.Tensor | None = None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The linear function `plain`, by weights of fewer bits where it is asked for few rows."""
    few = _product(weight.detach())

    def forward(x: torch.Tensor) -> torch.Tensor:
        rows = x.numel() // x.shape[-1]
        if rows > MAX_ROWS:
            return plain(x)
        y = few(x.reshape(rows, x.shape[-1]))
        y = y if bias is None else y + bias
        return y.view(*x.shape[:-1], y.shape[-1])

    return forward


def _product(weight: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    if (found := four_bits(weight)) is not None:
        packed, pair = found
        return lambda x: torch._weight_int4pack_mm_for_cpu(x, packed, BLOCK, pair)
    packed, scales = quantized(weight)
    return lambda x: torch._weight_int8pack_mm(x, packed, scales)
