"""A lane, and the reply it writes: what the engine fills, and what pages, loops and servers read."""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from playground.config import SamplingConfig
from playground.core.constrained import Constraint, Guide
from playground.core.templates import Rendered
from playground.errors import PlaygroundError

WORDS_FOR_REASON = {
    "stop": "ended by itself",
    "length": "cut at the token limit",
    "cancelled": "stopped",
    "error": "failed",
}


@dataclass(frozen=True)
class Lane:
    """One column of a chat: model + adapter (or none) + template + sampling.

    `template` is a template's name, "model" for the model's own, or "" for the one the adapter was trained with
    (without an adapter: the model's own, or plain text where it has none). `constraint` holds what it writes to the
    schemas of the conversation's tools. With `alternatives`, so many of the likeliest tokens are noted at each step.
    """

    model: str
    adapter: str | None = None
    template: str = ""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    label: str = ""
    sanitize: bool = True
    constraint: Constraint | None = None
    alternatives: int = 0

    @classmethod
    def parse(cls, text: str) -> "Lane":
        """A lane written as `MODEL[+ADAPTER][@TEMPLATE]`."""
        rest, _, template = text.partition("@")
        model, _, adapter = rest.partition("+")
        if not model:
            raise PlaygroundError(f"a lane is written MODEL[+ADAPTER][@TEMPLATE], got {text!r}")
        return cls(model=model, adapter=adapter or None, template=template, label=text)

    @property
    def name(self) -> str:
        return self.label or self.model + (f" + {self.adapter}" if self.adapter else "")


@dataclass(frozen=True)
class Chunk:
    """What came since the last chunk: text that can be shown, and the ids of the tokens behind it."""

    text: str
    tokens: list[int]
    done: bool
    finish_reason: str | None
    tokens_per_second: float


class Reply:
    """A reply that is being written. Filled by the engine; may be read, or left alone, by anyone."""

    def __init__(self, lane: Lane, prompt: Rendered, stops: Sequence[str] = (), guide: Guide | None = None):
        self.lane = lane
        self.prompt = prompt
        self.weights = ""  # the name of the weights that it is decoded with, in the engine's list
        self.stops = tuple(stops)
        self.guide = guide
        self.text = ""
        self.ids: list[int] = []
        self.choices: list = []  # a core.generation.Choice for each token, where the lane asks for alternatives
        self.finish_reason: str | None = None
        self.error: str | None = None
        self.asked = time.monotonic()
        self.first_token_s: float | None = None
        self._newest = self.asked
        self._cancelled = threading.Event()
        self._changed = threading.Condition()

    @classmethod
    def failed(cls, lane: Lane, sentence: str) -> "Reply":
        """The reply of a lane that could not start."""
        reply = cls(lane, Rendered("", [], "none", ids=[]))
        reply.finish("error", sentence)
        return reply

    @property
    def done(self) -> bool:
        return self.finish_reason is not None

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Ask the engine to end this reply; what is written stays."""
        self._cancelled.set()

    @property
    def count(self) -> int:
        """Tokens written so far."""
        return len(self.ids)

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed after the first token; 0.0 until there are two."""
        if self.count < 2 or self.first_token_s is None:
            return 0.0
        return (self.count - 1) / max(self._newest - self.asked - self.first_token_s, 1e-9)

    @property
    def mask_seconds_per_token(self) -> float:
        """What the lane's constraint has cost; 0.0 without one."""
        return self.guide.seconds_per_token if self.guide else 0.0

    def add(self, token: int | None, text: str) -> None:
        """Called by the engine: one more token, and the text it completes (often none yet)."""
        with self._changed:
            self._newest = time.monotonic()
            if token is not None:
                if self.first_token_s is None:
                    self.first_token_s = self._newest - self.asked
                self.ids.append(token)
            self.text += text
            self._changed.notify_all()

    def finish(self, reason: str, error: str | None = None) -> None:
        """Called by the engine: nothing more comes."""
        with self._changed:
            self.finish_reason, self.error = reason, error
            self._changed.notify_all()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the reply is done; False when it is not after `seconds`."""
        with self._changed:
            return self._changed.wait_for(lambda: self.done, seconds)

    def __iter__(self) -> Iterator[Chunk]:
        shown = read = 0
        while True:
            with self._changed:
                while not self.done and len(self.text) == shown and len(self.ids) == read:
                    self._changed.wait()
                text, ids, reason = self.text, list(self.ids), self.finish_reason
            yield Chunk(text[shown:], ids[read:], reason is not None, reason, self.tokens_per_second)
            shown, read = len(text), len(ids)
            if reason is not None:
                return
