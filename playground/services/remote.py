"""Lanes elsewhere: any server that speaks OpenAI's chat completions (vLLM, TGI, Ollama, llama.cpp, …).

    remotes = Remotes.read("big=http://gpu-host:8000/v1#meta-llama/Llama-3.1-8B-Instruct")
    Lane("big")                                                # asks that server

A key is taken from the environment (`BIG_API_KEY` for the endpoint `big`) or given for the time the app runs; it is
never written to a file, a log or a message. A server that hangs, breaks off, or sends what is no answer, ends its
own lane with one sentence.
"""

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from playground.config import SamplingConfig
from playground.core.messages import Conversation
from playground.core.templates import Rendered
from playground.core.tool_formats import Call, hermes
from playground.errors import PlaygroundError
from playground.services.replies import Reply

CONNECT, READ = 10.0, 60.0  # seconds to be reached in, and between two pieces of an answer
MAX_CHARACTERS = 400_000
MAX_STOPS = 4  # OpenAI takes no more
FORMAT = hermes  # how the calls of a remote model are written into its reply's text
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,60}")
# Names that not every server knows are sent only where they were changed.
_OWN = ("top_k", "min_p", "repetition_penalty")


@dataclass(frozen=True)
class Endpoint:
    """`url` ends where `/chat/completions` is to be added, as OpenAI clients take it."""

    name: str
    url: str
    model: str
    key: str = field(default="", repr=False)

    def __post_init__(self):
        parts = urlsplit(self.url)
        if not NAME.fullmatch(self.name):
            raise PlaygroundError(f"an endpoint's name is letters, digits, dots and dashes, got {self.name!r}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise PlaygroundError(f"{self.name}: the address must begin with http:// or https://, got {self.url!r}")
        if parts.username or parts.password:
            raise PlaygroundError(f"{self.name}: give the key apart from the address")
        if not self.model:
            raise PlaygroundError(f"{self.name}: say which model to ask for")
        if not self.key.isprintable() or not self.key.isascii():
            raise PlaygroundError(f"{self.name}: the key holds characters that no key has")


class Remotes:
    """The endpoints that lanes can name; `read` takes those of the command line, `add` those of a page."""

    def __init__(self, endpoints: list[Endpoint] = ()):
        self._lock, self._endpoints = threading.Lock(), {endpoint.name: endpoint for endpoint in endpoints}

    @classmethod
    def read(cls, text: str) -> "Remotes":
        """`NAME=URL#MODEL`, several apart by commas; each key is the environment's NAME_API_KEY."""
        found = []
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, equals, rest = part.partition("=")
            url, sharp, model = rest.partition("#")
            if not (equals and sharp):
                raise PlaygroundError(f"an endpoint is written NAME=URL#MODEL, got {part!r}")
            variable = re.sub(r"\W", "_", name).upper() + "_API_KEY"
            found.append(Endpoint(name, url.strip(), model.strip(), os.environ.get(variable, "")))
        return cls(found)

    def add(self, endpoint: Endpoint) -> None:
        with self._lock:
            self._endpoints = {**self._endpoints, endpoint.name: endpoint}

    def remove(self, name: str) -> None:
        with self._lock:
            self._endpoints = {key: value for key, value in self._endpoints.items() if key != name}

    def find(self, name: str) -> Endpoint | None:
        return self._endpoints.get(name)

    def all(self) -> list[Endpoint]:
        return list(self._endpoints.values())


class RemoteReply(Reply):
    """A reply that another server writes. Its tokens are not known by id: `pieces` counts what came."""

    def __init__(self, lane, endpoint: Endpoint, conversation: Conversation, stops=()):
        body = request(endpoint, lane.sampling, conversation, stops)
        shown = json.dumps({**body, "stream": True}, ensure_ascii=False, indent=2)
        super().__init__(lane, Rendered(shown, [], "none", ids=[]), stops)
        self.endpoint, self.body, self.pieces = endpoint, body, 0
        self._response: httpx.Response | None = None

    @property
    def count(self) -> int:
        return self.pieces

    def start(self) -> "RemoteReply":
        threading.Thread(target=self._run, name=f"remote {self.endpoint.name}", daemon=True).start()
        return self

    def cancel(self) -> None:
        super().cancel()
        self.finish("cancelled")

    def finish(self, reason: str, error: str | None = None) -> None:
        if not self.done:
            super().finish(reason, error)

    def _run(self) -> None:
        try:
            self._ask()
        except httpx.TimeoutException:
            self._fail(f"did not answer within {READ:.0f} s")
        except httpx.HTTPError as error:
            self._fail(f"could not be asked: {error}")
        except PlaygroundError as error:
            self._fail(str(error))
        finally:
            self._fail("broke off before its answer was whole")

    def _fail(self, sentence: str) -> None:
        key = self.endpoint.key
        self.finish("error", f"{self.endpoint.name} {sentence.replace(key, '…') if key else sentence}")

    def _ask(self) -> None:
        headers = {"Authorization": f"Bearer {self.endpoint.key}"} if self.endpoint.key else {}
        timeout = httpx.Timeout(READ, connect=CONNECT)
        plain = {name: value for name, value in self.body.items() if name not in _OWN}
        with httpx.Client(timeout=timeout, headers=headers, follow_redirects=False, trust_env=False) as client:
            # A server that does not know our own names is asked again without them.
            if not self._told(client, self.body, last=plain == self.body):
                self._told(client, plain, last=True)

    def _told(self, client: httpx.Client, body: dict, last: bool) -> bool:
        """Ask and write down the answer; False where the server does not take the request, and it is not the `last`."""
        url = self.endpoint.url.rstrip("/") + "/chat/completions"
        body = {**body, "stream": True, "stream_options": {"include_usage": True}}
        with client.stream("POST", url, json=body) as response:
            if response.status_code in (400, 422) and not last:
                return False
            if response.status_code != 200:
                raise PlaygroundError(_refusal(response))
            calls: dict[int, dict] = {}
            reason = None
            for event in _events(response):
                if self.done:
                    return True
                if event.get("error"):
                    raise PlaygroundError(f"stopped with: {_message(event)}")
                usage = event.get("usage")
                if isinstance(usage, dict) and isinstance(usage.get("completion_tokens"), int):
                    self.pieces = usage["completion_tokens"]
                for choice in event.get("choices") or []:
                    self._take(choice.get("delta") or {}, calls)
                    reason = choice.get("finish_reason") or reason
            if reason is None:
                return True  # it broke off
            if calls:
                self.add(None, ("\n" if self.text else "") + FORMAT.write(_calls(calls)))
            self.finish("length" if reason == "length" else "stop")
            return True

    def _take(self, delta: dict, calls: dict[int, dict]) -> None:
        text = delta.get("content")
        if isinstance(text, str) and text:
            self.pieces += 1
            if self.first_token_s is None:
                self.first_token_s = time.monotonic() - self.asked
            self.add(None, text)
            if len(self.text) > MAX_CHARACTERS:
                raise PlaygroundError(f"wrote more than {MAX_CHARACTERS:,} characters; the rest was left out")
        for part in delta.get("tool_calls") or []:
            call = calls.setdefault(part.get("index", len(calls)), {"name": "", "arguments": ""})
            function = part.get("function") or {}
            call["name"] += function.get("name") or ""
            call["arguments"] += function.get("arguments") or ""


def request(endpoint: Endpoint, sampling: SamplingConfig, conversation: Conversation, stops=()) -> dict:
    """The body of a request: OpenAI's names, and our own where they were changed."""
    body = {
        "model": endpoint.model,
        "messages": with_call_ids([_message_of(*numbered) for numbered in enumerate(conversation.messages)]),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_new_tokens,
        "seed": sampling.seed,
    }
    usual = SamplingConfig()
    body |= {name: getattr(sampling, name) for name in _OWN if getattr(sampling, name) != getattr(usual, name)}
    if conversation.tools:
        body["tools"] = conversation.tools
    if stops:
        body["stop"] = list(stops)[:MAX_STOPS]
    return body


def _message_of(number: int, message: dict) -> dict:
    """A message as OpenAI takes it: calls have ids and their arguments are JSON text, results name the call."""
    message = dict(message)
    if message.get("tool_calls"):
        message["tool_calls"] = [
            {
                "id": call.get("id") or f"call_{number}_{place}",
                "type": "function",
                "function": {
                    "name": call["function"]["name"],
                    "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
                },
            }
            for place, call in enumerate(message["tool_calls"])
        ]
    return message


def with_call_ids(messages: list[dict]) -> list[dict]:
    """Results tied to the calls before them, in order, where they do not say which call they answer."""
    waiting: list[str] = []
    tied = []
    for message in messages:
        if message.get("tool_calls"):
            waiting = [call["id"] for call in message["tool_calls"]]
        elif message["role"] == "tool" and "tool_call_id" not in message and waiting:
            message = {**message, "tool_call_id": waiting.pop(0)}
        tied.append(message)
    return tied


def _events(response: httpx.Response) -> Iterator[dict]:
    """The JSON of each server-sent event, up to `[DONE]` (HTML standard, "Server-sent events")."""
    for line in response.iter_lines():
        if not line.startswith("data:"):
            continue  # a comment, an event's name, an empty line
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        try:
            event = json.loads(data)
        except ValueError:
            raise PlaygroundError(f"sent what is no event: {data[:80]!r}") from None
        if not isinstance(event, dict):
            raise PlaygroundError(f"sent what is no event: {data[:80]!r}")
        yield event


def _calls(calls: dict[int, dict]) -> list[Call]:
    whole = []
    for _, call in sorted(calls.items()):
        try:
            arguments = json.loads(call["arguments"] or "{}")
        except ValueError:
            arguments = None
        if not call["name"] or not isinstance(arguments, dict):
            raise PlaygroundError(f"sent a call that cannot be read: {call['name']} {call['arguments'][:80]!r}")
        whole.append(Call(call["name"], arguments))
    return whole


def _refusal(response: httpx.Response) -> str:
    response.read()
    try:
        said = _message(response.json())
    except ValueError:
        said = response.text.strip()
    said = f": {said[:300]}" if said else ""
    match response.status_code:
        case 401 | 403:
            return f"refused the key (HTTP {response.status_code}){said}"
        case 404:
            return f"knows neither this model nor this address (HTTP 404){said}"
        case 429:
            wait = response.headers.get("retry-after", "")
            return f"is asked too often (HTTP 429){f', try again in {wait} s' if wait.isdigit() else ''}{said}"
    return f"answered with HTTP {response.status_code}{said}"


def _message(value) -> str:
    error = value.get("error", value) if isinstance(value, dict) else value
    text = error.get("message", error) if isinstance(error, dict) else error
    return str(text)
