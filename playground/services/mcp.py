"""Servers of the Model Context Protocol (https://modelcontextprotocol.io): attached, asked, watched, let go.

One thread with an event loop of its own keeps all of them. A server is a command of this machine that speaks over its
standard input and output, or a web address (streamable HTTP; an address that ends in /sse: the older transport).

A command is code that runs on this machine: it is for this machine's own visitors only.
"""

import asyncio
import atexit
import contextlib
import itertools
import logging
import os
import re
import shlex
import tempfile
import threading
from collections.abc import Collection
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as NoAnswer
from dataclasses import dataclass, field
from datetime import timedelta

from playground import __version__
from playground.core.tools import Tool, ToolError, foreign
from playground.errors import PlaygroundError
from playground.services import mcp_http

log = logging.getLogger(__name__)

START_SECONDS = 40.0  # a command may have to fetch its program first
CALL_SECONDS = 20.0
WATCH_SECONDS = 20.0  # between two looks at whether a server is still there
CLOSE_SECONDS = 8.0
MAX_SERVERS = 16  # of all visitors
MAX_LISTED = 1000  # tools of one server that are read
CLOSED = -32000  # the protocol's code for a connection that has ended
NO_COMMANDS = (
    "a command is started on this machine, so only a visitor on this machine may attach one; give a web address"
)


@dataclass(eq=False)
class Server:
    """One attached server. `state` changes while it is attached."""

    title: str
    where: str  # the command line or the address
    state: str = "starting"  # starting, attached, ended
    reason: str = ""  # why it ended
    listed: list[foreign.Listed] = field(default_factory=list)
    cut: bool = False  # it has more tools than were read
    session: object = None
    started: threading.Event = field(default_factory=threading.Event)
    closing: asyncio.Event | None = None
    task: object = None


class Mcp:
    """All servers of this process. `local`: visitors are on this machine, so commands and private addresses may be."""

    def __init__(self, local: bool, start_seconds: float = START_SECONDS, call_seconds: float = CALL_SECONDS):
        self.local, self.start_seconds, self.call_seconds = local, start_seconds, call_seconds
        self._lock = threading.Lock()
        self._servers: list[Server] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._numbers = itertools.count(1)

    def attach(self, where: str, commands: bool = True) -> Server:
        """Start or reach the server at `where`, and read its tools; PlaygroundError says why that did not work."""
        server = self.begin(where, commands)
        server.started.wait(self.start_seconds + CLOSE_SECONDS)
        return self.attached(server)

    def begin(self, where: str, commands: bool = True) -> Server:
        """The first half of `attach`: the server may still be starting; `server.started` is set when that is over.

        `commands`: whether this visitor may start one.
        """
        where = (where or "").strip()
        if not where:
            raise PlaygroundError("give a command line, such as `uvx mcp-server-time`, or an address with https://")
        transport = self._transport(where, commands)
        with self._lock:
            if len(self._servers) >= MAX_SERVERS:
                raise PlaygroundError(f"{MAX_SERVERS} servers are attached, which is as many as may be; detach one")
            server = Server(_title(where, next(self._numbers)), where)
            self._servers.append(server)
            self._start_loop()
        server.task = asyncio.run_coroutine_threadsafe(self._keep(server, transport), self._loop)
        return server

    def attached(self, server: Server) -> Server:
        """The second half: PlaygroundError where the server did not come up."""
        if server.state == "attached":
            return server
        self.detach(server)
        raise PlaygroundError(f"{server.title} was not attached: {server.reason}")

    def detach(self, server: Server) -> None:
        """End the connection, and the command where there is one."""
        with self._lock:
            if server in self._servers:
                self._servers.remove(server)
        server.reason = server.reason or "it was let go"
        if server.state == "attached":
            self._loop.call_soon_threadsafe(server.closing.set)
        elif server.state == "starting":
            server.task.cancel()
        with contextlib.suppress(NoAnswer, CancelledError):
            server.task.result(CLOSE_SECONDS)
        server.task.cancel()
        server.state = "ended"

    def servers(self) -> list[Server]:
        with self._lock:
            return list(self._servers)

    def tools(self, server: Server, taken: Collection[str] = ()) -> tuple[list[Tool], list[str]]:
        """The server's tools, and a sentence about each that cannot be one."""
        return foreign.tools_of(
            server.listed, server.title, lambda name, arguments: self.call(server, name, arguments), taken
        )

    def call(self, server: Server, name: str, arguments: dict) -> dict:
        """One call; ToolError with one sentence where the server has no answer."""
        if server.state != "attached":
            raise ToolError(f"The MCP server {server.title} is not there any more: {server.reason or server.state}.")
        future = asyncio.run_coroutine_threadsafe(self._call(server, name, arguments), self._loop)
        try:
            return future.result(self.call_seconds + 5)
        except NoAnswer:
            future.cancel()
            raise ToolError(_late(server, self.call_seconds)) from None
        except ToolError:
            raise
        except Exception as error:
            log.exception("a call to the MCP server %s failed", server.where)
            raise ToolError(f"The call to the MCP server {server.title} failed: {type(error).__name__}.") from None

    def close(self) -> None:
        for server in self.servers():
            self.detach(server)

    # --- in the loop ---

    async def _keep(self, server: Server, transport) -> None:
        """The whole life of a connection, in one task: its scopes must end where they began."""
        server.closing = asyncio.Event()
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
            await self._live(server, transport, errors)

    async def _live(self, server: Server, transport, errors) -> None:
        try:
            async with contextlib.AsyncExitStack() as stack:
                async with asyncio.timeout(self.start_seconds):
                    await self._begin(server, stack, transport(errors))
                server.state = "attached"
                server.started.set()
                await self._watch(server)
        except Exception as error:  # noqa: BLE001 - whatever a foreign server does ends this server only
            log.info("MCP server %s: %r", server.where, error)
            server.reason = server.reason or _why(error, _last_line(errors), self.start_seconds)
        finally:
            server.state, server.session = "ended", None
            server.reason = server.reason or "its connection ended"
            server.started.set()

    async def _begin(self, server: Server, stack: contextlib.AsyncExitStack, transport) -> None:
        from mcp import ClientSession, types

        read, write, *_ = await stack.enter_async_context(transport)
        about = types.Implementation(name="instruction-tuning-playground", version=__version__)
        session = await stack.enter_async_context(ClientSession(read, write, client_info=about))
        await session.initialize()
        server.session = session
        cursor = None
        while True:
            page = await session.list_tools(params=types.PaginatedRequestParams(cursor=cursor))
            server.listed += [foreign.Listed(t.name, t.description or "", t.inputSchema) for t in page.tools]
            cursor = page.nextCursor
            if not cursor or not page.tools or len(server.listed) >= MAX_LISTED:
                break
        server.cut = bool(cursor) or len(server.listed) > MAX_LISTED
        del server.listed[MAX_LISTED:]

    async def _watch(self, server: Server) -> None:
        """Until it is let go, or its connection has ended. One that is slow is left alone: it may be at work."""
        from mcp import McpError

        while not server.closing.is_set():
            try:
                await asyncio.wait_for(server.closing.wait(), WATCH_SECONDS)
            except TimeoutError:
                try:
                    await asyncio.wait_for(server.session.send_ping(), WATCH_SECONDS)
                except TimeoutError:
                    continue
                except McpError as error:
                    if error.error.code == CLOSED:
                        return

    async def _call(self, server: Server, name: str, arguments: dict) -> dict:
        import anyio
        from mcp import McpError, types

        params = types.CallToolRequestParams(name=name, arguments=arguments)
        request = types.ClientRequest(types.CallToolRequest(params=params))
        # Not `call_tool`: it holds results against a schema of the server's, which may point to any address.
        try:
            result = await server.session.send_request(
                request, types.CallToolResult, timedelta(seconds=self.call_seconds)
            )
        except McpError as error:
            if error.error.code == CLOSED:
                raise self._gone(server) from None
            if error.error.code == 408:
                raise ToolError(_late(server, self.call_seconds)) from None
            raise ToolError(f"The MCP server {server.title} refused the call: {error.error.message[:300]}") from None
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, AttributeError):
            raise self._gone(server) from None
        except ValueError:
            raise ToolError(f"The MCP server {server.title} answered with something that is no result.") from None
        texts = [part.text for part in result.content if part.type == "text"]
        other = [part.type for part in result.content if part.type != "text"]
        return foreign.result_of(texts, result.structuredContent, other, result.isError)

    def _gone(self, server: Server) -> ToolError:
        server.reason = server.reason or "it ended during a call"
        server.state = "ended"
        server.closing.set()
        return ToolError(f"The MCP server {server.title} ended during the call.")

    def _start_loop(self) -> None:
        if self._loop is not None:
            return
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="mcp", daemon=True).start()
        atexit.register(self.close)  # a command must not outlive the app

    def _transport(self, where: str, commands: bool):
        """What opens the connection once it is given a file for the command's complaints."""
        if where.startswith(("http://", "https://")):
            return self._http(mcp_http.checked_url(where))
        if "://" in where:
            raise PlaygroundError(f"{where[:80]!r} is neither http:// nor https://")
        if not (self.local and commands):
            raise PlaygroundError(NO_COMMANDS)
        try:
            program, *arguments = shlex.split(where)
        except ValueError as error:
            raise PlaygroundError(f"the command line cannot be read: {error}") from None

        def stdio(errors):
            from mcp.client.stdio import StdioServerParameters, stdio_client

            # without an environment of ours: mcp passes on PATH and HOME, but no secrets
            parameters = StdioServerParameters(command=program, args=arguments, encoding_error_handler="replace")
            return stdio_client(parameters, errlog=errors)

        return stdio

    def _http(self, url: str):
        def make(headers=None, timeout=None, auth=None):
            return mcp_http.client(not self.local, headers, timeout, auth)

        @contextlib.asynccontextmanager
        async def http(errors):
            if url.partition("?")[0].rstrip("/").endswith("/sse"):
                from mcp.client.sse import sse_client

                async with sse_client(url, httpx_client_factory=make) as streams:
                    yield streams
            else:
                from mcp.client.streamable_http import streamable_http_client

                async with make() as client, streamable_http_client(url, http_client=client) as streams:
                    yield streams

        return http


def _title(where: str, number: int) -> str:
    """A short name: the host, or the last word of the command that is no option."""
    if where.startswith(("http://", "https://")):
        return f"{where.split('/')[2][:30]} {number}"
    try:
        parts = shlex.split(where)
    except ValueError:  # a quote that nothing closes
        parts = where.split()
    words = [word for word in parts if re.fullmatch(r"[\w.@/][\w.@/ -]*", word)] or [where]
    return f"{os.path.basename(words[-1])[:30]} {number}"


def _late(server: Server, seconds: float) -> str:
    return f"The MCP server {server.title} gave no answer within {seconds:g} seconds."


def _why(error: BaseException, complaint: str, seconds: float) -> str:
    """One sentence, from the first error of a group."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    if type(error) is TimeoutError:
        return f"it did not answer within {seconds:g} seconds"
    if isinstance(error, FileNotFoundError):
        return f"there is no program {error.filename!r} here"
    if complaint:
        return f"it ended, and its last words were: {complaint}"
    if getattr(getattr(error, "error", None), "code", None) == CLOSED:
        return "it ended before it answered"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"the address answered {status}, as no MCP server does"
    return " ".join(str(error).split())[:300] or type(error).__name__


def _last_line(errors) -> str:
    errors.seek(0, os.SEEK_END)
    errors.seek(max(0, errors.tell() - 2000))
    lines = [line.strip() for line in errors.read().splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
