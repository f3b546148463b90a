"""Who meets whom, what is asked, and which replies give away their writer."""

from collections import Counter
from itertools import combinations

import pytest

from playground.core import battles
from playground.core.battles import draw, leaks, pair, prompt_sets, telltales
from playground.errors import PlaygroundError


def test_the_pair_that_met_least_is_next():
    met = {("a", "b"): 2, ("a", "c"): 1, ("b", "c"): 2}
    assert {tuple(sorted(pair(["c", "b", "a"], met, seed))) for seed in range(30)} == {("a", "c")}


def test_pairs_stay_balanced_and_sides_are_drawn():
    met, left = Counter(), Counter()
    for seed in range(600):
        one = pair(["a", "b", "c", "d"], met, seed)
        met[tuple(sorted(one))] += 1
        left[one[0]] += 1
    assert set(met.values()) == {100}
    assert set(met) == set(combinations("abcd", 2))
    assert all(110 < left[name] < 190 for name in "abcd")  # 150 is even; 40 are nearly 4 standard deviations


def test_the_same_seed_draws_the_same_pair():
    drawn = [pair(["a", "b", "c"], {}, seed) for seed in range(40)]
    assert drawn == [pair(["c", "a", "b"], {}, seed) for seed in range(40)]
    assert len(set(drawn)) == 6


@pytest.mark.parametrize("names", [[], ["a"], ["a", "a"]])
def test_one_lane_is_no_battle(names):
    with pytest.raises(PlaygroundError, match="two different lanes in the pool, got [01]"):
        pair(names, {}, 0)


WORDS = telltales(["HuggingFaceTB/SmolLM2-135M-Instruct", "gemma3-270m"], ["tool-calling"])


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("I am SmolLM2, made by Hugging Face.", ["smollm2", "hugging face"]),
        ("As Gemma, a model of GOOGLE's,", ["gemma", "google"]),
        ("my name is gemma3-270m!", ["gemma3-270m", "gemma3"]),
        ("an adapter called tool-calling", ["tool-calling"]),
        ("I am SmolLM3, like Gemma2.", ["smollm", "gemma"]),
        ("SmolLM-2 or Smollmania, gemmaX", ["smollm"]),
        ("An instruct model calling tools. Googled dilemma.", []),
        ("Paris.", []),
    ],
)
def test_names_families_and_makers_give_a_reply_away(reply, found):
    assert leaks(reply, WORDS) == found


def test_what_the_prompt_said_first_gives_nothing_away():
    assert leaks("Gemma is a name; I am by Google", WORDS, prompt="Who is Gemma?") == ["google"]


def test_every_category_has_prompts_of_its_own():
    sets = prompt_sets()
    assert list(sets) == [
        *("writing", "roleplay", "reasoning", "maths", "coding", "extraction", "stem", "humanities", "tool use"),
    ]
    everything = [prompt for prompts in sets.values() for prompt in prompts]
    assert len(everything) == len(set(everything)) == 72
    assert battles.prompt_sets() is sets


def test_a_list_is_gone_through_before_a_prompt_comes_again():
    asked = []
    for seed in range(6):
        asked.append(draw(["a", "b", "c"], asked, seed))
    assert Counter(asked) == {"a": 2, "b": 2, "c": 2}
    with pytest.raises(PlaygroundError, match="no prompts yet"):
        draw([], [], 0)
