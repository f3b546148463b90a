"""HTTP to a server that a visitor named: on a public page to public addresses only, and never without bounds."""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx

from playground.errors import PlaygroundError

MAX_BYTES = 16 * 2**20  # of one response


class Refused(httpx.RequestError):
    """An address or an answer that is not taken; the text is for the visitor."""


def checked_url(url: str) -> str:
    """`url` without what must not be in it."""
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PlaygroundError(f"{url[:80]!r} is no address of a server; it must begin with http:// or https://")
    if parts.username or parts.password:
        raise PlaygroundError("a user name or a password in the address is not sent; leave it out")
    return url.strip()


def client(public_only: bool, headers: dict | None = None, timeout=None, auth=None) -> httpx.AsyncClient:
    """A client for mcp's transports, in the form of its `httpx_client_factory`."""
    return httpx.AsyncClient(
        transport=Guarded(public_only),
        headers={**(headers or {}), "Accept-Encoding": "identity"},
        timeout=timeout or httpx.Timeout(30.0, read=300.0),
        auth=auth,
        follow_redirects=False,
    )


class Guarded(httpx.AsyncHTTPTransport):
    """Connects to the very address that was looked at: a name that is looked up twice may mean two machines."""

    def __init__(self, public_only: bool):
        super().__init__()
        self.public_only = public_only

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.public_only:
            host = request.url.host
            address = await _public_address(host, request.url.port or 443)
            request.extensions = {**request.extensions, "sni_hostname": host}
            request.url = request.url.copy_with(host=address)  # the Host header is set already
        response = await super().handle_async_request(request)
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            raise Refused("the server sent a packed answer, which was not asked for", request=request)
        response.stream = _Bounded(response.stream)
        return response


async def _public_address(host: str, port: int) -> str:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise httpx.ConnectError(f"the name {host} is not known: {error.strerror or error}") from None
    addresses = [ipaddress.ip_address(entry[4][0].partition("%")[0]) for entry in found]
    if not addresses or not all(map(is_public, addresses)):
        raise Refused(f"{host} is not a public address; on a public page only those may be attached")
    return str(addresses[0])


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    inner = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    if inner is not None:
        return is_public(inner)
    return address.is_global and not address.is_multicast


class _Bounded(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream):
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > MAX_BYTES:
                raise Refused(f"the server's answer is longer than {MAX_BYTES // 2**20} MB")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
