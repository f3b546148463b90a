import re
import time
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from playground.config import Paths
from playground.core import datasets, templates
from playground.core.messages import parse_conversation
from playground.core.tokenizer import Tokenizer
from playground.errors import PlaygroundError
from playground.services.datasets import Datasets
from playground.services.templates import Templates
from playground.ui import preview_tab
from playground.ui.lab import browse, cards
from playground.ui.lab.browse import example_text
from playground.ui.lab.cards import DIFF, TEXT, TOKENS
from playground.ui.lab.shared import Reader
from playground.ui.preview_tab import draw, system_and_tools, with_system, with_tools

SAMPLES = datasets.samples()
HOME = Paths(Path("nowhere"))
READER = Reader(SimpleNamespace(templates=Templates(HOME), datasets=Datasets(HOME)), Tokenizer.load)


def page(text, names, own="", view=TEXT, tokenizer=None, **more) -> str:
    """The page with an own template's card put in front, as the editor shows it."""
    drawn = preview_tab.page(READER, text, names, view, tokenizer, **more) if names or not own.strip() else ""
    if not own.strip():
        return drawn
    conversation = parse_conversation(text)
    sanitize, context = more.get("sanitize", True), more.get("context", 0)
    template = templates.pasted(own, "your own")
    return cards.card(template, conversation, tokenizer, view, sanitize=sanitize, context=context) + drawn


class Text(HTMLParser):
    """What a browser would show: the text, the tags, and the text of the trained spans."""

    def __init__(self, source: str):
        super().__init__()
        self.text, self.tags, self.trained, self._open = "", [], "", []
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag != "br":
            self._open.append("trained" in (dict(attributes).get("class") or "").split())

    def handle_endtag(self, tag):
        self._open.pop()

    def handle_data(self, data):
        self.text += data
        if any(self._open):
            self.trained += data


def body(html: str, number: int = 0) -> str:
    """The rendered part of one card."""
    return re.findall(r'<div class="body(?: tokens)?">(.*?)</div></section>', html, re.DOTALL)[number]


def drawn(sample: str, names: list[str], view=TEXT, tokenizer=None, **more) -> str:
    return page(example_text(SAMPLES[sample]), names, "", view, tokenizer, **more)


def test_one_card_per_template():
    html = drawn("Question and answer", ["chatml", "alpaca", "falcon"])
    assert re.findall(r"<h3>(.*?)</h3>", html) == ["ChatML", "Alpaca", "Falcon"]
    seen = Text(body(html))
    assert seen.text == (
        "<|im_start|>user↵\nWhat is the capital of France?<|im_end|>↵\n"
        "<|im_start|>assistant↵\nThe capital of France is Paris.<|im_end|>↵\n"
    )
    assert seen.trained == "The capital of France is Paris.<|im_end|>"


def test_counts(tokenizer):
    html = drawn("Question and answer", ["chatml"], tokenizer=tokenizer)
    done = templates.render(templates.load("chatml"), SAMPLES["Question and answer"], tokenizer, sanitize=True)
    shown = Text(re.search(r'<p class="counts">(.*?)</p>', html)[1]).text
    share = f"{sum(done.mask) / len(done.ids):.0%}"
    special = sum(id in tokenizer.special_ids for id in done.ids)
    assert shown == (
        f"{len(done.text)} characters · {len(done.ids)} tokens · {sum(done.mask)} trained ({share}) · {special} special"
    )


def test_token_chips(tokenizer):
    html = drawn("Question and answer", ["chatml"], TOKENS, tokenizer)
    done = templates.render(templates.load("chatml"), SAMPLES["Question and answer"], tokenizer)
    chips = re.findall(r'<span class="r ([^"]*)" title="id (\d+) · token (\d+) · (.*?)">', html)
    assert [int(id) for _, id, _, _ in chips] == done.ids
    assert [int(n) for _, _, n, _ in chips] == list(range(1, len(done.ids) + 1))
    assert ["trained" in c.split() for c, _, _, _ in chips] == done.mask
    assert [title.endswith(", trained") for _, _, _, title in chips] == done.mask
    assert ["special" in c.split() for c, _, _, _ in chips] == [i in tokenizer.special_ids for i in done.ids]
    assert Text(body(html)).text.replace("·", " ").replace("↵", "\n") == done.text


HOSTILE = '<img src=x onerror=alert(1)><script>alert(2)</script>" onmouseover="alert(3) &amp; ${1} {{x}}'


@pytest.mark.parametrize("view", [TEXT, TOKENS])
def test_markup_in_a_message_is_shown_not_executed(view, tokenizer):
    html = page(HOSTILE, ["chatml", "alpaca"], "", view, tokenizer)
    assert set(Text(html).tags) <= {"div", "span", "section", "header", "h3", "p", "b", "br"}
    assert not re.search(r"<[^>]* on\w+=", html)
    assert HOSTILE in Text(body(html)).text.replace("·", " ")


def test_markup_in_one_token_is_escaped(tokenizer):
    html = page("Hi <tool_call>", ["chatml"], "", TOKENS, tokenizer, sanitize=False)
    assert "tool_call" not in Text(html).tags
    assert ">&lt;tool_call&gt;</span>" in html
    assert Text(cards.chip_text("<img src=x onerror=alert(1)>")).tags == [
        "span",
        "span",
    ]  # the marks of its spaces
    assert "<img" not in cards.chip_text("<img src=x onerror=alert(1)>")


def test_markup_in_a_template_or_in_an_error_is_shown_not_executed(tokenizer):
    for own in [
        "<b onclick=alert(1)>{{ messages[0].content }}",
        "{{ raise_exception('<script>x</script>') }}",
        "{% <b> %}",
    ]:
        html = page(HOSTILE, [], own, TEXT, tokenizer)
        assert set(Text(html).tags) <= {"div", "span", "section", "header", "h3", "p", "b"}
        assert "onclick" not in "".join(re.findall(r"<(?:b|script)[^>]*>", html))
    html = page('[{"role": "<script>", "content": "x"}]', ["chatml"], "", TEXT, None)
    assert "<script>" not in html
    assert "has the role '<script>'" in Text(html).text


@pytest.mark.parametrize(
    "text, names, own, sentence",
    [
        ("", ["chatml"], "", "Pick an example under “Start from”, or paste messages"),
        ("Hi", [], " \n", "Choose one or more templates"),
        ("[{", ["chatml"], "", "This example cannot be rendered: the example is not valid JSON: Expecting"),
        ('[{"role": "human", "content": "x"}]', ["chatml"], "", "message 1 has the role 'human'; roles are system"),
        ('[{"role": "user", "content": "x"}, {"role": "assistant", "content": ""}]', ["chatml"], "", "is empty"),
    ],
)
def test_what_is_wrong_or_missing_is_said_in_place(text, names, own, sentence):
    html = page(text, names, own, TEXT, None)
    assert sentence in Text(html).text
    assert "templates-card" not in html


def test_one_failing_template_leaves_the_others():
    html = page("Hi", ["chatml", "model"], "a\n{% for x in %}", TEXT, None)
    assert re.findall(r"<h3>(.*?)</h3>", html) == ["Your own", "ChatML", "The model&#x27;s own"]
    seen = Text(html).text
    assert "The template your own, line 2, fails: Expected an expression" in seen
    assert "The model's own chat template is not there: no model is chosen" in seen
    assert "<|im_start|>user" in seen


@pytest.mark.parametrize(
    "sample, template, sentence",
    [
        (
            "Tool call with its result",
            "chatml",
            "No place here for the tools and tool results: the model never sees them.",
        ),
        ("Tool call with its result", "chatml-tools", None),
        ("Reasoning before the answer", "chatml", "No place here for the reasoning: the model never sees it."),
        ("Reasoning before the answer", "reasoning", None),
        ("System message, several turns", "llama-2", None),
    ],
)
def test_what_a_template_leaves_out_is_said(sample, template, sentence):
    html = drawn(sample, [template])
    said = [Text(note).text for note in re.findall(r'<p class="warn">(.*?)</p>', html)]
    assert said == ([sentence] if sentence else [])


def test_rows_without_a_trained_token_are_named():
    text = '[{"role": "user", "content": "Q"}, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": {}}]}]'
    assert (
        "Nothing is trained: no word of the assistant reaches this text."
        in Text(page(text, ["plain"], "", TEXT, None)).text
    )
    own = "{{ messages | length }}"
    assert (
        "Nothing can be trained: it has no {% generation %}"
        in Text(page(example_text(SAMPLES["Question and answer"]), [], own, TEXT, None)).text
    )


def test_control_tokens_of_a_user(tokenizer):
    sample = "A control token typed by the user"
    safe = drawn(sample, ["chatml"], tokenizer=tokenizer, sanitize=True)
    open_ = drawn(sample, ["chatml"], tokenizer=tokenizer, sanitize=False)
    assert Text(body(safe)).text == Text(body(open_)).text
    assert safe.count('<span class="special">&lt;|im_end|&gt;') == 3
    assert open_.count('<span class="special">&lt;|im_end|&gt;') == 5
    warning = "A message holds <|im_start|> and <|im_end|> as a real control token"
    assert warning in Text(open_).text
    assert warning not in Text(safe).text


def test_generation_prompt():
    html = drawn("Question and answer", ["chatml"], generation=True)
    assert Text(body(html)).text.endswith("<|im_start|>assistant↵\n")


def test_a_long_message_is_cut_on_the_page_but_counted_whole(tokenizer):
    text = "Hello there. " * 8000
    for view, words in [(TEXT, "characters not shown"), (TOKENS, "more tokens")]:
        start = time.monotonic()
        html = page(text, ["chatml", "plain"], "", view, tokenizer, context=8192)
        assert time.monotonic() - start < 3
        assert len(html) < 1_000_000
        assert words in html
        assert "<b>104,0" in html
        assert "Longer than the model&#x27;s context of 8,192 tokens" in html


# Handlers -------------------------------------------------------------------------------------------------------------


def reader(folder=None, loads=Tokenizer.load) -> Reader:
    entry = SimpleNamespace(name="tiny", title="Tiny model", context=64)
    sources = SimpleNamespace(find=lambda name: folder, entries=lambda: [entry])
    services = SimpleNamespace(sources=sources, templates=Templates(HOME), datasets=Datasets(HOME), model="tiny")
    return Reader(services, loads)


def test_draw_without_a_model_shows_text_and_says_why():
    html, timer = draw(reader(), "Hi", ["chatml"], TOKENS, "tiny", False, True)
    assert "Tiny model is not on this machine yet, so there are no token ids" in Text(html).text
    assert "<|im_start|>user↵\nHi<|im_end|>" in Text(body(html)).text
    assert timer.active is True  # looks again until it is there


def test_draw_with_a_model(tokenizer_folder):
    html, timer = draw(reader(tokenizer_folder), "Hi", ["chatml", "model"], TOKENS, "tiny", True, True)
    assert "not on this machine" not in html
    assert html.count('<div class="body tokens">') == 2
    assert timer.active is False


def test_draw_with_a_broken_tokenizer(tmp_path):
    html, timer = draw(reader(tmp_path), "Hi", ["chatml"], TEXT, "tiny", False, True)
    assert "The tokenizer cannot be read, so there are no token ids" in Text(html).text
    assert "<|im_start|>user" in Text(body(html)).text
    assert timer.active is False


# Browse ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path):
    """A reader over a store with one data set of 12 rows."""
    store = Datasets(Paths(tmp_path))
    rows = [{"instruction": f"Question {n}", "output": f"Answer {n}" + " and more" * (n == 7)} for n in range(1, 13)]
    store.add_rows(rows, "mine.jsonl")
    return Reader(SimpleNamespace(datasets=store, templates=Templates(Paths(tmp_path))), Tokenizer.load)


SOURCE = "data:mine.jsonl"


@pytest.mark.parametrize("sample", SAMPLES)
def test_samples_survive_the_text_field(sample):
    place, _number, text, _where, rows = browse.open_source(READER, sample)
    assert parse_conversation(text) == SAMPLES[sample]
    assert (place, rows["visible"]) == (0, False)


def test_a_source_that_is_not_there_is_said(data):
    with pytest.raises(PlaygroundError, match="there is no example 'nonsense'"):
        browse.open_source(data, "nonsense")
    with pytest.raises(PlaygroundError, match="there is no data set 'gone.json'"):
        browse.open_source(data, "data:gone.json")


def asked(values: list) -> str:
    return parse_conversation(values[2]).messages[0]["content"]


def test_walk_through_the_rows(data):
    assert asked(browse.open_source(data, SOURCE)) == "Question 1"
    assert asked(browse.move(data, browse.NEXT, SOURCE, 0)) == "Question 2"
    assert asked(browse.move(data, browse.PREVIOUS, SOURCE, 0)) == "Question 12"
    assert asked(browse.move(data, browse.NEXT, SOURCE, 11)) == "Question 1"
    for given, taken in [(5, 5), (None, 4), (0, 1), (-3, 1), (10**6, 12)]:  # an emptied field stays on its row
        values = browse.go_to(data, SOURCE, 3, given)
        assert asked(values) == f"Question {taken}"
        assert values[0] == taken - 1
        assert (values[1]["value"], values[1]["label"]) == (taken, "Row of 12")


def test_search_goes_on_to_the_next_row_that_holds_the_words(data):
    first = browse.find(data, SOURCE, "QUESTION 1", 0)
    assert asked(first) == "Question 10"
    assert "2 of 4 rows that hold “question 1”" in first[3]
    assert asked(browse.find(data, SOURCE, "question 1", 11)) == "Question 1"  # round and round
    with pytest.raises(PlaygroundError, match="no row holds 'elephant'; 12 rows were searched"):
        browse.find(data, SOURCE, "elephant", 0)
    with pytest.raises(PlaygroundError, match="write a word"):
        browse.find(data, SOURCE, "  ", 0)


def test_jumps(data):
    assert asked(browse.jump_to(data, SOURCE, "the longest")) == "Question 7"
    assert asked(browse.jump_to(data, SOURCE, "the shortest")) == "Question 1"
    with pytest.raises(PlaygroundError, match="mine.jsonl has no such row: the first with a tool call"):
        browse.jump_to(data, SOURCE, "the first with a tool call")
    values = browse.jump_to(READER, "data:tool-calls", "the first with a tool call")
    assert any(m.get("tool_calls") for m in parse_conversation(values[2]).messages)
    assert values[-1] is None  # the same jump can be chosen again


# The example, edited in place -----------------------------------------------------------------------------------------

TALK = '{"messages": [{"role": "user", "content": "Hi"}], "enable_thinking": true}'


def test_a_system_prompt_is_put_first_changed_and_taken_away():
    text, told = with_system(TALK, "Be brief.")
    assert told == ""
    given = parse_conversation(text)
    assert [m["role"] for m in given.messages] == ["system", "user"]
    assert given.variables == {"enable_thinking": True}
    assert system_and_tools(text)[0] == "Be brief."
    text, _ = with_system(text, "Be long.")
    assert [m["content"] for m in parse_conversation(text).messages] == ["Be long.", "Hi"]
    text, _ = with_system(text, "")
    assert [m["role"] for m in parse_conversation(text).messages] == ["user"]


def test_tools_are_edited_as_json():
    tools = '[{"type": "function", "function": {"name": "f", "parameters": {}}}]'
    text, told = with_tools(TALK, tools)
    assert told == ""
    assert parse_conversation(text).tools[0]["function"]["name"] == "f"
    for given, sentence in [("[{", "not valid JSON yet"), ("{}", "must be a list"), ("[1]", "must be a list")]:
        text, told = with_tools(TALK, given)
        assert sentence in told
        assert "value" not in text  # the example stays
    assert "has to be mended first" in with_tools("[{", tools)[1]


# Difference -----------------------------------------------------------------------------------------------------------


def test_the_difference_of_two_templates():
    html = drawn("Question and answer", ["chatml", "alpaca", "falcon"], DIFF)
    assert re.findall(r"<h3>(.*?)</h3>", html) == ["ChatML and Alpaca", "ChatML and Falcon"]
    first = re.findall(r'<div class="body diff">(.*?)</div></section>', html, re.DOTALL)[0]
    left = Text(re.sub(r"<ins.*?</ins>", "", first, flags=re.DOTALL)).text.replace("↵", "")
    right = Text(re.sub(r"<del.*?</del>", "", first, flags=re.DOTALL)).text.replace("↵", "")
    for seen, name in [(left, "chatml"), (right, "alpaca")]:
        assert seen == templates.render(templates.load(name), SAMPLES["Question and answer"]).text
    assert "Both write the same text." in drawn("Question and answer", ["chatml", "chatml"], DIFF)
    assert "Choose two templates" in drawn("Question and answer", ["chatml"], DIFF)


def test_the_difference_shows_markup_as_text():
    html = page(HOSTILE, ["chatml", "alpaca"], view=DIFF)
    assert set(Text(html).tags) <= {"div", "span", "section", "header", "h3", "p", "b", "br", "del", "ins"}


def test_the_lesson_of_the_wrong_template():
    text, names, view, generation, _ = preview_tab.lessons.start(READER)
    html = preview_tab.page(READER, text, names, view, generation=generation)
    assert "### Response:" in Text(html).text
    assert "<|im_start|>assistant" in Text(html).text
    share = int(re.search(r"(\d+)% of the characters are the same", html)[1])
    assert share < 50


def test_the_tab_builds_without_a_model(tmp_path):
    gr = pytest.importorskip("gradio")
    services = reader().services
    with gr.Blocks():
        preview_tab.build(services)
