"""Rows: a question, the tools on offer, and the calls it asks for, each proven before it is kept."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from playground.core.generator import proof, values, vocabulary
from playground.core.generator.english import ENGLISH
from playground.core.generator.french import FRENCH
from playground.core.generator.german import GERMAN
from playground.core.generator.language import Language
from playground.core.generator.schemas import Spec, alike, specs
from playground.core.generator.slots import Slot, human, label
from playground.core.generator.spanish import SPANISH
from playground.core.phrases import TEST, TRAIN
from playground.core.tools import catalog
from playground.core.tools.catalog import PYTHON
from playground.errors import PlaygroundError

LANGUAGES = {language.code: language for language in (ENGLISH, GERMAN, FRENCH, SPANISH)}
MAX_ROWS = 200_000
# Kind → its share of the rows.
SHARES = {"one call": 0.5, "several calls": 0.15, "ask back": 0.08, "answered": 0.07, "no tool": 0.12, "talk": 0.08}
OPTIONAL_SHARE = 0.4  # of the optional arguments that are given
MAX_OPTIONAL = 3
MOST_DISTRACTORS = 4
FEW = 6  # tools: with fewer, this app's own schemas stand among the distractors
_TRIES = 40


@dataclass(frozen=True)
class Row:
    kind: str
    language: str
    messages: list[dict]
    tools: list[dict]
    calls: list[dict]


@dataclass
class Made:
    """`proven`: arguments that were read from their question; `redrawn`: rows that were not kept, and why."""

    rows: list[Row] = field(default_factory=list)
    proven: int = 0
    redrawn: Counter = field(default_factory=Counter)


@dataclass(frozen=True)
class Request:
    """One call and the piece of a question that asks for it. `missing` is left out of both."""

    spec: Spec
    text: str
    arguments: dict
    missing: Slot | None = None


class TooFew(PlaygroundError):
    """There are not so many different rows; `made` holds those there are."""

    def __init__(self, sentence: str, made: Made):
        super().__init__(sentence)
        self.made = made


class _Not(Exception):
    """A row that is not kept; the text says why."""


def rows(
    tools: Sequence[Spec],
    n: int,
    seed: int = 0,
    languages: Sequence[str] = ("en",),
    split: str = TRAIN,
    shares: dict[str, float] = SHARES,
    asked: Sequence[str] = (),
) -> Made:
    """`n` different rows; the same arguments give the same rows.

    `shares`: how much of each kind. `asked`: names of tools that questions are for; the others only stand beside.
    """
    if not 1 <= n <= MAX_ROWS:
        raise PlaygroundError(f"n must be between 1 and {MAX_ROWS:,}, got {n:,}")
    if split not in (TRAIN, TEST):
        raise PlaygroundError(f"split must be train or test, got {split!r}")
    unknown = [code for code in languages if code not in LANGUAGES]
    if unknown or not languages:
        given = repr(unknown[0]) if unknown else "none"
        raise PlaygroundError(f"languages are {', '.join(LANGUAGES)}, got {given}")
    chosen = [LANGUAGES[code] for code in dict.fromkeys(languages)]
    return _Writer(list(tools), split, chosen, random.Random(f"schemas {split} {seed}"), asked).rows(n, shares)


class _Writer:
    def __init__(
        self, tools: list[Spec], split: str, languages: list[Language], rng: random.Random, asked: Sequence[str] = ()
    ):
        self.split, self.languages, self.rng = split, languages, rng
        self.tools = [spec for spec in tools if not asked or spec.name in asked]
        self.others = [*tools, *(own_tools(tools) if len(tools) < FEW else [])]
        self.made = Made()
        self.seen: set[str] = set()
        self.names: dict[tuple[str, str], dict[str, str]] = {}

    def rows(self, n: int, shares: dict[str, float] = SHARES) -> Made:
        kinds = self.rng.choices(list(shares), shares.values(), k=n)
        write: dict[str, Callable[[Language], tuple[Row, int]]] = {
            "one call": self.one,
            "several calls": self.several,
            "ask back": self.ask_back,
            "answered": self.ask_back,
            "no tool": self.no_tool,
            "talk": self.talk,
        }
        for kind in kinds:
            self._add(kind, write)
        return self.made

    def _add(self, kind: str, write: dict) -> None:
        # a kind that these tools do not have, or have no more of, gives way to calls
        for tried in dict.fromkeys((kind, "one call", "several calls")):
            for _ in range(_TRIES):
                language = self.rng.choice(self.languages)
                try:
                    row, proven = write[tried](language) if tried != "answered" else self.ask_back(language, True)
                    self._once(row)
                except _Not as reason:
                    self.made.redrawn[str(reason)] += 1
                    continue
                self.made.rows.append(row)
                self.made.proven += proven
                return
        raise TooFew(
            f"these tools give only {len(self.made.rows):,} different rows; ask for fewer, or add languages or tools",
            self.made,
        )

    def _once(self, row: Row) -> None:
        key = "\n".join(m["content"].casefold() for m in row.messages if m["role"] == "user")
        if key in self.seen:
            raise _Not("the same question again")
        self.seen.add(key)

    # ---- kinds of rows

    def one(self, language: Language) -> tuple[Row, int]:
        request = self.request(self.rng.choice(self.tools), language)
        self.prove([request], request.text, language)
        calls = _calls([request])
        offered = self.offered([request.spec])
        return Row("one call", language.code, [_user(request.text), _calling(calls)], offered, calls), len(
            request.arguments
        )

    def several(self, language: Language) -> tuple[Row, int]:
        first = self.rng.choice(self.tools)
        second = first if self.rng.random() < 0.5 else self.rng.choice(self.tools)
        requests = [self.request(first, language), self.request(second, language)]
        calls = _calls(requests)
        if calls[0] == calls[1]:
            raise _Not("the same call twice")
        text = self.pick(language.next).join(request.text for request in requests)
        self.prove(requests, text, language)
        proven = sum(len(request.arguments) for request in requests)
        offered = self.offered([first, second])
        return Row("several calls", language.code, [_user(text), _calling(calls)], offered, calls), proven

    def ask_back(self, language: Language, answered: bool = False) -> tuple[Row, int]:
        """A required value is missing; with `answered` the visitor gives it, and the call follows."""
        spec = self.rng.choice(self.tools)
        open_slots = [slot for slot in spec.slots if slot.required and slot.kind != "truth"]
        if not open_slots:
            raise _Not("a tool that needs no value")
        request = self.request(spec, language, missing=self.rng.choice(open_slots))
        names = self.names_of(spec, language)
        self.prove([request], request.text, language)
        slot = request.missing
        if not proof.still_open(request.text, slot, request.arguments, spec.slots, names, language):
            raise _Not("what should be missing can be read")
        wanted = self.pick(language.wants).format(label=names[slot.name])
        messages = [_user(request.text), {"role": "assistant", "content": wanted}]
        if not answered:
            row = Row("ask back", language.code, messages, self.offered([spec]), [])
            return row, len(request.arguments)
        value = self.value(slot, language)
        answer = self.pick(language.gives).format(v=values.say(slot, value, language, self.rng))
        if proof.underived(answer, {slot.name: value}, spec.slots, names, language):
            raise _Not("an argument cannot be read from its question")
        whole = {one.name: {**request.arguments, slot.name: value}.get(one.name) for one in spec.slots}
        given = {name: value for name, value in whole.items() if name in request.arguments or name == slot.name}
        calls = [{"name": spec.name, "arguments": given}]
        self.hold(calls, spec)
        messages += [_user(answer), _calling(calls)]
        return Row("answered", language.code, messages, self.offered([spec]), calls), len(given)

    def no_tool(self, language: Language) -> tuple[Row, int]:
        """A question for a tool that is not on offer, nor one like it."""
        asked = self.rng.choice(self.others)
        tools = self.unlike([asked], self.rng.randint(1, MOST_DISTRACTORS))
        if not tools:
            raise _Not("no tool that is unlike the one asked for")
        request = self.request(asked, language)
        messages = [_user(request.text), {"role": "assistant", "content": self.pick(language.refuses)}]
        return Row("no tool", language.code, messages, [spec.schema for spec in tools], []), 0

    def talk(self, language: Language) -> tuple[Row, int]:
        said, answer = self.pick(language.chat)
        words = {
            "name": self.rng.choice(vocabulary.of(vocabulary.FIRST, self.split)),
            "city": self.rng.choice(vocabulary.of(vocabulary.cities(), self.split)),
        }
        messages = [_user(said.format(**words)), {"role": "assistant", "content": answer.format(**words)}]
        return Row("talk", language.code, messages, self.offered([]), []), 0

    # ---- parts of rows

    def request(self, spec: Spec, language: Language, missing: Slot | None = None) -> Request:
        optional = [slot for slot in spec.slots if not slot.required and self.rng.random() < OPTIONAL_SHARE]
        given = {slot.name for slot in spec.slots if slot.required} | {slot.name for slot in optional[:MAX_OPTIONAL]}
        slots = [slot for slot in spec.slots if slot.name in given and slot is not missing]
        arguments = {slot.name: self.value(slot, language) for slot in slots}
        words = [(slot.family, str(arguments[slot.name])) for slot in slots if slot.family not in ("number", "truth")]
        if len(set(words)) < len(words):
            raise _Not("the same word for two arguments")
        names = self.names_of(spec, language)
        # a parameter that is not given counts too: its value must not seem to be there
        families = Counter(slot.family for slot in spec.slots)
        pieces = [
            values.mention(slot, arguments[slot.name], language, self.rng, families[slot.family] == 1, names)
            for slot in slots
        ]
        self.rng.shuffle(pieces)
        task = spec.phrases.get(language.code, spec.task)
        if pieces:
            # a description is a command in English only; elsewhere the phrases take any words
            carriers = language.asked if spec.command or language.code in spec.phrases else language.noun
            text = self.pick(carriers).format(task=task, slots=", ".join(pieces))
        else:
            nouns = language.bare if spec.command else language.bare_noun or language.bare
            text = self.pick(nouns).format(task=task)
        return Request(spec, text[:1].upper() + text[1:], arguments, missing)

    def value(self, slot: Slot, language: Language):
        value = values.draw(slot, language, self.split, self.rng)
        if value is None:
            raise _Not("a schema that allows no value we can say")
        return value

    def prove(self, requests: list[Request], text: str, language: Language) -> None:
        pieces = proof.parts(text, language, len(requests))
        if len(pieces) != len(requests):
            raise _Not("a value that reads like the end of a question")
        for piece, request in zip(pieces, requests, strict=True):
            names = self.names_of(request.spec, language)
            if proof.underived(piece, request.arguments, request.spec.slots, names, language):
                raise _Not("an argument cannot be read from its question")
            if request.missing is None:
                self.hold(_calls([request]), request.spec)

    def hold(self, calls: list[dict], spec: Spec) -> None:
        if not proof.fits(calls, [spec.schema]):
            raise _Not("a call that its schema does not allow")

    def offered(self, needed: Sequence[Spec]) -> list[dict]:
        """The tools that are needed among others, in any order; at least one."""
        others = self.unlike(needed, self.rng.randint(0 if needed else 1, MOST_DISTRACTORS))
        chosen = [*{spec.name: spec for spec in needed}.values(), *others]
        self.rng.shuffle(chosen)
        return [spec.schema for spec in chosen]

    def unlike(self, needed: Sequence[Spec], count: int) -> list[Spec]:
        """Up to `count` tools that nobody would take for one of `needed`."""
        found: list[Spec] = []
        for spec in self.rng.sample(self.others, min(len(self.others), 6 * MOST_DISTRACTORS)):
            if len(found) == count:
                break
            if not any(spec.name == other.name or alike(spec, other) for other in needed):
                found.append(spec)
        return found

    def names_of(self, spec: Spec, language: Language) -> dict[str, str]:
        """What the parameters are called in a language; the schema's own words where two would be the same."""
        key = (spec.name, language.code)
        if key not in self.names:
            names = {slot.name: label(slot, language) for slot in spec.slots}
            twice = {name for name, count in Counter(names.values()).items() if count > 1}
            self.names[key] = {slot: human(slot) if name in twice else name for slot, name in names.items()}
        return self.names[key]

    def pick(self, table: dict[str, list]):
        return self.rng.choice(table[self.split])


def own_tools(beside: Sequence[Spec]) -> list[Spec]:
    """This app's tools as distractors, but for those that are like one of `beside`."""
    made = [entry.make(None, None).schema for entry in catalog() if entry.name != PYTHON]
    found, _ = specs(made)
    return [spec for spec in found if not any(spec.name == other.name or alike(spec, other) for other in beside)]


def _calls(requests: Sequence[Request]) -> list[dict]:
    return [{"name": request.spec.name, "arguments": request.arguments} for request in requests]


def _user(text: str) -> dict:
    return {"role": "user", "content": text}


def _calling(calls: list[dict]) -> dict:
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": c} for c in calls]}
