"""The best held-out loss of a run: its weights kept, and training ended when it no longer gets better."""

from collections.abc import Callable
from pathlib import Path

import torch

from playground.config import TrainConfig
from playground.core.training.ranks import ALONE, Ranks

# A loss counts as better for the patience when it is lower by more than this share; less is noise of few rows.
GAIN = 0.002


def write_whole(state, path: Path) -> None:
    """Save whole or not at all: a kill at any moment leaves the file that was there, and a full disk its room back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    try:
        torch.save(state, part)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


class Best:
    """`step` and `loss` of the lowest held-out loss; `waited` counts the evaluations since the last real gain."""

    def __init__(self, config: TrainConfig, steps: int, folder: Path | None, ranks: Ranks = ALONE):
        self.ranks = ranks
        self.patience, self.keeps, self.steps, self.folder = config.patience, config.restore_best, steps, folder
        self.step, self.loss, self.mark, self.waited = None, None, None, 0
        self.weights: list[torch.Tensor] | None = None

    def note(self, step: int, loss: float, weights: Callable[[], list[torch.Tensor]]) -> None:
        """An evaluation after `step`; `weights()` are those of the model. The file is on the disk when this returns."""
        if self.mark is None or loss < self.mark * (1 - GAIN):
            self.mark, self.waited = loss, 0
        else:
            self.waited += 1
        if self.loss is not None and loss >= self.loss:
            return
        self.step, self.loss = step, loss
        if not self.keeps:
            return
        kept = [w.detach().clone() for w in weights()]
        if self.folder is None:
            self.weights = kept
            return
        if self.ranks.first:
            write_whole(kept, self._file)
        self.ranks.wait()

    @property
    def over(self) -> bool:
        return bool(self.patience) and self.waited >= self.patience

    def kept(self) -> list[torch.Tensor] | None:
        """The weights at the best step, where they were kept."""
        if self.folder is None or self.step is None or not self.keeps:
            return self.weights
        return torch.load(self._file, map_location="cpu", weights_only=True) if self._file.exists() else None

    def forget_older(self) -> None:
        """Once a checkpoint names this step, no other file is needed."""
        for file in self.folder.glob("best-*.pt") if self.folder and self.step is not None else ():
            if file != self._file:
                file.unlink()

    def state(self) -> dict:
        return {"step": self.step, "loss": self.loss, "mark": self.mark, "waited": self.waited, "steps": self.steps}

    def restore(self, state: dict) -> None:
        self.step, self.loss, self.mark, self.waited = (state[key] for key in ("step", "loss", "mark", "waited"))
        if self.steps > state["steps"]:  # the run was extended: it gets its patience again
            self.waited = 0

    @property
    def _file(self) -> Path:
        return self.folder / f"best-{self.step:08d}.pt"
