"""A fetch in the background: its progress, its end, its failure and its cancelling can be seen from any page."""

import threading
import time

import pytest

from playground.errors import PlaygroundError
from playground.services.fetches import Fetches


class FakeSources:
    """`get` reports one step, then waits for `go` or for the cancel."""

    def __init__(self, error=None):
        self.error = error
        self.go = threading.Event()
        self.asked = []

    def get(self, name, progress=None, accept_licence=False, cancel=None):
        self.asked.append((name, accept_licence))
        progress("half way")
        while not self.go.wait(0.01):
            if cancel.is_set():
                raise PlaygroundError("stopped")
        if self.error:
            raise self.error


def wait_for(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in 5 s"
        time.sleep(0.005)


def test_progress_is_seen_and_then_is_called_once_it_is_here():
    sources, ready = FakeSources(), []
    fetches = Fetches(sources, then=ready.append)
    assert fetches.find("m") is None
    fetches.start("m", accept_licence=True)
    wait_for(lambda: fetches.find("m").progress)
    assert (fetches.find("m").state, fetches.find("m").progress, ready) == ("running", "half way", [])
    fetches.start("m")  # a second visitor presses the button too
    sources.go.set()
    wait_for(lambda: fetches.find("m").state == "done")
    assert (ready, sources.asked) == (["m"], [("m", True)])


def test_a_cancelled_fetch_says_so_and_can_be_started_again():
    sources, ready = FakeSources(), []
    fetches = Fetches(sources, then=ready.append)
    fetches.start("m")
    fetches.cancel("m")
    wait_for(lambda: fetches.find("m").state != "running")
    assert (fetches.find("m").state, ready) == ("cancelled", [])
    sources.go.set()
    fetches.start("m")
    wait_for(lambda: fetches.find("m").state == "done")
    assert ready == ["m"]


@pytest.mark.parametrize(
    ("error", "said"),
    [(PlaygroundError("the Hub: no route"), "the Hub: no route"), (RuntimeError("a bug"), "RuntimeError: a bug")],
)
def test_a_failure_is_kept_with_its_reasons(error, said):
    sources = FakeSources(error)
    sources.go.set()
    fetches = Fetches(sources)
    fetches.start("m")
    wait_for(lambda: fetches.find("m").state != "running")
    assert (fetches.find("m").state, fetches.find("m").error) == ("failed", said)


def test_cancelling_what_was_never_started_does_nothing():
    Fetches(FakeSources()).cancel("m")
