"""Any tool schemas, made uniform: OpenAI's, MCP's, or the Berkeley leaderboard's."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from playground.core.generator.slots import Slot, human, slots_of
from playground.core.tools import custom
from playground.errors import PlaygroundError

MAX_BYTES = 20_000_000
_TYPES = {
    **{"dict": "object", "float": "number", "double": "number", "int": "integer", "str": "string", "text": "string"},
    **{"bool": "boolean", "list": "array", "tuple": "array", "Array": "array", "any": "string"},
}
# First words of descriptions that are commands; "Gets" and "Returns" are read as these too.
_VERBS = frozenset(
    re.findall(
        r"\w+",
        """
    add adjust analyse analyze apply arrange ask assign book build buy calculate call cancel change check choose
    classify close collect compare compose compute convert count create define delete describe detect determine
    display divide download draw edit estimate evaluate exchange execute extract fetch filter find fit forecast
    format generate get give identify increase insert install invest list load locate look make manage mark measure
    merge modify move multiply open order organize pay perform place plan play plot post predict prepare print
    process produce provide publish purchase query read recommend record register remind remove rename rent replace
    reply report request reserve reset resolve retrieve return review roll run save say scan schedule search select
    sell send set share show simulate solve sort start stop store submit subtract suggest summarize take tell test
    track train transfer translate turn update upload validate verify view write
    """,
    )
)


@dataclass(frozen=True, eq=False)
class Spec:
    """A tool that questions can be made for. `task`: what it does, in words; `command`: they begin with a verb."""

    schema: dict
    slots: tuple[Slot, ...]
    task: str
    command: bool
    phrases: dict[str, str]  # the task in other languages, where the schema's "phrases" give it

    @property
    def name(self) -> str:
        return self.schema["function"]["name"]

    @cached_property
    def name_words(self) -> set[str]:
        return set(human(self.name).split())

    @cached_property
    def task_words(self) -> set[str]:
        return {word.rstrip("s") for word in human(self.task).split() if len(word) > 3}


def alike(one: Spec, other: Spec) -> bool:
    """Whether two tools could be taken for each other, by the words of their names and tasks."""
    names = len(one.name_words & other.name_words) / max(1, len(one.name_words | other.name_words))
    fewest = max(1, min(len(one.task_words), len(other.task_words)))
    return names > 0.3 or len(one.task_words & other.task_words) > 0.4 * fewest


def read(path: Path) -> tuple[list[Spec], list[str]]:
    """The tools of a JSON file (a list, one schema, or {"tools": […]}), and why others are left out."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise PlaygroundError(f"{path.name} is larger than {MAX_BYTES // 1_000_000} MB")
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise PlaygroundError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise PlaygroundError(f"{path.name} is not JSON: {error}") from None
    if isinstance(value, dict) and isinstance(value.get("tools"), list):
        value = value["tools"]
    return specs(value if isinstance(value, list) else [value], path.name)


def specs(schemas: Sequence[dict], where: str = "the list") -> tuple[list[Spec], list[str]]:
    """PlaygroundError where no tool is left."""
    found: dict[str, Spec] = {}
    left_out = []
    for schema in schemas:
        try:
            spec = spec_of(schema)
            if spec.name in found and found[spec.name].schema != spec.schema:
                raise PlaygroundError(f"two tools are named {spec.name!r}")
        except PlaygroundError as error:
            left_out.append(str(error))
            continue
        found[spec.name] = spec
    if not found:
        why = f": {left_out[0]}" if left_out else ""
        raise PlaygroundError(f"{where} holds no tool that questions can be made for{why}")
    return list(found.values()), left_out


def spec_of(schema: dict) -> Spec:
    function = schema.get("function", schema) if isinstance(schema, dict) else None
    if not isinstance(function, dict):
        raise PlaygroundError('a tool schema must be an object with a "name" and "parameters"')
    name = custom.checked_name(function.get("name"))
    given = function.get("parameters", function.get("inputSchema", function.get("input_schema")))
    parameters = custom.checked_parameters(_uniform(given), name)
    slots, reason = slots_of(parameters)
    if reason:
        raise PlaygroundError(f"{name}: {reason}")
    description = function.get("description") or ""
    if not isinstance(description, str):
        raise PlaygroundError(f"the description of {name} must be a text, got {type(description).__name__}")
    task, command = _task(description, name)
    phrases = function.get("phrases") if isinstance(function.get("phrases"), dict) else {}
    plain = {"name": name, "description": description, "parameters": parameters}
    return Spec({"type": "function", "function": plain}, tuple(slots), task, command, phrases)


def _uniform(node):
    """With JSON Schema's names for the types, which the leaderboard writes as Python does."""
    if isinstance(node, list):
        return [_uniform(part) for part in node]
    if not isinstance(node, dict):
        return node
    made = {
        key: _TYPES.get(value, value) if key == "type" and isinstance(value, str) else _uniform(value)
        for key, value in node.items()
    }
    # "required": true and "optional" beside a type are no JSON Schema
    if isinstance(made.get("required"), bool) and "type" in made:
        del made["required"]
    return made


def _task(description: str, name: str) -> tuple[str, bool]:
    """What the tool does, as the object of "please": from its description's first sentence, else from its name."""
    sentence = re.split(r"(?<=[a-z)])[.:;!?](?:\s|$)|\n|\s\(", description.strip(), maxsplit=1)[0]
    words = sentence.rstrip(".").split()[:24] or human(name).split()
    first = re.sub(r"\W+$", "", words[0].lower())
    verb = _verb(first)
    if verb:
        return " ".join([verb, *words[1:]]), True
    if not words[0].isupper():
        words[0] = words[0][:1].lower() + words[0][1:]
    return " ".join(words), False


def _verb(word: str) -> str:
    for base in (word, word.removesuffix("s"), word.removesuffix("es"), f"{word.removesuffix('ies')}y"):
        if base in _VERBS:
            return base
    return ""
