"""The blind battle's handlers, with a fake engine: who meets, what is hidden, what is stored, one vote per battle."""

import re
import sqlite3

import gradio as gr
import pytest

from playground.core.battles import prompt_sets
from playground.errors import Busy, PlaygroundError
from playground.services.remote import Endpoint
from playground.ui import lanes
from playground.ui.arena import battle, session
from playground.ui.arena.battle import BUILT_IN, OWN, SHARED, Duel
from tests.ui.conftest import make_services

MODEL = "smollm2-135m-instruct"
EVIL = '<img src=x onerror="alert(1)"><script>alert(2)</script>'


@pytest.fixture(autouse=True)
def _a_piece_per_tick(monkeypatch, services):
    monkeypatch.setattr(battle.time, "sleep", lambda seconds: services.engine.step())


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    with gr.Blocks():
        return battle.build(make_services(tmp_path_factory.mktemp("battle")))


def ask(services, view, duel, *texts, source=OWN, category="any", prompt="Name a fruit."):
    """All updates of one battle, the later ones over the earlier ones."""
    for text in texts:
        services.engine.enqueue(*text)
    shown = {}
    for update in battle.ask(services, view, duel, source, category, prompt):
        shown |= update
    return shown


def said(chat):
    return [message["content"] for message in chat]


def test_two_hidden_lanes_answer_and_the_vote_shows_their_names(services, view):
    services.votes.open_session("Monday")
    duel = Duel()
    shown = ask(services, view, duel, ["ap", "ple"], ["pear"], category="writing")
    assert [said(shown[chat]) for chat in view.chats] == [["Name a fruit.", "apple"], ["Name a fruit.", "pear"]]
    assert all(shown[button]["interactive"] for button in (*view.buttons, view.skip))
    assert not any("SmolLM2" in str(value) for value in shown.values())
    assert all("tokens" not in shown[line] for line in view.lines)
    assert services.votes.rows() == []
    shown = battle.vote(services, view, "right", duel)
    (row,) = services.votes.rows()
    assert (row["winner"], row["kind"], row["session"], row["category"]) == ("right", "blind", "Monday", "writing")
    left, right = (lane.label for lane in duel.sides)
    assert (row["left"], row["right"]) == (left, right)
    assert f"Left was <b>{left}</b>" in shown[view.reveal]
    assert f"Right was <b>{right}</b>" in shown[view.reveal]
    assert not any(shown[button]["interactive"] for button in (*view.buttons, view.skip))
    assert 'data-votes="1"' in shown[view.line]


def test_a_double_click_is_one_vote(services, view):
    duel = Duel()
    ask(services, view, duel, ["a"], ["b"])
    battle.vote(services, view, "left", duel)
    again = battle.vote(services, view, "right", duel)
    assert list(again) == [view.reveal]
    assert [row["winner"] for row in services.votes.rows()] == ["left"]


def test_a_skipped_battle_shows_the_names_and_takes_no_vote(services, view):
    duel = Duel()
    ask(services, view, duel, ["a"], ["b"])
    ticket = duel.tickets[0]
    shown = battle.skip(services, view, duel)
    assert "You skipped this one" in shown[view.reveal]
    battle.vote(services, view, "left", duel)
    assert services.votes.rows() == []
    with pytest.raises(PlaygroundError, match="have been shown"):
        services.votes.vote(ticket, "left")


def test_a_battle_that_was_revealed_elsewhere_is_closed_with_the_reason(services, view):
    duel = Duel()
    ask(services, view, duel, ["a"], ["b"])
    services.votes.reveal(duel.tickets[0])
    shown = battle.vote(services, view, "left", duel)
    assert "names of this battle have been shown" in shown[view.reveal]
    assert shown[view.ask]["visible"] is True


def test_a_vote_that_the_database_could_not_take_can_be_given_again(services, view):
    services.votes.wait = 0.1
    duel = Duel()
    ask(services, view, duel, ["a"], ["b"])
    other = sqlite3.connect(services.votes.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(PlaygroundError, match="database is locked"):
        battle.vote(services, view, "left", duel)
    other.execute("ROLLBACK")
    battle.vote(services, view, "left", duel)
    assert [row["winner"] for row in services.votes.rows()] == ["left"]


def test_there_is_nothing_to_vote_on_before_a_battle(services, view):
    with pytest.raises(PlaygroundError, match="start a battle first"):
        battle.vote(services, view, "left", Duel())


def test_a_reply_that_gives_a_name_away_is_flagged_and_stored(services, view):
    duel = Duel()
    ask(services, view, duel, ["I am SmolLM2 <b>"], ["pear"])
    shown = battle.vote(services, view, "left", duel)
    assert "(it gave away: smollm2)" in shown[view.reveal]
    (row,) = services.votes.export()
    assert (row["left_leaks"], row["right_leaks"]) == (["smollm2"], [])
    assert services.votes.rows()[0]["leaked"] == 1


@pytest.fixture
def elsewhere(services):
    """A pool of this machine's model and of a server's, whose name on the page says nothing about its model."""
    services.engine.remotes.add(Endpoint("big", "http://h/v1", "meta-llama/Llama-3.1-8B-Instruct", "sk-very-secret"))
    services.votes.set_pool([lanes.lane_key(MODEL), lanes.lane_key("big")])


def test_a_lane_elsewhere_gives_itself_away_by_its_model_there(services, view, elsewhere):
    duel = Duel()
    ask(services, view, duel, ["I am LLaMA 3.1 by Meta AI"], ["pear"])
    shown = battle.vote(services, view, "left", duel)
    assert "(it gave away: llama, meta ai)" in shown[view.reveal]


def test_a_server_that_refuses_a_follow_up_does_not_name_its_model(services, view, elsewhere):
    duel = Duel()
    ask(services, view, duel, ["apple"], ["pear"])
    services.engine.enqueue("fine")
    services.engine.enqueue(error="big stopped with: meta-llama/Llama-3.1-8B-Instruct is overloaded")
    shown = ask(services, view, duel, prompt="And a colour?")
    assert "without it: one of the lanes stopped with: one of the lanes is overloaded" in shown[view.reveal]


def test_the_key_of_a_lane_elsewhere_is_stored_nowhere(services, view, elsewhere):
    duel = Duel()
    ask(services, view, duel, ["apple"], ["pear"])
    battle.vote(services, view, "left", duel)
    (row,) = services.votes.export()
    assert "big" in (row["left"], row["right"])
    kept = [file for file in services.paths.home.rglob("*") if file.is_file()]
    assert kept
    assert not [file for file in kept if b"sk-very-secret" in file.read_bytes()]


def test_what_a_model_or_visitor_writes_is_never_obeyed(services, view):
    duel = Duel()
    shown = ask(services, view, duel, [EVIL], ["fine"], prompt=EVIL)
    assert all("<img" not in text for chat in view.chats for text in said(shown[chat]))
    services.engine.enqueue(error=EVIL)
    shown = ask(services, view, Duel(), ["x"])
    assert "<img" not in shown[view.reveal]


def test_a_lane_that_fails_ends_the_battle_without_a_vote(services, view):
    duel = Duel()
    services.engine.enqueue("fine")
    services.engine.enqueue(error="adapter is gone")
    shown = ask(services, view, duel)
    assert "no vote on this battle: adapter is gone" in shown[view.reveal]
    assert shown[view.ask]["visible"] is True
    assert (duel.tickets, services.votes.battles()) == ([], [])


def test_stop_keeps_what_was_written_and_the_vote(services, view):
    duel = Duel()
    for text in (["a", "b", "c"], ["x", "y", "z"]):
        services.engine.enqueue(*text)
    rounds = battle.ask(services, view, duel, OWN, "any", "Hi")
    next(rounds)
    battle.stop(duel)
    shown = {}
    for update in rounds:
        shown |= update
    assert "stopped" in shown[view.lines[0]]
    battle.vote(services, view, "tie", duel)
    assert services.votes.export()[0]["left_reply"] == "a"


def test_a_browser_that_leaves_stops_both_lanes(services, view):
    for text in (["a", "b"], ["x", "y"]):
        services.engine.enqueue(*text)
    rounds = battle.ask(services, view, Duel(), OWN, "any", "Hi")
    next(rounds)
    rounds.close()
    assert [reply.finish_reason for reply in services.engine.asked] == ["cancelled", "cancelled"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"prompt": " "}, "write a question first"),
        ({"prompt": "x" * 20_001}, "at most 20,000 characters, this one has 20,001"),
        ({"source": SHARED}, "no shared list yet"),
    ],
)
def test_what_cannot_be_asked_is_refused(services, view, given, sentence):
    duel = Duel()
    with pytest.raises(PlaygroundError, match=sentence):
        ask(services, view, duel, **given)
    assert (duel, services.engine.asked) == (Duel(), [])


def test_the_next_battle_waits_for_the_vote(services, view):
    duel = Duel()
    ask(services, view, duel, ["a"], ["b"])
    for source, prompt in ((OWN, " "), (BUILT_IN, "")):
        with pytest.raises(PlaygroundError, match="waits for your vote; vote, skip it, or write a follow-up"):
            ask(services, view, duel, source=source, prompt=prompt)
    assert len(services.engine.asked) == 2


# --- more than one turn ---


def test_both_lanes_go_on_before_the_vote_which_is_on_the_conversation(services, view):
    duel = Duel()
    shown = ask(services, view, duel, ["apple"], ["pear"], source=BUILT_IN, category="maths")
    question = duel.sent[0][0]["content"]
    assert (shown[view.prompt]["interactive"], shown[view.prompt]["value"]) == (True, "")
    assert shown[view.ask] == gr.update(visible=True, value="Ask both")
    for number in (2, 3):
        shown = ask(services, view, duel, [f"a{number}"], [f"b{number}"], source=BUILT_IN, prompt=f"turn {number}")
    asked = [[m["content"] for m in reply.conversation.messages] for reply in services.engine.asked[-2:]]
    assert asked == [
        [question, "apple", "turn 2", "a2", "turn 3"],
        [question, "pear", "turn 2", "b2", "turn 3"],
    ]
    assert len({reply.lane.label for reply in services.engine.asked}) == 2  # the same two all along
    assert [said(shown[chat])[-1] for chat in view.chats] == ["a3", "b3"]
    assert not any("SmolLM2" in str(value) for value in shown.values())
    assert services.votes.rows() == []
    shown = battle.vote(services, view, "left", duel)
    assert "It is on all 3 turns" in shown[view.reveal]
    battle.vote(services, view, "right", duel)
    (row,) = services.votes.export()
    assert (row["winner"], row["category"], row["left_reply"], row["right_reply"]) == ("left", "maths", "a3", "b3")
    assert [m["content"] for m in row["right_messages"]] == asked[1]
    shown = ask(services, view, duel, ["x"], ["y"])
    assert said(shown[view.chats[0]]) == ["Name a fruit.", "x"]


def test_a_lane_that_wrote_nothing_goes_on_with_the_other(services, view):
    duel = Duel()
    ask(services, view, duel, [], ["pear"])
    ask(services, view, duel, ["red"], ["green"], prompt="And a colour?")
    sent = [[m["content"] for m in reply.conversation.messages] for reply in services.engine.asked[-2:]]
    assert sent == [["And a colour?"], ["Name a fruit.", "pear", "And a colour?"]]
    battle.vote(services, view, "left", duel)
    (row,) = services.votes.export()
    assert (row["left_reply"], [m["content"] for m in row["left_messages"]]) == (
        "red",
        ["Name a fruit.", "And a colour?"],
    )


def test_what_did_not_fit_is_said_without_figures_and_with_them_after_the_vote(services, view):
    duel = Duel()
    ask(services, view, duel, ["apple"], ["pear"])
    services.engine.room = {duel.sides[1].template: 1}
    shown = ask(services, view, duel, ["red"], ["green"], prompt="And a colour?")
    assert [m["content"] for m in services.engine.asked[-1].conversation.messages] == ["And a colour?"]
    assert "The conversation did not fit: its first turn was left out." in shown[view.lines[1]]
    assert "left out" not in shown[view.lines[0]]
    assert not any("200 tokens" in str(value) for value in shown.values())
    shown = battle.vote(services, view, "left", duel)
    sentence = (
        "The conversation did not fit into 200 tokens, of which the reply may take 16: its first turn (40 tokens) "
        "was left out."
    )
    assert shown[view.reveal].count(sentence) == 1
    (row,) = services.votes.export()
    assert (row["left_lane"].get("left_out"), row["right_lane"]["left_out"]) == (None, sentence)
    assert len(row["right_messages"]) == 3


def test_a_name_given_away_in_an_earlier_turn_is_flagged(services, view):
    duel = Duel()
    ask(services, view, duel, ["I am SmolLM2"], ["pear"])
    ask(services, view, duel, ["red"], ["green"], prompt="And a colour?")
    battle.vote(services, view, "left", duel)
    assert services.votes.export()[0]["left_leaks"] == ["smollm2"]


def test_there_is_no_vote_while_a_follow_up_is_answered(services, view):
    duel = Duel()
    ask(services, view, duel, ["apple"], ["pear"])
    for text in (["a", "b"], ["x", "y"]):
        services.engine.enqueue(*text)
    rounds = battle.ask(services, view, duel, OWN, "any", "And a colour?")
    next(rounds)
    assert list(battle.vote(services, view, "left", duel)) == [view.reveal]
    with pytest.raises(PlaygroundError, match="still answering"):
        next(battle.ask(services, view, duel, OWN, "any", "again"))
    rounds.close()  # the browser has gone: what was there before can be voted on
    assert [reply.finish_reason for reply in services.engine.asked[2:]] == ["cancelled", "cancelled"]
    battle.vote(services, view, "left", duel)
    (row,) = services.votes.export()
    assert (row["left_reply"], len(row["left_messages"])) == ("apple", 1)


def test_a_follow_up_that_fails_leaves_the_vote_and_the_names_hidden(services, view):
    duel = Duel()
    ask(services, view, duel, ["apple"], ["pear"])
    names = [lane.label for lane in duel.sides]
    services.engine.enqueue("fine")
    services.engine.enqueue(error=f"the prompt is too long for {names[1]} <b>")
    shown = ask(services, view, duel, prompt="And a colour?")
    assert "vote is without it: the prompt is too long for one of the lanes &lt;b&gt;" in shown[view.reveal]
    assert [said(shown[chat])[-1] for chat in view.chats] == ["apple", "pear"]
    assert (shown[view.prompt]["value"], shown[view.prompt]["interactive"]) == ("And a colour?", True)
    services.engine.refusals = {lane.template: f"{lane.label} reads 2,048 at most" for lane in duel.sides}
    shown = ask(services, view, duel, prompt="And a colour?")
    assert "one of the lanes reads 2,048 at most" in shown[view.reveal]
    assert all(shown[button]["interactive"] for button in (*view.buttons, view.skip))
    battle.vote(services, view, "tie", duel)
    assert services.votes.export()[0]["left_reply"] == "apple"


def test_a_follow_up_has_the_bounds_of_a_question_and_keeps_its_field(services, view):
    duel = Duel()
    assert battle.set_source(duel, BUILT_IN)["interactive"] is False
    ask(services, view, duel, ["apple"], ["pear"])
    assert battle.set_source(duel, BUILT_IN) == gr.skip()
    with pytest.raises(PlaygroundError, match="at most 20,000 characters, this one has 20,001"):
        ask(services, view, duel, prompt="x" * 20_001)
    battle.skip(services, view, duel)
    assert services.votes.rows() == []


def test_questions_come_from_the_category_or_the_class_without_repeats(services, view):
    services.votes.set_prompts(["one", "two"])
    duel = Duel()
    for _ in range(2):
        ask(services, view, duel, ["a"], ["b"], source=SHARED)
        battle.skip(services, view, duel)
    assert sorted(duel.asked) == ["one", "two"]
    ask(services, view, duel, ["a"], ["b"], source=BUILT_IN, category="maths")
    assert duel.asked[-1] in prompt_sets()["maths"]
    battle.vote(services, view, "tie", duel)
    assert services.votes.rows()[0]["category"] == "maths"
    ask(services, view, duel, ["a"], ["b"], source=BUILT_IN)
    battle.vote(services, view, "tie", duel)
    assert duel.asked[-1] in prompt_sets()[services.votes.rows()[1]["category"]]


def test_the_keys_1_to_4_press_the_buttons_in_their_order(view):
    pressed = re.findall(r'(\d): "(battle-\w+)"', battle.KEYS)
    assert pressed == [(str(number), button.elem_id) for number, button in enumerate(view.buttons, 1)]


# --- the pool ---


def test_the_pool_begins_with_base_instruct_and_tuned(services, adapter):
    services.engine.infos = [adapter("tool-calling")]
    services.sources.here.add("smollm2-135m")
    titles = [lanes.read_lane(services, key).label for key in session.pool_keys(services)]
    assert titles == ["SmolLM2 135M", "SmolLM2 135M Instruct", "SmolLM2 135M Instruct · adapter tool-calling"]


def test_the_teacher_chooses_who_may_meet_and_pairs_stay_balanced(services, view):
    choices = dict(lanes.lane_choices(services))
    assert len(choices.values()) == len(set(choices.values())) > 5
    keys = [choices[f"SmolLM2 135M Instruct{more}"] for more in ("", " · template alpaca", " · template zephyr")]
    *_, told = session.set_pool(services, keys)
    assert "3 lanes may meet" in told
    duel = Duel()
    for _ in range(6):
        ask(services, view, duel, ["a"], ["b"])
        battle.vote(services, view, "tie", duel)
    assert sorted(services.votes.met("").values()) == [2, 2, 2]


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ([], "choose 2 to 12 lanes that may meet, got 0"),
        (["nonsense", "x"], "'nonsense' is no lane"),
        ([lanes.lane_key(MODEL, "", "alpaca"), lanes.lane_key(MODEL)], "alpaca cannot take part: no system prompt"),
    ],
)
def test_a_pool_that_cannot_work_is_refused(services, keys, sentence):
    services.engine.refusals["alpaca"] = "no system prompt"
    with pytest.raises(PlaygroundError, match=sentence):
        session.set_pool(services, keys)
    assert services.votes.session().pool == ()


def test_one_model_without_another_lane_says_what_to_do(services, view):
    services.votes.set_pool([lanes.lane_key(MODEL)])
    with pytest.raises(PlaygroundError, match="two lanes or more in the pool, there is 1; choose them"):
        ask(services, view, Duel())


def test_a_session_is_named_shared_and_shown_escaped(services):
    name, _, _, line, told = session.set_name(services, "<b>Monday</b>")
    assert name == "<b>Monday</b>"
    assert "<b>Monday" not in told
    assert "&lt;b&gt;Monday" in line
    _, _, prompts, _, told = session.set_prompts(services, "one\n\n two \n")
    assert (prompts, told) == ("one\ntwo", "2 prompts shared with the class.")
    with pytest.raises(PlaygroundError, match="give the session a name"):
        session.set_name(services, "  ")


def test_unusable_votes_are_said_on_the_page(services):
    services.votes.path.write_text("no database " * 100)
    assert "not a database" in session.where(services)
    assert "not a database" in session.opened(services)[3]


def test_the_line_about_the_session_is_sent_where_it_has_changed(services):
    line = session.where_else(services, None)
    assert line == session.where(services)
    assert session.where_else(services, line) == gr.skip()
    services.votes.open_session("Monday")
    assert "Monday" in session.where_else(services, line)


def test_a_lane_that_is_gone_is_no_longer_drawn(services, view, adapter):
    services.engine.infos = [adapter("tuned")]
    session.set_pool(
        services, [lanes.lane_key(MODEL), lanes.lane_key(MODEL, "tuned"), lanes.lane_key(MODEL, "", "alpaca")]
    )
    services.engine.infos = []
    assert session.pool_keys(services) == [lanes.lane_key(MODEL), lanes.lane_key(MODEL, "", "alpaca")]
    assert "2 lanes in the pool" in session.where(services)
    ask(services, view, Duel(), ["a"], ["b"])


def test_a_pair_that_cannot_start_gives_way_to_one_that_can(services, view):
    session.set_pool(services, [lanes.lane_key(MODEL, "", name) for name in ("", "alpaca", "plain")])
    services.engine.refusals["alpaca"] = "alpaca knows no such turn"
    for _ in range(4):  # also when the others have met before
        duel = Duel()
        ask(services, view, duel, ["a"], ["b"])
        assert {lane.template for lane in duel.sides} == {"", "plain"}
        battle.vote(services, view, "left", duel)
    services.engine.refusals["plain"] = "plain cannot either"
    duel = Duel()
    with pytest.raises(PlaygroundError, match="alpaca knows no such turn|plain cannot either"):
        ask(services, view, duel)
    assert (duel, len(services.engine.asked)) == (Duel(), 8)


def test_no_other_pair_is_drawn_while_there_is_no_place(services, view, monkeypatch):
    tried = []

    def full(asked, visitor=""):
        tried.append(asked)
        raise Busy("64 requests are waiting; try again in a moment")

    monkeypatch.setattr(services.engine, "replies", full)
    session.set_pool(services, [lanes.lane_key(MODEL, "", name) for name in ("", "alpaca", "plain")])
    with pytest.raises(PlaygroundError, match="64 requests"):
        ask(services, view, Duel())
    assert len(tried) == 1
