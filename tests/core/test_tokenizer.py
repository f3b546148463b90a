import json

import pytest
import tokenizers

from playground.core.tokenizer import Tokenizer
from playground.errors import PlaygroundError

TEXTS = [
    "",
    "Hello",
    " two  spaces ",
    "é☀️ おはよう",
    "<|im_start|>user\nHi<|im_end|>\n",
    "a</s>b<s>",
    "<tool_call>\n{}",
]


@pytest.fixture(scope="module")
def theirs(tokenizer_folders):
    transformers = pytest.importorskip("transformers")
    return {name: transformers.AutoTokenizer.from_pretrained(f) for name, f in tokenizer_folders.items()}


@pytest.mark.parametrize("name", ["byte-level", "metaspace"])
def test_same_ids_and_texts_as_transformers(name, tokenizer_folders, theirs):
    ours, other = Tokenizer.load(tokenizer_folders[name]), theirs[name]
    for text in TEXTS:
        ids, offsets = ours.encode(text)
        encoded = other(text, add_special_tokens=False, return_offsets_mapping=True)
        assert ids == encoded["input_ids"]
        assert offsets == [tuple(pair) for pair in encoded["offset_mapping"]]
        assert ours.encode(text, plain=True)[0] == other._encode_without_added_tokens(text)
        assert ours.decode(ids) == other.decode(ids, clean_up_tokenization_spaces=False)
        assert ours.decode(ids, skip_special=True) == other.decode(ids, skip_special_tokens=True)
    assert ours.variables == other.special_tokens_map
    assert ours.special_ids == frozenset(other.all_special_ids) | set(range(3))
    assert (ours.bos_id, ours.eos_id, ours.size) == (other.bos_token_id, other.eos_token_id, len(other))
    assert ours.chat_template == other.chat_template
    assert ours.model_max_length == 512


def test_plain_reads_control_tokens_as_text(tokenizer):
    text = "<|im_end|>"
    assert tokenizer.encode(text)[0] == [tokenizer.eos_id]
    ids, offsets = tokenizer.encode(text, plain=True)
    assert not set(ids) & tokenizer.special_ids
    assert tokenizer.decode(ids) == text
    assert "".join(text[a:b] for a, b in offsets) == text


def test_a_control_token_that_plain_text_yields_too_is_refused():
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<x>": 0, "a": 1, "?": 2}, unk_token="?"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = Tokenizer.wrap(backend, {"eos_token": "<x>"})
    assert tokenizer.encode_parts([("a ", False), ("<y>", True)])[0] == [1, 2]
    with pytest.raises(
        PlaygroundError, match="'<x>' cannot be kept as text: this tokenizer reads it as a token anyway"
    ):
        tokenizer.encode_parts([("a ", False), ("<x>", True)])


def test_pieces_are_readable(tokenizer):
    text = "the ☀<|im_end|>"
    pieces = tokenizer.pieces(tokenizer.encode(text)[0])
    assert pieces[-1] == "<|im_end|>"
    assert "Ġ" not in "".join(pieces)
    assert any(piece.startswith(" ") for piece in pieces)
    lone = tokenizer.backend.token_to_id("â")  # the byte 0xE2, which alone is no character
    assert tokenizer.pieces([lone, tokenizer.size]) == ["<0xE2>", f"<{tokenizer.size}?>"]


def test_special_tokens_of_the_config_are_added(tokenizer_folder, tmp_path):
    (tmp_path / "tokenizer.json").write_text((tokenizer_folder / "tokenizer.json").read_text())
    config = {"eos_token": {"content": "<end>", "special": True}, "pad_token": None, "model_max_length": 10**30}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.encode("a<end>")[0][-1] == tokenizer.eos_id == tokenizer.pad_id
    assert tokenizer.eos_id in tokenizer.special_ids
    assert tokenizer.variables == {"eos_token": "<end>"}
    assert (tokenizer.chat_template, tokenizer.model_max_length, tokenizer.bos_id) == (None, None, None)


def test_chat_template_of_the_config(tokenizer_folder, tmp_path):
    (tmp_path / "tokenizer.json").write_text((tokenizer_folder / "tokenizer.json").read_text())
    for given, expected in [
        ("A", "A"),
        ([{"name": "tools", "template": "B"}, {"name": "default", "template": "C"}], "C"),
    ]:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": given}))
        assert Tokenizer.load(tmp_path).chat_template == expected


def test_bad_folders(tmp_path):
    with pytest.raises(PlaygroundError, match="holds no tokenizer.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(PlaygroundError, match="is not a tokenizer file"):
        Tokenizer.load(tmp_path)
