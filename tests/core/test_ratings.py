import csv
import itertools
from pathlib import Path

import numpy as np
import pytest

from playground.core.ratings import (
    average_win_rate,
    bradley_terry,
    connected,
    count,
    elo,
    leaderboard,
    style_controlled,
)
from playground.errors import PlaygroundError

REAL = Path(__file__).parents[2].parent / "shared/data/arena_votes"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the folder of real votes is not here")


def votes(*rows):
    return [dict(zip(("left", "right", "winner"), row, strict=True)) for row in rows]


def games(strengths, count, seed=0):
    """Votes drawn from known Bradley–Terry strengths."""
    rng = np.random.default_rng(seed)
    pairs = list(itertools.permutations(strengths, 2))
    for left, right in (pairs[i] for i in rng.integers(len(pairs), size=count)):
        wins = rng.random() < strengths[left] / (strengths[left] + strengths[right])
        yield {"left": left, "right": right, "winner": "left" if wins else "right"}


def test_two_models_are_rated_by_their_share_of_wins():
    tally = count(votes(*[("a", "b", "left")] * 3, ("b", "a", "left")))
    assert bradley_terry(tally.wins) == pytest.approx([0.75, 0.25])


def test_a_tie_is_half_a_win_for_each():
    tally = count(votes(("a", "b", "left"), ("a", "b", "right"), ("b", "a", "tie")))
    assert tally.wins.tolist() == [[0, 1.5], [1.5, 0]]
    assert bradley_terry(tally.wins) == pytest.approx([0.5, 0.5])


def test_elo_by_hand():
    tally = count(votes(("a", "b", "left"), ("a", "b", "left")))
    second = 4 * (1 - 1 / (1 + 10 ** (-4 / 400)))
    assert elo(tally) == pytest.approx([1002 + second, 998 - second])


def test_known_strengths_are_recovered():
    strengths = {"a": 0.5, "b": 0.3, "c": 0.15, "d": 0.05}
    tally = count(games(strengths, 40_000))
    found = dict(zip(tally.models, bradley_terry(tally.wins), strict=True))
    assert found == pytest.approx(strengths, abs=0.01)


def test_dirty_votes_are_named_and_left_out():
    tally = count(
        votes(("a", "a", "left"), ("a", "", "left"), ("a", "b", "maybe"), ("a", None, "tie"), ("a", "b", "tie"))
    )
    assert len(tally.outcomes) == 1
    assert tally.problems == [
        "vote 1: a against itself",
        "vote 2: the right side has no name",
        "vote 3: the winner must be left, right, tie or both bad, got 'maybe'",
        "vote 4: the right side has no name",
    ]


def test_both_bad_is_counted_apart():
    tally = count(votes(("a", "b", "both bad"), ("a", "b", "left"), ("c", "a", "tie (bothbad)")))
    assert tally.both_bad == {"a": 2, "b": 1, "c": 1}
    assert tally.wins.sum() == 1


@pytest.mark.parametrize(
    "rows, finite",
    [
        ([("a", "b", "left"), ("b", "a", "left")], True),
        ([("a", "b", "left")], False),  # b never won
        ([("a", "b", "tie"), ("c", "d", "tie")], False),  # two islands
        ([("a", "b", "left"), ("b", "c", "left"), ("c", "a", "left")], True),
    ],
)
def test_where_no_finite_estimate_exists_it_is_still_a_number(rows, finite):
    wins = count(votes(*rows)).wins
    assert connected(wins) is finite
    strengths = bradley_terry(wins)
    assert np.isfinite(strengths).all()
    assert strengths.sum() == pytest.approx(1)
    assert (strengths > 0).all()


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    strengths = {"a": 0.6, "b": 0.3, "c": 0.1}
    truth = {name: 400 * np.log10(strength / 0.1) for name, strength in strengths.items()}
    held = []
    for seed in range(20):
        board = {line.model: line for line in leaderboard(count(games(strengths, 600, seed)), base="c")}
        assert board["c"].rating == board["c"].low == board["c"].high == 0
        held += [board[name].low <= truth[name] <= board[name].high for name in "ab"]
    assert 0.85 <= np.mean(held) <= 1.0


def test_ratings_are_the_same_for_the_same_seed():
    tally = count(games({"a": 0.6, "b": 0.3, "c": 0.1}, 600))
    assert leaderboard(tally, seed=1) == leaderboard(tally, seed=1) != leaderboard(tally, seed=2)
    assert [line.rank for line in leaderboard(tally)] == [1, 2, 3]


def test_too_few_votes_give_no_rank():
    board = leaderboard(count(votes(("a", "b", "left"), ("b", "a", "left"), ("a", "b", "left"))))
    assert [line.rank for line in board] == [None, None]


@pytest.mark.parametrize(("number", "ranks"), [(5, [None, None]), (6, [1, 2])])
def test_one_sided_votes_give_a_rank_only_where_chance_is_unlikely(number, ranks):
    assert [line.rank for line in leaderboard(count(votes(*[("a", "b", "left")] * number)))] == ranks


def test_no_votes_are_an_empty_board_and_an_unknown_base_is_named():
    assert leaderboard(count([])) == []
    with pytest.raises(PlaygroundError, match="no votes on 'z' yet; there are votes on a, b"):
        leaderboard(count(votes(("a", "b", "tie"))), base="z")


@needs_real
@pytest.mark.parametrize("name", ["simple", "food"])
def test_golden_ratings(name):
    golden = {}
    with open(REAL / f"{name}-golden.csv") as file:
        for row in csv.DictReader(file):
            golden.setdefault(row["algorithm"], {})[row["item"]] = float(row["score"])
    with open(REAL / f"{name}.csv") as file:
        tally = count(csv.DictReader(file))
    for algorithm, scores in (
        ("bradley_terry", bradley_terry(tally.wins)),
        ("elo", elo(tally)),
        ("average_win_rate", average_win_rate(tally.wins)),
    ):
        assert dict(zip(tally.models, scores, strict=True)) == pytest.approx(golden[algorithm], abs=1e-6)


@needs_real
def test_thousands_of_real_votes():
    with open(REAL / "llmfao.csv") as file:
        tally = count(csv.DictReader(file))
    board = leaderboard(tally)
    assert (len(board), len(tally.outcomes), tally.problems) == (59, 8931, [])
    assert board[0].model == "GPT 4"
    # at the maximum, each model wins as often as the model expects it to
    strengths = bradley_terry(tally.wins)
    expected = (tally.games * strengths[:, None] / (strengths[:, None] + strengths)).sum(1)
    assert expected == pytest.approx(tally.wins.sum(1), abs=1e-6)


def longer_wins(count, seed=0):
    """Two equal models, of which "wordy" writes longer; voters prefer the longer reply nine times of ten."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        wordy_first, wordy_longer, longer_won = rng.random() < 0.5, rng.random() < 0.8, rng.random() < 0.9
        left_longer = wordy_first == wordy_longer
        lengths = (300, 100) if left_longer else (100, 300)
        yield {
            **dict(zip(("left", "right"), ("wordy", "terse") if wordy_first else ("terse", "wordy"), strict=True)),
            **dict(zip(("left_length", "right_length"), lengths, strict=True)),
            "winner": "left" if left_longer == longer_won else "right",
        }


def test_style_control_takes_the_length_out_of_the_rating():
    tally = count(longer_wins(4000))
    plain, controlled = (
        {line.model: line for line in leaderboard(tally, "terse", rounds=20, style=style)} for style in (False, True)
    )
    assert plain["wordy"].rating > 100
    assert controlled["wordy"].low < 0 < controlled["wordy"].high
    strengths, coefficient, _ = style_controlled(tally)
    # a vote of nine to one at ±1 standard deviation, log(9)
    assert coefficient == pytest.approx(np.log(9), abs=0.15)
    assert strengths.sum() == pytest.approx(0)


def test_without_lengths_style_control_is_bradley_terry():
    tally = count(games({"a": 0.5, "b": 0.3, "c": 0.2}, 500))
    strengths, coefficient, samples = style_controlled(tally, rounds=3)
    logs = np.log(bradley_terry(tally.wins))
    assert strengths == pytest.approx(logs - logs.mean(), abs=1e-6)
    assert (coefficient, samples.shape) == (0, (3, 3))


def test_style_control_is_finite_where_one_model_won_everything():
    tally = count(votes(("a", "b", "left"), ("a", "c", "left")))
    strengths, _, samples = style_controlled(tally, rounds=5)
    assert np.isfinite(strengths).all()
    assert np.isfinite(samples).all()
    assert style_controlled(count([]), rounds=2)[0].shape == (0,)
