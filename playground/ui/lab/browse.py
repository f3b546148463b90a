"""Choose what is looked at: a sample or a row of a data set; walk, search and jump through its rows."""

import html
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import gradio as gr

from playground.core import datasets
from playground.core.datasets.summary import answered, characters
from playground.core.messages import Conversation
from playground.errors import PlaygroundError
from playground.ui.common import QUEUED, QUIET, shown
from playground.ui.lab.shared import DATA, Reader

DEFAULT_SAMPLE = "Tool call with its result"
NEXT, PREVIOUS = 1, -1

CSS = """
.lab-browse { align-items: end; }
.lab-browse button { min-width: 44px; }
.lab-where { font-size: var(--text-sm); color: var(--body-text-color-subdued); }
"""


@dataclass(frozen=True)
class Browser:
    """The components that say which row is looked at."""

    source: gr.Dropdown
    row: gr.State  # from 0
    example: gr.Textbox


def build(reader: Reader) -> Browser:
    # gradio checks a value against the choices it knows, and an event may arrive before the choices it brought; what is
    # not there is said by `Reader.data`
    source = gr.Dropdown(
        source_choices(reader), value=DEFAULT_SAMPLE, label="Start from", filterable=True, allow_custom_value=True
    )
    row = gr.State(0)
    with gr.Column(visible=False) as rows:
        with gr.Row(elem_classes="lab-browse"):
            back = gr.Button("◀", size="sm", scale=0, min_width=44, elem_id="lab-back")
            number = gr.Number(1, label="Row", precision=0, min_width=90, elem_id="lab-row")
            on = gr.Button("▶", size="sm", scale=0, min_width=44, elem_id="lab-next")
            jump = gr.Dropdown(list(JUMPS), value=None, label="Go to the row that is", min_width=150, filterable=False)
        search = gr.Textbox(
            label="Search in the rows",
            placeholder="a word, then Enter; again for the next row that has it",
            max_lines=1,
            elem_id="lab-search",
        )
        where = gr.HTML(elem_classes="lab-where")
    example = gr.Textbox(
        example_text(datasets.samples()[DEFAULT_SAMPLE]),
        label="Example: messages as JSON, or plain text",
        lines=7,
        max_lines=14,
        elem_classes="templates-example",
    )
    shows = [row, number, example, where, rows]
    page = gr.context.Context.root_block
    if page is not None:  # another tab or another visitor may have added data since the page was made
        page.load(lambda: gr.update(choices=source_choices(reader)), None, source, **QUIET)
    source.change(shown(partial(open_source, reader)), source, shows, trigger_mode="always_last", **QUEUED)
    for event, step in ((back.click, PREVIOUS), (on.click, NEXT)):
        event(shown(partial(move, reader, step)), [source, row], shows, trigger_mode="always_last", **QUEUED)
    number.submit(shown(partial(go_to, reader)), [source, row, number], shows, **QUEUED)
    number.blur(shown(partial(go_to, reader)), [source, row, number], shows, **QUEUED)
    jump.input(shown(partial(jump_to, reader)), [source, jump], [*shows, jump], **QUEUED)
    search.submit(shown(partial(find, reader)), [source, search, row], shows, **QUEUED)
    return Browser(source, row, example)


def source_choices(reader: Reader) -> list[tuple[str, str]]:
    """Built-in samples, then the data sets, built in or added, whose rows can be looked through."""
    return [(title, title) for title in datasets.samples()] + [
        (f"Data set: {name}", f"{DATA}{name}") for name in reader.services.datasets.names()
    ]


# --- to a row ---


def open_source(reader: Reader, source: str) -> list:
    return show(reader, source, 0)


def move(reader: Reader, step: int, source: str, row: int) -> list:
    """The next or previous row; past the last comes the first."""
    return show(reader, source, (row + step) % len(reader.data(source).conversations))


def go_to(reader: Reader, source: str, row: int, number: float | None) -> list:
    """A row by its number from 1; a number outside goes to the nearest, an emptied field back to the row it had."""
    count = len(reader.data(source).conversations)
    return show(reader, source, min(max(int(row + 1 if number is None else number), 1), count) - 1)


def find(reader: Reader, source: str, words: str, row: int) -> list:
    """The next row after this one that holds the words, round and round; case does not count."""
    words = (words or "").strip().casefold()
    if not words:
        raise PlaygroundError("there is nothing to search for: write a word that the row should hold")
    conversations = reader.data(source).conversations
    holding = [place for place, talk in enumerate(conversations) if words in _everything(talk).casefold()]
    if not holding:
        raise PlaygroundError(f"no row holds {words!r}; {len(conversations):,} rows were searched")
    place = next((place for place in holding if place > row), holding[0])
    return show(reader, source, place, f"{holding.index(place) + 1:,} of {len(holding):,} rows that hold “{words}”")


def jump_to(reader: Reader, source: str, jump: str | None) -> list:
    if not jump:
        return [gr.skip()] * 6
    conversations = reader.data(source).conversations
    place = JUMPS[jump](conversations)
    if place is None:
        raise PlaygroundError(f"{source.removeprefix(DATA)} has no such row: {jump}")
    return [*show(reader, source, place), None]  # so that the same jump can be chosen again


def _longest(conversations: list[Conversation]) -> int:
    return max(range(len(conversations)), key=lambda place: characters(conversations[place]))


def _shortest(conversations: list[Conversation]) -> int:
    return min(range(len(conversations)), key=lambda place: characters(conversations[place]))


def _first(holds: Callable[[Conversation], bool]) -> Callable[[list[Conversation]], int | None]:
    return lambda conversations: next((place for place, talk in enumerate(conversations) if holds(talk)), None)


def _calls_a_tool(conversation: Conversation) -> bool:
    return any(message.get("tool_calls") for message in conversation.messages)


def _is_problem(conversation: Conversation) -> bool:
    """No reply to learn from, or a message without words."""
    messages = conversation.messages
    silent = [m for m in messages if not (m.get("content") or "").strip() and not m.get("tool_calls")]
    return bool(silent) or not answered(conversation)


JUMPS = {
    "the longest": _longest,
    "the shortest": _shortest,
    "the first with a tool call": _first(_calls_a_tool),
    "the first with reasoning": _first(lambda talk: any(m.get("reasoning_content") for m in talk.messages)),
    "the first with a problem": _first(_is_problem),
}


def show(reader: Reader, source: str, place: int, found: str = "") -> list:
    """Values for row, number, example, where and rows."""
    data = reader.data(source)
    many, last = source.startswith(DATA), len(data.conversations)
    number = gr.update(value=place + 1, label=f"Row of {last:,}")
    return [place, number, example_text(data.conversations[place]), _where(data, place, found), gr.update(visible=many)]


def _where(data, place: int, found: str) -> str:
    words = [found] if found else []
    words.append(f"{data.format} format")
    if data.numbers and data.numbers[place] != place + 1:
        words.append(f"row {data.numbers[place]:,} of the file")
    if data.bad:
        words.append(f"{data.bad:,} rows of the file cannot be used: {data.problems[0]}")
    return html.escape(" · ".join(words))


def _everything(conversation: Conversation) -> str:
    return json.dumps(conversation.messages, ensure_ascii=False)


# --- the example as text ---


def example_text(conversation: Conversation) -> str:
    """The conversation as JSON, one message and one tool per line."""

    def lines(values: list[dict]) -> str:
        return "[\n" + ",\n".join(f"  {json.dumps(value, ensure_ascii=False)}" for value in values) + "\n]"

    keys = {"messages": lines(conversation.messages)}
    if conversation.tools:
        keys["tools"] = lines(conversation.tools)
    keys |= {name: json.dumps(value, ensure_ascii=False) for name, value in conversation.variables.items()}
    return "{" + ",\n".join(f'"{name}": {value}' for name, value in keys.items()) + "}"
