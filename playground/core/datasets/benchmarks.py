"""Rows of preference data and of benchmarks, whose shapes are their own."""

import json
import re

from playground.core.datasets import transcripts, turns
from playground.core.datasets.cells import BadCell, first, kind, structure, text
from playground.core.datasets.converters import (
    COMPLETION,
    PROMPT,
    QUESTION,
    Example,
    alpaca,
    answered,
    asked,
    assistant,
    example,
    user,
)
from playground.errors import PlaygroundError

# Preference pairs -----------------------------------------------------------------------------------------------------

_SIDES = (("output_1", "output_2"), ("response_a", "response_b"), ("conversation_a", "conversation_b"))
_LEFT, _RIGHT = ("1", "a", "model_a", "left", "response_a"), ("2", "b", "model_b", "right", "response_b")


def is_preference(row: dict) -> bool:
    return "chosen" in row and "rejected" in row


def preference(row: dict) -> list[Example]:
    """The preferred reply of a chosen/rejected pair, after the prompt, the instruction or the turns so far."""
    chosen, rejected = _replies(row, "chosen"), _replies(row, "rejected")
    if chosen is None:
        raise BadCell("chosen", "is empty")
    before = _before(row)
    if before and chosen[: len(before)] == before:
        before = []  # the prompt stands in both, as in the row format of TRL's first data sets
    if not before and chosen[0]["role"] == "assistant":
        raise PlaygroundError("there is no prompt before the chosen reply (a column prompt, instruction or messages)")
    shared = 0
    if rejected is not None and not before:
        pairs = zip(chosen, rejected, strict=False)
        shared = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(chosen), len(rejected)))
    return [example(row, [*before, *chosen], rejected=rejected[shared:] if rejected else None)]


def _before(row: dict) -> list[dict]:
    if column := turns.column(row):
        return turns.messages(row[column])
    if "instruction" in row:
        return alpaca({**row, **dict.fromkeys(COMPLETION)})[0].conversation.messages
    if column := first(row, (*PROMPT, *QUESTION)):
        return asked(row, column)
    return []


def _replies(row: dict, column: str) -> list[dict] | None:
    """A reply as messages: a text, a turn, a list of turns, or the transcript of a whole chat."""
    value = structure(row[column])
    value = [value] if isinstance(value, dict) else value
    if turns.shape(value):
        return turns.messages(value)
    value = row[column]
    if value in (None, [], {}):
        return None
    if not isinstance(value, str):
        raise BadCell(column, f"must be text or a list of turns, got {kind(value)}")
    if not value.strip():
        return None
    if not turns.column(row) and not first(row, (*PROMPT, *QUESTION, "instruction")):
        return transcripts.transcript(value) or [assistant(value)]
    return [assistant(value)]


def is_comparison(row: dict) -> bool:
    """Two replies and a verdict, as LLMBar and arena logs have them."""
    return any(a in row and b in row for a, b in _SIDES) and first(row, ("label", "winner", "preference")) is not None


def comparison(row: dict) -> list[Example]:
    sides = next(side for side in _SIDES if side[0] in row and side[1] in row)
    column = first(row, ("winner", "preference", "label"))
    verdict = str(row[column]).strip().lower()
    if verdict not in (*_LEFT, *_RIGHT):
        raise BadCell(column, f"says {str(row[column])[:40]!r}, which prefers neither reply")
    better, worse = sides if verdict in _LEFT else sides[::-1]
    found = preference({**row, "chosen": row[better], "rejected": row[worse]})
    return [Example(found[0].conversation, {k: v for k, v in found[0].extras.items() if k != "label"})]


def _rated(row: dict) -> str | None:
    return next((name for name in ("kto_tag", "label") if str(row.get(name)).lower() in ("true", "false")), None)


def is_rated(row: dict) -> bool:
    """KTO: one reply and whether it was liked."""
    if _rated(row) is None:
        return False
    asks = first(row, (*PROMPT, "instruction")) is not None and first(row, COMPLETION) is not None
    return asks or turns.column(row) is not None


def rated(row: dict) -> list[Example]:
    tag = _rated(row)
    if turns.column(row):
        messages = turns.messages(row[turns.column(row)])
    elif "instruction" in row:
        messages = alpaca(row)[0].conversation.messages
    else:
        messages = asked(row, first(row, PROMPT)) + answered(row, first(row, COMPLETION))
    return [example(row, messages, label=None, desirable=str(row[tag]).lower() == "true")]


# Benchmarks -----------------------------------------------------------------------------------------------------------


def is_self_instruct(row: dict) -> bool:
    return "instruction" in row and isinstance(structure(row.get("instances")), list)


def self_instruct(row: dict) -> list[Example]:
    """One conversation per instance of a seed task."""
    instances = structure(row["instances"])
    if not instances or not all(isinstance(instance, dict) for instance in instances):
        raise BadCell("instances", "must be a list of objects with input and output")
    return [found for instance in instances for found in alpaca({**row, "input": None, **instance})]


# The types of BFCL's schemas (Gorilla's own words) in JSON Schema's.
_TYPES = {"dict": "object", "float": "number", "tuple": "array", "list": "array", "any": "string", "double": "number"}


def is_bfcl(row: dict) -> bool:
    question = row.get("question")
    nested = isinstance(question, list) and question and isinstance(question[0], list)
    return bool(nested) and isinstance(row.get("function"), list)


def bfcl(row: dict) -> list[Example]:
    """Berkeley Function Calling Leaderboard: the question's messages and its functions; the answers stand elsewhere."""
    messages = [message for turn in row["question"] for message in turns.messages(turn)]
    return [example({**row, "tools": [_json_schema(function) for function in row["function"]]}, messages)]


def _json_schema(value):
    if isinstance(value, list):
        return [_json_schema(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: _json_schema(item) for key, item in value.items()}
    if isinstance(found.get("type"), str):
        found["type"] = _TYPES.get(found["type"], found["type"])
    return found


def is_toolalpaca(row: dict) -> bool:
    return isinstance(row.get("instructions"), list) and isinstance(row.get("function_description"), dict)


def toolalpaca(row: dict) -> list[Example]:
    """ToolAlpaca's evaluation APIs: one conversation per instruction.

    A golden action may wait for the result of an earlier one (`${id from search}`): the answer then holds the calls
    before it, and all golden actions are the reference.
    """
    schemas = [_api(name, told) for name, told in row["function_description"].items() if name != "components"]
    golden = row.get("golden_answers") or []
    found = []
    for number, instruction in enumerate(row["instructions"]):
        actions = golden[number] if number < len(golden) and isinstance(golden[number], list) else []
        calls = _known_calls(actions)
        reply = [{"role": "assistant", "content": "", "tool_calls": calls}] if calls else []
        reference = json.dumps(actions, ensure_ascii=False) if actions else None
        asks = user(text({"instructions": instruction}, "instructions"))
        found.append(example({"tools": schemas}, [asks, *reply], reference=reference))
    if not found:
        raise BadCell("instructions", "is empty")
    return found


def _known_calls(actions: list) -> list[dict]:
    calls = []
    for action in actions:
        arguments = structure(action.get("Action_Input")) if isinstance(action, dict) else None
        if not isinstance(arguments, dict) or "${" in json.dumps(arguments):
            break
        calls.append({"type": "function", "function": {"name": str(action.get("Action")), "arguments": arguments}})
    return calls


def _api(name: str, told) -> dict:
    """A JSON schema from ToolAlpaca's description: a sentence, then `Parameters: {"name": "Required. string. …"}`."""
    told = str(told)
    found = re.search(r"^Parameters: (\{.*\})$", told, re.M)
    given = structure(found[1]) if found else {}
    given = given if isinstance(given, dict) else {}
    properties = {key: _parameter(str(words)) for key, words in given.items()}
    required = [key for key, words in given.items() if str(words).startswith("Required.")]
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"name": name, "description": told.split("\nParameters:")[0].strip(), "parameters": parameters}


def _parameter(words: str) -> dict:
    kind = re.match(r"(?:Required\. )?(\w+)", words)
    known = {"string", "integer", "number", "boolean", "array", "object"}
    given = kind[1].lower() if kind else ""
    return {"type": _TYPES.get(given, given) if _TYPES.get(given, given) in known else "string", "description": words}
