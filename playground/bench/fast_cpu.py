"""One lane on a CPU: weights in bf16, 8 and 4 bits, and llama.cpp where it is there; see `playground bench lanes`."""

import argparse
import statistics
import time

from playground.config import Paths, SamplingConfig


def main(args: argparse.Namespace, prompt: str) -> dict:
    import torch

    from playground.core import models
    from playground.core.adapters import AdapterBank
    from playground.core.messages import Conversation
    from playground.core.templates import load, render
    from playground.services.sources import Sources

    folder = Sources(Paths()).get(args.model)
    plain, fast = (models.load(folder, "bfloat16", "cpu") for _ in range(2))
    four = models.load(folder, "bfloat16", "cpu", load_in_4bit=True)
    banks = {"bf16": AdapterBank(plain.model), "int8": AdapterBank(fast.model, fast=True)}
    banks["nf4"] = AdapterBank(four.model)
    template = load("model" if plain.tokenizer.chat_template else "plain", plain.tokenizer)
    conversation = Conversation([{"role": "user", "content": prompt}])
    ids = render(template, conversation, plain.tokenizer, add_generation_prompt=True).ids
    ways = {name: lambda bank=bank: decode(bank, ids, args.tokens) for name, bank in banks.items()}
    if (llama := llama_cpp(args.gguf, torch.get_num_threads())) is not None:
        ways["llama_cpp"] = lambda: llama(ids, args.tokens)
    for way in ways.values():
        way()  # warm-up
    rounds, said = [], {}
    for _ in range(args.rounds):
        rates = {}
        for name, way in ways.items():
            rates[name], said[name] = way()
        rounds.append(rates)
        print(", ".join(f"{name} {rate:.1f}" for name, rate in rates.items()), "tokens/s", flush=True)
    result = {f"{name}_tokens_per_second": _median(rates[name] for rates in rounds) for name in ways}
    result["ratio"] = _median(rates["int8"] / rates["bf16"] for rates in rounds)
    result["nf4_ratio"] = _median(rates["nf4"] / rates["bf16"] for rates in rounds)
    if llama is not None:
        result["ratio_to_llama_cpp"] = _median(rates["int8"] / rates["llama_cpp"] for rates in rounds)
    result["first_tokens_alike"] = same_start(said["bf16"], said["int8"])
    picks = {name: next_tokens(bank, ids, said["bf16"]) for name, bank in banks.items()}
    result["next_token_alike"] = alike(picks["bf16"], picks["int8"])
    result["nf4_next_token_alike"] = alike(picks["bf16"], picks["nf4"])
    result |= {"model": args.model, "threads": torch.get_num_threads(), "tokens": args.tokens, "rounds": args.rounds}
    print(
        f"int8 ÷ bf16: {result['ratio']:.2f}; the greedy replies are alike for {result['first_tokens_alike']} of "
        f"{args.tokens} tokens, and after the same text {result['next_token_alike']:.0%} of the next tokens are; "
        f"nf4 ÷ bf16: {result['nf4_ratio']:.2f}, {result['nf4_next_token_alike']:.0%} of the next tokens alike"
    )
    return result


def decode(bank, ids: list[int], tokens: int) -> tuple[float, list[int]]:
    """(tokens per second after the prompt, greedy token ids)."""
    from playground.core.generation import Batch, Row, Sampler

    batch = Batch(bank.model, bank)
    said = batch.add([Row(ids, None, Sampler(SamplingConfig(temperature=0, repetition_penalty=1.0)))])
    start = time.perf_counter()
    for _ in range(tokens):
        said += batch.step()
    return tokens / (time.perf_counter() - start), said[:tokens]


def next_tokens(bank, ids: list[int], said: list[int]) -> list[int]:
    """The likeliest next token after the prompt and after each token of `said`, one token at a time."""
    import torch

    from playground.core.generation import Cache, RoomyLayer
    from playground.core.past import past

    picks, feed = [], torch.tensor([ids])
    bank.use([None])
    cache = Cache(layer_class_to_replicate=RoomyLayer)
    with torch.inference_mode():
        for token in said:
            logits = bank.model(input_ids=feed, **past(bank.model, cache), use_cache=True, logits_to_keep=1).logits
            picks.append(int(logits[0, -1].argmax()))
            feed = torch.tensor([[token]])
    return picks


def alike(one: list[int], other: list[int]) -> float:
    """Share of places at which both are the same."""
    return sum(a == b for a, b in zip(one, other, strict=True)) / max(1, len(one))


def same_start(one: list[int], other: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))


def llama_cpp(gguf: str, threads: int):
    """llama.cpp's greedy decoding of token ids, or None where it or the file is not there."""
    if not gguf:
        return None
    try:
        import llama_cpp
    except ImportError:
        print("llama.cpp is left out: pip install -e '.[bench]'", flush=True)
        return None
    model = llama_cpp.Llama(model_path=gguf, n_ctx=2048, n_threads=threads, n_threads_batch=threads, verbose=False)

    def run(ids: list[int], tokens: int) -> tuple[float, list[int]]:
        model.reset()
        model.eval(ids)
        said = []
        start = time.perf_counter()
        for _ in range(tokens):
            said.append(model.sample(temp=0.0, repeat_penalty=1.0))
            model.eval(said[-1:])
        return tokens / (time.perf_counter() - start), said

    return run


def _median(values) -> float:
    return round(statistics.median(values), 3)
