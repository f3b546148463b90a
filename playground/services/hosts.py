"""Who can reach a page: only visitors of this machine, or others too."""

import ipaddress
import os
from collections.abc import Mapping


def is_local(host: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether only visitors of this machine reach a page that listens on `host` ("": the default address)."""
    return not environ.get("SPACE_ID") and is_loopback(host or "127.0.0.1")


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
