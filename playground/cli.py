"""The command line: `playground serve | models | data | render | train | chat | bench`.

Each subcommand is a module with `add_arguments(parser)` and `main(args) -> dict | None`. Only argparse is
imported before the subcommand is known, so that every `--help` answers at once; what a command needs to do its
work is imported inside its `main`. With `--json`, the returned dict is printed as the last line.
"""

import argparse
import importlib
import json
import os
import sys

from playground import __version__
from playground.errors import PlaygroundError

COMMANDS = {
    "serve": ("playground.commands.serve", "start the app"),
    "models": ("playground.commands.models", "list, fetch and remove models"),
    "data": ("playground.commands.data", "check, convert and make data sets"),
    "render": ("playground.commands.render", "render an example in a chat template"),
    "train": ("playground.commands.train", "run a short LoRA fine-tune"),
    "runs": ("playground.commands.runs", "list, describe, compare, rename and delete runs"),
    "export": ("playground.commands.export", "take a run elsewhere: merged, Ollama, GGUF, notebook, TRL, the Hub"),
    "arena": ("playground.commands.arena", "rate models from votes; export and import votes"),
    "tools": ("playground.commands.tools", "ask with tools, score lanes, parse tool calls"),
    "chat": ("playground.commands.chat", "ask one question in several lanes at once"),
    "bench": ("playground.commands.bench", "measure against named peers"),
}

# Read by torch when it loads. On a CPU it keeps a kernel for each shape of a product it has met, about 0.6 MB each, in
# two caches of 1,024: prompts of all lengths fill them with what is never met again. These hold a batch's own shapes.
KERNEL_CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128", "LRU_CACHE_CAPACITY": "128"}


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser; only `command`'s module is imported, the others are known by name alone."""
    parser = argparse.ArgumentParser(
        prog="playground", description="See instruction tuning happen: templates, loss masks, adapters, tool calls."
    )
    parser.add_argument("--version", action="version", version=f"playground {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        sub = subparsers.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        sub.add_argument("--json", action="store_true", help="print one JSON object as the last line")
        if name == command:
            importlib.import_module(module).add_arguments(sub)
    return parser


def main(argv: list[str] | None = None) -> None:
    for name, value in KERNEL_CACHES.items():
        os.environ.setdefault(name, value)
    argv = sys.argv[1:] if argv is None else argv
    args = build_parser(next((word for word in argv if word in COMMANDS), None)).parse_args(argv)
    try:
        result = importlib.import_module(COMMANDS[args.command][0]).main(args)
    except PlaygroundError as error:
        if args.json:
            print(json.dumps({"error": str(error)}, ensure_ascii=False))
        print(f"playground {args.command}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"\nplayground {args.command}: stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # the reader of our output has gone (`playground models | head`): nothing is left to say to it
        sys.stderr.close()
        sys.exit(141)
    if args.json and result is not None:
        print(json.dumps(result, ensure_ascii=False))


if __name__ == "__main__":
    main()
