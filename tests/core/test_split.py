import json
from collections import Counter

import pytest

from playground.core import datasets, similarity, split
from playground.core.messages import Conversation
from playground.core.report import talk as words
from playground.core.split import as_row, save
from playground.errors import PlaygroundError


def talk(question, answer="Yes.", **more):
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Conversation(messages, **more)


def row(number):
    """Rows that have nothing in common with one another."""
    return talk(f"{number:07}" * 8, f"{number * 7919:09}" * 4)


ROWS = [row(n) for n in range(200)]
HALVES = {"train": 0.5, "test": 0.5}


def sizes(sides):
    return {side: len(places) for side, places in sides.items()}


@pytest.mark.parametrize(
    "count, shares, expected",
    [
        (200, None, {"train": 160, "validation": 20, "test": 20}),
        (200, {"train": 1.0}, {"train": 200}),
        (200, {"train": 0.9, "validation": 0.0, "test": 0.1}, {"train": 180, "validation": 0, "test": 20}),
        (10, {"train": 0.34, "validation": 0.33, "test": 0.33}, {"train": 4, "validation": 3, "test": 3}),
        (3, {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, {"a": 1, "b": 1, "c": 1}),
    ],
)
def test_sizes(count, shares, expected):
    sides = split.split(ROWS[:count], shares)
    assert sizes(sides) == expected
    assert sorted(place for places in sides.values() for place in places) == list(range(count))
    assert all(places == sorted(places) for places in sides.values())


def test_the_seed_decides():
    first = split.split(ROWS, HALVES, seed=1)
    assert split.split(ROWS, HALVES, seed=1) == first
    assert split.split(ROWS, HALVES, seed=2) != first
    assert first["train"] != list(range(100))  # it does not just cut


@pytest.mark.parametrize("seed", range(4))
def test_labels_are_on_every_side(seed):
    labels = ["common"] * 100 + ["rare"] * 60 + [7] * 40
    sides = split.split(ROWS, seed=seed, labels=labels)
    assert sizes(sides) == {"train": 160, "validation": 20, "test": 20}
    for side, share in split.SHARES.items():
        counts = Counter(labels[place] for place in sides[side])
        assert counts == {"common": 100 * share, "rare": 60 * share, 7: 40 * share}


@pytest.mark.parametrize("seed", range(4))
def test_labels_that_do_not_go_round(seed):
    labels = [f"label {n // 5}" for n in range(200)]  # five rows each: four to train, the fifth to one of the others
    sides = split.split(ROWS, seed=seed, labels=labels)
    assert sizes(sides) == {"train": 160, "validation": 20, "test": 20}
    assert set(Counter(labels[place] for place in sides["train"]).values()) == {4}


def test_labels_too_rare_for_every_side_do_not_upset_the_sizes():
    labels = [f"label {n // 2}" for n in range(200)]  # two rows each
    assert sizes(split.split(ROWS, labels=labels)) == {"train": 160, "validation": 20, "test": 20}
    some = [None if n % 2 else "some" for n in range(200)]
    assert [sum(place % 2 == 0 for place in places) for places in split.split(ROWS, labels=some).values()] == [
        80,
        10,
        10,
    ]


@pytest.mark.parametrize("seed", range(4))
def test_near_duplicates_stay_on_one_side(seed):
    story = "A long story about a fox who wants to see the sea before the sun goes down behind the hills, number"
    rows = [talk(f"{story} {n // 5}{n // 5}{n // 5}{'.' * (n % 5)}", f"{n // 5:05}" * 12) for n in range(200)]
    families = similarity.groups([words(r) for r in rows], similarity.signatures([words(r) for r in rows]))
    assert len(families) == 40
    sides = split.split(rows, seed=seed)
    for family in families:
        assert sum(not set(places).isdisjoint(family) for places in sides.values()) == 1
    assert sizes(sides) == {"train": 160, "validation": 20, "test": 20}


@pytest.mark.parametrize("seed", range(4))
def test_one_large_group_goes_where_there_is_room(seed):
    rows = [row(0)] * 45 + ROWS[1:56]
    assert sizes(split.split(rows, HALVES, seed)) == {"train": 50, "test": 50}
    sides = split.split(rows, seed=seed)
    assert set(range(45)) <= set(sides["train"])
    assert sizes(sides) == {"train": 80, "validation": 10, "test": 10}


@pytest.mark.parametrize(
    "rows, more, sentence",
    [
        (ROWS, {"shares": {"train": 0.8, "test": 0.1}}, "the shares must add up to 1, got train 0.8, test 0.1"),
        (ROWS, {"shares": {"train": 1.5, "test": -0.5}}, "the shares must add up to 1, got train 1.5, test -0.5"),
        (ROWS, {"labels": ["a"]}, "there must be a label for each of the 200 rows, got 1"),
        ([], {}, "there are no rows to split"),
        (
            [row(0)] * 50,
            {},
            "50 rows (1 group, with near-duplicates together) are too few for these shares: validation and test",
        ),
        (ROWS[:2], {}, "test would be empty"),
    ],
)
def test_what_cannot_be_split(rows, more, sentence):
    with pytest.raises(PlaygroundError) as error:
        split.split(rows, **more)
    assert sentence in str(error.value)


# Saving --------------------------------------------------------------------------------------------------------------

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def test_saved_rows_load_again(tmp_path):
    rows = [
        talk("おはよう", "Good morning."),
        talk("Look.", tools=[TOOL], variables={"enable_thinking": False}),
        talk("half \ud83d of a pair"),
    ]
    extras = [{"label": "greeting"}, {}, {"reference": "4"}]
    files = save({"train": [0, 2], "validation": [], "test": [1]}, rows, tmp_path / "new" / "folder", extras)
    assert {side: file.name for side, file in files.items()} == {"train": "train.jsonl", "test": "test.jsonl"}
    assert sorted(path.name for path in files["train"].parent.iterdir()) == ["test.jsonl", "train.jsonl"]
    first, second = map(json.loads, files["train"].read_text(encoding="utf-8").splitlines())
    assert first == {"label": "greeting", "messages": rows[0].messages}
    assert "おはよう" in files["train"].read_text(encoding="utf-8")
    assert (second["messages"], second["reference"]) == (rows[2].messages, "4")
    assert datasets.load(files["test"]).conversations == [rows[1]]


def test_the_reply_that_was_not_preferred_comes_along(tmp_path):
    pair = {"prompt": "What is 2 + 2?", "chosen": "4", "rejected": "five"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    data = datasets.load(tmp_path / "pairs.jsonl")
    for folder in ("once", "twice"):  # a split of a split is no different
        files = save({"train": [0]}, data.conversations, tmp_path / folder, data.extras)
        data = datasets.load(files["train"])
        assert data.conversations[0].messages[-1]["content"] == "4"
        assert data.extras == [{"rejected": [{"role": "assistant", "content": "five"}]}]
    other = {"messages": data.conversations[0].messages, "rejected": "no messages"}
    (tmp_path / "other.jsonl").write_text(json.dumps(other) + "\n")
    assert datasets.load(tmp_path / "other.jsonl").extras == [{}]


def test_nothing_is_overwritten_unasked(tmp_path):
    save({"train": [0]}, ROWS, tmp_path)
    with pytest.raises(PlaygroundError, match="holds train.jsonl already"):
        save({"train": [1], "test": [2]}, ROWS, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["train.jsonl"]
    save({"train": [1]}, ROWS, tmp_path, overwrite=True)
    assert json.loads((tmp_path / "train.jsonl").read_text()) == as_row(ROWS[1])


def test_a_row_that_cannot_be_written_leaves_nothing(tmp_path):
    bad = talk("a", variables={"what": object()})
    with pytest.raises(TypeError):
        save({"train": [0], "test": [1]}, [ROWS[0], bad], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PlaygroundError, match="cannot write to"):
        save({"train": [0]}, ROWS, tmp_path / "file")
