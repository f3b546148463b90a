"""A tool's schema from a Python function: its name, type hints and docstring, read from the source, never run.

What comes out is what transformers' `get_json_schema` makes of the same function (Google style docstring, `choices`
in brackets), but for `X | None`, which is written as JSON Schema has it and not as "nullable".
"""

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Callable

from playground.core.tools.tool import Tool, ToolError

_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "list": "array", "dict": "object"}
_CHOICES = re.compile(r"\(choices:\s*(\[.*?\])\)\s*$", re.DOTALL)


def tool(function: Callable[..., dict]) -> Tool:
    """A tool of our own from a function or a bound method."""
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    name, description, parameters = of_node(node)
    return Tool(name, description, parameters, function)


def of_node(node: ast.FunctionDef) -> tuple[str, str, dict]:
    """(name, description, JSON schema of the arguments) of a function. Raises ToolError with one sentence."""
    arguments = node.args
    if arguments.vararg or arguments.kwarg or arguments.posonlyargs:
        raise ToolError(f"{node.name} must name each of its arguments; *args, **kwargs and / cannot be described.")
    description, told = _docstring(node)
    plain = [argument for argument in arguments.args if argument.arg not in ("self", "cls")]
    with_default = {argument.arg for argument in plain[len(plain) - len(arguments.defaults) :] if arguments.defaults}
    with_default |= {a.arg for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d is not None}
    properties = {}
    for argument in [*plain, *arguments.kwonlyargs]:
        if argument.annotation is None:
            raise ToolError(f"Argument {argument.arg!r} of {node.name} has no type; write {argument.arg}: str.")
        properties[argument.arg] = _property(argument, told.get(argument.arg, ""), node.name)
    parameters: dict = {"type": "object", "properties": properties}
    required = [name for name in properties if name not in with_default]
    if required:
        parameters["required"] = required
    return node.name, description, parameters


def _property(argument: ast.arg, text: str, function: str) -> dict:
    schema = _type(argument.annotation, argument.arg, function)
    choices = _CHOICES.search(text)
    if choices:
        try:
            schema["enum"] = json.loads(choices[1].replace("'", '"'))
        except ValueError:
            raise ToolError(f"The choices of {argument.arg!r} are not a list: {choices[1][:60]}") from None
        text = text[: choices.start()].rstrip()
    return {**schema, "description": text} if text else schema


def _type(node: ast.expr, argument: str, function: str) -> dict:
    match node:
        case ast.Constant(value=str() as text):  # a hint in quotes
            return _type(_expression(text, argument, function), argument, function)
        case ast.Constant(value=None):
            return {"type": "null"}
        case ast.Name(id="Any"):
            return {}
        case ast.Name(id=name) if name in _TYPES:
            return {"type": _TYPES[name]}
        case ast.Subscript(value=ast.Name(id="list" | "List"), slice=inner):
            return {"type": "array", "items": _type(inner, argument, function)}
        case ast.Subscript(value=ast.Name(id="dict" | "Dict"), slice=ast.Tuple(elts=[_, inner])):
            return {"type": "object", "additionalProperties": _type(inner, argument, function)}
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            return _literal(inner, argument, function)
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return _either([_type(inner, argument, function), {"type": "null"}])
        case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=parts)):
            return _either([_type(part, argument, function) for part in parts])
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            return _either([_type(left, argument, function), _type(right, argument, function)])
    raise ToolError(
        f"The type {ast.unparse(node)[:60]!r} of argument {argument!r} of {function} has no schema;"
        f" {', '.join(_TYPES)}, list[…], dict[str, …], Literal[…] and … | None have."
    )


def _expression(text: str, argument: str, function: str) -> ast.expr:
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        raise ToolError(f"The type of argument {argument!r} of {function} cannot be read: {text[:60]!r}.") from None


def _literal(node: ast.expr, argument: str, function: str) -> dict:
    try:
        values = ast.literal_eval(node)
    except ValueError:
        raise ToolError(f"Literal of argument {argument!r} of {function} takes texts and numbers.") from None
    values = list(values) if isinstance(values, tuple) else [values]
    kinds = {"boolean" if isinstance(v, bool) else _TYPES.get(type(v).__name__, "string") for v in values}
    return {"type": kinds.pop(), "enum": values} if len(kinds) == 1 else {"enum": values}


def _either(parts: list[dict]) -> dict:
    if all(set(part) == {"type"} for part in parts):
        kinds: list[str] = []
        for part in parts:
            kinds += part["type"] if isinstance(part["type"], list) else [part["type"]]
        return {"type": list(dict.fromkeys(kinds))}
    return {"anyOf": parts}


def _docstring(node: ast.FunctionDef) -> tuple[str, dict[str, str]]:
    """The description, and what "Args:" says of each argument."""
    text = ast.get_docstring(node) or ""
    if not text.strip():
        raise ToolError(f"{node.name} has no docstring; its first line tells the model what the tool does.")
    head, _, rest = text.partition("\nArgs:\n")
    section = re.split(r"\n(?=\S)", rest, maxsplit=1)[0]
    told: dict[str, str] = {}
    name, indent = "", 0
    for line in section.splitlines():
        depth = len(line) - len(line.lstrip())
        entry = re.match(r"\s*(\w+)(?:\s*\([^)]*\))?:\s*(.*)", line)
        if entry and (not name or depth <= indent):
            name, indent = entry[1], depth
            told[name] = entry[2].strip()
        elif name and line.strip():
            told[name] = f"{told[name]} {line.strip()}".strip()
    head = re.split(r"\n(?:Returns?|Raises|Yields|Examples?):", head, maxsplit=1)[0]
    return " ".join(head.split()).rstrip("."), told
