"""Three lanes on one copy of the real weights, and the shipped adapter calling real tools."""

import pytest

from playground.config import ASSETS, SamplingConfig
from playground.core import toolloop
from playground.core.messages import Conversation
from playground.core.models import read_adapter
from playground.core.tools import calculator, weather
from playground.services.engine import Lane
from playground.services.turns import EngineTurn
from tests.real_model.conftest import NAME

GREEDY = SamplingConfig(temperature=0.0, repetition_penalty=1.0, max_new_tokens=100)
TOOLS = [calculator.make(), weather.make(None)]


def ask(engine, lane, conversation):
    format = engine.tool_format(lane)

    def generate(conversation):
        return EngineTurn(engine.reply(lane, conversation, stop=format.STOPS))

    return toolloop.run(generate, conversation, TOOLS, format)


def test_base_instruct_and_tuned_answer_together(engine):
    conversation = Conversation([{"role": "user", "content": "What is the capital of France?"}])
    lanes = [Lane(NAME, template="plain"), Lane(NAME), Lane(NAME, adapter="tool-calling")]
    replies = engine.replies([(Lane(**(vars(lane) | {"sampling": GREEDY})), conversation) for lane in lanes])
    for reply in replies:
        assert reply.wait(300)
        assert reply.finish_reason in ("stop", "length"), reply.error
    assert len({reply.prompt.text for reply in replies}) == 3
    assert "Paris" in replies[1].text
    assert engine.models() == [NAME]


@pytest.mark.parametrize(
    "question, tool, arguments, said",
    [
        ("What is 23 * 47?", "calculator", {"expression": "23 * 47"}, "1081"),
        ("What's the weather in Paris?", "get_weather", {"city": "Paris"}, "Paris"),
    ],
)
def test_the_shipped_adapter_calls_tools_and_tells_the_truth(engine, question, tool, arguments, said):
    lane = Lane(NAME, adapter="tool-calling", sampling=GREEDY)
    conversation = Conversation([{"role": "user", "content": question}], [t.schema for t in TOOLS])
    events = list(ask(engine, lane, conversation))
    calls = [event.call for event in events if event.kind == "call"]
    assert [(call.name, call.arguments) for call in calls] == [(tool, arguments)]
    (result,) = [event for event in events if event.kind == "result"]
    assert result.fault is None
    (answer,) = [event.text for event in events if event.kind == "answer"]
    assert said in answer
    value = result.value.get("result", result.value.get("temperature_c"))
    assert str(value) in answer


def test_small_talk_calls_nothing(engine):
    lane = Lane(NAME, adapter="tool-calling", sampling=GREEDY)
    conversation = Conversation([{"role": "user", "content": "Tell me a joke"}], [t.schema for t in TOOLS])
    kinds = [event.kind for event in ask(engine, lane, conversation)]
    assert "answer" in kinds
    assert "call" not in kinds


def test_the_shipped_adapter_says_where_it_comes_from():
    folder = ASSETS / "adapters" / "tool-calling"
    info = read_adapter(folder)
    assert info.base_model == NAME
    assert info.template.name == "chatml-tools"
    assert info.details["config"]["recipe"] == "tool-calling"
    assert info.details["scores"]["rows"] >= 120
    assert info.details["scores"]["tuned"] >= 0.9 > 0.5 > info.details["scores"]["untuned"]
    assert (folder / "adapter_model.safetensors").stat().st_size < 6 * 2**20
