"""`playground render`: an example in a chat template; with a tokenizer also its ids and its loss mask."""

import argparse
from pathlib import Path

from playground.errors import PlaygroundError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--template", required=True, metavar="NAME|PATH", help="a built-in name, 'model' (its own) or a .jinja file"
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="FILE",
        help="one JSON object with messages, tools and template variables; or a data set, by path or built-in name",
    )
    parser.add_argument("--row", type=int, default=1, metavar="N", help="the row of the data set (default 1)")
    parser.add_argument(
        "--tokenizer", metavar="FOLDER|MODEL", help="a model folder or the name of a model that is here"
    )
    parser.add_argument("--mask", action="store_true", help="print the text with [[brackets]] around what is trained")
    parser.add_argument("--generation-prompt", action="store_true", help="end with the prompt for the assistant")
    parser.add_argument("--sanitize", action="store_true", help="encode control tokens inside messages as plain text")


def main(args: argparse.Namespace) -> dict:
    from playground.core import templates

    tokenizer = find_tokenizer(args.tokenizer) if args.tokenizer else None
    template = templates.load(args.template, tokenizer)
    conversation = find_conversation(args.data, args.row)
    done = templates.render(template, conversation, tokenizer, args.generation_prompt, args.sanitize)
    if not args.json:
        print(bracketed(done) if args.mask else done.text)
    result = {"text": done.text, "mask_rule": done.mask_rule}
    if tokenizer is not None:
        result |= {"ids": done.ids, "mask": [int(bit) for bit in done.mask], "trained_text": done.trained_text}
    return result


def find_conversation(data: str, row: int):
    """One object with messages is taken as it stands, so that any template gets just what the file says."""
    from playground.core import datasets, messages

    path = Path(data)
    if path.suffix.lower() == ".json" and path.is_file():
        rows = datasets.read_rows(path)
        if len(rows) == 1 and "messages" in rows[0] and row == 1:
            return messages.as_given(rows[0])
    conversations = datasets.load(data, _paths()).conversations
    if not 1 <= row <= len(conversations):
        raise PlaygroundError(f"row must be between 1 and {len(conversations):,}, got {row:,}")
    return conversations[row - 1]


def find_tokenizer(name: str):
    from playground.core.tokenizer import Tokenizer

    if Path(name).expanduser().is_dir():
        return Tokenizer.load(Path(name).expanduser())
    from playground.services.sources import Sources

    folder = Sources(_paths()).find(name)
    if folder is None:
        raise PlaygroundError(f"{name} is not on this machine yet; `playground models` says how to get it")
    return Tokenizer.load(folder)


def bracketed(done) -> str:
    text = [(done.text[s.start : s.end], s.trained) for s in done.spans]
    return "".join(f"[[{piece}]]" if trained else piece for piece, trained in text).replace("]][[", "")


def _paths():
    from playground.config import Paths

    return Paths()
