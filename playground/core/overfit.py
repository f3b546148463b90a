"""The overfit light: what the gap between training and held-out loss, and the held-out loss's trend, say in words."""

from dataclasses import dataclass

# Shares of a loss. Below NOISE nothing is said about a change; a rise of RISE above the best is past doubt.
NOISE, RISE = 0.01, 0.05
# A held-out loss this many times the training loss, and this far above it, is a gap worth a word.
GAP_TIMES, GAP = 1.5, 0.2
TREND = 4  # newest evaluations that say whether it still falls
FEWEST = 3  # evaluations (the one before the first step included) before anything is said


@dataclass(frozen=True)
class Light:
    """`colour` is green, amber, red, or "" while it is too early to say."""

    colour: str
    sentence: str


def light(events: list[dict]) -> Light:
    """The light after the evaluations in a run's events ("step" with step and loss, "eval" with step and eval_loss)."""
    held = _by_step(events, "eval", "eval_loss")
    trained = _by_step(events, "step", "loss")
    if not held:
        return Light("", "No rows are held out, so nothing can say whether it learns the rows by heart.")
    if len(held) < FEWEST or not trained:
        missing = FEWEST - len(held)
        return Light("", f"Too early to say: {max(1, missing)} more evaluation{'s' if missing > 1 else ''} to come.")
    best = min(range(len(held)), key=lambda number: held[number][1])
    best_step, least = held[best]
    since = [loss for _, loss in held[best:]]
    train, last, rise = _mean_before(trained, held), since[-1], since[-1] / max(least, 1e-9) - 1
    falls = len(since) == 1 and trend([loss for _, loss in held[-TREND:]]) < -NOISE * last
    # one worse evaluation may be chance, and one that comes down again is no trend
    if rise > RISE and len(since) > 2 and trend(since) > 0 and last > (1 - NOISE) * since[-2]:
        return Light(
            "red",
            f"It is learning the rows by heart: the held-out loss rose from {least:.2f} at step {best_step:,} to "
            f"{last:.2f}, while the training loss is {train:.2f}. Stop, or take fewer epochs or more rows.",
        )
    if rise > NOISE:
        return Light(
            "amber",
            f"The held-out loss has not been better than {least:.2f} since step {best_step:,} (now {last:.2f}, "
            f"training {train:.2f}): more steps may only teach it the rows by heart.",
        )
    if last > GAP_TIMES * train and last - train > GAP:
        still = "still falls" if falls else "no longer falls"
        return Light(
            "amber",
            f"It knows its own rows better than new ones: training {train:.2f}, held-out {last:.2f}, "
            f"which {still}. More rows would help more than more steps.",
        )
    if falls:
        return Light("green", f"It is still learning: the held-out loss falls ({last:.2f}, training {train:.2f}).")
    return Light(
        "green", f"It has settled: the held-out loss stays near {last:.2f}, close to the training loss of {train:.2f}."
    )


def trend(values: list[float]) -> float:
    """Slope of the least-squares line through equally spaced values."""
    middle, mean = (len(values) - 1) / 2, sum(values) / len(values)
    spread = sum((i - middle) ** 2 for i in range(len(values)))
    return sum((i - middle) * (value - mean) for i, value in enumerate(values)) / spread if spread else 0.0


def _by_step(events: list[dict], kind: str, key: str) -> list[tuple[int, float]]:
    """(step, value) in order; after a resume the later value of a step counts."""
    return sorted({event["step"]: event[key] for event in events if event["kind"] == kind and key in event}.items())


def _mean_before(trained: list[tuple[int, float]], held: list[tuple[int, float]]) -> float:
    """Mean training loss between the last two evaluations: one step's loss is mostly chance."""
    before, now = held[-2][0], held[-1][0]
    between = [loss for step, loss in trained if before < step <= now] or [trained[-1][1]]
    return sum(between) / len(between)
