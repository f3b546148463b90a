"""Run folders: what they say about a run, whatever became of the process that wrote them."""

import errno
import json
import os
import subprocess
import sys
import time

import pytest

from playground.config import Paths, TrainConfig
from playground.core import kinds
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


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ({"kind": "state", "time": "noon", "state": "finished"}, None),
        ({"kind": "state", "time": 1.0}, None),
        ({"kind": "state", "time": 1.0, "state": 7}, None),
        ({"kind": 3, "time": 1.0}, None),
        ({"kind": "step", "time": 1.0, "step": None, "loss": 2.0}, None),
        ({"kind": "sample", "time": 1.0, "text": "hi"}, None),
        (
            {"kind": "step", "time": 1.0, "step": 2, "loss": "two", "memory": [1]},
            {"kind": "step", "time": 1.0, "step": 2},
        ),
        (
            {"kind": "plan", "time": 1.0, "estimate": {"total": "much", "seconds": 3, "verdict": "fits"}},
            {"kind": "plan", "time": 1.0, "estimate": {"seconds": 3, "verdict": "fits"}},
        ),
        ({"kind": "plan", "time": 1.0, "estimate": "much"}, {"kind": "plan", "time": 1.0}),
        ({"kind": "of a later version", "time": 1.0, "x": {}}, {"kind": "of a later version", "time": 1.0, "x": {}}),
    ],
)
def test_an_odd_line_takes_nothing_from_the_others(paths, line, left):
    odd, fine = runs.create(TrainConfig(name="odd"), paths), runs.create(TrainConfig(name="fine"), paths)
    for run in (odd, fine):
        Events(run.folder).state("finished")
    with open(odd.folder / "events.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")
    assert odd.events()[2:] == ([left] if left else [])
    assert (odd.state, fine.state) == ("finished", "finished")
    assert runs.ahead(odd, paths) == 0
    assert runs.card(odd).state == "finished"


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


# ---- cards, notes, names ---------------------------------------------------------------------------------------


def finished(paths, name="a", **about):
    run = made(paths, "running", "finished", name=name)
    (run.folder / "adapter").mkdir()
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        (run.folder / "adapter" / file).write_text("{}")
    runs.write_json(run.folder / "adapter" / "playground.json", {"config": {"name": name}, **about})
    return run


def test_a_note_is_kept_with_the_run_and_stands_on_its_card(paths):
    run = finished(paths)
    assert run.note == ""
    runs.write_note(run, "rank 4 was enough\n")
    assert Run(run.folder).note == "rank 4 was enough"
    assert "> rank 4 was enough" in (run.folder / "run-card.md").read_text()
    with pytest.raises(PlaygroundError, match="a note may have"):
        runs.write_note(run, "x" * (runs.MAX_NOTE + 1))


def test_a_renamed_run_is_renamed_everywhere(paths):
    runs.write_note(finished(paths), "keep me")
    renamed = runs.rename(runs.find(paths, "a"), " b ")
    assert [run.name for run in runs.list_runs(paths)] == ["b"]
    assert runs.adapters(paths)[-1] == paths.runs / "b" / "adapter"
    assert (renamed.config.name, renamed.note, renamed.former_names) == ("b", "keep me", ["a"])
    assert renamed.about["config"]["name"] == "b"
    assert "# b\n" in (renamed.folder / "run-card.md").read_text()
    assert runs.rename(runs.rename(renamed, "c"), "a").former_names == ["b", "c"]


@pytest.mark.parametrize(
    "name, sentence",
    [("../b", "a run's name is"), ("", "a run's name is"), ("other", "already a run"), ("tool-calling", "an adapter")],
)
def test_a_name_that_cannot_be_is_refused(paths, name, sentence):
    finished(paths)
    made(paths, name="other")
    with pytest.raises(PlaygroundError, match=sentence):
        runs.rename(runs.find(paths, "a"), name)
    assert runs.find(paths, "a").config.name == "a"


@pytest.mark.parametrize("key", kinds.ABOUT)
@pytest.mark.parametrize("value", [7, "seven", [7], {"total": "seven", "seconds": [7]}, None, True])
def test_an_odd_value_beside_the_weights_takes_nothing_from_the_card(paths, key, value):
    said = {"estimate": {"total": 2**30, "seconds": 60.0}, "versions": {"torch": "2.11"}, "template_hash": "h"}
    run, odd = (finished(paths, name, **said) for name in ("a", "b"))
    about = json.loads((odd.folder / "adapter" / "playground.json").read_text())
    runs.write_json(odd.folder / "adapter" / "playground.json", {**about, key: value})
    titles, left = ({title for title, _ in runs.card(one).sections} for one in (run, odd))
    assert left >= titles - {"Versions", "Memory: estimate and measured"}
    assert runs.rename(odd, "c").about["config"]["name"] == "c"
    kept = json.loads((paths.runs / "c" / "adapter" / "playground.json").read_text())
    assert key == "config" or kept[key] == value, "a rename loses nothing"


def test_a_live_run_keeps_its_name(paths):
    run = made(paths, "running", process=os.getpid())
    with pytest.raises(PlaygroundError, match="can be renamed when it has ended"):
        runs.rename(run, "b")


def test_the_card_is_written_only_when_it_says_something_new(paths):
    run = finished(paths)
    path = runs.write_card(run)
    os.utime(path, (1, 1))
    runs.write_card(run)
    assert path.stat().st_mtime == 1
    Events(run.folder).write("step", step=3, steps=3, loss=1.0)
    runs.write_card(run)
    assert path.stat().st_mtime > 1


# ---- folders of other versions ---------------------------------------------------------------------------------


def test_a_folder_that_lacks_fields_and_files_opens_and_says_what_is_missing(paths):
    folder = paths.runs / "old"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model": "tiny", "rank": 4}')
    run = runs.find(paths, "old")
    assert (run.config.rank, run.config.learning_rate) == (4, TrainConfig.learning_rate)
    assert run.status.state in runs.LIVE + runs.ENDED
    card = runs.card(run)
    assert {"the data", "the template's hash", "any step"} <= set(card.missing)
    assert (run.about, run.note, run.former_names) == ({}, "", [])


def test_a_folder_with_unknown_fields_opens_and_shows_them(paths):
    run = made(paths, "finished")
    runs.write_json(run.folder / "config.json", {**run.settings, "hologram": 3})
    Events(run.folder).write("thought", depth=2)
    Events(run.folder).state("finished")
    assert run.config == TrainConfig(name="a")
    assert run.state == "finished"
    assert ("hologram", "3 (a setting that this version does not know)") in dict(runs.card(run).sections)["Settings"]


@pytest.mark.parametrize("text, sentence", [("[1]", "must hold an object"), ("{", "cannot be read")])
def test_settings_that_are_none_are_a_sentence(paths, text, sentence):
    run = made(paths)
    (run.folder / "config.json").write_text(text)
    with pytest.raises(PlaygroundError, match=sentence):
        runs.card(run)


def test_an_adapter_is_found_by_the_name_that_its_run_had(paths):
    """A run that goes on from it says that name, and may be resumed after the renaming."""
    runs.rename(finished(paths, "old"), "new")
    assert runs.adapter_named(paths, "new") == runs.adapter_named(paths, "old") == paths.runs / "new" / "adapter"
    later = finished(paths, "old")  # a name can be given again
    assert runs.adapter_named(paths, "old") == later.adapter
    assert runs.adapter_named(paths, "tool-calling").parent.name == "adapters"
    assert runs.adapter_named(paths, "never") is None


@pytest.mark.parametrize("file", ["config.json", "events.jsonl"])
def test_a_run_that_the_disk_has_no_room_for_is_a_sentence_and_leaves_nothing(paths, monkeypatch, file):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((runs, "write_json") if file == "config.json" else (Events, "write")), full)
    with pytest.raises(PlaygroundError, match="cannot be written: No space left on device; free some space"):
        runs.create(TrainConfig(name="a"), paths)
    assert list(paths.runs.iterdir()) == []


def test_a_note_that_the_disk_has_no_room_for_is_a_sentence(paths, monkeypatch):
    run = finished(paths)
    runs.write_note(run, "kept")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runs, "write_json", full)
    with pytest.raises(PlaygroundError, match="the note cannot be written: No space left"):
        runs.write_note(run, "more")
    assert run.note == "kept"
