"""How many tokens many texts have and which are trained, quicker than by each token's offsets.

With a byte-level vocabulary the pieces of a text tile its bytes, so their lengths say where each token stands; asking
the tokenizer for offsets costs a third more. That they tile is not assumed: the first texts are done both ways, and a
text whose pieces do not add up to it is done the long way.
"""

import re
from collections.abc import Callable, Iterable
from itertools import chain
from typing import NamedTuple

import numpy

from playground.core.templates import Text, token_ranges
from playground.core.tokenizer import Tokenizer

PROVEN = 64  # texts on which the pieces must give the tokenizer's own offsets
AT_ONCE = 64  # texts counted together: what is made of so many stays in the processor's cache


class Count(NamedTuple):
    tokens: int
    trained: int
    first_trained: int  # place of the first trained token; -1 where there is none


class TokenCounts:
    """`encode` is the tokenizer's part, which runs no Python; `count` reads what it gave."""

    def __init__(self, tokenizer: Tokenizer):
        self._backend = tokenizer.backend
        self._added = set(tokenizer.added_tokens)
        self._bytes = numpy.full(tokenizer.size, -1)  # of each piece, as far as it has come up
        self._tiles: bool | None = None  # None until it is known

    def encode(self, texts: list[str]) -> list:
        """An Encoding per text, or None where no tokenizer can read it (half of a surrogate pair)."""
        batch = self._backend.encode_batch_fast if self._tiles else self._backend.encode_batch
        try:
            return batch(texts, add_special_tokens=False)
        except TypeError:
            readable = iter(batch([text for text in texts if not _broken(text)], add_special_tokens=False))
            return [None if _broken(text) else next(readable) for text in texts]

    def count(self, texts: list[Text], encodings: list) -> list[Count | None]:
        """A Count for each of the texts that were encoded, None where `encode` gave none."""
        if self._tiles is None:
            self._tiles = all(map(self._tiled, texts[:PROVEN], encodings))
        if not self._tiles:
            return list(map(_by_offsets, texts, encodings))
        slices = [slice(start, start + AT_ONCE) for start in range(0, len(texts), AT_ONCE)]
        return [count for part in slices for count in self._by_pieces(texts[part], encodings[part])]

    def _by_pieces(self, texts: list[Text], encodings: list) -> list[Count | None]:
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

    def _tiled(self, text: Text, encoding) -> bool:
        """Whether the pieces, one byte a letter, give the offsets that the tokenizer gives."""
        if encoding is None:
            return True
        ends = numpy.cumsum(self._lengths(encoding.ids)).tolist()
        characters = [i for i, character in enumerate(text.text) for _ in character.encode()]
        if (ends or [0])[-1] != len(characters):
            return False
        starts = [0, *ends]
        return encoding.offsets == [(characters[a], characters[b - 1] + 1) for a, b in zip(starts, ends, strict=False)]


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
