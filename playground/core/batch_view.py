"""A handful of rows as the trainer sees them: the collate step as cells that can be looked at.

Rendering, cutting and labels are the trainer's own functions (`templates.render`, `collate.example`), and the padded
matrix is what `loss.tensors` makes of them; a test holds the two equal. Packing and training on the prompt are shown
for comparison: this trainer does neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from playground.core.messages import Conversation
from playground.core.templates import Template, render
from playground.core.tokenizer import Tokenizer
from playground.core.training.collate import IGNORE, Example, batch, example
from playground.errors import PlaygroundError

NO_ROW = -1  # the row that a padding cell belongs to


@dataclass(frozen=True)
class Line:
    """One line of the matrix, all lists as wide as it is.

    `labels` stand under their own token. `targets` are shifted: what each position has to predict, which is the label
    of the next one; the last position predicts nothing.
    """

    ids: list[int]
    pieces: list[str]
    labels: list[int]
    attention: list[int]  # 0 on padding
    rows: list[int]  # the row of each cell, from 0; NO_ROW on padding
    positions: list[int]  # they begin again with each row of a packed line; 0 on padding

    @property
    def targets(self) -> list[int]:
        return [*self.labels[1:], IGNORE]


@dataclass(frozen=True)
class View:
    """The matrix, and what does not stand in it. Rows go by their place in what was given, from 0."""

    lines: list[Line]
    width: int
    pad_id: int
    cut: dict[int, tuple[int, ...]]  # ids beyond the longest length, of the rows that have them
    left_out: dict[int, str]  # rows that the trainer does not take, with the reason
    shared_prefix: int  # tokens at the start that all rows share and that the trainer runs once

    @property
    def cells(self) -> int:
        return self.width * len(self.lines)

    @property
    def tokens(self) -> int:
        return sum(sum(line.attention) for line in self.lines)

    @property
    def trained(self) -> int:
        """Positions that the loss is on."""
        return sum(target != IGNORE for line in self.lines for target in line.targets)


def batch_view(
    template: Template,
    conversations: Sequence[Conversation],
    tokenizer: Tokenizer,
    max_length: int,
    mask_prompt: bool = True,
    packed: bool = False,
) -> View:
    """The rows as one batch: one line each, or as many as fit to a line of `max_length` tokens when `packed`.

    `mask_prompt=False` puts a label on every token. Raises PlaygroundError when no row is left to show.
    """
    examples, cut, left_out = {}, {}, {}
    for place, conversation in enumerate(conversations):
        try:
            done = render(template, conversation, tokenizer, spans=False)
        except PlaygroundError as error:
            left_out[place] = str(error)
            continue
        made = example(done.ids, done.mask if mask_prompt else [True] * len(done.ids), max_length)
        if len(done.ids) > max_length:
            cut[place] = tuple(done.ids[max_length:])
        if made.trained:
            examples[place] = made
        else:
            left_out[place] = "nothing in it is trained"
    if not examples:
        first = next(iter(left_out.values()), "there are none")
        raise PlaygroundError(f"no row is left for the batch: {first}")
    pad_id = tokenizer.pad_id or 0
    groups = _packs(examples, max_length) if packed else [[place] for place in examples]
    width = max(sum(len(examples[place].ids) for place in group) for group in groups)
    lines = [_line([(place, examples[place]) for place in group], width, pad_id, tokenizer) for group in groups]
    prefix = 0 if packed else len(batch(list(examples.values())).prefix)
    return View(lines, width, pad_id, cut, left_out, prefix)


def _packs(examples: dict[int, Example], max_length: int) -> list[list[int]]:
    """Rows in their order, each on the first line that has room for it; none is cut in two."""
    packs, room = [], []
    for place, row in examples.items():
        at = next((i for i, left in enumerate(room) if left >= len(row.ids)), None)
        if at is None:
            packs.append([])
            room.append(max_length)
            at = len(packs) - 1
        packs[at].append(place)
        room[at] -= len(row.ids)
    return packs


def _line(rows: list[tuple[int, Example]], width: int, pad_id: int, tokenizer: Tokenizer) -> Line:
    ids = [token for _, row in rows for token in row.ids]
    labels = [label for _, row in rows for label in row.labels]
    at = 0
    for _, row in rows[:-1]:
        at += len(row.ids)
        labels[at] = IGNORE  # the end of one row is not asked for the beginning of the next
    padding = width - len(ids)
    return Line(
        ids=ids + [pad_id] * padding,
        pieces=tokenizer.pieces(ids + [pad_id] * padding),
        labels=labels + [IGNORE] * padding,
        attention=[1] * len(ids) + [0] * padding,
        rows=[place for place, row in rows for _ in row.ids] + [NO_ROW] * padding,
        positions=[i for _, row in rows for i in range(len(row.ids))] + [0] * padding,
    )
