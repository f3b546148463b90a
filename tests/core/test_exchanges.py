"""Where a chat's exchanges begin, and what is left of a chat without its oldest ones."""

import pytest

from playground.core.exchanges import LeftOut, fewest, starts, strided, without
from playground.core.messages import Conversation

LETTERS = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}


def talk(letters: str) -> Conversation:
    messages = [{"role": LETTERS[letter], "content": str(place)} for place, letter in enumerate(letters)]
    return Conversation(messages, tools=[{"type": "function"}], variables={"date": "today"})


@pytest.mark.parametrize(
    ("letters", "places"),
    [
        ("u", [0]),
        ("su", [1]),
        ("suau", [1, 3]),
        ("uatau", [0, 4]),  # a call and its result belong to the question
        ("uuau", [0, 1, 3]),  # a question without an answer
        ("saua", [1, 2]),  # a greeting
        ("suasua", [1, 4]),  # the second system message stands between two exchanges
        ("s", []),
    ],
)
def test_an_exchange_begins_with_each_user_message(letters, places):
    assert starts(talk(letters).messages) == places


@pytest.mark.parametrize(
    ("letters", "count", "kept"),
    [
        ("suauau", 0, "012345"),
        ("suauau", 1, "0345"),
        ("suauau", 2, "05"),
        ("uatauatau", 1, "45678"),
        ("uatauatau", 2, "8"),
        ("suasua", 1, "0345"),  # every system message stays
    ],
)
def test_whole_exchanges_go_and_the_system_stays(letters, count, kept):
    whole = talk(letters)
    short = without(whole, starts(whole.messages), count)
    assert "".join(message["content"] for message in short.messages) == kept
    assert (short.tools, short.variables) == (whole.tools, whole.variables)


def test_a_result_that_comes_as_a_user_message_does_not_begin_an_exchange():
    whole = talk("uauauau")  # the user's messages 2 and 6 are results of calls that could not be read
    assert [m["content"] for m in without(whole, (0, 4), 1).messages] == ["4", "5", "6"]


def test_as_few_as_possible_are_left_out():
    for most in range(12):
        for needed in range(15):
            asked = []
            count = fewest(most, lambda n, needed=needed, asked=asked: asked.append(n) or n >= needed)
            assert count == min(needed, most)
            assert len(asked) <= 5


@pytest.mark.parametrize(
    ("over", "left_out"),
    [(-5, 0), (0, 0), (1, 3), (25, 3), (26, 5), (50, 5), (51, 8), (75, 8), (76, 10), (90, 10), (91, 10), (150, 10)],
)
def test_what_is_left_out_grows_in_strides(over, left_out):
    """Ten exchanges of 10 tokens that may go, and strides of 25: 25 are three of them, 50 are five."""
    assert strided(10, over, 25, lambda count: 10 * count) == left_out


def test_where_a_stride_would_take_all_only_what_must_go_goes():
    assert strided(2, 5, 25, lambda count: 10 * count) == 1
    assert strided(0, 5, 25, lambda count: 0) == 0  # there is only the newest exchange


@pytest.mark.parametrize(
    ("left_out", "sentence", "short"),
    [
        (
            LeftOut(3, 1204, "2,048 tokens", 200),
            "The conversation did not fit into 2,048 tokens, of which the reply may take 200: its first 3 turns "
            "(1,204 tokens) were left out.",
            "The conversation did not fit: its first 3 turns were left out.",
        ),
        (
            LeftOut(1, 1, "2,048 tokens"),
            "The conversation did not fit into 2,048 tokens: its first turn (1 token) was left out.",
            "The conversation did not fit: its first turn was left out.",
        ),
        (
            LeftOut(1200, None, "50,000 characters"),
            "The conversation did not fit into 50,000 characters: its first 1,200 turns were left out.",
            "The conversation did not fit: its first 1,200 turns were left out.",
        ),
    ],
)
def test_what_is_left_out_is_said(left_out, sentence, short):
    assert str(left_out) == sentence
    assert left_out.briefly == short
