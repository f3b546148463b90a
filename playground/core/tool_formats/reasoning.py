"""The reasoning mix: `<|thinking|>…</|thinking|>`, then Hermes calls or `<answer>…</answer>`."""

from playground.core.streaming import Marker
from playground.core.tool_formats import hermes
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.values import Parsed

NAME = "reasoning"
STOPS = hermes.STOPS
MARKERS = (
    hermes.CALL,
    Marker("reasoning", "<|thinking|>", "</|thinking|>"),
    Marker("content", "<answer>", "</answer>"),
)
announce = hermes.announce
write = hermes.write
read = hermes.read
write_result = hermes.write_result


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)
