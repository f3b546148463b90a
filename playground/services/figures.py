"""A run's figures for TensorBoard or Trackio, in the run's folder, beside the events that they are taken from."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from playground.errors import PlaygroundError

GIB = 2**30
# event → its values by the name they have there
FIGURES = {
    "step": {
        "train/loss": "loss",
        "train/learning_rate": "lr",
        "train/grad_norm": "grad_norm",
        "train/tokens_per_second": "tokens_per_second",
        "train/memory_gib": "memory",
    },
    "eval": {"eval/loss": "eval_loss"},
}


def check_installed(log_to: str) -> None:
    if log_to != "none" and find_spec(log_to) is None:
        raise PlaygroundError(
            f"log_to {log_to} needs the package {log_to}, which is not installed: pip install {log_to} "
            "(or set log_to to none; the page draws the curves either way)"
        )


def look_at(log_to: str, folder: Path) -> str:
    """The command that shows them."""
    if log_to == "tensorboard":
        return f"tensorboard --logdir {folder / 'tensorboard'}"
    return f"TRACKIO_DIR={folder / 'trackio'} trackio show --project playground"


class Log:
    """Takes every event of a run and writes the figures in it; `close` when there are no more.

    Opened by the first figure, so that a resumed run can say from which step on it replaces what was written before.
    """

    def __init__(self, log_to: str, folder: Path):
        check_installed(log_to)
        self.log_to, self.folder = log_to, Path(folder)
        if log_to == "trackio":  # read when it is imported, which some other library may do
            os.environ["TRACKIO_DIR"] = str(self.folder / "trackio")
        self._write: Callable[[dict, int], None] | None = None
        self._close: Callable[[], None] = lambda: None

    def __call__(self, event: dict) -> None:
        names = FIGURES.get(event["kind"])
        if self.log_to == "none" or not names:
            return
        values = {name: event[key] / (GIB if key == "memory" else 1) for name, key in names.items()}
        if self._write is None:
            self._write, self._close = {"tensorboard": _tensorboard, "trackio": _trackio}[self.log_to](
                self.folder, event["step"]
            )
        self._write(values, event["step"])

    def close(self) -> None:
        self._close()


def _tensorboard(folder: Path, step: int):
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def write(values: dict, step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return write, writer.close


def _trackio(folder: Path, step: int):
    for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_WEBHOOK_URL"):
        os.environ.pop(name, None)  # it is to send nothing anywhere
    import trackio

    trackio.init("playground", folder.name, resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False)
    return lambda values, step: trackio.log(values, step=step), trackio.finish
