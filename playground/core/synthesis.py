"""Seeded conversations that teach a small model when and how to call the demo tools.

`tool_calls(n, seed, split)` writes rows `{"messages", "tools"}`: about 43 % arithmetic, 31 % weather and 26 % talk that
needs no tool. Some 14 % of the tool rows (37 % of those for testing) go on with the tool's result and a spoken answer,
from the real tools. Every row has the same tools and no system message, so all rows share one prompt prefix, which
makes a training step cheaper.

Training and testing share no phrase, no city and no number: phrases and cities stand in one table or the other, and a
number belongs to the split that `number_split` says.

Every question has one right answer. An expression is written in the order of the question with one blank around
each operator, division as `/`, powers as `**`, p % of a as `p / 100 * a`; a city is copied
from the question, with its capitals.
"""

import json
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from urllib.parse import parse_qs, urlsplit

from playground.core import phrases, place_names, tools
from playground.core.tools import ToolError, calculator, weather
from playground.errors import PlaygroundError

SPLITS = (phrases.TRAIN, phrases.TEST)
CALCULATOR_SHARE = {phrases.TRAIN: 0.44, phrases.TEST: 0.42}
WEATHER_SHARE = {phrases.TRAIN: 0.30, phrases.TEST: 0.33}
# Of the tool rows: result and answer follow. Such a row costs a training step as much as two others.
CONTINUED_SHARES = {
    phrases.TRAIN: {calculator.NAME: 0.11, weather.NAME: 0.22},
    phrases.TEST: {calculator.NAME: 0.42, weather.NAME: 0.26},
}
# Of the rows with two calls that would be continued. In training none: such a row costs as much as four others, and
# with 15 % of them at most 1 of 4 such answers was right.
TWO_RESULTS_SHARE = {phrases.TRAIN: 0.0, phrases.TEST: 1.0}
# Of the tool rows: two calls in one turn. Training has more of what is hard to learn than people ask.
SEVERAL_SHARE = {phrases.TRAIN: 0.14, phrases.TEST: 0.08}
TWO_OPERATORS_SHARE = {phrases.TRAIN: 0.24, phrases.TEST: 0.16}  # of the expressions
BRACKETS_SHARE = {phrases.TRAIN: 0.6, phrases.TEST: 0.4}  # of the expressions with two operators
# Of the arithmetic: symbols, one operation in words, one number, a word problem, units. The model errs most in word
# problems and percentages.
SUM_SHARES = {phrases.TRAIN: [28, 12, 18, 42, 10], phrases.TEST: [42, 14, 14, 23, 7]}
CARELESS_SHARE = {phrases.TRAIN: 0.2, phrases.TEST: 0.12}  # of the weather: neither capitals nor a question mark
COUNTRY_SHARE = {phrases.TRAIN: 0.1, phrases.TEST: 0.05}  # of the cities: "Kyoto, Japan"
# Of the places: those that the weather tool does not know (`place_names`).
UNKNOWN_SHARE = {phrases.TRAIN: 0.25, phrases.TEST: 0.03}
KNOWN_SHARE = 0.5  # of these in training: names that people know; the others are made up
KNOWN_CONTINUED = 0.2  # with these, go on so much less often: an error is soon learnt
EARLIER_SHARE = {phrases.TRAIN: 0.025, phrases.TEST: 0.04}  # of all rows: an exchange comes before the question

_SYMBOLS = {
    "+": ["+"], "-": ["-"], "*": ["*", "*", "*", "x", "×", "times"], "/": ["/", "/", "÷", "divided by"],
}  # fmt: skip
_WORDS = {"+": "plus", "-": "minus"}


@dataclass(frozen=True)
class Ask:
    """A question, the calls it needs (none for talk), and the answer where no tool gives it."""

    question: str
    calls: tuple[tuple[str, dict], ...] = ()
    answer: str = ""


def tool_calls(n: int, seed: int = 0, split: str = phrases.TRAIN) -> list[dict]:
    """`n` different rows; the same `n`, `seed` and `split` give the same rows."""
    if split not in SPLITS:
        raise PlaygroundError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if n < 1:
        raise PlaygroundError(f"n must be at least 1, got {n:,}")
    return _Writer(split, random.Random(f"tool-calls {split} {seed}")).rows(n)


def number_split(text: str) -> str:
    """The split that a number belongs to, from its digits: 23, 2.3 and 2300.0 may differ, 23 always is the same."""
    return phrases.TEST if int(text.replace(".", "") or 0) % 11 in (3, 7) else phrases.TRAIN


def city_split(cities: Iterable[weather.City]) -> dict[str, list[weather.City]]:
    """A quarter of the table's cities is for testing only."""
    ordered = sorted(cities, key=lambda city: weather.plain(city.name))
    return {
        phrases.TEST: [city for i, city in enumerate(ordered) if i % 4 == 1],
        phrases.TRAIN: [city for i, city in enumerate(ordered) if i % 4 != 1],
    }


class _Writer:
    def __init__(self, split: str, rng: random.Random):
        self.split, self.rng = split, rng
        self.all_cities = weather.load_cities()
        self.cities = city_split(self.all_cities)[split]
        self.known = place_names.known()
        self.schemas = tools.schemas()
        self.day = date(2025, 1, 1)
        self.offline = weather.make(None, self.all_cities, lambda: self.day)
        self.live = weather.make(self._answer, self.all_cities, lambda: self.day)

    def rows(self, n: int) -> list[dict]:
        calculations, weathers = round(n * CALCULATOR_SHARE[self.split]), round(n * WEATHER_SHARE[self.split])
        kinds = [self.sum] * calculations + [self.weather] * weathers + [self.chat] * (n - calculations - weathers)
        self.rng.shuffle(kinds)
        seen: set[str] = set()
        return [self._new(kind, seen) for kind in kinds]

    def _new(self, kind: Callable[[], Ask], seen: set[str]) -> dict:
        for _ in range(200):
            several = kind != self.chat and self.rng.random() < SEVERAL_SHARE[self.split]
            messages = self.conversation(self.several() if several else kind())
            key = json.dumps([m["content"] for m in messages if m["role"] == "user"])
            if key not in seen:
                seen.add(key)
                return {"messages": messages, "tools": self.schemas}
        raise PlaygroundError("there are not that many different rows; ask for fewer")

    # ---- questions

    def sum(self) -> Ask:
        kinds = [self._symbols, self._spoken, self._single, self._story, self._units]
        question, expression = self.rng.choices(kinds, SUM_SHARES[self.split])[0]()
        return Ask(question, ((calculator.NAME, {"expression": expression}),))

    def weather(self) -> Ask:
        city = self.nowhere() if self.unknown() else self.city()
        question = self.pick(phrases.WEATHER).format(city=city)
        if self.rng.random() < CARELESS_SHARE[self.split]:
            question = question.lower().rstrip("?.")
        return Ask(question, ((weather.NAME, {"city": city}),))

    def several(self) -> Ask:
        kind = self.rng.choice([phrases.TWO_CITIES, phrases.TWO_SUMS, phrases.SUM_AND_CITY])
        city, city2 = self.rng.sample([c.name for c in self.cities], 2)
        if self.split == phrases.TRAIN:
            city, city2 = (self.nowhere() if self.unknown() else name for name in (city, city2))
        (e, expression), (e2, expression2) = self._expression(), self._expression()
        question = self.pick(kind).format(city=city, city2=city2, e=e, e2=e2)
        sums = [(calculator.NAME, {"expression": x}) for x in (expression, expression2)]
        places = [(weather.NAME, {"city": c}) for c in (city, city2)]
        both = {id(phrases.TWO_CITIES): places, id(phrases.TWO_SUMS): sums}
        return Ask(question, tuple(both.get(id(kind), [sums[0], places[0]])))

    def chat(self) -> Ask:
        said, answer = self.pick(phrases.CHAT)
        city = self.rng.choice(self.cities)
        country, capital = self.pick(phrases.CAPITALS)
        slots = {
            "name": self.pick(phrases.NAMES), "topic": self.pick(phrases.TOPICS), "things": self.pick(phrases.THINGS),
            "n": self.whole(2, 99), "city": city.name, "where": city.country, "country": country, "capital": capital,
        }  # fmt: skip
        said = said.format(**slots)
        if self.rng.random() < 0.25:
            said = self.rng.choice(
                [said.rstrip(".?!"), said.lower(), said.rstrip(".?!") + "!", said.lower().rstrip(".?!")]
            )
        return Ask(said, (), answer.format(**slots))

    def _symbols(self) -> tuple[str, str]:
        written, expression = self._expression()
        return self.pick(phrases.ASK).format(e=written), expression

    def _expression(self) -> tuple[str, str]:
        """An expression as people write it, and its one canonical writing."""
        several = self.rng.random() >= 1 - TWO_OPERATORS_SHARE[self.split]
        operators = self.rng.choices(["+", "-", "*", "/"], [3, 3, 4, 2], k=2 if several else 1)
        numbers = [self.number() for _ in range(len(operators) + 1)]
        if operators == ["/"]:
            numbers = list(self.divisible())
        tight = self.rng.random() < 0.35
        words = not tight and self.rng.random() < 0.15
        signs = {sign: self.rng.choice(_SYMBOLS[sign]) for sign in operators}
        if words:
            signs.update({s: _WORDS[s] for s in signs if s in _WORDS})
        if tight:  # "23times47" nobody writes
            signs = {s: s if sign.isascii() and sign[0].isalpha() else sign for s, sign in signs.items()}
        gap = "" if tight else " "
        brackets = len(operators) == 2 and not words and self.rng.random() < BRACKETS_SHARE[self.split]
        written, expression = [numbers[0]], [numbers[0]]
        for sign, value in zip(operators, numbers[1:], strict=True):
            written += [gap, signs[sign], gap, value]
            expression += [" ", sign, " ", value]
        if brackets:
            left = self.rng.random() < 0.6
            for parts in (written, expression):
                parts[0 if left else 4] = "(" + parts[0 if left else 4]
                parts[4 if left else 8] += ")"
        return "".join(written), "".join(expression)

    def _spoken(self) -> tuple[str, str]:
        question, expression = self.pick(phrases.SPOKEN)
        a, b = self.divisible() if "/" in expression else (self.number(), self.number())
        if "-" in expression:
            a, b = sorted((a, b), key=float, reverse=True)
        return question.format(a=a, b=b), expression.format(a=a, b=b)

    def _single(self) -> tuple[str, str]:
        question, expression = self.pick(phrases.SINGLE)
        p, q = (self.whole(2, 20), self.whole(2, 9)) if "{q}" in question else (self.whole(1, 99), "")
        a = self.number()
        if "sqrt" in expression and self.rng.random() < 0.6:
            a = self.until(lambda: str(self.rng.randint(2, 60) ** 2))
        return question.format(a=a, p=p, q=q), expression.format(a=a, p=p, q=q)

    def _story(self) -> tuple[str, str]:
        stories = phrases.STORIES[self.split]
        sign = self.rng.choice(list(stories))
        a, b = self.divisible() if sign == "/" else (self.whole(2, self.top()), self.whole(2, self.top()))
        if sign == "-":
            a, b = sorted((a, b), key=int, reverse=True)
        names = {"name": self.pick(phrases.NAMES), "things": self.pick(phrases.THINGS)}
        return self.rng.choice(stories[sign]).format(a=a, b=b, **names), f"{a} {sign} {b}"

    def _units(self) -> tuple[str, str]:
        small, large, factor = self.rng.choice(phrases.UNITS)
        a = self.whole(2, self.rng.choice([20, 99, 500]))
        return self.pick(phrases.UNIT_QUESTIONS).format(small=small, large=large, a=a), f"{a} * {factor}"

    # ---- words and numbers of the split

    def pick(self, table: dict[str, list]):
        return self.rng.choice(table[self.split])

    def city(self) -> str:
        city = self.rng.choice(self.cities)
        name = self.rng.choice([city.name, *city.aliases]) if self.rng.random() < 0.2 else city.name
        longer = self.rng.random() < COUNTRY_SHARE[self.split] and city.country != name
        return f"{name}, {city.country}" if longer else name

    def unknown(self) -> bool:
        return self.rng.random() < UNKNOWN_SHARE[self.split]

    def nowhere(self) -> str:
        """A place that the tool does not know: of a story; in training mostly another name, or one made up."""
        if self.split == phrases.TRAIN and self.rng.random() < KNOWN_SHARE:
            return self.rng.choice(self.known)
        if self.split == phrases.TEST or self.rng.random() < 0.2:
            return self.pick(place_names.STORIES)
        while True:
            name = "".join(map(self.rng.choice, (place_names.BEGINNINGS, place_names.MIDDLES, place_names.ENDINGS)))
            place = name if self.rng.random() < 0.8 else f"{self.rng.choice(place_names.FIRST_WORDS)} {name}"
            if not self._reminds(place):
                return place

    def _reminds(self, place: str) -> bool:
        """Whether the tool thinks of a real city, which may be one of the other split."""
        try:
            self.offline.run(city=place)
        except ToolError as error:
            return "did you mean" in str(error)
        return True

    def top(self) -> int:
        return self.rng.choice([9, 30, 99, 99, 999, 9999])

    def whole(self, low: int, high: int) -> str:
        return self.until(lambda: str(self.rng.randint(low, max(high, low + 11))))

    def number(self) -> str:
        if self.rng.random() < 0.12:
            digits = self.rng.choice([1, 1, 2])
            return self.until(lambda: f"{self.rng.uniform(0.1, self.top()):.{digits}f}".rstrip("0").rstrip("."))
        return self.whole(1, self.top())

    def divisible(self) -> tuple[str, str]:
        """A dividend and a divisor without a rest."""
        while True:
            b = int(self.whole(2, self.rng.choice([9, 12, 30, 99])))
            a = str(b * self.rng.randint(2, self.rng.choice([9, 50, 99])))
            if number_split(a) == self.split:
                return a, str(b)

    def until(self, draw: Callable[[], str]) -> str:
        while number_split(text := draw()) != self.split:
            pass
        return text

    # ---- conversations

    def conversation(self, ask: Ask) -> list[dict]:
        earlier = []
        if self.rng.random() < EARLIER_SHARE[self.split]:
            first = self.rng.choice([self.sum, self.sum, self.weather, self.chat, self.chat])()
            earlier = self.exchange(first, continued=True)
        continued = bool(ask.calls) and self.rng.random() < self._continued_share(ask)
        messages = [*earlier, *self.exchange(ask, continued)]
        if continued and self.rng.random() < 0.1:
            said, answer = self.pick(phrases.AFTERWARDS)
            messages += [_user(said), {"role": "assistant", "content": answer}]
        return messages

    def _continued_share(self, ask: Ask) -> float:
        name, arguments = ask.calls[-1]
        share = CONTINUED_SHARES[self.split][name]
        if self.split == phrases.TRAIN and arguments.get("city") in self.known:
            share *= KNOWN_CONTINUED
        return share * TWO_RESULTS_SHARE[self.split] if len(ask.calls) > 1 else share

    def exchange(self, ask: Ask, continued: bool) -> list[dict]:
        if not ask.calls:
            return [_user(ask.question), {"role": "assistant", "content": ask.answer}]
        calls = [{"type": "function", "function": {"name": name, "arguments": args}} for name, args in ask.calls]
        messages = [_user(ask.question), {"role": "assistant", "content": "", "tool_calls": calls}]
        if not continued:
            return messages
        # The real tools, on some day of the year, a third of the time with a live service behind them.
        self.day = date(2025, self.rng.randint(1, 12), self.rng.randint(1, 28))
        weather_tool = self.live if self.rng.random() < 0.33 else self.offline
        run = {calculator.NAME: calculator.run, weather.NAME: weather_tool.run}
        results = [_result(run[name], arguments) for name, arguments in ask.calls]
        for (name, _), result in zip(ask.calls, results, strict=True):
            messages.append({"role": "tool", "name": name, "content": tools.result_text(result)})
        spoken = " ".join(_spoken(call, result) for call, result in zip(ask.calls, results, strict=True))
        return [*messages, {"role": "assistant", "content": spoken}]

    def _answer(self, url: str, timeout: float) -> dict:
        """What Open-Meteo might answer: made-up, near what the place is like; the row's answer is about this result."""
        query = parse_qs(urlsplit(url).query)
        if "name" in query:
            return {}
        place = (float(query["latitude"][0]), float(query["longitude"][0]))
        city = next(city for city in self.all_cities if (city.latitude, city.longitude) == place)
        degrees = city.typical(self.day.month) + self.rng.randint(-6, 6)
        if self.split == phrases.TRAIN and self.rng.random() < 0.25:  # the minus sign is easily lost
            degrees = -self.rng.randint(1, 20)
        wet = [71, 73, 75] if degrees < 1 else [51, 61, 63, 65, 80, 95]
        hour = f"{self.day.isoformat()}T{self.rng.randint(0, 23):02}:00"
        code = self.rng.choice([0, 1, 2, 3, 45, *wet])
        return {"current": {"temperature_2m": degrees, "weather_code": code, "time": hour}}


def questions(rows: list[dict]) -> list[tuple[list[dict], list[dict]]]:
    """What to ask and what to expect, from rows: the messages up to the last question, and the calls due after it.

    The calls are `{"name", "arguments"}`; none for a question that needs no tool.
    """
    asked = []
    for row in rows:
        messages = row["messages"]
        at = max(i for i, m in enumerate(messages) if m["role"] == "assistant" and messages[i - 1]["role"] == "user")
        due = [call["function"] for call in messages[at].get("tool_calls") or []]
        asked.append((messages[:at], due))
    return asked


def numbers(text: str) -> list[str]:
    """The numbers in a question, as written."""
    return re.findall(r"\d+(?:\.\d+)?", text)


def _user(text: str) -> dict:
    return {"role": "user", "content": text}


def _result(run: Callable[..., dict], arguments: dict) -> dict:
    try:
        return run(**arguments)
    except ToolError as error:
        return {"error": str(error)}


def _spoken(call: tuple[str, dict], result: dict) -> str:
    name, arguments = call
    if "error" in result:
        return f"That did not work: {result['error']}"
    if name == calculator.NAME:
        return f"{arguments['expression']} = {result['result']}."
    place, degrees = result["city"], result["temperature_c"]
    if "conditions" in result:
        return f"It is {degrees} °C in {place} right now: {result['conditions']}."
    month = result["source"].split("typical for ")[1].split(",")[0]
    return f"In {month} it is typically {degrees} °C in {place} (climate table, not today's weather)."
