"""Several LoRA adapters on one copy of the weights, a different one for each row of the batch.

LoRA (Hu et al. 2021, arXiv:2106.09685) adds `scale · (x A) B` to a linear layer. For a batch whose rows use
different adapters, the A matrices in use stand side by side as one `[in, columns]` matrix and the B matrices on top
of each other as `[columns, out]`; a 0/1 mask `[rows, 1, columns]` keeps each row to its own columns:

    y = linear(x) + ((x @ a) * mask) @ b

Two plain matrix products serve every row, rows without an adapter add exactly zero, and nothing is gathered
for each token: the matrices are laid side by side only when the set of rows changes. Rows with DoRA also stretch
what the layer gives, by a factor for each output that is worked out when the adapter is loaded. Soft prompts and
embeddings of an adapter's own are `core.own_tokens`.

Layers that read the same input (query, key and value; gate and up) are computed as one product. Their weights
become views of one tensor, so that nothing is stored twice.
"""

from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path

import torch

from playground.core import int8
from playground.core.adapter_files import Factors, Weights, read_weights
from playground.core.own_tokens import OwnTokens


@dataclass
class Group:
    """Linear layers that read the same input, computed together.

    `a`, `b`, `mask` and `stretch` [rows, 1, out] serve the rows now in the batch.
    """

    members: dict[str, torch.nn.Module]
    a: torch.Tensor | None = None
    b: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    stretch: torch.Tensor | None = None
    x: torch.Tensor | None = None
    y: torch.Tensor | None = None

    def __post_init__(self) -> None:
        modules = list(self.members.values())
        ends = list(accumulate(module.out_features for module in modules))
        self.parts = [slice(end - module.out_features, end) for end, module in zip(ends, modules, strict=True)]
        self.plain = modules[0].forward if len(modules) == 1 else _joined(modules, self.parts)
        biases = [getattr(module, "bias", None) for module in modules]
        self.bias = None if biases[0] is None else torch.cat([bias.data for bias in biases])
        for i, module in enumerate(modules):
            module.forward = partial(self.forward, i)

    def forward(self, i: int, x: torch.Tensor) -> torch.Tensor:
        """The output of member `i`. The first member called computes all; the last one lets go of the rest."""
        if self.x is not x:
            self.x, self.y = x, self._together(x)
        y = self.y[..., self.parts[i]] if len(self.parts) > 1 else self.y
        if i == len(self.parts) - 1:
            self.x = self.y = None
        return y

    def _together(self, x: torch.Tensor) -> torch.Tensor:
        y = self.plain(x)
        if self.mask is None:
            return y
        low = (x.to(self.a.dtype) @ self.a) * self.mask
        if self.stretch is not None:  # DoRA's magnitudes are for the weights, not for the bias
            y = torch.addcmul(y, y if self.bias is None else y - self.bias.to(y.dtype), self.stretch)
        return y.add_(low @ self.b)


@dataclass
class AdapterBank:
    """The adapters loaded on one model, which it changes in place. Owned by the thread that decodes.

    `fast` decodes few rows with 8-bit weights (see `core.int8`).
    """

    model: torch.nn.Module
    fast: bool = False
    adapters: dict[str, Weights] = field(default_factory=dict)
    rows: list[str | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.groups = [Group(members) for members in layers_by_input(self.model)]
        if self.fast:
            self._quicken()
        self.own = OwnTokens(self.model)

    def _quicken(self) -> None:
        int8.check(self.model)
        for group in self.groups:
            modules = list(group.members.values())
            if type(modules[0]) is torch.nn.Linear:
                bias = None if modules[0].bias is None else torch.cat([module.bias.data for module in modules])
                group.plain = int8.quick(group.plain, torch.cat([module.weight.data for module in modules]), bias)
        head = self.model.get_output_embeddings()
        if type(head) is torch.nn.Linear:
            head.forward = int8.quick(head.forward, head.weight, head.bias)

    def load(self, name: str, folder: Path) -> None:
        """Load the PEFT adapter in `folder` as `name`: LoRA or DoRA, also with tokens of its own, or a soft prompt.

        Raises PlaygroundError when the adapter is of another kind, or made for another model.
        """
        weights = read_weights(self.model, folder)
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
        stay = names == sorted({name for name in self.rows if name is not None})
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
            if not stay:
                group.a = torch.cat([factors.a for _, factors, _ in used], dim=1)
                if group.a.device.type == "cpu":  # where products as small as these take half as long in float32
                    group.a = group.a.float()
                group.b = group.a.new_zeros(group.a.shape[1], group.parts[-1].stop)
                row = 0
                for _, factors, part in used:
                    group.b[row : row + len(factors.b), part] = factors.b
                    row += len(factors.b)
            owner = tuple(name for name, factors, _ in used for _ in range(len(factors.b)))
            if owner not in masks:
                masks[owner] = torch.tensor([[[float(row == name) for name in owner]] for row in rows]).to(group.a)
            group.mask = masks[owner]
            group.stretch = _stretch(rows, used, group.parts[-1].stop)
        self.own.use(rows)
        self.rows = list(rows)


def _stretch(rows: list[str | None], used: list[tuple[str, Factors, slice]], width: int) -> torch.Tensor | None:
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
    for x, name, module in inputs:
        joinable = type(module) is torch.nn.Linear
        if x is last_input and joinable and _joinable(next(iter(groups[-1].values())), module):
            groups[-1][name] = module
        else:
            groups.append({name: module})
        last_input = x if joinable else None
    return groups


def _joinable(first: torch.nn.Linear, other: torch.nn.Linear) -> bool:
    return first.weight.dtype == other.weight.dtype and (first.bias is None) == (other.bias is None)


def _joined(modules: list[torch.nn.Linear], parts: list[slice]):
    """One linear function for all `modules`, whose weights become views of its own."""
    weight = torch.cat([module.weight.data for module in modules])
    bias = None if modules[0].bias is None else torch.cat([module.bias.data for module in modules])
    for module, part in zip(modules, parts, strict=True):
        module.weight.data = weight[part]
        if bias is not None:
            module.bias.data = bias[part]
    return partial(_linear, weight, bias)


def _linear(weight: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.linear(x, weight, bias)
