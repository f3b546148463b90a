"""The ways that `playground bench train` compares, each run by a process of its own: seconds, losses, peak memory.

All get the same PeftModel, rows in the same order, labels and optimizer settings. Attention is eager on a CPU; ours
also fuses it and the LoRA layers, as a run does (`core/training/fused.py`). TRL's loss is worked out in chunks in all
of its ways. On a CPU it has logits at every position, because it skips masked ones on Triton devices only: "patched" is
TRL with that check answering yes. "packed" is its packing: the rows of a step as one sequence without padding.
"""

import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path

from playground.config import TrainConfig
from playground.errors import PlaygroundError

WAYS = {
    "ours": "our loop",
    "trl": "TRL, rows padded",
    "trl_packed": "TRL, rows packed",
    "trl_liger": "TRL with Liger's kernels",
    "trl_patched": "TRL with the masked-position check patched",
    "trl_patched_packed": "the same, rows packed",
    "trainer": "plain Trainer",
}
STOCK_TRL, PATCHED_TRL = ("trl", "trl_packed", "trl_liger"), ("trl_patched", "trl_patched_packed")


def absent(way: str) -> str | None:
    """Why a way cannot be run here; None where it can."""
    if not way.startswith("trl"):
        return None
    if importlib.util.find_spec("trl") is None:
        return "TRL is not installed; pip install 'instruction-tuning-playground[bench]' brings it"
    if way in ("trl", "trl_packed"):
        return None
    import torch

    gpu = torch.cuda.is_available()
    if way in PATCHED_TRL:
        return "on a GPU, TRL skips masked positions by itself" if gpu else None
    if not gpu:
        return "Liger's kernels are Triton's, which need a GPU"
    if importlib.util.find_spec("liger_kernel") is None:
        return "Liger's kernels are not installed; pip install liger-kernel brings them"
    return None


def run_way(way: str, job: dict) -> dict:
    from playground.core import models
    from playground.core.training.memory import peak_memory
    from playground.core.training.methods import add_adapter

    config = TrainConfig(**job["settings"])
    loaded = models.load(job["folder"], config.dtype)
    if loaded.device.type == "cpu":
        loaded.model.set_attn_implementation("eager")
    model = add_adapter(loaded.model, config)
    seconds, losses = (_ours if way == "ours" else _theirs)(model, config, job, way)
    return {"seconds": seconds, "losses": losses, "memory": peak_memory(loaded.device)}


def _ours(model, config, job, way):
    import torch

    from playground.core.cores import Cores
    from playground.core.training import collate, loop

    rows = [[collate.Example(tuple(ids), tuple(labels)) for ids, labels in batch] for batch in job["batches"]]
    batches, steps = [collate.batch(batch) for batch in rows], []

    def emit(kind, **values):
        if kind == "step":
            steps.append(values)

    examples = collate.Examples([row for batch in rows for row in batch], [])
    # the threads are chosen as they go, as in a run
    loop.fit(model, examples, config, job["pad"], emit, batches=batches, unit=Cores(torch.set_num_threads).unit)
    return [step["seconds"] for step in steps], [step["loss"] for step in steps]


def _theirs(model, config, job, way):
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback

    from playground.core.training.master import rate

    class Clock(TrainerCallback):
        def __init__(self):
            self.seconds, self.losses, self.began = [], [], 0.0

        def on_step_begin(self, *args, **kwargs):
            self.began = time.monotonic()

        def on_step_end(self, *args, **kwargs):
            self.seconds.append(time.monotonic() - self.began)

        def on_log(self, args, state, control, logs=None, **kwargs):
            if "loss" in logs:
                self.losses.append(float(logs["loss"]))

    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=True,
    )
    tokenizer = AutoTokenizer.from_pretrained(job["folder"], local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch:
        settings = {
            "output_dir": scratch, "per_device_train_batch_size": config.batch_size, "max_steps": config.steps,
            "max_grad_norm": config.clip, "seed": config.seed, "logging_steps": 1,
            "train_sampling_strategy": "sequential", "gradient_checkpointing": False, "bf16": False, "fp16": False,
            "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
        }  # fmt: skip
        trainer = (_plain if way == "trainer" else _sft)(
            way,
            settings,
            tokenizer,
            model=model,
            train_dataset=Dataset.from_list(
                [{"input_ids": ids, "labels": labels} for batch in job["batches"] for ids, labels in batch]
            ),
            callbacks=[clock],
            optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rate(config, config.steps))),
        )
        trainer.train()
    return clock.seconds, clock.losses


def _plain(way, settings, tokenizer, **parts):
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    # it pads ids and labels; its name is from another time
    return Trainer(args=TrainingArguments(**settings), data_collator=DataCollatorForSeq2Seq(tokenizer), **parts)


def _sft(way, settings, tokenizer, **parts):
    from trl import SFTConfig, SFTTrainer

    if way in PATCHED_TRL:
        import trl.trainer.utils

        if not hasattr(trl.trainer.utils, "_use_triton"):
            raise PlaygroundError(f"TRL {trl.__version__} has no check named _use_triton to patch")
        trl.trainer.utils._use_triton = lambda device: True
    settings |= {"packing": False, "max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}
    # Packing chooses which rows go together, and then runs them as one sequence; here the steps' rows are given.
    settings |= {"padding_free": way.endswith("packed"), "use_liger_kernel": way == "trl_liger"}
    return SFTTrainer(args=SFTConfig(**settings), processing_class=tokenizer, **parts)


if __name__ == "__main__":
    print(json.dumps(run_way(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()))))
