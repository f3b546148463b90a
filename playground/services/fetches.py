"""Models on their way to this machine: one background thread per model, seen by every page."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from playground.errors import PlaygroundError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fetch:
    """Where one fetch stands; `progress` is what `Sources.get` last reported."""

    name: str
    state: str = "running"  # running, done, failed, cancelled
    progress: object = None
    error: str = ""


class Fetches:
    """Starts and watches `sources.get(name)`; `then(name)` is called in the same thread once a model is here."""

    def __init__(self, sources, then: Callable[[str], object] | None = None):
        self._sources = sources
        self._then = then
        self._lock = threading.Lock()
        self._fetches: dict[str, Fetch] = {}
        self._cancel: dict[str, threading.Event] = {}

    def start(self, name: str, accept_licence: bool = False) -> None:
        """Begin fetching `name`, unless it is already under way."""
        with self._lock:
            if name in self._fetches and self._fetches[name].state == "running":
                return
            cancel = threading.Event()
            self._fetches[name] = Fetch(name)
            self._cancel[name] = cancel
        threading.Thread(target=self._get, args=(name, accept_licence, cancel), daemon=True).start()

    def cancel(self, name: str) -> None:
        """Ask a fetch to stop; what it has downloaded is kept for the next try."""
        with self._lock:
            if name in self._cancel:
                self._cancel[name].set()

    def find(self, name: str) -> Fetch | None:
        with self._lock:
            return self._fetches.get(name)

    def _get(self, name: str, accept_licence: bool, cancel: threading.Event) -> None:
        def report(progress):
            self._set(name, progress=progress)

        try:
            self._sources.get(name, progress=report, accept_licence=accept_licence, cancel=cancel)
            if self._then:
                self._then(name)
            self._set(name, state="done")
        except PlaygroundError as error:
            self._set(name, state="cancelled" if cancel.is_set() else "failed", error=str(error))
        except Exception as error:
            log.exception("fetching %s failed", name)
            self._set(name, state="failed", error=f"{type(error).__name__}: {error}")

    def _set(self, name: str, **changes) -> None:
        with self._lock:
            self._fetches[name] = replace(self._fetches[name], **changes)
