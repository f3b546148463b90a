"""Several LoRA adapters on one copy of the weights, a different one for each row of the batch.

LoRA (Hu et al. 2021, arXiv:2106.09685) adds `scale · (x A) B` to a linear layer. For a batch whose rows use
different adapters, the A matrices in use stand side by side as one `[in, columns]` matrix and the B matrices on top
of each other as `[columns, out]`; a 0/1 mask `[rows, 1, columns]` keeps each row to its own columns:

    y = linear(x) + ((x @ a) * mask) @ b

Two plain matrix products serve every row, and rows without an adapter add exactly zero. A few rows on a CPU have their
own matrices instead, `[rows, in, columns]` and `[rows, columns, out]`, as two small products for each row take half
the time of one for all. Either way nothing is gathered for each token: the matrices are laid out only when the set of
rows changes. Rows with DoRA also stretch what the layer gives, by a factor for each output that is worked out when the
adapter is loaded. Soft prompts and embeddings of an adapter's own are `core.own_tokens`.

Layers that read the same input (query, key and value; gate and up) are computed as one product. Their weights
become views of one tensor, or parts of one packed one (`core.packed`), so that nothing is stored twice.
"""

from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path

import torch

from playground.core import attention, int8, norms, packed
from playground.core.adapter_files import Factors, Weights, read_weights
from playground.core.own_tokens import OwnTokens

FEW = 4  # rows with matrices of their own, on a CPU


@dataclass
class Group:
    """Linear layers that read the same input, computed together.

    `a`, `b`, `mask` and `stretch` [rows, 1, out] serve the rows now in the batch. Without a mask `a` and `b` have a
    matrix for each of the rows in `own`.
    """

    members: dict[str, torch.nn.Module]
    a: torch.Tensor | None = None
    b: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    own: slice | None = None
    stretch: torch.Tensor | None = None
    x: torch.Tensor | None = None
    y: torch.Tensor | None = None

    def __post_init__(self) -> None:
        modules = list(self.members.values())
        ends = list(accumulate(module.out_features for module in modules))
        self.parts = [slice(end - module.out_features, end) for end, module in zip(ends, modules, strict=True)]
        biases = [getattr(module, "bias", None) for module in modules]
        self.bias = None if biases[0] is None else torch.cat([bias.data for bias in biases])
        self.packed = None
        if type(modules[0]) is torch.nn.Linear:
            self._lay_down(modules)
        else:  # one layer whose weights are no plain matrix, such as 4-bit ones
            self.plain = modules[0].forward
        for i, module in enumerate(modules):
            module.forward = partial(self.forward, i) if len(modules) > 1 else self._together

    def _lay_down(self, modules: list[torch.nn.Linear]) -> None:
        """One linear function for all members; their weights become views of its own, or are packed in it."""
        together = len(modules) > 1
        weight = torch.cat([module.weight.data for module in modules]) if together else modules[0].weight.data
        self.packed = packed.pack(weight)
        for module, part in zip(modules, self.parts, strict=True):
            if self.packed is None:
                module.weight.data = weight[part]
            else:
                module.weight = _nowhere(module.weight)
            if self.bias is not None:
                module.bias.data = self.bias[part]
        if self.packed is None:
            self.plain = partial(_linear, weight, self.bias)
        else:
            self.plain = partial(packed.linear, self.packed, self.bias)

    def forward(self, i: int, x: torch.Tensor) -> torch.Tensor:
        """The output of member `i`. The first member called computes all; the last one lets go of the rest."""
        if self.x is not x:
            self.x, self.y = x, self._together(x)
        y = self.y[..., self.parts[i]]
        if i == len(self.parts) - 1:
            self.x = self.y = None
        return y

    def _together(self, x: torch.Tensor) -> torch.Tensor:
        y = self.plain(x)
        if self.a is None:
            return y
        if self.stretch is not None:  # DoRA's magnitudes are for the weights, not for the bias
            y = torch.addcmul(y, y if self.bias is None else y - self.bias.to(y.dtype), self.stretch)
        if self.mask is None:
            y[self.own].add_(torch.bmm(torch.bmm(x[self.own].to(self.a.dtype), self.a), self.b))
            return y
        return y.add_(((x.to(self.a.dtype) @ self.a) * self.mask) @ self.b)

    def weight(self) -> torch.Tensor:
        """The weight [out, in] of all members together, for reading."""
        if self.packed is not None:
            return packed.unpack(self.packed)
        from peft.utils.integrations import dequantize_module_weight

        return torch.cat([dequantize_module_weight(module) for module in self.members.values()])


@dataclass
class AdapterBank:
    """The adapters loaded on one model, which it changes in place. Owned by the thread that decodes.

    `fast` decodes few rows with 8-bit weights (see `core.int8`).
    """

    model: torch.nn.Module
    fast: bool = False
    adapters: dict[str, Weights] = field(default_factory=dict)
    rows: list[str | None] = field(default_factory=list)
    mixed: list[str] | None = None  # the adapters whose matrices stand side by side
    added: int = 0  # bytes of what is held beside the model's own weights

    def __post_init__(self) -> None:
        if self.fast:
            int8.check(self.model)
        attention.quicken(self.model)
        norms.quicken(self.model)
        self.groups = [Group(members) for members in layers_by_input(self.model)]
        if self.fast:
            for group in self.groups:
                if type(next(iter(group.members.values()))) is torch.nn.Linear:
                    group.plain = int8.quick(group.plain, group.weight(), group.bias)
        self._head()
        self.own = OwnTokens(self.model)

    def _head(self) -> None:
        """The output head, which is read whole for every token: packed too, beside an embedding it is tied to."""
        head = self.model.get_output_embeddings()
        if type(head) is not torch.nn.Linear:
            return
        weight = head.weight
        if (block := packed.pack(weight)) is not None:
            head.forward = partial(packed.linear, block, head.bias)
            if weight is self.model.get_input_embeddings().weight:
                self.added += weight.nbytes
            else:
                head.weight = _nowhere(weight)
        if self.fast:
            head.forward = int8.quick(head.forward, weight, head.bias)

    def _weight(self, name: str) -> torch.Tensor:
        """The weight [out, in] of a layer, for reading."""
        group, part = next(
            (group, part)
            for group in self.groups
            for member, part in zip(group.members, group.parts, strict=True)
            if member == name
        )
        return group.weight()[part]

    def load(self, name: str, folder: Path) -> None:
        """Load the PEFT adapter in `folder` as `name`: LoRA or DoRA, also with tokens of its own, or a soft prompt.

        Raises PlaygroundError when the adapter is of another kind, or made for another model.
        """
        weights = read_weights(self.model, folder, self._weight)
        self.own.add(name, weights)
        self.adapters[name] = weights

    def drop(self, name: str) -> None:
        """Forget an adapter that no row of the batch uses."""
        if name in self.rows:
            self.use([])
        self.adapters.pop(name, None)
        self.own.drop(name)

    def use(self, rows: list[str | None]) -> None:
        """From now on row i of the batch goes through adapter `rows[i]` (None: the bare model)."""
        if rows == self.rows:
            return
        names = sorted({name for name in rows if name is not None})
        few = len(rows) <= FEW and self.model.device.type == "cpu"
        stay = not few and self.mixed == names  # the matrices of before serve again
        self.mixed = None if few else names
        masks: dict[tuple[str, ...], torch.Tensor] = {}
        for group in self.groups:
            used = [
                (name, self.adapters[name].factors[member], part)
                for name in names
                for member, part in zip(group.members, group.parts, strict=True)
                if member in self.adapters[name].factors
            ]
            if not used:
                group.a = group.b = group.mask = group.stretch = None
                continue
            if few:
                group.mask = None
                group.own, group.a, group.b = _own_matrices(rows, used, group.parts[-1].stop)
            else:
                if not stay:
                    group.a = torch.cat([factors.a for _, factors, _ in used], dim=1)
                    group.b = _stacked(used, group.parts[-1].stop)
                owner = tuple(name for name, factors, _ in used for _ in range(len(factors.b)))
                if owner not in masks:
                    masks[owner] = torch.tensor([[[float(row == name) for name in owner]] for row in rows]).to(group.a)
                group.mask = masks[owner]
            group.stretch = _stretch(rows, used, group.parts[-1].stop)
        self.own.use(rows)
        self.rows = list(rows)


Used = list[tuple[str, Factors, slice]]  # (adapter, its factors for one layer, the layer's part of the group's outputs)


def _stacked(used: Used, width: int) -> torch.Tensor:
    """The B matrices on top of each other, each over its own layer's outputs: [columns, width]."""
    out = used[0][1].b.new_zeros(sum(len(factors.b) for _, factors, _ in used), width)
    row = 0
    for _, factors, part in used:
        out[row : row + len(factors.b), part] = factors.b
        row += len(factors.b)
    return out


def _own_matrices(rows: list[str | None], used: Used, width: int) -> tuple[slice, torch.Tensor, torch.Tensor]:
    """(which rows, A of each [rows, in, columns], B of each [rows, columns, width]), with zeros where one has less."""
    of = {name: [one for one in used if one[0] == name] for name, _, _ in used}
    served = [i for i, row in enumerate(rows) if row in of]
    own = slice(served[0], served[-1] + 1)
    columns = max(sum(len(factors.b) for _, factors, _ in mine) for mine in of.values())
    first = used[0][1]
    a = first.a.new_zeros(own.stop - own.start, first.a.shape[0], columns)
    b = first.b.new_zeros(own.stop - own.start, columns, width)
    for i, row in enumerate(rows[own]):
        if row in of:
            parts = torch.cat([factors.a for _, factors, _ in of[row]], dim=1)
            a[i, :, : parts.shape[1]] = parts
            b[i, : parts.shape[1]] = _stacked(of[row], width)
    return own, a, b


def _stretch(rows: list[str | None], used: Used, width: int) -> torch.Tensor | None:
    """[rows, 1, width]: how much longer each row's outputs become, 0 where nothing does; None where that is all."""
    stretched = [(name, factors.stretch, part) for name, factors, part in used if factors.stretch is not None]
    if not stretched:
        return None
    out = stretched[0][1].new_zeros(len(rows), 1, width)
    for name, stretch, part in stretched:
        out[[i for i, row in enumerate(rows) if row == name], 0, part] = stretch
    return out


@torch.inference_mode()
def layers_by_input(model: torch.nn.Module) -> list[dict[str, torch.nn.Module]]:
    """The model's linear layers, those that read one and the same tensor together, in the order they run.

    Found by watching one token go through, not by name. The output head is left alone.
    """
    inputs: list[tuple[torch.Tensor, str, torch.nn.Module]] = []
    head = model.get_output_embeddings()
    hooks = [
        module.register_forward_pre_hook(lambda module, args, name=name: inputs.append((args[0], name, module)))
        for name, module in model.named_modules()
        if hasattr(module, "in_features") and hasattr(module, "out_features") and module is not head
    ]
    try:
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    groups: list[dict[str, torch.nn.Module]] = []
    last_input = None
    met = set()
    for x, name, module in inputs:
        if module in met:  # one layer in several places
            continue
        met.add(module)
        joinable = type(module) is torch.nn.Linear
        if x is last_input and joinable and _joinable(next(iter(groups[-1].values())), module):
            groups[-1][name] = module
        else:
            groups.append({name: module})
        last_input = x if joinable else None
    return groups


def _joinable(first: torch.nn.Linear, other: torch.nn.Linear) -> bool:
    return first.weight.dtype == other.weight.dtype and (first.bias is None) == (other.bias is None)


def _nowhere(weight: torch.Tensor) -> torch.nn.Parameter:
    """In the place of a weight that is packed: whoever reads it is told so by torch, not given something else."""
    return torch.nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=False)


def _linear(weight: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.linear(x, weight, bias)
