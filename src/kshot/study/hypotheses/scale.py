"""How much the battery asks, by the name of a size."""

from dataclasses import dataclass
from typing import Literal

from kshot.study.hypotheses_settings import BATTERY

# The parts that verdicts rest on; those of the published protocol also on the one that is dearest of all.
JUDGED = ("fast", "functions", "synonyms")
REDRAWN = "published"
# What of a scale says which parts and seeds are asked, and changes nothing about any of them.
OF_SEEDS = ("seeds", "parts", "redrawn", "beside")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much the battery asks: parts, demonstrations, queries, seeds, and functions g, each with ``draws`` sets of
    demonstrations of label words.

    ``pool`` training examples are drawn for a seed, and demonstrations from these. ``redrawn``: demonstrations are redrawn
    for every query with so many seeds, the first ones (None: with all); ``beside``: what no verdict rests on is asked of
    so many. ``over``: so many queries are asked of every function g (None: ``limit``).
    """

    parts: tuple[str, ...] = BATTERY
    shots: int
    limit: int | Literal["all"]
    seeds: tuple[int, ...]
    functions: int
    draws: int
    over: int | None = None
    pool: int = 512
    redrawn: int | None = None
    beside: int | None = None

    def seeds_of(self, part: str) -> tuple[int, ...]:
        """The seeds of which this part is asked."""
        if part in JUDGED:
            return self.seeds
        return self.seeds[: self.redrawn if part == REDRAWN else self.beside]


SCALES = {
    # What every verdict rests on: a look. Intervals are over seeds, and what a seed draws (arbitrary answers, a
    # permutation, a pool) varies more than its queries do.
    "smoke": Scale(
        parts=("fast", "functions", "synonyms"), shots=8, limit=10, seeds=tuple(range(7)), functions=6, draws=4
    ),
    # So many seeds tell a planted selector, learner and composer apart nine times in ten, ten seeds do not
    # (docs/results/power.md); tables and curves beside the verdicts do with fewer.
    "medium": Scale(shots=16, limit=32, seeds=tuple(range(20)), functions=15, draws=8, redrawn=10, beside=3),
    "full": Scale(shots=32, limit=256, seeds=tuple(range(20)), functions=500, draws=250, over=500),
}
"""``full`` is as published by Li et al. 2024, as far as that is known."""
