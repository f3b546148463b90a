"""The guided loop's panel: what is shown at each stage, what each button does, and what a fresh page finds."""

import json
from types import SimpleNamespace

import gradio as gr
import pytest

from playground.errors import PlaygroundError
from playground.services.loops import AFRESH, Loops
from playground.services.scorecards import Scorecards
from playground.ui.common import Services
from playground.ui.tools import loop as panel
from playground.ui.tools import loop_view
from tests.services.test_loops import Answers, Jobs
from tests.ui.test_scorecard import finish

EVIL = "<img src=x onerror=alert(1)>"
FORM = ("tool-calling", panel.DEMO, "", [], 40, 12, 0)


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory):
    from tests.ui.conftest import make_services

    services = make_services(tmp_path_factory.mktemp("loop"))
    with gr.Blocks():
        return panel.build(services, Scorecards(services.paths, services.engine))


@pytest.fixture
def view(laid_out):
    return laid_out


@pytest.fixture
def engine():
    return Answers()


@pytest.fixture
def services(services, engine):
    jobs = Jobs(services.paths)
    jobs.position = lambda run: 0
    jobs.stop = lambda run, keep=True: jobs.end(run, "stopped")
    known = {name: getattr(services, name) for name in Services.__dataclass_fields__}
    return SimpleNamespace(**{**known, "engine": engine, "jobs": jobs})


@pytest.fixture
def loops(services, engine):
    return Loops(
        services.paths, services.datasets, services.jobs, Scorecards(services.paths, engine, engine.step), engine
    )


@pytest.fixture
def act(services, loops, view):
    return lambda do, id, *values: panel.act(services, loops, view, do, id, *values)


@pytest.fixture
def begun(services, loops, view, engine):
    """A loop whose rows were made; the update of the page."""
    *_, update = panel.begin(services, loops, view, *FORM)
    engine.asked_for = loops.held_out(loops.all()[0])
    return update


def shown(update, view, *names):
    return tuple(update[getattr(view, name)].get("visible") for name in names)


def test_without_a_loop_there_is_the_form(services, loops, view):
    update = panel.show(services, loops, view, panel.NEW)
    assert shown(update, view, "new", "going", "delete") == (True, False, False)
    assert '<li class="now" aria-current="step"><i>1</i>Rows</li>' in update[view.steps]
    gone = panel.show(services, loops, view, "20260101-000000-abcd")
    assert "it may have been deleted" in gone[view.making]["value"]


def test_making_rows_shows_progress_and_then_what_was_proven(services, loops, view):
    updates = list(panel.begin(services, loops, view, *FORM))
    assert "Making rows: 40 of 40 rows" in updates[0][view.making]["value"]
    last = updates[-1]
    assert shown(last, view, "new", "going", "training", "way", "score") == (False, True, True, False, False)
    assert "40 rows (" in last[view.rows]
    assert "each fits its schema" in last[view.rows]
    assert "12 held-out questions" in last[view.rows]
    assert '<li class="done"><i>✓</i>Rows</li>' in last[view.steps]


def test_training_then_scoring_then_the_weakest_error_then_another_round(services, loops, view, engine, begun, act):
    id = begun[view.chooser]["value"]
    update = act(panel.train, id, AFRESH, 0)
    assert shown(update, view, "training", "stop", "score") == (False, True, False)
    assert "Waiting for its turn" in update[view.run]
    services.jobs.end(loops.run(loops.load(id)))
    update = panel.tick(services, loops, view, id, update[view.seen], None)
    assert shown(update, view, "training", "stop", "score", "improving") == (False, False, True, False)
    engine.right = lambda conversation: conversation.messages[-1]["content"][-1] != "?"
    act(panel.score, id)
    finish(loops.cards)
    update = panel.opened(services, loops, view)  # another page
    update = dict(zip(view.all, update, strict=True))
    assert shown(update, view, "score", "cancel", "improving") == (False, False, True)
    assert "Weakest: No call" in update[view.weakest]
    assert "<details>" in update[view.weakest]
    assert 'scope="row">before</th>' in update[view.compared]
    weak = update[view.weak]["value"]
    offered = panel.looked_at(loops, id, weak, 10)
    assert ("10 new rows were made" in offered, offered.count("<li>")) == (True, 5)
    update = act(panel.add, id, weak, 10)
    assert shown(update, view, "training", "way", "improving") == (True, True, False)
    assert "Round 2, added:" in update[view.rows]
    assert loops.load(id).now.rows == 50


def test_nothing_is_sent_while_nothing_changes(services, loops, view, begun):
    id = begun[view.chooser]["value"]
    assert list(panel.tick(services, loops, view, id, begun[view.seen], None)) == [view.seen]


def test_a_run_can_be_stopped_and_a_score_cancelled(services, loops, view, engine, begun, act):
    id = begun[view.chooser]["value"]
    act(panel.train, id, AFRESH, 0)
    update = act(lambda loops, id: panel.stop_run(services, loops, id), id)
    assert shown(update, view, "training", "stop") == (True, False)
    assert "Stopped" in update[view.run]
    act(panel.delete, id)
    assert panel.show(services, loops, view, id)[view.chooser]["value"] == panel.NEW


@pytest.mark.parametrize(
    "change, message",
    [
        ({"which": panel.OWN, "text": "{"}, "the list of schemas is not valid JSON"),
        ({"which": panel.OWN, "text": "[]"}, "no tool that questions can be made for"),
        (
            {"which": panel.OWN, "text": json.dumps(panel.EXAMPLE), "languages": []},
            "languages are en, de, fr, es, got none",
        ),
        ({"count": None}, "rows must be a whole number, got nothing"),
        ({"questions": 1.5}, "questions must be a whole number, got 1.5"),
        ({"count": 0}, "rows must be between 1 and"),
    ],
)
def test_a_form_that_cannot_work_is_answered_in_a_sentence(services, loops, view, change, message):
    form = dict(zip(("recipe", "which", "text", "languages", "count", "questions", "seed"), FORM, strict=True))
    with pytest.raises(PlaygroundError, match=message):
        list(panel.begin(services, loops, view, **{**form, **change}))
    with pytest.raises(PlaygroundError, match="choose a loop first"):
        panel.act(services, loops, view, panel.score, "")


def test_own_tools_come_with_their_example(services, loops, view):
    *_, update = panel.begin(
        services, loops, view, "json-calls", panel.OWN, json.dumps(panel.EXAMPLE), ["en", "de"], 40, 12, 0
    )
    (loop,) = loops.all()
    assert {tool["function"]["name"] for tool in loop.kit.tools} == {"book_table", "convert_length"}
    titles = {value: title for title, value in update[view.chooser]["choices"]}
    assert "your tools" in titles[loop.id]


def test_what_a_visitor_wrote_is_shown_as_text(services, loops, view):
    mixed = [*panel.EXAMPLE, {"name": EVIL, "parameters": {}}]
    *_, update = panel.begin(services, loops, view, "tool-calling", panel.OWN, json.dumps(mixed), ["en"], 20, 5, 0)
    assert "Left out" in update[view.making]["value"]
    assert EVIL not in "".join(value for value in update.values() if isinstance(value, str))
    assert loop_view.compared([]) == ""
