"""Scorecards with a fake engine: who is asked, in what order, what is kept when it ends early, and the store."""

import json
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from playground.config import Paths
from playground.core import scorecard, templates
from playground.core import tools as toolbox
from playground.core.question_sets import Question, built_in
from playground.core.scorecard import FAILED
from playground.core.tool_formats import Call, hermes
from playground.errors import Busy, PlaygroundError
from playground.services import scorecards
from playground.services.engine import Lane
from playground.services.remote import Remotes
from playground.services.scorecards import Scorecards, ask, entrant, entrants

SUM = {"name": "calculator", "arguments": {"expression": "23 * 47"}}
CALL = hermes.write([Call("calculator", SUM["arguments"])])
BASE, TUNED = Lane("m", label="base"), Lane("m", "learned", label="tuned")


class Reply:
    def __init__(self, text, error=None, forever=False):
        self.text, self.error, self.ids, self.forever = text, error, [1, 2], forever
        self.finish_reason, self.cancelled = None, False

    @property
    def done(self):
        return self.finish_reason is not None

    def cancel(self):
        self.cancelled = True


class Engine:
    """Answers by `answer(lane, conversation)`, a text or a Reply, when `step` is called."""

    def __init__(self, answer=lambda lane, conversation: CALL if lane.adapter else "1081"):
        self.answer, self.replies_made, self.asked, self.most, self.refusals = answer, [], [], 0, []
        self.visitors = set()
        self.own, self.too_long, self.remotes = "chatml", (), Remotes()

    def adapter(self, name):
        if name != "learned":
            raise PlaygroundError(f"there is no adapter called {name!r}")

    def tokenizer(self, model, adapter=None):
        return None

    def template(self, lane):
        own = "chatml-tools" if lane.adapter else self.own
        return templates.load(lane.template if lane.template not in ("", "model") else own)

    def prompt(self, lane, conversation):
        if any(word in conversation.messages[-1]["content"] for word in self.too_long):
            raise PlaygroundError("the prompt is too long")

    def replies(self, asked, stop=(), visitor=""):
        self.visitors.add(visitor)
        if self.refusals:
            raise self.refusals.pop(0)
        ((lane, conversation),) = asked
        self.prompt(lane, conversation)
        answer = self.answer(lane, conversation)
        reply = answer if isinstance(answer, Reply) else Reply(answer)
        self.replies_made.append(reply)
        self.asked.append((lane, conversation, stop))
        self.most = max(self.most, sum(not one.done for one in self.replies_made))
        return [reply]

    def step(self, seconds=0):
        for reply in self.replies_made:
            if not reply.forever:
                reply.finish_reason = reply.finish_reason or ("error" if reply.error else "stop")


def questions(count=6):
    messages = [[{"role": "user", "content": f"Question {number}"}] for number in range(count)]
    return [Question(str(n), "calculator", one, toolbox.schemas(), [SUM]) for n, one in enumerate(messages)]


def run(engine, lanes=(BASE, TUNED), asked=None, **options):
    found = questions() if asked is None else asked
    return list(ask(engine, entrants(engine, lanes), found, pause=engine.step, **options))


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
def cards(tmp_path, engine):
    return Scorecards(Paths(tmp_path), engine, pause=engine.step)


# --- asking ---


def test_every_lane_is_asked_every_question_greedily(engine):
    steps = run(engine)
    assert (steps[0].done, steps[-1].done, steps[-1].total) == (0, 12, 12)
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert engine.visitors == {"scorecard"}  # it takes turns with the visitors
    rows = steps[-1].result
    assert {(row.column, row.question) for row in rows} == {(c, q) for c in (0, 1) for q in range(6)}
    assert {(row.column, row.word) for row in rows} == {(0, "no_call"), (1, "valid")}
    row = next(row for row in rows if row.column == 1)
    assert (row.raw, row.calls, row.ended, row.tokens) == (CALL, (SUM,), "stop", 2)
    lane, conversation, stop = engine.asked[0]
    assert (lane.sampling.temperature, lane.sampling.repetition_penalty, stop) == (0, 1, hermes.STOPS)
    assert conversation.tools == toolbox.schemas()
    # question by question, so that a cancelled scorecard has the same ones of each lane
    said = [conversation.messages[-1]["content"] for _, conversation, _ in engine.asked]
    assert said == [f"Question {n // 2}" for n in range(12)]


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_at_most_a_batch_is_written_at_a_time(engine, batch):
    assert run(engine, batch=batch)[-1].done == 12
    assert engine.most == batch


def test_what_cannot_be_judged_is_told_apart(engine):
    engine.too_long = ("Question 1",)
    engine.answer = lambda lane, conversation: Reply("half", "out of memory") if lane.adapter else CALL
    rows = run(engine, asked=questions(2))[-1].result
    told = {(row.column, row.question): (row.word, row.detail) for row in rows}
    assert told[0, 0] == ("valid", "")
    assert told[1, 0] == (FAILED, "out of memory")
    assert told[0, 1] == told[1, 1] == (FAILED, "the prompt is too long")


def test_it_ends_when_nothing_can_be_answered(engine):
    engine.answer = lambda lane, conversation: Reply("", "the model could not be loaded")
    with pytest.raises(PlaygroundError, match="no question could be answered: the model could not be loaded"):
        run(engine, asked=questions(100))
    assert len(engine.asked) < 20


def test_a_full_engine_is_asked_again(engine, monkeypatch):
    engine.refusals = [Busy("64 requests are waiting for m")] * 3
    assert {row.word for row in run(engine)[-1].result} == {"no_call", "valid"}
    assert engine.refusals == []
    monkeypatch.setattr(scorecards, "BUSY_FOR", 0)
    engine.refusals = [Busy("64 requests are waiting for m")]
    assert [row.detail for row in run(engine)[-1].result if row.word == FAILED] == ["64 requests are waiting for m"]


def test_what_cannot_be_asked_is_not_asked_again(engine, monkeypatch):
    monkeypatch.setattr(scorecards, "BUSY_FOR", 1e9)
    engine.refusals = [PlaygroundError("no grammar")]
    rows = run(engine)[-1].result
    assert len(rows) == 12
    assert [(row.question, row.detail) for row in rows if row.word == FAILED] == [(0, "no grammar")]


def test_cancel_keeps_what_is_done_and_stops_what_is_written(engine):
    done = []
    engine.answer = lambda lane, conversation: Reply("", forever=len(engine.asked) >= 2)
    cancelled = threading.Event()
    for step in ask(engine, entrants(engine, [BASE]), questions(8), 4, cancelled.is_set, engine.step):
        done = step.result
        if step.done == 2:
            cancelled.set()
    assert len(done) == 2
    assert [reply.cancelled for reply in engine.replies_made] == [False, False, True, True]


# --- who is asked ---


def test_a_template_that_cannot_speak_of_tools_gives_way(engine):
    plain, tuned = entrants(engine, [BASE, TUNED])
    assert (plain.lane.template, plain.column.template, plain.column.format) == ("chatml-tools",) * 2 + ("hermes",)
    assert (tuned.lane.template, tuned.column.title, tuned.announced) == ("", "tuned", False)
    with pytest.raises(PlaygroundError, match="no call format is known for the template alpaca of base"):
        entrant(engine, replace(BASE, template="alpaca"))


def test_a_format_by_name_is_told_to_the_model(engine):
    one, two = entrants(engine, [TUNED], ["auto", "react"])
    assert [e.column.title for e in (one, two)] == ["tuned", "tuned, react"]
    assert (one.announced, two.announced, entrant(engine, TUNED, "hermes").announced) == (False, True, False)
    list(ask(engine, [two], questions(1), pause=engine.step))
    _, conversation, _ = engine.asked[0]
    assert (conversation.tools, conversation.messages[0]["role"]) == ([], "system")
    assert "calculator" in conversation.messages[0]["content"]


def test_a_lane_may_be_constrained(engine):
    free, valid = entrants(engine, [TUNED], modes=["free", "valid"])
    assert free.lane.constraint is None
    assert (valid.lane.constraint.mode, valid.lane.constraint.format) == ("valid", "hermes")
    assert (free.column.mode, valid.column.mode) == ("free", "valid")
    assert valid.column.title == "tuned, constrained: calls fit a schema"
    with pytest.raises(PlaygroundError, match="cannot be held to it"):
        entrant(engine, TUNED, "react", "valid")


@pytest.mark.parametrize(
    "lanes, formats, message",
    [
        ([], ["auto"], "needs one lane"),
        ([BASE, BASE], ["auto"], "two lanes are the same, base"),
        ([BASE, TUNED] * 2, ["auto", "react", "json", "xlam"], "12 columns at most, these choices make 16"),
        ([replace(BASE, adapter="gone")], ["auto"], "no adapter called 'gone'"),
        ([BASE], ["toml"], "no tool-call format named 'toml'"),
    ],
)
def test_lanes_that_cannot_be_asked(engine, lanes, formats, message):
    with pytest.raises(PlaygroundError, match=message):
        entrants(engine, lanes, formats)


# --- the store ---


def work(cards, engine, name="test", asked=None):
    *_, last = cards.run(name, entrants(engine, [BASE, TUNED]), questions() if asked is None else asked)
    return last.result


def test_a_scorecard_is_stored_whole_and_read_back(cards, engine, tmp_path):
    card = work(cards, engine, asked=built_in("every-kind", 10))
    assert (card.state, len(card.rows)) == ("done", 20)
    assert [file.name for file in (tmp_path / "scorecards").iterdir()] == [f"{card.id}.json"]
    again = Scorecards(Paths(tmp_path))
    assert again.load(card.id) == card
    (entry,) = again.entries()
    assert (entry.id, entry.name, entry.state, entry.done, entry.total) == (
        card.id,
        "test, 10 questions",
        "done",
        20,
        20,
    )
    assert [len(again.of_adapter(name)) for name in ("learned", "other")] == [1, 0]
    again.delete(card.id)
    assert again.entries() == []
    with pytest.raises(PlaygroundError, match="may have been deleted"):
        cards.load(card.id)


def test_what_was_done_is_stored_however_it_ends(cards, engine):
    steps = cards.run("left", entrants(engine, [BASE]), questions())
    for step in steps:
        if step.done:
            break
    steps.close()  # as when Ctrl-C ends the command
    (entry,) = cards.entries()
    assert (entry.state, entry.done) == ("cancelled", 6)
    engine.answer = lambda lane, conversation: Reply("", "out of memory")
    with pytest.raises(PlaygroundError, match="out of memory"):
        work(cards, engine)
    assert cards.load(cards.entries()[0].id).state == "failed"
    assert "out of memory" in cards.load(cards.entries()[0].id).error
    assert cards.running is None


def test_one_at_a_time_in_the_background_until_cancelled(cards, engine):
    engine.answer = lambda lane, conversation: Reply("", forever=True)
    id = cards.start("first", entrants(engine, [BASE]), questions())
    assert cards.load(id).state == "running"
    with pytest.raises(PlaygroundError, match=r"a scorecard is running \(first, 6 questions, 0 of 6 replies\)"):
        cards.start("second", entrants(engine, [BASE]), questions())
    with pytest.raises(PlaygroundError, match="cancel it first"):
        cards.delete(id)
    cards.cancel("another")
    assert cards.running is not None
    cards.cancel(id)
    for thread in threading.enumerate():
        if thread.name == "scorecard":
            thread.join(10)
    assert (cards.running, cards.load(id).state) == (None, "cancelled")


def test_it_is_saved_on_the_way_and_one_that_was_killed_is_unfinished(cards, engine, tmp_path, monkeypatch):
    monkeypatch.setattr(scorecards, "SAVE_EVERY", 0)
    steps = cards.run("killed", entrants(engine, [BASE, TUNED]), questions())
    next(step for step in steps if step.done)
    (entry,) = Scorecards(Paths(tmp_path)).entries()  # another process, which finds what a kill would leave
    assert (entry.state, entry.done > 0) == ("unfinished", True)
    assert cards.entries()[0].state == "running"


def test_what_is_no_scorecard_is_left_out(cards, tmp_path, engine):
    folder = tmp_path / "scorecards"
    folder.mkdir()
    (folder / "20250101-000000-abcdef.json").write_text("{")
    (folder / "20250101-000001-abcdef.json").write_text(json.dumps({"version": 1}))
    (folder / "notes.json").write_text("{}")
    assert cards.entries() == []
    for id in ("../votes", "", "20250101-000000-abcdef"):
        with pytest.raises(PlaygroundError):
            cards.load(id)
    for asked, batch in (([], 8), (questions(1), 0), (questions(1), 17)):
        with pytest.raises(PlaygroundError):
            cards.start("bad", [SimpleNamespace()], asked, batch)


def test_a_disk_that_takes_nothing_is_told(cards, engine, tmp_path):
    (tmp_path / "scorecards").write_text("a file where the folder would be")
    with pytest.raises(PlaygroundError):
        cards.start("test", entrants(engine, [BASE]), questions())


def test_before_and_after_of_a_stored_card(cards, engine):
    card = work(cards, engine)
    found = scorecard.compare(card, 0, card, 1)
    assert (found.gained, found.lost, len(found.changed)) == (6, 0, 6)
