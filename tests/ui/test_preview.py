import re
import time
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from playground.core import datasets
from playground.core.tokenizer import Tokenizer
from playground.ui import preview_tab
from playground.ui.preview_tab import TEXT, TOKENS, Reader, draw, example_text, page, pick

SAMPLES = datasets.samples()


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
    done = preview_tab.templates.render(
        preview_tab.templates.load("chatml"), SAMPLES["Question and answer"], tokenizer, sanitize=True
    )
    shown = Text(re.search(r'<p class="counts">(.*?)</p>', html)[1]).text
    share = f"{sum(done.mask) / len(done.ids):.0%}"
    assert shown == f"{len(done.text)} characters · {len(done.ids)} tokens · {sum(done.mask)} trained ({share})"


def test_token_chips(tokenizer):
    html = drawn("Question and answer", ["chatml"], TOKENS, tokenizer)
    done = preview_tab.templates.render(preview_tab.templates.load("chatml"), SAMPLES["Question and answer"], tokenizer)
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
    assert Text(preview_tab.chip_text("<img src=x onerror=alert(1)>")).tags == [
        "span",
        "span",
    ]  # the marks of its spaces
    assert "<img" not in preview_tab.chip_text("<img src=x onerror=alert(1)>")


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
    return Reader(SimpleNamespace(sources=sources), loads)


def test_draw_without_a_model_shows_text_and_says_why():
    html, timer = draw(reader(), "Hi", ["chatml"], "", TOKENS, "tiny", False, True)
    assert "Tiny model is not on this machine yet, so there are no token ids" in Text(html).text
    assert "<|im_start|>user↵\nHi<|im_end|>" in Text(body(html)).text
    assert timer.active is True  # looks again until it is there


def test_draw_with_a_model(tokenizer_folder):
    html, timer = draw(reader(tokenizer_folder), "Hi", ["chatml", "model"], "", TOKENS, "tiny", True, True)
    assert "not on this machine" not in html
    assert html.count('<div class="body tokens">') == 2
    assert timer.active is False


def test_draw_with_a_broken_tokenizer(tmp_path):
    html, timer = draw(reader(tmp_path), "Hi", ["chatml"], "", TEXT, "tiny", False, True)
    assert "The tokenizer cannot be read, so there are no token ids" in Text(html).text
    assert "<|im_start|>user" in Text(body(html)).text
    assert timer.active is False


@pytest.mark.parametrize("sample", SAMPLES)
def test_samples_survive_the_text_field(sample):
    text, row = pick(sample, None)
    assert preview_tab.parse_conversation(text) == SAMPLES[sample]
    assert row["visible"] is False


def test_pick_a_row_of_a_data_set():
    conversations = datasets.load("instructions").conversations
    for given, taken in [(2, 2), (None, 1), (0, 1), (10**6, len(conversations))]:
        text, row = pick("data:instructions", given)
        assert preview_tab.parse_conversation(text) == conversations[taken - 1]
        assert (row["visible"], row["label"]) == (True, f"Row of {len(conversations)}")


def test_the_tab_builds_without_a_model(tmp_path):
    gr = pytest.importorskip("gradio")
    entry = SimpleNamespace(name="tiny", title="Tiny model", context=64)
    services = SimpleNamespace(sources=SimpleNamespace(find=lambda n: None, entries=lambda: [entry]), model="tiny")
    with gr.Blocks():
        preview_tab.build(services)
