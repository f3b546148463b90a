"""What a finished run is turned into for use elsewhere: adapter, merged weights, Ollama, GGUF, notebook, TRL, the Hub.

`Exporter.make` yields sentences on what it is doing, and at the end an `Export`. Everything is written under another
name and renamed, so that a folder or a file that is there is whole.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from playground.config import EVERY_LINEAR, Paths, TrainConfig
from playground.core import datasets, export, run_card, templates
from playground.core.templates import Template
from playground.core.tokenizer import Tokenizer
from playground.errors import PlaygroundError
from playground.services import hub_push, runs
from playground.services.runs import Run
from playground.services.templates import Templates

# kind → what it is, for the form and the command line
KINDS = {
    "card": "Run card (Markdown): what was trained, how it went and how to repeat it",
    "adapter": "Adapter (zip): the few trained megabytes, as PEFT writes them",
    "merged": "Merged model: base and adapter as one safetensors folder, with the trained template",
    "ollama": "Ollama: the merged model with a Modelfile whose template is the trained one",
    "gguf": "GGUF for llama.cpp, LM Studio and others",
    "notebook": "Notebook: trains it again and asks it",
    "trl": "TRL script (zip): trains the same thing with TRL's SFTTrainer",
    "hub": "Push the adapter to the Hugging Face Hub",
}
UNTRAINED = ("card", "notebook", "trl")  # these need no adapter
CONVERT = "convert_hf_to_gguf.py"
GGUF_SECONDS = 3600.0


@dataclass(frozen=True)
class Export:
    """`path` is a file or a folder (None: nothing on this machine); `sentence` says what it is and how to use it."""

    kind: str
    path: Path | None
    sentence: str
    url: str = ""


class Exporter:
    """Makes exports of runs. `sources` finds base models."""

    def __init__(self, paths: Paths, sources, store: Templates | None = None):
        self.paths, self.sources, self.templates = paths, sources, store or Templates(paths)

    def make(self, kind: str, run: Run, out: Path | None = None, **options) -> Iterator[str | Export]:
        """Export into the folder `out` (default: the run's own exports/)."""
        if kind not in KINDS:
            raise PlaygroundError(f"an export is one of {', '.join(KINDS)}, got {kind!r}")
        if kind not in UNTRAINED:
            _trained(run)
        out = Path(out).expanduser() if out else run.folder / "exports"
        try:
            out.mkdir(parents=True, exist_ok=True)
            yield from getattr(self, f"_{kind}")(run, out, **options)
        except OSError as error:
            raise PlaygroundError(f"{run.name} cannot be exported to {out}: {error.strerror or error}") from None

    # ---- small ones ----------------------------------------------------------------------------------------------

    def _card(self, run: Run, out: Path) -> Iterator[str | Export]:
        path = out / f"{run.name}-{run_card.FILE}"
        shutil.copyfile(runs.write_card(run), path)
        yield Export("card", path, "The run card, which is also in the run's folder.")

    def _adapter(self, run: Run, out: Path) -> Iterator[str | Export]:
        folder = _adapter_folder(run)
        yield f"packing {folder.name}/"
        card = runs.write_card(run)
        files = {f"{run.name}/{file.relative_to(folder)}": file for file in folder.rglob("*") if file.is_file()}
        path = _zip(out / f"{run.name}-adapter.zip", files | {f"{run.name}/{run_card.FILE}": card})
        base = run.about.get("base_model") or run.settings.get("model")
        yield Export("adapter", path, f"The adapter for {base}: load it with peft's PeftModel.from_pretrained.")

    def _notebook(self, run: Run, out: Path) -> Iterator[str | Export]:
        config, about = run.config, run.about
        text = about.get("template_text") or self._template(run, self._tokenizer(run)).text
        command = export.cli_line(asdict(config))
        written = export.notebook(run.name, command, text, config.model, config.probe, about.get("versions") or {})
        path = out / f"{run.name}.ipynb"
        runs.write_json(path, written)
        yield Export("notebook", path, "A notebook that installs, trains again, and asks the adapter.")

    def _trl(self, run: Run, out: Path) -> Iterator[str | Export]:
        from playground.core.training import collate

        yield "rendering the rows, to leave out those that train nothing"
        config, tokenizer = run.config, self._tokenizer(run)
        template = self._template(run, tokenizer)
        steps = next((e["steps"] for e in run.events() if e["kind"] == "plan" and e.get("steps")), 0)
        conversations = datasets.load(config.data, self.paths).conversations
        kept = kept_rows(config, conversations, template, tokenizer)
        train, held_out = collate.split(kept, config)
        steps = steps or collate.total_steps(config, len(train))
        script = export.trl_script(
            config, template.text, steps, self._hub_name(config), _layer_choice(run, config), held_out=bool(held_out)
        )
        texts = {
            "train_trl.py": script,
            "train.jsonl": export.rows_of(train),
            "held_out.jsonl": export.rows_of(held_out),
            run_card.FILE: run_card.markdown(runs.card(run)),
        }
        path = _zip(out / f"{run.name}-trl.zip", {f"{run.name}-trl/{name}": text for name, text in texts.items()})
        before = run.about.get("data_hash") or collate.data_hash(conversations)
        changed = "" if before == collate.data_hash(conversations) else " The data has changed since the run."
        sentence = f"train_trl.py with its {len(train):,} rows and {len(held_out):,} held out.{changed}"
        yield Export("trl", path, sentence)

    def _hub_name(self, config: TrainConfig) -> str:
        return self.sources.entry(config.model).hub or config.model

    # ---- the model -----------------------------------------------------------------------------------------------

    def _merged(self, run: Run, out: Path, dtype: str = "auto") -> Iterator[str | Export]:
        target = out / f"{run.name}-merged"
        sentence = yield from self._merge(run, target, dtype)
        yield Export("merged", target, f"A model folder for transformers, vLLM or TGI. {sentence}")

    def _merge(self, run: Run, target: Path, dtype: str, modelfile: bool = False) -> Iterator[str]:
        """Write the merged model to `target`; returns what comparing it with base and adapter says."""
        from playground.services import merging

        base = self._base(run)
        about, config = run.about, run.config
        template = self._template(run, self._tokenizer(run))
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
        shutil.rmtree(part, ignore_errors=True)
        try:
            parity, template = yield from merging.merge(run, base, template, part, config, dtype)
            (part / "README.md").write_text(
                hub_push.model_card(run, self._hub_name(config), merged=True), encoding="utf-8"
            )
            if about:
                runs.write_json(part / "playground.json", about)
            if modelfile:
                from playground.core import ollama

                written = ollama.modelfile(template, Tokenizer.load(part), ".", run.name)
                (part / "Modelfile").write_text(written, encoding="utf-8")
            shutil.rmtree(target, ignore_errors=True)
            part.rename(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return parity

    def _ollama(self, run: Run, out: Path, dtype: str = "auto") -> Iterator[str | Export]:
        from playground.core import ollama

        tokenizer = self._tokenizer(run)
        template = self._template(run, tokenizer)
        ollama.probe(template, tokenizer)  # refused before the weights are merged
        target = out / f"{run.name}-ollama"
        said = [f"In that folder: ollama create {run.name} -f Modelfile, then ollama run {run.name}."]
        said.append((yield from self._merge(run, target, dtype, modelfile=True)))
        if ollama.leaves_out_tools(template):
            said.append("Its template is for chats without tools: Ollama writes their signatures in another form.")
        yield Export("ollama", target, " ".join(said))

    def _gguf(self, run: Run, out: Path, dtype: str = "auto") -> Iterator[str | Export]:
        script = find_converter()
        yield f"looking at {CONVERT}"
        check_converter(script)
        folder, target = out / f".{run.name}-gguf-{uuid.uuid4().hex}", out / f"{run.name}.gguf"
        try:
            sentence = yield from self._merge(run, folder, dtype)
            yield f"converting with {CONVERT}"
            part = out / f".{run.name}.{uuid.uuid4().hex}.part.gguf"
            _convert(script, folder, part, "f32" if dtype == "float32" else "auto")
            part.replace(target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        yield Export("gguf", target, f"For llama.cpp: llama-server -m {target.name} --jinja. {sentence}")

    # ---- the Hub -------------------------------------------------------------------------------------------------

    def _hub(
        self, run: Run, out: Path, repo: str = "", token: str = "", private: bool = True
    ) -> Iterator[str | Export]:
        yield f"sending the adapter to {repo}"
        url = hub_push.push(run, _adapter_folder(run), self._hub_name(run.config), repo, token, private)
        yield Export("hub", None, f"The adapter is at {url}.", url)

    # ---- what a run is made of -----------------------------------------------------------------------------------

    def _base(self, run: Run) -> Path:
        model = run.config.model
        folder = self.sources.find(model)
        if folder is None:
            raise PlaygroundError(f"{model} is not on this machine; fetch it first: playground models get {model}")
        return Path(folder)

    def _tokenizer(self, run: Run) -> Tokenizer:
        """The one it was trained with: its own where it added tokens."""
        for folder in (run.folder / "adapter", run.folder / "model"):
            if (folder / "tokenizer.json").exists():
                return Tokenizer.load(folder)
        return Tokenizer.load(self._base(run))

    def _template(self, run: Run, tokenizer: Tokenizer) -> Template:
        """The text that it was trained with; before the end of the run, the one that its settings name."""
        about = run.about
        if about.get("template_text"):
            shipped = (templates.load(name) for name in templates.names())
            same = next((one for one in shipped if one.text == about["template_text"]), None)
            # any other text may be anybody's, so it is rendered in a bounded process
            return same or Template(about.get("template_name") or "trained", about["template_text"], source="adapter")
        return self.templates.load(run.config.template, tokenizer)


def kept_rows(config: TrainConfig, conversations: list, template: Template, tokenizer: Tokenizer) -> list:
    """The conversations that the run trains on or holds out, chosen as core.training.collate.prepare does."""
    from playground.core.training import collate

    one = replace(config, rows=0, eval_share=0.0)
    kept = []
    for conversation in drawn(config, conversations):
        try:
            collate.prepare(one, [conversation], template, tokenizer)
        except PlaygroundError:  # nothing in it is trained, or it cannot be rendered
            continue
        kept.append(conversation)
    if not kept:
        raise PlaygroundError(f"none of the rows of {config.data} trains anything, so there is nothing to export")
    return kept


def drawn(config: TrainConfig, conversations: list) -> list:
    """The rows that a run with `rows` draws."""
    if not config.rows or config.rows >= len(conversations):
        return conversations
    picks = random.Random(config.seed).sample(range(len(conversations)), config.rows)
    return [conversations[i] for i in sorted(picks)]


def _trained(run: Run) -> None:
    if run.status.live:
        raise PlaygroundError(f"{run.name} is {run.state}; it can be exported when it has ended")
    if not run.adapter and not (run.folder / "model").is_dir():
        raise PlaygroundError(f"{run.name} has no adapter: it is {run.state}; resume it, or start a new run")


def _adapter_folder(run: Run) -> Path:
    if not run.adapter:
        raise PlaygroundError(f"{run.name} trained all weights, so it has no adapter; export it as merged instead")
    return run.adapter


def _layer_choice(run: Run, config: TrainConfig) -> dict:
    """peft's settings for the layers with an adapter: from the saved one, else as the run's settings have them."""
    if config.targets == EVERY_LINEAR and not config.first_layer:
        return {"target_modules": EVERY_LINEAR}
    path = run.folder / "adapter" / "adapter_config.json"
    if path.exists():
        saved = json.loads(path.read_text(encoding="utf-8"))
        numbers = {key: saved[key] for key in ("layers_to_transform", "layers_pattern") if saved.get(key) is not None}
        return {"target_modules": sorted(saved.get("target_modules") or []), **numbers}
    if config.first_layer:
        raise PlaygroundError(
            f"the layers from first_layer {config.first_layer} on stand in the adapter, which is gone"
        )
    return {"target_modules": [name.strip() for name in config.targets.split(",") if name.strip()]}


def _zip(path: Path, files: dict[str, Path | str]) -> Path:
    """A zip of files by name in it; a text is written as it is."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, source in files.items():
                if isinstance(source, Path):
                    archive.write(source, name)
                else:
                    archive.writestr(name, source)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


# ---- GGUF --------------------------------------------------------------------------------------------------------


def find_converter() -> Path:
    """llama.cpp's convert script: in the folder LLAMA_CPP names, on the PATH, or in ~/llama.cpp."""
    named = os.environ.get("LLAMA_CPP")
    places = [Path(named).expanduser()] if named else []
    places += [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    found = next((p / CONVERT for p in [*places, Path.home() / "llama.cpp"] if (p / CONVERT).is_file()), None)
    if found is None:
        raise PlaygroundError(
            f"GGUF needs llama.cpp's {CONVERT}, which is not on this machine: clone "
            "https://github.com/ggml-org/llama.cpp and set LLAMA_CPP to its folder, or export the merged model and "
            "convert it elsewhere"
        )
    return found


def check_converter(script: Path) -> None:
    """Refuse before the weights are merged where the script misses a package."""
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, timeout=GGUF_SECONDS)
    if done.returncode and (missing := re.search(r"No module named '(\w+)", done.stderr)):
        name = missing[1]
        raise PlaygroundError(f"{CONVERT} needs the package {name}, which is not installed: pip install {name}")


def _convert(script: Path, folder: Path, out: Path, kind: str) -> None:
    command = [sys.executable, str(script), str(folder), "--outfile", str(out), "--outtype", kind]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GGUF_SECONDS)
    except subprocess.TimeoutExpired:
        out.unlink(missing_ok=True)
        raise PlaygroundError(f"{CONVERT} did not end within {GGUF_SECONDS / 60:.0f} minutes") from None
    if done.returncode or not out.exists():
        out.unlink(missing_ok=True)
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise PlaygroundError(f"{CONVERT} failed: {last[:300]}")
