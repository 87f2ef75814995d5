"""How much the battery asks, by the name of a size."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Demonstrations, queries, seeds, and functions g with ``draws`` sets of demonstrations of label words for each.

    ``pool`` training examples are drawn for a seed, and demonstrations from these.
    """

    shots: int
    limit: int | Literal["all"]
    seeds: tuple[int, ...]
    functions: int
    draws: int
    pool: int = 512


SCALES = {
    "smoke": Scale(shots=8, limit=24, seeds=(0, 1, 2), functions=10, draws=4),
    "medium": Scale(shots=16, limit=128, seeds=tuple(range(5)), functions=100, draws=8),
    "full": Scale(shots=32, limit=256, seeds=tuple(range(20)), functions=500, draws=250),
}
"""``full`` is as published by Li et al. 2024, as far as that is known."""
