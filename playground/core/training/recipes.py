"""Recipes: a TOML file each in assets/recipes, with the settings of a run and what it is meant to show."""

import tomllib
from dataclasses import dataclass

from playground.config import ASSETS, TrainConfig, parse
from playground.errors import PlaygroundError


@dataclass(frozen=True)
class Recipe:
    """`settings` are TrainConfig values; `scored` asks for exact tool calls to be counted after the run."""

    name: str
    title: str
    description: str
    settings: dict
    scored: bool = False

    def config(self, **changes) -> TrainConfig:
        """The recipe's settings with `changes` on top, checked."""
        return parse(TrainConfig, {**self.settings, "recipe": self.name, **changes})


def recipes() -> dict[str, Recipe]:
    """All recipes by name, in the order of their `order` key."""
    found = []
    for path in (ASSETS / "recipes").glob("*.toml"):
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        order = table.get("order", 100)
        found.append(
            (
                order,
                Recipe(
                    path.stem, *(table[k] for k in ("title", "description", "settings")), table.get("scored", False)
                ),
            )
        )
    return {recipe.name: recipe for _, recipe in sorted(found, key=lambda pair: (pair[0], pair[1].name))}


def recipe(name: str) -> Recipe:
    known = recipes()
    if name not in known:
        raise PlaygroundError(f"there is no recipe {name!r}; the recipes are {', '.join(known)}")
    return known[name]
