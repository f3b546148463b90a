"""The truth check after a run: is something trained in the saved file, does it load, and does it change the model?

Empty adapters saved without a word are a known failure (alpaca-lora #293, #363, #446, #581).
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from playground.core.adapter_files import soft_folder, soft_rows
from playground.core.training.collate import IGNORE, Example
from playground.core.training.loss import KEPT, embedded, keep_soft_prompt
from playground.core.training.methods import base_of


@dataclass(frozen=True)
class Truth:
    """`difference`, `noise` and `reload` are mean absolute differences of log-probabilities on a held-out row.

    `matrices` counts what the method trains (B matrices; the soft prompt; a full fine-tune's weights), and `zero` those
    of them that are as they were at the start.
    """

    passed: bool
    sentence: str
    matrices: int = 0
    zero: int = 0
    difference: float = 0.0
    noise: float = 0.0
    reload: float = 0.0

    def as_dict(self) -> dict:
        return asdict(self)


@torch.inference_mode()
def log_probabilities(model, row: Example, beside: bool = False) -> torch.Tensor:
    """[labelled tokens, vocabulary] of one row, in fp32.

    `beside`: in a batch with a longer row, padded. The numbers should be the same; how far they are apart is the
    rounding noise that a real difference must exceed.
    """
    device = next(model.parameters()).device
    ids = torch.tensor([row.ids], device=device)
    mask = torch.ones_like(ids)
    if beside:
        ids = torch.cat([torch.cat([ids, ids[:, :3]], 1), torch.cat([ids, ids[:, :3]], 1).roll(1, 1)])
        mask = torch.ones_like(ids)
        mask[0, -3:] = 0
    labels = torch.tensor(row.labels[1:], device=device)
    if (soft := getattr(model, KEPT, None)) is None:
        inputs = {"input_ids": ids, "attention_mask": mask}
    else:
        model = base_of(model)  # with the adapter's layers in it, and without peft's look at the inputs
        inputs = embedded(model, ids, soft, mask)
    logits = model(**inputs, logits_to_keep=0).logits[0]
    logits = logits[len(logits) - ids.shape[1] :][: len(row.ids) - 1]  # a soft prompt stands before
    return logits[labels != IGNORE].float().log_softmax(-1)


def check(
    base, folder: Path, row: Example, trained: torch.Tensor, rounding: float = 0.0, start: dict | None = None
) -> Truth:
    """Compare what is in `folder` with a fresh `base`, which is left as it was.

    `trained` is what `log_probabilities` gave for `row` with the model as it was when training ended. `rounding` is how
    far the start of the training was from the base for no other reason than rounding (PiSSA rewrites the base).
    `start` holds what the saved file's tensors were before the training, by their names in it, where that was not zero:
    a soft prompt starts as the embeddings of some tokens, and changes the model before anything was learned.
    """
    base.eval()
    plain = log_probabilities(base, row)
    noise = max(apart(plain, log_probabilities(base, row, beside=True)), rounding)
    if (folder / "adapter_config.json").exists():
        (what, matrices, zero), tuned = _in_adapter(folder, start or {}), _with_adapter(base, folder)
    else:
        (what, matrices, zero), tuned = _in_model(base, folder), _model(base, folder)
    reloaded = log_probabilities(tuned, row)
    _take_off(tuned)
    difference, reload = apart(plain, reloaded), apart(trained, reloaded)
    facts = {"matrices": matrices, "zero": zero, "difference": difference, "noise": noise, "reload": reload}
    if not matrices or zero == matrices:
        return Truth(False, f"nothing in the saved file was trained: all its {what}", **facts)
    # written so that a NaN fails
    if not difference > max(3 * noise, 1e-6):
        return Truth(
            False,
            f"what was saved does not change the model: {difference:.2g} apart where noise is {noise:.2g}",
            **facts,
        )
    if not reload <= max(3 * noise, 1e-4):
        return Truth(
            False, f"the saved file is not the trained one: {reload:.2g} apart where noise is {noise:.2g}", **facts
        )
    return Truth(
        True,
        f"{matrices - zero} of {matrices} {what.replace(' are ', ' are not ')}, the saved file reloads, and on a "
        f"held-out row the tuned model is {difference:.2g} from the base (noise {noise:.2g})",
        **facts,
    )


def _in_adapter(folder: Path, start: dict) -> tuple[str, int, int]:
    """(what, how many, how many of them as at the start) in a PEFT file; a B matrix starts at zero."""
    from safetensors import safe_open

    def parts(folder: Path, mark: str) -> dict[str, torch.Tensor]:
        with safe_open(folder / "adapter_model.safetensors", "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if mark in name}  # noqa: SIM118 (not a dict)

    found, kind = parts(folder, "lora_B"), "B matrices"
    if not found:
        found, kind = parts(folder, "prompt"), "soft prompts"
    elif soft := soft_folder(folder):
        found, kind = found | parts(soft, "prompt"), "B matrices and soft prompts"
    same = sum(_as_before(tensor, start.get(name)) for name, tensor in found.items())
    return f"{kind} are {'as at the start' if start else 'zero'}", len(found), same


def _as_before(tensor: torch.Tensor, start: torch.Tensor | None) -> bool:
    return not tensor.any() if start is None else torch.equal(tensor, start.to(tensor))


def _in_model(base, folder: Path) -> tuple[str, int, int]:
    from safetensors import safe_open

    before, number, same = base.state_dict(), 0, 0
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                if name in before:
                    number += 1
                    same += torch.equal(file.get_tensor(name).to(before[name]), before[name])
    return "weights are as in the base", number, same


def _with_adapter(base, folder: Path):
    from peft import PeftModel

    model = PeftModel.from_pretrained(base, folder, autocast_adapter_dtype=False).eval()
    if soft := soft_folder(folder):
        keep_soft_prompt(model, soft_rows(soft))
    return model


def _take_off(tuned) -> None:
    """Give the base its own layers back; a soft prompt stands beside it and has changed none."""
    config = getattr(tuned, "active_peft_config", None)
    if config is not None and not config.is_prompt_learning:
        tuned.unload()


def _model(base, folder: Path):
    from transformers import AutoModelForCausalLM

    options = {"use_safetensors": True, "local_files_only": True, "trust_remote_code": False}
    tuned = AutoModelForCausalLM.from_pretrained(folder, dtype=base.dtype, **options)
    tuned.set_attn_implementation(base.config._attn_implementation)
    return tuned.to(base.device).eval()


def apart(one: torch.Tensor, two: torch.Tensor) -> float:
    """Mean absolute difference."""
    return (one - two).abs().mean().item()
