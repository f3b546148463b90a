"""Grammars for arguments that are not written as one JSON object: bare text in tags, or values in one another.

A format says how it writes them in ARGUMENT_FORM; a format without writes JSON. The rules are llguidance's Lark, and
whatever they allow the format's own parser reads as arguments that fit the schema. An argument that need not be given
may be left out; those that are given come in the schema's order.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from playground.errors import PlaygroundError

Said = Callable[[str], str]  # a text → literals and special tokens
_ANY = "(?s:.*)"
_ALL_KINDS = ("string", "number", "boolean", "null", "array", "object")
_BOUNDS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
_NUMBER = r"/-?(0|[1-9][0-9]{0,15})(\.[0-9]{1,16})?([eE][+-]?[0-9]{1,2})?/"  # none that is too large for a double
_LAYOUT = r"\n? {0,40}"
_UNKEPT = ("pattern", "format")  # what a text without quotes cannot be held to


class Rules:
    """Rules as they are made, with names of their own."""

    def __init__(self, name: str, said: Said, root: dict):
        self.name, self.said, self.root = name, said, root
        self.lines: list[str] = []
        self.known: dict[str, str] = {}  # "$ref" → the rule of what it refers to

    def add(self, body: str, lazy: bool = False) -> str:
        name = self.reserve()
        self.write(name, body, lazy)
        return name

    def reserve(self) -> str:
        self.lines.append("")
        return f"{self.name}_{len(self.lines)}"

    def write(self, name: str, body: str, lazy: bool = False) -> None:
        number = int(name.rpartition("_")[2])
        self.lines[number - 1] = f"{name}{'[lazy]' if lazy else ''}: {body}"

    def json(self, schema: dict) -> str:
        if schema.get("type") == "number" and not _BOUNDS & schema.keys():
            return self.add(_NUMBER)
        kept = {key: self.root[key] for key in ("$defs", "definitions") if key in self.root}
        spacing = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
        return self.add(f"%json {json.dumps({**kept, **schema, 'x-guidance': spacing})}")

    def text(self, schema: dict, barred: tuple[str, ...], close: str) -> str:
        """Any text in which none of `barred` occurs, of the schema's length, and what closes it."""
        length = f"{{{schema.get('minLength', 0)},{schema.get('maxLength', '')}}}"
        kept = f"(?s:.{length})" if {"minLength", "maxLength"} & schema.keys() else _ANY
        self.lines.append("")
        terminal = f"{self.name.upper()}_{len(self.lines)}"
        without = "|".join(map(escaped, barred))
        self.lines[-1] = f"{terminal}: /{kept}/ & ~/{_ANY}({without}){_ANY}/"
        said = self.said(close)
        if "<[" not in said:
            return self.add(f"{terminal} {said}", lazy=True)
        # A token of its own ends the text; a line break before it is the text's.
        return self.add(f"{terminal} {self.said(close.lstrip())}")

    def resolved(self, schema) -> dict:
        """`schema`, or what it refers to in the tool's own schema."""
        for _ in range(20):
            reference = schema.get("$ref") if isinstance(schema, dict) else None
            if not isinstance(reference, str):
                break
            schema = self.root
            for step in reference.removeprefix("#").strip("/").split("/"):
                schema = schema.get(step) if isinstance(schema, dict) else None
            if not isinstance(schema, dict):
                raise PlaygroundError(
                    f"the tools' schemas cannot be made a grammar: {reference} refers to nothing in the tool's schema"
                )
        return schema if isinstance(schema, dict) else {}

    def some(self, items: list[tuple[str, bool]], separator: str = "") -> str:
        """The items in their order, without those that are not required and not given."""
        first, later = '""', ""
        for item, required in reversed(items):
            alone, following = f"{item} {later}", f"{separator} {item}"
            first = self.add(alone if required else f"{alone} | {first}")
            later = self.add(f"{following} {later}" if required else f"({following})? {later}")
        return first


@dataclass(frozen=True)
class Tagged:
    """Each argument between `open`, with its name, and `close`: a text bare, anything else as JSON.

    `json_open` opens those that are no text, where that differs; no text holds one of `barred`.
    """

    open: str
    close: str
    barred: tuple[str, ...]
    json_open: str = ""

    def written(self, arguments: dict[str, str]) -> str:
        """Arguments that are texts, as the format's `write` has them."""
        return "".join(self.open.replace("NAME", name) + text + self.close for name, text in arguments.items())

    def rules(self, rules: Rules, parameters: dict) -> str:
        required = parameters.get("required") or []
        properties = parameters.get("properties") or {}
        return rules.some([(self._argument(rules, name, s), name in required) for name, s in properties.items()])

    def _argument(self, rules: Rules, name: str, schema) -> str:
        resolved = rules.resolved(schema)
        opening = rules.said(self.open.replace("NAME", name))
        values = [resolved["const"]] if "const" in resolved else resolved.get("enum")
        if values is not None:
            texts = [json.dumps(v) if not isinstance(v, str) else v for v in values]
            wrote = (f"{self._opening(rules, name, v)} {rules.said(t)}" for v, t in zip(values, texts, strict=True))
            return rules.add(f"({' | '.join(wrote)}) {rules.said(self.close)}")
        kinds = set(_kinds(rules, resolved))
        ways = []
        if "string" in kinds:
            _refuse_unkept(name, resolved)
            ways.append(f"{opening} {rules.text(resolved, self.barred, self.close)}")
        if kinds - {"string"} and (self.json_open or not ways):
            opening = self._opening(rules, name, None)
            rest = schema if "string" not in kinds else {"type": sorted(kinds - {"string"})}
            ways.append(f"{opening} {rules.json(rest)} {rules.said(self.close)}")
        return rules.add(" | ".join(ways))

    def _opening(self, rules: Rules, name: str, value) -> str:
        opening = self.open if isinstance(value, str) or not self.json_open else self.json_open
        return rules.said(opening.replace("NAME", name))


@dataclass(frozen=True)
class Nested:
    """`name=value` for each argument, with values in one another; `quote` is "" where texts are JSON's."""

    around: tuple[str, str] = ("", "")
    assign: str = "NAME="
    key: str = '"NAME": '
    any_key: str = r'/"[^"\\\x00-\x1f]*": /'
    comma: str = '"," " "?'
    joint: str = ", "
    quote: str = ""
    words: dict = field(default_factory=lambda: {True: "True", False: "False", None: "None"})

    def written(self, arguments: dict[str, str]) -> str:
        pieces = (self.assign.replace("NAME", name) + self._literal(text) for name, text in arguments.items())
        return self.around[0] + self.joint.join(pieces) + self.around[1]

    def rules(self, rules: Rules, parameters: dict) -> str:
        fields = self._fields(rules, parameters, self.assign)
        return " ".join(filter(None, (rules.said(self.around[0]), fields, rules.said(self.around[1]))))

    def _fields(self, rules: Rules, schema: dict, key: str) -> str:
        required = schema.get("required") or []
        items = [
            (f"{rules.said(key.replace('NAME', name))} {self._value(rules, s, name)}", name in required)
            for name, s in (schema.get("properties") or {}).items()
        ]
        return rules.some(items, self.comma)

    def _value(self, rules: Rules, schema, name: str) -> str:
        reference = schema.get("$ref") if isinstance(schema, dict) else None
        if not isinstance(reference, str):
            return self._alternatives(rules, schema if isinstance(schema, dict) else {}, name)
        if reference not in rules.known:
            rules.known[reference] = rules.reserve()
            rules.write(rules.known[reference], self._alternatives(rules, rules.resolved(schema), name))
        return rules.known[reference]

    def _alternatives(self, rules: Rules, schema: dict, name: str) -> str:
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        if values is not None:
            return rules.add(" | ".join(rules.said(self._literal(value)) for value in values))
        parts = schema.get("anyOf") or schema.get("oneOf")
        if parts:
            return rules.add(" | ".join(self._value(rules, part, name) for part in parts))
        given = schema.get("type", list(_ALL_KINDS))
        kinds = given if isinstance(given, list) else [given]
        if schema.get("type") is None:
            if "" not in rules.known:
                rules.known[""] = rules.reserve()
                ways = (self._kind(rules, kind, {}, name) for kind in kinds)
                rules.write(rules.known[""], " | ".join(ways))
            return rules.known[""]
        return rules.add(" | ".join(self._kind(rules, kind, schema, name) for kind in kinds))

    def _kind(self, rules: Rules, kind: str, schema: dict, name: str) -> str:
        if kind == "boolean":
            return f"({rules.said(self.words[True])} | {rules.said(self.words[False])})"
        if kind == "null":
            return rules.said(self.words[None])
        if kind == "string" and self.quote:
            _refuse_unkept(name, schema)
            return f"{rules.said(self.quote)} {rules.text(schema, (self.quote,), self.quote)}"
        if kind == "array":
            return self._array(rules, schema, name)
        if kind == "object":
            return self._object(rules, schema, name)
        return rules.json({**schema, "type": kind})

    def _array(self, rules: Rules, schema: dict, name: str) -> str:
        item = self._value(rules, schema.get("items", {}), name)
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if most == 0:
            return '"[" "]"'
        more = f"{{{max(least - 1, 0)},{'' if most is None else most - 1}}}"
        listed = f"{item} ({self.comma} {item}){more}"
        return f'"[" {listed} "]"' if least else f'"[" ({listed})? "]"'

    def _object(self, rules: Rules, schema: dict, name: str) -> str:
        if schema.get("properties"):
            fields = self._fields(rules, schema, self.key)
            return f'"{{" {fields} "}}"'
        extra = schema.get("additionalProperties", {})
        if extra is False:
            return '"{" "}"'
        pair = f"{self.any_key} {self._value(rules, extra if isinstance(extra, dict) else {}, name)}"
        return f'"{{" ({pair} ({self.comma} {pair})*)? "}}"'

    def _literal(self, value) -> str:
        if isinstance(value, str):
            return f"{self.quote}{value}{self.quote}" if self.quote else json.dumps(value, ensure_ascii=False)
        if isinstance(value, bool) or value is None:
            return self.words[value]
        if isinstance(value, list):
            return "[" + self.joint.join(map(self._literal, value)) + "]"
        if isinstance(value, dict):
            pairs = (self.key.replace("NAME", key) + self._literal(one) for key, one in value.items())
            return "{" + self.joint.join(pairs) + "}"
        return json.dumps(value)


@dataclass(frozen=True)
class Indented:
    """One JSON object over several lines, that stands `inside` of something indented."""

    inside: str

    def written(self, arguments: dict[str, str]) -> str:
        return json.dumps(arguments, indent=4, ensure_ascii=False).replace("\n", f"\n{self.inside}")

    def rules(self, rules: Rules, parameters: dict) -> str:
        return rules.add(f"%json {json.dumps({**parameters, 'x-guidance': {'whitespace_pattern': _LAYOUT}})}")


PYTHON = Nested()


def braces(quote: str) -> Nested:
    """Gemma's way: `{name:value,…}`, texts between two `quote`."""
    words = {True: "true", False: "false", None: "null"}
    return Nested(("{", "}"), "NAME:", "NAME:", "/[A-Za-z_][A-Za-z0-9_]*:/", '","', ",", quote, words)


def escaped(text: str) -> str:
    return re.sub(r"([\\.+*?()|\[\]{}^$/])", r"\\\1", text).replace("\n", r"\n")


def _kinds(rules: Rules, schema: dict) -> Iterator[str]:
    """The types that `schema` allows; all of them where it says none."""
    parts = [part for key in ("anyOf", "oneOf", "allOf") for part in schema.get(key) or []]
    given = schema.get("type")
    if given is None and not parts:
        yield from _ALL_KINDS
    yield from given if isinstance(given, list) else [given] if given else []
    for part in parts:
        yield from _kinds(rules, rules.resolved(part))


def _refuse_unkept(name: str, schema: dict) -> None:
    unkept = next((key for key in _UNKEPT if key in schema), None)
    if unkept:
        raise PlaygroundError(
            f"the argument {name!r} is written without quotes in this format, and cannot be held to its {unkept}"
        )
