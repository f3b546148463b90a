"""A question on its way through the lanes of the Tools tab, every step shown as it comes."""

import html
import time
import uuid
from collections.abc import Iterator

import gradio as gr

from playground.core import toolloop
from playground.core.messages import Conversation
from playground.core.tools import Tool
from playground.errors import PlaygroundError
from playground.ui.common import Services
from playground.ui.tool_steps import choices, chosen, written
from playground.ui.tool_talk import FREE, LANES, MODES, LaneTalk, Running, Talk, begin, tool_lane
from playground.ui.tools.view import LaneView, View

TICK = 0.1  # seconds between two updates of the page while a reply streams

# --- asking ---


def ask(
    services: Services,
    toolbox: list[Tool],
    view: View,
    talk: Talk,
    own: list[Tool],
    question: str,
    names: list[str],
    mode: str,
    ask_first: list[str],
    *settings: str,
) -> Iterator[dict]:
    """Run the tool loop on a question, in each lane, and show every step as it comes.

    `settings`: model, adapter and template of each lane; a further lane without a model is left out.
    """
    question = (question or "").strip()
    if not question:
        raise PlaygroundError("write a question first, for example: What is 23 * 47?")
    if talk.busy:
        raise PlaygroundError("the last question is still being answered; stop it first")
    if not settings[0]:
        raise PlaygroundError("choose a model first")
    tools = [tool for tool in (*toolbox, *own) if tool.name in names]
    asked = {i: settings[3 * i : 3 * i + 3] for i in range(LANES) if settings[3 * i]}
    made = {i: tool_lane(services, *chosen_lane, mode if tools else FREE) for i, chosen_lane in asked.items()}
    talk.asked += 1
    talk.cancelled = False
    talk.visitor = talk.visitor or uuid.uuid4().hex
    schemas = [tool.schema for tool in tools]
    # The first event is there when the prompt could be made: until then nothing changes, and the question stays.
    started: dict[int, Running] = {}
    try:
        for i, lane in made.items():
            before = talk.lanes[i]
            conversation = Conversation([*before.messages, {"role": "user", "content": question}], schemas)
            places = (*before.starts, len(before.messages))
            started[i] = begin(services, talk, Running(*lane, conversation, tools, places), ask_first)
    except PlaygroundError as error:
        for running in started.values():
            running.close()
        raise PlaygroundError(f"second lane: {error}" if started else str(error)) from None
    for i, running in started.items():
        talk.lanes[i].start(running, question)
    yield from drive(services, view, talk, {view.question: ""})


def drive(services: Services, view: View, talk: Talk, update: dict) -> Iterator[dict]:
    """Show what the lanes do, in turns, until each is done or waits for a yes or a no."""
    number, talk.driven, ended = talk.asked, True, False
    lanes = {i: lane for i, lane in enumerate(talk.lanes) if lane.busy}
    runs = [lane.running for lane in lanes.values()]
    try:
        yield {
            **update,
            view.ask: gr.update(visible=False),
            view.stop: gr.update(visible=True),
            **_shown(services, view, talk, lanes, whole=True),
        }
        shown_at = time.monotonic()
        while ready := {i: lane for i, lane in lanes.items() if _ready(lane, talk)}:
            news = [_advance(lane) for lane in ready.values()]
            if talk.asked != number:
                return
            whole = any(kind != "raw" for kind in news)
            if whole or time.monotonic() - shown_at >= TICK:
                shown_at = time.monotonic()
                yield _shown(services, view, talk, ready, whole)
        ended = True
    finally:
        if not ended:  # a visitor who left, or cleared, does not keep the model busy
            for running in runs:
                running.close()
        if talk.asked == number:
            talk.driven = False
    yield {
        view.ask: gr.update(visible=not talk.busy),
        view.stop: gr.update(visible=talk.busy),
        **_shown(services, view, talk, lanes, whole=True),
        **{part: value for i in lanes for part, value in _steps(view.lanes[i], talk.lanes[i]).items()},
    }


def _ready(lane: LaneTalk, talk: Talk) -> bool:
    """Whether the lane can go on; a call that waits goes on when it is answered, or when all is stopped."""
    running = lane.running
    return not running.done and (running.waiting is None or running.answer is not None or talk.cancelled)


def _advance(lane: LaneTalk) -> str:
    """One event further; what kind it was."""
    running = lane.running
    try:
        event = running.advance()
    except PlaygroundError as error:  # a later prompt cannot be made: the results outgrew the context
        running.shown.add("Failed", str(error), "error")
        running.close()
        return "failed"
    if event is None:
        running.shown.finished()
        return "end"
    if event.kind == "parsed":
        lane.measure()
    if event.kind == "messages" and event.messages:
        lane.messages = [*running.conversation.messages, *event.messages]
        lane.starts = running.starts
    return event.kind


def stop(talk: Talk) -> None:
    talk.cancelled = True
    for lane in talk.lanes:
        if lane.busy and lane.running.reply is not None:
            lane.running.reply.cancel()


def go_on(services: Services, view: View, talk: Talk) -> Iterator[dict]:
    """After Stop: a call that waits for an answer is not run."""
    if talk.cancelled and not talk.driven and talk.busy:
        yield from drive(services, view, talk, {})


def decide(services: Services, view: View, index: int, allowed: bool, talk: Talk) -> Iterator[dict]:
    """The visitor's yes or no to the call that waits in a lane."""
    lane = talk.lanes[index]
    if not lane.busy or lane.running.waiting is None:
        raise PlaygroundError("no call is waiting for an answer here")
    lane.running.answer = allowed
    if talk.driven:  # the other lane is still at work; its handler goes on with this one too
        yield {view.lanes[index].permission: gr.update(visible=False)}
    else:
        yield from drive(services, view, talk, {})


def again(
    services: Services, view: View, index: int, talk: Talk, choice: str | None, result: str, ask_first: list[str]
) -> Iterator[dict]:
    """Go back to a result of the lane's last question, put another in its place, and go on from there."""
    lane = talk.lanes[index]
    if talk.busy:
        raise PlaygroundError("the last question is still being answered; stop it first")
    if lane.running is None:
        raise PlaygroundError("ask something first; then a result can be edited")
    if not (result or "").strip():
        raise PlaygroundError('write what the tool should have said, for example {"temperature_c": -40}')
    before = lane.running
    position, _ = chosen(before.steps, choice)
    steps = toolloop.replay(before.steps, -1 if position is None else position, result, before.format)
    talk.asked += 1
    talk.cancelled = False
    talk.visitor = talk.visitor or uuid.uuid4().hex
    fresh = Running(before.lane, before.format, before.note, before.conversation, before.tools, before.starts)
    fresh = begin(services, talk, fresh, ask_first, steps)
    name = steps[position].call.name or "the tool"
    lane.start(fresh, f"What if {name} had said: {steps[position].text}")
    yield from drive(services, view, talk, {})


def clear(view: View, talk: Talk) -> dict:
    stop(talk)
    talk.asked += 1
    talk.lanes = [LaneTalk() for _ in range(LANES)]
    talk.driven = False
    update = {view.ask: gr.update(visible=True), view.stop: gr.update(visible=False)}
    for lane in view.lanes:
        update |= {lane.chatbot: [], lane.exact: "", lane.status: "", lane.permission: gr.update(visible=False)}
        update |= {lane.step: gr.update(choices=[], value=None), lane.text: "", lane.again: gr.update(visible=False)}
    return update


# --- what the page shows ---


def _shown(services: Services, view: View, talk: Talk, lanes: dict[int, LaneTalk], whole: bool) -> dict:
    """The chats and their status lines; with `whole` also what changes once a step."""
    update = {}
    for i, lane in lanes.items():
        part = view.lanes[i]
        update[part.chatbot] = lane.chat
        update[part.status] = status(lane, services)
        if not whole:
            continue
        waiting = lane.running.waiting
        update[part.exact] = exact(lane.running.prompts)
        update[part.permission] = gr.update(visible=waiting is not None)
        if waiting is not None:
            update[part.permission_text] = permission_text(waiting)
    return update


def status(lane: LaneTalk, services: Services) -> str:
    """How far it is, how fast, in which format; and what of the talk it was not sent."""
    running, parts = lane.running, []
    reply = running.reply
    if running.waiting is not None:
        parts.append("waiting for your yes or no")
    elif reply is not None and reply.finish_reason is None:
        loading = services.engine.state(reply.lane.model, reply.lane.adapter).startswith("loading")
        parts.append("loading the model, the answer starts when it is there" if loading else "writing")
    elif running.shown.outcome:
        parts.append(running.shown.outcome)
    if running.shown.faults:
        parts.append("faults: " + ", ".join(running.shown.faults))
    if reply is not None and reply.tokens_per_second:
        parts.append(f"{reply.tokens_per_second:.1f} tokens/s")
    first = f"<b>{html.escape(' · '.join(parts))}</b> · " if parts else ""
    left_out = running.prompts[-1].reason if running.prompts else ""
    note = f'<div class="left-out">{html.escape(left_out)}</div>' if left_out else ""
    return f'<div class="tools-status">{first}{html.escape(running.note + cost(lane.speeds))}{note}</div>'


def cost(speeds: dict[str, tuple[float, float]]) -> str:
    """What constrained decoding costs, once it was tried; with and without it, when both are known."""
    if not speeds.keys() - {FREE}:
        return ""
    parts = []
    for mode in MODES:
        if mode in speeds:
            rate, mask = speeds[mode]
            took = "" if mode == FREE else f" ({1000 * mask:.2f} ms a token for the grammar)"
            parts.append(f"{MODES[mode]} {rate:.1f}{took}")
    return f" · last seen, in tokens/s: {', '.join(parts)}"


def permission_text(event: toolloop.Event) -> str:
    return f"<p>The model wants to run <b>{html.escape(written(event.call))}</b>. Shall it?</p>"


def exact(prompts: list[toolloop.Event]) -> str:
    def heading(prompt: toolloop.Event) -> str:
        return " · ".join(filter(None, (f"turn {prompt.turn}", prompt.reason)))

    return "\n\n".join(f"─── {heading(prompt)} ───\n{prompt.text}" for prompt in prompts)


def _steps(view: LaneView, lane: LaneTalk) -> dict:
    """The steps to look at; the last result is chosen, because it can be edited."""
    steps = lane.running.steps
    results = [str(position) for position, step in enumerate(steps) if step.kind == "result"]
    offered = choices(steps)
    value = results[-1] if results else offered[-1][1] if offered else None
    return {view.step: gr.update(choices=offered, value=value), **look(view, lane, value)}


def look(view: LaneView, lane: LaneTalk, choice: str | None) -> dict:
    """The text of a step; a result's may be edited, once the question is done."""
    steps = lane.running.steps if lane.running else []
    position, text = chosen(steps, choice)
    editable = position is not None and steps[position].kind == "result" and not lane.busy
    return {view.text: gr.update(value=text, interactive=editable), view.again: gr.update(visible=editable)}


def picked(view: View, index: int, talk: Talk, choice: str | None) -> dict:
    return look(view.lanes[index], talk.lanes[index], choice)
