"""`playground runs`: list runs, show a run's card, compare, note, rename, delete."""

import argparse
import time

from playground.config import Paths
from playground.errors import PlaygroundError

EPILOG = """\
examples:
  playground runs                            all runs, newest first
  playground runs card my-run                what was trained, how it went, how to repeat it
  playground runs compare my-run my-run-2    the settings that differ
  playground runs rename my-run capitals     its adapter is called so too
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    kinds = parser.add_subparsers(dest="kind", metavar="KIND")
    kinds.add_parser("list", help="all runs, newest first")
    card = kinds.add_parser("card", help="a run's card, as Markdown")
    compare = kinds.add_parser("compare", help="the settings that differ between runs")
    compare.add_argument("runs", nargs="+", metavar="RUN", help="two runs or more")
    note = kinds.add_parser("note", help="keep a note with a run")
    rename = kinds.add_parser("rename", help="give a run and its adapter another name")
    delete = kinds.add_parser("delete", help="delete a run with its adapter")
    for kind in (card, note, rename, delete):
        kind.add_argument("run", metavar="RUN", help="name of the run")
    note.add_argument("text", help="the note; an empty one takes it away")
    rename.add_argument("name", help="the new name")
    delete.add_argument("--yes", action="store_true", help="do not ask")
    for kind in (*kinds.choices.values(),):
        # suppressed where it is not given, so that `runs --json card` is not undone
        kind.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object")


def main(args: argparse.Namespace) -> dict:
    named = {"card": show, "compare": compare, "note": note, "rename": rename, "delete": delete}
    return named.get(args.kind, list_all)(args, Paths())


def list_all(args: argparse.Namespace, paths: Paths) -> dict:
    from playground.services import runs

    found = [
        {"name": run.name, "state": run.state, "created": run.created, "adapter": str(run.adapter or "")}
        for run in runs.list_runs(paths)
    ]
    if not args.json:
        for run in found:
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(run["created"]))
            print(f"{run['name']:40} {run['state']:10} {when}  {'adapter' if run['adapter'] else ''}".rstrip())
        if not found:
            print("no runs yet; start one: playground train --recipe tool-calling")
    return {"runs": found}


def show(args: argparse.Namespace, paths: Paths) -> dict:
    from dataclasses import asdict

    from playground.core import run_card
    from playground.services import runs

    card = runs.card(runs.find(paths, args.run))
    if not args.json:
        print(run_card.markdown(card), end="")
    return asdict(card)


def compare(args: argparse.Namespace, paths: Paths) -> dict:
    from playground.core import run_card
    from playground.services import runs

    if len(set(args.runs)) < 2:
        raise PlaygroundError("compare takes two runs or more")
    found = run_card.config_differences([runs.find(paths, name).settings for name in args.runs])
    if not args.json:
        for name, values in found:
            print(f"{name:20} " + "  ".join(f"{value:24}" for value in values).rstrip())
        if not found:
            print("the settings are the same")
    return {"runs": args.runs, "differ": dict(found)}


def note(args: argparse.Namespace, paths: Paths) -> dict:
    from playground.services import runs

    run = runs.find(paths, args.run)
    runs.write_note(run, args.text)
    return {"run": run.name, "note": run.note}


def rename(args: argparse.Namespace, paths: Paths) -> dict:
    from playground.services import runs

    renamed = runs.rename(runs.find(paths, args.run), args.name)
    if not args.json:
        print(f"{args.run} is now {renamed.name}")
    return {"run": renamed.name}


def delete(args: argparse.Namespace, paths: Paths) -> dict:
    from playground.services import runs

    run = runs.find(paths, args.run)
    if not args.yes and input(f"Delete {run.name} with its adapter, its curve and its log? [y/N] ").lower() != "y":
        raise PlaygroundError("nothing was deleted")
    runs.remove(run)
    return {"deleted": run.name}
