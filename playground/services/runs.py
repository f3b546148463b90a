"""A training run is a folder; this reads and writes its small files. No torch: the app's process only reads them.

config.json     everything needed to repeat the run
events.jsonl    append-only, one JSON object a line: state, plan, step, eval, sample, checkpoint, truth, scoring, scores
log.txt         what the trainer printed
page.json       what visitors wrote: a note, the names it had before it was renamed, and whether chat models make way
run-card.md     what was trained, how, how it went and how to repeat it
by-heart.json   rows that were trained on and rows held out, asked after the run (see services.by_heart)
process.json    pid and start time of the trainer
stop            "keep" or "discard": the request to stop
checkpoints/    adapter, optimizer, schedule, random state, step: what a resume continues from
adapter/        plain PEFT, and playground.json with the template, the mask rule and where it comes from
model/          instead of it after a full fine-tune: all weights, and playground.json
tensorboard/    or trackio/: the figures for another viewer, where log_to asks for it
exports/        what was made of it for use elsewhere
"""

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from playground.config import ASSETS, Paths, TrainConfig, fields, parse
from playground.core import kinds, run_card
from playground.errors import PlaygroundError

LIVE = ("queued", "preparing", "running", "stopping")
ENDED = ("finished", "stopped", "failed", "killed")
# Time a trainer gets between the folder's first line and the file with its process id.
START_GRACE = 15.0
# Freed when the disk is full, so that the run can still say so.
RESERVE = 64 * 1024
MAX_NOTE = 10_000  # characters
# What an event says nothing without.
NEEDED = {"state": ("state",), "step": ("step",), "eval": ("step",), "sample": ("step",)}


@dataclass(frozen=True)
class Status:
    state: str
    sentence: str = ""
    reason: str = ""
    time: float = 0.0

    @property
    def live(self) -> bool:
        return self.state in LIVE


class Run:
    """A run's folder, read afresh at every question: another process may be writing it."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def config(self) -> TrainConfig:
        """The settings; those that this version does not know are left out, so that older folders open."""
        known = {f.name for f in fields(TrainConfig)}
        return parse(TrainConfig, {key: value for key, value in self.settings.items() if key in known})

    @property
    def settings(self) -> dict:
        """config.json as it is written, whichever version wrote it."""
        try:
            values = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise PlaygroundError(f"{self.name} is no run: it has no config.json") from None
        except ValueError as error:
            raise PlaygroundError(f"the config.json of run {self.name} cannot be read: {error}") from None
        if not isinstance(values, dict):
            raise PlaygroundError(f"the config.json of run {self.name} must hold an object")
        return values

    @property
    def about(self) -> dict:
        """playground.json of its adapter or model: template, mask rule, data, versions; {} where there is none.

        Values that are not of the kind they should be are left out.
        """
        return kinds.sound(_json(self._about_file), kinds.ABOUT)

    @property
    def _about_file(self) -> Path:
        whole = self.folder / "model" / "playground.json"  # after a full fine-tune
        return whole if whole.exists() else self.folder / "adapter" / "playground.json"

    @property
    def note(self) -> str:
        return str(_json(self.folder / "page.json").get("note", ""))

    @property
    def former_names(self) -> list[str]:
        names = _json(self.folder / "page.json").get("former_names", [])
        return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []

    @property
    def status(self) -> Status:
        """The last state the trainer wrote, or "killed" when it wrote no end and is not alive."""
        last = self._last_state()
        if last.state in ENDED or self._alive():
            return last
        starting = not (self.folder / "process.json").exists() and time.time() - last.time < START_GRACE
        if starting:
            return last
        again = self._last_state()  # it may have ended between the two looks
        if again.state in ENDED:
            return again
        where = f"at step {step['step']}" if (step := self.last("step")) else f"while {last.state}"
        return Status(
            "killed",
            f"the trainer ended without a word {where}; resume it or delete it (where memory ran out, start one with a "
            "smaller piece_tokens or max_length)",
            "killed",
            last.time,
        )

    @property
    def state(self) -> str:
        return self.status.state

    @property
    def created(self) -> float:
        with contextlib.suppress(OSError, ValueError, KeyError), open(self.folder / "events.jsonl", "rb") as file:
            return float(json.loads(file.readline())["time"])
        with contextlib.suppress(OSError):
            return self.folder.stat().st_mtime
        return 0.0

    @property
    def adapter(self) -> Path | None:
        """The adapter's folder once the run has ended well; None before, and when the run failed."""
        folder = self.folder / "adapter"
        whole = (folder / "adapter_model.safetensors").exists() and (folder / "adapter_config.json").exists()
        return folder if whole and self.state in ("finished", "stopped") else None

    @property
    def trained_whole(self) -> bool:
        """It is a full fine-tune that has ended well: its weights are in model/."""
        return (self.folder / "model" / "playground.json").exists() and self.state in ("finished", "stopped")

    @property
    def resumable(self) -> bool:
        return self.state in ("stopped", "failed", "killed")

    def events(self, since: int = 0) -> list[dict]:
        """Events from line `since` on; a line that a kill tore in two is left out."""
        try:
            lines = (self.folder / "events.jsonl").read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        return [event for line in lines[since:] if (event := _event(line))]

    def log(self, characters: int = 4000) -> str:
        """The end of log.txt."""
        with contextlib.suppress(OSError), open(self.folder / "log.txt", "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - characters))
            return file.read().decode("utf-8", "replace")
        return ""

    def process(self) -> psutil.Process | None:
        """The trainer, if it is alive and still the same process."""
        try:
            saved = json.loads((self.folder / "process.json").read_text())
            process = psutil.Process(saved["pid"])
            # a pid is used again after a while, a pid with its start time is not
            same = abs(process.create_time() - saved["created"]) < 2
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except (OSError, ValueError, KeyError, psutil.Error):
            return None

    def _alive(self) -> bool:
        return self.process() is not None

    def _backwards(self) -> Iterator[dict]:
        """Events from the last one back, within the last 64 KB; read and parsed only as far as they are asked for."""
        with contextlib.suppress(OSError), open(self.folder / "events.jsonl", "rb") as file:
            size = file.seek(0, os.SEEK_END)
            seen = 0
            for reach in (4 * 1024, 64 * 1024):
                file.seek(max(0, size - reach))
                lines = file.read(min(reach, size)).split(b"\n")
                # the first line may be cut; it is seen whole on the longer look
                whole = lines if reach >= size else lines[1:]
                for line in reversed(whole[: len(whole) - seen]):
                    if event := _event(line):
                        yield event
                seen = len(whole)
                if reach >= size:
                    return

    def _last_state(self) -> Status:
        """Where many steps follow the last state, so that it is out of reach, that state is "running"."""
        newest = None
        for event in self._backwards():
            newest = newest or event
            if event["kind"] == "state":
                return Status(event["state"], event.get("sentence", ""), event.get("reason", ""), event["time"])
        return Status("running", "", "", newest["time"]) if newest else Status("queued", "", "", self.created)

    def last(self, kind: str) -> dict | None:
        """The newest event of a kind, when it is among the last few hundred."""
        return next((event for event in self._backwards() if event["kind"] == kind), None)


class Events:
    """Appends to a run's events.jsonl; every line is on its way to the disk when `write` returns."""

    def __init__(self, folder: Path):
        self.path = Path(folder) / "events.jsonl"

    def write(self, kind: str, **values) -> dict:
        event = {"kind": kind, "time": time.time(), **values}
        line = json.dumps(event, ensure_ascii=False) + "\n"
        with open(self.path, "a+b") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a kill tore the last line
                    line = "\n" + line
            file.write(line.encode("utf-8"))
        return event

    def state(self, state: str, sentence: str = "", reason: str = "") -> dict:
        return self.write("state", state=state, sentence=sentence, reason=reason)


def create(config: TrainConfig, paths: Paths) -> Run:
    """A new run's folder, queued; nothing is started. Its name is the config's, or made from recipe or data."""
    about = re.sub(r"[^A-Za-z0-9]+", "-", config.recipe or Path(config.data).stem).strip("-")[:40] or "run"
    name = check_name(config.name.strip() or f"{about}-{time.strftime('%m%d-%H%M')}")
    with writing(f"a run in {paths.runs}"):
        paths.runs.mkdir(parents=True, exist_ok=True)
        for number in range(1, 1000):
            folder = paths.runs / (name if number == 1 else f"{name}-{number}")
            try:
                folder.mkdir()
                break
            except FileExistsError:
                continue
        try:
            write_json(folder / "config.json", {**asdict(config), "name": folder.name})
            Events(folder).state("queued")
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)  # half a run
            raise
    return Run(folder)


@contextlib.contextmanager
def writing(what: str) -> Iterator[None]:
    """A disk that is full or may not be written to, as a sentence."""
    try:
        yield
    except OSError as error:
        raise PlaygroundError(
            f"{what} cannot be written: {error.strerror or error}; free some space (or set PLAYGROUND_HOME to a folder "
            "that can be written) and try again"
        ) from None


def check_given_name(config: TrainConfig) -> TrainConfig:
    """The settings, if a run can have the name that they give it; without one it gets one of its own."""
    if name := config.name.strip():
        check_name(name)
    return config


def check_name(name: str) -> str:
    """A name that is one folder and nothing else, or PlaygroundError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise PlaygroundError(
            f"a run's name is 1 to 64 letters, digits, dots, dashes or underscores and starts with a letter or digit; "
            f"got {name[:80]!r}"
        )
    return name


def find(paths: Paths, name: str) -> Run:
    """The run of that name, or PlaygroundError; a name cannot lead out of the folder of runs."""
    folder = paths.runs / check_name(name)
    if not (folder / "config.json").exists():
        raise PlaygroundError(f"there is no run {name!r}; the runs are {', '.join(r.name for r in list_runs(paths))}")
    return Run(folder)


def list_runs(paths: Paths) -> list[Run]:
    """All runs, newest first."""
    if not paths.runs.is_dir():
        return []
    folders = [folder for folder in paths.runs.iterdir() if not folder.name.startswith(".")]
    found = [Run(folder) for folder in folders if (folder / "config.json").exists()]
    return sorted(found, key=lambda run: (run.created, run.name), reverse=True)


def adapters(paths: Paths) -> list[Path]:
    """Folders of the adapters that can be used: those that come with the app, then those of runs, newest first."""
    shipped = sorted(file.parent for file in (ASSETS / "adapters").glob("*/adapter_config.json"))
    return shipped + [run.adapter for run in list_runs(paths) if run.adapter]


def adapter_name(folder: Path) -> str:
    """A shipped adapter's folder has its name; a run's is in the run's."""
    return (folder.parent if folder.name == "adapter" else folder).name


def adapter_named(paths: Paths, name: str) -> Path | None:
    """The folder of the adapter of that name, or of the run that had it before it was renamed."""
    names = {adapter_name(folder): folder for folder in adapters(paths)}
    if name in names:
        return names[name]
    return next((run.adapter for run in list_runs(paths) if name in run.former_names and run.adapter), None)


def adapter_to_go_on_from(paths: Paths, name: str) -> Path:
    """The folder of an adapter by its name, or by the folder's own path. Raises PlaygroundError where there is none."""
    folder = adapter_named(paths, name) or Path(name).expanduser()
    if not (folder / "adapter_config.json").exists():
        known = ", ".join(map(adapter_name, adapters(paths)))
        raise PlaygroundError(f"there is no adapter {name!r} to continue from; the adapters are {known}")
    return folder


def whole_models(paths: Paths) -> list[Path]:
    """Model folders of full fine-tunes that have ended well, newest first."""
    return [run.folder / "model" for run in list_runs(paths) if run.trained_whole]


def ahead(run: Run, paths: Paths) -> int:
    """How many live runs were queued before this one: 0 means it is its turn (or it is running)."""
    mine = (_queued_at(run), run.name)
    return sum(
        1
        for other in list_runs(paths)
        if other.name != run.name and other.status.live and (_queued_at(other), other.name) < mine
    )


def _queued_at(run: Run) -> float:
    times = [event["time"] for event in run.events() if event["kind"] == "state" and event["state"] == "queued"]
    return times[-1] if times else run.created


def note_process(folder: Path, pid: int | None = None) -> None:
    """Write which process trains this run (this one, unless `pid` is given)."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        write_json(Path(folder) / "process.json", {"pid": process.pid, "created": process.create_time()})


def write_json(path: Path, value) -> None:
    """Whole or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def reserve(folder: Path) -> None:
    """Put some bytes aside, to be freed for the last words when the disk is full."""
    (Path(folder) / "reserve").write_bytes(os.urandom(RESERVE))


def free_reserve(folder: Path) -> None:
    (Path(folder) / "reserve").unlink(missing_ok=True)


def remove(run: Run) -> None:
    """Delete the folder; the run must not be live."""
    if run.status.live:
        raise PlaygroundError(f"{run.name} is {run.state}; stop it first")
    # renamed first, so that a half-deleted folder never looks like a run
    gone = run.folder.with_name(f".{run.name}.{time.time_ns()}.deleted")
    run.folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def write_note(run: Run, text: str) -> None:
    """Keep a visitor's note in the folder; "" takes it away."""
    if len(text) > MAX_NOTE:
        raise PlaygroundError(f"a note may have {MAX_NOTE:,} characters, this one has {len(text):,}")
    page = _json(run.folder / "page.json")
    with writing("the note"):
        write_json(run.folder / "page.json", {**page, "note": text.strip()})
        write_card(run)


def take_chat_memory(run: Run) -> None:
    """Note that the models of the chat make way for this run; it is so whenever the run lives, also after a restart."""
    write_json(run.folder / "page.json", {**_json(run.folder / "page.json"), "alone": True})


def alone(paths: Paths) -> Run | None:
    """The live run that the models of the chat make way for; of several the oldest, whose turn it is."""
    marked = [run for run in list_runs(paths) if _json(run.folder / "page.json").get("alone")]
    return next((run for run in reversed(marked) if run.status.live), None)


def rename(run: Run, name: str) -> Run:
    """Give the run, and with it its adapter, another name. PlaygroundError while it is live or if the name is taken."""
    name = check_name(name.strip())
    if name == run.name:
        return run
    if run.status.live:
        raise PlaygroundError(f"{run.name} is {run.state}; a run can be renamed when it has ended")
    folder, settings, page = run.folder.with_name(name), run.settings, _json(run.folder / "page.json")
    shipped = {file.parent.name for file in (ASSETS / "adapters").glob("*/adapter_config.json")}
    if folder.exists() or name in shipped:
        raise PlaygroundError(f"there is already a run or an adapter called {name}; choose another name")
    former = [old for old in [*run.former_names, run.name] if old != name]
    try:
        run.folder.rename(folder)
    except OSError as error:
        raise PlaygroundError(f"{run.name} cannot be renamed: {error.strerror or error}") from None
    renamed = Run(folder)
    write_json(folder / "page.json", {**page, "former_names": former})
    write_json(folder / "config.json", {**settings, "name": name})
    if about := _json(renamed._about_file):
        about["config"] = {**kinds.sound(about, kinds.ABOUT).get("config", {}), "name": name}
        write_json(renamed._about_file, about)
    write_card(renamed)
    return renamed


def card(run: Run) -> run_card.Card:
    """The run's card as it stands. Raises PlaygroundError where its config.json cannot be read."""
    return run_card.card(run.name, run.state, run.settings, run.about, run.events(), run.note)


def write_card(run: Run) -> Path:
    """Write run-card.md, unless it says the same already."""
    path, text = run.folder / run_card.FILE, run_card.markdown(card(run))
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    return path


def _json(path: Path) -> dict:
    """A small JSON object; {} where there is none, or none that can be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _event(line: bytes) -> dict | None:
    """An event, without the values that are not of the kind they should be; None where too little is left of it.

    One odd line, of another version or of a hand that edited it, must not take the list of runs from everybody.
    """
    if not line.strip():
        return None
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict):
        return None
    event = kinds.sound(event, kinds.EVENT)
    if "kind" not in event or "time" not in event:
        return None
    return event if all(key in event for key in NEEDED.get(event["kind"], ())) else None
