"""Rows that a run trained on beside rows that it held out: what is asked of each, and what the difference says."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from playground.core.overfit import GAP, GAP_TIMES, NOISE
from playground.core.training.collate import IGNORE, Example

TRAINED, HELD_OUT = "trained", "held out"


@dataclass(frozen=True)
class Row:
    """A row's last answer: what stands before it, what was expected, and what was answered with and without training.

    The losses are means over all that is trained in the row.
    """

    kind: str
    prompt: str
    expected: str
    base: str
    tuned: str
    base_loss: float
    tuned_loss: float

    def as_dict(self) -> dict:
        return asdict(self)


def chosen(rows: Sequence[Example], count: int) -> list[int]:
    """Places of `count` rows spread evenly over all of them."""
    count = min(count, len(rows))
    return [i * len(rows) // count for i in range(count)]


def last_answer(row: Example) -> tuple[list[int], list[int]]:
    """The token ids before a row's last answer, and those of the answer."""
    end = max(i for i, label in enumerate(row.labels) if label != IGNORE) + 1
    start = end
    while start > 1 and row.labels[start - 1] != IGNORE:
        start -= 1
    return list(row.ids[:start]), list(row.ids[start:end])


def mean(rows: Sequence[Row], kind: str, of: str) -> float | None:
    values = [getattr(row, of) for row in rows if row.kind == kind]
    return sum(values) / len(values) if values else None


def verbatim(rows: Sequence[Row], kind: str) -> str:
    """How many answers are the expected one to the letter."""
    same = [row.tuned.strip() == row.expected.strip() for row in rows if row.kind == kind]
    return f"{sum(same)} of {len(same)}"


def sentence(rows: Sequence[Row]) -> str:
    """What the gap between the two kinds says."""
    seen, new = (mean(rows, kind, "tuned_loss") for kind in (TRAINED, HELD_OUT))
    before = mean(rows, HELD_OUT, "base_loss")
    if seen is None or new is None:
        return "Rows of both kinds are needed to tell learning from learning by heart, and this run held none out."
    counts = (
        f"Word for word as expected: {verbatim(rows, TRAINED)} rows that it trained on, {verbatim(rows, HELD_OUT)} "
        "held-out ones."
    )
    figures = f"mean loss {seen:.2f} on rows that it trained on, {new:.2f} on held-out ones ({before:.2f} untrained)"
    if new > GAP_TIMES * seen and new - seen > GAP:
        better = "It also got better at new rows" if new < (1 - NOISE) * before else "It got no better at new rows"
        return f"It knows its own rows by heart: {figures}. {better}; more rows help more than more steps. {counts}"
    if new < (1 - NOISE) * before:
        return f"It learned what the rows have in common, and not the rows: {figures}. {counts}"
    return f"It has learned nothing that shows on new rows: {figures}. Train longer, or at a higher rate. {counts}"
