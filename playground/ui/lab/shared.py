"""What the views of the Templates tab share: the components that say what is looked at, and how they are read."""

import html
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import gradio as gr

from playground.core import datasets
from playground.core.datasets import Dataset
from playground.core.messages import Conversation, check_messages, parse_conversation
from playground.core.templates import Template
from playground.core.tokenizer import Tokenizer
from playground.errors import PlaygroundError
from playground.ui.common import Services

DATA = "data:"  # what a source begins with that is a data set; any other is the title of a sample


@dataclass(frozen=True)
class Reader:
    """What the handlers need of the process: templates, data sets, and tokenizers, kept once read."""

    services: Services
    load: Callable

    @classmethod
    def of(cls, services: Services) -> "Reader":
        return cls(services, lru_cache(maxsize=4)(Tokenizer.load))

    def tokenizer(self, model: str) -> Tokenizer | None:
        """The model's tokenizer; None where the model is not on this machine."""
        folder = self.services.sources.find(model)
        return self.load(folder) if folder is not None else None

    def tokenizer_or_note(self, model: str, unread: str, absent: str) -> tuple[Tokenizer | None, str, bool]:
        """The tokenizer, else HTML that says why there is none; and whether it may be here soon.

        `unread` and `absent` say what that means for the view, after "cannot be read, so" and "not here yet, so".
        """
        try:
            tokenizer = self.tokenizer(model)
        except PlaygroundError as error:
            return None, notice(f"The tokenizer cannot be read, so {unread}: {error}", warn=True), False
        if tokenizer is not None:
            return tokenizer, "", False
        words = f"{self.title(model)} is not on this machine yet, so {absent} "
        return None, notice(words + "Get the model with the button at the top of the page."), True

    def entry(self, model: str):
        return next((entry for entry in self.services.sources.entries() if entry.name == model), None)

    def title(self, model: str) -> str:
        return getattr(self.entry(model), "title", "") or model

    def context(self, model: str) -> int:
        return getattr(self.entry(model), "context", 0) or 0

    def template(self, key: str, tokenizer: Tokenizer | None = None) -> Template:
        """The template that a key of the templates' list stands for. Raises PlaygroundError."""
        return self.services.templates.load(key, tokenizer)

    def data(self, source: str) -> Dataset:
        """The rows of a source of the list "Start from"; a sample is a data set of one row."""
        if source.startswith(DATA):
            return self.services.datasets.load(source.removeprefix(DATA))
        sample = datasets.samples().get(source)
        if sample is None:
            raise PlaygroundError(f"there is no example {source!r}: choose one of the list")
        return Dataset(source, "messages", [sample])


@dataclass(frozen=True)
class Lab:
    """The components at the top of the tab, which all views read."""

    reader: Reader
    source: gr.Dropdown  # a sample's title, or DATA and the name of a data set
    example: gr.Textbox  # the conversation that is looked at, as JSON; it may have been edited
    chosen: gr.Dropdown  # keys of the chosen templates, side by side
    model: gr.Dropdown  # whose tokenizer
    variables: gr.State  # {name: value} of the template variables that are set on the page
    row: gr.State  # the place of the example in its source, from 0


def conversation_of(text: str, variables: dict | None = None) -> Conversation:
    """The conversation in the example's text; the page's variables win over its own. Raises PlaygroundError."""
    if not (text or "").strip():
        raise PlaygroundError("there is no example: pick one under “Start from”, or paste messages as JSON")
    found = parse_conversation(text)
    check_messages(found.messages)
    return Conversation(found.messages, found.tools, {**found.variables, **(variables or {})})


def view_of(body: str) -> str:
    return f'<div class="templates-view">{body}</div>'


def empty(sentence: str) -> str:
    return f'<div class="templates-empty">{html.escape(sentence)}</div>'


def notice(sentence: str, warn: bool = False) -> str:
    kind = "templates-note warn" if warn else "templates-note"
    return f'<p class="{kind}" role="{"alert" if warn else "note"}">{html.escape(sentence)}</p>'


def first_upper(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
