"""Side by side, what came later: edit and resend, per-lane system prompts, snapshot, difference, presets."""

from pathlib import Path

import gradio as gr
import pytest

from playground.core.messages import Conversation
from playground.errors import PlaygroundError
from playground.services.remote import Endpoint, RemoteReply
from playground.ui import lanes
from playground.ui.arena import chat as chat_view
from playground.ui.arena import compare, side_by_side, snapshot
from playground.ui.arena.chat import EDIT, KEEP, Chat
from tests.ui.test_arena import EVIL, LANES, MODEL, send, values

SYSTEM = "Answer in one word."


@pytest.fixture(autouse=True)
def _a_piece_per_tick(monkeypatch, services):
    monkeypatch.setattr(chat_view.time, "sleep", lambda seconds: services.engine.step())


def contents(messages):
    return [message["content"] for message in messages]


def test_an_edited_question_takes_the_place_of_the_last_one(services, view):
    chat = Chat()
    for text in ("one", "uno", "two", "due", "three", "tre"):
        services.engine.enqueue(text)
    send(services, view, chat, "first", count=2)
    send(services, view, chat, "secnod", count=2)
    shown = side_by_side.edit(view, chat)
    assert shown == {view.prompt: "secnod", view.edit: KEEP}
    shown = send(services, view, chat, "second", count=2)
    assert contents(chat.histories[0]) == ["first", "one", "second", "three"]
    assert contents(services.engine.asked[-1].conversation.messages) == ["first", "uno", "second"]
    assert (shown[view.edit], chat.editing) == (gr.update(value=EDIT, visible=True), False)


def test_a_lane_that_sat_out_the_edited_round_keeps_its_turns(services, view):
    chat = Chat()
    for text in ("a", "b", "c", "d", "e", "f"):
        services.engine.enqueue(text)
    send(services, view, chat, "first", count=2)
    send(services, view, chat, "secnod", count=1)
    side_by_side.clear(view, chat, 0)
    send(services, view, chat, "third", count=1)
    side_by_side.edit(view, chat)
    send(services, view, chat, "second", count=2)
    assert contents(services.engine.asked[-2].conversation.messages) == ["second"]
    assert contents(services.engine.asked[-1].conversation.messages) == ["first", "b", "second"]


def test_an_edited_question_can_be_asked_again(services, view):
    chat = Chat()
    for text in ("one", "two", "three", "four"):
        services.engine.enqueue(text)
    send(services, view, chat, "first", count=1)
    send(services, view, chat, "secnod", count=1)
    side_by_side.edit(view, chat)
    send(services, view, chat, "second", count=1)
    list(side_by_side.regenerate(services, view, None, chat, "", False, True, 1, *values()))
    assert contents(chat.histories[0]) == ["first", "one", "second", "four"]


def test_the_button_to_edit_is_there_while_a_question_is(services, view):
    assert view.edit.visible is False
    chat = Chat()
    for text in ("one", "uno"):
        services.engine.enqueue(text)
    assert send(services, view, chat, count=2)[view.edit]["visible"] is True
    assert side_by_side.clear(view, chat, 0)[view.edit] == gr.update(value=EDIT, visible=True)
    assert side_by_side.clear(view, chat)[view.edit] == gr.update(value=EDIT, visible=False)


def test_editing_can_be_given_up_and_needs_a_question(services, view):
    chat = Chat()
    with pytest.raises(PlaygroundError, match="nothing has been asked yet"):
        side_by_side.edit(view, chat)
    services.engine.enqueue("one")
    send(services, view, chat, "first", count=1)
    side_by_side.edit(view, chat)
    assert side_by_side.edit(view, chat) == {view.prompt: "", view.edit: EDIT}
    services.engine.enqueue("two")
    send(services, view, chat, "next", count=1)
    assert contents(chat.histories[0]) == ["first", "one", "next", "two"]


def test_a_refused_edit_can_be_sent_again(services, view):
    chat = Chat()
    services.engine.enqueue("one")
    send(services, view, chat, "first", count=1)
    side_by_side.edit(view, chat)
    with pytest.raises(PlaygroundError, match="write a prompt first"):
        send(services, view, chat, " ", count=1)
    assert chat.editing
    assert contents(chat.histories[0]) == ["first", "one"]


def test_a_lane_may_have_a_system_prompt_of_its_own(services, view):
    for text in ("a", "b"):
        services.engine.enqueue(text)
    own = [LANES[0], (*LANES[1][:4], SYSTEM)]
    send(services, view, Chat(), lanes=own, count=2, system="Be kind.")
    asked = [reply.conversation.messages[0]["content"] for reply in services.engine.asked]
    assert asked == ["Be kind.", SYSTEM]
    assert services.engine.asked[1].lane.label == f"SmolLM2 135M Instruct · system prompt “{SYSTEM}”"


def test_a_long_system_prompt_is_cut_in_the_title(services):
    title = lanes.lane_title(services, MODEL, "", "model", None, "x " * 100)
    assert len(title) < 90
    assert title.endswith("…”")


def test_chain_of_thought_differs_in_the_system_prompt_alone(services):
    plain, thinking = lanes.preset_lanes(services, lanes.COT)
    assert plain[:4] == thinking[:4]
    assert (plain[4], "step by step" in thinking[4]) == ("", True)


def test_react_is_put_before_base_and_instruct(services):
    services.sources.here.add("smollm2-135m")
    assert [lane[:3] for lane in lanes.preset_lanes(services, lanes.REACT)] == [
        ("smollm2-135m", "", "react"),
        (MODEL, "", "react"),
    ]
    services.sources.here.discard("smollm2-135m")
    assert [lane[2] for lane in lanes.preset_lanes(services, lanes.REACT)] == ["plain", "react"]


def test_a_question_without_a_reply_is_not_sent_along(services, view):
    chat = Chat()
    for text in (None, "a", "two", "b", None, "c", "four", "d"):
        services.engine.enqueue(*([text] if text else []))
    for prompt in ("first", "second", "third", "fourth"):
        shown = send(services, view, chat, prompt, count=2, system=SYSTEM)
    lane, other = services.engine.asked[-2:]
    assert contents(lane.conversation.messages) == [SYSTEM, "second", "two", "fourth"]
    assert contents(other.conversation.messages) == [SYSTEM, "first", "a", "second", "b", "third", "c", "fourth"]
    said = contents(shown[view.lanes[0].chatbot])
    assert said == ["first", chat_view.NO_REPLY, "second", "two", "third", chat_view.NO_REPLY, "fourth", "four"]
    side_by_side.edit(view, chat)
    services.engine.enqueue("4")
    send(services, view, chat, "4th", count=1, system=SYSTEM)
    assert contents(services.engine.asked[-1].conversation.messages) == [SYSTEM, "second", "two", "4th"]


# --- a chat past a lane's context ---

LEFT_OUT = (
    "The conversation did not fit into 200 tokens, of which the reply may take 16: its first turn (40 tokens) "
    "was left out."
)


@pytest.fixture
def outgrown(services, view):
    """A chat of three turns, of which the first lane (template plain) is sent the last two; and what the page shows."""
    chat = Chat()
    for text in ("one", "uno", "two", "due", "three", "tre"):
        services.engine.enqueue(text)
    services.engine.room = {"plain": 2}
    for prompt in ("first", "second", "third"):
        shown = send(services, view, chat, prompt, count=2, system=SYSTEM)
    return chat, shown


def test_each_lane_says_what_did_not_fit_into_its_own_context(services, view, outgrown):
    _, shown = outgrown
    sent = [contents(reply.conversation.messages) for reply in services.engine.asked[-2:]]
    assert sent == [
        [SYSTEM, "second", "two", "third"],
        [SYSTEM, "first", "uno", "second", "due", "third"],
    ]
    assert LEFT_OUT in shown[view.lanes[0].status]
    assert "finished" in shown[view.lanes[0].status]
    assert "left out" not in shown[view.lanes[1].status]
    assert shown[view.lanes[0].exact].startswith(f"─── {LEFT_OUT} ───\n[system] {SYSTEM}\n[user] second\n")
    assert shown[view.lanes[1].exact].startswith(f"[system] {SYSTEM}\n[user] first\n")
    assert contents(shown[view.lanes[0].chatbot]) == ["first", "one", "second", "two", "third", "three"]  # still read


def test_the_snapshot_tells_what_a_lane_was_sent_from_what_it_was_not(view, outgrown):
    chat, _ = outgrown
    first, second = snapshot.page(chat).split("<section>")[1:]
    places = [first.index(text) for text in (SYSTEM, ">first<", ">one<", LEFT_OUT, ">second<", ">third<", ">three<")]
    assert places == sorted(places)
    assert "left out" not in second


def test_a_vote_keeps_what_did_not_fit(services, view, outgrown):
    chat, _ = outgrown
    side_by_side.vote(services, view, "left", chat, 0, 1)
    (row,) = services.votes.export()
    assert row["left_lane"]["left_out"] == LEFT_OUT
    assert "left_out" not in row["right_lane"]
    assert contents(row["left_messages"]) == [SYSTEM, "first", "one", "second", "two", "third"]


def test_a_cleared_lane_has_left_nothing_out(services, view, outgrown):
    chat, _ = outgrown
    side_by_side.clear(view, chat, 0)
    services.engine.enqueue("four")
    shown = send(services, view, chat, "fourth", count=1)
    assert "left out" not in shown[view.lanes[0].status] + shown[view.lanes[0].exact]


# --- snapshot ---


def test_a_snapshot_holds_the_round_and_obeys_nothing(services, view):
    chat = Chat()
    services.engine.enqueue(EVIL)
    services.engine.enqueue(error=f"failed: {EVIL}")
    send(services, view, chat, prompt=EVIL, count=2, system=EVIL, lanes=[(EVIL, "", "", None, ""), LANES[1]])
    made = snapshot.snapshot(chat)
    update = next(made)
    text = Path(update["value"]).read_text(encoding="utf-8")
    made.close()
    assert update["visible"] is True
    assert text.count("&lt;img src=x") >= 6  # twice as system prompt, twice as prompt, reply, error, lane
    assert "<img" not in text
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert "temperature 0.7" in text
    assert text.count("<section>") == 2


def test_a_snapshot_of_a_lane_elsewhere_has_its_tokens_and_no_key(services, view):
    endpoint = Endpoint("big", "http://h/v1", "there", "sk-very-secret")
    services.engine.remotes.add(endpoint)
    chat = Chat()
    services.engine.enqueue("Hi")
    services.engine.enqueue("Ho")
    send(services, view, chat, count=2, lanes=[("big", "", "", None, ""), LANES[1]])
    chat.replies[0] = reply = RemoteReply(chat.lanes[0], endpoint, Conversation(chat.asked[0]))
    reply.pieces = 7  # what it wrote has no ids here
    reply.finish("stop")
    page = snapshot.page(chat)
    assert "7 tokens" in page
    assert "sk-very-secret" not in page


def test_there_is_no_snapshot_of_nothing(services, view):
    with pytest.raises(PlaygroundError, match="nothing to keep yet"):
        snapshot.page(Chat())


# --- difference ---


def test_the_difference_of_two_replies_is_marked_and_escaped(services, view):
    chat = Chat()
    services.engine.enqueue("I like <b>red</b> apples")
    services.engine.enqueue("I like green apples")
    send(services, view, chat, count=2)
    shown = compare.compare(chat, 0, 1)
    assert "<ins>green</ins>" in shown
    assert "<b>" not in shown
    assert "red" in shown.split("<del>")[1].split("</del>")[0]
    assert "Struck out: only lane 1" in shown


@pytest.mark.parametrize(("left", "right", "sentence"), [(0, 0, "two different lanes"), (0, 1, "Ask the lanes")])
def test_nothing_to_compare_says_what_to_do(left, right, sentence):
    assert sentence in compare.compare(Chat(), left, right)
