"""`playground bench train`: our training loop beside TRL's SFTTrainer, stock and with one check patched.

Same model, rows, batches in the same order, labels, LoRA start, dtype and optimizer settings; gradient checkpointing
off. Attention is eager; ours also fuses it and the LoRA layers, as a run does (`core/training/fused.py`). Each way
runs in a fresh process, in turn, so that its peak memory is its own; speed is the median step after the warm-up, and
the ratios are medians over the rounds. On a CPU, TRL computes logits at every position because it skips masked ones on
Triton devices only; "trl_patched" is TRL with that check answering yes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playground.config import PACKAGE, Paths, TrainConfig
from playground.errors import PlaygroundError

WAYS = ("ours", "trl", "trl_patched")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=TrainConfig.model, help="model to fine-tune")
    parser.add_argument("--data", default=TrainConfig.data, help="data set")
    parser.add_argument("--template", default=TrainConfig.template, help="chat template")
    parser.add_argument("--steps", type=int, default=8, help="steps per way and round")
    parser.add_argument("--warmup", type=int, default=2, help="first steps that are not counted")
    parser.add_argument("--rounds", type=int, default=2, help="rounds, each running every way once")
    parser.add_argument("--batch-size", type=int, default=TrainConfig.batch_size, help="rows per step")
    parser.add_argument("--rank", type=int, default=TrainConfig.rank, help="LoRA rank, on all linear layers")
    parser.add_argument("--max-length", type=int, default=TrainConfig.max_length, help="longest row in tokens")
    parser.add_argument("--dtype", default="auto", choices=("auto", "bfloat16", "float32"), help="weights and adapter")


def main(args: argparse.Namespace) -> dict:
    if args.steps <= args.warmup or args.rounds < 1 or args.warmup < 0:
        raise PlaygroundError(
            f"steps must be more than warmup, and rounds at least 1; got {args.steps}, {args.warmup} and {args.rounds}"
        )
    import importlib.util

    if importlib.util.find_spec("trl") is None:
        raise PlaygroundError("TRL is not installed; pip install 'instruction-tuning-playground[bench]' brings it")
    from playground.core import datasets, templates
    from playground.core.tokenizer import Tokenizer
    from playground.core.training import collate
    from playground.services.sources import Sources

    folder = Sources(Paths()).get(args.model)
    tokenizer = Tokenizer.load(folder)
    config = TrainConfig(
        batch_size=args.batch_size, rank=args.rank, alpha=2.0 * args.rank, max_length=args.max_length,
        steps=args.steps, eval_share=0.0, eval_every=args.steps, dtype=args.dtype,
    )  # fmt: skip
    data = datasets.load(args.data, Paths())
    template = templates.load(args.template, tokenizer)
    examples = collate.prepare(config, data.conversations, template, tokenizer, data.problems)
    whole = [b for epoch in range(2) for b in collate.batches_of_epoch(examples.train, config, epoch)]
    whole = [b for b in whole if len(b.rows) == config.batch_size][: config.steps]
    if len(whole) < config.steps:
        raise PlaygroundError(
            f"{args.data} has {len(whole)} full batches of {config.batch_size} rows; ask for fewer steps"
        )
    job = {
        "folder": str(folder),
        "pad": tokenizer.pad_id or 0,
        "settings": {"rank": config.rank, "alpha": config.alpha, "batch_size": config.batch_size, "dtype": config.dtype}
        | {"steps": config.steps, "eval_share": 0.0, "eval_every": config.steps},
        "batches": [
            [([*b.prefix, *row.ids], [*[collate.IGNORE] * len(b.prefix), *row.labels]) for row in b.rows] for b in whole
        ],
    }
    tokens = [b.tokens for b in whole]
    print(
        f"{args.model}, {args.data} in {args.template}: {args.steps} steps of {config.batch_size} rows, "
        f"{statistics.mean(tokens):,.0f} tokens a step, "
        f"{statistics.mean(b.trained for b in whole):,.0f} of them trained",
        flush=True,
    )
    rounds = []
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "job.json"
        path.write_text(json.dumps(job))
        for number in range(args.rounds):
            # every other round goes backwards, so that a machine that drifts does not favour one way
            one = {}
            for way in WAYS if number % 2 == 0 else reversed(WAYS):
                one[way] = measured(way, path, tokens, args.warmup)
                figures = one[way]
                print(
                    f"round {number + 1}/{args.rounds}: {way:12} {figures['tokens_per_second']:7,.0f} tokens/s, "
                    f"{figures['seconds']:.2f} s/step, {figures['memory'] / 2**30:.2f} GiB, "
                    f"last loss {figures['losses'][-1]:.4f}",
                    flush=True,
                )
            rounds.append(one)
    result = summary(rounds)
    for line in lines_of(result):
        print(line, flush=True)
    return result


def summary(rounds: list[dict]) -> dict:
    """Medians over the rounds; a ratio is the median of the rounds' ratios."""

    def median(way, key):
        return statistics.median(one[way][key] for one in rounds)

    def ratio(way, key):
        return statistics.median(one["ours"][key] / one[way][key] for one in rounds)

    result = {}
    for way in WAYS:
        result[f"{way}_tokens_per_second"] = round(median(way, "tokens_per_second"), 1)
        result[f"{way}_memory_gib"] = round(median(way, "memory") / 2**30, 3)
    for way, name in (("trl", ""), ("trl_patched", "_patched")):
        result[f"ratio_speed{name}"] = round(ratio(way, "tokens_per_second"), 3)
        result[f"ratio_memory{name}"] = round(ratio(way, "memory"), 3)
        gaps = [abs(a - b) for one in rounds for a, b in zip(one["ours"]["losses"], one[way]["losses"], strict=True)]
        result[f"loss_difference{name}"] = round(statistics.mean(gaps), 4)
    return result


def lines_of(result: dict) -> list[str]:
    return [
        f"ours against {name}: {result[f'ratio_speed{key}']:.2f}× the speed, {result[f'ratio_memory{key}']:.2f}× the "
        f"memory, losses {result[f'loss_difference{key}']:.4f} apart on average"
        for key, name in (("", "TRL"), ("_patched", "TRL with the masked-position check patched"))
    ]


def measured(way: str, job: Path, tokens: list[int], warmup: int) -> dict:
    """Run one way in a process of its own: tokens/s and seconds of the median step, peak memory, losses."""
    # all ways wait for their threads in the same way, which is the trainer's
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "HF_HUB_OFFLINE": "1", "WANDB_DISABLED": "true"}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in (str(PACKAGE.parent), environment.get("PYTHONPATH")) if p)
    done = subprocess.run(
        [sys.executable, "-m", "playground.bench.train", way, str(job)], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise PlaygroundError(f"the bench of {way} failed: {last}")
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    rates = [n / s for n, s in zip(tokens, figures["seconds"], strict=True)][warmup:]
    return {
        "tokens_per_second": statistics.median(rates),
        "seconds": statistics.median(figures["seconds"][warmup:]),
        "memory": figures["memory"],
        "losses": figures["losses"],
    }


# ---- in the process of one way ---------------------------------------------------------------------------------


def run_way(way: str, job: dict) -> dict:
    from playground.core import models
    from playground.core.training import loop

    config = TrainConfig(**job["settings"])
    loaded = models.load(job["folder"], config.dtype)
    if loaded.device.type == "cpu":
        loaded.model.set_attn_implementation("eager")
    model = loop.add_adapter(loaded.model, config)
    seconds, losses = (_ours if way == "ours" else _trl)(model, config, job, patched=way == "trl_patched")
    memory = loop.peak_memory(loaded.device)
    return {"seconds": seconds, "losses": losses, "memory": memory}


def _ours(model, config, job, patched):
    import torch

    from playground.core.cores import Cores
    from playground.core.training import collate, loop

    rows = [[collate.Example(tuple(ids), tuple(labels)) for ids, labels in batch] for batch in job["batches"]]
    batches, steps = [collate.batch(batch) for batch in rows], []

    def emit(kind, **values):
        if kind == "step":
            steps.append(values)

    examples = collate.Examples([row for batch in rows for row in batch], [])
    # the threads are chosen as they go, as in a run
    loop.fit(model, examples, config, job["pad"], emit, batches=batches, unit=Cores(torch.set_num_threads).unit)
    return [step["seconds"] for step in steps], [step["loss"] for step in steps]


def _trl(model, config, job, patched):
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from playground.core.training import loop

    if patched:
        import trl.trainer.utils

        trl.trainer.utils._use_triton = lambda device: True

    class Clock(TrainerCallback):
        def __init__(self):
            self.seconds, self.losses, self.began = [], [], 0.0

        def on_step_begin(self, *args, **kwargs):
            self.began = time.monotonic()

        def on_step_end(self, *args, **kwargs):
            self.seconds.append(time.monotonic() - self.began)

        def on_log(self, args, state, control, logs=None, **kwargs):
            if "loss" in logs:
                self.losses.append(float(logs["loss"]))

    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=True,
    )
    rows = [{"input_ids": ids, "labels": labels} for batch in job["batches"] for ids, labels in batch]
    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch:
        settings = SFTConfig(
            output_dir=scratch, per_device_train_batch_size=config.batch_size, max_steps=config.steps,
            max_grad_norm=config.clip, seed=config.seed, logging_steps=1,
            train_sampling_strategy="sequential", gradient_checkpointing=False, bf16=False, fp16=False,
            save_strategy="no", report_to="none", disable_tqdm=True, packing=False, max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
        )  # fmt: skip
        trainer = SFTTrainer(
            model=model,
            args=settings,
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(job["folder"], local_files_only=True),
            callbacks=[clock],
            optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, loop.rate(config, config.steps))),
        )
        trainer.train()
    return clock.seconds, clock.losses


if __name__ == "__main__":
    print(json.dumps(run_way(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()))))
