"""What goes wrong between a template, a tokenizer and a row, before anything is trained on it.

`lint` looks at one row, `lint_rows` at a data set, `lint_template` at a template alone. Each finding says what is the
matter, why it matters, and which characters and tokens it is about; the rules are in `lint_checks`.
"""

from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass

from playground.core.lint_case import Habits, habits, read
from playground.core.lint_checks import CHECKS, ERROR, RULES, SEVERITIES, Finding, sentence, stop_list
from playground.core.messages import Conversation
from playground.core.progress import Clock, Progress
from playground.core.templates import Abilities, Template, abilities
from playground.core.tokenizer import Tokenizer
from playground.errors import PlaygroundError

CHUNK = 64  # rows between two signs of progress
ROWS_KEPT = 100  # row numbers kept for each rule


@dataclass(frozen=True)
class Tally:
    """How often a rule was broken in a data set. Rows are numbered from 1."""

    rule: str
    severity: str
    count: int  # rows
    rows: list[int]  # the first of them
    example: Finding  # of the first row

    @property
    def why(self) -> str:
        return RULES[self.rule]


def lint(
    template: Template,
    conversation: Conversation,
    tokenizer: Tokenizer | None = None,
    max_length: int | None = None,
    stops: Iterable[str] | None = None,
    known: Habits | None = None,
) -> list[Finding]:
    """The findings of one row, the gravest first.

    `max_length` is where training cuts, `stops` a server's stop list beside EOS (None: what this app finds itself).
    `known` saves finding out the template's habits again.
    """
    try:
        case = read(template, conversation, tokenizer, max_length, known)
    except PlaygroundError as error:
        return [Finding("refused", ERROR, sentence(str(error)))]
    found = [finding for rule in CHECKS for finding in rule(case)]
    found += stop_list(case, stops)
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def lint_template(template: Template, tokenizer: Tokenizer | None = None) -> list[Finding]:
    """The findings of a plain two-turn conversation: what is wrong whatever the row."""
    turns = ("What is the capital of France?", "Paris is the capital.", "And of Japan?", "Tokyo is.")
    messages = [{"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(turns)]
    return lint(template, Conversation(messages), tokenizer)


def lint_rows(
    template: Template,
    conversations: Iterable[Conversation],
    tokenizer: Tokenizer | None = None,
    max_length: int | None = None,
    stops: Iterable[str] | None = None,
    cancel: Callable[[], bool] = lambda: False,
) -> Iterator[Progress]:
    """The same over a data set; each Progress has the tallies so far as its result, the gravest and commonest first."""
    clock = Clock(len(conversations) if isinstance(conversations, Sized) else None)
    tallies, number, stops = {}, 0, None if stops is None else list(stops)
    known = habits(template, tokenizer)
    for number, conversation in enumerate(conversations, 1):
        usual = known if not conversation.variables else None
        for finding in lint(template, conversation, tokenizer, max_length, stops, usual):
            tally = tallies.setdefault((finding.rule, finding.severity), [finding, []])
            if tally[1][-1:] != [number]:
                tally[1].append(number)
        if number % CHUNK == 0:
            yield clock.progress("checking", number, _tallied(tallies))
            if cancel():
                return
    yield clock.progress("done", number, _tallied(tallies))


def _tallied(tallies: dict) -> list[Tally]:
    found = [
        Tally(rule, severity, len(rows), rows[:ROWS_KEPT], example)
        for (rule, severity), (example, rows) in tallies.items()
    ]
    return sorted(found, key=lambda tally: (SEVERITIES.index(tally.severity), -tally.count))


# Badges ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Badge:
    name: str
    on: bool
    what: str


_BADGES = (
    ("system", "the system message is written", "the system message is refused or left out"),
    ("tools", "the tools on offer are written", "tools are ignored"),
    ("tool results", "tool results are written", "tool results are refused or left out"),
    ("reasoning", "the last turn's reasoning is written", "reasoning is left out"),
    ("multi-turn", "several turns are written", "only one turn is written"),
    ("masks", "what the assistant says can be told from the rest", "nothing says what the assistant wrote"),
)


def badges(template: Template, tokenizer: Tokenizer | None = None, known: Abilities | None = None) -> list[Badge]:
    """What the template can do, found by probing, as short labels with a sentence each."""
    known = known or abilities(template, tokenizer)
    return [
        Badge(name, on, yes if on else no)
        for name, yes, no in _BADGES
        for on in [getattr(known, name.replace(" ", "_").replace("-", "_"))]
    ]
