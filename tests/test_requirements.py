"""Spaces installs requirements.txt, everyone else pyproject.toml: they say the same."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_requirements_are_the_dependencies_of_the_project():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    given = [line for line in lines if line and not line.startswith("#")]
    assert given == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
