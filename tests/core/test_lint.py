from dataclasses import replace
from pathlib import Path

import pytest
import tokenizers

from playground.core import datasets, lint, templates
from playground.core.lint import badges, lint_rows, lint_template
from playground.core.lint_case import habits
from playground.core.lint_checks import RULES
from playground.core.messages import Conversation
from playground.core.templates import Template
from playground.core.tokenizer import Tokenizer
from tests.conftest import byte_level

REAL = Path(__file__).parents[3] / "shared" / "data" / "chat_templates"
SAMPLES = datasets.samples()
TOOL = {"type": "function", "function": {"name": "look", "description": "Look.", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": "sea"}}}


def talk(*contents, system="", **more):
    """A conversation of user and assistant turns; a tuple is (content, reasoning)."""
    messages = [{"role": "system", "content": system}] if system else []
    for number, content in enumerate(contents):
        content, reasoning = content if isinstance(content, tuple) else (content, "")
        message = {"role": ("user", "assistant")[number % 2], "content": content}
        messages.append({**message, "reasoning_content": reasoning} if reasoning else message)
    return Conversation(messages, **more)


ONE = talk("What is the capital of France?", "The capital of France is Paris.")
TWO = talk("What is 23 * 47?", "It is 1081.", "And the capital?", "Paris.")


def template(
    assistant="{% generation %}{{ m.content ~ '<|im_end|>' }}{% endgeneration %}",
    prompt="<|im_start|>assistant\n",
    before="",
    other="{{ m.content ~ '<|im_end|>' }}",
    opening="{{ '<|im_start|>' ~ m.role ~ '\n' }}",
):
    """ChatML, but for what is given."""
    text = f"{before}{{% for m in messages %}}{opening}{{% if m.role == 'assistant' %}}{assistant}{{% else %}}{other}"
    text += "{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ prompt }}{% endif %}"
    return Template("test", text.replace("{{ prompt }}", "{{ " + repr(prompt) + " }}"))


GENERATION = "{% generation %}", "{% endgeneration %}"
THINKS = "{{ '<think>' ~ (m.reasoning_content or '') ~ '</think>' }}"
REPLY = "{{ m.content ~ '<|im_end|>' }}"


def named(findings):
    return {(finding.rule, finding.severity) for finding in findings}


def rules(findings):
    return {finding.rule for finding in findings}


def only(findings, rule):
    return next(finding for finding in findings if finding.rule == rule)


# What the built-in templates leave of the built-in samples ---------------------------------------------------------

# what is wrong with a template whatever the row, under a tokenizer with ChatML's tokens and under one with <s> and </s>
ALWAYS = {
    "byte-level": {
        "reasoning": {("markers-split", "note")},
        "reasoning-tools": {("markers-split", "note")},
        "react": {("markers-split", "note")},
        "llama-2": {("markers-split", "note")},
        "zephyr": {("markers-split", "note")},
        "gemma": {("markers-split", "warning"), ("stop-not-eos", "note")},
        "phi-3": {("markers-split", "warning"), ("stop-not-eos", "note")},
    },
    "metaspace": {
        "chatml": {("markers-split", "warning"), ("stop-not-eos", "note")},
        "chatml-tools": {("markers-split", "warning"), ("stop-not-eos", "note")},
        "reasoning": {("markers-split", "warning"), ("stop-not-eos", "note")},
        "reasoning-tools": {("markers-split", "warning"), ("stop-not-eos", "note")},
        "react": {("markers-split", "note")},
        "llama-2": {("markers-split", "note")},
        "zephyr": {("markers-split", "note")},
        "gemma": {("markers-split", "warning"), ("stop-not-eos", "note")},
        "phi-3": {("markers-split", "warning"), ("stop-not-eos", "note")},
    },
}
LOST_TOOLS = {"tools-ignored", "tool-calls-dropped", "tool-results-dropped"}
# sample -> what a template without tools, and one without reasoning, loses of it
LOSSES = {
    "Question and answer": (set(), set()),
    "System message, several turns": (set(), set()),
    "Instruction with input (Alpaca)": (set(), set()),
    "Tool call with its result": (LOST_TOOLS, set()),
    "Two tool calls in one turn": (LOST_TOOLS, set()),
    "Tools on offer, none needed": ({"tools-ignored"}, set()),
    "Reasoning before the answer": (set(), {"reasoning-dropped"}),
    "Reasoning and acting (ReAct)": (LOST_TOOLS, {"reasoning-dropped"}),
    "A control token typed by the user": (set(), set()),
    "Other scripts, symbols and HTML": (set(), set()),
    "The same request for three formats": (set(), set()),
}
TOOLS, REASONING = ("chatml-tools", "react", "reasoning-tools"), ("reasoning", "react", "reasoning-tools")
# the special tokens of the one tokenizer are plain words to the other, unless the template writes them too
TYPED = ("chatml", "chatml-tools", "reasoning", "reasoning-tools")


def test_the_samples_are_those_of_the_table():
    assert set(SAMPLES) == set(LOSSES)


@pytest.mark.parametrize("kind", ["byte-level", "metaspace"])
@pytest.mark.parametrize("name", templates.names())
def test_built_in_templates_with_their_own_samples(kind, name, tokenizer_folders):
    tokenizer, chosen = Tokenizer.load(tokenizer_folders[kind]), templates.load(name)
    always = ALWAYS[kind].get(name, set())
    assert named(lint_template(chosen, tokenizer)) == always
    for title, (tools, reasoning) in LOSSES.items():
        expected = set() if name in TOOLS else {(rule, "error") for rule in tools}
        if name not in REASONING:
            expected |= {(rule, "warning") for rule in reasoning}
        elif title == "Reasoning and acting (ReAct)" and name not in TOOLS:
            expected |= {("earlier-reasoning-dropped", "warning")}  # the turn that thought and called is gone
        if title == "A control token typed by the user" and (kind == "byte-level" or name in TYPED):
            expected |= {("marker-in-content", "warning")}
        assert named(lint.lint(chosen, SAMPLES[title], tokenizer, 1024)) == always | expected, title


# Templates and rows with one fault each ------------------------------------------------------------------------------

# what the finding points at is the last column; None: nothing in the text
FAULTS = [
    ("stop-not-trained", template("{% generation %}{{ m.content }}{% endgeneration %}<|im_end|>"), TWO, "<|im_end|>"),
    ("no-stop", template("{% generation %}{{ m.content }}{% endgeneration %}"), TWO, None),
    (
        "stop-not-eos",
        template("{% generation %}{{ m.content ~ '<|endoftext|>' }}{% endgeneration %}"),
        ONE,
        "<|endoftext|>",
    ),
    (
        "prompt-trained",
        template(
            "{% generation %}{{ '<|im_start|>assistant\n' ~ m.content ~ '<|im_end|>' }}{% endgeneration %}",
            opening="{% if m.role != 'assistant' %}{{ '<|im_start|>' ~ m.role ~ '\n' }}{% endif %}",
        ),
        TWO,
        "<|im_start|>assistant\n",
    ),
    (
        "empty-thinking-trained",
        template(THINKS.join(["{% generation %}", REPLY]) + GENERATION[1]),
        ONE,
        "<think></think>",
    ),
    ("prompt-differs", template(prompt="<|im_start|>assistant\n<think>\n"), ONE, "T"),
    (
        "prompt-tokens-differ",
        template(
            "{% generation %}{{ 'The cap' ~ m.content ~ '<|im_end|>' }}{% endgeneration %}",
            "<|im_start|>assistant\nThe cap",
        ),
        talk("What?", "ital of France is Paris."),
        " capital",
    ),
    (
        "not-prefix-preserving",
        template(
            "{% generation %}{{ (m.content if loop.last else m.content | upper) ~ '<|im_end|>' }}{% endgeneration %}"
        ),
        TWO,
        "T",
    ),
    ("bos-doubled", template(before="{{ bos_token }}"), ONE, "<|im_start|><|im_start|>"),
    ("markers-split", template(before="<|beginning|>"), ONE, "<|beginning|>"),
    ("marker-in-content", template(), talk("Hi<|im_end|>\n<|im_start|>system", "No."), "<|im_end|>"),
    ("marker-in-content", templates.load("alpaca"), talk("Write:\n### Response:\nyes", "No."), "### Response:"),
    (
        "system-dropped",
        template(before="{% set messages = messages[1:] %}"),
        talk("Hi", "Ho", system="Be brief."),
        None,
    ),
    ("message-dropped", template(before="{% set messages = messages[-2:] %}"), TWO, None),
    (
        "earlier-reasoning-dropped",
        template("{% if loop.last %}" + THINKS + "{% endif %}{% generation %}" + REPLY + "{% endgeneration %}"),
        talk("Hi", ("Ho", "A greeting."), "And?", ("So.", "More.")),
        None,
    ),
    (
        "content-changed",
        template("{% generation %}{{ m.content.split('</think>')[-1] ~ '<|im_end|>' }}{% endgeneration %}"),
        talk("Hi", "<think>A greeting.</think>Ho"),
        None,
    ),
    (
        "refused",
        template(before="{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"),
        talk("Hi", "Ho", system="Be"),
        None,
    ),
    ("refused", Template("test", "{% for m in messages %}"), ONE, None),
    ("nothing-trained", template("{{ m.content ~ '<|im_end|>' }}", before="{{ messages | length }}"), TWO, None),
    (
        "untrained-reply",
        template(
            "{% if loop.last %}{% generation %}" + REPLY + "{% endgeneration %}{% else %}" + REPLY + "{% endif %}"
        ),
        TWO,
        "It is 1081.<|im_end|>\n",
    ),
]


@pytest.mark.parametrize(
    "rule, faulty, row, pointed", FAULTS, ids=[f"{n}-{fault[0]}" for n, fault in enumerate(FAULTS)]
)
def test_a_fault_is_found_and_pointed_at(rule, faulty, row, pointed, tokenizer):
    found = lint.lint(faulty, row, tokenizer)
    finding = only(found, rule)
    assert finding.what.endswith(".")
    assert finding.why == RULES[rule]
    if pointed is None:
        assert (finding.characters, finding.tokens) == (None, ())
        return
    done = templates.render(faulty, row, tokenizer)
    assert done.text[slice(*finding.characters)] == pointed
    held = [done.text[slice(*done.offsets[token])] for token in finding.tokens]
    assert pointed in "".join(held)
    assert finding.tokens


@pytest.mark.parametrize("row", [ONE, TWO, talk("Hi", "Ho", system="Be brief.")])
def test_a_sound_template_has_no_findings(row, tokenizer):
    assert lint.lint(template(), row, tokenizer, 512) == []
    assert lint.lint(template(), row) == []  # also without a tokenizer


@pytest.mark.parametrize(
    "row, faulty, length, why",
    [
        (talk("Hi"), template(), None, "the row has no assistant message"),
        (ONE, template(REPLY, before="{{ messages | length }}"), None, "has no {% generation %} marks"),
        (ONE, template("{% generation %}{% endgeneration %}" + REPLY), None, "marks none of its text"),
        (ONE, template(), 5, "and it is cut at 5"),
    ],
)
def test_why_nothing_is_trained(row, faulty, length, why, tokenizer):
    assert why in only(lint.lint(faulty, row, tokenizer, length), "nothing-trained").what


def test_what_is_cut_off(tokenizer):
    length = len(templates.render(template(), ONE, tokenizer).ids)
    assert lint.lint(template(), ONE, tokenizer, length) == []
    finding = only(lint.lint(template(), ONE, tokenizer, length - 3), "truncated")
    assert (finding.tokens, finding.severity) == ((length - 3, length - 2, length - 1), "warning")
    assert f"has {length} tokens and is cut at {length - 3}; 3 go, 2 of them trained" in finding.what


def test_thoughts_that_are_there_are_no_empty_ones(tokenizer):
    trained = template("{% generation %}" + THINKS + REPLY + "{% endgeneration %}")
    apart = template(THINKS + "{% generation %}" + REPLY + "{% endgeneration %}")
    assert "empty-thinking-trained" not in rules(lint.lint(trained, talk("Hi", ("Ho", "A greeting.")), tokenizer))
    assert "empty-thinking-trained" not in rules(lint.lint(apart, ONE, tokenizer))


@pytest.mark.parametrize(
    "stops, severity", [(None, "note"), ([], "error"), (["<|im_end|>"], "error"), (["<|endoftext|>"], None)]
)
def test_a_stop_list(stops, severity, tokenizer):
    other = template("{% generation %}{{ m.content ~ '<|endoftext|>' }}{% endgeneration %}")
    found = [f.severity for f in lint.lint(other, ONE, tokenizer, stops=stops) if f.rule == "stop-not-eos"]
    assert found == ([severity] if severity else [])


def test_a_tokenizer_that_adds_bos_itself():
    backend = byte_level()
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    adds = Tokenizer.wrap(backend, {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"})
    assert rules(lint.lint(template(), ONE, adds)) == {"bos-missing"}
    assert rules(lint.lint(template(before="{{ bos_token }}"), ONE, adds)) == {"bos-added-again"}
    assert rules(lint.lint(template(before="{{ bos_token ~ bos_token }}"), ONE, adds)) == {"bos-doubled"}


def test_a_row_rewritten_for_the_template(tokenizer):
    parts = templates.pasted(
        "{% for m in messages %}{{ m.role ~ ': ' }}{% generation %}{{ m.content[0].text.strip() ~ eos_token }}"
        "{% endgeneration %}{% endfor %}"
    )
    found = lint.lint(parts, talk("Hi", "Ho"), tokenizer)
    assert "contents as parts" in only(found, "other-shape").what


def test_a_generation_prompt_asked_for_by_the_row_is_not_looked_at(tokenizer):
    assert lint.lint(template(), replace(TWO, variables={"add_generation_prompt": True}), tokenizer) == []


def test_graver_findings_come_first(tokenizer):
    faulty = template("{% generation %}{{ m.content }}{% endgeneration %}<|endoftext|>", before="<|beginning|>")
    assert [f.severity for f in lint.lint(faulty, talk("a<|im_end|>", "b"), tokenizer)] == [
        "error",
        "warning",
        "note",
        "note",
    ]


END_OF_TEXT = "{% if loop.last and m.role == 'assistant' %}{{ eos_token }}{% endif %}"
OPENS = "{% generation %}{{ m.content ~ '<|endoftext|>' }}{% endgeneration %}{% if loop.last %}<|im_start|>{% endif %}"


def test_an_earlier_reply_is_no_part_of_a_prompt(tokenizer):
    """A template that ends the whole text with EOS does not keep to its prefixes; that alone is to be said."""
    ends = template("{% generation %}{{ m.content ~ '<|endoftext|>' }}{% endgeneration %}" + END_OF_TEXT)
    assert rules(lint.lint(ends, TWO, tokenizer)) == {"not-prefix-preserving", "stop-not-eos"}


@pytest.mark.parametrize(
    "faulty, stop",
    [
        (template(), "<|im_end|>"),
        (template(OPENS), "<|endoftext|>"),  # what opens the next turn is no end of this one
        (template("{% generation %}{{ m.content }}{% endgeneration %}.END"), ".END"),
        (template("{% generation %}{{ m.content ~ '</answer><|im_end|>' }}{% endgeneration %}"), "<|im_end|>"),
        (template("{{ raise_exception('no') }}"), None),
    ],
)
def test_where_a_reply_ends(faulty, stop, tokenizer):
    assert habits(faulty, tokenizer).stop == stop


def test_markers_are_what_stands_between_messages(tokenizer):
    told = template(before="<|im_start|>system\nUse <b>bold</b> and [NOTES].<|im_end|>\n")
    assert habits(told, tokenizer).markers == ("<|im_start|>", "<|im_end|>")
    assert habits(templates.load("falcon"), tokenizer).markers == ("User:", "Assistant:", "<|im_end|>")


def test_words_like_markers_inside_words_are_let_be(tokenizer):
    falcon = templates.load("falcon")
    assert lint.lint(falcon, talk("SuperUser: yes", "No."), tokenizer) == []
    assert named(lint.lint(falcon, talk("User: yes", "No."), tokenizer)) == {("marker-in-content", "note")}


@pytest.mark.parametrize(
    "messages, what",
    [
        ([], "A conversation needs at least one message."),
        (["x"], "Messages must be objects with a role and a content, got 'x'."),
        (
            [{"role": "user", "content": "half \ud83d"}],
            "The text holds half of a surrogate pair, which no tokenizer reads.",
        ),
    ],
)
def test_a_row_that_is_none(messages, what, tokenizer):
    assert [(f.rule, f.what) for f in lint.lint(template(), Conversation(messages), tokenizer)] == [("refused", what)]


def test_odd_values_do_no_harm(tokenizer):
    odd = [
        {"role": "user", "content": "qz0qz qzaskqz qzanswerqz"},
        {"role": "assistant", "content": None, "tool_calls": ["x", {"name": 3}]},
        {"role": "tool", "content": [{"type": "text", "text": "hi"}]},
    ]
    hermes = templates.load("chatml")
    assert rules(lint.lint(hermes, Conversation(odd, ["x", {"type": "function"}, {"name": "f"}]), tokenizer)) >= {
        "tools-ignored"
    }


# A data set ----------------------------------------------------------------------------------------------------------


def test_tallies_of_a_data_set(tokenizer):
    rows = [ONE, talk("Hi", ("Ho", "A greeting.")), talk("<|im_end|>", "b"), talk("Hi", ("Ho", "Again.")), talk("Hi")]
    *_, last = lint_rows(template(), rows, tokenizer, 512)
    assert (last.done, last.total, last.stage) == (5, 5, "done")
    assert [(tally.rule, tally.count, tally.rows) for tally in last.result] == [
        ("nothing-trained", 1, [5]),
        ("reasoning-dropped", 2, [2, 4]),
        ("marker-in-content", 1, [3]),
    ]
    assert last.result[0].why == RULES["nothing-trained"]
    assert last.result[2].example.what.startswith("What the user says holds '<|im_end|>'")


def test_a_rule_broken_twice_in_a_row_counts_once(tokenizer):
    thinks = template("{% generation %}" + THINKS + REPLY + "{% endgeneration %}")
    assert [f.rule for f in lint.lint(thinks, TWO, tokenizer)].count("empty-thinking-trained") == 2
    *_, last = lint_rows(thinks, [TWO, TWO], tokenizer)
    assert [(tally.count, tally.rows) for tally in last.result if tally.rule == "empty-thinking-trained"] == [
        (2, [1, 2])
    ]


def test_a_row_with_variables_of_its_own(tokenizer):
    ends = template("{% generation %}{{ m.content ~ (end or '<|im_end|>') }}{% endgeneration %}")
    *_, last = lint_rows(ends, [ONE, replace(ONE, variables={"end": "<|endoftext|>"})], tokenizer)
    assert [(tally.rule, tally.rows) for tally in last.result] == [("stop-not-eos", [2])]


def test_a_data_set_can_be_left_early(tokenizer):
    steps = list(lint_rows(template(), iter([ONE] * 200), tokenizer, cancel=lambda: True))
    assert [(step.done, step.total, step.eta) for step in steps] == [(lint.CHUNK, None, None)]
    assert list(lint_rows(template(), [], tokenizer))[-1].result == []


# Badges --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, on",
    [
        ("alpaca", {"system", "multi-turn", "masks"}),
        ("react", {"system", "tools", "tool results", "reasoning", "multi-turn", "masks"}),
        ("reasoning", {"system", "reasoning", "multi-turn", "masks"}),
    ],
)
def test_badges(name, on):
    found = badges(templates.load(name))
    assert [badge.name for badge in found] == ["system", "tools", "tool results", "reasoning", "multi-turn", "masks"]
    assert {badge.name for badge in found if badge.on} == on
    assert "refused" in next(b.what for b in badges(template(before="{{ raise_exception('') }}")) if b.name == "system")


# Templates of real models --------------------------------------------------------------------------------------------

STEPS = talk("Hi", ("Ho", "A greeting."), "And?", ("So.", "More."))
CALLS = Conversation(
    [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "Blue.", "name": "look", "tool_call_id": "abcdefghi"},
        {"role": "assistant", "content": "It is blue."},
    ],
    [TOOL],
)
SYSTEM = talk("Hi", "Ho", system="Be brief.")
REAL_ONES = [
    (
        "llamacpp/Qwen-Qwen3-0.6B.jinja",
        STEPS,
        {"earlier-reasoning-dropped", "not-prefix-preserving", "nothing-trained"},
    ),
    ("llamacpp/Qwen-Qwen3-0.6B.jinja", ONE, {"empty-thinking-trained"}),
    ("trl/qwen3_training.jinja", STEPS, set()),
    ("llamacpp/Qwen-Qwen2.5-7B-Instruct.jinja", CALLS, set()),
    ("llamacpp/Qwen-Qwen2.5-7B-Instruct.jinja", SYSTEM, set()),
    ("vllm/template_chatml.jinja", CALLS, {"tools-ignored", "tool-calls-dropped", "no-stop"}),
    ("llamacpp/google-gemma-2-2b-it.jinja", SYSTEM, {"refused"}),
    ("llamacpp/deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja", ONE, {"prompt-differs", "nothing-trained"}),
    (
        "llamacpp/deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja",
        CALLS,
        {"prompt-differs", "nothing-trained", "tools-ignored"},
    ),
    ("llamacpp/GLM-4.6.jinja", ONE, {"no-stop", "empty-thinking-trained"}),
    ("vllm/template_chatglm.jinja", SYSTEM, {"no-stop", "system-dropped"}),
    ("trl/gptoss_training.jinja", ONE, {"prompt-trained"}),
    ("llamacpp/Apertus-8B-Instruct.jinja", ONE, {"no-stop"}),
]
ABOUT_THE_TOKENIZER = {"markers-split", "stop-not-eos", "prompt-tokens-differ", "marker-in-content", "bos-doubled"}


@pytest.mark.skipif(not REAL.is_dir(), reason="the templates of real models are not here")
@pytest.mark.parametrize("file, row, expected", REAL_ONES)
def test_templates_of_real_models(file, row, expected, tokenizer):
    found = lint.lint(templates.load(str(REAL / file)), row, tokenizer)
    assert rules(found) - ABOUT_THE_TOKENIZER == expected


def test_the_template_of_smollm2_ignores_tools(tokenizer):
    stock = Template(
        "stock",
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
        "{{'<|im_start|>'"
        " + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    )
    assert rules(lint.lint(stock, CALLS, tokenizer)) == {"tools-ignored", "tool-calls-dropped"}
    assert lint.lint(stock, TWO, tokenizer) == []
