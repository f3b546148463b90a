"""Run folders: what they say about a run, whatever became of the process that wrote them."""

import json
import os
import subprocess
import sys
import time

import pytest

from playground.config import Paths, TrainConfig
from playground.errors import PlaygroundError
from playground.services import runs
from playground.services.runs import Events, Run


@pytest.fixture
def paths(tmp_path):
    return Paths(tmp_path)


def made(paths, *states, name="a", process=None):
    run = runs.create(TrainConfig(name=name), paths)
    for state in states:
        Events(run.folder).state(state, f"{state} now")
    if process:
        runs.note_process(run.folder, process)
    return run


@pytest.fixture
def gone():
    """The pid of a process that has ended, and has not been used again since."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_a_run_keeps_its_settings(paths):
    run = runs.create(TrainConfig(rank=4, learning_rate=1e-3, recipe="tool-calling", name="mine"), paths)
    assert runs.find(paths, "mine").config == TrainConfig(
        rank=4, learning_rate=1e-3, recipe="tool-calling", name="mine"
    )
    assert run.state == "queued"


def test_names_are_made_and_never_taken_twice(paths):
    first, second = made(paths), made(paths)
    assert [first.name, second.name] == ["a", "a-2"]
    assert second.config.name == "a-2"
    assert runs.create(TrainConfig(recipe="tool-calling"), paths).name.startswith("tool-calling-")
    assert runs.create(TrainConfig(data="/somewhere/my rows.jsonl"), paths).name.startswith("my-rows-")


@pytest.mark.parametrize("name", ["../a", "a/b", ".hidden", "", "a" * 65, "a\nb", "c:\\x"])
def test_a_name_cannot_leave_its_folder(paths, name):
    with pytest.raises(PlaygroundError, match="a run's name is"):
        runs.find(paths, name)


def test_an_unknown_run_is_a_sentence_that_lists_the_known(paths):
    made(paths, name="known")
    with pytest.raises(PlaygroundError, match="no run 'other'; the runs are known"):
        runs.find(paths, "other")


def test_the_last_state_stands_while_the_process_lives(paths):
    run = made(paths, "preparing", "running", process=os.getpid())
    assert (run.state, run.status.sentence, run.status.live) == ("running", "running now", True)


@pytest.mark.parametrize("end", ["finished", "stopped", "failed"])
def test_an_end_stands_without_a_process(paths, gone, end):
    run = made(paths, "running", end)
    (run.folder / "process.json").write_text(json.dumps({"pid": gone, "created": time.time()}))
    assert (run.state, run.status.live) == (end, False)


def test_a_dead_trainer_without_an_end_was_killed(paths, gone):
    run = made(paths, "running")
    Events(run.folder).write("step", step=7)
    (run.folder / "process.json").write_text(json.dumps({"pid": gone, "created": time.time()}))
    assert run.state == "killed"
    assert "at step 7" in run.status.sentence
    assert run.resumable


def test_a_pid_that_now_belongs_to_another_process_is_not_the_trainer(paths):
    run = made(paths, "running", process=os.getpid())
    saved = json.loads((run.folder / "process.json").read_text())
    (run.folder / "process.json").write_text(json.dumps({**saved, "created": saved["created"] - 3600}))
    assert run.state == "killed"


def test_a_zombie_is_dead(paths):
    child = subprocess.Popen([sys.executable, "-c", ""])
    run = made(paths, "running", process=child.pid)
    deadline = time.monotonic() + 10
    while run.state != "killed" and time.monotonic() < deadline:
        time.sleep(0.02)  # it ends, and nobody waits for it
    assert run.state == "killed"
    child.wait()


def test_a_trainer_gets_time_to_say_who_it_is(paths, monkeypatch):
    run = made(paths)
    assert run.state == "queued"
    monkeypatch.setattr(runs, "START_GRACE", -1)
    assert run.state == "killed"


def test_a_torn_line_is_left_out_and_the_next_one_is_whole(paths):
    run = made(paths, "running", process=os.getpid())
    with open(run.folder / "events.jsonl", "ab") as file:
        file.write(b'{"kind": "step", "time": 1, "st')
    assert [event["kind"] for event in run.events()] == ["state", "state"]
    Events(run.folder).write("step", step=3, text="é")
    assert [event["kind"] for event in run.events()] == ["state", "state", "step"]
    assert run.events()[-1]["text"] == "é"


def test_events_since_a_line(paths):
    run = made(paths, "preparing", "running")
    assert [event["state"] for event in run.events(since=2)] == ["running"]
    assert Run(paths.runs / "nowhere").events() == []


def test_the_state_is_found_behind_many_steps(paths):
    run = made(paths, "running", process=os.getpid())
    log = Events(run.folder)
    for step in range(1500):
        log.write("step", step=step, filler="x" * 60)
    assert (run.folder / "events.jsonl").stat().st_size > 64 * 1024
    assert run.state == "running"


@pytest.mark.parametrize("end, listed", [("finished", True), ("stopped", True), ("failed", False), ("running", False)])
def test_adapters_of_runs_that_ended_well_are_listed(paths, end, listed):
    run = made(paths, end, process=os.getpid())
    assert run.adapter is None
    (run.folder / "adapter").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (run.folder / "adapter" / name).write_text("{}")
    assert (run.folder / "adapter" in runs.adapters(paths)) is listed


def test_runs_are_listed_newest_first_and_strangers_left_out(paths):
    assert runs.list_runs(paths) == []
    one, two = made(paths, name="b"), made(paths, name="a")
    (paths.runs / "notes").mkdir()
    (paths.runs / ".device.lock").touch()
    assert [run.name for run in runs.list_runs(paths)] == [two.name, one.name]


def test_a_config_of_another_version_opens(paths):
    run = made(paths)
    (run.folder / "config.json").write_text(json.dumps({"rank": 4, "method": "dora"}))
    assert run.config.rank == 4


@pytest.mark.parametrize("text, why", [("{", "cannot be read"), ('{"rank": 0}', "rank must be between")])
def test_a_broken_config_is_a_sentence(paths, text, why):
    run = made(paths)
    (run.folder / "config.json").write_text(text)
    with pytest.raises(PlaygroundError, match=why):
        _ = run.config


def test_the_end_of_the_log(paths):
    run = made(paths)
    assert run.log() == ""
    (run.folder / "log.txt").write_text("a" * 100 + "end")
    assert run.log(6) == "aaaend"


def test_a_live_run_is_not_removed(paths):
    run = made(paths, "running", process=os.getpid())
    with pytest.raises(PlaygroundError, match="stop it first"):
        runs.remove(run)
    Events(run.folder).state("stopped")
    runs.remove(run)
    assert runs.list_runs(paths) == []
    assert not run.folder.exists()
