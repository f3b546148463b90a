"""Lanes that are held to valid calls, on the tiny model of the engine's tests."""

import json
from dataclasses import replace

import pytest

from playground.core import tools
from playground.core.constrained import Constraint
from playground.core.messages import Conversation
from playground.core.tool_formats import hermes
from playground.errors import PlaygroundError
from tests.services.test_engine import GREEDY, ask, engine, finish, home, lane

__all__ = ["engine", "home"]  # fixtures

DAYS = {"type": "object", "properties": {"days": {"enum": [1, 2]}}, "required": ["days"]}
SCHEMAS = [{"type": "function", "function": {"name": "wait", "description": "", "parameters": DAYS}}]
ROOMY = replace(GREEDY, max_new_tokens=120)
MUST = Constraint("must", "hermes")


def with_tools(schemas=SCHEMAS):
    return Conversation([{"role": "user", "content": "Hi"}], schemas)


def test_a_lane_that_must_call_calls_and_its_neighbour_does_not_notice(engine, home):
    free = lane(home, sampling=ROOMY)
    alone = finish(engine.reply(free, with_tools()))[0]
    held, other = engine.replies(
        [(replace(free, constraint=MUST), with_tools()), (free, with_tools())], stop=hermes.STOPS
    )
    text, beside = finish(held, other)
    assert beside == alone
    call = hermes.parse(text).valid[0]
    assert tools.check(call, SCHEMAS) is None
    assert held.mask_seconds_per_token > 0
    assert other.mask_seconds_per_token == 0.0


def test_a_reply_ends_when_its_grammar_is_complete(engine, home):
    held = engine.reply(lane(home, sampling=ROOMY, constraint=Constraint("must", "json")), with_tools())
    text = finish(held)[0]
    assert held.finish_reason == "stop"
    assert held.ids[-1] != 257  # not because the model said so
    assert json.loads(text)["name"] == "wait"


def test_stop_strings_and_cancel_still_end_a_held_reply(engine, home):
    held = lane(home, sampling=ROOMY, constraint=MUST)
    stopped = engine.reply(held, with_tools(), stop=['"arguments"'])
    assert finish(stopped) == ['<tool_call>\n{"name": "wait", ']
    assert stopped.finish_reason == "stop"
    cancelled = engine.reply(held, with_tools())
    while not cancelled.ids:
        cancelled.wait(0.01)
    cancelled.cancel()
    assert cancelled.wait(60)
    assert cancelled.finish_reason in ("cancelled", "stop")
    finish(engine.reply(held, with_tools()))


def test_a_grammar_that_cannot_go_on_ends_its_own_reply(engine, home):
    broken, other = engine.replies([(lane(home, constraint=MUST), with_tools()), (lane(home), ask())])
    broken.guide.error = "the grammar could not go on: too complex"
    assert broken.wait(60)
    assert (broken.finish_reason, broken.error) == ("error", "the grammar could not go on: too complex")
    finish(other)


@pytest.mark.parametrize(
    "constraint, schemas, sentence",
    [
        (MUST, [], "nothing can be called without tools"),
        (Constraint("valid", "functionary_v32"), SCHEMAS, "there is no grammar for it"),
        (Constraint("valid", "elvish"), SCHEMAS, "no tool-call format named 'elvish'"),
    ],
)
def test_a_constraint_without_a_grammar_is_refused_before_anything_runs(engine, home, constraint, schemas, sentence):
    with pytest.raises(PlaygroundError, match=sentence):
        engine.reply(lane(home, constraint=constraint), with_tools(schemas))
    assert engine.models() == []
