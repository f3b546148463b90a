"""What differs between two texts: by lines first, then by words inside the lines that differ."""

import re
from collections import Counter
from difflib import SequenceMatcher
from typing import NamedTuple

_WORD = re.compile(r"<[^<>\s]{1,40}>|\w+|\s|.", re.DOTALL)  # a tag is one word: half of one means nothing
# Of equal lines or words in one block, each of the left with each of the right: what difflib takes its time for. Above,
# as where a model repeats itself to its limit, the block is shown as a whole.
_MOST_PAIRS = 2_000_000


class Difference(NamedTuple):
    """A stretch of both texts; `left` equals `right` where nothing differs, and either may be empty."""

    left: str
    right: str

    @property
    def same(self) -> bool:
        return self.left == self.right


def differences(left: str, right: str) -> list[Difference]:
    """Stretches in order; all `left` joined give the left text, all `right` the right one."""
    found: list[Difference] = []
    for a, b in _blocks(left.splitlines(keepends=True), right.splitlines(keepends=True)):
        if a == b:
            found.append(Difference("".join(a), "".join(b)))
            continue
        words = _blocks(_WORD.findall("".join(a)), _WORD.findall("".join(b)))
        found += [Difference("".join(c), "".join(d)) for c, d in words]
    return _joined(found)


def shared_share(found: list[Difference]) -> float:
    """Characters that both texts have ÷ characters of the longer one; 1 for two empty texts."""
    same = sum(len(part.left) for part in found if part.same)
    longest = max(sum(len(part.left) for part in found), sum(len(part.right) for part in found))
    return same / longest if longest else 1.0


def _blocks(left: list[str], right: list[str]):
    often = Counter(right)
    if sum(often[part] for part in left) > _MOST_PAIRS:
        yield left, right
        return
    for _, a, b, c, d in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        yield left[a:b], right[c:d]


def _joined(found: list[Difference]) -> list[Difference]:
    """Neighbours of one kind made one; a blank between two changes is part of the change."""
    out: list[Difference] = []
    for place, part in enumerate(found):
        after = found[place + 1] if place + 1 < len(found) else None
        between = part.same and part.left.isspace() and len(part.left) == 1 and out and after and not out[-1].same
        if out and (out[-1].same == part.same or between):
            out[-1] = Difference(out[-1].left + part.left, out[-1].right + part.right)
        else:
            out.append(part)
    return out
