"""The rows written out: as messages, as function-calling pairs, or with the calls as text of a call format."""

import json
from collections.abc import Iterable, Iterator
from types import ModuleType

from playground.core import tool_formats
from playground.core.generator.writer import Row
from playground.core.tool_formats import Call

MESSAGES, PAIRS = "messages", "pairs"


def names() -> tuple[str, ...]:
    return (MESSAGES, PAIRS, *tool_formats.FORMATS)


def lines(rows: Iterable[Row], layout: str) -> Iterator[dict]:
    """One dict for each row that the layout can hold: pairs hold one question and its calls."""
    if layout == MESSAGES:
        return ({"messages": row.messages, "tools": row.tools} for row in rows)
    if layout == PAIRS:
        return (_pair(row) for row in rows if row.calls and row.kind != "answered")
    format = tool_formats.named(layout)
    return (line for row in rows if (line := _as_text(row, format)) is not None)


def _pair(row: Row) -> dict:
    """`{instruction, input: {user_question, function_call_example}, output: {function_call}}`."""
    functions = [tool["function"] for tool in row.tools]
    instruction = (
        "Answer the question with the call of one of these functions, or with several calls, as JSON:\n"
        + "\n".join(json.dumps(function, ensure_ascii=False) for function in functions)
    )
    example = {"name": functions[0]["name"], "arguments": {"argument": "value"}}
    calls = row.calls[0] if len(row.calls) == 1 else row.calls
    question = {"user_question": row.messages[0]["content"], "function_call_example": example}
    return {"instruction": instruction, "input": question, "output": {"function_call": calls}}


def _as_text(row: Row, format: ModuleType) -> dict | None:
    """Messages without tool fields: a system prompt announces the tools, and the calls are words.

    What is written is read again; None where the format cannot hold the calls.
    """
    messages = [{"role": "system", "content": format.announce(row.tools)}]
    for message in row.messages:
        calls = [Call(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls", ())]
        text = format.write(calls) if calls else message["content"]
        if calls and list(format.parse(text, tools=row.tools).calls) != calls:
            return None
        messages.append({"role": message["role"], "content": text})
    return {"messages": messages}
