"""Values of a slot: drawn for a split, and said in a language."""

import random
from datetime import date, timedelta

from playground.core.generator import vocabulary
from playground.core.generator.language import Language
from playground.core.generator.slots import Slot, counts, human, label, may_be_nameless, surfaces
from playground.core.synthesis import number_split

_YEARS = (1950, 2030)
_FIRST_DAY = date(2024, 1, 1)
_DAYS = 365 * 4
_WORD_SHARE = 0.2  # of the small numbers
_TRIES = 60


def draw(slot: Slot, language: Language, split: str, rng: random.Random):
    """A value of the slot; what is said of it in this language means this value alone. None where there is none."""
    match slot.kind:
        case "choice" | "currency":
            allowed = [value for value in slot.choices if surfaces(slot, value, language)]
            return rng.choice(allowed) if allowed else None
        case "truth":
            return rng.random() < 0.6
        case "integer" | "number":
            return _number(slot, split, rng)
        case "list":
            return _list(slot, language, split, rng)
        case "date":
            return write_date(_day(split, rng), slot.layout)
        case "time":
            return f"{rng.randint(7, 21):02}:{rng.choice((0, 15, 30, 45)):02}"
    return _word(slot.kind, split, rng)


def _word(kind: str, split: str, rng: random.Random) -> str:
    def one(words) -> str:
        return rng.choice(vocabulary.of(words, split))

    match kind:
        case "city":
            return one(vocabulary.cities())
        case "country":
            return one(vocabulary.countries())
        case "person":
            return f"{one(vocabulary.FIRST)} {one(vocabulary.LAST)}"
        case "language":
            return one(vocabulary.LANGUAGES)
        case "colour":
            return one(vocabulary.COLOURS)
        case "unit":
            return one(vocabulary.UNITS)
        case "email":
            first, last = one(vocabulary.FIRST).lower(), one(vocabulary.LAST).lower()
            return f"{first}.{last}@{rng.choice(vocabulary.MAIL)}"
        case "code":
            letters = "".join(rng.choices("ABCDEFGHKLMNPRSTUVWXYZ", k=2))
            return f"{letters}-{rng.randint(1000, 9999)}"
    return f"{one(vocabulary.ADJECTIVES)} {one(vocabulary.NOUNS)}"


def _number(slot: Slot, split: str, rng: random.Random):
    low, high = _bounds(slot, rng)
    whole = slot.kind == "integer" or rng.random() < 0.6
    value = low
    for _ in range(_TRIES):
        value = rng.randint(int(low), int(high)) if whole else round(rng.uniform(low, high), rng.choice((1, 1, 2)))
        value = int(value) if value == int(value) else value
        if not low <= value <= high:
            continue
        # a range of few numbers may hold none of this split
        if high - low < 12 or number_split(str(abs(value))) == split:
            break
    return value


def _bounds(slot: Slot, rng: random.Random) -> tuple[float, float]:
    schema, words = slot.schema, set(human(slot.name).split())
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is not None and "minimum" not in schema:
        low += 1
    if high is not None and "maximum" not in schema:
        high -= 1
    if low is None and high is None and words & {"year", "years"} and "years" not in words:
        return _YEARS
    usual = rng.choice((12, 40, 100, 900))
    if low is None:
        low = 2 if high is None or high >= 2 else high - usual
    return low, high if high is not None else low + usual


def _list(slot: Slot, language: Language, split: str, rng: random.Random) -> list | None:
    least = max(2, slot.schema.get("minItems", 2))
    wanted = min(max(least, rng.randint(2, 3)), slot.schema.get("maxItems", 3))
    found: list = []
    for _ in range(_TRIES):
        value = draw(slot.item, language, split, rng)
        if value is not None and value not in found:
            found.append(value)
        if len(found) == wanted:
            return found
    return None


def _day(split: str, rng: random.Random) -> date:
    day = _FIRST_DAY
    for _ in range(_TRIES):
        day = _FIRST_DAY + timedelta(days=rng.randrange(_DAYS))
        if vocabulary.split_of(day.isoformat()) == split:
            break
    return day


def write_date(day: date, layout: str) -> str:
    return layout.replace("YYYY", f"{day.year:04}").replace("MM", f"{day.month:02}").replace("DD", f"{day.day:02}")


def read_date(text: str, layout: str) -> date:
    year, month, day = (int(text[(at := layout.index(part)) : at + len(part)]) for part in ("YYYY", "MM", "DD"))
    return date(year, month, day)


def say(slot: Slot, value, language: Language, rng: random.Random) -> str:
    """The value as it stands in a question."""
    match slot.kind:
        case "choice" | "currency":
            return rng.choice(surfaces(slot, value, language))
        case "integer" | "number":
            if value in language.numbers and rng.random() < _WORD_SHARE:
                return language.numbers[value]
            return str(value).replace(".", language.decimal)
        case "list":
            items = [say(slot.item, item, language, rng) for item in value]
            return f"{', '.join(items[:-1])} {language.last} {items[-1]}"
        case "date":
            day = read_date(value, slot.layout)
            if rng.random() < 0.3:
                return day.isoformat()
            return rng.choice(language.dates).format(day=day.day, month=language.months[day.month - 1], year=day.year)
    return str(value)


def mention(slot: Slot, value, language: Language, rng: random.Random, alone: bool, names: dict[str, str]) -> str:
    """A piece of a question that gives the value; with its parameter's name unless it is `alone` of its family."""
    name = names.get(slot.name) or label(slot, language)
    if slot.kind == "truth":
        return rng.choice(language.yes if value else language.no).format(label=name)
    said = say(slot, value, language, rng)
    if not alone:
        if slot.role and rng.random() < 0.5:
            return f"{language.roles[slot.role]} {said}"
        return rng.choice(language.labelled).format(label=name, v=said)
    free = language.said.get(slot.kind, ()) if may_be_nameless(slot) else ()
    if free and rng.random() < 0.7:
        return rng.choice(free).format(v=said)
    if slot.kind == "integer" and counts(slot) and rng.random() < 0.5:
        return f"{said} {name}"
    return rng.choice(language.labelled).format(label=name, v=said)
