"""Did the model make the right call? Counts with their uncertainty, from parsed replies; generation is done elsewhere.

A reply is exact when it makes the expected calls, the same number of them, each with the same name and the same
arguments; where none is due, when it makes none. Order does not count: calls of one turn run side by side.
Arguments are compared as JSON values (1 and 1.0 are equal, 1 and true and "1" are not), texts letter by letter, with
one exception: what the calculator reads as the same expression is the same ("23*47" is "(23 * 47)").
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from playground.core import tools
from playground.core.tool_formats.values import Call, Fault
from playground.core.tools import calculator

# Outcome → what it means. The words are those of the Berkeley Function Calling Leaderboard's error types.
OUTCOMES = {
    "exact": "the calls that were due, and no others",
    "no_call": "a call was due, none was made",
    "unwanted_call": "no call was due, one was made",
    "malformed": "a call could not be read, or was cut off",
    "wrong_count": "more or fewer calls than were due",
    "wrong_function": "another tool, or one that does not exist",
    "missing_required": "an argument is missing",
    "unexpected_parameter": "an argument that the tool does not have",
    "type_error": "an argument of the wrong type",
    "value_error": "right tool, wrong value",
}
# Arguments whose writing does not count, and what says that two texts are the same.
READ_ALIKE = {(calculator.NAME, "expression"): calculator.same}


def outcome(expected: Sequence[dict], got: Sequence[Call | Fault], schemas: Sequence[dict] = ()) -> str:
    """One word for a reply: `expected` calls as {"name", "arguments"}, `got` as a tool format parsed them.

    With `schemas`, a call that does not fit its schema is named by what is wrong with it.
    """
    if not expected:
        return "unwanted_call" if got else "exact"
    if not got:
        return "no_call"
    if any(isinstance(call, Fault) for call in got):
        return "malformed"
    if len(got) != len(expected):
        return "wrong_count"
    left = [(e["name"], e["arguments"]) for e in expected]
    unmatched = []
    for call in got:
        match = next((e for e in left if e[0] == call.name and equal(call.name, e[1], call.arguments)), None)
        if match is None:
            unmatched.append(call)
        else:
            left.remove(match)
    return _difference(unmatched[0], left, schemas) if unmatched else "exact"


def equal(tool: str, expected: dict, got: dict) -> bool:
    """Whether two sets of arguments are the same to the tool."""
    if expected.keys() != got.keys():
        return False
    for name, value in expected.items():
        other = got[name]
        alike = READ_ALIKE.get((tool, name)) if isinstance(value, str) and isinstance(other, str) else None
        if not (alike or _same)(value, other):
            return False
    return True


@dataclass(frozen=True)
class Score:
    """Counts over many replies. `kinds` splits the outcomes by what was due."""

    total: int
    exact: int
    outcomes: dict[str, int]
    kinds: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        return self.exact / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.exact, self.total)

    def summary(self) -> str:
        """As in: 112/120 exact (93 %, 95 % interval 87 to 97 %)."""
        low, high = (f"{100 * bound:.0f}" for bound in self.interval)
        return f"{self.exact}/{self.total} exact ({100 * self.rate:.0f} %, 95 % interval {low} to {high} %)"


def score(outcomes: Sequence[str], kinds: Sequence[str] = ()) -> Score:
    """Add up `outcomes`; `kinds`, where given, names what was due in each case (see `kind`)."""
    by_kind: dict[str, dict[str, int]] = {}
    for name, result in zip(kinds, outcomes, strict=bool(kinds)):
        by_kind.setdefault(name, {})
        by_kind[name][result] = by_kind[name].get(result, 0) + 1
    counts = {name: sum(o == name for o in outcomes) for name in OUTCOMES}
    return Score(len(outcomes), counts["exact"], {k: v for k, v in counts.items() if v}, by_kind)


def kind(expected: Sequence[dict]) -> str:
    """What was due: a tool's name, "several calls" or "no call"."""
    if len(expected) > 1:
        return "several calls"
    return expected[0]["name"] if expected else "no call"


def wilson(hits: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % Wilson score interval of a rate (E. B. Wilson, 1927); (0, 1) when nothing was counted."""
    if not total:
        return 0.0, 1.0
    rate = hits / total
    middle = rate + z * z / (2 * total)
    spread = z * math.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def _difference(call: Call, left: list[tuple[str, dict]], schemas: Sequence[dict]) -> str:
    if schemas and (fault := tools.check(call, schemas)):
        return fault.kind
    same_name = [arguments for name, arguments in left if name == call.name]
    if not same_name:
        return "wrong_function"
    expected = same_name[0]
    if call.arguments.keys() - expected.keys():
        return "unexpected_parameter"
    if expected.keys() - call.arguments.keys():
        return "missing_required"
    for name, value in expected.items():
        if _type(value) != _type(call.arguments[name]):
            return "type_error"
    return "value_error"


def _same(a, b) -> bool:
    if _type(a) != _type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def _type(value) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else type(value).__name__
