"""The prompts that the model in training answers at each evaluation."""

from collections.abc import Callable

from playground.config import TrainConfig
from playground.core.messages import Conversation
from playground.core.templates import render
from playground.core.training.answer import answer_batch, stops


def probe(model, tokenizer, template, conversations: list, config: TrainConfig) -> Callable[[], list[dict]] | None:
    """A function that asks the model each line of the config's probe, greedily; None where there is none."""
    prompts = config.probes
    if not prompts:
        return None
    asked = [probe_conversation(prompt, conversations) for prompt in prompts]
    ids = [render(template, one, tokenizer, add_generation_prompt=True).ids for one in asked]
    stop_ids, stop_strings = stops(template, tokenizer)

    def ask() -> list[dict]:
        texts = answer_batch(model, tokenizer, ids, config.probe_tokens, stop_ids, stop_strings)
        return [{"prompt": prompt, "text": text} for prompt, text in zip(prompts, texts, strict=True)]

    return ask


def probe_conversation(prompt: str, conversations: list):
    """The prompt as the data would put it: with its tools, and with the system message if all rows share one."""
    systems = {c.messages[0]["content"] if c.messages[0]["role"] == "system" else None for c in conversations}
    system = systems.pop() if len(systems) == 1 else None
    messages = [{"role": "system", "content": system}] if system else []
    tools = next((c.tools for c in conversations if c.tools), [])
    return Conversation([*messages, {"role": "user", "content": prompt}], tools)
