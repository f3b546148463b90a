"""Tools that another program describes (an MCP server): what it lists, made into tools, or the reason why not.

Nothing it says is trusted: names are made safe, schemas checked, and a text that holds a marker of a chat template
keeps its tool out of the prompt, where a tokenizer would read the marker.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from playground.core.tools import custom
from playground.core.tools.markers import TURN_MARKERS, markers_in
from playground.core.tools.tool import Tool, ToolError
from playground.errors import PlaygroundError

MAX_DESCRIPTION = 600  # characters; it stands in every prompt
MAX_REASONS = 5
Runner = Callable[[str, dict], dict]  # (the name that the server knows, arguments) → the result


@dataclass(frozen=True)
class Listed:
    """A tool as its server lists it."""

    name: str
    description: str
    schema: dict


def tools_of(
    listed: Iterable[Listed], server: str, run: Runner, taken: Collection[str] = ()
) -> tuple[list[Tool], list[str]]:
    """The tools, their names unlike those that are `taken`, and a sentence about each that cannot be one."""
    tools: list[Tool] = []
    left_out: list[str] = []
    names = set(taken)
    for one in listed:
        try:
            name = free_name(one.name, server, names)
            parameters = custom.checked_parameters(_plain(one.schema, one.name), one.name[:60])
            description = " ".join(one.description.split())
            _refuse_markers(one.name, [description, *_texts(parameters)])
        except PlaygroundError as error:
            left_out.append(str(error))
            continue
        names.add(name)
        if len(description) > MAX_DESCRIPTION:
            description = description[: MAX_DESCRIPTION - 1] + "…"
        tools.append(Tool(name, description, parameters, _runner(run, one.name), server))
    return tools, left_out


def _runner(run: Runner, name: str) -> Callable[..., dict]:
    return lambda **arguments: run(name, arguments)


def _plain(schema: dict, name: str) -> dict:
    try:
        return json.loads(json.dumps(schema, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        raise PlaygroundError(f"the schema of {name[:60]} is not JSON") from None


def free_name(name: str, server: str, taken: Collection[str]) -> str:
    """`name` with safe letters; where it is taken, with the server's before it, then with a number."""
    first = _safe(name)
    if not first:
        raise PlaygroundError(f"a tool named {name[:60]!r} has no letter or digit in its name")
    if first not in taken:
        return first
    longer = f"{_safe(server)[:20]}_{first}"[:60]
    numbered = (f"{longer}_{number}" for number in range(2, 10_000))
    return next(candidate for candidate in (longer, *numbered) if candidate not in taken)


def _safe(name: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_")[:60]
    return f"_{safe}" if safe[:1].isdigit() else safe


def _refuse_markers(name: str, texts: Iterable[str]) -> None:
    for text in texts:
        found = [marker for marker in markers_in(text) if marker in TURN_MARKERS]
        if found:
            raise PlaygroundError(
                f"{name[:60]} is left out: its description imitates the turn marker {found[0]!r} of a chat template"
            )


def _texts(value) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield str(key)
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def result_of(texts: list[str], structured: dict | None, other: list[str], failed: bool) -> dict:
    """A result as the tool loop takes it; `other` are the kinds of parts that are no text. ToolError where it failed.

    Keys that begin with "_" are this app's own (a picture for the page), so no server may set them.
    """
    text = "\n".join(texts)
    if failed:
        raise ToolError(" ".join(text.split())[:500] or "The tool failed without saying why.")
    value = structured
    if value is None and text.lstrip().startswith("{"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
    result = value if isinstance(value, dict) else {"result": text}
    result = {key: part for key, part in result.items() if not str(key).startswith("_")}
    if other:
        result["left_out"] = f"{', '.join(sorted(set(other)))}: only texts go to the model"
    return result


def reasons(left_out: list[str]) -> str:
    """The first few sentences about tools that were left out; "" without one."""
    more = len(left_out) - MAX_REASONS
    return "; ".join([*left_out[:MAX_REASONS], *([f"and {more:,} more"] if more > 0 else [])])
