"""Splits a reply into content, reasoning and calls while it grows.

A format says with `Marker`s what opens and closes a span. `split` is a pure function of the text so far, so
what a reader sees cannot depend on how the text was cut into pieces; `Stream` feeds it piece by piece.
While the text still grows, an end that may be the beginning of a marker ("<tool_c") is held back.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Marker:
    """What opens and closes a span of `kind`: "content", "reasoning" or "call".

    `end(text, start)` finds where the span's body ends when the first `close` is not always the right one
    (a JSON string may hold one); it returns the index of the closing marker, or -1. Where what closes a span is not
    one fixed text, it returns two indices: the end of the body, and where the text goes on.
    `until` lists openers that end the span too, for models that forget to close it; `unclosed` those that end it
    only when the whole reply has no `close` (a reply that is not over yet may still bring one).
    `find(text, at, final)` finds the next opening when it is not one fixed text: (position, start of the body), or
    (position, -1) where a span may open once more text comes.
    """

    kind: str
    open: str
    close: str
    end: Callable[[str, int], int | tuple[int, int]] | None = None
    until: tuple[str, ...] = ()
    unclosed: tuple[str, ...] = ()
    find: Callable[[str, int, bool], tuple[int, int] | None] | None = None


def dropped(text: str) -> Marker:
    """A marker that says nothing by itself: it leaves no text in the content."""
    return Marker("content", text, "", end=lambda _, start: start)


@dataclass(frozen=True)
class Span:
    """A stretch of a reply. `text` has no markers; `raw` has. `closed` says whether the closing marker came."""

    kind: str
    text: str
    raw: str
    closed: bool = True


def split(text: str, markers: tuple[Marker, ...], final: bool = True, reasoning: bool = True) -> list[Span]:
    """The spans of `text`, in order; their `raw` texts tile it (up to what is held back when not `final`).

    With `reasoning`, a closing reasoning marker that nothing opened ends a reasoning that the prompt opened:
    everything before it is reasoning. Templates of thinking models put the opening marker in the prompt.
    """
    spans: list[Span] = []
    at = 0
    if reasoning:
        orphan = _orphan_close(text, markers, final)
        if orphan is not None:
            marker, position = orphan
            at = position + len(marker.close)
            spans.append(Span("reasoning", text[:position], text[:at]))
    found: dict[int, tuple[int, int] | None] = {}  # marker → where it opens next; looked up once per opening
    while at < len(text):
        opened = _first_open(text, at, markers, final, found)
        if opened is None or opened[1] < 0:
            rest = text[at:] if opened is None else text[at : opened[0]]
            held = 0 if final else _partial_end(rest, _watched(markers, reasoning))
            if rest[: len(rest) - held]:
                spans.append(Span("content", rest[: len(rest) - held], rest[: len(rest) - held]))
            break
        position, body, marker = opened
        if position > at:
            spans.append(Span("content", text[at:position], text[at:position]))
        span, at = _read_span(text, position, body, marker, final)
        spans.append(span)
    return spans


class Stream:
    """`split`, fed piece by piece. `feed` and `finish` return all spans so far, ready to be shown."""

    def __init__(self, markers: tuple[Marker, ...], reasoning: bool = True):
        self.markers, self.reasoning, self.text = markers, reasoning, ""

    def feed(self, piece: str) -> list[Span]:
        self.text += piece
        return split(self.text, self.markers, final=False, reasoning=self.reasoning)

    def finish(self) -> list[Span]:
        return split(self.text, self.markers, final=True, reasoning=self.reasoning)


def close_outside_strings(close: str) -> Callable[[str, int], int]:
    """An `end` for JSON bodies: the first `close` that no JSON string holds."""
    token = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|' + re.escape(close), re.DOTALL)

    def end(text: str, start: int) -> int:
        if text.find(close, start) < 0:
            return -1
        return next((found.start() for found in token.finditer(text, start) if found[0] == close), -1)

    return end


_THINKING = re.compile(r"\A\s*<think>.*?(?:</think>\s*|\Z)", re.DOTALL)


def without_thinking(reply: str) -> str:
    """A reply without the `<think>…</think>` that it begins with: what a reader of its answer alone takes."""
    return _THINKING.sub("", reply)


def _read_span(text: str, position: int, body: int, marker: Marker, final: bool) -> tuple[Span, int]:
    end = marker.end(text, body) if marker.end else text.find(marker.close, body)
    if isinstance(end, tuple):
        end, at = end
        return Span(marker.kind, text[body:end], text[position:at]), at
    if end < 0 and marker.end and marker.close and final:
        # An unbalanced quote hides the marker: the body is broken, and the first marker ends it.
        end = text.find(marker.close, body)
    until = marker.until + (marker.unclosed if final and end < 0 else ())
    stop = min((i for i in (text.find(o, body) for o in until) if i >= 0), default=-1)
    if stop >= 0 and (end < 0 or stop < end) and not (marker.end and _in_string(text, body, stop)):
        return Span(marker.kind, text[body:stop], text[position:stop], closed=False), stop
    if end >= 0:
        at = end + len(marker.close)
        return Span(marker.kind, text[body:end], text[position:at]), at
    rest = text[body:]
    held = 0 if final else _partial_end(rest, [marker.close, *marker.until])
    return Span(marker.kind, rest[: len(rest) - held], text[position : len(text) - held], closed=False), len(text)


def _in_string(text: str, start: int, stop: int) -> bool:
    quoted = False
    i = start
    while i < stop:
        if quoted and text[i] == "\\":
            i += 1
        elif text[i] == '"':
            quoted = not quoted
        i += 1
    return quoted


def _first_open(text: str, at: int, markers: tuple[Marker, ...], final: bool, found: dict):
    """(position, start of the body or -1, marker) of the opening that comes first.

    The longer opener wins a tie, and one that may still come wins over both.
    """
    first = None
    for number, marker in enumerate(markers):
        if number not in found or (found[number] is not None and found[number][0] < at):
            if marker.find:
                found[number] = marker.find(text, at, final)
            else:
                position = text.find(marker.open, at)
                found[number] = (position, position + len(marker.open)) if position >= 0 else None
        if found[number] is not None:
            position, body = found[number]
            key = (position, body >= 0, position - body, number)
            first = min(first or key, key)
    return (first[0], first[0] - first[2], markers[first[3]]) if first else None


def _orphan_close(text: str, markers: tuple[Marker, ...], final: bool) -> tuple[Marker, int] | None:
    for marker in markers:
        if marker.kind != "reasoning" or not marker.open:
            continue
        position = text.find(marker.close)
        if position >= 0 and marker.open not in text[:position] and not _in_call(text, markers, final, position):
            return marker, position
    return None


def _in_call(text: str, markers: tuple[Marker, ...], final: bool, position: int) -> bool:
    """Whether a whole call stands around `position`: what its arguments hold is theirs.

    Where another one opens behind `position`, the first was only spoken of, and never closed.
    """
    start = 0
    for span in split(text, markers, final, reasoning=False):
        end = start + len(span.raw)
        if start < position < end:
            again = any(m.open and m.open in text[position:end] for m in markers if m.kind == "call")
            return span.kind == "call" and span.closed and not again
        start = end
    return False


def _watched(markers: tuple[Marker, ...], reasoning: bool) -> list[str]:
    closes = [m.close for m in markers if m.kind == "reasoning"] if reasoning else []
    return [m.open for m in markers if m.open] + closes


def _partial_end(text: str, strings: list[str]) -> int:
    """Length of the longest end of `text` that begins one of `strings`."""
    longest = max((len(s) for s in strings), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        if any(s.startswith(text[-length:]) for s in strings):
            return length
    return 0
