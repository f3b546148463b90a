import json
from pathlib import Path

import pytest

from playground.core import tool_formats
from playground.core.tool_formats import FORMATS, Call, Fault, hermes, react, reasoning

CASES = Path(__file__).resolve().parents[3] / "shared" / "data" / "tool_calls" / "cases.jsonl"
CALLS = [Call("calculator", {"expression": "23 * 47"}), Call("get_weather", {"city": 'São "Paulo"\n</tool_call> <b>'})]
NESTED = Call("f", {"a": {"b": [1, 2.5, None, True, {"c": "}"}]}})


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("calls", [CALLS[:1], CALLS, [NESTED], [NESTED, *CALLS, NESTED]], ids=len)
def test_what_a_format_writes_it_reads(format, calls):
    parsed = format.parse("Let me see.\n" + format.write(calls) + "\nDone.")
    assert list(parsed.calls) == calls
    assert parsed.content.split() == ["Let", "me", "see.", "Done."]
    assert parsed.reasoning == ""


ONE = '{"name": "f", "arguments": {"a": 1}}'


@pytest.mark.parametrize(
    "format, text, content, thought, calls",
    [
        (hermes, "Hello.", "Hello.", "", []),
        (hermes, "", "", "", []),
        (hermes, f"<tool_call>{ONE}</tool_call>", "", "", ["f"]),
        (hermes, f"<tool_call>\n{ONE}\n</tool_call>\n<tool_call>{ONE}</tool_call>", "", "", ["f", "f"]),
        (hermes, f"before<tool_call>{ONE}</tool_call>after", "beforeafter", "", ["f"]),
        (hermes, f"<think>so\n</think>\n\n<tool_call>{ONE}</tool_call>", "", "so", ["f"]),
        (hermes, "so</think>The answer.", "The answer.", "so", []),
        (hermes, "<think>never ends", "", "never ends", []),
        (hermes, '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', "", "", ["f"]),
        # whole JSON without the closing tag is a call: nothing is guessed
        (hermes, f"<tool_call>{ONE}", "", "", ["f"]),
        (hermes, f"<tool_call>{ONE}<tool_call>{ONE}</tool_call>", "", "", ["f", "f"]),
        (hermes, '<tool_call>{"name": "f", "arguments": {"a"', "", "", ["truncated"]),
        (hermes, '<tool_call>{"name": "f", "arguments": {"a": "1', "", "", ["truncated"]),
        (hermes, "<tool_call>", "", "", ["truncated"]),
        (hermes, "<tool_call></tool_call>", "", "", ["malformed"]),
        (hermes, "<tool_call>f(1)</tool_call>", "", "", ["malformed"]),
        (hermes, "<tool_call>{'name': 'f', 'arguments': {}}</tool_call>", "", "", ["malformed"]),
        (hermes, '<tool_call>{"name": "f", "arguments": {"a": 1}</tool_call>', "", "", ["malformed"]),
        (hermes, '<tool_call>{"name": "f", "arguments": {"a": "1}}</tool_call>', "", "", ["malformed"]),
        (hermes, '<tool_call>{"name": "f"}</tool_call>', "", "", ["malformed"]),
        (hermes, '<tool_call>{"arguments": {}}</tool_call>', "", "", ["malformed"]),
        (hermes, '<tool_call>{"name": 5, "arguments": {}}</tool_call>', "", "", ["malformed"]),
        (hermes, '<tool_call>{"name": "f", "arguments": [1]}</tool_call>', "", "", ["malformed"]),
        (hermes, '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>', "", "", ["malformed"]),
        (hermes, f"<tool_call>[{ONE}]</tool_call>", "", "", ["malformed"]),
        (hermes, "<tool_call>" + "[" * 200_000 + "</tool_call>", "", "", ["malformed"]),
        (hermes, f"<tool_call>oops</tool_call><tool_call>{ONE}</tool_call>", "", "", ["malformed", "f"]),
        (hermes, ONE, ONE, "", []),
        (react, "<Final_Answer>42</Final_Answer>", "42", "", []),
        (react, "<Thought>add</Thought>\n<Action>f</Action>\n<Action_Input>{}</Action_Input>", "", "add", ["f"]),
        (react, '<Thought>add\n<Action>f</Action>\n<Action_Input>{"a": 1}', "", "add", ["f"]),
        (react, "add</Thought><Action>f</Action><Action_Input>{}</Action_Input>", "", "add", ["f"]),
        (react, '<Action>f</Action><Action_Input>{"a": ', "", "", ["truncated"]),
        (react, "<Action>f</Action>", "", "", ["truncated"]),
        (react, "<Action>f</Action_Input>", "", "", ["malformed"]),
        (react, "<Action>f</Action><Action_Input>23 * 47</Action_Input>", "", "", ["malformed"]),
        (react, "<Action>f</Action><Action_Input>[1]</Action_Input>", "", "", ["malformed"]),
        (react, "<Action></Action><Action_Input>{}</Action_Input>", "", "", ["malformed"]),
        (reasoning, "<|thinking|>hm</|thinking|>\n<answer>42</answer>", "42", "hm", []),
        (reasoning, f"<|thinking|>hm</|thinking|><tool_call>{ONE}</tool_call>", "", "hm", ["f"]),
        (reasoning, "hm</|thinking|><answer>42", "42", "hm", []),
        (reasoning, "plain text", "plain text", "", []),
    ],
)
def test_reading_a_reply(format, text, content, thought, calls):
    parsed = format.parse(text)
    assert [call.name if isinstance(call, Call) else call.kind for call in parsed.calls] == calls
    assert (parsed.content, parsed.reasoning) == (content, thought)
    for fault in parsed.faults:
        assert fault.raw in text
        assert fault.reason.endswith(".")
        assert "\n" not in fault.reason
        assert len(fault.reason) < 200


@pytest.mark.parametrize(
    "text, reason",
    [
        ("<tool_call>{'name': 'f'}</tool_call>", "broken at character 2: Expecting property name"),
        ('<tool_call>{"name": "f", "arguments": {"a"', "ended inside the call"),
        ("<tool_call>", "ended before the call was written"),
        ('<tool_call>{"name": "f"}</tool_call>', 'f has no "arguments" object'),
        ('<tool_call>{"arguments": {}}</tool_call>', 'no "name"'),
        ('<tool_call>"f"</tool_call>', "must be one JSON object, got a text"),
        ('<tool_call>{"name": "f", "arguments": null}</tool_call>', "must be a JSON object, got null"),
        ('<tool_call>{"name": "f", "arguments": {"a": Infinity}}</tool_call>', "Infinity is not a JSON number"),
    ],
)
def test_a_fault_says_what_is_wrong(text, reason):
    assert reason in hermes.parse(text).faults[0].reason


def test_reasoning_that_the_prompt_opened_is_split_off_only_where_it_is_expected():
    text = "so\n</think>\nThe answer."
    assert hermes.parse(text).reasoning == "so"
    assert hermes.parse(text, reasoning=False).content == text


def test_every_fault_has_a_name_and_a_meaning():
    assert Fault("truncated", "why").title == "truncated call"
    assert all(name and meaning.endswith(".") for name, meaning in tool_formats.FAULTS.values())


@pytest.mark.parametrize(
    "name, expected",
    [
        ("chatml-tools", "hermes"),
        ("react", "react"),
        ("reasoning-tools", "reasoning"),
        ("plain", None),
        ("chatml", None),
        ("alpaca", None),
    ],
)
def test_the_format_of_a_template_is_found_by_rendering_a_call(name, expected):
    from playground.core import templates

    found = tool_formats.for_template(templates.load(name))
    assert (found.NAME if found else None) == expected


def test_real_replies():
    if not CASES.exists():
        pytest.skip("the shared tool-call cases are not on this machine")
    rows = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["format"].startswith("hermes")]
    assert rows
    for row in rows:
        # only a template can say that a reply starts inside the reasoning
        parsed = hermes.parse(row["input"], reasoning="template" in row)
        expected = row["expected"]
        assert [{"name": c.name, "arguments": c.arguments} for c in parsed.calls] == expected["calls"], row["id"]
        assert parsed.content == (expected["content"] or ""), row["id"]
        assert parsed.reasoning == expected.get("reasoning", ""), row["id"]
