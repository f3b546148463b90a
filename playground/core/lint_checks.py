"""The linter's rules: what each is about, and how a `Case` shows it.

No template, token or model is known by name here: what a template does is found by rendering (`lint_case`).
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from playground.core.lint_case import TAG, Case
from playground.core.training.collate import common_start

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)

# rule -> why it matters, in a sentence
RULES = {
    "refused": "A row that the template refuses is left out of training, and a chat of this shape fails.",
    "other-shape": "The tokenizer's standard call fails on this row; it renders here because its input was rewritten.",
    "nothing-trained": "Such a row adds nothing to the loss: all its labels are −100.",
    "untrained-reply": "What the assistant says there is only read, never learned.",
    "stop-not-trained": "The model is never taught to end its reply, so it runs on until the length limit.",
    "no-stop": "Nothing marks the end of a reply, so the model is taught to go on with the next turn.",
    "stop-not-eos": "A server stops at EOS unless it is told more: without this on its stop list, replies run on.",
    "prompt-trained": "The prompt stands there already when the model is asked: learning it wastes the loss on it.",
    "empty-thinking-trained": "The model is taught to write an empty thought, that is, not to think.",
    "prompt-differs": "The chat asks in another way than training taught, and answers get worse without an error.",
    "prompt-tokens-differ": "The same text as other tokens is another prompt than the one that training taught.",
    "not-prefix-preserving": "In a chat the earlier turns read differently from training, and no cached prompt can be "
    "used again.",
    "truncated": "What is cut off is not trained on, the end of the last reply first: the model learns to break off.",
    "bos-doubled": "Two beginnings are something the model has never seen; answers get worse without an error.",
    "bos-added-again": "Whoever calls the tokenizer on the rendered text gets two of them; this app adds none.",
    "bos-missing": "The model saw that token first in everything it was trained on, and does worse without it.",
    "markers-split": "A marker in pieces is common text to the model: it costs tokens on each turn and is harder to "
    "learn.",
    "marker-in-content": "Text inside a message can end the turn or speak for somebody else; training encodes it as it "
    'stands, only the chat\'s "sanitize" switch makes it plain text.',
    "system-dropped": "The model neither learns nor sees what the system message asks for.",
    "message-dropped": "The model neither learns nor sees what was said there.",
    "tools-ignored": "The model is taught to call tools that it was never shown.",
    "tool-calls-dropped": "The reply that calls a tool loses the call: nothing about calling tools is learned.",
    "tool-results-dropped": "The model is taught to answer from results it does not see: it learns to make them up.",
    "reasoning-dropped": "The thoughts in the data are not trained on.",
    "earlier-reasoning-dropped": "Only the last turn's thoughts are trained on; split the row at each turn to use them "
    "all.",
    "content-changed": "The model is trained on something else than the row says.",
}


@dataclass(frozen=True)
class Finding:
    """One fault of one row under one template."""

    rule: str
    severity: str
    what: str  # a sentence on this row
    characters: tuple[int, int] | None = None  # where in the rendered text, if anywhere
    tokens: tuple[int, ...] = ()  # which tokens, with a tokenizer

    @property
    def why(self) -> str:
        return RULES[self.rule]


# Checks ---------------------------------------------------------------------------------------------------------------
# Each takes a Case and yields its findings.


def _other_shape(case: Case) -> Iterator[Finding]:
    if case.done.shape:
        yield Finding(
            "other-shape", WARNING, f"The template fails on the row as it stands; it renders with {case.done.shape}."
        )


def _nothing_trained(case: Case) -> Iterator[Finding]:
    mask = case.done.mask
    left = any(span.trained for span in case.done.spans) if mask is None else any(mask[: case.max_length])
    if left:
        return
    if not case.replies:
        why = "the row has no assistant message"
    elif case.done.mask_rule == "none":
        why = (
            "the template has no {% generation %} marks, and the conversation up to a reply does not render to the "
            "beginning of the whole text"
        )
    elif mask is not None and any(mask):
        why = f"its first trained token is number {mask.index(True) + 1:,} and it is cut at {case.max_length:,}"
    elif any(span.trained for span in case.done.spans):
        why = "the marked text begins with a character that this tokenizer gives to no token"
    else:
        why = "the template marks none of its text"
    yield Finding("nothing-trained", ERROR, f"Not one token of the row is trained: {why}.")


def _untrained_reply(case: Case) -> Iterator[Finding]:
    if not any(span.trained for span in case.done.spans):
        return
    for reply in case.replies:
        if reply.start is None or reply.end is None or not case.text[reply.start : reply.end].strip():
            continue
        if not case.trained(reply.start, reply.end):
            what = f"Nothing of message {reply.message + 1}, a reply, is trained."
            yield _at(case, "untrained-reply", WARNING, what, reply.start, reply.end)


def _stop(case: Case) -> Iterator[Finding]:
    stop, spans = case.habits.stop, case.done.spans
    if stop is None or not case.replies or not any(span.trained for span in spans):
        return
    if not stop:
        if case.tokenizer is not None:
            yield Finding("no-stop", WARNING, "The template writes nothing at the end of the last reply.")
        return
    ends = [a.end for a, b in zip(spans, [*spans[1:], None], strict=True) if a.trained and not (b and b.trained)]
    for end in ends:
        at = len(case.text) - len(case.text[end:].lstrip())
        if case.text.startswith(stop, at):
            what = f"{stop!r}, which ends a reply, is outside the loss mask."
            yield _at(case, "stop-not-trained", ERROR, what, at, at + len(stop))
            return


def stop_list(case: Case, stops: Iterable[str] | None) -> Iterator[Finding]:
    stop, eos = case.habits.stop, case.tokenizer and case.tokenizer.variables.get("eos_token")
    if not stop or not case.replies or case.tokenizer is None or (eos and stop.endswith(eos)):
        return
    what = f"A reply ends with {stop!r}, " + (f"EOS is {eos!r}" if eos else "and the tokenizer names no EOS")
    at = case.text.rfind(stop)
    if stops is None:
        yield _at(case, "stop-not-eos", NOTE, f"{what}.", at, at + len(stop))
    elif not any(entry and entry in stop for entry in stops):
        yield _at(case, "stop-not-eos", ERROR, f"{what}, and it is not on the stop list.", at, at + len(stop))


def _prompt_trained(case: Case) -> Iterator[Finding]:
    before = 0
    for reply in case.replies:
        if reply.start is not None and (ranges := case.trained(before, reply.start)):
            start, end = ranges[0][0], ranges[-1][1]
            what = f"{_short(case.text[start:end])}, a part of the prompt for message {reply.message + 1}, is trained."
            yield _at(case, "prompt-trained", WARNING, what, start, end)
            return
        if reply.upto is not None:
            before = reply.end or common_start([reply.upto, case.text])


def _empty_thinking(case: Case) -> Iterator[Finding]:
    words, thinking = case.thinking
    for reply in case.replies:
        message = case.conversation.messages[reply.message]
        content = message.get("content")
        if reply.start is None or message.get("reasoning_content") or not isinstance(content, str):
            continue
        content = content.strip()
        end = case.text.find(content, reply.start) if content else -1
        block = _around(thinking, words[reply.message], reply.prompt, content)
        gap = case.text[reply.start : end] if end >= 0 else ""
        if block and _squeezed(gap) == block and (ranges := case.trained(reply.start, end)):
            what = (
                f"Message {reply.message + 1} has no reasoning; the empty {_short(gap.strip())} before it is trained."
            )
            yield _at(case, "empty-thinking-trained", WARNING, what, ranges[0][0], ranges[-1][1])


def _around(text: str, word: str, prompt: str, content: str) -> str:
    """What stands between the prompt and `word`, and between `word` and the content, without white space."""
    at = text.find(word)
    opened = text.rfind(prompt[-_SEEN:], 0, at) if at >= 0 else -1
    closed = text.find(content, at + len(word))
    if opened < 0 or closed < 0:
        return ""
    return _squeezed(text[opened + len(prompt[-_SEEN:]) : at] + text[at + len(word) : closed])


_SEEN = 30  # the last characters of a prompt are enough to find it again


def _prompt_differs(case: Case) -> Iterator[Finding]:
    for reply in case.replies:
        if reply.prompt is None:
            continue
        number = reply.message + 1
        if reply.start is None:
            at = common_start([reply.prompt, case.text])
            what = (
                f"The chat prompt for message {number} reads {_short(reply.prompt[at:])} where the training text "
                f"reads {_short(case.text[at:])}."
            )
            yield _at(case, "prompt-differs", ERROR, what, at, min(at + 1, len(case.text)))
            return
        if case.tokenizer is None:
            continue
        ids = case.tokenizer.encode(reply.prompt)[0]
        if ids != case.done.ids[: len(ids)]:
            at = common_start([ids, case.done.ids])
            start, end = case.done.offsets[at]
            what = (
                f"{_short(case.text[start:end])} is one token in training; the chat prompt for message {number} ends "
                "in the middle of it."
            )
            yield Finding("prompt-tokens-differ", WARNING, what, (start, end), (at,))
            return


def _not_prefix_preserving(case: Case) -> Iterator[Finding]:
    for reply in case.replies:
        if reply.upto is None or reply.end is not None:
            continue
        at = common_start([reply.upto, case.text])
        what = (
            f"Message {reply.message + 1} and what comes before it render differently once more follows: "
            f"{_short(reply.upto[at:])} becomes {_short(case.text[at:])}."
        )
        yield _at(case, "not-prefix-preserving", WARNING, what, at, min(at + 1, len(case.text)))
        return


def _truncated(case: Case) -> Iterator[Finding]:
    ids, length = case.done.ids, case.max_length
    if ids is None or length is None or len(ids) <= length:
        return
    lost = sum(case.done.mask[length:])
    what = (
        f"The row has {len(ids):,} tokens and is cut at {length:,}; {len(ids) - length:,} go, {lost:,} of them trained."
    )
    start = case.done.offsets[length][0]
    yield Finding("truncated", WARNING if lost else NOTE, what, (start, len(case.text)), tuple(range(length, len(ids))))


def _bos(case: Case) -> Iterator[Finding]:
    bos = case.tokenizer and case.tokenizer.bos_id
    if bos is None:
        return
    ids, token = case.done.ids, case.tokenizer.variables["bos_token"]
    at = next((i for i in range(len(ids) - 1) if ids[i] == ids[i + 1] == bos), None)
    adds = case.tokenizer.backend.encode("a", add_special_tokens=True).ids[:1] == [bos]
    if at is not None:
        where = case.done.offsets[at][0], case.done.offsets[at + 1][1]
        yield Finding("bos-doubled", ERROR, f"{token!r} stands twice in a row.", where, (at, at + 1))
    elif adds and ids[:1] == [bos]:
        what = f"The template writes {token!r}, and this tokenizer adds one too when it is called on text."
        yield Finding("bos-added-again", NOTE, what, case.done.offsets[0], (0,))
    elif adds:
        yield Finding("bos-missing", WARNING, f"This tokenizer begins a text with {token!r}, the template does not.")


def _markers_split(case: Case) -> Iterator[Finding]:
    if case.tokenizer is None:
        return
    split = []
    for marker in dict.fromkeys([*case.habits.tags, *([case.habits.stop] if case.habits.stop else [])]):
        for span in case.done.spans:
            at = case.text.find(marker, span.start, span.end) if span.role == "template" else -1
            tokens = case.tokens(at, at + len(marker)) if at >= 0 else ()
            if len(tokens) > 1:
                split.append((marker, at, tokens))
                break
    if split:
        listed = ", ".join(f"{marker} ({len(tokens)} tokens)" for marker, _, tokens in split[:4])
        more = f" and {len(split) - 4} more" if len(split) > 4 else ""
        severity = WARNING if case.habits.stop in [marker for marker, *_ in split] else NOTE
        what = f"This tokenizer has no token of its own for {listed}{more}."
        _, at, tokens = split[0]
        tokens = tuple(sorted({token for *_, tokens in split for token in tokens}))
        yield Finding("markers-split", severity, what, (at, at + len(split[0][0])), tokens)


def _marker_in_content(case: Case) -> Iterator[Finding]:
    control = [token for token in (case.tokenizer.special_tokens if case.tokenizer else ()) if token.strip()]
    markers = dict.fromkeys([*control, *case.habits.markers])
    if not markers:
        return
    tags = [re.escape(m) for m in markers if m in control or TAG.fullmatch(m)]
    lines = [rf"(?<!\w){re.escape(m)}" for m in markers if m not in control and not TAG.fullmatch(m)]
    for severity, patterns in ((WARNING, tags), (NOTE, lines)):
        pattern = re.compile("|".join(sorted(patterns, key=len, reverse=True)) or r"(?!)")
        found = [
            (match, span)
            for span in case.done.spans
            if span.role != "template"
            for match in pattern.finditer(case.text, span.start, span.end)
        ]
        if found:
            listed = ", ".join(dict.fromkeys(repr(match[0]) for match, _ in found[:20]))
            roles = " and ".join(dict.fromkeys(span.role for _, span in found))
            what = f"What the {roles} says holds {listed}, which the template or the tokenizer uses as a marker."
            tokens = tuple(token for match, _ in found for token in case.tokens(*match.span()))
            yield Finding("marker-in-content", severity, what, found[0][0].span(), tokens)


def _dropped(case: Case) -> Iterator[Finding]:
    for kind, rule, what in (
        ("system", "system-dropped", "The system message does not reach the text"),
        ("tools", "tools-ignored", "The row's tools do not reach the text"),
        ("call", "tool-calls-dropped", "Tool calls do not reach the text"),
        ("tool", "tool-results-dropped", "Tool results do not reach the text"),
        ("user", "message-dropped", "What the user says does not reach the text"),
        ("assistant", "message-dropped", "What the assistant says does not reach the text"),
    ):
        parts = [part for part in case.parts if part.kind == kind]
        shown = {part.message for part in parts if part.shown}
        lost = sorted({part.message for part in parts} - shown)
        if lost:
            yield Finding(rule, ERROR, f"{what}{_numbers(lost)}.")


def _reasoning_dropped(case: Case) -> Iterator[Finding]:
    lost = [part.message for part in case.parts if part.kind == "reasoning" and not part.shown]
    if lost and case.habits.reasoning:
        yield Finding(
            "earlier-reasoning-dropped", WARNING, f"The reasoning of earlier turns is left out{_numbers(lost)}."
        )
    elif lost:
        yield Finding("reasoning-dropped", WARNING, f"Reasoning does not reach the text{_numbers(lost)}.")


def _content_changed(case: Case) -> Iterator[Finding]:
    text = _squeezed(case.text)
    for part in case.parts:
        if not part.shown or part.kind not in ("system", "user", "assistant", "reasoning"):
            continue
        given = part.given
        if _squeezed(given) in text or any(_squeezed(json.dumps(given, ensure_ascii=a)[1:-1]) in text for a in (0, 1)):
            continue
        what = f"{_short(given)} of message {part.message + 1} ({part.kind}) is not written as it stands."
        yield Finding("content-changed", WARNING, what)


CHECKS = (
    _nothing_trained,
    _stop,
    _prompt_trained,
    _prompt_differs,
    _dropped,
    _bos,
    _truncated,
    _untrained_reply,
    _empty_thinking,
    _not_prefix_preserving,
    _marker_in_content,
    _reasoning_dropped,
    _content_changed,
    _other_shape,
    _markers_split,
)


# Words ----------------------------------------------------------------------------------------------------------------


def _at(case: Case, rule: str, severity: str, what: str, start: int, end: int) -> Finding:
    return Finding(rule, severity, what, (start, end), case.tokens(start, end))


def _numbers(messages: list[int]) -> str:
    """(messages 2 and 4), or nothing where no message is meant."""
    if messages == [-1]:
        return ""
    shown = [str(number + 1) for number in messages[:5]]
    listed = shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
    return f" (message{'s' if len(messages) > 1 else ''} {listed}{' …' if len(messages) > 5 else ''})"


def _short(text: str, most: int = 40) -> str:
    return repr(text if len(text) <= most else f"{text[:most]}…") if text else "nothing more"


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}"
