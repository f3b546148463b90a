"""A lesson in one click: why an adapter that was trained on one template answers badly under another."""

import gradio as gr

from playground.core.messages import Conversation
from playground.ui.lab.browse import example_text
from playground.ui.lab.cards import DIFF
from playground.ui.lab.shared import Lab, Reader, notice

TRAINED_ON, ASKED_IN = "alpaca", "chatml"
QUESTION = Conversation([{"role": "user", "content": "Name three colours of the rainbow."}])
WORDS = (
    "Below is one question twice: marked red as an adapter trained on Alpaca rows has always seen it, marked green as "
    "a chat in ChatML asks it. All that the two share is the question itself. The adapter has learned to answer after "
    "“### Response:”, and to stop where an Alpaca row ends. Under ChatML that never comes: it has not learned what "
    "“<|im_start|>assistant” asks for, nor that a reply ends with “<|im_end|>”, so it answers badly and runs on. The "
    "weights are the same; only the text is another. Change the templates above to see which of them share a frame."
)


def build(lab: Lab) -> gr.Button:
    """The button; `start` gives what it changes."""
    with gr.Accordion("Lesson: the right weights, the wrong template", open=False):
        gr.HTML(notice(WORDS))
        return gr.Button("Show me", size="sm", variant="primary", elem_id="lab-lesson")


def start(reader: Reader) -> tuple:
    """Values for example, templates, view, generation prompt and source."""
    return example_text(QUESTION), [TRAINED_ON, ASKED_IN], DIFF, True, gr.skip()
