"""Trained rows beside held-out rows: asked on a tiny model, kept in the run's folder, and put into words."""

import json
import threading

import pytest
import torch

from playground.config import Paths
from playground.core import by_heart as words
from playground.core.by_heart import HELD_OUT, TRAINED, Row, chosen, last_answer, sentence
from playground.core.training.collate import IGNORE, Example
from playground.errors import PlaygroundError
from playground.services import by_heart
from playground.services.by_heart import ByHeart
from playground.services.engine import Engine
from playground.services.runs import Events, Run, write_json
from playground.services.sources import Sources
from tests.services.test_engine_kinds import home as kinds  # noqa: F401
from tests.services.test_engine_kinds import tuned

DATA = [
    {"messages": [{"role": "user", "content": f"Say {n}"}, {"role": "assistant", "content": f"{n}"}]} for n in "abcdef"
]
# the new token stands before every answer
THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}{{ '<think>' }}"
    "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>' }}{% endif %}"
)


@pytest.fixture
def home(kinds):  # noqa: F811
    """The runs of every method, as if each had trained on four of six rows."""
    data = kinds / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in DATA))
    settings = {"model": str(kinds / "tiny"), "data": str(data), "eval_share": 0.34, "eval_rows": 2, "rank": 4}
    for name in ("dora", "soft", "tokens", "full"):
        write_json(kinds / "runs" / name / "config.json", {**settings, "name": name})
        (kinds / "runs" / name / by_heart.FILE).unlink(missing_ok=True)
    about = {"base_model": str(kinds / "tiny"), "template_text": THINKING}
    write_json(kinds / "runs" / "tokens" / "adapter" / "playground.json", about)
    return kinds


@pytest.fixture
def asker(home):
    engine = Engine(Sources(Paths(home), folders=[]), Paths(home), dtype="float32")
    yield ByHeart(engine, Paths(home))
    engine.close()


@pytest.mark.parametrize("name", ["dora", "soft", "tokens", "full"])
def test_rows_of_both_kinds_are_asked_and_kept(asker, home, name):
    run = Run(home / "runs" / name)
    asker.start(run, 2).join(60)
    found = by_heart.read(run)
    assert (found["state"], found["total"]) == ("done", 4), found["sentence"]
    rows = by_heart.rows_of(found)
    assert [row.kind for row in rows] == [TRAINED] * 2 + [HELD_OUT] * 2
    assert len({row.prompt for row in rows}) == 4
    for row in rows:
        assert row.prompt.endswith(
            f"Say {row.expected}<|im_end|>\n<|im_start|>assistant\n" + "<think>" * (name == "tokens")
        )
    assert found["sentence"] == sentence(rows)
    assert not asker.asking(run)


@pytest.mark.parametrize("name", ["dora", "soft", "full"])
def test_the_losses_are_those_of_peft(asker, home, name):
    run = Run(home / "runs" / name)
    example = asker._examples(run, run.config, None).train[0]
    asker.start(run, 1).join(60)
    row = by_heart.rows_of(by_heart.read(run))[0]
    for loss, model in ((row.base_loss, tuned(home, None)), (row.tuned_loss, tuned(home, name))):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([list(example.ids)])).logits[0, -len(example.ids) : -1]
        labels = torch.tensor(example.labels[1:])
        assert loss == pytest.approx(
            torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORE).item(), abs=1e-4
        )


def test_it_is_cancelled_after_the_row_it_is_at(asker, home, monkeypatch):
    run, at, go = Run(home / "runs/dora"), threading.Event(), threading.Event()
    row = ByHeart._row

    def slow(*args):
        at.set()
        assert go.wait(20)
        return row(*args)

    monkeypatch.setattr(ByHeart, "_row", slow)
    thread = asker.start(run, 2)
    assert at.wait(20)
    assert by_heart.read(run)["state"] == "running"
    with pytest.raises(PlaygroundError, match="the rows of dora are being asked already"):
        asker.start(run, 2)
    asker.cancel(run)
    go.set()
    thread.join(20)
    found = by_heart.read(run)
    assert (found["state"], len(found["rows"]), found["total"]) == ("cancelled", 1, 4)


@pytest.mark.parametrize(
    ("count", "spoil", "message"),
    [
        (0, None, "1 to 20 rows of each kind can be asked, got 0"),
        (1, lambda folder: Events(folder).state("queued"), "dora is queued; its rows can be asked when it has ended"),
    ],
)
def test_what_cannot_be_asked_says_why(asker, home, count, spoil, message):
    run = Run(home / "runs/dora")
    events = (run.folder / "events.jsonl").read_text()
    try:
        if spoil:
            spoil(run.folder)
            (run.folder / "process.json").unlink(missing_ok=True)
        with pytest.raises(PlaygroundError, match=message):
            asker.start(run, count)
    finally:
        (run.folder / "events.jsonl").write_text(events)


def test_data_that_has_changed_is_told_in_the_folder(asker, home):
    run = Run(home / "runs/dora")
    about = run.about
    try:
        write_json(run.adapter / "playground.json", {**about, "data_hash": "another"})
        asker.start(run, 1).join(20)
    finally:
        write_json(run.adapter / "playground.json", about)
    found = by_heart.read(run)
    assert (found["state"], found["rows"]) == ("failed", [])
    assert "has changed since dora" in found["sentence"]


# ---- text only -----------------------------------------------------------------------------------------------------


def rows(seen, new, before, same=False):
    def row(kind, loss):
        return Row(kind, "p", "x", "b", "x" if same and kind == TRAINED else "y", before, loss)

    return [row(TRAINED, seen), *([] if new is None else [row(HELD_OUT, new)])]


@pytest.mark.parametrize(
    ("losses", "says"),
    [
        ((0.1, 2.5, 2.4), "knows its own rows by heart: .*0.10.* 2.50 .*no better at new rows"),
        ((0.1, 1.5, 2.4), "knows its own rows by heart: .* also got better at new rows"),
        ((1.0, 1.1, 2.4), "learned what the rows have in common"),
        ((2.4, 2.4, 2.4), "nothing that shows on new rows"),
        ((0.1, None, 2.4), "held none out"),
    ],
)
def test_the_gap_is_put_into_words(losses, says):
    import re

    assert re.search(says, sentence(rows(*losses)))


def test_answers_that_are_word_for_word_are_counted():
    assert "1 of 1 rows that it trained on, 0 of 1 held-out" in sentence(rows(0.1, 2.5, 2.4, same=True))


def test_the_last_answer_of_a_row_and_rows_spread_evenly():
    row = Example((5, 6, 7, 8, 9, 10, 11), (IGNORE, 6, IGNORE, IGNORE, 9, 10, IGNORE))
    assert last_answer(row) == ([5, 6, 7, 8], [9, 10])
    assert chosen(range(10), 4) == [0, 2, 5, 7]
    assert chosen(range(2), 4) == [0, 1]
    assert words.mean([], TRAINED, "base_loss") is None
