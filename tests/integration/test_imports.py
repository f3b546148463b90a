"""What is loaded by what, each in a fresh process; the arrows between modules are tests/test_architecture.py's."""

import subprocess
import sys

from playground.core import datasets
from tests.core.test_models import write_adapter
from tests.test_architecture import ROOT, TEXT_ONLY, files, is_under, name_of
from tests.test_data_cli import QA, upload


def modules_after(*names: str) -> set[str]:
    """The top-level modules that are loaded once `names` have been imported in a fresh process."""
    script = f"import sys, importlib\nfor name in {names!r}: importlib.import_module(name)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_text_only_modules_load_without_torch_transformers_or_gradio():
    there = [path for path in files() if any(is_under(name_of(path), f"playground.core.{name}") for name in TEXT_ONLY)]
    assert len(there) > 8
    assert modules_after(*map(name_of, there)) & {"torch", "transformers", "peft", "gradio"} == set()


def test_the_page_loads_without_torch_transformers_or_peft():
    loaded = modules_after("playground.ui.app", "playground.services.engine", "playground.services.jobs")
    assert loaded & {"torch", "transformers", "peft", "datasets", "trl"} == set()
    assert "gradio" in loaded


def test_an_engine_without_constraints_does_not_import_llguidance():
    script = "import playground.services.engine, playground.core.generation, sys; print('llguidance' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_data_sets_are_kept_without_heavy_imports():
    script = "import sys, playground.services.datasets; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & {"torch", "transformers", "gradio", "datasets", "pyarrow", "pandas"} == set()


def test_the_data_command_imports_nothing_heavy(tmp_path):
    file = upload(tmp_path, "a.jsonl", QA)
    script = "import sys; from playground import cli; cli.main(['data', 'check', sys.argv[1]]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=True)
    assert {*done.stdout.split()} & {"torch", "transformers", "gradio", "datasets", "pyarrow", "pandas"} == set()
    assert datasets.__name__ in done.stdout


def test_importing_and_reading_do_not_import_torch(tmp_path):
    write_adapter(tmp_path / "a", details={"template_text": "x"})
    code = (
        "import sys; from pathlib import Path; from playground.core.models import read_adapter; "
        "import playground.services.sources; "
        f"assert read_adapter(Path({str(tmp_path / 'a')!r})).template.text == 'x'; "
        "print(sorted({'torch', 'transformers', 'gradio', 'peft'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_render_command_imports_nothing_heavy():
    code = (
        "import sys; from playground.commands import render; import playground.core.templates, playground.core.datasets"
    )
    heavy = "print([m for m in ('torch', 'transformers', 'gradio', 'pandas', 'numpy') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", f"{code}; {heavy}"], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_page_can_ask_about_runs_without_torch():
    code = (
        "import sys; import playground.services.jobs, playground.core.training.collate, playground.commands.train; "
        "sys.exit(bool({'torch', 'transformers', 'peft', 'gradio'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
