"""This app's tools for other programs, over the Model Context Protocol: standard input and output, or HTTP.

A call is held against the tool's schema as the tool loop does it, and runs within the same bounds of time and size.
"""

import asyncio
import base64
from collections.abc import Sequence

from playground import __version__
from playground.core import tools as toolbox
from playground.core.tool_formats import Call
from playground.core.tools import Tool, ToolError
from playground.services.tool_limits import ToolLimits

NAME = "instruction-tuning-playground"


def serve(tools: Sequence[Tool]) -> None:
    """Answer until the other side closes our standard input."""
    asyncio.run(_stdio(server(tools)))


async def _stdio(server) -> None:
    from mcp.server.stdio import stdio_server

    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def serve_http(tools: Sequence[Tool], port: int) -> None:
    """Answer at http://127.0.0.1:PORT/mcp until interrupted, to this machine only."""
    import uvicorn

    uvicorn.run(app(tools, port), host="127.0.0.1", port=port, log_level="warning")


def app(tools: Sequence[Tool], port: int):
    """The ASGI app of `serve_http`."""
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from mcp.server.transport_security import TransportSecuritySettings
    from starlette.applications import Starlette
    from starlette.routing import Route

    # a web page of another site may reach this port through its own name: only ours are answered
    names = [f"127.0.0.1:{port}", f"localhost:{port}"]
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=True, allowed_hosts=names, allowed_origins=[f"http://{name}" for name in names]
    )
    manager = StreamableHTTPSessionManager(server(tools), stateless=True, security_settings=security)

    class Endpoint:  # starlette takes an object for an ASGI app, and a function for a handler
        async def __call__(self, scope, receive, send) -> None:
            await manager.handle_request(scope, receive, send)

    return Starlette(routes=[Route("/mcp", endpoint=Endpoint())], lifespan=lambda _: manager.run())


def server(tools: Sequence[Tool]):
    """An mcp `Server` that lists and runs `tools`."""
    from mcp import types
    from mcp.server.lowlevel import Server

    served = Server(NAME, version=__version__)
    limits = ToolLimits()
    bounded = {tool.name: limits.bounded(tool) for tool in tools}

    async def listed() -> list[types.Tool]:
        return [types.Tool(name=t.name, description=t.description, inputSchema=t.parameters) for t in tools]

    async def called(name: str, arguments: dict) -> types.CallToolResult:
        fault = toolbox.check(Call(name, arguments), [tool.schema for tool in tools])
        if fault is not None:
            return _failed(fault.reason)
        try:
            value = await asyncio.to_thread(bounded[name].run, **arguments)
        except ToolError as error:
            return _failed(str(error))
        content: list = [types.TextContent(type="text", text=toolbox.result_text(value))]
        drawn = toolbox.picture(value)
        if drawn is not None:
            data = base64.b64encode(drawn["svg"].encode()).decode()
            content.append(types.ImageContent(type="image", data=data, mimeType="image/svg+xml"))
        return types.CallToolResult(content=content)

    def _failed(reason: str) -> types.CallToolResult:
        return types.CallToolResult(content=[types.TextContent(type="text", text=reason)], isError=True)

    served.list_tools()(listed)
    served.call_tool(validate_input=False)(called)
    return served
