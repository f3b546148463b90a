"""`playground bench lanes`: base + adapter A + adapter B in one batch ÷ the same three one after the other.

Beside them, in the same run and on the same prompt: a plain batch of three on the bare model (what the adapters
cost), and what one would do without this engine, by transformers' `generate`: PEFT's mixed batch (`adapter_names=…`),
the same three one after the other (`set_adapter`, `disable_adapter`), and a plain batch of three. Ratios are given to
our own single lanes and to theirs: ours are quicker, so a ratio to them is the harder one. Each way is timed in turn,
several rounds; the figures are medians and each ratio is the median of the rounds' ratios, so that a drifting machine
does not decide it. Adapters are random (their values don't change the work), of a short fine-tune's rank and targets.

`--fast-cpu` times one lane instead, with weights in bf16, 8 bits and 4 bits, beside llama.cpp where the package
`llama_cpp` and a GGUF (`--gguf`) are there, and says how many greedy tokens stay the same.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from playground.config import Paths, SamplingConfig
from playground.errors import PlaygroundError

RATIOS = {
    "ratio": ("together", "one_after_the_other"),
    "ratio_to_plain_batch": ("together", "plain_batch_of_three"),
    "ratio_to_peft_one_after_the_other": ("together", "peft_one_after_the_other"),
    "ratio_to_generate_plain_batch": ("together", "generate_plain_batch_of_three"),
    "ratio_to_peft_mixed": ("together", "peft_mixed"),
    "peft_ratio": ("peft_mixed", "peft_one_after_the_other"),
    "peft_ratio_to_ours": ("peft_mixed", "one_after_the_other"),
}
PROMPT = "Tell me a long story about a fox who wants to see the sea."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="smollm2-135m-instruct", help="model the lanes share")
    parser.add_argument("--tokens", type=int, default=64, help="tokens decoded per lane and round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, each timing every way once")
    parser.add_argument("--rank", type=int, default=8, help="rank of the two adapters, on all linear layers")
    parser.add_argument("--dtype", default="auto", choices=("auto", "bfloat16", "float32"), help="weights")
    parser.add_argument("--no-peft", action="store_true", help="leave out PEFT and `generate`, the slowest part")
    parser.add_argument("--fast-cpu", action="store_true", help="time one lane with weights in bf16, 8 and 4 bits")
    parser.add_argument("--gguf", default="", metavar="FILE", help="with --fast-cpu: the model as llama.cpp reads it")


def main(args: argparse.Namespace) -> dict:
    if args.tokens < 2 or args.rounds < 1 or args.rank < 1:
        raise PlaygroundError(
            f"tokens must be at least 2, rounds and rank at least 1; got {args.tokens}, {args.rounds} and {args.rank}"
        )
    if args.fast_cpu:
        from playground.bench import fast_cpu

        return fast_cpu.main(args, PROMPT)
    import torch

    from playground.core import models
    from playground.core.adapters import AdapterBank
    from playground.core.messages import Conversation
    from playground.core.templates import load, render
    from playground.services.sources import Sources

    folder = Sources(Paths()).get(args.model)
    loaded = models.load(folder, args.dtype)
    conversation = Conversation([{"role": "user", "content": PROMPT}])
    template = load("model" if loaded.tokenizer.chat_template else "plain", loaded.tokenizer)
    ids = render(template, conversation, loaded.tokenizer, add_generation_prompt=True).ids
    with tempfile.TemporaryDirectory() as scratch:
        folders = [make_adapter(folder, args.rank, Path(scratch) / name, seed) for seed, name in enumerate("AB")]
        ways = {}
        if not args.no_peft:
            ways |= generate_ways(folder, loaded.model.dtype, folders, ids, args.tokens)
        bank = AdapterBank(loaded.model)
        for name, adapter in zip("AB", folders, strict=True):
            bank.load(name, adapter)

        def decode(*adapters):
            return lambda: decode_rate(loaded.model, bank, ids, adapters, args.tokens)

        ways |= {
            "together": decode(None, "A", "B"),
            "base_alone": decode(None),
            "a_alone": decode("A"),
            "b_alone": decode("B"),
            "plain_batch_of_three": decode(None, None, None),
        }
        for way in ways.values():
            way()  # warm-up
        rounds = []
        for number in range(args.rounds):
            rates = {name: way() for name, way in ways.items()}
            rates["one_after_the_other"] = 3 / sum(1 / rates[name] for name in ("base_alone", "a_alone", "b_alone"))
            rounds.append(rates)
            print(
                f"round {number + 1}/{args.rounds}: " + ", ".join(f"{n} {r:.1f}" for n, r in rates.items()), flush=True
            )
    result = {f"{name}_tokens_per_second": _median(rounds, name) for name in rounds[0]}
    result |= {key: _median_ratio(rounds, *of) for key, of in RATIOS.items() if set(of) <= set(rounds[0])}
    result |= {
        "model": args.model,
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "device": str(loaded.device),
        "threads": torch.get_num_threads(),
        "tokens": args.tokens,
        "rounds": args.rounds,
        "rank": args.rank,
    }
    what = f"{args.model}, {result['dtype']} on {result['device']}"
    print(f"\n{what}, {args.tokens} tokens a lane, median of {args.rounds} rounds")
    for name in rounds[0]:
        print(f"  {name.replace('_', ' '):29s} {result[f'{name}_tokens_per_second']:7.1f} tokens/s")
    for key, of in RATIOS.items():
        if key in result:
            print(f"  {' ÷ '.join(of).replace('_', ' ')}: {result[key]:.2f}")
    return result


def make_adapter(base: Path, rank: int, folder: Path, seed: int) -> Path:
    """Write a random PEFT LoRA adapter for the model in `base`; its B matrices are not zero."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, config, autocast_adapter_dtype=False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.02)
    model.save_pretrained(folder)
    return folder


def decode_rate(model, bank, prompt_ids: list[int], adapters: tuple, tokens: int) -> float:
    """Tokens per second of all rows, first tokens (the reading of the prompt) not counted."""
    from playground.core.generation import Batch, Row, Sampler

    greedy = SamplingConfig(temperature=0, repetition_penalty=1.0)
    batch = Batch(model, bank)
    batch.add([Row(prompt_ids, adapter, Sampler(greedy)) for adapter in adapters])
    start = time.perf_counter()
    for _ in range(tokens):
        batch.step()
    return len(adapters) * tokens / (time.perf_counter() - start)


def generate_ways(base: Path, dtype, folders: list[Path], prompt_ids: list[int], tokens: int) -> dict:
    """The ways of transformers and PEFT, on models of their own: functions that give tokens per second of all rows.

    First tokens (the reading of the prompt) are not counted.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"

    def load():
        return AutoModelForCausalLM.from_pretrained(base, dtype=dtype).to(device).eval()

    plain = load()
    model = PeftModel.from_pretrained(load(), folders[0], adapter_name="A", autocast_adapter_dtype=False)
    model.load_adapter(folders[1], adapter_name="B", autocast_adapter_dtype=False)

    def seconds(asked, rows: int, count: int, **more) -> float:
        ids = torch.tensor([prompt_ids] * rows, device=device)
        limits = {"min_new_tokens": count, "max_new_tokens": count, "do_sample": False, "pad_token_id": 0}
        start = time.perf_counter()
        with torch.inference_mode():
            asked.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **limits, **more)
        return time.perf_counter() - start

    def decoding(*given, **more) -> float:
        return seconds(*given, tokens + 1, **more) - seconds(*given, 1, **more)

    def mixed() -> float:
        return 3 * tokens / decoding(model, 3, adapter_names=["__base__", "A", "B"])

    def one_after_the_other() -> float:
        with model.disable_adapter():
            taken = decoding(model, 1)
        for name in "AB":
            model.set_adapter(name)
            taken += decoding(model, 1)
        return 3 * tokens / taken

    return {
        "peft_mixed": mixed,
        "peft_one_after_the_other": one_after_the_other,
        "generate_plain_batch_of_three": lambda: 3 * tokens / decoding(plain, 3),
    }


def _median(rounds: list[dict], name: str) -> float:
    return round(statistics.median(rates[name] for rates in rounds), 2)


def _median_ratio(rounds: list[dict], above: str, below: str) -> float:
    return round(statistics.median(rates[above] / rates[below] for rates in rounds), 3)
