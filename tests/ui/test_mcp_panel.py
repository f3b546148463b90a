"""The panel for MCP servers, with a fake client: what is attached, offered, shown, let go."""

import threading
from types import SimpleNamespace

import gradio as gr
import pytest
from gradio.helpers import special_args

from playground.core.tools import Tool, calculator
from playground.errors import PlaygroundError
from playground.services.mcp import NO_COMMANDS, Server
from playground.ui import own_tools
from playground.ui.tools import mcp as panel_of

EVIL = "<img src=x onerror=alert(1)>"


def tool(name, source=""):
    return Tool(name, "", {"type": "object", "properties": {}}, dict, source)


class Mcp:
    """A client whose servers come up after some looks, or never."""

    start_seconds = 40.0

    def __init__(self, names=("add", "look"), local=True):
        self.names, self.local, self.gone = names, local, []
        self.looks, self.reason, self.left_out = 1, "", []

    def begin(self, where, commands):
        if not (commands and self.local) and "://" not in where:
            raise PlaygroundError(NO_COMMANDS)
        server = Server(f"{where} {len(self.gone) + 1}", where)
        server.started = SimpleNamespace(wait=lambda seconds: self._look(server))
        return server

    def _look(self, server):
        self.looks -= 1
        if self.looks <= 0:
            server.state = "ended" if self.reason else "attached"
        return self.looks <= 0

    def attached(self, server):
        if server.state != "attached":
            raise PlaygroundError(f"{server.title} was not attached: {self.reason}")
        return server

    def tools(self, server, taken):
        return [tool(name, server.title) for name in self.names if name not in taken], self.left_out

    def detach(self, server):
        server.state, server.reason = "ended", server.reason or "it was let go"
        self.gone.append(server)


@pytest.fixture(scope="module")
def panel():
    with gr.Blocks():
        groups = [gr.CheckboxGroup([]), gr.CheckboxGroup([])]
        return panel_of.build([calculator.make()], gr.State([]), groups, Mcp())


@pytest.fixture
def attach(panel):
    def attach(mcp, mine, where="small", own=(), only="", here=True, on=("calculator",)):
        return panel_of.attach([calculator.make()], mcp, panel, list(own), mine, list(on), [], where, only, here)

    return attach


def test_its_tools_are_offered_and_ask_first(panel, attach):
    mine = []
    mcp = Mcp([EVIL, "add", *(f"t{n}" for n in range(9))])
    mcp.looks = 3
    *starting, last = attach(mcp, mine)
    assert "Starting, 0 of at most 40 seconds" in starting[0][panel.state]
    assert starting[0][panel.cancel]["visible"]
    assert last[panel.on]["value"] == ["calculator", EVIL, "add", *(f"t{n}" for n in range(6))]
    assert last[panel.asking]["value"] == last[panel.on]["choices"][1:]
    assert "attached" in last[panel.state]
    assert ">11<" in last[panel.state]
    assert last[panel.chosen]["choices"] == ["small 1"]
    assert last[panel.own][0].source == "small 1"


def test_detaching_takes_its_tools_and_leaves_the_others(panel, attach):
    mine, mcp = [], Mcp()
    *_, last = attach(mcp, mine, own=[tool("mine")])
    own = last[panel.own]
    kept, *_ = own_tools.without([calculator.make()], own, [], [])
    assert [one.name for one in kept] == ["add", "look"]
    update = panel_of.detach([calculator.make()], mcp, panel, own, mine, ["add", "mine"], ["add"], "small 1")
    assert [one.name for one in update[panel.own]] == ["mine"]
    assert update[panel.on]["value"] == ["mine"]
    assert update[panel.asking]["value"] == []
    assert (mine, len(mcp.gone)) == ([], 1)
    assert "No server is attached" in update[panel.state]
    with pytest.raises(PlaygroundError, match="choose the server"):
        panel_of.detach([], mcp, panel, [], mine, [], [], "small 1")


def test_only_some_of_a_thousand_tools(panel, attach):
    mcp = Mcp([f"tool_{n}" for n in range(1000)])
    *_, last = attach(mcp, [], only="tool_99, nothing")
    assert [one.name for one in last[panel.own]] == ["tool_99", *(f"tool_{n}" for n in range(990, 1000))]
    *_, last = attach(Mcp(mcp.names), [])
    assert len(last[panel.own]) == 32
    assert "968 are left out" in last[panel.state]
    with pytest.raises(PlaygroundError, match="none of its 1,000 tools has such a name"):
        list(attach(Mcp(mcp.names), [], only="xyz"))
    with pytest.raises(PlaygroundError, match="no tool of this server fits in"):
        list(attach(Mcp(), [], own=[tool(f"own{n}") for n in range(32)]))


def test_a_server_that_fails_leaves_no_trace(panel, attach):
    mcp, mine = Mcp(), []
    mcp.reason = f"it ended: {EVIL}"
    updates = attach(mcp, mine)
    last = next(updates)
    assert EVIL not in last[panel.state]
    assert "it ended: &lt;img" in last[panel.state]
    assert last[panel.attach]["visible"]
    with pytest.raises(PlaygroundError, match="was not attached"):
        next(updates)
    assert (mine, len(mcp.gone)) == ([], 1)
    empty = Mcp([])
    empty.left_out = ["loop goes in a circle"]
    with pytest.raises(PlaygroundError, match="no usable tool: loop goes in a circle"):
        list(attach(empty, []))


def test_what_is_starting_can_be_cancelled_and_nothing_else_started(panel, attach):
    mcp, mine = Mcp(), []
    mcp.looks = 100
    updates = attach(mcp, mine)
    next(updates)
    with pytest.raises(PlaygroundError, match="a server is being started"):
        next(attach(mcp, mine))
    with pytest.raises(PlaygroundError, match="you have 4 servers attached"):
        next(attach(mcp, [panel_of.Attachment(Server("a", "a", "attached"))] * 4))
    panel_of.cancel(mcp, mine)
    assert [server.state for server in mcp.gone] == ["ended"]


def test_a_visitor_from_elsewhere_starts_no_command(attach):
    with pytest.raises(PlaygroundError) as refused:
        next(attach(Mcp(), [], here=False))
    assert str(refused.value) == NO_COMMANDS


def test_the_page_tells_the_handler_who_asks():
    """gradio finds the argument by its type hint; without it nobody could start a command."""
    with gr.Blocks() as page:
        groups = [gr.CheckboxGroup([]), gr.CheckboxGroup([])]
        panel_of.build([calculator.make()], gr.State([]), groups, Mcp())
    (handler,) = {block.fn for block in page.fns.values() if getattr(block.fn, "__name__", "") == "attach_here"}
    request = SimpleNamespace(headers={"host": "localhost"}, client=SimpleNamespace(host="127.0.0.1"))
    filled, *_ = special_args(handler, [[], [], [], [], "no such program", ""], request=request)
    assert filled[-1] is request


@pytest.mark.parametrize(
    "client, headers, here",
    [
        ("127.0.0.1", {"host": "127.0.0.1:7860"}, True),
        ("::1", {"Host": "[::1]:7860"}, True),
        ("127.0.0.1", {"host": "localhost"}, True),
        ("192.168.1.7", {"host": "localhost"}, False),
        ("127.0.0.1", {"host": "evil.example:7860"}, False),
        ("127.0.0.1", {"host": "localhost", "X-Forwarded-For": "1.2.3.4"}, False),
        ("127.0.0.1", {}, False),
    ],
)
def test_who_is_on_this_machine(client, headers, here):
    request = SimpleNamespace(headers=headers, client=SimpleNamespace(host=client))
    assert panel_of.from_here(request) == here


def test_the_state_of_a_server_that_ended_is_shown():
    server = Server(EVIL, EVIL, "ended", "it died")
    server.started = threading.Event()
    shown = panel_of.table([panel_of.Attachment(server, 2, EVIL)])
    assert "ended: it died" in shown
    assert "<img" not in shown
