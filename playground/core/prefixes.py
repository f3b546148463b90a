"""What the model has read before, kept for prompts that begin alike: the turns of one chat, a shared system prompt.

A prompt's keys and values depend on nothing but the tokens before them and the adapter, so they can be read again
instead of computed again (as in SGLang's RadixAttention, Zheng et al. 2023, arXiv:2312.07104; here a short list with
least-recently-used eviction, since a class has dozens of chats, not thousands).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

MIN_TOKENS = 32  # a shorter match is not worth its copy
MAX_ENTRIES = 64


@dataclass(eq=False)
class Prefix:
    """Tokens and, for each layer, their (keys, values) of [heads, tokens, head size]."""

    adapter: str | None
    ids: list[int]
    layers: list[tuple[torch.Tensor, torch.Tensor]]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(t.element_size() * t.nelement() for layer in self.layers for t in layer)


@dataclass
class Prefixes:
    """Owned by one thread. `limit` is in bytes."""

    limit: int = 256 * 2**20
    kept: list[Prefix] = field(default_factory=list)  # the longest unused first
    used: int = 0

    def find(self, adapter: str | None, ids: Sequence[int]) -> tuple[Prefix | None, int]:
        """What begins most like `ids`, and for how many tokens; at least one token is always left to read."""
        best, length = None, 0
        for prefix in self.kept:
            if prefix.adapter == adapter and (shared := _shared(prefix.ids, ids)) > length:
                best, length = prefix, shared
        length = min(length, len(ids) - 1)
        if best is None or length < MIN_TOKENS:
            return None, 0
        self.kept = [*(prefix for prefix in self.kept if prefix is not best), best]
        return best, length

    def add(self, prefix: Prefix) -> None:
        """Keep `prefix`; what it goes on from is kept in it, and what was longest unused makes room."""
        if len(prefix.ids) < MIN_TOKENS or prefix.size > self.limit:
            return
        for old in list(self.kept):
            if old.adapter == prefix.adapter and _shared(old.ids, prefix.ids) >= min(len(old.ids), len(prefix.ids)):
                if len(old.ids) >= len(prefix.ids):
                    return  # known already
                self._drop(old)
        self.kept.append(prefix)
        self.used += prefix.size
        while self.used > self.limit or len(self.kept) > MAX_ENTRIES:
            self._drop(self.kept[0])

    def _drop(self, prefix: Prefix) -> None:
        self.kept = [kept for kept in self.kept if kept is not prefix]
        self.used -= prefix.size


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    most = min(len(one), len(other))
    if one[:most] == other[:most]:
        return most
    return next(i for i in range(most) if one[i] != other[i])
