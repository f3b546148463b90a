"""The fine-tune's own parts on a two-layer Llama: labels, the shared prefix, the loop, resuming, the truth check."""

import contextlib
import copy
import dataclasses
import functools
import math
import random
from pathlib import Path

import pytest

from playground.config import TrainConfig
from playground.core.training import collate
from playground.core.training.collate import IGNORE, Example, Examples, batch, example, shared_prefix
from playground.errors import PlaygroundError

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # more only wait for each other at this size

from playground.core.training import loop, loss, methods, ranks, rows, truth  # noqa: E402
from playground.core.training.best import write_whole  # noqa: E402
from playground.core.training.fused import _normed, _norms, fused  # noqa: E402
from playground.core.training.master import Master, rate  # noqa: E402
from playground.core.training.ranks import Ranks  # noqa: E402

PREFIX = tuple(range(1, 25))


def tiny(seed=0, **changes):
    """A model of its own for each caller, and the random numbers as they are once it is drawn."""
    model, state = drawn(seed, **changes)
    torch.set_rng_state(state)
    return copy.deepcopy(model)


@functools.cache
def drawn(seed, **changes):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    settings = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "attn_implementation": "eager"}
    return LlamaForCausalLM(LlamaConfig(**settings | heads | changes)).eval(), torch.get_rng_state()


def row(*rest, trained=3, prefix=PREFIX):
    """A row whose last `trained` tokens have labels."""
    ids = (*prefix, *rest)
    return example(ids, [i >= len(ids) - trained for i in range(len(ids))], 1024)


ROWS = [row(30, 31, 32, 33, 34), row(30, 40, 41, 42), row(45, 46, 47, 48, 49, 50, 51), row(52, 53, 54, 55)]
CONFIG = TrainConfig(rank=2, alpha=4.0, steps=8, batch_size=2, eval_every=4, warmup_steps=1, learning_rate=1e-2)


def learner(config=CONFIG, **changes):
    return methods.add_adapter(tiny(**changes), config)


def moved(config=CONFIG, **changes):
    """A learner whose B is not zero: as long as it is, A has no gradient."""
    model = learner(config, **changes)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    return model


def fit(model, config=CONFIG, rows=ROWS, **more):
    events = []
    examples = Examples(rows[1:], rows[:1])
    outcome = loop.fit(model, examples, config, 0, lambda kind, **values: events.append((kind, values)), **more)
    return outcome, events


def losses(events):
    return [values["loss"] for kind, values in events if kind == "step"]


# ---- rows to batches -------------------------------------------------------------------------------------------


def test_only_masked_tokens_get_labels():
    made = example([5, 6, 7, 8], [False, True, False, True], 1024)
    assert made.labels == (IGNORE, 6, IGNORE, 8)
    assert made.trained == 2


def test_a_label_on_the_first_token_trains_nothing():
    assert example([5, 6], [True, False], 1024).trained == 0


def test_long_rows_are_cut_with_their_labels():
    assert example([5, 6, 7], [False, True, True], 2) == Example((5, 6), (IGNORE, 6))


@pytest.mark.parametrize(
    "rows, length",
    [
        # the first token of what is left must have no label, so that it can predict the first label
        ([row(30, 31, 32, trained=3), row(40, 41, 42, trained=3)], 23),
        ([row(30, 31, 32, trained=2), row(40, 41, 42, trained=2)], 24),
        ([row(30, 31, 32, trained=2), row(30, 41, 42, trained=2)], 24),
        ([row(30, 31, 32, trained=1), row(30, 41, 42, trained=1)], 25),
        ([row(30), row(30)], 21),
        ([row(1, prefix=(9,)), row(1)], 0),
        ([example([7, 7], [False, False], 9), example([7, 7, 7], [False, False, True], 9)], 1),
        ([example([7, 7], [True, True], 9), example([7, 7], [True, True], 9)], 0),
    ],
)
def test_shared_prefix_stops_before_labels_and_differences(rows, length):
    assert shared_prefix(rows) == length


def test_batch_splits_off_a_long_prefix_and_keeps_a_short_one():
    split = batch(ROWS)
    assert split.prefix == PREFIX
    assert [split.prefix + r.ids for r in split.rows] == [r.ids for r in ROWS]
    assert (split.tokens, split.trained) == (sum(len(r.ids) for r in ROWS), sum(r.trained for r in ROWS))
    short = [row(30, 31, 32, prefix=(1, 2, 3)), row(40, 41, 42, prefix=(1, 2, 3))]
    assert batch(short).prefix == ()


def test_every_epoch_has_all_rows_once_in_an_order_of_its_own():
    rows = [row(*[30] * n, 31) for n in range(1, 24)]
    config = TrainConfig(batch_size=4)
    orders = [
        [len(b.prefix) + len(r.ids) for b in collate.batches_of_epoch(rows, config, e) for r in b.rows]
        for e in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == [len(r.ids) for r in rows]


def rendered(tokenizer, answers: list[str], **settings):
    """The examples of rows with these answers ("" for a row without one), each to a question of one letter."""
    from playground.core.datasets import Dataset
    from playground.core.datasets.problems import Problem
    from playground.core.messages import from_row
    from playground.core.templates import load

    asked = {"role": "user", "content": "a"}
    made = [from_row({"messages": [asked, *[{"role": "assistant", "content": text}] * bool(text)]}) for text in answers]
    # the file's second row was not understood
    numbers = [1, *range(3, len(answers) + 2)]
    data = Dataset("d", "messages", made, [Problem("d", 2, None, "no text")], numbers=numbers, bad=1)
    config = TrainConfig(**{"batch_size": 1, "max_length": 64, **settings})
    return collate.prepare(config, made, load("chatml", tokenizer), tokenizer, data)


def test_rows_that_are_cut_or_left_out_are_named(tokenizer):
    report = rendered(tokenizer, ["yes", "", "word " * 99, ""]).report
    assert (report.rows, report.kept, report.cut, report.nothing_trained, report.unreadable) == (5, 2, 1, 2, 1)
    assert (report.cut_rows, report.nothing_trained_rows, report.unreadable_rows) == ((4,), (3, 5), (2,))
    assert "1 cut to the longest length (row 4)" in report.sentence()
    assert "2 left out because nothing in them is trained (rows 3, 5)" in report.sentence()
    assert "1 left out because they cannot be rendered (row 2)" in report.sentence()


def test_of_many_rows_the_first_are_named(tokenizer):
    report = rendered(tokenizer, ["yes"] + [""] * 30).report
    assert report.nothing_trained_rows == tuple(range(3, 23))
    assert "30 left out because nothing in them is trained (rows 3, 4, 5, 6, 7 and 25 more)" in report.sentence()


def test_rows_that_are_drawn_keep_their_numbers(tokenizer):
    report = rendered(tokenizer, ["yes"] * 10 + [""] * 10, rows=8, seed=3).report
    picked = sorted(random.Random(3).sample(range(20), 8))
    assert report.nothing_trained_rows == tuple(i + 2 for i in picked if i >= 10)


def test_a_run_that_would_train_on_nothing_names_the_rows_and_what_would_help(tokenizer):
    with pytest.raises(PlaygroundError) as caught:
        rendered(tokenizer, ["yes", "no", ""], max_length=8)
    said = str(caught.value)
    assert "none of the 4 rows is left; 1 cannot be read or rendered (first: d, row 2: no text); " in said
    assert "2 have no assistant tokens within max_length 8 (rows 1, 3); the first of them has one with a max_" in said
    assert "1 have no assistant turn (row 4); give them one" in said
    needed = int(said.split("max_length of ")[1].split(";")[0])
    assert len(rendered(tokenizer, ["yes", "no", ""], max_length=needed).train) >= 1
    with pytest.raises(PlaygroundError):
        rendered(tokenizer, ["yes", "no", ""], max_length=needed - 1)


def test_split_holds_rows_out_once_and_leaves_some_to_train_on():
    rows = [row(n) for n in range(30, 60)]
    train, held = collate.split(rows, TrainConfig(eval_share=0.5, eval_rows=6))
    assert len(held) == 6
    assert sorted(r.ids for r in train + held) == sorted(r.ids for r in rows)
    assert collate.split(rows[:1], TrainConfig(eval_share=0.5)) == (rows[:1], [])
    assert (
        collate.split(rows, TrainConfig(eval_share=0.0)) == (rows, [])
        or collate.split(rows, TrainConfig(eval_share=0.0))[1] == []
    )


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_no_split_empties_the_training(share, count):
    train, held = collate.split([row(n) for n in range(30, 30 + count)], TrainConfig(eval_share=share))
    assert len(train) >= 1
    assert len(train) + len(held) == count


# ---- the loss --------------------------------------------------------------------------------------------------


def gradients(model, step):
    model.zero_grad()
    total = loss.step_loss(model.get_base_model(), step, 0)
    (total / step.trained).backward()
    return total.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_shared_prefix_gives_the_plain_loss_and_gradients():
    model = learner()
    with torch.no_grad():  # B starts at zero, and then A has no gradient
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1)
    shared, plain = batch(ROWS), batch(ROWS, share=False)
    assert shared.prefix
    assert not plain.prefix
    (one, mine), (two, theirs) = gradients(model, shared), gradients(model, plain)
    assert one == pytest.approx(two, rel=1e-5)
    assert mine.keys() == theirs.keys()
    assert len(mine) == 28
    for name, gradient in mine.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-4, atol=1e-6)


def test_a_step_in_pieces_gives_the_gradients_of_the_whole():
    model, whole = learner(), batch(ROWS)
    pieces = collate.parts(whole, 10)
    assert [[len(row.ids) for row in piece.rows] for piece in pieces] == [[4, 4], [5], [7]]
    assert [len(piece.rows) for piece in collate.parts(whole, 28)] == [4]
    assert [len(piece.rows) for piece in collate.parts(whole, 1)] == [1, 1, 1, 1]
    one, all_at_once = gradients(model, whole)
    model.zero_grad()
    two = 0.0
    for piece in pieces:
        share = loss.step_loss(model.get_base_model(), piece, 0)
        (share / whole.trained).backward()
        two += share.item()
    assert one == pytest.approx(two, rel=1e-5)
    for name, p in model.named_parameters():
        if name in all_at_once:
            torch.testing.assert_close(p.grad, all_at_once[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["lora", "prompt"])
def test_pieces_that_share_one_pass_of_the_prefix_give_the_gradients_of_the_whole(method):
    model = moved(dataclasses.replace(CONFIG, method=method))
    whole, soft, found = batch(ROWS), loss.soft_prompt, []
    for work in ([(whole, True)], [(part, True) for part in collate.parts(whole, 10)]):
        model.zero_grad()
        mean = loss.step_gradients(methods.base_of(model), work, 0, whole.trained, soft(model))
        found.append((mean, {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}))
    (one, at_once), (two, in_pieces) = found
    assert one == pytest.approx(two, rel=1e-5)
    assert all(g.abs().max() > 0 for g in at_once.values())
    for name, gradient in at_once.items():
        torch.testing.assert_close(in_pieces[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("laid", [False, True])
@pytest.mark.parametrize("room", [10, 1000])
def test_a_kept_prefix_gives_the_loss_of_the_plain_one_and_no_gradient_through_it(room, laid):
    """The reference: each row by itself behind the prefix's keys and values, which torch is told are given."""
    model, whole = moved(), batch(ROWS)
    base = methods.base_of(model)
    plain, _ = gradients(model, whole)
    model.zero_grad()
    for one in whole.rows:
        with torch.no_grad():
            cache = base(input_ids=torch.tensor([whole.prefix]), use_cache=True).past_key_values
        logits = base(input_ids=torch.tensor([one.ids]), past_key_values=cache).logits[0, :-1]
        wanted = torch.tensor(one.labels[1:])
        torch.nn.functional.cross_entropy(logits, wanted, ignore_index=IGNORE, reduction="sum").div(12).backward()
    theirs = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    work = [(piece, True) for piece in collate.parts(whole, 10)]
    with fused(model, base) if laid else contextlib.nullcontext():
        mean = loss.step_gradients(base, work, 0, whole.trained, None, room, loss.KeptPrefix(3))
    assert mean * whole.trained == pytest.approx(plain, rel=1e-5)
    for name, p in model.named_parameters():
        if p.requires_grad:
            assert p.grad.abs().max() > 0
            torch.testing.assert_close(p.grad, theirs[name], rtol=1e-4, atol=1e-6)


def test_a_kept_prefix_is_read_again_when_it_is_due_is_another_or_was_forgotten(monkeypatch):
    model, read, plain = learner().get_base_model(), [], loss.start_of
    monkeypatch.setattr(loss, "start_of", lambda *asked: read.append(asked[1].prefix) or plain(*asked))
    kept, one = loss.KeptPrefix(3), batch(ROWS)
    other = batch([row(*rest, prefix=PREFIX[:20]) for rest in ((30, 31, 32, 33), (40, 41, 42, 43))])
    counts = []
    for step in (one, one, one, one, other, one):
        first = kept.start_of(model, step, None)
        assert first.get_seq_length() == len(step.prefix)
        counts.append(len(read))
    assert counts == [1, 1, 1, 2, 3, 4]
    kept.forget()
    kept.start_of(model, one, None)
    assert read == [PREFIX, PREFIX, PREFIX[:20], PREFIX, PREFIX]


def test_a_piece_that_does_not_count_changes_nothing():
    model, whole = learner(), batch(ROWS[:2])
    base, filler = model.get_base_model(), batch(ROWS[2:])
    means = [loss.step_gradients(base, [(whole, True), *more], 0, whole.trained) for more in ([], [(filler, False)])]
    assert means[0] == pytest.approx(means[1], rel=1e-5)


def test_pieces_have_rows_of_like_length_and_are_not_cut_for_little():
    rows = [row(*range(n, n + length)) for n, length in ((1, 5), (2, 40), (3, 4), (4, 41))]
    assert [[len(r.ids) for r in p.rows] for p in collate.parts(batch(rows), 400)] == [[4, 5], [40, 41]]
    near = [row(*range(n, n + length)) for n, length in ((1, 5), (2, 8), (3, 4), (4, 7))]
    assert len(collate.parts(batch(near), 400)) == 1


@pytest.mark.parametrize("room", [0, 13, 1000])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("method", ["lora", "prompt"])
@pytest.mark.parametrize(
    "changes", [{}, {"num_key_value_heads": 4, "attention_bias": True}, {"num_key_value_heads": 1}]
)
def test_rows_laid_end_to_end_give_the_loss_and_gradients_of_padded_ones(changes, method, share, room):
    model, found = moved(dataclasses.replace(CONFIG, method=method), **changes), []
    base, whole, soft = methods.base_of(model), batch(ROWS, share), loss.soft_prompt
    model.train()
    for way in (contextlib.nullcontext(), fused(model, base)):
        model.zero_grad()
        with way:
            name = base.config._attn_implementation
            work = [(piece, True) for piece in collate.parts(whole, 10)]
            mean = loss.step_gradients(base, work, 0, whole.trained, soft(model), room)
            one = loss.step_loss(base, whole, 0, soft(model)).item() / whole.trained
        assert one == pytest.approx(mean, rel=1e-5)
        found.append((mean, name, {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}))
    (plain, _, theirs), (ours, used, mine) = found
    assert used == "playground-rows"
    assert base.config._attn_implementation == "eager"
    assert not any("forward" in vars(layer) for layer in model.modules())
    assert ours == pytest.approx(plain, rel=1e-5)
    for name, gradient in theirs.items():
        torch.testing.assert_close(mine[name], gradient, rtol=1e-4, atol=1e-6)


def by_row(model, whole):
    """The loss of each label, row by row, from the model's own logits."""
    for one in collate.unshared(whole).rows:
        wanted = torch.tensor(one.labels[1:])
        losses = torch.nn.functional.cross_entropy(
            model(input_ids=torch.tensor([one.ids])).logits[0, :-1], wanted, ignore_index=IGNORE, reduction="none"
        )
        yield losses[wanted != IGNORE]


def up_to(one, due):
    """How many of the row's tokens come before the last of its labels that is `due` (a bool for each of them)."""
    places = [i for i, label in enumerate(one.labels) if label != IGNORE]
    return max((place for place, is_due in zip(places, due, strict=True) if is_due), default=0)


@pytest.mark.parametrize("laid, scaled", [(True, False), (False, False), (False, True)])
@pytest.mark.parametrize("room", [0, 13, 1000])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("learnt", [1, 3, 4])
@pytest.mark.parametrize("even", [1, 16])
def test_labels_that_are_sure_have_no_gradient_and_what_follows_the_others_costs_none(
    monkeypatch, even, learnt, share, room, laid, scaled
):
    monkeypatch.setattr(rows, "EVEN", even)
    model, whole, sizes = moved(), batch(ROWS, share), []
    base = model.get_base_model()
    if scaled:
        base.config.logit_scale = 0.5  # asks for the model's own logits; Llama itself does not look
    losses = list(by_row(base, whole))
    most = sorted(one.max().item() for one in losses)[learnt - 1]  # so many rows have no label above it
    above = math.exp(-most - 1e-5)
    (sum(one[one > most + 1e-5].sum() for one in losses) / whole.trained).backward()
    theirs = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    multiply = torch.Tensor.addmm_
    monkeypatch.setattr(torch.Tensor, "addmm_", lambda t, *o: sizes.append(len(t)) or multiply(t, *o))
    with fused(model, base) if laid else contextlib.nullcontext():
        sizes.clear()
        work = [(piece, True) for piece in collate.parts(whole, 10)]
        mean = loss.step_gradients(base, work, 0, whole.trained, None, room, None, above)
    assert mean == pytest.approx(sum(one.sum().item() for one in losses) / whole.trained, rel=1e-5), "all labels count"
    if learnt < 4:
        assert max(g.abs().max() for g in theirs.values()) > 0
    for name, gradient in theirs.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient, rtol=1e-4, atol=1e-6)
    if laid and room == 1000:  # one pass, forward and back through two layers with seven products each
        forward, back = sizes[:14], sizes[14:]
        due = [up_to(one, lost > most + 1e-5) for one, lost in zip(whole.rows, losses, strict=True)]
        before = len(whole.prefix)
        there, again = before + sum(len(one.predicting[0]) for one in whole.rows), before * any(due) + sum(due)
        assert set(forward) == {there + -there % even}
        assert set(back) == {again + -again % even}


def test_a_pass_has_the_pieces_that_there_is_room_for():
    model, whole = learner(), batch(ROWS)
    work = [(piece, True) for piece in collate.parts(whole, 10)]
    base = model.get_base_model()
    assert len(loss._passes(base, work, 1000)) == 3, "padded rows go through one piece at a time"
    with fused(model, base):
        lengths = [
            [[len(row.ids) for row in piece.rows] for piece in pieces] for pieces, _ in loss._passes(base, work, 13)
        ]
    assert lengths == [[[4, 4], [5]], [[7]]]


def test_a_layer_that_sees_only_so_far_has_padded_rows():
    from transformers import MistralConfig, MistralForCausalLM

    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "attn_implementation": "eager"}
    whole = batch(ROWS, share=False)
    for window, name in ((3, "eager"), (4096, "playground"), (None, "playground-rows")):
        model = MistralForCausalLM(MistralConfig(**sizes, **heads, sliding_window=window)).eval()
        plain = loss.step_loss(model, whole, 0).item()
        with fused(model, model):
            assert model.config._attn_implementation in (name, "playground")
            assert loss.step_loss(model, whole, 0).item() == pytest.approx(plain, rel=1e-5)


def test_attention_that_asks_for_more_stays_the_models_own():
    model = learner(attention_dropout=0.1)
    with fused(model, model.get_base_model()):
        assert model.get_base_model().config._attn_implementation == "eager"
    dropped = learner(dataclasses.replace(CONFIG, dropout=0.1))
    with fused(dropped, dropped.get_base_model()):
        assert {type(layer).__name__ for layer in dropped.modules() if "forward" in vars(layer)} == {"LlamaRMSNorm"}


@pytest.mark.parametrize("dtype, rel", [(torch.float32, 1e-5), (torch.bfloat16, 0.01)])
def test_a_norm_gives_what_the_models_own_gives_and_another_kind_stays(dtype, rel):
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    class ShiftedRMSNorm(LlamaRMSNorm):
        def forward(self, states):
            return super().forward(states) + 1

    torch.manual_seed(0)
    theirs, trained = LlamaRMSNorm(32, 1e-3), LlamaRMSNorm(32)
    torch.nn.init.uniform_(theirs.weight, 0.5, 2.0)
    frozen = torch.nn.ModuleList([theirs, ShiftedRMSNorm(32)]).to(dtype).requires_grad_(False)
    assert _norms(torch.nn.ModuleList([*frozen, trained])) == [theirs]
    states, upstream = (torch.randn(2, 5, 32).to(dtype) for _ in range(2))
    states[0, 0] *= 1e-2  # so small that the epsilon counts
    found = []
    for norm in (theirs, functools.partial(_normed, theirs)):
        given = states.clone().requires_grad_()
        out = norm(given)
        found.append((out, *torch.autograd.grad(out, given, upstream)))
    for theirs, ours in zip(*found, strict=True):
        assert ours.dtype == theirs.dtype
        assert (ours - theirs).abs().max() <= rel * theirs.abs().max()


def test_batches_mix_rows_of_all_lengths():
    rows = [row(*[30] * n, 31) for n in range(1, 65)]
    made = collate.batches_of_epoch(rows, TrainConfig(batch_size=8), 0)
    spread = [max(len(r.ids) for r in b.rows) - min(len(r.ids) for r in b.rows) for b in made]
    assert min(spread) > 20


@pytest.mark.parametrize("count, rows", [(2, [2, 2]), (3, [2, 1, 1]), (6, [1, 1, 1, 1, 0, 0])])
def test_a_step_is_dealt_to_processes(count, rows):
    step = batch(ROWS)
    dealt = collate.shares(step, count, 1000)
    assert [sum(len(part.rows) for part in mine) for mine in dealt] == rows
    assert sorted(r.ids for mine in dealt for part in mine for r in part.rows) == sorted(r.ids for r in step.rows)
    assert all(part.prefix == step.prefix for mine in dealt for part in mine)
    # with shares of the layers, all run the model equally often; what they count adds up to the step
    work = [loop.work_of(step, 40, Ranks(rank, count, sharded=True)) for rank in range(count)]
    assert len({len(mine) for mine in work}) == 1
    assert sum(part.trained for mine in work for part, counts in mine if counts) == step.trained
    assert all(not part.prefix and part.rows for mine in work for part, _ in mine)


def test_of_a_row_the_loss_reads_what_stands_before_its_last_label():
    assert row(30, 31, 32).predicting == (row(30, 31, 32).ids[:-1], row(30, 31, 32).labels[1:])
    followed = collate.Example((5, 6, 7, 8, 9), (IGNORE, IGNORE, 7, IGNORE, IGNORE))
    assert followed.predicting == ((5, 6), (IGNORE, 7))


def test_rows_with_their_prefix_in_them_are_the_rows():
    assert collate.unshared(batch(ROWS)) == batch(ROWS, share=False)


@pytest.mark.parametrize("softcap", [0.0, 2.0])
@pytest.mark.parametrize("chunk", [2, 512])
def test_labelled_loss_is_cross_entropy(monkeypatch, softcap, chunk):
    monkeypatch.setattr(collate, "LOGIT_ROWS", chunk)
    torch.manual_seed(0)
    head, labels = torch.randn(64, 32), torch.tensor([3, 0, 63, 9, 9])
    hidden = torch.randn(5, 32, requires_grad=True)
    again = hidden.detach().clone().requires_grad_()
    mine = loss.LabelledLoss.apply(hidden, head, None, labels, softcap)
    (mine * 0.5).backward()
    logits = again @ head.T
    logits = softcap * torch.tanh(logits / softcap) if softcap else logits
    plain = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    (plain * 0.5).backward()
    torch.testing.assert_close(mine, plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(hidden.grad, again.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("softcap", [0.0, 2.0])
@pytest.mark.parametrize("chunk", [2, 512])
def test_labelled_loss_leaves_out_the_gradient_of_labels_that_are_sure(monkeypatch, softcap, chunk):
    monkeypatch.setattr(collate, "LOGIT_ROWS", chunk)
    torch.manual_seed(0)
    ours = [torch.randn(*shape, requires_grad=True) for shape in ((5, 32), (64, 32), (64,))]
    theirs = [t.detach().clone().requires_grad_() for t in ours]
    labels, due = torch.tensor([3, 0, 63, 9, 9]), torch.ones(5, dtype=torch.bool)
    logits = torch.nn.functional.linear(*theirs)
    logits = softcap * torch.tanh(logits / softcap) if softcap else logits
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    middle = losses.detach().median().item()
    mine = loss.LabelledLoss.apply(*ours, labels, softcap, math.exp(-middle - 1e-5), due)
    (mine * 0.5).backward()
    assert due.tolist() == (losses > middle).tolist()
    assert due.sum() == 2
    (losses[due].sum() * 0.5).backward()
    assert mine.item() == pytest.approx(losses.sum().item(), rel=1e-5)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("frozen", [True, False])
def test_step_loss_is_what_the_model_itself_says(frozen):
    model = tiny().requires_grad_(not frozen)
    made = batch(ROWS)
    ids, mask, labels = loss.tensors(batch(ROWS, share=False), 0, "cpu")
    own = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    assert loss.step_loss(model, made, 0).item() / made.trained == pytest.approx(own.item(), rel=1e-5)


def test_a_model_that_scales_its_logits_computes_them_itself():
    model = tiny().requires_grad_(False)  # a frozen head is what lets us compute the logits in chunks
    made = batch(ROWS)
    plain = loss.step_loss(model, made, 0).item()
    model.config.logits_scaling = 4.0  # Llama does not look at it: only our way of computing changes
    assert loss.step_loss(model, made, 0).item() == pytest.approx(plain, rel=1e-5)


def test_a_sliding_window_is_not_given_a_shared_prefix():
    model = tiny()
    assert loss.can_share(model)
    model.config.layer_types = ["sliding_attention", "full_attention"]
    assert not loss.can_share(model)


# ---- the loop --------------------------------------------------------------------------------------------------


def test_rate_warms_up_and_ends_at_the_share_asked_for():
    share = rate(TrainConfig(warmup_steps=4, final_lr_share=0.1), 20)
    shares = [share(step) for step in range(20)]
    assert shares[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert shares[-1] == pytest.approx(0.1)
    assert shares[5:] == sorted(shares[5:], reverse=True)


def test_fit_learns_and_tells():
    config = dataclasses.replace(CONFIG, steps=40, eval_every=20, learning_rate=0.02)
    model = learner(config)
    outcome, events = fit(model, config, probe=lambda: [{"prompt": "p", "text": f"training={model.training}"}])
    curve = losses(events)
    assert sum(curve[-3:]) / 3 < curve[0] - 0.3
    assert (outcome.step, outcome.steps, outcome.stopped) == (40, 40, False)
    assert [(kind, v["step"]) for kind, v in events if kind in ("eval", "sample")] == [
        (kind, step) for step in (0, 20, 40) for kind in ("eval", "sample")
    ]
    assert all(v["text"] == "training=False" for kind, v in events if kind == "sample")
    step = next(v for kind, v in events if kind == "step")
    assert {"loss", "lr", "grad_norm", "tokens_per_second", "rows_per_second", "memory", "eta"} <= step.keys()


def test_bf16_adapter_learns_below_its_own_rounding():
    config = dataclasses.replace(CONFIG, learning_rate=1e-5, warmup_steps=0)
    model = methods.add_adapter(tiny().to(torch.bfloat16), config)
    a = next(p for name, p in model.named_parameters() if "lora_A" in name)
    assert a.dtype == torch.bfloat16
    master = Master([a], config)
    for _ in range(200):
        a.grad = torch.ones_like(a)
        master.step()
    # 200 updates of 1e-5 each; on a bf16 weight of 0.1 a single one is lost in rounding
    assert master.masters[0].dtype == torch.float32
    moved = (
        a.float()
        - methods.add_adapter(tiny().to(torch.bfloat16), config)
        .state_dict()[next(name for name, p in model.named_parameters() if p is a)]
        .float()
    ).mean()
    assert moved.item() == pytest.approx(-2e-3, rel=0.1)


def test_should_stop_ends_after_the_step_and_keeps_a_checkpoint(tmp_path):
    seen = []
    outcome, events = fit(learner(), should_stop=lambda: len(seen) > 3 or seen.append(1), checkpoints=tmp_path)
    assert (outcome.step, outcome.stopped) == (3, True)
    assert events[-1] == ("checkpoint", {"step": 3})
    assert loop.newest_checkpoint(tmp_path).name == "step-00000003.pt"


@pytest.mark.parametrize("every, above", [(0, 0.0), (3, 0.0), (3, 0.016)])
def test_a_resumed_run_has_the_curve_of_an_uninterrupted_one(tmp_path, every, above):
    config = dataclasses.replace(CONFIG, dropout=0.2, prefix_every=every)
    object.__setattr__(config, "skip_above", above)  # as sure as so small a model ever is
    whole, whole_events = fit(learner(config), config)
    seen = []

    def killed():  # between two checkpoints
        seen.append(1)
        if len(seen) > 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(learner(config), config, should_stop=killed, checkpoints=tmp_path)
    model = learner(dataclasses.replace(config, seed=5))  # nothing of the fresh adapter may survive
    resumed, resumed_events = fit(model, config, checkpoints=tmp_path)
    assert losses(resumed_events) == losses(whole_events)[4:]
    assert (resumed.step, resumed.eval_loss) == (whole.step, whole.eval_loss)


def test_a_checkpoint_of_another_rank_is_refused_in_a_sentence(tmp_path):
    fit(learner(), checkpoints=tmp_path)
    other = dataclasses.replace(CONFIG, rank=4)
    with pytest.raises(PlaygroundError, match="does not fit this run"):
        fit(learner(other), other, checkpoints=tmp_path)


def test_a_loss_that_is_no_number_stops_the_run():
    model = learner()
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "lora_B" in name).fill_(math.nan)
    with pytest.raises(PlaygroundError, match="no longer a number at step 1") as caught:
        fit(model)
    assert loop.failure(caught.value, CONFIG)[0] == "nan"


@pytest.mark.parametrize(
    "error, reason",
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "memory"),
        (MemoryError(), "memory"),
        (OSError(28, "No space left on device"), "disk"),
        (RuntimeError("PytorchStreamWriter failed: No space left on device"), "disk"),
        (PlaygroundError("rank must be"), "refused"),
        (RuntimeError("[gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer"), "process"),
        (RuntimeError("shapes do not match"), None),
        (OSError(2, "No such file"), None),
    ],
)
def test_failures_have_names(error, reason):
    named = loop.failure(error, CONFIG)
    assert (named and named[0]) == reason


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_torch_on_a_full_disk_is_known_and_gives_the_room_back(tmp_path):
    (tmp_path / "step.part").symlink_to("/dev/full")
    with pytest.raises(RuntimeError) as caught:
        write_whole({"weights": torch.zeros(100_000)}, tmp_path / "step.pt")
    assert loop.failure(caught.value, CONFIG)[0] == "disk"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count, gpus, refused", [(2, 1, True), (2, 2, False), (2, 0, False)])
def test_each_process_has_a_gpu_where_there_are_any(monkeypatch, count, gpus, refused):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    said = pytest.raises(PlaygroundError, match="processes is 2, and this machine has 1 GPU, one for each process")
    with said if refused else contextlib.nullcontext():
        ranks.check_processes(count)


def test_deepspeed_is_refused_with_what_works(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(PlaygroundError, match="under DDP and FSDP, not under DeepSpeed; .* as a TRL script"):
        ranks.join()


def test_attention_targets_leave_the_mlp_alone():
    model = learner(dataclasses.replace(CONFIG, targets="attention"))
    adapted = {name.split(".lora_A")[0].split(".")[-1] for name, _ in model.named_parameters() if "lora_A" in name}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj"}


# ---- answers ---------------------------------------------------------------------------------------------------


def test_answers_in_a_batch_are_those_of_each_prompt_alone():
    from playground.core.training.answer import _greedy

    model = tiny()
    with torch.no_grad():  # sharp attention and large values, so that a wrong position or mask changes the answer
        for name, p in model.named_parameters():
            if "_proj" in name:
                p.mul_(20)
    prompts = [[*PREFIX, 30, 31], [*PREFIX, 40], [*PREFIX, 41, 42, 43, 44]]
    batched = _greedy(model, prompts, 12, set())
    for prompt, written in zip(prompts, batched, strict=True):
        out = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=None)
        assert written == out[0, len(prompt) :].tolist()
    # two rows end and leave the batch; the one that goes on is neither the first nor as long as they
    stops = {token for row in (batched[0], batched[2]) for token in row[1:4]} - set(batched[1])
    ends = [next((i + 1 for i, token in enumerate(row) if token in stops), 12) for row in batched]
    assert ends[1] == 12
    assert max(ends[0], ends[2]) < 6
    assert _greedy(model, prompts, 12, stops) == [row[:end] for row, end in zip(batched, ends, strict=True)]


# ---- the truth check -------------------------------------------------------------------------------------------


def saved(tmp_path, model):
    model.eval()
    trained = truth.log_probabilities(model, ROWS[0])
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    return trained


def test_truth_check_passes_a_trained_adapter(tmp_path):
    model = learner()
    fit(model)
    verdict = truth.check(tiny(), tmp_path, ROWS[0], saved(tmp_path, model))
    assert verdict.passed, verdict.sentence
    assert (verdict.matrices, verdict.zero) == (14, 0)
    assert verdict.difference > 100 * verdict.noise


@pytest.mark.parametrize("method", ["lora", "dora", "prompt"])
def test_truth_check_leaves_the_base_as_it_was(tmp_path, method):
    config, base = dataclasses.replace(CONFIG, method=method), tiny()
    before = {key: value.clone() for key, value in base.state_dict().items()}
    kept = truth.log_probabilities(base, ROWS[0])
    model = learner(config)
    start = methods.start_of(model)
    fit(model, config)
    model.eval()
    trained = truth.log_probabilities(model, ROWS[0])
    methods.save_adapter(model, tmp_path, "tiny")
    assert truth.check(base, tmp_path, ROWS[0], trained, start=start).difference > 0
    assert list(before) == list(base.state_dict())
    assert all(torch.equal(value, before[key]) for key, value in base.state_dict().items())
    assert torch.equal(truth.log_probabilities(base, ROWS[0]), kept)


def test_truth_check_finds_an_empty_adapter(tmp_path):
    verdict = truth.check(tiny(), tmp_path, ROWS[0], saved(tmp_path, learner()))
    assert not verdict.passed
    assert "all its B matrices are zero" in verdict.sentence


def test_truth_check_finds_an_adapter_that_changes_nothing(tmp_path):
    model = learner()
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "lora_B" in name).fill_(1e-12)
    verdict = truth.check(tiny(), tmp_path, ROWS[0], saved(tmp_path, model))
    assert not verdict.passed
    assert "does not change the model" in verdict.sentence


def test_truth_check_finds_a_file_that_is_not_what_was_trained(tmp_path):
    model = learner()
    fit(model)
    trained = saved(tmp_path, model)
    other = learner()
    fit(other, rows=[ROWS[0], *[row(60, 61, 62)] * 3])
    saved(tmp_path, other)
    verdict = truth.check(tiny(), tmp_path, ROWS[0], trained)
    assert not verdict.passed
    assert "not the trained one" in verdict.sentence
