"""The OpenAI routes, asked by the official client over a real socket, on a tiny random model."""

import json
import threading
import time

import httpx
import pytest

from playground.config import Paths, SamplingConfig
from playground.core.messages import Conversation
from playground.services import decoder, openai_server
from playground.services import engine as engine_module
from playground.services.engine import Engine, Lane, Reply
from playground.services.remote import Endpoint, Remotes
from playground.services.sources import Sources
from tests.openai_app import served
from tests.services.test_engine import save_adapter, tiny_model, write_tokenizer

openai = pytest.importorskip("openai")
NAME = "smollm2-135m-instruct"
HELLO = [{"role": "user", "content": "Hello"}]
GREEDY = {"temperature": 0, "max_tokens": 12}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    tiny_model().save_pretrained(home / NAME)
    write_tokenizer(home / NAME)
    save_adapter(home / "adapters/tuned", tiny_model(), NAME)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module, "adapter_folders", lambda paths: [home / "adapters/tuned"])
        paths = Paths(home)
        engine = Engine(Sources(paths, folders=[str(home)]), paths, dtype="float32")
        yield engine
        engine.close()


@pytest.fixture(scope="module", params=[None, "secret"])
def server(engine, request):
    with served(engine, NAME, request.param) as url:
        yield url, request.param


@pytest.fixture
def client(server):
    url, key = server
    with openai.OpenAI(base_url=url, api_key=key or "none", max_retries=0) as client:
        yield client


def test_models_are_listed_by_name(client):
    assert [model.id for model in client.models.list()] == [NAME, "tuned"]
    assert client.models.retrieve("tuned").id == "tuned"
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-4' here; the models are"):
        client.models.retrieve("gpt-4")


def test_an_answer_streamed_is_the_answer_whole(client):
    texts = {}
    for model in (NAME, "tuned", f"{NAME}+tuned", f"{NAME}@plain"):
        whole = client.chat.completions.create(model=model, messages=HELLO, **GREEDY)
        assert whole.choices[0].finish_reason == "length"
        assert whole.usage.completion_tokens == 12
        assert whole.usage.total_tokens == whole.usage.prompt_tokens + 12
        chunks = list(
            client.chat.completions.create(
                model=model, messages=HELLO, stream=True, stream_options={"include_usage": True}, **GREEDY
            )
        )
        assert len({chunk.id for chunk in chunks}) == 1
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert streamed == whole.choices[0].message.content
        assert chunks[-1].usage == whole.usage
        assert chunks[-2].choices[0].finish_reason == "length"
        texts[model] = streamed
    assert texts["tuned"] == texts[f"{NAME}+tuned"] != texts[NAME]
    assert texts[f"{NAME}@plain"] != texts[NAME]


def test_characters_of_several_tokens_are_streamed_whole(client, engine, monkeypatch):
    """As the decoding thread writes it: emoji, right-to-left and Chinese text, a few bytes to a token."""
    text, tokenizer = "👩‍🚀 שלום, é 漢字 😀", engine.tokenizer(NAME)
    ids = [*tokenizer.encode(text)[0], tokenizer.eos_id]

    def reply(lane, conversation, stops=(), visitor=""):
        made = Reply(lane, engine.prompt(lane, conversation), stops)

        def write():
            stream = decoder.Stream(made, tokenizer, frozenset([tokenizer.eos_id]))
            for token in ids:
                time.sleep(0.01)
                stream.take(token)

        threading.Thread(target=write, daemon=True).start()
        return made

    monkeypatch.setattr(engine, "reply", reply)
    monkeypatch.setattr(openai_server, "TICK", 0.002)
    asked = {**GREEDY, "max_tokens": 150}
    chunks = client.chat.completions.create(model=NAME, messages=HELLO, stream=True, **asked)
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(pieces) == text
    assert len(list(filter(None, pieces))) > 5
    assert not [piece for piece in pieces if "�" in piece]
    assert client.chat.completions.create(model=NAME, messages=HELLO, **asked).choices[0].message.content == text


def test_settings_reach_the_engine(client):
    same = [
        client.chat.completions.create(model=NAME, messages=HELLO, temperature=1.0, seed=seed, max_tokens=12)
        for seed in (1, 1, 2)
    ]
    one, two, three = (answer.choices[0].message.content for answer in same)
    assert one == two != three
    short = client.chat.completions.create(model=NAME, messages=HELLO, temperature=0, max_completion_tokens=3)
    assert short.usage.completion_tokens == 3
    greedy = client.chat.completions.create(model=NAME, messages=HELLO, **GREEDY).choices[0].message.content
    cut = client.chat.completions.create(model=NAME, messages=HELLO, stop=[greedy[2:4]], **GREEDY)
    assert cut.choices[0].message.content == greedy[: greedy.find(greedy[2:4])]
    assert cut.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"n": 2}, "n=2 is not supported"),
        ({"logprobs": True}, "logprobs=true is not supported"),
        ({"temperature": 9}, "temperature must be between 0.0 and 5.0"),
        ({"messages": []}, "messages is missing"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "message 1 has the role 'wizard'"),
        ({"messages": [{"role": "user", "content": "long " * 200}]}, "reads 200 at most"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "a message part of type 'image_url' is not supported",
        ),
        ({"stop": ["a"] * 40}, "stop must be"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "writes no tool calls"),
    ],
)
def test_what_cannot_work_is_a_sentence(client, changes, sentence):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**{"model": NAME, "messages": HELLO, **GREEDY, **changes})
    assert sentence in refused.value.body["message"]


def test_a_chat_past_the_context_is_refused_and_not_cut(client):
    turns = [{"role": role, "content": "long " * 10} for _ in range(4) for role in ("user", "assistant")]
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=NAME, messages=[*turns, *HELLO], **GREEDY)
    assert refused.value.code == "context_length_exceeded"
    assert "reads 200 at most" in refused.value.body["message"]


def test_clients_take_turns_by_machine_and_a_full_queue_says_try_again(client, monkeypatch):
    visitors, submit = [], decoder.Decoder.submit

    def noted(self, replies, visitor=""):
        visitors.append(visitor)
        submit(self, replies, visitor)

    monkeypatch.setattr(decoder.Decoder, "submit", noted)
    client.chat.completions.create(model=NAME, messages=HELLO, **GREEDY)
    monkeypatch.setattr(decoder, "MAX_WAITING", 0)
    with pytest.raises(openai.RateLimitError, match="requests are waiting for .*; try again in a moment") as refused:
        client.chat.completions.create(model=NAME, messages=HELLO, stream=True, **GREEDY)
    assert refused.value.code == "rate_limit_exceeded"
    assert refused.value.response.headers["retry-after"] == "2"
    assert visitors == ["client 127.0.0.1"] * 2


def test_an_unknown_model_is_not_a_path(client, engine):
    for name in ("gpt-4", str(engine.paths.home / NAME), "../x", f"{NAME}+nobody"):
        with pytest.raises((openai.NotFoundError, openai.BadRequestError), match="there is no"):
            client.chat.completions.create(model=name, messages=HELLO, **GREEDY)


def test_the_key_is_asked_for(server):
    url, key = server
    given = openai.OpenAI(base_url=url, api_key="wrong", max_retries=0)
    if key is None:
        assert given.models.list().data
        return
    with pytest.raises(openai.AuthenticationError, match="asks for its key"):
        given.models.list()
    with pytest.raises(openai.AuthenticationError):
        given.chat.completions.create(model=NAME, messages=HELLO)


def test_a_form_of_another_page_is_not_read(server):
    url, key = server
    headers = {"content-type": "text/plain", "authorization": f"Bearer {key}"}
    body = json.dumps({"model": NAME, "messages": HELLO})
    answer = httpx.post(f"{url}/chat/completions", content=body, headers=headers)
    assert answer.status_code == 400
    assert "application/json" in answer.json()["error"]["message"]
    broken = httpx.post(f"{url}/chat/completions", content="{", headers={**headers, "content-type": "application/json"})
    assert "not valid JSON" in broken.json()["error"]["message"]


def test_a_client_that_goes_away_ends_its_reply(client, engine):
    stream = client.chat.completions.create(model=NAME, messages=HELLO, stream=True, temperature=0, max_tokens=170)
    next(iter(stream))
    stream.close()
    decoder = engine._decoder(NAME)
    deadline = time.monotonic() + 20
    while decoder.state == "loading" or decoder.batch.rows or len(decoder.waiting):
        assert time.monotonic() < deadline, "the reply goes on although nobody reads it"
        time.sleep(0.05)


def test_a_remote_lane_says_what_the_local_one_says(engine, server, tmp_path):
    url, key = server
    ask, paths = Conversation(HELLO), Paths(tmp_path)
    sampling = SamplingConfig(temperature=0, repetition_penalty=1.0, max_new_tokens=12)
    here = Engine(Sources(paths, folders=[]), paths, remotes=Remotes([Endpoint("far", url, "tuned", key or "")]))
    reply = here.reply(Lane("far", sampling=sampling), ask)
    local = engine.reply(Lane(NAME, adapter="tuned", sampling=sampling), ask)
    assert reply.wait(60)
    assert local.wait(60)
    assert (reply.error, reply.text, reply.finish_reason) == (None, local.text, "length")
    assert reply.count == local.count == 12
    assert reply.first_token_s > 0
    assert '"model": "tuned"' in reply.prompt.text
    assert here.ahead(reply) == 0
