"""`playground bench train`: our training loop beside TRL's SFTTrainer, with its best options, and plain `Trainer`.

Same model, rows, batches in the same order, labels, LoRA start, dtype and optimizer settings; gradient checkpointing
off. Two kinds of rows: those of a tool recipe, which share their system prompt, and pairs that share nothing. Each way
runs in a fresh process, in turn, so that its peak memory is its own; speed is the median step after the warm-up, and
the ratios are medians over the rounds. What each way is, and how it is run, is in `bench/trainers.py`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from playground.bench.trainers import PATCHED_TRL, STOCK_TRL, WAYS, absent
from playground.config import PACKAGE, Paths, TrainConfig
from playground.errors import PlaygroundError

# kind of rows → data set and template
ROWS = {"shared": (TrainConfig.data, TrainConfig.template), "own": ("json-calls", "chatml")}
WORDS = {"shared": "rows that share their system prompt", "own": "rows that share nothing", "data": "rows of --data"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=TrainConfig.model, help="model to fine-tune")
    parser.add_argument("--rows", default="both", choices=("both", *ROWS), help="share their system prompt, or nothing")
    parser.add_argument("--data", default="", help="another data set instead of those rows")
    parser.add_argument("--template", default=TrainConfig.template, help="chat template of --data")
    parser.add_argument("--ways", default=",".join(WAYS), help="which trainers, with commas; ours is always one")
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
    missing = {way: why for way in chosen(args.ways) if (why := absent(way))}
    for way, why in missing.items():
        print(f"without {way}: {why}", flush=True)
    ways = [way for way in chosen(args.ways) if way not in missing]
    kinds = {"data": (args.data, args.template)} if args.data else ROWS
    kinds = {kind: rows for kind, rows in kinds.items() if args.data or args.rows in ("both", kind)}
    result = {"model": args.model, "steps": args.steps, "batch_size": args.batch_size}
    with tempfile.TemporaryDirectory() as scratch:
        for kind, (data, template) in kinds.items():
            job, tokens = work(args, data, template, WORDS[kind])
            path = Path(scratch) / f"{kind}.json"
            path.write_text(json.dumps(job))
            rounds = [one_round(ways, number, path, tokens, args, missing) for number in range(args.rounds)]
            figures = summary(rounds, args.batch_size)
            for line in lines_of(figures):
                print(line, flush=True)
            result |= {f"{kind}_{name}": value for name, value in figures.items()}
    return result | {"absent": missing}


def chosen(ways: str) -> list[str]:
    """The ways by name, ours first."""
    names = [name.strip() for name in ways.split(",") if name.strip()]
    if unknown := [name for name in names if name not in WAYS]:
        raise PlaygroundError(f"a way is one of {', '.join(WAYS)}, got {unknown[0]!r}")
    return [way for way in WAYS if way == "ours" or way in names]


def work(args: argparse.Namespace, data: str, template: str, words: str) -> tuple[dict, list[int]]:
    """What every way is given, and the tokens of each step."""
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
    rows = datasets.load(data, Paths())
    examples = collate.prepare(config, rows.conversations, templates.load(template, tokenizer), tokenizer, rows)
    whole = [b for epoch in range(2) for b in collate.batches_of_epoch(examples.train, config, epoch)]
    whole = [b for b in whole if len(b.rows) == config.batch_size][: config.steps]
    if len(whole) < config.steps:
        raise PlaygroundError(f"{data} has {len(whole)} full batches of {config.batch_size} rows; ask for fewer steps")
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
        f"{args.model}, {words} ({data} in {template}): {args.steps} steps of {config.batch_size} rows, "
        f"{statistics.mean(tokens):,.0f} tokens a step, {statistics.mean(b.trained for b in whole):,.0f} of them "
        f"trained, {statistics.mean(len(b.prefix) for b in whole):,.0f} the same in all its rows",
        flush=True,
    )
    return job, tokens


def one_round(ways: list[str], number: int, job: Path, tokens: list[int], args, missing: dict[str, str]) -> dict:
    """Every way once. A peer that fails is said, noted in `missing`, and not tried again."""
    # every other round goes backwards, so that a machine that drifts does not favour one way
    done = {}
    for way in ways if number % 2 == 0 else reversed(ways):
        if way in missing:
            continue
        try:
            done[way] = figures = measured(way, job, tokens, args.warmup)
        except PlaygroundError as error:
            if way == "ours":
                raise
            missing[way] = str(error)
            print(f"without {way}: {error}", flush=True)
            continue
        print(
            f"round {number + 1}/{args.rounds}: {way:18} {args.batch_size / figures['seconds']:7,.2f} rows/s, "
            f"{figures['tokens_per_second']:7,.0f} tokens/s, {figures['seconds']:.2f} s/step, "
            f"{figures['memory'] / 2**30:.2f} GiB, last loss {figures['losses'][-1]:.4f}",
            flush=True,
        )
    return done


def summary(rounds: list[dict], rows: int) -> dict:
    """Medians over the rounds; a ratio is ours ÷ theirs, the median of the rounds' ratios.

    `ratio_speed` and `ratio_memory` are against stock TRL with the options that make it fastest here; those that end
    in `_patched` against patched TRL with those that make that fastest.
    """

    def median(way, key):
        return statistics.median(one[way][key] for one in rounds)

    def ratio(way, key):
        return round(statistics.median(one["ours"][key] / one[way][key] for one in rounds), 3)

    ways = [way for way in WAYS if all(way in one for one in rounds)]
    result = {}
    for way in ways:
        result[f"{way}_rows_per_second"] = round(statistics.median(rows / one[way]["seconds"] for one in rounds), 3)
        result[f"{way}_tokens_per_second"] = round(median(way, "tokens_per_second"), 1)
        result[f"{way}_memory_gib"] = round(median(way, "memory") / 2**30, 3)
        result[f"{way}_losses"] = [round(loss, 4) for loss in rounds[0][way]["losses"]]
    fastest = {
        name: max((way for way in ways if way in group), key=lambda way: median(way, "tokens_per_second"), default="")
        for name, group in {"": STOCK_TRL, "_patched": PATCHED_TRL}.items()
    }
    for name, way in (fastest | {f"_{way}": way for way in ways if way != "ours"}).items():
        if not way:
            continue
        result[f"ratio_speed{name}"] = ratio(way, "tokens_per_second")
        result[f"ratio_memory{name}"] = ratio(way, "memory")
        gaps = [abs(a - b) for one in rounds for a, b in zip(one["ours"]["losses"], one[way]["losses"], strict=True)]
        result[f"loss_difference{name}"] = round(statistics.mean(gaps), 4)
    return result | {f"fastest{name}": way for name, way in fastest.items() if way}


def lines_of(result: dict) -> list[str]:
    """Loss curves and ratios in words."""
    ways = [way for way in WAYS if f"{way}_losses" in result]
    lines = [f"losses {way:18} {' '.join(f'{loss:.3f}' for loss in result[f'{way}_losses'])}" for way in ways]
    for way in ways[1:]:
        best = " (the fastest of its kind)" if way in (result.get("fastest"), result.get("fastest_patched")) else ""
        lines.append(
            f"ours against {WAYS[way]}{best}: {result[f'ratio_speed_{way}']:.2f}× the speed, "
            f"{result[f'ratio_memory_{way}']:.2f}× the memory, losses {result[f'loss_difference_{way}']:.4f} apart"
        )
    return lines


def measured(way: str, job: Path, tokens: list[int], warmup: int) -> dict:
    """Run one way in a process of its own: tokens/s and seconds of the median step, peak memory, losses."""
    # all ways wait for their threads in the same way, which is the trainer's
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "HF_HUB_OFFLINE": "1", "WANDB_DISABLED": "true"}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in (str(PACKAGE.parent), environment.get("PYTHONPATH")) if p)
    done = subprocess.run(
        [sys.executable, "-m", "playground.bench.trainers", way, str(job)],
        capture_output=True,
        text=True,
        env=environment,
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
