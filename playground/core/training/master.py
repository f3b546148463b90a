"""The optimizer of a run: AdamW on fp32 copies of what is trained, and its learning rate at each step."""

import math
from collections.abc import Callable

import torch

from playground.config import TrainConfig
from playground.core.training.ranks import ALONE, Ranks, is_share, local, share, whole


class Master:
    """AdamW on fp32 copies of bf16 parameters: small late updates would otherwise round away.

    An adapter is a few million numbers, so the copies cost nothing beside the base. fp32 parameters are used
    as they are.
    """

    def __init__(self, parameters: list, config: TrainConfig, ranks: Ranks = ALONE):
        self.parameters, self.ranks = parameters, ranks
        self.copied = ranks.sharded or any(p.dtype != torch.float32 for p in parameters)
        self.masters = (
            [local(p.detach()).float().clone().requires_grad_() for p in parameters] if self.copied else parameters
        )
        with torch.no_grad():
            ranks.alike([m for m, p in zip(self.masters, parameters, strict=True) if not is_share(p)])
        if self.copied and ranks.count > 1:
            self._write_back()
        settings = {"lr": config.learning_rate, "betas": (0.9, config.beta2), "weight_decay": config.weight_decay}
        self.optimizer = torch.optim.AdamW(self.masters, **settings, fused=True)
        self.clip = config.clip

    def step(self) -> float:
        """Add up, clip, update, write back, forget the gradients; returns the gradient norm before clipping."""
        if self.copied:
            for master, parameter in zip(self.masters, self.parameters, strict=True):
                master.grad = None if parameter.grad is None else local(parameter.grad).float()
        norm = self._clipped()
        self.optimizer.step()
        if self.copied:
            self._write_back()
        for parameter in [*self.parameters, *self.masters]:
            parameter.grad = None
        return norm

    def _clipped(self) -> float:
        if self.ranks.count == 1:
            return torch.nn.utils.clip_grad_norm_(self.masters, self.clip).item()
        own, common = [], []  # gradients of a share are added up already, as a mean
        for master, parameter in zip(self.masters, self.parameters, strict=True):
            master.grad = torch.zeros_like(master) if master.grad is None else master.grad  # it may have had no rows
            (own if is_share(parameter) else common).append(master.grad)
        self.ranks.add_up(common)
        for gradient in own:
            gradient.mul_(self.ranks.count)
        squares = self.ranks.total(sum(g.square().sum().item() for g in own)) if self.ranks.sharded else 0.0
        norm = math.sqrt(squares + sum(g.square().sum().item() for g in common))
        if (scale := self.clip / (norm + 1e-6)) < 1:  # as in clip_grad_norm_
            torch._foreach_mul_([*own, *common], scale)
        return norm

    def _write_back(self) -> None:
        with torch.no_grad():
            torch._foreach_copy_([local(p.detach()) for p in self.parameters], self.masters)

    def weights(self) -> list[torch.Tensor]:
        """The trained weights, whole. With shares, all processes must ask."""
        return [whole(m.detach(), p) for m, p in zip(self.masters, self.parameters, strict=True)]

    def state(self) -> dict:
        optimizer = self.optimizer.state_dict()
        if self.ranks.sharded:
            optimizer["state"] = self._moments(optimizer["state"], whole)
        return {"masters": [w.clone() for w in self.weights()], "optimizer": optimizer}

    def _moments(self, states: dict, change: Callable) -> dict:
        """AdamW's state with `change(tensor, parameter)` done to the tensors that are like the parameter."""
        return {
            i: {k: change(v, self.parameters[i]) if v.dim() else v for k, v in state.items()}
            for i, state in states.items()
        }

    def put(self, weights: list) -> None:
        """Set the trained weights, given whole."""
        with torch.no_grad():
            to = self.masters[0].device
            torch._foreach_copy_(
                self.masters, [share(w.to(to), p) for w, p in zip(weights, self.parameters, strict=True)]
            )
        if self.copied:
            self._write_back()

    def restore(self, state: dict) -> None:
        self.put(state["masters"])
        optimizer = state["optimizer"]
        if self.ranks.sharded:
            optimizer = {**optimizer, "state": self._moments(optimizer["state"], share)}
        self.optimizer.load_state_dict(optimizer)


def rate(config: TrainConfig, steps: int) -> Callable[[int], float]:
    """Share of the peak rate at each step: linear warm-up, then linear decay to `final_lr_share` at the last step."""

    def share(step: int) -> float:
        if step < config.warmup_steps:
            return (step + 1) / (config.warmup_steps + 1)
        done = (step - config.warmup_steps) / max(1, steps - 1 - config.warmup_steps)
        return 1 - (1 - config.final_lr_share) * min(1.0, done)

    return share
