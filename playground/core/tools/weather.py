"""Weather for a city: Open-Meteo when a way to the network is given, else a climate table.

The table (assets/climate.csv) holds typical monthly mean temperatures in whole °C, compiled by hand from commonly
published 1991–2020 climate normals: an answer from it is what a month is usually like, never today's weather, and
says so. This module has no network of its own: `make(fetch=…)` takes a function from URL to JSON.
"""

import csv
import difflib
import math
import re
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlencode

from playground.config import ASSETS
from playground.core.tools.tool import Tool, ToolError

NAME = "get_weather"
RETRY_AFTER = 300.0  # seconds without another try after the network failed
TIMEOUT = 2.0  # seconds for one request
GEOCODING = "https://geocoding-api.open-meteo.com/v1/search"
FORECAST = "https://api.open-meteo.com/v1/forecast"
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
# WMO code table 4677, as Open-Meteo groups it.
CONDITIONS = {
    0: "clear sky", 1: "mainly clear", 2: "partly cloudy", 3: "overcast", 45: "fog", 48: "freezing fog",
    51: "light drizzle", 53: "drizzle", 55: "heavy drizzle", 56: "freezing drizzle", 57: "freezing drizzle",
    61: "light rain", 63: "rain", 65: "heavy rain", 66: "freezing rain", 67: "freezing rain",
    71: "light snow", 73: "snow", 75: "heavy snow", 77: "snow grains", 80: "light showers", 81: "showers",
    82: "heavy showers", 85: "snow showers", 86: "heavy snow showers", 95: "thunderstorm",
    96: "thunderstorm with hail", 99: "thunderstorm with hail",
}  # fmt: skip
_COUNTRIES = {
    "usa": "united states", "us": "united states", "america": "united states", "uk": "united kingdom",
    "great britain": "united kingdom", "britain": "united kingdom", "uae": "united arab emirates",
    "czech republic": "czechia", "holland": "netherlands", "the netherlands": "netherlands", "turkiye": "turkey",
    "korea": "south korea", "cote d ivoire": "ivory coast", "drc": "dr congo",
}  # fmt: skip
_STATES = {
    "az": "arizona", "ca": "california", "co": "colorado", "dc": "district of columbia", "fl": "florida",
    "ga": "georgia", "il": "illinois", "la": "louisiana", "ma": "massachusetts", "mi": "michigan", "mn": "minnesota",
    "mo": "missouri", "nc": "north carolina", "nm": "new mexico", "nv": "nevada", "ny": "new york", "oh": "ohio",
    "or": "oregon", "pa": "pennsylvania", "tn": "tennessee", "tx": "texas", "ut": "utah", "wa": "washington",
    "ak": "alaska", "hi": "hawaii", "on": "ontario", "qc": "quebec", "bc": "british columbia", "nsw": "new south wales",
}  # fmt: skip


@dataclass(frozen=True)
class City:
    name: str
    country: str
    region: str
    latitude: float
    longitude: float
    january: int
    april: int
    july: int
    october: int
    aliases: tuple[str, ...] = ()

    def typical(self, month: int) -> int:
        """Typical mean temperature of a month (1 to 12), °C: two harmonics through the table's four months."""
        angle = 2 * math.pi * (month - 1) / 12
        mean = (self.january + self.april + self.july + self.october) / 4
        year = (self.january - self.july) / 2 * math.cos(angle) + (self.april - self.october) / 2 * math.sin(angle)
        half_year = (self.january + self.july - self.april - self.october) / 4 * math.cos(2 * angle)
        return math.floor(mean + year + half_year + 0.5)


def load_cities(path: Path = ASSETS / "climate.csv") -> list[City]:
    return list(_table(path))


# Read once: whoever asks only for a schema makes a tool too, and question sets do so hundreds of times.
@lru_cache(maxsize=2)
def _table(path: Path) -> tuple[City, ...]:
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(
            City(
                row["city"], row["country"], row["region"], float(row["latitude"]), float(row["longitude"]),
                *(int(row[month]) for month in ("jan", "apr", "jul", "oct")),
                tuple(alias for alias in row["aliases"].split("|") if alias),
            )
            for row in csv.DictReader(file)
        )  # fmt: skip


@lru_cache(maxsize=2)
def _by_name(cities: tuple[City, ...]) -> dict[str, City]:
    return {plain(name): city for city in cities for name in (city.name, *city.aliases)}


def make(
    fetch: Callable[[str, float], dict] | None = None,
    cities: list[City] | None = None,
    today: Callable[[], date] = date.today,
    clock: Callable[[], float] = time.monotonic,
) -> Tool:
    """The tool. `fetch(url, timeout)` returns JSON or raises OSError; without it only the table answers."""
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    weather = Weather(fetch, load_cities() if cities is None else cities, today, clock)
    return Tool(NAME, "Weather in a city", parameters, weather.run)


class Weather:
    """Answers for one owner; remembers for some minutes that the network failed, so that offline stays quick."""

    def __init__(self, fetch, cities: list[City], today=date.today, clock=time.monotonic):
        self._fetch, self._today, self._clock = fetch, today, clock
        self._names = _by_name(tuple(cities))
        self._offline_until = -math.inf

    def run(self, city: str) -> dict:
        known = self._known(city)
        if self._fetch is not None and self._clock() >= self._offline_until:
            try:
                live = self._live(city, known)
            except (OSError, ValueError, KeyError, TypeError, IndexError):
                # No network, or an answer that is not the service's (a hotel's login page).
                self._offline_until = self._clock() + RETRY_AFTER
            else:
                if live is not None:
                    return live
        if known is None:
            raise ToolError(self._unknown(city))
        month = self._today().month
        return {
            "city": known.name,
            "country": known.country,
            "temperature_c": known.typical(month),
            "source": f"offline climate table: typical for {MONTHS[month - 1]}, not today's weather",
        }

    def _known(self, text: str) -> City | None:
        """The table's city for "Paris", "paris, France" or "Portland, OR"; None for "Paris, Texas"."""
        if plain(text) in self._names:
            return self._names[plain(text)]
        name, *rest = [part for part in (plain(part) for part in text.split(",")) if part] or [""]
        city = self._names.get(name)
        if city is None:
            return None
        places = {plain(city.country), plain(city.region)}
        return city if all(_COUNTRIES.get(p, _STATES.get(p, p)) in places for p in rest) else None

    def _unknown(self, city: str) -> str:
        name = plain(city.split(",")[0])
        if name in self._names:
            there = self._names[name]
            return f"The climate table has {there.name} in {there.country}, not {city[:60]!r}."
        close = difflib.get_close_matches(name, self._names, n=3, cutoff=0.7)
        names = list(dict.fromkeys(self._names[match].name for match in close))
        hint = f"did you mean {' or '.join(names)}?" if names else "try a larger city nearby."
        return f"There is no city {city[:60]!r} in the climate table; {hint}"

    def _live(self, text: str, known: City | None) -> dict | None:
        if known is not None:
            name, country, latitude, longitude = known.name, known.country, known.latitude, known.longitude
        else:
            query = urlencode(
                {"name": text[:100].split(",")[0].strip(), "count": 1, "language": "en", "format": "json"}
            )
            results = self._fetch(f"{GEOCODING}?{query}", TIMEOUT).get("results") or []
            if not results or "," in text:  # which of the places of that name is meant is not ours to guess
                return None
            place = results[0]
            name, country = str(place["name"]), str(place.get("country", ""))
            latitude, longitude = float(place["latitude"]), float(place["longitude"])
        query = urlencode(
            {"latitude": latitude, "longitude": longitude, "current": "temperature_2m,weather_code", "timezone": "auto"}
        )
        now = self._fetch(f"{FORECAST}?{query}", TIMEOUT)["current"]
        return {
            "city": name,
            "country": country,
            "temperature_c": math.floor(float(now["temperature_2m"]) + 0.5),
            "conditions": CONDITIONS.get(int(now["weather_code"]), "unknown"),
            "source": f"Open-Meteo, live at {str(now['time'])[-5:]} local time",
        }


def plain(text: str) -> str:
    """Letters and digits only, without accents or case: "São Paulo " and "sao paulo" are one city."""
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().casefold()
    return re.sub(r"[^a-z0-9]+", " ", letters).strip()
