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


def test_long_blocks_without_a_common_line_are_quick():
    left, right = " ".join(map(str, range(30_000))), " ".join(map(str, range(30_000, 60_000)))
    assert differences(left, right) == [Difference(left, right)]
