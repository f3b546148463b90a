"""How many threads to compute with, by what others leave free.

OpenMP's threads wait for each other at the end of every operation. Where another process holds one of the cores, the
rest wait for the one that is not running, thousands of times a step: on two cores, beside a process that keeps one of
them busy, two threads are several times slower than one.
"""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

EVERY = 2.0  # seconds between two looks
ROUNDING = 0.45  # of a core may be missing for a thread to be worth it


def _busy() -> float:
    """Seconds of processor time that all processes have used."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)


def _own() -> float:
    times = psutil.Process().cpu_times()
    return times.user + times.system


def available() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class Cores:
    """`adapt()` between operations sets the threads; `set_threads` is torch's `set_num_threads`."""

    set_threads: Callable[[int], object]
    most: int = field(default_factory=available)
    clock: Callable[[], float] = time.monotonic
    busy: Callable[[], float] = _busy
    own: Callable[[], float] = _own

    def __post_init__(self):
        self.threads = self.most
        self._seen = self.clock(), self.busy(), self.own()

    def adapt(self) -> int:
        """Threads to go on with: all cores less those that others kept busy since the last look."""
        if self.clock() - self._seen[0] < EVERY:
            return self.threads
        now = self.clock(), self.busy(), self.own()
        seconds, busy, own = (new - old for new, old in zip(now, self._seen, strict=True))
        self._seen = now
        others = max(0.0, busy - own) / seconds
        threads = min(self.most, max(1, math.floor(self.most - others + ROUNDING)))
        if threads != self.threads:
            self.threads = threads
            self.set_threads(threads)
        return self.threads
