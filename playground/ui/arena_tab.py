"""Chat: lanes side by side, blind battles between two of them, and the leaderboard of all votes."""

import gradio as gr

from playground.ui.arena import battle, files, judge, leaderboard, side_by_side
from playground.ui.arena.chat import View
from playground.ui.common import Services

CSS = """
@media (max-width: 640px) { #arena-views > .tab-wrapper button { font-size: min(var(--text-md), 3.6vw); } }
"""
CSS += "".join(view.CSS for view in (side_by_side, battle, leaderboard, files, judge))


def build(services: Services) -> View:
    """Lay out the tab and wire it; called inside its `gr.Tab`."""
    with gr.Tabs(elem_id="arena-views"):
        with gr.Tab("Side by side", id="lanes"):
            view = side_by_side.build(services)
        with gr.Tab("Blind battle", id="blind"):
            battle.build(services)
        with gr.Tab("Leaderboard", id="board"):
            leaderboard.build(services)
            judge.build(services)
            files.build(services)
    return view
