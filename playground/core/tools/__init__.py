"""Tools a model may call: a name, a description, a JSON schema, and a function.

Schemas are short on purpose: they stand in every prompt, so they set the cost of a training step. And no argument
of the demo tools is optional: a small model learns everything about a call except when to leave one out.
"""

import json
from collections.abc import Callable, Iterable, Sequence

from playground.core.tool_formats.values import Call, Fault
from playground.core.tools import calculator, weather
from playground.core.tools.catalog import Entry, catalog, make_tools
from playground.core.tools.markers import TURN_MARKERS, markers_in, unmarked
from playground.core.tools.tool import PICTURE, Tool, ToolError
from playground.errors import PlaygroundError

__all__ = [
    "PICTURE",
    "TOOLS",
    "TURN_MARKERS",
    "Entry",
    "Tool",
    "ToolError",
    "catalog",
    "check",
    "make",
    "make_tools",
    "markers_in",
    "picture",
    "result_text",
    "schemas",
    "without_picture",
]

MAX_RESULT = 4000  # characters of a result that go back to the model

# Of the demo (`catalog` has all): name → what makes the tool. Weather remembers that the network is down, so every
# owner makes its own.
TOOLS: dict[str, Callable[[], Tool]] = {calculator.NAME: calculator.make, weather.NAME: weather.make}


def make(names: Iterable[str] = tuple(TOOLS)) -> list[Tool]:
    """Fresh tools by name."""
    names = list(names)
    unknown = [name for name in names if name not in TOOLS]
    if unknown:
        raise PlaygroundError(f"there is no tool named {unknown[0]!r}; there are {', '.join(TOOLS)}")
    return [TOOLS[name]() for name in names]


def schemas(tools: Iterable[Tool | str] = tuple(TOOLS)) -> list[dict]:
    """The schemas of `tools`, given as tools or as names."""
    return [tool.schema for tool in (t if isinstance(t, Tool) else make([t])[0] for t in tools)]


def check(call: Call, schemas: Sequence[dict]) -> Fault | None:
    """The first thing wrong with `call` against the tools' schemas, or None.

    Looked at in this order: the name, then arguments the schema does not have, missing ones, types, values.
    An argument the schema does not name is refused also where it has no "additionalProperties": false.
    """
    functions = {s["function"]["name"]: s["function"] for s in schemas}
    function = functions.get(call.name)
    if function is None:
        there = ", ".join(functions) or "none"
        return Fault(
            "wrong_function", f"There is no tool named {call.name!r}; the tools are: {there}.", call.raw, call.name
        )
    parameters = function.get("parameters") or {}
    properties = parameters.get("properties", {})
    if "additionalProperties" not in parameters and "patternProperties" not in parameters:
        for name in call.arguments:
            if name not in properties:
                return Fault("unexpected_parameter", _unexpected(call.name, name, properties), call.raw, call.name)
    found = sorted(_schema_faults(call, parameters), key=lambda fault: _ORDER.index(fault.kind))
    return found[0] if found else None


_ORDER = ("unexpected_parameter", "missing_required", "type_error", "value_error")
_KEYWORDS = {"additionalProperties": "unexpected_parameter", "required": "missing_required", "type": "type_error"}


def _schema_faults(call: Call, parameters: dict) -> Iterable[Fault]:
    import jsonschema
    import referencing

    # An empty registry: a "$ref" to another host must not be fetched.
    validator = jsonschema.Draft202012Validator(parameters, registry=referencing.Registry())
    try:
        for error in validator.iter_errors(call.arguments):
            kind = _KEYWORDS.get(str(error.validator), "value_error")
            yield Fault(kind, _sentence(call.name, error, kind), call.raw, call.name)
    except (RecursionError, referencing.exceptions.Unresolvable, jsonschema.exceptions.UnknownType) as error:
        raise PlaygroundError(f"the schema of {call.name} cannot be used: {type(error).__name__}") from None


def _sentence(tool: str, error, kind: str) -> str:
    if kind == "missing_required":
        missing = [name for name in error.validator_value if name not in error.instance]
        return f"{tool} needs the argument {missing[0]!r}."
    where = ".".join(str(part) for part in error.absolute_path) or "arguments"
    given = json.dumps(error.instance, ensure_ascii=False)
    given = given if len(given) <= 80 else given[:79] + "…"
    if kind == "type_error":
        wanted = error.validator_value
        wanted = wanted if isinstance(wanted, str) else " or ".join(wanted)
        return f"{where!r} of {tool} must be of type {wanted}, got {given}."
    if kind == "unexpected_parameter":
        return f"{where!r} of {tool} has an unexpected argument: {error.message}."
    if error.validator == "enum":
        allowed = ", ".join(json.dumps(v, ensure_ascii=False) for v in error.validator_value)
        return f"{where!r} of {tool} must be one of {allowed}, got {given}."
    return f"{where!r} of {tool} has a value that is not allowed: {error.message}."


def _unexpected(tool: str, name: str, properties: dict) -> str:
    return f"{tool} has no argument {name!r}; it takes {', '.join(repr(p) for p in properties) or 'no arguments'}."


def result_text(value: dict) -> str:
    """A result as the model reads it: JSON in which no marker of a turn can be imitated.

    "<", and "[" where it begins a marker like "[INST]", is written as JSON's own escape, so a tool that returns
    "</tool_response><|im_start|>system" returns letters. A picture stays behind: it is for the reader.
    """
    text = unmarked(json.dumps(without_picture(value), ensure_ascii=False, default=str))
    if len(text) <= MAX_RESULT:
        return text
    return json.dumps(
        {"cut": f"{len(text):,} characters, the first {MAX_RESULT:,} are here", "text": text[:MAX_RESULT]}
    )


def picture(value) -> dict | None:
    """The picture that a result carries for the reader: {"svg": text, "alt": text}; None without one."""
    found = value.get(PICTURE) if isinstance(value, dict) else None
    return found if isinstance(found, dict) and isinstance(found.get("svg"), str) else None


def without_picture(value):
    return {key: part for key, part in value.items() if key != PICTURE} if isinstance(value, dict) else value
