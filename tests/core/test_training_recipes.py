"""Recipes, the formats they are scored by, their data, and the command that repeats a run."""

import dataclasses
import json
import shlex

import pytest

from playground.config import ASSETS, TrainConfig
from playground.core import datasets
from playground.core.messages import Conversation
from playground.core.templates import load, render
from playground.core.training import formats, recipes
from playground.errors import PlaygroundError

KNOWN = recipes.recipes()


def test_the_recipes_in_their_order():
    names = ["tool-calling", "follow-instructions", "think-first", "react", "persona", "json-calls"]
    assert list(KNOWN) == names


@pytest.mark.parametrize("name", KNOWN)
def test_a_recipe_is_complete(name, tokenizer):
    recipe = KNOWN[name]
    config = recipe.config()
    assert config.recipe == name
    assert recipe.title
    assert recipe.changes
    assert recipe.probe == config.probe
    data = datasets.load(config.data)
    assert not data.problems
    assert config.batch_size < len(data.conversations)
    template = load(config.template, tokenizer)
    for conversation in data.conversations[:5]:
        assert any(render(template, conversation, tokenizer).mask)
    asked = {m["content"] for c in data.conversations for m in c.messages if m["role"] == "user"}
    assert recipe.probe not in asked or name in ("tool-calling", "json-calls", "react", "follow-instructions")
    assert not asked & set(recipe.questions)


@pytest.mark.parametrize(
    "name, judge",
    [("think-first", formats.thinks_first), ("react", formats.is_react)],
)
def test_what_the_data_teaches_has_the_form_that_is_scored(name, judge, tokenizer):
    config = KNOWN[name].config()
    template = load(config.template, tokenizer)
    for conversation in datasets.load(config.data).conversations:
        last = max(i for i, m in enumerate(conversation.messages) if m["role"] == "user")
        start = Conversation(conversation.messages[: last + 1], conversation.tools)
        prompt = render(template, start, tokenizer, add_generation_prompt=True).text
        until = Conversation(conversation.messages[: last + 2], conversation.tools)
        answer = render(template, until, tokenizer).text.removeprefix(prompt).replace("<|im_end|>", "")
        assert judge(answer), answer


@pytest.mark.parametrize(
    "answer, short",
    [
        ("The capital of Italy is Rome.", True),
        ("5", True),
        ("", False),
        (" ", False),
        ("The smallest planet is Pluto.\n\n### Explanation:\nThe response goes on.", False),
        ("word " * 25, True),
        ("word " * 26, False),
    ],
)
def test_short_answers(answer, short):
    assert formats.is_short(answer) == short


@pytest.mark.parametrize(
    ("written", "longest", "text", "outcome"),
    [
        ("It is Rome.", 20, "It is Rome.", "exact"),
        ("It is Rome.", 0, "It is Rome.", "malformed"),  # cut: all its tokens are written, and no end
        ("It is Rome. END and more", 0, "It is Rome. ", "exact"),  # it ended before what it went on with
    ],
)
def test_whether_a_short_answer_ended_is_known_from_its_tokens(tokenizer, monkeypatch, written, longest, text, outcome):
    pytest.importorskip("torch")
    from playground.core.training import scores

    ids = tokenizer.encode(written)[0]
    monkeypatch.setattr(scores, "greedy", lambda bank, adapter, prompts, *more: [ids] * len(prompts))
    monkeypatch.setattr(scores, "stops", lambda template, tokenizer: (set(), ("END",)))
    monkeypatch.setitem(scores.LONGEST, "short_answers", longest or len(ids))
    lane, template = scores.Lane(None, None, tokenizer), load("chatml")
    asked = [Conversation([{"role": "user", "content": "Where?"}], [])]
    assert [answer.text for answer in scores.answer_all(lane, template, asked, longest or len(ids))] == [text]
    recipe = KNOWN["follow-instructions"]
    assert scores.score(lane, template, recipe).outcomes == {outcome: len(recipe.questions)}


def test_the_instructions_are_answered_as_shortly_as_is_counted():
    rows = [c.messages[-1]["content"] for c in datasets.load("instructions").conversations]
    assert sum(map(formats.is_short, rows)) >= 0.95 * len(rows)  # a list, two poems and some code have several lines
    assert len(KNOWN["follow-instructions"].questions) == 40


@pytest.mark.parametrize("name", KNOWN)
def test_every_recipe_says_what_is_counted_before_and_after_it(name):
    assert KNOWN[name].score in formats.SCORES


def test_the_persona_is_in_all_of_its_rows():
    recipe = KNOWN["persona"]
    rows = datasets.load("persona").conversations
    assert len(rows) == 20
    assert all(formats.in_persona(row.messages[-1]["content"], recipe.marks) for row in rows)


@pytest.mark.parametrize(
    "answer, thinks",
    [
        ("<|thinking|>a</|thinking|>\n<answer>b</answer>", True),
        ("  <|thinking|>a\nb</|thinking|><answer>b</answer>\n", True),
        ("<answer>b</answer>", False),
        ("<|thinking|>a</|thinking|>b", False),
        ("<|thinking|>a<answer>b</answer>", False),
        ("<|thinking|></|thinking|><answer>b</answer>", False),
        ("<|thinking|>a</|thinking|><answer>b</answer><answer>c</answer>", False),
        ("Sure! <|thinking|>a</|thinking|><answer>b</answer>", False),
    ],
)
def test_thinking_first(answer, thinks):
    assert formats.thinks_first(answer) == thinks


@pytest.mark.parametrize(
    "answer, holds",
    [
        ('<Thought>t</Thought>\n<Action>calculator</Action>\n<Action_Input>{"expression": "1"}</Action_Input>', True),
        ("<Thought>t</Thought>\n<Final_Answer>Paris.</Final_Answer>", True),
        ("<Final_Answer>Paris.</Final_Answer>", False),
        ("<Thought>t</Thought>\nParis.", False),
        ("<Thought>t</Thought>\n<Action>calculator</Action>\n<Action_Input>{oops</Action_Input>", False),
        ("<Thought>t</Thought>\n<Final_Answer>open", False),
        (
            "<Thought>t</Thought>\n<Action>calculator</Action>\n<Action_Input>{}</Action_Input>"
            "<Observation>5</Observation>",
            False,
        ),
    ],
)
def test_the_react_form(answer, holds):
    assert formats.is_react(answer) == holds


def test_json_calls_are_consistent_and_share_nothing_with_the_test():
    stored = [json.loads(line) for line in (ASSETS / "data" / "json-calls.jsonl").read_text().splitlines()]
    assert formats.inconsistent(stored) == []
    train, test = formats.json_calls(300), formats.json_calls(100, split="test")
    assert (len(train), len(test)) == (300, 100)
    assert formats.inconsistent(train + test) == []
    tools = {p["instruction"] for p in stored if p["output"] != "[]"}
    assert not tools & {p["instruction"] for p in test}


@pytest.mark.parametrize(
    "pairs, words",
    [
        ([("a", "nonsense")], "row 1: the answer is not JSON"),
        ([("a", '[{"name": "calculator"}]')], "row 1: a call must be"),
        ([("a", '[{"name": "calculator", "arguments": {}}]')], "row 1: .*expression"),
        ([("a", "[]"), ("a", '[{"name": "get_weather", "arguments": {"city": "Rome"}}]')], "row 2 answers 'a' diff"),
    ],
)
def test_inconsistent_pairs_are_named(pairs, words):
    (fault,) = formats.inconsistent([{"instruction": q, "output": o} for q, o in pairs])
    assert __import__("re").search(words, fault)


def test_a_recipe_with_an_unknown_score_is_refused(tmp_path, monkeypatch):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "odd.toml").write_text(
        'title = "t"\ndescription = "d"\nscore = "beauty"\n[settings]\nrank = 4\n'
    )
    monkeypatch.setattr(recipes, "ASSETS", tmp_path)
    with pytest.raises(PlaygroundError, match="odd.toml: score must be one of exact_calls, .* got 'beauty'"):
        recipes.recipes()


# ---- the command line ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config, command",
    [
        (TrainConfig(), "playground train"),
        (TrainConfig(name="mine", rank=4, learning_rate=1e-4), "playground train --rank 4 --learning-rate 0.0001"),
        (KNOWN["persona"].config(), "playground train --recipe persona"),
        (KNOWN["persona"].config(steps=9), "playground train --recipe persona --steps 9"),
        (
            TrainConfig(data="my rows.json", load_in_4bit=True, restore_best=False),
            "playground train --data 'my rows.json' --no-restore-best --load-in-4bit",
        ),
    ],
)
def test_the_command_gives_what_differs(config, command):
    assert recipes.command_line(config) == command


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(learning_rate=0.00123456789, restore_best=False, probe='What\'s "up"?\nTwo lines'),
        TrainConfig(probe="-5 + 3 = ?", data="-rows.jsonl", new_tokens="--a,b"),
        TrainConfig(probe="$HOME `x` {y} \\ % ! # ~ *", template="", targets="q_proj,v_proj"),
        KNOWN["tool-calling"].config(method="dora", alpha=3.5, new_tokens="<|a|>,<|b|>"),
        dataclasses.replace(KNOWN["react"].config(), patience=0, final_lr_share=0.0),
    ],
)
def test_the_command_gives_the_same_config_again(config):
    import argparse

    from playground.commands import train

    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    args = parser.parse_args(shlex.split(recipes.command_line(config))[2:])
    assert train.config_of(args) == config
