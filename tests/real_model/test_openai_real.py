"""The official client on our routes with the shipped adapter, and our remote lanes on transformers' own server."""

import json
import os
import socket
import subprocess
import sys
import time

import httpx
import openai
import pytest

from playground.config import SamplingConfig
from playground.core import tools
from playground.core.messages import Conversation
from playground.services.engine import Engine, Lane
from playground.services.remote import Endpoint, Remotes
from tests.openai_app import served
from tests.real_model.conftest import NAME

CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def client(engine):
    with (
        served(engine, NAME) as url,
        openai.OpenAI(base_url=url, api_key="none", timeout=300) as client,
    ):
        yield client


@pytest.mark.parametrize("stream", [False, True])
def test_the_shipped_adapter_calls_a_tool_for_an_openai_client(client, stream):
    asked = client.chat.completions.create(
        model="tool-calling",
        messages=[{"role": "user", "content": "What is 23 * 47?"}],
        tools=tools.schemas(),
        temperature=0,
        max_tokens=100,
        stream=stream,
    )
    if stream:
        chunks = [chunk.choices[0] for chunk in asked]
        calls = [call for choice in chunks for call in choice.delta.tool_calls or []]
        reason = chunks[-1].finish_reason
    else:
        calls, reason = asked.choices[0].message.tool_calls, asked.choices[0].finish_reason
    assert reason == "tool_calls"
    (call,) = calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("calculator", {"expression": "23 * 47"})


def test_the_instruct_model_answers_an_openai_client(client):
    answer = client.chat.completions.create(model=NAME, messages=CAPITAL, temperature=0, max_tokens=40)
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"


def test_a_lane_on_transformers_own_server(engine, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = str(engine.folder(NAME))
    command = [
        sys.executable,
        "-m",
        "transformers.cli.transformers",
        "serve",
        folder,
        "--port",
        str(port),
        "--device",
        "cpu",
    ]
    log = (tmp_path / "log").open("wb")
    with subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HF_HUB_OFFLINE": "1"}) as server:
        try:
            deadline = time.monotonic() + 240
            while True:
                try:
                    httpx.get(f"http://localhost:{port}/health", timeout=5)
                    break
                except httpx.HTTPError:
                    assert server.poll() is None, (tmp_path / "log").read_text()
                    assert time.monotonic() < deadline
                    time.sleep(0.5)
            endpoint = Endpoint("far", f"http://localhost:{port}/v1", folder)
            far = Engine(engine.sources, engine.paths, remotes=Remotes([endpoint]))
            sampling = SamplingConfig(temperature=0.0, repetition_penalty=1.0, max_new_tokens=40)
            reply = far.reply(Lane("far", sampling=sampling), Conversation(CAPITAL))
            assert reply.wait(240)
            assert reply.error is None
            assert "Paris" in reply.text
            assert reply.finish_reason == "stop"
        finally:
            server.kill()
