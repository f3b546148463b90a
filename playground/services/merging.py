"""Base and adapter as one model folder, compared with what it was made from."""

import gc
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from playground.config import TrainConfig
from playground.core.messages import Conversation
from playground.core.past import past, past_of
from playground.core.templates import Template, render
from playground.core.tokenizer import Tokenizer
from playground.errors import PlaygroundError
from playground.services import loading
from playground.services.runs import Run

PARITY_TOKENS = 16
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def merge(
    run: Run, base: Path, template: Template, out: Path, config: TrainConfig, dtype: str = "auto"
) -> Iterator[str]:
    """Write the merged model to `out`, load it again, and compare what both write; returns that in a sentence.

    `dtype` "auto" is the run's own. Merging into bf16 rounds each weight once more, so a long reply may differ.
    """
    from playground.core import models

    if config.dtype != "auto" and dtype == "auto":
        dtype = config.dtype
    yield "reading the base model"
    whole = run.folder / "model"
    if whole.is_dir():
        shutil.copytree(whole, out)
        tokenizer = Tokenizer.load(out)
        write_template(out, template)
        return "All its weights were trained, so there was nothing to merge."
    with loading.TURN:
        loaded = models.load(base, dtype=dtype, device="cpu")
    tokens = run.adapter if (run.adapter / "tokenizer.json").exists() else base
    tokenizer = Tokenizer.load(tokens)
    model = _with_adapter(loaded.model, run.adapter, tokenizer)
    prompt = render(
        template, Conversation([{"role": "user", "content": config.probe.strip() or "Hello"}]), tokenizer,
        add_generation_prompt=True, spans=False,
    ).ids  # fmt: skip
    yield "asking base and adapter"
    before = greedy(model, prompt)
    yield "merging and saving"
    model = model.merge_and_unload()
    _stop_at_turns(model, template, tokenizer)
    model.config._name_or_path = ""
    model.save_pretrained(out)
    for name in TOKENIZER_FILES:
        if (tokens / name).exists():
            shutil.copyfile(tokens / name, out / name)
        elif (base / name).exists():
            shutil.copyfile(base / name, out / name)
    write_template(out, template)
    del model, loaded
    gc.collect()
    yield "reading it again, and asking the merged model"
    with loading.TURN:
        again = models.load(out, dtype=dtype, device="cpu")
    after = greedy(again.model, prompt)
    return compared(before, after)


def compared(before: list[int], after: list[int]) -> str:
    same = next((i for i, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), len(before))
    if before == after:
        return f"Read again, it writes the same {len(after)} tokens as base and adapter."
    return (
        f"Read again, it writes the same first {same} tokens as base and adapter and then others: merging rounds the "
        "weights. Merge in float32 where that matters."
    )


def _with_adapter(model, folder: Path, tokenizer: Tokenizer):
    from peft import PeftModel

    from playground.core.training.methods import soft_folder

    kind = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("peft_type")
    if kind != "LORA":
        raise PlaygroundError(f"a {kind} adapter cannot be merged into the weights; export it as an adapter")
    if soft_folder(folder):
        raise PlaygroundError(
            "this LoRA was trained behind a soft prompt, which is no part of the weights; export it as an adapter"
        )
    size = tokenizer.backend.get_vocab_size()
    if size > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(size, mean_resizing=False)
    return PeftModel.from_pretrained(model, folder, autocast_adapter_dtype=False).eval()


def greedy(model, ids: list[int], count: int = PARITY_TOKENS) -> list[int]:
    """The likeliest next `count` tokens, one after the other, with no stop."""
    import torch

    with torch.inference_mode():
        row = torch.tensor([ids], device=next(model.parameters()).device)
        cache, written = None, []
        for _ in range(count):
            out = model(input_ids=row, **past(model, cache), use_cache=True)
            cache, row = past_of(model, out), out.logits[:, -1:].argmax(-1)
            written.append(int(row[0, 0]))
    return written


def _stop_at_turns(model, template: Template, tokenizer: Tokenizer) -> None:
    """generation_config stops where the template ends a turn, which the base may never have known."""
    from playground.core.training.answer import stops

    ids, _ = stops(template, tokenizer)
    if ids:
        model.generation_config.eos_token_id = sorted(ids)
    # settings of sampling without sampling on make save_pretrained refuse
    if not model.generation_config.do_sample:
        model.generation_config.temperature = model.generation_config.top_p = model.generation_config.top_k = None


def write_template(out: Path, template: Template) -> None:
    """chat_template.jinja with the trained text; an older one in tokenizer_config.json would be read elsewhere."""
    (out / "chat_template.jinja").write_text(template.text, encoding="utf-8")
    path = out / "tokenizer_config.json"
    if path.exists():
        config = json.loads(path.read_text(encoding="utf-8"))
        if config.pop("chat_template", None) is not None:
            path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
