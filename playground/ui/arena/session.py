"""For the teacher: the class session, the lanes its battles are drawn from, and its shared list of prompts."""

import html
from functools import partial

import gradio as gr

from playground.core.messages import Conversation
from playground.errors import PlaygroundError
from playground.ui.common import QUEUED, QUIET, Services, shown
from playground.ui.lanes import default_pool, lane_choices, read_lane

MAX_POOL = 12
TRY = Conversation([{"role": "user", "content": "Hello"}], [])


def build(services: Services, line: gr.HTML) -> None:
    """`line` tells everyone which session is on."""
    with gr.Accordion("For the teacher: session, lanes and prompts of the class", open=False):
        gr.HTML(
            "<div>A session keeps the votes of one class together: name it before the first battle. Battles are drawn "
            "from the lanes below, and pairs that have met least come first.</div>"
        )
        with gr.Row():
            name = gr.Textbox(
                label="Session", placeholder="Monday, class 10b", max_length=80, elem_id="session-name", min_width=200
            )
            name_button = gr.Button("Open this session", elem_id="session-open", min_width=150)
        pool = gr.Dropdown(
            [], multiselect=True, label="Lanes that may meet (two or more)", elem_id="session-pool", min_width=260
        )
        pool_button = gr.Button("Use these lanes", size="sm", elem_id="session-use")
        prompts = gr.Textbox(
            label="The class's shared prompts, one in each line", lines=4, max_lines=12, elem_id="session-prompts"
        )
        prompts_button = gr.Button("Share these prompts", size="sm", elem_id="session-share")
        told = gr.HTML(elem_id="session-told")
    form = [name, pool, prompts]
    gr.on(None, partial(opened, services), None, [*form, line], **QUIET)  # when the page opens
    for button, field, handler in (
        (name_button, name, set_name),
        (pool_button, pool, set_pool),
        (prompts_button, prompts, set_prompts),
    ):
        button.click(partial(shown(handler), services), field, [*form, line, told], **QUEUED)
    gr.Timer(10).tick(partial(where_else, services), line, line, **QUIET)


def pool_keys(services: Services) -> list[str]:
    """The session's lanes that are still here; those that the page begins with where none were chosen."""
    chosen = services.votes.session().pool
    there = {key for _, key in lane_choices(services)} if chosen else ()
    return [key for key in chosen if key in there] if chosen else default_pool(services)


def opened(services: Services) -> tuple:
    """Session name, pool and prompts for their fields, and the line about them."""
    try:
        session, pool = services.votes.session(), pool_keys(services)
    except PlaygroundError:
        return gr.skip(), gr.skip(), gr.skip(), where(services)
    choices = gr.update(choices=lane_choices(services), value=pool)
    return session.name, choices, "\n".join(session.prompts), where(services)


def where(services: Services) -> str:
    """One line: the session, its votes, how many lanes may meet."""
    try:
        session = services.votes.session()
        votes = services.votes.sessions().get(session.name, 0)
        lanes = len(pool_keys(services))
    except PlaygroundError as error:
        return f'<div class="notice failed"><p>{html.escape(str(error))}</p></div>'
    name = f"Session <b>{html.escape(session.name)}</b>" if session.name else "No session named yet"
    said = f"{votes:,} vote{'s' if votes != 1 else ''}, {lanes} lane{'s' if lanes != 1 else ''} in the pool"
    return f'<div class="battle-line" data-votes="{votes}">{name} · {said}</div>'


def where_else(services: Services, now: str | None):
    """The line where it has changed; nothing is sent while it stays."""
    line = where(services)
    return gr.skip() if line == now else line


def set_name(services: Services, name: str) -> tuple:
    if not (name or "").strip():
        raise PlaygroundError("give the session a name, such as the class and the day")
    session = services.votes.open_session(name)
    return *opened(services), f"Session “{html.escape(session.name)}” is open: battles from now on belong to it."


def set_pool(services: Services, keys: list[str]) -> tuple:
    keys = list(keys or [])
    if not 2 <= len(keys) <= MAX_POOL:
        raise PlaygroundError(f"choose 2 to {MAX_POOL} lanes that may meet, got {len(keys)}")
    for key in keys:
        lane = read_lane(services, key)
        try:
            services.engine.prompt(lane, TRY)
        except PlaygroundError as error:
            raise PlaygroundError(f"{lane.label} cannot take part: {error}") from error
    session = services.votes.set_pool(keys)
    return *opened(services), f"{len(session.pool)} lanes may meet from now on."


def set_prompts(services: Services, text: str) -> tuple:
    session = services.votes.set_prompts((text or "").splitlines())
    count = len(session.prompts)
    return *opened(services), f"{count} prompt{'s' if count != 1 else ''} shared with the class."
