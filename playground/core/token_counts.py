"""How many tokens many texts have and which are trained, quicker than by each token's offsets.

With a byte-level vocabulary the pieces of a text tile its bytes, so their lengths say where each token stands; asking
the tokenizer for offsets costs a third more. That they tile is not assumed: the first texts are done both ways, and a
text whose pieces do not add up to it is done the long way.

Many rows of a data set open with the same system message and the same tools. Such an opening ends with a special
token, on which every tokenizer cuts, so its tokens are counted once, and only what follows is encoded for each row.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy

from playground.core.templates import Text, token_ranges
from playground.core.tokenizer import Tokenizer

PROVEN = 64  # texts on which the pieces must give the tokenizer's own offsets
AT_ONCE = 64  # texts counted together: what is made of so many stays in the processor's cache
OPENING = 200  # characters that two texts must share for their opening to be counted once
OPENINGS = 16  # kept; each text is compared with all of them


class Count(NamedTuple):
    tokens: int
    trained: int
    first_trained: int  # place of the first trained token; -1 where there is none


class Encoded(NamedTuple):
    """A text after its opening, with the ranges counted from there, and the opening's tokens."""

    text: Text
    before: int
    encoding: object | None  # None where no tokenizer can read the text (half of a surrogate pair)


class TokenCounts:
    """`encode` is the tokenizer's part, nearly without Python; `count` reads what it gave."""

    def __init__(self, tokenizer: Tokenizer):
        self._backend = tokenizer.backend
        self._openings: dict[str, int] = {}  # opening -> its tokens
        self._last = ""
        # A token that takes the white space behind it does not end where it seems to.
        ends = [t.content for t in tokenizer.backend.get_added_tokens_decoder().values() if t.special and not t.rstrip]
        longest_first = sorted(ends, key=len, reverse=True)
        self._ends = re.compile("|".join(map(re.escape, longest_first))) if ends else None
        self._added = set(tokenizer.added_tokens)
        self._bytes = numpy.full(tokenizer.size, -1)  # of each piece, as far as it has come up
        self._tiles: bool | None = None  # None until it is known

    def encode(self, texts: list[Text]) -> list[Encoded]:
        parts = [self._after_opening(text) if self._tiles else (text, 0) for text in texts]
        return [Encoded(*part, encoding) for part, encoding in zip(parts, self._encodings(parts), strict=True)]

    def count(self, encoded: list[Encoded]) -> list[Count | None]:
        """A Count for each text, None where it has no encoding."""
        if self._tiles is None:
            self._tiles = all(map(self._tiled, encoded[:PROVEN]))
        if not self._tiles:
            return [_by_offsets(text, encoding) for text, _, encoding in encoded]
        slices = [slice(start, start + AT_ONCE) for start in range(0, len(encoded), AT_ONCE)]
        return [count for part in slices for count in self._counts(encoded[part])]

    def _encodings(self, parts: list[tuple[Text, int]]) -> list:
        batch = self._backend.encode_batch_fast if self._tiles else self._backend.encode_batch
        texts = [text.text for text, _ in parts]
        try:
            return batch(texts, add_special_tokens=False)
        except TypeError:
            readable = iter(batch([text for text in texts if not _broken(text)], add_special_tokens=False))
            return [None if _broken(text) else next(readable) for text in texts]

    def _after_opening(self, text: Text) -> tuple[Text, int]:
        opening = next((opening for opening in self._openings if text.text.startswith(opening)), None)
        opening = opening or self._learn(text.text)
        size = len(opening)
        if not size or any(start < size for start, _ in text.ranges):
            return text, 0
        ranges = [(start - size, end - size) for start, end in text.ranges]
        return text._replace(text=text.text[size:], ranges=ranges), self._openings[opening]

    def _learn(self, text: str) -> str:
        """What this text and the one before open with, up to a special token; empty where that is little."""
        last, self._last = self._last, text
        if text[:OPENING] != last[:OPENING] or self._ends is None or len(self._openings) == OPENINGS or _broken(text):
            return ""
        shared = next(
            (i for i, (a, b) in enumerate(zip(text, last, strict=False)) if a != b), min(len(text), len(last))
        )
        end = max((match.end() for match in self._ends.finditer(text, 0, shared)), default=0)
        parts = (text, text[:end], text[end:])
        whole, first, rest = (self._backend.encode(part, add_special_tokens=False).ids for part in parts)
        if end < OPENING or whole != first + rest:
            return ""
        self._openings[text[:end]] = len(first)
        return text[:end]

    def _counts(self, encoded: list[Encoded]) -> list[Count | None]:
        texts, befores, encodings = zip(*encoded, strict=True)
        counts = self._by_pieces(texts, encodings)
        if not any(befores):
            return counts
        return [_later(count, before) if before else count for count, before in zip(counts, befores, strict=True)]

    def _by_pieces(self, texts: Sequence[Text], encodings: Sequence) -> list[Count | None]:
        ids = list(map(_ids, encodings))
        ends = numpy.cumsum(self._lengths(chain.from_iterable(ids)))
        firsts = numpy.append(0, numpy.cumsum([len(row) for row in ids], dtype=int))
        bases = numpy.append(0, ends)[firsts].tolist()  # bytes before each text
        asked = [sorted({c for start, end in text.ranges for c in (start, end - 1) if c >= 0}) for text in texts]
        places = [base + _byte(text.text, c) for text, base, row in zip(texts, bases, asked, strict=False) for c in row]
        found = iter(numpy.searchsorted(ends, places, side="right").tolist())
        counts = []
        for number, (text, encoding, first) in enumerate(zip(texts, encodings, firsts.tolist(), strict=False)):
            tokens = {character: next(found) - first for character in asked[number]}
            if encoding is not None and bases[number + 1] - bases[number] == _byte(text.text, len(text.text)):
                counts.append(_count(text, len(encoding), tokens.get))
            else:
                again = encoding and self._backend.encode(text.text, add_special_tokens=False)
                counts.append(_by_offsets(text, again))
        return counts

    def _lengths(self, ids: Iterable[int]) -> numpy.ndarray:
        """The bytes of each piece."""
        ids = numpy.fromiter(ids, numpy.int64)
        for token in numpy.unique(ids[self._bytes[ids] < 0]).tolist():
            piece = self._backend.id_to_token(token) or ""
            self._bytes[token] = len(piece.encode()) if piece in self._added else len(piece)
        return self._bytes[ids]

    def _tiled(self, encoded: Encoded) -> bool:
        """Whether the pieces, one byte a letter, give the offsets that the tokenizer gives."""
        text, _, encoding = encoded
        if encoding is None:
            return True
        ends = numpy.cumsum(self._lengths(encoding.ids)).tolist()
        characters = [i for i, character in enumerate(text.text) for _ in character.encode()]
        if (ends or [0])[-1] != len(characters):
            return False
        starts = [0, *ends]
        return encoding.offsets == [(characters[a], characters[b - 1] + 1) for a, b in zip(starts, ends, strict=False)]


def _later(count: Count | None, before: int) -> Count | None:
    """The count with the tokens of an opening, in which nothing is trained."""
    if count is None:
        return None
    first = count.first_trained
    return Count(count.tokens + before, count.trained, first + before if first >= 0 else first)


def _ids(encoding) -> list[int]:
    return encoding.ids if encoding is not None else []


def _by_offsets(text: Text, encoding) -> Count | None:
    if encoding is None:
        return None
    return _count(text, len(encoding), lambda character: encoding.char_to_token(character) if character >= 0 else None)


def _count(text: Text, tokens: int, token_at: Callable[[int], int | None]) -> Count:
    trained, upto, first = 0, 0, -1

    def inside(character: int) -> int | None:
        token = token_at(character)
        return token if token is not None and token < tokens else None

    for begin, end in token_ranges(text.ranges, tokens, inside):
        first = begin if first < 0 else min(first, begin)
        trained += max(0, end - max(begin, upto))  # two ranges may meet in one token
        upto = max(upto, end)
    return Count(tokens, trained, first if trained else -1)


def _byte(text: str, character: int) -> int:
    """Bytes before a character."""
    return character if text.isascii() else len(text[:character].encode("utf-8", "surrogatepass"))


def _broken(text: str) -> bool:
    return bool(re.search("[\ud800-\udfff]", text))
