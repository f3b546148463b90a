"""How far a long piece of work is."""

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Rows done of all (None where nobody knows), rows per second, seconds left; the last one has the result."""

    stage: str
    done: int
    total: int | None
    rate: float
    eta: float | None
    result: object = None


class Clock:
    """Makes Progress values of work that began when the clock was made."""

    def __init__(self, total: int | None):
        self.total, self.start = total, time.monotonic()

    def progress(self, stage: str, done: int, result: object = None) -> Progress:
        seconds = time.monotonic() - self.start
        rate = done / seconds if seconds else 0.0
        left = (self.total - done) / rate if self.total is not None and rate else None
        return Progress(stage, done, self.total, rate, left, result)
