"""Tools: ask a model and see every step: the prompt, the call it writes, the check, the result, the answer."""

from dataclasses import replace
from functools import partial

import gradio as gr

from playground.core.tools import Tool
from playground.services.hosts import is_local
from playground.services.mcp import Mcp
from playground.services.python_tool import Python, allowed
from playground.services.scorecards import Scorecards
from playground.ui import own_tools, scorecard
from playground.ui.common import QUEUED, QUIET, Services, shown, sparing
from playground.ui.tool_talk import FREE, LANES, MODES, Talk
from playground.ui.tools import image_tool, loop, mcp, model_tool
from playground.ui.tools.asking import again, ask, clear, decide, go_on, picked, stop
from playground.ui.tools.choices import (
    about_tools,
    available_tools,
    first_offered,
    opened,
    refresh,
    schema_text,
    tool_choices,
)
from playground.ui.tools.layout import lay_out_lane, lay_out_settings
from playground.ui.tools.view import Bench, View

EXAMPLES = (
    "What is 23 * 47?",
    "What's the weather in Paris?",
    "What is 15% of 240 and what's the weather in Rome?",
    "How warm is it in Pariss?",
    "Tell me a joke",
)

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
.tools-code .cm-content { padding-top: 28px; }
.tools-about { margin: 0; font-size: var(--text-sm); overflow-wrap: anywhere; }
.tools-about dd { margin: 0 0 8px; }
"""
    + mcp.CSS
    + scorecard.CSS
    + loop.CSS
)


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
                    lane, buttons = lay_out_lane(services, index)
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
            first = lay_out_settings(services)
            offered = gr.CheckboxGroup(
                names, value=first_offered(toolbox), label="Tools on offer", elem_id="tools-chosen"
            )
            with gr.Accordion("What these tools do", open=False, elem_id="tools-what"):
                about = gr.HTML(about_tools(toolbox))
            asking = gr.Dropdown(
                names,
                value=[],
                multiselect=True,
                label="Ask before running",
                info="a call to one of these waits for your yes or no",
                elem_id="tools-ask-first",
            )
            mode = gr.Radio(
                [(label, value) for value, label in MODES.items()],
                value=FREE,
                label="Only valid calls",
                info="A grammar gives a call its form. Which tool it asks, and for what, the model must have learned."
                " Must call holds until there is a result.",
                elem_id="tools-mode",
            )
            with gr.Accordion("A second lane beside it", open=False, elem_id="tools-second"):
                second = lay_out_settings(services, second=True)
            with gr.Accordion("Schemas the model is given", open=False, elem_classes="tools-code"):
                schemas = gr.Code(
                    schema_text(toolbox, first_offered(toolbox)),
                    language="json",
                    interactive=False,
                    show_label=False,
                    wrap_lines=True,
                    max_lines=20,
                )
            groups = [offered, asking]
            changes = own_tools.build(toolbox, own, groups, python)
            changes += mcp.build(toolbox, own, groups, Mcp(is_local(services.host))).changes
            changes += model_tool.build(services, toolbox, own, groups)
            changes += image_tool.build(services, toolbox, talk, own, groups)
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
    for event in changes:
        event.then(partial(schema_text, toolbox), [offered, own], schemas, **QUIET)
        event.then(partial(about_tools, toolbox), own, about, **QUIET)
    cards = Scorecards(services.paths, services.engine)  # one: a loop's scorecards are in the list of all
    with gr.Accordion("Guided loop: rows, training, score, rows for what went wrong", open=False, elem_id="tools-loop"):
        loop.build(services, cards)
    with gr.Accordion(
        "Scorecard: many questions, counted by what went wrong", open=False, elem_id="tools-scorecard"
    ) as panel:
        score = scorecard.build(services, cards)
    boxes = [first[0], first[1], second[0], second[1]]
    gr.on(None, partial(opened, services, view), None, [*boxes, lanes[0].chatbot], **QUIET)  # when the page opens
    sent = gr.State()
    look = sparing(partial(refresh, services, view), boxes)
    gr.Timer(10).tick(look, [first[1], second[1], sent], [*boxes, sent], **QUIET)
    return replace(view, bench=Bench(partial(open_scorecard, cards, score, panel), [panel, *score.all]))


def open_scorecard(cards: Scorecards, score: scorecard.View, panel: gr.Accordion, id: str) -> dict:
    """A stored scorecard in its panel, unfolded. Raises PlaygroundError where it is not there any more."""
    return {**scorecard.open_stored(cards, score, id), panel: gr.update(open=True)}
