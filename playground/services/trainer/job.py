"""A run in the doing: what all its parts share, and the request to stop it. No torch: it may wait long."""

import contextlib
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from playground.config import Paths, TrainConfig
from playground.core.cores import fixed
from playground.services.runs import Run


class Stop:
    """The request to stop: a file in the folder, Ctrl-C, or SIGTERM. A second Ctrl-C ends the process at once."""

    def __init__(self, run: Run, asked: Callable[[], None]):
        self.file, self.signalled, self.told, self.asked = run.folder / "stop", False, False, asked

    def __call__(self) -> bool:
        wanted = self.signalled or self.file.exists()
        if wanted and not self.told:
            self.told = True
            self.asked()
        return wanted

    is_set = __call__  # a download takes it for a threading.Event

    @contextlib.contextmanager
    def signals(self):
        def on_signal(number, frame):
            if self.signalled and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.signalled = True

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, old in before.items():
                signal.signal(number, old)


class StoppedEarly(Exception):
    """Asked to stop before there was anything to keep."""


@dataclass(frozen=True)
class Job:
    """`emit(kind, **values)` writes an event; `unit` is entered around each piece of work, to choose its threads.

    `ranks` (core.training.ranks) are the processes that do the run together; None, before torch is there, for one.
    """

    run: Run
    config: TrainConfig
    paths: Paths
    sources: object
    emit: Callable[..., None]
    stop: Stop
    ranks: object = None
    unit: Callable = fixed

    @property
    def checkpoints(self) -> Path:
        return self.run.folder / "checkpoints"

    def state(self, name: str, sentence: str = "", reason: str = "") -> None:
        self.emit("state", state=name, sentence=sentence, reason=reason)
