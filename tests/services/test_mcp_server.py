"""What this app's tools answer an MCP client; served to one in integration/."""

import base64
import json


def test_a_picture_goes_as_an_image():
    import asyncio

    from mcp import types

    from playground.core.tools import PICTURE, Tool
    from playground.services.mcp_server import server

    drawn = Tool("draw", "", {"type": "object", "properties": {}}, lambda: {"n": 1, PICTURE: {"svg": "<svg/>"}})
    served = server([drawn])
    params = types.CallToolRequestParams(name="draw", arguments={})
    handler = served.request_handlers[types.CallToolRequest]
    result = asyncio.run(handler(types.CallToolRequest(params=params))).root
    text, image = result.content
    assert json.loads(text.text) == {"n": 1}
    assert base64.b64decode(image.data) == b"<svg/>"
    assert result.isError is False
