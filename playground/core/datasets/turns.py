"""Turns of a chat, in the shapes that data sets have, as messages.

ShareGPT (`from`/`value`), OpenAI (`role`/`content`, old `function_call` included), question-and-answer objects and
lists of alternating texts all become the plain dicts of `core.messages`.
"""

import json

from playground.core.datasets.cells import kind, structure
from playground.core.datasets.transcripts import split_think
from playground.errors import PlaygroundError

COLUMNS = ("messages", "conversations", "conversation", "dialog", "dialogue", "chat", "turns", "data")
ALTERNATING = ("conversation", "dialog", "dialogue", "data")  # may be a plain list of texts: user, assistant, user, …
SENDERS = ("role", "from", "speaker", "sender", "author")
TEXTS = ("content", "value", "text", "message")
REASONING = ("reasoning_content", "reasoning", "thinking")
CALLS = ("function_call", "tool_call", "tool_calls", "function-call")
SIDES = ("user", "assistant")
PAIRS = (("human", "assistant"), ("user", "assistant"))
ROLES = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "customer": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "system": "system",
    "developer": "system",
    "observation": "tool",
    "tool": "tool",
    "function": "tool",
    "function_response": "tool",
    "function-response": "tool",
    "tool_response": "tool",
    "ipython": "tool",
}


def column(row: dict) -> str | None:
    """The column that holds the turns of a chat row, or None."""
    return next((name for name in COLUMNS if name in row and shape(row[name], name)), None)


def shape(value, name: str = "") -> str | None:
    """What a list of turns is made of: messages, sharegpt, pairs or texts; None where it is no such list."""
    value = structure(value)
    if not isinstance(value, list) or not value:
        return None
    head = value[0]
    if isinstance(head, str):
        return "texts" if name in ALTERNATING and len(value) > 1 else None
    if not isinstance(head, dict):
        return None
    if name == "data":  # a list of objects under this name is a list of rows
        return None
    if _key(head, SENDERS):
        return "messages" if "role" in head else "sharegpt"
    return "pairs" if any(a in head and b in head for a, b in PAIRS) else None


def messages(value) -> list[dict]:
    """The messages of a list of turns (or of JSON text that holds one)."""
    turns = structure(value)
    if not isinstance(turns, list):
        raise PlaygroundError(f"the turns must be a list, got {kind(turns)}")
    found = []
    for number, turn in enumerate(turns, 1):
        if isinstance(turn, str):
            found.append({"role": SIDES[(number - 1) % 2], "content": turn})
        elif not isinstance(turn, dict):
            raise PlaygroundError(f"turn {number} must be an object, got {kind(turn)}")
        elif pair := next((p for p in PAIRS if p[0] in turn and p[1] in turn), None):
            found += [_message({"role": role, "content": turn[key]}) for role, key in zip(SIDES, pair, strict=True)]
        else:
            found.append(_message(turn))
    return found


def _key(turn: dict, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if isinstance(turn.get(name), str)), None)


def _message(turn: dict) -> dict:
    sender = _key(turn, SENDERS)
    given = turn[sender] if sender else None
    name = given.strip().lower() if sender else None
    content = next((turn[key] for key in TEXTS if turn.get(key) is not None), None)
    if name in CALLS:
        return {"role": "assistant", "content": "", "tool_calls": _calls(content)}
    role = ROLES.get(name, given)
    # a message keeps its other keys (`name`, `tool_call_id`, …); those that Parquet filled up with None are dropped
    message = {k: v for k, v in turn.items() if v is not None} if sender == "role" else {}
    message |= {"role": role, "content": content}
    if role == "tool" and isinstance(content, (dict, list)) and not _is_parts(content):
        message["content"] = json.dumps(content, ensure_ascii=False)
    if role == "assistant":
        message = _answer(message, turn)
    return message


def _answer(message: dict, turn: dict) -> dict:
    """An assistant's message with its reasoning and its tool calls under the names that templates read."""
    if reasoning := _key(turn, REASONING):
        message = {key: value for key, value in message.items() if key not in REASONING}
        if turn[reasoning].strip():
            message["reasoning_content"] = turn[reasoning]
    elif isinstance(message["content"], str) and (parts := split_think(message["content"])):
        message["reasoning_content"], message["content"] = parts
    calls = turn.get("tool_calls") or turn.get("function_call")
    message.pop("function_call", None)
    message.pop("tool_calls", None)
    if calls:
        message["tool_calls"] = _calls(calls)
    if message["content"] is None:
        message["content"] = ""
    return message


def _calls(value) -> list:
    calls = structure(value)
    if isinstance(calls, str):
        raise PlaygroundError(f"a function call is not valid JSON: {calls[:60]!r}")
    return calls if isinstance(calls, list) else [calls]


def _is_parts(content) -> bool:
    return isinstance(content, list) and all(isinstance(part, dict) and "type" in part for part in content)
