"""Lanes elsewhere: any server that speaks OpenAI's chat completions (vLLM, TGI, Ollama, llama.cpp, …).

    remotes = Remotes.read("big=http://gpu-host:8000/v1#meta-llama/Llama-3.1-8B-Instruct")
    Lane("big")                                                # asks that server

A key is taken from the environment (`BIG_API_KEY` for the endpoint `big`) or given for the time the app runs; it is
never written to a file, a log or a message, and a server that says it back does not bring it into a reply. A server
that hangs, breaks off, or sends what is no answer, ends its own lane with one sentence.

What a server's model thinks, and sends apart from its answer, stands in the reply between `<think>` and `</think>`, as
models write it themselves; in the next turn it is not sent back.
"""

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx

from playground.config import SamplingConfig
from playground.core.jsonl import printable
from playground.core.messages import Conversation
from playground.core.server_events import events, no_event, whole
from playground.core.streaming import without_thinking
from playground.core.templates import Rendered
from playground.core.tool_formats import Call, hermes
from playground.errors import PlaygroundError
from playground.services.replies import Reply

CONNECT, READ = 10.0, 60.0  # seconds to be reached in, and between two pieces of an answer
WHOLE = 900.0  # seconds for all of it
MAX_CHARACTERS = 400_000
MAX_CALLS = 100
MAX_REFUSAL = 64 * 2**10  # bytes that are read of an error's page
MAX_SENTENCE = 400  # characters of what a server says that are shown
SECRET = 8  # characters of a key that is one: servers that ask for none are given "none" or "EMPTY"
MAX_STOPS = 4  # OpenAI takes no more
FORMAT = hermes  # how the calls of a remote model are written into its reply's text
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,60}")
# Names that not every server knows are sent only where they were changed.
_OWN = ("top_k", "min_p", "repetition_penalty")
# Where thinking comes: DeepSeek, llama.cpp and vLLM; vLLM since 0.12 (some versions send both), Ollama and OpenRouter.
_THOUGHTS = ("reasoning_content", "reasoning")


@dataclass(frozen=True)
class Endpoint:
    """`url` ends where `/chat/completions` is to be added, as OpenAI clients take it."""

    name: str
    url: str
    model: str
    key: str = field(default="", repr=False)

    def __post_init__(self):
        if not NAME.fullmatch(self.name):
            raise PlaygroundError(f"an endpoint's name is letters, digits, dots and dashes, got {self.name!r}")
        try:
            address = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise PlaygroundError(f"{self.name}: the address cannot be read ({error}), got {self.url!r}") from None
        if address.scheme not in ("http", "https") or not address.host:
            raise PlaygroundError(f"{self.name}: the address must begin with http:// or https://, got {self.url!r}")
        if address.userinfo or address.query or address.fragment:
            raise PlaygroundError(
                f"{self.name}: the address ends with its path, as in http://host:8000/v1; give the key apart from it"
            )
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
        self._held = ""  # an end of the text that is not shown yet: see `_grow`
        self._thinking = False
        self._called = 0  # characters of its calls

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
        if self.done:
            return
        self._grow("", last=True)
        sentence = _whole(sentence)
        if self.endpoint.key:  # before it is cut: a part of a key is too much
            sentence = sentence.replace(self.endpoint.key, "…")
        short = sentence if len(sentence) <= MAX_SENTENCE else sentence[:MAX_SENTENCE] + "…"
        self.finish("error", f"{self.endpoint.name} {short}")

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
                raise PlaygroundError(_refusal(response, self._parts(response)))
            calls: dict[int, dict] = {}
            reason = None
            for event in self._events(response):
                if self.done:
                    return True
                if event.get("error") or event.get("object") == "error":  # as vLLM sends it in a stream
                    raise PlaygroundError(f"stopped with: {_message(event)}")
                for delta, ended in _deltas(event):
                    self._take(delta, calls)
                    reason = ended or reason
                usage = event.get("usage")
                if isinstance(usage, dict) and isinstance(usage.get("completion_tokens"), int):
                    self.pieces = usage["completion_tokens"]
            if reason is None:
                return True  # it broke off, or nobody wants the rest
            if calls:
                self._think(False)
            self._grow("", last=True)
            if calls:
                self.add(None, _whole(("\n" if self.text else "") + FORMAT.write(_calls(calls))))
            self.finish("length" if reason == "length" else "stop")
            return True

    def _events(self, response: httpx.Response) -> Iterator[dict]:
        """The events of an answer; one that was not streamed, though that was asked for, is one event."""
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "text/html":
            raise PlaygroundError("answered with a web page; the address must be that of its API, often ending in /v1")
        return iter([whole(self._parts(response))]) if kind == "application/json" else events(self._parts(response))

    def _parts(self, response: httpx.Response) -> Iterator[bytes]:
        """The bytes of an answer while somebody wants them, for WHOLE seconds at most: comments alone keep a
        connection open for ever."""
        deadline = self.asked + WHOLE
        for part in response.iter_bytes():
            if self.done:
                return
            yield part
            if time.monotonic() > deadline:
                raise PlaygroundError(f"was not finished after {WHOLE / 60:.0f} minutes; the rest was left out")

    def _take(self, delta: dict, calls: dict[int, dict]) -> None:
        thought = next((delta[name] for name in _THOUGHTS if delta.get(name) and isinstance(delta[name], str)), "")
        text = delta.get("content") or ""
        if thought or text:
            self.pieces += 1
            if self.first_token_s is None:
                self.first_token_s = time.monotonic() - self.asked
        if thought:
            self._think(True)
            self._grow(thought)
        if text:
            self._think(False)
            self._grow(text)
        for part in delta.get("tool_calls") or []:
            place = part.get("index")
            call = calls.setdefault(len(calls) if place is None else place, {"name": "", "arguments": ""})
            function = part.get("function") or {}
            call["name"] += function.get("name") or ""
            call["arguments"] += function.get("arguments") or ""
            self._called += len(function.get("name") or "") + len(function.get("arguments") or "")
        if len(calls) > MAX_CALLS:
            raise PlaygroundError(f"made more than {MAX_CALLS:,} calls; the rest was left out")
        if len(self.text) + self._called > MAX_CHARACTERS:
            raise PlaygroundError(f"wrote more than {MAX_CHARACTERS:,} characters; the rest was left out")

    def _think(self, thinking: bool) -> None:
        """Put the marker between thinking and answer where one ends and the other begins."""
        if thinking != self._thinking:
            self._thinking = thinking
            self._grow(("\n" if self.text else "") + "<think>\n" if thinking else "\n</think>\n\n")

    def _grow(self, text: str, last: bool = False) -> None:
        """Add text, without the key; an end that may be the first half of a character, or of the key, waits for the
        rest. JSON's escapes can cut a character in two (`\\ud83d`, `\\ude00`), and no page takes half of one."""
        text, self._held = self._held + text, ""
        secret = self.endpoint.key if len(self.endpoint.key) >= SECRET else ""
        if secret:
            text = text.replace(secret, "…")
        if not last:
            half = 1 if "\ud800" <= text[-1:] <= "\udbff" else 0
            keep = max(half, _begun(text, secret))
            text, self._held = text[: len(text) - keep], text[len(text) - keep :]
        if text:
            self.add(None, _whole(text))


def _begun(text: str, secret: str) -> int:
    """Length of the longest end of `text` that is a beginning of `secret`."""
    return next((n for n in range(min(len(text), len(secret) - 1), 0, -1) if text.endswith(secret[:n])), 0)


def _whole(text: str) -> str:
    """The text with both halves of a character joined, and a lone half replaced."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def request(endpoint: Endpoint, sampling: SamplingConfig, conversation: Conversation, stops=()) -> dict:
    """The body of a request: OpenAI's names, and our own where they were changed."""
    body = {
        "model": endpoint.model,
        "messages": with_call_ids([_message_of(*numbered) for numbered in enumerate(_said(conversation.messages))]),
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
    return printable(body)


def _said(messages: list[dict]) -> list[dict]:
    """The messages without what was thought before earlier answers, as the templates of thinking models leave it out;
    and without a question that got nothing but thinking: no server takes an empty answer."""
    newest = max((place for place, message in enumerate(messages) if message["role"] == "user"), default=0)
    said: list[dict] = []
    for place, message in enumerate(messages):
        if message["role"] == "assistant":
            message = {**message, "content": without_thinking(message.get("content") or "")}
            if place < newest:
                message.pop("reasoning_content", None)
            if not message["content"].strip() and not message.get("tool_calls"):
                if said and said[-1]["role"] == "user":
                    said.pop()
                continue
        said.append(message)
    return said


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


def _deltas(event: dict) -> Iterator[tuple[dict, str]]:
    """What each choice of an event adds, and why it ended ("": it has not). Raises PlaygroundError."""
    choices = event.get("choices") or []
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise no_event(event)
    for choice in choices:
        delta, reason = choice.get("delta") or choice.get("message") or {}, choice.get("finish_reason") or ""
        if not (isinstance(delta, dict) and isinstance(reason, str) and _is_text(delta.get("content"))):
            raise no_event(event)
        calls = delta.get("tool_calls") or []
        if not isinstance(calls, list) or not all(map(_is_piece, calls)):
            raise no_event(event)
        yield delta, reason


def _is_text(value) -> bool:
    return value is None or isinstance(value, str)


def _is_piece(call) -> bool:
    """Whether it is a piece of a tool call."""
    function = call.get("function") or {} if isinstance(call, dict) else None
    return (
        isinstance(function, dict)
        and isinstance(call.get("index") or 0, int)
        and _is_text(function.get("name"))
        and _is_text(function.get("arguments"))
    )


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


def _refusal(response: httpx.Response, parts: Iterator[bytes]) -> str:
    page = b""
    for part in parts:
        page = (page + part)[:MAX_REFUSAL]
        if len(page) == MAX_REFUSAL:
            break
    try:
        said = _message(json.loads(page))
    except (ValueError, RecursionError):
        said = page.decode("utf-8", "replace").strip()
    said = f": {said}" if said else ""
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
