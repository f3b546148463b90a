import json
from pathlib import Path

import pytest

from playground import cli

SHARED = Path(__file__).parents[2] / "shared" / "data"


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of `playground render`."""
    try:
        cli.main(["render", *map(str, arguments)])
        status = 0
    except SystemExit as end:
        status = end.code
    out = capsys.readouterr()
    return status, out.out, out.err


def result(capsys, *arguments) -> dict:
    status, out, err = run(capsys, "--json", *arguments)
    assert (status, err) == (0, "")
    return json.loads(out.splitlines()[-1])


@pytest.fixture
def example(tmp_path):
    file = tmp_path / "example.json"
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    file.write_text(json.dumps({"messages": messages, "bos_token": "<s>", "eos_token": "</s>"}))
    return file


def test_without_a_tokenizer(capsys, example):
    found = result(capsys, "--template", "falcon", "--data", example)
    assert found == {"text": "<s>User: Hi\n\nAssistant: Hello.</s>\n\n", "mask_rule": "generation"}
    found = result(capsys, "--template", "falcon", "--data", example, "--generation-prompt")
    assert found["text"].endswith("\n\nAssistant:")


def test_with_a_tokenizer(capsys, example, tokenizer_folder, tokenizer):
    found = result(capsys, "--template", "chatml", "--data", example, "--tokenizer", tokenizer_folder, "--mask")
    assert found["trained_text"] == "Hello.<|im_end|>"
    assert tokenizer.decode(found["ids"]) == found["text"]
    trained = [i for i, bit in zip(found["ids"], found["mask"], strict=True) if bit]
    assert tokenizer.decode(trained) == "Hello.<|im_end|>"
    own = result(capsys, "--template", "model", "--data", example, "--tokenizer", tokenizer_folder)
    assert own["text"] == found["text"].removeprefix("<s>")
    assert own["mask_rule"] == "prefix"


def test_for_people(capsys, example):
    assert run(capsys, "--template", "falcon", "--data", example)[1] == "<s>User: Hi\n\nAssistant: Hello.</s>\n\n\n"
    assert "Assistant:[[ Hello.</s>]]\n" in run(capsys, "--template", "falcon", "--data", example, "--mask")[1]


def test_rows_of_a_data_set(capsys, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "P1", "completion": "C1"}\n{"prompt": "P2", "completion": "C2"}\n')
    found = result(capsys, "--template", "chatml", "--data", file, "--row", 2)
    assert "P2" in found["text"]
    assert "water" in result(capsys, "--template", "plain", "--data", "instructions")["text"]


def test_a_template_file_gets_the_file_as_it_stands(capsys, tmp_path):
    (tmp_path / "t.jinja").write_text("{{ messages[0].content[0].type }} {{ messages[0].role }} {{ flag }} {{ tools }}")
    messages = [{"role": "developer", "content": [{"type": "text", "text": "Hi"}]}]
    (tmp_path / "d.json").write_text(json.dumps({"messages": messages, "flag": True}))
    found = result(capsys, "--template", tmp_path / "t.jinja", "--data", tmp_path / "d.json")
    assert found == {"text": "text developer True None", "mask_rule": "none"}


BAD = [
    (["--template", "nope", "--data", "{example}"], "there is no template 'nope'; choose from chatml-tools"),
    (["--template", "{folder}/bad.jinja", "--data", "{example}"], "the template bad, line 2, fails: "),
    (["--template", "{folder}/no.jinja", "--data", "{example}"], "line 1, refuses this conversation: Not today"),
    (["--template", "chatml", "--data", "{folder}/none.json"], "there is no data set"),
    (
        ["--template", "chatml", "--data", "{folder}/broken.json"],
        "not valid JSON: Expecting value at line 1, column 15",
    ),
    (["--template", "chatml", "--data", "instructions", "--row", "0"], "row must be between 1 and 80, got 0"),
    (["--template", "model", "--data", "{example}"], "the model's own chat template is not there"),
    (["--template", "chatml", "--data", "{example}", "--tokenizer", "{folder}"], "holds no tokenizer.json"),
    (["--template", "chatml", "--data", "{example}", "--tokenizer", "gpt-9"], "'gpt-9'"),
]


@pytest.mark.parametrize("arguments, sentence", BAD)
def test_one_sentence_and_a_status_where_it_fails(arguments, sentence, capsys, example, tmp_path, monkeypatch):
    monkeypatch.setenv("PLAYGROUND_HOME", str(tmp_path / "home"))
    (tmp_path / "bad.jinja").write_text("a\n{% for x in %}")
    (tmp_path / "no.jinja").write_text("{{ raise_exception('Not today') }}")
    (tmp_path / "broken.json").write_text('{"messages": [')
    status, out, err = run(capsys, *(a.format(example=example, folder=tmp_path) for a in arguments))
    assert status == 1
    assert out == ""
    assert sentence in err
    assert err.count("\n") == 1


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder ../shared/data is not there")
def test_published_cases_through_the_command(capsys, tmp_path):
    for line in (SHARED / "template_renders" / "cases.jsonl").read_text().splitlines():
        case = json.loads(line)
        (tmp_path / "t.jinja").write_text(case["chat_template"])
        (tmp_path / "d.json").write_text(json.dumps(case["context"]))
        found = result(capsys, "--template", tmp_path / "t.jinja", "--data", tmp_path / "d.json")
        assert found["text"] == case["expected"]
