import itertools
import random

from playground.core.differences import Difference, differences, shared_share


def test_the_parts_give_both_texts_again():
    pick = random.Random(0)
    words = ["<|im_start|>", "user", "\n", " ", "Hello", "### Instruction:", "é", "<b>"]
    for _ in range(300):
        left, right = ("".join(pick.choices(words, k=pick.randint(0, 30))) for _ in range(2))
        found = differences(left, right)
        assert "".join(part.left for part in found) == left
        assert "".join(part.right for part in found) == right
        assert all(part.left or part.right for part in found)
        assert all(a.same != b.same for a, b in itertools.pairwise(found))


def test_a_tag_is_never_cut_in_two():
    found = differences("<|im_start|>user\nHi", "<|im_end|>user\nHi")
    assert found == [Difference("<|im_start|>", "<|im_end|>"), Difference("user\nHi", "user\nHi")]


def test_the_share_of_what_both_have():
    assert shared_share(differences("one two", "one two")) == 1.0
    assert shared_share(differences("", "")) == 1.0
    assert shared_share(differences("abc", "xyz")) == 0.0
    assert shared_share(differences("same\nabc", "same\nxyz")) == 5 / 8


def test_what_repeats_itself_to_its_limit_is_shown_as_a_whole():
    """difflib took 76 seconds for the first of these."""
    for left, right in (("\n" * 20_000, "\n" * 19_999 + "x"), ("a " * 10_000, "b " + "a " * 9_999)):
        assert differences(left, right) == [Difference(left, right)]


def test_a_long_paragraph_is_compared_word_by_word():
    left = " ".join(f"word{number % 400}" for number in range(1000))
    found = differences(left, left.replace("word7 ", "word ", 1))
    assert [part for part in found if not part.same] == [Difference("word7", "word")]


def test_long_blocks_without_a_common_line_are_quick():
    left, right = " ".join(map(str, range(30_000))), " ".join(map(str, range(30_000, 60_000)))
    assert differences(left, right) == [Difference(left, right)]
