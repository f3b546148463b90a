"""xLAM: a JSON list `[{"name": …, "arguments": {…}}]`, bare or in a fence, `<tool_call>` or `[TOOL_CALLS]`;
Hunyuan and Apriel put `<tool_calls>` around such a list.

Source: https://huggingface.co/Salesforce/Llama-xLAM-2-8b-fc-r (its models were seen to wrap the list in each of these).
"""

import json

from playground.core.streaming import Marker
from playground.core.tool_formats import tool_list
from playground.core.tool_formats.bare_json import finder
from playground.core.tool_formats.reading import json_body, read_json_calls
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "xlam"
STOPS = ()
MARKERS = (
    Marker(
        "call",
        "",
        "",
        find=finder(objects=False, before=r"```json\s*|```\s*|<tool_calls>\s*|<tool_call>\s*|\[TOOL_CALLS\]\s*"),
        end=json_body(("```", "</tool_call>", "</tool_calls>")),
    ),
    Marker("reasoning", "<think>", "</think>"),
)


def announce(tools) -> str:
    return (
        "You have access to a set of tools. When using tools, make calls in a single JSON array:\n\n"
        '[{"name": "tool_call_name", "arguments": {"arg1": "value1", "arg2": "value2"}}, ... '
        "(additional parallel tool calls as needed)]\n\n"
        "If no tool is suitable, state that explicitly. The available tools are:\n\n" + tool_list.as_lines(tools, False)
    )


def write(calls: list[Call]) -> str:
    return json.dumps([{"name": c.name, "arguments": c.arguments} for c in calls], ensure_ascii=False)


def read(body: str, raw: str, closed: bool, tools=()) -> list[Call | Fault]:
    return read_json_calls(body, raw, closed, "of the call")


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return content
