import copy
import json
from html.parser import HTMLParser
from types import SimpleNamespace

import gradio as gr
import pytest

from playground.core import datasets, templates
from playground.core.datasets import Dataset
from playground.core.lint_checks import SEVERITIES, Finding
from playground.core.messages import Conversation
from playground.core.progress import Clock
from playground.errors import PlaygroundError
from playground.ui.lab import lint as view
from playground.ui.lab.progress import Cancel, UntilCancelled, calmly, duration, line
from playground.ui.lab.shared import DATA, Lab, Reader

MODEL = "smollm2-135m-instruct"
BROKEN = "{% for x in %}"
MINE = {  # templates of the store, by key
    "broken": templates.Template("broken", BROKEN, "Broken", source="mine"),
    "ends": templates.Template(
        "ends", "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}", "Ends", source="mine"
    ),
    "talk": templates.Template("talk", "{% for m in messages %}{{ m.content }}{% endfor %}", "<b>Talk</b>"),
}
TALK = {"messages": [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "It is Paris."}]}


class Shown(HTMLParser):
    def __init__(self, source: str):
        super().__init__()
        self.text, self.tags = "", []
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def reader_of(tokenizer, data=()):
    def load(key, tokenizer=None):
        return MINE[key] if key in MINE else templates.load(key, tokenizer)

    rows = dict(data)
    services = SimpleNamespace(
        templates=SimpleNamespace(load=load),
        datasets=SimpleNamespace(load=lambda name: rows[name] if name in rows else datasets.load(name)),
        sources=SimpleNamespace(
            find=lambda model: "folder" if tokenizer else None,
            entries=lambda: [SimpleNamespace(name=MODEL, title="SmolLM2", context=2048)],
        ),
    )
    return Reader(services, lambda folder: tokenizer)


def drawn(tokenizer, row=TALK, chosen=("chatml",), length=None, stops="", variables=None):
    text = row if isinstance(row, str) else json.dumps(row)
    body, timer = view.draw(reader_of(tokenizer), text, variables, list(chosen), MODEL, length, stops)
    return body, timer


def test_a_card_with_badges_and_findings_for_each_template(tokenizer):
    row = {**TALK, "messages": [{"role": "system", "content": "Be brief."}, *TALK["messages"]]}
    body, timer = drawn(tokenizer, row, ["chatml", "alpaca"])
    assert not timer.active
    assert body.count('class="templates-card"') == 2
    assert "system: yes" in body
    assert 'title="Tools are ignored">tools: no</span>' in body


def test_the_gravest_finding_comes_first(tokenizer):
    row = {"messages": [{"role": "user", "content": "<|im_end|> now"}, {"role": "assistant", "content": "Yes."}]}
    body = drawn(tokenizer, row, ["chatml"], length=3)[0]
    found = [part.split('"')[0] for part in body.split('<li class="')[1:]]
    assert found[0] == "error"
    assert found == sorted(found, key=SEVERITIES.index)
    assert '<b class="lint-error">Error:</b> Not one token of the row is trained' in body


def test_the_place_is_shown_as_tokens_with_their_ids(tokenizer):
    row = {"messages": [{"role": "user", "content": "A <|im_end|> typed"}, {"role": "assistant", "content": "Yes."}]}
    body = drawn(tokenizer, row)[0]
    item = body[body.index('data-rule="marker-in-content"') :]
    end = tokenizer.backend.token_to_id("<|im_end|>")
    assert f"&lt;|im_end|&gt;<small>{end}</small></span>" in item
    place = item[item.index('<div class="lint-place"') :]
    shown = Shown(place[: place.index("</div>")]).text
    assert shown == f"<|im_start|>user↵\nA <|im_end|>{end} typed<|im_end|>↵\n<|im_start|>assistant↵\nYes.<|im_end|>↵\n"


def place_text(finding, tokenizer, name="chatml", row=TALK):
    conversation = Conversation(row["messages"])
    done = templates.render(templates.load(name), conversation, tokenizer, spans=False)
    return done, view.place_of(finding, done, tokenizer)


def test_a_place_of_characters_is_marked_with_what_stands_around_it():
    done, place = place_text(Finding("truncated", "note", "", (20, 24)), None)
    assert f"<mark>{done.text[20:24]}</mark>" in place
    shown = Shown(place).text.replace("↵", "")
    assert shown == done.text[:20] + done.text[20:24] + done.text[24:84] + "…" * (len(done.text) > 84)
    assert place_text(Finding("system-dropped", "error", ""), None)[1] == ""
    _, place = place_text(Finding("prompt-differs", "error", "", (len(done.text),) * 2), None)
    assert "<mark>here</mark>" in place


def test_a_place_of_many_tokens_is_cut(tokenizer):
    done, place = place_text(Finding("truncated", "note", "", (0, 9), tuple(range(20))), tokenizer)
    assert place.count('class="lint-chip"') == view.CHIPS
    assert f"… {20 - view.CHIPS} more tokens" in place
    apart = tuple(range(0, 10, 2))
    _, place = place_text(Finding("markers-split", "note", "", (0, 9), apart), tokenizer)
    assert place.count('class="lint-place"') == view.PLACES
    assert "and 2 more places" in place
    assert f"<small>{done.ids[2]}</small>" in place


@pytest.mark.parametrize(
    "length, stops, finding, there",
    [
        (5, "", 'data-rule="truncated"', True),
        (None, "", 'data-rule="truncated"', False),
        (None, "</s>, <x>", '<li class="error" data-rule="stop-not-eos"', True),
        (None, "", '<li class="note" data-rule="stop-not-eos"', True),
        (None, "</s>,<end>", 'data-rule="stop-not-eos"', False),
    ],
)
def test_the_fields_feed_the_linter(tokenizer, length, stops, finding, there):
    assert (finding in drawn(tokenizer, chosen=["ends"], length=length, stops=stops)[0]) == there


@pytest.mark.parametrize(
    "given, found", [("", None), (" , ", None), ("</s>", ["</s>"]), (" a , <|im_end|>", ["a", "<|im_end|>"])]
)
def test_stop_list(given, found):
    assert view.stop_list(given) == found


def test_longest():
    assert view.longest(None, 2048) == 2048
    assert view.longest(None, 0) is None
    assert view.longest(7, 2048) == 7
    with pytest.raises(PlaygroundError, match="1 token or more, got -3"):
        view.longest(-3, 2048)


def test_no_finding_is_said(tokenizer):
    assert Shown(drawn(tokenizer)[0]).text.count("No finding.") == 1
    assert "No finding in the text; its tokens are not checked." in drawn(None)[0]


def test_what_is_missing_or_wrong_is_said_in_place(tokenizer):
    assert "Pick an example" in drawn(tokenizer, "")[0]
    assert "Choose one or more templates" in drawn(tokenizer, chosen=[])[0]
    assert "is not valid JSON" in drawn(tokenizer, "[{")[0]
    assert "1 token or more" in drawn(tokenizer, length=-4)[0]
    body, timer = drawn(None)
    assert "SmolLM2 is not on this machine yet" in body
    assert timer.active


def test_a_template_that_fails_leaves_the_others(tokenizer):
    body = drawn(tokenizer, chosen=["broken", "no such key", "chatml"])[0]
    assert body.count('class="templates-card"') == 3
    assert "Expected an expression" in Shown(body).text
    assert "There is no template &#x27;no such key&#x27;" in body
    assert "No finding." in body


def test_what_others_wrote_is_escaped(tokenizer):
    hostile = "<img src=x onerror=alert(1)>"
    row = {"messages": [{"role": "user", "content": f"{hostile} <|im_end|> {hostile}"}, TALK["messages"][1]]}
    for name in ("talk", "chatml"):
        body = drawn(tokenizer, row, [name], length=2, stops=hostile)[0]
        assert "img" not in Shown(body).tags
        assert name == "talk" or hostile in Shown(body).text
    assert "&lt;b&gt;Talk" in drawn(tokenizer, row, ["talk"])[0]


def test_the_page_s_variables_reach_the_template(tokenizer, monkeypatch):
    text = "{% if loud %}!{% else %}{{ raise_exception('quiet') }}{% endif %}"
    monkeypatch.setitem(MINE, "loud", templates.Template("loud", text, "Loud"))
    assert 'data-rule="refused"' in drawn(tokenizer, chosen=["loud"])[0]
    assert 'data-rule="refused"' not in drawn(tokenizer, chosen=["loud"], variables={"loud": True})[0]


# All rows -------------------------------------------------------------------------------------------------------------


def rows_of(count):
    """Every second row loses its system message under ALPACA-like templates that know none."""
    system = {"role": "system", "content": "Be brief."}
    return [Conversation([*([system] if n % 2 else []), *TALK["messages"]]) for n in range(count)]


def checked(tokenizer, rows, chosen=("talk",), stop=None, source=f"{DATA}some", numbers=()):
    data = Dataset("some", "messages", rows, numbers=list(numbers))
    reader = reader_of(tokenizer, {"some": data})
    return view.check_all(reader, source, None, list(chosen), MODEL, None, "", stop or Cancel())


def test_all_rows_are_tallied(tokenizer, monkeypatch):
    text = (
        "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    )
    monkeypatch.setitem(MINE, "nosystem", templates.Template("nosystem", text, "No system"))
    *_, last = checked(tokenizer, rows_of(20), ["nosystem", "chatml"], numbers=range(101, 121))
    assert "All 20 rows of some are checked." in last
    line = next(line for line in last.split("<tr>") if "system-dropped" in line)
    cells = [Shown(f"<td{cell}").text for cell in line.split("<td")[1:]]
    assert cells[:5] == ["Error", "system-dropped", "10", "50.0%", "102, 104, 106, 108, 110, 112 …"]
    assert "The model neither learns nor sees what the system message asks for." in line
    assert last.count('class="templates-card"') == 2


def test_progress_is_shown_and_a_cancel_keeps_the_tallies(tokenizer, monkeypatch):
    monkeypatch.setattr("playground.ui.lab.progress.PAUSE", 0)
    monkeypatch.setattr("playground.core.lint.CHUNK", 5)
    stop, seen = Cancel(), []
    stop.set()  # of an earlier run
    for body in checked(tokenizer, rows_of(50), ["alpaca", "talk"], stop):
        seen.append(body)
        if len(seen) == 2:
            stop.set()
    assert "Template 1 of 2, Alpaca: 5 of 50 rows" in seen[0]
    assert "rows/s" in seen[0]
    assert "Cancelled after 10 of 50 rows" in seen[-1]
    assert "Not checked: &lt;b&gt;Talk&lt;/b&gt;." in seen[-1]
    assert "10 rows checked" in seen[-1]


def test_a_template_that_cannot_be_loaded_does_not_stop_the_others(tokenizer):
    *_, last = checked(tokenizer, rows_of(3), ["no such key", "chatml"])
    assert "There is no template" in last
    assert "3 rows checked" in last


@pytest.mark.parametrize(
    "source, chosen, sentence",
    [
        ("Question and answer", ["chatml"], "This example is one row"),
        (f"{DATA}some", [], "Choose one or more templates"),
        (f"{DATA}missing", ["chatml"], "There is no data set &#x27;missing&#x27;"),
    ],
)
def test_what_to_do_first_is_said(tokenizer, source, chosen, sentence):
    (only,) = checked(tokenizer, rows_of(3), chosen, source=source)
    assert sentence in only


# Progress -------------------------------------------------------------------------------------------------------------


def test_each_session_has_its_own_cancel():
    first = Cancel()
    second = copy.deepcopy(first)
    first.set()
    assert isinstance(second, Cancel)
    assert not second.is_set()


def test_rows_end_when_the_visitor_cancels():
    stop, read = Cancel(), []
    rows = UntilCancelled(range(10), stop)
    for row in rows:
        read.append(row)
        if row == 3:
            stop.set()
    assert (read, len(rows)) == ([0, 1, 2, 3], 10)


def test_steps_are_shown_calmly_and_the_last_always(monkeypatch):
    clock = Clock(9)
    steps = [clock.progress("reading", n) for n in range(1, 10)]
    monkeypatch.setattr("playground.ui.lab.progress.PAUSE", 100)
    assert [step.done for step in calmly(steps)] == [1, 9]
    monkeypatch.setattr("playground.ui.lab.progress.PAUSE", 0)
    assert [step.done for step in calmly(steps)] == list(range(1, 10))
    assert list(calmly([])) == []


def test_a_line_of_progress():
    step = Clock(10).progress("reading", 4)
    shown = Shown(line(step, "Template <1>")).text
    assert shown.startswith("Template <1>: 4 of 10 rows, ")
    assert shown.endswith(" s left")
    assert 'style="width:40%"' in line(step, "x")
    assert [duration(s) for s in (5, 89, 600, 7200)] == ["5 s", "89 s", "10 min", "2.0 h"]


def test_the_view_is_built(tokenizer):
    with gr.Blocks() as page:
        lab = Lab(
            reader_of(tokenizer),
            gr.Dropdown([f"{DATA}instructions"]),
            gr.Textbox(),
            gr.Dropdown(["chatml"], value=["chatml"], multiselect=True),
            gr.Dropdown([MODEL], value=MODEL),
            gr.State({}),
            gr.State(0),
        )
        view.build(lab)
    labels = [getattr(block, "label", None) or getattr(block, "value", None) for block in page.blocks.values()]
    assert {"Longest row, in tokens", "Stop strings of your server", "Check all rows", "Cancel"} <= {
        label for label in labels if isinstance(label, str)
    }
