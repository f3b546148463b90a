"""Fine-tune: choose a recipe, start a run, watch the model learn, compare, and take the result elsewhere.

The page only reads the run's folder; its parts are in playground/ui/train/.
"""

from functools import partial

import gradio as gr

from playground.ui.common import Services
from playground.ui.train import answers, by_heart, card, compare, curves, exporting, fit, form, watch, words

CSS = "".join(part.CSS for part in (form, fit, words, curves, answers, watch, card, by_heart, compare, exporting))


def build(services: Services) -> gr.HTML:
    """Lay out the tab and wire it; the run card, which a scorecard can be selected on."""
    page = gr.context.Context.root_block
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            settings = form.build(services)
        with gr.Column(scale=3, min_width=320):
            panel = watch.build(services)
            with panel.view.after:  # hidden while there is no run
                with gr.Accordion("Run card, note and name", open=False) as opened:
                    about = card.build()
                with gr.Accordion("By heart, or learned?", open=False) as asked:
                    rows = by_heart.build()
                with gr.Accordion("Export", open=False):
                    export = exporting.build()
                with gr.Accordion("Compare runs", open=False) as beside:
                    comparison = compare.build()
    show = partial(show_named, services)
    form.wire(services, settings, lambda run: show(run.name), panel.view.all)
    form.wire_again(services, settings, panel.view.again, panel.view.runs)
    watch.wire(services, panel)
    card.wire(services, about, panel.view, opened.expand, show)
    by_heart.wire(services, rows, panel.view.runs, asked.expand)
    exporting.wire(services, export, panel.view.runs)
    compare.wire(services, comparison, [page.load, beside.expand])
    return about.card


def show_named(services: Services, name: str) -> list:
    """Values for the view of the run of that name."""
    return watch.show_run(services, name, None)
