"""The other shapes in which templates expect a conversation.

Published templates were written for several engines: some take `tools` only where there are any, some want arguments
as JSON text or contents as parts, some read `functions` or `datetime`. Where a template fails on the standard shape
(which is always tried first), these are tried, one or two together; the first that renders is taken and named.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from itertools import combinations


def others(variables: dict) -> Iterator[tuple[str, dict]]:
    """(what was changed, the template's variables so changed), the smallest changes first."""
    useful = [(name, change) for name, change in _CHANGES.items() if change(variables) is not None]
    for size in (1, 2):
        for chosen in combinations(useful, size):
            changed = variables
            for _, change in chosen:
                changed = change(changed) or changed
            yield " and ".join(name for name, _ in chosen), changed


def _no_tools(variables: dict) -> dict | None:
    if variables.get("tools", ()) is not None:
        return None
    return {name: value for name, value in variables.items() if name != "tools"}


def _content_everywhere(variables: dict) -> dict | None:
    messages = variables["messages"]
    if all("content" in message for message in messages):
        return None
    return {**variables, "messages": [{"content": "", **message} for message in messages]}


def _arguments_as_text(variables: dict) -> dict | None:
    def rewritten(call):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("arguments"), dict):
            return call
        text = json.dumps(function["arguments"], ensure_ascii=False)
        return {**call, "function": {**function, "arguments": text}}

    messages = [
        {**message, "tool_calls": [rewritten(call) for call in message["tool_calls"]]}
        if isinstance(message.get("tool_calls"), list)
        else message
        for message in variables["messages"]
    ]
    return {**variables, "messages": messages} if messages != variables["messages"] else None


def _contents_as_parts(variables: dict) -> dict | None:
    messages = [
        {**message, "content": [{"type": "text", "text": message["content"]}]}
        if isinstance(message.get("content"), str)
        else message
        for message in variables["messages"]
    ]
    return {**variables, "messages": messages} if messages != variables["messages"] else None


def _described_tools(variables: dict) -> dict | None:
    def described(value):
        if not isinstance(value, dict):
            return [described(item) for item in value] if isinstance(value, list) else value
        value = {key: described(item) for key, item in value.items()}
        return {"description": "", **value} if "type" in value or "name" in value else value

    tools = described(variables.get("tools"))
    return {**variables, "tools": tools} if tools != variables.get("tools") else None


def _older_names(variables: dict) -> dict | None:
    if "functions" in variables or "datetime" in variables:
        return None
    functions = json.dumps(variables.get("tools") or [], ensure_ascii=False, indent=4)
    return {**variables, "functions": functions, "datetime": datetime.now().strftime("%B %d, %Y")}


_CHANGES = {
    "no tools at all in place of none": _no_tools,
    "an empty content where there was none": _content_everywhere,
    "arguments as JSON text": _arguments_as_text,
    "contents as parts": _contents_as_parts,
    "an empty description where a tool's argument has none": _described_tools,
    "tools as functions, and the date": _older_names,
}
