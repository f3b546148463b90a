"""OpenAI's chat-completions format as values: calls, faults and growing replies."""

import json

import pytest

from playground.core import openai_api
from playground.core.tool_formats import FORMATS, Reading, hermes
from playground.errors import PlaygroundError

REPLY = 'Let me see.\n<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": "é"}}\n</tool_call>'
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]


def joined(chunks):
    text, thoughts, calls, reasons = "", "", [], []
    for chunk in chunks:
        (choice,) = chunk["choices"]
        delta = choice["delta"]
        text += delta.get("content") or ""
        thoughts += delta.get("reasoning_content") or ""
        calls += delta.get("tool_calls") or []
        reasons += [choice["finish_reason"]] if choice["finish_reason"] else []
    return text, thoughts, calls, reasons


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize(
    "format, reply",
    [
        (hermes, REPLY),
        (hermes, " just text with < and <tool "),
        (hermes, "<tool_call>\n{broken"),
        (FORMATS["reasoning"], "<|thinking|>one\ntwo</|thinking|>" + REPLY),
    ],
)
def test_streamed_is_whole(format, reply, size):
    parsed = format.parse(reply)
    whole = openai_api.completion("x", 0, "m", parsed, "stop", openai_api.usage(3, 4))
    message = whole["choices"][0]["message"]
    chunks, reading, out = openai_api.Chunks("x", 0, "m"), Reading(format), []
    for start in range(0, len(reply), size):
        out += chunks.spans(reading.feed(reply[start : start + size]))
    out += chunks.last(reading.finish(), "stop")
    text, thoughts, calls, reasons = joined(out)
    assert text == (message["content"] or "")
    assert thoughts == message.get("reasoning_content", "")
    assert [{k: v for k, v in call.items() if k != "index"} for call in calls] == message.get("tool_calls", [])
    assert reasons == [whole["choices"][0]["finish_reason"]]


def test_a_call_is_json_text_with_an_id():
    whole = openai_api.completion("x", 0, "m", hermes.parse(REPLY), "stop", openai_api.usage(3, 4))
    (call,) = whole["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"a": 1, "b": "é"}
    assert call["id"].startswith("call_")
    assert whole["choices"][0]["finish_reason"] == "tool_calls"
    assert whole["usage"]["total_tokens"] == 7


def test_a_broken_call_stays_readable():
    whole = openai_api.completion("x", 0, "m", hermes.parse("<tool_call>\n{broken"), "stop", {})
    assert "{broken" in whole["choices"][0]["message"]["content"]
    assert whole["choices"][0]["finish_reason"] == "stop"


def test_a_conversation_with_tools_is_read():
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Add."}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
    ]
    asked = openai_api.read({"model": "m", "messages": messages, "tools": TOOLS, "temperature": 0, "user": "u"})
    roles = [message["role"] for message in asked.conversation.messages]
    assert roles == ["system", "user", "assistant", "tool"]
    assert asked.conversation.messages[1]["content"] == "Add."
    assert asked.conversation.messages[2]["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert asked.conversation.tools == TOOLS
    assert (
        openai_api.read({"model": "m", "messages": messages, "tools": TOOLS, "tool_choice": "none"}).conversation.tools
        == []
    )


@pytest.mark.parametrize("body", [None, [], {}, {"model": 3}, {"model": "m"}, {"model": "m", "messages": "hi"}])
def test_no_request_at_all(body):
    with pytest.raises(PlaygroundError):
        openai_api.read(body)
