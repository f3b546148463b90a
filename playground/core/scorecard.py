"""Does a model call the right tools? A verdict on each reply, and tables of verdicts.

    said = verdict(question, reply_text, hermes)  # said.word is a key of WORDS
    table(card), by_kind(card), compare(before, 0, after, 0)

The words are those of the Berkeley Function Calling Leaderboard's error types. A question of the leaderboard is judged
by its rules (playground.core.bfcl), any other by playground.core.scoring.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from types import ModuleType

from playground.core import bfcl, scoring
from playground.core import tools as toolbox
from playground.core.messages import Conversation
from playground.core.question_sets import Question, printable
from playground.core.tool_formats.values import Call, Fault
from playground.errors import PlaygroundError

VALID, FAILED = "valid", "failed"
# Word → what it means, in the order of a table.
WORDS = {VALID: scoring.OUTCOMES["exact"], **{w: m for w, m in scoring.OUTCOMES.items() if w != "exact"}}
TITLES = {"unwanted_call": "call where none was due", FAILED: "not answered"}


def title(word: str) -> str:
    """A word as it is shown."""
    return TITLES.get(word, word.replace("_", " "))


# --- asking and judging ---


def conversation(question: Question, announce: ModuleType | None = None) -> Conversation:
    """What is asked; `announce` as in `told`."""
    asked = Conversation(question.messages, question.tools)
    return asked if announce is None else told(asked, announce)


def told(conversation: Conversation, format: ModuleType) -> Conversation:
    """The conversation for a template that does not speak `format`: tools, calls and results as the format's text."""
    messages = []
    for message in conversation.messages:
        content = message.get("content") or ""
        if message.get("tool_calls"):
            calls = [Call(c["function"]["name"], c["function"]["arguments"]) for c in message["tool_calls"]]
            content = "\n".join(part for part in (content, format.write(calls)) if part)
        elif message["role"] == "tool":
            content = format.write_result(message.get("name", ""), content)
        role = "user" if message["role"] == "tool" else message["role"]
        if messages and messages[-1]["role"] == role == "user":
            messages[-1]["content"] += "\n" + content
        else:
            messages.append({"role": role, "content": content})
    system = format.announce(conversation.tools)
    if messages[0]["role"] == "system":
        system = messages.pop(0)["content"] + "\n\n" + system
    return Conversation([{"role": "system", "content": system}, *messages])


@dataclass(frozen=True)
class Verdict:
    word: str  # a key of WORDS
    detail: str  # one sentence; "" when valid
    calls: tuple[Call | Fault, ...]


def verdict(question: Question, reply_text: str, format: ModuleType) -> Verdict:
    """What a whole reply, markers and all, is worth."""
    calls = format.parse(reply_text, tools=question.tools).calls
    if question.bfcl is None:
        word = scoring.outcome(question.expected, calls, question.tools)
    else:
        try:
            word = bfcl.outcome(question.bfcl, calls, question.expected)
        except (KeyError, TypeError, AttributeError, StopIteration) as error:
            raise PlaygroundError(f"the possible answers of {question.id} cannot be used: {error!r}") from None
    word = VALID if word == "exact" else word
    return Verdict(word, printable(_detail(word, question, calls)), calls)


def _detail(word: str, question: Question, calls: Sequence[Call | Fault]) -> str:
    due = len(question.expected)
    match word:
        case "valid":
            return ""
        case "no_call":
            return f"{due} call{'s were' if due > 1 else ' was'} due, none was made."
        case "unwanted_call":
            return f"No call was due, {calls[0].name or 'one'} was called."
        case "malformed":
            return next(call.reason for call in calls if isinstance(call, Fault))
        case "wrong_count":
            return f"{due} call{'s were' if due > 1 else ' was'} due, {len(calls)} made."
    if question.bfcl is not None:
        written = [{call.name: call.arguments} for call in calls]
        errors = bfcl.check(question.bfcl["function"], written, question.expected, question.id).errors
        return " ".join(map(str, errors))
    faults = (toolbox.check(call, question.tools) for call in calls)
    fault = next((fault for fault in faults if fault), None)
    return (
        fault.reason
        if fault
        else f"Due: {_calls_text(question.expected)}. Written: {_calls_text(written_calls(calls))}."
    )


def _calls_text(calls: Sequence[dict]) -> str:
    return ", ".join(f"{c['name']} {json.dumps(c['arguments'], ensure_ascii=False)}" for c in calls)


def written_calls(calls: Sequence[Call | Fault]) -> list[dict]:
    """Parsed calls as JSON: {"name", "arguments"}, or {"fault", "reason", "raw"} where one could not be read."""
    found = [
        {"name": call.name, "arguments": call.arguments}
        if isinstance(call, Call)
        else {"fault": call.kind, "reason": call.reason, "raw": call.raw}
        for call in calls
    ]
    return printable(found)


# --- the card ---


@dataclass(frozen=True)
class Column:
    """One lane in one format: what is compared."""

    title: str
    model: str
    adapter: str | None
    template: str
    format: str
    template_hash: str = ""
    mode: str = "free"  # or a mode of constrained decoding


@dataclass(frozen=True)
class Row:
    """One reply and its verdict; `word` is FAILED where there is no reply to judge."""

    column: int
    question: int  # place among the card's questions
    word: str
    detail: str
    raw: str = ""
    calls: tuple[dict, ...] = ()
    ended: str = ""  # why the reply ended: "stop", "length", "error"
    tokens: int = 0


@dataclass(frozen=True)
class Card:
    """A scorecard, running or stored. `state`: running, done, cancelled, failed, or unfinished (its app was ended)."""

    id: str
    name: str
    created: float  # seconds since 1970
    columns: tuple[Column, ...]
    questions: tuple[Question, ...]
    rows: tuple[Row, ...] = ()
    state: str = "running"
    error: str = ""
    seconds: float = 0.0

    @property
    def total(self) -> int:
        return len(self.columns) * len(self.questions)

    def of(self, column: int) -> list[Row]:
        return [row for row in self.rows if row.column == column]


def to_json(card: Card) -> dict:
    return {"version": 1, **asdict(card)}


def from_json(value: dict) -> Card:
    """Raises PlaygroundError for what is no scorecard."""
    try:
        value = dict(value)
        if value.pop("version") != 1:
            raise PlaygroundError("this scorecard was written by a newer app; update this one to read it")
        parts = {"columns": Column, "questions": Question, "rows": Row}
        card = Card(**{k: tuple(parts[k](**one) for one in v) if k in parts else v for k, v in value.items()})
        card = replace(card, rows=tuple(replace(row, calls=tuple(row.calls)) for row in card.rows))
        if any(row.column >= len(card.columns) or row.question >= len(card.questions) for row in card.rows):
            raise PlaygroundError("this scorecard's rows name a question or a lane that it does not have")
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise PlaygroundError(f"this is no scorecard: {error}") from None
    return card


@dataclass(frozen=True)
class Cell:
    """How often a word was given, of how many judged replies, with the 95 % Wilson interval of its rate."""

    count: int
    total: int

    @property
    def rate(self) -> float:
        return self.count / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        return scoring.wilson(self.count, self.total)

    def to_json(self) -> dict:
        return {"count": self.count, "rate": round(self.rate, 4), "interval": [round(x, 4) for x in self.interval]}


def cells(rows: Sequence[Row]) -> dict[str, Cell]:
    """One for each of WORDS; replies that failed are not among those judged."""
    words = [row.word for row in rows if row.word != FAILED]
    return {word: Cell(words.count(word), len(words)) for word in WORDS}


def table(card: Card) -> list[dict[str, Cell]]:
    """The cells of each column."""
    return [cells(card.of(number)) for number in range(len(card.columns))]


def by_kind(card: Card) -> dict[str, list[dict[str, Cell]]]:
    """The same for each kind of question."""
    kinds = dict.fromkeys(question.kind for question in card.questions)
    return {
        kind: [
            cells([row for row in card.of(number) if card.questions[row.question].kind == kind])
            for number in range(len(card.columns))
        ]
        for kind in kinds
    }


def summary(card: Card) -> dict:
    """The card in numbers, for programs."""
    kinds = by_kind(card)
    lanes = []
    for number, (column, found) in enumerate(zip(card.columns, table(card), strict=True)):
        numbers = _numbers(found)
        numbers["failed"] = sum(row.word == FAILED for row in card.of(number))
        lanes.append({
            "lane": column.title, **{k: v for k, v in asdict(column).items() if k != "title"}, **numbers,
            "kinds": {kind: _numbers(columns[number]) for kind, columns in kinds.items()},
        })  # fmt: skip
    about = {"scorecard": card.id, "name": card.name, "state": card.state, "questions": len(card.questions)}
    return {**about, "seconds": round(card.seconds, 1), "lanes": lanes}


def _numbers(found: dict[str, Cell]) -> dict:
    valid = found[VALID].to_json()
    return {
        "total": found[VALID].total,
        "valid": valid["count"],
        "rate": valid["rate"],
        "interval": valid["interval"],
        "outcomes": {word: cell.to_json() for word, cell in found.items()},
    }


# --- before and after ---


@dataclass(frozen=True)
class Comparison:
    """Two columns on the questions that both answered."""

    questions: list[Question]
    before: list[Row]
    after: list[Row]

    @property
    def words(self) -> dict[str, tuple[Cell, Cell]]:
        old, new = cells(self.before), cells(self.after)
        return {word: (old[word], new[word]) for word in WORDS}

    @property
    def changed(self) -> list[int]:
        """Places of the rows whose verdict changed."""
        return [i for i, (a, b) in enumerate(zip(self.before, self.after, strict=True)) if a.word != b.word]

    @property
    def gained(self) -> int:
        return sum(a.word != VALID == b.word for a, b in zip(self.before, self.after, strict=True))

    @property
    def lost(self) -> int:
        return sum(a.word == VALID != b.word for a, b in zip(self.before, self.after, strict=True))

    @property
    def p_value(self) -> float:
        """Exact McNemar test: how likely so uneven a change is if both are equally good."""
        return sign_test(self.gained, self.lost)


def compare(before: Card, column: int, after: Card, other: int) -> Comparison:
    """One column of a card against one of the same or another card."""
    old = {before.questions[row.question].key: row for row in before.of(column) if row.word != FAILED}
    new = {after.questions[row.question].key: row for row in after.of(other) if row.word != FAILED}
    known = {question.key: question for question in after.questions}
    both = [key for key in known if key in old and key in new]
    return Comparison([known[key] for key in both], [old[key] for key in both], [new[key] for key in both])


def sign_test(a: int, b: int) -> float:
    """Two-sided: the chance of a split at least as uneven as `a` to `b` in tosses of a fair coin."""
    n, low = a + b, min(a, b)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(low + 1)) / 2**n)
