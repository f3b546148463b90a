"""Decoding: a batch whose rows come and go, each with its own adapter, prompt length and sampling.

    batch = Batch(model, AdapterBank(model))
    batch.add([Row(prompt_ids, adapter=None, sampler=Sampler(SamplingConfig()))])
    while batch.rows:
        tokens = batch.step()          # one new token for every row
        batch.keep([i for i, token in enumerate(tokens) if token not in stop_ids])

Rows are padded on the left and masked, so a row's tokens do not depend on its neighbours (exactly in fp32; in
bf16 the shape of a matrix product changes its rounding, so a long reply may part ways).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from transformers.cache_utils import Cache, DynamicLayer

from playground.config import SamplingConfig
from playground.core.adapters import AdapterBank
from playground.core.past import past
from playground.core.prefixes import Prefix, Prefixes
from playground.errors import PlaygroundError

# So many of the likeliest are looked at first: nearly always enough to hold top_p. Where even the second is not, all
# tokens are sorted, which takes thirty times as long.
CANDIDATES = (512, 4096)
LOOKED_AT = 8  # logits, for whether they are numbers


class Sampler:
    """Chooses a row's next token from its logits; holds the row's own random stream.

    Order of the filters as in transformers: repetition penalty (Keskar et al. 2019, arXiv:1909.05858),
    temperature, top-k, top-p (Holtzman et al. 2020, arXiv:1904.09751), min-p (Nguyen et al. 2024, arXiv:2407.01082).
    """

    def __init__(self, config: SamplingConfig, prompt_ids: Sequence[int] = ()):
        self.config = config
        self.generator = torch.Generator().manual_seed(config.seed)
        self.seen = set(prompt_ids)

    def __call__(self, logits: torch.Tensor) -> int:
        """`logits` [vocabulary], any float dtype, on the CPU → token id."""
        config = self.config
        logits = logits.float()
        if config.repetition_penalty != 1.0 and self.seen:
            seen = torch.tensor(sorted(self.seen))
            values = logits[seen]
            penalised = torch.where(values > 0, values / config.repetition_penalty, values * config.repetition_penalty)
            logits = logits.index_copy(0, seen, penalised)
        token = int(logits.argmax()) if config.temperature == 0 else self._draw(logits / config.temperature)
        self.seen.add(token)
        return token

    def _draw(self, logits: torch.Tensor) -> int:
        config = self.config
        keep = min(config.top_k or len(logits), len(logits))
        if keep == len(logits) and config.top_p == 1.0 and not config.min_p:
            return int(torch.multinomial(logits.softmax(0), 1, generator=self.generator))
        total = torch.logsumexp(logits if keep == len(logits) else logits.topk(keep).values, 0)
        for count in (*(count for count in CANDIDATES if count < keep), keep):
            values, ids = logits.topk(count)
            probabilities = (values - total).exp()
            covers_top_p = config.top_p < 1.0 and float(probabilities.sum()) >= config.top_p
            covers_min_p = config.min_p > 0.0 and probabilities[-1] < config.min_p * probabilities[0]
            if covers_top_p or covers_min_p:
                break
        if config.top_p < 1.0:
            # a token stays while the mass before it is below top_p, so that the likeliest always stays
            probabilities = probabilities * (probabilities.cumsum(0) - probabilities < config.top_p)
        if config.min_p > 0.0:
            probabilities = probabilities * (probabilities >= config.min_p * probabilities[0])
        return int(ids[torch.multinomial(probabilities, 1, generator=self.generator)])


@dataclass(frozen=True)
class Choice:
    """A token that was chosen, how likely the model held it, and the likeliest tokens there, before any sampling."""

    token: int
    probability: float
    likeliest: tuple[tuple[int, float], ...]


def choice(logits: torch.Tensor, token: int, count: int) -> Choice:
    """`logits` [vocabulary]: the model's own, at temperature 1."""
    probabilities = logits.float().softmax(0)
    top = probabilities.topk(min(count, len(probabilities)))
    likeliest = tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True))
    return Choice(token, float(probabilities[token]), likeliest)


class Guide(Protocol):
    """Says which tokens a row may go on with (see playground.core.constrained)."""

    def allowed(self): ...  # a numpy array of bools, one for each token

    def accept(self, token: int) -> None: ...


@dataclass
class Row:
    """One sequence in the batch: its prompt, adapter (None: the bare model), sampler and guide (None: any token)."""

    prompt_ids: list[int]
    adapter: str | None
    sampler: Sampler
    tag: object = None
    guide: Guide | None = None
    # what the cache holds of it: the prompt and what was fed since, in the ids of core.own_tokens
    fed: list[int] = field(default_factory=list)
    reused: int = 0  # of them, those of the prompt that had been read before
    alternatives: int = 0  # so many of the likeliest tokens are noted with each choice
    choices: list[Choice] = field(default_factory=list)
    finite: bool = True  # whether the newest logits were numbers; the token of others says nothing

    def choose(self, logits: torch.Tensor) -> int:
        """The next token, from the logits [vocabulary] on the CPU."""
        # a hidden state that is no number makes all logits none; to look at each would take as long as the sampling
        self.finite = bool(logits[:LOOKED_AT].isfinite().any())
        if not self.finite:
            return 0
        token = self._choose(logits)
        if self.alternatives:
            self.choices.append(choice(logits, token, self.alternatives))
        return token

    def _choose(self, logits: torch.Tensor) -> int:
        if self.guide is None:
            return self.sampler(logits)
        allowed = torch.from_numpy(self.guide.allowed()[: len(logits)])
        # a head may be wider than the tokenizer: what no token stands behind is not sampled
        token = self.sampler(logits[: len(allowed)].masked_fill(~allowed, -torch.inf))
        self.guide.accept(token)
        return token


class RoomyLayer(DynamicLayer):
    """A layer of the key/value cache that grows into spare room instead of being copied at every token.

    `keys` and `values` are views [rows, heads, length, head size] of buffers with room for more positions.
    """

    ROOM = 128

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.key_room = self.value_room = None
        length = self.get_seq_length()
        end = length + key_states.shape[-2]
        if self.key_room is None or end > self.key_room.shape[-2]:
            self.key_room = self._roomier(key_states, end)
            self.value_room = self._roomier(value_states, end)
            if length:
                self.key_room[:, :, :length] = self.keys
                self.value_room[:, :, :length] = self.values
        self.key_room[:, :, length:end] = key_states
        self.value_room[:, :, length:end] = value_states
        self.keys = self.key_room[:, :, :end]
        self.values = self.value_room[:, :, :end]
        return self.keys, self.values

    def replace(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Take new contents; the next `update` makes room again."""
        self.keys, self.values = keys, values
        self.key_room = self.value_room = None

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self.replace(self.keys, self.values)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        super().batch_select_indices(indices)
        self.replace(self.keys, self.values)

    def _roomier(self, states: torch.Tensor, length: int) -> torch.Tensor:
        return states.new_empty(*states.shape[:2], length + self.ROOM, states.shape[-1])


@dataclass
class Batch:
    """Rows decoded together on one model. Owned by one thread.

    `mask` [rows, length] marks the real positions of the cache (rows are padded on the left), `tokens` [rows] is the
    newest token of each row, chosen but not yet fed to the model.
    """

    model: torch.nn.Module
    bank: AdapterBank
    prefixes: Prefixes | None = None
    rows: list[Row] = field(default_factory=list)
    cache: Cache | None = None
    mask: torch.Tensor | None = None
    tokens: torch.Tensor | None = None

    @torch.inference_mode()
    def add(self, rows: list[Row]) -> list[int]:
        """Read the prompts of `rows`, let them join the batch and return the first token of each."""
        for row in rows:
            row.fed = self.bank.own.prompt(row.adapter, row.prompt_ids)
        known = [self.prefixes.find(r.adapter, r.fed) if self.prefixes else (None, 0) for r in rows]
        groups = [[i for i, (_, length) in enumerate(known) if bool(length) is begun] for begun in (False, True)]
        first: dict[int, int] = {}
        for group in filter(None, groups):
            tokens = self._read([rows[i] for i in group], [known[i] for i in group])
            first |= dict(zip(group, tokens.tolist(), strict=True))
        order = [i for group in groups for i in group]
        self._arrange(len(self.rows) - len(rows), [order.index(i) for i in range(len(rows))])
        return [first[i] for i in range(len(rows))]

    def _read(self, rows: list[Row], known: list[tuple[Prefix | None, int]]) -> torch.Tensor:
        """Read the prompts but for what is `known` of them; rows are padded on the left, never in their middle."""
        device = self.model.device
        # Every row reads as many tokens as the one with the most to read, so that all begin at the same place.
        length = max(len(row.fed) - usable for row, (_, usable) in zip(rows, known, strict=True))
        begun = [max(0, len(row.fed) - length) for row in rows]
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        mask = torch.zeros(len(rows), max(begun) + length, dtype=torch.long)
        for i, (row, start) in enumerate(zip(rows, begun, strict=True)):
            rest = row.fed[start:]
            ids[i, length - len(rest) :] = torch.tensor(rest)
            mask[i, mask.shape[1] - len(row.fed) :] = 1
            row.reused = start
        cache = Cache(layer_class_to_replicate=RoomyLayer)
        if max(begun):
            self._begin(cache, [prefix for prefix, _ in known], begun)
        self.bank.use([row.adapter for row in rows])
        mask = mask.to(device)
        tokens = self._forward(ids.to(device), mask, cache, rows)
        self._merge(cache, mask, tokens)
        self.rows = self.rows + rows
        return tokens

    def _begin(self, cache: Cache, prefixes: list[Prefix], begun: list[int]) -> None:
        """Fill an empty cache with what is known of each row, padded on the left to the longest."""
        length = max(begun)
        for layer in range(len(prefixes[0].layers)):
            keys, values = (
                torch.stack(
                    [
                        _pad_left(p.layers[layer][part][:, :start], length, 1)
                        for p, start in zip(prefixes, begun, strict=True)
                    ]
                )
                for part in (0, 1)
            )
            cache.update(keys, values, layer)

    def _arrange(self, start: int, order: list[int]) -> None:
        """Put the rows from `start` on in this order."""
        if order == sorted(order):
            return
        places = [*range(start), *(start + i for i in order)]
        index = torch.tensor(places, device=self.mask.device)
        self.rows = [self.rows[i] for i in places]
        self.mask, self.tokens = self.mask[index], self.tokens[torch.tensor(places)]
        for layer in self.cache.layers:
            layer.replace(layer.keys[index], layer.values[index])

    @torch.inference_mode()
    def step(self) -> list[int]:
        """Feed every row its newest token and return the next one of each."""
        self.bank.use([row.adapter for row in self.rows])
        for row, token in zip(self.rows, self.tokens.tolist(), strict=True):
            row.fed.append(self.bank.own.token(row.adapter, token))
        newest = torch.tensor([row.fed[-1:] for row in self.rows], device=self.mask.device)
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.rows), 1)], dim=1)
        self.tokens = self._forward(newest, self.mask, self.cache, self.rows)
        return self.tokens.tolist()

    @torch.inference_mode()
    def keep(self, indices: list[int]) -> None:
        """Keep only these rows, and only the positions that one of them still needs."""
        if len(indices) == len(self.rows):
            return
        if self.prefixes is not None:
            for i in set(range(len(self.rows))) - set(indices):
                self.prefixes.add(self._prefix(i))
        if not indices:
            self.rows, self.cache, self.mask, self.tokens = [], None, None, None
            return
        index = torch.tensor(indices, device=self.mask.device)
        self.rows = [self.rows[i] for i in indices]
        self.tokens = self.tokens[torch.tensor(indices)]
        mask = self.mask[index]
        start = int(mask.any(dim=0).int().argmax())  # positions left of every kept row's first token
        self.mask = mask[:, start:]
        for layer in self.cache.layers:
            layer.replace(layer.keys[index, :, start:], layer.values[index, :, start:])

    def _prefix(self, i: int) -> Prefix:
        """All that the cache holds of row `i`, as a copy of its own: in one block, which leaves no holes behind."""
        row = self.rows[i]
        start = self.mask.shape[1] - len(row.fed)
        parts = [states[i, :, start:] for layer in self.cache.layers for states in (layer.keys, layer.values)]
        block = parts[0].new_empty(sum(part.numel() for part in parts))
        copies = [
            copy.view(part.shape).copy_(part)
            for copy, part in zip(block.split([part.numel() for part in parts]), parts, strict=True)
        ]
        return Prefix(row.adapter, row.fed, list(zip(copies[::2], copies[1::2], strict=True)))

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, cache: Cache, rows: list[Row]) -> torch.Tensor:
        """The next token of each row, [rows]; `ids` are the new positions, `mask` covers old and new ones."""
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        logits = self.model(
            input_ids=ids,
            # with nothing padded the mask says nothing, and leaving it out takes the shorter way through attention
            attention_mask=mask if bool((mask == 0).any()) else None,
            position_ids=positions,
            **past(self.model, cache),
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        logits = logits.cpu()
        width = self.bank.own.width
        return torch.tensor([row.choose(own[: width(row.adapter)]) for row, own in zip(rows, logits, strict=True)])

    def _merge(self, cache: Cache, mask: torch.Tensor, tokens: torch.Tensor) -> None:
        if self.cache is None:
            self.cache, self.mask, self.tokens = cache, mask, tokens
            return
        length = max(mask.shape[1], self.mask.shape[1])
        self.mask = torch.cat([_pad_left(self.mask, length, 1), _pad_left(mask, length, 1)])
        self.tokens = torch.cat([self.tokens, tokens])
        for old, new in zip(self.cache.layers, cache.layers, strict=True):
            old.replace(
                torch.cat([_pad_left(old.keys, length, 2), _pad_left(new.keys, length, 2)]),
                torch.cat([_pad_left(old.values, length, 2), _pad_left(new.values, length, 2)]),
            )


@torch.inference_mode()
def row_loss(bank: AdapterBank, adapter: str | None, ids: Sequence[int], labels: Sequence[int]) -> float:
    """Mean cross-entropy of one row over its labels (negative: none), as in training; the batch may go on after it."""
    bank.use([adapter])
    fed = bank.own.prompt(adapter, list(ids))
    places = [i for i, label in enumerate(labels) if i and label >= 0]
    before = len(fed) - len(ids) - 1
    logits = bank.model(
        input_ids=torch.tensor([fed], device=bank.model.device),
        use_cache=False,
        logits_to_keep=torch.tensor([before + place for place in places], device=bank.model.device),
    ).logits[0, :, : bank.own.width(adapter)]
    wanted = torch.tensor([labels[place] for place in places], device=logits.device)
    return torch.nn.functional.cross_entropy(logits.float(), wanted).item()


def _pad_left(tensor: torch.Tensor, length: int, dim: int) -> torch.Tensor:
    missing = length - tensor.shape[dim]
    if missing == 0:
        return tensor
    shape = list(tensor.shape)
    shape[dim] = missing
    return torch.cat([tensor.new_zeros(shape), tensor], dim=dim)


def check_decodable(model: torch.nn.Module) -> None:
    """Raise PlaygroundError for a model whose memory is not a key/value cache (Mamba, linear attention)."""
    kinds = set(getattr(model.config.get_text_config(decoder=True), "layer_types", None) or ["full_attention"])
    other = kinds - {"full_attention", "sliding_attention", "chunked_attention"}
    if other or getattr(model, "_is_stateful", False):
        raise PlaygroundError(
            f"{model.config.model_type} keeps a recurrent state ({', '.join(sorted(other)) or 'stateful'}); "
            "lanes take transformers with a key/value cache, such as Llama, Qwen, Gemma, Phi, Falcon"
        )


def roomy_cache(model: torch.nn.Module) -> Cache | None:
    """An empty cache with spare room; None for a model that keeps another kind of state and makes it itself."""
    try:
        check_decodable(model)
    except PlaygroundError:
        return None
    return Cache(layer_class_to_replicate=RoomyLayer)


class StopWatcher:
    """Cuts a growing text at the first stop string, and holds back a tail that may become one."""

    def __init__(self, stops: Sequence[str]):
        self.stops = [stop for stop in stops if stop]
        self.held = ""
        self.stopped = False

    def feed(self, piece: str) -> str:
        """The part of the text that can be shown now."""
        if self.stopped:
            return ""
        text = self.held + piece
        found = [at for at in (text.find(stop) for stop in self.stops) if at >= 0]
        if found:
            self.stopped, self.held = True, ""
            return text[: min(found)]
        hold = max((_overlap(text, stop) for stop in self.stops), default=0)
        self.held = text[len(text) - hold :]
        return text[: len(text) - hold]

    def flush(self) -> str:
        """What was held back, once no more text comes."""
        held, self.held = self.held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
