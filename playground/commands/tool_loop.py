"""`playground tools loop`: rows, training, score, rows for the weakest error, round after round."""

import argparse
import json
import sys
import time
from pathlib import Path

from playground.commands.tool_run import MODEL
from playground.errors import PlaygroundError

LOOK = 1.0  # seconds between two looks at the trainer


def add_loop(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "example: playground tools loop --rounds 2 --rows 600 --added 200. Once ended, it goes on with --loop ID. "
        "The Tools tab has the same loop."
    )
    parser.add_argument("--loop", metavar="ID", help="go on with this loop instead of a new one")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="rounds in all (2)")
    parser.add_argument("--recipe", default="tool-calling", metavar="NAME", help="tool-calling (default) or json-calls")
    parser.add_argument("--schemas", type=Path, metavar="FILE", help="JSON schemas of the tools (default: the demo's)")
    parser.add_argument(
        "--languages", default="en", metavar="en,de,fr,es", help="with --schemas: what is asked in (en)"
    )
    parser.add_argument("--model", default=MODEL, metavar="NAME", help=f"the model that is trained ({MODEL})")
    parser.add_argument("--rows", type=int, default=600, metavar="N", help="rows of the first round (600)")
    parser.add_argument("--added", type=int, default=150, metavar="N", help="rows that each further round adds (150)")
    parser.add_argument("--questions", type=int, default=40, metavar="N", help="held-out questions (40)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same rows and questions (0)")
    parser.add_argument(
        "--train",
        default="afresh",
        choices=("afresh", "on"),
        help="further rounds: from the start with all rows (afresh), or on from the last adapter with the added ones",
    )
    parser.add_argument("--steps", type=int, default=0, metavar="N", help="steps of a round (0: once over the rows)")


def loop(args: argparse.Namespace) -> dict:
    from playground.config import Paths
    from playground.core import rounds
    from playground.services.datasets import Datasets
    from playground.services.engine import Engine
    from playground.services.jobs import Jobs
    from playground.services.loops import MAX_ROUNDS, Loops
    from playground.services.scorecards import Scorecards
    from playground.services.sources import Sources

    if not 1 <= args.rounds <= MAX_ROUNDS:
        raise PlaygroundError(f"--rounds must be between 1 and {MAX_ROUNDS}, got {args.rounds}")
    tools, languages = (), ("en",)
    if args.schemas:
        from playground.core.generator import schemas

        specs, left_out = schemas.read(args.schemas)
        tools = tuple(spec.schema for spec in specs)
        languages = tuple(code.strip() for code in args.languages.split(",") if code.strip())
        for reason in left_out:
            print(f"left out: {reason}", file=sys.stderr)
    elif args.languages != "en":
        raise PlaygroundError("--languages goes with --schemas FILE; without, the tools are the demo's, in English")
    paths = Paths()
    sources = Sources(paths)
    engine = Engine(sources, paths)
    found = Loops(paths, Datasets(paths), Jobs(paths, sources), Scorecards(paths, engine), engine)
    tell = (lambda *_: None) if args.json else (lambda *words: print(*words, flush=True))
    try:
        if args.loop:
            made = found.load(args.loop)
        else:
            sources.entry(args.model)  # says at once what cannot be trained, before there are rows
            kit = rounds.Kit(args.recipe, tools, languages)
            *_, step = found.create(kit, args.rows, args.questions, args.seed, args.model)
            made = step.result
        tell(f"loop {made.id}\nround {made.now.number}: {made.now.report.sentence()}")
        return _go(found, made, args, tell)
    finally:
        engine.close()


def _go(found, loop, args: argparse.Namespace, tell) -> dict:
    """Step after step, from wherever the loop is, until its rounds are done or it makes no error any more."""
    from playground.services.loops import AFRESH, IMPROVE, SCORE, SCORING, TRAIN, TRAINING

    tried = None
    while True:
        match found.stage(loop):
            case step if step == TRAIN:
                if tried == loop.now.number:  # the run that this command started gave no adapter
                    run = found.run(loop)
                    raise PlaygroundError(f"the run {loop.now.run} {_ended(run)}; loop {loop.id} goes on with --loop")
                tried = loop.now.number
                loop = found.train(loop.id, args.train if tried > 1 else AFRESH, args.steps)
                tell(f"round {tried}: training as {loop.now.run}")
            case step if step == TRAINING:
                _watch(found, loop, tell)
            case step if step == SCORE:
                for progress in found.score_here(loop.id):
                    if sys.stderr.isatty():
                        print(f"\r{progress.done} of {progress.total} replies    ", end="", file=sys.stderr)
                loop = found.load(loop.id)
                if found.stage(loop) != IMPROVE:
                    raise PlaygroundError(f"the scorecard was stopped; loop {loop.id} goes on with --loop")
                _tell_score(found, loop, tell)
            case step if step == SCORING:  # by this process alone: it never comes here
                time.sleep(LOOK)
            case _:
                weak = found.weaknesses(loop)
                if loop.now.number >= args.rounds or not weak:
                    return _result(found, loop)
                loop = found.add(loop.id, weak[0], args.added)
                tell(f"round {loop.now.number}: {loop.now.added:,} rows added. {weak[0].remedy(loop.kit)}")


def _ended(run) -> str:
    return f"ended without an adapter: {run.status.sentence or run.state}" if run else "is gone"


def _watch(found, loop, tell) -> None:
    """Until the trainer, a process of its own, has ended."""
    from playground.commands.train import event_line

    run, seen = found.run(loop), 0
    while True:
        live = run.status.live
        events = run.events()
        for event in events[seen:]:
            if event["kind"] in ("state", "eval", "truth") and (line := event_line(event)):
                tell(f"  {line}")
        seen = len(events)
        if not live:
            return
        time.sleep(LOOK)


def _tell_score(found, loop, tell) -> None:
    for what, valid, errors, change in found.compared(loop)[-2:]:
        low, high = valid.interval
        told = ", ".join(f"{word.replace('_', ' ')} {count}" for word, count in errors.items()) or "no errors"
        moved = f"; {change.gained} gained, {change.lost} lost, p = {change.p_value:.3f}" if change else ""
        tell(f"{what}: {valid.count} of {valid.total} valid ({low:.0%} to {high:.0%}{moved}): {told}")
    for weak in found.weaknesses(loop)[:1]:
        tell(f"weakest: {weak.sentence()}")


def _result(found, loop) -> dict:
    from dataclasses import asdict

    table = [
        {
            "what": what,
            "valid": valid.count,
            "total": valid.total,
            "rate": round(valid.rate, 4),
            "interval": [round(bound, 4) for bound in valid.interval],
            "errors": errors,
            "gained": change.gained if change else None,
            "lost": change.lost if change else None,
            "p": round(change.p_value, 4) if change else None,
        }
        for what, valid, errors, change in found.compared(loop)
    ]
    made = [
        {k: v for k, v in asdict(one).items() if k != "report"} | {"kinds": one.report.kinds} for one in loop.rounds
    ]
    weak = [weak.sentence() for weak in found.weaknesses(loop)]
    return json.loads(json.dumps({"loop": loop.id, "rounds": made, "scores": table, "errors_left": weak}))
