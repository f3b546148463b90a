"""A step's rows laid end to end: one sequence without padding, in which each row attends to itself and the prefix.

Everything but attention treats tokens one by one, so nothing else has to know of rows. Attention gathers each piece's
rows from the sequence, works on them as usual, and lays its outputs end to end again (as ModernBERT's unpadding does,
Warner et al. 2024, arXiv:2412.13663, without its kernels). The prefix that all rows begin with stands there once: at
the start of the sequence, or before it as keys and values; each row is given them, and their gradients are added up.
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch

LAID = "rows"  # the keyword with which a model hands the layout to its attention
# Sizes are filled up to multiples of these. A product of a size that was not there before takes half a millisecond to a
# whole one more than the next (oneDNN makes a kernel for it), and without this nearly all sizes of a step would be new.
EVEN, EVEN_ROW = 16, 8
# The layout of what runs through the model, for layers that are handed nothing but states.
CURRENT: ContextVar["Layout | None"] = ContextVar("layout", default=None)


@dataclass
class Piece:
    """Rows of like length: `token` [rows, longest] says where in the sequence each place's token is.

    Places past a row's end have its last token; no token of the row sees them, and what they give is left out. So many
    there are that products have sizes that come again (EVEN_ROW).
    """

    token: torch.Tensor
    real: torch.Tensor  # [rows, longest] of bools
    before: int  # tokens of the prefix, which the keys begin with
    shift: int  # from a place in the sequence to that among the keys
    start: int  # of its tokens in the sequence
    stop: int
    taught: torch.Tensor | None = None  # which of its rows have a gradient; None: all
    indices: dict = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        return tuple(self.token.shape)

    def mask(self, dtype: torch.dtype) -> torch.Tensor:
        """Additive [longest, before + longest]: a token sees the prefix, those before it in its row, and itself."""
        if dtype not in self.indices:
            longest = self.shape[1]
            hidden = torch.full((longest, self.before + longest), torch.finfo(dtype).min, dtype=dtype)
            self.indices[dtype] = hidden.triu(self.before + 1).to(self.token.device)
        return self.indices[dtype]

    def queries(self, heads: int, groups: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Between a sequence [tokens * heads] and places [rows, groups, heads of a group, longest], both flat.

        The first says of each place which one it is, the second of each of the piece's own where it is.
        """
        if ("q", heads) not in self.indices:
            (rows, longest), each = self.shape, heads // groups
            head = torch.arange(heads, device=self.token.device).view(1, groups, each, 1)
            to_places = (self.token.view(rows, 1, 1, longest) * heads + head).flatten()
            place = torch.arange(rows * heads * longest, device=self.token.device).view(rows, heads, longest)
            back = place.transpose(1, 2)[self.real].flatten()
            self.indices["q", heads] = to_places, back
        return self.indices["q", heads]

    def keys(self, groups: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The same for keys and values: places are [rows, groups, before + longest], and the prefix is first of all."""
        if ("k", groups) not in self.indices:
            (rows, longest), device = self.shape, self.token.device
            prefix = torch.arange(self.before, device=device).expand(rows, -1)
            tokens = torch.cat([prefix, self.token + self.shift], 1)
            group = torch.arange(groups, device=device).view(1, groups, 1)
            to_places = (tokens.view(rows, 1, -1) * groups + group).flatten()
            length = self.before + longest
            place = torch.arange(rows * groups * length, device=device).view(rows, groups, length)
            back = place[:, :, self.before :].transpose(1, 2)[self.real].flatten()
            self.indices["k", groups] = to_places, back
        return self.indices["k", groups]


class Layout:
    """Where the rows of each piece stand in the sequence, behind `before` tokens that all of them begin with.

    `whole`: those are the sequence's first, and a piece of their own; else their keys and values are there already.
    `spare` tokens after the rows, which nothing sees, make the sequence as long as others (EVEN).
    """

    def __init__(self, pieces: Sequence[Sequence[int]], before: int, device, whole: bool = False):
        """`pieces`: the lengths of each one's rows."""
        self.before, self.whole, self.pieces, self.tokens = before, whole and before > 0, [], 0
        self.taught: torch.Tensor | None = None  # which tokens have a gradient; None: all
        self.shift = 0 if whole else before
        positions = [self._add([before], 0, device)] if self.whole else []
        positions += [self._add(lengths, before, device) for lengths in pieces]
        self.spare = -self.tokens % EVEN
        self.tokens += self.spare
        self.positions = torch.cat([*positions, positions[-1].new_zeros(self.spare)])[None]  # [1, tokens]

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Within it, what runs through the model is laid out so."""
        token = CURRENT.set(self)
        try:
            yield
        finally:
            CURRENT.reset(token)

    def teach(self, tokens: torch.Tensor) -> None:
        """Only these tokens (places in the sequence) and those before them in their rows have a gradient.

        The gradients of all others must be zero; they are not worked out.
        """
        hit = torch.zeros(self.tokens, dtype=torch.bool, device=tokens.device)
        hit[tokens] = True
        if self.whole and len(tokens):
            hit[self.before - 1] = True  # every row sees all of the prefix
        for piece in self.pieces:
            # from the row's end: whether there is such a token at this place or after it
            due = (hit[piece.token] & piece.real).flip(1).cumsum(1).flip(1) > 0
            piece.taught = due.any(1).nonzero()[:, 0]
            hit[piece.token[due]] = True
        missing = -int(hit.sum()) % EVEN
        hit[(~hit).nonzero()[:missing, 0]] = True  # these have a gradient of zero
        self.taught = hit.nonzero()[:, 0]

    def _add(self, lengths: Sequence[int], before: int, device) -> torch.Tensor:
        """One more piece; the positions of its tokens."""
        lengths = torch.tensor(lengths, device=device)
        starts = self.tokens + lengths.cumsum(0) - lengths
        longest = int(lengths.max())
        place = torch.arange(longest + -longest % EVEN_ROW, device=device)
        real = place < lengths[:, None]
        token = starts[:, None] + torch.minimum(place, lengths[:, None] - 1)
        stop = self.tokens + int(lengths.sum())
        self.pieces.append(Piece(token, real, before, self.shift, self.tokens, stop))
        self.tokens = stop
        return (before + place).expand(len(lengths), -1)[real]


def attend(query, key, value, layout: Layout, scaling: float) -> torch.Tensor:
    """query [1, heads, tokens, d], key and value [1, groups, shift + tokens, d] → [1, tokens, heads, d]."""
    return _Rows.apply(query, key, value, layout, scaling)


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, layout, scaling):
        (_, heads, tokens, d), groups = query.shape, key.shape[1]
        query, key, value = (_flat(t) for t in (query, key, value))
        query = query * scaling
        kept, outs = [], []
        for piece in layout.pieces:
            (rows, longest), length = piece.shape, piece.before + piece.shape[1]
            places, back = piece.queries(heads, groups)
            seen, _ = piece.keys(groups)
            stacked = query.index_select(0, places).view(rows * groups, heads // groups * longest, d)
            keys, values = (t.index_select(0, seen).view(rows * groups, length, d) for t in (key, value))
            scores = torch.bmm(stacked, keys.transpose(1, 2))
            scores.view(rows * heads, longest, length).add_(piece.mask(scores.dtype))
            weights = torch.softmax(scores, -1)  # in fp32 inside
            outs.append(torch.bmm(weights, values).view(-1, d).index_select(0, back))
            kept += [stacked, keys, values, weights]
        ctx.save_for_backward(*kept)
        ctx.layout, ctx.sizes = layout, (heads, groups, tokens, d, scaling)
        return torch.cat([*outs, query.new_zeros(layout.spare * heads, d)]).view(1, tokens, heads, d)

    @staticmethod
    def backward(ctx, upstream):
        layout, (heads, groups, tokens, d, scaling) = ctx.layout, ctx.sizes
        upstream = upstream.reshape(-1, d)
        of_query, of_new, of_prefix = [], ([], []), [0, 0]
        for i, piece in enumerate(layout.pieces):
            stacked, keys, values, weights = ctx.saved_tensors[4 * i : 4 * i + 4]
            rows = len(piece.token)
            places, back = piece.queries(heads, groups)
            _, own = piece.keys(groups)
            mine = upstream[piece.start * heads : piece.stop * heads]
            up = upstream.new_zeros(len(places), d).index_copy_(0, back, mine).view_as(stacked)
            due = piece.taught
            if due is not None:
                by_row = (t.unflatten(0, (rows, groups)) for t in (up, stacked, keys, values, weights))
                up, stacked, keys, values, weights = (t.index_select(0, due).flatten(0, 1) for t in by_row)
            of_weights = torch.bmm(up, values.transpose(1, 2))
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            turned = of_scores.transpose(1, 2), weights.transpose(1, 2)
            grids = [torch.bmm(of_scores, keys), torch.bmm(turned[0], stacked), torch.bmm(turned[1], up)]
            if due is not None:
                by_row = (grid.unflatten(0, (len(due), groups)) for grid in grids)
                grids = [grid.new_zeros(rows, *grid.shape[1:]).index_copy_(0, due, grid) for grid in by_row]
            of_query.append(grids[0].view(-1, d).index_select(0, back))
            for half, grid in enumerate(grids[1:]):
                of_new[half].append(grid.view(-1, d).index_select(0, own))
                if piece.before:
                    of_prefix[half] = grid.view(rows, groups, -1, d)[:, :, : piece.before].sum(0) + of_prefix[half]
        halves = []
        for prefix, new in zip(of_prefix, of_new, strict=True):
            if layout.before:
                first = prefix.transpose(0, 1).reshape(-1, d)
                new = [first + new[0], *new[1:]] if layout.whole else [first, *new]
            new.append(upstream.new_zeros(layout.spare * groups, d))
            halves.append(torch.cat(new).view(layout.shift + tokens, groups, d).transpose(0, 1)[None])
        of_query.append(upstream.new_zeros(layout.spare * heads, d))
        of_query = torch.cat(of_query).mul_(scaling).view(tokens, heads, d).transpose(0, 1)[None]
        return of_query, *halves, None, None


def _flat(states: torch.Tensor) -> torch.Tensor:
    """[1, heads, tokens, d] → [tokens * heads, d]."""
    return states[0].transpose(0, 1).reshape(-1, states.shape[-1])
