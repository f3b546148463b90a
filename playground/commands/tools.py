"""`playground tools`: `parse` replies, `run` a question with every step shown, `score` lanes on a set of questions,
`loop` through rows, training, score and more rows where the model is weakest."""

import argparse
import json
import sys
from pathlib import Path

from playground.commands.tool_loop import add_loop, loop
from playground.commands.tool_run import FORMAT_HELP, MODEL, TUNED, add_mcp, add_run, mcp, printable, run, shown
from playground.errors import PlaygroundError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    subparsers = parser.add_subparsers(dest="tools_command", metavar="COMMAND", required=True)
    for name, (function, add, summary) in COMMANDS.items():
        sub = subparsers.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        # SUPPRESS: a --json given before the subcommand's name is not overwritten by this parser's default
        sub.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object last")
        sub.set_defaults(run=function)
        add(sub)


def main(args: argparse.Namespace) -> dict | None:
    return args.run(args)


def _add_parse(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", metavar="FILE", help="a reply as text; - reads standard input")
    parser.add_argument("--format", default="auto", metavar="NAME", help="auto (by default), or a format's name")
    parser.add_argument("--tools", metavar="FILE", help="the tools' JSON schemas: they say what bare arguments are")
    parser.add_argument("--keep-reasoning", action="store_true", help="leave the reasoning in the content")
    parser.add_argument("--cases", metavar="FILE", help="check rows of input and expected result (JSONL) instead")
    parser.add_argument("--seed", type=int, default=0, help="how the cases' inputs are cut into pieces (0)")


def parse(args: argparse.Namespace) -> dict:
    if args.cases and args.file:
        raise PlaygroundError("give a FILE with one reply or --cases, not both")
    if args.cases:
        return _check_cases(Path(args.cases), args.seed, args.json)
    if not args.file:
        raise PlaygroundError("what should be read? Give a FILE with a reply (- for standard input), or --cases FILE")
    return _parse_reply(args)


def _parse_reply(args: argparse.Namespace) -> dict:
    from playground.core import tool_formats

    text = sys.stdin.read() if args.file == "-" else _read(Path(args.file))
    tools = _schemas(Path(args.tools)) if args.tools else []
    if args.format == "auto":
        format = tool_formats.guess(text, tools)
    else:
        format = tool_formats.named(args.format)
    if format is None:
        parsed = tool_formats.Parsed(text.strip())
    else:
        parsed = format.parse(text, reasoning=not args.keep_reasoning, tools=tools)
    result = {
        "format": format.NAME if format else None,
        "content": parsed.content,
        "reasoning": parsed.reasoning,
        "calls": [shown(call) for call in parsed.calls],
    }
    result = printable(result)
    if not args.json:
        _print_reply(result)
    return result


def _print_reply(result: dict) -> None:
    print(f"format     {result['format'] or 'none found: no call in it'}")
    for key in ("reasoning", "content"):
        if result[key]:
            print(f"{key:<10} " + result[key].replace("\n", "\n" + " " * 11))
    for call in result["calls"]:
        if "fault" in call:
            print(f"fault      {call['fault']}: {call['reason']}")
        else:
            print(f"call       {call['name']} {json.dumps(call['arguments'], ensure_ascii=False)}")


def _check_cases(path: Path, seed: int, quiet: bool) -> dict:
    from playground.core import jsonl
    from playground.core.tool_formats import cases

    formats: dict[str, dict[str, int]] = {}
    failures = []
    for number, row in jsonl.rows(path, "line"):
        try:
            verdict = cases.check(row, seed)
        except PlaygroundError as error:
            raise PlaygroundError(f"{path.name}, line {number}: {error}") from None
        counts = formats.setdefault(verdict.format, {"passed": 0, "total": 0})
        counts["total"] += 1
        counts["passed"] += verdict.passed
        if not verdict.passed:
            failures.append({"line": number, "format": verdict.format, "id": verdict.id, "reason": verdict.reason})
    total = sum(counts["total"] for counts in formats.values())
    result = {"passed": total - len(failures), "total": total, "formats": formats, "failures": printable(failures)}
    if not quiet:
        for failure in result["failures"]:
            print(f"line {failure['line']}, {failure['format']}, {failure['id']}: {failure['reason']}")
        for name in sorted(formats):
            print(f"{name:<30} {formats[name]['passed']:>4} of {formats[name]['total']}")
        print(f"{'all':<30} {result['passed']:>4} of {total}")
    return result


def _schemas(path: Path) -> list[dict]:
    try:
        value = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise PlaygroundError(f"{path.name} is not JSON: {error}") from None
    tools = value if isinstance(value, list) else [value]
    if not all(isinstance(tool, dict) for tool in tools):
        raise PlaygroundError(f"{path.name} must hold a list of tool schemas")
    return tools


def _read(path: Path) -> str:
    try:
        # newline="": a reply is read as it is
        with path.open(encoding="utf-8", newline="") as file:
            return file.read()
    except OSError as error:
        raise PlaygroundError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise PlaygroundError(f"{path} is not UTF-8 text") from None


# --- score ---


def _add_score(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--questions",
        default="demo",
        metavar="SET|FILE",
        help="demo (by default), every-kind, calculator, weather, several, no-tool or irrelevant; or a file or folder: "
        'rows of {"question", "tools", "expected"}, or the Berkeley Function Calling Leaderboard\'s',
    )
    parser.add_argument("--n", type=int, default=40, metavar="N", help="how many questions (40; 0: all of a file)")
    parser.add_argument("--seed", type=int, default=0, help="which questions (0; of a file: the first ones)")
    parser.add_argument(
        "--lanes",
        nargs="+",
        default=[MODEL, TUNED],
        metavar="MODEL[+ADAPTER][@TEMPLATE]",
        help=f"who is asked (default {MODEL} {TUNED})",
    )
    parser.add_argument("--format", nargs="+", default=["auto"], metavar="NAME", help=FORMAT_HELP)
    parser.add_argument(
        "--decoding",
        nargs="+",
        default=["free"],
        metavar="MODE",
        help="free (by default); valid: constrained, calls fit a schema; must: constrained, calls and nothing else",
    )
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="replies written at the same time (8)")


def score(args: argparse.Namespace) -> dict:
    from playground.core import question_sets, scorecard

    if args.questions in question_sets.SETS:
        name, questions = args.questions, question_sets.built_in(args.questions, args.n, args.seed)
    else:
        path = Path(args.questions)
        if not path.exists():
            sets = ", ".join(question_sets.SETS)
            raise PlaygroundError(f"there is no question set and no file {args.questions!r}; the sets are {sets}")
        name, questions = path.name, question_sets.choose(question_sets.read([path]), args.n, args.seed)
    from playground.config import Paths
    from playground.services import scorecards
    from playground.services.engine import Engine, Lane
    from playground.services.sources import Sources

    paths = Paths()
    engine = Engine(Sources(paths), paths)
    try:
        asked = scorecards.entrants(engine, [Lane.parse(spec) for spec in args.lanes], args.format, args.decoding)
        cards = scorecards.Scorecards(paths, engine)
        steps = cards.run(f"{name}, seed {args.seed}", asked, questions, args.batch)
        card = _last(steps)
    finally:
        engine.close()
    result = scorecard.summary(card)
    if not args.json:
        _print_score(result)
    return result


def _last(steps):
    """The card at the end; Ctrl-C ends it early, and what was done is stored."""
    card = None
    for step in steps:
        card = step.result
        if sys.stderr.isatty() and step.done:
            left = f", {step.eta:.0f} s left" if step.eta is not None else ""
            print(f"\r{step.done} of {step.total} replies{left}    ", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return card


def _print_score(result: dict) -> None:
    from playground.core.scorecard import title

    print(f"{result['name']}, {result['seconds']:.0f} s, stored as {result['scorecard']}")
    for lane in result["lanes"]:
        low, high = lane["interval"]
        print(
            f"\n{lane['lane']} (template {lane['template']}, calls as {lane['format']}): {lane['valid']} of "
            f"{lane['total']} valid, {lane['rate']:.0%} (95 % interval {low:.0%} to {high:.0%})"
        )
        for word, cell in lane["outcomes"].items():
            if cell["count"]:
                low, high = cell["interval"]
                print(f"  {title(word):<28} {cell['count']:>4}  {cell['rate']:>4.0%}  ({low:.0%} to {high:.0%})")
        if lane["failed"]:
            print(f"  {title('failed'):<28} {lane['failed']:>4}  not counted")
        for kind, counts in lane["kinds"].items():
            print(f"  of {kind}: {counts['valid']} of {counts['total']} valid")


COMMANDS = {
    "parse": (parse, _add_parse, "find the calls, the content and the reasoning in a model's reply"),
    "run": (run, add_run, "ask a question that may need tools, and see every step"),
    "score": (score, _add_score, "ask lanes a set of questions, and count their calls by what went wrong"),
    "loop": (loop, add_loop, "make rows, train, score, add rows for the weakest error, and train again"),
    "mcp": (mcp, add_mcp, "serve the app's tools to other programs, over the Model Context Protocol"),
}
