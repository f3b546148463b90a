import pytest

from playground.core.messages import Conversation, check_messages, from_row, parse_conversation
from playground.errors import PlaygroundError

USER = {"role": "user", "content": "Hi"}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}


@pytest.mark.parametrize(
    "text, expected",
    [
        ("What is 2+2?", Conversation([{"role": "user", "content": "What is 2+2?"}])),
        ('[{"role": "user", "content": "Hi"}]', Conversation([USER])),
        ('{"role": "user", "content": "Hi"}', Conversation([USER])),
        ('\ufeff  {"messages": [{"role": "user", "content": "Hi"}]}', Conversation([USER])),
        (
            '{"messages": [{"role": "user", "content": "Hi"}], "tools": [{"name": "f"}], "enable_thinking": false}',
            Conversation([USER], [{"name": "f"}], {"enable_thinking": False}),
        ),
        (
            '{"instruction": "Hi", "input": "", "output": "Hello"}',
            Conversation([USER, {"role": "assistant", "content": "Hello"}]),
        ),
        ('[{"from": "human", "value": "Hi"}]', Conversation([USER])),
    ],
)
def test_parse(text, expected):
    assert parse_conversation(text) == expected


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("  \n", "the example is empty"),
        ('{"messages": [\n  {"role": "user" "content": "Hi"}]}', "not valid JSON: Expecting ',' delimiter at line 2"),
        ('[{"role": "user",]', "line 1, column 18"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": 1}', "no known format has the columns a"),
        ('{"messages": 5}', "messages must be a list of messages, got a number"),
        ('{"messages": [], "tools": [3]}', "tools must be a list of JSON schemas"),
        ('["a"]', "message 1 must be an object"),
    ],
)
def test_parse_says_what_is_wrong(text, sentence):
    with pytest.raises(PlaygroundError, match=".*") as error:
        check_messages(parse_conversation(text).messages)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    "call",
    [
        {"name": "f", "arguments": {"x": 1}},
        {"name": "f", "arguments": '{"x": 1}'},
        {"function": {"name": "f", "arguments": '{"x": 1}'}},
        CALL,
    ],
)
def test_tool_calls_in_other_shapes_are_brought_to_one(call):
    row = {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [call]}]}
    function = from_row(row).messages[1]["tool_calls"][0]["function"]
    assert function == {"name": "f", "arguments": {"x": 1}}
    check_messages(from_row(row).messages)


def test_content_parts_are_joined_and_others_left():
    parts = [
        {"type": "reasoning", "value": "Hm."},
        {"type": "text", "text": "A"},
        {"type": "text", "text": "B"},
        {"type": "tool_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
    ]
    message = from_row({"messages": [{"role": "assistant", "content": parts}]}).messages[0]
    assert message == {"role": "assistant", "content": "AB", "reasoning_content": "Hm.", "tool_calls": [CALL]}
    image = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "A"}]}
    assert from_row({"messages": [image]}).messages == [image]


@pytest.mark.parametrize(
    "messages, sentence",
    [
        ([], "a conversation needs at least one message"),
        ("Hi", "a conversation needs at least one message"),
        (["Hi"], "message 1 must be an object with a role and a content, got text"),
        ([{"content": "Hi"}], "message 1 has no role; roles are system, user, assistant, tool"),
        ([{"role": "human", "content": "Hi"}], "message 1 has the role 'human'"),
        ([USER, {"role": ["assistant"], "content": "Hi"}], "message 2 has the role ['assistant']"),
        ([USER, {"role": "assistant", "content": " \n"}], "message 2 (assistant) is empty"),
        ([USER, {"role": "assistant"}], "message 2 (assistant) is empty"),
        ([{"role": "user", "content": ["a"]}], "message 1 (user): content must be text, got a list"),
        ([{"role": "user", "content": 3.5}], "message 1 (user): content must be text, got a number"),
        ([{"role": "assistant", "content": "Hi"}, USER], "message 1 is from the assistant"),
        ([USER, {"role": "tool", "content": "3"}], "message 2 is a tool result, but no tool call comes before it"),
        ([{**USER, "tool_calls": [CALL]}], "message 1 (user) has tool_calls; only the assistant calls tools"),
        ([USER, {"role": "assistant", "tool_calls": CALL}], "message 2: tool_calls must be a list, got an object"),
        ([USER, {"role": "assistant", "tool_calls": ["f"]}], "message 2: a tool call must read"),
        (
            [USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "x"}}]}],
            "message 2: the arguments of f must be an object, got text",
        ),
    ],
)
def test_check_names_the_message(messages, sentence):
    with pytest.raises(PlaygroundError) as error:
        check_messages(messages)
    assert sentence in str(error.value)


def test_check_accepts_a_whole_tool_conversation():
    calling = {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]}
    result = {"role": "tool", "content": ""}
    check_messages([{"role": "system", "content": "S"}, USER, calling, result, result, {**USER, "role": "assistant"}])
