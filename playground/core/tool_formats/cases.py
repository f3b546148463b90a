"""Replies with what is to be found in them: rows of `{"format", "input", "expected", "tools"?, "thinking_enabled"?}`.

`expected` holds `calls` (name and arguments), or `call_names` and `call_count`, and where it matters `content` and
`reasoning`; `must_not_raise` says only that. Content and reasoning are compared up to blanks. Names and counts are of
the calls that can be read or, as other parsers hand calls on unread, of all that have a name.

Every row is read whole and in random pieces; both must give the same.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from playground.core import streaming
from playground.core.tool_formats import Call, Parsed, Reading, named, reading
from playground.errors import PlaygroundError

_REASONING_MARKS = ("<think>", "</think>", "[THINK]", "<|channel|>analysis", "<|thinking|>")


@dataclass(frozen=True)
class Verdict:
    format: str
    id: str
    reason: str = ""  # why it failed; "" where it passed

    @property
    def passed(self) -> bool:
        return not self.reason


def check(row: dict, seed: int = 0) -> Verdict:
    """Whether the row's format finds in its input what the row expects."""
    identity = str(row.get("id", ""))
    try:
        name, text, expected = str(row["format"]), row["input"], row["expected"]
        if not isinstance(text, str) or not isinstance(expected, dict):
            raise KeyError("input")
    except (KeyError, TypeError):
        raise PlaygroundError('a case needs "format", "input" (a text) and "expected" (an object)') from None
    tools = row.get("tools") or ()
    split = splits_reasoning(row)
    try:
        format = named(name)
        parsed = format.parse(text, reasoning=split, tools=tools)
        reason = difference(format, text, parsed, expected, split)
        if not reason and in_pieces(format, text, split, tools, random.Random(f"{seed}{identity}{text}")) != parsed:
            reason = "in pieces it reads differently than whole"
    except PlaygroundError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001 - a parser must take any text: whatever it raises fails the row
        reason = f"{type(error).__name__}: {error}"
    return Verdict(name, identity, reason)


def splits_reasoning(row: dict) -> bool:
    """Whether the row was made with reasoning split off.

    Rows say it only indirectly: by having a "reasoning", no reasoning marker in the expected content, and, where no
    template opens the reasoning, thinking not switched off.
    """
    expected = row["expected"]
    if "reasoning" not in expected:
        return False
    if row.get("thinking_enabled") is False and "template" not in row:
        return False
    content = expected.get("content") or ""
    return not (not expected["reasoning"] and any(mark in content for mark in _REASONING_MARKS))


def in_pieces(format: ModuleType, text: str, reasoning: bool, tools: Sequence[dict], rng: random.Random) -> Parsed:
    """`text` fed in up to 24 random pieces."""
    cuts = sorted(rng.choices(range(len(text) + 1), k=rng.randint(1, 24)))
    stream = Reading(format, reasoning, tools)
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        stream.feed(text[start:end])
    return stream.finish()


def difference(format: ModuleType, text: str, parsed: Parsed, expected: dict, split: bool) -> str:
    """The first thing in which `parsed` is not what was expected; "" where it is."""
    got = [{"name": call.name, "arguments": call.arguments} for call in parsed.valid]
    names = [[call["name"] for call in got], [call.name for call in parsed.calls if call.name]]
    if "calls" in expected and not same(expected["calls"] or [], got):
        return f"expected the calls {_short(expected['calls'])}, got {_short(got)}"
    if "call_names" in expected and expected["call_names"] not in names:
        return f"expected calls of {expected['call_names']}, got {names[0]}"
    if "call_count" in expected and expected["call_count"] not in map(len, names):
        return f"expected {expected['call_count']} calls, got {len(got)}"
    # Thoughts in several places are joined with and without a blank between them.
    if split and "reasoning" in expected and _letters(expected["reasoning"]) != _letters(parsed.reasoning):
        return f"expected the reasoning {_short(expected['reasoning'])}, got {_short(parsed.reasoning)}"
    if expected.get("content") is not None:
        contents = _contents(format, text, parsed, split, len(got) > 0 and "reasoning" not in expected)
        if _words(expected["content"]) not in map(_words, contents):
            return f"expected the content {_short(expected['content'])}, got {_short(parsed.content)}"
    return ""


def _contents(format: ModuleType, text: str, parsed: Parsed, split: bool, first: bool) -> list[str]:
    """The ways to say what the content is.

    Other parsers leave a call that cannot be read in the content, with its markers or without; some leave every call
    there too, without its markers; and some (`first`) drop what follows a call.
    """
    spans = streaming.split(text, reading.visible(format.MARKERS, split), reasoning=split)

    def joined(faulty) -> str:
        pieces = []
        for span in spans:
            if span.kind == "call":
                found = format.read(span.text, span.raw, span.closed, ())
                calls = found if isinstance(found, list) else [found]
                pieces.append("" if any(isinstance(call, Call) for call in calls) else faulty(span))
            elif span.kind == "content":
                pieces.append(span.text)
        return "".join(pieces)

    everything = "".join(span.text for span in spans if span.kind != "reasoning")
    contents = [parsed.content, joined(lambda span: span.raw), joined(lambda span: span.text), everything]
    if first:
        before = []
        for span in spans:
            if span.kind == "call":
                break
            before.append(span.text)
        contents.append("".join(before))
    return contents


def same(expected, got) -> bool:
    """Equal as JSON: 1 and 1.0 are, 1 and true are not; where one has a fraction, both are compared as doubles."""
    if isinstance(expected, bool) or isinstance(got, bool):
        return expected is got
    if isinstance(expected, dict) and isinstance(got, dict):
        return expected.keys() == got.keys() and all(same(expected[key], got[key]) for key in expected)
    if isinstance(expected, list) and isinstance(got, list):
        return len(expected) == len(got) and all(map(same, expected, got))
    if isinstance(expected, float) or isinstance(got, float):
        numbers = isinstance(expected, int | float) and isinstance(got, int | float)
        return numbers and _double(expected) == _double(got)
    return type(expected) is type(got) and expected == got


def _double(number: int | float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.nan


def _words(text) -> str:
    return " ".join(str(text or "").split())


def _letters(text) -> str:
    return "".join(str(text or "").split())


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 160 else text[:159] + "…"
