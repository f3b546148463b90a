"""What time it is somewhere, and the days between dates. Time zones are those of the machine's IANA database."""

import difflib
import re
import zoneinfo
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from playground.core.tools import schema
from playground.core.tools.tool import Tool, ToolError
from playground.core.tools.weather import MONTHS, plain

# Places whose zone bears another city's name.
_PLACES = {
    "America/New_York": "boston|washington|washington dc|miami|atlanta|philadelphia|orlando|est|edt|eastern time",
    "America/Chicago": "houston|dallas|austin|new orleans|minneapolis|cst|central time",
    "America/Denver": "salt lake city|albuquerque|mst|mountain time",
    "America/Los_Angeles": "san francisco|seattle|san diego|las vegas|portland|california|pst|pdt|pacific time",
    "America/Toronto": "montreal|ottawa|quebec",
    "America/Sao_Paulo": "rio de janeiro|brasilia",
    "America/Argentina/Buenos_Aires": "argentina",
    "America/Bogota": "colombia",
    "America/Lima": "peru",
    "Europe/Berlin": "munich|hamburg|frankfurt|cologne|germany|cet|cest|bonn|dresden|leipzig|stuttgart",
    "Europe/Paris": "france|lyon|marseille|nice",
    "Europe/London": "england|uk|united kingdom|great britain|scotland|wales|manchester|edinburgh|glasgow|bst",
    "Europe/Madrid": "spain|barcelona|seville|valencia",
    "Europe/Rome": "italy|milan|naples|venice|florence|turin",
    "Europe/Zurich": "switzerland|geneva|bern|basel",
    "Europe/Vienna": "austria|salzburg",
    "Europe/Amsterdam": "netherlands|holland|rotterdam|the hague",
    "Europe/Brussels": "belgium|antwerp",
    "Europe/Warsaw": "poland|krakow|gdansk",
    "Europe/Stockholm": "sweden|gothenburg",
    "Europe/Oslo": "norway|bergen|trondheim",
    "Europe/Copenhagen": "denmark",
    "Europe/Helsinki": "finland",
    "Europe/Athens": "greece",
    "Europe/Lisbon": "portugal|porto",
    "Europe/Dublin": "ireland",
    "Europe/Prague": "czechia|czech republic",
    "Europe/Budapest": "hungary",
    "Europe/Kyiv": "kiev|ukraine",
    "Europe/Moscow": "saint petersburg|st petersburg",
    "Europe/Istanbul": "ankara|turkey|turkiye",
    "Asia/Shanghai": "beijing|china|shenzhen|guangzhou|peking",
    "Asia/Tokyo": "japan|osaka|kyoto",
    "Asia/Seoul": "south korea|korea|busan",
    "Asia/Kolkata": "india|mumbai|delhi|new delhi|bangalore|chennai|ist",
    "Asia/Ho_Chi_Minh": "vietnam|hanoi|saigon",
    "Asia/Bangkok": "thailand",
    "Asia/Manila": "philippines",
    "Asia/Karachi": "pakistan|islamabad|lahore",
    "Asia/Dhaka": "bangladesh",
    "Asia/Kathmandu": "nepal",
    "Asia/Jerusalem": "israel|tel aviv",
    "Asia/Dubai": "united arab emirates|uae|abu dhabi",
    "Asia/Riyadh": "saudi arabia|mecca|jeddah",
    "Asia/Tehran": "iran",
    "Australia/Sydney": "canberra",
    "Pacific/Auckland": "new zealand|wellington",
    "Africa/Cairo": "egypt|alexandria",
    "Africa/Nairobi": "kenya",
    "Africa/Lagos": "nigeria|abuja",
    "Africa/Johannesburg": "south africa|cape town|pretoria",
    "Africa/Casablanca": "morocco|rabat|marrakesh",
    "UTC": "gmt|z|greenwich mean time|zulu",
}
_FORMS = (
    ("%Y-%m-%d", r"\d{4}-\d{1,2}-\d{1,2}"),
    ("%Y/%m/%d", r"\d{4}/\d{1,2}/\d{1,2}"),
    ("%d.%m.%Y", r"\d{1,2}\.\d{1,2}\.\d{4}"),
)
_EXAMPLE = "write it as 2024-03-01 or 1 March 2024"


def make_all(now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> list[Tool]:
    """current_time, date_difference and add_days; `now()` is an aware time."""
    dates = Dates(now)
    return [schema.tool(f) for f in (dates.current_time, dates.date_difference, dates.add_days)]


class Dates:
    def __init__(self, now: Callable[[], datetime]):
        self._now = now

    def current_time(self, place: str) -> dict:
        """Current date and time in a city, country or time zone"""
        zone = find_zone(place)
        here = self._now().astimezone(zoneinfo.ZoneInfo(zone))
        offset = here.strftime("%z")
        return {
            "place": place[:100],
            "time": here.strftime("%H:%M"),
            "date": here.date().isoformat(),
            "weekday": here.strftime("%A"),
            "time_zone": f"{zone} (UTC{offset[:3]}:{offset[3:]})",
        }

    def date_difference(self, start: str, end: str) -> dict:
        """Count the days between two dates"""
        first, last = self._date(start), self._date(end)
        days = (last - first).days
        weeks, rest = divmod(abs(days), 7)
        return {
            "start": f"{first:%A}, {first.isoformat()}",
            "end": f"{last:%A}, {last.isoformat()}",
            "days": days,
            "in_weeks": f"{weeks} week{'s' * (weeks != 1)} and {rest} day{'s' * (rest != 1)}",
        }

    def add_days(self, start: str, days: int) -> dict:
        """Find the date a number of days after a date; negative is before"""
        first = self._date(start)
        try:
            result = first + timedelta(days=int(days))
        except OverflowError:
            raise ToolError(f"{days} days from {first.isoformat()} is outside of the years 1 to 9999.") from None
        return {"start": first.isoformat(), "days": days, "date": result.isoformat(), "weekday": f"{result:%A}"}

    def _date(self, text: str) -> date:
        today = self._now().date()
        words = " ".join(str(text)[:60].split())
        near = {"today": 0, "now": 0, "tomorrow": 1, "yesterday": -1}
        if words.casefold() in near:
            return today + timedelta(days=near[words.casefold()])
        try:
            return _read_date(words)
        except ValueError as error:
            raise ToolError(f"{words[:40]!r} is not a date: {error or 'it cannot be read'}; {_EXAMPLE}.") from None


def _read_date(text: str) -> date:
    for form, pattern in _FORMS:
        if re.fullmatch(pattern, text):
            return datetime.strptime(text, form).date()
    if re.fullmatch(r"\d{4}-\d\d-\d\d[T ].{1,20}", text):
        return date.fromisoformat(text[:10])
    if re.fullmatch(r"\d{1,2}/\d{1,2}/\d{2,4}", text):
        raise ValueError("day and month could be either way round")
    words = re.sub(r"(?<=\d)(st|nd|rd|th)\b|,|\bof\b", " ", text.casefold()).split()
    months = {name[:n].casefold(): number for number, name in enumerate(MONTHS, 1) for n in (3, len(name))}
    months["sept"] = 9
    named = [word.strip(".") for word in words if word.strip(".") in months]
    numbers = [int(word) for word in words if word.isascii() and word.isdigit()]
    if len(words) != 3 or len(named) != 1 or len(numbers) != 2 or (words[0].isdigit() and len(words[0]) > 2):
        raise ValueError("day, month and year are needed")
    day, year = numbers
    return date(year, months[named[0]], day)


@lru_cache(maxsize=1)
def _zones() -> dict[str, str]:
    """Plain name → zone: "paris", "europe paris", "germany"."""
    zones: dict[str, str] = {}
    for zone in sorted(zoneinfo.available_timezones()):
        if zone.split("/")[0] in ("Etc", "SystemV", "posix", "right", "US", "Factory", "localtime"):
            continue
        zones[plain(zone)] = zone
        if "/" in zone:
            zones.setdefault(plain(zone.split("/")[-1]), zone)
    for zone, places in _PLACES.items():
        zones.update(dict.fromkeys(places.split("|"), zone))
    return zones


def find_zone(text: str) -> str:
    """The IANA name of a place's time zone: "Tokyo", "Asia/Tokyo", "Paris, France", "UTC", "UTC+2"."""
    zones = _zones()
    offset = re.fullmatch(r"(?:UTC|GMT)\s*([+−-])\s*(\d{1,2})(?::00)?", str(text).strip().upper())
    if offset and int(offset[2]) <= 12:
        sign = "-" if offset[1] == "+" else "+"  # the database's signs are the other way round
        return f"Etc/GMT{sign}{int(offset[2])}" if int(offset[2]) else "UTC"
    for name in (plain(text), plain(str(text).split(",")[0])):
        if name in zones:
            return zones[name]
    close = difflib.get_close_matches(plain(text), zones, n=3, cutoff=0.75)
    hint = f"did you mean {' or '.join(zones[c] for c in close)}?" if close else "try a large city or Europe/Paris."
    raise ToolError(f"There is no time zone for {str(text)[:60]!r}; {hint}")
