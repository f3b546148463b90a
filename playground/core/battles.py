"""Blind battles: which two lanes meet, what they are asked, and whether a reply gives away who wrote it."""

import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import combinations

from playground.config import ASSETS
from playground.errors import PlaygroundError

# Who makes the models of a family; the family is what a model's name begins with.
MAKERS = {
    "smollm": ("hugging face", "huggingface", "huggingfacetb"),
    "gemma": ("google", "deepmind"),
    "gemini": ("google", "deepmind"),
    "qwen": ("alibaba", "alibaba cloud", "tongyi"),
    "llama": ("meta ai",),
    "falcon": ("tii", "technology innovation institute"),
    "mistral": ("mistral ai",),
    "mixtral": ("mistral ai",),
    "ministral": ("mistral ai",),
    "phi": ("microsoft",),
    "gpt": ("openai", "chatgpt"),
    "claude": ("anthropic",),
    "deepseek": ("deepseek ai",),
    "olmo": ("ai2", "allen institute", "allenai"),
    "granite": ("ibm",),
    "glm": ("zhipu", "z.ai"),
    "kimi": ("moonshot", "moonshot ai"),
    "internlm": ("shanghai ai laboratory",),
    "zephyr": ("hugging face",),
    "vicuna": ("lmsys",),
    "alpaca": ("stanford",),
    "pythia": ("eleutherai",),
    "lfm": ("liquid ai",),
}
# Parts of names that are ordinary words: they give nothing away.
COMMON = {"base", "instruct", "chat", "it", "the", "model", "models", "tuned", "user", "local", "data", "tools", "run"}


def pair(names: Sequence[str], met: Mapping[tuple[str, str], int], seed: int) -> tuple[str, str]:
    """(left, right) of the pair that has met least; ties and sides are drawn by `seed`.

    `met` counts battles by pair of names in sorted order.
    """
    names = sorted(set(names))
    if len(names) < 2:
        raise PlaygroundError(f"a battle needs two different lanes in the pool, got {len(names)}; add another one")
    drawn = random.Random(seed)
    possible = list(combinations(names, 2))
    least = min(met.get(one, 0) for one in possible)
    chosen = list(drawn.choice([one for one in possible if met.get(one, 0) == least]))
    drawn.shuffle(chosen)
    return chosen[0], chosen[1]


def telltales(models: Iterable[str], adapters: Iterable[str] = ()) -> list[str]:
    """Words that give away a model (its name, its family, who makes it) or an adapter (its name)."""
    found: dict[str, None] = {}
    for model in filter(None, models):
        parts = [part for part in re.split(r"[/\\]", model.lower()) if part][-2:]
        name = parts[-1] if parts else ""
        begins = re.match(r"([a-z]+)\d*", name)
        family = begins.group(1) if begins else ""
        words = [*parts, name.replace("-", " "), family, begins.group() if begins else "", *MAKERS.get(family, ())]
        found.update(dict.fromkeys(word for word in words if len(word) > 2 and word not in COMMON))
    for adapter in adapters:
        found.update(dict.fromkeys(word for word in (adapter.lower(),) if len(word) > 2 and word not in COMMON))
    return list(found)


def leaks(reply: str, words: Iterable[str], prompt: str = "") -> list[str]:
    """Which of `words` stand in the reply as words of their own; one that the prompt has too gives nothing away."""
    found = [word for word in words if _says(reply, word) and not _says(prompt, word)]
    # "smollm2" has told it; "smollm" stands in it
    return [word for word in found if not any(re.fullmatch(rf"{re.escape(word)}\d+", other) for other in found)]


def _says(text: str, word: str) -> bool:
    """Whether the word stands in the text, also with a version right behind it ("GPT4", "Phi3")."""
    return re.search(rf"(?<![^\W_]){re.escape(word)}\d*(?![^\W_])", text, re.IGNORECASE) is not None


@cache
def prompt_sets() -> dict[str, tuple[str, ...]]:
    """The built-in prompts by category, in the spirit of MT-bench's (Zheng et al. 2023, arXiv:2306.05685)."""
    rows = json.loads((ASSETS / "data" / "battle_prompts.json").read_text(encoding="utf-8"))
    return {category: tuple(prompts) for category, prompts in rows.items()}


def draw(prompts: Sequence[str], asked: Sequence[str], seed: int) -> str:
    """One of the prompts that this visitor was not asked yet; of all of them again once each was asked."""
    if not prompts:
        raise PlaygroundError("this list has no prompts yet; choose another one, or write a prompt yourself")
    often = {prompt: asked.count(prompt) for prompt in prompts}
    least = min(often.values())
    return random.Random(seed).choice([prompt for prompt in prompts if often[prompt] == least])
