"""The scorecard panel's handlers, with a fake engine: what is asked, what is shown, in every state."""

import json
from types import SimpleNamespace

import gradio as gr
import pytest

from playground.config import Paths
from playground.core import synthesis, templates
from playground.core.scorecard import FAILED
from playground.errors import PlaygroundError
from playground.services.scorecards import Scorecards
from playground.ui import scorecard as panel
from playground.ui import tools_tab
from playground.ui.scorecard import ALL, NOT_VALID
from tests.services.test_scorecards import CALL, Engine, Reply
from tests.ui.conftest import make_services

MODEL = "smollm2-135m-instruct"
EVIL = '<img src=x onerror="alert(1)">'
LEARNED = SimpleNamespace(name="learned", base_model=MODEL, template=templates.load("chatml-tools"))
LANES = (MODEL, "", "", MODEL, "learned", "", MODEL, "", "", MODEL, "", "")


class FakeEngine(Engine):
    def adapters(self):
        return [LEARNED]


@pytest.fixture
def engine():
    return FakeEngine()


def around(engine, services):
    """What the panel takes of the services, with this engine."""
    names = ("paths", "sources", "templates", "datasets")
    return SimpleNamespace(engine=engine, model=MODEL, host="", **{name: getattr(services, name) for name in names})


@pytest.fixture
def services(services, engine):
    return around(engine, services)


@pytest.fixture
def cards(services, engine):
    return Scorecards(services.paths, engine, pause=engine.step)


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory):
    """The page, and the view that its handlers write to: laid out once, because they only name its parts."""
    made = []
    with pytest.MonkeyPatch.context() as patch, gr.Blocks() as page:
        patch.setattr(panel, "View", lambda *parts, make=panel.View: made.append(make(*parts)) or made[0])
        panel.build(around(FakeEngine(), make_services(tmp_path_factory.mktemp("page"))))
    return page, made[0]


@pytest.fixture
def view(laid_out):
    return laid_out[1]


@pytest.fixture
def start(services, cards, view):
    """Press Start and wait for the end."""

    def start(source="demo", files=None, count=4, seed=0, formats=("auto",), modes=("free",), wanted=2, lanes=LANES):
        update = panel.start(services, cards, view, source, files, count, seed, formats, modes, wanted, *lanes)
        finish(cards)
        return update

    return start


def finish(cards):
    import threading

    for thread in threading.enumerate():
        if thread.name == "scorecard":
            thread.join(10)
    assert cards.running is None


def test_the_panel_begins_empty_with_the_lane_before_and_after(services, cards, view):
    assert panel.first_lanes(services) == [(MODEL, ""), (MODEL, "learned")]
    update = panel.show(cards, view, None)
    assert "No scorecard yet" in update[view.table]
    assert (update[view.start]["visible"], update[view.cancel]["visible"]) == (True, False)
    assert (update[view.delete]["visible"], update[view.rows]) == (False, "")


def test_start_asks_the_lanes_and_shows_the_table(cards, view, start):
    id = start()[view.chooser]["value"]
    update = panel.show(cards, view, id)
    assert "Done · 8 of 8 replies" in update[view.status]
    table = update[view.table]
    assert "SmolLM2 135M Instruct · adapter learned" in table
    assert "4 (100%)<small>51% to 100%</small>" not in table  # some of the four need no tool
    assert table.count('<tr class="valid">') == 1
    assert "Valid, by kind of question" in table
    assert (update[view.start]["visible"], update[view.cancel]["visible"]) == (True, False)
    assert update[view.delete]["visible"]


def test_formats_and_modes_make_columns(cards, start, engine):
    start(formats=("auto", "react"), wanted=1, lanes=LANES[3:])
    (entry,) = cards.entries()
    assert [column.format for column in entry.columns] == ["hermes", "react"]
    start(modes=("free", "valid"), wanted=1, lanes=LANES[3:])
    assert [column.mode for column in cards.entries()[0].columns] == ["free", "valid"]


def test_a_running_scorecard_shows_progress_to_everyone_and_can_be_cancelled(services, cards, view, engine):
    engine.answer = lambda lane, conversation: Reply("", forever=len(engine.asked) >= 1)
    update = panel.start(services, cards, view, "demo", None, 8, 0, ["auto"], ["free"], 1, *LANES)
    id = update[view.chooser]["value"]
    assert (update[view.start]["visible"], update[view.cancel]["visible"]) == (False, True)
    while not cards.load(id).rows:
        pass
    for now in (panel.show(cards, view, id), dict(zip(view.all, panel.opened(services, cards, view), strict=False))):
        assert "Asking · 1 of 8 replies" in now[view.status]
        assert "left" in now[view.status]
        assert "width:12%" in now[view.status]
    assert "Another scorecard is running" in panel.show(cards, view, None)[view.status]
    assert panel.cancel(cards, view, id)[view.cancel]["value"] == "Cancelling …"
    finish(cards)
    assert "Cancelled; what was answered until then is counted · 1 of 8" in panel.show(cards, view, id)[view.status]


def test_a_failed_one_says_why(cards, view, start, engine):
    engine.answer = lambda lane, conversation: Reply("", EVIL)
    update = panel.show(cards, view, start()[view.chooser]["value"])
    assert "Failed; " in update[view.status]
    assert "&lt;img src=x" in update[view.status]
    assert EVIL not in update[view.status]


def test_ticks_change_nothing_when_nothing_is_new(cards, view, start):
    id = start()[view.chooser]["value"]
    seen = panel.show(cards, view, id)[view.seen]
    assert list(panel.tick(cards, view, id, seen, ALL, -1, 1)) == [view.seen]
    start(seed=1)  # another visitor's
    update = panel.tick(cards, view, id, seen, ALL, -1, 1)
    assert len(update[view.chooser]["choices"]) == 2
    assert "value" not in update[view.chooser]


def test_ticks_leave_opened_rows_alone_while_it_runs(services, cards, view, engine):
    engine.answer = lambda lane, conversation: Reply("", forever=True)
    update = panel.start(services, cards, view, "demo", None, 2, 0, ["auto"], ["free"], 1, *LANES)
    id = update[view.chooser]["value"]
    assert view.rows not in panel.tick(cards, view, id, None, ALL, -1, 1)
    cards.cancel(id)
    finish(cards)
    assert view.rows in panel.tick(cards, view, id, None, ALL, -1, 1)


def test_a_row_opens_raw_parsed_and_expected(cards, view, start, engine):
    engine.answer = lambda lane, conversation: CALL + EVIL
    id = start(source="no-tool", count=2, wanted=1)[view.chooser]["value"]
    rows = panel.show(cards, view, id)[view.rows]
    assert rows.count("<details>") == 2
    assert "<b>call where none was due</b>" in rows
    assert "<dt>Parsed</dt><dd><pre>{&quot;name&quot;: &quot;calculator&quot;" in rows
    assert "<dt>Expected</dt><dd><pre>(no call)</pre>" in rows
    assert "No call was due, calculator was called." in rows
    assert "&lt;tool_call&gt;" in rows
    assert EVIL not in rows


def test_rows_by_outcome_and_lane(cards, view, start):
    id = start(source="calculator")[view.chooser]["value"]
    card = cards.load(id)
    for word, lane, count in ((ALL, -1, 8), (ALL, 0, 4), ("no_call", -1, 4), ("no_call", 1, 0), (FAILED, -1, 0)):
        rows = panel.narrow(cards, view, id, word, lane, 1)[view.rows]
        assert rows.count("<details>") == count
        assert ("No reply has this outcome" in rows) == (count == 0)
    wrong = sum(row.word != "valid" for row in card.rows)
    assert panel.narrow(cards, view, id, NOT_VALID, -1, 1)[view.rows].count("<details>") == wrong
    assert (f"all that are not valid ({wrong})", NOT_VALID) in panel.word_choices(card)


def test_many_rows_have_pages(cards, view, start, monkeypatch):
    monkeypatch.setattr(panel, "PAGE", 3)
    monkeypatch.setattr("playground.ui.scorecard_view.PAGE", 3)
    id = start()[view.chooser]["value"]
    page = panel.show(cards, view, id, number=9)[view.page]
    assert (page["visible"], page["maximum"], page["value"], page["label"]) == (True, 3, 3, "Page, of 3")
    assert [panel.turn(cards, id, ALL, -1, number).count("<details>") for number in (1, 3)] == [3, 2]


def test_before_and_after(cards, view, start):
    id = start(source="calculator")[view.chooser]["value"]
    shown = panel.compared(cards, f"{id}:0", f"{id}:1")
    assert "4 questions in common." in shown
    assert '<td class="down">-4</td>' not in shown  # fewer missing calls is better
    assert '<td class="up">-4</td>' in shown
    assert "no call → value error" in shown
    assert panel.compared(cards, f"{id}:0", f"{id}:0").count("<details>") == 0
    start(source="weather")
    other = cards.entries()[0].id if cards.entries()[0].id != id else cards.entries()[1].id
    assert "no question in common" in panel.compared(cards, f"{id}:0", f"{other}:0")
    assert "Choose two" in panel.compared(cards, f"{id}:0", None)
    for gone in (f"{id}:7", "20250101-000000-abcdef:0", "nonsense"):
        assert 'class="failed"' in panel.compared(cards, f"{id}:0", gone)


def test_delete_shows_the_next(cards, view, start):
    first = start()[view.chooser]["value"]
    second = start(seed=1)[view.chooser]["value"]
    update = panel.delete(cards, view, second)
    assert update[view.chooser]["value"] == first
    assert [entry.id for entry in cards.entries()] == [first]
    assert "may have been deleted" in panel.show(cards, view, second)[view.status]
    assert panel.delete(cards, view, first)[view.chooser]["value"] is None
    assert "No scorecard yet" in panel.show(cards, view, None)[view.table]


def test_another_tab_opens_a_stored_one(cards, view, start):
    start(count=2)
    start(count=1, wanted=1)
    old = cards.entries()[-1].id
    with gr.Blocks():
        unfolded = gr.Accordion()
    update = tools_tab.open_scorecard(cards, view, unfolded, old)
    assert update[unfolded]["open"]
    assert update[view.chooser]["value"] == old
    assert "Done · 4 of 4 replies" in update[view.status]
    cards.delete(old)
    with pytest.raises(PlaygroundError, match="scorecard"):
        tools_tab.open_scorecard(cards, view, unfolded, old)


def test_a_file_of_ones_own_questions(start, cards, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"question": EVIL, "expected": [], "kind": EVIL}))
    start(source="file", files=[str(path)])
    (entry,) = cards.entries()
    assert (entry.name, entry.total) == ("mine.jsonl, seed 0, 1 question", 2)
    assert EVIL not in panel.tables(cards.load(entry.id))


@pytest.mark.parametrize(
    "given, message",
    [
        ({"source": "file"}, "add a file of questions first"),
        ({"count": None}, "how many questions must be a whole number, got nothing"),
        ({"seed": None}, "the seed must be a whole number, got nothing"),
        ({"count": 0}, "must be between 1 and"),
        ({"lanes": ("",) * 12}, "lane 1 has no model"),
        ({"lanes": (MODEL, "gone", "") * 4}, "no adapter called 'gone'"),
    ],
)
def test_what_cannot_be_started_is_said(start, cards, given, message):
    with pytest.raises(PlaygroundError, match=message):
        start(**given)
    assert cards.entries() == []


def test_whatever_may_raise_goes_through_the_queue(laid_out):
    page, _ = laid_out
    handlers = [(event, getattr(event.fn, "func", event.fn), event.fn) for event in page.fns.values()]
    raising = [event for event, *functions in handlers if any(hasattr(f, "may_raise") for f in functions)]
    assert len(raising) == 2
    assert all(event.queue for event in raising)


def test_a_stored_folder_is_shared_by_pages(services, cards, view, start):
    id = start()[view.chooser]["value"]
    other = Scorecards(Paths(services.paths.home))
    assert [value for _, value in panel.choices(other)] == [id]
    assert len(panel.column_choices(other)) == 2


def test_a_data_set_of_the_store_is_a_question_set(services):
    name = services.datasets.add_rows(synthesis.tool_calls(12, 5, "test"), "calls.jsonl").name
    assert (f"Data set {name}", panel.DATA + name) in panel.source_choices(services)
    title, questions = panel.asked_questions(services, panel.DATA + name, None, 5, 0)
    assert (title, len(questions)) == (f"{name}, seed 0", 5)
    with pytest.raises(PlaygroundError, match="there is no data set 'gone'"):
        panel.asked_questions(services, panel.DATA + "gone", None, 5, 0)
