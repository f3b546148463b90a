"""Lanes elsewhere, against servers that misbehave; against our own in integration/."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from playground.config import Paths, SamplingConfig
from playground.core.messages import Conversation
from playground.errors import PlaygroundError
from playground.services import remote
from playground.services.engine import Engine, Lane
from playground.services.remote import Endpoint, Remotes, request
from playground.services.sources import Sources

KEY = "sk-very-secret"
ASK = Conversation([{"role": "user", "content": "Hello"}])
GREEDY = SamplingConfig(temperature=0, repetition_penalty=1.0, max_new_tokens=12)
JSON = {"content-type": "application/json"}
CALL = {"id": "c", "function": {"name": "add", "arguments": '{"a": '}}


def sse(*events, done=True):
    lines = [event if isinstance(event, str) else "data: " + json.dumps(event) for event in events]
    return "\n\n".join([*lines, *(["data: [DONE]"] if done else [])]) + "\n\n"


def delta(reason=None, **values):
    return {"choices": [{"index": 0, "delta": values, "finish_reason": reason}]}


def begin(handler, **values):
    """Send the first event of a stream, and leave the stream open."""
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(b"data: " + json.dumps(delta(**values)).encode() + b"\n\n")
    handler.wfile.flush()


class Stub(BaseHTTPRequestHandler):
    """Answers with what `script` says: (status, headers, body), or a function that writes."""

    script, asked = None, []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        Stub.asked.append((self.path, dict(self.headers), body))
        if callable(Stub.script):
            Stub.script(self)
            return
        status, headers, text = Stub.script
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def stub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


@pytest.fixture
def ask(stub, tmp_path):
    def ask(script, conversation=ASK, sampling=GREEDY, url=stub, **options):
        Stub.script, Stub.asked = script, []
        paths = Paths(tmp_path)
        engine = Engine(Sources(paths, folders=[]), paths, remotes=Remotes([Endpoint("far", url, "m", KEY)]))
        return engine.reply(Lane("far", sampling=sampling), conversation, **options)

    return ask


def test_what_is_sent(ask):
    messages = [
        {"role": "user", "content": "Add."},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}],
        },
        {"role": "tool", "name": "add", "content": "2"},
    ]
    tools = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
    reply = ask(
        (200, {}, sse(delta("stop", content="hi"))), Conversation(messages, tools), stop=["a", "b", "c", "d", "e"]
    )
    assert reply.wait(10)
    ((path, headers, body),) = Stub.asked
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    sent = body["messages"]
    assert json.loads(sent[1]["tool_calls"][0]["function"]["arguments"]) == {"a": 1}
    assert sent[2]["tool_call_id"] == sent[1]["tool_calls"][0]["id"]
    assert body["tools"] == tools
    assert body["stop"] == ["a", "b", "c", "d"]
    assert (body["temperature"], body["max_tokens"], body["stream"]) == (0, 12, True)
    assert "top_k" not in body
    assert body["repetition_penalty"] == 1.0  # changed from the default
    assert KEY not in reply.prompt.text


def test_a_call_that_comes_in_pieces_is_one_call(ask):
    first = delta(tool_calls=[{"index": 0, **CALL}])
    rest = delta(tool_calls=[{"index": 0, "function": {"arguments": '"é"}'}}])
    other = delta("tool_calls", tool_calls=[{"index": 1, "id": "d", "function": {"name": "f", "arguments": ""}}])
    reply = ask((200, {}, sse(delta(content="Let me see."), ": a comment", first, rest, other)))
    assert reply.wait(10)
    parsed = remote.FORMAT.parse(reply.text)
    assert [(call.name, call.arguments) for call in parsed.calls] == [("add", {"a": "é"}), ("f", {})]
    assert parsed.content == "Let me see."
    assert reply.finish_reason == "stop"


@pytest.mark.parametrize(
    ("events", "text"),
    [
        (  # DeepSeek, llama.cpp, vLLM
            [delta(reasoning_content="two and "), delta(reasoning_content="two"), delta(content="Four.")],
            "<think>\ntwo and two\n</think>\n\nFour.",
        ),
        (  # Ollama, OpenRouter
            [delta(content="", reasoning="two"), delta(content="Four", reasoning=None), delta(content=".")],
            "<think>\ntwo\n</think>\n\nFour.",
        ),
        (  # vLLM in between sends both
            [delta(reasoning="two", reasoning_content="two", content=None), delta(content="Four.")],
            "<think>\ntwo\n</think>\n\nFour.",
        ),
        ([delta(reasoning="two", content="Four.")], "<think>\ntwo\n</think>\n\nFour."),
        ([delta(reasoning="two")], "<think>\ntwo"),
        ([delta(content="Well,"), delta(reasoning="two")], "Well,\n<think>\ntwo"),
        ([delta(reasoning={"effort": "low"}, content="Four.")], "Four."),
        ([delta(reasoning=f"{KEY[:5]}"), delta(reasoning=f"{KEY[5:]}, so"), delta(content="4")], None),
    ],
)
def test_thinking_that_is_sent_apart_stands_before_the_answer_as_models_write_it(ask, events, text):
    reply = ask((200, {}, sse(*events, delta("stop"))))
    assert reply.wait(10)
    assert (reply.error, reply.text) == (None, text or "<think>\n…, so\n</think>\n\n4")
    assert reply.first_token_s is not None
    assert reply.count == len(events)


def test_a_call_after_thinking_is_a_call(ask):
    call = delta("tool_calls", tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}])
    reply = ask((200, {}, sse(delta(reasoning_content="<tool_call> it is"), call)))
    assert reply.wait(10)
    parsed = remote.FORMAT.parse(reply.text)
    assert ([call.name for call in parsed.calls], parsed.reasoning) == (["f"], "<tool_call> it is")


def test_thinking_is_shown_while_it_comes_and_stays_when_it_is_stopped(ask):
    over = threading.Event()

    def thinks(handler):
        begin(handler, reasoning_content="so")
        over.wait(10)

    reply = ask(thinks)
    while reply.text != "<think>\nso":
        time.sleep(0.01)
    reply.cancel()
    over.set()
    assert reply.wait(10)
    assert (reply.finish_reason, reply.text) == ("cancelled", "<think>\nso")


def test_what_was_thought_is_not_sent_back(ask):
    messages = [
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "<think>\ntwo\n</think>\n\nFour. A <think> is a tag."},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "<think>\nam I"},
        {"role": "user", "content": "3 + 3?"},
        {"role": "assistant", "content": "Six.", "reasoning_content": "three"},
        {"role": "user", "content": "Add 1."},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "a tool",
            "tool_calls": [{"function": {"name": "f", "arguments": {}}}],
        },
        {"role": "tool", "content": "7"},
    ]
    assert ask((200, {}, sse(delta("stop", content="7"))), Conversation(messages)).wait(10)
    ((_, _, body),) = Stub.asked
    sent = [(message["role"], message["content"], message.get("reasoning_content")) for message in body["messages"]]
    assert sent == [
        ("user", "2 + 2?", None),
        ("assistant", "Four. A <think> is a tag.", None),
        ("user", "3 + 3?", None),
        ("assistant", "Six.", None),
        ("user", "Add 1.", None),
        ("assistant", "", "a tool"),  # within a turn it thinks on
        ("tool", "7", None),
    ]


@pytest.mark.parametrize("indent", [None, 2])
def test_an_answer_that_was_not_streamed_is_read_whole(ask, indent):
    message = {"role": "assistant", "content": "Four.", "reasoning_content": "two", "tool_calls": None}
    answer = {"choices": [{"message": message, "finish_reason": "length"}], "usage": {"completion_tokens": 9}}
    reply = ask((200, {"content-type": "application/json; charset=utf-8"}, json.dumps(answer, indent=indent)))
    assert reply.wait(10)
    assert (reply.text, reply.finish_reason, reply.count) == ("<think>\ntwo\n</think>\n\nFour.", "length", 9)


@pytest.mark.parametrize(
    "script, sentence",
    [
        ((200, JSON, "{broken"), "far sent what is no event: '{broken'"),
        ((200, JSON, '{"id": 1}'), "far broke off before its answer was whole"),
        ((200, JSON, '{"error": "out of memory"}'), "far stopped with: out of memory"),
        ((200, JSON, " " * 5_000_000), "far sent an answer of more than 4 MB"),
        (
            (200, {"content-type": "text/html; charset=utf-8"}, "<html>"),
            "far answered with a web page; the address must",
        ),
        ((200, {}, sse({"object": "error", "message": "out of memory"})), "far stopped with: out of memory"),
        (
            (200, {}, sse(*[delta(tool_calls=[{"index": 0, "function": {"arguments": "x" * 90_000}}])] * 5)),
            "far wrote more than 400,000 characters; the rest was left out",
        ),
        (
            (200, {}, sse(*[delta(tool_calls=[{"index": number}]) for number in range(101)])),
            "far made more than 100 calls; the rest was left out",
        ),
        ((401, {}, '{"error": {"message": "no sk-very-secret here"}}'), "far refused the key (HTTP 401): no … here"),
        ((404, {}, ""), "far knows neither this model nor this address (HTTP 404)"),
        (
            (429, {"retry-after": "7"}, '{"error": "slow down"}'),
            "far is asked too often (HTTP 429), try again in 7 s: slow down",
        ),
        ((500, {}, "<html>oops</html>"), "far answered with HTTP 500: <html>oops</html>"),
        ((302, {"location": "http://127.0.0.1:1/"}, ""), "far answered with HTTP 302"),
        ((200, {}, "data: {broken\n\n"), "far sent what is no event: '{broken'"),
        ((200, {}, "data: [1]\n\n"), "far sent what is no event: '[1]'"),
        ((200, {}, "data: " + "[" * 90_000), "far sent what is no event: '" + "[" * 300),
        ((200, {}, sse({"choices": "x"})), """far sent what is no event: '{"choices": "x"}'"""),
        ((200, {}, sse({"choices": [None]})), """far sent what is no event: '{"choices": [null]}'"""),
        (
            (200, {}, sse({"choices": [{"delta": "x"}]})),
            """far sent what is no event: '{"choices": [{"delta": "x"}]}'""",
        ),
        ((200, {}, sse({"choices": [{"delta": {"content": 5}}]})), "far sent what is no event"),
        ((200, {}, sse(delta(tool_calls=["x"]))), "far sent what is no event"),
        ((200, {}, sse(delta(tool_calls=[{"index": "a"}]))), "far sent what is no event"),
        ((200, {}, sse(delta(tool_calls=[{"function": {"name": 5}}]))), "far sent what is no event"),
        ((200, {}, "data: " + "x" * 5_000_000), "far sent an event of more than 4 MB"),
        ((500, {}, "x" * 390 + KEY * 9), "far answered with HTTP 500: " + "x" * 376 + "…"),
        ((500, {}, "x" * 365 + KEY * 9), "far answered with HTTP 500: " + "x" * 365 + "…" * 8),
        ((200, {}, sse(delta(content="half a"), done=False)), "far broke off before its answer was whole"),
        ((200, {}, ""), "far broke off before its answer was whole"),
        ((200, {}, sse({"error": {"message": "out of memory"}})), "far stopped with: out of memory"),
        (
            (200, {}, sse(delta("tool_calls", tool_calls=[{"index": 0, **CALL}]))),
            "far sent a call that cannot be read: add '{\"a\": '",
        ),
        ((200, {}, sse(delta(content="x" * 500_000))), "far wrote more than 400,000 characters; the rest was left out"),
    ],
)
def test_a_server_that_fails_ends_its_own_lane(ask, script, sentence):
    reply = ask(script)
    assert reply.wait(10)
    assert reply.finish_reason == "error"
    assert reply.error.startswith(sentence)
    assert len(reply.error) < 420


def test_a_server_that_does_not_know_our_own_names_is_asked_without_them(ask):
    def picky(handler):
        known = "repetition_penalty" not in Stub.asked[-1][2]
        text = sse(delta("stop", content="hi")) if known else '{"detail": "Unexpected fields"}'
        handler.send_response(200 if known else 422)
        handler.end_headers()
        handler.wfile.write(text.encode())

    reply = ask(picky)
    assert reply.wait(10)
    assert (reply.error, reply.text, len(Stub.asked)) == (None, "hi", 2)
    refused = ask((422, {}, '{"detail": "no such field"}'))
    assert refused.wait(10)
    assert refused.error == "far answered with HTTP 422: {'detail': 'no such field'}"


@pytest.mark.parametrize("size", [1, 3])
def test_characters_that_come_in_pieces_are_whole(ask, size):
    text = "👩‍🚀 שלום é\u2028\x85end"  # the last two end a line for Python, not for a server

    def drip(handler):
        handler.send_response(200)
        handler.end_headers()
        event = json.dumps(delta("stop", content=text), ensure_ascii=False)
        whole = f"data: {event}\r\n\r\ndata: [DONE]\n\n".encode()
        for start in range(0, len(whole), size):
            handler.wfile.write(whole[start : start + size])
            handler.wfile.flush()

    reply = ask(drip)
    assert reply.wait(10)
    assert (reply.error, reply.text) == (None, text)


def shown_one_by_one(ask, pieces) -> list[str]:
    """What the reply has shown after each piece of text that the server sent, and at the end."""
    turns, shown = [threading.Event() for _ in pieces], []

    def in_turns(handler):
        handler.send_response(200)
        handler.end_headers()
        for turn, piece in zip(turns, pieces, strict=True):
            assert turn.wait(10)
            handler.wfile.write(b"data: " + json.dumps(delta(content=piece)).encode() + b"\n\n")
        handler.wfile.write(sse(delta("stop")).encode())

    reply = ask(in_turns)
    for number, turn in enumerate(turns, 1):
        turn.set()
        while reply.pieces < number:
            time.sleep(0.001)
        shown.append(reply.text)
    assert reply.wait(10)
    assert reply.error is None
    return [*shown, reply.text]


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        (["a \ud83d", "\ude00 b"], "a 😀 b"),  # as JSON escapes, which cut a character in two
        (["\ud83d", "\ude00"], "😀"),
        (["a \ud83d"], "a �"),  # the other half never comes
        (["\ude00 b"], "� b"),
        ([KEY, " is it"], "… is it"),
        (["it is sk-very", "-secret, yes"], "it is …, yes"),
        (["it is sk-ve", "ry nice"], "it is sk-very nice"),
        (["it is sk-ve"], "it is sk-ve"),
    ],
)
def test_neither_half_a_character_nor_the_key_is_ever_shown(ask, pieces, whole):
    shown = shown_one_by_one(ask, pieces)
    assert shown[-1] == whole
    for text in shown:
        text.encode()  # no half of a character
        assert whole.startswith(text)


def test_half_a_character_in_a_question_is_sent_as_a_whole_one(ask):
    reply = ask((200, {}, sse(delta("stop", content="hi"))), Conversation([{"role": "user", "content": "a \ud83d"}]))
    assert reply.wait(10)
    assert (reply.text, Stub.asked[0][2]["messages"][0]["content"]) == ("hi", "a ?")


def test_a_key_that_is_none_changes_no_reply(ask, stub, monkeypatch):
    monkeypatch.setattr("tests.services.test_remote.KEY", "EMPTY")  # as vLLM's examples have it
    reply = ask((200, {}, sse(delta("stop", content="An EMPTY room."))))
    assert reply.wait(10)
    assert reply.text == "An EMPTY room."


def test_a_server_that_only_keeps_the_connection_open_comes_to_an_end(ask, monkeypatch):
    over = threading.Event()

    def comments(handler):
        handler.send_response(200)
        handler.end_headers()
        while not over.wait(0.01):
            handler.wfile.write(b": wait\n\n")

    reply = ask(comments)
    reply.cancel()
    while "remote far" in [thread.name for thread in threading.enumerate()]:
        time.sleep(0.005)  # nobody reads on
    monkeypatch.setattr(remote, "WHOLE", 0.1)
    reply = ask(comments)
    assert reply.wait(10)
    over.set()
    assert reply.error == "far was not finished after 0 minutes; the rest was left out"


def test_what_came_before_it_broke_off_stays(ask):
    reply = ask((200, {}, sse(delta(content="half a"), done=False)))
    assert reply.wait(10)
    assert reply.text == "half a"


def test_nobody_there(ask):
    reply = ask((200, {}, ""), url="http://127.0.0.1:9/v1")
    assert reply.wait(20)
    assert reply.error.startswith("far could not be asked")


def test_a_server_that_hangs_can_be_left_and_times_out(ask, monkeypatch):
    def hang(handler):
        begin(handler, content="so")
        time.sleep(1.5)

    reply = ask(hang)
    while not reply.text:
        time.sleep(0.01)
    begun = time.monotonic()
    reply.cancel()
    assert reply.wait(1)
    assert time.monotonic() - begun < 0.5
    assert (reply.finish_reason, reply.text) == ("cancelled", "so")
    monkeypatch.setattr(remote, "READ", 0.2)
    slow = ask(hang)
    assert slow.wait(10)
    assert slow.error == "far did not answer within 0 s"


def test_endpoints_are_read_from_a_line(monkeypatch):
    monkeypatch.setenv("BIG_ONE_API_KEY", KEY)
    one, other = Remotes.read("big-one=https://host/v1#org/model, b=http://h:1#m").all()
    assert (one.name, one.url, one.model, one.key) == ("big-one", "https://host/v1", "org/model", KEY)
    assert other.key == ""
    assert KEY not in repr(one)
    assert request(one, GREEDY, ASK)["model"] == "org/model"


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("x", "an endpoint is written NAME=URL#MODEL, got 'x'"),
        ("x=http://h", "an endpoint is written NAME=URL#MODEL"),
        ("x=file:///etc/passwd#m", "must begin with http"),
        ("x=http://user:pw@h/v1#m", "give the key apart"),
        ("x=http://h/v1?key=sk-1#m", "x: the address ends with its path"),
        ("x=http://h:port/v1#m", "x: the address cannot be read"),
        ("x=http://[::1/v1#m", "x: the address cannot be read"),
        ("../x=http://h#m", "an endpoint's name is"),
        ("x=http://h# ", "say which model"),
    ],
)
def test_endpoints_that_cannot_be(text, sentence):
    with pytest.raises(PlaygroundError, match=sentence):
        Remotes.read(text)
