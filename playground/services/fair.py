"""A queue that is fair between visitors: each gets a turn, however much one of them asks."""

from collections import deque
from collections.abc import Iterator
from itertools import zip_longest


class FairQueue:
    """First come, first served for one visitor; one after the other between them (round robin).

    Not safe for threads: its owner holds a lock.
    """

    def __init__(self):
        self._lines: dict[str, deque] = {}  # the visitor at the front has the next turn

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __iter__(self) -> Iterator:
        """What waits, in the order in which it would be served if nobody else came."""
        nothing = object()
        rounds = zip_longest(*self._lines.values(), fillvalue=nothing)
        return (item for one in rounds for item in one if item is not nothing)

    def of(self, visitor: str) -> int:
        """How many of the visitor's wait."""
        return len(self._lines.get(visitor, ()))

    def push(self, visitor: str, item) -> None:
        self._lines.setdefault(visitor, deque()).append(item)

    def pop(self):
        """The next one; its visitor then stands behind the others. IndexError when nothing waits."""
        if not self._lines:
            raise IndexError("nothing waits")
        visitor, line = next(iter(self._lines.items()))
        del self._lines[visitor]
        item = line.popleft()
        if line:
            self._lines[visitor] = line
        return item

    def remove(self, item) -> None:
        """Take `item` out, wherever it stands."""
        for visitor, line in list(self._lines.items()):
            if item in line:
                line.remove(item)
                if not line:
                    del self._lines[visitor]
                return

    def clear(self) -> None:
        self._lines.clear()
