"""That every argument of a row can be had from its question, and from nowhere else.

The question is read (`readings`), not compared with what was written into it. An argument counts as derived where its
value stands in the words with its parameter's name beside it, or where no other value that it could be stands there.
"""

import re
from collections.abc import Sequence
from functools import cache

from playground.core import tools as toolbox
from playground.core.generator.language import Language
from playground.core.generator.readings import Reading, readings
from playground.core.generator.slots import Slot, may_be_nameless
from playground.core.tool_formats.values import Call


def parts(text: str, language: Language, count: int) -> list[str]:
    """A question's requests, one for each call."""
    if count == 1:
        return [text]
    between = [piece for split in language.next.values() for piece in split]
    return re.split("|".join(map(re.escape, between)), text)


def underived(
    text: str, arguments: dict, slots: Sequence[Slot], names: dict[str, str], language: Language
) -> list[str]:
    """The arguments of one call that its request does not give, by name; [] where it gives all."""
    by_name = {slot.name: slot for slot in slots}
    if unknown := [name for name in arguments if name not in by_name]:
        return unknown
    seen = {name: readings(by_name[name], text, language, names[name]) for name in arguments}
    beside = {name: _beside(by_name[name], names[name], language) for name in arguments}
    taken: dict[str, Reading] = {}
    missing = []
    # first what its name stands beside, then what is left over for the others
    for named in (True, False):
        for name, value in arguments.items():
            if name in taken:
                continue
            for one in seen[name]:
                clear = by_name[name].kind == "truth" or beside[name](text, one)
                if _same(one.value, value) and clear == named and not _overlaps(one, taken.values()):
                    taken[name] = one
                    break
    for name, value in arguments.items():
        if name not in taken:
            missing.append(name)
            continue
        one = taken[name]
        if by_name[name].kind == "truth" or beside[name](text, one):
            others = [r for r in seen[name] if by_name[name].kind == "truth" and r.value != value]
        else:
            # what another argument has by its name, or because it is of another kind, is no rival
            held = [
                r
                for n, r in taken.items()
                if n != name and (by_name[n].family != by_name[name].family or beside[n](text, r))
            ]
            others = [r for r in seen[name] if not _same(r.value, value) and not _overlaps(r, [*held, one])]
            if not may_be_nameless(by_name[name]):
                missing.append(name)
                continue
        if others:
            missing.append(name)
    return missing


def still_open(
    text: str, slot: Slot, arguments: dict, slots: Sequence[Slot], names: dict[str, str], language: Language
) -> bool:
    """Whether the request, which gives `arguments`, says nothing that could be the value of `slot`."""
    by_name = {one.name: one for one in slots}
    held = [
        one
        for name, value in arguments.items()
        for one in readings(by_name[name], text, language, names[name])
        if _same(one.value, value)
    ]
    return not [one for one in readings(slot, text, language, names[slot.name]) if not _overlaps(one, held)]


def fits(calls: Sequence[dict], schemas: Sequence[dict]) -> bool:
    """Whether the calls are in order by the schemas on offer."""
    return all(toolbox.check(Call(call["name"], call["arguments"]), schemas) is None for call in calls)


def _beside(slot: Slot, label: str, language: Language):
    role = language.roles[slot.role] if slot.role else ""
    before, after = _around(label, role, language.between)

    def stands(text: str, one: Reading) -> bool:
        if before.search(text, max(0, one.start - 80), one.start):
            return True
        return slot.kind == "integer" and after.match(text, one.end) is not None

    return stands


@cache
def _around(label: str, role: str, between: tuple[str, ...]) -> tuple[re.Pattern, re.Pattern]:
    """What stands before a value that has its parameter's name, and after one as in "3 days"."""
    words = "|".join(re.escape(word) for word in (label, role) if word)
    before = rf"(?<!\w)(?:{words})(?:\s?[:=])?(?:\s(?:{'|'.join(between)}))?\s$"
    return re.compile(before, re.IGNORECASE), re.compile(rf"\s{re.escape(label)}(?!\w)", re.IGNORECASE)


def _same(one, other) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, bool) != isinstance(other, bool):
        return False
    return one == other


def _overlaps(one: Reading, others) -> bool:
    return any(one.start < other.end and other.start < one.end for other in others)
