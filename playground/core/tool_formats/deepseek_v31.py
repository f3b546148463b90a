"""DeepSeek V3.1: as V3, but the name stands before `<｜tool▁sep｜>` and the arguments, without a fence, after it.

Source: the chat template of https://huggingface.co/deepseek-ai/DeepSeek-V3.1.
"""

import json

from playground.core.tool_formats import deepseek_v3, tool_list
from playground.core.tool_formats.deepseek_v3 import CLOSE, OPEN, SECTION, SECTION_END, SEPARATOR
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "deepseek_v31"
STOPS = deepseek_v3.STOPS
MARKERS = deepseek_v3.MARKERS
write_result = deepseek_v3.write_result


def announce(tools) -> str:
    return (
        "## Tools\nYou have access to the following tools:\n\n" + tool_list.as_lines(tools) + "\n\n"
        f"IMPORTANT: ALWAYS adhere to this exact format for tool use:\n{SECTION}{OPEN}tool_call_name{SEPARATOR}"
        f"tool_call_arguments{CLOSE}{{additional_tool_calls}}{SECTION_END}\nThe arguments must be a JSON object."
    )


def write(calls: list[Call]) -> str:
    pieces = (f"{OPEN}{c.name}{SEPARATOR}{json.dumps(c.arguments, ensure_ascii=False)}{CLOSE}" for c in calls)
    return SECTION + "".join(pieces) + SECTION_END


def read(body: str, raw: str, closed: bool, tools=()) -> Call | Fault:
    head, separator, tail = body.partition(SEPARATOR)
    if separator and head.strip() == "function" and not tail.lstrip().startswith("{") and tail.strip():
        return Fault("malformed", f"After {SEPARATOR} the arguments must follow, got {tail.strip()[:40]!r}.", raw)
    return deepseek_v3.read(body, raw, closed, tools)


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)
