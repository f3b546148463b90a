"""What a parameter of any schema stands for: a kind of value that can be drawn, said, and read again."""

import re
from dataclasses import dataclass

from playground.core.generator.language import Language
from playground.core.generator.vocabulary import CURRENCIES

# Words in a parameter's name → the kind of a text.
_KINDS = (
    ("email", "email mail"),
    ("date", "date birthday deadline"),
    ("time", "time clock"),
    ("country", "country nation"),
    ("currency", "currency currencies"),
    ("city", "city location place town destination origin address departure arrival region"),
    ("language", "language lang"),
    ("colour", "color colour"),
    ("unit", "unit units"),
    ("code", "id code number isbn reference ticket symbol key"),
    ("person", "name user author artist person player director contact recipient customer guest patient actor owner"),
)
_NO_PERSON = "file company team product hotel event game recipe book project movie song restaurant brand city table"
_FROM = ("from", "start", "origin", "source", "departure", "base")
_TO = ("to", "end", "destination", "target", "arrival")
_DATES = ("YYYY-MM-DD", "YYYY/MM/DD", "MM/DD/YYYY", "DD/MM/YYYY", "DD-MM-YYYY", "MM-DD-YYYY", "DD.MM.YYYY")
_ABOUT = ("topic", "topics", "query", "subject", "keyword", "keywords", "about", "interest", "interests")
_FLAG = re.compile(r"^(?:include|includes|with|is|has|show|get|use|enable|add|want|needs?|should) ")
# What a schema may write for a unit or a currency → the key of a language's `units`.
_CANONICAL = {
    **{"c": "celsius", "f": "fahrenheit", "k": "kelvin", "kilometers": "km", "kilometer": "km", "kilometres": "km"},
    **{"meters": "m", "meter": "m", "centimeters": "cm", "mile": "miles", "foot": "feet", "kilograms": "kg"},
    **{"kilogram": "kg", "pounds": "lb", "lbs": "lb", "liter": "liters", "litres": "liters"},
}


@dataclass(frozen=True)
class Slot:
    """`kind`: integer, number, truth, choice, list, date, or one of `vocabulary.pattern`."""

    name: str
    kind: str
    schema: dict
    required: bool = False
    role: str = ""  # "from" or "to"
    layout: str = ""  # of a date
    item: "Slot | None" = None  # of a list

    @property
    def family(self) -> str:
        """Slots of one family could be taken for each other."""
        kind = self.item.kind if self.item else self.kind
        if kind == "choice":
            return "choice " + "|".join(sorted(map(str, self.choices)))
        return "number" if kind == "integer" else kind

    @property
    def choices(self) -> list:
        if self.kind == "currency":
            return list(CURRENCIES)
        return (self.item or self).schema.get("enum") or []


def human(name: str) -> str:
    """`startDate`, `start_date` → start date."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return re.sub(r"[\W_]+", " ", spaced).strip().lower()


def slots_of(parameters: dict) -> tuple[list[Slot], str]:
    """The parameters that values can be made for, and why a required one cannot ("" where all can)."""
    required = set(parameters.get("required") or [])
    slots = []
    for name, schema in (parameters.get("properties") or {}).items():
        slot = slot_of(name, schema if isinstance(schema, dict) else {}, name in required)
        if slot is not None:
            slots.append(slot)
        elif name in required:
            return slots, f"its argument {name!r} is one that no question can be made for"
    return slots, ""


def slot_of(name: str, schema: dict, required: bool = False) -> Slot | None:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), None)
    words = human(name).split()
    role = "from" if set(words) & set(_FROM) else "to" if set(words) & set(_TO) else ""
    if isinstance(schema.get("enum"), list):
        plain = [value for value in schema["enum"] if isinstance(value, str | int) and not isinstance(value, bool)]
        return Slot(name, "choice", {**schema, "enum": plain}, required, role) if plain else None
    if kind in ("integer", "number"):
        return Slot(name, kind, schema, required, role)
    if kind == "boolean":
        return Slot(name, "truth", schema, required)
    if kind == "array":
        item = slot_of(name, schema.get("items") or {"type": "string"})
        if item is None or item.kind in ("truth", "list", "date"):
            return None
        return Slot(name, "list", schema, required, "", "", item)
    if kind != "string" or "pattern" in schema:
        return None
    text = _text_kind(words, schema)
    return Slot(name, text, schema, required, role, _date_layout(schema) if text == "date" else "")


def _text_kind(words: list[str], schema: dict) -> str:
    form = schema.get("format")
    if form in ("date", "time", "email"):
        return form
    if form is not None:
        return "topic"
    for kind, names in _KINDS:
        if set(words) & set(names.split()):
            if kind == "person" and set(words) & set(_NO_PERSON.split()):
                return "topic"
            return kind
    return "topic"


def _date_layout(schema: dict) -> str:
    text = str(schema.get("description", "")).upper()
    return next((layout for layout in _DATES if layout in text), "YYYY-MM-DD")


def may_be_nameless(slot: Slot) -> bool:
    """Whether a value shows by itself what it is for. Words do not, but for what something is about."""
    return (slot.item or slot).kind != "topic" or bool(set(human(slot.name).split()) & set(_ABOUT))


def counts(slot: Slot) -> bool:
    """Whether "3 days" gives the parameter "days"."""
    return re.search(r"[^\Wuis]s$", human(slot.name)) is not None


def label(slot: Slot, language: Language) -> str:
    """The parameter's name as people would say it."""
    plain = human(slot.name)
    if slot.kind == "truth":
        plain = _FLAG.sub("", plain) or plain
    return language.labels.get(plain, plain)


def surfaces(slot: Slot, value, language: Language) -> list[str]:
    """The ways to say one of a slot's choices that could mean no other of them."""
    return [form for form in _forms(value, language) if _means(slot, form, language) == [value]]


def _means(slot: Slot, form: str, language: Language) -> list:
    folded = form.casefold()
    return [value for value in slot.choices if folded in (f.casefold() for f in _forms(value, language))]


def _forms(value, language: Language) -> list[str]:
    text = str(value)
    key = text.casefold()
    units = language.units.get(_CANONICAL.get(key, key), ())
    spoken = re.sub(r"[_]+", " ", text).strip() or text
    return list(dict.fromkeys([spoken, *units]))
