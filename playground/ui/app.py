"""The page: header, model state, four tabs; and the server that shows it."""

import html
import os
from functools import partial

import gradio as gr

from playground.config import Paths, ServeConfig
from playground.ui import arena_tab, housekeeping, preview_tab, theme, tools_tab, train_tab
from playground.ui.common import QUEUED, QUIET, Services, fetch_notice, shown, sparing
from playground.ui.page import Page
from playground.ui.tools.view import Bench

TABS = (("Templates", preview_tab), ("Fine-tune", train_tab), ("Chat", arena_tab), ("Tools", tools_tab))
CSS = theme.CSS + "".join(tab.CSS for _, tab in TABS)


def build(services: Services) -> gr.Blocks:
    """The whole page; it can be built without any model on the machine."""
    with Page(title="Instruction-Tuning Playground", analytics_enabled=False) as page:
        with gr.Row(elem_id="header"):
            gr.HTML(theme.MASTHEAD, scale=4, min_width=300)
            state = gr.HTML(elem_id="model-state", scale=1, min_width=150)
        with gr.Column(visible=False, elem_id="banner") as banner:
            notice = gr.HTML()
            with gr.Row():
                get = gr.Button("Get the model", variant="primary", size="sm", visible=False)
                cancel = gr.Button("Cancel", size="sm", visible=False)
        built = {}
        with gr.Tabs() as tabs:
            for title, tab in TABS:
                with gr.Tab(title, id=title.lower()):
                    built[title] = tab.build(services)
        link_scorecards(tabs, built["Fine-tune"], built["Tools"].bench)
        timer, sent = gr.Timer(1.0), gr.State()
        shown = [state, banner, notice, get, cancel, timer]
        for triggers, handler in (
            ([page.load, timer.tick], model_state),
            ([get.click], get_model),
            ([cancel.click], cancel_model),
        ):
            gr.on(triggers, sparing(partial(handler, services), shown), sent, [*shown, sent], **QUIET)
    return page


def link_scorecards(tabs: gr.Tabs, card: gr.HTML, bench: Bench) -> None:
    """A scorecard that a run card names opens under Tools: no tab knows another, the page knows both."""

    # gradio finds the event by its type hint, which a partial does not show
    def opened(event: gr.EventData) -> dict:
        return {**bench.open(str(event.scorecard)), tabs: gr.update(selected="tools")}

    event = card.select(shown(opened), None, [tabs, *bench.outputs], **QUEUED)
    event.success(None, js='() => document.querySelector("#tools-scorecard")?.scrollIntoView()')


def model_state(services: Services) -> tuple:
    """What the header and the banner say now: state, banner, notice, get, cancel, timer."""
    fetch = services.fetches.find(services.model)
    here = services.sources.find(services.model) is not None
    running = fetch is not None and fetch.state == "running"
    engine = services.engine.state(services.model)
    busy = running or engine.startswith("loading")
    kind = "ready" if engine.startswith("ready") else "loading" if busy else "failed" if "fail" in engine else "cold"
    text = "fetching the model" if running else engine if here else "not on this machine yet"
    return (
        f'<div class="model-state {kind}"><i></i><span>Model: {html.escape(text)}</span></div>',
        gr.update(visible=running or not here),
        fetch_notice(services, services.model),
        gr.update(visible=not running and not here, value="Try again" if fetch else "Get the model"),
        gr.update(visible=running),
        gr.update(value=1.0 if busy or not here else 5.0),
    )


def get_model(services: Services) -> tuple:
    services.fetches.start(services.model)
    return model_state(services)


def cancel_model(services: Services) -> tuple:
    services.fetches.cancel(services.model)
    return model_state(services)


def make_services(config: ServeConfig, paths: Paths) -> Services:
    from playground.services.datasets import Datasets
    from playground.services.engine import Engine
    from playground.services.fetches import Fetches
    from playground.services.jobs import Jobs
    from playground.services.remote import Remotes
    from playground.services.sources import Sources
    from playground.services.templates import Templates
    from playground.services.votes import Votes

    sources = Sources(paths)
    engine = Engine(
        sources,
        paths,
        remotes=Remotes.read(config.endpoints),
        budget=int(config.memory_gb * 10**9),
        fast_cpu=config.fast_cpu,
        load_in_4bit=config.load_in_4bit,
    )
    return Services(
        paths=paths,
        sources=sources,
        engine=engine,
        jobs=Jobs(paths, sources),
        votes=Votes(paths.votes),
        datasets=Datasets(paths),
        templates=Templates(paths),
        fetches=Fetches(sources, then=engine.warm),
        model=config.model,
        image_model=config.image_model,
        host=config.host or os.environ.get("GRADIO_SERVER_NAME", ""),
    )


def add_openai(page: gr.Blocks, services: Services) -> None:
    """Let OpenAI clients in at /v1, before gradio's own routes: one of those takes every address."""
    from playground.services.openai_server import router

    before = len(page.app.router.routes)
    page.app.include_router(router(services.engine, services.model, os.environ.get("PLAYGROUND_API_KEY") or None))
    routes = page.app.router.routes
    routes[:] = [*routes[before:], *routes[:before]]
    print(f"OpenAI clients: base_url={page.local_url}v1", flush=True)


def launch(config: ServeConfig, paths: Paths) -> None:
    """Serve the page until interrupted. The model is fetched and loaded after the server answers, in the background."""
    housekeeping.settle()
    services = make_services(config, paths)
    page = build(services)
    page.queue(default_concurrency_limit=40, max_size=200)
    page.launch(
        # None lets gradio read GRADIO_SERVER_NAME and GRADIO_SERVER_PORT
        server_name=config.host or None,
        server_port=config.port or None,
        inbrowser=config.open_browser,
        share=False,
        prevent_thread_lock=True,
        max_threads=100,
        # a page's state is 1.3 MB; closed pages are forgotten sooner (see `housekeeping`)
        state_session_capacity=128,
        theme=theme.THEME,
        css=CSS,
        head=theme.HEAD,
        js=theme.JS,
        footer_links=[],
        quiet=True,
    )
    print(f"Instruction-Tuning Playground: {page.local_url}", flush=True)
    if config.openai:
        add_openai(page, services)
    housekeeping.start(page)
    # a model that is here is loaded at once; one that is not is fetched first, shown on every page
    services.fetches.start(services.model)
    page.block_thread()
