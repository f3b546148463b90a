"""A model as the judge of two replies: its prompt, its verdict in both orders, and how far it agrees with people.

The structure is that of MT-Bench's pairwise judge (Zheng et al. 2023, "Judging LLM-as-a-Judge with MT-Bench and
Chatbot Arena", arXiv:2306.05685, appendix A): a system prompt that asks for an explanation and a verdict [[A]], [[B]]
or [[C]] for a tie, then the question and both answers between marks. Every pair is judged twice with the answers
swapped, and a reply wins only when it is preferred both times; else it is a tie.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from playground.core.streaming import without_thinking

LEFT, RIGHT, TIE, BOTH_BAD = "left", "right", "tie", "both bad"
SYSTEM = (
    "Act as an impartial judge. Two AI assistants have answered the user's question shown below; decide which of them "
    "follows the user's instructions and answers the question better. Weigh how helpful, relevant, accurate, thorough, "
    "creative and detailed each answer is. First compare the two answers in a short explanation. The order in which "
    "the answers are shown, their length and the assistants' names must not sway you; be as objective as you can. "
    "After the explanation, give your final verdict in exactly this form: "
    '"[[A]]" if assistant A is better, "[[B]]" if assistant B is better, and "[[C]]" for a tie.'
)
QUESTION = "[User Question]\n{question}\n\n"
ANSWER = "[The Start of Assistant {name}'s Answer]\n{answer}\n[The End of Assistant {name}'s Answer]"
_VERDICT = re.compile(r"\[\[\s*([ABC])\s*\]\]")
_MARK = re.compile(r"\[(?=The (?:Start|End) of Assistant|User Question\]|\[\s*[ABC]\s*\]\])", re.IGNORECASE)


def messages(question: str, first: str, second: str) -> list[dict]:
    """What the judge is sent: `first` stands as assistant A, `second` as assistant B.

    Marks and verdicts inside a text lose their opening bracket, so that a reply can neither end its own part nor vote.
    """
    question, first, second = (_MARK.sub("(", text) for text in (question, first, second))
    answers = [ANSWER.format(name=name, answer=answer) for name, answer in (("A", first), ("B", second))]
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": QUESTION.format(question=question) + "\n\n".join(answers)},
    ]


def parts(battle: Mapping) -> tuple[str, str, str]:
    """(question, left answer, right answer) of a battle; what both sides were sent alike is the question.

    Where they were asked more than once, each answer is a conversation: its earlier replies and the user's next turns.
    """
    sent = [battle["left_messages"], battle["right_messages"]]
    shared = shared_turns(*sent)
    answers = []
    for side, messages in zip(("left", "right"), sent, strict=True):
        reply = {"role": "assistant", "content": battle[f"{side}_reply"]}
        turns = [*messages[shared:], reply]
        answers.append(question_of(turns) if len(turns) > 1 else reply["content"])
    return question_of(sent[0][:shared]), *answers


def shared_turns(left: Sequence[Mapping], right: Sequence[Mapping]) -> int:
    """With how many messages that are alike both begin."""
    pairs = zip(left, right, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def question_of(sent: Sequence[Mapping]) -> str:
    """The user's question; of several turns all of them, with the assistant's in between."""
    turns = [message for message in sent if message.get("role") in ("user", "assistant") and message.get("content")]
    if len(turns) == 1:
        return str(turns[0]["content"])
    return "\n\n".join(f"### {str(turn['role']).capitalize()}:\n{turn['content']}" for turn in turns)


def verdict(text: str) -> str | None:
    """ "A", "B" or "C" where the judge gave exactly one of them (it may repeat it); None otherwise.

    What it thought before it answered does not count: there it may weigh all of them.
    """
    found = set(_VERDICT.findall(without_thinking(text)))
    return found.pop() if len(found) == 1 else None


def combined(first: str, second: str) -> str:
    """The vote of both orders; in the second one the right reply stood as A."""
    as_shown = {"A": LEFT, "B": RIGHT, "C": TIE}[first]
    swapped = {"A": RIGHT, "B": LEFT, "C": TIE}[second]
    return as_shown if as_shown == swapped else TIE


@dataclass(frozen=True)
class Bias:
    """Of the pairs judged in both orders: how many got the same answer, and which place won where they did not."""

    pairs: int
    consistent: int
    first: int  # A in both orders: whoever stood first
    second: int
    mixed: int  # a tie in one order only

    def share(self, part: str) -> float:
        return getattr(self, part) / self.pairs if self.pairs else 0.0


def position_bias(verdicts: Iterable[tuple[str, str]]) -> Bias:
    """`verdicts`: (of the first order, of the swapped one). Zheng et al. 2023, table 2."""
    kinds = Counter(_kind(*both) for both in verdicts)
    return Bias(kinds.total(), kinds["consistent"], kinds["first"], kinds["second"], kinds["mixed"])


def _kind(first: str, second: str) -> str:
    if (first, second) in (("A", "B"), ("B", "A"), ("C", "C")):
        return "consistent"
    return {"AA": "first", "BB": "second"}.get(first + second, "mixed")


@dataclass(frozen=True)
class Agreement:
    """On battles that both people and the judge voted on. `kappa` is None where chance alone would agree always."""

    battles: int
    rate: float | None
    kappa: float | None
    decided: int  # battles in which both preferred a side
    decided_rate: float | None


def agreement(pairs: Iterable[tuple[str, str]]) -> Agreement:
    """`pairs`: (people's choice, judge's choice). "both bad" counts as a tie: the judge has no word for it.

    Kappa: Cohen 1960, (observed − expected) / (1 − expected).
    """
    both = [tuple(TIE if choice == BOTH_BAD else choice for choice in one) for one in pairs]
    decided = [one for one in both if TIE not in one]
    if not both:
        return Agreement(0, None, None, 0, None)
    count = len(both)
    observed = sum(a == b for a, b in both) / count
    people, judge = Counter(a for a, _ in both), Counter(b for _, b in both)
    expected = sum(people[choice] * judge[choice] for choice in people) / count**2
    kappa = (observed - expected) / (1 - expected) if expected < 1 else None
    decided_rate = sum(a == b for a, b in decided) / len(decided) if decided else None
    return Agreement(count, observed, kappa, len(decided), decided_rate)
