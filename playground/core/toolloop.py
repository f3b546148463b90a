"""Ask, call, run, give back, ask again: each step an event that a page or a test can read.

    for event in run(generate, Conversation(messages, schemas), tools, hermes): …

`generate(conversation)` starts one reply and returns a `Turn`. A call is run only when its name and its arguments fit
a tool's schema; whatever is wrong with it goes back to the model as the call's result, and the model has another try.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Protocol

from playground.core import tools as toolbox
from playground.core.messages import Conversation
from playground.core.tool_formats.values import Call, Fault, Parsed
from playground.core.tools import Tool, ToolError

MAX_TURNS = 5

# Why a loop ended without an answer.
STOPPED = {
    "turns": "too many turns: the model kept calling tools",
    "loop": "endless loop: the same call again, with the same result",
    "length": "cut off: the reply reached its token limit",
    "cancelled": "stopped",
    "error": "the reply failed",
}


class Turn(Protocol):
    """One reply of a model: `prompt` is the exact text it was given; iterating yields pieces of text."""

    prompt: str
    finish_reason: str | None  # once iterated: "stop", "length", "cancelled" or "error"
    error: str | None

    def __iter__(self) -> Iterator[str]: ...


@dataclass(frozen=True)
class Event:
    """What happened, in order of a turn:

    prompt   text: the exact prompt
    raw      text: the reply so far, markers and all
    parsed   parsed: the whole reply as content, reasoning and calls
    call     call (a Call, or a Fault that could not be read as one)
    verdict  call, fault: None when the call fits its tool's schema
    result   call, text: what goes back; value or fault; seconds
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
    value: dict | None = None
    seconds: float = 0.0
    reason: str = ""
    parsed: Parsed | None = None
    messages: list[dict] = field(default_factory=list)


def run(
    generate: Callable[[Conversation], Turn],
    conversation: Conversation,
    tools: Sequence[Tool],
    format: ModuleType,
    max_turns: int = MAX_TURNS,
    cancel: Callable[[], bool] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Event]:
    """Events of one question, until the model answers, or why it did not. Ends with what to keep of the talk."""
    added: list[dict] = []
    seen: set[str] = set()
    for turn in range(1, max_turns + 1):
        parsed, reason = yield from _reply(generate, conversation, added, format, turn, cancel)
        if reason in ("cancelled", "error"):
            if parsed.content and not parsed.calls:
                added.append(_assistant(parsed, ()))
            yield Event("stopped", turn, text=STOPPED[reason], reason=reason)
            break
        if not parsed.calls:
            added.append(_assistant(parsed, ()))
            if reason == "length":
                yield Event("stopped", turn, text=STOPPED[reason], reason=reason)
            else:
                yield Event("answer", turn, text=parsed.content)
            break
        repeated = yield from _calls(parsed, conversation.tools, tools, format, added, seen, turn, clock)
        if repeated:
            yield Event("stopped", turn, text=STOPPED["loop"], reason="loop")
            break
        if cancel is not None and cancel():
            yield Event("stopped", turn, text=STOPPED["cancelled"], reason="cancelled")
            break
    else:
        yield Event("stopped", max_turns, text=STOPPED["turns"], reason="turns")
    yield Event("messages", turn, messages=_closed(added))


def _reply(generate, conversation, added, format, turn, cancel):
    reply = generate(Conversation([*conversation.messages, *added], conversation.tools, conversation.variables))
    yield Event("prompt", turn, text=reply.prompt)
    text, stopped = "", False
    for piece in reply:
        if piece:
            text += piece
            yield Event("raw", turn, text=text)
        if cancel is not None and cancel():
            stopped = True
            break
    parsed = format.parse(text)
    yield Event("parsed", turn, text=text, parsed=parsed)
    reason = "cancelled" if stopped else reply.finish_reason or "stop"
    if reason == "error":
        yield Event("error", turn, text=reply.error or STOPPED["error"])
    return parsed, reason


def _calls(parsed, schemas, tools, format, added, seen, turn, clock):
    """Run what can be run, give everything back; True when nothing but repetition came of it."""
    by_name = {tool.name: tool for tool in tools}
    readable = [call for call in parsed.calls if isinstance(call, Call)]
    unread = [call for call in parsed.calls if isinstance(call, Fault)]
    outcomes = []
    for index, call in enumerate(parsed.calls):
        yield Event("call", turn, index, call=call)
        fault = call if isinstance(call, Fault) else _check(call, schemas, by_name)
        yield Event("verdict", turn, index, call=call, fault=fault)
        value, seconds = None, 0.0
        if fault is None:
            started = clock()
            try:
                value = by_name[call.name].run(**call.arguments)
            except ToolError as error:
                fault = Fault("tool_error", str(error), call.raw, call.name)
            seconds = clock() - started
        text = toolbox.result_text(value if fault is None else {"error": fault.reason})
        yield Event("result", turn, index, text, call, fault, value, seconds)
        outcomes.append((call, text))
    added.append(_assistant(parsed, unread))
    if not readable:
        # No message can hold a call that was not read, and a tool message must follow one: the result comes from
        # the user's side, in the form that the format gives results.
        lines = [format.write_result("", text) for _, text in outcomes]
        added.append({"role": "user", "content": "\n".join(lines)})
    else:
        for call, text in outcomes:
            added.append({"role": "tool", "name": call.name or "unreadable call", "content": text})
    keys = {
        json.dumps([getattr(c, "name", ""), getattr(c, "arguments", c.raw), t], sort_keys=True) for c, t in outcomes
    }
    repeated = keys <= seen
    seen |= keys
    return repeated


def _check(call: Call, schemas: Sequence[dict], by_name: dict[str, Tool]) -> Fault | None:
    """Against the schemas the model was shown; a schema without a tool behind it cannot run."""
    shown = list(schemas) or [tool.schema for tool in by_name.values()]
    return toolbox.check(call, [schema for schema in shown if schema["function"]["name"] in by_name])


def _assistant(parsed: Parsed, unread: Sequence[Fault]) -> dict:
    """The assistant's message; calls that could not be read stay in its content as they were written."""
    content = "\n".join(part for part in (parsed.content, *(fault.raw for fault in unread)) if part)
    message: dict = {"role": "assistant", "content": content}
    if parsed.reasoning:
        message["reasoning_content"] = parsed.reasoning
    if parsed.valid:
        message["tool_calls"] = [call.message for call in parsed.valid]
    return message


def _closed(added: list[dict]) -> list[dict]:
    """Without an empty assistant message, which no template takes."""
    return [m for m in added if m["role"] != "assistant" or m["content"].strip() or m.get("tool_calls")]
