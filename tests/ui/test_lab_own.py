"""Write your own template, and the controls for the variables of the chosen ones: what the handlers give."""

import html
import json
import threading
from types import SimpleNamespace

import gradio as gr
import pytest

from playground.config import Paths
from playground.core import sandbox, templates
from playground.core.messages import Conversation
from playground.core.template_variables import Variable
from playground.errors import PlaygroundError
from playground.services.templates import Templates
from playground.ui.lab import faults, own, reference, variables
from playground.ui.lab.shared import Lab, Reader

MODEL = "smollm2-135m-instruct"
EXAMPLE = '{"messages": [{"role": "user", "content": "Hello <b>"}, {"role": "assistant", "content": "Hi"}]}'
SAY = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
SHORT = "{{ messages[0].content }}"


@pytest.fixture
def reader(tmp_path, tokenizer, monkeypatch):
    monkeypatch.delenv("SPACE_ID", raising=False)
    library = tmp_path / "published"
    library.mkdir()
    entries = [SimpleNamespace(name=MODEL, title="SmolLM2", context=2048)]
    sources = SimpleNamespace(find=lambda model: tmp_path if model == MODEL else None, entries=lambda: entries)
    services = SimpleNamespace(templates=Templates(Paths(tmp_path / "home"), library), sources=sources)
    return Reader(services, lambda folder: tokenizer)


@pytest.fixture
def saved(reader):
    return reader.services.templates.save("terse", SHORT)


def saved_text(reader, key):
    return reader.services.templates.load(key).text


# The live card --------------------------------------------------------------------------------------------------------


def draw(reader, text, example=EXAMPLE, model=MODEL, values=None, card=own.plain_card):
    return own.draw(reader, card, text, example, model, values or {})


def test_the_example_is_rendered_as_the_text_is_typed(reader):
    problem, preview, snippet = draw(reader, SAY)
    assert problem == ""
    assert "<pre>user: Hello &lt;b&gt;\nassistant: Hi\n</pre>" in preview
    assert json.loads(snippet) == {"chat_template": SAY}


def test_the_template_it_opens_with_renders_and_marks_what_is_trained(reader, tokenizer):
    seen = []
    problem, _, _ = draw(reader, own.START, card=lambda *args: seen.append(args) or "card")
    [(template, conversation, given)] = seen
    done = templates.render(template, conversation, given)
    assert (problem, given, template.title, done.mask_rule) == ("", tokenizer, "Your template", "generation")
    assert done.trained_text == "Hi<|im_end|>"
    assert done.text == "<|user|>\nHello <b>\n<|assistant|>\nHi<|im_end|>\n"


def test_the_page_s_variables_reach_the_card(reader):
    assert "loud" in draw(reader, "{% if x %}loud{% endif %}", values={"x": True})[1]


def test_without_a_tokenizer_there_is_still_a_card(reader):
    assert "Hello" in draw(reader, SHORT, model="not here")[1]


def test_a_syntax_error_marks_its_place_and_keeps_the_last_card(reader):
    problem, preview, snippet = draw(reader, "<i>\n{{ messages | nope }}\nlast")
    assert "<b>Line 2, column 15:</b> there is no filter named &#x27;nope&#x27;" in problem
    assert "{{ messages | <mark>nope</mark> }}" in problem
    assert "&lt;i&gt;" in problem
    assert "<i>" not in problem
    assert preview == gr.skip()
    assert "nope" in snippet


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a\n{{ messages.content.text }}", "<b>Line 2, column"),
        ("{{ raise_exception('only <one> turn') }}", "refuses this conversation: only &lt;one&gt; turn"),
        (ENDLESS, "runs longer than 0.3 seconds"),
    ],
)
def test_an_error_of_the_rendering_is_shown_instead_of_the_card(reader, text, says, monkeypatch):
    if text == ENDLESS:
        monkeypatch.setattr(sandbox, "DEADLINE", 0.3)
    problem, preview, _ = draw(reader, text)
    assert (says in problem, preview) == (True, ""), problem


def test_empty_states_say_what_to_do_first(reader):
    assert "start from a copy" in draw(reader, " \n")[1]
    assert "there is no example: pick one" in draw(reader, SAY, example="")[1]


def test_a_long_line_shows_what_stands_around_the_fault():
    text = "<" * 4000 + "HERE" + ">" * 4000
    source = faults.marked(text, 4001)
    assert "<mark>HERE</mark>" in source
    assert len(html.unescape(source)) < 200
    assert faults.marked("ab", 3) == "ab<mark>&nbsp;</mark>"


# Opening, saving, deleting --------------------------------------------------------------------------------------------


def test_starting_from_a_copy_opens_its_text(reader, saved, tokenizer):
    got = own.start(reader, saved, "", "", MODEL)
    assert (got["editor"], got["opened"], got["current"], got["name"]) == (SHORT, SHORT, saved, "terse")
    assert got["delete"]["visible"] is True
    got = own.start(reader, "chatml", own.START, own.START, MODEL)
    assert (got["editor"], got["name"]) == (templates.load("chatml").text, "my-chatml")
    assert got["delete"]["visible"] is False
    assert own.start(reader, "model", "", "", MODEL)["editor"] == tokenizer.chat_template


def test_line_ends_are_those_of_the_editor(reader):
    got = own.start(reader, reader.services.templates.save("crlf", "a\r\nb\rc"), "", "", MODEL)
    assert got["editor"] == got["opened"] == "a\nb\nc"  # else what was just opened would count as changed


def test_unsaved_changes_are_replaced_only_after_yes(reader, saved):
    asked = own.start(reader, saved, SHORT + "changed", SHORT, MODEL)
    assert "editor" not in asked
    assert asked["confirm"]["visible"] is True
    assert "not saved. Replace them?" in asked["question"]
    done = own.confirmed(reader, asked["pending"], SHORT + "changed", [], MODEL)
    assert (done["editor"], done["confirm"]["visible"], done["pending"]) == (SHORT, False, ("", ""))
    assert own.declined("chatml")["start"]["value"] == "chatml"


def test_saving_chooses_the_template_in_both_lists(reader):
    got = own.save_as(reader, "My own", SAY, ["chatml"])
    assert saved_text(reader, "mine:My-own") == SAY
    assert got["chosen"]["value"] == ["chatml", "mine:My-own"]
    assert ("mine: My-own", "mine:My-own") in got["chosen"]["choices"] == got["start"]["choices"]
    assert (got["opened"], got["current"], got["name"]) == (SAY, "mine:My-own", "My-own")
    assert own.save_as(reader, "My own", SAY, got["chosen"]["value"])["chosen"]["value"] == ["chatml", "mine:My-own"]


def test_overwriting_is_asked_about(reader, saved):
    asked = own.save_as(reader, "terse", SAY, [])
    assert "already. Overwrite it?" in asked["question"]
    assert saved_text(reader, saved) == SHORT
    own.confirmed(reader, asked["pending"], SAY, [], MODEL)
    assert saved_text(reader, saved) == SAY


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [("", SAY, "needs a name"), ("x", "", "is empty"), ("x", "{% if %}", "mistake in line 1"), ("!", SAY, "letters")],
)
def test_what_cannot_be_saved_is_said(reader, name, text, sentence):
    with pytest.raises(PlaygroundError, match=sentence):
        own.save_as(reader, name, text, [])


def test_deleting_is_asked_about_and_leaves_the_text(reader, saved):
    asked = own.ask_delete(saved)
    assert "Delete the saved template “terse”" in asked["question"]
    assert reader.services.templates.mine() == ["terse"]
    done = own.confirmed(reader, asked["pending"], SHORT, ["chatml", saved], MODEL)
    assert reader.services.templates.mine() == []
    assert done["chosen"]["value"] == ["chatml"]
    assert saved not in [key for _, key in done["start"]["choices"]]
    assert "editor" not in done
    assert "editor" not in own.start(reader, "chatml", SHORT, done["opened"], MODEL)  # it asks: the text is not saved
    with pytest.raises(PlaygroundError, match="saved here"):
        own.ask_delete("chatml")


def test_names_are_escaped_in_questions(reader):
    assert "<b>" not in own.ask_delete("mine:<b>")["question"]


def test_a_late_yes_changes_nothing(reader, saved):
    assert set(own.confirmed(reader, ("", ""), SAY, [], MODEL)) == {"confirm", "pending"}
    assert saved_text(reader, saved) == SHORT


# From files and models ------------------------------------------------------------------------------------------------


def test_an_uploaded_file_is_saved_chosen_and_opened(reader, tmp_path):
    file = tmp_path / "chat_template.jinja"
    file.write_text(SAY)
    got = own.add_file(reader, str(file), own.START, own.START, ["chatml"])
    assert (got["editor"], got["chosen"]["value"]) == (SAY, ["chatml", "mine:uploaded"])
    assert got["start"]["value"] == "mine:uploaded"
    asked = own.add_file(reader, str(file), "changed", own.START, [])
    assert "editor" not in asked
    assert asked["pending"] == ("replace", "mine:uploaded")


def test_a_folder_and_a_model_of_the_hub(reader, tokenizer_folder, monkeypatch):
    [got] = own.get(reader, str(tokenizer_folder), "", "", [], threading.Event())
    assert got["editor"] == (tokenizer_folder / "chat_template.jinja").read_text()
    asked = []

    def add_hub(repo, revision, cancel):
        asked.append((repo, revision))
        return [reader.services.templates.save("from-the-hub", SAY)]

    monkeypatch.setattr(reader.services.templates, "add_hub", add_hub)
    *_, last = own.get(reader, " Qwen/Qwen3-0.6B@main ", "", "", [], threading.Event())
    assert (asked, last["editor"]) == ([("Qwen/Qwen3-0.6B", "main")], SAY)
    with pytest.raises(PlaygroundError, match="name a model"):
        list(own.get(reader, " ", "", "", [], threading.Event()))


def test_waiting_for_the_hub_is_shown_and_can_be_cancelled(reader, monkeypatch):
    ended = threading.Event()

    def add_hub(repo, revision, cancel):
        cancel.wait(10)
        ended.set()
        return []

    monkeypatch.setattr(reader.services.templates, "add_hub", add_hub)
    monkeypatch.setattr(own, "PAUSE", 0.01)
    cancel = threading.Event()
    steps = own.get(reader, "a/b", "", "", [], cancel)
    assert "Asking the Hub for the template of a/b … 0 s; it gives up within 30 s more" in next(steps)["said"]
    cancel.set()
    assert "Cancelled" in list(steps)[-1]["said"]
    assert ended.wait(5)


def test_a_page_that_is_closed_cancels_the_fetch(reader, monkeypatch):
    cancel = threading.Event()
    monkeypatch.setattr(reader.services.templates, "add_hub", lambda *_: cancel.wait(10) and [])
    steps = own.get(reader, "a/b", "", "", [], cancel)
    next(steps)
    steps.close()
    assert cancel.is_set()


def test_an_error_of_the_hub_reaches_the_visitor(reader, monkeypatch):
    def add_hub(*_):
        raise PlaygroundError("a/b is gated")

    monkeypatch.setattr(reader.services.templates, "add_hub", add_hub)
    with pytest.raises(PlaygroundError, match="gated"):
        list(own.get(reader, "a/b", "", "", [], threading.Event()))


# Help -----------------------------------------------------------------------------------------------------------------


def test_the_help_names_whatever_the_environment_offers():
    env = sandbox.environment()
    text = html.unescape(reference.usable())
    names = [*env.filters, *env.globals, *(name for name in env.tests if name.isidentifier())]
    assert [name for name in names if name not in text] == []
    assert all(described in env.filters for described in reference._FILTERS)
    assert all(described in env.globals for described in reference._FUNCTIONS)
    assert all(described in env.tests for described in reference._TESTS)


# Variables ------------------------------------------------------------------------------------------------------------


def add(reader, **texts):
    return [reader.services.templates.save(name, text) for name, text in texts.items()]


def test_the_variables_of_all_chosen_templates_have_one_control_each(reader):
    keys = add(
        reader,
        a="{% if think | default(true) %}{% endif %}{% if effort == 'low' %}{% endif %}",
        b="{% if think %}{% endif %}{% if effort == 'high' %}{% endif %}{{ date }}",
    )
    found = variables.controls(reader, [*keys, "mine:gone", "model"], "not here")
    assert [control.variable for control in found] == [
        Variable("think", "switch"),  # the defaults differ
        Variable("effort", "choice", ("low", "high")),
        Variable("date", "text"),
    ]
    assert [control.readers for control in found] == [("a", "b"), ("a", "b"), ("b",)]
    assert variables.info(found[0]) == "Read by a and b."
    assert variables.controls(reader, [], MODEL) == variables.controls(reader, None, MODEL) == []


def test_kinds_that_differ_become_a_text_field(reader):
    keys = add(reader, a="{% if x %}{% endif %}", b="{{ x }}")
    assert [control.variable.kind for control in variables.controls(reader, keys, MODEL)] == ["text"]


@pytest.mark.parametrize(
    ("variable", "value", "kind", "shown"),
    [
        (Variable("x", "switch", (), "true"), None, gr.Radio, ""),
        (Variable("x", "switch"), False, gr.Radio, "off"),
        (Variable("x", "switch"), "odd", gr.Radio, ""),
        (Variable("x", "choice", ("low", "high")), "high", gr.Dropdown, "high"),
        (Variable("x", "choice", ("low", "high")), "gone", gr.Dropdown, ""),
        (Variable("x", "text", (), "July"), "June", gr.Textbox, "June"),
        (Variable("x", "text", (), "July"), None, gr.Textbox, ""),
    ],
)
def test_a_control_shows_what_is_set(variable, value, kind, shown):
    control = variables.component(variables.Control(variable, ("ChatML",)), value)
    assert (type(control), control.value) == (kind, shown)


def test_the_default_is_named_in_the_words_of_the_control():
    assert variables.default_label(Variable("x", "switch", (), "true")) == "template's default (on)"
    assert variables.default_label(Variable("x", "choice", ("true",), "true")) == "template's default (true)"
    assert variables.default_label(Variable("x", "switch")) == "template's default"


@pytest.mark.parametrize(
    ("given", "after"),
    [("on", {"y": 1, "x": True}), ("off", {"y": 1, "x": False}), ("", {"y": 1}), (None, {"y": 1}), (" ", {"y": 1})],
)
def test_an_unset_variable_is_in_no_dict(given, after):
    before = {"x": "old", "y": 1}
    assert variables.changed(Variable("x", "switch"), given, before) == after
    assert before == {"x": "old", "y": 1}
    assert variables.changed(Variable("x", "switch"), given, None) == {k: v for k, v in after.items() if k == "x"}


def test_a_control_s_value_changes_what_the_template_writes(reader):
    [key] = add(reader, a="{% if think is defined and think is false %}short{% else %}long{% endif %}")
    [control] = variables.controls(reader, [key], MODEL)
    call = Conversation([{"role": "user", "content": "x"}], [], variables.changed(control.variable, "off", {}))
    assert templates.render(reader.template(key), call).text == "short"


# The panels -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def page(reader):
    with gr.Blocks() as page:
        lab = Lab(
            reader=reader,
            source=gr.Dropdown([]),
            example=gr.Textbox(EXAMPLE),
            chosen=gr.Dropdown(reader.services.templates.choices(), value=["chatml"], multiselect=True),
            model=gr.Dropdown([MODEL], value=MODEL),
            variables=gr.State({}),
            row=gr.State(0),
        )
        with gr.Tab("Write your own"):
            own.build(lab)
        variables.build(lab)
    return page


def test_the_panels_are_laid_out_and_what_may_raise_is_queued(page):
    labels = {str(getattr(block, "label", None) or getattr(block, "value", None)) for block in page.blocks.values()}
    wanted = {"Start from a copy of", "Save as mine", "Download .jinja", "Open from a model", "What a template can use"}
    assert wanted - labels == set()
    raising = [f for f in page.fns.values() if hasattr(getattr(f.fn, "func", f.fn), "may_raise")]
    assert len(raising) >= 7
    assert [f.fn for f in raising if not f.queue] == []
    assert page.get_config_file()["components"]


def test_the_editor_keeps_outer_white_space(page):
    [editor] = [b for b in page.blocks.values() if isinstance(b, gr.Code) and b.language == "jinja2"]
    assert editor.postprocess("\n {{ a }} \n\n") == "\n {{ a }} \n\n"


def test_handlers_name_parts_that_there_are(page, reader, saved, tmp_path):
    """Each wired handler gives values for components of its event."""
    by_name = {f.fn.__wrapped__.args[0].func.__name__: f for f in page.fns.values() if hasattr(f.fn, "may_raise")
               and hasattr(f.fn.__wrapped__.args[0], "func")}  # fmt: skip
    got = by_name["start"].fn(saved, "", "", MODEL)
    assert set(got) <= set(by_name["start"].outputs)
    got = by_name["save_as"].fn("new", SAY, ["chatml"])
    assert set(got) <= set(by_name["save_as"].outputs)
    with pytest.raises(gr.Error, match="needs a name"):
        by_name["save_as"].fn("", SAY, ["chatml"])
    with pytest.raises(gr.Error, match="no folder"):
        list(by_name["get"].fn("/no/where", "", "", [], threading.Event()))
