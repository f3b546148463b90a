"""Grammars from formats and schemas, walked with small tokenizers; and rows of a batch, each held or left alone."""

import json
import random
import sys

import pytest
import torch
from tokenizers import AddedToken
from transformers import LlamaConfig, LlamaForCausalLM

from playground.config import SamplingConfig
from playground.core import constrained, tools
from playground.core.adapters import AdapterBank
from playground.core.constrained import Constraint, Vocabulary, grammar, why_not
from playground.core.generation import Batch, Row, Sampler
from playground.core.tokenizer import Tokenizer
from playground.core.tool_formats import FORMATS, Call, hermes
from playground.core.tool_formats.arguments import Tagged
from playground.errors import PlaygroundError

SCHEMAS = tools.schemas()
ADD, PARIS = Call("calculator", {"expression": "23 * 47"}), Call("get_weather", {"city": "</tool_call>"})
HELD = [name for name, format in FORMATS.items() if not why_not(format)]
BARE_TEXTS = [name for name in HELD if isinstance(getattr(FORMATS[name], "ARGUMENT_FORM", None), Tagged)]
NUMBERED = ("kimi_k2", "cohere")  # their calls count up, so the grammar has one call
TEXT = "Hi {x} [1] a<b.\n"


def tool(parameters, name="calculator"):
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


@pytest.fixture(scope="session")
def vocabularies(tokenizer_folders):
    return {name: Vocabulary(Tokenizer.load(folder)) for name, folder in tokenizer_folders.items()}


@pytest.fixture(scope="session")
def vocabulary(vocabularies):
    return vocabularies["byte-level"]


def walk(vocabulary, text, mode="valid", format="hermes", schemas=SCHEMAS):
    """How far `text` may be said, and whether the reply may end there, is complete, or cannot end yet."""
    guide = vocabulary.guide(Constraint(mode, format), schemas)
    backend = vocabulary.tokenizer.backend
    ids = vocabulary.tokenizer.encode(text)[0]
    for number, id in enumerate(ids):
        if not guide.allowed()[id]:
            return backend.decode(ids[:number], skip_special_tokens=False), "stuck"
        guide.accept(id)
        assert guide.error == ""
    return text, "complete" if guide.done else "may end" if guide.allowed()[guide._end_id] else "goes on"


def test_nearly_every_format_can_be_held_and_the_others_say_why_not():
    assert [name for name in FORMATS if name not in HELD] == ["functionary_v32"]
    assert why_not(FORMATS["functionary_v32"]).startswith("Nothing marks where a call in the functionary_v32 format")
    with pytest.raises(PlaygroundError, match="there is no grammar for it"):
        grammar(FORMATS["functionary_v32"], SCHEMAS, "valid")


@pytest.mark.parametrize("name", HELD)
@pytest.mark.parametrize("mode", constrained.MODES)
def test_what_a_format_writes_may_be_said(vocabulary, name, mode):
    format = FORMATS[name]
    several = [[ADD], [PARIS]] + ([[PARIS, ADD], [ADD, PARIS, ADD]] if name not in NUMBERED else [])
    for calls in several:
        text = format.write(calls)
        said, state = walk(vocabulary, text, mode, name)
        assert (said, state in ("may end", "complete")) == (text, True)
        assert format.parse(text).valid == calls


@pytest.mark.parametrize("name", HELD)
@pytest.mark.parametrize("mode", constrained.MODES)
def test_no_other_call_may_be_said(vocabulary, name, mode):
    for call, begun, wrong in [
        (Call("get_wind", {}), "get", "get_wi"),
        (Call("calculator", {"text": "1"}), "calculator", '"te'),
        (Call("calculator", {}), "calculator", "{}"),
        (Call("calculator", {"expression": 5}), "expression", ": 5"),
    ]:
        if wrong == ": 5" and name in BARE_TEXTS:
            continue  # there 5 is a text too
        if wrong == "get_wi" and name == "pythonic" and mode == "valid":
            wrong = "get_wind("  # without the bracket it is no call yet
        said, state = walk(vocabulary, FORMATS[name].write([call]), mode, name)
        assert (state, begun in said, wrong in said) == ("stuck", True, False)


@pytest.mark.parametrize("name", HELD)
def test_free_text_is_free_until_a_call_begins(vocabulary, name):
    assert walk(vocabulary, TEXT, "valid", name) == (TEXT, "may end")
    assert walk(vocabulary, TEXT, "must", name) == ("", "stuck")


@pytest.mark.parametrize("name", HELD)
def test_a_reply_may_not_end_inside_a_call(vocabulary, name):
    guide = vocabulary.guide(Constraint("valid", name), SCHEMAS)
    long = Call("calculator", {"expression": "23 * 47 + " * 9 + "1"})
    ids = vocabulary.tokenizer.encode(FORMATS[name].write([long]))[0]
    ends = []
    for id in ids:
        ends.append(bool(guide.allowed()[guide._end_id]))
        guide.accept(id)
    assert ends[0]
    assert not any(ends[len(ids) // 2 :])


@pytest.mark.parametrize("name", ["hermes", "react", "mistral"])
def test_text_may_stand_around_a_call_that_a_marker_opens(vocabulary, name):
    text = f"Wait.\n{FORMATS[name].write([ADD])}\nAnd {FORMATS[name].write([ADD])} done"
    assert walk(vocabulary, text, "valid", name) == (text, "may end")


@pytest.mark.parametrize("name", ["json", "llama3_json", "xlam"])
def test_a_format_without_a_marker_has_text_or_calls(vocabulary, name):
    said, state = walk(vocabulary, f"So: {FORMATS[name].write([ADD])}", "valid", name)
    assert (said.strip(), state) in [("So: {", "stuck"), ("So:", "stuck"), ("So: [{", "stuck"), ("So: [", "stuck")]


def test_a_marker_that_is_a_token_is_held_as_a_token_and_in_letters(vocabulary):
    assert "<tool_call>" in vocabulary.specials
    id = vocabulary.specials["<tool_call>"]
    guide = vocabulary.guide(Constraint("valid", "hermes"), SCHEMAS)
    guide.accept(id)
    after = [vocabulary.tokenizer.backend.decode([i]) for i in guide.allowed().nonzero()[0]]
    assert after == ["\n"]
    guide = vocabulary.guide(Constraint("valid", "hermes"), SCHEMAS)
    for letter in "<tool_call":
        guide.accept(vocabulary.tokenizer.encode(letter, plain=True)[0][0])
    assert not guide.allowed()[vocabulary.tokenizer.encode(">", plain=True)[0][0]]


def test_reasoning_in_tokens_of_its_own_is_free_text(tokenizer_folder):
    tokenizer = Tokenizer.load(tokenizer_folder)
    tokenizer.backend.add_tokens(["<think>", "</think>"])
    text = f"<think>23 times 47</think>\n{hermes.write([ADD])}"
    assert walk(Vocabulary(tokenizer), text) == (text, "may end")


def test_a_sentencepiece_tokenizer_is_held_too(vocabularies):
    text = f"Wait.\n{hermes.write([ADD])}"
    assert walk(vocabularies["metaspace"], text)[1] == "may end"
    assert walk(vocabularies["metaspace"], text.replace("calc", "oops"))[1] == "stuck"


def test_calls_that_must_be_made_are_bounded(vocabulary):
    most = hermes.write([ADD] * constrained.MAX_CALLS)
    assert walk(vocabulary, most, "must") == (most, "complete")
    assert walk(vocabulary, FORMATS["json"].write([ADD]), "must", "json")[1] == "complete"


@pytest.mark.parametrize(
    "parameters, right, wrong",
    [
        ({"properties": {"unit": {"enum": ["C", "F"]}}, "required": ["unit"]}, {"unit": "C"}, {"unit": "K"}),
        ({"properties": {"n": {"type": "integer"}}, "required": ["n"]}, {"n": -3}, {"n": 2.5}),
        (
            {"properties": {"p": {"$ref": "#/$defs/P"}}, "required": ["p"], "$defs": {"P": {"type": "boolean"}}},
            {"p": True},
            {"p": "true"},
        ),
        ({"properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "required": ["a"]}, {"a": ""}, {"b": ""}),
        ({}, {}, {"a": 1}),
        ({"type": "object", "additionalProperties": True}, {"a": 1}, None),
    ],
)
def test_arguments_fit_the_schema_as_the_check_reads_it(vocabulary, parameters, right, wrong):
    schemas = [tool(parameters)]
    for arguments, state in [(right, "may end"), (wrong, "stuck")]:
        if arguments is None:
            continue
        call = Call("calculator", arguments)
        assert walk(vocabulary, hermes.write([call]), schemas=schemas)[1] == state
        assert (tools.check(call, schemas) is None) == (state == "may end")


FORMED = (
    "qwen3_coder",
    "deepseek_v32",
    "pythonic",
    "functiongemma",
    "command_r",
)  # one of each form; the others differ in marks
RICH = tool(
    {
        "properties": {
            "city": {"type": "string", "maxLength": 12},
            "days": {"type": "integer"},
            "fare": {"type": "number"},
            "unit": {"enum": ["C", "F"]},
            "sure": {"type": ["boolean", "null"]},
            "stops": {"type": "array", "items": {"$ref": "#/$defs/stop"}, "maxItems": 2},
            "who": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
            "more": {"type": "object"},
        },
        "required": ["city", "days"],
        "$defs": {"stop": {"type": "string"}},
    },
    "book",
)
BOOK = {"city": "Ulm & \n<b>", "days": 3}


@pytest.mark.parametrize("name", FORMED)
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"fare": -2.5, "unit": "F", "sure": True},
        {"sure": None, "stops": []},
        {"stops": ["a", "b, c"], "who": {"name": "Ann"}, "more": {}},
        {"more": {"a": [1, True, None, "x", {"b": "y"}]}},
    ],
    ids=len,
)
def test_arguments_in_any_form_may_be_said(vocabulary, name, arguments):
    call = Call("book", {**BOOK, **arguments})
    text = FORMATS[name].write([call])
    assert walk(vocabulary, text, "must", name, [RICH])[1] in ("may end", "complete")
    assert FORMATS[name].parse(text, tools=[RICH]).valid == [call]


@pytest.mark.parametrize("name", FORMED)
@pytest.mark.parametrize(
    "arguments",
    [
        {"city": "Ulm"},
        {"days": 3},
        {**BOOK, "days": "three"},
        {**BOOK, "city": "Ulm on the Danube"},
        {**BOOK, "fare": True},
        {**BOOK, "unit": "K"},
        {**BOOK, "sure": 1},
        {**BOOK, "stops": ["a", "b", "c"]},
        {**BOOK, "who": {}},
        {**BOOK, "who": {"name": 5}},
        {**BOOK, "towel": 1},
    ],
)
def test_arguments_that_do_not_fit_are_stuck_in_any_form(vocabulary, name, arguments):
    text = FORMATS[name].write([Call("book", arguments)])
    assert walk(vocabulary, text, "must", name, [RICH])[1] == "stuck"


@pytest.mark.parametrize("name", FORMED)
def test_marks_that_are_tokens_hold_arguments_too(tokenizer_folder, name):
    tokenizer, format = Tokenizer.load(tokenizer_folder), FORMATS[name]
    form = format.ARGUMENT_FORM
    marks = {m.open for m in format.MARKERS} | {
        form.close.strip() if isinstance(form, Tagged) else getattr(form, "quote", "")
    }
    tokenizer.backend.add_tokens([AddedToken(mark, special=True) for mark in sorted(marks - {"", "<think>"})])
    call = Call("book", {**BOOK, "stops": ["a"]})
    vocabulary = Vocabulary(tokenizer)
    text = format.write([call])
    assert walk(vocabulary, text, "must", name, [RICH])[1] in ("may end", "complete")
    assert format.parse(text, tools=[RICH]).valid == [call]
    wrong = format.write([Call("book", {**BOOK, "stops": 5})])
    assert walk(vocabulary, wrong, "must", name, [RICH])[1] == "stuck"


def test_what_a_form_cannot_hold_is_said_in_a_sentence(vocabulary):
    spaced = tool({"properties": {"a b": {"type": "string"}}})
    with pytest.raises(PlaygroundError, match="pythonic format cannot write an argument named 'a b'; rename it"):
        vocabulary.guide(Constraint("must", "pythonic"), [spaced])
    dated = tool({"properties": {"day": {"type": "string", "format": "date"}}})
    with pytest.raises(PlaygroundError, match="'day' is written without quotes in this format, and cannot be held to"):
        vocabulary.guide(Constraint("must", "glm4"), [dated])
    lost = tool({"properties": {"a": {"$ref": "#/nowhere"}}})
    with pytest.raises(PlaygroundError, match="cannot be made a grammar: #/nowhere refers to nothing"):
        vocabulary.guide(Constraint("must", "pythonic"), [lost])


def test_thoughts_and_an_answer_of_gpt_oss(vocabulary):
    thought = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"
    call = FORMATS["gpt_oss"].write([ADD])
    for text in (thought + "<|channel|>final<|message|>Hello.", thought + call, "Hello."):
        assert walk(vocabulary, text, "valid", "gpt_oss") in ((text, "may end"), (text, "complete"))
    assert walk(vocabulary, call.replace("calculator", "other"), "valid", "gpt_oss")[1] == "stuck"


def test_a_schema_that_refers_to_itself_is_held(vocabulary):
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/N"}}, "additionalProperties": False}
    schemas = [tool({"properties": {"n": {"$ref": "#/$defs/N"}}, "required": ["n"], "$defs": {"N": node}})]
    assert walk(vocabulary, hermes.write([Call("calculator", {"n": {"next": {"next": {}}}})]), schemas=schemas)[1] == (
        "may end"
    )


@pytest.mark.parametrize("name", ['say "hi"', "two words", "naïve\\", "<tool_call>"])
def test_a_tool_may_have_an_odd_name(vocabulary, name):
    text = hermes.write([Call(name, {})])
    assert walk(vocabulary, text, schemas=[tool({}, name)])[1] == "may end"


def test_a_thousand_tools_are_held(vocabulary):
    schemas = [tool(SCHEMAS[0]["function"]["parameters"], f"tool_{n}") for n in range(1000)]
    assert walk(vocabulary, hermes.write([Call("tool_999", ADD.arguments)]), schemas=schemas)[1] == "may end"


@pytest.mark.parametrize(
    "schemas, sentence",
    [
        ([], "nothing can be called without tools"),
        ([tool({"properties": {"a": {"$ref": "#/nowhere"}}})], "cannot be made a grammar"),
        ([tool({"properties": {"a": {"type": "float"}}})], "cannot be made a grammar"),
    ],
)
def test_what_has_no_grammar_is_said_in_a_sentence(vocabulary, schemas, sentence):
    with pytest.raises(PlaygroundError, match=sentence) as refused:
        vocabulary.guide(Constraint("valid", "hermes"), schemas)
    assert "\n" not in str(refused.value)


def test_a_name_the_format_cannot_write_is_refused(vocabulary):
    with pytest.raises(PlaygroundError, match="cannot write a call of a tool named 'a\\\\nb'; rename the tool"):
        vocabulary.guide(Constraint("valid", "react"), [tool({}, "a\nb")])


def test_another_mode_is_refused():
    with pytest.raises(PlaygroundError, match="valid or must, got 'maybe'"):
        Constraint("maybe", "hermes")


def test_without_llguidance_one_sentence_says_what_to_install(monkeypatch, tokenizer):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(PlaygroundError, match="pip install 'llguidance"):
        Vocabulary(tokenizer)


def test_a_token_out_of_place_is_an_error_and_no_crash(vocabulary):
    guide = vocabulary.guide(Constraint("must", "hermes"), SCHEMAS)
    guide.accept(vocabulary.tokenizer.encode("x")[0][0])
    assert guide.error.startswith("the grammar could not go on")
    assert guide.allowed().all()


# ---- in a batch ---------------------------------------------------------------------------------------------------

GREEDY = SamplingConfig(temperature=0, repetition_penalty=1.0)
PROMPTS = [[5, 9, 2, 30], [7, 3, 11], [40, 41, 42, 43, 44]]


@pytest.fixture(scope="module")
def bank(vocabulary):
    torch.manual_seed(0)
    width = vocabulary.tokenizer.size + 9  # heads are often padded
    config = LlamaConfig(
        **{"vocab_size": width, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048},
    )
    return AdapterBank(LlamaForCausalLM(config).float().eval())


def replies(bank, guides, count, sampling=GREEDY):
    """What rows with these guides say in one batch; a row whose guide is done leaves."""
    batch = Batch(bank.model, bank)
    rows = [
        Row(prompt, None, Sampler(sampling, prompt), number, guide)
        for number, (prompt, guide) in enumerate(zip(PROMPTS, guides, strict=True))
    ]
    said = [[token] for token in batch.add(rows)]
    for _ in range(count - 1):
        batch.keep([i for i, row in enumerate(batch.rows) if row.guide is None or not row.guide.done])
        if not batch.rows:
            break
        for row, token in zip(list(batch.rows), batch.step(), strict=True):
            said[row.tag].append(token)
    return said


def test_each_row_has_its_own_guide_and_the_others_say_what_they_said(bank, vocabulary):
    enum = tool({"properties": {"n": {"enum": [1, 2]}}, "required": ["n"]})
    must = vocabulary.guide(Constraint("must", "json"), [enum])
    other = vocabulary.guide(Constraint("must", "llama3_json"), [enum])
    alone = replies(bank, [None] * 3, 40)
    mixed = replies(bank, [must, None, other], 40)
    assert mixed[1] == alone[1]
    assert mixed[0] != alone[0]
    texts = [vocabulary.tokenizer.decode(mixed[i], skip_special=True) for i in (0, 2)]
    for text, format, guide in zip(texts, (FORMATS["json"], FORMATS["llama3_json"]), (must, other), strict=True):
        calls = format.parse(text).valid
        assert calls, text
        assert [tools.check(call, [enum]) for call in calls] == [None] * len(calls)
        assert guide.tokens > 0
        assert guide.seconds_per_token > 0


@pytest.mark.parametrize("name", HELD)
def test_whatever_is_sampled_is_a_valid_call(vocabulary, name):
    """Random tokens, with a liking for those that close something, so that texts end."""
    format, chance = FORMATS[name], random.Random(name)
    closing = vocabulary.tokenizer.encode('"}])', plain=True)[0]
    form = getattr(format, "ARGUMENT_FORM", None)
    close = getattr(form, "close", getattr(form, "quote", "")) or '"'
    mark = [id for letter in close for id in vocabulary.tokenizer.encode(letter, plain=True)[0]]
    schemas = [*SCHEMAS, tool({"properties": {"n": {"type": "integer"}, "f": {"enum": ["a", "b"]}}}, "count")]
    for _ in range(4):
        guide, ids = vocabulary.guide(Constraint("must", name), schemas), []
        while not guide.done and len(ids) < 700:
            if chance.random() < 0.1:
                for id in mark:
                    if not guide.allowed()[id]:
                        break
                    guide.accept(id)
                    ids.append(id)
            allowed = guide.allowed()
            liked = [id for id in (*guide.ends, *closing) if allowed[id]]
            token = chance.choice(liked if liked and chance.random() < 0.5 else list(allowed.nonzero()[0]))
            guide.accept(int(token))
            ids += [int(token)] if token not in guide.ends else []
        assert guide.done
        parsed = format.parse(vocabulary.tokenizer.decode(ids))
        assert parsed.calls, vocabulary.tokenizer.decode(ids)
        assert [call for call in parsed.calls if not isinstance(call, Call) or tools.check(call, schemas)] == []


def test_the_schema_is_written_as_json(vocabulary):
    lines = grammar(hermes, SCHEMAS, "must").splitlines()
    schema = json.loads(next(line for line in lines if line.startswith("args_0")).partition("%json ")[2])
    assert schema["additionalProperties"] is False
    assert schema["x-guidance"]["whitespace_flexible"] is False
