"""Exports of a run: what is written, that it is what was trained, and what cannot be had said in a sentence."""

import dataclasses
import json
import shutil
import zipfile
from types import SimpleNamespace

import pytest

from playground.config import Paths, TrainConfig
from playground.core import export, templates
from playground.core.adapter_files import SOFT, soft_rows
from playground.errors import PlaygroundError
from playground.services import exports, runs
from playground.services.exports import Export, Exporter
from playground.services.runs import Events
from tests.hub import running

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

ROWS = [{"instruction": f"Say {word}", "output": f"{word} {word}"} for word in ("one", "two", "three", "four")]


@pytest.fixture(scope="module")
def base(tokenizer_folder, tmp_path_factory):
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "tiny"
    shutil.copytree(tokenizer_folder, folder)
    torch.manual_seed(0)
    settings = {"vocab_size": 512, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    LlamaForCausalLM(LlamaConfig(**settings, **heads)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    """A LoRA adapter whose B matrices are large enough to change what the model writes."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    lora = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def world(tmp_path, base, adapter):
    """(exporter, run): a finished run of the tiny model."""
    paths = Paths(tmp_path / "home")
    paths.data.mkdir(parents=True)
    (paths.data / "rows.json").write_text(json.dumps(ROWS))
    config = TrainConfig(
        name="mine", model="tiny", data="rows.json", template="chatml", rank=2, dtype="float32", batch_size=2
    )
    run = runs.create(config, paths)
    shutil.copytree(adapter, run.folder / "adapter")
    template = templates.load("chatml")
    about = {
        "template_name": "chatml", "template_text": template.text, "template_hash": template.hash,
        "mask_rule": "generation", "base_model": "tiny", "versions": {"torch": "2.0", "peft": "0.1"},
    }  # fmt: skip
    runs.write_json(run.folder / "adapter" / "playground.json", about)
    Events(run.folder).write("step", step=4, steps=4, loss=1.0)
    Events(run.folder).state("finished", "4 steps")

    class Sources:
        here = True

        def find(self, name):
            return base if self.here else None

        def entry(self, name):
            return SimpleNamespace(hub="someone/tiny")

    return Exporter(paths, Sources()), run


def made(exporter, kind, run, out=None, **options) -> Export:
    *stages, last = exporter.make(kind, run, out, **options)
    assert all(isinstance(stage, str) for stage in stages)
    return last


# ---- the model -------------------------------------------------------------------------------------------------


def test_the_merged_model_writes_what_base_and_adapter_write(world, base, adapter):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    exporter, run = world
    done = made(exporter, "merged", run)
    assert "writes the same 16 tokens" in done.sentence
    tokenizer = AutoTokenizer.from_pretrained(done.path)
    ask = [{"role": "user", "content": "What is 23 * 47?"}]
    ids = tokenizer.apply_chat_template(ask, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    plain = AutoModelForCausalLM.from_pretrained(base)
    merged = AutoModelForCausalLM.from_pretrained(done.path)
    free = {"max_new_tokens": 24, "do_sample": False, "eos_token_id": 511, "pad_token_id": 0}
    written = [model.generate(**ids, **free).tolist() for model in (plain, merged)]
    tuned = PeftModel.from_pretrained(plain, adapter).generate(**ids, **free).tolist()
    assert written[1] == tuned
    assert written[0] != tuned  # the adapter does something


def test_the_merged_folder_carries_the_trained_template_and_its_stops(world):
    exporter, run = world
    folder = made(exporter, "merged", run).path
    assert (folder / "chat_template.jinja").read_text() == templates.load("chatml").text
    assert "chat_template" not in json.loads((folder / "tokenizer_config.json").read_text())
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [2]  # <|im_end|>
    assert "base_model: someone/tiny" in (folder / "README.md").read_text()
    assert [path.name for path in run.folder.joinpath("exports").iterdir()] == ["mine-merged"]


def test_an_adapter_that_is_no_lora_is_not_merged(world):
    exporter, run = world
    path = run.folder / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "peft_type": "IA3"}))
    with pytest.raises(PlaygroundError, match="an? IA3 adapter cannot be merged"):
        made(exporter, "merged", run)
    assert list(run.folder.joinpath("exports").iterdir()) == []


@pytest.fixture(scope="module")
def soft(base, tmp_path_factory):
    """A soft prompt of three virtual tokens, far from any word."""
    from peft import PromptTuningConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(2)
    settings = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), settings)
    torch.nn.init.normal_(model.prompt_encoder["default"].embedding.weight, std=2.0)
    folder = tmp_path_factory.mktemp("soft") / "soft"
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


@pytest.mark.parametrize("behind", [False, True], ids=["soft prompt", "LoRA behind one"])
def test_a_soft_prompt_becomes_tokens_of_the_merged_model(world, soft, base, adapter, behind):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    exporter, run = world
    if behind:
        shutil.copytree(soft, run.folder / "adapter" / SOFT)
    else:
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copy(soft / name, run.folder / "adapter" / name)
    done = made(exporter, "merged", run)
    assert "writes the same 16 tokens" in done.sentence
    assert "3 tokens of its own" in done.sentence
    tokenizer = AutoTokenizer.from_pretrained(done.path)
    merged = AutoModelForCausalLM.from_pretrained(done.path)
    ask = [{"role": "user", "content": "What is 23 * 47?"}]
    text = tokenizer.apply_chat_template(ask, add_generation_prompt=True, tokenize=False)
    assert text.startswith("<|soft_prompt_0|><|soft_prompt_1|><|soft_prompt_2|><|im_start|>")
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    known = int(ids[0, 0])  # the soft prompt's tokens come after all others
    ours = merged(ids).logits[0, -1, :known]
    model = AutoModelForCausalLM.from_pretrained(base)
    tuned = PeftModel.from_pretrained(model, adapter) if behind else model
    rows = torch.cat([soft_rows(soft)[None], model.get_input_embeddings()(ids[:, 3:])], 1)
    theirs = tuned(inputs_embeds=rows).logits[0, -1, :known]
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert not torch.allclose(
        ours, model(ids[:, 3:]).logits[0, -1, :known], atol=1e-2
    )  # the soft prompt does something
    free = {"max_new_tokens": 24, "do_sample": False, "pad_token_id": 0}
    assert not set(merged.generate(ids, **free)[0, ids.shape[1] :].tolist()) & set(ids[0, :3].tolist())
    assert "<|soft_prompt_2|><|im_start|>" in (made(exporter, "ollama", run).path / "Modelfile").read_text()


def test_ollama_gets_the_trained_template(world):
    exporter, run = world
    done = made(exporter, "ollama", run)
    assert "ollama create mine" in done.sentence
    text = (done.path / "Modelfile").read_text()
    assert "FROM .\n" in text
    assert '<|im_start|>user\n{{ else if eq $before "assistant" }}<|im_end|>\n<|im_start|>user\n' in text
    assert 'PARAMETER stop "<|im_end|>"' in text
    assert (done.path / "model.safetensors").exists()


def test_a_cancelled_export_leaves_nothing(world):
    exporter, run = world
    for stages_seen in (1, 2, 3):
        stages = exporter.make("merged", run)
        for _ in range(stages_seen):
            next(stages)
        stages.close()
    next(stages := exporter.make("adapter", run))
    stages.close()
    assert list(run.folder.joinpath("exports").iterdir()) == []


def test_gguf_without_llama_cpp_is_a_sentence(world, monkeypatch, tmp_path):
    exporter, run = world
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(PlaygroundError, match="set LLAMA_CPP"):
        made(exporter, "gguf", run)


@pytest.mark.parametrize("fails", [False, True])
def test_gguf_is_made_by_the_script_that_is_there(world, monkeypatch, tmp_path, fails):
    exporter, run = world
    script = "import pathlib, sys\nassert (pathlib.Path(sys.argv[1]) / 'model.safetensors').exists()\n"
    end = "sys.exit('no such architecture')" if fails else "pathlib.Path(sys.argv[3]).write_text('GGUF')"
    (tmp_path / exports.CONVERT).write_text(script + end)
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path))
    if fails:
        with pytest.raises(PlaygroundError, match="no such architecture"):
            made(exporter, "gguf", run)
    else:
        assert made(exporter, "gguf", run).path.read_text() == "GGUF"
    assert len(list(run.folder.joinpath("exports").iterdir())) == (0 if fails else 1)


def test_a_converter_that_misses_a_package_is_said_before_anything_is_merged(world, monkeypatch, tmp_path):
    exporter, run = world
    (tmp_path / exports.CONVERT).write_text("import no_such_package.part")
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path))
    stages = exporter.make("gguf", run)
    assert "looking at" in next(stages)
    with pytest.raises(PlaygroundError, match="needs the package no_such_package, .*: pip install no_such_package"):
        next(stages)


# ---- small ones ------------------------------------------------------------------------------------------------


def test_the_zip_holds_the_adapter_and_its_card(world, tmp_path):
    exporter, run = world
    done = made(exporter, "adapter", run, tmp_path / "out")
    names = zipfile.ZipFile(done.path).namelist()
    assert {"mine/adapter_model.safetensors", "mine/adapter_config.json", "mine/playground.json"} <= set(names)
    assert "# mine" in zipfile.ZipFile(done.path).read("mine/run-card.md").decode()


def test_the_notebook_is_one_and_its_code_compiles(world):
    exporter, run = world
    notebook = json.loads(made(exporter, "notebook", run).path.read_text())
    assert (notebook["nbformat"], len({cell["id"] for cell in notebook["cells"]})) == (4, 4)
    install, train, ask = ("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    assert '"peft==0.1"' in install
    assert train.startswith("%%bash\nplayground train --model tiny --data rows.json --template chatml --rank 2 ")
    assert train.endswith(" --name mine")
    compile(ask, "ask", "exec")
    assert "PeftModel.from_pretrained" in ask


def test_the_trl_script_has_the_runs_settings_rows_and_template(world):
    exporter, run = world
    archive = zipfile.ZipFile(made(exporter, "trl", run).path)
    read = {name.split("/")[1]: archive.read(name).decode() for name in archive.namelist()}
    script = read["train_trl.py"]
    compile(script, "train_trl.py", "exec")
    for words in ("r=2,", "'someone/tiny'", "assistant_only_loss=True", "{% generation %}", "learning_rate=0.002,"):
        assert words.replace("{% generation", "{%- generation") in script
    rows = [json.loads(line) for name in ("train.jsonl", "held_out.jsonl") for line in read[name].splitlines()]
    assert sorted(row["messages"][1]["content"] for row in rows) == sorted(row["output"] for row in ROWS)
    assert len(read["held_out.jsonl"].splitlines()) == 1


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"prefix_every": 4}, "the run in one step of 4"),
        ({"skip_above": 0.9}, "the run those that the model gave less than 0.9"),
    ],
)
def test_the_trl_script_says_what_the_run_did_otherwise(changes, words):
    marked = "{% generation %}{% endgeneration %}"
    plain, other = (export.trl_script(TrainConfig(**given), marked, 9, "tiny") for given in ({}, changes))
    compile(other, "train_trl.py", "exec")
    assert words in other.split('"""')[1]
    assert plain.split('"""')[2:] == other.split('"""')[2:]


def test_rows_for_trl_are_those_that_the_run_trains_on(world):
    from playground.core import datasets
    from playground.core.training import collate

    exporter, run = world
    config, tokenizer, template = run.config, exporter._tokenizer(run), templates.load("chatml")
    rows = [json.dumps({"instruction": f"Say {n}", "output": "" if n % 3 else f"{n}"}) for n in range(12)]
    (exporter.paths.data / "rows.json").write_text("\n".join(rows))
    for settings in ({}, {"rows": 5}, {"seed": 3, "eval_share": 0.5}):
        changed = dataclasses.replace(config, **settings)
        conversations = datasets.load(changed.data, exporter.paths).conversations
        ours = collate.prepare(changed, conversations, template, tokenizer)
        train, held_out = collate.split(exports.kept_rows(changed, conversations, template, tokenizer), changed)
        for conversation, example in zip([*train, *held_out], [*ours.train, *ours.held_out], strict=True):
            assert tuple(templates.render(template, conversation, tokenizer).ids) == example.ids


def test_data_that_changed_since_the_run_is_said(world):
    exporter, run = world
    runs.write_json(run.folder / "adapter" / "playground.json", {**run.about, "data_hash": "another"})
    assert "has changed since the run" in made(exporter, "trl", run).sentence


def test_after_a_full_fine_tune_the_model_is_copied(world, base):
    exporter, run = world
    shutil.move(run.folder / "adapter", run.folder / "gone")
    shutil.copytree(base, run.folder / "model")
    shutil.copy(run.folder / "gone" / "playground.json", run.folder / "model")
    done = made(exporter, "merged", run)
    assert "nothing to merge" in done.sentence
    assert (done.path / "chat_template.jinja").read_text() == templates.load("chatml").text
    with pytest.raises(PlaygroundError, match="trained all weights"):
        made(exporter, "adapter", run)


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"state": "running"}, "exported when it has ended"),
        ({"gone": True}, "has no adapter"),
        ({}, "an export is one"),
    ],
)
def test_what_cannot_be_exported_says_why(world, change, sentence):
    import os

    exporter, run = world
    if "state" in change:
        Events(run.folder).state("running")
        runs.note_process(run.folder, os.getpid())
    if change.get("gone"):
        shutil.rmtree(run.folder / "adapter")
    with pytest.raises(PlaygroundError, match=sentence):
        made(exporter, "adapter" if change else "nonsense", run)


def test_a_base_that_is_not_here_is_a_sentence(world):
    exporter, run = world
    exporter.sources.here = False
    with pytest.raises(PlaygroundError, match="playground models get tiny"):
        made(exporter, "merged", run)


# ---- the Hub ---------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch):
    with running() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield hub


def test_pushing_sends_the_adapter_with_a_model_card_and_keeps_no_token(world, hub):
    exporter, run = world
    done = made(exporter, "hub", run, repo="ada/tiny", token="hf_secret")
    assert done.url == f"{hub.url}/ada/tiny"
    assert hub.tokens == {"hf_secret"}
    created = json.loads(next(body for path, body in hub.requests if path.endswith("/repos/create")))
    assert "private" in (created.get("visibility"), "private" if created.get("private") else "")
    sent = hub.committed()
    assert {"adapter_model.safetensors", "adapter_config.json", "playground.json", "README.md"} == set(sent)
    assert json.loads(sent["adapter_config.json"])["base_model_name_or_path"] == "someone/tiny"
    assert b"base_model: someone/tiny" in sent["README.md"]
    assert b"Repeat it" in sent["README.md"]
    assert not [path for path in run.folder.rglob("*") if path.is_file() and b"hf_secret" in path.read_bytes()]


def test_a_hub_that_refuses_is_a_sentence(world, hub):
    exporter, run = world
    hub.refused["hf_secret"] = 403
    with pytest.raises(PlaygroundError, match="answered with 403 for ada/tiny .the token may not write there"):
        made(exporter, "hub", run, repo="ada/tiny", token="hf_secret")


def test_without_a_token_or_a_name_nothing_is_sent(world, hub, monkeypatch):
    exporter, run = world
    with pytest.raises(PlaygroundError, match="needs a token"):
        made(exporter, "hub", run, repo="ada/tiny")
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_space")
    monkeypatch.setenv("SPACE_ID", "someone/space")
    with pytest.raises(PlaygroundError, match="needs a token"):
        made(exporter, "hub", run, repo="ada/tiny")
    with pytest.raises(PlaygroundError, match="owner/name"):
        made(exporter, "hub", run, repo="../tiny", token="hf_secret")
    assert hub.requests == []
