"""A run that two processes share, over gloo on this CPU, against the same run by one."""

import dataclasses
import json
import multiprocessing
import socket

import pytest

from playground.config import Paths
from playground.services import runs
from tests.integration import together

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from safetensors.torch import load_file  # noqa: E402

from playground.services import trainer  # noqa: E402
from tests.integration.test_trainer import CONFIG, model_folder  # noqa: E402, F401

# seven rows to train on, in steps of three: the last step of an epoch has one row, so one process has none
ROWS = [
    {"instruction": f"Say {word} {'please ' * i}twice", "output": f"{word} {word}"}
    for i, word in enumerate(("one", "two", "three", "four", "five", "six", "seven", "eight"))
]
SETTINGS = {"batch_size": 3, "steps": 4, "dtype": "float32", "threads": 1, "weight_decay": 0.1}
CASES = {  # what the run is, beside SETTINGS
    "pieces": {"piece_tokens": 60, "clip": 0.1},
    "soft": {"method": "prompt", "dtype": "bfloat16", "probe": ""},
    "full": {"method": "full", "learning_rate": 0.005, "probe": ""},
}
WHOLE = ("soft",)  # a soft prompt cannot be shared out


@pytest.fixture(scope="module")
def home(tmp_path_factory, model_folder):  # noqa: F811
    """Homes of the runs by one process and by two: each case is done by two, and with shares of the layers."""
    folder = tmp_path_factory.mktemp("home")
    alone, paths, data = Paths(folder / "alone"), Paths(folder), folder / "rows.json"
    data.write_text(json.dumps(ROWS))
    base = dataclasses.replace(CONFIG, data=str(data), **SETTINGS)
    wanted = []

    def ask(name, sharded=False, stop_after=0, **settings):
        runs.create(dataclasses.replace(base, name=name, **settings), paths)
        wanted.append((name, sharded, stop_after))

    for case, settings in CASES.items():
        runs.create(dataclasses.replace(base, name=case, **settings), alone)
        ask(f"{case}-2", **settings)
        if case not in WHOLE:
            ask(f"{case}-shared", True, **settings)
    ask("cut-2", stop_after=2, **CASES["pieces"])
    ask("cut-shared", True, stop_after=2, **CASES["pieces"])
    ask("shared-soft", True, method="prompt")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # a server that has imported everything once, and forks
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["playground.core.training.loop", "peft", "transformers.models.llama"])
    both = [
        context.Process(target=together.work, args=(rank, port, str(folder), str(model_folder), wanted))
        for rank in (0, 1)
    ]
    for process in both:
        process.start()
    for case in CASES:
        trainer.train(runs.find(alone, case), alone, together.Sources(model_folder))
    for process in both:
        process.join(90)
        if process.is_alive():
            process.kill()
    assert [process.exitcode for process in both] == [0, 0], [p.read_text() for p in folder.glob("fault-*")]
    return alone, paths


def curve(run):
    return [event["loss"] for event in run.events() if event["kind"] == "step"]


def weights(run):
    return load_file(next(f for f in run.folder.rglob("*model.safetensors") if f.parent.name in ("adapter", "model")))


@pytest.mark.parametrize(
    "case, ending", [(case, ending) for case in CASES for ending in ("2", *["shared"] * (case not in WHOLE))]
)
def test_two_processes_have_the_curve_and_the_weights_of_one(home, case, ending):
    one, two = runs.find(home[0], case), runs.find(home[1], f"{case}-{ending}")
    assert two.state == "finished", two.status.sentence
    plan = two.last("plan")
    assert (plan["processes"], plan["sharded"]) == (2, ending == "shared")
    exact = one.config.dtype == "float32"
    rel = 1e-5 if exact else 0.02
    assert curve(two) == pytest.approx(curve(one), rel=rel)
    for kind, key in (("eval", "eval_loss"), ("step", "grad_norm")):
        both = [[e[key] for e in run.events() if e["kind"] == kind] for run in (one, two)]
        assert both[1] == pytest.approx(both[0], rel=10 * rel)
    said = [[e["text"] for e in run.events() if e["kind"] == "sample"] for run in (one, two)]
    assert said[0] == said[1]
    ours, theirs = weights(two), weights(one)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor.float(), theirs[name].float(), rtol=1e-3, atol=1e-4 if exact else 0.02)


@pytest.mark.parametrize("ending", ["2", "shared"])
def test_what_two_processes_left_off_is_finished_by_one(home, ending, model_folder):  # noqa: F811
    run = runs.find(home[1], f"cut-{ending}")
    assert run.state == "stopped"
    assert "step 2 of 4; the adapter is kept" in run.status.sentence
    (run.folder / "stop").unlink()
    trainer.train(run, home[1], together.Sources(model_folder))
    assert run.state == "finished", run.status.sentence
    assert curve(run) == pytest.approx(curve(runs.find(home[0], "pieces")), rel=1e-5)


def test_each_event_is_written_once(home):
    steps = [event["step"] for event in runs.find(home[1], "pieces-2").events() if event["kind"] == "step"]
    assert steps == [1, 2, 3, 4]


def test_what_cannot_be_shared_out_is_refused_before_the_first_step(home):
    run = runs.find(home[1], "shared-soft")
    assert (run.state, run.status.reason) == ("failed", "refused")
    assert "method prompt does not go with shard (FSDP)" in run.status.sentence
