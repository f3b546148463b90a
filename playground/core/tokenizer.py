"""A model folder's tokenizer through the `tokenizers` library: the ids transformers gives, without importing it."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import tokenizers

from playground.errors import PlaygroundError

_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
HALF_A_PAIR = "the text holds half of a surrogate pair, which no tokenizer reads"
_NO_LIMIT = 10**12  # configs write "no limit" as a huge number


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """`backend` with the special tokens and the chat template of its folder.

    `variables` are the named special tokens that a chat template sees (`bos_token`, `eos_token`, …).
    """

    backend: tokenizers.Tokenizer
    variables: dict[str, str]
    chat_template: str | None = None
    model_max_length: int | None = None
    control_tokens: tuple[str, ...] | None = None  # the config's `chat_control_tokens`

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """The tokenizer of a model folder: tokenizer.json, tokenizer_config.json, chat_template.jinja."""
        folder = Path(folder)
        file = folder / "tokenizer.json"
        if not file.is_file():
            raise PlaygroundError(f"{folder} holds no tokenizer.json")
        try:
            backend = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # noqa: BLE001 (the library raises a bare Exception)
            raise PlaygroundError(f"{file} is not a tokenizer file: {error}") from None
        config = _read_json(folder / "tokenizer_config.json")
        old_map = _read_json(folder / "special_tokens_map.json")
        variables = {
            name: _content(config.get(name, old_map.get(name)))
            for name in _NAMED
            if config.get(name, old_map.get(name)) is not None
        }
        return cls.wrap(
            backend,
            variables,
            chat_template=_chat_template(folder, config),
            model_max_length=config.get("model_max_length"),
            control_tokens=config.get("chat_control_tokens"),
        )

    @classmethod
    def wrap(cls, backend, variables, chat_template=None, model_max_length=None, control_tokens=None) -> "Tokenizer":
        """A tokenizer around `backend`; special tokens it does not know yet are added, as transformers does."""
        known = {token.content for token in backend.get_added_tokens_decoder().values()}
        missing = [token for token in dict.fromkeys(variables.values()) if token not in known]
        backend.add_special_tokens(missing)
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = False
        if not isinstance(model_max_length, int) or model_max_length > _NO_LIMIT:
            model_max_length = None
        return cls(backend, variables, chat_template, model_max_length, control_tokens and tuple(control_tokens))

    def encode(self, text: str, plain: bool = False) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and character offsets; no special tokens are added. `plain` reads control tokens in `text` as text."""
        try:
            encoding = (self._plain if plain else self.backend).encode(text, add_special_tokens=False)
        except TypeError:  # the library's word for a string that is no UTF-8
            raise PlaygroundError(HALF_A_PAIR) from None
        return encoding.ids, encoding.offsets

    def encode_parts(self, parts: list[tuple[str, bool]]) -> tuple[list[int], list[tuple[int, int]]]:
        """`(text, plain)` parts encoded one by one and joined, as transformers' sanitize_control_tokens does.

        Later parts are encoded after a newline that is then taken away, so that no tokenizer adds the space it adds
        at the start of a text. Raises PlaygroundError where a plain part yields a control token all the same.
        """
        newline = self.encode("\n")[0]
        ids, offsets, start = [], [], 0
        for number, (text, plain) in enumerate(parts):
            if text:
                part, where = self.encode("\n" + text, plain) if number else self.encode(text, plain)
                if number and part[: len(newline)] == newline:
                    part, where, shift = part[len(newline) :], where[len(newline) :], start - 1
                else:
                    (part, where), shift = self.encode(text, plain), start
                if plain and self.backend.token_to_id(text) in part:
                    raise PlaygroundError(f"{text!r} cannot be kept as text: this tokenizer reads it as a token anyway")
                ids += part
                offsets += [(max(start, a + shift), b + shift) for a, b in where]
            start += len(text)
        return ids, offsets

    def decode(self, ids: list[int], skip_special: bool = False) -> str:
        return self.backend.decode(list(ids), skip_special_tokens=skip_special)

    def pieces(self, ids: list[int]) -> list[str]:
        """Each token's own text; bytes that are no whole character are written like <0xE2>."""
        return [self._piece(i) for i in ids]

    @cached_property
    def special_ids(self) -> frozenset[int]:
        return frozenset(i for i, token in self._added.items() if token.special)

    @cached_property
    def special_tokens(self) -> tuple[str, ...]:
        """The texts of the special tokens."""
        return tuple(token.content for token in self._added.values() if token.special)

    @cached_property
    def added_tokens(self) -> tuple[str, ...]:
        """The texts of all added tokens, special or not."""
        return tuple(token.content for token in self._added.values())

    @property
    def eos_id(self) -> int | None:
        return self._id("eos_token")

    @property
    def bos_id(self) -> int | None:
        return self._id("bos_token")

    @property
    def pad_id(self) -> int | None:
        """The padding id; the end-of-text id where the tokenizer names none."""
        return self._id("pad_token") if "pad_token" in self.variables else self.eos_id

    @property
    def size(self) -> int:
        """Number of ids, added tokens included."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    def _id(self, name: str) -> int | None:
        return self.backend.token_to_id(self.variables[name]) if name in self.variables else None

    @cached_property
    def _added(self) -> dict:
        return self.backend.get_added_tokens_decoder()

    @cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        """The same pipeline without added tokens: nothing in a text can become a control token."""
        state = json.loads(self.backend.to_str())
        return tokenizers.Tokenizer.from_str(json.dumps({**state, "added_tokens": []}))

    @cached_property
    def _byte_level(self) -> bool:
        return '"ByteLevel"' in json.dumps(json.loads(self.backend.to_str()).get("decoder"))

    def _piece(self, i: int) -> str:
        token = self.backend.id_to_token(i)
        if token is None:
            return f"<{i}?>"
        if i in self._added:
            return token
        if self._byte_level and all(c in _BYTES for c in token):
            return _text(bytes(_BYTES[c] for c in token))
        return token.replace("\u2581", " ")


def _read_json(file: Path) -> dict:
    if not file.is_file():
        return {}
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PlaygroundError(f"{file} is not valid JSON: {error}") from None
    return value if isinstance(value, dict) else {}


def _content(token) -> str:
    return token["content"] if isinstance(token, dict) else str(token)


def _chat_template(folder: Path, config: dict) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):  # several, by name
        named = {t["name"]: t["template"] for t in template if isinstance(t, dict) and "template" in t}
        return named.get("default")
    return template


def _byte_characters() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes (openai/gpt-2, encoder.py)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}


_BYTES = _byte_characters()
_LONE_BYTES = {0xDC00 + b: f"<0x{b:02X}>" for b in range(0x80, 0x100)}


def _text(data: bytes) -> str:
    text = data.decode("utf-8", errors="surrogateescape")
    return text if text.isascii() else text.translate(_LONE_BYTES)
