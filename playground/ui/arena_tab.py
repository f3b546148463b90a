"""Chat: one prompt, two to four lanes answering side by side, and a vote on any two of them."""

import html
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial

import gradio as gr

from playground.config import SamplingConfig, fields
from playground.core.messages import Conversation
from playground.core.tools import TOOLS, schemas
from playground.errors import PlaygroundError
from playground.services.engine import with_seed
from playground.services.votes import Side
from playground.ui import more_models
from playground.ui.common import QUEUED, QUIET, Services, shown
from playground.ui.lanes import (
    MAX_LANES,
    PRESETS,
    adapter_choices,
    default_lanes,
    lane_title,
    model_choices,
    preset_lanes,
    read_lanes,
    template_choices,
)

MAX_CHARACTERS = 20_000  # of one message; a longer one would not fit the small models' context anyway
TICK = 0.3  # seconds between two updates while lanes stream; on two cores, more of them starve page and model

EXAMPLES = (
    "What is 23 * 47?",
    "What's the weather in Paris?",
    "Write a short poem about autumn.",
    "Give three tips for staying healthy.",
)

CSS = """
.lane { min-width: min(300px, 100%) !important; gap: 6px !important; }
.lane .lane-settings button.label-wrap { min-height: 3em; font-weight: 600; align-items: flex-start; }
.lane .lane-status {
  font-size: var(--text-sm); color: var(--body-text-color-subdued); min-height: 1.5em; padding: 0 4px;
}
.lane .lane-status.failed { color: #a32019; overflow-wrap: anywhere; }
.dark .lane .lane-status.failed { color: #ff9c94; }
.lane .message { font-size: var(--text-md); overflow-wrap: anywhere; }
.lane .message .md { white-space: pre-wrap; }
.lane .exact .cm-content, .lane .exact .cm-line { font-size: var(--text-sm); }
.ask { align-items: stretch; }
.vote-row { align-items: flex-end; }
@media (max-width: 640px) { .ask > .column { flex-flow: row nowrap !important; } }
.votes table { border-collapse: collapse; font-size: var(--text-sm); width: 100%; }
.votes td, .votes th { padding: 3px 10px; text-align: right; border-bottom: 1px solid var(--border-color-primary); }
.votes td:first-child, .votes th:first-child { text-align: left; overflow-wrap: anywhere; }
.votes { overflow-x: auto; }
"""
CSS += more_models.CSS


@dataclass
class Chat:
    """One visitor's chat. Handlers share it and change it in place, so that Stop reaches the running replies."""

    histories: list[list[dict]] = field(default_factory=lambda: [[] for _ in range(MAX_LANES)])
    replies: list = field(default_factory=lambda: [None] * MAX_LANES)
    lanes: list = field(default_factory=lambda: [None] * MAX_LANES)  # as asked in the last round
    asked: list = field(default_factory=lambda: [None] * MAX_LANES)  # the messages each of them was sent
    attempts: list[int] = field(default_factory=lambda: [0] * MAX_LANES)  # how often the last question was asked again
    battle: str = ""  # id of what can be voted on; empty before the first round and after the vote

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
    temperature: gr.Number
    chatbot: gr.Chatbot
    status: gr.HTML
    stop: gr.Button
    again: gr.Button
    exact: gr.Code

    @property
    def inputs(self) -> list:
        return [self.model, self.adapter, self.template, self.temperature]


@dataclass(frozen=True)
class View:
    """The components that handlers write to."""

    prompt: gr.Textbox
    send: gr.Button
    stop: gr.Button
    lanes: tuple[LaneView, ...]
    left: gr.Dropdown
    right: gr.Dropdown
    vote_buttons: tuple[gr.Button, ...]
    counts: gr.HTML

    @property
    def round_outputs(self) -> list:
        """What a round of answers may change."""
        per_lane = [c for lane in self.lanes for c in (lane.chatbot, lane.status, lane.stop, lane.again, lane.exact)]
        return [self.prompt, self.send, self.stop, *per_lane, *self.vote_buttons, self.left, self.right]


# --- a round: every lane answers ---


def send(services, view, chat, prompt, system, tools, sanitize, count, *values) -> Iterator[dict]:
    """Ask all lanes at once and show their answers as they come."""
    if chat.busy:
        raise PlaygroundError("the lanes are still answering; press Stop first")
    if not prompt.strip():
        raise PlaygroundError("write a prompt first, or pick one of the examples")
    if len(prompt) > MAX_CHARACTERS:
        raise PlaygroundError(
            f"a message may have at most {MAX_CHARACTERS:,} characters, this one has {len(prompt):,};"
            " shorten it and send again"
        )
    lanes = read_lanes(services, count, sanitize, values)
    histories = [[*chat.histories[index], {"role": "user", "content": prompt}] for index in range(count)]
    chat.attempts = [0] * MAX_LANES
    yield from _answer(services, view, chat, dict(enumerate(zip(lanes, histories, strict=True))), system, tools)


def regenerate(services, view, index, chat, system, tools, sanitize, count, *values) -> Iterator[dict]:
    """Ask one lane its last question again, with the settings as they are now."""
    if chat.busy:
        raise PlaygroundError("the lanes are still answering; press Stop first")
    history = chat.histories[index]
    while history and history[-1]["role"] != "user":
        history = history[:-1]
    if not history:
        raise PlaygroundError(f"lane {index + 1} has not been asked anything yet")
    lane = read_lanes(services, count, sanitize, values)[index]
    chat.attempts[index] += 1
    lane = with_seed(lane, lane.sampling.seed + chat.attempts[index])  # the same seed would give the same reply
    yield from _answer(services, view, chat, {index: (lane, history)}, system, tools, keep_prompt=True)


def _answer(services, view, chat, asked: dict, system: str, tools: bool, keep_prompt: bool = False) -> Iterator[dict]:
    """Stream `asked` ({lane index: (lane, history ending with the question)}) into the page."""
    offered = schemas(list(TOOLS)) if tools else []
    first = [{"role": "system", "content": system}] if system.strip() else []
    requests = [(lane, Conversation([*first, *history], offered)) for lane, history in asked.values()]
    replies = _start(services.engine, requests, list(asked))
    for (index, (lane, history)), reply in zip(asked.items(), replies, strict=True):
        chat.histories[index], chat.lanes[index], chat.replies[index] = history, lane, reply
        chat.asked[index] = [*first, *history]
    chat.battle = ""
    running = dict(zip(asked, replies, strict=True))
    try:
        update = {view.send: gr.update(visible=False), view.stop: gr.update(visible=True)}
        update |= {button: gr.update(interactive=False) for button in view.vote_buttons}
        if not keep_prompt:
            update[view.prompt] = ""
        for index, reply in running.items():
            update[view.lanes[index].exact] = _exact(reply)
            update[view.lanes[index].stop] = gr.update(interactive=True)
            update[view.lanes[index].again] = gr.update(interactive=False)
        while running:
            for index, reply in list(running.items()):
                if chat.replies[index] is not reply:  # this lane was cleared meanwhile
                    del running[index]
                    continue
                done = reply.done  # read before the text, so that the last text is never missed
                update[view.lanes[index].chatbot] = bubbles(chat.histories[index], reply)
                update[view.lanes[index].status] = status(reply, services.engine.state(reply.lane.model))
                if done:
                    del running[index]
                    if reply.text:
                        chat.histories[index] = [*chat.histories[index], {"role": "assistant", "content": reply.text}]
                    update[view.lanes[index].exact] = _exact(reply)
                    update[view.lanes[index].stop] = gr.update(interactive=False)
                    update[view.lanes[index].again] = gr.update(interactive=True)
            if not running:
                if sum(reply is not None for reply in chat.replies) > 1:
                    chat.battle = uuid.uuid4().hex
                    update |= {button: gr.update(interactive=True) for button in view.vote_buttons}
                update |= {view.send: gr.update(visible=True), view.stop: gr.update(visible=False)}
            yield update
            update = {}
            if running:
                time.sleep(TICK)
    finally:
        # also when the browser has gone: nobody is left to read the rest
        for reply in running.values():
            reply.cancel()


def _start(engine, requests: list, indices: list[int]) -> list:
    """All replies started together, or none: then a PlaygroundError that names the lane."""
    try:
        return engine.replies(requests)
    except PlaygroundError as error:
        for index, request in zip(indices, requests, strict=True):
            try:
                engine.prompt(*request)
            except PlaygroundError as cause:
                raise PlaygroundError(f"lane {index + 1}: {cause}") from error
        raise


def bubbles(history: list[dict], reply=None) -> list[dict]:
    """Messages for gr.Chatbot, shown as they are: it would obey HTML even with render_markdown off."""
    answer = [] if reply is None else [{"role": "assistant", "content": reply.text or "…"}]
    if reply is not None and reply.done and not reply.text:
        answer = []  # the status line says that it is empty
    return [{**message, "content": html.escape(message["content"], quote=False)} for message in [*history, *answer]]


def _exact(reply) -> str:
    return reply.prompt.text if reply.prompt is not None else ""


REASONS = {"stop": "finished", "length": "cut at the longest reply", "cancelled": "stopped", "error": "failed"}


def status(reply, engine_state: str = "ready") -> str:
    """One line of HTML under a lane: how fast it answers, or why it does not."""
    if reply.error:
        return f'<div class="lane-status failed">{html.escape(str(reply.error))}</div>'
    waiting = "loading the model …" if engine_state.startswith("loading") else "waiting …"
    parts = [f"{reply.tokens_per_second:.1f} tokens/s"] if reply.tokens_per_second else []
    parts += [f"first after {reply.first_token_s:.1f} s"] if reply.first_token_s is not None else []
    parts += [f"{len(reply.ids)} token{'s' if len(reply.ids) > 1 else ''}"] if reply.ids else []
    parts += [REASONS.get(reply.finish_reason, str(reply.finish_reason))] if reply.done else []
    parts += ["it wrote nothing"] if reply.done and not reply.text else []
    return f'<div class="lane-status">{html.escape(" · ".join(parts) or waiting)}</div>'


def stop(chat: Chat, index: int | None = None) -> None:
    """Stop one lane, or all; what they have answered stays."""
    for reply in chat.replies if index is None else [chat.replies[index]]:
        if reply is not None and not reply.done:
            reply.cancel()


def clear(view: View, chat: Chat, index: int | None = None) -> dict:
    """Empty one lane, or all; the next prompt starts a new conversation there."""
    stop(chat, index)
    chat.battle = ""
    update = {button: gr.update(interactive=False) for button in view.vote_buttons}
    for cleared in range(MAX_LANES) if index is None else [index]:
        chat.histories[cleared], chat.replies[cleared] = [], None
        lane = view.lanes[cleared]
        update |= {lane.chatbot: [], lane.status: "", lane.exact: "", lane.again: gr.update(interactive=False)}
    return update


# --- votes ---


def vote(services: Services, view: View, choice: str, chat: Chat, left: int, right: int) -> dict:
    """Store one vote on two lanes of the last round."""
    if not chat.battle:
        raise PlaygroundError("there is nothing to vote on yet: ask the lanes something first")
    if left == right:
        raise PlaygroundError("a vote compares two lanes; choose two different ones")
    sides = []
    for index in (left, right):
        lane, reply = chat.lanes[index], chat.replies[index]
        if reply is None:
            raise PlaygroundError(f"lane {index + 1} has not answered; choose a lane that has")
        settings = {"model": lane.model, "adapter": lane.adapter, "template": lane.template, **asdict(lane.sampling)}
        sides.append(Side(lane.label, settings, chat.asked[index], reply.text))
    services.votes.add(chat.battle, *sides, choice)
    chat.battle = ""
    return {view.counts: counts(services), **{button: gr.update(interactive=False) for button in view.vote_buttons}}


def counts(services: Services) -> str:
    """All votes so far, as an HTML table."""
    try:
        rows = services.votes.counts()
    except PlaygroundError as error:
        return f'<div class="votes notice failed"><p>{html.escape(str(error))}</p></div>'
    if not rows:
        return '<div class="votes">No votes yet. Ask the lanes something, then say which answer is better.</div>'
    body = "".join(
        f"<tr><td>{html.escape(row.first)} <b>vs</b> {html.escape(row.second)}</td><td>{row.first_wins}</td>"
        f"<td>{row.second_wins}</td><td>{row.ties}</td><td>{row.both_bad}</td></tr>"
        for row in rows[:12]
    )
    total = sum(row.total for row in rows)
    head = "<tr><th>Pair</th><th>first better</th><th>second better</th><th>tie</th><th>both bad</th></tr>"
    return (
        f'<div class="votes"><p>Votes so far: <b data-total="{total}">{total}</b></p><table>{head}{body}</table></div>'
    )


# --- the page ---


def build(services: Services) -> View:
    """Lay out the tab and wire it; called inside its `gr.Tab`."""
    lanes = default_lanes(services)
    chat = gr.State(Chat(), delete_callback=stop)
    with gr.Row(elem_classes="ask"):
        prompt = gr.Textbox(
            "",
            label="Prompt for all lanes",
            lines=2,
            max_lines=8,
            placeholder="Ask all lanes the same thing",
            elem_id="arena-prompt",
            scale=6,
            min_width=280,
        )
        with gr.Column(scale=1, min_width=120):
            send_button = gr.Button("Send", variant="primary", elem_id="arena-send")
            stop_button = gr.Button("Stop all", variant="stop", visible=False, elem_id="arena-stop")
            clear_button = gr.Button("Clear", elem_id="arena-clear")
    gr.Examples([[example] for example in EXAMPLES], inputs=prompt, label="Examples")
    with gr.Row():
        preset = gr.Dropdown(list(PRESETS), value=PRESETS[0], label="Preset", scale=2, min_width=240)
        count = gr.Radio([2, 3, 4], value=len(lanes), label="Lanes", scale=1, min_width=200)
    with gr.Accordion("System prompt, tools and sampling (the same for every lane)", open=False):
        system = gr.Textbox("", label="System prompt (optional)", lines=1)
        tools = gr.Checkbox(
            True,
            label="Tell the lanes about the tools",
            info="calculator and weather; templates without tools ignore it",
        )
        sanitize = gr.Checkbox(
            True,
            label="Control tokens in a message are plain text",
            info="off: a message that contains <|im_end|> can end its own turn, and write the next one",
        )
        with gr.Row():
            sampling = [
                gr.Number(f.default, label=f.name.replace("_", " "), info=f.metadata["help"], min_width=150)
                for f in fields(SamplingConfig)
            ]
    with gr.Row():
        views = tuple(_lane(services, index, lanes) for index in range(MAX_LANES))
    with gr.Row(elem_classes="vote-row"):
        names = [(f"lane {index + 1}", index) for index in range(len(lanes))]
        left = gr.Dropdown(names, value=0, label="Left", min_width=110)
        right = gr.Dropdown(names, value=len(lanes) - 1, label="Right", min_width=110)
        vote_buttons = tuple(
            gr.Button(title, interactive=False, min_width=110, size="md", elem_id=f"vote-{title.split()[0].lower()}")
            for title in ("Left is better", "Right is better", "Tie", "Both bad")
        )
    totals = gr.HTML(elem_id="arena-counts")
    view = View(prompt, send_button, stop_button, views, left, right, vote_buttons, totals)
    more_models.build(services)

    values = [c for lane in views for c in lane.inputs] + sampling
    round_inputs = [system, tools, sanitize, count, *values]
    gr.on(
        [send_button.click, prompt.submit],
        partial(shown(send), services, view),
        [chat, prompt, *round_inputs],
        view.round_outputs,
        show_progress="hidden",
        api_name="chat",
    )
    for index, lane in enumerate(views):
        lane.again.click(
            partial(shown(regenerate), services, view, index),
            [chat, *round_inputs],
            view.round_outputs,
            show_progress="hidden",
            api_visibility="private",
        )
        lane.stop.click(partial(stop, index=index), chat, None, **QUIET)
        lane.chatbot.clear(partial(clear, view, index=index), chat, view.round_outputs, **QUIET)
        gr.on(
            [c.change for c in lane.inputs],
            partial(set_title, services, index),
            lane.inputs,
            lane.settings,
            **QUIET,
        )
    stop_button.click(stop, chat, None, **QUIET)
    clear_button.click(partial(clear, view), chat, view.round_outputs, **QUIET)
    count.change(partial(set_count, view), count, [*(v.column for v in views), left, right], **QUIET)
    preset.input(
        partial(set_preset, services, view, count), preset, [count, *(c for v in views for c in v.inputs)], **QUIET
    )
    for button, choice in zip(vote_buttons, ("left", "right", "tie", "both bad"), strict=True):
        button.click(
            partial(shown(vote), services, view, choice),
            [chat, left, right],
            [totals, *vote_buttons],
            **QUEUED,
        )
    # finished runs and fetched models appear without a restart; votes of other visitors are counted
    fresh = [totals, *(c for v in views for c in (v.model, v.adapter))]
    gr.on(None, partial(refresh, services, view), None, fresh, **QUIET)  # when the page opens
    gr.Timer(10).tick(partial(refresh, services, view), None, fresh, **QUIET)
    return view


def _lane(services: Services, index: int, lanes: list) -> LaneView:
    model, adapter, template, temperature = lanes[index] if index < len(lanes) else lanes[-1]
    with gr.Column(visible=index < len(lanes), elem_classes="lane", elem_id=f"lane-{index + 1}") as column:
        title = f"Lane {index + 1}: {lane_title(services, model, adapter, template, temperature)}"
        with gr.Accordion(title, open=False, elem_classes="lane-settings") as settings:
            model_box = gr.Dropdown(
                model_choices(services) or [model],
                value=model,
                label="Model",
                info="or a Hugging Face id or folder",
                allow_custom_value=True,
            )
            adapter_box = gr.Dropdown(adapter_choices(services), value=adapter, label="Adapter")
            template_box = gr.Dropdown(template_choices(services), value=template, label="Template")
            temperature_box = gr.Number(temperature, label="Temperature of this lane (empty: the shared one)")
        chatbot = gr.Chatbot(
            height=340,
            show_label=False,
            # replies are shown as the exact text (see `bubbles`): markers such as <tool_call> stay visible
            render_markdown=False,
            placeholder="Ask something above.",
            feedback_options=None,
            buttons=[],
        )
        line = gr.HTML(elem_classes="lane-line")
        with gr.Row():
            stop_button = gr.Button("Stop", size="sm", interactive=False, min_width=60)
            again = gr.Button("Regenerate", size="sm", interactive=False, min_width=60)
        with gr.Accordion("Exact prompt", open=False, elem_classes="exact"):
            exact = gr.Code(language=None, interactive=False, wrap_lines=True, show_label=False, max_lines=20)
    return LaneView(
        column,
        settings,
        model_box,
        adapter_box,
        template_box,
        temperature_box,
        chatbot,
        line,
        stop_button,
        again,
        exact,
    )


def set_title(services: Services, index: int, model, adapter, template, temperature):
    return gr.update(label=f"Lane {index + 1}: {lane_title(services, model, adapter, template, temperature)}")


def set_count(view: View, count: int) -> dict:
    names = [(f"lane {index + 1}", index) for index in range(count)]
    update = {lane.column: gr.update(visible=index < count) for index, lane in enumerate(view.lanes)}
    return update | {
        view.left: gr.update(choices=names, value=0),
        view.right: gr.update(choices=names, value=count - 1),
    }


def set_preset(services: Services, view: View, count: gr.Radio, preset: str) -> dict:
    lanes = preset_lanes(services, preset)
    update = {count: len(lanes)}
    for view_lane, settings in zip(view.lanes, lanes, strict=False):
        update |= dict(zip(view_lane.inputs, settings, strict=True))
    return update


def refresh(services: Services, view: View) -> dict:
    models, adapters = model_choices(services), adapter_choices(services)
    update = {view.counts: counts(services)}
    for lane in view.lanes:
        update[lane.model] = gr.update(choices=models) if models else gr.skip()
        update[lane.adapter] = gr.update(choices=adapters)
    return update
