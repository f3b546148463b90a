"""Recipes: a TOML file each in assets/recipes, with the settings of a run and what it is meant to show."""

import shlex
import tomllib
from dataclasses import dataclass

from playground.config import ASSETS, TrainConfig, fields, parse
from playground.core.training.formats import SCORES
from playground.errors import PlaygroundError


@dataclass(frozen=True)
class Recipe:
    """`settings` are TrainConfig values.

    `score` names what is counted after the run (see `formats.SCORES`; empty: nothing), on `questions` where they are
    given. `marks` are what a persona's answer must hold. `changes` says what will be different after the run.
    """

    name: str
    title: str
    description: str
    settings: dict
    changes: str = ""
    score: str = ""
    questions: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()

    def config(self, **changes) -> TrainConfig:
        """The recipe's settings with `changes` on top, checked."""
        return parse(TrainConfig, {**self.settings, "recipe": self.name, **changes})

    @property
    def probe(self) -> str:
        """The prompt that shows the change."""
        return self.settings.get("probe", TrainConfig.probe)


def recipes() -> dict[str, Recipe]:
    """All recipes by name, in the order of their `order` key."""
    found = []
    for path in (ASSETS / "recipes").glob("*.toml"):
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        order = table.pop("order", 100)
        lists = {key: tuple(table.pop(key, ())) for key in ("questions", "marks")}
        made = Recipe(path.stem, **table, **lists)
        if made.score and made.score not in SCORES:
            raise PlaygroundError(f"{path.name}: score must be one of {', '.join(SCORES)}, got {made.score!r}")
        found.append((order, made))
    return {recipe.name: recipe for _, recipe in sorted(found, key=lambda pair: (pair[0], pair[1].name))}


def recipe(name: str) -> Recipe:
    known = recipes()
    if name not in known:
        raise PlaygroundError(f"there is no recipe {name!r}; the recipes are {', '.join(known)}")
    return known[name]


def command_line(config: TrainConfig) -> str:
    """The command that repeats a run: only what differs from the recipe, or from the defaults. The name is left out."""
    known = recipes()
    usual = known[config.recipe].config() if config.recipe in known else TrainConfig()
    words = ["playground", "train", *(["--recipe", config.recipe] if config.recipe in known else [])]
    for f in fields(TrainConfig):
        value = getattr(config, f.name)
        if f.name in ("name", "recipe") or value == getattr(usual, f.name):
            continue
        flag = f.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            text = _short(value)
            # a value that looks like a flag would be taken for one
            words += [f"--{flag}={text}"] if text.startswith("-") else [f"--{flag}", text]
    return shlex.join(words)


def _short(value) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if not isinstance(value, float) or float(text) == value else repr(value)
