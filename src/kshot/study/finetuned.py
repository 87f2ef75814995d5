"""The learning rate of the paper's fine-tuning: as published, on the very queries that are scored, and corrected.

Dai et al. 2023, section 4.1 and appendix: one pass of SGD over the demonstrations with each of 36 rates, the one with
the best accuracy on the evaluation split is kept. Corrected, it is chosen on training examples that are no
demonstrations; what the first seems to gain by looking at the answers is its optimism. Both are searched by successive
halving over the examples that are asked, since a pass over the demonstrations cannot be cut short.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool

from kshot.adapt.descent import one_pass
from kshot.data.predictions import Predictions
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import MethodError, NumericError
from kshot.measure.calibrate import token_length_normalized
from kshot.measure.scoring import score
from kshot.model.adapted import Adapted
from kshot.model.delta import NO_CHANGE, Delta
from kshot.model.lm import LM
from kshot.seeds import stream

# {1 .. 9} x {0.1, 0.01, 0.001, 0.0001}
GRID = tuple(round(digit * 10.0**-place, 12) for place in (1, 2, 3, 4) for digit in range(1, 10))


# After these shares of the examples the worse half of the rates is given up.
_ROUNDS = (0.25, 0.5)

# Weights after a pass are kept for the next round as long as they take no more; others are made again, to the bit.
_KEPT_BYTES = 2_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """The rates that were tried and the share of right answers with each: on the scored queries, and on validation.

    None where a rate diverged or was given up on the way. ``published`` and ``corrected`` are those chosen on the one and on the other, the
    smallest of equals, and ``optimism`` is what the first seems to gain on the scored queries over the second.
    """

    tried: tuple[float, ...]
    on_queries: tuple[float | None, ...]
    on_validation: tuple[float | None, ...]
    published: float
    corrected: float

    @property
    def optimism(self) -> float:
        found = dict(zip(self.tried, self.on_queries, strict=True))
        one, other = found[self.published], found[self.corrected]
        assert one is not None
        assert other is not None
        return one - other


def right_answers(
    lm: LM,
    task: Task,
    template: Template,
    queries: Sequence[Example],
    delta: Delta = NO_CHANGE,
    *,
    keep: Callable[[Predictions], None] | None = None,
    **shown: Any,
) -> Bool[np.ndarray, "q"]:
    """Whether each query is answered right: the candidate with the best mean log-probability of its tokens.

    That is the published rule. ``shown`` are further fields of the Adapted, as demonstrations and their prefix; ``keep``
    gets the answers themselves.
    """
    adapted = Adapted(lm=lm, template=template, delta=delta, kind=task.kind, labels=task.labels, **shown)
    predictions = score(adapted, task, queries, overlength="error", calibration=False).predictions
    table = token_length_normalized(predictions)
    assert table is not None
    if keep is not None:
        keep(predictions)
    return table.argmax(axis=1) == predictions.gold


def rates(
    lm: LM,
    task: Task,
    template: Template,
    demonstrations: Sequence[Example],
    asked: tuple[Sequence[Example], Sequence[Example]],
    *,
    grid: Sequence[float] = GRID,
    watch: Callable[[str], None] | None = None,
) -> Rates:
    """Every rate of the grid tried; ``asked`` are the scored queries and the validation examples.

    Each fit answers both, so nothing is fitted twice; after a quarter and a half of the examples (drawn, the same for
    every rate) those that are in the better half by neither are given up. MethodError where every rate diverges, or
    there is no validation.
    """
    if not asked[1]:
        raise MethodError(f"task {task.name!r} leaves no training examples for the choice of a learning rate")
    drawn = [[own[i] for i in stream(0, "rate-search", len(own)).permutation(len(own))] for own in asked]
    fits = _Fits(lambda rate: one_pass(lm, task, template, demonstrations, rate).delta)
    right: dict[float, tuple[list[bool], list[bool]]] = {rate: ([], []) for rate in grid}
    for share in (*_ROUNDS, 1.0):
        for i, rate in enumerate(list(right)):
            if watch is not None:
                watch(f"learning rate {rate:g}, {i + 1} of {len(right)}, {share:.0%} of the examples")
            new = [own[len(had) : math.ceil(share * len(own))] for own, had in zip(drawn, right[rate], strict=True)]
            try:
                found = right_answers(lm, task, template, [*new[0], *new[1]], fits.of(rate)).tolist()
            except (MethodError, NumericError):
                del right[rate]
                continue
            right[rate][0].extend(found[: len(new[0])])
            right[rate][1].extend(found[len(new[0]) :])
        if not right:
            raise MethodError(
                f"fine-tuning on the demonstrations diverged at every rate from {min(grid):g} to {max(grid):g}"
            )
        if share < 1:
            better = {rate for which in (0, 1) for rate in _ranked(right, which)[: math.ceil(len(right) / 2)]}
            right = {rate: own for rate, own in right.items() if rate in better}
            fits.only(right)
    return Rates(
        tried=tuple(grid),
        on_queries=tuple(_share(right[rate][0]) if rate in right else None for rate in grid),
        on_validation=tuple(_share(right[rate][1]) if rate in right else None for rate in grid),
        published=_ranked(right, 0)[0],
        corrected=_ranked(right, 1)[0],
    )


def _ranked(right: Mapping[float, tuple[list[bool], list[bool]]], which: int) -> list[float]:
    """The rates, the best first, of equals the smallest."""
    return sorted(right, key=lambda rate: (-_share(right[rate][which]), rate))


def _share(right: Sequence[bool]) -> float:
    return sum(right) / len(right)


@dataclass(slots=True, eq=False)
class _Fits:
    """The weights after a pass at each rate, kept while there is room."""

    fit: Callable[[float], Delta]
    kept: dict[float, Delta] = field(default_factory=dict)

    def of(self, rate: float) -> Delta:
        if rate in self.kept:
            return self.kept[rate]
        delta = self.fit(rate)
        if sum(own.nbytes for own in self.kept.values()) + delta.nbytes <= _KEPT_BYTES:
            self.kept[rate] = delta
        return delta

    def only(self, rates: Collection[float]) -> None:
        """Let go of the others."""
        self.kept = {rate: delta for rate, delta in self.kept.items() if rate in rates}
