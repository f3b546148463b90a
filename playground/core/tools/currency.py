"""Currencies: today's reference rates when a way to the network is given, else a table of one day.

The table (assets/data/currencies.json) holds the European Central Bank's euro reference rates of the day it names;
live, the same bank's come from https://frankfurter.dev. Every answer says which of the two and of what day.
"""

import difflib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

from playground.config import ASSETS
from playground.core.tools import schema
from playground.core.tools.live import Live
from playground.core.tools.tool import Tool, ToolError
from playground.core.tools.units import finite, rounded

NAME = "convert_currency"
LATEST = "https://api.frankfurter.dev/v1/latest"
TABLE = ASSETS / "data" / "currencies.json"


def make(
    fetch: Callable[[str, float], dict] | None = None,
    path: Path = TABLE,
    clock: Callable[[], float] = time.monotonic,
) -> Tool:
    """The tool. `fetch(url, timeout)` returns JSON or raises OSError; without it only the table answers."""
    table = json.loads(path.read_text(encoding="utf-8"))
    return schema.tool(Currency(Live(fetch, clock), table).convert_currency)


class Currency:
    def __init__(self, live: Live, table: dict):
        self._live, self._table = live, table
        self._names = {}
        for code, entry in table["currencies"].items():
            for name in (code, *entry["names"]):
                for form in (name, f"{name}s"):
                    self._names.setdefault(_key(form), code)

    def convert_currency(self, amount: float, from_currency: str, to_currency: str) -> dict:
        """Convert an amount of money from one currency to another"""
        amount = finite(amount, "amount")
        source, target = self._code(from_currency), self._code(to_currency)
        rate, said = self._rate(source, target)
        return {
            "amount": rounded(amount, 15),
            "from": source,
            "to": target,
            "result": round(rounded(amount * rate, 12), 2 if abs(amount * rate) >= 1 else 6),
            "rate": rounded(rate, 6),
            "source": said,
        }

    def _rate(self, source: str, target: str) -> tuple[float, str]:
        if source != target:
            url = f"{LATEST}?{urlencode({'base': source, 'symbols': target})}"
            live = self._live.ask(url, lambda answer: (_positive(answer["rates"][target]), str(answer["date"])[:10]))
            if live is not None:
                return live[0], f"live: European Central Bank's rates of {live[1]}, by frankfurter.dev"
        rates = self._table["currencies"]
        rate = rates[target]["per_euro"] / rates[source]["per_euro"]
        return rate, f"offline table: European Central Bank's rates of {self._table['date']}, not today's"

    def _code(self, text: str) -> str:
        code = self._names.get(_key(text))
        if code:
            return code
        close = difflib.get_close_matches(_key(text), self._names, n=3, cutoff=0.75)
        codes = list(dict.fromkeys(self._names[match] for match in close))
        hint = f"did you mean {' or '.join(codes)}?" if codes else f"there are {', '.join(self._table['currencies'])}."
        raise ToolError(f"There is no currency {str(text)[:40]!r} in the table; {hint}")


def _key(text: str) -> str:
    return " ".join(str(text).casefold().split())


def _positive(rate) -> float:
    if not 0 < float(rate) < math.inf:
        raise ValueError(f"no rate: {rate}")
    return float(rate)
