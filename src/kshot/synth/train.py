"""The training loop of small networks: a pure function of its configuration, gone on with to the bit where it stopped."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from kshot.devices import together, told
from kshot.errors import KshotError, NumericError, UnknownName
from kshot.optim.optimisers import OPTIMISERS, SCHEDULES, Moments, Optimiser, adamw, rate
from kshot.optim.state import keep, kept
from kshot.synth.sharded import Copies, Held, Loss, Parts, Weights, parted

Watch = Callable[[int, Weights, float], None]
"""Told after a step: how many steps are done, the weights, and the loss that the last of them began with."""
Look = Callable[[int, Weights], Mapping[str, float]]
"""What is seen when so many steps are done, by name."""
Sees = Callable[[int, Callable[[], Weights]], Mapping[str, float] | None]
"""The same from one who asks for the weights where anything is looked at; None: nothing is."""

# A state is kept when so many seconds have passed, and so many times as long as the last took to write.
_SECONDS, _SHARE = 15.0, 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How long and how fast: AdamW with these ``betas`` and ``eps``, which others have not; ``clip`` is the greatest norm
    of a gradient (None: any).

    Of ``weight_decay`` norms, biases and learned decays are free where it is that of ``matrices``.
    With ``precision`` bfloat16 products are taken in it (torch.autocast); weights, moments and sums stay in float32.
    A step's gradient is the mean over ``parts`` batches, read one after another, and at once by processes that torchrun
    started: each has as many of them, and with ``sharded`` a part of every weight and its moments.
    """

    steps: int
    batch: int = 64
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warmup: int = 0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip: float | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    optimiser: str = "adamw"
    decay_of: Literal["all", "matrices"] = "all"
    parts: int = 1
    sharded: bool = False

    def __post_init__(self) -> None:
        if self.optimiser not in OPTIMISERS:
            raise UnknownName("optimiser", self.optimiser, OPTIMISERS)
        if self.schedule not in SCHEDULES:
            raise UnknownName("schedule", self.schedule, SCHEDULES)
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise KshotError(f"learning rate {self.learning_rate!r}: what works is a number above 0")
        if not (math.isfinite(self.eps) and self.eps > 0):
            raise KshotError(f"eps {self.eps!r}: what works is a number above 0")
        if self.steps < 0 or self.batch < 1:
            raise KshotError(f"{self.steps} steps of {self.batch} prompts: what works is 0 or more of 1 or more")
        if self.sharded and self.optimiser != "adamw":
            raise KshotError(f"weights that are parted among processes with {self.optimiser}: what works is adamw")
        if self.parts < 1 or self.batch % self.parts:
            raise KshotError(
                f"{self.batch} prompts in {self.parts} parts: what works is a number of parts that divides them"
            )


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
    """Weights at the end, the loss before every step, seconds of the steps alone, and what was seen after which steps."""

    weights: dict[str, Tensor]
    losses: tuple[float, ...]
    seconds: float
    looks: tuple[tuple[int, dict[str, float]], ...] = ()

    def along(self, name: str) -> list[tuple[float, float]]:
        """What was seen under this name, as (steps, value)."""
        return [(float(step), seen[name]) for step, seen in self.looks if name in seen]


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

    def due(self) -> bool:
        """Whether enough time has passed for another state."""
        return time.monotonic() - self._last > max(_SECONDS, _SHARE * self._took)

    def keep(self, weights: Weights, moments: Moments, facts: dict[str, Any]) -> None:
        """The state as it is; OutputError where it cannot be written.

        That of a training which is done stays: its weights are not asked for again until whoever trains has kept what
        came of them.
        """
        began = time.monotonic()
        keep(self.path, weights, moments, {"key": self.key, **facts})
        self._last, self._took = time.monotonic(), time.monotonic() - began


@dataclass(slots=True)
class _Clock:
    """Seconds of a training with those ``before`` it was stopped, and of them what looking and keeping took, ``aside``."""

    before: float
    aside: float
    _began: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        return self.before + time.perf_counter() - self._began

    @property
    def of_steps(self) -> float:
        return self.seconds - self.aside

    @contextmanager
    def pause(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.aside += time.perf_counter() - began


def trained(
    start: Weights,
    loss: Loss,
    training: Training,
    *,
    place: Kept | None = None,
    watch: Watch | None = None,
    look: Sees | None = None,
) -> Trained:
    """The weights after all steps from ``start``, or from the state that ``place`` holds of the same training.

    ``watch`` is told after every step that is taken here; what ``look`` sees after steps is part of the state.
    NumericError, with the step and its batches, where a loss, the norm of a gradient that is clipped, what was seen or a
    weight after the last step is no number; of that step no state is kept.
    """
    held, optimiser, facts = _standing(start, training, place)
    weights = held.leaves
    losses, looks = list(facts["losses"]), [(int(step), dict(seen)) for step, seen in facts["looks"]]
    clock = _Clock(before=float(facts["seconds"]), aside=float(facts.get("aside", 0.0)))

    def standing() -> dict[str, Any]:
        return {"losses": losses, "looks": looks, "seconds": clock.seconds, "aside": clock.aside}

    for step in range(len(losses), training.steps):
        for tensor in weights.values():
            tensor.grad = None
        now = _gradients(held, loss, training, step)
        _number("the loss of", now, training, step)
        if training.clip is not None:
            norm = torch.nn.utils.clip_grad_norm_(weights.values(), training.clip)
            _number("the gradient's norm of", float(held.whole({"": norm})[""]), training, step)
        optimiser.step(rate(training.learning_rate, training.schedule, training.warmup, step, training.steps))
        losses.append(now)
        if watch is not None:
            watch(step + 1, weights, now)
        with clock.pause():
            if look is not None:
                seen = look(step + 1, partial(held.whole, weights))
                looks += [(step + 1, dict(seen))] if seen is not None else []
                for name, value in (seen or {}).items():
                    _number(f"{name!r} as seen after", value, training, step)
            if last := step + 1 == training.steps:
                _numbers(held.whole(weights), training, step)
            if place is not None:
                _offer(place, held, optimiser, standing, last=last)
    return Trained(weights=held.whole(weights), losses=tuple(losses), seconds=clock.of_steps, looks=tuple(looks))


def _number(what: str, value: float, training: Training, step: int) -> None:
    if not math.isfinite(value):
        first, count = step * training.parts, training.parts
        batches = f"batch {first}" if count == 1 else f"batches {first} to {first + count - 1}"
        raise NumericError(
            f"{what} step {step + 1} of {training.steps} is {value} ({batches}); try a smaller learning rate than "
            f"{training.learning_rate:g}"
        )


def _numbers(weights: Weights, training: Training, step: int) -> None:
    """A pass over all weights: of any step but the last the next loss tells."""
    for name, own in weights.items():
        _number(f"the greatest weight of {name!r} after", float(own.abs().max()), training, step)


def _offer(place: Kept, held: Held, optimiser: Optimiser, facts: Callable[[], dict[str, Any]], *, last: bool) -> None:
    """Keep the state if enough time has passed, and the ``last`` in any case: by the first process, who asks all for it."""
    first, sharded = together()[0] == 0, isinstance(held, Parts)
    due = int(last or (first and place.due()))
    if sharded:
        due = told(due, next(iter(held.leaves.values())).device)
    if due and (first or sharded):
        weights = held.whole(held.leaves)
        moments = {name: held.whole(own) for name, own in optimiser.moments().items()}
        if first:
            place.keep(weights, moments, facts())


def _standing(start: Weights, training: Training, place: Kept | None) -> tuple[Held, Optimiser, dict[str, Any]]:
    """Leaves, what moves them, and facts of a training that begins, or is gone on with."""
    found = place.found() if place is not None else None
    before, kept_moments, facts = found or (dict(start), {}, {"losses": [], "seconds": 0.0, "looks": []})
    # A state is read to the CPU.
    weights = {
        name: before[name].detach().to(own.device, copy=True).requires_grad_(True) for name, own in start.items()
    }
    held: Held = parted(weights) if training.sharded else Copies(weights)
    moments = {
        name: {kind: held.like(name, tensor) for kind, tensor in own.items()} for name, own in kept_moments.items()
    }
    return held, _optimiser(held.leaves, training, moments), facts


def _optimiser(weights: Weights, training: Training, moments: Moments) -> Optimiser:
    matrices = training.decay_of == "matrices"
    if training.optimiser == "adamw":
        return adamw(weights, training.weight_decay, moments, training.betas, eps=training.eps, matrices=matrices)
    found: Optimiser = OPTIMISERS[training.optimiser](weights, training.weight_decay, moments, matrices=matrices)
    return found


def _gradients(held: Held, loss: Loss, training: Training, step: int) -> float:
    """The mean loss over the parts of a step, its gradient left at the weights, the same in all processes."""
    device = next((tensor.device.type for tensor in held.leaves.values()), "cpu")
    rank, world = together()
    said = []
    for part in range(rank, training.parts, world):
        with torch.autocast(device, torch.bfloat16, enabled=training.precision == "bfloat16"):
            value = held.taken(loss, step * training.parts + part) / training.parts
        value.backward()
        said.append(value.detach())
    # Read after all gradients: a GPU is waited for once, and no process leaves the others alone with theirs.
    return held.added(sum(map(float, said), start=0.0))


def squared_error(said: Tensor, ys: Tensor) -> Tensor:
    """The mean square of what was said of the last answers, as many as it was said of; (b, s) and (b, n) -> ()."""
    return (said - ys[:, -said.shape[1] :]).square().mean()
