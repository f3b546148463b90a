"""Ask, call, run, give back, ask again: each step an event that a page or a test can read.

    for event in run(generate, Conversation(messages, schemas), tools, hermes): …

`generate(conversation)` starts one reply and returns a `Turn`. A call is run only when its name and its arguments fit
a tool's schema; whatever is wrong with it goes back to the model as the call's result, and the model has another try.

Before a tool in `ask_first` is run, the loop yields an `ask` event and takes `events.send(True)` for a yes; anything
else, going on with `next` too, is a no. `replay` goes back to a result and puts another in its place.
"""

import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Protocol

from playground.core import tools as toolbox
from playground.core.messages import Conversation
from playground.core.tool_formats.values import Call, Fault, Parsed
from playground.core.tools import Tool, ToolError
from playground.errors import PlaygroundError

MAX_TURNS = 5

# Why a loop ended without an answer.
STOPPED = {
    "turns": "too many turns: the model kept calling tools",
    "loop": "endless loop: the same call again, after the model was told that it has the result",
    "length": "cut off: the reply reached its token limit",
    "cancelled": "stopped",
    "error": "the reply failed",
}

# Why a call that may be in order was not run: kind → the name shown, and what it means to a reader.
NOT_RUN = {
    "repeated": ("repeated call", "The model made the same call before; it is told so once, then the loop ends."),
    "declined": ("declined", "You chose not to run this call; the model is told so."),
    "cancelled": ("not run", "The question was stopped before this call was run."),
}

_HTML = re.compile(r"</?[a-zA-Z][a-zA-Z0-9-]*(?:\s[^<>]*)?/?>")


class Turn(Protocol):
    """One reply of a model: `prompt` is the exact text it was given; iterating yields pieces of text.

    It may have `ids`, of the tokens so far, and `left_out`, what of the talk the prompt is without.
    """

    prompt: str
    finish_reason: str | None  # once iterated: "stop", "length", "cancelled" or "error"
    error: str | None

    def __iter__(self) -> Iterator[str]: ...


@dataclass(frozen=True)
class NotRun(Fault):
    """A fault of the talk, not of the call: one of NOT_RUN."""

    @property
    def title(self) -> str:
        return NOT_RUN[self.kind][0]

    @property
    def meaning(self) -> str:
        return NOT_RUN[self.kind][1]


@dataclass(frozen=True)
class Event:
    """What happened, in order of a turn:

    prompt   text: the exact prompt; reason: what of the talk was left out of it, or ""
    raw      text, ids: the reply so far, markers and all, and its tokens
    parsed   parsed: the whole reply as content, reasoning and calls; text, ids
    call     call (a Call, or a Fault that could not be read as one)
    verdict  call, fault: None when the call fits its tool's schema and was not made before
    ask      call: may it be run? (only for the tools in `ask_first`)
    result   call, text: what goes back; value or fault; seconds; imitates: what in it looks like a marker, or ""
    returned messages: the calls and their results as they join the conversation
    answer   text: what the model says when it calls nothing
    error    text: why the reply failed
    stopped  text: one of STOPPED; reason: its key
    messages messages: everything this loop added to the conversation; always the last event
    """

    kind: str
    turn: int
    index: int = 0  # which call of the turn
    text: str = ""
    call: Call | Fault | None = None
    fault: Fault | None = None
    value: object = None
    seconds: float = 0.0
    reason: str = ""
    parsed: Parsed | None = None
    messages: list[dict] = field(default_factory=list)
    ids: tuple[int, ...] = ()
    imitates: str = ""


def run(
    generate: Callable[[Conversation], Turn],
    conversation: Conversation,
    tools: Sequence[Tool],
    format: ModuleType,
    max_turns: int = MAX_TURNS,
    cancel: Callable[[], bool] | None = None,
    clock: Callable[[], float] = time.monotonic,
    ask_first: Collection[str] = (),
    steps: Sequence[Event] = (),
) -> Iterator[Event]:
    """Events of one question, until the model answers, or why it did not. Ends with what to keep of the talk.

    With `steps` (see `replay`) it goes on from there: their messages follow the conversation.
    """
    loop = Loop(conversation, list(tools), format, cancel or (lambda: False), clock, frozenset(ask_first))
    loop.resume(steps)
    done = max((step.turn for step in steps), default=0)
    for turn in range(done + 1, done + max_turns + 1):
        parsed, reason = yield from loop.reply(generate, turn)
        if reason in ("cancelled", "error"):
            if parsed.content and not parsed.calls:
                loop.added.append(_assistant(parsed))
            yield Event("stopped", turn, text=STOPPED[reason], reason=reason)
            break
        if not parsed.calls:
            loop.added.append(_assistant(parsed))
            if reason == "length":
                yield Event("stopped", turn, text=STOPPED[reason], reason=reason)
            else:
                yield Event("answer", turn, text=parsed.content)
            break
        looping = yield from loop.calls(parsed, turn)
        if loop.cancel():
            yield Event("stopped", turn, text=STOPPED["cancelled"], reason="cancelled")
            break
        if looping:
            yield Event("stopped", turn, text=STOPPED["loop"], reason="loop")
            break
    else:
        yield Event("stopped", turn, text=STOPPED["turns"], reason="turns")
    yield Event("messages", turn, messages=_closed(loop.added))


def replay(steps: Sequence[Event], at: int, result: str, format: ModuleType) -> list[Event]:
    """The steps of a question up to the turn of `steps[at]`, a result, with `result` in its place.

    `run(…, steps=replay(…))` goes on from there. `result` is JSON, or a text. The other calls of the turn keep
    theirs: they were made together.
    """
    if not 0 <= at < len(steps) or steps[at].kind != "result":
        raise PlaygroundError("only a step that holds a tool's result can be run again with another result")
    turn = steps[at].turn
    kept = [step for step in steps if step.turn <= turn and step.kind not in ("stopped", "messages")]
    try:
        value = json.loads(result)
    except ValueError:
        value = result.strip()
    edited = replace(
        steps[at], value=value, fault=None, text=toolbox.result_text(value), seconds=0.0, imitates=imitation(value)
    )
    kept = [
        edited if step is steps[at] else step for step in kept if not (step.kind == "returned" and step.turn == turn)
    ]
    parsed = next(step.parsed for step in kept if step.kind == "parsed" and step.turn == turn)
    outcomes = [(step.call, step.text) for step in kept if step.kind == "result" and step.turn == turn]
    return [*kept, Event("returned", turn, messages=_returned(parsed, outcomes, format))]


def imitation(value) -> str:
    """The first thing in a tool's result that looks like a marker of a turn or like HTML; empty where nothing does."""
    text = "\n".join(_texts(toolbox.without_picture(value)))
    found = toolbox.markers_in(text) or _HTML.findall(text)
    return found[0][:60] if found else ""


def _texts(value) -> Iterator[str]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from (str(key), *_texts(part))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, str):
        yield value


@dataclass
class Loop:
    """One question on its way: what it has added to the conversation, and the calls it has seen."""

    conversation: Conversation
    tools: list[Tool]
    format: ModuleType
    cancel: Callable[[], bool]
    clock: Callable[[], float]
    ask_first: frozenset[str]
    added: list[dict] = field(default_factory=list)
    seen: dict[str, str] = field(default_factory=dict)  # call → its result, as the model read it
    told: bool = False  # that it repeats itself

    def resume(self, steps: Sequence[Event]) -> None:
        for step in steps:
            if step.kind == "returned":
                self.added += step.messages
            if step.kind == "result":
                self.seen.setdefault(_key(step.call), step.text)

    def reply(self, generate: Callable[[Conversation], Turn], turn: int):
        given = self.conversation
        reply = generate(Conversation([*given.messages, *self.added], given.tools, given.variables))
        yield Event("prompt", turn, text=reply.prompt, reason=getattr(reply, "left_out", ""))
        text, stopped = "", False
        for piece in reply:
            if piece:
                text += piece
                yield Event("raw", turn, text=text, ids=_ids(reply))
            if self.cancel():
                stopped = True
                break
        parsed = self.format.parse(text, tools=given.tools)
        yield Event("parsed", turn, text=text, parsed=parsed, ids=_ids(reply))
        reason = "cancelled" if stopped else reply.finish_reason or "stop"
        if reason == "error":
            yield Event("error", turn, text=reply.error or STOPPED["error"])
        return parsed, reason

    def calls(self, parsed: Parsed, turn: int):
        """Run what can be run, give everything back; True when the model only repeats itself and was told before."""
        outcomes, repeated = [], 0
        for index, call in enumerate(parsed.calls):
            yield Event("call", turn, index, call=call)
            fault = self.verdict(call)
            again = _key(call) in self.seen
            repeated += again
            yield Event("verdict", turn, index, call=call, fault=fault)
            if fault is None:
                fault = yield from self.permission(call, turn, index)
            value, fault, seconds = self.execute(call) if fault is None else (None, fault, 0.0)
            text = toolbox.result_text(value if fault is None else {"error": fault.reason})
            imitates = imitation(value if fault is None else fault.reason) if fault is None or _wrote(fault) else ""
            yield Event("result", turn, index, text, call, fault, value, seconds, imitates=imitates)
            outcomes.append((call, text))
            self.seen.setdefault(_key(call), text)
        messages = _returned(parsed, outcomes, self.format)
        self.added += messages
        yield Event("returned", turn, messages=messages)
        only_repeats = repeated == len(parsed.calls)
        looping, self.told = only_repeats and self.told, self.told or only_repeats
        return looping

    def verdict(self, call: Call | Fault) -> Fault | None:
        if isinstance(call, Fault):
            return call
        fault = self.check(call)
        if fault is not None or _key(call) not in self.seen:
            return fault
        result = self.seen[_key(call)]
        reason = f"You called {call.name} with the same arguments before, and the result was {result}. Answer with it."
        return NotRun("repeated", reason, call.raw, call.name)

    def check(self, call: Call) -> Fault | None:
        """Against the schemas the model was shown; a schema without a tool behind it cannot run."""
        names = {tool.name for tool in self.tools}
        shown = list(self.conversation.tools) or [tool.schema for tool in self.tools]
        return toolbox.check(call, [schema for schema in shown if schema["function"]["name"] in names])

    def permission(self, call: Call, turn: int, index: int):
        """Why a call in order is not run; None where it may be."""
        allowed = not self.cancel()
        if allowed and call.name in self.ask_first:
            allowed = yield Event("ask", turn, index, call=call)
        if self.cancel():
            return NotRun("cancelled", "The visitor stopped before this call was run.", call.raw, call.name)
        if not allowed:
            return NotRun("declined", f"The visitor declined to run {call.name}.", call.raw, call.name)
        return None

    def execute(self, call: Call) -> tuple[object, Fault | None, float]:
        """What the tool says, or why it could not; and how many seconds it took."""
        tool = next(tool for tool in self.tools if tool.name == call.name)
        started = self.clock()
        try:
            value, fault = tool.run(**call.arguments), None
        except ToolError as error:
            value, fault = None, Fault("tool_error", str(error), call.raw, call.name)
        return value, fault, self.clock() - started


def _ids(reply: Turn) -> tuple[int, ...]:
    return tuple(getattr(reply, "ids", ()))


def _wrote(fault: Fault | None) -> bool:
    """Whether a tool, not this app, wrote the fault's reason."""
    return fault is not None and fault.kind == "tool_error"


def _key(call: Call | Fault) -> str:
    return json.dumps([call.name, call.arguments] if isinstance(call, Call) else call.raw, sort_keys=True)


def _returned(parsed: Parsed, outcomes: Sequence[tuple[Call | Fault, str]], format: ModuleType) -> list[dict]:
    """A turn's calls and what came of them, as messages."""
    if not parsed.valid:
        # No message can hold a call that was not read, and a tool message must follow one: the result comes from
        # the user's side, in the form that the format gives results.
        lines = [format.write_result("", text) for _, text in outcomes]
        return [_assistant(parsed), {"role": "user", "content": "\n".join(lines)}]
    results = [{"role": "tool", "name": call.name or "unreadable call", "content": text} for call, text in outcomes]
    return [_assistant(parsed), *results]


def _assistant(parsed: Parsed) -> dict:
    """The assistant's message; calls that could not be read stay in its content as they were written."""
    content = "\n".join(part for part in (parsed.content, *(fault.raw for fault in parsed.faults)) if part)
    message: dict = {"role": "assistant", "content": content}
    if parsed.reasoning:
        message["reasoning_content"] = parsed.reasoning
    if parsed.valid:
        message["tool_calls"] = [call.message for call in parsed.valid]
    return message


def _closed(added: list[dict]) -> list[dict]:
    """Without an empty assistant message, which no template takes."""
    return [m for m in added if m["role"] != "assistant" or m["content"].strip() or m.get("tool_calls")]
