"""`playground arena`: `ratings` from a file of pairwise votes, `export` and `import` of the app's own votes."""

import argparse
from pathlib import Path

from playground.errors import PlaygroundError

METHODS = ("bt", "elo", "winrate")
FORMATS = ("jsonl", "csv", "parquet", "pairs")
SHOWN = 10  # problems that are printed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    subparsers = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    ratings = subparsers.add_parser("ratings", help="rate models from pairwise votes")
    ratings.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object last")
    ratings.add_argument(
        "--votes",
        required=True,
        help="JSONL, JSON, CSV or Parquet with left, right and winner (left, right, tie, both bad), or as LMSYS names "
        "them: model_a, model_b and winner",
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
    ratings.add_argument("--judge", metavar="NAME", help="rate by this judge's votes instead of people's")
    ratings.add_argument(
        "--style", action="store_true", help="take the replies' length out of the leaderboard (needs the replies)"
    )
    ratings.set_defaults(run=rate)

    export = subparsers.add_parser("export", help="write the app's votes to a file")
    export.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object last")
    export.add_argument("file", metavar="FILE", help="file to write; it must not exist yet")
    export.add_argument("--session", metavar="NAME", help="of this class session only (default: of all)")
    export.add_argument(
        "--format",
        choices=FORMATS,
        help="pairs: preference pairs (chosen, rejected) as JSONL; default: by the file's ending",
    )
    export.set_defaults(run=export_votes)

    take = subparsers.add_parser("import", help="add the votes of a file to the app's")
    take.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object last")
    take.add_argument("file", metavar="FILE", help="JSONL, JSON, CSV or Parquet with left, right and winner")
    take.add_argument("--session", metavar="NAME", default="", help="class session of rows that name none")
    take.set_defaults(run=import_votes)


def main(args: argparse.Namespace) -> dict:
    return args.run(args)


def export_votes(args: argparse.Namespace) -> dict:
    from playground.config import Paths
    from playground.core import vote_files
    from playground.services.votes import Votes

    path = Path(args.file)
    format = args.format or path.suffix.lower().removeprefix(".")
    if format not in FORMATS:
        raise PlaygroundError(f"{path.name} does not say what to write; give --format {', '.join(FORMATS)}")
    if path.exists():
        raise PlaygroundError(f"{path} exists already; choose another name, or delete it first")
    votes = Votes(Paths().votes)
    sessions = votes.sessions()
    if args.session is not None and args.session not in sessions:
        there = ", ".join(repr(name) for name in sessions) or "none yet"
        raise PlaygroundError(f"there is no session {args.session!r}; the sessions are: {there}")
    rows = votes.export(args.session)
    count = vote_files.write(rows, path, format)
    what = "preference pairs" if format == "pairs" else "votes"
    print(f"{count:,} {what} written to {path}")
    told = vote_files.pairs(rows)[1] if format == "pairs" else ""
    if told:
        print(told)
    return {"file": str(path), "format": format, "rows": count, "votes": len(rows), "left_out": told}


def import_votes(args: argparse.Namespace) -> dict:
    from playground.config import Paths
    from playground.core import vote_files
    from playground.services.votes import Votes

    rows, problems, bad = vote_files.read(Path(args.file), args.session)
    new, known = Votes(Paths().votes).import_rows(rows)
    print(f"{new:,} votes added" + (f", {known:,} were here already" if known else ""))
    for problem in problems[:SHOWN]:
        print(f"left out: {problem}")
    if bad > SHOWN:
        print(f"left out: {bad - SHOWN:,} more")
    return {"added": new, "known": known, "left_out": bad, "problems": [str(problem) for problem in problems]}


def rate(args: argparse.Namespace) -> dict:
    if not 1 <= args.bootstraps <= 10_000:
        raise PlaygroundError(f"bootstraps must be between 1 and 10,000, got {args.bootstraps:,}")
    from playground.core import ratings
    from playground.core.datasets import read_rows
    from playground.core.vote_files import judge_of, named

    rows = [named(row) for row in read_rows(Path(args.votes))]
    # votes of judges stand in a file of ours too; they are never mixed with those of people
    chosen = [row for row in rows if (judge_of(row.get("judge")) or None) == args.judge]
    tally = ratings.count(chosen)
    if not tally.outcomes:
        why = f" ({tally.problems[0]})" if tally.problems else ""
        raise PlaygroundError(
            f"{args.votes} holds no vote that decides anything{why}; rows need left, right and winner"
        )
    board = ratings.leaderboard(tally, args.base, args.bootstraps, args.seed, args.style)
    if args.style and not any(tally.lengths):
        raise PlaygroundError(f"{args.votes} has no replies of different length, so length cannot be taken out")
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
    apart = len(rows) - len(chosen)
    if apart:
        print(f"{apart:,} votes of {'other voters' if args.judge else 'judges'} are not counted here")
    order = sorted(range(len(tally.models)), key=lambda i: -values[i])
    return {
        "method": args.method,
        "votes": len(tally.outcomes),
        "both_bad": sum(tally.both_bad.values()) // 2,
        "left_out": len(tally.problems),
        "apart": apart,
        "problems": tally.problems[:100],
        "ratings": {tally.models[i]: float(values[i]) for i in order},
        "leaderboard": [vars(line) for line in board],
    }
