"""The leaderboard's rules on literals, and its own files: possible answers are valid, each mutation has its error."""

from pathlib import Path

import pytest

from playground.core import bfcl
from playground.core.tool_formats import Call, Fault
from playground.errors import PlaygroundError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "bfcl"
FUNCTION = {
    "name": "trip.book",
    "description": "Book a trip",
    "parameters": {
        "type": "dict",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "fare": {"type": "float"},
            "sure": {"type": "boolean"},
            "stops": {"type": "array", "items": {"type": "string"}},
            "rates": {"type": "array", "items": {"type": "float"}},
            "area": {"type": "tuple", "items": {"type": "float"}},
            "who": {"type": "dict", "properties": {}},
            "rooms": {"type": "array", "items": {"type": "dict"}},
            "note": {"type": "any"},
        },
        "required": ["city"],
    },
}
POSSIBLE = {
    "city": ["New York", "NYC"],
    "days": [3, ""],
    "fare": [10.0, ""],
    "sure": [True, ""],
    "stops": [["St. Louis", "Reno"], ""],
    "rates": [[1.5, 2.0]],
    "area": [[1.0, 2.0], ""],
    "who": [{"name": ["Ann"], "age": [3, ""]}, ""],
    "rooms": [[{"beds": [1]}, {"beds": [2]}], ""],
    "note": ["x", ""],
}
GOOD = {"city": "new york.", "rates": [1.5, 2.0]}
SIMPLE = "simple_function_checker:"


@pytest.mark.parametrize(
    "changed, error_type",
    [
        ({}, ""),
        ({"city": "NEW-YORK"}, ""),
        ({"city": "Boston"}, "value_error:string"),
        ({"city": 5}, "type_error:simple"),
        ({"city": None}, SIMPLE + "missing_required"),
        ({"rates": None}, SIMPLE + "missing_optional"),
        ({"towel": 1}, SIMPLE + "unexpected_param"),
        ({"days": 3}, ""),
        ({"days": 4}, "value_error:others"),
        ({"days": 3.0}, "type_error:simple"),
        ({"days": True}, "type_error:simple"),
        ({"days": "3"}, "type_error:simple"),
        ({"fare": 10}, ""),
        ({"fare": 10.5}, "value_error:others"),
        ({"sure": True}, ""),
        ({"sure": False}, "value_error:others"),
        ({"sure": 1}, "type_error:simple"),
        ({"stops": ["st louis", "RENO"]}, ""),
        ({"stops": ["RENO", "st louis"]}, "value_error:list/tuple"),
        ({"stops": "Reno"}, "type_error:simple"),
        ({"rates": [1.5, 2]}, "type_error:nested"),
        ({"rates": [1.5, 2.5]}, "value_error:list/tuple"),
        ({"area": (1.0, 2.0)}, ""),
        ({"area": [1.0, 2.0]}, ""),
        ({"who": {"name": "ann"}}, ""),
        ({"who": {"name": "ann", "age": 4}}, "value_error:dict_value"),
        ({"who": {"name": "ann", "sex": "f"}}, "value_error:dict_key"),
        ({"who": {"age": 3}}, "value_error:dict_key"),
        ({"who": []}, "type_error:simple"),
        ({"rooms": [{"beds": 1}, {"beds": 2}]}, ""),
        ({"rooms": [{"beds": 1}]}, "value_error:list_dict_count"),
        # "" among the answers is a list of nothing to the leaderboard, and the last answer's error is told
        ({"rooms": [{"beds": 1}, {"beds": 1}]}, "value_error:list_dict_count"),
        ({"note": "X"}, ""),
    ],
)
def test_one_argument_after_the_other(changed, error_type):
    given = {key: value for key, value in {**GOOD, **changed}.items() if value is not None}
    verdict = bfcl.check([FUNCTION], [{"trip.book": given}], [{"trip.book": POSSIBLE}], "simple_python")
    assert (verdict.valid, verdict.error_type) == (error_type == "", error_type)
    assert bool(verdict.errors) is (error_type != "")


@pytest.mark.parametrize(
    "value, error_type",
    [("origin", ""), ("elsewhere", "value_error:others"), (5, "value_error:others"), (2.5, "type_error:simple")],
)
def test_a_variable_may_stand_for_a_value_where_the_answer_has_one(value, error_type):
    verdict = bfcl.check([FUNCTION], [{"trip.book": {"city": "x", "days": value}}], ANSWER_WITH_VARIABLE, "simple")
    assert verdict.error_type == error_type


ANSWER_WITH_VARIABLE = [{"trip.book": {"city": ["x"], "days": ["origin"]}}]


def test_counts_and_names():
    answers = [{"trip.book": POSSIBLE}]
    one = {"trip.book": GOOD}
    other = {**FUNCTION, "name": "other"}
    assert bfcl.check([FUNCTION], [], answers, "simple").error_type == SIMPLE + "wrong_count"
    assert bfcl.check([FUNCTION], [{"trip_book": GOOD}], answers, "simple").error_type == SIMPLE + "wrong_func_name"
    assert bfcl.check([FUNCTION], [{"trip_book": GOOD}], answers, "simple", underscores=True).valid
    assert bfcl.check([other, FUNCTION], [one], answers, "multiple_3").valid
    assert bfcl.check([other, FUNCTION], [one, one], answers, "multiple_3").error_type == (
        "multiple_function_checker:wrong_count"
    )
    with pytest.raises(PlaygroundError, match=r"describes no function 'trip.book'"):
        bfcl.check([other], [one], answers, "multiple")


def test_parallel_calls_may_come_in_any_order():
    second = {"trip.book": {**POSSIBLE, "city": ["Rome"]}}
    answers = [{"trip.book": POSSIBLE}, second]
    calls = [{"trip.book": {**GOOD, "city": "rome"}}, {"trip.book": GOOD}]
    assert bfcl.check([FUNCTION], calls, answers, "parallel").valid
    once = bfcl.check([FUNCTION], calls, [answers[0], answers[0]], "parallel")
    assert "among index [0]" in once.errors[0]
    wrong = bfcl.check([FUNCTION], [calls[0], calls[0]], answers, "parallel")
    assert wrong.error_type == "parallel_function_checker_no_order:cannot_find_match"


@pytest.mark.parametrize(
    "calls, word",
    [
        ([Call("trip.book", GOOD)], "exact"),
        ([], "no_call"),
        ([Fault("truncated", "Cut.")], "malformed"),
        ([Call("trip.book", GOOD)] * 2, "wrong_count"),
        ([Call("trip", GOOD)], "wrong_function"),
        ([Call("trip.book", {})], "missing_required"),
        ([Call("trip.book", {"city": "NYC"})], "missing_required"),
        ([Call("trip.book", {**GOOD, "x": 1})], "unexpected_parameter"),
        ([Call("trip.book", {**GOOD, "rates": [1]})], "type_error"),
        ([Call("trip.book", {**GOOD, "city": "Rome"})], "value_error"),
    ],
)
def test_a_word_for_a_scorecard(calls, word):
    question = {"id": "simple_python_0", "function": [FUNCTION]}
    assert bfcl.outcome(question, calls, [{"trip.book": POSSIBLE}]) == word
    assert bfcl.outcome(question, calls, []) == ("unwanted_call" if calls else "exact")


def test_descriptions_become_json_schemas():
    (tool,) = bfcl.tools({"function": [FUNCTION]})
    properties = tool["function"]["parameters"]["properties"]
    assert tool["function"]["parameters"]["type"] == "object"
    assert [properties[name]["type"] for name in ("fare", "area", "who", "note")] == [
        *("number", "array", "object", "string")
    ]
    assert properties["area"]["items"] == {"type": "number"}


def test_files_that_do_not_fit(tmp_path):
    (tmp_path / "q.json").write_text('{"id": "a"}\n')
    (tmp_path / "a.json").write_text('{"id": "b", "ground_truth": []}\n')
    with pytest.raises(PlaygroundError, match="no possible answer for a"):
        bfcl.read(tmp_path / "q.json", tmp_path / "a.json")
    with pytest.raises(PlaygroundError, match="cannot be read"):
        bfcl.read(tmp_path / "none.json", tmp_path / "a.json")
    (tmp_path / "q.json").write_text("[1]\n")
    with pytest.raises(PlaygroundError, match='an object with an "id"'):
        bfcl.read(tmp_path / "q.json", tmp_path / "a.json")


def real(name: str):
    if not SHARED.exists():
        pytest.skip("the shared BFCL files are not on this machine")
    return bfcl.read(SHARED / f"BFCL_v4_{name}.json", SHARED / "possible_answer" / f"BFCL_v4_{name}.json")


def first_answer(answers: list[dict]) -> dict:
    """The first possible value of every argument, dicts unfolded; "" says that none need be given."""

    def chosen(possible: dict) -> dict:
        values = {key: next((v for v in values if v != ""), "") for key, values in possible.items()}
        return {key: unfold(value) for key, value in values.items() if value != ""}

    def unfold(value):
        if isinstance(value, dict):
            return chosen(value)
        return [unfold(v) for v in value] if isinstance(value, list) else value

    ((name, possible),) = answers[0].items()
    return {name: chosen(possible)}


@pytest.mark.parametrize("name, rows", [("simple_python", 400), ("multiple", 200)])
def test_every_possible_answer_is_valid_and_every_mutation_has_its_error(name, rows):
    pairs = real(name)
    assert len(pairs) == rows
    wrong = [q["id"] for q, a in pairs if not bfcl.check(q["function"], [first_answer(a)], a, q["id"]).valid]
    assert wrong == []
    for question, answers in pairs:
        ((function, given),) = first_answer(answers).items()

        def error(arguments, function=function, question=question, answers=answers):
            return bfcl.check(question["function"], [{function: arguments}], answers, question["id"]).error_type

        described = next(f for f in question["function"] if f["name"] == function)
        required = described["parameters"]["required"]
        for parameter in given:
            left = {k: v for k, v in given.items() if k != parameter}
            if parameter in required:
                assert error(left) == SIMPLE + "missing_required"
            assert error({**given, parameter: object()}) == "type_error:simple"
        assert error({**given, "no such": 1}) == SIMPLE + "unexpected_param"
        assert bfcl.check(question["function"], [{"no such": given}], answers, question["id"]).error_type == (
            SIMPLE + "wrong_func_name"
        )
        assert bfcl.check(question["function"], [], answers, question["id"]).error_type.endswith("wrong_count")
