"""`playground export`: a run as adapter zip, merged model, Ollama, GGUF, notebook, TRL script, or on the Hub."""

import argparse
from pathlib import Path

from playground.config import Paths

EPILOG = """\
examples:
  playground export my-run                              the adapter as a zip, in the run's folder exports/
  playground export my-run --as merged --dtype float32  one safetensors folder with the trained template
  playground export my-run --as ollama                  the same with a Modelfile
  playground export my-run --as hub --repo ada/my-run   the token is read from HF_TOKEN and kept nowhere
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from playground.services.exports import KINDS

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    kinds = "\n".join(f"  {name:9} {text}" for name, text in KINDS.items())
    parser.epilog = f"kinds:\n{kinds}\n\n{EPILOG}"
    parser.add_argument("run", metavar="RUN", help="name of the run; playground runs lists them")
    parser.add_argument("--as", dest="kind", choices=tuple(KINDS), default="adapter", help="default: adapter")
    parser.add_argument("--out", type=Path, help="folder to write to (default: exports/ in the run's folder)")
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), help="weights of a merged model")
    parser.add_argument("--repo", default="", help="repository on the Hub, owner/name")
    parser.add_argument("--public", action="store_true", help="make a new repository public (default: private)")


def main(args: argparse.Namespace) -> dict:
    from playground.errors import PlaygroundError
    from playground.services import runs
    from playground.services.exports import Export, Exporter
    from playground.services.sources import Sources

    options = {}
    if args.kind in ("merged", "ollama", "gguf"):
        options["dtype"] = args.dtype or "auto"
    elif args.dtype:
        raise PlaygroundError(f"--dtype is for merged, ollama and gguf, not for {args.kind}")
    if args.kind == "hub":
        options |= {"repo": args.repo, "private": not args.public}
    elif args.repo or args.public:
        raise PlaygroundError(f"--repo and --public are for --as hub, not for {args.kind}")
    paths = Paths()
    run = runs.find(paths, args.run)
    for step in Exporter(paths, Sources(paths)).make(args.kind, run, args.out, **options):
        if isinstance(step, Export):
            made = step
        else:
            print(step, flush=True)
    print(made.sentence + (f"\n{made.path}" if made.path else ""), flush=True)
    return {"run": run.name, "kind": made.kind, "path": str(made.path or ""), "url": made.url, "said": made.sentence}
