"""The truth check after a run: is there an adapter in the saved file, does it load, and does it change the model?

Empty adapters saved without a word are a known failure (alpaca-lora #293, #363, #446, #581).
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from playground.core.training.collate import IGNORE, Example


@dataclass(frozen=True)
class Truth:
    """`difference`, `noise` and `reload` are mean absolute differences of log-probabilities on a held-out row."""

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
    hidden = model(input_ids=ids, attention_mask=mask, logits_to_keep=0).logits[0, : len(row.ids) - 1]
    return hidden[labels != IGNORE].float().log_softmax(-1)


def check(base, folder: Path, row: Example, trained: torch.Tensor) -> Truth:
    """Compare the adapter in `folder` with a fresh `base` (which gets the adapter attached to it).

    `trained` is what `log_probabilities` gave for `row` with the model as it was when training ended.
    """
    from peft import PeftModel
    from safetensors import safe_open

    matrices, zero = 0, 0
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        for name in file.keys():  # noqa: SIM118 (not a dict)
            if "lora_B" in name:
                matrices += 1
                zero += not file.get_tensor(name).any()
    base.eval()
    plain = log_probabilities(base, row)
    noise = _apart(plain, log_probabilities(base, row, beside=True))
    tuned = PeftModel.from_pretrained(base, folder, autocast_adapter_dtype=False).eval()
    reloaded = log_probabilities(tuned, row)
    difference, reload = _apart(plain, reloaded), _apart(trained, reloaded)
    facts = {"matrices": matrices, "zero": zero, "difference": difference, "noise": noise, "reload": reload}
    if not matrices or zero == matrices:
        return Truth(False, "the saved adapter is empty: all its B matrices are zero", **facts)
    # written so that a NaN fails
    if not difference > max(3 * noise, 1e-6):
        return Truth(
            False, f"the adapter does not change the model: {difference:.2g} apart where noise is {noise:.2g}", **facts
        )
    if not reload <= max(3 * noise, 1e-4):
        return Truth(
            False, f"the saved adapter is not the trained one: {reload:.2g} apart where noise is {noise:.2g}", **facts
        )
    return Truth(
        True,
        f"{matrices - zero} of {matrices} B matrices are not zero, the saved file reloads, and on a held-out row "
        f"the tuned model is {difference:.2g} from the base (noise {noise:.2g})",
        **facts,
    )


def _apart(one: torch.Tensor, two: torch.Tensor) -> float:
    return (one - two).abs().mean().item()
