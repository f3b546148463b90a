"""A round of the chat: one prompt, every lane answers; what is shown, stopped, asked again, edited and cleared."""

import html
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import gradio as gr

from playground.core.jsonl import printable
from playground.core.messages import Conversation
from playground.core.tools import TOOLS, schemas
from playground.errors import PlaygroundError
from playground.services.engine import Reply, with_seed
from playground.ui.lanes import MAX_LANES, check_here, read_lanes, read_systems

MAX_CHARACTERS = 20_000  # of one message; a longer one would not fit the small models' context anyway
TICK = 0.3  # seconds between two updates while lanes stream; on two cores, more of them starve page and model
EDIT, KEEP = "Edit last question", "Do not edit"
NO_REPLY = "(no reply; what follows is sent without this question)"


@dataclass
class Chat:
    """One visitor's chat. Handlers share it and change it in place, so that Stop reaches the running replies."""

    visitor: str = field(default="", compare=False)  # tells visitors apart, and nothing else; from the first question
    histories: list[list[dict]] = field(default_factory=lambda: [[] for _ in range(MAX_LANES)])
    replies: list = field(default_factory=lambda: [None] * MAX_LANES)
    lanes: list = field(default_factory=lambda: [None] * MAX_LANES)  # as asked in the last round
    asked: list = field(default_factory=lambda: [None] * MAX_LANES)  # the messages up to the question of each of them
    left_out: list = field(default_factory=lambda: [None] * MAX_LANES)  # what of them did not fit, an exchanges.LeftOut
    attempts: list[int] = field(default_factory=lambda: [0] * MAX_LANES)  # how often the last question was asked again
    question: str = ""  # the last one
    editing: bool = False  # the next prompt takes the place of the last question and its answers
    battle: str = ""  # id of what can be voted on; empty before the first round and after the vote
    voted: bool = False  # the last round has its vote

    @property
    def busy(self) -> bool:
        return any(reply is not None and not reply.done for reply in self.replies)


@dataclass(frozen=True)
class LaneView:
    """The components of one lane."""

    column: gr.Column
    settings: gr.Accordion
    model: gr.Dropdown
    adapter: gr.Dropdown
    template: gr.Dropdown
    temperature: gr.Textbox
    system: gr.Textbox
    sampling: gr.Textbox
    chatbot: gr.Chatbot
    status: gr.HTML
    stop: gr.Button
    again: gr.Button
    exact: gr.Code

    @property
    def inputs(self) -> list:
        return [self.model, self.adapter, self.template, self.temperature, self.system, self.sampling]


@dataclass(frozen=True)
class View:
    """The components that handlers write to."""

    prompt: gr.Textbox
    send: gr.Button
    stop: gr.Button
    edit: gr.Button
    again: gr.Button
    lanes: tuple[LaneView, ...]
    left: gr.Dropdown
    right: gr.Dropdown
    vote_buttons: tuple[gr.Button, ...]
    counts: gr.HTML

    @property
    def round_outputs(self) -> list:
        """What a round of answers may change."""
        per_lane = [c for lane in self.lanes for c in (lane.chatbot, lane.status, lane.stop, lane.again, lane.exact)]
        buttons = (self.send, self.stop, self.edit, self.again)
        return [self.prompt, *buttons, *per_lane, *self.vote_buttons, self.left, self.right]


# --- a round: every lane answers ---


def send(services, view, chat, prompt, system, tools, sanitize, count, *values) -> Iterator[dict]:
    """Ask all lanes at once and show their answers as they come."""
    if chat.busy:
        raise PlaygroundError("the lanes are still answering; press Stop first")
    prompt, system, *values = printable([prompt, system, *values])
    if not prompt.strip():
        raise PlaygroundError("write a prompt first, or pick one of the examples")
    if len(prompt) > MAX_CHARACTERS:
        raise PlaygroundError(
            f"a message may have at most {MAX_CHARACTERS:,} characters, this one has {len(prompt):,};"
            " shorten it and send again"
        )
    lanes = read_lanes(services, count, sanitize, values)
    # a lane that sat out the last round keeps what it was asked before
    edited = [chat.editing and _last_question(history) == chat.question for history in chat.histories]
    before = [_before_last(h) if again else h for h, again in zip(chat.histories, edited, strict=True)]
    histories = [[*before[index], {"role": "user", "content": prompt}] for index in range(count)]
    asked = dict(enumerate(zip(lanes, histories, read_systems(count, system, values), strict=True)))
    yield from _answer(services, view, chat, asked, tools, prompt)


def _before_last(history: list[dict]) -> list[dict]:
    """The turns before the last question; all of them where nothing was asked yet."""
    asked = [place for place, message in enumerate(history) if message["role"] == "user"]
    return history[: asked[-1]] if asked else history


def edit(view: View, chat: Chat) -> dict:
    """Put the last question back into the prompt's field: sending it replaces the question and its answers."""
    if chat.busy:
        raise PlaygroundError("the lanes are still answering; press Stop first")
    if chat.editing:
        chat.editing = False
        return {view.prompt: "", view.edit: EDIT}
    if not any(chat.histories):
        raise PlaygroundError("nothing has been asked yet; write a prompt and send it")
    chat.editing = True
    return {view.prompt: chat.question, view.edit: KEEP}


def _last_question(history: list[dict]) -> str | None:
    return next((message["content"] for message in reversed(history) if message["role"] == "user"), None)


def regenerate(services, view, index, chat, system, tools, sanitize, count, *values) -> Iterator[dict]:
    """Ask one lane (None: all that were asked) its last question again, with the settings as they are now."""
    if chat.busy:
        raise PlaygroundError("the lanes are still answering; press Stop first")
    again = [i for i in range(count) if chat.histories[i]] if index is None else [index]
    if not again:
        raise PlaygroundError("nothing has been asked yet; write a prompt and send it")
    if not chat.histories[again[0]]:
        raise PlaygroundError(f"lane {index + 1} has not been asked anything yet")
    system, *values = printable([system, *values])
    lanes, systems = read_lanes(services, count, sanitize, values), read_systems(count, system, values)
    asked = {}
    for i in again:
        question = {"role": "user", "content": _last_question(chat.histories[i])}
        # the same seed would give the same reply
        lane = with_seed(lanes[i], lanes[i].sampling.seed + chat.attempts[i] + 1)
        asked[i] = (lane, [*_before_last(chat.histories[i]), question], systems[i])
    yield from _answer(services, view, chat, asked, tools)


def _answer(services, view, chat, asked: dict, tools: bool, new: str | None = None) -> Iterator[dict]:
    """Stream `asked` ({lane index: (lane, history ending with the question, system prompt)}) into the page.

    `new` is the question; None: it was asked before, so what stands in the prompt's field is the next one and stays.
    """
    offered = schemas(list(TOOLS)) if tools else []
    sent = {
        index: [*([{"role": "system", "content": system}] if system.strip() else []), *answered(history)]
        for index, (_, history, system) in asked.items()
    }
    requests = [(lane, Conversation(sent[index], offered)) for index, (lane, _, _) in asked.items()]
    chat.visitor = chat.visitor or uuid.uuid4().hex
    started = _start(services, dict(zip(asked, requests, strict=True)), chat.visitor)
    for (index, (lane, history, _)), (reply, left_out) in zip(asked.items(), started, strict=True):
        chat.histories[index], chat.lanes[index], chat.replies[index] = history, lane, reply
        chat.asked[index], chat.left_out[index] = sent[index], left_out
        chat.attempts[index] = chat.attempts[index] + 1 if new is None else 0
    chat.battle, chat.voted = "", False
    running = {index: reply for index, (reply, _) in zip(asked, started, strict=True)}
    try:
        update = {view.send: gr.update(visible=False), view.stop: gr.update(visible=True)}
        update |= {button: gr.update(interactive=False) for button in view.vote_buttons}
        update[view.again] = gr.update(visible=True, interactive=False)
        if new is not None:
            chat.question, chat.editing = new, False
            update |= {view.prompt: "", view.edit: gr.update(value=EDIT, visible=True)}
        for index, reply in running.items():
            update[view.lanes[index].exact] = _exact(reply, chat.left_out[index])
            update[view.lanes[index].stop] = gr.update(interactive=True)
            update[view.lanes[index].again] = gr.update(interactive=False)
        while running:
            for index, reply in list(running.items()):
                if chat.replies[index] is not reply:  # this lane was cleared meanwhile, or asked again at the same time
                    reply.cancel()
                    del running[index]
                    continue
                done = reply.done  # read before the text, so that the last text is never missed
                update[view.lanes[index].chatbot] = bubbles(chat.histories[index], reply)
                state = services.engine.state(reply.lane.model, reply.lane.adapter)
                ahead, left_out = services.engine.ahead(reply), chat.left_out[index]
                update[view.lanes[index].status] = status(reply, state, ahead, left_out)
                if done:
                    del running[index]
                    if reply.text:
                        chat.histories[index] = [*chat.histories[index], {"role": "assistant", "content": reply.text}]
                    update[view.lanes[index].exact] = _exact(reply, chat.left_out[index])
                    update[view.lanes[index].stop] = gr.update(interactive=False)
                    update[view.lanes[index].again] = gr.update(interactive=True)
            if not running:
                if sum(reply is not None and not reply.error for reply in chat.replies) > 1:
                    chat.battle = uuid.uuid4().hex
                    update |= {button: gr.update(interactive=True) for button in view.vote_buttons}
                update |= {view.send: gr.update(visible=True), view.stop: gr.update(visible=False)}
                update[view.again] = gr.update(visible=any(chat.histories), interactive=True)
            yield update
            update = {}
            if running:
                time.sleep(TICK)
    finally:
        # also when the browser has gone: nobody is left to read the rest
        for reply in running.values():
            reply.cancel()


def answered(history: list[dict]) -> list[dict]:
    """Without questions that got no reply: many templates refuse two messages of the user's in a row."""
    after = [*history[1:], {"role": "assistant"}]
    return [turn for turn, next in zip(history, after, strict=True) if (turn["role"], next["role"]) != ("user", "user")]


def _start(services, requests: dict, visitor: str) -> list[tuple]:
    """A reply of each lane ({index: (lane, conversation)}), and what is left out of its prompt. A lane that cannot
    start has a reply that failed, with its sentence; where none can, that is a PlaygroundError."""
    fitted, replies, errors = {}, {}, {}
    for index, (lane, conversation) in requests.items():
        try:
            check_here(services, lane.model, lane.template)
            fitted[index] = services.engine.fitted(lane, conversation)
        except PlaygroundError as error:
            errors[index] = error
    short = {index: (requests[index][0], conversation) for index, (conversation, _) in fitted.items()}
    try:
        replies = dict(zip(short, services.engine.replies(list(short.values()), visitor=visitor), strict=True))
    except PlaygroundError:  # one of them cannot start, or there is no place for all
        for index, request in short.items():
            try:
                replies[index] = services.engine.replies([request], visitor=visitor)[0]
            except PlaygroundError as error:
                errors[index] = error
    if not replies:
        index, error = min(errors.items())
        shared = len(errors) > 1 and len({str(one) for one in errors.values()}) == 1
        raise PlaygroundError(str(error) if shared else f"lane {index + 1}: {error}") from error
    replies |= {index: Reply.failed(requests[index][0], str(error)) for index, error in errors.items()}
    return [(replies[index], fitted[index][1] if index in fitted else None) for index in requests]


def bubbles(history: list[dict], reply=None) -> list[dict]:
    """Messages for gr.Chatbot, shown as they are: it would obey HTML even with render_markdown off."""
    answer = [] if reply is None else [{"role": "assistant", "content": reply.text or "…"}]
    if reply is not None and reply.done and not reply.text:
        answer = []  # the status line says that it is empty
    shown = []
    for turn in [*history, *answer]:
        if turn["role"] == "user" and shown and shown[-1]["role"] == "user":
            shown.append({"role": "assistant", "content": NO_REPLY})
        shown.append({**turn, "content": html.escape(turn["content"], quote=False)})
    return shown


def _exact(reply, left_out=None) -> str:
    heading = f"─── {left_out} ───\n" if left_out else ""
    return heading + reply.prompt.text if reply.prompt is not None else ""


REASONS = {"stop": "finished", "length": "cut at the longest reply", "cancelled": "stopped", "error": "failed"}


def status(reply, engine_state: str = "ready", ahead: int = 0, left_out=None) -> str:
    """HTML under a lane: how fast it answers, or why it does not; and what of the chat it was not sent."""
    note = f'<div class="lane-status left-out">{html.escape(str(left_out))}</div>' if left_out else ""
    if reply.error:
        return f'<div class="lane-status failed">{html.escape(str(reply.error))}</div>{note}'
    waiting = f"waiting, {ahead} before it …" if ahead else "waiting …"
    waiting = "loading the model …" if engine_state.startswith("loading") else waiting
    parts = [f"{reply.tokens_per_second:.1f} tokens/s"] if reply.tokens_per_second else []
    parts += [f"first after {reply.first_token_s:.1f} s"] if reply.first_token_s is not None else []
    parts += [f"{reply.count} token{'s' if reply.count > 1 else ''}"] if reply.count else []
    parts += [REASONS.get(reply.finish_reason, str(reply.finish_reason))] if reply.done else []
    parts += ["it wrote nothing"] if reply.done and not reply.text else []
    return f'<div class="lane-status">{html.escape(" · ".join(parts) or waiting)}</div>{note}'


def stop(chat: Chat, index: int | None = None) -> None:
    """Stop one lane, or all; what they have answered stays."""
    for reply in chat.replies if index is None else [chat.replies[index]]:
        if reply is not None and not reply.done:
            reply.cancel()


def clear(view: View, chat: Chat, index: int | None = None) -> dict:
    """Empty one lane, or all; the next prompt starts a new conversation there."""
    stop(chat, index)
    chat.battle, chat.voted, chat.editing = "", False, False
    update = {button: gr.update(interactive=False) for button in view.vote_buttons}
    for cleared in range(MAX_LANES) if index is None else [index]:
        chat.histories[cleared], chat.replies[cleared], chat.left_out[cleared] = [], None, None
        lane = view.lanes[cleared]
        update |= {lane.chatbot: [], lane.status: "", lane.exact: "", lane.again: gr.update(interactive=False)}
    update[view.edit] = gr.update(value=EDIT, visible=any(chat.histories))
    update[view.again] = gr.update(visible=any(chat.histories))
    return update
