"""Every tool-call format on literals: what it finds, cut in pieces, cut off, and on text that means nothing."""

import json
import random
from pathlib import Path

import pytest

from playground.core import streaming, tool_formats
from playground.core.tool_formats import FORMATS, Call, Fault, Reading, cases, literals, typed
from playground.core.tool_formats.reading import json_end
from playground.errors import PlaygroundError
from tests.core import hunted_replies
from tests.core.tool_format_rows import ROWS

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
NAMES = ("NAME", "STOPS", "MARKERS", "announce", "write", "read", "parse", "write_result")
TOOL = {
    "type": "function",
    "function": {
        "name": "book",
        "description": "Book a trip",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "ref": {"type": ["string", "null"]},
                "fare": {"anyOf": [{"type": "number"}, {"type": "null"}]},
                "who": {"type": "array"},
                "extra": {"type": "object"},
                "sure": {"type": "boolean"},
            },
            "required": ["city"],
        },
    },
}
LIST = '[{"name": "add", "arguments": {"a": 1}}, {"name": "now", "arguments": {}}]'
TWO = [("add", {"a": 1}), ("now", {})]
DS = "<｜tool▁call▁begin｜>{}<｜tool▁call▁end｜>"
KIMI = "<|tool_call_begin|>functions.{}:{}<|tool_call_argument_begin|>{}<|tool_call_end|>"
FINAL = "<|start|>assistant<|channel|>final<|message|>"

# format, reply, content, reasoning, calls as (name, arguments) or the kind of a fault
CASES = [
    ("qwen3_coder", "Hm <tool_call>\n<function=now>\n</function>\n</tool_call> ok", "Hm  ok", "", [("now", {})]),
    (
        "qwen3_coder",
        "so\n</think>\n<tool_call>\n<function=book>\n<parameter=city>\n007\n\n</parameter>\n<parameter=days>\n007\n"
        "</parameter>\n<parameter=ref>\n12\n</parameter>\n<parameter=fare>\n2.5\n</parameter>\n<parameter=who>\n"
        "['a', True]\n</parameter>\n<parameter=extra>\n{\"a\": null}\n</parameter>\n<parameter=sure>\nTrue\n"
        "</parameter>"
        "\n</function>\n</tool_call>",
        "",
        "so",
        [
            (
                "book",
                {
                    **{"city": "007\n", "days": 7, "ref": "12", "fare": 2.5, "who": ["a", True]},
                    **{"extra": {"a": None}, "sure": True},
                },
            )
        ],
    ),
    ("qwen3_coder", "<function=f>\n<parameter=a b>\nx\n</parameter>\n</function>", "", "", [("f", {"a b": "x"})]),
    (
        "qwen3_coder",
        "<tool_call><function=f><parameter=a>\n1\n<parameter=b>\n<b></parameter>.</b>\n</parameter></function></tool_call>",
        "",
        "",
        [("f", {"a": 1, "b": "<b></parameter>.</b>"})],
    ),
    ("qwen3_coder", "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>", "", "", ["truncated"]),
    ("qwen3_coder", "<tool_call>\n<function=f>\n<parameter=a>\n1", "", "", ["truncated"]),
    ("qwen3_coder", "<tool_call>{}</tool_call>", "", "", ["malformed"]),
    ("qwen3_coder", "<tool_call><function=f>oops</function></tool_call>", "", "", ["malformed"]),
    ("glm4", "plan</think>A<tool_call>now</tool_call>", "A", "plan", [("now", {})]),
    (
        "glm4",
        "<tool_call>book\n<arg_key>city</arg_key>\n<arg_value>3 </tool_call> < 4</arg_value>\n<arg_key>days</arg_key>\n"
        "<arg_value>3</arg_value>\n</tool_call><tool_call>f<arg_key>k</arg_key><arg_value>[1]</arg_value></tool_call>",
        "",
        "",
        [("book", {"city": "3 </tool_call> < 4", "days": 3}), ("f", {"k": [1]})],
    ),
    ("glm4", "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>", "", "", ["truncated"]),
    ("glm4", "<tool_call>f\n<arg_key>a\n<arg_value>1</arg_value>\n</tool_call>", "", "", ["malformed"]),
    ("glm4", '<tool_call>{"name": "f"}</tool_call>', "", "", ["malformed"]),
    (
        "deepseek_v3",
        "I see.<｜tool▁calls▁begin｜>"
        + DS.format('function<｜tool▁sep｜>add\n```json\n{"a": 1}\n```')
        + "\n"
        + DS.format('now<｜tool▁sep｜>{"s": "<｜tool▁call▁end｜>"}')
        + "<｜tool▁calls▁end｜>done",
        "I see.\ndone",
        "",
        [("add", {"a": 1}), ("now", {"s": "<｜tool▁call▁end｜>"})],
    ),
    ("deepseek_v3", "W: <｜tool▁output▁begin｜>4<｜tool▁output▁end｜>!", "W: 4!", "", []),
    ("deepseek_v3", '<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{"a', "", "", ["truncated"]),
    ("deepseek_v3", "<｜tool▁call▁begin｜>f", "", "", ["truncated"]),
    ("deepseek_v3", DS.format("f<｜tool▁sep｜>[1]"), "", "", ["malformed"]),
    (
        "kimi_k2",
        "<think>two<|tool_calls_section_begin|>"
        + KIMI.format("add", 0, '{"a": 1}')
        + KIMI.format("now", 1, " {} ")
        + "<|tool_calls_section_end|>ok",
        "ok",
        "two",
        TWO,
    ),
    ("kimi_k2", KIMI.format("x", "y", "{}") + KIMI.format("now", 1, "{}"), "", "", ["malformed", ("now", {})]),
    ("kimi_k2", '<|tool_call_begin|>f:0<|tool_call_argument_begin|>{"a": ', "", "", ["truncated"]),
    ("kimi_k2", "<|tool_call_begin|>functions.f", "", "", ["truncated"]),
    ("mistral", f"Hi[TOOL_CALLS] {LIST}\nbye", "Hi\nbye", "", TWO),
    ("mistral", '[THINK]hm[/THINK][TOOL_CALLS]add[ARGS]{"a": 1}[TOOL_CALLS]now{}', "", "hm", TWO),
    ("mistral", '[TOOL_CALLS]add[CALL_ID]123456789[ARGS]{"a": 1} x', "x", "", TWO[:1]),
    ("mistral", '[TOOL_CALLS]f[ARGS]{"a": "[TOOL_CALLS]"} x', "x", "", [("f", {"a": "[TOOL_CALLS]"})]),
    ("mistral", '[TOOL_CALLS]f[ARGS]{"a": ', "", "", ["truncated"]),
    (
        "mistral",
        '[TOOL_CALLS][{"name": "now", "arguments": {}}, {"name": "f", "arg',
        "",
        "",
        [("now", {}), "truncated"],
    ),
    ("mistral", "[TOOL_CALLS]f", "", "", ["truncated"]),
    ("mistral", "[TOOL_CALLS]not\ncalls", "", "", ["malformed"]),
    (
        "gpt_oss",
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary to=functions.add "
        '<|constrain|>json<|message|>{"a": 1}<|call|>'
        "<|start|>assistant to=functions.now<|channel|>commentary<|message|>{}",
        "",
        "hm",
        TWO,
    ),
    ("gpt_oss", f"<|channel|>analysis<|message|>hm<|end|>{FINAL}Hello<|return|>", "Hello", "hm", []),
    ("gpt_oss", f"<|channel|>commentary to=assistant<|channel|>analysis<|message|>hm<|end|>{FINAL}A", "A", "hm", []),
    ("gpt_oss", ' to=functions.add<|channel|>analysis <|constrain|>json<|message|>{"a": 1}', "", "", TWO[:1]),
    ("gpt_oss", "Plain.", "Plain.", "", []),
    ("gpt_oss", '<|channel|>commentary to=functions.f<|message|>{"a', "", "", ["truncated"]),
    ("gpt_oss", "<|channel|>commentary to=functions.f <|constrain|>json", "", "", ["truncated"]),
    ("gpt_oss", "<|channel|>commentary to=python<|message|>print(1)<|call|>", "", "", ["malformed"]),
    (
        "functiongemma",
        "A<start_function_call>call:f{s:<escape>x, {y}: <end_function_call><escape>,n:{b:true,"
        "l:[<escape>a<escape>,1.5]}}"
        "<end_function_call>B",
        "AB",
        "",
        [("f", {"s": "x, {y}: <end_function_call>", "n": {"b": True, "l": ["a", 1.5]}})],
    ),
    ("functiongemma", "<start_function_call>call:f{}<end_function_call>", "", "", [("f", {})]),
    ("functiongemma", "<start_function_call>call:f{a:<escape>x", "", "", ["truncated"]),
    ("functiongemma", "<start_function_call>f(1)<end_function_call>", "", "", ["malformed"]),
    (
        "lfm2",
        '<think>a</think>Hm<|tool_call_start|>[f(s="it\'s", n=07)]<|tool_call_end|>.',
        "Hm.",
        "a",
        [("f", {"s": "it's", "n": 7})],
    ),
    ("lfm2", f"<|tool_call_start|>{LIST}<|tool_call_end|>", "", "", TWO),
    ("lfm2", "so</think>[now()]", "", "so", [("now", {})]),
    ("lfm2", "Text [now()]", "Text [now()]", "", []),
    ("lfm2", "<|tool_call_start|>[]<|tool_call_end|>", "", "", []),
    (
        "lfm2",
        "<|tool_call_start|>[sh(c='sed '1,2p' f', n=1)]<|tool_call_end|>",
        "",
        "",
        [("sh", {"c": "sed '1,2p' f", "n": 1})],
    ),
    ("lfm2", "<think>I call <|tool_call_start|>[now()]<|tool_call_end|>", "", "I call", [("now", {})]),
    ("lfm2", "<|tool_call_start|>[f(a=", "", "", ["truncated"]),
    (
        "olmo3",
        'A<function_calls>add(a=1)\nf(from="X", o={"k": [null, true]})</function_calls>',
        "A",
        "",
        [TWO[0], ("f", {"from": "X", "o": {"k": [None, True]}})],
    ),
    ("olmo3", "<function_calls>nothing here</function_calls>", "", "", ["malformed"]),
    ("olmo3", "<function_calls>f(a=</function_calls>", "", "", ["malformed"]),
    ("olmo3", "<function_calls>f(a='x", "", "", ["truncated"]),
    (
        "internlm2",
        'A <|action_start|> <|plugin|>\n{"name": "add", "parameters": {"a": 1}}<|action_end|>\n',
        "A",
        "",
        TWO[:1],
    ),
    ("internlm2", "<|action_start|><|plu", "", "", ["truncated"]),
    ("internlm2", '<|action_start|><|plugin|>{"name": "f", "parameters": "x"}<|action_end|>', "", "", ["malformed"]),
    ("granite", f"A<|tool_call|> {LIST}\nB", "A\nB", "", TWO),
    ("granite", f"<think>t</think><tool_call>{LIST}</tool_call>", "", "t", TWO),
    (
        "granite",
        '<function_call> {"name": "add", "arguments": {"a": 1}} <function_call> {"name": "now", "arguments": {}}',
        "",
        "",
        TWO,
    ),
    ("granite", '<|tool_call|>[{"name": "f", "arguments": {', "", "", ["truncated"]),
    ("phi4_mini", f"A\nfunctools{LIST}\nB", "A\n\nB", "", TWO),
    ("phi4_mini", f"<|tool_call|>{LIST}<|/tool_call|>", "", "", TWO),
    ("phi4_mini", "functools are fun", "functools are fun", "", []),
    ("phi4_mini", "functools[ just text ]", "", "", ["malformed"]),
    ("phi4_mini", 'functools[{"name": "now", "arguments": {}}, {"name"', "", "", [("now", {}), "truncated"]),
    ("pythonic", "A [add(a=1), now()] B", "A  B", "", TWO),
    (
        "pythonic",
        "<|python_start|>[f(s='a]\\'b', t=(1, -2.5e1), u={'k': None})]<|python_end|>",
        "",
        "",
        [("f", {"s": "a]'b", "t": [1, -25.0], "u": {"k": None}})],
    ),
    ("pythonic", "See [this](link), x[f(y)] and [1, 2].", "See [this](link), x[f(y)] and [1, 2].", "", []),
    ("pythonic", "[f(x=b'z'), g(x=1e999), now()]", "", "", ["malformed", "malformed", ("now", {})]),
    ("pythonic", "[f(x=g(1)), now()]", "", "", ["malformed", ("now", {})]),
    ("pythonic", "[f(x=1, x=2)]", "", "", ["malformed"]),
    ("pythonic", "[now(), f(a='x", "", "", [("now", {}), "truncated"]),
    ("llama3_json", 'A {"name": "add", "parameters": {"a": 1}}; {"name": "now", "parameters": {}} B', "A  B", "", TWO),
    ("llama3_json", '<|python_tag|>{"name": "add", "parameters": {"a": 1}}<|eom_id|>', "", "", TWO[:1]),
    ("llama3_json", '<|python_tag|>brave_search.call(query="x")<|eom_id|>', "", "", [("brave_search", {"query": "x"})]),
    ("llama3_json", '<function=add>{"a": 1}</function>', "", "", TWO[:1]),
    ("llama3_json", 'I got {"name": "Ann", "age": 3} and {x}.', 'I got {"name": "Ann", "age": 3} and {x}.', "", []),
    ("llama3_json", '{"name": "f", "parameters": {bad}', "", "", ["truncated"]),
    ("llama3_json", '{"name": "f", "parameters": {"a"', "", "", ["truncated"]),
    ("xlam", f"<think>t</think>{LIST}", "", "t", TWO),
    ("xlam", f"Sure.\n```json\n{LIST}\n```", "Sure.", "", TWO),
    ("xlam", f"Sure.[TOOL_CALLS]{LIST}", "Sure.", "", TWO),
    ("xlam", f"<tool_call>{LIST}</tool_call>!", "!", "", TWO),
    ("xlam", "[1, 2] and []", "[1, 2] and []", "", []),
    ("json", '{"name": "add", "arguments": {"a": 1}}', "", "", TWO[:1]),
    ("json", '{"name": "add", "arguments": "{\\"a\\": 1}"}', "", "", TWO[:1]),
    ("json", f"```json\n{LIST}\n```\nok", "ok", "", TWO),
    ("json", '{"name": "f", "arguments": {"a": 1e999}}', "", "", ["malformed"]),
    *ROWS,
    *hunted_replies.ROWS,
]


def shown(parsed) -> list:
    return [(c.name, c.arguments) if isinstance(c, Call) else c.kind for c in parsed.calls]


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_a_format_has_every_name(format):
    assert [name for name in NAMES if not hasattr(format, name)] == []
    assert "book" in format.announce([TOOL])
    assert "sunny" in format.write_result("book", "sunny")
    assert any(row[0] == format.NAME for row in CASES) or format.NAME in ("hermes", "react", "reasoning")


@pytest.mark.parametrize("name, text, content, thought, calls", CASES)
def test_reading_a_reply(name, text, content, thought, calls):
    parsed = FORMATS[name].parse(text, tools=[TOOL])
    assert shown(parsed) == calls
    assert (parsed.content, parsed.reasoning) == (content, thought)
    for fault in parsed.faults:
        assert fault.raw in text
        assert fault.reason.endswith(".")
        assert "\n" not in fault.reason
        assert len(fault.reason) < 260


def test_reasoning_stays_in_the_content_where_it_is_not_asked_for():
    text = f"<think>t</think>{LIST}"
    assert FORMATS["xlam"].parse(text, reasoning=False).content == "<think>t</think>"
    text = f"<|channel|>analysis<|message|>t<|end|>{FINAL}A"
    assert FORMATS["gpt_oss"].parse(text, reasoning=False).content == "<|channel|>analysis<|message|>t<|end|>A"


def test_how_a_reply_is_cut_does_not_matter():
    rng = random.Random(3)
    for name, text, *_ in CASES:
        whole = FORMATS[name].parse(text, tools=[TOOL])
        for _ in range(6):
            assert cases.in_pieces(FORMATS[name], text, True, [TOOL], rng) == whole


def test_what_is_shown_while_a_reply_grows_is_a_beginning_of_it():
    for name, text, *_ in CASES:
        stream = Reading(FORMATS[name], tools=[TOOL])
        grown = ""
        for letter in text:
            spans = stream.feed(letter)
            grown += letter
            assert grown.startswith("".join(span.raw for span in spans))
        assert "".join(span.raw for span in stream.stream.finish()) == text


@pytest.mark.parametrize("name, text", [(name, text) for name, text, *_, calls in CASES if calls])
def test_content_is_not_shown_before_it_is_clear_that_it_is_content(name, text):
    """While a marked call grows, no part of its marker is ever shown as content."""
    markers = FORMATS[name].MARKERS
    final = "".join(s.text for s in streaming.split(text, markers) if s.kind == "content")
    if "</think>" in text and "<think>" not in text:
        return  # only the closing marker says that what came before it were thoughts
    for end in range(len(text)):
        spans = streaming.split(text[:end], markers, final=False)
        so_far = "".join(s.text for s in spans if s.kind == "content")
        assert final.startswith(so_far), text[:end]


def test_a_reply_that_was_cut_off_makes_no_call_that_the_whole_one_does_not_make():
    for name, text, *_ in CASES:
        format = FORMATS[name]
        whole = [(c.name, c.arguments) for c in format.parse(text, tools=[TOOL]).valid]
        for end in range(len(text)):
            got = [(c.name, c.arguments) for c in format.parse(text[:end], tools=[TOOL]).valid]
            assert got == whole[: len(got)], (name, text[:end])


def pieces() -> list[str]:
    """What replies are made of, whole and broken."""
    marks = {m.open for f in FORMATS.values() for m in f.MARKERS} | {
        m.close for f in FORMATS.values() for m in f.MARKERS
    }
    odd = ["{", "}", "[", "]", '"', "'", "\\", "(", ")", ",", "=", ":", "\n", " ", "<", "</", "🙂", "\x00", "functools"]
    odd += [
        "```json\n",
        '{"name": "f", ',
        '"arguments": {"a": ',
        "[f(a=",
        "1e999",
        "call:f{",
        "<escape>",
        "to=functions.f",
    ]
    odd += ["<function=f>", "<parameter=a>", "<arg_key>a</arg_key>", "<arg_value>", "\ud800", "<|start|>assistant"]
    rng = random.Random(1)
    cut = [text[rng.randrange(len(text)) :][:40] for _, text, *_ in CASES]
    return sorted(marks - {""}) + odd + cut


def test_no_text_raises_and_every_result_is_json():
    rng, parts = random.Random(7), pieces()
    for _ in range(120):
        text = "".join(rng.choices(parts, k=rng.randint(1, 10)))
        for format in FORMATS.values():
            parsed = format.parse(text, tools=[TOOL])
            format.parse(text, reasoning=False)
            assert "".join(span.raw for span in streaming.split(text, format.MARKERS)) == text
            for call in parsed.calls:
                if isinstance(call, Fault):
                    assert call.kind in ("malformed", "truncated")
                    assert "\n" not in call.reason
                else:
                    json.dumps(call.arguments, allow_nan=False)
        tool_formats.guess(text)


@pytest.mark.parametrize("unit", ["{", "[f(", "<tool_call>", "[TOOL_CALLS]f{", "<|channel|>", "<arg_value>", " "])
def test_a_text_of_nothing_but_beginnings_is_read_in_time(unit):
    import time

    text = unit * (8000 // len(unit))
    for format in FORMATS.values():
        start = time.perf_counter()
        format.parse(text)
        assert time.perf_counter() - start < 1, format.NAME


@pytest.mark.parametrize("name", [n for n in FORMATS if n not in ("hermes", "react", "reasoning")])
def test_the_format_of_its_own_writing_is_guessed(name):
    text = "I look.\n" + FORMATS[name].write([Call("book", {"city": "Rome", "days": 3})])
    if name in ("lfm2",):  # bare calls of LFM2 are what pythonic reads
        assert tool_formats.guess(text, [TOOL]).NAME == "lfm2"
    read_as = tool_formats.guess(text, [TOOL])
    same_text = {"json": ("llama3_json", "json")}.get(name, (name,))
    assert read_as.NAME in same_text
    assert read_as.parse(text, tools=[TOOL]).valid == [Call("book", {"city": "Rome", "days": 3})]


def test_text_without_a_call_has_no_format():
    assert tool_formats.guess("How can I help you?") is None
    assert tool_formats.guess("") is None


@pytest.mark.parametrize(
    "given, name",
    [
        ("hermes", "hermes"),
        ("hermes (Qwen2.5, Qwen3, QwQ)", "hermes"),
        ("llama4_pythonic", "pythonic"),
        ("Qwen3-XML", "qwen3_coder"),
        ("granite-20b-fc", "granite"),
        ("gpt-oss", "gpt_oss"),
    ],
)
def test_a_format_by_name(given, name):
    assert name == tool_formats.named(given).NAME


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(PlaygroundError, match="no tool-call format named 'toml'; there are hermes, react"):
        tool_formats.named("toml")


@pytest.mark.parametrize(
    "text, value",
    [
        ("'a\\'b\\n\\u00e9\\x41\\q'", "a'b\né A".replace(" ", "") + "\\q"),
        ('"""a "b" c"""', 'a "b" c'),
        ("{'a': [1, 2,], 'b': {3, 4}, 5: null}", {"a": [1, 2], "b": [3, 4], "5": None}),
        ("(True, false, None, -.5, 1e3, 007)", [True, False, None, -0.5, 1000.0, 7]),
    ],
)
def test_python_literals(text, value):
    assert literals.read_value(text, 0) == (value, len(text))


@pytest.mark.parametrize(
    "text", ["__import__('os')", "f'x'", "b'x'", "1e999", "[" * 200 + "]" * 200, "{[1]: 2}", "x", ""]
)
def test_what_is_no_literal_is_refused(text):
    with pytest.raises(literals.Broken):
        literals.read_value(text, 0)


@pytest.mark.parametrize(
    "text, schema, value",
    [
        ("42", None, 42),
        ('"42"', None, '"42"'),
        ("true", None, True),
        ("Rome", None, "Rome"),
        ("NaN", None, "NaN"),
        ("42", {"type": "string"}, "42"),
        ("42", {"type": "int"}, 42),
        ("4.5", {"type": "integer"}, 4.5),
        ("x", {"type": "integer"}, "x"),
        ("null", {"type": ["integer", "null"]}, None),
        ("null", {"type": "string"}, "null"),
        ("3", {"type": "number"}, 3),
        ("[1]", {"type": "array"}, [1]),
        ("['a']", {"type": "array"}, ["a"]),
        ("[1]", {"type": ["string", "array"]}, [1]),
        ("[x]", {"type": "array"}, "[x]"),
        ("a", {"enum": ["a", "1"]}, "a"),
        ("1", {"enum": ["a", "1"]}, "1"),
        ("1", {"oneOf": [{"type": "boolean"}, {"type": "integer"}]}, 1),
    ],
)
def test_bare_text_is_what_the_schema_says(text, schema, value):
    got = typed.typed(text, schema)
    assert (got, type(got)) == (value, type(value))


def test_where_json_ends():
    assert json_end(' {"a": "}\\"]"} x', 0) == 14
    assert json_end("[{}, [1]] x", 0) == 9
    assert [json_end(text, 0) for text in ('{"a', "{[}", "x{}", "", '{"a": "')] == [-1, -1, -1, -1, -1]


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}{% if m.tool_calls %}"
    "{% for c in m.tool_calls %}CALL{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}"
    "<|im_start|>assistant\n{% endif %}"
)
FUNCTION = "{{ c.function.name }}"
ARGUMENTS = "{{ c.function.arguments | tojson }}"


@pytest.mark.parametrize(
    "call, name",
    [
        ('<tool_call>{"name": "' + FUNCTION + '", "arguments": ' + ARGUMENTS + "}</tool_call>", "hermes"),
        ("[TOOL_CALLS]" + FUNCTION + "[ARGS]" + ARGUMENTS, "mistral"),
        ("[TOOL_CALLS]" + FUNCTION + "[CALL_ID]{{ c.id }}[ARGS]" + ARGUMENTS, "mistral"),
        ('{"name": "' + FUNCTION + '", "parameters": ' + ARGUMENTS + "}", "llama3_json"),
        ('<|tool_call|>[{"name": "' + FUNCTION + '", "arguments": ' + ARGUMENTS + "}]", "granite"),
        (
            "<tool_call>" + FUNCTION + "{% for k, v in c.function.arguments.items() %}<arg_key>{{ k }}</arg_key>"
            "<arg_value>{{ v }}</arg_value>{% endfor %}</tool_call>",
            "glm4",
        ),
        ('<odd>[{"name": "' + FUNCTION + '", "arguments": ' + ARGUMENTS + "}]</odd>", None),
        ("", None),
    ],
)
def test_the_format_of_a_pasted_template(call, name):
    from playground.core import templates

    found = tool_formats.for_template(templates.pasted(CHATML.replace("CALL", call)))
    assert (found.NAME if found else None) == name


def test_the_shared_cases():
    path = SHARED / "tool_calls" / "cases.jsonl"
    if not path.exists():
        pytest.skip("the shared tool-call cases are not on this machine")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    verdicts = [cases.check(row) for row in rows]
    assert len(rows) == 102
    assert [verdict for verdict in verdicts if not verdict.passed] == []


def test_real_replies_cut_off_anywhere_make_no_new_call():
    path = SHARED / "tool_calls" / "cases.jsonl"
    if not path.exists():
        pytest.skip("the shared tool-call cases are not on this machine")
    rng = random.Random(11)
    for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        format, text = tool_formats.named(row["format"]), row["input"]
        whole = [(c.name, c.arguments) for c in format.parse(text).valid]
        for end in rng.sample(range(len(text) + 1), min(25, len(text))):
            got = [(c.name, c.arguments) for c in format.parse(text[:end]).valid]
            assert got == whole[: len(got)], (row["id"], text[:end])


ONE = {"calls": [{"name": "add", "arguments": {"a": 1}}], "content": "A", "reasoning": "t"}
TEXT = '<think>t</think>A<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'


@pytest.mark.parametrize(
    "expected, reason",
    [
        (ONE, ""),
        ({**ONE, "calls": [{"name": "add", "arguments": {"a": 1.0}}]}, ""),
        ({**ONE, "calls": [{"name": "add", "arguments": {"a": True}}]}, "expected the calls"),
        ({**ONE, "calls": []}, "expected the calls"),
        ({**ONE, "content": "B"}, "expected the content 'B'"),
        ({**ONE, "reasoning": "u"}, "expected the reasoning 'u'"),
        ({"call_names": ["add"], "call_count": 1}, ""),
        ({"call_names": ["sub"]}, "expected calls of"),
        ({"call_count": 2}, "expected 2 calls, got 1"),
        ({**ONE, "calls": [{"name": "add", "arguments": {"a": "1"}}]}, "expected the calls"),
        # the text of the call left in the content
        ({**ONE, "content": 'A{"name": "add", "arguments": {"a": 1}}'}, ""),
        ({"calls": ONE["calls"], "content": "<think>t</think>A"}, ""),
        ({"must_not_raise": True}, ""),
    ],
)
def test_a_case_fails_where_the_reply_is_not_read_as_expected(expected, reason):
    verdict = cases.check({"format": "hermes", "id": "one", "input": TEXT, "expected": expected})
    assert verdict.passed is (reason == "")
    assert reason in verdict.reason


def test_a_case_may_name_calls_that_cannot_be_read():
    text = '<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{"a"<|tool_call_end|>' + KIMI.format(
        "g", 1, "{}"
    )
    for names, reason in (
        (["f", "g"], ""),
        (["g"], ""),
        (["f"], "expected calls of"),
        (["g", "f"], "expected calls of"),
    ):
        verdict = cases.check({"format": "kimi_k2", "input": text, "expected": {"call_names": names}})
        assert verdict.reason.startswith(reason)
        assert verdict.passed is (reason == "")


@pytest.mark.parametrize(
    "expected, got, equal",
    [(1, 1.0, True), (10**60 - 1, 1e60, True), (10**60, 10**60 - 1, False), (10**400, 1e300, False), (1, "1", False)],
)
def test_numbers_are_compared_as_json_has_them(expected, got, equal):
    assert cases.same(expected, got) is cases.same(got, expected) is equal


def test_a_case_with_an_unknown_format_fails_and_one_without_input_is_refused():
    assert "no tool-call format" in cases.check({"format": "toml", "input": "", "expected": {}}).reason
    with pytest.raises(PlaygroundError, match='a case needs "format"'):
        cases.check({"format": "hermes"})
