"""How much the battery asks, by the name of a size."""

from dataclasses import dataclass
from typing import Literal

from kshot.study.hypotheses_settings import BATTERY


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much the battery asks: parts, demonstrations, queries, seeds, and functions g, each with ``draws`` sets of
    demonstrations of label words.

    ``pool`` training examples are drawn for a seed, and demonstrations from these.
    """

    parts: tuple[str, ...] = BATTERY
    shots: int
    limit: int | Literal["all"]
    seeds: tuple[int, ...]
    functions: int
    draws: int
    pool: int = 512


SCALES = {
    # What every verdict rests on: a look. Intervals are over seeds, and what a seed draws (arbitrary answers, a
    # permutation, a pool) varies more than its queries do.
    "smoke": Scale(
        parts=("fast", "functions", "synonyms"), shots=8, limit=10, seeds=tuple(range(7)), functions=6, draws=4
    ),
    # So many seeds tell a planted selector, learner and composer apart nine times in ten, ten seeds do not
    # (docs/results/power.md).
    "medium": Scale(shots=16, limit=32, seeds=tuple(range(20)), functions=25, draws=8),
    "full": Scale(shots=32, limit=256, seeds=tuple(range(20)), functions=500, draws=250),
}
"""``full`` is as published by Li et al. 2024, as far as that is known."""
