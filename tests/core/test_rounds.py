"""The guided loop's rows: enough, proven, apart from the test; the weakest error, and rows of the kind that errs."""

from collections import Counter
from dataclasses import replace

import pytest

from playground.core import datasets, rounds
from playground.core.generator.writer import Row
from playground.core.rounds import Kit, Weakness
from playground.core.scorecard import FAILED, Card, Column
from playground.core.scorecard import Row as Reply
from playground.core.tool_formats import named
from playground.errors import PlaygroundError
from tests.core.test_generator import TOOLS

DEMO, PAIRS = Kit(), Kit("json-calls")
OWN, OWN_PAIRS = Kit(tools=tuple(TOOLS)), Kit("json-calls", tuple(TOOLS))
KITS = {"demo": DEMO, "pairs": PAIRS, "own": OWN, "own pairs": OWN_PAIRS}


def last(steps):
    *_, step = steps
    return step.result


@pytest.fixture(scope="module")
def rows_of():
    """`rows_of(kit)`: 200 rows."""
    made = {}

    def rows_of(kit):
        name = next(name for name, one in KITS.items() if one is kit)
        if name not in made:
            made[name] = last(rounds.make(kit, 200)).rows
        return list(made[name])

    return rows_of


@pytest.fixture(scope="module", params=KITS)
def kit(request):
    return KITS[request.param]


@pytest.fixture(scope="module")
def asked(kit):
    return rounds.held_out(kit, 30)


@pytest.fixture(scope="module")
def made(kit, asked):
    return last(rounds.make(kit, 300, 0, {rounds.question_key(kit, one) for one in asked}))


def test_rows_are_as_many_as_asked_different_and_none_is_asked_in_the_test(kit, made, asked):
    keys = [rounds.key(kit, row) for row in made.rows]
    assert len(keys) == len(set(keys)) == made.report.rows == 300
    assert not set(keys) & {rounds.question_key(kit, question) for question in asked}
    assert made.report.kinds == Counter(row.kind for row in made.rows)
    assert made.report.calls == sum(len(row.calls) for row in made.rows) > 100
    assert len(asked) == 30


def test_the_same_seed_gives_the_same_rows(kit):
    once = last(rounds.make(kit, 40, 3)).rows
    assert once == last(rounds.make(kit, 40, 3)).rows
    assert once != last(rounds.make(kit, 40, 4)).rows


def test_every_row_is_a_conversation_that_ends_with_what_is_due(kit, made):
    for row in made.rows[:80]:
        ((one,),) = [[one.conversation for one in datasets.examples(rounds.line(kit, row))[1]]]
        answer = one.messages[-1]
        if kit.pairs:
            read = named("json").parse(answer["content"], tools=row.tools).calls
            assert [{"name": call.name, "arguments": call.arguments} for call in read] == row.calls
        elif row.kind in ("one call", "answered", "talk"):
            calls = [call["function"] for call in answer.get("tool_calls", ())]
            assert calls == row.calls


def test_a_question_is_the_prompt_that_is_trained(kit, made):
    for row in made.rows[:40]:
        question = rounds._question(kit, row, 1)
        conversation = datasets.examples(rounds.line(kit, row))[1][0].conversation
        said = [message["content"] for message in question.messages]
        assert said == [message["content"] for message in conversation.messages[: len(said)]]
        assert (question.expected, question.kind) == (row.calls, row.kind)
        assert rounds.question_key(kit, question) == rounds.key(kit, row)


def test_what_is_left_out_is_counted_and_named():
    first = last(rounds.make(DEMO, 20)).rows
    again = last(rounds.make(DEMO, 20, 0, {rounds.key(DEMO, row) for row in first}))
    assert again.report.left_out == {"asked already": 20}
    wrong = replace(first[0], kind="weather", calls=[{"name": "get_weather", "arguments": {"city": "Atlantis"}}])
    assert rounds.fault(DEMO, wrong) == "an argument that is not in its question"
    unfit = replace(first[0], calls=[{"name": "get_weather", "arguments": {"town": "Paris"}}])
    assert rounds.fault(DEMO, unfit) == "a call that does not fit its schema"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"n": 0}, "rows must be between 1 and 20,000, got 0"),
        ({"kit": Kit(tools=({"name": "now", "parameters": {"type": "object", "properties": {}}},))}, "ask for fewer"),
    ],
)
def test_rows_that_cannot_be_made(change, message):
    with pytest.raises(PlaygroundError, match=message):
        list(rounds.make(**{"kit": DEMO, "n": 400, **change}))
    with pytest.raises(PlaygroundError, match="recipe must be one of tool-calling, json-calls, got 'x'"):
        Kit("x")


# --- the weakest error ---


def card(questions, words, calls=()):
    column = Column("tuned", "m", "a", "chatml-tools", "hermes")
    written = dict(calls)
    rows = [Reply(0, i, word, "", calls=tuple(written.get(i, ()))) for i, word in enumerate(words)]
    return Card("x", "n", 0.0, (column,), tuple(questions), tuple(rows))


def question(kind, *expected, tools=()):
    return rounds.Question("1", kind, [{"role": "user", "content": "q"}], list(tools), list(expected))


def sum_of(expression):
    return {"name": "calculator", "arguments": {"expression": expression}}


@pytest.mark.parametrize(
    "expression, word",
    [
        ("23 * 47", "a multiplication"),
        ("8 / 2", "a division"),
        ("15 / 100 * 240", "a percentage"),
        ("sqrt(49)", "a square root"),
        ("2 ** 8", "a power"),
        ("(2 + 3) * 4", "two operators"),
        ("7", "a number"),
    ],
)
def test_the_kind_of_an_expression(expression, word):
    assert rounds.operation(expression) == word


def test_the_weakest_error_is_named_with_what_its_questions_have_in_common():
    divisions = [question("calculator", sum_of(f"{n * 7} / 7")) for n in range(2, 8)]
    others = [question("calculator", sum_of(f"{n} + 7")) for n in range(10)]
    chat = [question("no tool") for _ in range(4)]
    words = ["value_error"] * 6 + ["value_error"] + ["valid"] * 9 + ["unwanted_call"] * 2 + ["valid", FAILED]
    found = rounds.weaknesses(card(divisions + others + chat, words), 0)
    assert [(weak.word, weak.kind, weak.count, weak.asked) for weak in found] == [
        ("value_error", "calculator", 7, 16),
        ("unwanted_call", "no tool", 2, 3),
    ]
    assert found[0].aspects == ("a division",)  # the one addition is chance
    assert found[0].sentence() == (
        "Value error (right tool, wrong value) in 7 of 16 questions of the kind “calculator”, most often with "
        "a division."
    )
    assert "that need no tool" in found[1].remedy(DEMO)
    assert rounds.weaknesses(card(others, ["valid"] * 10), 0) == []


def test_an_argument_written_otherwise_is_what_the_errors_have_in_common():
    due = {"name": "book_flight", "arguments": {"from_city": "Rome", "to_city": "Oslo", "departure_date": "01/02/2025"}}
    wrong = {"name": "book_flight", "arguments": {**due["arguments"], "departure_date": "2025-02-01"}}
    (weak,) = rounds.weaknesses(card([question("one call", due)], ["value_error"], [(0, [wrong])]), 0)
    assert (weak.tools, weak.aspects) == (("book_flight",), ("book_flight: departure_date",))
    missing = {"name": "book_flight", "arguments": {k: v for k, v in due["arguments"].items() if k != "to_city"}}
    (weak,) = rounds.weaknesses(card([question("one call", due)], ["missing_required"], [(0, [missing])]), 0)
    assert weak.aspects == ("book_flight: to_city",)
    assert ["asked back" in weak.remedy(kit) for kit in (OWN, DEMO)] == [True, False]


def test_both_tools_are_shown_where_one_was_taken_for_the_other():
    schemas = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("convert", "remind")]
    due, wrong = {"name": "convert", "arguments": {}}, {"name": "remind", "arguments": {}}
    asked = [question("one call", due, tools=schemas)] * 2
    (weak,) = rounds.weaknesses(card(asked, ["wrong_function"] * 2, [(0, [wrong]), (1, [{"fault": "malformed"}])]), 0)
    assert set(weak.tools) == {"convert", "remind"}
    assert weak.aspects == ()


# --- rows for it ---


@pytest.mark.parametrize(
    "kit, weak, expected",
    [
        (DEMO, Weakness("value_error", "calculator", 9, 20, ("calculator",), ("a percentage",)),
         lambda row: rounds.operation(row.calls[0]["arguments"]["expression"]) == "a percentage"),
        (PAIRS, Weakness("no_call", "weather", 3, 20, ("get_weather",)), lambda row: row.kind == "weather"),
        (DEMO, Weakness("wrong_count", "several calls", 3, 5, ("calculator", "get_weather")),
         lambda row: len(row.calls) == 2),
        (DEMO, Weakness("unwanted_call", "no tool", 3, 5), lambda row: row.calls == []),
        (OWN, Weakness("unwanted_call", "no tool", 3, 5), lambda row: row.kind == "no tool" and not row.calls),
        (OWN, Weakness("unwanted_call", "ask back", 3, 5), lambda row: row.kind == "ask back"),
        (OWN, Weakness("value_error", "one call", 3, 5, ("book_flight",), ("book_flight: cabin_class",)),
         lambda row: row.calls[0]["arguments"].get("cabin_class")),
        (OWN_PAIRS, Weakness("wrong_function", "one call", 3, 5, ("convert", "remind")),
         lambda row: row.calls[0]["name"] in ("convert", "remind")),
    ],
)  # fmt: skip
def test_rows_are_of_the_kind_that_errs_and_new(rows_of, kit, weak, expected):
    old = rows_of(kit)
    made = last(rounds.more(kit, weak, 30, old))
    assert len(made.rows) == 30
    assert all(map(expected, made.rows))
    assert not {rounds.key(kit, row) for row in old} & {rounds.key(kit, row) for row in made.rows}


def test_against_a_missing_argument_there_are_rows_that_ask_for_it():
    weak = Weakness("missing_required", "one call", 3, 5, ("book_flight",), ("book_flight: to_city",))
    kinds = Counter(row.kind for row in last(rounds.more(OWN, weak, 60, ())).rows)
    assert set(kinds) == {"one call", "ask back"}
    assert 8 <= kinds["ask back"] <= 30


def test_where_there_are_no_such_rows_it_says_so():
    with pytest.raises(PlaygroundError, match="these tools give no such rows"):
        list(rounds.more(DEMO, Weakness("value_error", "ask back", 1, 1), 10, ()))


def test_going_on_brings_back_as_many_old_rows_as_are_new():
    row = lambda n: Row("talk", "en", [{"role": "user", "content": str(n)}], [], [])  # noqa: E731
    old, added = [row(n) for n in range(100)], [row(n) for n in range(100, 120)]
    assert rounds.training_rows(old, added, afresh=True) == [*old, *added]
    mixed = rounds.training_rows(old, added, afresh=False)
    assert (len(mixed), mixed[20:]) == (40, added)
    assert all(row in old for row in mixed[:20])
    assert rounds.training_rows(old, [], afresh=False) == old
