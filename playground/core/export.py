"""A run as something to repeat elsewhere: a command line, a notebook, a TRL script. Text only."""

import json
import shlex

from playground.config import EVERY_LINEAR, TrainConfig, fields, parse
from playground.core import sandbox
from playground.core.training.recipes import command_line
from playground.errors import PlaygroundError


def cli_line(config: dict) -> str:
    """The `playground train` line that does the same run, under its name where it has one.

    Settings that this version does not know are left out. Raises PlaygroundError for a value that no run may have.
    """
    known = {f.name for f in fields(TrainConfig)}
    wanted = parse(TrainConfig, {key: value for key, value in config.items() if key in known})
    name = f" --name {shlex.quote(wanted.name)}" if wanted.name else ""
    return command_line(wanted) + name


# ---- notebook --------------------------------------------------------------------------------------------------


def notebook(name: str, command: str, template: str, model: str, probe: str, versions: dict) -> dict:
    """A notebook (nbformat 4.5) that installs, trains with `command`, and asks the adapter with transformers and peft.

    `template` is the text that it was trained with, so that the prompt is the same one. The command stands in a %%bash
    cell: after "!", IPython would fill in {what} and $what a probe asks, and take a second line of it for Python.
    """
    pins = " ".join(f'"{package}=={version.split("+")[0]}"' for package, version in versions.items())
    ask = f"""\
from pathlib import Path

from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from playground.config import Paths
from playground.services.sources import Sources

paths = Paths()
base = Sources(paths).get({model!r})  # the folder of the base model
adapter = paths.runs / {name!r} / "adapter"
tokenizer = AutoTokenizer.from_pretrained(adapter if (adapter / "tokenizer.json").exists() else base)
model = AutoModelForCausalLM.from_pretrained(base)
if len(tokenizer) > model.get_input_embeddings().num_embeddings:
    model.resize_token_embeddings(len(tokenizer))
model = PeftModel.from_pretrained(model, adapter).eval()
TEMPLATE = {template!r}

def ask(prompt, max_new_tokens=100):
    messages = [{{"role": "user", "content": prompt}}]
    inputs = tokenizer.apply_chat_template(
        messages, chat_template=TEMPLATE, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    return tokenizer.decode(out[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True)

print(ask({probe or "Hello"!r}))"""
    about = [
        f"# {name}\n",
        "\n",
        "Trains the adapter again and asks it a question. Run it in a checkout of the Instruction-Tuning Playground "
        "(the folder with `app.py`).",
    ]
    cells = [
        _cell("markdown", "about", "".join(about)),
        _cell("code", "install", f"%pip install -q -e . {pins}".rstrip()),
        _cell("code", "train", f"%%bash\n{command}"),
        _cell("code", "ask", ask),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def _cell(kind: str, id: str, text: str) -> dict:
    cell = {"cell_type": kind, "id": id, "metadata": {}, "source": text.splitlines(keepends=True)}
    return cell | ({"execution_count": None, "outputs": []} if kind == "code" else {})


# ---- TRL -------------------------------------------------------------------------------------------------------

PLAIN_METHODS = ("lora", "rslora", "dora", "pissa", "qlora")


def trl_script(
    config: TrainConfig, template: str, steps: int, model: str, layers: dict | None = None, held_out: bool = True
) -> str:
    """A script that trains the same thing with TRL, from train.jsonl and held_out.jsonl beside it.

    `template` is the trained one, whose generation marks give TRL the same loss mask; `steps` the run's own count;
    `layers` peft's settings for those that get an adapter (None: all linear ones).
    Raises PlaygroundError where TRL's SFTTrainer has no such thing.
    """
    method = config.method
    if method not in PLAIN_METHODS:
        raise PlaygroundError(
            f"a run of method {method} cannot be written as a TRL script; lora, rslora, dora, pissa and qlora can"
        )
    if not sandbox.MARKED.search(template):
        raise PlaygroundError(
            "this run's template has no {% generation %} marks, which TRL needs to know what the assistant wrote; "
            "train with a template that has them, the built-in ones do"
        )
    for name in ("continue_from", "new_tokens", "prompt_steps"):
        if getattr(config, name):
            raise PlaygroundError(f"a run with {name} cannot be written as a TRL script; start one without it")
    lora = {
        "r": config.rank, "lora_alpha": config.alpha, "lora_dropout": config.dropout,
        **(layers or {"target_modules": EVERY_LINEAR}), "task_type": "CAUSAL_LM",
        **({"use_rslora": True} if method == "rslora" else {}), **({"use_dora": True} if method == "dora" else {}),
        **({"init_lora_weights": "pissa_niter_4"} if method == "pissa" else {}),
    }  # fmt: skip
    settings = {
        "output_dir": "trl-out", "seed": config.seed, "data_seed": config.seed, "max_steps": steps,
        "per_device_train_batch_size": config.batch_size, "per_device_eval_batch_size": config.batch_size,
        "learning_rate": config.learning_rate, "weight_decay": config.weight_decay, "max_grad_norm": config.clip,
        "adam_beta2": config.beta2, "max_length": config.max_length, "assistant_only_loss": True, "packing": False,
        "logging_steps": 1, "eval_strategy": "steps" if held_out else "no", "eval_steps": config.eval_every,
        "save_strategy": "no", "report_to": "none",
    }  # fmt: skip
    doc = f"Trains {config.data} on {config.model} with TRL, with the settings of the run {config.name or 'shown'}."
    otherwise = []
    if config.prefix_every:
        otherwise.append(
            f"reads the prompt that all rows begin with in each step, the run in one step of {config.prefix_every:,}"
        )
    if config.skip_above:
        otherwise.append(
            f"trains every label in each step, the run those that the model gave less than {config.skip_above:g}"
        )
    doc += "".join(f"\n\nTRL {how}: the weights come out a little different." for how in otherwise)
    return _SCRIPT.format(
        doc=doc,
        model=model,
        lora=_arguments("LoraConfig", lora),
        settings=_arguments("SFTConfig", settings, "bf16=bf16, fp16=False, gradient_checkpointing=False"),
        template=template,
        dtype=config.dtype,
        steps=steps,
        warmup=config.warmup_steps,
        final=config.final_lr_share,
        quantised=_QUANTISED if config.quantised else "",
        quantisation=", quantization_config=quantisation" if config.quantised else "",
    )


def _arguments(name: str, values: dict, more: str = "") -> str:
    inside = "".join(f"    {key}={value!r},\n" for key, value in values.items())
    return f"{name}(\n{inside}{f'    {more},' + chr(10) if more else ''})"


_QUANTISED = """
quantisation = BitsAndBytesConfig(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
)
"""
_SCRIPT = '''"""{doc}

pip install trl peft transformers "datasets>=5" torch (and bitsandbytes for 4-bit); then: python train_trl.py
"""

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset, Features, Json
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

here = Path(__file__).resolve().parent
model_id = sys.argv[1] if len(sys.argv) > 1 else {model!r}
TEMPLATE = {template!r}


def rows(name):
    lines = (here / name).read_text(encoding="utf-8").split("\\n")
    found = [json.loads(line) for line in lines if line.strip()]
    # as JSON: Arrow would give every tool call the arguments of all others, as nulls
    return Dataset.from_list(found, features=Features({{key: Json() for key in found[0]}})) if found else None


dtype = {{"float32": torch.float32}}.get({dtype!r}, torch.bfloat16)
bf16 = False  # the weights are in the run's dtype already, as in the run
{quantised}
tokenizer = AutoTokenizer.from_pretrained(model_id)
tokenizer.chat_template = TEMPLATE
if tokenizer.pad_token is None:
    tokenizer.pad_token = tokenizer.eos_token
model = AutoModelForCausalLM.from_pretrained(model_id, dtype=dtype{quantisation})
lora = {lora}
settings = {settings}


def rate(step):
    """Share of the peak rate: linear warm-up, then linear decay, as in the run."""
    if step < {warmup}:
        return (step + 1) / ({warmup} + 1)
    return 1 - (1 - {final}) * min(1.0, (step - {warmup}) / max(1, {steps} - 1 - {warmup}))


class Trainer(SFTTrainer):
    def create_scheduler(self, num_training_steps, optimizer=None):
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, rate)
        return self.lr_scheduler


trainer = Trainer(
    model=model,
    args=settings,
    train_dataset=rows("train.jsonl"),
    eval_dataset=rows("held_out.jsonl"),
    processing_class=tokenizer,
    peft_config=lora,
)
trainer.train()
trainer.save_model("trl-adapter")
'''


def rows_of(conversations: list) -> str:
    """Conversations as the JSON lines that TRL reads: messages, and tools where there are any."""
    lines = []
    any_tools = any(c.tools for c in conversations)
    for conversation in conversations:
        row = {"messages": conversation.messages}
        if any_tools:
            row["tools"] = conversation.tools
        lines.append(json.dumps(row, ensure_ascii=False))
    return "\n".join(lines) + ("\n" if lines else "")
