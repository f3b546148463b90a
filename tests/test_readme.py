"""What README shows is true: commands parse, files exist, the Space's front matter fits the project."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from playground import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every command in the bash blocks; `a && b` is two."""
    return [part.strip() for block in blocks("bash") for line in block.splitlines() for part in line.split("&&")]


def front_matter() -> dict[str, str]:
    _, head, _ = README.split("---\n", 2)
    return {key: value.strip('"') for key, value in (line.split(": ", 1) for line in head.splitlines())}


@pytest.mark.parametrize("command", commands())
def test_a_command_is_one_that_works(command):
    words = shlex.split(command)
    if words[0] == "playground":
        args = cli.build_parser(words[1]).parse_args(words[1:])
        assert args.command == words[1]
    elif words[0] == "pip":
        assert words[1:3] == ["install", "-e"]
        extra = re.fullmatch(r"\.(?:\[(\w+)\])?", words[3]).group(1)
        assert extra is None or extra in PROJECT["optional-dependencies"]
    elif words[0] == "python":
        assert (ROOT / words[1]).exists()
        assert len(words) == 2
    else:
        assert words == ["pytest"]


def test_install_and_run_and_install_and_test_are_one_line_each():
    first, second = blocks("bash")[:2]
    assert (first, second) == ("pip install -e . && python app.py\n", 'pip install -e ".[dev]" && pytest\n')


def test_the_recipe_and_the_models_in_commands_exist():
    from playground.config import ASSETS

    recipes = re.findall(r"--recipe ([\w-]+)", README)
    models = re.findall(r"--lane ([\w.-]+)", README) + re.findall(r"models get ([\w.-]+)", README)
    catalog = tomllib.loads((ASSETS / "models.toml").read_text())
    assert recipes
    assert all((ASSETS / "recipes" / f"{name}.toml").exists() for name in recipes)
    assert set(models) <= set(catalog)


def test_the_command_table_is_the_command_line():
    table = re.findall(r"^\| `playground (\w+)` \| (.+?) \|$", README, re.MULTILINE)
    assert [name for name, _ in table] == list(cli.COMMANDS)
    assert all(text.startswith(cli.COMMANDS[name][1]) for name, text in table)


def test_every_file_in_the_tree_exists():
    (tree,) = blocks("text")
    folder = ""
    for line in tree.splitlines():
        name = line.split()[0]
        path = ROOT / (folder + name if line.startswith(" ") else name)
        folder = folder if line.startswith(" ") else name
        assert path.exists(), f"README shows {path.relative_to(ROOT)}"
        assert path.is_dir() == name.endswith("/"), name


def test_pictures_and_links_exist_and_pictures_are_small():
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", README) if "://" not in target]
    pictures = [ROOT / target for target in targets if target.endswith(".png")]
    assert len(pictures) == 4
    assert [target for target in targets if not (ROOT / target).exists()] == []
    assert [picture.name for picture in pictures if picture.stat().st_size > 300_000] == []


def test_the_space_has_what_it_needs():
    head = front_matter()
    assert (head["sdk"], head["app_file"], head["license"]) == ("gradio", "app.py", PROJECT["license"].lower())
    assert (ROOT / head["app_file"]).exists()
    assert head["python_version"] in PROJECT["requires-python"]
    assert len(head["short_description"]) <= 60
    colours = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
    assert head["colorFrom"] in colours
    assert head["colorTo"] in colours


def test_the_space_runs_the_gradio_that_the_project_asks_for():
    from packaging.requirements import Requirement

    gradio = next(Requirement(line) for line in PROJECT["dependencies"] if line.startswith("gradio"))
    assert gradio.specifier.contains(front_matter()["sdk_version"])
