"""What the linter looks at: a row rendered as it stands and in the variations that give a template away.

Everything here is found by rendering. Contents are exchanged for words that no template knows; whether and where such
a word comes out says what the template did with the message that held it.
"""

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field, replace
from functools import cached_property

from playground.core.messages import Conversation
from playground.core.templates import Rendered, Template, Text, render, texts
from playground.core.tokenizer import Tokenizer
from playground.core.training.collate import common_start

# A tag or a bracketed word: the shapes that markers have, whatever is written in them.
TAG = re.compile(r"<[^<>\s]{1,40}>|\[/?\w{2,20}\]")
_LONGEST_MARKER = 40
_USER, _NEXT = {"role": "user", "content": "qzaskqz"}, {"role": "user", "content": "qznextqz"}
_ANSWER, _LAST = {"role": "assistant", "content": "qzanswerqz"}, {"role": "assistant", "content": "qzlastqz"}
_REASONING = "qzreasoningqz"


@dataclass(frozen=True)
class Habits:
    """What a template does in the plainest conversation. `stop` is None where that cannot be rendered."""

    stop: str | None = None  # what it writes at the end of a reply, without white space
    markers: tuple[str, ...] = ()  # what it writes between the messages: tags, and lines that are none
    reasoning: bool = False  # the last turn's reasoning is written

    @property
    def tags(self) -> list[str]:
        return [marker for marker in self.markers if TAG.fullmatch(marker)]


def habits(template: Template, tokenizer: Tokenizer | None = None, variables: dict | None = None) -> Habits:
    talks = (
        [_USER, _ANSWER],
        [_USER, _ANSWER, _NEXT, _LAST],
        [_USER, {**_ANSWER, "reasoning_content": _REASONING}],
    )
    conversations = [Conversation(talk, [], variables or {}) for talk in talks]
    one, two, thinking = texts(template, conversations, tokenizer)
    stop, markers = None, []
    if isinstance(one, Text) and _ANSWER["content"] in one.text:
        stop = _end_of_reply(one.text, two.text if isinstance(two, Text) else one.text)
    if isinstance(two, Text):
        before, *others = re.split("|".join(message["content"] for message in talks[1]), two.text)
        last_line = before.rstrip().rsplit("\n", 1)[-1]  # what stands above it may be a system message
        for line in "\n".join([last_line, *others]).split("\n"):
            markers += TAG.findall(line) or [line.strip()]
    markers = [m for m in dict.fromkeys(markers) if 2 < len(m) <= _LONGEST_MARKER and not m.isalnum()]
    reasoning = isinstance(thinking, Text) and _REASONING in thinking.text
    return Habits(stop, tuple(markers), reasoning)


def _end_of_reply(one: str, two: str) -> str:
    """What is written after the answer of a conversation that ends there; `two` goes on after it."""
    word = _ANSWER["content"]
    tail = one[one.rindex(word) + len(word) :]
    if not two.startswith(one) and word in two:  # a generation prompt or an end of text may follow: what do both have?
        shared = common_start([tail, two[two.index(word) + len(word) :]])
        first = TAG.search(tail, 0, shared)
        tail = tail[: first.end()] if first else tail
    tags = TAG.findall(tail)
    return tags[-1] if tags and tail.rstrip().endswith(tags[-1]) else tail.strip()


@dataclass(frozen=True)
class Reply:
    """An assistant message's place in the text; None where the text does not keep to the prompt or its prefix."""

    message: int  # its number in the conversation, from 0
    prompt: str | None  # what a chat would send to get it
    upto: str | None  # the conversation up to and with it
    start: int | None  # where the prompt ends in the text
    end: int | None  # where `upto` ends in the text


@dataclass(frozen=True)
class Part:
    """A piece of the conversation and the word that stood for it; `shown` says whether the word came out."""

    kind: str  # system, user, assistant, tool, reasoning, call, tools
    message: int  # -1 for the tools
    given: str
    shown: bool


@dataclass(frozen=True)
class Case:
    """A row under a template."""

    template: Template
    conversation: Conversation
    tokenizer: Tokenizer | None
    habits: Habits
    max_length: int | None
    done: Rendered
    replies: list[Reply]
    parts: list[Part] = field(repr=False)  # empty where the row with words in place of its contents does not render
    thinking: tuple[dict[int, str], str]  # the word for each assistant message's reasoning, and that rendering

    @property
    def text(self) -> str:
        return self.done.text

    def tokens(self, start: int, end: int) -> tuple[int, ...]:
        """Numbers of the tokens that hold a character of [start, end)."""
        if self.done.offsets is None or start >= end:
            return ()
        return tuple(range(bisect_right(self._ends, start), bisect_left(self._starts, end)))

    def trained(self, start: int, end: int) -> list[tuple[int, int]]:
        """The trained characters in [start, end), as ranges."""
        spans = [(max(start, s.start), min(end, s.end)) for s in self.done.spans if s.trained]
        return [(a, b) for a, b in spans if a < b]

    @cached_property
    def _starts(self) -> list[int]:
        return [start for start, _ in self.done.offsets]

    @cached_property
    def _ends(self) -> list[int]:
        return [end for _, end in self.done.offsets]


def read(
    template: Template,
    conversation: Conversation,
    tokenizer: Tokenizer | None = None,
    max_length: int | None = None,
    known: Habits | None = None,
) -> Case:
    """Render a row and its variations. Raises PlaygroundError where the row itself does not render."""
    variables = {k: v for k, v in conversation.variables.items() if k != "add_generation_prompt"}
    conversation = replace(conversation, variables=variables)
    done = render(template, conversation, tokenizer)
    messages = conversation.messages
    assistants = [i for i, message in enumerate(messages) if message.get("role") == "assistant"]
    asked = []
    for i in assistants:
        asked.append(
            replace(conversation, messages=messages[:i], variables={**variables, "add_generation_prompt": True})
        )
        asked.append(replace(conversation, messages=messages[: i + 1]))
    parts, worded = _worded(conversation)
    words, thinking = _thinking(conversation, assistants)
    results = texts(template, [*asked, worded, thinking], tokenizer)
    found = [result.text if isinstance(result, Text) else None for result in results]
    replies = [
        Reply(i, prompt, upto, *(len(t) if t is not None and done.text.startswith(t) else None for t in (prompt, upto)))
        for i, prompt, upto in zip(assistants, found[:-2:2], found[1:-2:2], strict=True)
    ]
    shown = [] if found[-2] is None else [Part(*part, word in found[-2]) for word, part in parts]
    known = known or habits(template, tokenizer, variables)
    return Case(template, conversation, tokenizer, known, max_length, done, replies, shown, (words, found[-1] or ""))


def _worded(conversation: Conversation) -> tuple[list[tuple[str, tuple]], Conversation]:
    """(word, (kind, message, what it stands for)) of each part, and the conversation with the words in their place."""
    parts, messages = [], []

    def word(kind: str, message: int, given: str) -> str:
        parts.append((f"qz{len(parts)}qz", (kind, message, given)))
        return parts[-1][0]

    for number, message in enumerate(conversation.messages):
        message = dict(message)
        kind = message.get("role")
        for key in ("content", "instruction", "input"):
            if isinstance(message.get(key), str) and message[key].strip():
                message[key] = word(kind, number, message[key])
        if isinstance(message.get("reasoning_content"), str) and message["reasoning_content"].strip():
            message["reasoning_content"] = word("reasoning", number, message["reasoning_content"])
        if isinstance(message.get("tool_calls"), list):
            message["tool_calls"] = [
                _renamed(call, lambda name, i=number: word("call", i, name)) for call in message["tool_calls"]
            ]
        messages.append(message)
    tools = [_renamed(tool, lambda name: word("tools", -1, name)) for tool in conversation.tools]
    return parts, replace(conversation, messages=messages, tools=tools)


def _renamed(value: dict, rename) -> dict:
    """A tool or a call under another name."""
    if not isinstance(value, dict):
        return value
    inner = value.get("function")
    if isinstance(inner, dict) and isinstance(inner.get("name"), str):
        return {**value, "function": {**inner, "name": rename(inner["name"])}}
    return {**value, "name": rename(value["name"])} if isinstance(value.get("name"), str) else value


def _thinking(conversation: Conversation, assistants: list[int]) -> tuple[dict[int, str], Conversation]:
    """The conversation with a word as the reasoning of each assistant message."""
    words = {i: f"qzthink{i}qz" for i in assistants}
    messages = [
        {**message, "reasoning_content": words[i]} if i in words else message
        for i, message in enumerate(conversation.messages)
    ]
    return words, replace(conversation, messages=messages)
