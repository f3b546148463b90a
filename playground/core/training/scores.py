"""What a recipe is judged by: greedy answers to questions the training has not seen, counted by `formats`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from playground.core import scoring, synthesis, templates
from playground.core.adapters import AdapterBank
from playground.core.answers import greedy
from playground.core.cores import fixed
from playground.core.messages import Conversation, from_row
from playground.core.tool_formats import for_template
from playground.core.training import formats
from playground.core.training.answer import before, stops
from playground.errors import PlaygroundError

ROWS = 120  # of those scores whose questions are generated
# score → the longest answer, in tokens; the longest exact calls have 78
LONGEST = {
    "exact_calls": 88, "json_calls": 112, "reasoning_format": 160, "react_format": 112, "persona": 64,
    "short_answers": 48,
}  # fmt: skip


@dataclass(frozen=True)
class Lane:
    """Who is asked: a model with the adapters loaded on it, and which of them (None: the bare model).

    `unit` and `tell` are those of `core.answers.greedy`.
    """

    bank: AdapterBank
    adapter: str | None
    tokenizer: object
    unit: Callable = fixed
    tell: Callable[[int, int], None] = lambda done, of: None


@dataclass(frozen=True)
class Answer:
    """`ended`: it was over, rather than cut where its tokens ran out."""

    text: str
    ended: bool


def questions(rows: list[dict]) -> Iterator[tuple[Conversation, list[dict]]]:
    """Each row as the conversation up to its last question, and the calls that are due there (none for talk)."""
    for row in rows:
        conversation = from_row(row)
        messages = conversation.messages
        last = max(i for i, message in enumerate(messages) if message["role"] == "user")
        due = [call["function"] for call in messages[last + 1].get("tool_calls") or []]
        yield Conversation(messages[: last + 1], conversation.tools, conversation.variables), due


def score(lane: Lane, template, recipe, rows: int = ROWS) -> scoring.Score:
    """The recipe's score on questions of its own, or on generated ones of the split that is for testing only."""
    name = recipe.score
    if name == "exact_calls":
        return exact_calls(lane, template, synthesis.tool_calls(rows, 0, "test"))
    asked, judge, kinds = _asked(recipe, rows)
    answers = answer_all(lane, template, asked, LONGEST[name])
    outcomes = [judge(i, answer) for i, answer in enumerate(answers)]
    return scoring.score(outcomes, kinds)


def _asked(recipe, rows: int) -> tuple[list[Conversation], Callable[[int, Answer], str], Sequence[str]]:
    """The questions, what is said of answer i, and what was due."""
    if recipe.score == "json_calls":
        from playground.core import tools

        pairs, schemas = formats.json_calls(rows, 0, "test"), tools.schemas()
        due = [
            [{"name": c.name, "arguments": c.arguments} for c in formats.read_json_calls(p["output"])] for p in pairs
        ]

        def judge(i, answer):
            return scoring.outcome(due[i], formats.read_json_calls(answer.text), schemas)

        return [_question(p["instruction"]) for p in pairs], judge, [scoring.kind(calls) for calls in due]
    if recipe.score == "react_format":
        asked = [asked for asked, _ in questions(synthesis.tool_calls(rows, 0, "test"))]
        return asked, lambda i, answer: _form(formats.is_react(answer.text)), ()
    asked = [_question(text) for text in recipe.questions]
    if not asked:
        raise PlaygroundError(f"the recipe {recipe.name!r} is scored by {recipe.score} and has no questions")
    if recipe.score == "persona":
        return asked, lambda i, answer: _form(formats.in_persona(answer.text, recipe.marks)), ()
    if recipe.score == "short_answers":
        return asked, lambda i, answer: _form(answer.ended and formats.is_short(answer.text)), ()
    return asked, lambda i, answer: _form(formats.thinks_first(answer.text)), ()


def _question(text: str) -> Conversation:
    return Conversation([{"role": "user", "content": text}], [])


def _form(holds: bool) -> str:
    return "exact" if holds else "malformed"


def answer_all(lane: Lane, template, asked: list[Conversation], max_new_tokens: int) -> list[Answer]:
    """Greedy answers, in the order of the questions."""
    stop_ids, stop_strings = stops(template, lane.tokenizer)
    ids = [templates.render(template, one, lane.tokenizer, add_generation_prompt=True).ids for one in asked]
    answers = []
    for written in greedy(lane.bank, lane.adapter, ids, max_new_tokens, stop_ids, lane.unit, lane.tell):
        whole = lane.tokenizer.decode(written)
        text = before(stop_strings, whole)
        answers.append(Answer(text, len(written) < max_new_tokens or text != whole))
    return answers


def exact_calls(lane: Lane, template, rows: list[dict]) -> scoring.Score:
    """Ask the lane every row's question, greedily, and count the replies that make exactly the calls that are due."""
    format = for_template(template, lane.tokenizer)
    if format is None:
        raise PlaygroundError(f"the template {template.name!r} writes no tool calls, so none can be counted")
    asked = list(questions(rows))
    conversations = [conversation for conversation, _ in asked]
    replies = answer_all(lane, template, conversations, LONGEST["exact_calls"])
    outcomes = [
        scoring.outcome(due, format.parse(reply.text).calls, conversation.tools)
        for reply, (conversation, due) in zip(replies, asked, strict=True)
    ]
    return scoring.score(outcomes, [scoring.kind(due) for _, due in asked])


def summary(name: str, result: scoring.Score) -> str:
    """As in: 22/24 (92 %, 95 % interval 74 to 98 %)."""
    text = result.summary()
    return text if name.endswith("calls") else text.replace(" exact ", " ")


def as_dict(name: str, untuned: scoring.Score, tuned: scoring.Score, seconds: float) -> dict:
    """The "scores" event: both rates, and of the tuned model what became of the answers."""
    return {
        "score": name,
        "what": formats.SCORES[name],
        "rows": tuned.total,
        "untuned": untuned.rate,
        "tuned": tuned.rate,
        "interval": tuned.interval,
        "outcomes": tuned.outcomes,
        "kinds": tuned.kinds,
        "summary": f"untuned {summary(name, untuned)}, tuned {summary(name, tuned)}",
        "seconds": seconds,
    }
