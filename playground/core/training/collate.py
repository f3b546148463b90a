"""Conversations to labelled examples, and examples to the batches of a run. No torch: the form counts with this too.

A label is the token itself where the rendered mask says "trained", and IGNORE elsewhere, so the loss is on the
assistant's tokens and on nothing else.
"""

import hashlib
import json
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

from playground.config import TrainConfig
from playground.errors import PlaygroundError

IGNORE = -100
# A shared prefix shorter than this is not worth a forward pass of its own.
MIN_PREFIX = 16
# Of the rows that are cut or left out, so many are kept by number, and so many said.
NAMED, SAID = 20, 5
# Padded tokens in one forward and backward pass; a step of more is done in pieces. About 1 MB each for a model of
# 135M, so this sets the peak memory; on two cores, pieces of 768 tokens took about a quarter longer.
TOKENS_AT_ONCE = {"cuda": 16_384, "cpu": 2_048}
# Rows of logits that exist at once, at most: a vocabulary of 150,000 then needs 150 MB in bf16, however long the batch.
LOGIT_ROWS = 512
# On a CPU so many bytes of them, but LEAST_LOGITS rows: glibc gets blocks of 32 MiB and more from the system each time,
# page by page, and smaller ones stay in the cache. A step's loss over 275 labels took 0.12 s instead of 0.14.
LOGIT_BYTES, LEAST_LOGITS = 16 * 2**20, 64
# A pass of its own costs about as much as this share of the tokens that one may have: 51 on a CPU, 409 on CUDA.
PASS_COST, LEAST_COST = 1 / 40, 16


@dataclass(frozen=True)
class Example:
    """One row: token ids and, for each, its label or IGNORE."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def trained(self) -> int:
        # The first token has nothing before it to be predicted from.
        return sum(label != IGNORE for label in self.labels[1:])

    @property
    def predicting(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tokens before the last label, which are all that the loss depends on, and the label after each."""
        last = max((i for i, label in enumerate(self.labels) if label != IGNORE and i), default=1)
        return self.ids[:last], self.labels[1 : last + 1]


@dataclass(frozen=True)
class Report:
    """What became of the rows; shown before the run and kept with it.

    `cut_rows` and the like are the first of those rows, by their numbers in the data.
    """

    rows: int = 0
    kept: int = 0
    cut: int = 0
    nothing_trained: int = 0
    unreadable: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    mask_rule: str = "none"
    problems: tuple[str, ...] = ()
    cut_rows: tuple[int, ...] = ()
    nothing_trained_rows: tuple[int, ...] = ()
    unreadable_rows: tuple[int, ...] = ()

    def sentence(self) -> str:
        share = self.trained_tokens / self.tokens if self.tokens else 0
        text = f"{self.kept:,} of {self.rows:,} rows, {self.tokens:,} tokens, "
        text += f"{self.trained_tokens:,} trained ({share:.0%})"
        for number, rows, what in (
            (self.cut, self.cut_rows, "cut to the longest length"),
            (self.nothing_trained, self.nothing_trained_rows, "left out because nothing in them is trained"),
            (self.unreadable, self.unreadable_rows, "left out because they cannot be rendered"),
        ):
            text += f"; {number:,} {what}{_which(rows, number)}" if number else ""
        return text


@dataclass(frozen=True)
class Examples:
    train: list[Example]
    held_out: list[Example]
    report: Report = field(default_factory=Report)


@dataclass(frozen=True)
class Batch:
    """One step: the prefix all its rows share and nothing trains on (may be empty), and the rest of each row."""

    prefix: tuple[int, ...]
    rows: tuple[Example, ...]

    @property
    def tokens(self) -> int:
        """Tokens of the whole rows, prefix included for each: what a plain forward would run, without padding."""
        return sum(len(self.prefix) + len(row.ids) for row in self.rows)

    @property
    def padded(self) -> int:
        """Tokens that one forward pass runs: the prefix once, and the rows as long as the longest of them."""
        return len(self.prefix) + len(self.rows) * max((len(row.ids) for row in self.rows), default=0)

    @property
    def laid(self) -> int:
        """The prefix once, and the rows: the tokens of a forward pass of rows laid end to end, give or take a few.

        It leaves out what stands after a row's last label, and fills up (`rows.EVEN`).
        """
        return len(self.prefix) + sum(len(row.ids) for row in self.rows)

    @property
    def trained(self) -> int:
        return sum(row.trained for row in self.rows)


def example(ids: Iterable[int], mask: Iterable[bool], max_length: int) -> Example:
    ids, mask = tuple(ids)[:max_length], tuple(mask)[:max_length]
    return Example(ids, tuple(token if trained else IGNORE for token, trained in zip(ids, mask, strict=True)))


def prepare(config: TrainConfig, conversations: list, template, tokenizer, data=None) -> Examples:
    """Render, label, cut, drop and split the rows of a run.

    `data`: the data set of the conversations (datasets.Dataset), which knows their rows' numbers and what was wrong
    with the rows that its reader left out. Raises PlaygroundError when no row is left to train on, saying why.
    """
    from playground.core.templates import render

    chosen = list(enumerate(conversations))
    if config.rows and config.rows < len(conversations):
        picks = sorted(random.Random(config.seed).sample(range(len(conversations)), config.rows))
        chosen = [(i, conversations[i]) for i in picks]
    numbers = data.numbers if data and data.numbers else range(1, len(conversations) + 1)
    problems, left_out = (list(data.problems), data.bad) if data else ([], 0)
    faulty = dict.fromkeys(one.row for one in problems if getattr(one, "row", None) is not None)
    kept, rules, cut, late, needs, silent, broken = [], set(), [], [], [], [], []
    for at, conversation in chosen:
        number = numbers[at]
        try:
            rendered = render(template, conversation, tokenizer)
        except PlaygroundError as error:
            problems.append(f"row {number:,}: {error}")
            broken.append(number)
            continue
        rules.add(rendered.mask_rule)
        mask = rendered.mask or [False] * len(rendered.ids)
        row = example(rendered.ids, mask, config.max_length)
        if len(rendered.ids) > config.max_length:
            cut.append(number)
        if row.trained:
            kept.append(row)
        elif any(mask[1:]):
            late.append(number)
            needs.append(mask.index(True, 1) + 1)  # the length at which something of it would be trained
        else:
            silent.append(number)
    report = Report(
        rows=len(chosen) + left_out,
        kept=len(kept),
        cut=len(cut),
        nothing_trained=len(late) + len(silent),
        unreadable=left_out + len(broken),
        tokens=sum(len(row.ids) for row in kept),
        trained_tokens=sum(row.trained for row in kept),
        mask_rule="generation" if rules == {"generation"} else "prefix" if "prefix" in rules else "none",
        problems=tuple(problems[:NAMED]),
        cut_rows=tuple(cut[:NAMED]),
        nothing_trained_rows=tuple(sorted([*late, *silent])[:NAMED]),
        unreadable_rows=tuple([*faulty, *broken][:NAMED]),
    )
    if not kept:
        raise PlaygroundError(_nothing_left(report, config, template, late, silent, min(needs, default=0)))
    train, held_out = split(kept, config)
    return Examples(train, held_out, report)


def _nothing_left(report: Report, config: TrainConfig, template, late: list, silent: list, needed: int) -> str:
    """Why; `late`: rows whose trained tokens are all cut off, of which the first to have one has `needed` tokens."""
    if not report.rows:
        return f"the data {config.data!r} has no rows; give a file with at least one conversation"
    why = []
    if report.unreadable:
        why.append(f"{report.unreadable:,} cannot be read or rendered (first: {report.problems[0]})")
    if report.nothing_trained and report.mask_rule == "none":
        why.append(
            f"the template {template.name!r} does not say which tokens the assistant wrote; "
            "use one with {% generation %} marks"
        )
        late = silent = []
    if late:
        why.append(
            f"{len(late):,} have no assistant tokens within max_length {config.max_length:,}"
            f"{_which(late, len(late))}; the first of them has one with a max_length of {needed:,}"
        )
    if silent:
        why.append(f"{len(silent):,} have no assistant turn{_which(silent, len(silent))}; give them one")
    return f"nothing to train on: none of the {report.rows:,} rows is left; {'; '.join(why)}"


def _which(rows: Sequence[int], count: int) -> str:
    """As in: " (rows 2, 5, 9 and 31 more)"; rows that are not known by number are not named."""
    if not rows:
        return ""
    said = ", ".join(f"{number:,}" for number in rows[:SAID])
    more = count - len(rows[:SAID])
    return f" ({'row' if count == 1 else 'rows'} {said}{f' and {more:,} more' if more else ''})"


def split(rows: list[Example], config: TrainConfig) -> tuple[list[Example], list[Example]]:
    """Training and held-out rows, by the seed; at least one of each, unless eval_share is 0 or there is one row."""
    order = list(range(len(rows)))
    random.Random(f"split {config.seed}").shuffle(order)
    held = (
        min(max(1, round(config.eval_share * len(rows))), config.eval_rows, len(rows) - 1) if config.eval_share else 0
    )
    return [rows[i] for i in order[held:]], [rows[i] for i in order[:held]]


def total_steps(config: TrainConfig, train_rows: int) -> int:
    return config.steps or max(1, math.ceil(config.epochs * math.ceil(train_rows / config.batch_size)))


def check_batch(config: TrainConfig, examples: Examples) -> None:
    rows, held = len(examples.train), len(examples.held_out)
    if config.batch_size > rows:
        beside = f" beside {held:,} that eval_share {config.eval_share:g} holds out" if held else ""
        there = "is 1 row" if rows == 1 else f"are {rows:,} rows"
        raise PlaygroundError(
            f"batch_size is {config.batch_size:,}, and there {there} to train on{beside}; "
            f"set batch_size to {rows:,}{' or less' if rows > 1 else ''}, or add rows"
        )


def batches_of_epoch(rows: list[Example], config: TrainConfig, epoch: int) -> list[Batch]:
    """All rows once, in an order that depends only on the seed and the epoch: that is what a resumed run counts on.

    Each batch has rows of all lengths, as nearly as can be in the shares of the whole: the rows in the order of their
    lengths are cut into as many parts as a batch has rows, and each part gives it one. So steps are much alike, in what
    they teach and in how long they take. With steps of nothing but short chit-chat, these undid what the tool rows
    before them had taught (105 of 120 exact calls after 121 steps, and 109 after 80 mixed ones). `parts` keeps the
    padding small.
    """
    shuffle = random.Random(f"epoch {config.seed} {epoch}")
    order = list(range(len(rows)))
    shuffle.shuffle(order)
    order.sort(key=lambda i: len(rows[i].ids))
    count = math.ceil(len(order) / config.batch_size)
    lengths = [order[at : at + count] for at in range(0, len(order), count)]
    for alike in lengths:
        shuffle.shuffle(alike)
    made = [[alike[i] for alike in lengths if i < len(alike)] for i in range(count)]
    shuffle.shuffle(made)
    return [batch([rows[i] for i in one]) for one in made]


def batch(rows: list[Example], share: bool = True) -> Batch:
    """Split off the longest prefix that all rows share and that trains nothing, when it is worth a pass of its own."""
    length = shared_prefix(rows) if share and len(rows) > 1 else 0
    if length < MIN_PREFIX:
        return Batch((), tuple(rows))
    rest = tuple(Example(row.ids[length:], row.labels[length:]) for row in rows)
    return Batch(rows[0].ids[:length], rest)


def held_batches(examples: Examples, config: TrainConfig, room: int) -> list[Batch]:
    """The held-out rows as an evaluation runs them: sorted, so that padding stays small, in pieces like a step's."""
    held, size = sorted(examples.held_out, key=lambda row: len(row.ids)), config.batch_size
    return [piece for i in range(0, len(held), size) for piece in parts(batch(held[i : i + size]), room)]


def parts(whole: Batch, tokens: int) -> list[Batch]:
    """The batch in pieces of at most `tokens` padded tokens (or one row), which bounds the memory of a step.

    Rows of like length go together, so that little is computed for padding: of all ways to cut the rows in the order
    of their lengths it is the one with the fewest padded tokens, a pass of its own counted as some more. The pieces'
    gradients add up to those of the batch.
    """
    cost = max(tokens * PASS_COST, LEAST_COST)
    rows = sorted(whole.rows, key=lambda row: len(row.ids))
    best = [(0, 0)]  # for the first n rows: their cost, and where their last piece begins
    for end in range(1, len(rows) + 1):
        longest, ways = len(rows[end - 1].ids), []
        for start in range(end - 1, -1, -1):
            padded = (end - start) * longest
            if padded > tokens and start < end - 1:
                break
            ways.append((best[start][0] + padded + cost, start))
        best.append(min(ways))
    pieces, end = [], len(rows)
    while end:
        start = best[end][1]
        pieces.append(Batch(whole.prefix, tuple(rows[start:end])))
        end = start
    return pieces[::-1]


def passes(pieces: list[Batch], tokens: int) -> list[list[Batch]]:
    """The pieces that go through the model together where rows are laid end to end: at most `tokens` in their rows."""
    found, held = [], 0
    for piece in pieces:
        own = piece.laid - len(piece.prefix)
        if not found or held + own > tokens:
            found.append([])
            held = 0
        found[-1].append(piece)
        held += own
    return found


def shares(whole: Batch, count: int, tokens: int) -> list[list[Batch]]:
    """The batch dealt to `count` processes, in pieces as above; one that gets no row has no piece.

    The longest rows are dealt first, so that all have about as much to do.
    """
    rows = sorted(whole.rows, key=lambda row: -len(row.ids))
    dealt = [Batch(whole.prefix, tuple(rows[i::count])) for i in range(count)]
    return [parts(one, tokens) if one.rows else [] for one in dealt]


def logit_rows(labels: int, vocabulary: int, wide: int, device: str) -> int:
    """How many rows of logits of so many `labels` exist at once, about as many each time; `wide`: bytes of a number."""
    most = LOGIT_ROWS
    if device == "cpu":
        most = min(most, max(LEAST_LOGITS, LOGIT_BYTES // (vocabulary * wide)))
    times = max(1, math.ceil(labels / most))
    return max(1, math.ceil(labels / times))


def unshared(whole: Batch) -> Batch:
    """The same rows, each with its prefix in it."""
    if not whole.prefix:
        return whole
    before = tuple([IGNORE] * len(whole.prefix))
    return Batch((), tuple(Example(whole.prefix + row.ids, before + row.labels) for row in whole.rows))


def shared_prefix(rows: list[Example]) -> int:
    """Length of the longest common start without a label, leaving each row an unlabelled token to begin with.

    That first token is needed because the loss predicts each label from the position before it.
    """
    length = min(common_start([row.ids for row in rows]), min(len(row.ids) for row in rows) - 1)
    first_labels = (next((i for i, label in enumerate(row.labels) if label != IGNORE), length + 1) for row in rows)
    return max(0, min(length, min(first_labels) - 1))


def common_start(rows: list) -> int:
    """How many ids all rows (sequences of ids) have in common from their start."""
    length, limit = 0, min(map(len, rows))
    while length < limit and all(row[length] == rows[0][length] for row in rows[1:]):
        length += 1
    return length


def data_hash(conversations: list) -> str:
    """SHA-256 of the conversations, so that a run can say whether its data changed."""
    digest = hashlib.sha256()
    for conversation in conversations:
        digest.update(json.dumps(asdict(conversation), sort_keys=True, ensure_ascii=False, default=str).encode())
    return digest.hexdigest()
