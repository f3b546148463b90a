"""The components that the handlers of the Tools tab write to."""

from collections.abc import Callable
from dataclasses import dataclass

import gradio as gr


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
class Bench:
    """The scorecards, which another tab may open one of: `open(id)` gives values for `outputs`."""

    open: Callable[[str], dict]
    outputs: list


@dataclass(frozen=True)
class View:
    """The components that handlers write to."""

    question: gr.Textbox
    ask: gr.Button
    stop: gr.Button
    settings: tuple[tuple[gr.Dropdown, gr.Dropdown, gr.Dropdown], ...]  # model, adapter, template of each lane
    lanes: tuple[LaneView, ...]

    bench: Bench | None = None

    @property
    def outputs(self) -> list:
        return [self.question, self.ask, self.stop, *(part for lane in self.lanes for part in lane.outputs)]
