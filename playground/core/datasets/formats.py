"""The formats that rows are recognised as: a name, whether a row is one, and the conversations of such a row.

The first that fits is taken, the peculiar ones before the general. Column names are compared in lower case.
"""

from collections.abc import Callable
from dataclasses import dataclass

from playground.core.datasets import benchmarks, converters
from playground.core.datasets.cells import lower
from playground.core.datasets.converters import Example
from playground.core.messages import Conversation
from playground.errors import PlaygroundError


@dataclass(frozen=True)
class Format:
    name: str
    fits: Callable[[dict], object]
    convert: Callable[[dict], list[Example]]
    example: str  # what a row looks like, for people


FORMATS = (
    Format(
        "function-calling",
        converters.is_function_calling,
        converters.function_calling,
        "instruction, input: {user_question, function_call_example}, output: {function_call}",
    ),
    Format("bfcl", benchmarks.is_bfcl, benchmarks.bfcl, "question: [[messages]], function: [schemas]"),
    Format("toolalpaca", benchmarks.is_toolalpaca, benchmarks.toolalpaca, "Instructions, Golden_Answers, …"),
    Format("preference", benchmarks.is_preference, benchmarks.preference, "prompt (or turns so far), chosen, rejected"),
    Format("preference", benchmarks.is_comparison, benchmarks.comparison, "input, output_1, output_2, label"),
    Format("preference", benchmarks.is_rated, benchmarks.rated, "messages (or prompt, completion), label: true/false"),
    Format("messages", converters.has_turns(("messages",)), converters.chat, "messages: [{role, content}], tools"),
    Format(
        "sharegpt",
        converters.has_turns(("sharegpt",)),
        converters.chat,
        "conversations: [{from, value}], system, tools",
    ),
    Format(
        "turns",
        converters.has_turns(("pairs", "texts")),
        converters.chat,
        "conversation: [{human, assistant}] or texts",
    ),
    Format("self-instruct", benchmarks.is_self_instruct, benchmarks.self_instruct, "instruction, instances"),
    Format("react", converters.is_react, converters.react, "question, Thought / Action / Observation / Final Answer"),
    Format(
        "reasoning",
        converters.is_reasoning,
        converters.reasoning,
        "question, reasoning, answer; or <think>…</think> in it",
    ),
    Format(
        "dolly",
        lambda row: converters.is_alpaca(row) and "response" in row and "output" not in row and "input" not in row,
        converters.alpaca,
        "instruction, context, response",
    ),
    Format("alpaca", converters.is_alpaca, converters.alpaca, "instruction, input, output"),
    Format(
        "prompt-completion",
        converters.is_pair(converters.PROMPT, converters.COMPLETION),
        converters.prompt_completion,
        "prompt, completion",
    ),
    Format("question-answer", converters.is_question, converters.question_answer, "question, answer; choices"),
    Format("transcript", converters.is_transcript, converters.from_transcript, "text: ### Human: … ### Assistant: …"),
    Format("prompts", converters.is_prompt_only, converters.prompt_only, "prompt, without an answer"),
    Format("messages", converters.is_nested, converters.nested, "context: {messages, …}"),
)
NAMES = tuple(dict.fromkeys(format.name for format in FORMATS))


def recognise(row: dict) -> str | None:
    """The name of the row's format, or None."""
    found = _find(lower(row))
    return found.name if found else None


def to_conversation(row: dict, format: str | None = None) -> Conversation:
    """The row's (first) conversation. Raises PlaygroundError as `examples` does."""
    return examples(row, format)[1][0].conversation


def examples(row: dict, format: str | None = None) -> tuple[str, list[Example]]:
    """The name of the row's format and its conversations, at least one.

    Raises PlaygroundError where the format is unknown or the row does not keep to it, and BadCell, which is one too,
    where a single column is at fault.
    """
    low = lower(row)
    found = _find(low, format)
    if found is None and format in NAMES:
        columns = ", ".join(map(str, row)) or "none"
        shape = next(f.example for f in FORMATS if f.name == format)
        raise PlaygroundError(f"the row does not keep to the format {format} ({shape}); its columns are {columns}")
    if found is None:
        known, columns = ", ".join(NAMES), ", ".join(map(str, list(row)[:20])) or "none"
        given = f"there is no format {format!r}" if format else f"no known format has the columns {columns}"
        raise PlaygroundError(f"{given}; known formats are {known}")
    try:
        return found.name, found.convert(low)
    except RecursionError:
        raise PlaygroundError("the row is nested too deeply") from None
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise PlaygroundError(f"the row does not keep to the format {found.name}: {error}") from None


def _find(row: dict, name: str | None = None) -> Format | None:
    return next((format for format in FORMATS if name in (None, format.name) and format.fits(row)), None)
