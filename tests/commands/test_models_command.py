"""`playground models` as a user calls it. No network: nothing is fetched."""

import json
import os

import pytest

from playground import cli
from playground.services.sources import Sources


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("PLAYGROUND_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PLAYGROUND_MODELS", "")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def write_model(folder):
    folder.mkdir(parents=True)
    header = json.dumps({"w": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def run(capsys, *words) -> tuple[int, str, str]:
    code = 0
    try:
        cli.main(["models", *words])
    except SystemExit as ended:
        code = ended.code
    return code, *capsys.readouterr()


def test_the_table_says_what_is_here_and_under_which_licence(place, capsys):
    write_model(place / "home" / "models" / "smollm2-135m-instruct")
    lines = run(capsys)[1].splitlines()
    assert lines[0].split() == ["NAME", "ROLE", "SIZE", "LICENCE", "STATUS"]
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines[1:] if "  " in line}
    assert rows["smollm2-135m-instruct"].split() == ["(default)", "instruct", "135M", "Apache-2.0", "here"]
    assert rows["smollm2-1.7b"].split() == ["base", "1.7B", "Apache-2.0", "can", "be", "had"]
    assert rows["gemma3-270m"].endswith("needs licence")


def test_json_has_what_the_table_has(place, capsys):
    folder = write_model(place / "home" / "models" / "gemma3-270m")
    code, out, _ = run(capsys, "--json")
    rows = {row["name"]: row for row in json.loads(out.splitlines()[-1])["models"]}
    assert code == 0
    assert (rows["gemma3-270m"]["status"], rows["gemma3-270m"]["folder"]) == ("here", str(folder))
    assert rows["llama-3.2-1b"]["status"] == "needs licence"
    assert [row["name"] for row in rows.values() if row["default"]] == ["smollm2-135m-instruct"]


def test_get_what_is_here_and_remove_it(place, capsys):
    folder = write_model(place / "home" / "models" / "smollm2-135m")
    assert str(folder) in run(capsys, "get", "smollm2-135m")[1]
    assert run(capsys, "remove", "smollm2-135m")[0] == 0
    assert not folder.exists()


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["get"], "needs a model's name: smollm2-135m-instruct, "),
        (["get", "nonsense"], "unknown model 'nonsense'"),
        (["get", "gemma3-270m"], "the Gemma Terms of Use must be accepted first"),
        (["get", "owner/name"], "Hub: HF_HUB_OFFLINE is set"),
        (["remove", "smollm2-135m"], "smollm2-135m is not on this machine"),
    ],
)
def test_what_does_not_work_is_one_message_and_exit_code_1(capsys, words, sentence):
    code, out, err = run(capsys, *words)
    assert (code, out) == (1, "")
    assert err.startswith("playground models: ")
    assert sentence in err
    code, out, err = run(capsys, *words, "--json")
    assert sentence in json.loads(out.splitlines()[-1])["error"]


def test_the_licence_of_a_model_without_terms_of_its_own(capsys):
    out = run(capsys, "licence", "llama-3.2-1b")[1]
    assert "Llama 3.2 Community License" in out
    assert "hf auth login" in out


@pytest.mark.parametrize(
    "name, answer, accepted", [("gemma3-270m", "y", True), ("gemma3-270m", "", False), ("llama-3.2-1b", None, False)]
)
def test_terms_are_shown_and_asked_for_on_a_terminal(monkeypatch, capsys, name, answer, accepted):
    seen = []

    def get(self, name, progress=None, accept_licence=False, cancel=None):
        seen.append(accept_licence)
        return "folder"

    monkeypatch.setattr(Sources, "get", get)
    monkeypatch.setattr(Sources, "licence_text", lambda self, name: "THE TERMS")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: answer)  # Llama's are accepted on the Hub: no question
    out = run(capsys, "get", name)[1]
    assert ("THE TERMS" in out) == (answer is not None)
    assert seen == [accepted]
