"""`playground data`: look at training data, convert it, generate it."""

import argparse
import gzip
import json
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from playground.commands import add_settings, settings
from playground.config import Paths
from playground.errors import PlaygroundError

EPILOG = """\
examples:
  playground data check rows.jsonl               what is in a file, and what is wrong with it
  playground data check rows.csv --prompt Ask --answer Reply
  playground data convert rows.json --to messages --out messages.jsonl
  playground data list                           built-in data sets and those that were uploaded
  playground data tool-calls --n 600 --out calls.jsonl
  playground data tool-calls --schemas tools.json --n 10000 --languages en,de --format hermes --out calls.jsonl
"""
SHOWN = 10  # bad rows that are printed; --json has more


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from playground.core.datasets.mapping import Mapping

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    check = kinds.add_parser("check", help="format, rows, bad rows with reasons, roles, tools, longest and shortest")
    convert = kinds.add_parser("convert", help="write the rows of any format as messages, one JSON object per line")
    convert.add_argument("--to", choices=("messages",), required=True, help="the format to write")
    convert.add_argument("--out", type=Path, help="JSONL file to write, packed if it ends in .gz (default: stdout)")
    for kind in (check, convert):
        kind.add_argument("file", metavar="FILE", help="JSON, JSONL, CSV or Parquet (also .gz), or a data set's name")
        add_settings(kind, Mapping)
    listed = kinds.add_parser("list", help="built-in data sets and those that were uploaded")
    calls = kinds.add_parser(
        "tool-calls", help="conversations that call a calculator and a weather tool, or any tools, as JSONL"
    )
    calls.add_argument("--n", type=int, default=600, help="rows to write (default: 600)")
    calls.add_argument("--seed", type=int, default=0, help="same seed, same rows (default: 0)")
    calls.add_argument(
        "--split", choices=("train", "test"), default="train", help="no phrase, city or number is in both"
    )
    calls.add_argument("--schemas", type=Path, metavar="FILE", help="JSON schemas of the tools to call instead")
    calls.add_argument(
        "--languages", metavar="en,de,fr,es", help="with --schemas: what the questions are asked in (default: en)"
    )
    calls.add_argument(
        "--format",
        metavar="NAME",
        help="with --schemas: messages (default), pairs (function-calling pairs), or the name of a call format:"
        " then tools and calls are text in it",
    )
    calls.add_argument("--out", type=Path, help="file to write (default: standard output)")
    for kind in (check, convert, listed, calls):
        # suppressed where it is not given, so that `data --json check` is not undone
        kind.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object as the last line"
        )


def main(args: argparse.Namespace) -> dict | None:
    return {"check": check, "convert": convert, "list": list_all, "tool-calls": tool_calls}[args.kind](args)


def check(args: argparse.Namespace) -> dict:
    from playground.core.datasets import summary

    try:
        found = summary.summary(args.file, _load(args))
    except PlaygroundError as error:
        if args.json:
            print(json.dumps(summary.nothing(args.file, error), ensure_ascii=False))
        print(f"playground data: {error}", file=sys.stderr)
        sys.exit(1)
    if not args.json:
        print("\n".join(lines(found)))
    return found


def lines(found: dict) -> list[str]:
    """A summary for people."""
    mixed = ", ".join(f"{count:,} {name}" for name, count in found["formats"].items())
    many = f", {found['conversations']:,} conversations" if found["conversations"] != found["rows"] else ""
    said = [
        f"{found['file']}: {found['format']}{f' ({mixed})' if len(found['formats']) > 1 else ''}",
        f"rows      {found['rows']:,}{many}" + (f", {found['bad_rows']:,} left out" if found["bad_rows"] else ""),
        f"roles     {_counts(found['roles'])}",
        f"tools     {_counts(found['tools'])}",
        f"calls     {_counts(found['calls'])}",
        f"longest   {found['longest']['characters']:,} characters (row {found['longest']['row']:,})",
        f"shortest  {found['shortest']['characters']:,} characters (row {found['shortest']['row']:,})",
    ]
    said += [f"note      {note}" for note in found["notes"]]
    said += [f"problem   {problem}" for problem in found["problems"][:SHOWN]]
    more = max(found["bad_rows"], len(found["problems"])) - SHOWN
    return said + ([f"          and {more:,} more"] if more > 0 else [])


def _counts(counts: dict) -> str:
    shown = [f"{name} {count:,}" for name, count in list(counts.items())[:8]]
    return ", ".join(shown) + (f" and {len(counts) - 8:,} more" if len(counts) > 8 else "") or "none"


def convert(args: argparse.Namespace) -> dict:
    data = _load(args)
    rows = (as_messages(c, extras) for c, extras in zip(data.conversations, data.extras, strict=True))
    _write(args.out, rows)
    if args.out is not None and not args.json:
        left_out = f"; {data.bad:,} left out (`playground data check` says why)" if data.bad else ""
        print(f"{len(data.conversations):,} rows in {args.out}{left_out}")
    return {
        "file": args.file,
        "format": data.format,
        "rows": data.rows,
        "bad_rows": data.bad,
        "written": len(data.conversations),
        "problems": data.problems,
        "out": args.out and str(args.out),
    }


def as_messages(conversation, extras: dict) -> dict:
    """A row of the format "messages" that loads to the same conversation."""
    row = {"messages": conversation.messages}
    if conversation.tools:
        row["tools"] = conversation.tools
    if conversation.variables:
        row["chat_template_kwargs"] = conversation.variables
    if "desirable" in extras:  # without it a reply that was not liked would pass for one to learn
        row["label"] = extras["desirable"]
    return row


def list_all(args: argparse.Namespace) -> dict:
    from playground.services.datasets import Datasets

    found = Datasets(Paths()).entries()
    rows = [
        {"name": e.name, "built_in": e.built_in, "format": e.format, "rows": e.rows, "bytes": e.bytes} for e in found
    ]
    if not args.json:
        width = max(len(row["name"]) for row in rows)
        for row in rows:
            size = "built in" if row["built_in"] else f"{row['bytes'] / 2**20:,.1f} MB"
            print(f"{row['name']:{width}}  {row['format'] or 'unknown':18} {row['rows']:>9,} rows  {size}")
    return {"datasets": rows}


def tool_calls(args: argparse.Namespace) -> dict:
    if args.schemas is not None:
        return any_tool_calls(args)
    for flag in ("languages", "format"):
        if getattr(args, flag) is not None:
            raise PlaygroundError(f"--{flag} goes with --schemas FILE; without, the tools are the demo's, in English")
    from playground.core import scoring, synthesis

    rows = synthesis.tool_calls(args.n, args.seed, args.split)
    _write(args.out, rows)
    kinds = [scoring.kind(due) for _, due in synthesis.questions(rows)]
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(sorted(kinds))}
    if args.out is not None:
        told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        print(f"{len(rows):,} rows in {args.out}: {told}")
    return {
        "rows": len(rows),
        "split": args.split,
        "seed": args.seed,
        "kinds": counts,
        "out": args.out and str(args.out),
    }


def any_tool_calls(args: argparse.Namespace) -> dict:
    """Rows for the schemas of a file, every argument proven to stand in its question."""
    from collections import Counter

    from playground.core.generator import layouts, schemas, writer

    layout = args.format or layouts.MESSAGES
    if layout not in (layouts.MESSAGES, layouts.PAIRS):
        layout = tool_format(layout)
    specs, left_out = schemas.read(args.schemas)
    languages = [code.strip() for code in (args.languages or "en").split(",") if code.strip()]
    made = writer.rows(specs, args.n, args.seed, languages, args.split)
    lines = list(layouts.lines(made.rows, layout))
    _write(args.out, lines)
    result = {
        "rows": len(lines),
        "split": args.split,
        "seed": args.seed,
        "format": layout,
        "kinds": dict(sorted(Counter(row.kind for row in made.rows).items())),
        "languages": dict(sorted(Counter(row.language for row in made.rows).items())),
        "tools": len(specs),
        "tools_left_out": left_out,
        "arguments_proven": made.proven,
        "redrawn": dict(made.redrawn.most_common()),
        "not_in_this_format": len(made.rows) - len(lines),
        "out": args.out and str(args.out),
    }
    if args.out is not None and not args.json:
        print("\n".join(said(result)))
    return result


def tool_format(name: str) -> str:
    from playground.core import tool_formats
    from playground.core.generator import layouts

    try:
        return tool_formats.named(name).NAME
    except PlaygroundError:
        raise PlaygroundError(f"there is no format {name!r}; there are {', '.join(layouts.names())}") from None


def said(result: dict) -> list[str]:
    """What was generated, for people."""
    lines = [
        f"{result['rows']:,} rows in {result['out']}: {_counts(result['kinds'])}",
        f"tools     {result['tools']:,}",
        f"languages {_counts(result['languages'])}",
        f"proven    {result['arguments_proven']:,} arguments, each read from the words of its question",
        f"redrawn   {_counts(result['redrawn'])}",
    ]
    if result["not_in_this_format"]:
        lines.append(f"left out  {result['not_in_this_format']:,} rows that {result['format']} cannot hold")
    return lines + [f"left out  {reason}" for reason in result["tools_left_out"][:SHOWN]]


def _load(args: argparse.Namespace):
    from playground.core import datasets

    mapping = settings(args, datasets.Mapping)
    return datasets.load(args.file, Paths(), None if mapping == datasets.Mapping() else mapping)


def _write(path: Path | None, rows: Iterable[dict]) -> None:
    """JSON lines, whole or not at all: a full disk must not leave half a data set under the name that was asked for."""
    texts = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if path is None:
        for text in texts:
            sys.stdout.write(text)
        return
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
        os.close(handle)
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(part, "wt", encoding="utf-8") as out:
            out.writelines(texts)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(part, 0o666 & ~mask)  # what a plain open gives; mkstemp's own is for this user alone
        os.replace(part, path)
    except OSError as error:
        if part:
            Path(part).unlink(missing_ok=True)
        raise PlaygroundError(f"cannot write {path}: {error.strerror or error}") from None
