import pytest

from playground.core.batch_view import NO_ROW, batch_view
from playground.core.messages import Conversation
from playground.core.templates import Template, render
from playground.core.training.collate import IGNORE, batch, example, shared_prefix
from playground.errors import PlaygroundError

# "Q", the question, "A", then the answer and EOS, which are trained
PLAIN = Template(
    "plain",
    "{% for m in messages %}{% if m.role == 'user' %}Q{{ m.content }}{% else %}A{% generation %}{{ m.content ~ "
    "eos_token }}{% endgeneration %}{% endif %}{% endfor %}",
)


def talk(question, answer=None):
    messages = [{"role": "user", "content": question}]
    return Conversation(messages + ([{"role": "assistant", "content": answer}] if answer else []))


ROWS = [talk("7", "81"), talk("45", "6"), talk("64", "9")]
END = "<|im_end|>"  # EOS, and what pads


def view(tokenizer, rows=ROWS, max_length=64, **more):
    return batch_view(PLAIN, rows, tokenizer, max_length, **more)


def shown(tokenizer, ids):
    """Pieces, "." where there is no label; E for EOS."""
    return " ".join("." if i == IGNORE else tokenizer.pieces([i])[0].replace(END, "E").strip() for i in ids)


def matrix(tokenizer, found):
    return [(shown(tokenizer, line.ids), shown(tokenizer, line.targets)) for line in found.lines]


PADDED = ["Q 7 A 8 1 E E", "Q 4 5 A 6 E E", "Q 6 4 A 9 E E"]


@pytest.mark.parametrize(
    "more, expected",
    [
        ({}, [". . 8 1 E . .", ". . . 6 E . .", ". . . 9 E . ."]),
        ({"mask_prompt": False}, ["7 A 8 1 E . .", "4 5 A 6 E . .", "6 4 A 9 E . ."]),
    ],
)
def test_padded_and_shifted(more, expected, tokenizer):
    rows = [*ROWS, talk("1234", "4")]  # the longest: one more, so that all others are padded
    found = view(tokenizer, rows, **more)
    assert matrix(tokenizer, found)[:3] == list(zip(PADDED, expected, strict=True))
    assert found.width == len(found.lines[3].ids) == 7
    assert [line.attention for line in found.lines] == [[1, 1, 1, 1, 1, 1, 0]] * 3 + [[1] * 7]
    assert [line.rows for line in found.lines] == [[n] * 6 + [NO_ROW] for n in range(3)] + [[3] * 7]
    assert found.lines[0].positions == [0, 1, 2, 3, 4, 5, 0]
    assert found.lines[0].pieces == ["Q", "7", "A", "8", "1", END, END]
    assert (found.cells, found.tokens) == (28, 25)
    assert found.trained == sum(target != "." for _, line in matrix(tokenizer, found) for target in line.split())
    assert (found.cut, found.left_out) == ({}, {})


@pytest.mark.parametrize(
    "mask_prompt, targets", [(True, ". . 8 1 E . . . . 6 E ."), (False, "7 A 8 1 E . 4 5 A 6 E .")]
)
def test_packed(mask_prompt, targets, tokenizer):
    found = view(tokenizer, packed=True, max_length=13, mask_prompt=mask_prompt)
    assert len(found.lines) == 2
    line = found.lines[0]
    assert shown(tokenizer, line.ids) == "Q 7 A 8 1 E Q 4 5 A 6 E"
    assert shown(tokenizer, line.targets) == targets  # no row is asked for the beginning of the next
    assert line.rows == [0] * 6 + [1] * 6
    assert line.positions == [0, 1, 2, 3, 4, 5] * 2
    assert found.lines[1].rows == [2] * 6 + [NO_ROW] * 6
    assert (found.width, found.tokens, found.shared_prefix) == (12, 18, 0)


def test_a_short_row_fills_an_earlier_line(tokenizer):
    found = view(tokenizer, [talk("7", "81"), talk("7" * 9, "1"), talk("4", "6")], packed=True, max_length=13)
    assert [sorted(set(line.rows) - {NO_ROW}) for line in found.lines] == [[0, 2], [1]]


def test_what_is_cut_and_what_is_left_out(tokenizer):
    refuses = Template("picky", "{{ raise_exception('no 45') if messages[0].content == '45' }}" + PLAIN.text)
    found = batch_view(refuses, [*ROWS, talk("1"), talk("1234", "4")], tokenizer, 5)
    assert matrix(tokenizer, found) == [("Q 7 A 8 1", ". . 8 1 ."), ("Q 6 4 A 9", ". . . 9 .")]
    assert {place: shown(tokenizer, ids) for place, ids in found.cut.items()} == {0: "E", 2: "E", 4: "4 E"}
    assert found.left_out == {
        1: "the template picky, line 1, refuses this conversation: no 45",
        3: "nothing in it is trained",
        4: "nothing in it is trained",
    }
    assert [line.rows for line in found.lines] == [[0] * 5, [2] * 5]


def test_no_row_is_left(tokenizer):
    with pytest.raises(PlaygroundError, match="no row is left for the batch: nothing in it is trained"):
        view(tokenizer, [talk("1")])
    with pytest.raises(PlaygroundError, match="there are none"):
        view(tokenizer, [])


@pytest.fixture
def trainer_rows(tokenizer):
    """What the trainer makes of the rows: its own steps, one by one."""
    question, answer = "What is the capital of France? " * 3, "The capital of France is Paris."
    rows = [talk(question + "7" * n, answer) for n in (1, 2, 4)]
    done = [render(PLAIN, row, tokenizer) for row in rows]
    return rows, [example(one.ids, one.mask, 35) for one in done]


def test_the_matrix_is_the_trainers(tokenizer, trainer_rows):
    pytest.importorskip("torch")
    from playground.core.training.loss import tensors

    rows, examples = trainer_rows
    found = view(tokenizer, rows, max_length=35)
    assert list(found.cut) == [2]
    ids, mask, labels = tensors(batch(examples, share=False), found.pad_id, "cpu")
    assert [line.ids for line in found.lines] == ids.tolist()
    assert [line.attention for line in found.lines] == mask.tolist()
    assert [line.labels for line in found.lines] == labels.tolist()
    assert [line.targets[:-1] for line in found.lines] == labels[:, 1:].tolist()  # as step_loss shifts them
    assert found.trained == sum(row.trained for row in examples)


def test_the_shared_prefix_is_the_trainers(tokenizer, trainer_rows):
    rows, examples = trainer_rows
    assert view(tokenizer, rows, max_length=35).shared_prefix == shared_prefix(examples) >= 16
    assert view(tokenizer, rows, max_length=35, packed=True).shared_prefix == 0
    assert view(tokenizer).shared_prefix == 0  # too short to be worth a pass of its own
