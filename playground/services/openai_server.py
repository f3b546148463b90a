"""Our lanes for any OpenAI client: `/v1/models` and `/v1/chat/completions` on top of the engine.

    app.include_router(router(engine, "smollm2-135m-instruct", key=None))

A model is asked for by its catalog name, by the name of an adapter (on its own base), or as a lane is written
(`MODEL[+ADAPTER][@TEMPLATE]`). Requests decode in the same running batch as the page's. Where a key is set, each
request must bring it; a browser page of another origin cannot ask, since only `application/json` is read.
"""

import asyncio
import hmac
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, StreamingResponse

from playground.core import openai_api
from playground.core.openai_api import Chunks
from playground.core.tool_formats import Parsed, Reading
from playground.errors import Busy, PlaygroundError, TooLong
from playground.services.engine import Engine, Lane, Reply

MAX_BODY = 4 * 2**20  # bytes
TICK = 0.03  # seconds between two looks at a reply that grows


def router(engine: Engine, default: str, key: str | None = None) -> APIRouter:
    """The routes. `default` is the model of an adapter that does not say what it is for."""
    routes = APIRouter(prefix="/v1")

    def refused(request: Request) -> JSONResponse | None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if key and not hmac.compare_digest(given.encode(), key.encode()):
            return _error("this server asks for its key: Authorization: Bearer …", 401, code="invalid_api_key")
        return None

    @routes.get("/models")
    def models(request: Request):
        return refused(request) or {"object": "list", "data": [_model(name) for name in names(engine)]}

    @routes.get("/models/{name:path}")
    def model(request: Request, name: str):
        if (answer := refused(request)) is not None:
            return answer
        if name not in names(engine):
            return _error(_unknown(engine, name), 404, code="model_not_found")
        return _model(name)

    @routes.post("/chat/completions")
    async def chat_completions(request: Request):
        if (answer := refused(request)) is not None:
            return answer
        try:
            asked = openai_api.read(await _json_body(request))
        except PlaygroundError as error:
            return _error(str(error), 400)
        try:
            lane = await asyncio.to_thread(lane_called, engine, asked.model, default)
        except PlaygroundError as error:
            return _error(str(error), 404, code="model_not_found")
        try:
            lane = replace(lane, sampling=asked.sampling)
            answer = await asyncio.to_thread(Answer, engine, lane, asked, _caller(request))
        except TooLong as error:  # the client decides what to leave out
            return _error(str(error), 400, code="context_length_exceeded")
        except Busy as error:  # OpenAI's clients ask again by themselves
            answer = _error(str(error), 429, "rate_limit_error", "rate_limit_exceeded")
            answer.headers["Retry-After"] = "2"
            return answer
        except PlaygroundError as error:
            return _error(str(error), 400)
        if asked.stream:
            return StreamingResponse(answer.events(), media_type="text/event-stream")
        return await answer.whole(request.is_disconnected)

    return routes


def names(engine: Engine) -> list[str]:
    """What can be asked for: the models that are here, then the adapters whose base is."""
    here = [entry.name for entry in engine.sources.entries() if engine.sources.find(entry.name)]
    return [*here, *(info.name for info in engine.adapters() if info.base_model in here)]


def lane_called(engine: Engine, name: str, default: str) -> Lane:
    """The lane that a request's `model` means. Raises PlaygroundError with the names there are."""
    adapters = {info.name: info for info in engine.adapters()}
    if name in adapters:
        return Lane(adapters[name].base_model or default, adapter=name, label=name)
    lane = Lane.parse(name)
    known = {entry.name for entry in engine.sources.entries()}
    if lane.model not in known or engine.sources.find(lane.model) is None:
        raise PlaygroundError(_unknown(engine, name))
    return lane


class Answer:
    """One request on its way through the engine. Raises PlaygroundError where it cannot start."""

    def __init__(self, engine: Engine, lane: Lane, asked: openai_api.Request, caller: str = ""):
        self.id, self.created = uuid.uuid4().hex[:24], int(time.time())
        self.asked, self.tools = asked, asked.conversation.tools
        self.format = engine.tool_format(lane) if self.tools else None
        if self.tools and self.format is None:
            raise PlaygroundError(f"the template of {asked.model} writes no tool calls; ask without tools")
        stops = [*asked.stop, *(self.format.STOPS if self.format else ())]
        self.reply: Reply = engine.reply(lane, asked.conversation, stops, caller)

    async def whole(self, gone: Callable) -> dict | JSONResponse:
        """The whole answer; a client that has gone ends its reply."""
        try:
            while not self.reply.done:
                if await gone():
                    break
                await asyncio.sleep(TICK)
        finally:
            self._end()
        if self.reply.error:
            return _error(self.reply.error, 500, "server_error")
        parsed = self._parsed(self.reply.text)
        return openai_api.completion(
            self.id, self.created, self.asked.model, parsed, self.reply.finish_reason, self._usage()
        )

    async def events(self) -> AsyncIterator[str]:
        """The answer as server-sent events, `[DONE]` at the end; an error in the middle is an event too."""
        chunks = Chunks(self.id, self.created, self.asked.model)
        reading = Reading(self.format, tools=self.tools) if self.format else None
        seen = 0
        try:
            yield _event(chunks.first())
            while not self.reply.done:
                await asyncio.sleep(TICK)
                text = self.reply.text
                if len(text) == seen:
                    continue
                grown = chunks.spans(reading.feed(text[seen:])) if reading else chunks.grown(text)
                seen = len(text)
                for chunk in grown:
                    yield _event(chunk)
            if self.reply.error:
                yield _event(openai_api.error(self.reply.error, "server_error"))
            else:
                for chunk in chunks.last(self._parsed(self.reply.text), self.reply.finish_reason):
                    yield _event(chunk)
                if self.asked.with_usage:
                    yield _event(chunks.counts(self._usage()))
            yield "data: [DONE]\n\n"
        finally:
            self._end()

    def _parsed(self, text: str) -> Parsed:
        return self.format.parse(text, tools=self.tools) if self.format else Parsed(text)

    def _usage(self) -> dict:
        return openai_api.usage(len(self.reply.prompt.ids), len(self.reply.ids))

    def _end(self) -> None:
        if not self.reply.done:
            self.reply.cancel()


def _caller(request: Request) -> str:
    """Whose turn it is when many wait: one machine's programs are one visitor. Kept nowhere but in the queue."""
    return f"client {request.client.host if request.client else ''}"


async def _json_body(request: Request):
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise PlaygroundError("send the request as application/json")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise PlaygroundError(f"the request has more than {MAX_BODY // 2**20} MB")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise PlaygroundError(f"the request is not valid JSON: {error}") from None


def _model(name: str) -> dict:
    return {"id": name, "object": "model", "created": 0, "owned_by": "playground"}


def _unknown(engine: Engine, name: str) -> str:
    return f"there is no model {name!r} here; the models are {', '.join(names(engine)) or 'none yet'}"


def _error(message: str, status: int, kind: str = "invalid_request_error", code: str | None = None) -> JSONResponse:
    return JSONResponse(openai_api.error(message, kind, code), status_code=status)


def _event(value: dict) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
