"""What `playground data check` tells: what was read, what was not, and what to look at before training."""

import re
from collections import Counter

from playground.core.datasets import Dataset, NoRows
from playground.core.messages import Conversation

_PLACEHOLDER = re.compile(r"\{\{\s*\w+\s*\}\}")


def summary(file: str, data: Dataset) -> dict:
    """Counts of rows, roles and tools, the longest and shortest rows in characters, and what is wrong, as JSON values.

    `problems` names the rows that were left out and the placeholders that are still to be filled in; `notes` says what
    is no fault but matters for training.
    """
    sizes = [characters(conversation) for conversation in data.conversations]
    order = sorted(range(len(sizes)), key=sizes.__getitem__)
    roles = Counter(message["role"] for c in data.conversations for message in c.messages)
    tools = Counter(tool_name(tool) for c in data.conversations for tool in c.tools)
    calls = Counter(
        call["function"]["name"]
        for c in data.conversations
        for message in c.messages
        for call in message.get("tool_calls") or ()
    )
    turns = Counter(sum(m["role"] == "assistant" for m in c.messages) for c in data.conversations)
    placeholders = _placeholders(data)
    return {
        "file": file,
        "format": data.format,
        "rows": data.rows,
        "bad_rows": data.bad,
        "problems": [*data.problems, *_placeholder_problems(data.name, placeholders)],
        "notes": _notes(data),
        "formats": data.formats,
        "conversations": len(data.conversations),
        "no_answer": sum(not answered(c) for c in data.conversations),
        "roles": dict(roles),
        "turns": {str(count): rows for count, rows in sorted(turns.items())},
        "with_reasoning": sum(any(m.get("reasoning_content") for m in c.messages) for c in data.conversations),
        "tools": dict(tools.most_common()),
        "calls": dict(calls.most_common()),
        "characters": sum(sizes),
        "longest": {"row": data.numbers[order[-1]], "characters": sizes[order[-1]]},
        "shortest": {"row": data.numbers[order[0]], "characters": sizes[order[0]]},
        "placeholders": {name: len(rows) for name, rows in placeholders.items()},
    }


def nothing(file: str, error: Exception) -> dict:
    """The same where nothing could be read."""
    problems = error.problems if isinstance(error, NoRows) else [str(error)]
    bad = error.bad if isinstance(error, NoRows) else 0
    return {"file": file, "format": None, "rows": 0, "bad_rows": bad, "problems": problems, "error": str(error)}


def characters(conversation: Conversation) -> int:
    """Characters of all that is said, thought and called."""
    count = 0
    for message in conversation.messages:
        count += len(message.get("content") or "") + len(message.get("reasoning_content") or "")
        for call in message.get("tool_calls") or ():
            count += len(call["function"]["name"]) + len(str(call["function"]["arguments"]))
    return count


def answered(conversation: Conversation) -> bool:
    """Whether the conversation ends with the assistant: without, it is a prompt."""
    return conversation.messages[-1]["role"] == "assistant"


def tool_name(tool: dict) -> str:
    function = tool.get("function")
    return str((function if isinstance(function, dict) else tool).get("name", "?"))


def _placeholders(data: Dataset) -> dict[str, list[int]]:
    """`{{name}}` and its like in what the assistant or the system says, with the rows that hold it."""
    found: dict[str, list[int]] = {}
    for number, conversation in zip(data.numbers, data.conversations, strict=True):
        said = [m.get("content") or "" for m in conversation.messages if m["role"] in ("assistant", "system")]
        for name in {mark[0] for text in said if "{{" in text for mark in _PLACEHOLDER.finditer(text)}:
            found.setdefault(name, []).append(number)
    return dict(sorted(found.items()))


def _placeholder_problems(name: str, placeholders: dict[str, list[int]]) -> list[str]:
    return [
        f"{name}, row {rows[0]:,}: the placeholder {mark} is not filled in ({len(rows):,} rows hold it)"
        for mark, rows in placeholders.items()
    ]


def _notes(data: Dataset) -> list[str]:
    open_ = sum(not answered(c) for c in data.conversations)
    disliked = sum(extras.get("desirable") is False for extras in data.extras)
    pairs = sum("rejected" in extras for extras in data.extras)
    notes = []
    if open_:
        notes.append(f"{_rows(open_)} without an assistant turn at the end: prompts to answer, nothing to train on")
    if disliked:
        notes.append(f"{_rows(disliked)} rated as undesirable: training on them as they are teaches what was not liked")
    if pairs:
        notes.append(f"{_rows(pairs)} of pairs: the chosen reply is taken, the rejected one is kept beside it")
    return notes


def _rows(count: int) -> str:
    return f"{count:,} conversation" + ("s" if count != 1 else "")
