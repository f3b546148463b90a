"""Soft prompts and trained tokens in a batch: embeddings that only one adapter's rows have.

They are given ids of their own, past the model's vocabulary. A row's ids are translated into them before they go into
the model, and the embedding layer knows what stands behind them; so padding, positions, and prefixes that are read
again need to know nothing of it. The output head gives an adapter's rows the scores of its own tokens, under the ids
that its tokenizer has for them.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from playground.core.adapter_files import Weights
from playground.errors import PlaygroundError


@dataclass
class Own:
    """One adapter's embeddings [n, width], which have the ids from `start` on; the first `soft` are a soft prompt."""

    start: int
    soft: int
    embeddings: torch.Tensor
    tokens: dict[int, int]  # the tokenizer's id → ours
    head: torch.Tensor | None
    width: int  # of the logits
    rows: list[int] = field(default_factory=list)  # of the batch


class OwnTokens:
    """Stands around a model's embedding layer and output head; does nothing while no row has tokens of its own."""

    def __init__(self, model: torch.nn.Module):
        self.model = model
        self.embedding, self.head = model.get_input_embeddings(), model.get_output_embeddings()
        self.size = self.next = self.embedding.num_embeddings
        self.known: dict[str, Own] = {}
        self.active: list[Own] = []
        self.embed, self.embedding.forward = self.embedding.forward, self._embedded
        if self.head is not None:
            self.score, self.head.forward = self.head.forward, self._scored

    def add(self, name: str, weights: Weights) -> None:
        parts = [part for part in (weights.soft, weights.embeddings) if part is not None]
        if not parts:
            return
        self._check()
        embeddings, soft = torch.cat(parts), 0 if weights.soft is None else len(weights.soft)
        ids = {token: self.next + soft + i for i, token in enumerate(weights.tokens)}
        width = max([self._width(), *(token + 1 for token in weights.tokens)])
        self.known[name] = Own(self.next, soft, embeddings, ids, weights.head, width)
        self.next += len(embeddings)

    def drop(self, name: str) -> None:
        self.known.pop(name, None)

    def use(self, rows: list[str | None]) -> None:
        """From now on row i of the batch has the tokens of adapter `rows[i]`."""
        self.active = []
        for name, own in self.known.items():
            own.rows = [i for i, row in enumerate(rows) if row == name]
            if own.rows:
                self.active.append(own)

    def prompt(self, name: str | None, ids: list[int]) -> list[int]:
        """A prompt's ids as the model is to read them: the soft prompt first, an adapter's own tokens by their ids."""
        own = self.known.get(name)
        if own is None:
            return list(ids)
        return [*range(own.start, own.start + own.soft), *(own.tokens.get(token, token) for token in ids)]

    def token(self, name: str | None, token: int) -> int:
        """A token that was chosen, as the model is to read it."""
        own = self.known.get(name)
        return token if own is None else own.tokens.get(token, token)

    def width(self, name: str | None) -> int:
        """How many of the logits are tokens of a row with this adapter."""
        own = self.known.get(name)
        return self._width() if own is None else own.width

    def _width(self) -> int:
        return getattr(self.head, "out_features", self.size)

    def _embedded(self, ids: torch.Tensor) -> torch.Tensor:
        if not self.active:
            return self.embed(ids)
        out = self.embed(ids.where(ids < self.size, 0))
        for own in self.active:
            here = ids - own.start
            ours = (here >= 0) & (here < len(own.embeddings))
            out = torch.where(ours[..., None], F.embedding(here.where(ours, 0), own.embeddings).to(out.dtype), out)
        return out

    def _scored(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = self.score(hidden)
        for own in self.active:
            if own.head is None:
                continue
            if own.width > logits.shape[-1]:
                logits = F.pad(logits, (0, own.width - logits.shape[-1]), value=-torch.inf)
            tokens = torch.tensor(list(own.tokens), device=logits.device)
            for row in own.rows:
                logits[row] = logits[row].index_copy(-1, tokens, F.linear(hidden[row], own.head).to(logits.dtype))
        return logits

    def _check(self) -> None:
        """Raise PlaygroundError for a model that looks its tokens up in a second table, which knows no ids of ours."""
        for name, part in self.model.named_modules():
            if part is not self.embedding and isinstance(part, torch.nn.Embedding) and part.num_embeddings >= self.size:
                raise PlaygroundError(
                    f"{self.model.config.model_type} looks tokens up in a second table ({name}), so soft prompts and "
                    "new tokens cannot be lanes on it; adapters without them can"
                )
