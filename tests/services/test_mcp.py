"""Which MCP servers a page may attach at all; real ones are in integration/."""

import sys

import pytest

from playground.errors import PlaygroundError
from playground.services import mcp_http
from playground.services.hosts import is_local
from playground.services.mcp import NO_COMMANDS, Mcp


def test_a_public_page_starts_no_command_and_reaches_no_private_address():
    public = Mcp(local=False, start_seconds=5)
    with pytest.raises(PlaygroundError) as refused:
        public.attach(f"{sys.executable} --version")
    assert str(refused.value) == NO_COMMANDS
    for host in (
        "127.0.0.1:9",
        "localhost:9",
        "[::1]:9",
        "10.0.0.1",
        "169.254.169.254",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
    ):
        with pytest.raises(PlaygroundError, match="is not a public address"):
            public.attach(f"http://{host}/mcp")
    with pytest.raises(PlaygroundError) as refused:
        Mcp(local=True).attach("echo", commands=False)
    assert str(refused.value) == NO_COMMANDS


def test_a_name_of_a_private_address_is_refused_where_it_is_connected_to(monkeypatch):
    import asyncio

    async def look():
        async def found(self, *args, **options):
            return [(None, None, None, "", ("93.184.216.34", 80)), (None, None, None, "", ("192.168.1.1", 80))]

        monkeypatch.setattr(type(asyncio.get_running_loop()), "getaddrinfo", found)
        return await mcp_http._public_address("rebound.example", 80)

    with pytest.raises(mcp_http.Refused, match="rebound.example is not a public address"):
        asyncio.run(look())


@pytest.mark.parametrize(
    "host, environ, local",
    [
        ("", {}, True),
        ("127.0.0.1", {}, True),
        ("localhost", {}, True),
        ("[::1]", {}, True),
        ("0.0.0.0", {}, False),
        ("192.168.1.5", {}, False),
        ("", {"SPACE_ID": "someone/space"}, False),
    ],
)
def test_whose_page_it_is(host, environ, local):
    assert is_local(host, environ) == local
