"""The loss of one step: logits only where a label is, and the prefix that all rows share run once.

A soft prompt (prompt tuning) is embeddings [tokens, width] that stand before every row: a prefix like any other.
"""

import copy
import math

import torch
import torch.nn.functional as F

from playground.core.past import past, past_of
from playground.core.training.collate import IGNORE, Batch, logit_rows, passes
from playground.core.training.fused import can_share, laid_end_to_end, takes_rows
from playground.core.training.rows import Layout

KEPT = "soft_prompt"


class LabelledLoss(torch.autograd.Function):
    """Summed cross-entropy of hidden states [n, d] under a head [v, d], in chunks.

    The gradients for the hidden states, and for the head where it is trained, are worked out in the forward pass, while
    a chunk's logits are there, so that no logits are kept or computed twice. `softcap` is Gemma 2's tanh bound on the
    logits (0: none). With `skip_above`, labels of at least that probability count in the loss and have no gradient;
    `due` (bools [n]) is then set to where there is one.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, labels, softcap, skip_above=0.0, due=None):
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        gradient = torch.zeros_like(hidden) if ctx.needs_input_grad[0] else None
        of_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        of_bias = torch.zeros_like(bias, dtype=torch.float32) if ctx.needs_input_grad[2] else None
        most = logit_rows(len(labels), weight.shape[0], weight.element_size(), weight.device.type)
        for start in range(0, len(labels), most):
            here = slice(start, start + most)
            part, wanted = hidden[here], labels[here]
            logits = F.linear(part, weight, bias)
            if softcap:
                logits = softcap * torch.tanh(logits.float() / softcap)
            # in fp32 inside; its own rounding, of bf16 logits, is far below theirs
            own = torch.log_softmax(logits, -1).gather(1, wanted[:, None]).float()
            total -= own.sum()
            if not any(ctx.needs_input_grad):
                continue
            left = slice(None)
            if skip_above:
                due[here] = own[:, 0] < math.log(skip_above)
                left = due[here].nonzero()[:, 0]
                part, wanted, logits, own = part[left], wanted[left], logits[left], own[left]
            change = torch.softmax(logits, -1)
            change.scatter_(1, wanted[:, None], torch.expm1(own).to(change.dtype))
            if softcap:
                change = change * (1 - (logits / softcap) ** 2)
            if of_bias is not None:
                of_bias += change.sum(0)
            change = change.to(weight.dtype)
            if gradient is not None:
                gradient[here][left] = change @ weight
            if of_weight is not None:
                of_weight += change.t() @ part
        ctx.save_for_backward(
            gradient,
            None if of_weight is None else of_weight.to(weight.dtype),
            None if of_bias is None else of_bias.to(bias.dtype),
        )
        return total

    @staticmethod
    def backward(ctx, upstream):
        gradients = (None if g is None else g * upstream.to(g.dtype) for g in ctx.saved_tensors)
        return *gradients, None, None, None, None


def soft_prompt(model) -> torch.Tensor | None:
    """The virtual tokens [tokens, width] of a PeftModel, in the base's precision; None without.

    They are a prompt tuning's own, or those that a first stage left before a LoRA (`keep_soft_prompt`).
    """
    if (kept := getattr(model, KEPT, None)) is not None:
        return kept
    config = getattr(model, "peft_config", {}).get("default")
    if config is None or not config.is_prompt_learning:
        return None
    weight = model.prompt_encoder["default"].embedding.weight
    return weight.to(model.get_input_embeddings().weight.dtype)


def keep_soft_prompt(model, soft: torch.Tensor) -> None:
    """Let a frozen soft prompt stand before every row of a PeftModel with LoRA; peft itself cannot have both."""
    embedding = model.get_input_embeddings().weight
    model.register_buffer(KEPT, soft.detach().to(embedding.device, embedding.dtype), persistent=False)


class KeptPrefix:
    """The keys and values of what all rows begin with, run once in `every` steps, and without gradients.

    An approximation that spares a step of short rows behind a long prefix a fifth of its time: in between they are
    those of weights a few steps older, and the weights learn from the rows alone, as if the prefix were given.
    """

    def __init__(self, every: int):
        self.every = every
        self.forget()

    def forget(self) -> None:
        """Run it anew in the next step: a checkpoint does not hold it, and a resumed run must do what this one does."""
        self._cache, self._prefix, self._left = None, (), 0

    def start_of(self, model, batch: Batch, soft: torch.Tensor | None):
        """As the function `start_of` has it, for one step; a soft prompt before the prefix must be frozen."""
        if self._left < 1 or self._prefix != batch.prefix:
            with torch.no_grad():
                self._cache = start_of(model, batch, soft)
            self._prefix, self._left = batch.prefix, self.every
        self._left -= 1
        return self._cache


def step_gradients(
    model,
    work: list[tuple[Batch, bool]],
    pad_id: int,
    trained: int,
    soft: torch.Tensor | None = None,
    room: int = 0,
    kept: KeptPrefix | None = None,
    skip_above: float = 0.0,
) -> float:
    """Add the gradients of a step's mean loss over `trained` labelled tokens to the parameters; returns that loss.

    The pieces are of one batch, each with whether it counts, and share its prefix, which is run once for all of them:
    each pass adds to the gradient of the prefix's keys and values, and at the end that one goes back through the
    prefix. Where the model takes rows that are laid end to end, a pass has as many pieces as come to `room` tokens.
    With `kept`, the prefix is the one of an earlier step and has no gradient. With `skip_above`, labels that the model
    already gives at least that probability have none; what comes after a row's last other label costs nothing on the
    way back through what `fused` replaces.
    """
    total = 0.0
    runs = _passes(model, work, room)
    first_of = kept.start_of if kept else start_of
    begun = first_of(model, work[0][0], soft) if (kept or len(runs) > 1) and _plain_head(model) else None
    first = [t for layer in begun.layers for t in (layer.keys, layer.values)] if begun is not None else []
    leaves = [t.detach().requires_grad_(t.requires_grad) for t in first]
    for pieces, counts in runs:
        cache = None if begun is None else _copy(begun, leaves)
        loss = _pass_loss(model, pieces, pad_id, soft, cache, skip_above) * (counts / trained)
        loss.backward()
        total += loss.item()
    back = [(t, leaf.grad) for t, leaf in zip(first, leaves, strict=True) if leaf.grad is not None]
    if back:
        torch.autograd.backward([t for t, _ in back], [gradient for _, gradient in back])
    return total


def _copy(begun, states: list[torch.Tensor]):
    """A cache with these keys and values, which takes up what one pass runs behind them."""
    cache = copy.copy(begun)
    cache.layers = [copy.copy(layer) for layer in begun.layers]
    for layer, keys, values in zip(cache.layers, states[::2], states[1::2], strict=True):
        layer.keys, layer.values = keys, values
    return cache


def _passes(model, work: list[tuple[Batch, bool]], room: int) -> list[tuple[list[Batch], bool]]:
    """The pieces that go through the model together."""
    if not _lays_rows(model):
        return [([piece], counts) for piece, counts in work]
    return [(pieces, True) for pieces in passes([piece for piece, counts in work if counts], room)]


def _lays_rows(model) -> bool:
    return takes_rows(model) and _plain_head(model)


def start_of(model, batch: Batch, soft: torch.Tensor | None = None):
    """The cache of what all rows of a batch begin with, for one row; None where they share nothing."""
    if not (batch.prefix or soft is not None) or not can_share(model):
        return None
    prefix = torch.tensor([batch.prefix], device=next(model.parameters()).device, dtype=torch.long)
    body = model.base_model
    return past_of(body, body(**embedded(model, prefix, soft), use_cache=True))


def step_loss(model, batch: Batch, pad_id: int, soft: torch.Tensor | None = None) -> torch.Tensor:
    """Summed loss over the labelled tokens of a batch (divide by `batch.trained` for the mean).

    `model` is a causal language model of transformers, with or without adapter layers in it.
    """
    return _pass_loss(model, [batch], pad_id, soft)


def _pass_loss(
    model, pieces: list[Batch], pad_id: int, soft: torch.Tensor | None, begun=None, skip_above: float = 0.0
) -> torch.Tensor:
    """The same for pieces of one batch; `begun` is the cache of its prefix where that is run already, and is changed.

    Only rows laid end to end can be of several pieces.
    """
    if not _plain_head(model):
        ids, mask, labels = tensors(pieces[0], pad_id, next(model.parameters()).device)
        return _loss_by_logits(model, ids, mask, labels, pieces[0].prefix, soft, skip_above)
    laid = _lays_rows(model)
    # a prefix that one pass alone needs is the start of its sequence
    cache = start_of(model, pieces[0], soft) if begun is None and not (laid and soft is None) else begun
    if laid:
        hidden, wanted, layout = _laid(model, pieces, cache)
    else:
        hidden, wanted = _padded(model, pieces[0], pad_id, soft, cache)
    keep = wanted != IGNORE
    head = model.get_output_embeddings()
    bias = getattr(head, "bias", None)
    softcap = getattr(model.config, "final_logit_softcapping", None) or 0.0
    labels = wanted[keep]
    due = torch.ones_like(labels, dtype=torch.bool) if skip_above else None
    loss = LabelledLoss.apply(hidden[keep], head.weight, bias, labels, softcap, skip_above, due)
    if laid and skip_above:
        layout.teach(keep.nonzero()[due, 0])
    return loss


def _laid(model, pieces: list[Batch], cache) -> tuple[torch.Tensor, torch.Tensor, Layout]:
    """Hidden states [tokens, width] of rows laid end to end, the label that each is to predict, and the layout.

    Without a `cache` of it, the prefix stands before the rows.
    """
    body, device = model.base_model, next(model.parameters()).device
    start = pieces[0].prefix if cache is None else ()
    read = [[row.predicting for row in piece.rows] for piece in pieces]
    tokens, labels = ([one for piece in read for row in piece for one in row[side]] for side in (0, 1))
    before = len(start) if cache is None else cache.get_seq_length()
    layout = Layout([[len(row) for row, _ in piece] for piece in read], before, device, whole=cache is None)
    ids = torch.tensor([[*start, *tokens]], device=device)
    wanted = torch.tensor([*[IGNORE] * len(start), *labels, *[IGNORE] * layout.spare], device=device)
    known = {"use_cache": False} if cache is None else {"use_cache": True, **past(body, cache)}
    with layout.current():
        return body(**laid_end_to_end(ids, layout), **known).last_hidden_state[0], wanted, layout


def _padded(model, batch: Batch, pad_id: int, soft, cache) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states [rows, longest - 1, width] of padded rows, and the label that each is to predict."""
    body = model.base_model
    ids, mask, labels = tensors(batch, pad_id, next(model.parameters()).device)
    if cache is not None:
        cache.batch_repeat_interleave(len(ids))
        before = torch.ones(len(ids), cache.get_seq_length(), dtype=mask.dtype, device=ids.device)
        hidden = body(
            input_ids=ids, attention_mask=torch.cat([before, mask], 1), use_cache=True, **past(body, cache)
        ).last_hidden_state
    else:
        ids, mask, labels = _whole(ids, mask, labels, batch.prefix)
        hidden = body(**embedded(model, ids, soft, mask), use_cache=False).last_hidden_state
        hidden = hidden[:, hidden.shape[1] - ids.shape[1] :]
    return hidden[:, :-1], labels[:, 1:]


def embedded(model, ids: torch.Tensor, soft: torch.Tensor | None, mask: torch.Tensor | None = None) -> dict:
    """The model's inputs for `ids` [rows, n]: themselves, or with a soft prompt before them as embeddings."""
    mask = torch.ones_like(ids) if mask is None else mask
    if soft is None:
        return {"input_ids": ids, "attention_mask": mask}
    rows = soft.expand(len(ids), -1, -1)
    before = torch.ones(rows.shape[:2], dtype=mask.dtype, device=mask.device)
    embeddings = torch.cat([rows, model.get_input_embeddings()(ids).to(rows.dtype)], 1)
    return {"inputs_embeds": embeddings, "attention_mask": torch.cat([before, mask], 1)}


def tensors(batch: Batch, pad_id: int, device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, attention mask and labels of the rows without their prefix, [rows, longest], padded on the right."""
    longest = max(len(row.ids) for row in batch.rows)
    ids = torch.full((len(batch.rows), longest), pad_id)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORE)
    for i, row in enumerate(batch.rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        labels[i, : len(row.ids)] = torch.tensor(row.labels)
        mask[i, : len(row.ids)] = 1
    return ids.to(device), mask.to(device), labels.to(device)


def _whole(ids, mask, labels, prefix):
    if not prefix:
        return ids, mask, labels
    before = torch.tensor([prefix], device=ids.device).expand(len(ids), -1)
    return (
        torch.cat([before, ids], 1),
        torch.cat([torch.ones_like(before), mask], 1),
        torch.cat([torch.full_like(before, IGNORE), labels], 1),
    )


def _plain_head(model) -> bool:
    """Whether logits are head(hidden) of a plain matrix; some models scale them, and then the model does it itself.

    The head may be trained, in whole or in some rows (peft's trainable tokens, whose `weight` has them put in).
    """
    from peft.utils import TrainableTokensWrapper

    config = model.config.get_text_config()
    scaled = any(getattr(config, name, None) not in (None, 1, 1.0) for name in ("logits_scaling", "logit_scale"))
    return type(model.get_output_embeddings()) in (torch.nn.Linear, TrainableTokensWrapper) and not scaled


def _loss_by_logits(model, ids, mask, labels, prefix, soft, skip_above=0.0):
    """The general form: the model's own logits, at the positions where any row has a label."""
    ids, mask, labels = _whole(ids, mask, labels, prefix)
    wanted = labels[:, 1:]
    positions = (wanted != IGNORE).any(0).nonzero()[:, 0]
    where = positions + (0 if soft is None else len(soft))
    logits = model(**embedded(model, ids, soft, mask), use_cache=False, logits_to_keep=where).logits.float()
    wanted = wanted[:, positions].flatten()
    if not skip_above:
        return F.cross_entropy(logits.flatten(0, 1), wanted, ignore_index=IGNORE, reduction="sum")
    losses = F.cross_entropy(logits.flatten(0, 1), wanted, ignore_index=IGNORE, reduction="none")
    return torch.where(losses > -math.log(skip_above), losses, losses.detach()).sum()
