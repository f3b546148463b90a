"""Side by side: one prompt, two to four lanes answering, and a vote on any two of them."""

import html
from dataclasses import asdict
from functools import partial

import gradio as gr

from playground.config import SamplingConfig, fields
from playground.errors import PlaygroundError
from playground.services.votes import Refused, Side
from playground.ui import endpoints, more_models, token_view
from playground.ui.arena import compare, snapshot
from playground.ui.arena.chat import EDIT, Chat, LaneView, View, clear, edit, regenerate, send, stop
from playground.ui.common import QUEUED, QUIET, Services, shown, sparing
from playground.ui.lanes import (
    MAX_LANES,
    PRESETS,
    adapter_choices,
    default_lanes,
    first_choices,
    lane_title,
    model_choices,
    own_temperature,
    preset_lanes,
    template_choices,
)

EXAMPLES = (
    "What is 23 * 47?",
    "What's the weather in Paris?",
    "Write a short poem about autumn.",
    "Give three tips for staying healthy.",
)

CSS = """
.lane { min-width: min(300px, 100%) !important; gap: 6px !important; }
.lane .lane-settings button.label-wrap { min-height: 3em; font-weight: 600; align-items: flex-start; }
.lane .lane-settings button.label-wrap > .icon { align-self: flex-start; }
.lane .lane-status {
  font-size: var(--text-sm); color: var(--body-text-color-subdued); min-height: 3em; padding: 0 4px;
}
.lane .lane-status.failed { color: #a32019; overflow-wrap: anywhere; }
.dark .lane .lane-status.failed { color: #ff9c94; }
.left-out { color: #8a5300 !important; overflow-wrap: anywhere; }
.dark .left-out { color: #ffca7a !important; }
.lane .message { font-size: var(--text-md); overflow-wrap: anywhere; }
.lane .message .md { white-space: pre-wrap; }
.lane .exact .cm-content, .lane .exact .cm-line { font-size: var(--text-sm); }
.lane .exact .cm-content { padding-top: 28px; } /* below gradio's buttons, which would hide the first words */
.ask { align-items: stretch; }
.ask label.container { height: 100%; display: flex; flex-direction: column; }
.ask .input-container { flex: 1; }
.ask textarea { min-height: 100%; }
.vote-row { align-items: flex-end; }
@media (max-width: 640px) {
  .ask > .column { flex-flow: row nowrap !important; }
  .vote-row > .form { flex: 1 1 100% !important; }
  .vote-row > button { flex: 1 1 40% !important; }
}
.votes table { border-collapse: collapse; font-size: var(--text-sm); width: 100%; }
.votes :is(table, thead, tbody, tr, td, th) { border: 0 !important; }
.votes td, .votes th { padding: 3px 10px; text-align: right; }
.votes tr { border-bottom: 1px solid var(--border-color-primary) !important; }
.votes td:first-child, .votes th:first-child { text-align: left; overflow-wrap: anywhere; min-width: 13em; }
.votes { contain: inline-size; overflow-x: auto; }
"""
CSS += more_models.CSS + compare.CSS + endpoints.CSS + token_view.CSS


# --- votes ---


def vote(services: Services, view: View, choice: str, chat: Chat, left: int, right: int) -> dict:
    """Store one vote on two lanes of the last round."""
    if not chat.battle:
        if chat.voted:  # a double click
            return {view.counts: gr.skip()}
        raise PlaygroundError("there is nothing to vote on yet: ask the lanes something first")
    if left == right:
        raise PlaygroundError("a vote compares two lanes; choose two different ones")
    sides = []
    for index in (left, right):
        lane, reply = chat.lanes[index], chat.replies[index]
        if reply is None:
            raise PlaygroundError(f"lane {index + 1} has not answered; choose a lane that has")
        if reply.error:
            raise PlaygroundError(f"lane {index + 1} failed; choose a lane that has answered, or regenerate it")
        settings = {"model": lane.model, "adapter": lane.adapter, "template": lane.template, **asdict(lane.sampling)}
        if chat.left_out[index]:
            settings["left_out"] = str(chat.left_out[index])
        sides.append(Side(lane.label, settings, chat.asked[index], reply.text))
    if sides[0].name == sides[1].name:
        raise PlaygroundError(f"lanes {left + 1} and {right + 1} are set alike, so a vote on them says nothing")
    try:
        services.votes.add(chat.battle, *sides, choice, session=services.votes.session().name)
    except Refused:  # the second of two clicks at once
        return {view.counts: gr.skip()}
    chat.battle, chat.voted = "", True
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
            lines=1,  # of a field with more, gradio's Enter begins a line and does not send
            max_lines=8,
            placeholder="Ask all lanes the same thing (Enter sends, Shift + Enter begins a line)",
            elem_id="arena-prompt",
            scale=6,
            min_width=280,
        )
        with gr.Column(scale=1, min_width=120):
            send_button = gr.Button("Send", variant="primary", elem_id="arena-send")
            stop_button = gr.Button("Stop all", variant="stop", visible=False, elem_id="arena-stop")
            edit_button = gr.Button(EDIT, size="sm", visible=False, elem_id="arena-edit")
            again_button = gr.Button("Regenerate all", size="sm", visible=False, elem_id="arena-again")
            clear_button = gr.Button("Clear", size="sm", elem_id="arena-clear")
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
    buttons = (send_button, stop_button, edit_button, again_button)
    view = View(prompt, *buttons, views, left, right, vote_buttons, totals)
    compare.build(chat, left, right)
    token_view.build(services, chat, count)
    snapshot.build(chat)
    endpoints.build(services, model_choices, [lane.model for lane in views])
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
    for index, button in [*enumerate(lane.again for lane in views), (None, again_button)]:
        button.click(
            partial(shown(regenerate), services, view, index),
            [chat, *round_inputs],
            view.round_outputs,
            show_progress="hidden",
            api_visibility="private",
        )
    for index, lane in enumerate(views):
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
    edit_button.click(partial(shown(edit), view), chat, [prompt, edit_button], **QUEUED)
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
    sent = gr.State()
    look = sparing(partial(refresh, services, view), fresh)
    gr.on([gr.context.Context.root_block.load, gr.Timer(10).tick], look, sent, [*fresh, sent], **QUIET)
    return view


def _lane(services: Services, index: int, lanes: list) -> LaneView:
    settings = lanes[index] if index < len(lanes) else lanes[-1]
    model, adapter, template, temperature, system, sampling = settings
    with gr.Column(visible=index < len(lanes), elem_classes="lane", elem_id=f"lane-{index + 1}") as column:
        title = f"Lane {index + 1}: {lane_title(services, *settings)}"
        with gr.Accordion(title, open=False, elem_classes="lane-settings") as panel:
            model_box = gr.Dropdown(
                first_choices(services, model),
                value=model,
                label="Model",
                info="or a Hugging Face id or folder",
                allow_custom_value=True,
            )
            adapter_box = gr.Dropdown(
                # one that is gone meanwhile is refused by the engine, with a sentence
                adapter_choices(services),
                value=adapter,
                label="Adapter",
                allow_custom_value=True,
            )
            template_box = gr.Dropdown(
                template_choices(services), value=template, label="Template", allow_custom_value=True
            )
            # a text: gradio's page sends an empty number as 0, and every lane would be greedy
            temperature_box = gr.Textbox(
                own_temperature(temperature), label="Temperature of this lane (empty: the shared one)", max_lines=1
            )
            system_box = gr.Textbox(system, label="System prompt of this lane (empty: the shared one)", max_lines=4)
            sampling_box = gr.Textbox(
                sampling, label="Other sampling of this lane (empty: the shared one)", placeholder="seed=7 top_p=0.9"
            )
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
        panel,
        model_box,
        adapter_box,
        template_box,
        temperature_box,
        system_box,
        sampling_box,
        chatbot,
        line,
        stop_button,
        again,
        exact,
    )


def set_title(services: Services, index: int, *settings):
    return gr.update(label=f"Lane {index + 1}: {lane_title(services, *settings)}")


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
