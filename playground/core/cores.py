"""How many threads to compute with, by what is faster right now.

More threads are not always faster. OpenMP's threads wait for each other at the end of every operation, so where
something else holds one of the cores (another process, a neighbour on the same host) the rest wait for the one that is
not running, thousands of times a step; and two cores that are one core's two threads share its matrix unit, so the
second adds little. On such a pair, beside a busy process, a training step took 4 s with one thread and 8 with two;
with nothing else running two were faster. What others do cannot always be seen, so it is tried: now and then
one unit of work is done with the next smaller or larger number of threads, and the faster one is kept.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

UNITS = 24  # between two tries of another number of threads
SECONDS = 4.0  # at least, between two tries
SLOWED = 0.6  # of the usual rate: something has changed, and the others are tried sooner
SOONER = 4  # units
TOKEN_COST = 8  # a step of decoding takes as long as so many rows, whatever their number: the weights are read once
NEWEST = 0.4  # weight of the newest unit in a rate


def available() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fixed(work: float = 1.0, kind: str = ""):
    """Takes the place of `Cores.unit` where the threads are not to be chosen."""
    return contextlib.nullcontext()


@dataclass
class _Rate:
    value: float  # work per second
    unit: int  # when it was measured last
    at: float


@dataclass
class _Kind:
    """What is known of one kind of work: the rate of each number of threads."""

    rates: dict[int, _Rate] = field(default_factory=dict)
    units: int = 0
    slowed: bool = False


@dataclass
class Cores:
    """`with cores.unit(work):` around each unit of work; `set_threads` is torch's `set_num_threads`.

    `work` is in any measure that the time of a unit grows with, such as tokens; units of different `kind`s are not
    compared. One thread at a time.
    """

    set_threads: Callable[[int], object]
    most: int = field(default_factory=available)
    clock: Callable[[], float] = time.perf_counter

    def __post_init__(self):
        self.threads = self.most
        self._kinds: dict[str, _Kind] = {}

    @contextlib.contextmanager
    def unit(self, work: float = 1.0, kind: str = "") -> Iterator[None]:
        if self.most == 1:
            yield
            return
        known = self._kinds.setdefault(kind, _Kind())
        self._use(self._next(known))
        started = self.clock()
        yield
        ended = self.clock()
        known.units += 1
        if known.units > 1:  # the first one also warms up
            self._note(known, work / max(ended - started, 1e-9), ended)

    def _next(self, known: _Kind) -> int:
        rates = known.rates
        best = max(rates, key=lambda n: rates[n].value, default=self.most)
        others = {min(2 * best, self.most), max(best // 2, 1)} - {best}
        due = [n for n in others if self._due(known, n)] if best in rates else []
        return min(due, key=lambda n: rates[n].unit if n in rates else -1, default=best)

    def _due(self, known: _Kind, threads: int) -> bool:
        if threads not in known.rates:
            return True
        rate = known.rates[threads]
        units, seconds = known.units - rate.unit, self.clock() - rate.at
        return (units >= UNITS and seconds >= SECONDS) or (known.slowed and units >= SOONER)

    def _note(self, known: _Kind, value: float, now: float) -> None:
        before = known.rates.get(self.threads)
        known.slowed = before is not None and value < SLOWED * before.value
        mixed = value if before is None else NEWEST * value + (1 - NEWEST) * before.value
        # A try is a fresh look at how things are: what was measured long ago counts no more.
        stale = before is not None and known.units - before.unit > SOONER
        known.rates[self.threads] = _Rate(value if stale else mixed, known.units, now)

    def _use(self, threads: int) -> None:
        if threads != self.threads:
            self.threads = threads
            self.set_threads(threads)
