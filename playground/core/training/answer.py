"""Greedy answers from the model in training, for the probe prompts."""

import torch

from playground.core.generation import roomy_cache
from playground.core.past import past, past_of
from playground.core.training.collate import common_start
from playground.core.training.loss import can_share, embedded, soft_prompt
from playground.core.training.methods import base_of


@torch.inference_mode()
def answer_batch(
    model,
    tokenizer,
    prompts: list[list[int]],
    max_new_tokens: int,
    stop_ids: set[int],
    stop_strings: tuple[str, ...] = (),
) -> list[str]:
    """Continue each prompt (token ids, not empty) greedily, all in one batch; the texts up to the first stop.

    `model` may be a PeftModel; a soft prompt is put before each prompt. What all prompts start with is run once.
    Special tokens stay in the text (a tool call may be written with them), the stop itself does not.
    """
    if not prompts:
        return []
    was_training = model.training
    model.eval()
    try:
        rows = _greedy(base_of(model), prompts, max_new_tokens, stop_ids, soft_prompt(model))
    finally:
        model.train(was_training)
    return [text_of(row, tokenizer, stop_ids, stop_strings) for row in rows]


def _greedy(model, prompts: list[list[int]], max_new_tokens: int, stop_ids: set[int], soft=None):
    device = next(model.parameters()).device
    shared = min(common_start(prompts), min(map(len, prompts)) - 1) if can_share(model) and len(prompts) > 1 else 0
    cache, before = roomy_cache(model), 0
    if shared or soft is not None:
        prefix = torch.tensor([list(prompts[0][:shared])], device=device, dtype=torch.long)
        inputs = embedded(model, prefix, soft)
        cache = past_of(model, model(**inputs, **past(model, cache), use_cache=True, logits_to_keep=1))
        cache.batch_repeat_interleave(len(prompts))
        before = shared + (0 if soft is None else len(soft))
    rest = [list(p[shared:]) for p in prompts]
    longest = max(map(len, rest))
    ids = torch.tensor([[0] * (longest - len(r)) + r for r in rest], device=device)
    own = torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rest], device=device)
    mask = torch.cat([torch.ones(len(rest), before, dtype=own.dtype, device=device), own], 1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, before:]
    written: list[list[int]] = [[] for _ in prompts]
    going = list(range(len(prompts)))  # which prompt each row of the batch continues
    for _ in range(max_new_tokens):
        out = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            **past(model, cache),
            use_cache=True,
            logits_to_keep=1,
        )
        cache = past_of(model, out)
        ids = out.logits[:, -1].argmax(-1, keepdim=True)
        last = ids[:, 0].tolist()
        for i, token in zip(going, last, strict=True):
            if not written[i] or written[i][-1] not in stop_ids:
                written[i].append(token)
        rows = [row for row, i in enumerate(going) if written[i][-1] not in stop_ids]
        if not rows:
            break
        if len(rows) <= len(going) / 2:  # dropping rows copies the cache, so not for each one
            keep = torch.tensor(rows, device=device)
            cache.batch_select_indices(keep)
            ids, mask, positions = ids[keep], mask[keep], positions[keep]
            going = [going[row] for row in rows]
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        positions = positions[:, -1:] + 1
    return written


def text_of(ids: list[int], tokenizer, stop_ids: set[int], stop_strings: tuple[str, ...]) -> str:
    """An answer's text up to the first stop."""
    ids = ids[: next((i for i, token in enumerate(ids) if token in stop_ids), len(ids))]
    return before(stop_strings, tokenizer.decode(ids))


def before(stop_strings: tuple[str, ...], text: str) -> str:
    """The text up to the first of the stop strings."""
    return text[: min([at for stop in stop_strings if (at := text.find(stop)) >= 0], default=len(text))]


def stops(template, tokenizer) -> tuple[set[int], tuple[str, ...]]:
    """Stop ids and stop strings: end-of-text, and what the template writes after an assistant turn."""
    from playground.core.templates import stop_strings

    strings = tuple(stop_strings(template, tokenizer))
    ids = {tokenizer.eos_id} if tokenizer.eos_id is not None else set()
    for string in strings:
        encoded = tokenizer.encode(string)[0]
        ids |= set(encoded) if len(encoded) == 1 and encoded[0] in tokenizer.special_ids else set()
    return ids, strings
