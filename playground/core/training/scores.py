"""Exact tool calls on rows the training has not seen: what a tool recipe is judged by."""

from collections.abc import Iterator

from playground.core import scoring, templates
from playground.core.messages import Conversation, from_row
from playground.core.tool_formats import for_template
from playground.core.training.answer import answer_batch, stops
from playground.errors import PlaygroundError


def questions(rows: list[dict]) -> Iterator[tuple[Conversation, list[dict]]]:
    """Each row as the conversation up to its last question, and the calls that are due there (none for talk)."""
    for row in rows:
        conversation = from_row(row)
        messages = conversation.messages
        last = max(i for i, message in enumerate(messages) if message["role"] == "user")
        due = [call["function"] for call in messages[last + 1].get("tool_calls") or []]
        yield Conversation(messages[: last + 1], conversation.tools, conversation.variables), due


def exact_calls(
    model, tokenizer, template, rows: list[dict], batch_size=40, max_new_tokens=112, adapt=lambda: None
) -> scoring.Score:
    """Ask the model every row's question, greedily, and count the replies that make exactly the calls that are due."""
    format = for_template(template, tokenizer)
    if format is None:
        raise PlaygroundError(f"the template {template.name!r} writes no tool calls, so none can be counted")
    stop_ids, stop_strings = stops(template, tokenizer)
    asked = [
        (templates.render(template, conversation, tokenizer, add_generation_prompt=True).ids, conversation.tools, due)
        for conversation, due in questions(rows)
    ]
    asked.sort(key=lambda one: len(one[0]))
    outcomes, kinds = [], []
    for start in range(0, len(asked), batch_size):
        part = asked[start : start + batch_size]
        prompts = [ids for ids, _, _ in part]
        replies = answer_batch(model, tokenizer, prompts, max_new_tokens, stop_ids, stop_strings, adapt)
        for reply, (_, tools, due) in zip(replies, part, strict=True):
            outcomes.append(scoring.outcome(due, format.parse(reply).calls, tools))
            kinds.append(scoring.kind(due))
    return scoring.score(outcomes, kinds)
