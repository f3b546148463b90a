"""Twenty steps on the real model, killed in the middle and resumed; and a run stopped with Ctrl-C in the terminal."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from playground.config import Paths, TrainConfig
from playground.services import runs
from playground.services.jobs import Jobs
from playground.services.sources import Sources

NAME = "smollm2-135m-instruct"
PATIENCE = 600  # seconds; a loaded machine is slow


@pytest.fixture
def paths(tmp_path, monkeypatch):
    """A home of its own for the runs; the model is the one that is here or that can be fetched."""
    folder = Sources(Paths()).get(NAME)
    monkeypatch.setenv("PLAYGROUND_MODELS", str(folder.parent))
    monkeypatch.setenv("PLAYGROUND_HOME", str(tmp_path))
    paths = Paths(tmp_path)
    assert Sources(paths).find(NAME)
    yield paths
    for run in runs.list_runs(paths):  # a test that failed leaves no trainer behind
        Jobs(paths).delete(run)


def wait_until(run, true):
    deadline = time.monotonic() + PATIENCE
    while not true() and run.status.live and time.monotonic() < deadline:
        time.sleep(0.1)
    assert true(), f"{run.status}\n{run.log()}"


def at_step(run):
    return (run.last("step") or {"step": 0})["step"]


def test_twenty_steps_with_a_kill_in_the_middle(paths):
    jobs = Jobs(paths, Sources(paths))
    short = {"steps": 20, "batch_size": 4, "eval_every": 5, "eval_rows": 4, "rows": 120, "probe_tokens": 16}
    # sums round otherwise with another number of threads, so it is the same before and after the kill
    config = TrainConfig(**short, threads=1, name="killed")
    run = jobs.start(config)
    wait_until(run, lambda: run.last("checkpoint") and at_step(run) >= 7)
    os.kill(run.process().pid, signal.SIGKILL)
    wait_until(run, lambda: run.state == "killed")
    assert run.resumable
    assert run.adapter is None
    before = {e["step"]: e["loss"] for e in run.events() if e["kind"] == "step"}
    told = len(run.events())

    jobs.resume(run)
    wait_until(run, lambda: run.state == "finished")
    after = {e["step"]: e["loss"] for e in run.events(told) if e["kind"] == "step"}
    kept = max(e["step"] for e in run.events()[:told] if e["kind"] == "checkpoint")
    assert list(after) == list(range(kept + 1, 21))
    for step in after.keys() & before.keys():
        assert after[step] == pytest.approx(before[step], rel=1e-3)
    evals = [e["eval_loss"] for e in run.events() if e["kind"] == "eval"]
    assert evals[-1] < 0.6 * evals[0]
    truth = json.loads((run.folder / "truth.json").read_text())
    assert truth["passed"]
    assert truth["difference"] > 10 * truth["noise"]
    assert (run.adapter / "adapter_model.safetensors").stat().st_size < 6 * 2**20


def test_ctrl_c_stops_and_keeps(paths):
    words = [
        "--steps",
        "500",
        "--batch-size",
        "2",
        "--rows",
        "40",
        "--eval-share",
        "0",
        "--probe",
        "",
        "--name",
        "short",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "playground", "train", *words, "--json"], stdout=subprocess.PIPE, text=True
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("step 3/500"):
            process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 0
    result = json.loads(lines[-1])
    assert result["state"] == "stopped"
    assert 3 <= result["steps"] < 500
    assert result["truth"]["passed"]
    assert (paths.runs / "short" / "adapter" / "playground.json").exists()


def test_two_processes_have_the_curve_of_one_and_stop_and_keep(paths):
    """Through `accelerate launch`, as the app starts them."""
    jobs, curves = Jobs(paths, Sources(paths)), []
    short = {"steps": 40, "warmup_steps": 1, "batch_size": 3, "eval_every": 40, "eval_rows": 2, "rows": 12, "probe": ""}
    for processes in (1, 2):
        config = TrainConfig(**short, dtype="float32", threads=1, processes=processes, name=f"by-{processes}")
        run = jobs.start(config)
        wait_until(run, lambda run=run: at_step(run) >= 3)
        jobs.stop(run)
        wait_until(run, lambda run=run: run.state == "stopped")
        assert run.adapter, run.log()
        assert json.loads((run.folder / "truth.json").read_text())["passed"]
        assert run.last("plan")["processes"] == processes
        curves.append([event["loss"] for event in run.events() if event["kind"] == "step"][:3])
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
