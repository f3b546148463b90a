"""The processes that train one run together, as `accelerate launch` starts them.

Each holds the model and computes its rows of every step; the gradients of the summed loss are added up over all of
them and divided by the labelled tokens of the whole step. So a run has the same curve with any number of processes,
to the rounding of a sum in another order. Process 0 alone writes the run's folder, which the others must see.

With `sharded` (FSDP2, torch's `fully_shard`) a process holds only a share of each layer and gets the rest of it while
it computes with it. Embeddings, last norm and output head stay whole: losses and answers enter the model by several
doors, and only the layers are behind all of them.

What has been run: two processes on one CPU (gloo), both ways, against one process. Not run: GPUs (NCCL), and several
machines. DeepSpeed takes over the optimizer, which this loop does not hand out; see `assets/accelerate`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import torch

from playground.errors import PlaygroundError

# A run may wait hours for its turn, and process 0 fetches a model while the others wait. A process that dies is
# noticed by its launcher, not by this.
PATIENCE = timedelta(days=2)


@dataclass(frozen=True)
class Ranks:
    """This process's `rank` among `count`; alone by default, and then nothing is sent to anybody."""

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    sharded: bool = False

    @property
    def first(self) -> bool:
        return self.rank == 0

    def total(self, number: float) -> float:
        """The sum over all processes."""
        if self.count == 1:
            return number
        value = torch.tensor([number], dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(value)
        return value.item()

    def add_up(self, gradients: list[torch.Tensor]) -> None:
        """Replace each tensor by its sum over all processes. They are sent in one piece."""
        if self.count == 1 or not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        torch._foreach_copy_(
            gradients,
            [p.view_as(g) for p, g in zip(flat.split([g.numel() for g in gradients]), gradients, strict=True)],
        )

    def alike(self, tensors: list[torch.Tensor]) -> None:
        """Give each tensor the values that it has in process 0."""
        for tensor in tensors if self.count > 1 else ():
            torch.distributed.broadcast(tensor, 0)

    def from_first(self, work: Callable):
        """Process 0 does `work` and all get what it returns, or the PlaygroundError that it raised."""
        if self.count == 1:
            return work()
        told = [None, None]
        if self.first:
            try:
                told = [work(), None]
            except PlaygroundError as error:
                told = [None, str(error)]
        torch.distributed.broadcast_object_list(told, device=self.device)
        if told[1] is not None:
            raise PlaygroundError(told[1])
        return told[0]

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            torch.distributed.barrier()

    def needs(self) -> bool:
        """Whether this process has to run the model where only process 0 looks at what comes out."""
        return self.first or self.sharded


ALONE = Ranks()


def launched() -> int:
    """How many processes the launcher started; 1 without one."""
    count = os.environ.get("WORLD_SIZE", "1")
    return int(count) if count.isdigit() and "LOCAL_RANK" in os.environ else 1


def join(shard: bool = False) -> Ranks:
    """Meet the other processes. Raises PlaygroundError for DeepSpeed, which this loop cannot do."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true":
        raise PlaygroundError(
            "playground train runs under DDP and FSDP, not under DeepSpeed; for DeepSpeed, export the run as a TRL "
            "script (playground export RUN --as trl) and launch that with the same config file"
        )
    if launched() == 1:
        return ALONE
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    sharded = shard or os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    return Ranks(state.process_index, state.num_processes, state.device, sharded)


def check_processes(count: int) -> None:
    """On a machine with GPUs each process needs one."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else count
    if count > gpus:
        raise PlaygroundError(
            f"processes is {count:,}, and this machine has {gpus:,} {'GPU' if gpus == 1 else 'GPUs'}, one for each "
            f"process; set processes to {gpus:,}"
        )


def leave(ranks: Ranks) -> None:
    """Part from the others, when all is done."""
    if ranks.count > 1:
        torch.distributed.destroy_process_group()


# ---- shares of layers ------------------------------------------------------------------------------------------


def shard(model, ranks: Ranks) -> None:
    """Leave each process a share of every layer of `model` (a transformers model, with its adapter in it)."""
    if not ranks.sharded:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    kinds = set(model._no_split_modules or ())
    layers = [part for part in model.modules() if type(part).__name__ in kinds]
    if not layers:
        raise PlaygroundError(
            "this model does not say what its layers are, so they cannot be shared out; switch shard off"
        )
    mesh = init_device_mesh(ranks.device.type, (ranks.count,))
    exact = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for layer in layers:
        # put away after each pass: what is left standing would be old when the best weights are put back
        fully_shard(layer, mesh=mesh, mp_policy=exact, reshard_after_forward=True)
    model.to(ranks.device)  # what is not in a layer; a layer's share is there already


def is_share(tensor) -> bool:
    return hasattr(tensor, "full_tensor")


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of a parameter, or of its gradient."""
    return tensor.to_local() if is_share(tensor) else tensor


def whole(part: torch.Tensor, parameter) -> torch.Tensor:
    """The full tensor of which `part` is this process's share, as `parameter` is shared out. All must ask."""
    if not is_share(parameter):
        return part
    from torch.distributed.tensor import DTensor

    spread = DTensor.from_local(
        part, parameter.device_mesh, parameter.placements, shape=parameter.shape, stride=parameter.stride()
    )
    return spread.full_tensor()


def share(full: torch.Tensor, parameter) -> torch.Tensor:
    """This process's part of a full tensor."""
    if not is_share(parameter):
        return full
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(full.to(parameter.device), parameter.device_mesh, parameter.placements).to_local()


def full_state(model) -> dict[str, torch.Tensor]:
    """The state of a sharded model that was trained, whole, on the CPU; frozen shares are left out. All must ask."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    state = {}
    for name, tensor in model.state_dict().items():
        if not is_share(tensor):
            state[name] = tensor.cpu()
        elif name in trained:
            state[name] = tensor.full_tensor().cpu()
    return state
