"""`playground tools parse`: what a reply holds, in any tool-call format, or whether a file of cases is read right."""

import argparse
import json
import sys
from pathlib import Path

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
        "calls": [_shown(call) for call in parsed.calls],
    }
    result = _printable(result)
    if not args.json:
        _print_reply(result)
    return result


def _shown(call) -> dict:
    from playground.core.tool_formats import Call

    if isinstance(call, Call):
        return {"name": call.name, "arguments": call.arguments}
    return {"fault": call.kind, "name": call.name, "reason": call.reason, "raw": call.raw}


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
    from playground.core.tool_formats import cases

    formats: dict[str, dict[str, int]] = {}
    failures = []
    for number, row in _rows(path):
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
    result = {"passed": total - len(failures), "total": total, "formats": formats, "failures": _printable(failures)}
    if not quiet:
        for failure in result["failures"]:
            print(f"line {failure['line']}, {failure['format']}, {failure['id']}: {failure['reason']}")
        for name in sorted(formats):
            print(f"{name:<30} {formats[name]['passed']:>4} of {formats[name]['total']}")
        print(f"{'all':<30} {result['passed']:>4} of {total}")
    return result


def _rows(path: Path):
    rows = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise PlaygroundError(f"{path.name}, line {number} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise PlaygroundError(f"{path.name}, line {number} must be a JSON object")
        rows.append((number, row))
    if not rows:
        raise PlaygroundError(f"{path.name} has no cases")
    return rows


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


def _printable(value):
    """`value` without lone halves of surrogate pairs, which a JSON escape can make and no terminal takes."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_printable(key): _printable(one) for key, one in value.items()}
    return [_printable(one) for one in value] if isinstance(value, list) else value


COMMANDS = {"parse": (parse, _add_parse, "find the calls, the content and the reasoning in a model's reply")}
