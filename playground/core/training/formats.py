"""Does an answer have the form that a recipe teaches? Text in, yes or no out; and the rows of JSON calls. No torch."""

import json
import re
from collections.abc import Sequence

from playground.core import phrases, synthesis
from playground.core.tool_formats import react
from playground.core.tool_formats.values import Call, Fault

# What a recipe can be scored by → what the share counts.
SCORES = {
    "exact_calls": "exact calls",
    "json_calls": "exact calls in JSON",
    "reasoning_format": "answers that think first",
    "react_format": "answers in the ReAct form",
    "persona": "answers in the persona",
    "short_answers": "short answers that end there",
}
SHORT = 25  # words; the longest answer in the instructions has 22
# One thought, closed, and one answer, closed: the reasoning template's form.
REASONING = re.compile(r"\s*<\|thinking\|>(.+?)</\|thinking\|>\s*<answer>(.+?)</answer>\s*", re.DOTALL)
STEP = re.compile(r"\s*(?:<Thought>.+?</Thought>\s*)?(?P<act>.+)", re.DOTALL)
FINAL = re.compile(r"<Final_Answer>.+?</Final_Answer>\s*", re.DOTALL)


def thinks_first(answer: str) -> bool:
    """`<|thinking|>…</|thinking|>` and then `<answer>…</answer>`, each once, and nothing beside them."""
    return bool(REASONING.fullmatch(answer)) and answer.count("<answer>") == answer.count("<|thinking|>") == 1


def is_react(answer: str) -> bool:
    """A thought, then either actions that can be read or a final answer; no invented observation."""
    if "<Observation>" in answer or "<Thought>" not in answer:
        return False
    act = STEP.fullmatch(answer)
    if act and FINAL.fullmatch(act["act"]):
        return True
    calls = react.parse(answer).calls
    return bool(calls) and not any(isinstance(call, Fault) for call in calls)


def is_short(answer: str) -> bool:
    """An answer in a few words on one line, and no further heading or remark after it."""
    return bool(answer.strip()) and "\n" not in answer.strip() and len(answer.split()) <= SHORT


def in_persona(answer: str, marks: Sequence[str]) -> bool:
    """All the marks of the persona are in the answer, in whatever case."""
    return all(mark.lower() in answer.lower() for mark in marks)


# ---- JSON calls ------------------------------------------------------------------------------------------------


def json_calls(n: int, seed: int = 0, split: str = phrases.TRAIN) -> list[dict]:
    """`n` pairs: a question, and the calls it needs as a JSON list of `{"name", "arguments"}`, empty where none is."""
    pairs: dict[str, dict] = {}
    for row in synthesis.tool_calls(n + n // 5 + 20, seed, split):
        ((messages, due),) = synthesis.questions([row])
        question = messages[-1]["content"]
        pairs.setdefault(question, {"instruction": question, "output": json.dumps(due, ensure_ascii=False)})
    return list(pairs.values())[:n]


def read_json_calls(answer: str) -> list[Call | Fault]:
    """The calls in an answer that should be a JSON list of them."""
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError) as error:
        return [Fault("malformed", f"the answer is not JSON: {error}", answer)]
    return [_call(one) for one in (value if isinstance(value, list) else [value])]


def _call(value) -> Call | Fault:
    if isinstance(value, dict) and isinstance(value.get("name"), str) and isinstance(value.get("arguments"), dict):
        return Call(value["name"], value["arguments"])
    return Fault("malformed", 'a call must be {"name": …, "arguments": {…}}', json.dumps(value))


def inconsistent(pairs: Sequence[dict]) -> list[str]:
    """What is wrong with pairs, a sentence each: unreadable calls, calls that fit no tool, contradictions."""
    from playground.core import tools

    schemas, seen, found = tools.schemas(), {}, []
    for number, pair in enumerate(pairs, 1):
        question, output = pair["instruction"], pair["output"]
        first, answer = seen.setdefault(question, (number, output))
        if answer != output:
            found.append(f"row {number} answers {question!r} differently from row {first}")
        for call in read_json_calls(output):
            fault = call if isinstance(call, Fault) else tools.check(call, schemas)
            if fault:
                found.append(f"row {number}: {fault.reason}")
    return found


# ---- ReAct -----------------------------------------------------------------------------------------------------
