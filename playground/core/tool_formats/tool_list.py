"""Tool schemas as a prompt shows them."""

import json
from collections.abc import Sequence


def functions(tools: Sequence[dict]) -> list[dict]:
    """The functions of `tools`, without the wrapper that OpenAI's wire format puts around them."""
    return [tool["function"] if isinstance(tool.get("function"), dict) else tool for tool in tools]


def as_lines(tools: Sequence[dict], wrapped: bool = True) -> str:
    """One schema a line."""
    shown = [{"type": "function", "function": f} for f in functions(tools)] if wrapped else functions(tools)
    return "\n".join(json.dumps(one, ensure_ascii=False) for one in shown)


def as_list(tools: Sequence[dict], wrapped: bool = True) -> str:
    """One JSON list."""
    shown = [{"type": "function", "function": f} for f in functions(tools)] if wrapped else functions(tools)
    return json.dumps(shown, ensure_ascii=False)
