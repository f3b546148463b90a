"""From a row to conversations: what every format's converter gives, and the formats of prompts and answers."""

import json
from dataclasses import dataclass, field

from playground.core.datasets import cells, transcripts, turns
from playground.core.datasets.cells import BadCell, filled, first, is_scalar, structure, text, written
from playground.core.messages import Conversation, from_row
from playground.errors import PlaygroundError

SYSTEM = ("system", "system_prompt", "system_message")
REASONING = (
    *("reasoning_content", "reasoning", "think", "thinking", "thought", "thoughts", "rationale", "cot"),
    *("chain_of_thought", "complex_cot", "reasoning_trace"),
)
INPUT = ("input", "context")
LABELS = ("label", "category", "subject", "class", "topic", "task")
PROMPT = ("prompt", "user")
QUESTION = ("question", "query", "problem", "input", "source")
COMPLETION = ("completion", "response", "output", "answer", "assistant")
ANSWER = (
    *("answer", "response", "best answer", "output", "final_answer", "correct_answer", "solution", "target"),
    *("answers", "answerkey"),
)
PROMPTS_ONLY = ("prompt", "question", "instruction", "query", "problem", "text")


@dataclass(frozen=True)
class Example:
    """A conversation and what its row says besides: `reference`, `rejected`, `desirable`, `label`."""

    conversation: Conversation
    extras: dict = field(default_factory=dict)


def example(row: dict, messages: list[dict], **extras) -> Example:
    """An example with the system text, the tools and the template variables that its row may give in their columns."""
    system = filled(row, SYSTEM)
    if system and (not messages or messages[0].get("role") != "system"):
        messages = [{"role": "system", "content": text(row, system)}, *messages]
    variables = structure(row.get("chat_template_kwargs")) or {}
    if not isinstance(variables, dict):
        raise BadCell("chat_template_kwargs", f"must be an object, got {cells.kind(variables)}")
    label = next((row[name] for name in LABELS if _is_label(row.get(name))), None)
    given = {"label": label, "reference": row.get("reference")} | extras
    conversation = from_row({**variables, "messages": messages, "tools": tools(row)})
    return Example(conversation, {key: value for key, value in given.items() if value is not None})


def _is_label(value) -> bool:
    return isinstance(value, int) or (isinstance(value, str) and 0 < len(value) <= 60)


def tools(row: dict) -> list[dict]:
    """The tools of a row as OpenAI's schemas, whether they are given bare, wrapped or as JSON text."""
    column = filled(row, ("tools", "functions"))
    if column is None:
        return []
    value = structure(row[column])
    value = [value] if isinstance(value, dict) else value
    if not isinstance(value, list):
        raise BadCell(column, f"must be a list of JSON schemas, got {cells.kind(value)}")
    schemas = [structure(tool) for tool in value]
    if not all(isinstance(tool, dict) for tool in schemas):
        raise BadCell(column, "must be a list of JSON schemas")
    return [tool if "name" not in tool else {"type": "function", "function": tool} for tool in schemas]


def user(prompt: str, extra: str = "") -> dict:
    """A user message. The Alpaca template writes instruction and input apart; every other one reads them joined."""
    if not extra.strip():
        return {"role": "user", "content": prompt}
    if not prompt.strip():
        return {"role": "user", "content": extra}
    return {"role": "user", "content": f"{prompt}\n\n{extra}", "instruction": prompt, "input": extra}


def assistant(answer: str, reasoning: str = "") -> dict:
    """An assistant message; `<think>…</think>` before the answer is its reasoning."""
    if not reasoning.strip() and (parts := transcripts.split_think(answer)):
        reasoning, answer = parts
    message = {"role": "assistant", "content": answer}
    return message | {"reasoning_content": reasoning} if reasoning.strip() else message


# Chats ----------------------------------------------------------------------------------------------------------------


def has_turns(kinds: tuple[str, ...]):
    def fits(row: dict) -> bool:
        column = turns.column(row)
        return column is not None and turns.shape(row[column], column) in kinds

    return fits


def chat(row: dict) -> list[Example]:
    return [example(row, turns.messages(row[turns.column(row)]), rejected=_rejected(row))]


def _rejected(row: dict) -> list[dict] | None:
    """The reply that was not preferred, where it stands as messages beside the whole chat: so core.split writes it."""
    value = row.get("rejected")
    return turns.messages(value) if turns.shape(value) == "messages" else None


def is_nested(row: dict) -> str | None:
    """The one column that holds a whole chat row of its own, as `body` or `context` do; else None."""
    found = [k for k, v in row.items() if isinstance(v, dict) and turns.column(cells.lower(v)) is not None]
    return found[0] if len(found) == 1 else None


def nested(row: dict) -> list[Example]:
    inner = cells.lower(row[is_nested(row)])
    return chat({key: inner[key] for key in (*turns.COLUMNS, *SYSTEM, "tools", "functions") if key in inner})


def is_transcript(row: dict) -> bool:
    return transcripts.transcript(row.get("text")) is not None


def from_transcript(row: dict) -> list[Example]:
    return [example(row, transcripts.transcript(row["text"]))]


# Prompts and answers --------------------------------------------------------------------------------------------------


def is_pair(prompts: tuple[str, ...], answers: tuple[str, ...]):
    def fits(row: dict) -> bool:
        prompt, answer = first(row, prompts), first(row, answers)
        return prompt is not None and answer is not None and (_is_prompt(row[prompt]))

    return fits


def _is_prompt(value) -> bool:
    return is_scalar(value) or turns.shape(value) in ("messages", "sharegpt")


def is_alpaca(row: dict) -> bool:
    return is_scalar(row.get("instruction", [])) and first(row, COMPLETION) is not None


def alpaca(row: dict) -> list[Example]:
    """Instruction, input (Dolly: context), answer; LLaMA-Factory's `history` and `system` too."""
    messages = []
    for pair in structure(row.get("history")) or []:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise BadCell("history", "must be a list of [question, answer] pairs")
        messages += [user(pair[0]), assistant(pair[1])]
    answer = filled(row, COMPLETION) or first(row, COMPLETION)
    extra = filled(row, INPUT)
    prompt = user(text(row, "instruction", empty=bool(extra)), text(row, extra) if extra else "")
    reference = row.get("target") if answer != "target" and isinstance(row.get("target"), str) else None
    return [example(row, [*messages, prompt, *answered(row, answer)], reference=reference)]


def answered(row: dict, column: str | None, reasoning: str = "") -> list[dict]:
    """The answer in `column` as messages: none where its value is missing. An empty text is a fault."""
    if column is None or row[column] is None:
        return []
    value = structure(row[column]) if column in ("completion", "chosen", "response") else row[column]
    if turns.shape(value):
        return turns.messages(value)
    return [assistant(written(row, column), reasoning)]


def asked(row: dict, column: str) -> list[dict]:
    value = row[column]
    return turns.messages(value) if turns.shape(value) else [user(text(row, column))]


def prompt_completion(row: dict) -> list[Example]:
    return [example(row, [*asked(row, first(row, PROMPT)), *answered(row, first(row, COMPLETION))])]


def is_question(row: dict) -> bool:
    answer = first(row, ANSWER) or first(row, ("mc1_targets", "mc0_targets"))
    question = first(row, QUESTION)
    return question is not None and answer is not None and answer != question and is_scalar(row[question])


def question_answer(row: dict) -> list[Example]:
    """A question with its context or its choices, and the answer as it is written; `#### 72` is also the reference."""
    column = first(row, QUESTION)
    question, choices = text(row, column), _choices(row)
    extra = text(row, "context", empty=True) if is_scalar(row.get("context")) else ""
    if choices:
        question = "\n".join([question, *(f"{letter}. {choice}" for letter, choice in choices)])
    cell = _answer(row, choices)
    messages = [user(question, extra)] + ([assistant(cell)] if cell is not None else [])
    reference = cell.rsplit("####", 1)[1].strip() if cell is not None and "####" in cell else None
    return [example(row, messages, **({"reference": reference} if reference else {}))]


def _choices(row: dict) -> list[tuple[str, str]]:
    """Letters and texts of multiple-choice options: a list, or ARC's object of `text` and `label`."""
    value = structure(next((row[name] for name in ("choices", "options") if row.get(name)), None))
    if isinstance(value, dict) and isinstance(value.get("text"), list) and isinstance(value.get("label"), list):
        return [(str(letter), str(choice)) for letter, choice in zip(value["label"], value["text"], strict=False)]
    if isinstance(value, list) and all(is_scalar(choice) for choice in value):
        return [(chr(65 + n), str(choice)) for n, choice in enumerate(value[:26])]
    return []


def _answer(row: dict, choices: list[tuple[str, str]]) -> str | None:
    """The answer's text; None where the value is missing."""
    column = filled(row, ANSWER) or first(row, ANSWER)
    if column is None:  # TruthfulQA's multiple choice: {"a true answer": 1, "a false one": 0}; the first is always true
        column = first(row, ("mc1_targets", "mc0_targets"))
        right = [choice for choice, truth in (structure(row[column]) or {}).items() if truth]
        if not right:
            raise BadCell(column, "marks no choice as right")
        return right[0]
    value = structure(row[column])
    if isinstance(value, dict) and isinstance(value.get("text"), list):  # SQuAD
        value = value["text"]
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return value[0]
    if isinstance(value, int) and not isinstance(value, bool) and value in range(len(choices)):
        return choices[value][0]
    return None if row[column] is None else written(row, column)


def is_prompt_only(row: dict) -> bool:
    if isinstance(row.get("turns"), list) and row["turns"] and all(isinstance(turn, str) for turn in row["turns"]):
        return True
    column = first(row, PROMPTS_ONLY)
    # a number is the key of a prompt kept elsewhere, as in a log of votes
    return column is not None and isinstance(row[column], str) and not row[column].strip().isdigit()


def prompt_only(row: dict) -> list[Example]:
    """Prompts without an answer: one text, or MT-bench's `turns`, the user's side of a chat."""
    if isinstance(row.get("turns"), list):
        reference = row.get("reference")
        return [example(row, [user(turn) for turn in row["turns"]], reference=reference)]
    column = first(row, PROMPTS_ONLY)
    extra = filled(row, INPUT)
    return [example(row, [user(text(row, column), text(row, extra) if extra and is_scalar(row[extra]) else "")])]


# Reasoning and acting -------------------------------------------------------------------------------------------------


def is_reasoning(row: dict) -> bool:
    question, answer = first(row, (*PROMPT, "instruction", *QUESTION)), filled(row, (*COMPLETION, *ANSWER))
    if question is None or answer is None or not isinstance(row[answer], str):
        return False
    return filled(row, REASONING) is not None or transcripts.split_think(row[answer]) is not None


def reasoning(row: dict) -> list[Example]:
    """A question, the thoughts in a column or in `<think>` before the answer, and the answer."""
    prompt, answer = first(row, (*PROMPT, "instruction", *QUESTION)), filled(row, (*COMPLETION, *ANSWER))
    extra = next((name for name in INPUT if name != prompt and row.get(name)), None)
    column = filled(row, REASONING)
    message = user(text(row, prompt), text(row, extra) if extra else "")
    return [example(row, [message, assistant(text(row, answer), text(row, column) if column else "")])]


_STEP = ("thought", "action", "action_input", "observation")
_STEPS = ("steps", "trajectory", "trace", "intermediate_steps")


def is_react(row: dict) -> bool:
    return _react_steps(row) is not None


def react(row: dict) -> list[Example]:
    steps = _react_steps(row)
    column = first(row, (*PROMPT, "instruction", *QUESTION))
    messages = transcripts.react_messages(steps)
    if not any(message["role"] == "user" for message in messages):
        extra = next((name for name in INPUT if name != column and row.get(name)), None)
        if column is None:
            raise PlaygroundError("the trace has no question")
        messages = [user(text(row, column), text(row, extra) if extra else ""), *messages]
    return [example(row, messages)]


def _react_steps(row: dict) -> list[transcripts.Step] | None:
    """The trace of a row, from a list of steps, from columns, or from the text of the answer."""
    step = transcripts.Step
    final = filled(row, ("final_answer", "answer", "output", "response"))
    end = [step("final_answer", row[final])] if final else []
    listed = structure(row.get(filled(row, _STEPS) or ""))
    if isinstance(listed, list) and all(isinstance(item, dict) for item in listed):
        items = [cells.lower(item) for item in listed]
        if all(set(item) & set(_STEP) for item in items):
            return [step(name, item[name]) for item in items for name in _STEP if item.get(name)] + end
    if filled(row, ("action",)) and filled(row, ("thought", "action_input", "observation")):
        return [step(name, row[name]) for name in _STEP if row.get(name)] + end
    for name in ("output", "response", "completion", "answer", "text", "trajectory"):
        if steps := transcripts.react_steps(row.get(name)):
            return steps
    return None


# Function calls -------------------------------------------------------------------------------------------------------


def is_function_calling(row: dict) -> bool:
    if isinstance(structure(row.get("answers")), list) and "query" in row and "tools" in row:  # xLAM
        return True
    question = structure(row.get("input"))
    return isinstance(question, dict) and "user_question" in question


def function_calling(row: dict) -> list[Example]:
    """`{instruction, input: {user_question, function_call_example}, output: {function_call}}`, and xLAM's rows."""
    if "query" in row:
        return [example(row, [user(text(row, "query")), _called(structure(row["answers"]))])]
    question, answer = structure(row["input"]), structure(row.get("output"))
    shown = question.get("function_call_example")
    if shown is not None and not isinstance(shown, str):
        shown = json.dumps(shown, ensure_ascii=False)
    system = text(row, "instruction", empty=True)
    if shown:
        system = f"{system}\n\nExample of a function call:\n{shown}".strip()
    messages = [{"role": "system", "content": system}] if system else []
    messages.append(user(text(question, "user_question")))
    if isinstance(answer, dict) and "function_call" in answer:
        answer = structure(answer["function_call"])
    return [example(row, [*messages, *([] if answer is None else [_called(answer)])])]


def _called(value) -> dict:
    """An assistant message that makes the calls; one that is not written as name and arguments stays text."""
    calls = value if isinstance(value, list) else [value]
    found = []
    for call in calls:
        function = call.get("function", call) if isinstance(call, dict) else {}
        function = function if isinstance(function, dict) else {"name": function} | call
        arguments = structure(function.get("arguments", function.get("parameters", {})))
        if not isinstance(function.get("name"), str) or not isinstance(arguments, dict):
            raw = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            return assistant(text({"function_call": raw}, "function_call"))
        found.append({"type": "function", "function": {"name": function["name"], "arguments": arguments}})
    return {"role": "assistant", "content": "", "tool_calls": found}
