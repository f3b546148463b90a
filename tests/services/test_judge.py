"""A judge in the background: both orders, votes apart from people's, cancel, busy engines, unclear verdicts."""

import threading

import pytest

from playground.core.templates import Rendered
from playground.errors import Busy, PlaygroundError
from playground.services import judge
from playground.services.engine import Lane, Reply
from playground.services.judge import Judging, report
from playground.services.votes import Battle, Side, Votes

ASKED = [{"role": "user", "content": "Name a fruit."}]
LANE = Lane("judge-model", label="The judge")


class Engine:
    """Answers each prompt with what `say` gives for (first answer, second answer)."""

    def __init__(self, say):
        self.say, self.refusals, self.asked, self.hold, self.replied = say, [], [], threading.Event(), []
        self.visitors = set()
        self.hold.set()

    def prompt(self, lane, conversation):
        if "too long" in conversation.messages[-1]["content"]:
            raise PlaygroundError("the prompt is too long")

    def replies(self, asked, stop=(), visitor=""):
        self.visitors.add(visitor)
        if self.refusals:
            raise self.refusals.pop()
        made = []
        for lane, conversation in asked:
            self.prompt(lane, conversation)
            self.asked.append((lane, conversation))
            reply = Reply(lane, Rendered("", [], "none"))
            if self.hold.is_set():
                text = conversation.messages[-1]["content"]
                first, second = (text.split(f"Assistant {name}'s Answer]\n")[1].split("\n[")[0] for name in "AB")
                reply.add(1, self.say(first, second))
                reply.finish("stop")
            made.append(reply)
        self.replied += made
        return made


def better(first, second):
    """Prefers the reply that is later in the alphabet."""
    return "tie [[C]]" if first == second else f"I say [[{'A' if first > second else 'B'}]]"


@pytest.fixture
def votes(tmp_path):
    return Votes(tmp_path / "votes.sqlite3")


def battle(votes, left, right, choice="", session=""):
    sides = (Side(name, {}, ASKED) for name in ("base", "tuned"))
    ticket = votes.start(Battle("blind", *sides, session))
    votes.finish(ticket, left, right)
    if choice:
        votes.vote(ticket, choice)
    return ticket


def judged(votes, say=better, **more):
    engine = Engine(say)
    judging = Judging(engine, votes, pause=lambda seconds: None)
    judging.start(LANE, **more)
    judging.wait(10)
    return judging, engine


def test_every_battle_is_judged_in_both_orders_and_kept_apart(votes):
    battle(votes, "apple", "pear", "right")
    battle(votes, "plum", "fig", "right")
    battle(votes, "kiwi", "kiwi")
    judging, engine = judged(votes)
    assert (judging.now.state, judging.now.voted, judging.now.failures) == ("done", 3, {})
    assert (judging.now.progress.done, judging.now.progress.total) == (3, 3)
    assert len(engine.asked) == 6
    assert engine.visitors == {"judge"}  # it takes turns with the visitors
    assert {lane.sampling.temperature for lane, _ in engine.asked} == {0.0}
    rows = votes.rows()
    assert sorted(row["winner"] for row in rows if row["judge"] == "The judge") == ["left", "right", "tie"]
    assert votes.counts()[0].total == 2  # people's votes are what they were
    (one,) = report(rows)
    assert (one.votes, one.bias.pairs, one.bias.consistent) == (3, 3, 3)
    assert (one.agreement.battles, one.agreement.rate) == (2, 0.5)
    with pytest.raises(PlaygroundError, match="no battle here that The judge has not judged"):
        judging.start(LANE)


def test_both_conversations_of_several_turns_are_judged(votes):
    ticket = battle(votes, "apple", "pear")
    more = {"role": "user", "content": "And a colour?"}
    sent = tuple([*ASKED, {"role": "assistant", "content": reply}, more] for reply in ("apple", "pear"))
    votes.go_on(ticket, sent, "red", "green")
    judging, engine = judged(votes)
    asked = engine.asked[0][1].messages[-1]["content"]
    assert asked.startswith(
        "[User Question]\nName a fruit.\n\n[The Start of Assistant A's Answer]\n### Assistant:\napple"
    )
    assert "### User:\nAnd a colour?\n\n### Assistant:\nred\n[The End of Assistant A's Answer]" in asked
    assert judging.now.voted == 1


def test_a_battle_that_goes_on_while_it_is_judged_is_left_for_later(votes):
    ticket = battle(votes, "apple", "pear")
    sent = tuple([*ASKED, {"role": "assistant", "content": reply}, *ASKED] for reply in ("apple", "pear"))

    def say(first, second):
        if first == "apple":
            votes.go_on(ticket, sent, "red", "green")
        return better(first, second)

    judging, _ = judged(votes, say)
    assert judging.now.failures == {"it went on for another turn, or was deleted, while it was judged": 1}
    assert votes.rows() == []


def test_a_judge_that_always_takes_the_first_is_found_out(votes):
    battle(votes, "apple", "pear", "left")
    battle(votes, "fig", "plum", "left")
    judged(votes, lambda first, second: "[[A]]")
    (one,) = report(votes.rows())
    assert (one.bias.share("first"), one.bias.consistent) == (1.0, 0)
    assert [row["winner"] for row in votes.rows() if row["judge"]] == ["tie", "tie"]


def test_what_cannot_be_judged_is_counted_by_reason_and_can_be_tried_again(votes):
    battle(votes, "too long", "pear")
    battle(votes, "mute", "pear")
    battle(votes, "apple", "pear")
    judging, _ = judged(votes, lambda first, second: "hm" if first == "mute" else better(first, second))
    assert judging.now.voted == 1
    assert sorted(judging.now.failures.items()) == [
        ("it gave no clear verdict ([[A]], [[B]] or [[C]]) in one of the two orders", 1),
        ("the prompt is too long", 1),
    ]
    assert len(votes.battles(judge="The judge")) == 2


def test_a_busy_engine_is_waited_for(votes):
    battle(votes, "apple", "pear")
    engine = Engine(better)
    engine.refusals = [Busy("too many wait")] * 3
    judging = Judging(engine, votes, pause=lambda seconds: None)
    judging.start(LANE)
    judging.wait(10)
    assert (judging.now.voted, engine.refusals) == (1, [])


def test_what_is_refused_for_good_is_not_asked_again(votes, monkeypatch):
    monkeypatch.setattr(judge, "BUSY_FOR", 1e9)
    battle(votes, "apple", "pear")
    battle(votes, "fig", "plum")
    engine = Engine(better)
    engine.refusals = [PlaygroundError("the adapter is gone")]
    judging = Judging(engine, votes, pause=lambda seconds: None)
    judging.start(LANE)
    judging.wait(10)
    assert (judging.now.state, judging.now.voted, judging.now.failures) == ("done", 1, {"the adapter is gone": 1})
    assert len(votes.battles(judge="The judge")) == 1


def test_cancel_keeps_what_was_judged_and_stops_the_replies(votes):
    for number in range(6):
        battle(votes, "apple", f"pear {number}")
    engine, asked = Engine(better), threading.Event()
    judging = Judging(engine, votes, pause=lambda seconds: asked.set() or threading.Event().wait(0.01))
    engine.hold.clear()
    judging.start(LANE)
    assert asked.wait(10)
    with pytest.raises(PlaygroundError, match="The judge is judging"):
        judging.start(LANE)
    judging.cancel()
    judging.wait(10)
    assert judging.now.state == "cancelled"
    assert [reply.cancelled for reply in engine.replied] == [True] * 8
    assert votes.rows() == []


def test_a_judge_works_on_one_session_and_as_many_as_asked(votes):
    battle(votes, "apple", "pear", session="Monday")
    battle(votes, "apple", "plum", session="Tuesday")
    battle(votes, "apple", "quince", "left", session="Tuesday")
    judging, _ = judged(votes, session="Tuesday", limit=1)
    assert judging.now.progress.total == 1
    assert votes.battles("Tuesday", "The judge")[0]["right_reply"] == "plum"  # what people voted on came first
    with pytest.raises(PlaygroundError, match="1 to 2,000 battles at a time, got 0"):
        judging.start(LANE, limit=0)


def test_votes_that_cannot_be_stored_end_the_work_with_the_reason(votes):
    battle(votes, "apple", "pear")

    def say(first, second):
        votes.path.write_text("no database " * 100)
        return better(first, second)

    judging, _ = judged(votes, say)
    assert judging.now.state == "failed"
    assert "cannot be used" in judging.now.error
