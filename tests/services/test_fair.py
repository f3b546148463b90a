"""Turns between visitors, and what a visitor sees of the queue."""

import pytest

from playground.services.fair import FairQueue


def filled(*pushes):
    queue = FairQueue()
    for visitor, item in pushes:
        queue.push(visitor, item)
    return queue


def test_visitors_take_turns_however_much_one_asks():
    queue = filled(*(("a", f"a{i}") for i in range(4)), ("b", "b0"), ("c", "c0"), ("b", "b1"))
    expected = ["a0", "b0", "c0", "a1", "b1", "a2", "a3"]
    assert list(queue) == expected
    assert [queue.pop() for _ in range(len(queue))] == expected
    with pytest.raises(IndexError):
        queue.pop()


def test_one_who_comes_late_is_not_last():
    queue = filled(*(("a", f"a{i}") for i in range(9)))
    queue.pop()
    queue.push("b", "b0")
    assert list(queue).index("b0") <= 1
    assert queue.of("a") == 8
    assert queue.of("nobody") == 0


def test_what_is_taken_out_is_gone():
    queue = filled(("a", 1), ("b", 2), ("a", 3))
    queue.remove(2)
    queue.remove(99)
    assert list(queue) == [1, 3]
    queue.clear()
    assert len(queue) == 0
