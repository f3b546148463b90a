"""Services without models: a fake engine that answers what a test has enqueued."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import gradio as gr
import pytest

from playground.config import Paths
from playground.core import exchanges
from playground.core.exchanges import LeftOut
from playground.core.templates import Rendered
from playground.errors import PlaygroundError
from playground.services.datasets import Datasets
from playground.services.remote import Remotes
from playground.services.templates import Templates
from playground.services.votes import Votes
from playground.ui import arena_tab
from playground.ui.common import Services


class FakeReply:
    """Grows by one piece at each `step`."""

    def __init__(self, lane, conversation, pieces, error=None):
        self.lane, self.conversation = lane, conversation
        text = "".join(f"[{message['role']}] {message['content']}\n" for message in conversation.messages)
        self.prompt = Rendered(text, [], "none")
        self.pieces, self.text, self.ids = list(pieces), "", []
        self.finish_reason, self.error, self._error = None, None, error
        self.first_token_s, self.tokens_per_second = None, 0.0

    @property
    def done(self):
        return self.finish_reason is not None

    @property
    def count(self):
        return len(self.ids)

    def step(self):
        if self.done:
            return
        if self.pieces:
            self.text += self.pieces.pop(0)
            self.ids.append(1)
            self.first_token_s, self.tokens_per_second = 0.5, 20.0
        else:
            self.finish_reason, self.error = ("error", self._error) if self._error else ("stop", None)

    def cancel(self):
        self.finish_reason = self.finish_reason or "cancelled"


@dataclass
class FakeEngine:
    """`enqueue` what the next replies say, in the order in which they will be asked for."""

    queue: list = field(default_factory=list)
    asked: list = field(default_factory=list)  # every reply it has started
    infos: list = field(default_factory=list)
    states: dict = field(default_factory=dict)
    way: list = field(default_factory=list)  # runs that the models have made way for
    refusals: dict = field(default_factory=dict)  # template → why it cannot be rendered
    room: dict = field(default_factory=dict)  # template → how many exchanges fit; all where it does not say
    remotes: Remotes = field(default_factory=Remotes)

    def enqueue(self, *pieces, error=None):
        self.queue.append((pieces, error))

    def state(self, model, adapter=None):
        return self.states.get(adapter, self.states.get(model, "ready"))

    def warm(self, model):
        self.states[model] = "loading"

    def resting(self):
        return f"The models have made way for {self.way[-1]}." if self.way else ""

    def make_way(self, run):
        self.way.append(run)

    def adapters(self):
        return self.infos

    def ahead(self, reply):
        return 0

    def prompt(self, lane, conversation):
        if lane.template in self.refusals:
            raise PlaygroundError(self.refusals[lane.template])

    def fitted(self, lane, conversation, starts=None):
        self.prompt(lane, conversation)
        places = exchanges.starts(conversation.messages) if starts is None else starts
        count = max(0, len(places) - self.room.get(lane.template, len(places)))
        left_out = LeftOut(count, 40 * count, "200 tokens", 16) if count else None
        return exchanges.without(conversation, places, count), left_out

    def replies(self, asked, stop=(), visitor=""):
        for lane, conversation in asked:
            self.prompt(lane, conversation)
        started = []
        for lane, conversation in asked:
            pieces, error = self.queue.pop(0)
            started.append(FakeReply(lane, conversation, pieces, error))
        self.asked += started
        self.step()
        return started

    def step(self):
        for reply in self.asked:
            reply.step()


@dataclass(frozen=True)
class Entry:
    name: str
    title: str
    role: str


class FakeSources:
    ENTRIES = (
        Entry("smollm2-135m-instruct", "SmolLM2 135M Instruct", "instruct"),
        Entry("smollm2-135m", "SmolLM2 135M", "base"),
        Entry("gemma3-270m", "Gemma 3 270M", "base"),
    )

    def __init__(self):
        self.here = {"smollm2-135m-instruct"}
        self.accepted = set()

    def entries(self):
        return list(self.ENTRIES)

    def entry(self, name):
        for entry in self.ENTRIES:
            if entry.name == name:
                return entry
        raise PlaygroundError(f"unknown model {name!r}")

    def find(self, name):
        return name if self.entry(name).name in self.here else None

    def status(self, name):
        if name in self.here:
            return "here"
        return "needs licence" if name.startswith("gemma") and name not in self.accepted else "can be had"

    def licence_text(self, name):
        return "Gemma terms <script>alert(1)</script>"

    def accept_licence(self, name):
        self.accepted.add(name)


class FakeFetches:
    """Fetches whose state a test sets."""

    def __init__(self):
        self.fetches = {}
        self.started, self.cancelled = [], []

    def find(self, name):
        return self.fetches.get(name)

    def start(self, name, accept_licence=False):
        self.started.append(name)

    def cancel(self, name):
        self.cancelled.append(name)


def make_services(home) -> Services:
    paths = Paths(home)
    return Services(
        paths=paths,
        sources=FakeSources(),
        engine=FakeEngine(),
        jobs=SimpleNamespace(),
        votes=Votes(paths.votes),
        datasets=Datasets(paths),
        templates=Templates(paths),
        fetches=FakeFetches(),
    )


@pytest.fixture
def services(tmp_path):
    return make_services(tmp_path)


@pytest.fixture(scope="session")
def view(tmp_path_factory):
    """The chat's components: laid out once, because handlers only name them."""
    with gr.Blocks():
        return arena_tab.build(make_services(tmp_path_factory.mktemp("view")))


@pytest.fixture
def adapter():
    """Make an adapter's description as `engine.adapters()` lists it."""
    return lambda name, base="smollm2-135m-instruct": SimpleNamespace(name=name, base_model=base)
