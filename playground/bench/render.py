"""`playground bench render`: the template lab's two promises, with their peers in the same run.

One keystroke: a four-turn example changes by a character and twelve templates render it again, with tokens, pieces
and loss mask; the figure is the 95th percentile over many keystrokes, for built-in templates and for the same texts
as a visitor would paste them (in a bounded process). The report over a data set stands beside the bare tokenizer call
(`tokenizers`' encode_batch, all rows at once) on the same rendered texts; each round times both, in turn, and the
ratio is the median of the rounds' ratios. Two data sets: tool calls, and short rows, where everything that is not
the tokenizer weighs most. Peak memory is the process's after the first full report, before the bare call.
"""

import argparse
import random
import statistics
import time
from dataclasses import replace

from playground.errors import PlaygroundError

MODEL = "smollm2-135m-instruct"
EXAMPLE = [
    ("user", "What is a prime number?"),
    ("assistant", "A prime number is a whole number above 1 that only 1 and itself divide."),
    ("user", "Is 51 prime? Show how you know, step by step, and name the next prime after it."),
    ("assistant", "No: 5 + 1 = 6, which 3 divides, so 3 divides 51, and 51 = 3 * 17. The next prime after it is 53."),
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=10_000, help="rows of the report")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, each timing the bare call and the report once")
    parser.add_argument("--keystrokes", type=int, default=200, help="keystrokes timed")
    parser.add_argument("--template", default="chatml-tools", help="template of the report")
    parser.add_argument(
        "--tokenizer",
        default="",
        metavar="FOLDER|MODEL",
        help=f"a model folder or the name of a model that is here ({MODEL}; without it, one trained on the spot)",
    )


def main(args: argparse.Namespace) -> dict:
    if min(args.rows, args.rounds, args.keystrokes) < 1:
        raise PlaygroundError(
            f"rows, rounds and keystrokes must be at least 1; got {args.rows}, {args.rounds} and {args.keystrokes}"
        )
    from playground.core import templates

    name, tokenizer = find_tokenizer(args.tokenizer)
    template = templates.load(args.template, tokenizer)
    result = {"tokenizer": name, "template": template.name, "rows": args.rows, "rounds": args.rounds}
    print(f"{name}, {args.rows:,} rows, template {template.name}", flush=True)
    for label, conversations in {"tool_calls": tool_rows(args.rows), "short_rows": short_rows(args.rows)}.items():
        figures = time_report(conversations, template, tokenizer, args.rounds)
        print(
            f"  report, {label.replace('_', ' ')} ({figures['tokens_per_row']:.0f} tokens a row): "
            f"{figures['report_s']:.2f} s ÷ bare tokenizer call {figures['bare_s']:.2f} s = {figures['ratio']:.2f}",
            flush=True,
        )
        result |= {f"{label}_{key}": value for key, value in figures.items()}
    result["ratio"] = max(result["tool_calls_ratio"], result["short_rows_ratio"])
    result["peak_mb"] = result["tool_calls_peak_mb"]
    print(f"  peak memory {result['peak_mb']:.0f} MB")
    some = [templates.load(name) for name in templates.names()][:12]
    for label, chosen in {
        "": some,
        "pasted_": [replace(template, source="pasted") for template in some],
    }.items():
        p50, p95 = time_keystrokes(chosen, tokenizer, args.keystrokes)
        result |= {f"{label}p50_ms": p50, f"{label}p95_ms": p95}
        what = "pasted" if label else "built-in"
        print(
            f"  keystroke, {len(chosen)} {what} templates: median {p50:.0f} ms, 95th percentile {p95:.0f} ms",
            flush=True,
        )
    return result


def time_report(conversations: list, template, tokenizer, rounds: int) -> dict:
    """Seconds of the report and of the bare call, their ratio, and the process's peak memory after one report."""
    from concurrent.futures import ThreadPoolExecutor

    from playground.core import report, templates

    with ThreadPoolExecutor(1) as executor:

        def whole(rows):
            *_, last = report.survey(rows, template, tokenizer, submit=executor.submit)
            return last.result

        whole(conversations[: 2 * report.CHUNK])  # imports, the language model, the compiled template
        figures = whole(conversations)
        peak = peak_mb()
        texts = [text.text for text in templates.texts(template, conversations, tokenizer)]
        pairs = []
        for _ in range(rounds):
            bare = seconds(lambda: tokenizer.backend.encode_batch(texts, add_special_tokens=False))
            pairs.append((seconds(lambda: whole(conversations)), bare))
    return {
        "report_s": round(statistics.median(ours for ours, _ in pairs), 3),
        "bare_s": round(statistics.median(bare for _, bare in pairs), 3),
        "ratio": round(statistics.median(ours / bare for ours, bare in pairs), 3),
        "tokens_per_row": round(figures.tokens / max(1, len(figures.lengths)), 1),
        "peak_mb": peak,
    }


def time_keystrokes(chosen: list, tokenizer, keystrokes: int) -> tuple[float, float]:
    """Median and 95th percentile of the milliseconds from a changed example to all renderings of it."""
    from playground.core import templates
    from playground.core.messages import Conversation

    times = []
    for number in range(keystrokes + 5):  # the first ones compile and start the workers
        messages = [{"role": role, "content": content} for role, content in EXAMPLE]
        messages[2]["content"] += " And then?"[: number % 10 + 1]
        conversation = Conversation(messages)

        def redraw(conversation=conversation):
            for template in chosen:
                done = templates.render(template, conversation, tokenizer)
                tokenizer.pieces(done.ids)

        times.append(1000 * seconds(redraw))
    times = sorted(times[5:])
    return round(statistics.median(times), 2), round(times[int(0.95 * (len(times) - 1))], 2)


def tool_rows(count: int) -> list:
    from playground.core import synthesis
    from playground.core.messages import from_row

    return [from_row(row) for row in synthesis.tool_calls(count, seed=0)]


def short_rows(count: int) -> list:
    """Questions and answers of Alpaca's length (15 and 45 words on average), of the built-in instructions' words."""
    from playground.core import datasets
    from playground.core.messages import Conversation

    given = datasets.load("instructions").conversations
    words = [word for row in given for message in row.messages for word in message["content"].split()]
    pick = random.Random(0)

    def message(role: str, most: int) -> dict:
        return {"role": role, "content": " ".join(pick.choices(words, k=pick.randint(5, most)))}

    return [Conversation([message("user", 25), message("assistant", 85)]) for _ in range(count)]


def find_tokenizer(given: str) -> tuple[str, object]:
    from pathlib import Path

    from playground.commands import render
    from playground.config import Paths
    from playground.services.sources import Sources

    if given:
        return Path(given).name, render.find_tokenizer(given)
    if Sources(Paths()).find(MODEL) is not None:
        return MODEL, render.find_tokenizer(MODEL)
    return "a byte-level tokenizer trained on the spot", trained_tokenizer()


def trained_tokenizer(size: int = 8000):
    """A byte-level BPE with ChatML's tokens, for a machine without any model; a real one has a larger vocabulary."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    from playground.core import datasets, templates
    from playground.core.tokenizer import Tokenizer

    rows = [*tool_rows(500), *datasets.load("instructions").conversations]
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [text.text for text in templates.texts(templates.load("chatml-tools"), rows)]
    backend.train_from_iterator(texts, trainer)
    return Tokenizer.wrap(backend, {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"})


def seconds(work) -> float:
    start = time.perf_counter()
    result = work()
    taken = time.perf_counter() - start
    del result  # the time to free it is nobody's
    return taken


def peak_mb() -> float:
    """The most memory this process has held so far, in MB."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return round(psutil.Process().memory_info().peak_wset / 2**20, 1)
    import sys

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
