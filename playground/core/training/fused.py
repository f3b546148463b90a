"""LoRA layers, norms and attention of a training step with less work around their matrix products, for CPUs.

peft's LoRA layer scales and adds in passes of their own and keeps what they gave for the backward pass. Here both are
part of the products. transformers' eager attention copies keys and values once per query head (GQA), keeps the scores
twice, and adds the copies' gradients up again; here the queries of a group stand below each other in one product, and
only the probabilities are kept. A step of 616 tokens took 2.4 s with both and 2.65 s without. A norm's way back is one
function, and there and back takes a third of the time. All give what the originals give, to rounding; model and norms
are asked whether attention and norm do, and keep their own where not.

Where the model hands what it is given on to its attention, rows can be laid end to end (`core.training.rows`), which
the name of the attention says.
"""

import contextlib
import types
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F

from playground.core.training.rows import CURRENT, LAID, Layout
from playground.core.training.rows import attend as attend_rows

NAME, ROWS = "playground", "playground-rows"
# How far logits may be from those of eager attention, as a share of their size, for the two to count as the same.
SAME = {torch.float32: 1e-4, torch.bfloat16: 0.05}


@contextlib.contextmanager
def fused(model, base) -> Iterator[None]:
    """All in `model` (a PeftModel, or a plain one) where they apply; `base` is the transformers model in it."""
    before = base.config._attn_implementation
    forwards = dict.fromkeys(_plain_lora_layers(model), _forward) | dict.fromkeys(_norms(model), _normed)
    for layer, forward in forwards.items():
        layer.forward = types.MethodType(forward, layer)
    base.set_attn_implementation(_attention(base))
    try:
        yield
    finally:
        base.set_attn_implementation(before)
        for layer in forwards:
            del layer.forward


def takes_rows(model) -> bool:
    """Whether `model` takes rows that are laid end to end just now."""
    return model.config._attn_implementation == ROWS


def _attention(base) -> str:
    """The name of our attention where the model computes the same with it, else "eager"."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask

    if getattr(base.config.get_text_config(), "attention_dropout", 0.0):
        return "eager"
    for name in (NAME, ROWS):
        AttentionInterface.register(name, attend)
        AttentionMaskInterface.register(name, eager_mask)
    device = next(base.parameters()).device
    ids = torch.arange(1, 13, device=device).view(2, 6)
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    layout = Layout([[4, 6]], 0, device)
    padded = {"input_ids": ids, "attention_mask": mask}
    asked = {"eager": padded, NAME: padded, ROWS: laid_end_to_end(ids[mask.bool()][None], layout)}
    was_training, found = base.training, {}
    base.eval()
    try:
        for name, inputs in asked.items():
            base.set_attn_implementation(name)
            with torch.no_grad():
                logits = base(**inputs, use_cache=False).logits
            found[name] = (logits[0, : mask.sum()] if name == ROWS else logits[mask.bool()]).float()
            if name != "eager" and not _near(found["eager"], found[name], base.dtype):
                break
    except (NotImplementedError, TypeError, ValueError, RuntimeError):
        found.pop(name, None)  # a model whose attention asks for more than ours knows
    finally:
        base.train(was_training)
    alike = [name for name in found if name != "eager" and _near(found["eager"], found[name], base.dtype)]
    return next((name for name in alike[::-1] if name == NAME or _sees_all(base)), "eager")


def _near(eager: torch.Tensor, ours: torch.Tensor, dtype: torch.dtype) -> bool:
    return bool((eager - ours).abs().max() <= SAME.get(dtype, 0.0) * eager.abs().max())


def can_share(model) -> bool:
    """Whether every layer sees all that went before: full attention, no recurrent state."""
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or ["full_attention"]
    return set(kinds) == {"full_attention"}


def _sees_all(model) -> bool:
    """Whether no layer has a window, not even one that rows as short as those above fit in."""
    config = model.config.get_text_config()
    windows = () if getattr(config, "layer_types", None) else ("sliding_window", "attention_chunk_size")
    return can_share(model) and not any(getattr(config, name, None) for name in windows)


def laid_end_to_end(ids: torch.Tensor, layout: Layout) -> dict:
    """A model's inputs for ids [1, n] that are laid out so; it gives `layout.tokens`, of which those are the first.

    The mask is a whole one, which models hand on.
    """
    ids = F.pad(ids, (0, layout.spare))
    mask = torch.zeros(1, 1, 1, 1, dtype=torch.float32, device=ids.device)
    return {"input_ids": ids, "position_ids": layout.positions, "attention_mask": mask, LAID: layout}


def attend(module, query, key, value, mask, scaling=None, dropout=0.0, **more):
    """An attention function of transformers: query [rows, heads, n, d], key and value [rows, groups, m, d].

    Gives the output [rows, n, heads, d] and no weights. `mask` is additive, [rows or 1, 1, n, m], or None.
    """
    if dropout or any(more.get(name) is not None for name in ("softcap", "s_aux", "head_mask", "position_bias")):
        raise NotImplementedError("attention with dropout, soft caps, sinks or biases")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if (layout := more.get(LAID)) is not None:
        return attend_rows(query, key, value, layout, scaling), None
    mask = None if mask is None else mask[..., : key.shape[-2]]
    return _Attention.apply(query, key, value, mask, scaling).transpose(1, 2).contiguous(), None


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, mask, scaling):
        rows, heads, n, d = query.shape
        groups, m = key.shape[1], key.shape[2]
        stacked = (query * scaling).reshape(rows * groups, heads // groups * n, d)
        key, value = key.reshape(rows * groups, m, d), value.reshape(rows * groups, m, d)
        scores = torch.bmm(stacked, key.transpose(1, 2))
        if mask is not None:
            scores.view(rows, heads, n, m).add_(mask)
        weights = torch.softmax(scores, -1)  # in fp32 inside
        ctx.save_for_backward(stacked, key, value, weights)
        ctx.sizes = (rows, heads, groups, n, m, d, scaling)
        return torch.bmm(weights, value).view(rows, heads, n, d)

    @staticmethod
    def backward(ctx, upstream):
        stacked, key, value, weights = ctx.saved_tensors
        rows, heads, groups, n, m, d, scaling = ctx.sizes
        upstream = upstream.reshape(rows * groups, heads // groups * n, d)
        of_value = torch.bmm(weights.transpose(1, 2), upstream)
        of_weights = torch.bmm(upstream, value.transpose(1, 2))
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        of_key = torch.bmm(of_scores.transpose(1, 2), stacked)
        of_query = torch.bmm(of_scores, key).mul_(scaling)
        shapes = ((rows, heads, n, d), (rows, groups, m, d), (rows, groups, m, d))
        return *(g.view(s) for g, s in zip((of_query, of_key, of_value), shapes, strict=True)), None, None


def _plain_lora_layers(model) -> list:
    from peft.tuners.lora import Linear

    return [
        layer
        for layer in model.modules()
        if type(layer) is Linear and type(layer.base_layer) is torch.nn.Linear and _plain(layer)
    ]


def _plain(layer) -> bool:
    """Whether the layer is base(x) + B(A(x)) · scaling and nothing else."""
    if len(layer.lora_A) != 1:
        return False
    (name,) = layer.lora_A
    return (
        type(layer.lora_dropout[name]) is torch.nn.Identity
        and not getattr(layer, "lora_variant", {}).get(name)
        and not layer.fan_in_fan_out
        and layer.lora_A[name].bias is None
        and layer.lora_B[name].bias is None
        and layer.lora_A[name].weight.dtype == layer.base_layer.weight.dtype
    )


def _forward(layer, x, *args, **kwargs):
    if layer.disable_adapters or layer.merged or args or kwargs or x.dtype != layer.base_layer.weight.dtype:
        return type(layer).forward(layer, x, *args, **kwargs)
    (name,) = layer.lora_A
    base, a, b = layer.base_layer, layer.lora_A[name].weight, layer.lora_B[name].weight
    return _Lora.apply(x, base.weight, base.bias, a, b, layer.scaling[name])


class _Lora(torch.autograd.Function):
    """x [..., in] · W [out, in] and, on top, x · A [r, in] · B [out, r] · scaling; W and its bias are frozen."""

    @staticmethod
    def forward(ctx, x, weight, bias, a, b, scaling):
        flat = x.reshape(-1, x.shape[-1])
        low = (flat @ a.t()).mul_(scaling)
        ctx.save_for_backward(flat, low, weight, a, b)
        ctx.scaling, ctx.layout = scaling, CURRENT.get()
        out = F.linear(flat, weight, bias).addmm_(low, b.t())
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, upstream):
        flat, low, weight, a, b = ctx.saved_tensors
        shape, tokens = upstream.shape, len(flat)
        due, (flat, low, upstream) = _taught(ctx.layout, flat, low, upstream.reshape(tokens, -1))
        of_low = (upstream @ b).mul_(ctx.scaling)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = _among((upstream @ weight).addmm_(of_low, a), due, tokens).view(*shape[:-1], -1)
        # a product with few rows is quicker than one with few columns
        return of_x, None, None, of_low.t() @ flat, (low.t() @ upstream).t(), None


def _taught(layout: Layout | None, *states: torch.Tensor) -> tuple[torch.Tensor | None, Iterable[torch.Tensor]]:
    """Which of the tokens have a gradient (None: all), and of each [tokens, n] those."""
    if layout is None or layout.taught is None or len(states[0]) != layout.tokens:
        return None, states
    return layout.taught, (t.index_select(0, layout.taught) for t in states)


def _among(found: torch.Tensor, due: torch.Tensor | None, tokens: int) -> torch.Tensor:
    """[tokens, n], with what was found for those that are due, and zero for the others."""
    return found if due is None else found.new_zeros(tokens, found.shape[1]).index_copy_(0, due, found)


def _norms(model) -> list:
    """The frozen norms that are as ours is; each kind is asked once."""
    found, alike = [], {}
    for norm in model.modules():
        weight = getattr(norm, "weight", None)
        named = type(norm).__name__.endswith("RMSNorm") and hasattr(norm, "variance_epsilon")
        if not named or not isinstance(weight, torch.nn.Parameter) or weight.requires_grad:
            continue
        if type(norm) not in alike:
            states = torch.linspace(-3, 3, 4 * len(weight), dtype=weight.dtype, device=weight.device).view(1, 4, -1)
            with torch.no_grad():
                theirs = norm(states).float()
                alike[type(norm)] = _near(theirs, _normed(norm, states).float(), weight.dtype)
        if alike[type(norm)]:
            found.append(norm)
    return found


def _normed(norm, x):
    return _Norm.apply(x, norm.weight, norm.variance_epsilon)


class _Norm(torch.autograd.Function):
    """x [..., n] over its root mean square (Zhang and Sennrich 2019, arXiv:1910.07467), times a frozen weight [n]."""

    @staticmethod
    def forward(ctx, x, weight, epsilon):
        flat = x.reshape(-1, x.shape[-1])
        wide = flat.float()
        inverse = (wide * wide).mean(-1, keepdim=True).add_(epsilon).rsqrt_()
        ctx.save_for_backward(flat, weight, inverse)
        ctx.layout = CURRENT.get()
        return (weight * (wide * inverse).to(x.dtype)).view(x.shape)

    @staticmethod
    def backward(ctx, upstream):
        flat, weight, inverse = ctx.saved_tensors
        shape, tokens = upstream.shape, len(flat)
        due, (flat, inverse, upstream) = _taught(ctx.layout, flat, inverse, upstream.reshape(tokens, -1))
        of_normed, wide = (upstream * weight).float(), flat.float()
        along = (of_normed * wide).mean(-1, keepdim=True).mul_(inverse**3).neg_()
        of_x = of_normed.mul_(inverse).addcmul_(wide, along).to(flat.dtype)
        return _among(of_x, due, tokens).view(shape), None, None
