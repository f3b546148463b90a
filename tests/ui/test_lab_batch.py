import html
import re
from types import SimpleNamespace

import pytest

from playground.config import Paths
from playground.core import templates
from playground.core.batch_view import batch_view
from playground.services.datasets import Datasets
from playground.services.templates import Templates
from playground.ui.lab import batch
from playground.ui.lab.browse import example_text
from playground.ui.lab.shared import Reader

SOURCE = "data:talk.jsonl"


@pytest.fixture
def reader(tmp_path, tokenizer):
    store = Datasets(Paths(tmp_path))
    store.add_rows([{"prompt": "Hi " * n, "completion": f"Hello {n}"} for n in range(1, 6)], "talk.jsonl")
    entry = SimpleNamespace(name="tiny", title="Tiny model", context=64)
    sources = SimpleNamespace(find=lambda name: "folder" if name == "tiny" else None, entries=lambda: [entry])
    services = SimpleNamespace(datasets=store, templates=Templates(Paths(tmp_path)), sources=sources)
    return Reader(services, lambda folder: tokenizer)


def drawn(reader, row=0, key="chatml", count=3, length=512, masked=True, packed=False, under=batch.TARGETS, **more):
    text = more.get("text", example_text(reader.data(SOURCE).conversations[row]))
    source, model = more.get("source", SOURCE), more.get("model", "tiny")
    return batch.draw(reader, source, row, text, {}, model, key, count, length, masked, packed, under)


def cells(page: str) -> list[list[tuple[str, str, str]]]:
    """(class, piece, what stands under it) of each cell, by line."""
    lines = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    found = [re.findall(r'<td class="(.*?)" title=".*?">(.*?)<small>(.*?)</small>', line, re.DOTALL) for line in lines]
    return [[(kind, *(html.unescape(re.sub("<.*?>", "", x)) for x in rest)) for kind, *rest in line] for line in found]


def test_the_cells_are_those_of_the_batch(reader, tokenizer):
    view = batch_view(templates.load("chatml"), reader.data(SOURCE).conversations[:3], tokenizer, 512)
    found = cells(drawn(reader))
    assert [len(line) for line in found] == [view.width] * 3
    for line, shown in zip(view.lines, found, strict=True):
        trained = [target != batch.IGNORE for target in line.targets]
        assert ["on" in kind.split() for kind, _, _ in shown] == trained
        assert [below == "−100" for _, _, below in shown] == [not on for on in trained]
        assert [piece == "pad" for _, piece, _ in shown] == [not on for on in line.attention]


def test_toggles_change_the_cells(reader):
    plain = cells(drawn(reader))
    labels, ids = cells(drawn(reader, under=batch.LABELS)), cells(drawn(reader, under=batch.TOKENS))
    assert [x[2] for x in labels[0][1:]] == [x[2] for x in plain[0][:-1]]  # targets are the labels one further on
    assert all(below.isdigit() for _, _, below in ids[0])
    everything = cells(drawn(reader, masked=False))
    assert sum("on" in kind for kind, *_ in everything[0]) > sum("on" in kind for kind, *_ in plain[0])
    packed = drawn(reader, packed=True)
    assert len(cells(packed)) == 1
    assert "rows 1, 2, 3" in packed
    assert 'class="edge"' in packed or " edge" in packed


def test_a_cut_row_is_named(reader):
    page = drawn(reader, row=3, count=2, length=24, masked=False)
    assert re.search(r"Row 4 is cut: \d+ tokens are beyond 24", page)
    assert len(cells(page)[0]) == 24


def test_a_row_without_a_trained_token_is_named(reader):
    page = drawn(reader, count=2, text='[{"role": "user", "content": "No answer"}]')
    assert "Row 1 is left out: nothing in it is trained." in page


def test_what_is_missing_is_said(reader):
    assert "Choose one or more templates above" in drawn(reader, key=None)
    assert "other is not on this machine yet" in drawn(reader, model="other")
    assert "not valid JSON" in drawn(reader, text="[{")
    assert "No row is left for the batch" in drawn(reader, count=1, text='[{"role": "user", "content": "Hi"}]')


def test_markup_in_a_row_is_shown_not_executed(reader):
    page = drawn(reader, count=1, masked=False, text="<script>alert(1)</script>")
    assert "<script" not in page


def test_wide_batches_leave_out_the_middle(reader):
    page = drawn(reader, count=1, length=1024, masked=False, text="word " * 900)
    assert "more …" in page
    assert len(cells(page)[0]) == batch.MOST_CELLS


def test_the_shown_template_stays_selected(reader):
    update = batch.follow(reader, ["chatml", "alpaca"], "alpaca")
    assert (update["choices"], update["value"]) == ([("ChatML", "chatml"), ("Alpaca", "alpaca")], "alpaca")
    assert batch.follow(reader, ["chatml"], "alpaca")["value"] == "chatml"
    assert batch.follow(reader, [], "alpaca")["value"] is None
