"""Tools: ask a model and see every step: the prompt, the call it writes, the check, the result, the answer."""

import html
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import gradio as gr

from playground.config import SamplingConfig
from playground.core import templates, tool_formats, toolloop
from playground.core.messages import Conversation
from playground.core.tool_formats import Call, Fault
from playground.core.tools import Tool, calculator, weather
from playground.errors import PlaygroundError
from playground.services.engine import Lane
from playground.services.web import fetch_json
from playground.ui.common import Services, shown

EXAMPLES = (
    "What is 23 * 47?",
    "What's the weather in Paris?",
    "What is 15% of 240 and what's the weather in Oslo?",
    "How warm is it in Pariss?",
    "Tell me a joke",
)
# A call is copied word by word: the likeliest token each time, and no penalty on what was said before.
SAMPLING = SamplingConfig(temperature=0.0, repetition_penalty=1.0, max_new_tokens=200)
FALLBACK_TEMPLATE = "chatml-tools"  # for a model whose own template cannot speak of tools
AUTOMATIC = ""
TICK = 0.1  # seconds between two updates of the page while a reply streams
QUIET = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

CSS = """
#tools-chat .message { font-size: var(--text-md); }
#tools-chat .content, #tools-chat .message-content { white-space: pre-wrap; overflow-wrap: anywhere; }
#tools-chat .bot .message-content { margin-top: 6px; }
#tools-chat .thought-group { font-size: var(--text-sm); margin: 3px 0; }
#tools-chat .thought-group .content { font-family: var(--font-mono); }
.tools-status { font-size: var(--text-sm); color: var(--body-text-color-subdued); min-height: 1.5em; padding: 0 4px; }
.tools-status b { color: var(--body-text-color); font-weight: 600; }
.tools-code .cm-content, .tools-code .cm-line { font-size: var(--text-sm); overflow-wrap: anywhere; }
"""


@dataclass
class Talk:
    """One visitor's conversation. Handlers change it in place, so that Stop reaches the reply being written."""

    messages: list[dict] = field(default_factory=list)  # what the model is sent next time
    bubbles: list[dict] = field(default_factory=list)  # what the page shows
    prompts: list[str] = field(default_factory=list)  # of the last question, one for each turn
    reply: object = None
    busy: bool = False
    cancelled: bool = False
    asked: int = 0  # how many questions; a cleared talk has another number, so an old loop sees that it is old


@dataclass(frozen=True)
class View:
    """The components that handlers write to."""

    question: gr.Textbox
    ask: gr.Button
    stop: gr.Button
    chatbot: gr.Chatbot
    status: gr.HTML
    exact: gr.Code
    model: gr.Dropdown
    adapter: gr.Dropdown
    template: gr.Dropdown

    @property
    def outputs(self) -> list:
        return [self.question, self.ask, self.stop, self.chatbot, self.status, self.exact]


# --- asking ---


def ask(
    services: Services,
    toolbox: list[Tool],
    view: View,
    talk: Talk,
    question: str,
    model: str,
    adapter: str,
    template: str,
    names: list[str],
) -> Iterator[dict]:
    """Run the tool loop on a question and show every step as it comes."""
    question = (question or "").strip()
    if not question:
        raise PlaygroundError("write a question first, for example: What is 23 * 47?")
    if talk.busy:
        raise PlaygroundError("the last question is still being answered; stop it first")
    if not model:
        raise PlaygroundError("choose a model first")
    tools = [tool for tool in toolbox if tool.name in names]
    lane, format, note = tool_lane(services, model, adapter, template)
    conversation = Conversation(
        [*talk.messages, {"role": "user", "content": question}], [tool.schema for tool in tools]
    )
    talk.asked += 1
    number = talk.asked
    talk.cancelled, talk.prompts = False, []

    def stopped() -> bool:
        return talk.cancelled or talk.asked != number

    def generate(conversation: Conversation) -> "EngineTurn":
        turn = EngineTurn(services.engine.reply(lane, conversation, stop=format.STOPS))
        talk.reply = turn.reply
        return turn

    events = toolloop.run(generate, conversation, tools, format, cancel=stopped)
    steps = Steps()
    # The first event is there when the prompt could be made: until then nothing changes, and the question stays.
    first = next(events)
    talk.busy = True
    talk.bubbles.append(bubble("user", question))
    try:
        yield {
            view.question: "",
            view.ask: gr.update(visible=False),
            view.stop: gr.update(visible=True),
            **_step(services, view, talk, steps, first, note),
        }
        shown_at = time.monotonic()
        while True:
            try:
                event = next(events)
            except StopIteration:
                break
            except PlaygroundError as error:  # a later prompt cannot be made: the results outgrew the context
                steps.add("Failed", str(error), "error")
                break
            if talk.asked != number:
                return
            if event.kind == "messages":
                talk.messages += [conversation.messages[-1], *event.messages] if event.messages else []
                continue
            update = _step(services, view, talk, steps, event, note)
            if event.kind != "raw" or time.monotonic() - shown_at >= TICK:
                shown_at = time.monotonic()
                yield update
    finally:
        events.close()  # a visitor who left does not keep the model busy
        if talk.asked == number:
            talk.busy = False
            talk.bubbles += steps.finished()
    yield {
        view.chatbot: talk.bubbles,
        view.ask: gr.update(visible=True),
        view.stop: gr.update(visible=False),
        view.status: status(steps, note, services, talk.reply),
        view.exact: exact(talk.prompts),
    }


class EngineTurn:
    """A reply of the engine as the tool loop takes it."""

    def __init__(self, reply):
        self.reply = reply
        self.prompt = reply.prompt.text

    @property
    def finish_reason(self) -> str | None:
        return self.reply.finish_reason

    @property
    def error(self) -> str | None:
        return self.reply.error

    def __iter__(self) -> Iterator[str]:
        try:
            for chunk in self.reply:
                yield chunk.text
        finally:
            if self.reply.finish_reason is None:
                self.reply.cancel()


def tool_lane(services: Services, model: str, adapter: str, template: str):
    """The lane, the format in which it writes calls, and a note about the template where one is due.

    Automatic is the adapter's or the model's own template; one that cannot speak of tools gives way to chatml-tools.
    """
    engine = services.engine
    lane = Lane(model, adapter or None, template, SAMPLING)
    tokenizer = engine.tokenizer(model)
    chosen = engine.template(lane)
    format = tool_formats.for_template(chosen, tokenizer)
    if format is not None:
        return lane, format, f"template {chosen.name}, calls in the {format.NAME} format"
    if template != AUTOMATIC:
        fitting = [value for _, value in template_choices() if value not in (AUTOMATIC, "model")]
        raise PlaygroundError(
            f"no call format is known for the template {chosen.name}; choose {', '.join(fitting)}, or automatic"
        )
    lane = Lane(model, adapter or None, FALLBACK_TEMPLATE, SAMPLING)
    format = tool_formats.for_template(engine.template(lane), tokenizer)
    note = (
        f"the model's own template leaves tools out, so {FALLBACK_TEMPLATE} is used; calls in the {format.NAME} format"
    )
    return lane, format, note


def stop(talk: Talk) -> None:
    talk.cancelled = True
    if talk.reply is not None:
        talk.reply.cancel()


def clear(view: View, talk: Talk) -> dict:
    stop(talk)
    talk.asked += 1
    talk.busy = False
    talk.messages, talk.bubbles, talk.prompts = [], [], []
    return {
        view.chatbot: [],
        view.exact: "",
        view.status: "",
        view.ask: gr.update(visible=True),
        view.stop: gr.update(visible=False),
    }


# --- from events to bubbles ---


def bubble(role: str, text: str, title: str = "", **metadata) -> dict:
    """A message for gr.Chatbot, which would obey HTML even with render_markdown off."""
    message = {"role": role, "content": html.escape(text, quote=False)}
    if title:
        message["metadata"] = {"title": html.escape(title, quote=False), **metadata}
    return message


class Steps:
    """The bubbles of one question, the last of which may still grow."""

    def __init__(self):
        self.bubbles: list[dict] = []
        self.last = ""
        self.faults: list[str] = []
        self.outcome = ""
        self.failed = False

    def add(self, title: str, text: str, kind: str, duration: float | None = None) -> None:
        open_end = {"status": "pending"} if kind == "raw" else {"status": "done"}
        if kind in ("fault", "error"):
            open_end = {}  # stays unfolded
            self.failed = True
        timed = {} if duration is None else {"duration": duration}
        self.bubbles.append(bubble("assistant", text, title, **open_end, **timed))

    def take(self, event: toolloop.Event) -> None:
        turn = f" (turn {event.turn})" if event.turn > 1 else ""
        match event.kind:
            case "prompt":
                self.add(f"The model writes{turn}", "…", "raw")
            case "raw":
                self.bubbles[-1]["content"] = html.escape(event.text, quote=False)
            case "parsed":
                self._close_raw(event)
            case "call":
                self._call(event.call)
            case "verdict":
                self._verdict(event)
            case "result":
                self._result(event)
            case "answer":
                self.bubbles.append(bubble("assistant", event.text or "(the model wrote nothing)"))
                self.outcome = "answered"
            case "error":
                self.add("The reply failed", event.text, "error")
            case "stopped":
                self._stopped(event)

    def finished(self) -> list[dict]:
        """The bubbles, none of them still turning: a visitor may have left in the middle."""
        for message in self.bubbles:
            if message.get("metadata", {}).get("status") == "pending":
                message["metadata"]["status"] = "done"
        return self.bubbles

    def _close_raw(self, event) -> None:
        message = self.bubbles[-1]
        message["content"] = html.escape(event.text or "(nothing)", quote=False)
        message["metadata"]["status"] = "done"
        if event.parsed.reasoning:
            self.add("Reasoning", event.parsed.reasoning, "step")
        if event.parsed.calls and event.parsed.content:
            self.add("Said beside the call", event.parsed.content, "step")

    def _call(self, call: Call | Fault) -> None:
        if isinstance(call, Call):
            arguments = ", ".join(f"{name} = {json.dumps(v, ensure_ascii=False)}" for name, v in call.arguments.items())
            self.add(
                _short(f"Call: {call.name}({arguments})"),
                json.dumps(call.arguments, ensure_ascii=False, indent=2),
                "step",
            )
        else:
            self.add("Call: could not be read", call.raw, "step")

    def _verdict(self, event) -> None:
        if event.fault is None:
            self.add("Check: fits the tool's schema", "name, arguments and their types", "step")
        else:
            self._fault("Check", event.fault)

    def _result(self, event) -> None:
        if event.fault is None:
            value = json.dumps(event.value, ensure_ascii=False, indent=2)
            self.add(
                _short(f"Result: {json.dumps(event.value, ensure_ascii=False)}"),
                value,
                "step",
                duration=round(event.seconds, 3),
            )
        elif event.fault.kind == "tool_error":
            self._fault("Result", event.fault)
        else:
            self.add("Not run: the fault goes back to the model", event.text, "step")

    def _fault(self, where: str, fault: Fault) -> None:
        self.faults.append(fault.title)
        self.add(f"{where}: {fault.title}", f"{fault.meaning}\n{fault.reason}", "fault")

    def _stopped(self, event) -> None:
        self.outcome = event.text
        if event.reason != "error":
            self.add(f"Ended: {event.text}", _HINTS[event.reason], "error")


def _short(text: str, longest: int = 90) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


_HINTS = {
    "turns": f"A question gets at most {toolloop.MAX_TURNS} turns.",
    "loop": "The model has this result already. A model that was not trained on results often asks again.",
    "length": f"A reply gets at most {SAMPLING.max_new_tokens} tokens.",
    "cancelled": "What was written until then is kept.",
}


def _step(services: Services, view: View, talk: Talk, steps: Steps, event: toolloop.Event, note: str) -> dict:
    steps.take(event)
    update = {view.chatbot: [*talk.bubbles, *steps.bubbles], view.status: status(steps, note, services, talk.reply)}
    if event.kind == "prompt":
        talk.prompts.append(event.text)
        update[view.exact] = exact(talk.prompts)
    return update


def status(steps: Steps, note: str, services: Services | None = None, reply=None) -> str:
    """One line: how far it is, how fast, in which format."""
    parts = []
    if reply is not None and reply.finish_reason is None and services is not None:
        state = services.engine.state(reply.lane.model)
        parts.append(
            "loading the model, the answer starts when it is there" if state.startswith("loading") else "writing"
        )
    elif steps.outcome:
        parts.append(steps.outcome)
    if steps.faults:
        parts.append("faults: " + ", ".join(steps.faults))
    if reply is not None and reply.tokens_per_second:
        parts.append(f"{reply.tokens_per_second:.1f} tokens/s")
    first = f"<b>{html.escape(' · '.join(parts))}</b> · " if parts else ""
    return f'<div class="tools-status">{first}{html.escape(note)}</div>'


def exact(prompts: list[str]) -> str:
    return "\n\n".join(f"─── turn {n} ───\n{text}" for n, text in enumerate(prompts, 1))


# --- choices ---


def model_choices(services: Services) -> list[tuple[str, str]]:
    return [(entry.title, entry.name) for entry in services.sources.entries() if services.sources.find(entry.name)]


def adapter_choices(services: Services) -> list[tuple[str, str]]:
    return [("None: the model as it is", ""), *((info.name, info.name) for info in services.engine.adapters())]


def template_choices() -> list[tuple[str, str]]:
    """Templates that write calls in a format that can be read."""
    readable = [name for name in templates.names() if tool_formats.for_template(templates.load(name))]
    return [("Automatic", AUTOMATIC), *((name, name) for name in readable), ("The model's own", "model")]


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


def refresh(services: Services, view: View, adapter: str) -> dict:
    """Models fetched and runs finished meanwhile; what is chosen stays chosen."""
    models, adapters = model_choices(services), adapter_choices(services)
    gone = adapter not in {value for _, value in adapters}
    return {
        view.model: gr.update(choices=models) if models else gr.skip(),
        view.adapter: gr.update(choices=adapters, **({"value": ""} if gone else {})),
    }


def opened(services: Services, view: View) -> dict:
    """What a fresh page shows: the adapter that calls tools is chosen, and the chat says what to do first."""
    adapter = default_adapter(services)
    return {
        **refresh(services, view, adapter),
        view.adapter: gr.update(choices=adapter_choices(services), value=adapter),
        view.chatbot: gr.update(placeholder=empty_state(services)),
    }


def schema_text(toolbox: list[Tool], names: list[str]) -> str:
    chosen = [tool.schema for tool in toolbox if tool.name in names]
    return "\n".join(json.dumps(schema, ensure_ascii=False, indent=2) for schema in chosen) or "no tools"


# --- layout ---


def make_toolbox() -> list[Tool]:
    """The tools of this process; weather asks the network, and remembers for some minutes when there is none."""
    return [calculator.make(), weather.make(fetch_json)]


def build(services: Services, toolbox: list[Tool] | None = None) -> View:
    """Lay out the tab and wire it; called inside its `gr.Tab`."""
    toolbox = make_toolbox() if toolbox is None else toolbox
    names = [tool.name for tool in toolbox]
    talk = gr.State(Talk(), delete_callback=stop)
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            chatbot = gr.Chatbot(
                height=520,
                show_label=False,
                render_markdown=False,  # what the model writes is shown as it is
                placeholder=empty_state(services),
                feedback_options=None,
                buttons=["copy"],
                elem_id="tools-chat",
            )
            line = gr.HTML(elem_id="tools-status")
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
            models = model_choices(services)
            model = gr.Dropdown(
                models or [services.model], value=services.model, label="Model", allow_custom_value=True
            )
            adapter = gr.Dropdown(
                adapter_choices(services),
                value=default_adapter(services),
                label="Adapter",
                info="with None you see the model before it learned to call",
                elem_id="tools-adapter",
            )
            template = gr.Dropdown(template_choices(), value=AUTOMATIC, label="Template")
            chosen = gr.CheckboxGroup(names, value=names, label="Tools on offer", elem_id="tools-chosen")
            with gr.Accordion("What the model is told about them", open=False, elem_classes="tools-code"):
                schemas = gr.Code(
                    schema_text(toolbox, names),
                    language="json",
                    interactive=False,
                    show_label=False,
                    wrap_lines=True,
                    max_lines=20,
                )
    with gr.Accordion("Exact prompt of every turn", open=False, elem_classes=["tools-code", "tools-exact"]):
        prompts = gr.Code(language=None, interactive=False, wrap_lines=True, show_label=False, max_lines=20)
    view = View(question, ask_button, stop_button, chatbot, line, prompts, model, adapter, template)

    gr.on(
        [ask_button.click, question.submit],
        partial(shown(ask), services, toolbox, view),
        [talk, question, model, adapter, template, chosen],
        view.outputs,
        show_progress="hidden",
        api_visibility="private",
    )
    stop_button.click(stop, talk, None, **QUIET)
    gr.on([clear_button.click, chatbot.clear], partial(clear, view), talk, view.outputs, **QUIET)
    chosen.change(partial(schema_text, toolbox), chosen, schemas, **QUIET)
    gr.on(None, partial(opened, services, view), None, [model, adapter, chatbot], **QUIET)  # when the page opens
    gr.Timer(10).tick(partial(refresh, services, view), adapter, [model, adapter], **QUIET)
    return view
