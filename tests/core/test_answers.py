"""Greedy answers to many prompts at once are those of each prompt alone (fp32, exact)."""

import pytest
import torch

from playground.core import answers
from playground.core.adapters import AdapterBank
from playground.core.answers import greedy
from tests.core.test_generation import alone, save_adapter, tiny_model

START = [(7 * i + 3) % 101 for i in range(40)]  # long enough to be read once for all
PROMPTS = [START + rest for rest in ([5], [9, 2], [60, 21, 44, 8], [33, 1, 17], [90] * 9)] + [[4, 8, 15]]


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    bank = AdapterBank(tiny_model())
    bank.load("a", save_adapter(tmp_path_factory.mktemp("adapters") / "a", 1))
    return bank


@pytest.mark.parametrize("adapter", [None, "a"])
@pytest.mark.parametrize("prompts", [PROMPTS[:-1], PROMPTS], ids=["one start", "no start"])
def test_answers_are_those_of_each_prompt_alone(bank, monkeypatch, adapter, prompts):
    monkeypatch.setattr(answers, "ROWS", 2)
    whole = [alone(bank, prompt, adapter, 12) for prompt in prompts]
    stop = whole[0][4]
    due = [reply[: reply.index(stop)] if stop in reply else reply for reply in whole]
    assert {len(reply) for reply in due} != {12}
    heard = []
    given = greedy(bank, adapter, prompts, 12, {stop}, tell=lambda done, of: heard.append((done, of)))
    assert given == due
    assert heard == [(min(n, len(prompts)), len(prompts)) for n in range(2, len(prompts) + 2, 2)]


def test_a_common_start_is_read_once(bank, monkeypatch):
    read = []
    forward = bank.model.forward
    monkeypatch.setattr(bank.model, "forward", lambda **kw: read.append(kw["input_ids"].shape) or forward(**kw))
    greedy(bank, "a", PROMPTS[:-1], 1, set())
    assert read == [torch.Size([1, 40]), torch.Size([5, 9])]


def test_whoever_listens_can_end_it(bank, monkeypatch):
    monkeypatch.setattr(answers, "ROWS", 2)

    def stop(done, of):
        raise InterruptedError(done)

    with pytest.raises(InterruptedError, match="2"):
        greedy(bank, None, PROMPTS, 3, set(), tell=stop)
