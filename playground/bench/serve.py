"""`playground bench serve`: many visitors at once, on one copy of the weights.

Each visitor asks its questions one after the other (a chat of `--turns` turns), all visitors at the same time. Named
peers in the same run, on the same prompts: transformers' `generate` behind a lock (what a simple Space does), and
transformers' own continuous batching, which takes no adapters. Tokens/s are those of all visitors together; the
first token counts from the question, the following ones from one another. `ratio` and `first_p95_ratio` are the
tokens/s and the slowest first tokens of each number of visitors ÷ those of the fewest.
"""

import argparse
import contextlib
import itertools
import random
import statistics
import threading
import time
from dataclasses import dataclass, field

from playground.config import Paths, SamplingConfig
from playground.core.messages import Conversation
from playground.errors import PlaygroundError

SUBJECTS = ("a fox", "the sea", "an old train", "two moons", "a lighthouse", "the first snow", "a market", "a violin")
WAIT = 1800  # seconds after which a visitor's answer counts as stuck


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--visitors", default="1,4,16,32", help="how many ask at once, several apart by commas")
    parser.add_argument("--tokens", type=int, default=48, help="tokens of each answer")
    parser.add_argument("--turns", type=int, default=2, help="questions of each visitor")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="model that all ask")
    parser.add_argument("--adapter", default="", help="adapter that every second visitor's lane uses")
    parser.add_argument(
        "--no-peers", action="store_true", help="leave out generate behind a lock and continuous batching"
    )


@dataclass
class Timing:
    """What the visitors of one run saw, in seconds."""

    tokens: int = 0
    first: list[float] = field(default_factory=list)
    following: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def figures(self) -> dict:
        return {
            "tokens_per_second": round(self.tokens / self.seconds, 2),
            "first_p50": _share(self.first, 0.5),
            "first_p95": _share(self.first, 0.95),
            "token_p50": _share(self.following, 0.5),
            "token_p95": _share(self.following, 0.95),
        }


def main(args: argparse.Namespace) -> dict:
    counts = _counts(args.visitors)
    if args.tokens < 2 or args.turns < 1:
        raise PlaygroundError(f"tokens must be at least 2 and turns at least 1; got {args.tokens} and {args.turns}")
    from playground.services.engine import Engine, Lane
    from playground.services.sources import Sources

    sources = Sources(Paths())
    sources.get(args.model)
    engine = Engine(sources, Paths())
    sampling = SamplingConfig(temperature=0.0, repetition_penalty=1.0, max_new_tokens=args.tokens)
    lanes = [Lane(args.model, sampling=sampling), Lane(args.model, adapter=args.adapter or None, sampling=sampling)]
    result = {"model": args.model, "tokens": args.tokens, "turns": args.turns, "engine": {}, "generate_lock": {}}
    try:
        run(engine_turn(engine, lanes, "warm"), 1, 1)
        for visitors in counts:
            result["engine"][visitors] = _told(
                "engine", visitors, run(engine_turn(engine, lanes), visitors, args.turns)
            )
    finally:
        engine.close()
    if not args.no_peers:
        ask = locked_generate(sources.find(args.model), args.tokens)
        run(ask, 1, 1)
        for visitors in counts:
            result["generate_lock"][visitors] = _told(
                "generate behind a lock", visitors, run(ask, visitors, args.turns)
            )
        result["continuous_batching"] = {}
        with continuous_batching(sources.find(args.model), args.tokens) as ask:
            run(ask, 1, 1)
            for visitors in counts:
                result["continuous_batching"][visitors] = _told(
                    "transformers' continuous batching", visitors, run(ask, visitors, args.turns)
                )
    few = counts[0]
    result["ratio"] = _ratios(result["engine"], few, "tokens_per_second")
    result["first_p95_ratio"] = _ratios(result["engine"], few, "first_p95")
    for visitors in counts[1:]:
        print(
            f"{visitors} visitors ÷ {few}: tokens/s × {result['ratio'][visitors]:.2f}, first token (95th percentile) × "
            f"{result['first_p95_ratio'][visitors]:.2f}",
            flush=True,
        )
    return result


def run(ask, visitors: int, turns: int) -> Timing:
    """All visitors at the same time; `ask(visitor, messages, timing)` returns the answer's text."""
    timing, lock, faults = Timing(), threading.Lock(), []

    def visit(number: int) -> None:
        pick, messages, own = random.Random(number), [], Timing()
        try:
            for turn in range(turns):
                subject = pick.choice(SUBJECTS)
                messages.append(
                    {"role": "user", "content": f"Tell me part {turn + 1} of a long story about {subject}."}
                )
                messages.append({"role": "assistant", "content": ask(number, messages, own) or "…"})
        except Exception as error:  # noqa: BLE001 (told below, by the thread that can)
            faults.append(error)
        with lock:
            timing.tokens += own.tokens
            timing.first += own.first
            timing.following += own.following

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(visitors)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    timing.seconds = time.perf_counter() - started
    if faults:
        raise faults[0]
    return timing


def engine_turn(engine, lanes: list, prefix: str = "visitor"):
    def ask(visitor: int, messages: list[dict], timing: Timing) -> str:
        begun = time.perf_counter()
        conversation = Conversation(list(messages))
        reply = engine.reply(lanes[visitor % len(lanes)], conversation, visitor=f"{prefix} {visitor}")
        last, seen = begun, 0
        for chunk in reply:
            now, new = time.perf_counter(), len(chunk.tokens)
            if new and not seen:
                timing.first.append(now - begun)
            elif new:
                timing.following += [(now - last) / new] * new
            if new:
                last, seen = now, seen + new
            if now - begun > WAIT:
                raise PlaygroundError(f"the answer to {messages[-1]['content']!r} is stuck")
        if reply.error:
            raise PlaygroundError(reply.error)
        timing.tokens += seen
        return reply.text

    return ask


def locked_generate(folder, tokens: int):
    """transformers' own generate, one visitor at a time: the peer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.generation.streamers import BaseStreamer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).to(device).eval()
    tokenizer, lock = AutoTokenizer.from_pretrained(folder), threading.Lock()

    class Clock(BaseStreamer):
        def __init__(self):
            self.times = []

        def put(self, value):
            self.times.append(time.perf_counter())

        def end(self):
            pass

    def ask(visitor: int, messages: list[dict], timing: Timing) -> str:
        begun = time.perf_counter()
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(device)
        clock = Clock()
        with lock, torch.inference_mode():
            out = model.generate(**inputs, max_new_tokens=tokens, do_sample=False, streamer=clock)
        times = clock.times[1:]  # the first is the prompt itself
        timing.first.append(times[0] - begun)
        timing.following += [b - a for a, b in itertools.pairwise(times)]
        timing.tokens += len(times)
        return tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    return ask


@contextlib.contextmanager
def continuous_batching(folder, tokens: int):
    """transformers' own continuous batching, which takes no adapters: the other peer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).to(device).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    settings = GenerationConfig(
        max_new_tokens=tokens, do_sample=False, eos_token_id=model.generation_config.eos_token_id
    )

    with torch.inference_mode(), model.continuous_batching_context_manager(settings) as manager:

        def ask(visitor: int, messages: list[dict], timing: Timing) -> str:
            begun = last = time.perf_counter()
            ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
            request, seen, written = manager.add_request(ids, max_new_tokens=tokens, streaming=True), 0, []
            for out in manager.request_id_iter(request):
                now, written = time.perf_counter(), list(out.generated_tokens)
                new = len(written) - seen
                if new and not seen:
                    timing.first.append(now - begun)
                elif new:
                    timing.following += [(now - last) / new] * new
                last, seen = now, len(written)
            if not written:
                raise PlaygroundError("transformers' continuous batching gave no tokens")
            timing.tokens += seen
            return tokenizer.decode(written, skip_special_tokens=True)

        yield ask


def _ratios(engine: dict[int, dict], few: int, figure: str) -> dict[int, float]:
    """The figure of each number of visitors ÷ that of the fewest."""
    return {visitors: round(figures[figure] / engine[few][figure], 3) for visitors, figures in engine.items()}


def _counts(text: str) -> list[int]:
    try:
        counts = sorted({int(part) for part in text.split(",")})
    except ValueError:
        counts = []
    if not counts or not 1 <= counts[0] <= counts[-1] <= 256:
        raise PlaygroundError(f"visitors must be numbers from 1 to 256, apart by commas, such as 1,4,16; got {text!r}")
    return counts


def _told(what: str, visitors: int, timing: Timing) -> dict:
    f = timing.figures
    print(
        f"{what}, {visitors} visitor{'s' if visitors > 1 else ''}: {f['tokens_per_second']:.1f} tokens/s, first token "
        f"{f['first_p50']:.2f} s (95th percentile {f['first_p95']:.2f}), next {f['token_p50'] * 1000:.0f} ms "
        f"({f['token_p95'] * 1000:.0f})",
        flush=True,
    )
    return f


def _share(values: list[float], share: float) -> float:
    if not values:
        return 0.0
    if len(values) == 1:
        return round(values[0], 4)
    return round(statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1], 4)
