"""Where the Python tool is off, and the bounds of every other tool; what it runs is in integration/."""

import threading
import time

import pytest

from playground.core.tools import Tool, ToolError
from playground.services import python_tool
from playground.services.tool_limits import ToolLimits


@pytest.mark.parametrize(
    "host, environ, why",
    [
        ("127.0.0.1", {}, ""),
        ("", {}, ""),
        ("localhost", {}, ""),
        ("::1", {}, ""),
        ("0.0.0.0", {}, "others can reach this server"),
        ("192.168.1.5", {}, "others can reach this server"),
        ("example.org", {}, "others can reach this server"),
        ("127.0.0.1", {"SPACE_ID": "me/space"}, "public Space"),
        ("0.0.0.0", {"PLAYGROUND_PYTHON_TOOL": "1"}, ""),
        ("127.0.0.1", {"PLAYGROUND_PYTHON_TOOL": "0"}, "switched off"),
    ],
)
def test_it_is_off_where_strangers_come(host, environ, why):
    refusal = python_tool.refusal(host, environ)
    assert why in refusal
    assert python_tool.allowed(host, environ) == (refusal == "") == (why == "")


def tool(run):
    return Tool("odd", "", {"type": "object", "properties": {}}, run)


def test_a_tool_that_hangs_is_left_behind():
    over = threading.Event()
    limits = ToolLimits(seconds=0.1, hanging=2)
    hanging = limits.bounded(tool(lambda: over.wait(20)))
    for _ in range(2):
        with pytest.raises(ToolError, match=r"odd gave no answer within 0\.1 seconds"):
            hanging.run()
    with pytest.raises(ToolError, match="too many calls"):
        hanging.run()
    over.set()
    time.sleep(0.1)
    assert limits.bounded(tool(lambda: 5)).run() == {"result": 5}


def test_a_tool_that_answers_with_megabytes_is_cut():
    result = ToolLimits().bounded(tool(lambda: {"page": "x" * 10_000_000, "_picture": {"svg": "<svg/>"}})).run()
    assert result["cut"] == "10,000,012 characters, the first 65,536 are here"
    assert len(result["text"]) == 65_536
    assert result["_picture"] == {"svg": "<svg/>"}
    big = ToolLimits().bounded(tool(lambda: {"_picture": {"svg": "x" * 2**21}})).run()
    assert big == {}


def test_what_a_tool_raises_is_raised():
    def fails():
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        ToolLimits().bounded(tool(fails)).run()
