"""Another model as a tool, with a fake engine."""

from types import SimpleNamespace

import pytest

from playground.core.tools import ToolError
from playground.errors import PlaygroundError
from playground.services import ask_model
from playground.services.engine import Lane


class Reply:
    def __init__(self, words, reason="stop", error=None):
        self.words, self.reason, self.error, self.finish_reason = words, reason, error, None

    def __iter__(self):
        for word in self.words:
            yield SimpleNamespace(text=word)
        self.finish_reason = self.reason

    def cancel(self):
        self.finish_reason = "cancelled"


class Engine:
    def __init__(self, reply):
        self.answer, self.asked = reply, []

    def reply(self, lane, conversation):
        self.asked.append((lane, conversation.messages))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def tool(reply, seconds=5.0):
    engine = Engine(reply)
    return ask_model.make(engine, Lane("m"), "Other", seconds), engine


def test_a_question_goes_out_and_its_answer_comes_back():
    asked, engine = tool(Reply([" Par", "is."]))
    assert asked.run(question="Capital of France?") == {"model": "Other", "answer": "Paris."}
    assert engine.asked == [(Lane("m"), [{"role": "user", "content": "Capital of France?"}])]


def test_what_the_other_model_thought_is_no_part_of_its_answer():
    asked, _ = tool(Reply(["<think>Lyon?", "</think>\n\n", "Paris."]))
    assert asked.run(question="Capital of France?")["answer"] == "Paris."


def test_an_answer_at_its_limits_says_so():
    assert tool(Reply(["a"], "length"))[0].run(question="q")["cut"] == "at its token limit"
    reply = Reply(["a", "b", "c"])
    assert tool(reply, seconds=-1)[0].run(question="q") == {"model": "Other", "answer": "a", "cut": "after -1 seconds"}
    assert reply.finish_reason == "cancelled"


@pytest.mark.parametrize(
    "reply, question, reason",
    [
        (Reply([], "error", "out of memory"), "q", "Other failed: out of memory"),
        (PlaygroundError("no such model"), "q", "Other cannot be asked: no such model"),
        (Reply(["a"]), "  ", "is empty"),
        (Reply(["a"]), "x" * 4001, "4,001 characters"),
    ],
)
def test_what_cannot_be_answered_is_an_error_of_the_tool(reply, question, reason):
    with pytest.raises(ToolError, match=reason):
        tool(reply)[0].run(question=question)
