"""LFM2: a Python list of calls, or JSON, between `<|tool_call_start|>` and `<|tool_call_end|>`.

LFM2.5 may leave the markers out when the call is all it says. Its models write quotes inside of quotes
(`command='sed -n '1,5p' f'`): where a text cannot be read otherwise, it ends with the quote after which an argument
can end. What is said again right behind a call, with the closing marker, is no second call. Source: https://docs.liquid.ai/lfm/key-concepts/tool-use.
"""

import re

from playground.core.streaming import Marker, dropped
from playground.core.tool_formats import literals, pythonic, tool_list
from playground.core.tool_formats.arguments import PYTHON
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.reading import read_json_calls
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "lfm2"
BARE = pythonic.BARE
STOPS = ("<|tool_response_start|>",)
OPEN, CLOSE = "<|tool_call_start|>", "<|tool_call_end|>"


def _find_bare(text: str, at: int, final: bool):
    """A list of calls where nothing was said before it but thoughts."""
    found = pythonic.find(text, at, final)
    before = text[: found[0]].rstrip() if found else ""
    return found if found and (not before or before.endswith("</think>")) else None


def _find_echo(text: str, at: int, final: bool):
    """A call once more behind its closing marker, with only that marker of its own: its models stammer."""
    for close in _CLOSES.finditer(text, max(0, at - len(CLOSE))):
        opened = text.rfind(OPEN, 0, close.start())
        said = text[opened + len(OPEN) : close.start()].strip()
        rest = text[close.end() :]
        if opened < 0 or not said or not rest.strip() or close.end() < at:
            continue
        again = rest.lstrip()
        if again.startswith(said + CLOSE):
            return close.end(), len(text) - len(again) + len(said + CLOSE)
        if not final and (said + CLOSE).startswith(again):
            return close.end(), -1
    return None


_CLOSES = re.compile(re.escape(CLOSE))
ARGUMENT_FORM = PYTHON
MARKERS = (
    Marker("content", "", "", find=_find_echo, end=lambda _, start: start),
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
