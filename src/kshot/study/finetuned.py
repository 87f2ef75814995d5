"""The learning rate of the paper's fine-tuning: as published, on the very queries that are scored, and corrected.

Dai et al. 2023, section 4.1 and appendix: one pass of SGD over the demonstrations with each of 36 rates, the one with
the best accuracy on the evaluation split is kept. Corrected, it is chosen on training examples that are no
demonstrations; what the first seems to gain by looking at the answers is its optimism.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from kshot.adapt.descent import one_pass
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import MethodError, NumericError
from kshot.measure.calibrate import token_length_normalized
from kshot.measure.scoring import score
from kshot.model.adapted import Adapted
from kshot.model.delta import NO_CHANGE, Delta
from kshot.model.lm import LM

# {1 .. 9} x {0.1, 0.01, 0.001, 0.0001}
GRID = tuple(round(digit * 10.0**-place, 12) for place in (1, 2, 3, 4) for digit in range(1, 10))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """The rates that were tried and how many answers were right with each: on the scored queries, and on validation.

    None where a rate diverged. ``published`` and ``corrected`` are those chosen on the one and on the other, the
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
    lm: LM, task: Task, template: Template, queries: Sequence[Example], delta: Delta = NO_CHANGE, **shown: Any
) -> Bool[np.ndarray, "q"]:
    """Whether each query is answered right: the candidate with the best mean log-probability of its tokens.

    That is the published rule. ``shown`` are further fields of the Adapted, as demonstrations and their prefix.
    """
    adapted = Adapted(lm=lm, template=template, delta=delta, kind=task.kind, labels=task.labels, **shown)
    predictions = score(adapted, task, queries, overlength="error").predictions
    table = token_length_normalized(predictions)
    assert table is not None
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

    Each fit answers both, so nothing is fitted twice. MethodError where every rate diverges, or there is no validation.
    """
    queries, validation = asked
    if not validation:
        raise MethodError(f"task {task.name!r} leaves no training examples for the choice of a learning rate")
    found: list[tuple[float | None, float | None]] = []
    for i, rate in enumerate(grid):
        if watch is not None:
            watch(f"learning rate {i + 1} of {len(grid)}")
        try:
            delta = one_pass(lm, task, template, demonstrations, rate).delta
            right = right_answers(lm, task, template, [*queries, *validation], delta)
            found.append((float(right[: len(queries)].mean()), float(right[len(queries) :].mean())))
        except (MethodError, NumericError):
            found.append((None, None))
    if all(own is None for own, _ in found):
        raise MethodError(
            f"fine-tuning on the demonstrations diverged at every rate from {min(grid):g} to {max(grid):g}"
        )
    on_queries, on_validation = ([pair[i] for pair in found] for i in (0, 1))
    return Rates(
        tried=tuple(grid),
        on_queries=tuple(on_queries),
        on_validation=tuple(on_validation),
        published=_best(grid, on_queries),
        corrected=_best(grid, on_validation),
    )


def _best(grid: Sequence[float], accuracies: Sequence[float | None]) -> float:
    known = [(-accuracy, rate) for rate, accuracy in zip(grid, accuracies, strict=True) if accuracy is not None]
    return min(known)[1]
