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
    """Write the merged model to `out`, load it again, and compare what both write.

    Returns that in a sentence, and the template that the folder has. A soft prompt becomes tokens of the model's own,
    which that template begins with. `dtype` "auto" is the run's own. Merging into bf16 rounds each weight once more, so
    a long reply may differ.
    """
    from playground.core import models

    if config.dtype != "auto" and dtype == "auto":
        dtype = config.dtype
    yield "reading the base model"
    whole = run.folder / "model"
    if whole.is_dir():
        shutil.copytree(whole, out)
        write_template(out, template)
        return "All its weights were trained, so there was nothing to merge.", template
    with loading.TURN:
        loaded = models.load(base, dtype=dtype, device="cpu")
    tokens = run.adapter if (run.adapter / "tokenizer.json").exists() else base
    tokenizer = Tokenizer.load(tokens)
    model, soft = _with_adapter(loaded.model, run.adapter, tokenizer)
    yield "asking base and adapter"
    before = greedy(model, _prompt(config, template, tokenizer), soft=soft)
    yield "merging and saving"
    model = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    _stop_at_turns(model, template, tokenizer)
    if soft is not None:
        template = soft_as_tokens(model, tokenizer, template, soft)
    model.config._name_or_path = ""
    model.save_pretrained(out)
    for name in TOKENIZER_FILES:
        if (tokens / name).exists():
            shutil.copyfile(tokens / name, out / name)
        elif (base / name).exists():
            shutil.copyfile(base / name, out / name)
    if soft is not None:
        tokenizer.backend.save(str(out / "tokenizer.json"))
    write_template(out, template)
    del model, loaded
    gc.collect()
    yield "reading it again, and asking the merged model"
    with loading.TURN:
        again = models.load(out, dtype=dtype, device="cpu")
    after = greedy(again.model, _prompt(config, template, Tokenizer.load(out)))
    said = compared(before, after)
    if soft is not None:
        said += f" Its soft prompt is {len(soft)} tokens of its own, with which the template begins every prompt."
    return said, template


def _prompt(config: TrainConfig, template: Template, tokenizer: Tokenizer) -> list[int]:
    asked = Conversation([{"role": "user", "content": config.probe.strip() or "Hello"}])
    return render(template, asked, tokenizer, add_generation_prompt=True, spans=False).ids


def soft_as_tokens(model, tokenizer: Tokenizer, template: Template, soft) -> Template:
    """Give the soft prompt's embeddings to new tokens, in place, and return the template that begins with those.

    The result needs nothing beside its weights, so that it also runs where soft prompts are not known (llama.cpp,
    Ollama, vLLM). So that it does not write those tokens, which point wherever the training took them, their rows in
    the head are zero; a head that is tied to the embeddings gets weights of its own for that.
    """
    import torch

    names = [f"<|soft_prompt_{i}|>" for i in range(len(soft))]
    if taken := [name for name in names if tokenizer.backend.token_to_id(name) is not None]:
        raise PlaygroundError(f"the soft prompt cannot become tokens: this model has one named {taken[0]} already")
    tokenizer.backend.add_special_tokens(names)
    ids = [tokenizer.backend.token_to_id(name) for name in names]
    if max(ids) >= model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head.weight is embedding.weight:
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
        model.config.tie_word_embeddings = model.config.get_text_config().tie_word_embeddings = False
        model.all_tied_weights_keys = {}
    with torch.no_grad():
        head.weight[ids] = 0.0
        scale = getattr(embedding, "embed_scale", 1.0)  # Gemma 3 scales what it looks up
        embedding.weight[ids] = (soft / scale).to(embedding.weight)
    model.generation_config.suppress_tokens = ids
    return Template(template.name, "".join(names) + template.text, source="adapter")


def compared(before: list[int], after: list[int]) -> str:
    same = next((i for i, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), len(before))
    if before == after:
        return f"Read again, it writes the same {len(after)} tokens as base and adapter."
    return (
        f"Read again, it writes the same first {same} tokens as base and adapter and then others: merging rounds the "
        "weights. Merge in float32 where that matters."
    )


def _with_adapter(model, folder: Path, tokenizer: Tokenizer):
    """The model with the adapter's layers, and the soft prompt [tokens, width] that stands before them, or None."""
    from peft import PeftModel

    from playground.core.adapter_files import soft_folder, soft_rows

    kind = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("peft_type")
    if kind == "PROMPT_TUNING":
        return model, soft_rows(folder).to(model.dtype)
    if kind != "LORA":
        raise PlaygroundError(f"a {kind} adapter cannot be merged into the weights; export it as an adapter")
    size = tokenizer.backend.get_vocab_size()
    if size > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(size, mean_resizing=False)
    soft = soft_folder(folder)
    model = PeftModel.from_pretrained(model, folder, autocast_adapter_dtype=False).eval()
    return model, soft_rows(soft).to(model.dtype) if soft else None


def greedy(model, ids: list[int], count: int = PARITY_TOKENS, soft=None) -> list[int]:
    """The likeliest next `count` tokens, one after the other, with no stop; `soft` stands before the prompt."""
    import torch

    from playground.core.training.loss import embedded

    with torch.inference_mode():
        row = torch.tensor([ids], device=next(model.parameters()).device)
        cache, written = None, []
        for _ in range(count):
            given = {"input_ids": row} if soft is None or written else embedded(model, row, soft)
            given.pop("attention_mask", None)  # there is no padding
            out = model(**given, **past(model, cache), use_cache=True)
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
