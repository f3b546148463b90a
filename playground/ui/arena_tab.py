"""Chat: lanes side by side, blind battles between two of them, and the leaderboard of all votes."""

import html
from functools import partial

import gradio as gr

from playground.ui.arena import battle, files, judge, leaderboard, side_by_side
from playground.ui.arena.chat import View
from playground.ui.common import QUIET, Services

CSS = """
@media (max-width: 640px) { #arena-views > .tab-wrapper button { font-size: min(var(--text-md), 3.6vw); } }
"""
REST_TICK = 4.0
CSS += "".join(view.CSS for view in (side_by_side, battle, leaderboard, files, judge))


def build(services: Services) -> View:
    """Lay out the tab and wire it; called inside its `gr.Tab`."""
    rest = gr.HTML(visible=False, elem_id="models-rest")
    gr.on(
        [gr.context.Context.root_block.load, gr.Timer(REST_TICK).tick], partial(resting, services), rest, rest, **QUIET
    )
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


def resting(services: Services, now: str | None) -> dict:
    """The sentence above the lanes while their models have made way for a run; nothing is sent while it stays."""
    sentence = services.engine.resting()
    said = f'<div class="notice"><p>{html.escape(sentence)}</p></div>' if sentence else ""
    return gr.skip() if said == (now or "") else gr.update(value=said, visible=bool(said))
