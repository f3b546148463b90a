"""Search: Wikipedia when a way to the network is given, else a small encyclopedia of our own, by BM25.

The small one (assets/data/encyclopedia.json) was written for this app: some 180 articles of one to three sentences.
Every answer says which of the two it is from.
"""

import html
import json
import math
import re
import time
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote, urlencode

from playground.config import ASSETS
from playground.core.tools import schema
from playground.core.tools.live import Live
from playground.core.tools.tool import Tool, ToolError
from playground.core.tools.weather import plain

NAME = "search"
WIKIPEDIA = "https://en.wikipedia.org/w/api.php"
ARTICLES = ASSETS / "data" / "encyclopedia.json"
RESULTS = 3
LONGEST = 700  # characters of one result's text
LONGEST_QUERY = 200
_EMPTY_WORDS = (
    "a an the of in on at to for and or is are was were be been do does did who what when where which why how many"
    " much long far tall high big large old it its there from by with about tell me i you can called name s"
)
_EMPTY = frozenset(_EMPTY_WORDS.split())


def make(
    fetch: Callable[[str, float], dict] | None = None,
    path: Path = ARTICLES,
    clock: Callable[[], float] = time.monotonic,
) -> Tool:
    """The tool. `fetch(url, timeout)` returns JSON or raises OSError; without it only our own articles answer."""
    return schema.tool(Search(Live(fetch, clock), _index(path)).search)


@lru_cache(maxsize=2)
def _index(path: Path) -> "Index":
    """Made once: the tool is made for its schema alone, too."""
    return Index(json.loads(path.read_text(encoding="utf-8")))


class Search:
    def __init__(self, live: Live, index: "Index"):
        self._live, self._index = live, index

    def search(self, query: str) -> dict:
        """Search an encyclopedia for facts"""
        query = " ".join(str(query).encode("utf-8", "replace").decode().split())
        if not query:
            raise ToolError("The query is empty; name what should be looked up.")
        if len(query) > LONGEST_QUERY:
            raise ToolError(f"The query has {len(query):,} characters, at most {LONGEST_QUERY} are allowed.")
        found = self._live.ask(_url(query), _pages)
        if found:
            return {"source": "Wikipedia, live", "results": found}
        found = [{"title": a["title"], "text": a["text"]} for a in self._index.best(query, RESULTS)]
        if not found:
            raise ToolError(f"The offline mini-encyclopedia has nothing on {query[:60]!r}; try one or two plain words.")
        return {"source": "offline mini-encyclopedia of this app", "results": found}


def _url(query: str) -> str:
    return f"{WIKIPEDIA}?" + urlencode(
        {
            "action": "query", "format": "json", "formatversion": 2, "generator": "search", "gsrsearch": query,
            "gsrlimit": RESULTS, "prop": "extracts", "exintro": 1, "explaintext": 1, "exlimit": RESULTS,
        }
    )  # fmt: skip


def _pages(answer: dict) -> list[dict]:
    """[] where Wikipedia has nothing; an error where the answer is not Wikipedia's."""
    if "query" not in answer and "batchcomplete" not in answer:
        raise ValueError("not an answer of the search")
    pages = sorted((answer.get("query") or {}).get("pages", []), key=lambda page: page.get("index", 0))
    return [
        {
            "title": page["title"],
            "text": shortened(page.get("extract", "")),
            "url": f"https://en.wikipedia.org/wiki/{quote(page['title'].replace(' ', '_'))}",
        }
        for page in pages
        if page.get("extract", "").strip()
    ]


def shortened(text: str, longest: int = LONGEST) -> str:
    """Whole sentences up to `longest` characters."""
    text = " ".join(html.unescape(text).split())
    if len(text) <= longest:
        return text
    end = text.rfind(". ", 0, longest)
    return text[: end + 1] if end > 0 else f"{text[: longest - 1]}…"


class Index:
    """BM25 (Robertson and Zaragoza 2009) over title, counted three times, and text; twice that where the query is
    the title."""

    def __init__(self, articles: list[dict], k1: float = 1.2, b: float = 0.75):
        self.articles = articles
        self._titles = [set(words(a["title"])) for a in articles]
        self._counts = [Counter(words(a["title"]) * 3 + words(a["text"])) for a in articles]
        lengths = [sum(count.values()) for count in self._counts]
        mean = sum(lengths) / max(1, len(lengths))
        self._norms = [k1 * (1 - b + b * length / mean) for length in lengths]
        documents = Counter(word for count in self._counts for word in count)
        n = len(articles)
        self._weights = {word: (k1 + 1) * math.log(1 + (n - df + 0.5) / (df + 0.5)) for word, df in documents.items()}

    def best(self, query: str, most: int) -> list[dict]:
        """Up to `most` articles that share a word with the query and score at least a third of the best one."""
        asked = set(words(query))
        scores = []
        for number, (count, norm) in enumerate(zip(self._counts, self._norms, strict=True)):
            score = sum(self._weights[w] * count[w] / (count[w] + norm) for w in asked if w in count)
            if score > 0:
                scores.append((-score * (1 + (asked == self._titles[number])), number))
        scores.sort()
        return [self.articles[number] for score, number in scores[:most] if -score >= -scores[0][0] / 3]


def words(text: str) -> list[str]:
    """Plain words without the empty ones and without a plural's s."""
    found = [word for word in re.split(r"\W+", plain(text)) if word and word not in _EMPTY]
    return [word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in found]
