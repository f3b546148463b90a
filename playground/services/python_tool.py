"""The Python tool: code that a model wrote, run in a process that has next to no rights and is gone afterwards.

Two stages: `python_walls` gives up rights, `python_child` sets an audit hook and runs the code. What stops what:

- limits (POSIX): processor seconds, memory (Linux), size of a file, open files, and for others than root the number of
  processes; from here: the wall clock, what is printed, the size of the scratch folder. The whole process group is
  killed.
- user and network namespace (Linux, where unprivileged ones are allowed): no network, not even loopback; root's
  powers are gone.
- seccomp (Linux on x86_64 and aarch64): no new process or thread, no socket, no signal to others, no links.
- Landlock (Linux 5.13 and later, where switched on): no file but the scratch folder, the interpreter and the system's
  libraries. That such files exist elsewhere, and how large they are, can still be seen.
- the audit hook (everywhere): the same by intent, with a sentence the model can read. Alone it stops accidents and
  curiosity, not an expert: it runs in the process that it guards.

The environment is empty and only pipes are open, so no secret is inside the process. A hole in the kernel would be a
way out of all of it, and code inside can waste a core for some seconds: on a public server the tool is off unless
somebody switches it on (see `refusal`). `Outcome.walls` tells which walls stood.
"""

import ast
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from playground.core.tools import Tool, ToolError, without_picture
from playground.services.hosts import is_local

NAME = "python"
SWITCH = "PLAYGROUND_PYTHON_TOOL"  # "1" switches the tool on where it would be off, "0" off
MAX_CODE = 20_000  # characters
AT_ONCE = 4  # processes
WAIT = 10.0  # seconds for one of them
_WALLS = Path(__file__).with_name("python_walls.py")


@dataclass(frozen=True)
class Limits:
    seconds: float = 5.0  # by the clock on the wall; the processor's seconds are the next whole number
    memory_bytes: int = 512 * 2**20  # of address space
    output_bytes: int = 64 * 2**10
    file_bytes: int = 10 * 2**20
    folder_bytes: int = 50 * 2**20
    folder_files: int = 500
    open_files: int = 32


@dataclass(frozen=True)
class Outcome:
    """`value` is the repr of a last line that is an expression; `error` says in one line what went wrong."""

    output: str
    value: str | None
    error: str | None
    line: int | None  # of the code, where the error came up
    printed: int  # bytes; more than `output` holds where it was cut
    seconds: float
    walls: tuple[str, ...]  # of "limits", "namespaces", "landlock", "seccomp"; the audit hook always


def refusal(host: str, environ: Mapping[str, str] = os.environ) -> str:
    """Why the tool is off on a server that listens on `host`; "" where it may be offered."""
    if os.name != "posix":
        return "the Python tool needs Linux or macOS"
    switch = environ.get(SWITCH, "").strip()
    if switch == "0":
        return f"the Python tool is switched off by {SWITCH}=0"
    if switch == "1":
        return ""
    if environ.get("SPACE_ID"):
        return f"the Python tool is off on a public Space; {SWITCH}=1 switches it on"
    if not is_local(host, environ):
        return f"the Python tool is off while others can reach this server ({host}); {SWITCH}=1 switches it on"
    return ""


def allowed(host: str, environ: Mapping[str, str] = os.environ) -> bool:
    return not refusal(host, environ)


class Python:
    """Runs code for all visitors of this process, at most `AT_ONCE` at a time."""

    def __init__(self, limits: Limits = Limits(), at_once: int = AT_ONCE):
        self.limits = limits
        self._free = threading.BoundedSemaphore(at_once)

    def tool(self) -> Tool:
        parameters = {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]}
        return Tool(NAME, "Run Python code and see what it prints", parameters, self.run)

    def run(self, code: str) -> dict:
        """The tool: what the code printed and the value of its last line."""
        outcome = self._outcome(code)
        if outcome.error:
            raise ToolError(_sentence(outcome))
        result = {"output": outcome.output} if outcome.output or outcome.value is None else {}
        if outcome.value is not None:
            result["value"] = outcome.value
        if outcome.printed > self.limits.output_bytes:
            result["cut"] = _cut(outcome.printed, self.limits.output_bytes)
        return result

    def call(self, source: str, name: str, arguments: dict) -> dict:
        """What the function `name` of `source` returns: a custom tool's own code, never run in our process."""
        given = json.dumps(json.dumps(arguments))
        mark = f"_{os.urandom(8).hex()}"
        code = (
            f"{source}\n\nimport json as {mark}\n"
            f"{mark}.dumps({name}(**{mark}.loads({given})), default=str, ensure_ascii=False)"
        )
        outcome = self._outcome(code)
        if outcome.error:
            raise ToolError(_sentence(outcome))
        try:
            value = json.loads(_unquoted(outcome.value or "None"))
        except ValueError:
            raise ToolError(f"{name} returned more than {self.limits.output_bytes:,} characters.") from None
        return without_picture(value) if isinstance(value, dict) else {"result": value}

    def _outcome(self, code: str) -> Outcome:
        if len(code) > MAX_CODE:
            raise ToolError(f"The code has {len(code):,} characters, at most {MAX_CODE:,} are allowed.")
        if not self._free.acquire(timeout=WAIT):
            raise ToolError("Too many programs are running at this moment; try again in some seconds.")
        try:
            return run(code, self.limits)
        finally:
            self._free.release()


def _unquoted(text: str) -> str:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):  # cut in the middle
        raise ValueError from None
    return value if isinstance(value, str) else json.dumps(value)


def _sentence(outcome: Outcome) -> str:
    where = f" (line {outcome.line})" if outcome.line else ""
    end = "" if outcome.error.endswith(".") and not where else "."
    printed = outcome.output.strip()
    printed = f" Printed before: {printed[-500:]}" if printed else ""
    return f"{outcome.error[:1000]}{where}{end}{printed}"


def _cut(printed: int, kept: int) -> str:
    return f"{printed:,} bytes were printed, the first {kept:,} are here"


def run(code: str, limits: Limits = Limits()) -> Outcome:
    """Run `code` in a process and a folder of its own; both are gone when this returns."""
    scratch = os.path.realpath(tempfile.mkdtemp(prefix="playground-python-"))
    try:
        return _Run(code, limits, scratch).outcome()
    finally:
        _remove(scratch)


class _Run:
    def __init__(self, code: str, limits: Limits, scratch: str):
        self.limits, self.scratch = limits, scratch
        self.output, self.printed, self.report = bytearray(), 0, bytearray()
        bounds = {
            "cpu_seconds": int(limits.seconds) + 1,
            "memory_bytes": limits.memory_bytes,
            "file_bytes": limits.file_bytes,
            "open_files": limits.open_files,
        }
        self.request = {"code": code, "scratch": scratch, "limits": bounds}

    def outcome(self) -> Outcome:
        started = time.monotonic()
        report_in, report_out = os.pipe()
        try:
            with tempfile.TemporaryFile() as request:
                request.write(json.dumps(self.request).encode())
                request.seek(0)
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-B", str(_WALLS), str(report_out)],
                    stdin=request,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    cwd=self.scratch,
                    env={},
                    pass_fds=(report_out,),
                    start_new_session=True,
                )
        except BaseException:
            os.close(report_in)
            raise
        finally:
            os.close(report_out)
        try:
            stopped = self._watch(process, report_in, started + self.limits.seconds)
        finally:
            _kill(process)
            process.stdout.close()
            os.close(report_in)
        return self._told(process.returncode, stopped, time.monotonic() - started)

    def _watch(self, process: subprocess.Popen, report: int, deadline: float) -> str | None:
        """Read until the process ends; why it was stopped, where it did not end by itself."""
        with selectors.DefaultSelector() as waiting:
            waiting.register(process.stdout, selectors.EVENT_READ)
            waiting.register(report, selectors.EVENT_READ)
            look_again = 0.0
            while waiting.get_map():
                now = time.monotonic()
                if now > deadline:
                    return f"The program ran longer than {self.limits.seconds:g} seconds and was stopped."
                if now > look_again:
                    if too_much := self._folder_fault():
                        return too_much
                    look_again = time.monotonic() + 0.1
                for key, _ in waiting.select(min(0.1, deadline - now)):
                    piece = os.read(key.fd, 1 << 16)
                    if not piece:
                        waiting.unregister(key.fileobj)
                    elif key.fd == report:
                        self.report += piece[: 2 * 10**6 - len(self.report)]
                    else:
                        self.printed += len(piece)
                        self.output += piece[: max(0, self.limits.output_bytes - len(self.output))]
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return f"The program ran longer than {self.limits.seconds:g} seconds and was stopped."
        return None

    def _folder_fault(self) -> str | None:
        size = files = 0
        for folder, folders, names in os.walk(self.scratch):
            files += len(folders) + len(names)
            if files > self.limits.folder_files:
                return f"The program made more than {self.limits.folder_files} files and was stopped."
            size += sum(_size(os.path.join(folder, name)) for name in names)
        if size > self.limits.folder_bytes:
            return f"The program wrote more than {self.limits.folder_bytes / 2**20:.0f} MB and was stopped."
        return None

    def _told(self, code: int, stopped: str | None, seconds: float) -> Outcome:
        told = _json(self.report)
        error = stopped or _text(told.get("error"))
        if not error and not told:
            error = self._ended(code)
        if error and error.startswith("MemoryError"):
            error = f"MemoryError: the program may use {self.limits.memory_bytes / 2**20:.0f} MB of memory"
        value, line, walls = _text(told.get("value")), told.get("line"), told.get("walls")
        return Outcome(
            self.output.decode("utf-8", "replace"),
            value,
            error,
            line if isinstance(line, int) and not stopped else None,
            self.printed,
            seconds,
            tuple(map(str, walls)) if isinstance(walls, list) else (),
        )

    def _ended(self, code: int) -> str:
        if code in (-signal.SIGKILL, -signal.SIGXCPU):
            return f"The program used more than {self.request['limits']['cpu_seconds']} seconds of the processor."
        if code < 0:
            return f"The interpreter was stopped by signal {-code}; the code asked for more than it can do."
        return f"The interpreter ended with exit code {code} and told no result."


def _json(report: bytes) -> dict:
    try:
        told = json.loads(report.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _text(value) -> str | None:
    return value if isinstance(value, str) else None


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0  # removed meanwhile


def _kill(process: subprocess.Popen) -> None:
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            process.kill()  # before it was given its own group
    process.wait()


def _remove(folder: str) -> None:
    try:
        shutil.rmtree(folder)
    except (OSError, RecursionError):
        subprocess.run(["rm", "-rf", "--", folder], check=False, capture_output=True)
