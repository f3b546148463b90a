"""LFM2: a Python list of calls, or JSON, between `<|tool_call_start|>` and `<|tool_call_end|>`.

LFM2.5 may leave the markers out when the call is all it says. Its models write quotes inside of quotes
(`command='sed -n '1,5p' f'`): where a text cannot be read otherwise, it ends with the quote after which an argument
can end. Source: https://docs.liquid.ai/lfm/key-concepts/tool-use.
"""

from playground.core.streaming import Marker, dropped
from playground.core.tool_formats import literals, pythonic, tool_list
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.reading import read_json_calls
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "lfm2"
STOPS = ("<|tool_response_start|>",)
OPEN, CLOSE = "<|tool_call_start|>", "<|tool_call_end|>"


def _find_bare(text: str, at: int, final: bool):
    """A list of calls where nothing was said before it but thoughts."""
    found = pythonic.find(text, at, final)
    before = text[: found[0]].rstrip() if found else ""
    return found if found and (not before or before.endswith("</think>")) else None


MARKERS = (
    Marker("call", OPEN, CLOSE, until=(OPEN,)),
    dropped(CLOSE),
    Marker("call", "", "", find=_find_bare, end=pythonic.end),
    Marker("reasoning", "<think>", "</think>", unclosed=(OPEN,)),
)


def announce(tools) -> str:
    return f"List of tools: <|tool_list_start|>{tool_list.as_list(tools, False)}<|tool_list_end|>"


def write(calls: list[Call]) -> str:
    return f"{OPEN}[{', '.join(map(literals.write_call, calls))}]{CLOSE}"


def read(body: str, raw: str, closed: bool, tools=()) -> list[Call | Fault]:
    text = body.strip()
    if text.lstrip("[ \n").startswith("{"):
        return read_json_calls(text, raw, closed, f"between {OPEN} and {CLOSE}")
    return literals.read_calls(text, closed, loose_quotes=True)


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return f"<|tool_response_start|>{content}<|tool_response_end|>"
