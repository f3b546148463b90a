"""Conversations that are one running text: thinking marks, ReAct traces, Human/Assistant transcripts."""

import json
import re
from dataclasses import dataclass

from playground.errors import PlaygroundError

_THINK = re.compile(r"\s*<(think|thinking|reasoning|\|thinking\|)>(.*?)</(?:\1|\|thinking\|)>", re.S)
_ANSWER = re.compile(r"\s*<answer>(.*)</answer>\s*", re.S)


def split_think(text: str) -> tuple[str, str] | None:
    """(reasoning, answer) of a reply that begins with `<think>…</think>`; None where it does not."""
    found = _THINK.match(text)
    if found is None:
        return None
    reasoning, answer = found[2].strip(), text[found.end() :].strip()
    if whole := _ANSWER.fullmatch(answer):
        answer = whole[1].strip()
    return (reasoning, answer) if reasoning and answer else None


# ReAct ----------------------------------------------------------------------------------------------------------------
# Yao et al., https://arxiv.org/abs/2210.03629: "Thought 1: … Action 1: Search[x] Observation 1: …". Later forms put the
# input on a line of its own ("Action Input: …"), write JSON, or use tags as our own template does.

_NAMES = "Question|Task|Thought|Action[ _]Input|Action|Observation|Final[ _]Answer|Answer"
_LABEL = re.compile(rf"^[ \t]*({_NAMES})(?: \d+)?:[ \t]*", re.M)
_TAG = re.compile(r"<(Question|Thought|Action|Action_Input|Observation|Final_Answer)>(.*?)</\1>", re.S)
_BRACKETS = re.compile(r"(\w[\w.-]*)\[(.*)\]", re.S)


@dataclass(frozen=True)
class Step:
    """A labelled piece of a trace: question, thought, action, action_input, observation or final_answer."""

    label: str
    body: str | dict


def react_steps(text) -> list[Step] | None:
    """The pieces of a ReAct trace in `text`; None where it is none."""
    if not isinstance(text, str) or ("Thought" not in text and "Action" not in text):
        return None
    steps = [Step(found[1].lower(), found[2].strip()) for found in _TAG.finditer(text)]
    if not steps:
        marks = list(_LABEL.finditer(text))
        ends = [mark.start() for mark in marks[1:]] + [len(text)] * bool(marks)
        names = (mark[1].lower().replace(" ", "_") for mark in marks)
        steps = [
            Step({"task": "question", "answer": "final_answer"}.get(name, name), text[mark.end() : end].strip())
            for name, mark, end in zip(names, marks, ends, strict=True)
        ]
    labels = {step.label for step in steps}
    if "action" not in labels and not {"thought", "final_answer"} <= labels:
        return None
    return steps if labels & {"thought", "observation", "action_input"} else None


def react_messages(steps: list[Step]) -> list[dict]:
    """Messages of a trace: thoughts as reasoning, actions as tool calls, observations as their results."""
    messages, thought, action = [], [], None

    def answer(**more) -> None:
        message = {"role": "assistant", "content": "", **more}
        if thought:
            message["reasoning_content"] = "\n".join(thought)
            thought.clear()
        messages.append(message)

    def call(body=None) -> None:
        nonlocal action
        if action is not None:
            answer(tool_calls=[_call(action, body)])
        action = None

    for step in steps:
        if step.label == "action_input":
            if action is None:
                raise PlaygroundError("an Action Input has no Action before it")
            call(step.body)
            continue
        call()
        if step.label == "thought":
            if step.body:
                thought.append(step.body)
        elif step.label == "action":
            finish = _BRACKETS.fullmatch(step.body) if isinstance(step.body, str) else None
            if finish and finish[1].lower() == "finish":
                answer(content=finish[2])
            else:
                action = step.body
        elif step.label == "observation":
            messages.append({"role": "tool", "content": _written(step.body)})
        elif step.label == "final_answer":
            answer(content=_written(step.body))
        else:
            messages.append({"role": "user", "content": _written(step.body)})
    call()
    if thought:
        messages.append({"role": "assistant", "content": "\n".join(thought)})
    return messages


def _call(action, body) -> dict:
    """A tool call from an action (`name`, `name[input]` or JSON) and its input (JSON or text)."""
    found = _BRACKETS.fullmatch(action) if isinstance(action, str) and body is None else None
    if found:
        action, body = found[1], found[2]
    named = _json(action)
    if isinstance(named, dict):
        name = next((named[key] for key in ("name", "action", "tool") if key in named), None)
        keys = ("arguments", "action_input", "args", "parameters", "tool_input")
        body = next((named[key] for key in keys if key in named), body)
    else:
        name = action
    if not isinstance(name, str) or not name.strip():
        raise PlaygroundError(f"an Action must name one tool, got {str(action)[:60]!r}")
    arguments = _json(body)
    if not isinstance(arguments, dict):
        arguments = {} if body in (None, "") else {"input": body}
    return {"type": "function", "function": {"name": name.strip(), "arguments": arguments}}


def _json(value):
    if isinstance(value, str) and value.lstrip()[:1] == "{":
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _written(body) -> str:
    return body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)


# Transcripts ----------------------------------------------------------------------------------------------------------
# Each row: the marks of one style, in the order user, assistant, system. The text between two marks is a turn.

_STYLES = (
    (r"<\|im_start\|>user\n", r"<\|im_start\|>assistant\n", r"<\|im_start\|>system\n"),
    (r"###\s*(?:Instruction|Human|User):\s*", r"###\s*(?:Response|Assistant):\s*", r"###\s*System:\s*"),
    (r"(?:^|\n\n)Human:\s*", r"(?:^|\n\n)Assistant:\s*", r"(?:^|\n\n)System:\s*"),
    (r"(?:^|\n)(?:USER|User|Q):\s*", r"(?:^|\n)(?:ASSISTANT|Assistant|A):\s*", r"(?:^|\n)(?:SYSTEM|System):\s*"),
    (r"(?:<s>)?\s*\[INST\]\s*", r"\[/INST\]\s*", r"(?!)"),
)
_MARKS = tuple(re.compile(f"(?P<user>{u})|(?P<assistant>{a})|(?P<system>{s})") for u, a, s in _STYLES)
_ENDS = re.compile(r"(?:<\|im_end\|>|<\|endoftext\|>|</s>)\s*$")
_ALPACA_INPUT = re.compile(r"\s*###\s*Input:\s*")


def transcript(text) -> list[dict] | None:
    """The turns of a Human/Assistant text in one of the common styles; None where it has not both sides."""
    if not isinstance(text, str):
        return None
    for marks in _MARKS:
        found = list(marks.finditer(text))
        if {mark.lastgroup for mark in found} >= {"user", "assistant"}:
            ends = [mark.start() for mark in found[1:]] + [len(text)]
            turns = [
                _turn(mark.lastgroup, _ENDS.sub("", text[mark.end() : end]).strip())
                for mark, end in zip(found, ends, strict=True)
            ]
            # a text that ends with an open "A:" is a prompt to go on from, not a conversation
            return turns if all(turn["content"] for turn in turns) else None
    return None


def _turn(role: str, body: str) -> dict:
    parts = _ALPACA_INPUT.split(body, maxsplit=1) if role == "user" else [body]
    if len(parts) == 2 and parts[1].strip():
        instruction, extra = parts[0].strip(), parts[1].strip()
        return {"role": role, "content": f"{instruction}\n\n{extra}", "instruction": instruction, "input": extra}
    return {"role": role, "content": parts[0].strip()}
