"""The store of templates: keys, saving without loss, and templates taken from files, folders and the Hub."""

import json
import threading
import time
from pathlib import Path

import httpx
import pytest
from huggingface_hub import errors

from playground.config import Paths
from playground.core import sandbox
from playground.core import templates as core
from playground.core.messages import Conversation
from playground.errors import PlaygroundError
from playground.services import templates as store
from playground.services.templates import Templates, safe_name

SAY = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
SHORT = "{{ messages[0].content }}"
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
SHARED = Path(__file__).parents[3] / "shared" / "data" / "chat_templates"


@pytest.fixture
def library(tmp_path):
    folder = tmp_path / "published"
    (folder / "family").mkdir(parents=True)
    (folder / "family" / "one.jinja").write_text(SHORT)
    (folder / "notes.md").write_text("no template")
    (tmp_path / "secret.jinja").write_text("secret")
    return folder


@pytest.fixture
def templates(tmp_path, library, monkeypatch):
    monkeypatch.delenv("SPACE_ID", raising=False)
    return Templates(Paths(tmp_path / "home"), library)


def text_of(templates, key):
    return templates.load(key).text


# Keys -----------------------------------------------------------------------------------------------------------------


def test_the_choices_are_built_in_mine_the_models_own_and_published(templates):
    templates.save("terse", SHORT)
    labels = [label for label, _ in templates.choices()]
    keys = [key for _, key in templates.choices()]
    assert keys == [*core.names(), "mine:terse", "model", "library:family/one.jinja"]
    assert labels[: len(core.names())] == [core.load(name).title for name in core.names()]
    assert labels[-3:] == ["mine: terse", "The model's own", "published: family/one"]


def test_every_key_of_the_choices_loads_and_only_ours_are_rendered_in_this_process(templates, tokenizer):
    templates.save("terse", SHORT)
    loaded = {key: templates.load(key, tokenizer) for _, key in templates.choices()}
    assert {key for key, found in loaded.items() if found.source == core.BUILT_IN} == set(core.names())
    done = core.render(loaded["mine:terse"], Conversation([{"role": "user", "content": "Hello"}]))
    assert (done.text, loaded["mine:terse"].title) == ("Hello", "terse")


def test_a_path_is_loaded_for_the_command_line_but_not_on_a_space(templates, tmp_path, monkeypatch):
    file = tmp_path / "own.jinja"
    file.write_text(SAY)
    assert templates.load(str(file)).text == SAY
    monkeypatch.setenv("SPACE_ID", "someone/playground")
    with pytest.raises(PlaygroundError, match="public Space"):
        templates.load(str(file))


@pytest.mark.parametrize(
    "key",
    ["mine:../../secret", "mine:secret", "library:../secret.jinja", "library:notes.md", "/etc/passwd", "nope", ""],
)
def test_keys_stay_in_their_folders(templates, key):
    with pytest.raises(PlaygroundError):
        templates.load(key)


def test_the_library_can_be_named_by_the_environment(tmp_path, library, monkeypatch):
    monkeypatch.setenv("PLAYGROUND_TEMPLATES", str(library))
    assert Templates(Paths(tmp_path)).library() == ["family/one.jinja"]
    monkeypatch.setenv("PLAYGROUND_TEMPLATES", str(tmp_path / "nowhere"))
    assert Templates(Paths(tmp_path)).library() == []


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared folder of published templates is not here")
def test_the_shared_library_is_found(tmp_path, monkeypatch):
    monkeypatch.delenv("PLAYGROUND_TEMPLATES", raising=False)
    found = Templates(Paths(tmp_path))
    assert len(found.library()) == 179
    assert all(found.load(f"library:{name}").text for name in found.library())


# Saving ---------------------------------------------------------------------------------------------------------------


def test_what_is_saved_is_there_for_the_next_process_exactly(templates, tmp_path):
    text = "\r\n" + SAY + "  \n\n"
    assert templates.save(" My template! ", text) == "mine:My-template"
    assert text_of(Templates(Paths(tmp_path / "home")), "mine:My-template") == text
    assert [file.name for file in (tmp_path / "home" / "templates").iterdir()] == ["My-template.jinja"]


def test_nothing_is_overwritten_unless_asked(templates):
    templates.save("terse", SHORT)
    assert templates.save("terse", SHORT) == "mine:terse"
    with pytest.raises(store.TakenError, match="already"):
        templates.save("terse", SAY)
    assert text_of(templates, "mine:terse") == SHORT
    templates.save("terse", SAY, overwrite=True)
    assert text_of(templates, "mine:terse") == SAY


def test_a_write_that_fails_leaves_the_old_template(templates, monkeypatch, tmp_path):
    templates.save("terse", SHORT)

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(PlaygroundError, match="terse cannot be kept in .*No space left"):
        templates.save("terse", SAY, overwrite=True)
    assert text_of(templates, "mine:terse") == SHORT


def test_removing(templates):
    key = templates.save("terse", SHORT)
    templates.remove(key)
    assert templates.mine() == []
    for gone in (key, "mine:../../secret", "chatml"):
        with pytest.raises(PlaygroundError):
            templates.remove(gone)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("  \n", "is empty"),
        ("{% if x %}", "mistake in line 1: Unexpected end of template"),
        ("a\n{{ messages | nope }}", "mistake in line 2: No filter named 'nope'"),
        ("x" * 200_001, "200 KB, this one has 200 KB"),
        ("{{ '\ud800' }}", "surrogate"),
        (ENDLESS, r"was stopped.*0\.3 seconds"),
    ],
)
def test_what_cannot_be_used_is_not_kept(templates, text, sentence, monkeypatch):
    if text == ENDLESS:
        monkeypatch.setattr(sandbox, "DEADLINE", 0.3)
    with pytest.raises(PlaygroundError, match=sentence):
        templates.save("bad", text)
    assert templates.mine() == []


def test_a_template_that_refuses_the_trial_conversation_is_kept(templates):
    assert templates.save("strict", "{{ raise_exception('only with tools') }}") == "mine:strict"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\x y.jinja", "x-y"),
        (".hidden", "hidden"),
        ("Qwen3-0.6B", "Qwen3-0.6B"),
        ("日本", "日本"),
        ("é" * 100, "é" * 40),
    ],
)
def test_safe_names(given, name):
    assert safe_name(given) == name


@pytest.mark.parametrize("given", ["", "..", "/", "-_-", "!"])
def test_names_without_letters_are_refused(given):
    with pytest.raises(PlaygroundError, match="letters or digits"):
        safe_name(given)


# Files and folders ----------------------------------------------------------------------------------------------------

SEVERAL = [{"name": "default", "template": SHORT}, {"name": "tool_use", "template": SAY}]


@pytest.mark.parametrize(
    ("file", "content", "kept"),
    [
        ("own.jinja", SAY, {"own": SAY}),
        ("own.j2", SAY, {"own": SAY}),
        ("own.txt", "\ufeff" + SAY, {"own": SAY}),
        ("tokenizer_config.json", json.dumps({"chat_template": SHORT}), {"tokenizer_config": SHORT}),
        ("c.json", json.dumps({"chat_template": SEVERAL}), {"c": SHORT, "c-tool_use": SAY}),
        ("c.json", json.dumps(SEVERAL), {"c": SHORT, "c-tool_use": SAY}),
        ("c.json", json.dumps({"chat_template": {"default": SHORT}}), {"c": SHORT}),
    ],
)
def test_templates_are_taken_out_of_files(templates, tmp_path, file, content, kept):
    (tmp_path / file).write_text(content, encoding="utf-8")
    keys = templates.add_file(tmp_path / file)
    assert {key.removeprefix("mine:"): text_of(templates, key) for key in keys} == kept


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("a.json", b"{}", "a.json holds no chat template"),
        ("a.json", b"{", "a.json is not valid JSON: .* line 1, column 2"),
        ("a.json", b"[1, 2]", "must be a list of"),
        ("a.json", b'{"chat_template": 3}', "is no text"),
        ("a.json", b'{"chat_template": ' + b"9" * 5000 + b"}", "a.json cannot be read"),
        ("a.jinja", b"caf\xe9", "a.jinja is not UTF-8 text: byte 4"),
        ("a.jinja", b"x" * 200_001, "a.jinja is larger than 200 KB"),
        ("a.jinja", b"{% if %}", "mistake in line 1"),
        ("a.pdf", b"x", "a.pdf is no template"),
        ("a.jinja", None, "a.jinja cannot be read: No such file"),
    ],
)
def test_files_that_hold_no_template_say_why(templates, tmp_path, file, content, sentence):
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(PlaygroundError, match=sentence):
        templates.add_file(tmp_path / file)
    assert templates.mine() == []


def test_one_broken_template_of_several_keeps_none(templates, tmp_path):
    file = tmp_path / "c.json"
    file.write_text(json.dumps([*SEVERAL, {"name": "rag", "template": "{% if %}"}]))
    with pytest.raises(PlaygroundError, match="mistake"):
        templates.add_file(file)
    assert templates.mine() == []


def test_the_same_file_is_kept_once_and_another_of_its_name_beside_it(templates, tmp_path):
    (tmp_path / "own.jinja").write_text(SAY)
    assert templates.add_file(tmp_path / "own.jinja") == templates.add_file(tmp_path / "own.jinja") == ["mine:own"]
    (tmp_path / "own.jinja").write_text(SHORT)
    assert templates.add_file(tmp_path / "own.jinja") == ["mine:own-2"]
    assert text_of(templates, "mine:own") == SAY


def test_a_model_folder(templates, tokenizer_folder, tmp_path, monkeypatch):
    [key] = templates.add_folder(tokenizer_folder)
    assert text_of(templates, key) == (tokenizer_folder / "chat_template.jinja").read_text()
    for folder, sentence in ((tmp_path / "no", "no folder"), (tmp_path, "holds no chat template")):
        with pytest.raises(PlaygroundError, match=sentence):
            templates.add_folder(folder)
    monkeypatch.setenv("SPACE_ID", "someone/playground")
    with pytest.raises(PlaygroundError, match="public Space"):
        templates.add_folder(tokenizer_folder)


# The Hub --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Files by name, or the exception that asking for them raises; what was asked for."""
    files, asked = {}, []

    def download(repo, file, **given):
        asked.append((repo, file, given))
        answer = files.get(file, errors.RemoteEntryNotFoundError("no file", response=response(404)))
        if isinstance(answer, Exception):
            raise answer
        (tmp_path / file).write_text(answer)
        return str(tmp_path / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return files, asked


def response(status: int) -> httpx.Response:
    return httpx.Response(status, request=httpx.Request("HEAD", "https://huggingface.co/a/b"))


def test_only_the_files_that_may_hold_a_template_are_asked_for(templates, hub):
    files, asked = hub
    files["tokenizer_config.json"] = json.dumps({"chat_template": SEVERAL})
    assert templates.add_hub(" owner/Some-Model ", "v1") == ["mine:Some-Model", "mine:Some-Model-tool_use"]
    assert [file for _, file, _ in asked] == list(store.FILES)
    assert {given["revision"] for *_, given in asked} == {"v1"}


def test_the_jinja_file_wins(templates, hub):
    files, asked = hub
    files |= {"chat_template.jinja": SAY, "tokenizer_config.json": json.dumps({"chat_template": SHORT})}
    assert [text_of(templates, key) for key in templates.add_hub("owner/m")] == [SAY]
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (errors.RepositoryNotFoundError("?", response=response(404)), "there is no model .*/a/b, or it is private"),
        (errors.GatedRepoError("?", response=response(403)), "/a/b is gated: accept its terms"),
        (errors.RevisionNotFoundError("?", response=response(404)), "/a/b has no revision 'v9'"),
        (errors.HfHubHTTPError("?", response=response(503)), "/a/b answered with 503"),
        (errors.LocalEntryNotFoundError("no network"), "cannot reach .*: no network; upload a file instead"),
        (OSError("[Errno 111] Connection refused"), "cannot reach .*: Connection refused"),
        (json.dumps({"model_max_length": 5}), "a/b has no chat template: none in chat_template.jinja, "),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(templates, hub, answer, sentence):
    files, _ = hub
    files |= {"chat_template.json": answer} if isinstance(answer, str) else {"chat_template.jinja": answer}
    with pytest.raises(PlaygroundError, match=sentence):
        templates.add_hub("a/b", "v9")
    assert templates.mine() == []


def test_a_silent_hub_is_given_up(templates, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(store, "ANSWER_WITHIN", 0.2)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: time.sleep(5))
    began = time.monotonic()
    with pytest.raises(PlaygroundError, match="did not answer within 0 s; try again, or upload a file"):
        templates.add_hub("a/b")
    assert time.monotonic() - began < 3


def test_offline_only_what_was_fetched_before_is_taken(templates, hub, monkeypatch):
    files, asked = hub
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    files |= dict.fromkeys(store.FILES, errors.LocalEntryNotFoundError("not cached"))
    with pytest.raises(PlaygroundError, match="HF_HUB_OFFLINE is set"):
        templates.add_hub("a/b")
    assert all(given["local_files_only"] for *_, given in asked)
    files["tokenizer_config.json"] = json.dumps({"chat_template": SHORT})
    assert templates.add_hub("a/b") == ["mine:b"]


def test_on_a_space_the_owners_token_is_not_used_for_visitors(templates, hub, monkeypatch):
    files, asked = hub
    files["chat_template.jinja"] = SAY
    templates.add_hub("a/b")
    monkeypatch.setenv("SPACE_ID", "someone/playground")
    templates.add_hub("a/b")
    assert [given.get("token") for *_, given in asked] == [None, False]


def test_a_cancelled_fetch_keeps_nothing(templates, hub):
    files, _ = hub
    files["chat_template.jinja"] = SAY
    cancel = threading.Event()
    cancel.set()
    assert templates.add_hub("a/b", cancel=cancel) == []
    assert templates.mine() == []


@pytest.mark.parametrize("repo", ["", "a/b/c", "../x", "https://huggingface.co/a/b"])
def test_names_that_are_no_models_are_not_asked_for(templates, hub, repo):
    with pytest.raises(PlaygroundError, match="write owner/name"):
        templates.add_hub(repo)
    assert hub[1] == []
