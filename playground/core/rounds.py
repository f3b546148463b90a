"""Rounds of rows → training → score → more rows where the model is weakest: what a round is made of.

    kit = Kit("tool-calling")                           # calculator, weather and talk; or a visitor's own schemas
    *_, step = make(kit, 600)                           # step.result: Made(rows, report)
    asked = held_out(kit, 40)                           # questions of the split that is for testing only
    weakest = weaknesses(card, column)[0]               # of a scorecard on `asked`
    *_, step = more(kit, weakest, 100, made.rows)       # rows of the kind that errs

Rows are for training only, questions for testing only: they share no phrase (see `synthesis` and `generator`), and
`make` leaves out whatever `held_out` asks.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from playground.core import phrases, question_sets, scorecard, synthesis
from playground.core.generator import proof, schemas, writer
from playground.core.generator.writer import Row
from playground.core.progress import Clock, Progress
from playground.core.question_sets import Question
from playground.core.scorecard import FAILED, VALID, WORDS, Card
from playground.core.tools import calculator, weather
from playground.errors import PlaygroundError

# Recipe → how a row is written: messages with tools, or a question and a JSON list of calls.
RECIPES = {"tool-calling": "messages", "json-calls": "pairs"}
FORMATS = {"tool-calling": "auto", "json-calls": "json"}  # how its calls are read
MAX_ROWS = 20_000
MAX_QUESTIONS = 500
LEAST, MOST = 250, 2000  # rows drawn at a time
FRUITLESS = 4  # batches without a new row, after which there are no more
MOST_ASPECTS = 3
ASK_BACK_SHARE = 0.3  # of the rows against an argument that was left out: a question that lacks it, asked back
_SEEDS = 1_000_003  # so that rounds and batches draw apart


@dataclass(frozen=True)
class Kit:
    """What is to be learned: a recipe, and tools (none: the demo's calculator and weather, in English)."""

    recipe: str = "tool-calling"
    tools: tuple[dict, ...] = ()
    languages: tuple[str, ...] = ("en",)

    def __post_init__(self):
        if self.recipe not in RECIPES:
            raise PlaygroundError(f"the recipe must be one of {', '.join(RECIPES)}, got {self.recipe!r}")

    @property
    def pairs(self) -> bool:
        return RECIPES[self.recipe] == "pairs"

    def specs(self) -> list[schemas.Spec]:
        return schemas.specs(self.tools)[0]


@dataclass(frozen=True)
class Report:
    """What the check of rows found. `left_out`: why rows were not kept, and how many for each reason."""

    rows: int
    kinds: dict[str, int]
    calls: int  # each fits its schema
    arguments: int  # each read again from its question
    left_out: dict[str, int] = field(default_factory=dict)

    def sentence(self) -> str:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.kinds.items())
        said = ["no question twice", "none that is asked in the test"]
        if self.calls:
            found = f"{self.arguments:,} arguments, each found again in its question"
            said = [f"{self.calls:,} calls, each fits its schema", found, *said]
        return f"{self.rows:,} rows ({kinds}): {'; '.join(said)}."


@dataclass(frozen=True)
class Made:
    rows: list[Row]
    report: Report


# --- rows ---


def make(kit: Kit, n: int, seed: int = 0, apart: Collection[str] = ()) -> Iterator[Progress]:
    """`n` rows to learn from, none of which asks one of `apart`; the last step's result is Made."""
    if not 1 <= n <= MAX_ROWS:
        raise PlaygroundError(f"rows must be between 1 and {MAX_ROWS:,}, got {n:,}")
    return _collect(kit, n, lambda batch, left: _drawn(kit, left, _seed(seed, batch)), set(apart))


def more(kit: Kit, weak: "Weakness", n: int, rows: Sequence[Row], seed: int = 1, apart=()) -> Iterator[Progress]:
    """Up to `n` rows like those that `weak` got wrong, none of them among `rows`. `seed`: another one each round.

    Raises PlaygroundError where the generator has none.
    """
    if not 1 <= n <= MAX_ROWS:
        raise PlaygroundError(f"rows to add must be between 1 and {MAX_ROWS:,}, got {n:,}")
    shares = {weak.kind: 1.0}
    if weak.word == "missing_required" and kit.tools and weak.kind != "ask back":
        shares = {weak.kind: 1 - ASK_BACK_SHARE, "ask back": ASK_BACK_SHARE}
    taken = {*apart, *(key(kit, row) for row in rows)}
    asked = weak.tools if shares.keys() <= {"one call", "several calls", "ask back", "answered"} else ()

    def draw(batch: int, left: int) -> list[Row]:
        # of the demo's rows a few in a hundred fit
        drawn = _drawn(kit, left if kit.tools else MOST, _seed(seed, batch), shares, asked)
        return [row for row in drawn if fits(weak, row)]

    return _collect(kit, n, draw, taken, all_of_them=False)


def held_out(kit: Kit, n: int, seed: int = 0) -> list[Question]:
    """Questions for testing: of the split that no training row is of."""
    if not 1 <= n <= MAX_QUESTIONS:
        raise PlaygroundError(f"held-out questions must be between 1 and {MAX_QUESTIONS}, got {n:,}")
    *_, last = _collect(kit, n, lambda batch, left: _drawn(kit, n, _seed(seed, batch), split=phrases.TEST), set())
    return [_question(kit, row, number) for number, row in enumerate(last.result.rows, 1)]


def _seed(seed: int, batch: int) -> int:
    return seed * _SEEDS + batch


def _collect(
    kit: Kit, n: int, draw: Callable[[int, int], list[Row]], taken: set[str], all_of_them: bool = True
) -> Iterator[Progress]:
    """Batches until there are `n` rows that pass the check."""
    clock, rows, left_out, arguments, calls, fruitless, batch = Clock(n), [], Counter(), 0, 0, 0, 0
    while len(rows) < n and fruitless < FRUITLESS:
        before = len(rows)
        for row in draw(batch, min(MOST, max(LEAST, n - before) if before else n)):
            if len(rows) == n:
                break
            if kit.pairs and row.kind == "answered":
                continue  # a pair has one question
            mark, reason = key(kit, row), fault(kit, row)
            if mark in taken:
                left_out["asked already"] += 1
            elif reason:
                left_out[reason] += 1
            else:
                taken.add(mark)
                rows.append(row)
                calls += len(row.calls)
                arguments += sum(len(call["arguments"]) for call in row.calls)
        batch += 1
        fruitless = fruitless + 1 if len(rows) == before else 0
        yield clock.progress("making rows", len(rows))
    if not rows or (all_of_them and len(rows) < n):
        found = f"only {len(rows):,} different rows" if rows else "no such rows"
        raise PlaygroundError(
            f"these tools give {found}, {n:,} were asked for; ask for fewer, or add languages or tools"
        )
    kinds = dict(sorted(Counter(row.kind for row in rows).items()))
    yield clock.progress("made", len(rows), Made(rows, Report(len(rows), kinds, calls, arguments, dict(left_out))))


def _drawn(kit: Kit, n: int, seed: int, shares=None, asked: Sequence[str] = (), split=phrases.TRAIN) -> list[Row]:
    if not kit.tools:
        return [_demo_row(row) for row in synthesis.tool_calls(n, seed, split)]
    try:
        return writer.rows(kit.specs(), n, seed, kit.languages, split, shares or writer.SHARES, asked).rows
    except writer.TooFew as error:
        return error.made.rows


def _demo_row(row: dict) -> Row:
    ((_, due),) = synthesis.questions([row])
    return Row(question_sets.kind(due), "en", row["messages"], row["tools"], due)


def key(kit: Kit, row: Row) -> str:
    """The same for rows that ask the same thing."""
    if kit.pairs:
        return _asked(row).casefold()
    return "\n".join(m["content"] for m in _until_answer(row) if m["role"] == "user").casefold()


def fault(kit: Kit, row: Row) -> str:
    """Why a row must not be learned from; "" where it is in order. The generators' own proof is not taken for it."""
    if not proof.fits(row.calls, row.tools):
        return "a call that does not fit its schema"
    if not kit.tools and not all(_stands(call, _asked(row), len(row.calls) == 1) for call in row.calls):
        return "an argument that is not in its question"
    return ""


def _stands(call: dict, question: str, alone: bool) -> bool:
    """Whether a demo tool's argument is in the question; `alone`: all of the question's numbers are its own."""
    if call["name"] == weather.NAME:
        return call["arguments"]["city"].casefold() in question.casefold()
    expression = call["arguments"]["expression"]
    used, given = set(synthesis.numbers(expression)), set(synthesis.numbers(question))
    return given <= used if alone else bool(given & used)


def _until_answer(row: Row) -> list[dict]:
    """The messages up to the last answer to a user: what is asked."""
    messages = row.messages
    at = max(i for i, m in enumerate(messages) if m["role"] == "assistant" and messages[i - 1]["role"] == "user")
    return messages[:at]


def _asked(row: Row) -> str:
    return _until_answer(row)[-1]["content"]


def line(kit: Kit, row: Row) -> dict:
    """A row of the data set that is trained on."""
    if not kit.pairs:
        return {"messages": row.messages, "tools": row.tools}
    return {"instruction": _prompt(kit, row), "output": json.dumps(row.calls, ensure_ascii=False)}


def _prompt(kit: Kit, row: Row) -> str:
    """A pair's question; of a visitor's own tools, with those on offer before it."""
    if not kit.tools:
        return _asked(row)
    offered = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in row.tools)
    return f"{offered}\n\n{_asked(row)}"


def _question(kit: Kit, row: Row, number: int) -> Question:
    messages = [{"role": "user", "content": _prompt(kit, row)}] if kit.pairs else _until_answer(row)
    return Question(str(number), row.kind, messages, row.tools, row.calls)


def question_key(kit: Kit, question: Question) -> str:
    """As `key`, of a held-out question."""
    texts = [message["content"] for message in question.messages if message["role"] == "user"]
    return (texts[-1].rpartition("\n\n")[2] if kit.pairs and kit.tools else "\n".join(texts)).casefold()


# --- the weakest error ---


@dataclass(frozen=True)
class Weakness:
    """One error word in one kind of question. `aspects`: what the questions that went wrong have in common."""

    word: str
    kind: str
    count: int
    asked: int
    tools: tuple[str, ...] = ()
    aspects: tuple[str, ...] = ()
    questions: tuple[int, ...] = ()  # places in the card

    def sentence(self) -> str:
        most = f", most often with {_or(self.aspects)}" if self.aspects else ""
        return (
            f"{scorecard.title(self.word).capitalize()} ({WORDS[self.word]}) in {self.count} of {self.asked} "
            f"questions of the kind “{self.kind}”{most}."
        )

    def remedy(self, kit: Kit) -> str:
        """The rows that are offered against it."""
        kinds = {"no tool": "that need no tool", "talk": "that need no tool", "ask back": "that lack a value"}
        about = kinds.get(
            self.kind, f"of the kind “{self.kind}”" + (f" with {_or(self.aspects)}" if self.aspects else "")
        )
        back = self.word == "missing_required" and kit.tools
        extra = "; some that lack the value, and are asked back" if back else ""
        return f"More questions {about}{extra}."


def _or(words: Sequence[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def weaknesses(card: Card, column: int) -> list[Weakness]:
    """What went wrong, the commonest first; replies that failed are no errors of the model."""
    rows = [row for row in card.of(column) if row.word != FAILED]
    kinds = Counter(card.questions[row.question].kind for row in rows)
    wrong: dict[tuple[str, str], list] = {}
    for row in rows:
        if row.word != VALID:
            wrong.setdefault((row.word, card.questions[row.question].kind), []).append(row)
    order = list(WORDS)
    found = [_weakness(card, word, kind, rows, kinds[kind]) for (word, kind), rows in wrong.items()]
    return sorted(found, key=lambda weak: (-weak.count, order.index(weak.word), weak.kind))


def _weakness(card: Card, word: str, kind: str, rows: Sequence, asked: int) -> Weakness:
    tools: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for row in rows:
        expected = card.questions[row.question].expected
        tools.update({call["name"] for call in expected})
        if word == "wrong_function":  # both are shown, so that the difference can be learned
            offered = {tool["function"]["name"] for tool in card.questions[row.question].tools}
            tools.update({name for call in row.calls if (name := call.get("name")) in offered})
        if len(expected) == 1 and word not in ("wrong_count", "wrong_function"):
            written = row.calls[0].get("arguments") if len(row.calls) == 1 else None
            seen.update(_aspects(expected[0], written))
    # what only one of several errors has is chance
    common = [name for name, count in seen.most_common(MOST_ASPECTS) if count >= max(1, len(rows) / 4)]
    questions = tuple(row.question for row in rows)
    return Weakness(
        word, kind, len(rows), asked, tuple(name for name, _ in tools.most_common()), tuple(common), questions
    )


def _aspects(call: dict, written: dict | None = None) -> set[str]:
    """What a call asks of the model: its parameters, or the kind of its expression; of those that were `written`
    otherwise alone, where that is known."""
    if call["name"] == calculator.NAME and isinstance(call["arguments"].get("expression"), str):
        return {operation(call["arguments"]["expression"])}
    given = call["arguments"]
    if isinstance(written, dict):
        given = {name for name in given.keys() | written.keys() if given.get(name) != written.get(name)}
    return {f"{call['name']}: {name}" for name in given}


def operation(expression: str) -> str:
    """The kind of an arithmetic expression, in a word."""
    operators = [sign for sign in expression.split() if sign in ("+", "-", "*", "/", "**")]
    if "/ 100 *" in expression:
        return "a percentage"
    if "sqrt" in expression:
        return "a square root"
    if "**" in operators:
        return "a power"
    if len(operators) > 1:
        return "two operators"
    names = {"+": "an addition", "-": "a subtraction", "*": "a multiplication", "/": "a division"}
    return names.get(operators[0], "a number") if operators else "a number"


def fits(weak: Weakness, row: Row) -> bool:
    """Whether a row teaches what went wrong."""
    if weak.word == "missing_required" and row.kind == "ask back":
        return True
    if row.kind != weak.kind:
        return False
    if weak.tools and row.calls and not {call["name"] for call in row.calls} <= set(weak.tools):
        return False
    if not weak.aspects or len(row.calls) != 1:
        return True
    if weak.word == "unexpected_parameter":  # the parameter is one that must not be there
        return True
    return bool(set(weak.aspects) & _aspects(row.calls[0]))


# --- what the next round trains on ---


def training_rows(old: Sequence[Row], added: Sequence[Row], afresh: bool) -> list[Row]:
    """All rows; or, to go on from an adapter, the added ones and as many old ones, lest those be unlearned."""
    if afresh or not added:
        return [*old, *added]
    step = max(1, len(old) // len(added))
    return [*old[::step][: len(added)], *added]
