"""One lane of the Tools tab laid out, and the choice of who answers in it."""

import gradio as gr

from playground.ui.common import Services
from playground.ui.lanes import first_choices
from playground.ui.tool_talk import AUTOMATIC, template_choices
from playground.ui.tools.choices import NOBODY, adapter_choices, default_adapter, empty_state
from playground.ui.tools.view import LaneView


def lay_out_lane(services: Services, index: int) -> tuple[LaneView, tuple[gr.Button, gr.Button]]:
    """One lane: its chat, its status, a question about a call, its steps, its prompts."""
    suffix = f"-{index + 1}" if index else ""
    of = " of the second lane" if index else ""
    with gr.Column(min_width=300, visible=index == 0, elem_classes="tools-lane") as column:
        chatbot = gr.Chatbot(
            height=460,  # a call from question to answer; and the next question is on a small screen, too
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


def lay_out_settings(services: Services, second: bool = False) -> tuple[gr.Dropdown, gr.Dropdown, gr.Dropdown]:
    """Model, adapter and template of a lane."""
    models = first_choices(services, services.model)
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
