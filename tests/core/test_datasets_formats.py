"""From rows to conversations: every format by a literal."""

import json

import pytest

from playground.core import datasets
from playground.core.datasets import Mapping, guess, load, recognise, to_conversation
from playground.core.datasets.formats import examples
from playground.core.messages import Conversation, check_messages
from playground.errors import PlaygroundError


def user(text, **more):
    return {"role": "user", "content": text, **more}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def call(name="f", **arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


SYSTEM = {"role": "system", "content": "S"}
QA = [user("Q"), assistant("A")]
THOUGHT = [user("Q"), assistant("A", reasoning_content="T")]
CALLED = [user("Q"), assistant("", tool_calls=[call(x=1)]), {"role": "tool", "content": "R"}, assistant("A")]
TRACE = [
    user("Q"),
    assistant("", tool_calls=[call(x=1)], reasoning_content="T"),
    {"role": "tool", "content": "R"},
    assistant("A", reasoning_content="T2"),
]
HUMAN = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
REACT = 'Thought: T\nAction: f\nAction Input: {"x": 1}\nObservation: R\nThought: T2\nFinal Answer: A'
TAGS = (
    '<Thought>T</Thought>\n<Action>f</Action>\n<Action_Input>{"x": 1}</Action_Input>\n<Observation>R</Observation>\n'
    "<Thought>T2</Thought>\n<Final_Answer>A</Final_Answer>"
)
GOLDEN = [[{"Action": "f", "Action_Input": '{"x": 1}'}, {"Action": "f", "Action_Input": '{"x": ${x from f}}'}]]

ROWS = [
    # chats
    ({"messages": QA, "tools": [{"name": "f"}]}, "messages", QA),
    ({"conversations": QA}, "messages", QA),
    ({"Messages": json.dumps(QA)}, "messages", QA),
    ({"messages": str(QA)}, "messages", QA),  # as pandas writes a list into a CSV cell
    ({"messages": [user("Q"), assistant(None, tool_calls=[call(x=1)["function"]]), *CALLED[2:]]}, "messages", CALLED),
    (
        {
            "messages": [
                {"role": "developer", "content": "S"},
                user("Q"),
                {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"x": 1}'}},
                {"role": "function", "name": "f", "content": {"r": 1}},
            ]
        },
        "messages",
        [SYSTEM, *CALLED[:2], {"role": "tool", "name": "f", "content": '{"r": 1}'}],
    ),
    ({"messages": [user("Q"), assistant("<think>\nT\n</think>\n\nA")]}, "messages", THOUGHT),
    ({"messages": [user("Q"), assistant("A", reasoning="T", tool_calls=None)]}, "messages", THOUGHT),
    (
        {"messages": [user("Q"), assistant("<think>never closed")]},
        "messages",
        [user("Q"), assistant("<think>never closed")],
    ),
    ({"messages": QA, "system": "S"}, "messages", [SYSTEM, *QA]),
    ({"id": 1, "body": {"messages": QA, "model": "m"}}, "messages", QA),
    ({"conversations": HUMAN, "system": "S"}, "sharegpt", [SYSTEM, *QA]),
    (
        {
            "conversations": [
                {"from": "human", "value": "Q"},
                {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
                {"from": "observation", "value": "R"},
                {"from": "gpt", "value": "A"},
            ],
            "tools": '[{"name": "f"}]',
        },
        "sharegpt",
        CALLED,
    ),
    ({"conversation": [{"human": "Q", "assistant": "A"}]}, "turns", QA),
    ({"data": ["Q", "A"]}, "turns", QA),
    # instructions
    ({"instruction": "Q", "input": "", "output": "A"}, "alpaca", QA),
    ({"Instruction": "Q", "Output": "A", "system": "S"}, "alpaca", [SYSTEM, *QA]),
    (
        {"instruction": "I", "input": "X", "output": "O", "history": [["Q", "A"]]},
        "alpaca",
        [*QA, user("I\n\nX", instruction="I", input="X"), assistant("O")],
    ),
    ({"instruction": "", "input": "Q", "output": "A"}, "alpaca", QA),
    ({"prompt": "…", "instruction": "Q", "input": "", "response": "A", "target": "B"}, "alpaca", QA),
    ({"instruction": "Q", "context": "", "response": "A", "category": "qa"}, "dolly", QA),
    (
        {"instruction": "I", "context": "X", "response": "A"},
        "dolly",
        [user("I\n\nX", instruction="I", input="X"), assistant("A")],
    ),
    ({"instruction": "Q", "instances": [{"input": "", "output": "A"}]}, "self-instruct", QA),
    # pairs
    ({"prompt": "Q", "completion": "A"}, "prompt-completion", QA),
    ({"prompt": [SYSTEM, user("Q")], "completion": [assistant("A")]}, "prompt-completion", [SYSTEM, *QA]),
    ({"prompt": "Q", "response": "[1, 2]"}, "prompt-completion", [user("Q"), assistant("[1, 2]")]),
    ({"prompt": "Q", "response": {"a": [1]}}, "prompt-completion", [user("Q"), assistant('{"a": [1]}')]),
    ({"user": "Q", "assistant": "A", "system": "S"}, "prompt-completion", [SYSTEM, *QA]),
    ({"question": "Q", "answer": "A"}, "question-answer", QA),
    ({"question": 6, "answer": 7.5}, "question-answer", [user("6"), assistant("7.5")]),
    ({"question": "Q", "answer": "1+1\n#### 2"}, "question-answer", [user("Q"), assistant("1+1\n#### 2")]),
    ({"input": "Q", "target": "A"}, "question-answer", QA),
    ({"Question": "Q", "Best Answer": "A", "Category": "c"}, "question-answer", QA),
    ({"problem": "Q", "solution": "A"}, "question-answer", QA),
    (
        {"question": "Q", "choices": ["x", "y"], "answer": "B"},
        "question-answer",
        [user("Q\nA. x\nB. y"), assistant("B")],
    ),
    ({"question": "Q", "choices": ["x", "y"], "answer": 1}, "question-answer", [user("Q\nA. x\nB. y"), assistant("B")]),
    (
        {"question": "Q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"},
        "question-answer",
        [user("Q\n1. x\n2. y"), assistant("2")],
    ),
    ({"question": "Q", "mc1_targets": {"A": 1, "B": 0}}, "question-answer", QA),
    (
        {"question": "Q", "context": "X", "answers": {"text": ["A", "a"], "answer_start": [0]}},
        "question-answer",
        [user("Q\n\nX", instruction="Q", input="X"), assistant("A")],
    ),
    # preferences
    ({"prompt": "Q", "chosen": "A", "rejected": "B"}, "preference", QA),
    ({"chosen": QA, "rejected": [user("Q"), assistant("B")]}, "preference", QA),
    ({"prompt": "Q", "chosen": QA, "rejected": [user("Q"), assistant("B")]}, "preference", QA),
    ({"prompt": [user("Q")], "chosen": [assistant("A")], "rejected": [assistant("B")]}, "preference", QA),
    (
        {"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B"},
        "preference",
        QA,
    ),
    ({"conversations": HUMAN[:1], "chosen": HUMAN[1], "rejected": {"from": "gpt", "value": "B"}}, "preference", QA),
    ({"instruction": "Q", "input": "", "output": "O", "chosen": "A", "rejected": "B"}, "preference", QA),
    ({"input": "Q", "output_1": "B", "output_2": "A", "label": 2}, "preference", QA),
    ({"prompt": "Q", "response_a": "A", "response_b": "B", "winner": "model_a"}, "preference", QA),
    ({"messages": QA, "label": False}, "preference", QA),
    ({"prompt": "Q", "completion": "A", "label": True}, "preference", QA),
    ({"instruction": "Q", "input": "", "output": "A", "kto_tag": "true"}, "preference", QA),
    # reasoning and acting
    ({"question": "Q", "reasoning": "T", "answer": "A"}, "reasoning", THOUGHT),
    ({"Question": "Q", "Complex_CoT": "T", "Response": "A"}, "reasoning", THOUGHT),
    ({"prompt": "Q", "think": "T", "completion": "A"}, "reasoning", THOUGHT),
    ({"instruction": "Q", "input": "", "output": "<think>T</think>A"}, "reasoning", THOUGHT),
    ({"prompt": "Q", "response": "<|thinking|>T</|thinking|>\n<answer>A</answer>"}, "reasoning", THOUGHT),
    ({"text": f"Question: Q\n{REACT}"}, "react", TRACE),
    ({"text": f"<Question>Q</Question>\n{TAGS}"}, "react", TRACE),
    ({"instruction": "Q", "output": REACT}, "react", TRACE),
    (
        {"question": "Q", "thought": "T", "action": "f", "action_input": {"x": 1}, "observation": "R", "answer": "A"},
        "react",
        [*TRACE[:3], assistant("A")],
    ),
    (
        {"question": "Q", "steps": [{"thought": "T", "action": "f[1]", "observation": "R"}], "final_answer": "A"},
        "react",
        [
            user("Q"),
            assistant("", tool_calls=[call(input="1")], reasoning_content="T"),
            {"role": "tool", "content": "R"},
            assistant("A"),
        ],
    ),
    (
        {"question": "Q", "answer": "Thought 1: T\nAction 1: Finish[A]"},
        "react",
        [user("Q"), assistant("A", reasoning_content="T")],
    ),
    # function calls
    (
        {
            "instruction": "S",
            "input": {"user_question": "Q", "function_call_example": {"name": "g"}},
            "output": {"function_call": {"name": "f", "arguments": '{"x": 1}'}},
        },
        "function-calling",
        [{"role": "system", "content": 'S\n\nExample of a function call:\n{"name": "g"}'}, *CALLED[:2]],
    ),
    (
        {"instruction": "S", "input": '{"user_question": "Q"}', "output": '{"function_call": "f(x=1)"}'},
        "function-calling",
        [SYSTEM, user("Q"), assistant("f(x=1)")],
    ),
    (
        {"query": "Q", "answers": '[{"name": "f", "arguments": {"x": 1}}]', "tools": '[{"name": "f"}]'},
        "function-calling",
        CALLED[:2],
    ),
    ({"id": "a", "question": [[user("Q")]], "function": [{"name": "f"}]}, "bfcl", QA[:1]),
    (
        {"Instructions": ["Q"], "Golden_Answers": GOLDEN, "Function_Description": {"f": "F", "components": ""}},
        "toolalpaca",
        CALLED[:2],
    ),
    # running texts
    ({"text": "### Human: Q### Assistant: A"}, "transcript", QA),
    ({"text": "<s>[INST] Q [/INST] A </s>"}, "transcript", QA),
    (
        {"text": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nA<|im_end|>"},
        "transcript",
        [SYSTEM, *QA],
    ),
    (
        {"text": "Below is an instruction.\n\n### Instruction:\nI\n\n### Input:\nX\n\n### Response:\nA"},
        "transcript",
        [user("I\n\nX", instruction="I", input="X"), assistant("A")],
    ),
    # prompts alone
    ({"prompt": "Q", "key": 1}, "prompts", QA[:1]),
    ({"text": "Q: who?\nA:"}, "prompts", [user("Q: who?\nA:")]),
    ({"question_id": 81, "turns": ["Q", "Q2"]}, "prompts", [user("Q"), user("Q2")]),
    ({"question": "Q", "answer": None}, "question-answer", QA[:1]),
]


@pytest.mark.parametrize("row, format, messages", ROWS, ids=lambda value: value if isinstance(value, str) else "")
def test_formats(row, format, messages):
    given = json.dumps(row)
    assert recognise(row) == format
    conversation = to_conversation(row)
    assert conversation.messages == messages
    check_messages(conversation.messages)
    assert to_conversation(row, format) == conversation
    assert json.dumps(row) == given  # a row that was read is not written to


def test_every_format_is_in_the_table():
    assert {format for _, format, _ in ROWS} == set(datasets.NAMES)


@pytest.mark.parametrize(
    "row, extras",
    [
        ({"question": "Q", "answer": "1+1\n#### 2"}, {"reference": "2"}),
        ({"prompt": "Q", "chosen": "A", "rejected": "B"}, {"rejected": [assistant("B")]}),
        ({"chosen": QA, "rejected": [user("Q"), assistant("B")]}, {"rejected": [assistant("B")]}),
        ({"input": "Q", "output_1": "B", "output_2": "A", "label": 2}, {"rejected": [assistant("B")]}),
        ({"messages": QA, "label": False}, {"desirable": False}),
        ({"prompt": "Q", "completion": "A", "label": True}, {"desirable": True}),
        ({"turns": ["Q"], "reference": ["A"], "category": "math"}, {"reference": ["A"], "label": "math"}),
        ({"instruction": "Q", "input": "", "response": "A", "target": "B"}, {"reference": "B"}),
        ({"instruction": "Q", "response": "A", "category": "closed_qa"}, {"label": "closed_qa"}),
        ({"instruction": "Q", "output": "A"}, {}),
    ],
)
def test_what_a_row_says_besides(row, extras):
    assert examples(row)[1][0].extras == extras


@pytest.mark.parametrize(
    "given",
    [
        [{"name": "f"}],
        '[{"name": "f"}]',
        {"name": "f"},
        ['{"name": "f"}'],
        [{"type": "function", "function": {"name": "f"}}],
    ],
)
def test_tools_come_to_one_shape(given):
    assert to_conversation({"messages": QA, "tools": given}).tools == [{"type": "function", "function": {"name": "f"}}]


def test_schemas_in_other_words():
    parameters = {"type": "dict", "properties": {"x": {"type": "float"}, "type": {"type": "string"}}}
    row = {"question": [[user("Q")]], "function": [{"name": "f", "parameters": parameters}]}
    schema = to_conversation(row).tools[0]["function"]["parameters"]
    assert schema == {"type": "object", "properties": {"x": {"type": "number"}, "type": {"type": "string"}}}
    told = 'Search.\nParameters: {"q": "Required. string. Words.", "n": "integer. How many."}\nOutput: Object'
    row = {"Instructions": ["Q"], "Golden_Answers": [], "Function_Description": {"find": told}}
    function = to_conversation(row).tools[0]["function"]
    assert (function["name"], function["description"]) == ("find", "Search.")
    assert function["parameters"] == {
        "type": "object",
        "properties": {
            "q": {"type": "string", "description": "Required. string. Words."},
            "n": {"type": "integer", "description": "integer. How many."},
        },
        "required": ["q"],
    }


def test_template_variables_of_a_row():
    row = {"messages": QA, "chat_template_kwargs": {"enable_thinking": False, "messages": []}, "id": 3}
    assert to_conversation(row) == Conversation(QA, [], {"enable_thinking": False})


def test_a_row_of_several_conversations():
    row = {"instruction": "I", "instances": [{"input": "", "output": "A"}, {"input": "X", "output": "B"}]}
    found = [example.conversation.messages for example in examples(row)[1]]
    assert [[m["content"] for m in messages] for messages in found] == [["I", "A"], ["I\n\nX", "B"]]


@pytest.mark.parametrize(
    "row, sentence",
    [
        ({"left": 1, "right": 2}, "no known format has the columns left, right; known formats are function-calling"),
        ({}, "no known format has the columns none"),
        ({"id": "0", "prompt": "8", "left": "m", "right": "n"}, "no known format has the columns id, prompt"),
        ({"input": "what a model said", "expected": {}}, "no known format"),
        ({"question": [[user("Q")]], "gold": "A"}, "no known format has the columns question, gold"),
        (
            {"messages": [{"content": "Q"}, {"role": "user", "content": "Q"}]},
            "no known format has the columns messages",
        ),
        ({"instruction": "I", "input": [1], "output": "O"}, "column input: must be text, got a list"),
        ({"instruction": "I", "output": " "}, "column output: is empty"),
        ({"question": None, "answer": "A"}, "column question: must be text, got nothing"),
        ({"question": b"\xff", "answer": "A"}, "column question: must be text, got binary data"),
        ({"instruction": "I", "output": "O", "history": ["a"]}, "column history: must be a list of [question, answer]"),
        ({"messages": [], "conversations": [], "x": "x"}, "no known format has the columns messages, conv"),
        ({"conversations": [{"from": "function_call", "value": "{x"}]}, "a function call is not valid JSON: '{x'"),
        ({"messages": [user("Q"), 3]}, "turn 2 must be an object, got a number"),
        ({"messages": QA, "tools": "none"}, "column tools: must be a list of JSON schemas, got text"),
        ({"prompt": "Q", "chosen": "", "rejected": "B"}, "column chosen: is empty"),
        ({"chosen": "A", "rejected": "B"}, "there is no prompt before the chosen reply"),
        ({"input": "Q", "output_1": "A", "output_2": "B", "label": "tie"}, "column label: says 'tie', which prefers"),
        ({"text": "Thought: T\nAction Input: {}\nAction: f"}, "an Action Input has no Action before it"),
        ({"instruction": "I", "instances": []}, "column instances: must be a list of objects"),
        ({"question": "Q", "mc1_targets": {"A": 0}}, "column mc1_targets: marks no choice as right"),
        ({"Instructions": [], "Function_Description": {}}, "column instructions: is empty"),
    ],
)
def test_rows_that_are_no_conversation(row, sentence):
    with pytest.raises(PlaygroundError) as error:
        to_conversation(row)
    assert sentence in str(error.value)


def test_a_format_that_is_not_there():
    with pytest.raises(PlaygroundError, match="there is no format 'xml'; known formats are"):
        to_conversation({}, "xml")
    with pytest.raises(PlaygroundError, match=r"does not keep to the format alpaca \(instruction, input, output\)"):
        to_conversation({"a": 1}, "alpaca")


# Mapping --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row, mapping",
    [
        (
            {"Customer message": "Hi", "Bot reply": "Yes", "id": "7"},
            Mapping(prompt="Customer message", answer="Bot reply"),
        ),
        (
            {"userQuery": "Q", "modelOutput": "A", "cot": "T"},
            Mapping(prompt="userQuery", answer="modelOutput", reasoning="cot"),
        ),
        ({"persona": "S", "ask": "Q", "x": "A"}, Mapping(system="persona", prompt="ask", answer="x")),
        ({"first": "Q", "second": "A"}, Mapping(prompt="first", answer="second")),
        ({"first": "Q", "second": "A", "third": "B"}, Mapping(prompt="first")),  # a part of it
        ({"log": [user("Q")], "functions": [], "question": "Q"}, Mapping(messages="log", tools="functions")),
        ({"score": "3.5", "n": 2}, Mapping()),
    ],
)
def test_a_mapping_is_guessed_as_far_as_it_goes(row, mapping):
    assert guess([row]) == mapping


@pytest.mark.parametrize(
    "mapping, messages",
    [
        (Mapping(prompt="a", answer="b"), QA),
        (Mapping(prompt="a"), QA[:1]),
        (Mapping(prompt="a", answer="b", system="s", reasoning="t"), [SYSTEM, *THOUGHT]),
        (Mapping(prompt="a", answer="b", reasoning="empty"), QA),
        (Mapping(prompt="a", input="t", answer="b"), [user("Q\n\nT", instruction="Q", input="T"), assistant("A")]),
        (Mapping(messages="chat log"), QA),
        (Mapping(prompt="chat log", answer="none"), QA),
    ],
)
def test_a_mapping_is_applied(mapping, messages):
    row = {"a": "Q", "b": "A", "s": "S", "t": "T", "empty": "", "chat log": HUMAN, "none": None}
    format, found = mapping.examples(row)
    assert (format, found[0].conversation.messages) == ("mapped", messages)


def test_a_mapping_with_tools_and_a_rejected_reply():
    row = {"a": "Q", "b": "A", "c": "B", "d": '[{"name": "f"}]'}
    found = Mapping(prompt="a", answer="b", rejected="c", tools="d").examples(row)[1][0]
    assert (found.conversation.messages, found.extras) == (QA, {"rejected": [assistant("B")]})
    assert found.conversation.tools[0]["function"] == {"name": "f"}


@pytest.mark.parametrize(
    "mapping, sentence",
    [
        (Mapping(prompt="x"), "there is no column 'x' for the prompt; the columns are a, b"),
        (Mapping(answer="b"), "the mapping names no column for the prompt"),
        (Mapping(prompt="a", answer="b"), "column b: is empty"),
    ],
)
def test_a_mapping_that_does_not_fit(mapping, sentence):
    with pytest.raises(PlaygroundError) as error:
        mapping.examples({"a": "Q", "b": " "})
    assert sentence in str(error.value)


def test_a_format_can_be_forced(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "Q", "completion": "A", "instruction": "I", "response": "R"}')
    assert load(tmp_path / "a.jsonl").format == "dolly"
    assert load(tmp_path / "a.jsonl", mapping=Mapping(format="prompt-completion")).conversations[0].messages == QA


# Built in -------------------------------------------------------------------------------------------------------------


def test_built_in_instructions():
    found = load("instructions")
    assert (found.format, found.problems, found.bad) == ("alpaca", [], 0)
    questions = [c.messages[0]["content"] for c in found.conversations]
    assert len(questions) == found.rows >= 60
    assert len(set(questions)) == len(questions)
    assert any("input" in c.messages[0] for c in found.conversations)


def test_built_in_tool_calls():
    found = load("tool-calls")
    assert len(found.conversations) == found.rows == datasets.TOOL_CALL_ROWS
    assert found.problems == []
    assert all(c.tools for c in found.conversations)


def test_samples_are_good_conversations():
    found = datasets.samples()
    for conversation in found.values():
        check_messages(conversation.messages)
        assert conversation.messages[-1]["role"] == "assistant"
    roles = {(m["role"], bool(m.get("tool_calls"))) for c in found.values() for m in c.messages}
    assert {("system", False), ("assistant", True), ("tool", False)} <= roles
    assert any(m.get("reasoning_content") for c in found.values() for m in c.messages)
    assert any("<|im_end|>" in m["content"] for c in found.values() for m in c.messages)
    assert isinstance(found["Question and answer"], Conversation)
