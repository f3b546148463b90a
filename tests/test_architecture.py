"""Arrows point down: app, cli, commands, bench → ui → services → core → config, errors."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = (
    ("playground.config", "playground.errors"),
    ("playground.core",),
    ("playground.services",),
    ("playground.ui",),
)
TOP = len(LAYERS)
TEXT_ONLY = (
    *("messages", "tokenizer", "datasets", "templates", "sandbox", "tools", "tool_formats", "streaming"),
    *("toolloop", "synthesis", "phrases", "scoring", "ratings", "training.collate", "progress"),
    *("cores", "lint", "lint_case", "lint_checks", "report", "similarity", "token_counts", "split", "batch_view"),
    *("constrained", "template_variables", "template_faults", "scorecard", "question_sets", "jsonl", "generator"),
    *("rounds", "battles", "judge", "vote_files", "overfit", "run_card", "export", "ollama"),
    *("estimate", "training.layers", "training.formats", "training.recipes"),
)
HEAVY = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "trl", "datasets")


def name_of(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, module: str, is_package: bool = False) -> list[tuple[str, bool]]:
    """(imported module, at module level?) for every import statement; `from a import b` gives a.b too."""
    found = []

    def walk(node, at_top):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend((alias.name, at_top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                package = module.split(".") if is_package else module.split(".")[:-1]
                base = package[: len(package) - child.level + 1] if child.level else []
                target = ".".join([*base, *([child.module] if child.module else [])])
                found.append((target, at_top))
                found.extend((f"{target}.{alias.name}", at_top) for alias in child.names)
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            walk(child, at_top and not inside)

    walk(ast.parse(source), True)
    return found


def is_under(name: str, *tops: str) -> bool:
    return any(name == top or name.startswith(top + ".") for top in tops)


def layer(name: str) -> int:
    return next((number for number, tops in enumerate(LAYERS) if is_under(name, *tops)), TOP)


def faults(source: str, module: str, is_package: bool = False) -> list[str]:
    """What `module` may not import, in words."""
    found = []
    text_only = any(is_under(module, f"playground.core.{name}") for name in TEXT_ONLY)
    for target, at_top in imports(source, module, is_package):
        if is_under(target, "playground") and target not in ("playground", "playground.__version__"):
            if layer(target) > layer(module):
                found.append(f"{module} imports {target}, which is above it")
            if layer(target) == layer(module) == 0 and not is_under(target, "playground.errors"):
                found.append(f"{module} imports {target}, which is beside it")
            if module.endswith("_tab") and target.endswith("_tab") and not is_under(target, module):
                found.append(f"{module} imports {target}: a tab imports no other tab")
        if is_under(target, "gradio") and not is_under(module, "playground.ui"):
            found.append(f"{module} imports gradio; only playground.ui may")
        if is_under(target, "threading", "concurrent") and is_under(module, "playground.core"):
            found.append(f"{module} imports {target}; core has no threads")
        if is_under(target, *HEAVY):
            if text_only:
                found.append(f"{module} imports {target}; it only handles text")
            elif at_top and not is_under(module, "playground.core"):
                found.append(f"{module} imports {target} at module level; the page must be up before it")
    return sorted(set(found))


def files():
    return sorted([ROOT / "app.py", *(ROOT / "playground").rglob("*.py")])


@pytest.mark.parametrize("path", files(), ids=name_of)
def test_imports_point_down(path):
    assert faults(path.read_text(), name_of(path), path.name == "__init__.py") == []


def test_there_are_modules_in_every_layer():
    assert {layer(name_of(path)) for path in files()} == set(range(TOP + 1))


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("playground.core.models", "from playground.services import runs", "above"),
        ("playground.core.models", "from ..services import runs", "above"),
        ("playground.services.runs", "from playground.ui.common import Services", "above"),
        ("playground.ui.common", "def f():\n    import playground.cli", "above"),
        ("playground.errors", "from playground.core import messages", "above"),
        ("playground.errors", "from playground import config", "beside"),
        ("playground.ui.arena_tab", "from playground.ui import tools_tab", "no other tab"),
        ("playground.ui.arena_tab", "from playground.ui.train_tab import CSS", "no other tab"),
        ("playground.services.votes", "def f():\n    import gradio", "only playground.ui"),
        ("app", "import gradio as gr", "only playground.ui"),
        ("playground.core.generation", "import threading", "no threads"),
        ("playground.core.templates", "def f():\n    import torch", "only handles text"),
        ("playground.core.tool_formats.hermes", "from transformers import AutoTokenizer", "only handles text"),
        ("playground.services.engine", "import torch", "at module level"),
        ("playground.ui.app", "if True:\n    import peft", "at module level"),
    ],
)
def test_a_wrong_import_is_found(module, source, fault):
    assert [fault in found for found in faults(source, module)].count(True) >= 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("playground.ui.app", "from playground.ui import arena_tab, theme\nfrom playground.services import votes"),
        ("playground.services.engine", "def f():\n    import torch"),
        ("playground.core.generation", "import torch"),
        ("playground.core.datasets", "from playground.core import messages"),
        ("playground.config", "from playground.errors import PlaygroundError"),
        ("playground.cli", "from playground import __version__"),
    ],
)
def test_a_right_import_is_left_alone(module, source):
    assert faults(source, module) == []
