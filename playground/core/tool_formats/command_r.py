"""Command R and R+: `Action:` and a fenced JSON list of `{"tool_name", "parameters"}`.

The tool `directly-answer` means that no tool is used. Source: the tool_use template of
https://huggingface.co/CohereLabs/c4ai-command-r-plus.
"""

import json
import re

from playground.core.streaming import Marker
from playground.core.tool_formats import tool_list
from playground.core.tool_formats.arguments import Indented
from playground.core.tool_formats.cohere import make
from playground.core.tool_formats.reading import json_body, read_json_calls
from playground.core.tool_formats.reading import parse as parse_spans
from playground.core.tool_formats.values import Call, Fault, Parsed

NAME = "command_r"
STOPS = ("<results>",)
FENCE = "```"
ARGUMENT_FORM = Indented(" " * 8)
TRIGGER, BARE = f"Action:\n{FENCE}json\n", r"Action:\s*```"  # what a grammar takes over from, and lets nobody else say
NO_TOOL = ("directly-answer", "directly_answer")
_OPENS = re.compile(r"Action:\s*```(?:json)?\s*")
_MAY_OPEN = re.compile(r"A(?:c(?:t(?:i(?:o(?:n(?::\s*`{0,3}(?:j(?:s(?:on?)?)?)?\s*)?)?)?)?)?)?$")


def _find(text: str, at: int, final: bool):
    found = _OPENS.search(text, at)
    if found and (final or found.end() < len(text)):
        return found.start(), found.end()
    begun = None if final else _MAY_OPEN.search(text, at)
    return (begun.start(), -1) if begun else None


MARKERS = (Marker("call", "", "", find=_find, end=json_body((FENCE,))),)


def announce(tools) -> str:
    return (
        "## Available Tools\n" + tool_list.as_lines(tools, False) + "\n\nWrite 'Action:' followed by a json-formatted "
        "list of actions that you want to perform, in this form:\n"
        f'{FENCE}json\n[\n    {{\n        "tool_name": title of the tool,\n        "parameters": its parameters\n    '
        f'}}\n]{FENCE}\nUse the tool "directly-answer" if no other is needed.'
    )


def write(calls: list[Call]) -> str:
    actions = [{"tool_name": c.name, "parameters": c.arguments} for c in calls]
    return f"Action:\n{FENCE}json\n{json.dumps(actions, indent=4, ensure_ascii=False)}\n{FENCE}"


def read(body: str, raw: str, closed: bool, tools=()) -> list[Call | Fault]:
    found = read_json_calls(body, raw, closed, "of the action", make=make)
    return [call for call in found if isinstance(call, Fault) or call.name not in NO_TOOL]


def parse(text: str, reasoning: bool = True, tools=()) -> Parsed:
    return parse_spans(text, MARKERS, read, reasoning, tools)


def write_result(name: str, content: str) -> str:
    return f"<results>\n{content}</results>"
