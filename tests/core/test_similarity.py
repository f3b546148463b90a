import random

import numpy
import pytest

from playground.core import similarity
from playground.core.similarity import BINS, groups, signatures

WORDS = [
    "the",
    "sea",
    "is",
    "blue",
    "and",
    "the",
    "fox",
    "wants",
    "to",
    "see",
    "it",
    "before",
    "the",
    "sun",
    "goes",
    "down",
    "behind",
    "the",
    "hills",
    "of",
    "the",
    "old",
    "town",
]


def sentence(seed, length=40):
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def found(texts, threshold=similarity.THRESHOLD):
    return groups(texts, signatures(texts), threshold)


@pytest.mark.parametrize(
    "a, b, expected",
    [
        ("abcdefgh", "abcdefgh", 1.0),
        ("abcdefgh", "ABCDEFGH", 1.0),  # case does not count
        ("a b\tc\nd", "a b c d", 1.0),  # nor the kind of white space
        ("aaaa", "bbbb", 0.0),
        ("", "", 1.0),
        ("", "a", 0.0),
        ("abcdefghij", "abcdefghiX", 2 / 18),  # of 10 shingles each, the two that do not hold the last letter
    ],
)
def test_similarity(a, b, expected):
    assert similarity.similarity(a, b) == pytest.approx(expected)


def test_groups():
    long = sentence(1)
    texts = [long, sentence(2), long.replace("fox", "dog", 1), "", "", sentence(3), sentence(3).upper(), long]
    assert found(texts) == [[0, 2, 7], [5, 6]]
    assert found([]) == []
    assert found(["", ""]) == []  # nothing is alike where nothing is said
    assert found(["a", "b", "a"]) == [[0, 2]]


def test_the_threshold_is_exact():
    """A pair above it is found and one below it is not, however the signatures estimate them."""
    texts = [sentence(n, 60) for n in range(40)]
    pairs = [(text, text.replace(" the ", " " + "!" * cut, 1)) for text in texts for cut in (1, 9)]
    for a, b in pairs:
        near = similarity.similarity(a, b)
        assert found([a, b], near - 0.001) == [[0, 1]]
        assert found([a, b], near + 0.001) == []


def test_signatures_estimate_the_similarity():
    a, errors = sentence(1, 200), []
    for cut in range(0, 200, 10):
        b = " ".join([*a.split()[cut:], *sentence(99, cut).split()])
        one, other = signatures([a, b])
        errors.append(abs((one == other).mean() - similarity.similarity(a, b)))
    assert max(errors) < 0.2
    assert numpy.mean(errors) < 0.08


def test_most_near_duplicates_are_found_among_many():
    texts = [sentence(n) for n in range(500)]
    copies = [" ".join([text.split()[0], *text.split()[2:]]) for text in texts]  # a word less
    expected = [[n, n + 500] for n in range(500) if similarity.similarity(texts[n], copies[n]) >= 0.8]
    assert len(expected) > 300
    pairs = set(map(tuple, found(texts + copies)))
    assert len([pair for pair in expected if tuple(pair) in pairs]) > 0.97 * len(expected)


def test_near_duplicates_are_found_among_rows_of_one_pattern():
    """A third of the rows share each band here, because they share four words of five."""
    pattern = sentence(0, 50)
    texts = [f"{pattern} {sentence(n, 14)}" for n in range(1, 501)]
    copies = [text[: text.rindex(" ")] for text in texts]
    pairs = set(map(tuple, found(texts + copies, 0.9)))
    expected = [[n, n + 500] for n in range(500) if similarity.similarity(texts[n], copies[n]) >= 0.9]
    assert len(expected) > 400
    assert len([pair for pair in expected if tuple(pair) in pairs]) > 0.95 * len(expected)


def test_many_equal_rows_take_no_time():
    assert found(["the same row, again and again"] * 5000) == [list(range(5000))]
    assert len(found([f"the same long row with another number at its end: {n:05}" for n in range(1000)], 0.7)) == 1


def test_no_signature_has_an_empty_bin():
    texts = ["a", "ab cd", sentence(1), ""]
    values = signatures(texts)
    assert values.shape == (4, BINS)
    assert (values[:3] != 0xFFFFFFFF).all()
    assert (values[3] == 0xFFFFFFFF).all()


def test_a_text_in_a_chunk_has_the_signature_it_has_alone():
    texts = [sentence(n, 3 * n) for n in range(8)] + [
        "日本語の文" * 5,
        "\ud800 half of a pair",
        sentence(9, 9000),
        "",
        "a",
    ]
    assert (signatures(texts) == numpy.concatenate([signatures([text]) for text in texts])).all()
