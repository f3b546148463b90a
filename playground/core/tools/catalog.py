"""All tools of the app by name, with what a page says about each."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from playground.core.tools import calculator, currency, custom, dates, dictionary, encyclopedia, plot, units, weather
from playground.core.tools.tool import Tool
from playground.errors import PlaygroundError

PYTHON = "python"
Fetch = Callable[[str, float], dict]


class PythonRunner(Protocol):
    """Where code runs (playground.services.python_tool.Python)."""

    def tool(self) -> Tool: ...

    def call(self, source: str, name: str, arguments: dict) -> dict: ...


@dataclass(frozen=True)
class Entry:
    """What a reader should know of a tool before it is switched on."""

    name: str
    title: str
    description: str
    default: bool  # on without being asked for
    network: str  # "never", or what is live when there is one
    risk: str  # what can go wrong
    make: Callable[[Fetch | None, PythonRunner | None], Tool]


def _dates(number: int) -> Callable[[Fetch | None, PythonRunner | None], Tool]:
    return lambda fetch, python: dates.make_all()[number]


def _python(fetch: Fetch | None, python: PythonRunner | None) -> Tool:
    if python is None:
        raise PlaygroundError("the Python tool is off on this server")
    return python.tool()


_NEVER = "never"
_ENTRIES = (
    Entry(
        calculator.NAME, "Calculator", "Arithmetic, exact where it can be: + - * / ** and roots.",
        True, _NEVER, "Refuses words, variables and results of more than 100 digits.",
        lambda fetch, python: calculator.make(),
    ),
    Entry(
        weather.NAME, "Weather", "The weather in a city.",
        True, "today's weather from Open-Meteo; without it a climate table",
        "Offline it knows some 200 cities, and only what a month is usually like.",
        lambda fetch, python: weather.make(fetch),
    ),
    Entry(
        units.NAME, "Units", "Length, mass, volume, temperature, speed, time, area and data.",
        False, _NEVER, "Refuses units of two kinds, and a bare “ton”, which is three.",
        lambda fetch, python: units.make(),
    ),
    Entry(
        currency.NAME, "Currency", "An amount of money in another currency.",
        False, "the day's rates of the European Central Bank; without it a table of one day",
        "Offline the rates are those of the date that the result names.",
        lambda fetch, python: currency.make(fetch),
    ),
    Entry(
        "current_time", "Time", "Date and time in a city or time zone.",
        False, _NEVER, "Knows large cities and countries of one time zone; depends on this machine's clock.", _dates(0),
    ),
    Entry(
        "date_difference", "Days between dates", "How many days lie between two dates.",
        False, _NEVER, "Refuses 03/04/2024, which is two dates.", _dates(1),
    ),
    Entry(
        "add_days", "Add days", "The date a number of days before or after another.",
        False, _NEVER, "Refuses 03/04/2024, which is two dates.", _dates(2),
    ),
    Entry(
        dictionary.NAME, "Dictionary", "What a word means.",
        False, _NEVER, "Has some 180 English words.", lambda fetch, python: dictionary.make(),
    ),
    Entry(
        encyclopedia.NAME, "Search", "Facts from an encyclopedia.",
        False, "Wikipedia; without it some 180 short articles of this app",
        "Anybody can write in Wikipedia: a text there may speak to the model.",
        lambda fetch, python: encyclopedia.make(fetch),
    ),
    Entry(
        "plot", "Plot", "A picture of a function of x.",
        False, _NEVER, "The model is told the lowest and the highest value, it does not see the picture.",
        lambda fetch, python: plot.make_line(),
    ),
    Entry(
        "plot_points", "Bar chart", "A picture of given values.",
        False, _NEVER, "At most 40 bars.", lambda fetch, python: plot.make_bars(),
    ),
    Entry(
        PYTHON, "Python", "Runs Python code in a process without network, files or secrets.",
        False, _NEVER, "A hole in the kernel would be a way out: off on public servers. Standard library only.",
        _python,
    ),
)  # fmt: skip


def catalog(python: bool = True) -> list[Entry]:
    """The entries in the order of the page; without the Python tool where it is off."""
    return [entry for entry in _ENTRIES if python or entry.name != PYTHON]


def make_tools(
    names: Iterable[str],
    fetch: Fetch | None = None,
    python: PythonRunner | None = None,
    extra: Iterable[Tool] = (),
) -> list[Tool]:
    """Fresh tools by name, then `extra` ones (a visitor's, an MCP server's, a lane), as `toolloop.run` takes them."""
    entries = {entry.name: entry for entry in _ENTRIES}
    names = list(dict.fromkeys(names))
    unknown = [name for name in names if name not in entries]
    if unknown:
        raise PlaygroundError(f"there is no tool named {unknown[0]!r}; there are {', '.join(entries)}")
    tools, left_out = custom.fitting([*(entries[name].make(fetch, python) for name in names), *extra])
    if left_out:
        raise PlaygroundError(left_out)
    return tools
