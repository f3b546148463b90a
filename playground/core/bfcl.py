"""Scores calls as the Berkeley Function Calling Leaderboard does: by comparing them with the possible answers.

Agrees with the leaderboard's AST checker for Python (categories simple, multiple and parallel), also where that is
peculiar: texts are compared without case, blanks and `,./-_*^`; a value of the type of a possible answer passes for one
of the schema's type; the types of nested values are checked one level deep; an int is a float, but not inside a list.
Source: https://github.com/ShishirPatil/gorilla, berkeley-function-call-leaderboard, eval_checker/ast_eval.

A question has `function` (descriptions); an answer `ground_truth`: `[{name: {argument: [possible values]}}]`, where ""
among the values of an argument says that it may be left out.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from playground.core.tool_formats import Call, Fault
from playground.errors import PlaygroundError

_TYPES = {
    **{"string": str, "integer": int, "float": float, "boolean": bool},
    **{"array": list, "tuple": list, "dict": dict, "any": str},
}
_SCHEMA_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}
_IGNORED = re.compile(r"[ ,./\-_*^]")

# The leaderboard's error type → the word for it on a scorecard (see playground.core.scoring).
OUTCOMES = {
    "wrong_count": "wrong_count",
    "wrong_func_name": "wrong_function",
    "cannot_find_match": "wrong_function",
    "missing_required": "missing_required",
    "missing_optional": "missing_required",
    "unexpected_param": "unexpected_parameter",
}


@dataclass(frozen=True)
class Verdict:
    """`error_type` is the leaderboard's, as in "type_error:nested"; "" when valid."""

    valid: bool
    error_type: str = ""
    errors: tuple = ()

    @property
    def outcome(self) -> str:
        """One word of a scorecard."""
        if self.valid:
            return "exact"
        group, _, kind = self.error_type.partition(":")
        if group in ("type_error", "value_error"):
            return group
        return OUTCOMES.get(kind, "value_error")


_VALID = Verdict(True)


def check(
    functions: Sequence[dict], calls: Sequence[dict], answers: Sequence[dict], category: str, underscores: bool = False
) -> Verdict:
    """`calls` as `[{name: arguments}]` against the possible `answers`, by the rules of `category` (a test's name).

    `underscores`: the model cannot write dots in names, and writes underscores for them.
    """
    if "parallel" in category:
        return _check_parallel(functions, calls, answers, underscores)
    if "multiple" in category:
        if len(calls) != len(answers):
            return _wrong("multiple_function_checker:wrong_count", "Wrong number of functions.")
        name = next(iter(answers[0]))
        function = next((f for f in functions if f["name"] == name), None)
        if function is None:
            raise PlaygroundError(f"the question describes no function {name!r}, which its possible answer calls")
        return _check_one(function, calls[0], answers[0], underscores)
    if len(calls) != 1:
        return _wrong("simple_function_checker:wrong_count", "Wrong number of functions.")
    return _check_one(functions[0], calls[0], answers[0], underscores)


def outcome(question: dict, calls: Sequence[Call | Fault], answers: Sequence[dict], underscores: bool = False) -> str:
    """A reply's parsed calls as one word of a scorecard."""
    if not calls:
        return "no_call" if answers else "exact"
    if not answers:
        return "unwanted_call"
    if any(isinstance(call, Fault) for call in calls):
        return "malformed"
    written = [{call.name: call.arguments} for call in calls]
    return check(question["function"], written, answers, question["id"], underscores).outcome


def _check_parallel(functions, calls, answers, underscores: bool) -> Verdict:
    """Each possible answer must be met by a call of its own, in any order."""
    if len(calls) != len(answers):
        return _wrong("parallel_function_checker_no_order:wrong_count", "Wrong number of functions.")
    left = list(range(len(calls)))
    for number, answer in enumerate(answers):
        function = next(f for f in functions if f["name"] == next(iter(answer)))
        tried = [(index, _check_one(function, calls[index], answer, underscores)) for index in left]
        met = next((index for index, verdict in tried if verdict.valid), None)
        if met is None:
            reason = f"Could not find a matching function among index {left} of model output for index {number}."
            errors = (reason, *(f"{index}: {v.error_type}: {' '.join(map(str, v.errors))}" for index, v in tried))
            return Verdict(False, "parallel_function_checker_no_order:cannot_find_match", errors)
        left.remove(met)
    return _VALID


def _check_one(function: dict, call: dict, answer: dict, underscores: bool) -> Verdict:
    possible = next(iter(answer.values()))
    details = function["parameters"]["properties"]
    name = function["name"].replace(".", "_") if underscores else function["name"]
    if name not in call:
        return _wrong("simple_function_checker:wrong_func_name", f"Function name {name!r} not found in model output.")
    given = call[name]
    for parameter in function["parameters"].get("required", []):
        if parameter not in given:
            return _wrong("simple_function_checker:missing_required", f"Missing required parameter: {parameter!r}.")
    for parameter, value in given.items():
        if parameter not in details or parameter not in possible:
            return _wrong("simple_function_checker:unexpected_param", f"Unexpected parameter: {parameter!r}.")
        verdict = _check_value(parameter, value, details[parameter], possible[parameter])
        if not verdict.valid:
            return verdict
    for parameter, values in possible.items():
        if parameter not in given and "" not in values:
            reason = f"Optional parameter {parameter!r} not provided and not marked as optional."
            return _wrong("simple_function_checker:missing_optional", reason)
    return _VALID


def _check_value(parameter: str, value, detail: dict, possible: list) -> Verdict:
    described = detail["type"]
    expected = _TYPES[described]
    nested = _TYPES.get((detail.get("items") or {}).get("type")) if described in ("array", "tuple") else None
    if described == "tuple" and isinstance(value, tuple):
        value = list(value)
    if described == "float" and type(value) is int:
        value = float(value)
    verdict, is_variable = _check_type(parameter, value, possible, described, expected, nested)
    if not verdict.valid:
        return verdict
    if not is_variable:
        # A variable's name, where the possible answer has one, is compared as it stands.
        if expected is dict:
            return _check_dict(value, possible)
        if expected is list and nested is dict:
            return _check_dicts(value, possible)
        if expected is str:
            return _check_text(parameter, value, possible)
        if expected is list:
            return _check_list(parameter, value, possible)
    return _VALID if value in possible else _wrong("value_error:others", _invalid(parameter, value, possible))


def _check_type(parameter, value, possible, described, expected, nested=None) -> tuple[Verdict, bool]:
    """(verdict, whether the value is a variable's name: of the possible answer's type instead of the schema's)."""
    answered = next((type(answer) for answer in possible if answer != ""), None)
    failed = ("type_error:simple", f"Incorrect type for parameter {parameter!r}. Expected type {described}, got "
              f"{type(value).__name__}. Parameter value: {value!r}.")  # fmt: skip
    if type(value) is expected:
        if nested is None:
            return _VALID, answered is not None and answered is not expected
        for answer in possible:
            inner = answer if isinstance(answer, list) else None
            if inner is None or all(_check_type(parameter, v, inner, str(nested), nested)[0].valid for v in value):
                return _VALID, answered is not None and answered is not expected
        if answered is type(value):
            reason = (
                f"Nested type checking failed for parameter {parameter!r}. Expected outer type {described} with inner "
                f"type {nested}. Parameter value: {value!r}."
            )
            return _wrong("type_error:nested", reason), True
    elif answered is not None and type(value) is answered:
        return _VALID, True
    return _wrong(*failed), False


def _check_text(parameter: str, value: str, possible: list) -> Verdict:
    if _plain(value) in [_plain(answer) for answer in possible if isinstance(answer, str)]:
        return _VALID
    return _wrong("value_error:string", _invalid(parameter, value, possible) + " Case insensitive.")


def _check_list(parameter: str, value: list, possible: list) -> Verdict:
    if [_plain(item) for item in value] in [[_plain(item) for item in answer] for answer in possible]:
        return _VALID
    return _wrong("value_error:list/tuple", _invalid(parameter, value, possible))


def _check_dict(value: dict, possible: list) -> Verdict:
    """Against each possible answer `{key: [possible values]}`; the last one's error is told."""
    verdict = _wrong("dict_checker:unclear")
    for answer in possible:
        if answer == "":
            continue
        verdict = _compare_dict(value, answer)
        if verdict.valid:
            return verdict
    return verdict


def _compare_dict(value: dict, answer: dict) -> Verdict:
    errors: list[str] = []
    kind = ""
    for key, item in value.items():
        if key not in answer:
            kind, reason = "value_error:dict_key", f"Unexpected dict key parameter: {key!r}."
        elif _plain(item) not in [_plain(one) for one in answer[key]]:
            kind, reason = "value_error:dict_value", _invalid(key, item, answer[key])
        else:
            continue
        errors.append(reason)
        break
    missing = next((key for key, values in answer.items() if key not in value and "" not in values), None)
    if missing is not None:
        kind = "value_error:dict_key"
        errors.append(f"Missing dict key parameter: {missing!r}.")
    return Verdict(False, kind, tuple(errors)) if kind else _VALID


def _check_dicts(value: list, possible: list) -> Verdict:
    """A list of dicts, each against the one at its place."""
    verdict = _wrong("list_dict_checker:unclear")
    for answer in possible:
        if len(value) != len(answer):
            verdict = _wrong("value_error:list_dict_count", "Wrong number of dictionaries in the list.")
            continue
        verdict = _VALID
        for item, one in zip(value, answer, strict=True):
            verdict = _check_dict(item, [one]) if isinstance(item, dict) else _wrong("list_dict_checker:unclear")
            if not verdict.valid:
                break
        if verdict.valid:
            return _VALID
    return verdict


def _plain(value):
    """A text without case, blanks and punctuation; anything else as it is."""
    return _IGNORED.sub("", value).lower().replace("'", '"') if isinstance(value, str) else value


def _invalid(parameter: str, value, possible) -> str:
    return f"Invalid value for parameter {parameter!r}: {value!r}. Expected one of {possible}."


def _wrong(error_type: str, *errors: str) -> Verdict:
    return Verdict(False, error_type, errors)


def tools(question: dict) -> list[dict]:
    """The question's functions as JSON schemas: BFCL's dict, float, tuple and any are object, number, array, string."""
    return [
        {"type": "function", "function": {**function, "parameters": _schema(function["parameters"])}}
        for function in question["function"]
    ]


def _schema(value):
    if isinstance(value, list):
        return [_schema(item) for item in value]
    if not isinstance(value, dict):
        return value
    given = value.get("type")
    changed = {"type": _SCHEMA_TYPES.get(given, given)} if isinstance(given, str) else {}
    rest = {key: _schema(item) for key, item in value.items() if key not in ("type", "optional") or not changed}
    return {**changed, **rest}


def read(questions: Path, answers: Path) -> list[tuple[dict, list[dict]]]:
    """(question, possible answers) of the leaderboard's two files, by their ids."""
    known = {row["id"]: row["ground_truth"] for row in _rows(answers)}
    rows = _rows(questions)
    missing = next((row["id"] for row in rows if row["id"] not in known), None)
    if missing is not None:
        raise PlaygroundError(f"{answers.name} has no possible answer for {missing}")
    return [(row, known[row["id"]]) for row in rows]


def _rows(path: Path) -> list[dict]:
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise PlaygroundError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise PlaygroundError(f"{path.name} is not JSON lines: {error}") from None
    if not all(isinstance(row, dict) and "id" in row for row in rows):
        raise PlaygroundError(f'every line of {path.name} must be an object with an "id"')
    return rows
