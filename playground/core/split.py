"""Rows to training, validation and test sets: by a seed, each label on every side, near-duplicates on one.

A near-duplicate of a training row in the test set is an answer given away, so groups of them go to one side as a
whole. Sides are filled by what they still lack of a row's label, so that the shares hold within each label too.
"""

import json
import os
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from playground.core import similarity
from playground.core.messages import Conversation
from playground.core.report import talk
from playground.errors import PlaygroundError

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def split(
    conversations: Sequence[Conversation],
    shares: dict[str, float] | None = None,
    seed: int = 0,
    labels: Sequence | None = None,
) -> dict[str, list[int]]:
    """The places (from 0, in order) of the rows on each side; the same rows, shares, seed and labels give the same.

    `labels` has a label or None for each row. A side's size is off by a row or two for each label, and by as much as a
    group of near-duplicates is large. Raises PlaygroundError for shares that do not add up to 1, and where a side that
    was asked for would stay empty.
    """
    shares = SHARES if shares is None else shares
    _check(shares, conversations, labels)
    texts = [talk(conversation) for conversation in conversations]
    families = similarity.groups(texts, similarity.signatures(texts))
    related = {place for family in families for place in family}
    families += [[place] for place in range(len(texts)) if place not in related]
    rows = list(map(str, labels)) if labels else [""] * len(texts)
    wanted = {label: {side: share * count for side, share in shares.items()} for label, count in Counter(rows).items()}
    total = {side: share * len(rows) for side, share in shares.items()}
    sides: dict[str, list[int]] = {side: [] for side in shares}
    random.Random(f"split {seed}").shuffle(families)
    for family in sorted(families, key=len, reverse=True):  # large ones while every side has room for them
        counts = Counter(rows[place] for place in family)
        side = _roomiest(counts, wanted, total)
        sides[side] += family
        total[side] -= len(family)
        for label, count in counts.items():
            wanted[label][side] -= count
    empty = [side for side, share in shares.items() if share and not sides[side]]
    if empty:
        groups = f"{len(families):,} group{'s' if len(families) > 1 else ''}"
        raise PlaygroundError(
            f"{len(rows):,} rows ({groups}, with near-duplicates together) are too few for these shares: "
            f"{' and '.join(empty)} would be empty"
        )
    return {side: sorted(places) for side, places in sides.items()}


def as_row(conversation: Conversation, extras: dict | None = None) -> dict:
    """A row that loads to the same conversation again, with what its own row said besides (label, reference …)."""
    row = {"messages": conversation.messages}
    if conversation.tools:
        row["tools"] = conversation.tools
    if conversation.variables:
        row["chat_template_kwargs"] = conversation.variables
    return {**(extras or {}), **row}


def save(
    sides: dict[str, list[int]],
    conversations: Sequence[Conversation],
    folder: Path,
    extras: Sequence[dict] | None = None,
    overwrite: bool = False,
) -> dict[str, Path]:
    """Write each side that has rows as `folder`/<side>.jsonl. Either all files are there in the end, or none is new.

    Raises PlaygroundError where a file is there already and `overwrite` is not given, or where one cannot be written.
    """
    files = {side: Path(folder) / f"{side}.jsonl" for side, places in sides.items() if places}
    there = [file.name for file in files.values() if file.exists()]
    if there and not overwrite:
        raise PlaygroundError(f"{folder} holds {' and '.join(there)} already; choose another folder")
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".split-") as scratch:
            for side, file in files.items():
                with open(Path(scratch) / file.name, "wb") as out:
                    for place in sides[side]:
                        out.write(_line(as_row(conversations[place], extras[place] if extras else None)))
                    out.flush()
                    os.fsync(out.fileno())
            for file in files.values():
                os.replace(Path(scratch) / file.name, file)
    except OSError as error:
        raise PlaygroundError(f"cannot write to {folder}: {error.strerror or error}") from None
    return files


def _check(shares: dict[str, float], conversations: Sequence, labels: Sequence | None) -> None:
    if any(share < 0 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        given = ", ".join(f"{side} {share:g}" for side, share in shares.items())
        raise PlaygroundError(f"the shares must add up to 1, got {given}")
    if not conversations:
        raise PlaygroundError("there are no rows to split")
    if labels is not None and len(labels) != len(conversations):
        raise PlaygroundError(f"there must be a label for each of the {len(conversations):,} rows, got {len(labels):,}")


def _roomiest(counts: Counter, wanted: dict[str, dict[str, float]], total: dict[str, float]) -> str:
    """The emptiest of the sides that lack all these rows of their labels, else of those that lack some of them.

    So the shares hold within a label as far as its rows go round, and what is left over evens out the sides.
    """
    fits = [side for side in total if all(wanted[label][side] >= count for label, count in counts.items())]
    some = [side for side in total if sum(wanted[label][side] for label in counts) > 0]
    return max(fits or some or total, key=total.__getitem__)


def _line(row: dict) -> bytes:
    """A JSON line; half of a surrogate pair, which UTF-8 cannot hold, is written as an escape."""
    try:
        return (json.dumps(row, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(row) + "\n").encode()
