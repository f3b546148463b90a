"""Servers of the Model Context Protocol: attach one, and its tools are on offer beside the app's own."""

import html
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import gradio as gr

from playground.core.tools import Tool, custom, foreign
from playground.errors import PlaygroundError
from playground.services.hosts import is_loopback
from playground.services.mcp import CALL_SECONDS, MAX_LISTED, Mcp, Server
from playground.services.tool_limits import ToolLimits
from playground.ui.common import QUEUED, QUIET, shown
from playground.ui.own_tools import offered

MAX_SERVERS = 4  # of one visitor
SWITCHED_ON = 8  # tools of a server that are on at once; a small model does not choose among more
TICK = 0.5  # seconds between two looks at a server that is starting
LOOK = 5.0  # seconds between two looks at the servers that are attached
ABOUT = (
    "A server of the Model Context Protocol offers tools to any program. {how} What its tools do is the server's"
    " business: they ask you before they run, until you change that under “Ask before running”."
)
HOW = {
    True: "Give a command line, which is started on this machine, or a web address.",
    False: "Give the web address of a public server; commands can be started from this machine only.",
}
EMPTY = "No server is attached. Give a command or an address above, for example <code>uvx mcp-server-time</code>."
CSS = """
.mcp-servers { overflow-x: auto; font-size: var(--text-sm); }
.mcp-servers td, .mcp-servers th { padding: 4px 8px; vertical-align: top; text-align: left; }
.mcp-servers td:first-child { overflow-wrap: anywhere; min-width: 9em; }
.mcp-servers .ended { color: var(--body-text-color-subdued); }
.mcp-servers p { margin: 4px 0; }
"""


@dataclass
class Attachment:
    """A server as one visitor has attached it. `tools`: how many of it are on the page."""

    server: Server
    tools: int = 0
    note: str = ""


@dataclass(frozen=True)
class Panel:
    where: gr.Textbox
    only: gr.Textbox
    attach: gr.Button
    cancel: gr.Button
    state: gr.HTML
    chosen: gr.Dropdown
    detach: gr.Button
    own: gr.State
    on: gr.CheckboxGroup
    asking: gr.Dropdown
    timer: gr.Timer
    changes: list = field(default_factory=list)  # the events that change `own`

    @property
    def outputs(self) -> list:
        names = ("where", "attach", "cancel", "state", "chosen", "detach", "own", "on", "asking", "timer")
        return [getattr(self, name) for name in names]


def build(toolbox: list[Tool], own: gr.State, groups: list, mcp: Mcp) -> Panel:
    """The form and the list; tools that are attached stand in `own` and in both of `groups`."""
    mine = gr.State([], delete_callback=partial(let_go, mcp))
    with gr.Accordion("Attach an MCP server", open=False, elem_id="tools-mcp"):
        gr.Markdown(ABOUT.format(how=HOW[mcp.local]))
        where = gr.Textbox(
            label="Command or address" if mcp.local else "Address",
            placeholder="uvx mcp-server-time" if mcp.local else "https://example.org/mcp",
            elem_id="tools-mcp-where",
        )
        only = gr.Textbox(
            label="Only tools whose name has", placeholder="all tools; or words, separated by commas", max_lines=1
        )
        with gr.Row():
            attach_button = gr.Button("Attach", size="sm", elem_id="tools-mcp-attach", min_width=100)
            cancel_button = gr.Button("Cancel", size="sm", visible=False, min_width=100)
        state = gr.HTML(table([]), elem_id="tools-mcp-servers")
        with gr.Row():
            chosen = gr.Dropdown([], label="Attached server", visible=False, min_width=160)
            detach_button = gr.Button("Detach it", size="sm", visible=False, elem_id="tools-mcp-detach", min_width=100)
    timer = gr.Timer(LOOK, active=False)
    panel = Panel(where, only, attach_button, cancel_button, state, chosen, detach_button, own, *groups, timer)

    # gradio finds the request by its type hint, which a partial does not show
    def attach_here(own, mine, on, asking, where, only, request: gr.Request):
        yield from attach(toolbox, mcp, panel, own, mine, on, asking, where, only, from_here(request))

    inputs = [own, mine, *groups]
    let = shown(partial(detach, toolbox, mcp, panel))
    changes = [
        gr.on([attach_button.click, where.submit], shown(attach_here), [*inputs, where, only], panel.outputs, **QUEUED),
        detach_button.click(let, [*inputs, chosen], panel.outputs, **QUEUED),
    ]
    panel.changes.extend(changes)
    cancel_button.click(partial(cancel, mcp), mine, None, **QUIET)
    timer.tick(table, mine, state, **QUIET)
    return panel


def from_here(request: gr.Request | None) -> bool:
    """Whether the request came from this machine, and not through a tunnel, a proxy or another site's name."""
    if request is None:
        return False
    headers = {key.lower(): value for key, value in request.headers.items()}
    if any(name in headers for name in ("forwarded", "x-forwarded-for", "x-real-ip", "cf-connecting-ip")):
        return False
    host = headers.get("host", "")
    name = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
    return is_loopback(name) and is_loopback(getattr(request.client, "host", "") or "")


def attach(
    toolbox: list[Tool],
    mcp: Mcp,
    panel: Panel,
    own: list[Tool],
    mine: list[Attachment],
    on: list[str],
    asking: list[str],
    where: str,
    only: str,
    here: bool,
) -> Iterator[dict]:
    """Start the server, then put its tools beside the others. `mine` is changed in place, so that Cancel sees it."""
    if any(one.server.state == "starting" for one in mine):
        raise PlaygroundError("a server is being started; cancel it, or wait")
    if len(mine) >= MAX_SERVERS:
        raise PlaygroundError(f"you have {MAX_SERVERS} servers attached, which is as many as may be; detach one")
    attachment = Attachment(mcp.begin(where, here))
    mine.append(attachment)
    server, waited = attachment.server, 0.0
    try:
        while not server.started.wait(TICK):
            waited += TICK
            yield {
                panel.state: table(mine, f"Starting, {waited:.0f} of at most {mcp.start_seconds:.0f} seconds."),
                panel.attach: gr.update(visible=False),
                panel.cancel: gr.update(visible=True),
            }
        mcp.attached(server)
        tools, attachment.note = choose(*mcp.tools(server, {tool.name for tool in (*toolbox, *own)}), own, only)
    except PlaygroundError as error:
        mine.remove(attachment)
        mcp.detach(server)
        yield {**_form(panel), panel.state: table(mine, str(error))}
        raise
    if server.cut:
        attachment.note = f"Only its first {MAX_LISTED:,} tools were read. {attachment.note}"
    attachment.tools = len(tools)
    limits = ToolLimits()
    tools = [limits.bounded(tool, CALL_SECONDS + 10) for tool in tools]
    names = [tool.name for tool in tools]
    groups = offered(toolbox, [*own, *tools], [*on, *names[:SWITCHED_ON]], [*asking, *names])
    yield {**_form(panel), panel.where: "", **_listed(panel, mine, groups)}


def choose(found: list[Tool], left_out: list[str], own: list[Tool], only: str) -> tuple[list[Tool], str]:
    """The tools that are asked for and that a prompt can hold beside `own`, and a note about the others."""
    words = [word.strip().lower() for word in (only or "").split(",") if word.strip()]
    tools = [tool for tool in found if not words or any(word in tool.name.lower() for word in words)]
    if not tools:
        why = foreign.reasons(left_out) or "it lists none"
        raise PlaygroundError(
            f"none of its {len(found):,} tools has such a name" if words and found else f"it has no usable tool: {why}"
        )
    kept, bound = custom.fitting([*own, *tools])
    if len(kept) == len(own):
        raise PlaygroundError(f"no tool of this server fits in beside those that are here: {bound}")
    notes = [part for part in (bound, foreign.reasons(left_out)) if part]
    return kept[len(own) :], ". ".join(notes)


def detach(
    toolbox: list[Tool],
    mcp: Mcp,
    panel: Panel,
    own: list[Tool],
    mine: list[Attachment],
    on: list[str],
    asking: list[str],
    title: str | None,
) -> dict:
    found = next((one for one in mine if one.server.title == title), None)
    if found is None:
        raise PlaygroundError("choose the server that shall be detached")
    mine.remove(found)
    mcp.detach(found.server)
    kept = [tool for tool in own if tool.source != found.server.title]
    return _listed(panel, mine, offered(toolbox, kept, on, asking))


def cancel(mcp: Mcp, mine: list[Attachment]) -> None:
    for one in mine:
        if one.server.state == "starting":
            mcp.detach(one.server)


def let_go(mcp: Mcp, mine: list[Attachment]) -> None:
    """Of a visitor who has left."""
    for one in mine:
        mcp.detach(one.server)


def _form(panel: Panel) -> dict:
    return {panel.attach: gr.update(visible=True), panel.cancel: gr.update(visible=False)}


def _listed(panel: Panel, mine: list[Attachment], groups: tuple) -> dict:
    titles = [one.server.title for one in mine]
    return {
        panel.state: table(mine),
        panel.chosen: gr.update(choices=titles, value=titles[-1] if titles else None, visible=bool(titles)),
        panel.detach: gr.update(visible=bool(titles)),
        panel.timer: gr.update(active=bool(titles)),
        **dict(zip((panel.own, panel.on, panel.asking), groups, strict=True)),
    }


def table(mine: list[Attachment], note: str = "") -> str:
    """The servers with their state; `note` is about the one that is being started."""
    said = f"<p>{html.escape(note)}</p>" if note else ""
    if not mine:
        return f'<div class="mcp-servers">{said or f"<p>{EMPTY}</p>"}</div>'
    rows = "".join(map(_row, mine))
    head = "<tr><th>Server</th><th>State</th><th>Tools</th></tr>"
    return f'<div class="mcp-servers">{said}<table>{head}{rows}</table></div>'


def _row(one: Attachment) -> str:
    server = one.server
    state = f"ended: {server.reason}" if server.state == "ended" else server.state
    cells = (
        f"<b>{html.escape(server.title)}</b><br><code>{html.escape(server.where[:200])}</code>",
        html.escape(state),
        "" if server.state == "starting" else html.escape(f"{one.tools}" + (f": {one.note}" if one.note else "")),
    )
    return f'<tr class="{server.state}">' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
