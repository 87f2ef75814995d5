"""The training loop of small networks: a pure function of its configuration, gone on with to the bit where it stopped."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from kshot.errors import KshotError, NumericError, UnknownName
from kshot.optim.optimisers import SCHEDULES, Optimiser, adamw, rate
from kshot.optim.state import keep, kept

Weights = Mapping[str, Tensor]
Loss = Callable[[Weights, int], Tensor]
"""The loss of a step: weights and the step's number -> a scalar. The batch is drawn from the number and nothing else."""
Watch = Callable[[int, Weights, float], None]
"""Told behind a step: how many steps are done, the weights, and the loss that the last of them began with."""

# A state is kept when so many seconds have passed, and so many times as long as the last took to write.
_SECONDS, _SHARE = 15.0, 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How long and how fast: AdamW with these betas, ``clip`` the greatest norm of a gradient (None: any).

    With ``precision`` bfloat16 products are taken in it (torch.autocast); weights, moments and sums stay in float32.
    """

    steps: int
    batch: int = 64
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warmup: int = 0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = None
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise UnknownName("schedule", self.schedule, SCHEDULES)
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise KshotError(f"learning rate {self.learning_rate!r}: what works is a number above 0")
        if self.steps < 0 or self.batch < 1:
            raise KshotError(f"{self.steps} steps of {self.batch} prompts: what works is 0 or more of 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Curriculum:
    """How many coordinates and pairs prompts have as training goes on: both grow every ``every`` steps until all are there.

    Source: Garg et al. 2022: coordinates from 5 by 1 and pairs from 11 by 2 every 2,000 steps.
    """

    coordinates: int
    pairs: int
    pairs_by: int
    every: int

    def at(self, step: int, coordinates: int, pairs: int) -> tuple[int, int]:
        """Coordinates and pairs of the batch of a step, at most those given.

        >>> Curriculum(coordinates=5, pairs=11, pairs_by=2, every=2000).at(4000, 20, 41)
        (7, 15)
        """
        grown = step // self.every
        return min(coordinates, self.coordinates + grown), min(pairs, self.pairs + self.pairs_by * grown)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """Weights at the end, the loss before every step, and seconds."""

    weights: dict[str, Tensor]
    losses: tuple[float, ...]
    seconds: float


@dataclass(slots=True)
class Kept:
    """Where the state of one training is kept: ``key`` says what is trained, another's state is not gone on with."""

    path: Path
    key: str
    _last: float = field(default_factory=time.monotonic)
    _took: float = 0.0

    def found(self) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]], dict[str, Any]] | None:
        """Weights, moments and facts of the last state; None where there is none of this training."""
        found = kept(self.path)
        return found if found is not None and found[2].get("key") == self.key else None

    def offer(self, weights: Weights, optimiser: Optimiser, losses: list[float], seconds: float) -> None:
        """Keep the state if enough time has passed; OutputError where it cannot be written."""
        began = time.monotonic()
        if began - self._last > max(_SECONDS, _SHARE * self._took):
            keep(self.path, weights, optimiser.moments(), {"key": self.key, "losses": losses, "seconds": seconds})
            self._last, self._took = time.monotonic(), time.monotonic() - began

    def done(self) -> None:
        """Forget the state: what it led to is kept elsewhere."""
        self.path.unlink(missing_ok=True)


def trained(
    start: Weights, loss: Loss, training: Training, *, place: Kept | None = None, watch: Watch | None = None
) -> Trained:
    """The weights after all steps from ``start``, or from the state that ``place`` holds of the same training.

    ``watch`` is told behind every step that is taken here. NumericError where a loss is no number, with its step.
    """
    found = place.found() if place is not None else None
    before, moments, facts = found or (dict(start), {}, {"losses": [], "seconds": 0.0})
    weights = {name: tensor.detach().clone().requires_grad_(True) for name, tensor in before.items()}
    optimiser = adamw(weights, training.weight_decay, moments, training.betas)
    device = next((tensor.device.type for tensor in weights.values()), "cpu")
    losses, seconds, began = list(facts["losses"]), float(facts["seconds"]), time.perf_counter()
    for step in range(len(losses), training.steps):
        for tensor in weights.values():
            tensor.grad = None
        with torch.autocast(device, torch.bfloat16, enabled=training.precision == "bfloat16"):
            value = loss(weights, step)
        if not math.isfinite(now := float(value.detach())):
            raise NumericError(
                f"the loss of step {step + 1} of {training.steps} is {now}; try a smaller learning rate than "
                f"{training.learning_rate:g}"
            )
        value.backward()
        if training.clip is not None:
            torch.nn.utils.clip_grad_norm_(weights.values(), training.clip)
        optimiser.step(rate(training.learning_rate, training.schedule, training.warmup, step, training.steps))
        losses.append(now)
        if watch is not None:
            watch(step + 1, weights, now)
        if place is not None:
            place.offer(weights, optimiser, losses, seconds + time.perf_counter() - began)
    return Trained(
        weights={name: tensor.detach() for name, tensor in weights.items()},
        losses=tuple(losses),
        seconds=seconds + time.perf_counter() - began,
    )


def squared_error(said: Tensor, ys: Tensor) -> Tensor:
    """The mean square of what was said of the last answers, as many as it was said of; (b, s) and (b, n) -> ()."""
    return (said - ys[:, -said.shape[1] :]).square().mean()
