"""Tools: ask a model and see every step: the prompt, the call it writes, the check, the result, the answer."""

import html
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import gradio as gr

from playground.core import tool_formats, toolloop
from playground.core.messages import Conversation
from playground.core.tools import Tool, catalog, make_tools
from playground.core.tools.catalog import PYTHON
from playground.errors import PlaygroundError
from playground.services.python_tool import Python, allowed
from playground.services.tool_limits import ToolLimits
from playground.services.web import fetch_json
from playground.ui import own_tools, scorecard
from playground.ui.common import QUEUED, QUIET, Services, shown
from playground.ui.tool_steps import choices, chosen, written
from playground.ui.tool_talk import (
    AUTOMATIC,
    FREE,
    LANES,
    MODES,
    LaneTalk,
    Running,
    Talk,
    begin,
    template_choices,
    tool_lane,
)

EXAMPLES = (
    "What is 23 * 47?",
    "What's the weather in Paris?",
    "What is 15% of 240 and what's the weather in Oslo?",
    "How warm is it in Pariss?",
    "Tell me a joke",
)
TICK = 0.1  # seconds between two updates of the page while a reply streams

CSS = (
    """
#tools-chat, #tools-chat-2 { min-width: 0; }
.tools-chat .message { font-size: var(--text-md); }
.tools-chat .content, .tools-chat .message-content { white-space: pre-wrap; overflow-wrap: anywhere; }
.tools-chat .bot .message-content { margin-top: 6px; }
.tools-chat .thought-group { font-size: var(--text-sm); margin: 3px 0; }
.tools-chat .thought-group .content { font-family: var(--font-mono); }
.tools-picture { max-width: 100%; height: auto; background: #fff; border-radius: var(--radius-md); }
.tools-lane { min-width: min(300px, 100%) !important; }
.tools-status { font-size: var(--text-sm); color: var(--body-text-color-subdued); min-height: 1.5em; padding: 0 4px; }
.tools-status b { color: var(--body-text-color); font-weight: 600; }
.tools-permission { border: 1px solid var(--primary-600); border-radius: var(--radius-lg); padding: 8px 12px; }
.tools-permission p { margin: 0; overflow-wrap: anywhere; }
.tools-step textarea { font-family: var(--font-mono); font-size: var(--text-sm); }
.tools-code .cm-content, .tools-code .cm-line { font-size: var(--text-sm); overflow-wrap: anywhere; }
.tools-about td { vertical-align: top; padding: 4px 8px; font-size: var(--text-sm); overflow-wrap: anywhere; }
"""
    + scorecard.CSS
)


@dataclass(frozen=True)
class LaneView:
    """The components of one lane."""

    column: gr.Column
    chatbot: gr.Chatbot
    status: gr.HTML
    permission: gr.Group
    permission_text: gr.HTML
    step: gr.Dropdown
    text: gr.Textbox
    again: gr.Button
    exact: gr.Code

    @property
    def outputs(self) -> list:
        names = ("chatbot", "status", "permission", "permission_text", "step", "text", "again", "exact")
        return [getattr(self, name) for name in names]


@dataclass(frozen=True)
class View:
    """The components that handlers write to."""

    question: gr.Textbox
    ask: gr.Button
    stop: gr.Button
    settings: tuple[tuple[gr.Dropdown, gr.Dropdown, gr.Dropdown], ...]  # model, adapter, template of each lane
    lanes: tuple[LaneView, ...]

    @property
    def outputs(self) -> list:
        return [self.question, self.ask, self.stop, *(part for lane in self.lanes for part in lane.outputs)]


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
    schemas = [tool.schema for tool in tools]
    # The first event is there when the prompt could be made: until then nothing changes, and the question stays.
    started: dict[int, Running] = {}
    try:
        for i, lane in made.items():
            conversation = Conversation([*talk.lanes[i].messages, {"role": "user", "content": question}], schemas)
            started[i] = begin(services, talk, Running(*lane, conversation, tools), ask_first)
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
    fresh = Running(before.lane, before.format, before.note, before.conversation, before.tools)
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
    """One line: how far it is, how fast, in which format."""
    running, parts = lane.running, []
    reply = running.reply
    if running.waiting is not None:
        parts.append("waiting for your yes or no")
    elif reply is not None and reply.finish_reason is None:
        loading = services.engine.state(reply.lane.model).startswith("loading")
        parts.append("loading the model, the answer starts when it is there" if loading else "writing")
    elif running.shown.outcome:
        parts.append(running.shown.outcome)
    if running.shown.faults:
        parts.append("faults: " + ", ".join(running.shown.faults))
    if reply is not None and reply.tokens_per_second:
        parts.append(f"{reply.tokens_per_second:.1f} tokens/s")
    first = f"<b>{html.escape(' · '.join(parts))}</b> · " if parts else ""
    return f'<div class="tools-status">{first}{html.escape(running.note + cost(lane.speeds))}</div>'


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


def exact(prompts: list[str]) -> str:
    return "\n\n".join(f"─── turn {n} ───\n{text}" for n, text in enumerate(prompts, 1))


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


# --- choices ---


def model_choices(services: Services) -> list[tuple[str, str]]:
    return [(entry.title, entry.name) for entry in services.sources.entries() if services.sources.find(entry.name)]


def adapter_choices(services: Services) -> list[tuple[str, str]]:
    return [("None: the model as it is", ""), *((info.name, info.name) for info in services.engine.adapters())]


def default_adapter(services: Services) -> str:
    """The first adapter for this model that was trained on tool calls, else none."""
    for info in services.engine.adapters():
        if info.base_model == services.model and info.template and tool_formats.for_template(info.template):
            return info.name
    return ""


def empty_state(services: Services) -> str:
    """What the chat says before the first question."""
    if not model_choices(services):
        return "No model is on this machine yet. Get one with the button at the top of the page; then ask here."
    if not default_adapter(services):
        return (
            "No tool-calling adapter is here yet, so the untuned model answers: it rarely calls a tool."
            " Train one under Fine-tune with the recipe Tool calling."
        )
    return "Ask something that needs a tool, or something that does not."


def refresh(services: Services, view: View, *adapters: str) -> dict:
    """Models fetched and runs finished meanwhile; what is chosen stays chosen."""
    models, offered = model_choices(services), adapter_choices(services)
    update = {}
    for i, (adapter, (model_box, adapter_box, _)) in enumerate(zip(adapters, view.settings, strict=True)):
        gone = adapter not in {value for _, value in offered}
        update[model_box] = gr.update(choices=[NOBODY, *models] if i else models) if models else gr.skip()
        update[adapter_box] = gr.update(choices=offered, **({"value": ""} if gone else {}))
    return update


def opened(services: Services, view: View) -> dict:
    """What a fresh page shows: the adapter that calls tools is chosen, and the chat says what to do first."""
    adapter = default_adapter(services)
    return {
        **refresh(services, view, adapter, ""),
        view.settings[0][1]: gr.update(choices=adapter_choices(services), value=adapter),
        view.lanes[0].chatbot: gr.update(placeholder=empty_state(services)),
    }


def schema_text(toolbox: list[Tool], names: list[str], own: list[Tool] = ()) -> str:
    offered = [tool.schema for tool in (*toolbox, *own) if tool.name in names]
    return "\n".join(json.dumps(schema, ensure_ascii=False, indent=2) for schema in offered) or "no tools"


def available_tools(services: Services, python: Python | None) -> list[Tool]:
    """The tools of this process, each within bounds of time and size; weather remembers when there is no network."""
    limits = ToolLimits()
    names = [entry.name for entry in catalog(python=python is not None)]
    made = make_tools(names, fetch_json, python)
    # the Python tool has a queue and a clock of its own
    return [limits.bounded(tool, 20 if tool.name == PYTHON else None) for tool in made]


def tool_choices(toolbox: list[Tool]) -> list[str]:
    return [tool.name for tool in toolbox]


def first_offered(toolbox: list[Tool]) -> list[str]:
    """The tools that are on when the page opens: those the shipped adapter was trained with."""
    default = {entry.name for entry in catalog() if entry.default}
    return [tool.name for tool in toolbox if tool.name in default]


def about_tools(toolbox: list[Tool]) -> str:
    """What each tool does, whether it needs the network, and what can go wrong."""
    names = {tool.name for tool in toolbox}
    rows = "".join(
        f"<tr><td><b>{html.escape(entry.title)}</b><br><code>{html.escape(entry.name)}</code></td>"
        f"<td>{html.escape(f'{entry.description} {entry.risk} Network: {entry.network}.')}</td></tr>"
        for entry in catalog()
        if entry.name in names
    )
    return f'<div class="tools-about"><table>{rows}</table></div>'


# --- layout ---

NOBODY = ("None: one lane", "")


def build(services: Services, toolbox: list[Tool] | None = None) -> View:
    """Lay out the tab and wire it; called inside its `gr.Tab`."""
    python = Python() if allowed(services.host) else None
    toolbox = available_tools(services, python) if toolbox is None else toolbox
    names = tool_choices(toolbox)
    talk, own = gr.State(Talk(), delete_callback=stop), gr.State([])
    permissions, lanes = [], []
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            with gr.Row():
                for index in range(LANES):
                    lane, buttons = _lay_out_lane(services, index)
                    lanes.append(lane)
                    permissions.append(buttons)
            question = gr.Textbox(
                label="Question",
                lines=2,
                max_lines=6,
                placeholder="Ask for a number, the weather of a city, or something else",
                elem_id="tools-question",
            )
            with gr.Row():
                ask_button = gr.Button("Ask", variant="primary", elem_id="tools-ask", min_width=100)
                stop_button = gr.Button("Stop", variant="stop", visible=False, elem_id="tools-stop", min_width=100)
                clear_button = gr.Button("Clear", elem_id="tools-clear", min_width=100)
            gr.Examples([[example] for example in EXAMPLES], inputs=question, label="Examples")
        with gr.Column(scale=1, min_width=260):
            first = _lay_out_settings(services)
            offered = gr.CheckboxGroup(
                names, value=first_offered(toolbox), label="Tools on offer", elem_id="tools-chosen"
            )
            with gr.Accordion("What these tools do", open=False):
                gr.HTML(about_tools(toolbox))
            asking = gr.CheckboxGroup(names, value=[], label="Ask before running", elem_id="tools-ask-first")
            mode = gr.Radio(
                [(label, value) for value, label in MODES.items()],
                value=FREE,
                label="Only valid calls",
                info="A grammar gives a call its form. Which tool it asks, and for what, the model must have learned."
                " Must call holds until there is a result.",
                elem_id="tools-mode",
            )
            with gr.Accordion("Second lane, on the same question", open=False, elem_id="tools-second"):
                second = _lay_out_settings(services, second=True)
            with gr.Accordion("What the model is told about the tools", open=False, elem_classes="tools-code"):
                schemas = gr.Code(
                    schema_text(toolbox, first_offered(toolbox)),
                    language="json",
                    interactive=False,
                    show_label=False,
                    wrap_lines=True,
                    max_lines=20,
                )
            own_tools.build(toolbox, own, [offered, asking], python)
    view = View(question, ask_button, stop_button, (first, second), tuple(lanes))

    gr.on(
        [ask_button.click, question.submit],
        partial(shown(ask), services, toolbox, view),
        [talk, own, question, offered, mode, asking, *first, *second],
        view.outputs,
        **QUEUED,
    )
    stop_button.click(stop, talk, None, **QUIET).then(
        partial(shown(go_on), services, view), talk, view.outputs, **QUEUED
    )
    gr.on(
        [clear_button.click, *(lane.chatbot.clear for lane in lanes)],
        partial(clear, view),
        talk,
        view.outputs,
        **QUIET,
    )
    for index, (lane, (yes, no)) in enumerate(zip(lanes, permissions, strict=True)):
        for button, answer in ((yes, True), (no, False)):
            button.click(partial(shown(decide), services, view, index, answer), talk, view.outputs, **QUEUED)
        lane.step.input(partial(picked, view, index), [talk, lane.step], [lane.text, lane.again], **QUIET)
        lane.again.click(
            partial(shown(again), services, view, index), [talk, lane.step, lane.text, asking], view.outputs, **QUEUED
        )
    second[0].change(lambda model: gr.update(visible=bool(model)), second[0], lanes[1].column, **QUIET)
    offered.change(partial(schema_text, toolbox), [offered, own], schemas, **QUIET)
    with gr.Accordion("Scorecard: many questions, counted by what went wrong", open=False, elem_id="tools-scorecard"):
        scorecard.build(services)
    boxes = [first[0], first[1], second[0], second[1]]
    gr.on(None, partial(opened, services, view), None, [*boxes, lanes[0].chatbot], **QUIET)  # when the page opens
    gr.Timer(10).tick(partial(refresh, services, view), [first[1], second[1]], boxes, **QUIET)
    return view


def _lay_out_lane(services: Services, index: int) -> tuple[LaneView, tuple[gr.Button, gr.Button]]:
    """One lane: its chat, its status, a question about a call, its steps, its prompts."""
    suffix = f"-{index + 1}" if index else ""
    of = " of the second lane" if index else ""
    with gr.Column(min_width=300, visible=index == 0, elem_classes="tools-lane") as column:
        chatbot = gr.Chatbot(
            height=520,
            show_label=False,
            render_markdown=False,  # what the model writes is shown as it is
            placeholder=empty_state(services) if index == 0 else "The second lane answers the same question here.",
            feedback_options=None,
            buttons=[],  # its own copy would hold the entities that bubbles are written with; steps are copied below
            elem_id=f"tools-chat{suffix}",
            elem_classes="tools-chat",
        )
        line = gr.HTML(elem_id=f"tools-status{suffix}")
        with gr.Group(visible=False, elem_classes="tools-permission", elem_id=f"tools-permission{suffix}") as group:
            text = gr.HTML()
            with gr.Row():
                yes = gr.Button("Yes, run it", variant="primary", size="sm", min_width=100)
                no = gr.Button("No", size="sm", min_width=100)
        with gr.Accordion(f"Copy or change a step{of}", open=False, elem_id=f"tools-steps{suffix}"):
            step = gr.Dropdown([], label=f"Step{of}")
            written_out = gr.Textbox(
                label=f"What it holds{of}",
                info="A result can be edited: what if the tool had said something else?",
                lines=3,
                max_lines=14,
                interactive=False,
                buttons=["copy"],
                elem_classes="tools-step",
            )
            rerun = gr.Button("Run again from here with this result", visible=False, elem_id=f"tools-again{suffix}")
        title = f"Exact prompts{of}" if index else "Exact prompt of every turn"
        with gr.Accordion(title, open=False, elem_classes=["tools-code", f"tools-exact{suffix}"]):
            prompts = gr.Code(language=None, interactive=False, wrap_lines=True, show_label=False, max_lines=20)
    return LaneView(column, chatbot, line, group, text, step, written_out, rerun, prompts), (yes, no)


def _lay_out_settings(services: Services, second: bool = False) -> tuple[gr.Dropdown, gr.Dropdown, gr.Dropdown]:
    """Model, adapter and template of a lane."""
    models = model_choices(services) or [services.model]
    model = gr.Dropdown(
        [NOBODY, *models] if second else models,
        value="" if second else services.model,
        label="Second model" if second else "Model",
        allow_custom_value=True,
        elem_id="tools-model-2" if second else "tools-model",
    )
    adapter = gr.Dropdown(
        adapter_choices(services),
        value="" if second else default_adapter(services),
        label="Second adapter" if second else "Adapter",
        info=None if second else "with None you see the model before it learned to call",
        elem_id="tools-adapter-2" if second else "tools-adapter",
    )
    template = gr.Dropdown(template_choices(), value=AUTOMATIC, label="Second template" if second else "Template")
    return model, adapter, template
