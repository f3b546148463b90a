"""Another model as a tool: a question goes to a lane of the engine, its answer comes back."""

import time

from playground.core.messages import Conversation
from playground.core.streaming import without_thinking
from playground.core.tools import Tool, ToolError
from playground.errors import PlaygroundError
from playground.services.engine import Engine, Lane

NAME = "ask_model"
SECONDS = 60.0
LONGEST = 4000  # characters of a question


def make(engine: Engine, lane: Lane, title: str, seconds: float = SECONDS) -> Tool:
    """`lane.sampling` bounds the answer's tokens; after `seconds` the answer ends where it is."""

    def run(question: str) -> dict:
        if not question.strip():
            raise ToolError("The question to the other model is empty.")
        if len(question) > LONGEST:
            raise ToolError(f"The question has {len(question):,} characters, at most {LONGEST:,} are sent on.")
        try:
            reply = engine.reply(lane, Conversation([{"role": "user", "content": question}]))
        except PlaygroundError as error:
            raise ToolError(f"{title} cannot be asked: {error}") from None
        return _answer(reply, title, seconds)

    parameters = {"type": "object", "properties": {"question": {"type": "string"}}, "required": ["question"]}
    return Tool(NAME, f"Ask another language model, {title}, a question in words", parameters, run)


def _answer(reply, title: str, seconds: float) -> dict:
    deadline, late, pieces = time.monotonic() + seconds, False, []
    try:
        for chunk in reply:
            pieces.append(chunk.text)
            late = time.monotonic() > deadline
            if late:
                break
    finally:
        if reply.finish_reason is None:
            reply.cancel()
    answer = {"model": title, "answer": without_thinking("".join(pieces)).strip()}
    if reply.finish_reason == "error":
        raise ToolError(f"{title} failed: {reply.error}")
    if late or reply.finish_reason == "length":
        answer["cut"] = f"after {seconds:g} seconds" if late else "at its token limit"
    return answer
