import threading
from types import SimpleNamespace

import pytest

from playground.config import Paths
from playground.core.tokenizer import Tokenizer
from playground.errors import PlaygroundError
from playground.services.datasets import Datasets
from playground.services.templates import Templates
from playground.ui.lab import add
from playground.ui.lab.shared import Reader


def hub(repo, config, split, count, cancel):
    """Rows as the Hub would send them; "silent/one" sends none until it is cancelled."""
    if repo == "not/there":
        raise PlaygroundError("there is no data set not/there, or it is private")
    for number in range(count):
        while repo == "silent/one":
            yield None
            if cancel.is_set():
                raise PlaygroundError("cancelled")
        yield {"question": f"{number}?", "answer": str(number)}


@pytest.fixture
def reader(tmp_path):
    paths = Paths(tmp_path)
    return Reader(SimpleNamespace(datasets=Datasets(paths, hub), templates=Templates(paths)), Tokenizer.load)


def test_pasted_rows_become_a_data_set_that_is_selected(reader):
    source, known, said = add.add_text(reader, '[{"instruction": "Add", "output": "Sum"}]', "sums")
    assert source["value"] == "data:sums.json"
    assert ("Data set: sums.json", "data:sums.json") in source["choices"]
    assert known["value"] == "sums.json"
    assert "sums.json: 1 rows in the alpaca format" in said


def test_an_uploaded_file(reader, tmp_path):
    file = tmp_path / "given" / "rows.csv"
    file.parent.mkdir()
    file.write_text("question,answer\nOne?,1\nTwo?,2\n")
    source, _, said = add.add_file(reader, str(file))
    assert source["value"] == "data:rows.csv"
    assert "2 rows" in said
    with pytest.raises(PlaygroundError, match="no text to keep"):
        add.add_text(reader, " ", "x")


def test_columns_that_are_not_understood_are_asked_for_and_remembered(reader):
    source, _known, said = add.add_text(reader, "Ask,Reply,Mood\nOne?,1,good\nTwo?,2,bad\n", "odd")
    assert "value" not in source
    assert "Say what its columns mean" in said
    _told, form, _preview, _, *columns = add.columns_of(reader, "odd.csv")
    assert form["visible"] is True
    assert columns[0]["choices"] == ["–", "Ask", "Reply", "Mood"]
    values = ["Ask" if f == "prompt" else "Reply" if f == "answer" else "–" for f in add.COLUMNS]
    assert "<b>assistant</b>: 1" in add.preview_of(reader, "odd.csv", *values)
    source, _, said = add.remember(reader, "odd.csv", *values)
    assert source["value"] == "data:odd.csv"
    assert reader.data("data:odd.csv").conversations[1].messages[1]["content"] == "2"
    with pytest.raises(PlaygroundError, match="names no column for the prompt"):
        add.remember(reader, "odd.csv", *["Mood" if f == "answer" else "–" for f in add.COLUMNS])


def test_markup_in_rows_is_shown_not_executed(reader):
    add.add_text(reader, '[{"instruction": "<script>x</script>", "output": "<img src=x onerror=y>"}]', "bad")
    _, _, preview, *_ = add.columns_of(reader, "bad.json")
    assert "<script" not in preview
    assert "<img" not in preview


def test_rows_of_the_hub_come_with_progress(reader):
    steps = list(add.add_hub(reader, "owner/name", "", "train", 5, threading.Event()))
    source, _known, said = steps[-1]
    assert source["value"] == "data:owner-name-train-first-5.jsonl"
    assert "5 rows" in said


@pytest.mark.parametrize(
    "repo, count, sentence",
    [
        ("not/there", 5, "there is no data set"),
        (" ", 5, "which data set"),
        ("owner/name", 0, "rows must be between"),
        ("owner/name", None, "must be a whole number, got nothing"),
    ],
)
def test_what_the_hub_refuses(reader, repo, count, sentence):
    with pytest.raises(PlaygroundError, match=sentence):
        list(add.add_hub(reader, repo, "", "", count, threading.Event()))


def test_a_cancelled_fetch_keeps_nothing(reader):
    cancel = threading.Event()
    timer = threading.Timer(0.2, cancel.set)
    timer.start()
    with pytest.raises(PlaygroundError, match="cancelled"):
        list(add.add_hub(reader, "silent/one", "", "", 5, cancel))
    assert reader.services.datasets.names() == Datasets(Paths(reader.services.datasets._folder.parent)).names()
    assert not any("silent" in name for name in reader.services.datasets.names())


def test_removing_asks_first_and_what_is_looked_at_stays(reader):
    add.add_text(reader, '[{"instruction": "Add", "output": "Sum"}]', "one")
    add.add_text(reader, '[{"instruction": "Add", "output": "Two"}]', "two")
    group, question = add.ask("one.json")
    assert group["visible"] is True
    assert "Remove one.json?" in question
    *_, source, known, _said = add.removed(reader, "one.json", "data:two.json")
    assert source["value"] == "data:two.json"
    assert known["choices"] == ["two.json"]
    *_, source, _, _ = add.removed(reader, "two.json", "data:two.json")
    assert not source["value"].startswith("data:")
