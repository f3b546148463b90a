"""What a scorecard asks: built-in sets of questions, the leaderboard's files, and a visitor's own rows.

questions = built_in("demo", 40)
questions = choose(read([path]), 40)
"""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from playground.core import bfcl, jsonl, phrases, scoring, synthesis
from playground.core import tools as toolbox
from playground.core.jsonl import printable
from playground.core.messages import Conversation, check_messages, from_row
from playground.core.tool_formats.values import Call
from playground.core.tools import calculator, weather
from playground.errors import PlaygroundError

KINDS = {"get_weather": "weather", "several calls": "several calls", "no call": "no tool"}
IRRELEVANT = "irrelevant"
# Name → what a page says about it.
SETS = {
    "demo": "Calculator, weather and talk: the generator's held-out questions",
    "every-kind": "The same number of each kind, irrelevant questions included",
    "calculator": "Calculator only",
    "weather": "Weather only",
    "several": "Two calls in one turn",
    "no-tool": "Talk that needs no tool",
    "irrelevant": "The tool that would be needed is not on offer",
}
MAX_QUESTIONS = 1000
_OTHER = {calculator.NAME: weather.NAME, weather.NAME: calculator.NAME}
_PARTS = ("calculator", "weather", "several", "no-tool", "irrelevant")


@dataclass(frozen=True)
class Question:
    """`expected`: calls as {"name", "arguments"}; where `bfcl` is the leaderboard's row, its possible answers."""

    id: str
    kind: str
    messages: list[dict]
    tools: list[dict]
    expected: list[dict]
    bfcl: dict | None = None

    @property
    def key(self) -> str:
        """The same for the same question, whatever set it comes from."""
        text = json.dumps([self.messages, self.tools, self.expected], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def built_in(name: str, n: int = 40, seed: int = 0) -> list[Question]:
    """`n` questions of a built-in set; the same name, `n` and seed give the same questions."""
    _check_count(n)
    if name == "demo":
        return _of_rows(synthesis.tool_calls(n, seed, phrases.TEST))
    if name == "every-kind":
        shares = [n // len(_PARTS) + (i < n % len(_PARTS)) for i in range(len(_PARTS))]
        return [q for part, share in zip(_PARTS, shares, strict=True) if share for q in built_in(part, share, seed)]
    if name not in SETS:
        raise PlaygroundError(f"there is no question set {name!r}; there are {', '.join(SETS)}, or name a file")
    count = max(200, n * (24 if name == "several" else 6))  # 6 in 100 ask for several calls
    if name == "irrelevant":  # rows of their own, so that "every-kind" does not ask the same thing twice
        return _irrelevant(synthesis.tool_calls(count, ~seed, phrases.TEST))[:n]
    kind = {"several": "several calls", "no-tool": "no tool"}.get(name, name)
    rows = _of_rows(synthesis.tool_calls(count, seed, phrases.TEST))
    return [question for question in rows if question.kind == kind][:n]


def of_data(name: str, conversations: Sequence[Conversation]) -> list[Question]:
    """A data set's rows as questions: up to the last answer to a user, and the calls it makes; rows without tools are
    left out, for no call can be due there. Raises PlaygroundError where nothing is left.
    """
    found = []
    for number, conversation in enumerate(conversations, 1):
        messages = conversation.messages
        answers = [
            i for i, m in enumerate(messages) if m["role"] == "assistant" and i and messages[i - 1]["role"] == "user"
        ]
        if not (conversation.tools and answers):
            continue
        due = [call["function"] for call in messages[answers[-1]].get("tool_calls") or []]
        due = [{"name": call["name"], "arguments": call["arguments"]} for call in due]
        found.append(Question(str(number), kind(due), messages[: answers[-1]], conversation.tools, due))
    if not found:
        raise PlaygroundError(
            f"{name} has no rows with tools, so there are no calls to count; choose data of tool calls"
        )
    return found


def _of_rows(rows: list[dict]) -> list[Question]:
    asked = synthesis.questions(rows)
    return [
        Question(str(number), kind(due), messages, row["tools"], due)
        for number, (row, (messages, due)) in enumerate(zip(rows, asked, strict=True), 1)
    ]


def _irrelevant(rows: list[dict]) -> list[Question]:
    """Questions for one of the demo tools, with only the other on offer."""
    found = []
    for question in _of_rows(rows):
        if len(question.expected) != 1 or len(question.messages) != 1:
            continue
        other = _OTHER[question.expected[0]["name"]]
        found.append(Question(question.id, IRRELEVANT, question.messages, toolbox.schemas([other]), []))
    return found


def kind(expected: Sequence[dict]) -> str:
    """What is due, in a word."""
    name = scoring.kind(expected)
    return KINDS.get(name, name)


def choose(questions: list[Question], n: int, seed: int = 0) -> list[Question]:
    """The first `n`; with a seed other than 0, `n` drawn at random, in their order. 0 is all, as far as all may be."""
    if n:
        _check_count(n)
    n = min(n or MAX_QUESTIONS, len(questions))
    if not seed:
        return questions[:n]
    return [questions[i] for i in sorted(random.Random(seed).sample(range(len(questions)), n))]


def read(paths: Sequence[Path]) -> list[Question]:
    """Questions from files: a visitor's own rows, or the leaderboard's.

    The leaderboard's possible answers are among `paths`, or in `possible_answer/` beside their questions. A folder
    stands for its files. Raises PlaygroundError naming the file and the row.
    """
    answers, asked = [], []
    for path in _files(paths):
        first = _rows(path)[0][1]
        (answers if "ground_truth" in first else asked).append((path, "function" in first))
    if not asked:
        raise PlaygroundError("these are possible answers only; give the file with their questions too")
    found = []
    for path, of_leaderboard in asked:
        found += _leaderboard(path, [file for file, _ in answers]) if of_leaderboard else _own(path)
    return found


def _files(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in map(Path, paths):
        inside = [*path.glob("*.json"), *path.glob("*.jsonl"), *path.glob("possible_answer/*.json")]
        if path.is_dir() and not inside:
            raise PlaygroundError(f"the folder {path} holds no .json or .jsonl file")
        beside = path.parent / "possible_answer" / path.name
        files += sorted(inside) if path.is_dir() else [path, *([beside] if beside.is_file() else [])]
    if not files:
        raise PlaygroundError("no file of questions was given")
    return list(dict.fromkeys(files))


def _rows(path: Path) -> list[tuple[int, dict]]:
    return [(number, printable(row)) for number, row in jsonl.rows(path)]


def _leaderboard(path: Path, answers: list[Path]) -> list[Question]:
    if "irrelevance" in path.name:
        pairs = [(row, []) for _, row in _rows(path)]
    else:
        fitting = [file for file in answers if file.name == path.name] or answers
        if len(fitting) != 1:
            raise PlaygroundError(f"{path.name} needs its file of possible answers; give both")
        pairs = bfcl.read(path, fitting[0])
    found = []
    for row, expected in pairs:
        try:
            kind = "BFCL " + row["id"].rpartition("_")[0].replace("_", " ")
            (messages, *_), tools = row["question"], bfcl.tools(row)
            check_messages(messages)
            possible = [
                {n: {a: v[0] for a, v in given.items() if v[0] != ""} for n, given in e.items()} for e in expected
            ]
            if possible:
                bfcl.check(row["function"], possible, expected, row["id"])
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, StopIteration, PlaygroundError) as error:
            raise PlaygroundError(
                f"{path.name}, {row.get('id')!r} is no question of the leaderboard: {error}"
            ) from None
        found.append(
            Question(row["id"], kind, messages, tools, expected, {"id": row["id"], "function": row["function"]})
        )
    return found


def _own(path: Path) -> list[Question]:
    found = []
    for number, row in _rows(path):
        try:
            found.append(_question(row, number))
        except PlaygroundError as error:
            raise PlaygroundError(f"{path.name}, row {number}: {error}") from None
    return found


def _question(row: dict, number: int) -> Question:
    """A visitor's row: {"question" | "messages", "tools", "expected": [{"name", "arguments"}]}."""
    if "messages" not in row and not isinstance(row.get("question"), str):
        raise PlaygroundError('a row needs "question", a text, or "messages"')
    given = row.get("tools", toolbox.schemas())
    tools = [_tool(tool) for tool in given] if isinstance(given, list) else []
    if not tools:
        raise PlaygroundError('"tools" must be a list of one tool schema or more')
    messages = row.get("messages") or [{"role": "user", "content": row.get("question", "")}]
    messages = from_row({"messages": messages}).messages
    check_messages(messages)
    if messages[-1]["role"] not in ("user", "tool"):
        raise PlaygroundError("the last message must be the user's or a tool's, for the model to answer")
    if not isinstance(row.get("expected"), list):
        raise PlaygroundError('a row needs "expected", a list of {"name", "arguments"}; [] where no call is due')
    expected = [_expected(call, tools) for call in row["expected"]]
    name = row.get("kind")
    return Question(str(row.get("id", number)), name if isinstance(name, str) and name else kind(expected),
                    messages, tools, expected)  # fmt: skip


def _tool(schema) -> dict:
    function = schema.get("function", schema) if isinstance(schema, dict) else None
    parameters = function.get("parameters") if isinstance(function, dict) else None
    if not isinstance(parameters, dict) or not isinstance(function.get("name"), str):
        raise PlaygroundError('a tool schema must hold a "name" and "parameters", a JSON schema')
    if not isinstance(parameters.get("properties", {}), dict):
        raise PlaygroundError(f'the "properties" of {function["name"]} must be an object')
    return {"type": "function", "function": function}


def _expected(call, tools: list[dict]) -> dict:
    name = call.get("name") if isinstance(call, dict) else None
    arguments = call.get("arguments") if isinstance(call, dict) else None
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise PlaygroundError('an expected call must read {"name": …, "arguments": {…}}')
    if fault := toolbox.check(Call(name, arguments), tools):
        raise PlaygroundError(f"the expected call does not fit its tools: {fault.reason}")
    return {"name": name, "arguments": arguments}


def _check_count(n: int) -> None:
    if not 1 <= n <= MAX_QUESTIONS:
        raise PlaygroundError(f"the number of questions must be between 1 and {MAX_QUESTIONS:,}, got {n:,}")
