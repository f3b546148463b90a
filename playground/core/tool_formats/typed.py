"""Arguments that come as bare text (`<parameter=days>3</parameter>`): the tool's schema says what they are.

Without a schema a text that is one JSON value is that value, and any other text is itself.
"""

import json
import math
from collections.abc import Sequence

from playground.core.tool_formats.literals import Broken, read_value

_TYPES = {
    **{"str": "string", "text": "string", "int": "integer", "float": "number", "double": "number"},
    **{"bool": "boolean", "dict": "object", "list": "array", "tuple": "array", "none": "null"},
}


def schema_of(tools: Sequence[dict], name: str) -> dict:
    """The properties of the tool `name`, {} where there is no such tool."""
    for tool in tools:
        function = tool.get("function", tool) if isinstance(tool, dict) else {}
        if isinstance(function, dict) and function.get("name") == name:
            parameters = function.get("parameters") or function.get("input_schema") or {}
            properties = parameters.get("properties") if isinstance(parameters, dict) else None
            return properties if isinstance(properties, dict) else {}
    return {}


def typed(text: str, schema=None):
    """`text` as the value that `schema` (of this one argument) asks for; the text itself where it fits no other."""
    allowed = _types(schema)
    if not allowed:
        value = _json(text.strip())
        return text if value is _NOT or isinstance(value, str) else value
    stripped = text.strip()
    if stripped.lower() in ("null", "none") and "null" in allowed:
        return None
    value = _json(stripped)
    if "boolean" in allowed and stripped.lower() in ("true", "false"):
        return stripped.lower() == "true"
    if "integer" in allowed or "number" in allowed:
        number = _number(stripped)
        if number is not None and ("number" in allowed or number == int(number)):
            return number if "number" in allowed else int(number)
    if ("object" in allowed and isinstance(value, dict)) or ("array" in allowed and isinstance(value, list)):
        return value
    containers = tuple(kind for name, kind in (("object", dict), ("array", list)) if name in allowed)
    if containers and isinstance(literal := _literal(stripped), containers):
        return literal
    if "string" in allowed or value is _NOT:
        return text
    return value


_NOT = object()


def _types(schema) -> set[str]:
    if not isinstance(schema, dict):
        return set()
    found: set[str] = set()
    given = schema.get("type")
    for one in given if isinstance(given, list) else [given]:
        if isinstance(one, str):
            found.add(_TYPES.get(one.lower(), one.lower()))
    for key in ("anyOf", "oneOf", "allOf"):
        for part in schema.get(key) or []:
            found |= _types(part)
    if not found and isinstance(schema.get("enum"), list) and all(isinstance(v, str) for v in schema["enum"]):
        found.add("string")
    return set() if "any" in found else found


def _json(text: str):
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return _NOT
    return _NOT if isinstance(value, float) and math.isinf(value) else value


def _refuse(name: str):
    raise ValueError(name)


def _number(text: str):
    if not text.isascii() or "_" in text:
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _literal(text: str):
    try:
        value, end = read_value(text, 0)
    except Broken:
        return _NOT
    return value if not text[end:].strip() else _NOT


def write_text(value) -> str:
    """A value as such a text: texts as they are, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
