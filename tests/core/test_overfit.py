"""The overfit light: colours and words for curves as they come."""

import pytest

from playground.core.overfit import light, trend


def events(held, train):
    """Evaluations every ten steps from step 0, and a training loss for each ten steps before one."""
    found = [{"kind": "eval", "step": 10 * n, "eval_loss": loss} for n, loss in enumerate(held)]
    for n, loss in enumerate(train):
        found += [{"kind": "step", "step": 10 * n + i, "loss": loss} for i in range(1, 11)]
    return found


@pytest.mark.parametrize(
    "held, train, colour, words",
    [
        ([3.0, 2.0, 1.5], [2.0, 1.6], "green", "still learning"),
        ([3.0, 1.0, 0.999, 1.0, 1.001], [1.5, 0.9, 0.95, 0.96], "green", "settled"),
        ([3.0, 1.0, 1.2, 1.4], [1.5, 0.6, 0.3], "red", "rose from 1.00 at step 10 to 1.40"),
        ([3.0, 1.0, 1.2], [1.5, 0.6], "amber", "has not been better than 1.00 since step 10"),
        ([3.0, 1.0, 1.3, 1.1], [1.5, 0.6, 0.5], "amber", "has not been better"),
        ([3.0, 1.5, 1.2, 1.0], [1.5, 0.5, 0.3], "amber", "which still falls"),
        ([3.0, 2.0], [2.0], "", "1 more evaluation "),
        ([3.0], [], "", "2 more evaluations"),
        ([], [1.0], "", "No rows are held out"),
    ],
)
def test_colour_and_words(held, train, colour, words):
    found = light(events(held, train))
    assert (found.colour, words in found.sentence) == (colour, True), found


def test_after_a_resume_the_later_value_counts():
    once = events([3.0, 1.0, 1.2, 1.4], [1.5, 0.6, 0.3])
    again = [*once, {"kind": "eval", "step": 20, "eval_loss": 0.9}, {"kind": "eval", "step": 30, "eval_loss": 0.8}]
    assert light(once).colour == "red"
    assert light(again).colour != "red"


def test_events_of_another_version_do_not_stop_it():
    assert light([{"kind": "eval", "step": 1}, {"kind": "step", "step": 1}, {"kind": "new"}]).colour == ""


def test_trend_is_the_slope():
    assert trend([1.0, 3.0, 5.0]) == pytest.approx(2.0)
    assert trend([4.0]) == 0.0
