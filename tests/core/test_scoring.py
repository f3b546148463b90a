import pytest

from playground.core import tools
from playground.core.scoring import OUTCOMES, Score, equal, kind, outcome, score, wilson
from playground.core.tool_formats import Call, Fault


def add(expression="23 * 47"):
    return {"name": "calculator", "arguments": {"expression": expression}}


PARIS = {"name": "get_weather", "arguments": {"city": "Paris"}}


def got(*calls):
    return [Call(call["name"], call["arguments"]) for call in calls]


BROKEN = Fault("malformed", "Broken.")


@pytest.mark.parametrize(
    "expected, calls, word",
    [
        ([], [], "exact"),
        ([add()], got(add()), "exact"),
        ([add()], got(add("23*47")), "exact"),
        ([add(), PARIS], got(PARIS, add()), "exact"),
        ([add(), add()], got(add(), add()), "exact"),
        ([], got(PARIS), "unwanted_call"),
        ([], [BROKEN], "unwanted_call"),
        ([PARIS], [], "no_call"),
        ([PARIS], [BROKEN], "malformed"),
        ([PARIS, add()], [*got(PARIS), BROKEN], "malformed"),
        ([PARIS], got(PARIS, PARIS), "wrong_count"),
        ([PARIS, add()], got(PARIS), "wrong_count"),
        ([PARIS], got(add()), "wrong_function"),
        ([PARIS], got({"name": "weather", "arguments": {"city": "Paris"}}), "wrong_function"),
        ([PARIS], got({"name": "get_weather", "arguments": {}}), "missing_required"),
        ([PARIS], got({"name": "get_weather", "arguments": {"place": "Paris"}}), "unexpected_parameter"),
        ([PARIS], got({"name": "get_weather", "arguments": {"city": "Paris", "unit": "C"}}), "unexpected_parameter"),
        ([PARIS], got({"name": "get_weather", "arguments": {"city": ["Paris"]}}), "type_error"),
        ([PARIS], got({"name": "get_weather", "arguments": {"city": "paris"}}), "value_error"),
        ([add()], got(add("47 * 23")), "value_error"),
        ([add()], got(add("23 + 47")), "value_error"),
        ([add(), add()], got(add(), add("1")), "value_error"),
        ([add(), add("1")], got(add(), add()), "value_error"),
        ([add(), PARIS], got(PARIS, PARIS), "wrong_function"),
    ],
)
@pytest.mark.parametrize("schemas", [(), tuple(tools.schemas())], ids=["bare", "schemas"])
def test_an_outcome_has_the_leaderboards_word(expected, calls, word, schemas):
    assert outcome(expected, calls, schemas) == word
    assert word in OUTCOMES


@pytest.mark.parametrize(
    "a, b, same",
    [
        ({"x": 1}, {"x": 1.0}, True),
        ({"x": 1}, {"x": True}, False),
        ({"x": 1}, {"x": "1"}, False),
        ({"x": None}, {"x": 0}, False),
        ({"x": [1, {"y": 2}]}, {"x": [1.0, {"y": 2}]}, True),
        ({"x": [1, 2]}, {"x": [2, 1]}, False),
        ({"x": [1]}, {"x": [True]}, False),
        ({"x": "a b"}, {"x": "ab"}, False),
        ({"x": 1}, {}, False),
        ({}, {"x": 1}, False),
    ],
)
def test_arguments_are_compared_as_json_values(a, b, same):
    assert equal("f", a, b) is same


def test_blanks_count_everywhere_but_in_the_calculators_expression():
    assert equal("calculator", {"expression": "1+ 1"}, {"expression": "1 +1"})
    assert not equal("get_weather", {"city": "New York"}, {"city": "NewYork"})


@pytest.mark.parametrize(
    "one, other, same",
    [
        ("784 - 150", "(784-150)", True),
        ("3 ** 7", "3^7", True),
        ("(1 + 2) * 3", "1 + 2 * 3", False),
        ("2 * 678", "678 * 2", False),  # the order of the question is the lesson
        ("2.0 * 3", "2 * 3", False),
        ("1 +", "1 +", True),
        ("1 +", "1 + ", False),  # no expression is like no other
        ("(" * 99, "(" * 98, False),
    ],
)
def test_expressions_are_the_same_where_the_calculator_reads_the_same(one, other, same):
    assert equal("calculator", {"expression": one}, {"expression": other}) is same
    assert equal("f", {"expression": one}, {"expression": other}) is (one == other)


def test_a_score_counts():
    result = score(["exact", "exact", "no_call", "exact"], ["calculator", "no call", "calculator", "calculator"])
    assert result == Score(
        4, 3, {"exact": 3, "no_call": 1}, {"calculator": {"exact": 2, "no_call": 1}, "no call": {"exact": 1}}
    )
    assert result.rate == 0.75
    assert result.summary() == "3/4 exact (75 %, 95 % interval 30 to 95 %)"
    assert score([]).summary() == "0/0 exact (0 %, 95 % interval 0 to 100 %)"


@pytest.mark.parametrize(
    # the first row is Newcombe (1998), table I, method 3
    "hits, total, low, high",
    [(81, 263, 0.2553, 0.3662), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718), (20, 20, 0.8389, 1.0), (0, 0, 0.0, 1.0)],
)
def test_the_interval_is_wilsons(hits, total, low, high):
    assert wilson(hits, total) == pytest.approx((low, high), abs=5e-4)


def test_what_was_due():
    assert [kind([]), kind([PARIS]), kind([PARIS, add()])] == ["no call", "get_weather", "several calls"]
