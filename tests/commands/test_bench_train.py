"""`playground bench train`: what its figures are made of; that it runs is tested on the real model."""

import json

import pytest

from playground import cli
from playground.bench import train, trainers
from playground.errors import PlaygroundError

torch = pytest.importorskip("torch")


def round_of(**seconds) -> dict:
    """A round in which each way took so long for a step of 100 tokens."""
    return {
        way: {"tokens_per_second": 100 / s, "seconds": s, "memory": s * 2**30, "losses": [2.0, 1.0 + s]}
        for way, s in seconds.items()
    }


def test_ratios_are_medians_against_the_fastest_options():
    rounds = [
        round_of(ours=1, trl=3, trl_packed=2, trl_patched=2, trl_patched_packed=4, trainer=4),
        round_of(ours=1, trl=3, trl_packed=2.5, trl_patched=2, trl_patched_packed=4, trainer=4),
        round_of(ours=2, trl=6, trl_packed=5, trl_patched=4, trl_patched_packed=8, trainer=8),
    ]
    found = train.summary(rounds, rows=8)
    assert (found["fastest"], found["ratio_speed"], found["ratio_memory"]) == ("trl_packed", 2.5, 0.4)
    assert (found["fastest_patched"], found["ratio_speed_patched"]) == ("trl_patched", 2.0)
    assert found["ratio_speed_trl"] == 3.0
    assert found["ratio_speed_trainer"] == 4.0
    assert found["ours_rows_per_second"] == 8.0
    assert found["trainer_losses"] == [2.0, 5.0]
    assert found["loss_difference_trl"] == pytest.approx((2 + 2 + 4) / 6, abs=1e-4)
    assert "ours against TRL, rows packed (the fastest of its kind): 2.50× the speed, 0.40× the memory" in "\n".join(
        train.lines_of(found)
    )


def test_alone_there_are_figures_and_no_ratios():
    found = train.summary([round_of(ours=1)], rows=8)
    assert found["ours_tokens_per_second"] == 100
    assert not [name for name in found if name.startswith(("ratio", "fastest"))]


def test_a_peer_that_is_not_here_is_said(monkeypatch):
    monkeypatch.setattr(trainers.importlib.util, "find_spec", lambda name: None)
    assert trainers.absent("ours") is trainers.absent("trainer") is None
    assert all("[bench]' brings it" in trainers.absent(way) for way in trainers.WAYS if way.startswith("trl"))
    monkeypatch.setattr(trainers.importlib.util, "find_spec", lambda name: name == "trl" or None)
    assert trainers.absent("trl") is trainers.absent("trl_packed") is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert trainers.absent("trl_patched") == "on a GPU, TRL skips masked positions by itself"
    assert "pip install liger-kernel" in trainers.absent("trl_liger")


def test_a_peer_that_fails_is_said_and_the_others_go_on(monkeypatch, capsys):
    def measured(way, *others):
        if way == "trainer":
            raise PlaygroundError("the bench of trainer failed: oh")
        return round_of(**{way: 1})[way]

    monkeypatch.setattr(train, "absent", lambda way: "not here" if way == "trl" else None)
    monkeypatch.setattr(train, "measured", measured)
    monkeypatch.setattr(train, "work", lambda *others: ({}, []))
    cli.main(["bench", "train", "--json", "--rows", "own", "--ways", "trl,trainer,trl_packed"])
    out = capsys.readouterr().out.splitlines()
    assert "without trl: not here" in out
    found = json.loads(out[-1])
    assert found["absent"] == {"trl": "not here", "trainer": "the bench of trainer failed: oh"}
    assert found["own_ratio_speed"] == 1.0
    assert "own_trainer_losses" not in found


@pytest.mark.parametrize(
    "words, said",
    [
        (["--steps", "2"], "steps must be more than warmup, and rounds at least 1; got 2, 2 and 2"),
        (["--ways", "ours,axolotl"], "a way is one of ours, trl, "),
    ],
)
def test_wrong_words(words, said, capsys):
    with pytest.raises(SystemExit):
        cli.main(["bench", "train", *words])
    assert said in capsys.readouterr().err
