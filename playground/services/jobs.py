"""Trainer processes: started, queued, stopped, resumed and deleted, from any app or terminal that sees the folder.

Nothing about a run is kept in memory. The queue is the folder of runs: each waiting trainer process takes its turn
when no live run was queued before it and the device's lock is free. The kernel releases the lock when its holder
dies, however it dies.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable

import filelock
import psutil

from playground.config import PACKAGE, Paths, TrainConfig, check
from playground.errors import PlaygroundError
from playground.services import runs
from playground.services.figures import check_installed
from playground.services.runs import Events, Run

TRAINER = (sys.executable, "-m", "playground", "train", "--run-folder")
STOP_WORDS = ("keep", "discard")


class Jobs:
    """Starts trainers as processes of their own, which outlive this one."""

    def __init__(self, paths: Paths, sources=None, command: tuple[str, ...] = TRAINER):
        self.paths = paths
        self.sources = sources
        self.command = command
        # kept only to collect the exit status of ended children; nothing asks it about a run
        self._children: list[subprocess.Popen] = []

    def start(self, config: TrainConfig) -> Run:
        """Queue a run; it begins at once when no other is live. PlaygroundError when the settings cannot work."""
        runs.check_given_name(check(config))
        check_installed(config.log_to)
        if self.sources is not None:
            self.sources.entry(config.model)  # an unknown name fails here, not in a minute's time
        run = runs.create(config, self.paths)
        self._launch(run)
        return run

    def stop(self, run: Run, keep: bool = True) -> None:
        """Ask the trainer to stop after the step it is in and save what it has; or, without `keep`, end it now."""
        if not run.status.live:
            raise PlaygroundError(f"{run.name} is {run.state} already")
        runs.write_json(run.folder / "stop", STOP_WORDS[not keep])
        if not keep:
            self._end(run)
            Events(run.folder).state("stopped", "stopped, nothing kept since the last checkpoint")

    def resume(self, run: Run) -> None:
        """Continue from the last checkpoint (from the start when there is none)."""
        if not run.resumable:
            raise PlaygroundError(f"{run.name} is {run.state}; only a stopped, failed or killed run can be resumed")
        with filelock.FileLock(self.paths.runs / ".resume.lock"):
            if run.status.live:
                raise PlaygroundError(f"{run.name} is {run.state} already")
            with runs.writing(run.name):
                (run.folder / "stop").unlink(missing_ok=True)
                (run.folder / "process.json").unlink(missing_ok=True)
                Events(run.folder).state("queued")
                self._launch(run)

    def delete(self, run: Run) -> None:
        """End the trainer if it lives, and remove the folder with everything in it."""
        if run.status.live:
            self._end(run)
            Events(run.folder).state("stopped", "deleted")
        runs.remove(run)

    def position(self, run: Run) -> int:
        """0: running, or next; n: n live runs come first."""
        return runs.ahead(run, self.paths)

    def _launch(self, run: Run) -> None:
        environment = {**os.environ, "PLAYGROUND_HOME": str(self.paths.home), "PYTHONUNBUFFERED": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(
            part for part in (str(PACKAGE.parent), environment.get("PYTHONPATH")) if part
        )
        # A file, never a pipe: a pipe that nobody reads any more stops the trainer when it is full.
        with open(run.folder / "log.txt", "ab") as log:
            child = subprocess.Popen(
                [*self.command, str(run.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        runs.note_process(run.folder, child.pid)
        self._children = [c for c in self._children if c.poll() is None] + [child]

    def _end(self, run: Run) -> None:
        """End the trainer and what it started, politely and then not."""
        process = run.process()
        if process is None:
            return
        with contextlib.suppress(psutil.Error):
            family = [*process.children(recursive=True), process]
            for one in family:
                with contextlib.suppress(psutil.Error):
                    one.kill()
            psutil.wait_procs(family, timeout=10)


def wait_for_device(
    run: Run, paths: Paths, should_stop: Callable[[], bool], waiting: Callable[[int], None], pause: float = 0.5
) -> filelock.FileLock | None:
    """Called by the trainer: blocks until it is this run's turn. Returns the held lock, or None when asked to stop.

    `waiting(n)` is called whenever the number of runs before this one changes.
    """
    lock, told = filelock.FileLock(paths.runs / ".device.lock"), 0
    while not should_stop():
        before = runs.ahead(run, paths)
        if not before:
            with contextlib.suppress(filelock.Timeout):
                lock.acquire(timeout=0)
                return lock
        if max(before, 1) != told:
            told = max(before, 1)
            waiting(told)
        time.sleep(pause)
    return None
