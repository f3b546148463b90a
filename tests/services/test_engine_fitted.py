"""A chat past its model's context: what is left out, for each template, and that it fits then; no weights needed."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest

from playground.config import Paths, SamplingConfig
from playground.core import templates, tool_formats
from playground.core.exchanges import starts, without
from playground.core.messages import Conversation
from playground.core.tools import calculator
from playground.errors import PlaygroundError, TooLong
from playground.services import engine as engine_module
from playground.services.engine import STRIDE, Engine, Lane
from playground.services.remote import Endpoint
from playground.services.templates import MINE

CONTEXT, REPLY = 700, 20
SAMPLING = SamplingConfig(max_new_tokens=REPLY)
SYSTEM = {"role": "system", "content": "Answer in one word, as the teacher of the class."}
TURNS = 9
# As published templates have it (Gemma's, Mistral's): user and assistant in turns, or nothing at all.
ALTERNATING = (
    "{% for m in messages %}{% if m.role != 'system' %}"
    "{% if (m.role == 'user') != ((loop.index0 - (messages[0].role == 'system')) % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}{% endif %}"
    "<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"
)


@pytest.fixture(scope="module")
def engine(tokenizer_folder, tmp_path_factory):
    home = tmp_path_factory.mktemp("fitted")
    folder = shutil.copytree(tokenizer_folder, home / "small")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": CONTEXT}))
    entry = SimpleNamespace(name="small", title="Small")
    sources = SimpleNamespace(find=lambda name: folder, entries=lambda: [entry], entry=lambda name: entry)
    engine = Engine(sources, Paths(home))
    engine.templates.save("Alternating", ALTERNATING)
    return engine


def exchange(number: int, called: bool = False) -> list[dict]:
    question = {"role": "user", "content": f"Question {number}: " + "what is the capital of France? " * 8}
    call = {"type": "function", "function": {"name": "calculator", "arguments": {"expression": f"{number} * 47"}}}
    steps = [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "name": "calculator", "content": json.dumps({"result": number * 47})},
    ]
    return [question, *(steps if called else []), {"role": "assistant", "content": f"Answer {number}: Paris."}]


def chat(system: bool = True, called: bool = False) -> Conversation:
    messages = [SYSTEM] if system else []
    for number in range(1, TURNS):
        messages += exchange(number, called)
    messages += exchange(TURNS)[:1]
    return Conversation(messages, [calculator.make().schema] if called else [])


@pytest.mark.parametrize("system", [True, False])
@pytest.mark.parametrize("name", [*templates.names(), "model", f"{MINE}Alternating"])
def test_whole_exchanges_are_left_out_in_every_template(engine, name, system):
    called = name in ("chatml-tools", "react", "reasoning-tools")
    lane, whole = Lane("small", template=name, sampling=SAMPLING), chat(system, called)
    with pytest.raises(TooLong):
        engine.prompt(lane, whole)
    short, left_out = engine.fitted(lane, whole)
    text = engine.prompt(lane, short).text  # it fits
    assert 0 < left_out.turns < TURNS
    for number in range(1, TURNS + 1):
        assert (f"Question {number}:" in text) is (number > left_out.turns)
        assert not (number <= left_out.turns and f"Answer {number}:" in text)
        assert not (called and number <= left_out.turns and f"{number} * 47" in text)
    assert (SYSTEM["content"] in text) is system
    assert ("calculator" in text) is called
    assert all(_fits(engine, lane, whole, count) for count in range(left_out.turns, TURNS))
    # more than has to be, by less than a stride and an exchange
    stride = STRIDE * (CONTEXT - REPLY)
    spare = CONTEXT - REPLY - len(engine.prompt(lane, short).ids)
    exchange_size = _size(engine, lane, whole, TURNS - 2) - _size(engine, lane, whole, TURNS - 1)
    assert 0 <= spare < stride + exchange_size + 5


def _short(whole, count):
    return without(whole, starts(whole.messages), count)


def _size(engine, lane, whole, count):
    return len(engine.prompt(replace(lane, sampling=SamplingConfig(max_new_tokens=1)), _short(whole, count)).ids)


def _fits(engine, lane, whole, count):
    try:
        return bool(engine.prompt(lane, _short(whole, count)).ids)
    except TooLong:
        return False


@pytest.mark.parametrize("name", ["chatml", "llama-2", "plain"])
def test_a_chat_that_grows_keeps_its_prompts_beginning_for_several_turns(engine, name):
    """Short exchanges, forty of them: what was read at one turn begins the next one's prompt, but for a few cuts."""
    lane, messages, before, anew, cuts = Lane("small", template=name, sampling=SAMPLING), [SYSTEM], [], 0, []
    for number in range(40):
        messages.append({"role": "user", "content": f"And what is {number} times 47, please?"})
        short, left_out = engine.fitted(lane, Conversation(messages))
        ids = engine.prompt(lane, short).ids
        anew += ids[: len(before)] != before
        cuts.append(left_out.turns if left_out else 0)
        before = ids[:-8]  # the reply's first tokens may join the prompt's last ones
        messages.append({"role": "assistant", "content": f"It is {number * 47}."})
    assert cuts == sorted(cuts)
    moved = len(set(cuts)) - 1
    assert 3 <= moved <= 10
    assert anew <= moved
    assert cuts[-1] >= 20


def test_the_tokens_that_are_said_are_those_the_prompt_is_shorter_for(engine, monkeypatch):
    lane, whole = Lane("small", template="chatml", sampling=SAMPLING), chat()
    short, left_out = engine.fitted(lane, whole)
    kept = len(engine.prompt(lane, short).ids)
    monkeypatch.setattr(engine_module, "context_length", lambda folder: 100_000)
    assert left_out.tokens == len(engine.prompt(lane, whole).ids) - kept
    begins, ends = (
        "The conversation did not fit into 700 tokens, of which the reply may take 20: its first ",
        " left out.",
    )
    assert str(left_out).startswith(begins)
    assert str(left_out).endswith(ends)
    assert engine.fitted(lane, whole) == (whole, None)


def test_the_question_that_is_being_answered_stays_with_its_calls(engine):
    """A call that could not be read comes back as a user's message, which is not the newest question."""
    lane = Lane("small", template="react", sampling=SAMPLING)
    now = [
        exchange(TURNS)[0],
        {"role": "assistant", "content": "<Action>calculator</Action>"},
        {"role": "user", "content": tool_formats.react.write_result("", '{"error": "no input"}')},
    ]
    before = chat().messages[:-1]
    places = [place for place, message in enumerate(before) if message["role"] == "user"]
    short, left_out = engine.fitted(lane, Conversation([*before, *now]), [*places, len(before)])
    assert short.messages[-3:] == now
    assert left_out.turns > 0
    huge = [*now, {"role": "assistant", "content": "x"}, {"role": "user", "content": "long result " * 400}]
    short, left_out = engine.fitted(lane, Conversation([*before, *huge]), [*places, len(before)])
    assert short.messages == [SYSTEM, *huge]
    with pytest.raises(TooLong):
        engine.prompt(lane, short)


@pytest.mark.parametrize("before", [[], exchange(1)])
def test_a_message_that_does_not_fit_alone_is_refused_with_its_counts(engine, before):
    lane = Lane("small", template="chatml", sampling=SAMPLING)
    message = {"role": "user", "content": "long " * 600}
    text = f"<|im_start|>user\n{message['content']}<|im_end|>\n<|im_start|>assistant\n"
    alone = len(engine.tokenizer("small").encode(text)[0])
    short, _ = engine.fitted(lane, Conversation([*before, message]))
    assert short.messages == [message]  # nothing is cut in its middle
    words = f"the prompt has {alone:,} tokens and the reply may take 20; small reads 700 at most: shorten the message"
    with pytest.raises(TooLong, match=words):
        engine.prompt(lane, short)


def test_a_chat_of_very_many_characters_is_not_rendered_whole(engine, monkeypatch):
    long = {"role": "user", "content": "x" * 20_000}
    messages = [message for _ in range(5) for message in (long, {"role": "assistant", "content": "Yes."})]
    conversation = Conversation([*messages, exchange(1)[0]])
    lane = Lane("small", template="chatml", sampling=SAMPLING)
    rendered, render = [], engine_module.render
    monkeypatch.setattr(engine_module, "render", lambda t, c, *a, **k: rendered.append(c) or render(t, c, *a, **k))
    short, left_out = engine.fitted(lane, conversation)
    assert short.messages == [exchange(1)[0]]
    assert str(left_out).startswith("The conversation did not fit into 700 tokens")
    assert left_out.turns == 5
    assert max(len(str(one.messages)) for one in rendered) < 51_000
    monkeypatch.setattr(engine_module, "context_length", lambda folder: 1_000_000)
    short, left_out = engine.fitted(lane, conversation)
    assert len(short.messages) == 3
    assert str(left_out) == "The conversation did not fit into 50,000 characters: its first 4 turns were left out."


@pytest.mark.parametrize("before", [[], exchange(1)])
def test_what_can_never_be_sent_is_not_rendered(engine, monkeypatch, before):
    monkeypatch.setattr(engine_module, "render", None)
    message = {"role": "user", "content": "x" * 50_001}
    lane = Lane("small", template="chatml", sampling=SAMPLING)
    assert engine.fitted(lane, Conversation([*before, message]))[0].messages == [message]
    with pytest.raises(TooLong, match="50,001 characters"):
        engine.prompt(lane, Conversation([message]))


def test_a_lane_elsewhere_is_sent_all(engine):
    engine.remotes.add(Endpoint("far", "http://127.0.0.1:9/v1", "big"))
    whole = chat()
    assert engine.fitted(Lane("far", sampling=SAMPLING), whole) == (whole, None)


def test_what_no_template_takes_is_refused_as_ever(engine):
    with pytest.raises(PlaygroundError, match="message 1 is from the assistant"):
        engine.fitted(Lane("small"), Conversation(exchange(1)[1:]))
