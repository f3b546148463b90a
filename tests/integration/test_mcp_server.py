"""This app's tools as another program gets them: `playground tools mcp`, asked by an MCP client."""

import socket
import subprocess
import sys
import time

import httpx
import pytest

from playground.core.tools import ToolError, catalog
from playground.services.mcp import Mcp


@pytest.fixture(scope="module")
def client():
    mcp = Mcp(local=True)
    yield mcp, mcp.attach(f"{sys.executable} -m playground tools mcp")
    mcp.close()


@pytest.fixture(scope="module")
def tools(client):
    mcp, server = client
    found, left_out = mcp.tools(server)
    assert left_out == []
    return {tool.name: tool for tool in found}


def test_all_but_python_are_served_with_their_schemas(tools):
    assert list(tools) == [entry.name for entry in catalog(python=False)]
    assert tools["calculator"].parameters["required"] == ["expression"]


def test_a_call_is_answered(tools):
    assert tools["calculator"].run(expression="23 * 47") == {"result": 1081}


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ({"expression": "1/0"}, "zero"),
        ({"expresion": "1"}, "calculator has no argument 'expresion'"),
        ({}, "calculator needs the argument 'expression'"),
        ({"expression": 3}, "must be of type string"),
    ],
)
def test_a_call_that_does_not_fit_is_refused_in_a_sentence(tools, arguments, reason):
    with pytest.raises(ToolError, match=reason):
        tools["calculator"].run(**arguments)


def test_a_tool_that_is_not_there(client):
    mcp, server = client
    with pytest.raises(ToolError, match="There is no tool named 'python'"):
        mcp.call(server, "python", {"code": "1"})


def test_the_same_over_http(client):
    mcp, _ = client
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/mcp"
    command = [sys.executable, "-m", "playground", "tools", "mcp", "--port", str(port), "--tools", "calculator"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        server = mcp.attach(address)
        (tool,), _ = mcp.tools(server)
        assert tool.run(expression="6 * 7") == {"result": 42}
        mcp.detach(server)
        other = httpx.post(address, headers={"Host": f"evil.example:{port}"}, json={})
        assert other.status_code in (403, 421)
    finally:
        process.kill()
        process.wait()
