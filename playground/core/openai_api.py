"""The OpenAI chat-completions format, as values: a request read, an answer written. No server, no model.

Format: OpenAI API reference, "Chat Completions" (https://platform.openai.com/docs/api-reference/chat). What is not
supported (several choices, log probabilities, images, forced tools) is refused in one sentence, never ignored; fields
that only describe the request (user, metadata, store …) are.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from playground.config import SamplingConfig, parse
from playground.core.messages import Conversation, check_messages, from_row
from playground.core.streaming import Span
from playground.core.tool_formats import Call, Fault, Parsed
from playground.errors import PlaygroundError

# Ours ← theirs. What OpenAI's clients cannot name goes through their `extra_body`, under our own names.
SAMPLING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "max_new_tokens": "max_new_tokens",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
}
REFUSED = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "tool_choice": ("auto", "none"),
    "functions": ([],),
}
MAX_STOPS = 16


@dataclass(frozen=True)
class Request:
    model: str
    conversation: Conversation
    sampling: SamplingConfig
    stop: tuple[str, ...] = ()
    stream: bool = False
    with_usage: bool = False  # a last chunk with the token counts


def read(body) -> Request:
    """The request in `body` (parsed JSON). Raises PlaygroundError for what is missing, wrong or not supported."""
    if not isinstance(body, dict):
        raise PlaygroundError("the request must be a JSON object with model and messages")
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise PlaygroundError("model is missing; GET /v1/models lists the names")
    for name, allowed in REFUSED.items():
        if body.get(name) is not None and body[name] not in allowed:
            raise PlaygroundError(f"{name}={json.dumps(body[name])[:80]} is not supported; leave it out")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise PlaygroundError("messages is missing; it must be a list of messages")
    tools = [] if body.get("tool_choice") == "none" else body.get("tools") or []
    conversation = from_row({"messages": [_ours(message) for message in messages], "tools": tools})
    check_messages(conversation.messages)
    options = body.get("stream_options") or {}
    return Request(
        model=body["model"],
        conversation=conversation,
        sampling=_sampling(body),
        stop=_stops(body.get("stop")),
        stream=bool(body.get("stream")),
        with_usage=isinstance(options, dict) and bool(options.get("include_usage")),
    )


def _ours(message):
    """A message with the names that templates know: developers are the system, absent content is empty."""
    if not isinstance(message, dict):
        return message
    message = {key: value for key, value in message.items() if value is not None}
    if message.get("role") == "developer":
        message["role"] = "system"
    if isinstance(message.get("content"), list):
        for part in message["content"]:
            if isinstance(part, dict) and part.get("type") not in ("text", None):
                raise PlaygroundError(f"a message part of type {part.get('type')!r} is not supported; send text")
    return message


def _sampling(body: dict) -> SamplingConfig:
    given = {ours: body[theirs] for theirs, ours in SAMPLING.items() if body.get(theirs) is not None}
    return parse(SamplingConfig, {"repetition_penalty": 1.0, **given})


def _stops(value) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value or []
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise PlaygroundError(f"stop must be a text or a list of at most {MAX_STOPS} texts")
    return tuple(stops)


def tool_calls(calls: Sequence[Call | Fault], id: str) -> list[dict]:
    """Calls as OpenAI's clients read them: arguments are JSON text, each call has an id of its own."""
    return [
        {
            "id": f"call_{id}_{number}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
        }
        for number, call in enumerate(call for call in calls if isinstance(call, Call))
    ]


def content(parsed: Parsed) -> str:
    """The text of a reply; a call that cannot be read stays in it as it was written, so that nobody loses it."""
    return "".join([parsed.content, *(call.raw for call in parsed.calls if isinstance(call, Fault))])


def usage(prompt: int, completion: int) -> dict:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def finish(reason: str | None, calls: Sequence) -> str:
    """OpenAI's word for how a reply ended."""
    if reason == "length":
        return "length"
    return "tool_calls" if calls else "stop"


def completion(id: str, created: int, model: str, parsed: Parsed, reason: str | None, counts: dict) -> dict:
    """A whole answer (`chat.completion`)."""
    calls = tool_calls(parsed.calls, id)
    message = {"role": "assistant", "content": content(parsed) or (None if calls else "")}
    if parsed.reasoning:
        message["reasoning_content"] = parsed.reasoning
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish(reason, calls)}
    return {
        "id": f"chatcmpl-{id}",
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [choice],
        "usage": counts,
    }


class Chunks:
    """The same answer as `chat.completion.chunk` objects, made while the reply grows."""

    def __init__(self, id: str, created: int, model: str):
        self.id = id
        self.head = {
            "id": f"chatcmpl-{id}",
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }
        self.shown = {"content": "", "reasoning_content": ""}

    def first(self) -> dict:
        return self._chunk({"role": "assistant", "content": ""})

    def spans(self, spans: Sequence[Span]) -> Iterator[dict]:
        """What is new in the spans of a reply that still grows; calls are told when they are whole."""
        texts = {kind: [span.text for span in spans if span.kind == kind] for kind in ("content", "reasoning")}
        thoughts = [text.strip() for text in texts["reasoning"]]
        yield from self.grown("".join(texts["content"]).strip(), "\n".join(text for text in thoughts if text))

    def grown(self, text: str, reasoning: str = "") -> Iterator[dict]:
        """What is new of the text and of the reasoning so far."""
        for key, now in (("reasoning_content", reasoning), ("content", text)):
            before = self.shown[key]
            if len(now) > len(before) and now.startswith(before):
                self.shown[key] = now
                yield self._chunk({key: now[len(before) :]})

    def last(self, parsed: Parsed, reason: str | None) -> Iterator[dict]:
        yield from self.grown(content(parsed), parsed.reasoning)
        calls = tool_calls(parsed.calls, self.id)
        for number, call in enumerate(calls):
            yield self._chunk({"tool_calls": [{"index": number, **call}]})
        yield self._chunk({}, finish(reason, calls))

    def counts(self, counts: dict) -> dict:
        return {**self.head, "choices": [], "usage": counts}

    def _chunk(self, delta: dict, reason: str | None = None) -> dict:
        return {**self.head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]}


def error(message: str, kind: str = "invalid_request_error", code: str | None = None) -> dict:
    """OpenAI's error object."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
