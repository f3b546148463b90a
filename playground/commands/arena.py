"""`playground arena ratings --votes FILE`: ratings from a file of pairwise votes, without the app."""

import argparse
from pathlib import Path

from playground.errors import PlaygroundError

METHODS = ("bt", "elo", "winrate")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    subparsers = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    ratings = subparsers.add_parser("ratings", help="rate models from pairwise votes")
    ratings.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object last")
    ratings.add_argument(
        "--votes",
        required=True,
        help="JSONL, JSON, CSV or Parquet with left, right and winner (left, right, tie, both bad)",
    )
    ratings.add_argument(
        "--method",
        choices=METHODS,
        default="bt",
        help="bt: Bradley–Terry strengths that add up to 1; elo: in the votes' order; winrate: mean over opponents",
    )
    ratings.add_argument("--base", help="model whose rating is 0 on the leaderboard (else the mean is 0)")
    ratings.add_argument("--bootstraps", type=int, default=100, help="resamples for the 95 %% intervals (100)")
    ratings.add_argument("--seed", type=int, default=0, help="seed of the resamples (0)")


def main(args: argparse.Namespace) -> dict:
    if not 1 <= args.bootstraps <= 10_000:
        raise PlaygroundError(f"bootstraps must be between 1 and 10,000, got {args.bootstraps:,}")
    from playground.core import ratings
    from playground.core.datasets import read_rows

    tally = ratings.count(read_rows(Path(args.votes)))
    if not tally.outcomes:
        why = f" ({tally.problems[0]})" if tally.problems else ""
        raise PlaygroundError(
            f"{args.votes} holds no vote that decides anything{why}; rows need left, right and winner"
        )
    board = ratings.leaderboard(tally, args.base, args.bootstraps, args.seed)
    scores = {
        "bt": ratings.bradley_terry,
        "winrate": ratings.average_win_rate,
    }
    values = ratings.elo(tally) if args.method == "elo" else scores[args.method](tally.wins)
    print(
        f"{'rank':>4s}  {'model':32s} {'rating':>7s} {'95 % interval':>18s} {'votes':>6s} {'win rate':>8s} {'elo':>7s}"
    )
    for line in board:
        rank = "?" if line.rank is None else line.rank
        interval = f"{line.low:7.1f} … {line.high:7.1f}"
        print(
            f"{rank:>4}  {line.model[:32]:32s} {line.rating:7.1f} {interval:>18s} {line.votes:6d} "
            f"{line.win_rate:8.3f} {line.elo:7.1f}"
        )
    if any(line.rank is None for line in board):
        print("?: not enough votes to tell this model from the others")
    for problem in tally.problems[:10]:
        print(f"left out: {problem}")
    if len(tally.problems) > 10:
        print(f"left out: {len(tally.problems) - 10} more")
    order = sorted(range(len(tally.models)), key=lambda i: -values[i])
    return {
        "method": args.method,
        "votes": len(tally.outcomes),
        "both_bad": sum(tally.both_bad.values()) // 2,
        "left_out": len(tally.problems),
        "problems": tally.problems[:100],
        "ratings": {tally.models[i]: float(values[i]) for i in order},
        "leaderboard": [vars(line) for line in board],
    }
