"""What values a question holds: read from its words alone, with nothing known of the value that was meant.

This is the other way round than `values.say`, written apart from it, so that the one proves the other.
"""

import re
from collections.abc import Iterator
from datetime import date
from functools import cache
from typing import NamedTuple

from playground.core.generator import vocabulary
from playground.core.generator.language import Language
from playground.core.generator.slots import Slot, surfaces
from playground.core.generator.values import write_date

_NUMBER = {
    ".": re.compile(r"(?<![\w.,:/-])-?\d+(?:\.\d+)?(?![\w:/-]|[.,]\d)"),
    ",": re.compile(r"(?<![\w.,:/-])-?\d+(?:,\d+)?(?![\w:/-]|[.,]\d)"),
}
_ISO = re.compile(r"(?<![\w-])(\d{4})-(\d{2})-(\d{2})(?![\w-])")


class Reading(NamedTuple):
    start: int
    end: int
    value: object


def readings(slot: Slot, text: str, language: Language, label: str = "") -> list[Reading]:
    """Every value in `text` that could be one for `slot`; of a truth value, which goes by its `label`, likewise."""
    match slot.kind:
        case "integer" | "number":
            found = list(_numbers(text, language))
            return found if slot.kind == "number" else [one for one in found if one.value == int(one.value)]
        case "truth":
            return list(_truths(text, language, label))
        case "choice" | "currency":
            return list(_choices(slot, text, language))
        case "date":
            return [one._replace(value=write_date(one.value, slot.layout)) for one in _dates(text, language)]
        case "list":
            return list(_lists(slot, text, language))
    return [Reading(one.start(), one.end(), one[0]) for one in vocabulary.pattern(slot.kind).finditer(text)]


def _numbers(text: str, language: Language) -> Iterator[Reading]:
    for one in _NUMBER[language.decimal].finditer(text):
        value = float(one[0].replace(",", "."))
        yield Reading(one.start(), one.end(), int(value) if value == int(value) else value)
    words = {word: number for number, word in language.numbers.items()}
    for one in _words(tuple(words)).finditer(text):
        yield Reading(one.start(), one.end(), words[one[0].lower()])


@cache
def _words(words: tuple[str, ...]) -> re.Pattern:
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", re.IGNORECASE)


def _truths(text: str, language: Language, label: str) -> Iterator[Reading]:
    for forms, value in ((language.yes, True), (language.no, False)):
        for one in _words(tuple(form.format(label=label) for form in forms)).finditer(text):
            yield Reading(one.start(), one.end(), value)


def _choices(slot: Slot, text: str, language: Language) -> Iterator[Reading]:
    means = {form.casefold(): value for value in slot.choices for form in surfaces(slot, value, language)}
    if not means:
        return
    for one in _words(tuple(means)).finditer(text):
        yield Reading(one.start(), one.end(), means[one[0].casefold()])


def _dates(text: str, language: Language) -> Iterator[Reading]:
    for one in _ISO.finditer(text):
        yield from _date(one, *map(int, one.groups()))
    for layout in language.dates:
        for one in _date_pattern(layout, language.months).finditer(text):
            month = language.months.index(one["month"]) + 1
            yield from _date(one, int(one["year"]), month, int(one["day"]))


@cache
def _date_pattern(layout: str, months: tuple[str, ...]) -> re.Pattern:
    parts = {"day": r"(?P<day>\d{1,2})", "month": f"(?P<month>{'|'.join(months)})", "year": r"(?P<year>\d{4})"}
    pattern = re.escape(layout)
    for name, part in parts.items():
        pattern = pattern.replace(re.escape(f"{{{name}}}"), part)
    return re.compile(rf"(?<!\w){pattern}(?!\w)")


def _date(found: re.Match, year: int, month: int, day: int) -> Iterator[Reading]:
    try:
        yield Reading(found.start(), found.end(), date(year, month, day))
    except ValueError:
        return


def _lists(slot: Slot, text: str, language: Language) -> Iterator[Reading]:
    """Runs of items that commas and a last "and" hold together."""
    items = sorted(readings(slot.item, text, language), key=lambda one: one.start)
    run: list[Reading] = []
    for one in items:
        if run and not re.fullmatch(rf", | {language.last} ", text[run[-1].end : one.start]):
            run = []
        run.append(one)
        if len(run) > 1 and (text[run[-2].end : one.start] != ", "):
            yield Reading(run[0].start, one.end, [part.value for part in run])
