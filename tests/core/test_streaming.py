import random

import pytest

from playground.core.streaming import Span, Stream, split, without_thinking
from playground.core.tool_formats import FORMATS, hermes

ONE = '{"name": "f", "arguments": {"a": "</tool_call>"}}'
TEXTS = [
    "",
    "Hello, world.",
    f"Let me see.\n<tool_call>\n{ONE}\n</tool_call> and <tool_call>{ONE}</tool_call>",
    "a < b <tool <tool_cal <tool_call",
    "<think>hm < </thin </think>x<think>",
    "so it is</think>\nThe answer",
    f"<|thinking|>{ONE}</|thinking|><answer>4 < 5</answer>",
    "<Thought>hm<Action>f</Action><Action_Input>{}</Action_Input><Final_Answer>4",
    '<tool_call>{"name": "f", "arguments": {"a": "1}}</tool_call> after',
    "<tool_call><tool_call></tool_call></think>",
    "🙂<tool_call>🙂</tool_call>🙂",
]


def shown(spans: list[Span]) -> str:
    return "".join(span.raw for span in spans)


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_how_a_text_is_cut_does_not_matter(format):
    rng = random.Random(5)
    for text in TEXTS + ["".join(rng.choices(TEXTS, k=3)) for _ in range(30)]:
        whole = split(text, format.MARKERS)
        assert shown(whole) == text
        cuts = sorted(rng.choices(range(len(text) + 1), k=rng.randint(0, 12)))
        stream = Stream(format.MARKERS)
        for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
            spans = stream.feed(text[start:end])
            assert spans == split(text[:end], format.MARKERS, final=False)
            assert text.startswith(shown(spans))
        assert stream.finish() == whole


def test_content_and_calls_are_never_taken_back():
    """What is shown as content stays the beginning of what is shown later (where no reasoning closes unopened)."""
    text = TEXTS[2]
    before = ""
    for end in range(len(text) + 1):
        spans = split(text[:end], hermes.MARKERS, final=False)
        content = "".join(span.text for span in spans if span.kind == "content")
        assert content.startswith(before)
        assert "<tool" not in content
        before = content


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Hi <tool_", [("content", "Hi ")]),
        ("Hi <tool_x", [("content", "Hi <tool_x")]),
        ("Hi <", [("content", "Hi ")]),
        ("<tool_call>{", [("call", "{")]),
        ("<tool_call>{}</tool", [("call", "{}")]),
        ("<think>a</th", [("reasoning", "a")]),
        ("a</thi", [("content", "a")]),
        ("a</think>b", [("reasoning", "a"), ("content", "b")]),
    ],
)
def test_the_beginning_of_a_marker_is_held_back(text, expected):
    assert [(span.kind, span.text) for span in split(text, hermes.MARKERS, final=False)] == expected


def test_at_the_end_nothing_is_held_back():
    assert split("Hi <tool_", hermes.MARKERS) == [Span("content", "Hi <tool_", "Hi <tool_")]


@pytest.mark.parametrize("marker", ["</tool_call>", "<tool_call>"])
def test_a_marker_in_a_json_string_after_an_escaped_quote_is_only_text(marker):
    body = f'{{"a": "one \\" quote {marker}"}}'
    text = f"<tool_call>{body}</tool_call>"
    assert split(text, hermes.MARKERS) == [Span("call", body, text)]


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("<think>a</think>\n\nb", "b"),
        ("\n<think>\na\n</think>b</think>", "b</think>"),
        ("<think>a", ""),
        ("b <think>a</think>", "b <think>a</think>"),
        ("", ""),
    ],
)
def test_an_answer_is_a_reply_without_the_thinking_before_it(reply, answer):
    assert without_thinking(reply) == answer
