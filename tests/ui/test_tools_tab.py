"""The tools tab's handlers, with a fake engine: what is asked, what is shown, what is kept."""

from types import SimpleNamespace

import gradio as gr
import pytest

from playground.core import templates
from playground.core.templates import Rendered
from playground.core.tools import calculator, weather
from playground.errors import PlaygroundError
from playground.ui import tools_tab
from playground.ui.tools_tab import Talk

MODEL = "smollm2-135m-instruct"
ADD = '<tool_call>\n{"name": "calculator", "arguments": {"expression": "23 * 47"}}\n</tool_call>'
EVIL = '<img src=x onerror="alert(1)"><script>alert(2)</script>'
CITIES = [weather.City("Paris", "France", "", 48.9, 2.4, 5, 12, 21, 13)]
BOTH = ["calculator", "get_weather"]


class Reply:
    """Says what was enqueued, a word at a time; `cancel` ends it before the next word."""

    def __init__(self, lane, conversation, text, reason, error):
        content = "".join(f"[{m['role']}] {m['content']}\n" for m in conversation.messages)
        self.lane, self.prompt, self.conversation = lane, Rendered(content, [], "none"), conversation
        self.words, self.finish_reason, self.tokens_per_second = text.split(" "), None, 20.0
        self.reason, self.error = reason, error

    def __iter__(self):
        for number, word in enumerate(self.words):
            if self.finish_reason:
                return
            yield SimpleNamespace(text=word if number == 0 else f" {word}")
        self.finish_reason = self.finish_reason or self.reason

    def cancel(self):
        self.finish_reason = "cancelled"


class Engine:
    def __init__(self):
        self.queue, self.replies, self.infos, self.lanes, self.stops = [], [], [], [], []
        self.own = "chatml"  # the template of models and adapters that bring one

    def enqueue(self, *texts, reason="stop", error=None):
        self.queue += [(text, reason, error) for text in texts]

    def state(self, model):
        return "ready"

    def adapters(self):
        return self.infos

    def tokenizer(self, model):
        return None

    def template(self, lane):
        name = lane.template if lane.template not in ("", "model") else self.own
        return templates.load(name)

    def reply(self, lane, conversation, stop=()):
        if not self.queue:
            raise PlaygroundError("the prompt is too long")
        self.replies.append(Reply(lane, conversation, *self.queue.pop(0)))
        self.stops.append(stop)
        return self.replies[-1]


@pytest.fixture
def services(services):
    return SimpleNamespace(sources=services.sources, engine=Engine(), model=MODEL)


@pytest.fixture
def toolbox():
    return [calculator.make(), weather.make(None, CITIES)]


@pytest.fixture(scope="module")
def view():
    """The tab's components: laid out once, because handlers only name them."""
    sources = SimpleNamespace(entries=list)
    with gr.Blocks():
        return tools_tab.build(SimpleNamespace(sources=sources, engine=Engine(), model=MODEL), [calculator.make()])


@pytest.fixture
def ask(services, toolbox, view, monkeypatch):
    """Ask a question and return every update."""
    monkeypatch.setattr(tools_tab, "TICK", 0)

    def ask(talk, question="What is 23 * 47?", adapter="", template="", names=BOTH, model=MODEL):
        return tools_tab.ask(services, toolbox, view, talk, question, model, adapter, template, names)

    return ask


def titles(bubbles):
    return [b.get("metadata", {}).get("title") or f"{b['role']}: {b['content']}" for b in bubbles]


def test_every_step_is_shown(services, view, ask):
    services.engine.enqueue(ADD, "23 * 47 = 1081.")
    talk = Talk()
    updates = list(ask(talk))
    assert titles(talk.bubbles) == [
        "user: What is 23 * 47?",
        "The model writes",
        'Call: calculator(expression = "23 * 47")',
        "Check: fits the tool's schema",
        'Result: {"result": 1081}',
        "The model writes (turn 2)",
        "assistant: 23 * 47 = 1081.",
    ]
    assert talk.bubbles[1]["content"] == ADD.replace("<", "&lt;").replace(">", "&gt;")
    assert talk.bubbles[4]["content"] == '{\n  "result": 1081\n}'
    assert {b["metadata"]["status"] for b in talk.bubbles if "metadata" in b} == {"done"}
    assert updates[-1][view.chatbot] == talk.bubbles
    assert "answered" in updates[-1][view.status]
    assert "20.0 tokens/s" in updates[-1][view.status]
    assert updates[0][view.question] == ""
    assert (updates[0][view.ask]["visible"], updates[-1][view.ask]["visible"]) == (False, True)
    assert (updates[0][view.stop]["visible"], updates[-1][view.stop]["visible"]) == (True, False)


def test_the_raw_text_streams(services, view, ask):
    services.engine.enqueue("one two three")
    raw = [update[view.chatbot][-1]["content"] for update in ask(Talk()) if view.chatbot in update]
    assert raw[:4] == ["…", "one", "one two", "one two three"]


def test_the_exact_prompt_of_every_turn_is_kept(services, view, ask):
    services.engine.enqueue(ADD, "1081.")
    updates = list(ask(Talk()))
    prompt = updates[-1][view.exact]
    assert prompt.count("─── turn") == 2
    assert prompt.startswith("─── turn 1 ───\n[user] What is 23 * 47?\n")
    assert '[tool] {"result": 1081}' in prompt


def test_the_next_question_sends_the_talk_along(services, ask):
    services.engine.enqueue(ADD, "1081.", "You're welcome!")
    talk = Talk()
    list(ask(talk))
    list(ask(talk, "thanks"))
    roles = [m["role"] for m in services.engine.replies[2].conversation.messages]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]
    assert [b["content"] for b in talk.bubbles if b["role"] == "user"] == ["What is 23 * 47?", "thanks"]


@pytest.mark.parametrize(
    "reply, title, word",
    [
        ("<tool_call>{oops}</tool_call>", "Check: malformed call", "broken at character 2"),
        ('<tool_call>{"name": "calculator"', "Check: truncated call", "ended inside the call"),
        ('<tool_call>{"name": "calc", "arguments": {}}</tool_call>', "Check: wrong function", "no tool named 'calc'"),
        (
            '<tool_call>{"name": "calculator", "arguments": {}}</tool_call>',
            "Check: missing required argument",
            "needs the argument",
        ),
        (
            '<tool_call>{"name": "calculator", "arguments": {"expression": "1 / 0"}}</tool_call>',
            "Result: tool error",
            "Division by zero",
        ),
        (
            '<tool_call>{"name": "get_weather", "arguments": {"city": "Pariss"}}</tool_call>',
            "Result: tool error",
            "did you mean Paris?",
        ),
    ],
)
def test_a_fault_is_shown_by_its_name_and_stays_open(services, view, ask, reply, title, word):
    services.engine.enqueue(reply, "Sorry.")
    talk = Talk()
    updates = list(ask(talk))
    fault = next(b for b in talk.bubbles if b.get("metadata", {}).get("title") == title)
    assert word in fault["content"]
    assert "status" not in fault["metadata"]
    assert title.split(": ")[1] in updates[-1][view.status]
    assert titles(talk.bubbles)[-1] == "assistant: Sorry."


def test_an_endless_loop_is_shown(services, ask):
    services.engine.enqueue(ADD, ADD)
    talk = Talk()
    list(ask(talk))
    assert titles(talk.bubbles)[-1] == "Ended: endless loop: the same call again, with the same result"


def test_a_reply_that_fails_is_shown_and_the_question_is_not_sent_again(services, ask):
    services.engine.enqueue("", reason="error", error=f"out of memory {EVIL}")
    talk = Talk()
    list(ask(talk))
    assert "The reply failed" in titles(talk.bubbles)
    assert talk.messages == []
    assert not talk.busy


def test_a_prompt_that_outgrows_the_context_later_is_shown(services, ask):
    services.engine.enqueue(ADD)
    talk = Talk()
    list(ask(talk))
    assert talk.bubbles[-1]["content"] == "the prompt is too long"
    assert not talk.busy


@pytest.mark.parametrize("text", [EVIL, f"<tool_call>{EVIL}</tool_call>"])
def test_nothing_that_anyone_writes_is_html(services, view, ask, text):
    services.engine.enqueue(text, EVIL)
    talk = Talk()
    updates = list(ask(talk, EVIL))
    shown = [b["content"] + b.get("metadata", {}).get("title", "") for b in talk.bubbles]
    assert not [content for content in shown if "<" in content]
    assert "<img" not in updates[-1][view.status]


def test_a_call_named_like_html_is_not_html(services, ask):
    services.engine.enqueue('<tool_call>{"name": "<img src=x>", "arguments": {}}</tool_call>', "Sorry.")
    talk = Talk()
    list(ask(talk))
    assert "Call: &lt;img src=x&gt;()" in titles(talk.bubbles)


@pytest.mark.parametrize(
    "asked, sentence",
    [
        ({"question": "  "}, "write a question first"),
        ({"question": None}, "write a question first"),
        ({"model": ""}, "choose a model"),
        ({"template": "alpaca"}, "no call format is known for the template alpaca; choose chatml-tools"),
        ({}, "the prompt is too long"),
    ],
)
def test_what_cannot_be_asked_is_said_and_nothing_is_lost(ask, asked, sentence):
    talk = Talk()
    with pytest.raises(PlaygroundError, match=sentence):
        next(ask(talk, **asked))
    assert (talk.bubbles, talk.messages, talk.busy) == ([], [], False)


def test_one_question_at_a_time(services, ask):
    services.engine.enqueue("one two", "three")
    talk = Talk()
    running = ask(talk)
    next(running)
    with pytest.raises(PlaygroundError, match="still being answered"):
        next(ask(talk))
    list(running)
    list(ask(talk))


def test_stop_ends_the_reply_and_keeps_what_is_there(services, ask):
    services.engine.enqueue("one two three four")
    talk = Talk()
    updates = ask(talk)
    for _ in range(3):
        next(updates)
    tools_tab.stop(talk)
    list(updates)
    assert services.engine.replies[0].finish_reason == "cancelled"
    assert titles(talk.bubbles)[-1] == "Ended: stopped"
    assert talk.messages[-1] == {"role": "assistant", "content": "one two"}


def test_clear_while_a_question_is_answered_leaves_an_empty_page(services, view, ask):
    services.engine.enqueue("one two three four", "fresh")
    talk = Talk()
    updates = ask(talk)
    for _ in range(3):
        next(updates)
    assert tools_tab.clear(view, talk)[view.chatbot] == []
    list(updates)
    assert (talk.bubbles, talk.messages, talk.busy) == ([], [], False)
    list(ask(talk))
    assert titles(talk.bubbles)[-1] == "assistant: fresh"


def test_a_visitor_who_leaves_does_not_keep_the_model_busy(services, ask):
    services.engine.enqueue("one two three four")
    updates = ask(Talk())
    for _ in range(3):
        next(updates)
    updates.close()
    assert services.engine.replies[0].finish_reason == "cancelled"


@pytest.mark.parametrize(
    "own, template, used, note",
    [
        ("chatml", "", "chatml-tools", "leaves tools out, so chatml-tools is used"),
        ("react", "", "", "template react, calls in the react format"),
        ("chatml", "react", "react", "template react, calls in the react format"),
        ("reasoning-tools", "model", "model", "template reasoning-tools, calls in the reasoning format"),
    ],
)
def test_the_template_is_one_that_can_call(services, view, ask, own, template, used, note):
    services.engine.own = own
    services.engine.enqueue("Hi")
    updates = list(ask(Talk(), "hello", template=template))
    assert services.engine.replies[0].lane.template == used
    assert note in updates[-1][view.status]
    assert services.engine.stops[0] == (("<Observation>",) if "react" in note else ("<tool_response>",))


def test_only_the_chosen_tools_are_offered(services, ask):
    services.engine.enqueue(ADD, "Sorry.", "Hi")
    talk = Talk()
    list(ask(talk, names=["get_weather"]))
    offered = services.engine.replies[0].conversation.tools
    assert [schema["function"]["name"] for schema in offered] == ["get_weather"]
    assert "Check: wrong function" in titles(talk.bubbles)
    list(ask(Talk(), "hello", names=[]))
    assert services.engine.replies[-1].conversation.tools == []


def test_calls_are_greedy(services, ask):
    services.engine.enqueue("Hi")
    list(ask(Talk(), adapter="tool-calling"))
    lane = services.engine.replies[0].lane
    assert (lane.adapter, lane.sampling.temperature, lane.sampling.repetition_penalty) == ("tool-calling", 0.0, 1.0)


def info(name, template, base=MODEL):
    return SimpleNamespace(name=name, base_model=base, template=template and templates.load(template))


@pytest.mark.parametrize(
    "infos, chosen",
    [
        ([], ""),
        ([info("poems", "chatml")], ""),
        ([info("other", "chatml-tools", "another-model")], ""),
        ([info("bare", None)], ""),
        ([info("poems", "chatml"), info("calls", "chatml-tools"), info("later", "react")], "calls"),
    ],
)
def test_the_first_tool_calling_adapter_is_chosen_when_the_page_opens(services, view, infos, chosen):
    services.engine.infos = infos
    update = tools_tab.opened(services, view)
    assert update[view.adapter]["value"] == chosen
    placeholder = update[view.chatbot]["placeholder"]
    assert ("Train one under Fine-tune" in placeholder) == (chosen == "")


def test_what_is_chosen_stays_chosen_while_runs_finish(services, view):
    services.engine.infos = [info("calls", "chatml-tools")]
    assert "value" not in tools_tab.refresh(services, view, "")[view.adapter]
    assert "value" not in tools_tab.refresh(services, view, "calls")[view.adapter]
    assert tools_tab.refresh(services, view, "deleted")[view.adapter]["value"] == ""


def test_without_a_model_the_page_says_what_to_do(services, view):
    services.sources.here = set()
    assert "No model is on this machine yet" in tools_tab.opened(services, view)[view.chatbot]["placeholder"]


def test_the_schemas_are_shown(toolbox):
    assert '"name": "calculator"' in tools_tab.schema_text(toolbox, ["calculator"])
    assert "get_weather" not in tools_tab.schema_text(toolbox, ["calculator"])
    assert tools_tab.schema_text(toolbox, []) == "no tools"
