"""`playground chat "…" --lane MODEL[+ADAPTER][@TEMPLATE]`: one prompt, every lane at once."""

import argparse
import sys
import time

from playground import config
from playground.config import Paths, SamplingConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", help="what to ask; '-' reads it from standard input")
    parser.add_argument(
        "--lane",
        action="append",
        metavar="MODEL[+ADAPTER][@TEMPLATE]",
        help="a lane, may be given several times; without it: the embedded model without a chat template, "
        "with its own, and with the shipped adapter",
    )
    parser.add_argument("--system", default="", help="system prompt for every lane")
    parser.add_argument(
        "--endpoint",
        action="append",
        default=[],
        metavar="NAME=URL#MODEL",
        help="a server that speaks OpenAI's format, for --lane NAME; its key is read from NAME_API_KEY",
    )
    parser.add_argument("--fast-cpu", action="store_true", help="decode with 8-bit weights on a CPU")
    parser.add_argument("--load-in-4bit", action="store_true", help="hold the models in 4 bits (NF4)")
    parser.add_argument("--show-prompt", action="store_true", help="print the exact text each lane was given")
    for setting in config.fields(SamplingConfig):
        flag = "--" + setting.name.replace("_", "-")
        parser.add_argument(
            flag, default=setting.default, help=f"{setting.metadata['help']} (default {setting.default})"
        )


def main(args: argparse.Namespace) -> dict:
    sampling = config.parse(SamplingConfig, {f.name: getattr(args, f.name) for f in config.fields(SamplingConfig)})
    prompt = sys.stdin.read() if args.prompt == "-" else args.prompt
    from dataclasses import replace

    from playground.core.messages import Conversation
    from playground.services.engine import WORDS_FOR_REASON, Engine, Lane
    from playground.services.remote import Remotes
    from playground.services.sources import Sources

    model = "smollm2-135m-instruct"
    specs = args.lane or [f"{model}@plain", f"{model}@model", f"{model}+tool-calling"]
    lanes = [replace(Lane.parse(spec), sampling=sampling) for spec in specs]
    system = [{"role": "system", "content": args.system}] if args.system else []
    conversation = Conversation([*system, {"role": "user", "content": prompt}])
    paths = Paths()
    engine = Engine(
        Sources(paths),
        paths,
        load_in_4bit=args.load_in_4bit,
        remotes=Remotes.read(",".join(args.endpoint)),
        fast_cpu=args.fast_cpu,
    )
    replies = engine.replies([(lane, conversation) for lane in lanes])
    try:
        while not all(reply.done for reply in replies):
            time.sleep(0.2)
            if sys.stderr.isatty():
                written = ", ".join(f"{reply.lane.name}: {reply.count}" for reply in replies)
                print(f"\r{written} tokens", end="", file=sys.stderr)
    except KeyboardInterrupt:
        for reply in replies:
            reply.cancel()
        for reply in replies:
            reply.wait(10)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    for reply in replies:
        print(
            f"--- {reply.lane.name} ({WORDS_FOR_REASON[reply.finish_reason]}, {reply.tokens_per_second:.1f} tokens/s)"
        )
        if args.show_prompt:
            print(f"[exact prompt]\n{reply.prompt.text}\n[reply]")
        print(reply.error or reply.text)
    engine.close()
    return {
        "prompt": prompt,
        "lanes": [
            {
                "lane": reply.lane.name,
                "prompt": reply.prompt.text,
                "text": reply.text,
                "tokens": reply.count,
                "finish_reason": reply.finish_reason,
                "error": reply.error,
                "tokens_per_second": round(reply.tokens_per_second, 2),
            }
            for reply in replies
        ],
    }
