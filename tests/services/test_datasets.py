import gzip
import http.server
import json
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from playground.config import Paths
from playground.core import datasets as core
from playground.core.datasets import Mapping, NoRows
from playground.errors import PlaygroundError
from playground.services import datasets, hub_rows
from playground.services.datasets import Datasets, safe_name

ROWS = [{"question": "Q", "answer": "A"}, {"question": "Q2", "answer": "A2"}]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
TABLE = b"ask,bot\nQ,A\nQ2,A2\n"


@pytest.fixture
def paths(tmp_path):
    return Paths(home=tmp_path / "home")


@pytest.fixture
def store(paths):
    return Datasets(paths)


def upload(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def left(paths: Paths) -> list[str]:
    """What is in the data folder, notes and half-written files included."""
    return sorted(p.name for p in paths.data.rglob("*") if p.is_file() and p.parent.name != ".facts")


def test_an_empty_store_offers_what_is_built_in(store, paths):
    assert store.names() == core.names()
    first = store.entries()[0]
    assert (first.name, first.format, first.rows, first.built_in) == (
        "tool-calls",
        "messages",
        core.TOOL_CALL_ROWS,
        True,
    )
    assert not paths.data.exists()


def test_a_file_becomes_a_name(store, paths, tmp_path):
    entry = store.add(upload(tmp_path, "my rows.jsonl", JSONL))
    assert (entry.name, entry.format, entry.rows, entry.bad) == ("my-rows.jsonl", "question-answer", 2, 0)
    assert (entry.bytes, entry.built_in, entry.problem) == (len(JSONL), False, "")
    assert store.names() == [*core.names(), "my-rows.jsonl"]
    data = store.load("my-rows.jsonl")
    assert [c.messages[0]["content"] for c in data.conversations] == ["Q", "Q2"]
    assert store.load("my-rows.jsonl") is data  # read once
    assert len(core.load("my-rows.jsonl", paths).conversations) == 2  # the trainer finds it by the same name
    assert left(paths) == ["my-rows.jsonl"]
    assert Datasets(paths).entry("my-rows.jsonl") == entry  # another process


def test_names_do_not_collide_and_content_is_kept_once(store, paths, tmp_path):
    file = upload(tmp_path, "a.jsonl", JSONL)
    assert store.add(file).name == "a.jsonl"
    assert store.add(file).name == "a.jsonl"
    assert store.add(file, "other.jsonl").name == "a.jsonl"
    assert store.add(upload(tmp_path, "a.jsonl", JSONL * 2)).name == "a-2.jsonl"
    assert store.add(upload(tmp_path, "a.jsonl.gz", gzip.compress(JSONL))).name == "a.jsonl.gz"
    assert left(paths) == ["a-2.jsonl", "a.jsonl", "a.jsonl.gz"]


@pytest.mark.parametrize(
    "given, kept",
    [
        ("../../etc/pass wd.json", "pass-wd.json"),
        ("C:\\data\\Zeile äöü.CSV", "Zeile-äöü.CSV"),
        (".hidden.jsonl", "hidden.jsonl"),
        ("a" * 300 + ".jsonl.gz", "a" * 120 + ".jsonl.gz"),
        ("<b>.parquet", "b.parquet"),
    ],
)
def test_names_stay_in_the_folder(given, kept):
    assert safe_name(given) == kept


@pytest.mark.parametrize(
    "name, data, sentence",
    [
        ("a.txt", JSONL, "a.txt: data files end in .json"),
        ("a.jsonl", b"", "a.jsonl is empty"),
        ("a.jsonl", b"not json\n" * 500, "a.jsonl, row 1, column 1: not valid JSON"),
        ("a.json", b"[" * 10_000, "a.json, row 1: is nested too deeply"),
        ("a.parquet", b"PAR1", "a.parquet is not a Parquet file"),
        ("---.csv", TABLE, "a data set's name must hold letters or digits"),
    ],
)
def test_a_file_that_cannot_be_read_is_not_kept(name, data, sentence, store, paths, tmp_path):
    with pytest.raises(PlaygroundError) as error:
        store.add(upload(tmp_path, name, data))
    assert sentence in str(error.value)
    assert store.names() == core.names()
    assert not paths.data.exists() or list(paths.data.iterdir()) == []


def test_bounds_and_missing_files(store, paths, tmp_path, monkeypatch):
    with pytest.raises(PlaygroundError, match="none.json cannot be copied: No such file"):
        store.add(tmp_path / "none.json")
    with open(tmp_path / "huge.csv", "wb") as file:
        file.truncate(200 * 2**20 + 1)
    with pytest.raises(PlaygroundError, match="huge.csv is larger than 200 MB"):
        store.add(tmp_path / "huge.csv")
    monkeypatch.setattr(datasets, "MAX_BYTES", 2**20)
    with pytest.raises(PlaygroundError, match="big.jsonl is larger than 1 MB"):
        store.add(upload(tmp_path, "big.jsonl", JSONL * 20_000))
    with pytest.raises(PlaygroundError, match="big.jsonl is larger than 1 MB"):
        store.add_rows(({"prompt": "x" * 2**10} for _ in range(10_000)), "big.jsonl")
    assert left(paths) == []


def test_a_full_disk_leaves_nothing_behind(store, paths, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    file = upload(tmp_path, "a.jsonl", JSONL)
    monkeypatch.setattr(datasets.os, "link", full)
    monkeypatch.setattr(datasets.os, "replace", full)
    with pytest.raises(PlaygroundError, match="a.jsonl cannot be kept in .*: No space left on device"):
        store.add(file)
    assert left(paths) == []


def test_a_file_system_without_links(store, paths, tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(datasets.os, "link", refused)
    assert store.add(upload(tmp_path, "a.jsonl", JSONL)).name == "a.jsonl"
    assert store.add(upload(tmp_path, "a.jsonl", JSONL * 2)).name == "a-2.jsonl"
    assert left(paths) == ["a-2.jsonl", "a.jsonl"]


def test_uploads_at_once_get_names_of_their_own(store, paths, tmp_path):
    files = []
    for number in range(8):
        (tmp_path / str(number)).mkdir()
        files.append(upload(tmp_path / str(number), "a.jsonl", JSONL + b'{"prompt": "%d"}\n' % number))
    threads = [threading.Thread(target=store.add, args=(file,)) for file in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert left(paths) == sorted(["a.jsonl", *(f"a-{n}.jsonl" for n in range(2, 9))])
    assert {(paths.data / name).read_bytes() for name in left(paths)} == {file.read_bytes() for file in files}


def test_a_mapping_is_remembered_for_the_file(store, paths, tmp_path):
    entry = store.add(upload(tmp_path, "a.csv", TABLE.replace(b"ask", b"first").replace(b"bot", b"second")))
    assert (entry.format, entry.rows) == ("", 0)
    assert "no known format has the columns first, second" in entry.problem
    with pytest.raises(NoRows):
        store.load("a.csv")
    guessed = store.preview("a.csv")
    assert guessed.mapping == Mapping(prompt="first", answer="second")
    assert [c.messages[1]["content"] for _, _, c, _ in guessed.rows] == ["A", "A2"]
    tried = store.preview("a.csv", Mapping(prompt="second"))
    assert [c.messages[0]["content"] for _, _, c, _ in tried.rows] == ["A", "A2"]
    with pytest.raises(PlaygroundError, match="no row of a.csv can be read this way: .*there is no column 'third'"):
        store.remember("a.csv", Mapping(prompt="third"))
    entry = store.remember("a.csv", guessed.mapping)
    assert (entry.format, entry.rows, entry.problem) == ("mapped", 2, "")
    assert store.mapping("a.csv") == guessed.mapping
    assert len(core.load("a.csv", paths).conversations) == 2  # the trainer uses it too
    store.remove("a.csv")
    back = Datasets(paths).add(upload(tmp_path, "b.csv", TABLE.replace(b"ask", b"first").replace(b"bot", b"second")))
    assert (back.name, back.format) == ("b.csv", "mapped")
    assert store.remember("b.csv", None).format == ""


def test_a_mapping_of_built_in_data(store):
    assert store.mapping("instructions") is None
    assert store.preview("instructions", count=2).format == "alpaca"
    with pytest.raises(PlaygroundError, match="tool-calls is generated"):
        store.preview("tool-calls")


def test_rename_and_remove(store, paths, tmp_path):
    store.add(upload(tmp_path, "a.jsonl", JSONL))
    store.add(upload(tmp_path, "b.csv.gz", gzip.compress(TABLE)))
    assert store.rename("a.jsonl", "better name").name == "better-name.jsonl"
    assert store.rename("b.csv.gz", "c.csv.gz").name == "c.csv.gz"
    assert store.rename("c.csv.gz", "c").name == "c.csv.gz"
    assert left(paths) == ["better-name.jsonl", "c.csv.gz"]
    with pytest.raises(
        PlaygroundError, match="there is no data set 'a.jsonl'; choose tool-calls, instructions, .*better"
    ):
        store.rename("a.jsonl", "x")
    store.add_rows(ROWS[:1], "other.jsonl")
    with pytest.raises(PlaygroundError, match="there is a data set 'other.jsonl' already; choose another name"):
        store.rename("better-name.jsonl", "other")
    store.remove("better-name.jsonl")
    assert "better-name.jsonl" not in store.names()
    for name in ("better-name.jsonl", "../home/data/other.jsonl", ".facts/other.jsonl.json", ""):
        with pytest.raises(PlaygroundError, match="there is no data set"):
            store.remove(name)
    with pytest.raises(PlaygroundError, match="instructions is built in and cannot be removed"):
        store.remove("instructions")


def test_a_file_that_changes_is_read_again(store, paths, tmp_path):
    store.add(upload(tmp_path, "a.jsonl", JSONL))
    assert store.entry("a.jsonl").rows == len(store.load("a.jsonl").conversations) == 2
    (paths.data / "a.jsonl").write_bytes(JSONL * 3)
    assert store.entry("a.jsonl").rows == len(store.load("a.jsonl").conversations) == 6
    paths.data.joinpath("dropped.csv").write_bytes(b"question,answer\nQ,A\n")  # put there by hand
    assert store.entry("dropped.csv").format == "question-answer"
    paths.data.joinpath("notes.txt").write_text("no data")
    assert "notes.txt" not in store.names()


def test_few_data_sets_are_kept_in_memory(store, tmp_path):
    names = [store.add(upload(tmp_path, f"{n}.jsonl", JSONL * n)).name for n in (1, 2, 3)]
    first = store.load(names[0])
    store.load(names[1]), store.load(names[2])
    assert store.load(names[0]) is not first


def test_what_a_killed_copy_left_is_swept_up(paths, tmp_path):
    old, new = paths.data / ".0ld.part", paths.data / ".new.part"
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "a.jsonl").write_bytes(JSONL[:10])
    os.utime(old, (time.time() - 90_000,) * 2)
    assert Datasets(paths).names() == core.names()
    assert (old.exists(), new.exists()) == (False, True)


# Pasted ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, name, format, rows",
    [
        (JSONL.decode(), "pasted.json", "question-answer", 2),
        ("\ufeff" + json.dumps(ROWS), "pasted.json", "question-answer", 2),
        ('[{"role": "user", "content": "Q"}]', "pasted.json", "messages", 1),
        ("question,answer\nQ,A\n", "pasted.csv", "question-answer", 1),
    ],
)
def test_pasted_text(text, name, format, rows, store):
    entry = store.add_text(text)
    assert (entry.name, entry.format, entry.rows) == (name, format, rows)


@pytest.mark.parametrize(
    "text, sentence",
    [("  ", "there is no text to keep"), ("one line", "the text is no JSON, and no CSV"), ("{", "not valid JSON")],
)
def test_pasted_text_that_is_no_data(text, sentence, store):
    with pytest.raises(PlaygroundError, match=sentence):
        store.add_text(text)


# The Hub --------------------------------------------------------------------------------------------------------------


def test_rows_from_the_hub_become_a_file(paths):
    asked = []

    def stream(*given):
        asked.append(given)
        yield None
        yield from ROWS
        yield None

    told = []
    entry = Datasets(paths, stream).add_hub("owner/name ", "main", "train", 2, told.append)
    assert (entry.name, entry.format, entry.rows) == ("owner-name-main-train-first-2.jsonl", "question-answer", 2)
    assert (asked, told) == ([("owner/name", "main", "train", 2, None)], [0, 1, 2, 2])


def test_a_stream_that_fails_leaves_nothing(paths):
    def stream(*_):
        yield ROWS[0]
        raise PlaygroundError("the Hub is gone")

    with pytest.raises(PlaygroundError, match="the Hub is gone"):
        Datasets(paths, stream).add_hub("owner/name")
    with pytest.raises(PlaygroundError, match="owner/name has no rows"):
        Datasets(paths, lambda *_: [None]).add_hub("owner/name")
    with pytest.raises(PlaygroundError, match="rows must be between 1 and 100,000, got 0"):
        Datasets(paths).add_hub("owner/name", count=0)
    assert left(paths) == []


@pytest.mark.parametrize("repo", ["", "a/b/c", "../x", "owner/na me", "http://host/x"])
def test_what_is_no_hub_name(repo, store):
    with pytest.raises(PlaygroundError, match="is no Hub data set; write owner/name"):
        store.add_hub(repo)


def test_without_a_hub_there_is_a_sentence_at_once(paths, monkeypatch):
    """The real child process against a port that refuses."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(PlaygroundError, match="cannot reach http://127.0.0.1:9: .*refused; upload a file instead"):
        Datasets(paths).add_hub("openai/gsm8k", "main")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(PlaygroundError, match="openai/gsm8k cannot be had: HF_HUB_OFFLINE is set"):
        Datasets(paths).add_hub("openai/gsm8k")


@pytest.mark.parametrize(
    "status, code, sentence",
    [
        (404, "RepoNotFound", "there is no data set {page}, or it is private"),
        (401, "RepoNotFound", "there is no data set {page}, or it is private"),
        (403, "GatedRepo", "{page} is gated: accept its terms there and run `hf auth login`"),
        (500, "", "{page} answered with 500"),
        (200, "", None),
    ],
)
def test_what_the_hub_answers(status, code, sentence, monkeypatch):
    from huggingface_hub import constants

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.end_headers()
            self.wfile.write(b'{"id": "owner/name", "siblings": []}')

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    try:
        if sentence is None:
            hub_rows.ask("owner/name")
            return
        with pytest.raises(PlaygroundError) as error:
            hub_rows.ask("owner/name")
        assert str(error.value) == sentence.format(page=f"{constants.ENDPOINT}/datasets/owner/name")
    finally:
        server.shutdown()
        server.server_close()


def test_a_silent_hub_and_a_fetch_that_is_stopped(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    lines_of, sleeping = hub_rows.lines_of, [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr(hub_rows, "lines_of", lambda _, cancel, env: lines_of(sleeping, cancel, env, pause=0.01))
    cancel = threading.Event()
    rows = hub_rows.stream("owner/name", cancel=cancel)
    assert next(rows) is None  # alive, and nothing yet
    cancel.set()
    with pytest.raises(PlaygroundError, match="stopped"):
        list(rows)
    monkeypatch.setattr(hub_rows, "SILENCE", 0.05)
    with pytest.raises(PlaygroundError, match="the Hub sent no row of owner/name for 0 s; try again, or upload"):
        list(hub_rows.stream("owner/name"))


def child(lines: list[str], code: int = 0) -> list[str]:
    script = f"import sys\nfor line in {lines!r}: print(line)\nsys.exit({code})"
    return [sys.executable, "-c", script]


@pytest.mark.parametrize(
    "lines, code, outcome",
    [
        (['{"stage": "asked"}', "a warning", '{"row": {"a": 1}}', '{"row": {"a": 2}}'], 0, [{"a": 1}, {"a": 2}]),
        (['{"row": {"a": 1}}', '{"error": "no such split"}'], 0, "no such split"),
        (["Traceback", "ValueError: odd"], 1, "reading owner/name from the Hub ended with: ValueError: odd"),
    ],
)  # fmt: skip
def test_what_the_child_says(lines, code, outcome, monkeypatch):
    lines_of = hub_rows.lines_of
    monkeypatch.setattr(hub_rows, "lines_of", lambda _, cancel, env: lines_of(child(lines, code), cancel, env))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    if isinstance(outcome, str):
        with pytest.raises(PlaygroundError, match=outcome):
            list(hub_rows.stream("owner/name"))
    else:
        assert [row for row in hub_rows.stream("owner/name") if row] == outcome


@pytest.mark.parametrize(
    "found, said",
    [
        ([{"a": "é"}], ['{"stage": "asked"}', '{"row": {"a": "\\u00e9"}}']),
        (PlaygroundError("no split"), ['{"stage": "asked"}', '{"error": "no split"}']),
    ],
)
def test_the_child(found, said, monkeypatch, capsys, tmp_path):
    given = []

    def rows(*words):
        given.append((*words, os.listdir()))
        if isinstance(found, PlaygroundError):
            raise found
        yield from found

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub_rows, "ask", given.append)
    monkeypatch.setattr(hub_rows, "rows", rows)
    monkeypatch.setattr(hub_rows.os, "_exit", given.append)
    monkeypatch.setattr(hub_rows, "_end_with_parent", lambda: None)
    (tmp_path / "o").mkdir()  # a folder of the data set's name is not it
    hub_rows.main(['["o/n", "main", "train", 3]'])
    assert capsys.readouterr().out.splitlines() == said
    assert given == ["o/n", ("o/n", "main", "train", 3, []), 0]


def test_the_child_ends_with_its_parent(monkeypatch):
    ends = []
    monkeypatch.setattr(hub_rows.os, "read", lambda *_: b"")
    monkeypatch.setattr(hub_rows.os, "_exit", ends.append)
    hub_rows._end_with_parent()
    assert ends == [1]


def test_rows_as_the_library_gives_them():
    import datetime

    class Table(list):
        def decode(self, _):
            return self

    asked = []

    def load(repo, config, split, streaming):
        asked.append((repo, config, split, streaming))
        return Table([{"a": datetime.date(2024, 1, 2), "image": b"\xff"}, {"a": float("nan"), "image": None}, {"a": 3}])

    found = list(hub_rows.rows("o/n", "", "", 2, load, lambda repo, config: ["test", "train"]))
    assert found == [{"a": "2024-01-02", "image": None}, {"a": None, "image": None}]
    assert asked == [("o/n", None, "train", True)]
    list(hub_rows.rows("o/n", "main", "", 2, load, lambda repo, config: ["validation"]))
    assert asked[1] == ("o/n", "main", "validation", True)


@pytest.mark.parametrize(
    "said, sentence",
    [
        (
            "Config name is missing.\nPlease pick one among the available configs: ['main', 'socratic']",
            "o/n needs a configuration; choose main, socratic",
        ),
        ("BuilderConfig 'x' not found. Available: ['main', 'socratic']", "o/n has no configuration 'x'; choose main"),
        ("Bad split: y. Available splits: ['train', 'test']", "o/n has no split 'y'; choose train, test"),
        ("Dataset scripts are no longer supported, but found n.py", "o/n needs a loading script, which is code from"),
        ("something else\nand more", "o/n cannot be read: something else"),
        ("", "o/n cannot be read: ValueError"),
    ],
)
def test_what_the_library_says_becomes_a_sentence(said, sentence):
    def load(*_, **__):
        raise ValueError(said)

    config = "x" if "'x'" in said else ""
    with pytest.raises(PlaygroundError) as error:
        list(hub_rows.rows("o/n", config, "y", 2, load))
    assert str(error.value).startswith(sentence)
