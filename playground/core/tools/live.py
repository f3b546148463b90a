"""A question to a service on the network, which may not be there: asked once in a while, never waited for twice."""

import math
import time
from collections.abc import Callable
from typing import TypeVar

RETRY_AFTER = 300.0  # seconds without another try after the network failed
TIMEOUT = 3.0  # seconds for one request
Read = TypeVar("Read")


class Live:
    """`fetch(url, timeout)` returns JSON or raises OSError; without it there is no network."""

    def __init__(self, fetch: Callable[[str, float], dict] | None, clock: Callable[[], float] = time.monotonic):
        self._fetch, self._clock, self._offline_until = fetch, clock, -math.inf

    def ask(self, url: str, read: Callable[[dict], Read]) -> Read | None:
        """What `read` makes of the answer; None without a network or with an answer that is not the service's."""
        if self._fetch is None or self._clock() < self._offline_until:
            return None
        try:
            return read(self._fetch(url, TIMEOUT))
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
            self._offline_until = self._clock() + RETRY_AFTER
            return None
