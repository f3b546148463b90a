"""`playground bench lanes | render | serve | soak | train`: figures beside named peers, in one run."""

import argparse
import importlib

BENCHES = {
    "lanes": ("playground.bench.lanes", "base + two adapters decoded together ÷ the same three one after the other"),
    "render": ("playground.bench.render", "a keystroke's renderings, and the report beside the bare tokenizer call"),
    "serve": ("playground.bench.serve", "many visitors at once, beside generate behind a lock"),
    "soak": ("playground.bench.soak", "visitors who chat with the page for minutes: mixed, stuck, memory"),
    "train": ("playground.bench.train", "rows/s, peak memory and losses beside TRL's SFTTrainer and plain Trainer"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    subparsers = parser.add_subparsers(dest="bench", metavar="BENCH", required=True)
    for name, (module, summary) in BENCHES.items():
        sub = subparsers.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        # SUPPRESS: a --json given before the bench's name is not overwritten by this parser's default
        sub.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object last")
        importlib.import_module(module).add_arguments(sub)


def main(args: argparse.Namespace) -> dict | None:
    return importlib.import_module(BENCHES[args.bench][0]).main(args)
