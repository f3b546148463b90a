"""InternLM2: `<|action_start|><|plugin|>{"name": …, "parameters": {…}}<|action_end|>`, results from `environment`.

Source: https://github.com/InternLM/InternLM/blob/main/chat/chat_format.md.
"""

import json

from playground.core.streaming import Marker, close_outside_strings
from playground.core.tool_formats import tool_list
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.reading import read_json_call
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "internlm2"
STOPS = ("<|im_start|>environment",)
OPEN, PLUGIN, CLOSE = "<|action_start|>", "<|plugin|>", "<|action_end|>"
MARKERS = (
    Marker("call", OPEN, CLOSE, end=close_outside_strings(CLOSE), until=(OPEN,)),
    Marker("reasoning", "<think>", "</think>"),
)


def announce(tools) -> str:
    return f"{PLUGIN}\n{tool_list.as_list(tools, False)}"


def write(calls: list[Call]) -> str:
    written = (json.dumps({"name": c.name, "parameters": c.arguments}, ensure_ascii=False) for c in calls)
    return "\n".join(f"{OPEN}{PLUGIN}\n{one}{CLOSE}" for one in written)


def read(body: str, raw: str, closed: bool, tools=()) -> Call | Fault:
    text = body.strip().removeprefix(PLUGIN)
    if not closed and PLUGIN.startswith(text.strip()):
        text = ""
    return read_json_call(text, raw, closed, f"between {OPEN} and {CLOSE}", ("parameters", "arguments"))


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return content
