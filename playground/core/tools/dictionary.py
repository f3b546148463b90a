"""A small dictionary of English (assets/data/dictionary.json), written for this app."""

import difflib
import json
from pathlib import Path

from playground.config import ASSETS
from playground.core.tools import schema
from playground.core.tools.tool import Tool, ToolError

NAME = "define_word"
WORDS = ASSETS / "data" / "dictionary.json"
_ENDINGS = (("ies", "y"), ("es", ""), ("s", ""), ("ing", ""), ("ing", "e"), ("ed", ""), ("ed", "e"), ("ly", ""))


def make(path: Path = WORDS) -> Tool:
    return schema.tool(Dictionary(json.loads(path.read_text(encoding="utf-8"))).define_word)


class Dictionary:
    def __init__(self, words: dict[str, list[str]]):
        self._words = words  # word → [part of speech, meaning]

    def define_word(self, word: str) -> dict:
        """Look up what an English word means"""
        asked = " ".join(str(word).casefold().split()).strip(".,!?\"'")
        entry = next((form for form in _forms(asked) if form in self._words), None)
        if entry is None:
            close = difflib.get_close_matches(asked, self._words, n=3, cutoff=0.75)
            hint = f"did you mean {' or '.join(close)}?" if close else f"it has {len(self._words)} common words."
            raise ToolError(f"The small dictionary does not have {str(word)[:40]!r}; {hint}")
        part, meaning = self._words[entry]
        return {"word": entry, "part_of_speech": part, "meaning": meaning, "source": "offline dictionary of this app"}


def _forms(word: str) -> list[str]:
    """The word, then what it may be an ending of: "libraries" → "library"."""
    stems = [word[: -len(end)] + new for end, new in _ENDINGS if word.endswith(end) and len(word) > len(end) + 2]
    return [word, *stems, *(stem[:-1] for stem in stems if len(stem) > 3 and stem[-1] == stem[-2])]
