"""Weights that are held whole, or parted among the processes that train one network.

Parted (FSDP, Zhao et al. 2023), each process has a part of every weight, of its gradient and of its moments, and all of
the weights only while a loss is taken of them. Tested as two processes on CPUs; no GPU has tried it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from kshot.devices import added, summed, together
from kshot.errors import KshotError

Weights = Mapping[str, Tensor]
Loss = Callable[[Weights, int], Tensor]
"""The loss of a batch: weights and the batch's number -> a scalar. The batch is drawn from the number and nothing else."""


@runtime_checkable
class Held(Protocol):
    """Leaves by name as they are held here, and what is done with them together with other processes."""

    @property
    def leaves(self) -> dict[str, Tensor]:
        """What an optimiser moves."""
        ...

    def taken(self, loss: Loss, number: int) -> Tensor:
        """The loss of a batch by its number; its gradient, over all processes, is that of the sum of theirs."""
        ...

    def added(self, total: float) -> float:
        """The sum over all processes of what was taken, after which gradients are summed, too."""
        ...

    def like(self, name: str, moment: Tensor) -> Tensor:
        """A moment as the leaf of that name is held."""
        ...

    def whole(self, tensors: Weights) -> dict[str, Tensor]:
        """Leaves or moments as all of them are; every process has to ask."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Copies:
    """Every process has all of every leaf."""

    leaves: dict[str, Tensor]

    def taken(self, loss: Loss, number: int) -> Tensor:
        return loss(self.leaves, number)

    def added(self, total: float) -> float:
        return summed(self.leaves, total) if together()[1] > 1 else total

    def like(self, name: str, moment: Tensor) -> Tensor:
        return moment.to(self.leaves[name].device)

    def whole(self, tensors: Weights) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in tensors.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Every process has a part of every leaf; ``unit`` is what torch has parted."""

    leaves: dict[str, Tensor]
    unit: nn.Module

    def taken(self, loss: Loss, number: int) -> Tensor:
        found: Tensor = self.unit(loss, number)
        # Gradients are averaged over processes, not added.
        return found * together()[1]

    def added(self, total: float) -> float:
        # It was taken times as many as they are; gradients are there already.
        return added(total, next(iter(self.leaves.values())).device) / together()[1]

    def like(self, name: str, moment: Tensor) -> Tensor:
        leaf = self.leaves[name]
        assert isinstance(leaf, DTensor), "it was parted"
        if moment.shape != leaf.shape:
            return moment.to(leaf.device)
        return distribute_tensor(moment.to(leaf.device), leaf.device_mesh, leaf.placements)

    def whole(self, tensors: Weights) -> dict[str, Tensor]:
        found = {name: tensor.detach() for name, tensor in tensors.items()}
        return {name: own.full_tensor() if isinstance(own, DTensor) else own for name, own in found.items()}


def parted(leaves: dict[str, Tensor]) -> Parts:
    """Leaves parted among all processes. KshotError where there is one."""
    world = together()[1]
    if world < 2:
        raise KshotError("weights can be parted among several processes, and this is one; start them with torchrun")
    unit = _Unit(leaves)
    fully_shard(unit, mesh=init_device_mesh(next(iter(leaves.values())).device.type, (world,)))
    return Parts(dict(zip(leaves, unit.own, strict=True)), unit)


class _Unit(nn.Module):
    """All leaves as parameters of one module, which is what torch parts."""

    def __init__(self, leaves: Weights) -> None:
        nn.Module.__init__(self)
        self._names = list(leaves)
        self.own = nn.ParameterList([nn.Parameter(own.detach().clone()) for own in leaves.values()])

    def forward(self, loss: Loss, number: int) -> Tensor:
        return loss(dict(zip(self._names, self.own, strict=True)), number)
