"""How leaves are moved: a few rules with one face, whose moments are plain tensors by name."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

Moments = Mapping[str, Mapping[str, Tensor]]


@runtime_checkable
class Optimiser(Protocol):
    """Moves the leaves that it was made for, in place."""

    def step(self, learning_rate: float) -> None:
        """One step along the gradients that the leaves hold."""
        ...

    def moments(self) -> Moments:
        """What the next step depends on besides the leaves; given to another optimiser they are its own from then on."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class _Torch:
    """An optimiser of torch."""

    leaves: Mapping[str, Tensor]
    inner: torch.optim.Optimizer

    def step(self, learning_rate: float) -> None:
        for group in self.inner.param_groups:
            group["lr"] = learning_rate
        self.inner.step()

    def moments(self) -> Moments:
        return {name: dict(self.inner.state[leaf]) for name, leaf in self.leaves.items() if leaf in self.inner.state}


def _of_torch(leaves: Mapping[str, Tensor], inner: torch.optim.Optimizer, moments: Moments) -> _Torch:
    for name, own in moments.items():
        inner.state[leaves[name]] = dict(own)
    return _Torch(leaves, inner)


def adamw(
    leaves: Mapping[str, Tensor],
    weight_decay: float,
    moments: Moments,
    betas: tuple[float, float] = (0.9, 0.999),
    *,
    eps: float = 1e-8,
    matrices: bool = False,
) -> Optimiser:
    """AdamW (Loshchilov and Hutter 2019); with ``matrices`` these alone decay, and no norms, biases or rates."""
    inner = torch.optim.AdamW(
        _groups(leaves, matrices), lr=0.0, betas=betas, eps=eps, weight_decay=weight_decay, fused=True
    )
    return _of_torch(leaves, inner, moments)


def sgd(leaves: Mapping[str, Tensor], weight_decay: float, moments: Moments, *, matrices: bool = False) -> Optimiser:
    """Plain stochastic gradient descent, without momentum; ``matrices`` as in ``adamw``."""
    inner = torch.optim.SGD(_groups(leaves, matrices), lr=0.0, weight_decay=weight_decay)
    return _of_torch(leaves, inner, moments)


def _decays(leaf: Tensor, matrices: bool) -> bool:
    return not matrices or leaf.ndim > 1


def _groups(leaves: Mapping[str, Tensor], matrices: bool) -> list[dict[str, Any]]:
    """Leaves that decay, and those that do not; torch knows no group of none."""
    decaying = [leaf for leaf in leaves.values() if _decays(leaf, matrices)]
    others = [leaf for leaf in leaves.values() if not _decays(leaf, matrices)]
    groups: list[dict[str, Any]] = [{"params": decaying}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


# Shazeer and Stern 2018, with the settings of Lester et al. 2021 (no scaling by the parameter, no momentum): decay of
# the second moment 1 - t^-0.8, updates clipped at a root mean square of 1, moments of a matrix kept by row and column
# only where both sides reach 128, as in the optimiser of T5X.
_DECAY, _TINY, _CLIP, _FACTORED = 0.8, 1e-30, 1.0, 128


@dataclass(frozen=True, slots=True, eq=False)
class _Adafactor:
    leaves: Mapping[str, Tensor]
    weight_decay: float
    matrices: bool
    state: dict[str, dict[str, Tensor]]

    def step(self, learning_rate: float) -> None:
        with torch.no_grad():
            for name, leaf in self.leaves.items():
                if leaf.grad is not None:
                    self._move(leaf, leaf.grad, self.state.setdefault(name, {}), learning_rate)

    def _move(self, leaf: Tensor, grad: Tensor, own: dict[str, Tensor], learning_rate: float) -> None:
        own["step"] = own.get("step", torch.zeros((), dtype=torch.float64)) + 1
        keep = 1 - float(own["step"]) ** -_DECAY
        square = grad.square() + _TINY
        if leaf.ndim == 2 and min(leaf.shape) >= _FACTORED:
            rows = _mixed(own, "rows", square.mean(1), keep)
            columns = _mixed(own, "columns", square.mean(0), keep)
            update = grad * (rows / rows.mean()).rsqrt()[:, None] * columns.rsqrt()[None]
        else:
            update = grad * _mixed(own, "square", square, keep).rsqrt()
        update /= (update.square().mean().sqrt() / _CLIP).clamp(min=1.0)
        decay = self.weight_decay if _decays(leaf, self.matrices) else 0.0
        leaf.mul_(1 - decay * learning_rate).sub_(update * learning_rate)

    def moments(self) -> Moments:
        return self.state


def _mixed(own: dict[str, Tensor], key: str, value: Tensor, keep: float) -> Tensor:
    own[key] = value if key not in own else own[key] * keep + value * (1 - keep)
    return own[key]


def adafactor(
    leaves: Mapping[str, Tensor], weight_decay: float, moments: Moments, *, matrices: bool = False
) -> Optimiser:
    """Adafactor as Lester et al. 2021 ran it: a learning rate of its own, no scaling by the parameter, no momentum.

    ``matrices`` as in ``adamw``.
    """
    return _Adafactor(leaves, weight_decay, matrices, {name: dict(own) for name, own in moments.items()})


OPTIMISERS: dict[str, Callable[..., Any]] = {
    "adafactor": adafactor,
    "adamw": adamw,
    "sgd": sgd,
}


def _constant(share: float) -> float:
    return 1.0


def _linear(share: float) -> float:
    return 1.0 - share


def _cosine(share: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * share))


def _polynomial(share: float) -> float:
    return (1.0 - share) ** 2


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": _constant,
    "linear": _linear,
    "polynomial": _polynomial,
    "cosine": _cosine,
}
"""The factor of the learning rate when so much of the steps after the warm-up is done (0 to 1); polynomial is the square
of linear."""


def rate(learning_rate: float, schedule: str, warmup: int, step: int, steps: int) -> float:
    """The learning rate of a step (from 0): a linear rise over the warm-up, then the schedule down to the last step.

    >>> [rate(1.0, "linear", 2, step, 6) for step in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if step < warmup:
        return learning_rate * (step + 1) / warmup
    return learning_rate * SCHEDULES[schedule]((step - warmup) / max(1, steps - warmup))
