"""Tools a visitor makes: a JSON schema with a canned reply, or a Python function.

Nothing that is given here runs in this process. A function is read as a syntax tree; its code runs where `call` runs
it (see playground.services.python_tool).
"""

import ast
import json
import re
from collections.abc import Callable, Sequence

from playground.core.tools import schema as schemas
from playground.core.tools.tool import Tool, ToolError
from playground.errors import PlaygroundError

MAX_SCHEMA = 20_000  # characters
MAX_REPLY = 20_000
MAX_SOURCE = 10_000
MAX_DEPTH = 12  # levels of a schema
MAX_PROPERTIES = 64
MAX_TOOLS = 32
MAX_ALL = 40_000  # characters of all schemas of one question
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
Caller = Callable[[str, str, dict], dict]  # (source, name, arguments) → the result


def from_schema(schema: dict | str, reply: str | dict) -> Tool:
    """A tool that always gives `reply`. The schema may be OpenAI's (with or without "function") or MCP's."""
    function = _function(schema)
    name = checked_name(function.get("name"))
    description = function.get("description", "")
    if not isinstance(description, str):
        raise PlaygroundError(f"the description of {name} must be a text, got {type(description).__name__}")
    parameters = checked_parameters(function.get("parameters", function.get("inputSchema")), name)
    result = _reply(reply)
    return Tool(name, description.strip(), parameters, lambda **arguments: dict(result))


def from_source(source: str, call: Caller | None = None) -> Tool:
    """A tool from the source of a function with type hints and a docstring; helpers before it may begin with "_"."""
    if len(source) > MAX_SOURCE:
        raise PlaygroundError(f"the function has {len(source):,} characters, at most {MAX_SOURCE:,} are allowed")
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        line = f" in line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise PlaygroundError(f"this is not Python{line}: {getattr(error, 'msg', None) or error}") from None
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    functions = [node for node in found if not node.name.startswith("_")]
    if len(functions) != 1:
        names = ", ".join(node.name for node in functions) or "none"
        raise PlaygroundError(f"write one function, helpers may begin with _; the functions are: {names}")
    if isinstance(functions[0], ast.AsyncFunctionDef):
        raise PlaygroundError(f"{functions[0].name} is async; a tool is a plain function (def)")
    try:
        name, description, parameters = schemas.of_node(functions[0])
    except ToolError as error:
        raise PlaygroundError(str(error)) from None
    checked_name(name)

    def run(**arguments) -> dict:
        if call is None:
            raise ToolError(f"{name} is Python, and the Python tool is off on this server.")
        return call(source, name, arguments)

    return Tool(name, description, parameters, run)


def fitting(tools: Sequence[Tool]) -> tuple[list[Tool], str]:
    """As many of the tools, from the first on, as a prompt can hold, and a sentence about the rest ("" without)."""
    kept: list[Tool] = []
    size, names = 0, set()
    for tool in tools:
        size += len(json.dumps(tool.schema))
        if tool.name in names:
            raise PlaygroundError(f"two tools are named {tool.name!r}; the model could not tell them apart")
        if len(kept) == MAX_TOOLS or size > MAX_ALL:
            bound = f"{MAX_TOOLS} tools" if len(kept) == MAX_TOOLS else f"{MAX_ALL:,} characters of schemas"
            left = len(tools) - len(kept)
            return kept, f"a prompt holds at most {bound}: the first {len(kept)} are offered, {left:,} are left out"
        kept.append(tool)
        names.add(tool.name)
    return kept, ""


def checked_name(name) -> str:
    if not isinstance(name, str) or not name.strip():
        raise PlaygroundError('the schema needs a "name", for example "book_table"')
    if not _NAME.fullmatch(name):
        better = re.sub(r"[^A-Za-z0-9_]+", "_", name.strip())[:64].strip("_") or "my_tool"
        better = f"_{better}" if better[0].isdigit() else better
        raise PlaygroundError(
            f"{name[:80]!r} cannot be a tool's name: letters, digits and _ - . only, at most 64; write {better!r}"
        )
    return name


def checked_parameters(parameters, name: str) -> dict:
    """The arguments' schema with every "$ref" put in its place. Raises PlaygroundError with what is wrong."""
    import jsonschema

    if parameters is None:
        return {"type": "object", "properties": {}}
    if not isinstance(parameters, dict):
        raise PlaygroundError(f'the "parameters" of {name} must be an object, got {type(parameters).__name__}')
    if parameters.get("type", "object") != "object":
        raise PlaygroundError(f'the "parameters" of {name} must be of type object, got {parameters["type"]!r}')
    budget = [MAX_SCHEMA]
    whole = _resolved(parameters, parameters, name, (), 0, budget)
    whole = {"type": "object", **{key: value for key, value in whole.items() if key not in ("$defs", "definitions")}}
    properties = whole.setdefault("properties", {})
    if isinstance(properties, dict) and len(properties) > MAX_PROPERTIES:
        raise PlaygroundError(f"{name} has {len(properties)} arguments, at most {MAX_PROPERTIES} are allowed")
    try:
        jsonschema.Draft202012Validator.check_schema(whole)
    except jsonschema.exceptions.SchemaError as error:
        where = ".".join(str(part) for part in error.absolute_path) or "parameters"
        raise PlaygroundError(f"the schema of {name} is not valid at {where}: {error.message[:200]}") from None
    return whole


def _resolved(node, root: dict, name: str, chain: tuple[str, ...], depth: int, budget: list[int]):
    if depth > MAX_DEPTH:
        raise PlaygroundError(f"the schema of {name} is more than {MAX_DEPTH} levels deep")
    budget[0] -= 1
    if isinstance(node, list):
        return [_resolved(part, root, name, chain, depth + 1, budget) for part in node]
    if not isinstance(node, dict):
        budget[0] -= len(str(node))
        if budget[0] < 0:
            raise PlaygroundError(f"the schema of {name} has more than {MAX_SCHEMA:,} characters")
        return node
    budget[0] -= sum(len(str(key)) for key in node)
    reference = node.get("$ref")
    if not isinstance(reference, str):
        return {key: _resolved(value, root, name, chain, depth + 1, budget) for key, value in node.items()
                if depth or key not in ("$defs", "definitions")}  # fmt: skip
    if not reference.startswith("#"):
        raise PlaygroundError(f"the schema of {name} points outside of itself ({reference[:80]}); put that part in")
    if reference in chain:
        raise PlaygroundError(f"the schema of {name} goes in a circle: {' → '.join([*chain, reference])[:200]}")
    target = _target(root, reference, name)
    rest = {key: value for key, value in node.items() if key != "$ref"}
    found = _resolved(target, root, name, (*chain, reference), depth + 1, budget)
    rest = _resolved(rest, root, name, chain, depth + 1, budget)
    return {**found, **rest} if isinstance(found, dict) else found


def _target(root: dict, reference: str, name: str):
    node = root
    for part in reference.removeprefix("#").strip("/").split("/") if reference.strip("#/") else []:
        part = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict) and part in node:
            node = node[part]
        else:
            raise PlaygroundError(f"the schema of {name} has no {reference[:80]!r}, which it points to")
    return node


def _function(schema: dict | str) -> dict:
    if isinstance(schema, str):
        if len(schema) > MAX_SCHEMA:
            raise PlaygroundError(f"the schema has {len(schema):,} characters, at most {MAX_SCHEMA:,} are allowed")
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError) as error:
            where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
            raise PlaygroundError(f"the schema is not JSON{where}: {getattr(error, 'msg', 'too deep')}") from None
    if isinstance(schema, list):
        raise PlaygroundError(f"this is a list of {len(schema)} schemas; give one at a time")
    if not isinstance(schema, dict):
        raise PlaygroundError("the schema must be a JSON object with a name and parameters")
    function = schema.get("function", schema)
    if not isinstance(function, dict):
        raise PlaygroundError('"function" must be an object with a name and parameters')
    return function


def _reply(reply: str | dict) -> dict:
    if isinstance(reply, str):
        try:
            value = json.loads(reply)
        except (ValueError, RecursionError):
            value = None
        reply = value if isinstance(value, dict) else {"result": reply}
    if not isinstance(reply, dict):
        raise PlaygroundError(f"the canned reply must be a text or a JSON object, got {type(reply).__name__}")
    reply = {key: value for key, value in reply.items() if not str(key).startswith("_")}
    try:
        size = len(json.dumps(reply))
    except (TypeError, ValueError, RecursionError):
        raise PlaygroundError("the canned reply holds something that JSON cannot") from None
    if size > MAX_REPLY:
        raise PlaygroundError(f"the canned reply has {size:,} characters, at most {MAX_REPLY:,} are allowed")
    return reply
