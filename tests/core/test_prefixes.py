"""Prompts that begin as one before them: less is read, and the same is said (fp32, exact)."""

import random

import pytest
import torch

from playground.core.generation import Batch
from playground.core.prefixes import MIN_TOKENS, Prefix, Prefixes
from tests.core.test_generation import alone, bank, folders, row

__all__ = ["bank", "folders"]  # fixtures


def numbers(seed: int, count: int) -> list[int]:
    pick = random.Random(seed)
    return [pick.randrange(3, 100) for _ in range(count)]


def prefix(ids, adapter=None, size=4):
    return Prefix(adapter, list(ids), [(torch.zeros(2, len(ids), size), torch.zeros(2, len(ids), size))])


def test_the_turns_of_a_chat_are_read_once(bank):
    batch, history = Batch(bank.model, bank, Prefixes()), numbers(0, 40)
    for turn in range(4):
        asked = row(history, "a")
        said = batch.add([asked])
        for _ in range(9):
            said += batch.step()
        batch.keep([])
        assert said == alone(bank, history, "a", 10)
        # all but the last token of the reply before, which was never fed, and the new question
        assert asked.reused == (len(history) - 7 if turn else 0)
        history = [*history, *said, *numbers(turn + 1, 6)]


def test_rows_with_different_pasts_join_together(bank):
    start, other = numbers(0, 50), numbers(9, 60)
    prompts = [
        (start + numbers(1, 5), "a"),
        (start + numbers(2, 30), "a"),  # as much again to read
        (start + numbers(3, 4), None),
        (other + numbers(4, 3), "b"),
        (numbers(5, 3), "b"),  # begins like nothing
        (start, "a"),  # nothing new: the last token is read again
    ]
    batch = Batch(bank.model, bank, Prefixes())
    batch.add([row(start, "a"), row(start), row(other, "b")])
    batch.step()
    batch.keep([])
    rows = [row(*prompt) for prompt in prompts]
    resident = row(numbers(6, 20))
    said = {id(resident): batch.add([resident])}
    for entry, token in zip(rows, batch.add(rows), strict=True):
        said[id(entry)] = [token]
    assert batch.rows == [resident, *rows]
    assert sum(entry.reused > 0 for entry in rows) >= 4
    for _ in range(8):
        for entry, token in zip(list(batch.rows), batch.step(), strict=True):
            said[id(entry)].append(token)
    for entry in (resident, *rows):
        assert said[id(entry)] == alone(bank, entry.prompt_ids, entry.adapter, len(said[id(entry)]))


def test_another_adapter_reads_for_itself(bank):
    batch, start = Batch(bank.model, bank, Prefixes()), numbers(0, 50)
    batch.add([row(start, "a")])
    batch.keep([])
    for adapter in (None, "b"):
        asked = row([*start, 5], adapter)
        batch.add([asked])
        assert asked.reused == 0


def test_what_was_unused_longest_makes_room():
    kept = Prefixes(limit=3 * prefix(range(40)).size)
    for number in range(3):
        kept.add(prefix(range(number * 100, number * 100 + 40)))
    assert kept.find(None, [*range(40), 7])[1] == 40  # used again
    kept.add(prefix(range(300, 340)))
    assert [p.ids[0] for p in kept.kept] == [200, 0, 300]
    assert kept.used == sum(p.size for p in kept.kept)


def test_a_longer_chat_takes_the_place_of_its_beginning():
    kept = Prefixes()
    kept.add(prefix(range(40)))
    kept.add(prefix(range(60)))
    kept.add(prefix(range(50)))
    assert [len(p.ids) for p in kept.kept] == [60]
    kept.add(prefix(range(60), adapter="a"))
    assert len(kept.kept) == 2


@pytest.mark.parametrize("shared, found", [(MIN_TOKENS - 1, 0), (MIN_TOKENS, MIN_TOKENS), (45, 45)])
def test_short_matches_are_not_worth_it(shared, found):
    kept = Prefixes()
    kept.add(prefix(range(50)))
    assert kept.find(None, [*range(shared), *[999] * 10])[1] == found
    assert kept.find(None, list(range(50)))[1] == 49  # one token is left to read
