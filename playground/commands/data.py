"""`playground data`: write training data."""

import argparse
import json
import sys
from pathlib import Path

from playground.errors import PlaygroundError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    calls = kinds.add_parser("tool-calls", help="conversations that call a calculator and a weather tool, as JSONL")
    calls.add_argument("--n", type=int, default=600, help="rows to write (default: 600)")
    calls.add_argument("--seed", type=int, default=0, help="same seed, same rows (default: 0)")
    calls.add_argument("--split", choices=("train", "test"), default="train", help="no phrase, city or number is in both")
    calls.add_argument("--out", type=Path, help="file to write (default: standard output)")


def main(args: argparse.Namespace) -> dict | None:
    from playground.core import scoring, synthesis

    rows = synthesis.tool_calls(args.n, args.seed, args.split)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if args.out is None:
        sys.stdout.write(lines)
    else:
        _write(args.out, lines)
    kinds = [scoring.kind(due) for _, due in synthesis.questions(rows)]
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(sorted(kinds))}
    if args.out is not None:
        told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        print(f"{len(rows):,} rows in {args.out}: {told}")
    return {"rows": len(rows), "split": args.split, "seed": args.seed, "kinds": counts, "out": args.out and str(args.out)}


def _write(path: Path, text: str) -> None:
    """Whole or not at all: a full disk must not leave half a data set under the name that was asked for."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise PlaygroundError(f"cannot write {path}: {error.strerror or error}") from None
