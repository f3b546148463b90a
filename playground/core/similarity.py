"""Near-duplicate texts: MinHash of 8-byte shingles, banded, every pair that it proposes checked exactly.

One-permutation hashing (Li, Owen, Zhang 2012) with empty bins filled from their neighbour (Shrivastava, Li 2014):
one pass over the bytes for all 64 values, in numpy. `datasketch` takes about 100 µs a row, this about 5, and the
report has to keep up with a tokenizer that needs 60.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy

SHINGLE = 8  # bytes: one unsigned 64-bit word
BINS = 64
BANDS, PER_BAND = 12, 5  # a pair of similarity 0.8 shares a band with probability 0.99, one of 0.4 with 0.12
THRESHOLD = 0.8
_SEPARATOR = b"\xff" * (SHINGLE - 1)  # no UTF-8 text holds this byte
_FOLD = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ\t\n\v\f\r", b"abcdefghijklmnopqrstuvwxyz     ")
_AT_ONCE = 16_384  # bytes: what is made of so many stays in the processor's cache
_EMPTY = numpy.uint32(0xFFFFFFFF)


def signatures(texts: Sequence[str]) -> numpy.ndarray:
    """[texts, BINS] values; two texts agree in a bin about as often as their shingles overlap (Jaccard)."""
    data, parts = [_bytes(text) for text in texts], [numpy.zeros((0, BINS), numpy.uint32)]
    first, size = 0, 0
    for last, row in enumerate(data, 1):
        size += len(row)
        if size > _AT_ONCE or last == len(data):
            parts.append(_signatures(data[first:last]))
            first, size = last, 0
    return numpy.concatenate(parts)


def _signatures(data: list[bytes]) -> numpy.ndarray:
    joined = numpy.frombuffer(_SEPARATOR.join([*data, b""]), numpy.uint8)
    lengths = numpy.fromiter(map(len, data), numpy.int64, len(data))
    at = numpy.arange(lengths.sum()) + numpy.repeat(numpy.arange(len(data)) * len(_SEPARATOR), lengths)
    mixed = _words(joined)[at] * numpy.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> numpy.uint64(32))) * numpy.uint64(0xD6E8FEB86659FD93)
    cells = numpy.repeat(numpy.arange(len(data)) * BINS, lengths) + (mixed >> numpy.uint64(58)).astype(numpy.int64)
    values = numpy.full(len(data) * BINS, _EMPTY)
    numpy.minimum.at(values, cells, (mixed >> numpy.uint64(26)).astype(numpy.uint32))
    return _filled(values.reshape(len(data), BINS))


def groups(texts: Sequence[str], values: numpy.ndarray, threshold: float = THRESHOLD) -> list[list[int]]:
    """Numbers of texts that are near-duplicates of one another, in order; a text without one is in no group.

    `values` are the texts' `signatures`. A text joins a group when it is at least `threshold` similar to one of it;
    empty texts join none.
    """
    firsts: dict[bytes, int] = {}
    parent = [firsts.setdefault(_bytes(text), i) if text else i for i, text in enumerate(texts)]

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    shingles = lru_cache(maxsize=8192)(lambda i: _shingles(texts[i]))
    for a, b in _candidates(values, [i for i in firsts.values() if texts[i]], threshold):
        first, second = root(a), root(b)
        if first != second and _overlap(shingles(a), shingles(b)) >= threshold:
            parent[max(first, second)] = min(first, second)
    found: dict[int, list[int]] = {}
    for i in range(len(texts)):
        found.setdefault(root(i), []).append(i)
    return [group for group in found.values() if len(group) > 1]


def similarity(a: str, b: str) -> float:
    """Jaccard similarity of the texts' shingles: shared ones ÷ all. Case and kind of white space do not count."""
    return _overlap(_shingles(a), _shingles(b))


def _overlap(first: numpy.ndarray, second: numpy.ndarray) -> float:
    if not len(first) or not len(second):
        return float(len(first) == len(second))
    at = numpy.searchsorted(first, second)
    at[at == len(first)] = 0
    shared = numpy.count_nonzero(first[at] == second)
    return shared / (len(first) + len(second) - shared)


def _candidates(values: numpy.ndarray, rows: list[int], threshold: float) -> list[tuple[int, int]]:
    """Pairs that share a band and agree in enough bins.

    Many texts may share a band where rows are made from one pattern. They are sorted by their next band, which brings
    the likeliest together, and each is paired with its neighbour only: no band gives more pairs than there are texts.
    """
    rows = numpy.array(rows, int)
    keys = numpy.zeros((BANDS, len(rows)), numpy.uint64)
    for column in range(PER_BAND):
        keys = (keys ^ values[rows, column : BANDS * PER_BAND : PER_BAND].T) * numpy.uint64(0x9E3779B97F4A7C15)
    pairs = []
    for key, following in zip(keys, numpy.roll(keys, -1, axis=0), strict=True):
        order = numpy.lexsort((following, key))
        same = numpy.flatnonzero(key[order[1:]] == key[order[:-1]])
        one, other = rows[order[same]], rows[order[same + 1]]
        pairs.append(numpy.minimum(one, other) * len(values) + numpy.maximum(one, other))
    first, second = numpy.divmod(numpy.unique(numpy.concatenate(pairs)), max(len(values), 1))
    alike = (values[first] == values[second]).mean(axis=1)
    # 64 bins estimate a similarity of 0.8 to within 0.05 (one standard deviation)
    close = alike >= threshold - 0.1
    return list(zip(first[close].tolist(), second[close].tolist(), strict=True))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass").translate(_FOLD)


def _words(data: numpy.ndarray) -> numpy.ndarray:
    """Every 8 consecutive bytes as one number; they overlap, nothing is copied."""
    return numpy.ndarray(max(len(data) - SHINGLE + 1, 0), numpy.dtype("<u8"), data, strides=(1,))


def _shingles(text: str) -> numpy.ndarray:
    """The text's shingles, each once, in order."""
    words = numpy.sort(_words(numpy.frombuffer(_bytes(text) + _SEPARATOR, numpy.uint8)))
    return words[numpy.append(True, words[1:] != words[:-1])] if len(words) else words


def _filled(values: numpy.ndarray) -> numpy.ndarray:
    """Empty bins take the value of the next one that is not."""
    short = numpy.flatnonzero((values == _EMPTY).any(axis=1) & (values != _EMPTY).any(axis=1))
    part = values[short]
    here = numpy.where(part == _EMPTY, 2 * BINS, numpy.arange(BINS))
    twice = numpy.concatenate([here, here + BINS], axis=1)
    nearest = numpy.minimum.accumulate(twice[:, ::-1], axis=1)[:, ::-1][:, :BINS] % BINS
    values[short] = numpy.take_along_axis(part, nearest, axis=1)
    return values
