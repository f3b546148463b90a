"""Trainer processes, with a stand-in that takes its turn as the real one does but needs no torch."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time

import filelock
import pytest

from playground.config import Paths, TrainConfig
from playground.errors import PlaygroundError
from playground.services import runs
from playground.services.jobs import Jobs

# Waits for the device, runs until its folder holds "end" or it is asked to stop, and says so.
TRAINER = """
import sys, time
from pathlib import Path
from playground.config import Paths
from playground.services import runs
from playground.services.jobs import wait_for_device
run, log = runs.Run(Path(sys.argv[1])), runs.Events(sys.argv[1])
stop = run.folder / "stop"
print("begun", flush=True)
runs.note_process(run.folder)
lock = wait_for_device(run, Paths(), stop.exists, lambda n: log.write("queue", before=n), pause=0.02)
if lock:
    log.state("running")
    while not stop.exists() and not (run.folder / "end").exists():
        time.sleep(0.02)
log.state("stopped" if stop.exists() else "finished")
"""


@pytest.fixture
def jobs(tmp_path):
    paths = Paths(tmp_path)
    jobs = Jobs(paths, command=(sys.executable, "-c", TRAINER))
    yield jobs
    for run in runs.list_runs(paths):
        with contextlib.suppress(PlaygroundError):
            jobs.delete(run)


def reaches(run, state, seconds=10):
    deadline = time.monotonic() + seconds
    while run.state != state and time.monotonic() < deadline:
        time.sleep(0.02)
    return run.state == state


def config(name):
    return TrainConfig(name=name)


def test_a_run_starts_in_a_session_of_its_own_and_logs_to_a_file(jobs):
    run = jobs.start(config("a"))
    assert reaches(run, "running")
    assert os.getsid(run.process().pid) == run.process().pid != os.getsid(0)
    assert run.log() == "begun\n"
    (run.folder / "end").touch()
    assert reaches(run, "finished")


def test_a_second_run_waits_its_turn_seen_from_any_app(jobs):
    first, second, third = (jobs.start(config(name)) for name in "abc")
    assert reaches(first, "running")
    other_app = Jobs(jobs.paths)
    deadline = time.monotonic() + 10
    while not (second.last("queue") and third.last("queue")) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (second.last("queue")["before"], third.last("queue")["before"]) == (1, 2)
    assert [other_app.position(run) for run in (first, second, third)] == [0, 1, 2]
    assert (second.state, third.state) == ("queued", "queued")
    jobs.stop(second)  # a queued run can leave the queue
    assert reaches(second, "stopped")
    assert other_app.position(third) == 1
    (first.folder / "end").touch()
    assert reaches(third, "running")
    assert other_app.position(third) == 0


def test_a_run_waits_for_the_device_even_if_it_sees_nobody_before_it(jobs):
    jobs.paths.runs.mkdir()
    with filelock.FileLock(jobs.paths.runs / ".device.lock"):
        run = jobs.start(config("a"))
        deadline = time.monotonic() + 10
        while not run.last("queue") and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.1)
        assert run.state == "queued"
    assert reaches(run, "running")


def test_a_killed_trainer_frees_the_device_and_can_be_resumed(jobs):
    first, second = jobs.start(config("a")), jobs.start(config("b"))
    assert reaches(first, "running")
    os.kill(first.process().pid, signal.SIGKILL)
    assert reaches(first, "killed")
    assert reaches(second, "running")
    jobs.resume(first)  # it goes to the end of the queue
    assert jobs.position(first) == 1
    (second.folder / "end").touch()
    assert reaches(first, "running")


APP = """
import sys, time
from playground.config import Paths, TrainConfig
from playground.services.jobs import Jobs
Jobs(Paths(), command=(sys.executable, "-c", sys.argv[1])).start(TrainConfig(name="a"))
time.sleep(600)
"""


def test_a_run_outlives_the_app_that_is_killed_and_the_next_one_stops_it(jobs):
    app = subprocess.Popen(
        [sys.executable, "-c", APP, TRAINER], env={**os.environ, "PLAYGROUND_HOME": str(jobs.paths.home)}
    )
    run = runs.Run(jobs.paths.runs / "a")
    assert reaches(run, "running")
    trainer = run.process().pid
    app.kill()
    app.wait(10)
    assert (run.state, run.process().pid) == ("running", trainer)
    jobs.stop(run)  # by an app that has not started it
    assert reaches(run, "stopped")


def test_of_two_tabs_that_resume_a_run_one_is_told_that_it_lives(jobs):
    first, second = jobs.start(config("a")), jobs.start(config("b"))
    assert reaches(first, "running")
    os.kill(first.process().pid, signal.SIGKILL)
    assert reaches(first, "killed")
    assert "where memory ran out" in first.status.sentence
    said = []

    def tab():
        try:
            Jobs(jobs.paths, command=jobs.command).resume(runs.Run(first.folder))
        except PlaygroundError as error:
            said.append(str(error))

    tabs = [threading.Thread(target=tab) for _ in range(2)]
    for one in tabs:
        one.start()
    for one in tabs:
        one.join()
    assert len(said) == 1
    assert re.search("a is (queued|running)", said[0])
    assert sum(e["state"] == "queued" for e in first.events() if e["kind"] == "state") == 2
    (second.folder / "end").touch()


def test_stop_and_keep_asks_stop_and_discard_ends(jobs):
    run = jobs.start(config("a"))
    assert reaches(run, "running")
    jobs.stop(run)
    assert reaches(run, "stopped")
    with pytest.raises(PlaygroundError, match="stopped already"):
        jobs.stop(run)
    jobs.resume(run)
    assert reaches(run, "running")
    process = run.process()
    jobs.stop(run, keep=False)
    assert run.state == "stopped"
    assert "nothing kept" in run.status.sentence
    assert not process.is_running() or process.status() == "zombie"


def test_delete_ends_the_trainer_and_removes_the_folder(jobs):
    run = jobs.start(config("a"))
    assert reaches(run, "running")
    process = run.process()
    jobs.delete(run)
    assert not run.folder.exists()
    assert not process.is_running() or process.status() == "zombie"


def test_only_an_ended_run_is_resumed(jobs):
    run = jobs.start(config("a"))
    assert reaches(run, "running")
    with pytest.raises(PlaygroundError, match="a is running; only"):
        jobs.resume(run)
    (run.folder / "end").touch()
    assert reaches(run, "finished")
    with pytest.raises(PlaygroundError, match="a is finished; only"):
        jobs.resume(run)


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"rank": 0}, "rank must be between 1 and 256, got 0"),
        ({"name": "../x"}, "a run's name is"),
        ({"name": "mine/two"}, "got 'mine/two'"),
        ({"model": "nonsense"}, "unknown model 'nonsense'"),
    ],
)
def test_settings_that_cannot_work_start_nothing(tmp_path, settings, sentence):
    from playground.services.sources import Sources

    paths = Paths(tmp_path)
    jobs = Jobs(paths, Sources(paths), command=(sys.executable, "-c", TRAINER))
    with pytest.raises(PlaygroundError, match=sentence):
        jobs.start(TrainConfig(**settings))
    assert runs.list_runs(paths) == []
