"""`playground bench train`: every way that is installed trains the same thing. That it runs, not how fast."""

import json
import shutil

import pytest

from playground import cli
from playground.bench import trainers


def test_every_way_that_is_here_trains_the_same_curve(capsys):
    words = ["--rows", "own", "--steps", "3", "--warmup", "1", "--rounds", "1", "--batch-size", "2"]
    cli.main(["bench", "train", "--json", *words])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(found["absent"]) == {way for way in trainers.WAYS if trainers.absent(way)}
    for way in set(trainers.WAYS) - {"ours"} - set(found["absent"]):
        assert found[f"own_{way}_losses"] == pytest.approx(found["own_ours_losses"], abs=0.05), way
        assert found[f"own_ratio_speed_{way}"] > 0


def test_plain_trainer_and_ours_are_given_the_same(tokenizer_folder, tmp_path):
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path / "tiny"
    shutil.copytree(tokenizer_folder, folder)
    torch.manual_seed(0)
    sizes = {"vocab_size": 512, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4)).save_pretrained(folder)
    rows = [([5, 6, 7, 8 + i], [-100, -100, 7, 8 + i]) for i in range(4)]
    rows[1] = ([*rows[1][0], 9, 9], [*rows[1][1], 9, -100])  # so that something is padded
    settings = {"rank": 2, "alpha": 4.0, "batch_size": 2, "dtype": "float32", "steps": 2, "eval_share": 0.0}
    job = {"folder": str(folder), "pad": 0, "settings": settings, "batches": [rows[:2], rows[2:]]}
    ours, theirs = (trainers.run_way(way, job) for way in ("ours", "trainer"))
    assert len(ours["seconds"]) == len(theirs["seconds"]) == 2
    assert ours["losses"] == pytest.approx(theirs["losses"], abs=2e-4)
    assert ours["losses"][0] != ours["losses"][1]
