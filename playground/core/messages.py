"""Messages and conversations: the plain dicts that chat templates and OpenAI-compatible servers take.

A message has `role` (system, user, assistant, tool), `content` and, where they apply, `reasoning_content`,
`tool_calls` ([{"type": "function", "function": {"name", "arguments": {...}}}]), `name` and `tool_call_id`.
A user message made from an Alpaca row also keeps `instruction` and `input`, which only the Alpaca template reads.
"""

import json
from contextlib import suppress
from dataclasses import dataclass, field, replace

from playground.errors import PlaygroundError

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Conversation:
    """`messages`, the JSON schemas of the `tools` on offer, and further template `variables`."""

    messages: list[dict]
    tools: list[dict] = field(default_factory=list)
    variables: dict = field(default_factory=dict)


def load_json(text: str, what: str = "this"):
    """`text` as JSON, or a PlaygroundError that says the line and the column."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise PlaygroundError(
            f"{what} is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except RecursionError:
        raise PlaygroundError(f"{what} is JSON nested too deeply to be read") from None


def parse_conversation(text: str) -> Conversation:
    """One example as pasted: a JSON object or array, or plain text, which becomes one user message.

    An object may be `{"messages": [...], "tools": [...], ...}` (its other keys become template variables), one
    message, or a row of any format that `datasets.recognise` knows.
    """
    text = text.removeprefix("\ufeff").strip()
    if not text:
        raise PlaygroundError("the example is empty: paste messages as JSON, or a line of text")
    if text[0] not in "[{":
        return Conversation([{"role": "user", "content": text}])
    value = load_json(text, "the example")
    if isinstance(value, list) or (isinstance(value, dict) and "role" in value):
        value = {"messages": value if isinstance(value, list) else [value]}
    messages = value.get("messages")
    first = messages[0] if isinstance(messages, list) and messages else None
    if "messages" not in value or (isinstance(first, dict) and "from" in first):
        from playground.core import datasets  # it imports this module

        return datasets.to_conversation(value)
    return from_row(value)


def from_row(row: dict) -> Conversation:
    """The conversation of a `{"messages", "tools", ...}` row; other keys become template variables.

    Tool-call arguments given as a JSON string become an object, and content given as text parts becomes a string.
    """
    given = as_given(row)
    return replace(given, messages=[_normal(message) for message in given.messages])


def as_given(row: dict) -> Conversation:
    """The same with the messages exactly as they are: for templates that read other shapes."""
    messages, tools = row["messages"], row.get("tools") or []
    if isinstance(tools, str):
        tools = load_json(tools, "tools")
    if not isinstance(messages, list):
        raise PlaygroundError(f"messages must be a list of messages, got {_kind(messages)}")
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise PlaygroundError("tools must be a list of JSON schemas")
    variables = {key: value for key, value in row.items() if key not in ("messages", "tools")}
    return Conversation(messages, tools, variables)


def check_messages(messages) -> None:
    """Raise PlaygroundError naming the first message that cannot be rendered or trained on as it stands."""
    if not isinstance(messages, list) or not messages:
        raise PlaygroundError("a conversation needs at least one message")
    for number, message in enumerate(messages, 1):
        _check_message(number, message)
    if messages[0]["role"] == "assistant":
        raise PlaygroundError("message 1 is from the assistant; a conversation starts with a user or system message")
    for number, message in enumerate(messages, 1):
        before = messages[number - 2] if number > 1 else {}
        if message["role"] == "tool" and not (before.get("role") == "tool" or before.get("tool_calls")):
            raise PlaygroundError(f"message {number} is a tool result, but no tool call comes before it")


def _check_message(number: int, message) -> None:
    if not isinstance(message, dict):
        raise PlaygroundError(f"message {number} must be an object with a role and a content, got {_kind(message)}")
    role = message.get("role")
    if role not in ROLES:
        given = "no role" if role is None else f"the role {role!r}"
        raise PlaygroundError(f"message {number} has {given}; roles are {', '.join(ROLES)}")
    calls = message.get("tool_calls")
    for key in ("content", "reasoning_content"):
        value = message.get(key)
        if value is not None and not isinstance(value, str):
            raise PlaygroundError(f"message {number} ({role}): {key} must be text, got {_kind(value)}")
    if calls is not None:
        _check_calls(number, role, calls)
    if not (message.get("content") or "").strip() and not calls and role != "tool":
        raise PlaygroundError(f"message {number} ({role}) is empty")


def _check_calls(number: int, role: str, calls) -> None:
    if role != "assistant":
        raise PlaygroundError(f"message {number} ({role}) has tool_calls; only the assistant calls tools")
    if not isinstance(calls, list):
        raise PlaygroundError(f"message {number}: tool_calls must be a list, got {_kind(calls)}")
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
            raise PlaygroundError(
                f'message {number}: a tool call must read {{"function": {{"name": …, "arguments": {{…}}}}}}'
            )
        if not isinstance(function.get("arguments"), dict):
            name, given = function["name"], _kind(function.get("arguments"))
            raise PlaygroundError(f"message {number}: the arguments of {name} must be an object, got {given}")


def _normal(message):
    if not isinstance(message, dict):
        return message
    message = dict(message)
    if isinstance(message.get("content"), list):
        message |= _joined_parts(message["content"])
    if isinstance(message.get("tool_calls"), list):
        message["tool_calls"] = [_normal_call(call) for call in message["tool_calls"]]
    return message


def _joined_parts(parts: list) -> dict:
    """Content given as a list of text, reasoning and tool_call parts; left alone where other parts are among them."""
    texts: dict[str, list[str]] = {"text": [], "reasoning": [], "tool_call": []}
    for part in parts:
        text = part.get("text", part.get("value")) if isinstance(part, dict) else None
        kind = part.get("type", "text") if isinstance(part, dict) else None
        if kind not in texts or not isinstance(text, str):
            return {}
        texts[kind].append(text)
    joined = {"content": "".join(texts["text"])}
    if texts["reasoning"]:
        joined["reasoning_content"] = "".join(texts["reasoning"])
    if texts["tool_call"]:
        joined["tool_calls"] = [load_json(text, "a tool call") for text in texts["tool_call"]]
    return joined


def _normal_call(call):
    if not isinstance(call, dict):
        return call
    if "function" not in call and "name" in call:
        call = {"function": {"name": call["name"], "arguments": call.get("arguments", {})}}
    function = call["function"] if isinstance(call.get("function"), dict) else {}
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        with suppress(ValueError):  # left as it is: check_messages says what is wrong with it
            function = {**function, "arguments": json.loads(arguments)}
    return {"type": "function", **call, "function": function}


def _kind(value) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else type(value).__name__)
