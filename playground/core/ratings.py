"""Ratings from pairwise votes: Bradley–Terry with bootstrap intervals, Elo beside it for teaching, win rates.

Everything is computed afresh from the votes and is deterministic by seed. A tie counts as half a win for each side;
"both bad" is counted apart and decides nothing.

    tally = count(votes)                  # votes: dicts with left, right, winner
    bradley_terry(tally.wins)             # strengths that add up to 1
    leaderboard(tally, base="smollm2-135m", seed=0)
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from playground.errors import PlaygroundError

LEFT, RIGHT, TIE, BOTH_BAD = "left", "right", "tie", "both bad"
WORDS = {
    LEFT: {"left", "model_a", "a", "x", "model_x", "1"},
    RIGHT: {"right", "model_b", "b", "y", "model_y", "2"},
    TIE: {"tie", "draw", "equal"},
    BOTH_BAD: {"both bad", "both_bad", "bothbad", "tie (bothbad)", "ignore"},
}
MEANING = {word: outcome for outcome, words in WORDS.items() for word in words}
SCALE = 400 / np.log(10)  # Elo's scale: 400 points are odds of ten to one
# Fewer decide nothing, whoever won them: 6 of 6 is the first result that chance gives in under 5 % of cases. Resamples
# of votes that all say the same cannot show that.
MIN_VOTES = 6
PRIOR = 0.05  # of a tie, for each pair that met: used only where the plain estimate would be infinite


@dataclass
class Tally:
    """Counted votes. `wins[i, j]`: wins of model i over model j, a tie is half a win for each; [models, models]."""

    models: list[str]
    wins: np.ndarray
    both_bad: dict[str, int] = field(default_factory=dict)
    outcomes: list[tuple[int, int, float]] = field(default_factory=list)  # (left, right, left's score) in order
    lengths: list[float] = field(default_factory=list)  # per outcome: (left − right) ÷ (left + right) characters
    problems: list[str] = field(default_factory=list)

    @property
    def games(self) -> np.ndarray:
        return self.wins + self.wins.T


def count(votes: Iterable[Mapping]) -> Tally:
    """Count votes with `left`, `right` and `winner` (or `choice`). Dirty rows are left out and named in `problems`.

    For `style_controlled`, `left_length` or else the length of `left_reply` is read where it is there; so on the right.
    """
    index: dict[str, int] = {}
    outcomes, lengths, problems, both_bad = [], [], [], {}
    for number, vote in enumerate(votes, 1):
        left, right = (_name(vote.get(side)) for side in ("left", "right"))
        given = vote.get("winner", vote.get("choice"))
        outcome = MEANING.get(str(given).strip().lower())
        if not left or not right:
            problems.append(f"vote {number}: the {'right' if left else 'left'} side has no name")
        elif left == right:
            problems.append(f"vote {number}: {left} against itself")
        elif outcome is None:
            problems.append(f"vote {number}: the winner must be left, right, tie or both bad, got {given!r}")
        elif outcome == BOTH_BAD:
            for name in (left, right):
                index.setdefault(name, len(index))
                both_bad[name] = both_bad.get(name, 0) + 1
        else:
            i, j = (index.setdefault(name, len(index)) for name in (left, right))
            outcomes.append((i, j, {LEFT: 1.0, TIE: 0.5, RIGHT: 0.0}[outcome]))
            lengths.append(_length_difference(vote))
    wins = np.zeros((len(index), len(index)))
    for i, j, score in outcomes:
        wins[i, j] += score
        wins[j, i] += 1 - score
    return Tally(list(index), wins, both_bad, outcomes, lengths, problems)


def _length_difference(vote: Mapping) -> float:
    left, right = (
        float(vote.get(f"{side}_length") or len(str(vote.get(f"{side}_reply") or ""))) for side in ("left", "right")
    )
    return (left - right) / (left + right) if left + right > 0 else 0.0


def _name(value) -> str:
    return "" if value is None or value != value else str(value).strip()


def bradley_terry(wins: np.ndarray, tolerance: float = 1e-12, rounds: int = 100) -> np.ndarray:
    """Strengths [models] that add up to 1: P(i beats j) = p_i / (p_i + p_j), by maximum likelihood.

    Bradley and Terry 1952; Newton's method on the logarithms. Where some models only ever won, or never met the rest,
    no finite estimate exists; a small share of a tie is then added to each pair that met (see PRIOR).
    `wins` may carry leading batch axes.
    """
    wins = np.asarray(wins, dtype=float)
    if wins.shape[-1] == 0:
        return np.zeros(wins.shape[:-1])
    if wins.ndim == 2 and not connected(wins):
        wins = _with_prior(wins)
    games = wins + np.swapaxes(wins, -1, -2)
    total_wins = wins.sum(-1)
    size = wins.shape[-1]
    theta = np.zeros(wins.shape[:-1])
    for _ in range(rounds):
        chance = 1 / (1 + np.exp(theta[..., None, :] - theta[..., :, None]))  # [i, j]: i beats j
        gradient = total_wins - (games * chance).sum(-1)
        weight = games * chance * (1 - chance)
        # the mean is free, so the singular direction (all ones) is given a curvature of its own
        hessian = np.eye(size) * weight.sum(-1)[..., None] - weight + 1 / size
        step = np.linalg.solve(hessian + 1e-12 * np.eye(size), gradient[..., None])[..., 0]
        step *= np.minimum(1.0, 2.0 / np.maximum(np.abs(step).max(-1, keepdims=True), 1e-300))
        theta = theta + step
        if np.abs(step).max() < tolerance:
            break
    strength = np.exp(theta - theta.max(-1, keepdims=True))
    return strength / strength.sum(-1, keepdims=True)


def connected(wins: np.ndarray) -> bool:
    """Whether every model has beaten (or tied) its way to every other one: the estimate is then finite."""
    reach = (wins > 0) | np.eye(len(wins), dtype=bool)
    for _ in range(max(1, int(np.ceil(np.log2(max(len(wins), 2)))))):
        reach = (reach.astype(np.float32) @ reach.astype(np.float32)) > 0
    return bool(reach.all())


def _with_prior(wins: np.ndarray) -> np.ndarray:
    met = (wins + np.swapaxes(wins, -1, -2)) > 0
    # pairs that never met are held together by a far smaller share, so that islands have a common scale at all
    apart = ~met & ~np.eye(wins.shape[-1], dtype=bool)
    return wins + PRIOR * 0.5 * met + 1e-4 * apart


def elo(tally: Tally, start: float = 1000.0, k: float = 4.0, scale: float = 400.0) -> np.ndarray:
    """Elo ratings [models] after the votes in their order (Elo 1978): the order matters, which is the lesson."""
    ratings = [start] * len(tally.models)
    for i, j, score in tally.outcomes:
        change = k * (score - 1 / (1 + 10 ** ((ratings[j] - ratings[i]) / scale)))
        ratings[i] += change
        ratings[j] -= change
    return np.array(ratings)


def win_rates(wins: np.ndarray) -> np.ndarray:
    """Share of wins of i over j, [models, models]; NaN where they never met, and on the diagonal."""
    games = wins + wins.T
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(games > 0, wins / games, np.nan)


def average_win_rate(wins: np.ndarray) -> np.ndarray:
    """Mean of each model's win rates over the models it met, [models]; NaN where it met none."""
    rates = win_rates(wins)
    met = np.isfinite(rates)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(met.any(1), np.nansum(rates, 1) / met.sum(1), np.nan)


def bootstrap(tally: Tally, rounds: int = 100, seed: int = 0) -> np.ndarray:
    """Bradley–Terry log-strengths of `rounds` resamples of the votes, [rounds, models], each with mean 0.

    Votes of one pair and outcome are alike, so a resample is a multinomial draw over the distinct ones.
    """
    size = len(tally.models)
    if not tally.outcomes:
        return np.zeros((rounds, size))
    distinct, counts = np.unique(np.array(tally.outcomes), axis=0, return_counts=True)
    left, right, score = distinct[:, 0].astype(int), distinct[:, 1].astype(int), distinct[:, 2]
    draws = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), size=rounds)
    one_way, other_way = left * size + right, right * size + left
    wins = np.array(
        [
            np.bincount(one_way, draw * score, size * size) + np.bincount(other_way, draw * (1 - score), size * size)
            for draw in draws
        ]
    ).reshape(rounds, size, size)
    met = tally.games > 0
    strengths = bradley_terry(_with_prior(wins) * (met | np.eye(size, dtype=bool)) + 1e-4 * ~met)
    logs = np.log(np.maximum(strengths, 1e-300))
    return logs - logs.mean(-1, keepdims=True)


def style_controlled(tally: Tally, rounds: int = 0, seed: int = 0) -> tuple[np.ndarray, float, np.ndarray]:
    """Log-strengths [models] with the replies' length as a covariate, its coefficient, and those of `rounds` resamples.

    P(left wins) = σ(θ_left − θ_right + β·d), d the length difference in standard deviations: logistic regression as
    in LMSYS, "Does style matter?" (2024), with length alone. β above 0: longer replies win more than their authors do.
    """
    size = len(tally.models)
    if not tally.outcomes:
        return np.zeros(size), 0.0, np.zeros((rounds, size))
    left, right, score = (np.array(column) for column in zip(*tally.outcomes, strict=True))
    spread = np.std(tally.lengths)
    lengths = np.array(tally.lengths) / spread if spread > 0 else np.zeros(len(left))
    # the same share of a tie as in `_with_prior`, as votes of their own
    first, second = np.triu_indices(size, 1)
    prior = np.where(tally.games[first, second] > 0, PRIOR, 2e-4)
    votes = (
        np.concatenate([left, first]),
        np.concatenate([right, second]),
        np.concatenate([score, np.full(len(first), 0.5)]),
        np.concatenate([lengths, np.zeros(len(first))]),
    )

    def fit(weights: np.ndarray, share: float) -> tuple[np.ndarray, float]:
        return _logistic(*votes, np.concatenate([weights, prior * share]), size)

    strengths, coefficient = fit(np.ones(len(left)), 0.0 if connected(tally.wins) else 1.0)
    draws = np.random.default_rng(seed).multinomial(len(left), np.full(len(left), 1 / len(left)), size=rounds)
    samples = np.array([fit(draw.astype(float), 1.0)[0] for draw in draws]).reshape(rounds, size)
    return strengths, coefficient, samples


def _logistic(left, right, score, lengths, weights, size: int, tolerance: float = 1e-10) -> tuple[np.ndarray, float]:
    """Newton's method for (θ with mean 0, β); a small ridge holds β where the lengths alone would decide every vote."""
    theta, beta, ridge, squares = np.zeros(size), 0.0, 1e-3, lengths**2
    for _ in range(100):
        chance = 1 / (1 + np.exp(-(theta[left] - theta[right] + beta * lengths)))
        pull, weight = weights * (score - chance), weights * chance * (1 - chance)
        gradient = np.bincount(left, pull, size) - np.bincount(right, pull, size)
        met = np.bincount(left * size + right, weight, size * size).reshape(size, size)
        met = met + met.T
        across = np.bincount(left, weight * lengths, size) - np.bincount(right, weight * lengths, size)
        hessian = np.zeros((size + 1, size + 1))
        hessian[:size, :size] = np.diag(met.sum(1)) - met + 1 / size + 1e-12 * np.eye(size)
        hessian[size, :size] = hessian[:size, size] = across
        # sums, no dot products: those wake BLAS's threads for each, which wait for cores that are decoding
        hessian[size, size] = (weight * squares).sum() + ridge
        step = np.linalg.solve(hessian, np.append(gradient, (pull * lengths).sum() - ridge * beta))
        step *= min(1.0, 2.0 / max(np.abs(step).max(), 1e-300))
        theta, beta = theta + step[:size], beta + step[size]
        if np.abs(step).max() < tolerance:
            break
    return theta - theta.mean(), float(beta)


@dataclass(frozen=True)
class Standing:
    """One line of the leaderboard. Ratings are on Elo's scale, centred on the base model (or on the mean)."""

    model: str
    rating: float
    low: float
    high: float
    votes: int
    win_rate: float
    rank: int | None  # None: not enough votes to tell it from the others
    elo: float
    both_bad: int


def leaderboard(
    tally: Tally, base: str | None = None, rounds: int = 100, seed: int = 0, style: bool = False
) -> list[Standing]:
    """Models by Bradley–Terry rating with 95 % bootstrap intervals; with `style`, the replies' length taken out.

    A model's rank is one more than the number of models that are surely better (their interval lies above its own);
    a model whose interval overlaps all others, or with fewer than MIN_VOTES votes, has no rank yet.
    """
    if base is not None and base not in tally.models:
        raise PlaygroundError(f"no votes on {base!r} yet; there are votes on {', '.join(tally.models) or 'nothing'}")
    if not tally.models:
        return []
    if style:
        strengths, _, samples = style_controlled(tally, rounds, seed)
    else:
        strengths = np.log(np.maximum(bradley_terry(tally.wins), 1e-300))
        samples = bootstrap(tally, rounds, seed)
    centre = tally.models.index(base) if base else None

    def centred(logs: np.ndarray) -> np.ndarray:
        return SCALE * (logs - (logs[..., centre, None] if centre is not None else logs.mean(-1, keepdims=True)))

    ratings, (low, high) = centred(strengths), np.percentile(centred(samples), [2.5, 97.5], axis=0)
    games, elos, rates = tally.games.sum(1), elo(tally), average_win_rate(tally.wins)
    standings = []
    for i in np.argsort(-ratings, kind="stable"):
        overlaps = [low[i] <= high[j] and low[j] <= high[i] for j in range(len(ratings)) if j != i]
        lost = all(overlaps) or games[i] < MIN_VOTES
        standings.append(
            Standing(
                tally.models[i],
                float(ratings[i]),
                float(min(low[i], ratings[i])),
                float(max(high[i], ratings[i])),
                int(games[i]),
                float(rates[i]),
                None if lost else 1 + int((low > high[i]).sum()),
                float(elos[i]),
                tally.both_bad.get(tally.models[i], 0),
            )
        )
    return standings
