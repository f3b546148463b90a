"""Greedy answers of a lane to many prompts, decoded as the chat decodes them: for counting what a model can do."""

from collections.abc import Callable, Sequence

from playground.config import SamplingConfig
from playground.core.adapters import AdapterBank
from playground.core.cores import TOKEN_COST, fixed
from playground.core.generation import Batch, Row, Sampler
from playground.core.prefixes import MIN_TOKENS, Prefixes
from playground.core.training.collate import common_start

ROWS = 40  # decoded together
GREEDY = SamplingConfig(temperature=0.0, repetition_penalty=1.0)


def greedy(
    bank: AdapterBank,
    adapter: str | None,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    stop_ids: set[int],
    unit: Callable = fixed,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> list[list[int]]:
    """The ids that follow each prompt (token ids, not empty) in the lane `adapter` (None: the bare model).

    They end before the first of `stop_ids`. What all prompts begin with is read once, and prompts of similar length are
    answered together. `unit(work)` is entered around each token, to choose the threads; `tell(done, of)` hears how many
    answers there are, and may raise to end it.
    """
    prefixes = Prefixes()
    if len(prompts) > 1 and (shared := common_start(prompts)) >= MIN_TOKENS:
        first = Batch(bank.model, bank, prefixes)
        first.add([_row(prompts[0][:shared], adapter, 0)])
        first.keep([])
    answers: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), ROWS):
        part = order[start : start + ROWS]
        batch = Batch(bank.model, bank, prefixes)
        with unit(TOKEN_COST + len(part), "prompt"):
            tokens = batch.add([_row(prompts[i], adapter, i) for i in part])
        batch.prefixes = None  # nobody asks for these answers' turns again
        going = set(part)
        while True:
            for row, token in zip(batch.rows, tokens, strict=True):
                if row.tag not in going:
                    continue
                if token not in stop_ids:
                    answers[row.tag].append(token)
                if token in stop_ids or len(answers[row.tag]) == max_new_tokens:
                    going.remove(row.tag)
            if not going:
                break
            if len(going) <= len(batch.rows) / 2:  # letting rows go copies the cache, so not for each one
                batch.keep([i for i, row in enumerate(batch.rows) if row.tag in going])
            with unit(TOKEN_COST + len(batch.rows), "token"):
                tokens = batch.step()
        tell(start + len(part), len(order))
    return answers


def _row(prompt: list[int], adapter: str | None, tag: int) -> Row:
    return Row(prompt, adapter, Sampler(GREEDY), tag)
