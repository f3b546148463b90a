"""The guided loop's steps with stand-ins for trainer and engine: what each needs, what it leaves, how it goes on."""

import json
import time
from types import SimpleNamespace

import pytest

from playground.config import Paths
from playground.core import rounds
from playground.core.rounds import Kit
from playground.core.tool_formats import Call, hermes
from playground.errors import PlaygroundError
from playground.services import loops, runs
from playground.services.datasets import Datasets
from playground.services.loops import AFRESH, IMPROVE, ON, SCORE, SCORING, TRAIN, TRAINING, Loops
from playground.services.runs import Events
from playground.services.scorecards import Scorecards
from tests.core.test_generator import TOOLS
from tests.services.test_scorecards import Engine, Reply


class Jobs:
    """Runs are created, and end when `end` is called."""

    def __init__(self, paths):
        self.paths, self.started = paths, []

    def start(self, config):
        self.started.append(config)
        return runs.create(config, self.paths)

    def end(self, run, state="finished"):
        if state == "finished":
            folder = run.folder / "adapter"
            folder.mkdir()
            for name in ("adapter_model.safetensors", "adapter_config.json"):
                (folder / name).write_text("{}")
        Events(run.folder).state(state)


class Answers(Engine):
    """An engine whose adapters call a tool for everything, right or wrong as `right` says."""

    right = staticmethod(lambda conversation: True)

    def __init__(self):
        super().__init__(self.said)

    def adapter(self, name):
        return SimpleNamespace(name=name)

    def said(self, lane, conversation):
        if not lane.adapter:
            return "I do not know."
        due = next((q.expected for q in self.asked_for if q.messages == conversation.messages), [])
        calls = [Call(call["name"], call["arguments"]) for call in due] if self.right(conversation) else []
        return hermes.write(calls) if calls else "Hello."


@pytest.fixture
def engine():
    return Answers()


@pytest.fixture
def made(tmp_path, engine):
    paths = Paths(tmp_path)
    return Loops(paths, Datasets(paths), Jobs(paths), Scorecards(paths, engine, pause=engine.step), engine)


def create(made, kit=None, n=40, questions=12, **more):
    *_, step = made.create(kit or Kit(), n, questions, **more)
    made.engine.asked_for = made.held_out(step.result)
    return step.result


def train(made, loop, way=AFRESH):
    loop = made.train(loop.id, way)
    made.jobs.end(made.run(loop))
    return loop


def score(made, loop):
    for _ in made.score_here(loop.id):
        pass
    return made.load(loop.id)


def test_the_first_step_leaves_rows_questions_and_a_data_set_that_every_tab_sees(made):
    steps = list(made.create(Kit(), 600, 12))
    loop = steps[-1].result
    assert [step.stage for step in steps][-1] == "made"
    assert (loop.now.rows, len(made.rows(loop)), len(made.held_out(loop))) == (600, 600, 12)
    assert loop.now.data in made.datasets.names()
    data = made.datasets.load(loop.now.data)
    assert (len(data.conversations), data.bad) == (600, 0)
    assert made.stage(loop) == TRAIN
    assert made.load(loop.id) == loop
    assert made.all() == [loop]


def test_a_step_at_a_time_each_from_what_stands_in_the_folders(made, tmp_path):
    loop = create(made)
    loop = made.train(loop.id)
    assert made.stage(loop) == TRAINING
    (config,) = made.jobs.started
    assert (config.data, config.recipe, config.continue_from) == (loop.now.data, "", "")
    assert (config.template, config.name) == ("chatml-tools", f"{loop.name}-round-1")
    for step in (made.train, made.score):
        with pytest.raises(PlaygroundError, match="cannot be done now: the run .*-round-1 is not done yet"):
            step(loop.id)
    made.jobs.end(made.run(loop))
    assert made.stage(loop) == SCORE
    made.engine.right = lambda conversation: "weather" not in str(conversation.messages[-1]["content"])
    loop = score(made, loop)
    assert made.stage(loop) == IMPROVE
    # another app, on the same folder
    again = Loops(Paths(tmp_path), made.datasets, made.jobs, Scorecards(Paths(tmp_path)), made.engine)
    assert again.stage(again.load(loop.id)) == IMPROVE
    before, first = again.compared(loop)
    assert (before[0], first[0]) == ("before", "round 1")
    assert before[1].count < first[1].count
    assert first[3].gained > 0


def test_rows_for_the_weakest_error_make_a_second_round_that_is_compared_with_the_first(made):
    loop = create(made, n=60, questions=40)
    loop = train(made, loop)
    made.engine.right = lambda conversation: conversation.messages[-1]["content"][-1] != "?"
    loop = score(made, loop)
    weak = made.weaknesses(loop)[0]
    assert weak.word == "no_call"
    shown = made.more(loop, weak, 20)
    second = made.add(loop.id, weak, 20)
    assert made.stage(second) == TRAIN
    assert (second.now.number, second.now.rows, second.now.added) == (2, 80, 20)
    assert second.now.reason == weak.sentence()
    assert made.rows(second)[60:] == shown.rows, "what is added is what was shown"
    assert {row.kind for row in shown.rows} == {weak.kind}
    asked = {rounds.question_key(loop.kit, question) for question in made.held_out(loop)}
    assert not asked & {rounds.key(loop.kit, row) for row in made.rows(second)}
    second = train(made, second)
    made.engine.right = lambda conversation: True
    second = score(made, second)
    table = made.compared(second)
    assert [row[0] for row in table] == ["before", "round 1", "round 2"]
    assert (table[2][1].count, table[2][3].gained) == (40, 40 - table[1][1].count)
    assert made.weaknesses(second) == []


def test_a_round_can_go_on_from_the_last_adapter_with_old_rows_beside_the_new(made):
    loop = create(made, n=60, questions=12)
    with pytest.raises(PlaygroundError, match="no adapter of an earlier round"):
        made.train(loop.id, ON)
    loop = train(made, loop)
    made.engine.right = lambda conversation: False
    loop = score(made, loop)
    loop = made.add(loop.id, made.weaknesses(loop)[0], 10)
    loop = train(made, loop, ON)
    config = made.jobs.started[-1]
    assert config.continue_from == loop.rounds[0].run
    assert config.learning_rate == pytest.approx(made.jobs.started[0].learning_rate / 2)
    assert len(made.datasets.load(config.data).conversations) == 20


def test_pairs_are_asked_without_tools_and_read_as_json(made):
    loop = create(made, Kit("json-calls"), n=40, questions=8)
    loop = train(made, loop)

    def said(lane, conversation):
        due = next(q.expected for q in made.engine.asked_for if q.messages == conversation.messages)
        return json.dumps(due) if lane.adapter else "It is sunny."

    made.engine.answer = said
    loop = score(made, loop)
    card = made.card(loop)
    assert {row.word for row in card.of(1)} == {"valid"}
    assert {row.word for row in card.of(0)} == {"no_call", "valid"}
    assert [column.format for column in card.columns] == ["json", "json"]
    assert all(message["role"] == "user" for _, asked, _ in made.engine.asked for message in asked.messages)


def test_own_tools_and_languages_are_kept(made):
    loop = create(made, Kit(tools=tuple(TOOLS), languages=("en", "de")), n=60, questions=12)
    again = made.load(loop.id)
    assert (again, again.kit.languages) == (loop, ("en", "de"))
    made.train(loop.id)
    assert made.jobs.started[0].probe == made.held_out(loop)[0].messages[-1]["content"]


def test_a_run_that_failed_or_was_deleted_is_trained_again(made):
    loop = made.train(create(made).id)
    made.jobs.end(made.run(loop), "failed")
    assert made.stage(loop) == TRAIN
    loop = made.train(loop.id)
    assert made.stage(loop) == TRAINING
    made.jobs.end(made.run(loop))
    renamed = runs.rename(made.run(loop), "mine")
    assert (made.stage(loop), made.run(loop).name) == (SCORE, "mine")
    runs.remove(renamed)
    assert made.stage(loop) == TRAIN


def test_a_scorecard_that_was_not_done_is_asked_again(made):
    loop = train(made, create(made))
    made.engine.answer = lambda lane, conversation: Reply("", forever=True)
    loop = made.score(loop.id)
    assert made.stage(loop) == SCORING
    with pytest.raises(PlaygroundError, match="is being scored"):
        made.train(loop.id)
    made.cards.cancel(loop.now.card)
    deadline = time.monotonic() + 10
    while made.stage(loop) == SCORING and time.monotonic() < deadline:
        time.sleep(0.01)
    assert made.stage(loop) == SCORE
    assert made.weaknesses(loop) == []


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"n": 0}, "rows must be between 1 and 20,000"),
        ({"questions": 0}, "held-out questions must be between 1 and 500, got 0"),
        ({"seed": -1}, "the seed must be 0 or more, got -1"),
        ({"kit": Kit(tools=({"name": 3},))}, "no tool that questions can be made for"),
        ({"kit": Kit(tools=tuple(TOOLS), languages=("xx",))}, "languages are en, de, fr, es, got 'xx'"),
    ],
)
def test_what_cannot_be_begun_leaves_nothing(made, settings, message):
    with pytest.raises(PlaygroundError, match=message):
        create(made, **settings)
    assert made.all() == []


def test_loops_that_are_gone_or_broken(made):
    for id in ("../x", "20260101-000000-abcd", ""):
        with pytest.raises(PlaygroundError, match="there is no loop"):
            made.load(id)
    loop = create(made)
    with pytest.raises(PlaygroundError, match="a round is trained afresh or on, got 'x'"):
        made.train(loop.id, "x")
    (made.paths.loops / loop.id / "loop.json").write_text('{"version": 2}')
    with pytest.raises(PlaygroundError, match="written by a newer app"):
        made.load(loop.id)
    assert made.all() == []
    made.delete(loop.id)
    assert list(made.paths.loops.iterdir()) == []
    assert loops.ID.fullmatch(loop.id)
