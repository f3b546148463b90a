"""The chat's handlers, with a fake engine: what is asked, what is shown, what is stored."""

from dataclasses import replace

import gradio as gr
import pytest

from playground.config import SamplingConfig, fields
from playground.errors import Busy, PlaygroundError
from playground.services.fetches import Fetch
from playground.services.remote import Endpoint
from playground.services.votes import Count
from playground.ui import arena_tab, lanes, more_models
from playground.ui.arena import chat as chat_view
from playground.ui.arena import side_by_side, snapshot
from playground.ui.arena.chat import Chat

MODEL = "smollm2-135m-instruct"
SAMPLING = [f.default for f in fields(SamplingConfig)]
LANES = [(MODEL, "", "plain", None, ""), (MODEL, "", "model", None, ""), (MODEL, "tools", "", 0.0, "")]
EVIL = '<img src=x onerror="alert(1)"><script>alert(2)</script>'


@pytest.fixture(autouse=True)
def _a_piece_per_tick(monkeypatch, services):
    monkeypatch.setattr(chat_view.time, "sleep", lambda seconds: services.engine.step())


def values(lanes=LANES, sampling=SAMPLING):
    lanes = [(*lane, "") if len(lane) == 5 else lane for lane in lanes]  # nothing else of its own
    lanes = [*lanes, *[lanes[-1]] * (4 - len(lanes))]
    return [value for lane in lanes for value in lane] + list(sampling)


def send(services, view, chat, prompt="Hello", lanes=LANES, count=3, system="", tools=False, **more):
    """All updates of one round, the later ones over the earlier ones."""
    shown = {}
    for update in side_by_side.send(
        services, view, chat, prompt, system, tools, True, count, *values(lanes, more.get("sampling", SAMPLING))
    ):
        shown |= update
    return shown


def enqueue(services, *texts):
    for text in texts:
        services.engine.enqueue(*text)


def texts(bubbles):
    return [(message["role"], message["content"]) for message in bubbles]


# --- asking ---


def test_all_lanes_stream_together_and_end_with_their_answers(services, view):
    chat = Chat()
    enqueue(services, ["a", "b"], ["x"], ["1", "2", "3"])
    rounds = side_by_side.send(services, view, chat, "Hi", "", False, True, 3, *values())
    first = next(rounds)
    assert [texts(first[lane.chatbot])[-1] for lane in view.lanes[:3]] == [("assistant", t) for t in ("a", "x", "1")]
    assert first[view.send]["visible"] is False
    assert first[view.prompt] == ""
    assert view.lanes[3].chatbot not in first
    shown = dict(first)
    for update in rounds:
        shown |= update
    assert [texts(shown[lane.chatbot]) for lane in view.lanes[:3]] == [
        [("user", "Hi"), ("assistant", text)] for text in ("ab", "x", "123")
    ]
    assert "20.0 tokens/s · first after 0.5 s · 3 tokens · finished" in shown[view.lanes[2].status]
    assert shown[view.lanes[0].exact] == "[user] Hi\n"
    assert shown[view.send]["visible"] is True
    assert all(shown[button]["interactive"] for button in view.vote_buttons)


def test_a_finished_lane_is_not_sent_again_while_others_stream(services, view):
    enqueue(services, ["a"], ["x", "y", "z"])
    updates = list(side_by_side.send(services, view, Chat(), "Hi", "", False, True, 2, *values()))
    with_first_lane = [view.lanes[0].chatbot in update for update in updates]
    assert with_first_lane == [True, True, False, False]


def test_the_second_turn_sends_the_first_one_along(services, view):
    chat = Chat()
    enqueue(services, ["one"], ["uno"], ["two"], ["due"])
    send(services, view, chat, "first", count=2)
    shown = send(services, view, chat, "second", count=2, system="Be brief.")
    assert texts(services.engine.asked[3].conversation.messages) == [
        ("system", "Be brief."),
        ("user", "first"),
        ("assistant", "uno"),
        ("user", "second"),
    ]
    assert len(shown[view.lanes[1].chatbot]) == 4


def test_lanes_share_the_sampling_panel_unless_they_have_their_own_temperature(services, view):
    enqueue(services, ["a"], ["b"], ["c"])
    sampling = [f.default if f.name != "seed" else 7 for f in fields(SamplingConfig)]
    send(services, view, Chat(), sampling=sampling)
    lanes = [reply.lane for reply in services.engine.asked]
    assert [lane.sampling.seed for lane in lanes] == [7, 7, 7]
    assert [lane.sampling.temperature for lane in lanes] == [0.7, 0.7, 0.0]
    assert [(lane.model, lane.adapter, lane.template) for lane in lanes] == [
        (MODEL, None, "plain"),
        (MODEL, None, "model"),
        (MODEL, "tools", ""),
    ]


def test_a_lane_may_sample_its_own_way(services, view):
    """The seed, as all of sampling, is shared unless a lane says otherwise."""
    enqueue(services, "a", "b", "c")
    own = [(*LANES[0], "seed=7, top_p=0.5"), LANES[1], (*LANES[2], "max_new_tokens=9")]
    send(services, view, Chat(), lanes=own)
    sampling = [reply.lane.sampling for reply in services.engine.asked]
    assert [(s.seed, s.top_p, s.max_new_tokens, s.temperature) for s in sampling] == [
        (7, 0.5, 200, 0.7),
        (0, 0.95, 200, 0.7),
        (0, 0.95, 9, 0.0),
    ]
    assert "seed=7, top_p=0.5" in services.engine.asked[0].lane.label  # two lanes that differ in it are not mixed up


@pytest.mark.parametrize("empty", [None, "", " "])
def test_an_empty_temperature_is_the_shared_one(services, view, empty):
    """The field is a text: gradio's page sends an empty number as 0."""
    assert isinstance(view.lanes[0].temperature, gr.Textbox)
    enqueue(services, "a", "b")
    send(services, view, Chat(), lanes=[(MODEL, "", "", empty, ""), (MODEL, "", "", "1.50", "")], count=2)
    assert [reply.lane.sampling.temperature for reply in services.engine.asked] == [0.7, 1.5]
    assert services.engine.asked[1].lane.label == "SmolLM2 135M Instruct · temperature 1.5"
    with pytest.raises(PlaygroundError, match="lane 1: temperature must be"):
        send(services, view, Chat(), lanes=[(MODEL, "", "", "hot", ""), LANES[1]], count=2)


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("heat=1", "lane 2: 'heat=1' is no sampling setting; write NAME=VALUE, several apart by blanks"),
        ("seed", "lane 2: 'seed' is no sampling setting"),
        ("top_p=", "lane 2: 'top_p=' is no sampling setting"),
        ("top_p=2", "lane 2: top_p must be"),
        ("seed=x", "lane 2: seed must be"),
    ],
)
def test_sampling_that_cannot_be_read_names_its_lane(services, view, written, sentence):
    with pytest.raises(PlaygroundError, match=sentence):
        send(services, view, Chat(), lanes=[LANES[0], (*LANES[1], written)], count=2)
    assert services.engine.asked == []


def test_tools_are_offered_when_the_box_is_ticked(services, view):
    enqueue(services, ["a"], ["b"])
    send(services, view, Chat(), count=1, tools=True)
    send(services, view, Chat(), count=1, tools=False)
    offered = [[tool["function"]["name"] for tool in reply.conversation.tools] for reply in services.engine.asked]
    assert offered == [["calculator", "get_weather"], []]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"prompt": "x" * 100_000}, "at most 20,000 characters, this one has 100,000"),
        ({"prompt": "  \n"}, "write a prompt first"),
        ({"lanes": [("", "", "", None, "")]}, "lane 1 has no model"),
        ({"sampling": [0, *SAMPLING[1:]]}, "max_new_tokens must be between 1 and 4,096, got 0"),
        ({"lanes": [LANES[0], (MODEL, "", "", 9, "")]}, "temperature must be between"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_anything_changes(services, view, given, sentence):
    chat = Chat()
    with pytest.raises(PlaygroundError, match=sentence):
        send(services, view, chat, **given)
    assert services.engine.asked == []
    assert chat == Chat()


def test_a_lane_that_cannot_start_says_why_in_its_own_column_and_the_others_answer(services, view):
    services.engine.refusals["model"] = "this template knows no <b> system prompt"
    chat = Chat()
    enqueue(services, "one", "eins")
    shown = send(services, view, chat)
    assert "this template knows no &lt;b&gt; system prompt" in shown[view.lanes[1].status]
    assert [texts(shown[lane.chatbot])[1:] for lane in view.lanes[:3]] == [
        [("assistant", "one")],
        [],
        [("assistant", "eins")],
    ]
    assert (shown[view.prompt], shown[view.lanes[1].exact]) == ("", "")
    assert shown[view.lanes[1].again]["interactive"]
    enqueue(services, "two", "uno", "zwei")
    services.engine.refusals.clear()
    send(services, view, chat, "next")
    assert [len(reply.conversation.messages) for reply in services.engine.asked[-3:]] == [3, 1, 3]


def test_a_lane_that_could_not_start_is_regenerated_edited_and_cleared_like_any_other(services, view):
    chat = Chat()
    services.engine.refusals["model"] = "no such template"
    enqueue(services, "one")
    send(services, view, chat, count=2)
    with pytest.raises(PlaygroundError, match="lane 2: no such template"):
        list(side_by_side.regenerate(services, view, 1, chat, "", False, True, 2, *values()))
    assert [texts(history) for history in chat.histories[:2]] == [
        [("user", "Hello"), ("assistant", "one")],
        [("user", "Hello")],
    ]
    services.engine.refusals.clear()
    enqueue(services, "uno")
    list(side_by_side.regenerate(services, view, 1, chat, "", False, True, 2, *values()))
    assert [history[-1]["content"] for history in chat.histories[:2]] == ["one", "uno"]
    services.engine.refusals["model"] = "no such template"
    side_by_side.edit(view, chat)
    enqueue(services, "due")
    send(services, view, chat, "Hi", count=2)
    assert [texts(history) for history in chat.histories[:2]] == [
        [("user", "Hi"), ("assistant", "due")],
        [("user", "Hi")],
    ]
    assert "no such template" in snapshot.page(chat)
    assert side_by_side.clear(view, chat, 1)[view.lanes[1].status] == ""


def test_where_no_lane_can_start_nothing_changes(services, view):
    services.engine.refusals |= {"plain": "no plain", "model": "no system prompt"}
    chat = Chat()
    with pytest.raises(PlaygroundError, match="^lane 1: no plain$"):
        send(services, view, chat, count=2)
    services.engine.refusals["model"] = "no plain"
    with pytest.raises(PlaygroundError, match="^no plain$"):
        send(services, view, chat, count=2)
    assert (services.engine.asked, chat) == ([], Chat())


def test_lanes_for_which_there_is_no_place_fail_alone(services, view, monkeypatch):
    """What the engine refuses for all of them together is asked lane by lane."""
    enqueue(services, "one", "uno")
    together = services.engine.replies

    def full(asked, visitor=""):
        if len(services.engine.asked) + len(asked) > 2:
            raise Busy("64 requests are waiting")
        return together(asked, visitor=visitor)

    monkeypatch.setattr(services.engine, "replies", full)
    shown = send(services, view, Chat())
    assert [texts(shown[lane.chatbot])[-1][1] for lane in view.lanes[:3]] == ["one", "uno", "Hello"]
    assert "64 requests are waiting" in shown[view.lanes[2].status]


def test_a_path_of_this_machine_is_no_lane_of_others(services, view):
    services = replace(services, host="0.0.0.0")
    enqueue(services, "one")
    others = [("/etc", "", "plain", None, ""), (MODEL, "", "/srv/secret.jinja", None, "")]
    shown = send(services, view, Chat(), lanes=[LANES[0], *others])
    assert f"choose one of the models that are here: {MODEL}" in shown[view.lanes[1].status]
    assert "choose one of the templates of the list" in shown[view.lanes[2].status]
    assert [reply.lane.model for reply in services.engine.asked] == [MODEL]


def test_a_lane_that_fails_says_why_and_the_others_go_on(services, view):
    services.engine.enqueue(error="adapter does not fit <b>")
    services.engine.enqueue("fine")
    shown = send(services, view, Chat(), count=2)
    assert "adapter does not fit &lt;b&gt;" in shown[view.lanes[0].status]
    assert texts(shown[view.lanes[1].chatbot])[-1] == ("assistant", "fine")
    assert texts(shown[view.lanes[0].chatbot]) == [("user", "Hello")]


def test_an_empty_reply_is_no_bubble_and_no_turn(services, view):
    chat = Chat()
    enqueue(services, [], ["x"])
    shown = send(services, view, chat, count=2)
    assert texts(shown[view.lanes[0].chatbot]) == [("user", "Hello")]
    assert "it wrote nothing" in shown[view.lanes[0].status]
    assert chat.histories[0] == [{"role": "user", "content": "Hello"}]


def test_while_a_model_loads_its_lane_says_so():
    reply = type("Reply", (), dict.fromkeys(("error", "finish_reason", "first_token_s", "done"), None))()
    reply.count, reply.tokens_per_second, reply.text = 0, 0.0, ""
    assert "loading the model" in chat_view.status(reply, "loading")
    assert "waiting" in chat_view.status(reply, "ready")
    assert "waiting, 3 before it" in chat_view.status(reply, "ready", 3)


def test_a_lane_that_waits_says_how_many_are_before_it(services, view, monkeypatch):
    enqueue(services, ["one"], ["uno"], ["eins"])
    monkeypatch.setattr(services.engine, "ahead", lambda reply: 3 if reply.lane.adapter else 0, raising=False)
    monkeypatch.setattr(services.engine, "step", lambda: None)  # nobody has a place yet
    first = next(side_by_side.send(services, view, Chat(), "Hi", "", False, True, 3, *values()))
    assert "waiting …" in first[view.lanes[0].status]
    assert "waiting, 3 before it …" in first[view.lanes[2].status]


def test_half_a_character_is_neither_shown_nor_kept(services, view):
    chat = Chat()
    enqueue(services, "one", "uno")
    lanes = [(*LANES[0][:4], "Be \ud83d brief."), LANES[1]]
    shown = send(services, view, chat, prompt="a \ud83d b", lanes=lanes, count=2)
    assert texts(shown[view.lanes[0].chatbot])[0] == ("user", "a ? b")
    side_by_side.vote(services, view, "left", chat, 0, 1)
    assert services.votes.export()[0]["left_messages"][0]["content"] == "Be ? brief."


def test_a_reply_that_another_round_has_displaced_is_ended(services, view):
    chat = Chat()
    enqueue(services, ["a", "b", "c"], ["x", "y", "z"], ["n", "e", "w", "e", "r"])
    rounds = side_by_side.send(services, view, chat, "Hi", "", False, True, 2, *values())
    next(rounds)
    other = chat.replies[0]
    chat.replies[0] = services.engine.replies([(other.lane, other.conversation)])[0]
    next(rounds)
    assert (other.finish_reason, chat.replies[0].finish_reason) == ("cancelled", None)
    rounds.close()


def test_markup_in_messages_and_replies_is_shown_not_obeyed(services, view):
    enqueue(services, [EVIL, "<tool_call>&amp;"])
    shown = send(services, view, Chat(), prompt=EVIL, count=1)
    assert texts(shown[view.lanes[0].chatbot]) == [
        ("user", '&lt;img src=x onerror="alert(1)"&gt;&lt;script&gt;alert(2)&lt;/script&gt;'),
        (
            "assistant",
            '&lt;img src=x onerror="alert(1)"&gt;&lt;script&gt;alert(2)&lt;/script&gt;&lt;tool_call&gt;&amp;amp;',
        ),
    ]


# --- stop, regenerate, clear ---


def test_stop_ends_one_lane_or_all_and_keeps_what_they_wrote(services, view):
    chat = Chat()
    enqueue(services, ["a", "b", "c"], ["x", "y", "z"], ["1", "2", "3"])
    rounds = side_by_side.send(services, view, chat, "Hi", "", False, True, 3, *values())
    next(rounds)
    side_by_side.stop(chat, 1)
    shown = next(rounds)
    assert "stopped" in shown[view.lanes[1].status]
    assert chat.histories[1][-1] == {"role": "assistant", "content": "x"}
    side_by_side.stop(chat)
    for update in rounds:
        shown |= update
    assert [history[-1]["content"] for history in chat.histories[:3]] == ["ab", "x", "12"]
    assert shown[view.stop]["visible"] is False


def test_a_browser_that_leaves_stops_its_lanes(services, view):
    enqueue(services, ["a", "b"], ["x", "y"])
    rounds = side_by_side.send(services, view, Chat(), "Hi", "", False, True, 2, *values())
    next(rounds)
    rounds.close()
    assert [reply.finish_reason for reply in services.engine.asked] == ["cancelled", "cancelled"]


def test_nothing_is_asked_while_lanes_answer(services, view):
    chat = Chat()
    enqueue(services, ["a", "b"], ["x"])
    rounds = side_by_side.send(services, view, chat, "Hi", "", False, True, 2, *values())
    next(rounds)
    with pytest.raises(PlaygroundError, match="still answering"):
        send(services, view, chat)
    with pytest.raises(PlaygroundError, match="still answering"):
        list(side_by_side.regenerate(services, view, 0, chat, "", False, True, 2, *values()))


def test_regenerate_asks_one_lane_again_with_another_seed(services, view):
    chat = Chat()
    enqueue(services, ["one"], ["uno"])
    send(services, view, chat, count=2)
    for number, text in enumerate(("due", "tre"), 1):
        enqueue(services, [text])
        shown = {}
        for update in side_by_side.regenerate(services, view, 1, chat, "", False, True, 2, *values()):
            shown |= update
        assert texts(shown[view.lanes[1].chatbot]) == [("user", "Hello"), ("assistant", text)]
        assert services.engine.asked[-1].lane.sampling.seed == number
    assert view.lanes[0].chatbot not in shown
    assert view.prompt not in shown
    assert len(services.engine.asked) == 4
    assert chat.histories[0][-1]["content"] == "one"
    with pytest.raises(PlaygroundError, match="lane 4 has not been asked"):
        list(side_by_side.regenerate(services, view, 3, chat, "", False, True, 4, *values()))


def test_regenerate_asks_all_lanes_their_last_question_again(services, view):
    chat = Chat()
    enqueue(services, ["one"], ["uno"], ["two"], ["due"])
    send(services, view, chat, "first", count=2)
    send(services, view, chat, "second", count=2)
    for number, replies in enumerate((("deux", "zwei"), ("dos", "dva")), 1):
        enqueue(services, *([text] for text in replies))
        shown = {}
        for update in side_by_side.regenerate(services, view, None, chat, "", False, True, 3, *values()):
            shown |= update
        before = ([("user", "first"), ("assistant", old), ("user", "second")] for old in ("one", "uno"))
        assert [texts(shown[view.lanes[i].chatbot]) for i in (0, 1)] == [
            [*turns, ("assistant", reply)] for turns, reply in zip(before, replies, strict=True)
        ]
        assert [reply.lane.sampling.seed for reply in services.engine.asked[-2:]] == [number, number]
        assert view.prompt not in shown  # the next question may stand in it already
    assert (shown[view.again]["interactive"], view.lanes[2].chatbot in shown) == (True, False)
    side_by_side.vote(services, view, "left", chat, 0, 1)
    assert services.votes.export()[0]["left_messages"][1]["content"] == "one"
    enqueue(services, ["three"], ["tre"])
    send(services, view, chat, "third", count=2)
    assert services.engine.asked[-1].lane.sampling.seed == 0


def test_all_lanes_are_asked_again_only_after_a_question(services, view):
    with pytest.raises(PlaygroundError, match="nothing has been asked yet"):
        list(side_by_side.regenerate(services, view, None, Chat(), "", False, True, 2, *values()))
    assert view.again.visible is False


def test_clear_empties_all_lanes_or_one(services, view):
    chat = Chat()
    enqueue(services, ["one"], ["uno"])
    send(services, view, chat, count=2)
    shown = side_by_side.clear(view, chat, index=0)
    assert (shown[view.lanes[0].chatbot], view.lanes[1].chatbot in shown) == ([], False)
    assert (chat.histories[0], len(chat.histories[1])) == ([], 2)
    side_by_side.clear(view, chat)
    assert chat.histories == [[], [], [], []]


def test_a_lane_cleared_while_it_answers_stays_empty(services, view):
    chat = Chat()
    enqueue(services, ["a", "b", "c"], ["x", "y"])
    rounds = side_by_side.send(services, view, chat, "Hi", "", False, True, 2, *values())
    next(rounds)
    side_by_side.clear(view, chat)
    shown = {}
    for update in rounds:
        shown |= update
    assert chat.histories[:2] == [[], []]
    assert view.lanes[0].chatbot not in shown
    assert shown[view.send]["visible"] is True
    assert chat.battle == ""


# --- lanes ---


def test_the_page_opens_with_base_instruct_and_tuned(services, adapter):
    assert lanes.default_lanes(services) == [(MODEL, "", "plain", None, "", ""), (MODEL, "", "model", None, "", "")]
    services.engine.infos = [adapter("other", base="gemma3-270m"), adapter("tool-calling")]
    services.sources.here.add("smollm2-135m")
    assert lanes.default_lanes(services) == [
        ("smollm2-135m", "", "plain", None, "", ""),
        (MODEL, "", "model", None, "", ""),
        (MODEL, "tool-calling", "", None, "", ""),
    ]


def test_a_model_that_is_not_here_yet_stands_under_its_title(services):
    services.sources.here.clear()
    assert lanes.first_choices(services, MODEL) == [("SmolLM2 135M Instruct", MODEL)]
    assert lanes.first_choices(services, "owner/name") == [("owner/name", "owner/name")]
    services.sources.here.add("smollm2-135m")
    assert lanes.first_choices(services, MODEL) == [("SmolLM2 135M", "smollm2-135m")]


@pytest.mark.parametrize(
    ("lane", "title"),
    [
        ((MODEL, "", "plain"), "SmolLM2 135M Instruct · same weights, no chat template"),
        ((MODEL, "", "model"), "SmolLM2 135M Instruct"),
        ((MODEL, "", "llama-2"), "SmolLM2 135M Instruct · template llama-2"),
        ((MODEL, "tools", ""), "SmolLM2 135M Instruct · adapter tools"),
        (("smollm2-135m", "", "plain"), "SmolLM2 135M"),
        (("owner/name", "", "model", 1.5), "owner/name · temperature 1.5"),
    ],
)
def test_a_lane_is_named_by_what_matters(services, lane, title):
    assert lanes.lane_title(services, *lane) == title


def test_a_lane_elsewhere_has_no_adapter_and_no_template_of_ours(services):
    services.engine.remotes.add(Endpoint("big", "http://h/v1", "m"))
    assert lanes.lane_title(services, "big", "tools", "plain", 0.5) == "big · temperature 0.5"
    (lane, *_) = lanes.read_lanes(services, 1, True, tuple(values([("big", "tools", "plain", None, "")])))
    assert (lane.model, lane.adapter, lane.template, lane.label) == ("big", None, "", "big")
    choices = dict(lanes.lane_choices(services))
    assert [title for title in choices if title.startswith("big")] == ["big"]
    assert lanes.read_lane(services, choices["big"]).template == ""


@pytest.mark.parametrize("preset", lanes.PRESETS)
def test_a_preset_sets_every_lane_and_their_number(services, view, preset):
    count = gr.Radio([2, 3, 4])
    shown = side_by_side.set_preset(services, view, count, preset)
    expected = lanes.preset_lanes(services, preset)
    assert shown[count] == len(expected)
    assert [tuple(shown[c] for c in lane.inputs) for lane in view.lanes[: len(expected)]] == expected


def test_the_temperature_preset_differs_in_nothing_else(services):
    expected = lanes.preset_lanes(services, "temperature 0 / 0.7 / 1.5")
    assert {lane[:3] for lane in expected} == {(MODEL, "", "model")}
    assert [lane[3] for lane in expected] == [0.0, 0.7, 1.5]


def test_new_adapters_and_models_appear_without_a_restart(services, view, adapter):
    services.engine.infos = [adapter("fresh-run")]
    services.sources.here.add("smollm2-135m")
    shown = side_by_side.refresh(services, view)
    assert shown[view.lanes[3].adapter]["choices"] == [
        ("None", ""),
        ("fresh-run (for smollm2-135m-instruct)", "fresh-run"),
    ]
    assert ("SmolLM2 135M", "smollm2-135m") in shown[view.lanes[0].model]["choices"]


def test_the_number_of_lanes_shows_columns_and_resets_the_vote(view):
    shown = side_by_side.set_count(view, 2)
    assert [shown[lane.column]["visible"] for lane in view.lanes] == [True, True, False, False]
    assert (shown[view.left]["value"], shown[view.right]["value"]) == (0, 1)


# --- votes ---


def test_a_vote_is_stored_once_with_both_sides(services, view):
    chat = Chat()
    enqueue(services, ["one"], ["uno"], ["eins"])
    send(services, view, chat)
    shown = side_by_side.vote(services, view, "right", chat, 0, 2)
    assert services.votes.counts() == [
        Count(
            "SmolLM2 135M Instruct · adapter tools · temperature 0",
            "SmolLM2 135M Instruct · same weights, no chat template",
            first_wins=1,
        )
    ]
    assert 'data-total="1"' in shown[view.counts]
    assert not any(shown[button]["interactive"] for button in view.vote_buttons)
    side_by_side.vote(services, view, "left", chat, 0, 2)  # the second of a double click
    assert [row["winner"] for row in services.votes.rows()] == ["right"]


def test_two_clicks_at_once_are_one_vote(services, view):
    chat = Chat()
    enqueue(services, ["one"], ["uno"], ["eins"])
    send(services, view, chat)
    battle = chat.battle
    side_by_side.vote(services, view, "right", chat, 0, 2)
    chat.battle = battle  # the second one came before the first was stored
    side_by_side.vote(services, view, "left", chat, 0, 2)
    assert [row["winner"] for row in services.votes.rows()] == ["right"]


@pytest.mark.parametrize(
    ("left", "right", "sentence"), [(1, 1, "choose two different"), (0, 3, "lane 4 has not answered")]
)
def test_a_vote_needs_two_lanes_that_answered(services, view, left, right, sentence):
    chat = Chat()
    enqueue(services, ["one"], ["uno"])
    send(services, view, chat, count=2)
    with pytest.raises(PlaygroundError, match=sentence):
        side_by_side.vote(services, view, "left", chat, left, right)
    assert services.votes.counts() == []
    assert chat.battle  # the vote can still be given


def test_there_is_no_vote_on_a_lane_that_failed(services, view):
    chat = Chat()
    services.engine.enqueue("one")
    services.engine.enqueue("half a", error="it broke off")
    services.engine.enqueue("eins")
    send(services, view, chat)
    with pytest.raises(PlaygroundError, match="lane 2 failed"):
        side_by_side.vote(services, view, "left", chat, 0, 1)
    side_by_side.vote(services, view, "left", chat, 0, 2)
    assert [row["winner"] for row in services.votes.rows()] == ["left"]
    services.engine.enqueue("two")
    services.engine.enqueue(error="gone")
    assert not send(services, view, Chat(), count=2)[view.vote_buttons[0]]["interactive"]


def test_there_is_no_vote_on_two_lanes_that_are_set_alike(services, view):
    chat = Chat()
    enqueue(services, "one", "uno", "eins")
    send(services, view, chat, lanes=[LANES[0], LANES[0], LANES[1]])
    with pytest.raises(PlaygroundError, match="lanes 1 and 2 are set alike"):
        side_by_side.vote(services, view, "left", chat, 0, 1)
    side_by_side.vote(services, view, "left", chat, 0, 2)
    assert len(services.votes.rows()) == 1


def test_there_is_nothing_to_vote_on_before_a_round_nor_with_one_lane(services, view):
    chat = Chat()
    with pytest.raises(PlaygroundError, match="nothing to vote on"):
        side_by_side.vote(services, view, "left", chat, 0, 1)
    enqueue(services, ["one"])
    shown = send(services, view, chat, count=1)
    assert chat.battle == ""
    assert shown[view.vote_buttons[0]]["interactive"] is False


def test_votes_are_counted_on_the_page_and_their_names_escaped(services, view):
    assert "No votes yet" in side_by_side.counts(services)
    chat = Chat()
    enqueue(services, ["one"], ["uno"])
    send(services, view, chat, lanes=[("<b>x</b>", "", "", None, ""), LANES[1]], count=2)
    side_by_side.vote(services, view, "tie", chat, 0, 1)
    table = side_by_side.counts(services)
    assert "&lt;b&gt;x&lt;/b&gt;" in table
    assert "<b>x</b>" not in table


def test_unusable_votes_are_said_on_the_page(services):
    services.paths.votes.write_text("no database " * 100)
    assert "not a database" in side_by_side.counts(services)


# --- another model ---


def test_terms_are_shown_and_accepted_before_a_gated_model_is_fetched(services):
    terms, accept, get, *_ = more_models.show(services, "gemma3-270m")
    assert "Gemma terms &lt;script&gt;" in terms
    assert (accept["visible"], get["visible"]) == (True, True)
    with pytest.raises(PlaygroundError, match="read the terms"):
        more_models.get(services, "gemma3-270m", False)
    assert services.fetches.started == []
    more_models.get(services, "gemma3-270m", True)
    assert (services.sources.accepted, services.fetches.started) == ({"gemma3-270m"}, ["gemma3-270m"])


def test_a_fetch_can_be_watched_and_cancelled(services):
    services.fetches.fetches["smollm2-135m"] = Fetch("smollm2-135m")
    _, _, get, cancel, notice, timer = more_models.show(services, "smollm2-135m")
    assert (get["visible"], cancel["visible"], timer.active) == (False, True, True)
    assert "Fetching SmolLM2 135M" in notice
    more_models.cancel(services, "smollm2-135m")
    assert services.fetches.cancelled == ["smollm2-135m"]


def test_a_failed_fetch_says_why(services):
    services.fetches.fetches["smollm2-135m"] = Fetch("smollm2-135m", "failed", error="Hub: <no route>")
    _, _, get, cancel, notice, _ = more_models.show(services, "smollm2-135m")
    assert "Hub: &lt;no route&gt;" in notice
    assert (get["visible"], cancel["visible"]) == (True, False)


def test_a_model_that_is_here_needs_no_button(services):
    _, _, get, _, notice, _ = more_models.show(services, MODEL)
    assert get["visible"] is False
    assert "is here" in notice


def test_the_chat_says_that_its_models_have_made_way_and_says_it_once(services):
    assert arena_tab.resting(services, None) == gr.skip()
    services.engine.make_way("run <b>")
    said = arena_tab.resting(services, "")
    assert said["visible"]
    assert "made way for run &lt;b&gt;." in said["value"]
    assert arena_tab.resting(services, said["value"]) == gr.skip()
    services.engine.way.clear()
    assert arena_tab.resting(services, said["value"]) == gr.update(value="", visible=False)
