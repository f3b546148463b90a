"""Labels that the model is sure of: no gradient for them, and soon no look either.

The braces and names of a call come again in every row, after the same few tokens, and are learnt within some thirty
steps. A step that leaves them out needs no logits for them, and need not read the end of a row that has nothing else.
"""

import math
from collections.abc import Iterator

from playground.core.training.collate import IGNORE, Batch, Example

BEFORE = 4  # a label is known by itself and so many tokens before it
IN_A_ROW = 32  # so many times it has to have been sure
EVERY = 4  # in one step of so many, all labels are looked at


class Sure:
    """For the steps of one run: labels of at least the probability `above` have no gradient (0: all have one).

    A label that was that sure IN_A_ROW times after the same tokens is left out of the steps that follow, but for one
    of EVERY; if it is not sure there, it is back. In between it counts with the loss that it had last.
    """

    def __init__(self, above: float = 0.0):
        self.above = above
        self.least = math.log(above) if above else math.inf
        self.forget()

    def forget(self) -> None:
        """Look at all: a checkpoint does not hold what was seen, and a resumed run must do what this one does."""
        self._times: dict[tuple[int, ...], int] = {}
        self._losses: dict[tuple[int, ...], float] = {}
        self._steps = 0

    def left(self, work: list[tuple[Batch, bool]]) -> tuple[list[tuple[Batch, bool]], float]:
        """A step's pieces without the labels that it leaves out, and what those add to its loss."""
        self._steps += 1
        if not self.above or self._steps % EVERY == 1:
            return work, 0.0
        known, added = {key for key, times in self._times.items() if times >= IN_A_ROW}, 0.0
        found = []
        for piece, counts in work:
            rows = []
            for row in piece.rows:
                out = {i: key for i, key in _keys(row) if key in known}
                added += sum(self._losses[key] for key in out.values()) * counts
                labels = tuple(IGNORE if i in out else label for i, label in enumerate(row.labels))
                rows.append(Example(row.ids, labels) if out else row)
            found.append((Batch(piece.prefix, tuple(rows)), counts))
        return found, added

    def note(self, pieces: list[Batch], said: list[float]) -> None:
        """`said`: the log-probability of each label of the pieces, in their order."""
        keys = (key for piece in pieces for row in piece.rows for _, key in _keys(row))
        for key, value in zip(keys, said, strict=True):
            self._times[key] = self._times.get(key, 0) + 1 if value >= self.least else 0
            self._losses[key] = -value


def _keys(row: Example) -> Iterator[tuple[int, tuple[int, ...]]]:
    """The place of each label that is trained, and what it is known by."""
    for i, label in enumerate(row.labels):
        if i and label != IGNORE:
            yield i, row.ids[max(0, i - BEFORE) : i + 1]
