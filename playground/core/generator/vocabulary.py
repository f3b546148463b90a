"""Words that values are made of, each for training or for testing only."""

import re
import zlib
from collections.abc import Iterable
from functools import cache

from playground.core.phrases import TEST, TRAIN
from playground.core.tools import weather


def _words(text: str) -> list[str]:
    return text.split()


FIRST = _words(
    "Anna Ben Carla David Elena Felix Grace Hugo Ines Jonas Karim Lena Marco Nadia Oscar Paula Quentin Rosa Samir Tara "
    "Ulrich Vera William Xenia Yusuf Zoe Amir Bianca Cyril Dana Emil Fatima"
)
LAST = _words(
    "Abbott Berger Castro Dubois Egger Fischer Garcia Hansen Ito Jansen Keller Lopez Moreau Nguyen Olsen Petrov Quinn "
    "Rossi Silva Tanaka Ueda Vogel Weber Xu Yilmaz Zhang Arnaud Becker Costa Duarte"
)
ADJECTIVES = _words(
    "ancient bright calm daring early famous gentle hidden icy jolly kind lucky modern northern open plain quiet rapid "
    "silver tiny urban vivid wild young zesty brave clever deep electric frozen"
)
NOUNS = _words(
    "apples bridges castles deserts engines forests gardens harbours islands jackets kitchens lanterns mountains "
    "novels oceans paintings quarries rivers sailboats trains umbrellas violins windmills yachts zebras batteries "
    "clocks dolphins festivals glaciers"
)
LANGUAGES = [
    "English",
    "German",
    "French",
    "Spanish",
    "Italian",
    "Portuguese",
    "Dutch",
    "Polish",
    "Turkish",
    "Japanese",
    "Korean",
    "Hindi",
    "Swedish",
]
COLOURS = _words("red green blue yellow black white orange purple brown pink grey turquoise")
UNITS = _words("kilometers meters centimeters miles feet inches kilograms grams pounds ounces liters gallons")
CURRENCIES = ("USD", "EUR", "GBP", "JPY", "CHF", "INR")
MAIL = _words("example.com example.org example.net")
_SHARE = 5  # one word of so many is for testing


def split_of(text: str) -> str:
    """Where a word belongs; the same for ever."""
    return TEST if zlib.crc32(text.casefold().encode()) % _SHARE == 0 else TRAIN


def of(words: Iterable[str], split: str) -> list[str]:
    """The words of a split; all where a split would have none."""
    words = list(words)
    return [word for word in words if split_of(word) == split] or words


@cache
def cities() -> tuple[str, ...]:
    names = {city.country for city in weather.load_cities()}
    return tuple(city.name for city in weather.load_cities() if city.name not in names)


@cache
def countries() -> tuple[str, ...]:
    return tuple(sorted({city.country for city in weather.load_cities()}))


@cache
def pattern(kind: str) -> re.Pattern:
    """Finds every value of a kind whose values are words."""
    words = {
        "city": lambda: _any(cities()),
        "country": lambda: _any(countries()),
        "person": lambda: f"{_any(FIRST)} {_any(LAST)}",
        "topic": lambda: f"{_any(ADJECTIVES)} {_any(NOUNS)}",
        "language": lambda: _any(LANGUAGES),
        "colour": lambda: _any(COLOURS),
        "unit": lambda: _any(UNITS),
        "email": lambda: r"[a-z]+\.[a-z]+@example\.(?:com|org|net)",
        "code": lambda: r"[A-Z]{2}-\d{4}",
        "time": lambda: r"\d{2}:\d{2}",
    }
    return re.compile(rf"(?<!\w){words[kind]()}(?!\w)")


def _any(words: Iterable[str]) -> str:
    return "(?:" + "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True)) + ")"
