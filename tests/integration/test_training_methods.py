"""The methods on a two-layer Llama: what is trained, saved, loaded on the original base, and served per row."""

import dataclasses
import functools

import pytest

from playground.config import METHODS, TrainConfig, check, parse
from playground.core.training import layers
from playground.errors import PlaygroundError

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # more only wait for each other at this size

from playground.core.adapters import AdapterBank  # noqa: E402
from playground.core.training import loop, loss, methods, truth  # noqa: E402
from playground.core.training.answer import answer_batch  # noqa: E402
from playground.core.training.collate import batch  # noqa: E402
from tests.core.test_training import CONFIG, ROWS, fit, losses, tiny  # noqa: E402

LORA = ("lora", "rslora", "dora", "pissa", "eva")
IDS = torch.tensor([[*ROWS[0].ids]])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """`trained(method)`: (folder of the saved adapter, logits of the trained model, the config) of its short run."""

    @functools.cache
    def trained(method):
        folder = tmp_path_factory.mktemp(method)
        config = dataclasses.replace(CONFIG, method=method, rank=4, learning_rate=0.02, prompt_tokens=4)
        initial = folder / "initial" if method == "pissa" else None
        model = methods.add_adapter(tiny(), config, (), initial, ROWS)
        fit(model, config)
        model.eval()
        with torch.no_grad():
            logits = model(IDS).logits[:, -IDS.shape[1] :]
        methods.save_adapter(model, folder / "adapter", "tiny", initial)
        return folder / "adapter", logits, config

    return trained


def reloaded(folder, base=None):
    from peft import PeftModel

    model = PeftModel.from_pretrained(base or tiny(), folder, autocast_adapter_dtype=False).eval()
    with torch.no_grad():
        return model(IDS).logits[:, -IDS.shape[1] :]


# ---- each method -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [*LORA, "prompt"])
def test_what_is_saved_is_the_trained_model_on_the_original_base(method, trained):
    folder, logits, _ = trained(method)
    with torch.no_grad():
        assert (tiny()(IDS).logits - logits).abs().max() > 0.01
    torch.testing.assert_close(reloaded(folder), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", [*LORA])
def test_the_bank_serves_it_beside_the_bare_model(method, trained):
    folder, logits, _ = trained(method)
    base = tiny()
    with torch.no_grad():
        plain = base(IDS).logits
        bank = AdapterBank(base)
        bank.load("mine", folder)
        bank.use(["mine", None])
        both = base(IDS.repeat(2, 1)).logits
    torch.testing.assert_close(both[0], logits[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(both[1], plain[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", [*LORA, "prompt"])
def test_the_truth_check_works_for_every_adapter(method, tmp_path):
    config = dataclasses.replace(CONFIG, method=method, rank=4, learning_rate=0.02, prompt_tokens=4)
    initial = tmp_path / "initial" if method == "pissa" else None
    model = methods.add_adapter(tiny(), config, (), initial, ROWS)
    fit(model, config)
    model.eval()
    seen = truth.log_probabilities(model, ROWS[0])
    methods.save_adapter(model, tmp_path / "adapter", "tiny", initial)
    verdict = truth.check(tiny(), tmp_path / "adapter", ROWS[0], seen)
    assert verdict.passed, verdict.sentence
    assert verdict.matrices == (1 if method == "prompt" else 14)
    wrong = truth.check(tiny(), tmp_path / "adapter", ROWS[0], seen + 1)
    assert "not the trained one" in wrong.sentence


def judged(model, tmp_path, start):
    model.eval()
    seen = truth.log_probabilities(model, ROWS[0])
    methods.save_adapter(model, tmp_path / "adapter", "tiny")
    return truth.check(tiny(), tmp_path / "adapter", ROWS[0], seen, start=start)


@pytest.mark.parametrize("is_trained", [True, False])
def test_the_truth_check_knows_a_soft_prompt_from_its_start(is_trained, tmp_path):
    model = soft_model()
    start = methods.start_of(model)
    if is_trained:
        fit(model, dataclasses.replace(CONFIG, method="prompt", prompt_tokens=4))
    verdict = judged(model, tmp_path, start)
    assert (verdict.passed, verdict.matrices, verdict.zero) == (is_trained, 1, 1 - is_trained)
    assert verdict.difference > 0.001  # the start alone changes the model, which is why that says nothing
    words = "1 of 1 soft prompts are not as at the start" if is_trained else "all its soft prompts are as at the start"
    assert words in verdict.sentence


@pytest.mark.parametrize("is_trained", [True, False])
def test_the_truth_check_knows_an_adapter_from_the_one_it_goes_on_from(is_trained, trained, tmp_path):
    folder, _, config = trained("lora")
    model = methods.continued(tiny(), dataclasses.replace(config, continue_from="first"), folder)
    if is_trained:
        fit(model, config)
    verdict = judged(model, tmp_path, methods.start_of(model, folder))
    assert (verdict.passed, verdict.zero) == (is_trained, 0 if is_trained else 14), verdict.sentence


def test_a_full_fine_tune_is_a_model_folder_of_its_own(tmp_path, tokenizer, tokenizer_folder):
    config = dataclasses.replace(CONFIG, method="full", learning_rate=2e-3)
    model = methods.add_adapter(tiny(), config)
    _, events = fit(model, config)
    assert losses(events)[-1] < losses(events)[0]
    model.eval()
    seen = truth.log_probabilities(model, ROWS[0])
    methods.save_model(model, tokenizer, tmp_path / "model", tokenizer_folder)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in (tmp_path / "model").iterdir()}
    verdict = truth.check(tiny(), tmp_path / "model", ROWS[0], seen)
    assert verdict.passed, verdict.sentence
    assert (verdict.matrices, verdict.zero) == (21, 0)
    methods.save_model(tiny(), tokenizer, tmp_path / "same", tokenizer_folder)
    assert "weights are as in the base" in truth.check(tiny(), tmp_path / "same", ROWS[0], seen).sentence


def test_full_is_for_tiny_models():
    with pytest.raises(PlaygroundError, match="at most 400 million parameters; this one has 1,236 million"):
        layers.check_full(1_235_814_400)


def test_a_head_that_is_trained_gets_the_gradient_autograd_gives():
    torch.manual_seed(0)
    hidden, wanted = torch.randn(5, 8, requires_grad=True), torch.tensor([1, 0, 3, 3, 9])
    weight, bias = torch.randn(10, 8, requires_grad=True), torch.randn(10, requires_grad=True)
    ours = torch.autograd.grad(loss.LabelledLoss.apply(hidden, weight, bias, wanted, 2.0) * 3, (hidden, weight, bias))
    logits = 2.0 * torch.tanh(torch.nn.functional.linear(hidden, weight, bias) / 2.0)
    plain = torch.nn.functional.cross_entropy(logits, wanted, reduction="sum") * 3
    for one, two in zip(ours, torch.autograd.grad(plain, (hidden, weight, bias)), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def gradients_of(model):
    step = batch(ROWS)
    model.zero_grad()
    (loss.step_loss(methods.base_of(model), step, 0) / step.trained).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_qlora_on_a_cpu_trains_an_adapter_that_fits_the_plain_base(tmp_path, tokenizer_folder):
    pytest.importorskip("bitsandbytes")
    import shutil

    folder = tmp_path / "tiny"
    shutil.copytree(tokenizer_folder, folder)
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
    LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4)).save_pretrained(folder)
    config = dataclasses.replace(CONFIG, method="qlora", learning_rate=0.02)
    loaded = methods.load_base(folder, config)
    assert type(loaded.model.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
    model = methods.add_adapter(loaded.model, config)
    with torch.no_grad():  # B starts at zero, and then A has no gradient
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1)
    first = gradients_of(model)
    with torch.no_grad():
        model.eval()(IDS)  # an evaluation must not change what the training does afterwards
    for name, gradient in gradients_of(model.train()).items():
        torch.testing.assert_close(gradient, first[name], rtol=0.05, atol=1e-3)
    _, events = fit(model, config)
    assert losses(events)[-1] < losses(events)[0]
    model.eval()
    seen = truth.log_probabilities(model, ROWS[0])
    methods.save_adapter(model, tmp_path / "adapter", "tiny")
    verdict = truth.check(methods.load_base(folder, config).model, tmp_path / "adapter", ROWS[0], seen)
    assert verdict.passed, verdict.sentence
    AdapterBank(LlamaForCausalLM.from_pretrained(folder)).load("mine", tmp_path / "adapter")


def test_4_bits_without_their_package_are_a_sentence(tmp_path, monkeypatch):
    from playground.core import models

    monkeypatch.setattr(models, "find_spec", lambda name: None)
    tiny().save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(PlaygroundError, match="need the package bitsandbytes, .* pip install bitsandbytes"):
        methods.load_base(tmp_path, TrainConfig(method="qlora"))


# ---- soft prompts ----------------------------------------------------------------------------------------------


def soft_model():
    return methods.add_adapter(tiny(), dataclasses.replace(CONFIG, method="prompt", prompt_tokens=4))


def test_a_soft_prompt_gives_the_loss_that_peft_gives():
    model = soft_model()
    step = batch(ROWS)
    assert step.prefix
    ours = loss.step_loss(methods.base_of(model), step, 0, loss.soft_prompt(model)).item()
    model.train()
    theirs = 0.0
    for row in ROWS:
        out = model(input_ids=torch.tensor([row.ids]), labels=torch.tensor([row.labels]))
        theirs += out.loss.item() * row.trained
    assert ours == pytest.approx(theirs, rel=1e-4)
    base = methods.base_of(model)
    base.config.logits_scaling = 4.0  # the other two ways to the same number
    assert loss.step_loss(base, step, 0, loss.soft_prompt(model)).item() == pytest.approx(theirs, rel=1e-4)
    base.config.logits_scaling = None
    base.config.layer_types = ["sliding_attention", "full_attention"]
    assert loss.step_loss(base, step, 0, loss.soft_prompt(model)).item() == pytest.approx(theirs, rel=1e-4)


def test_only_the_soft_prompt_is_trained():
    model = soft_model()
    assert [p.shape for p in model.parameters() if p.requires_grad] == [(4, 32)]


def test_answers_hear_the_soft_prompt(tokenizer):
    model = soft_model()
    with torch.no_grad():
        model.prompt_encoder["default"].embedding.weight.mul_(50)
    prompts = [[5, 6, 7], [5, 6, 8, 9]]
    answers = answer_batch(model, tokenizer, prompts, 8, set())
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt])
        for _ in range(8):  # without a cache: peft's `generate` loses the soft prompt with transformers 5.24
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], 1)
        assert answer == tokenizer.decode(ids[0, -8:].tolist())
    assert answers != answer_batch(methods.base_of(model), tokenizer, prompts, 8, set())


# ---- PiSSA, resumed --------------------------------------------------------------------------------------------


def test_pissa_is_resumed_from_the_same_start_or_not_at_all(tmp_path):
    config = dataclasses.replace(CONFIG, method="pissa")
    methods.add_adapter(tiny(), config, (), tmp_path / "initial")
    methods.add_adapter(tiny(), config, (), tmp_path / "initial")
    with pytest.raises(PlaygroundError, match="PiSSA's start came out differently"):
        methods.add_adapter(tiny(seed=1), config, (), tmp_path / "initial")


def test_eva_starts_from_what_the_layers_see():
    config = dataclasses.replace(CONFIG, method="eva", rank=4)
    starts = []
    for rows in (ROWS, [dataclasses.replace(r, ids=tuple(i ^ 1 for i in r.ids)) for r in ROWS]):
        model = methods.add_adapter(tiny(), config, rows=rows)
        a, b = (next(p for n, p in model.named_parameters() if x in n and "q_proj" in n) for x in ("lora_A", "lora_B"))
        assert not b.any()
        starts.append(a.detach())
    assert not torch.allclose(*starts)
    # rows of a matrix of right singular vectors
    torch.testing.assert_close(starts[0] @ starts[0].t(), torch.eye(4), rtol=1e-3, atol=1e-3)
    with pytest.raises(PlaygroundError, match="rows of more tokens than the rank 64"):
        methods.add_adapter(tiny(), dataclasses.replace(config, rank=64), rows=ROWS[:1])


# ---- new tokens ------------------------------------------------------------------------------------------------


def bytes_tokenizer(folder):
    from playground.core.tokenizer import Tokenizer

    return Tokenizer.load(folder)


@pytest.mark.parametrize("tied", [True, False])
def test_new_tokens_train_their_rows_and_no_others(tied, tmp_path, tokenizer_folder):
    tokenizer = bytes_tokenizer(tokenizer_folder)
    before = tokenizer.size
    names = ("<|thinking|>", "</|thinking|>")

    def base():
        fresh = bytes_tokenizer(tokenizer_folder)
        model = tiny(tie_word_embeddings=tied, vocab_size=before)
        return model, methods.add_tokens(model, fresh, names), fresh

    model, tokens, tokenizer = base()
    assert tokens == [before, before + 1]
    assert tokenizer.encode("a<|thinking|>b")[0].count(before) == 1
    assert "<|thinking|>" in tokenizer.special_tokens
    pieces = bytes_tokenizer(tokenizer_folder).encode("<|thinking|>")[0]
    rows = model.get_input_embeddings().weight
    torch.testing.assert_close(rows[before], rows[pieces].mean(0))
    row = dataclasses.replace(ROWS[0], ids=(*ROWS[0].ids[:-2], *tokens), labels=(*ROWS[0].labels[:-2], *tokens))
    config = dataclasses.replace(CONFIG, new_tokens=",".join(names), learning_rate=0.02)
    tuned = methods.add_adapter(model, config, tokens)
    embeddings = [p for name, p in tuned.named_parameters() if p.requires_grad and "lora" not in name]
    assert sum(p.numel() for p in embeddings) == 2 * 32 * (1 if tied else 2)
    starts = [p.detach().clone() for p in embeddings]
    fit(tuned, config, [row] * 4)
    assert all((p - start).abs().max() > 1e-4 for p, start in zip(embeddings, starts, strict=True))
    tuned.eval()
    seen = truth.log_probabilities(tuned, row)
    methods.save_adapter(tuned, tmp_path / "adapter", "tiny")
    methods.save_tokenizer(tokenizer, tmp_path / "adapter", tokenizer_folder)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size < 200_000  # not the whole embedding
    assert bytes_tokenizer(tmp_path / "adapter").encode("<|thinking|>")[0] == [before]
    verdict = truth.check(base()[0], tmp_path / "adapter", row, seen)
    assert verdict.passed, verdict.sentence


def test_a_token_that_is_there_keeps_its_row(tokenizer_folder):
    tokenizer = bytes_tokenizer(tokenizer_folder)
    model = tiny(vocab_size=tokenizer.size)
    before = model.get_input_embeddings().weight.clone()
    ids = methods.add_tokens(model, tokenizer, ("<tool_call>",))
    assert ids == [tokenizer.backend.token_to_id("<tool_call>")]
    assert torch.equal(before, model.get_input_embeddings().weight)
    with pytest.raises(PlaygroundError, match="a text without blanks"):
        methods.add_tokens(model, tokenizer, ("two words",))


# ---- going on --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "rslora", "dora"])
def test_training_goes_on_from_an_adapter(method, trained):
    folder, logits, config = trained(method)
    config = dataclasses.replace(config, continue_from="mine")
    model = methods.continued(tiny(), config, folder)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, logits, rtol=1e-4, atol=1e-4)
    _, first = fit(methods.add_adapter(tiny(), config), config)
    _, second = fit(model, config)
    assert losses(second)[-1] < losses(first)[-1]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"rank": 8}, "rank is 8, and the adapter to continue from has rank 4"),
        ({"alpha": 5.0}, "alpha is 5.0, and the adapter to continue from has alpha 4"),
        ({"method": "dora"}, "method is dora, and the adapter to continue from has method lora"),
        ({"targets": "attention"}, "are 8 layers .* has 14 .*gate_proj"),
        ({"first_layer": 1}, "from first_layer 1 on are 7 layers .* has 14"),
    ],
)
def test_an_adapter_of_another_kind_is_not_continued(trained, changes, words):
    folder, _, config = trained("lora")
    with pytest.raises(PlaygroundError, match=words):
        methods.continued(tiny(), dataclasses.replace(config, continue_from="mine", **changes), folder)


# ---- targets ---------------------------------------------------------------------------------------------------


def test_targets_may_be_a_checklist():
    model = methods.add_adapter(tiny(), dataclasses.replace(CONFIG, targets="q_proj, down_proj"))
    adapted = {name.split(".lora_A")[0].split(".")[-1] for name, _ in model.named_parameters() if "lora_A" in name}
    assert adapted == {"q_proj", "down_proj"}
    with pytest.raises(PlaygroundError, match="no linear layer called 'lm_head'; it has down_proj, .*v_proj"):
        methods.add_adapter(tiny(), dataclasses.replace(CONFIG, targets="q_proj,lm_head"))
    with pytest.raises(PlaygroundError, match="targets names no layer"):
        methods.add_adapter(tiny(), dataclasses.replace(CONFIG, targets=" , "))


@pytest.mark.parametrize("targets, count", [("all-linear", 7), ("attention", 4), ("q_proj,up_proj", 2)])
def test_the_first_layers_may_be_left_alone(tmp_path, targets, count):
    config = dataclasses.replace(CONFIG, targets=targets, first_layer=1, eval_share=0.0)
    model = methods.add_adapter(tiny(), config)
    adapted = [name for name, _ in model.named_parameters() if "lora_A" in name]
    assert len(adapted) == count
    assert all(".layers.1." in name for name in adapted)
    seen = []
    for layer in model.get_base_model().model.layers:
        layer.register_full_backward_hook(lambda layer, of_in, of_out: seen.append(layer))
    fit(model, config)
    assert set(seen) == {model.get_base_model().model.layers[1]}  # nothing went back through the one before
    methods.save_adapter(model, tmp_path / "adapter", "tiny")
    bank = AdapterBank(tiny())
    bank.load("it", tmp_path / "adapter")
    bank.use(["it"])
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(bank.model(IDS).logits, model(IDS).logits, rtol=1e-4, atol=1e-4)
    again = methods.continued(tiny(), dataclasses.replace(config, continue_from="it"), tmp_path / "adapter")
    assert [name for name, _ in again.named_parameters() if "lora_A" in name] == adapted


def test_a_first_layer_past_the_last_is_refused(tmp_path):
    config = dataclasses.replace(CONFIG, first_layer=2)
    words = "first_layer 2 is past the model's last layer, 1; set first_layer to 1 or less"
    with pytest.raises(PlaygroundError, match=words):
        methods.add_adapter(tiny(), config)
    tiny().save_pretrained(tmp_path)
    with pytest.raises(PlaygroundError, match=words):  # before the weights are read
        layers.check_first_layer(2, layers.depth(tmp_path))


def test_linear_layers_are_read_from_the_headers(tmp_path):
    tiny(num_key_value_heads=2).save_pretrained(tmp_path)
    found = layers.linear_layers(tmp_path)
    sizes = {one.name: (one.count, one.inputs, one.outputs) for one in found}
    assert sizes["k_proj"] == (2, 32, 16)
    assert sizes["down_proj"] == (2, 48, 32)
    names = {name.rsplit(".", 1)[-1] for name, part in tiny().named_modules() if isinstance(part, torch.nn.Linear)}
    assert set(sizes) == names - {"lm_head"}
    assert {one.name for one in found if one.attention} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert layers.parameters(tmp_path) == sum(p.numel() for p in tiny(num_key_value_heads=2).parameters())


# ---- contradictions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings, both",
    [
        ({"method": "full", "load_in_4bit": True}, ("method full", "load_in_4bit")),
        ({"method": "pissa", "load_in_4bit": True}, ("method pissa", "load_in_4bit")),
        ({"method": "prompt", "targets": "q_proj"}, ("method prompt", "targets 'q_proj'")),
        ({"method": "full", "targets": "attention"}, ("method full", "targets 'attention'")),
        ({"method": "full", "first_layer": 1}, ("method full", "first_layer 1")),
        ({"method": "full", "new_tokens": "<a>"}, ("method full", "new_tokens '<a>'")),
        ({"method": "pissa", "continue_from": "mine"}, ("method pissa", "adapter 'mine'")),
        ({"method": "eva", "continue_from": "mine"}, ("method eva", "adapter 'mine'")),
        ({"method": "prompt", "continue_from": "mine"}, ("method prompt", "adapter 'mine'")),
        ({"prompt_steps": 9, "method": "pissa"}, ("prompt_steps 9", "method pissa")),
        ({"prompt_steps": 9, "continue_from": "mine"}, ("prompt_steps 9", "run without continue_from")),
        ({"prompt_steps": 9, "shard": True}, ("prompt_steps 9", "run without shard")),
        ({"prompt_steps": 9, "prompt_tokens": 64, "max_length": 32}, ("64 prompt_tokens", "max_length of 32")),
        ({"shard": True, "method": "qlora"}, ("method qlora", "shard (FSDP)")),
        ({"shard": True, "load_in_4bit": True}, ("load_in_4bit", "shard (FSDP)")),
        ({"method": "prompt", "prompt_tokens": 64, "max_length": 32}, ("64 prompt_tokens", "max_length of 32")),
        ({"method": "prompt", "prefix_every": 4}, ("prefix_every 4", "method prompt", "set prefix_every to 0")),
        ({"skip_above": 0.2}, ("skip_above must be 0 or at least 0.5", "0.2", "may not be what the model writes")),
        ({"shard": True, "prefix_every": 4}, ("prefix_every 4", "shard (FSDP)", "set prefix_every to 0")),
    ],
)
def test_contradictions_name_both_sides(settings, both):
    with pytest.raises(PlaygroundError) as caught:
        parse(TrainConfig, settings)
    assert all(side in str(caught.value) for side in both)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_alone_is_no_contradiction(method):
    assert check(TrainConfig(method=method)).quantised == (method == "qlora")


# ---- early stopping --------------------------------------------------------------------------------------------

OVERFIT = dataclasses.replace(
    CONFIG, steps=60, eval_every=2, learning_rate=0.05, warmup_steps=0, final_lr_share=1.0, patience=3
)


def test_training_ends_when_the_held_out_loss_gets_no_better(tmp_path):
    model = methods.add_adapter(tiny(), OVERFIT)
    outcome, events = fit(model, OVERFIT, checkpoints=tmp_path)
    evals = {v["step"]: v["eval_loss"] for kind, v in events if kind == "eval" and v["step"]}
    stop = next(v for kind, v in events if kind == "early_stop")
    assert outcome.early
    assert not outcome.stopped
    assert outcome.step < 60
    best = min(evals, key=evals.get)
    assert (stop["best_step"], stop["best_loss"], outcome.best_step) == (best, evals[best], best)
    assert (outcome.restored, outcome.eval_loss) == (True, evals[best])
    assert [file.name for file in tmp_path.glob("best-*.pt")] == [f"best-{best:08d}.pt"]
    held = [batch(ROWS[:1])]
    model.eval()
    assert loop.evaluation_loss(model.get_base_model(), held, 0) == pytest.approx(evals[best], rel=1e-5)


@pytest.mark.parametrize("changes", [{"patience": 0}, {"restore_best": False}])
def test_both_can_be_switched_off(changes, tmp_path):
    config = dataclasses.replace(OVERFIT, steps=20, **changes)
    model = methods.add_adapter(tiny(), config)
    outcome, events = fit(model, config, checkpoints=tmp_path)
    last = [v["eval_loss"] for kind, v in events if kind == "eval"][-1]
    if not config.patience:
        assert (outcome.step, outcome.early, outcome.restored) == (20, False, True)
        assert outcome.eval_loss < last
    else:
        assert (outcome.early, outcome.restored, outcome.eval_loss) == (True, False, last)
        assert not list(tmp_path.glob("best-*.pt"))


def test_without_held_out_rows_there_is_nothing_to_wait_for():
    from playground.core.training.collate import Examples

    config = dataclasses.replace(OVERFIT, steps=12, patience=1)
    outcome = loop.fit(methods.add_adapter(tiny(), config), Examples(ROWS, []), config, 0, lambda *a, **k: None)
    assert (outcome.step, outcome.early, outcome.best_step) == (12, False, None)


def test_a_resumed_run_stops_early_where_the_uninterrupted_one_does(tmp_path):
    model = methods.add_adapter(tiny(), OVERFIT)
    whole, events = fit(model, OVERFIT, checkpoints=tmp_path / "whole")
    seen = []

    def killed():
        seen.append(1)
        if len(seen) > whole.step - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(methods.add_adapter(tiny(), OVERFIT), OVERFIT, should_stop=killed, checkpoints=tmp_path / "cut")
    again = methods.add_adapter(tiny(), OVERFIT)
    resumed, more = fit(again, OVERFIT, checkpoints=tmp_path / "cut")
    assert dataclasses.replace(resumed, seconds=0) == dataclasses.replace(whole, seconds=0)
    assert losses(more) == losses(events)[-len(losses(more)) :]
    for one, two in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    # over once more, killed after its end: nothing is trained, the best weights come back
    ended, none = fit(methods.add_adapter(tiny(), OVERFIT), OVERFIT, checkpoints=tmp_path / "cut")
    assert losses(none) == []
    assert (ended.early, ended.eval_loss) == (True, whole.eval_loss)
    extended = dataclasses.replace(OVERFIT, steps=80)
    longer, _ = fit(methods.add_adapter(tiny(), extended), extended, checkpoints=tmp_path / "cut")
    assert longer.step > whole.step
