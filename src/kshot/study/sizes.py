"""How much an explanation asks, by the name of a size."""

from dataclasses import dataclass
from typing import Literal

from kshot.study.attributed import Effort
from kshot.study.finetuned import GRID


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is asked: demonstrations, queries, validation examples, the rates tried (one: it is given), and effort.

    ``controls`` and layer-causal descent are asked so many of the queries, the first ones (None: all). ``layer_causal``
    demonstrations are learned from token by token, each step as dear as a pass over the text so far.
    Of ``attributed`` queries of all tasks together each task has its part, and no fewer than the effort says: ranks are
    compared over enough of them, and few tasks are asked more of each. ``as_published``: a task that was published stands in its published layout. ``capped``: and has no more
    demonstrations than were published for it.
    """

    shots: int
    limit: int | Literal["all"]
    validation: int
    grid: tuple[float, ...]
    effort: Effort
    controls: int | None = None
    layer_causal: int = 8
    attributed: int | None = None
    as_published: bool = True
    capped: bool = True


SIZES = {
    "smoke": Size(
        shots=8, limit=30, validation=0, grid=(0.005,), effort=Effort(queries=2, pairs=2, orders=12), layer_causal=2
    ),
    "medium": Size(
        shots=32,
        limit=100,
        validation=100,
        grid=GRID,
        effort=Effort(queries=6, pairs=2, orders=16),
        controls=24,
        attributed=36,
    ),
    "full": Size(shots=32, limit="all", validation=200, grid=GRID, effort=Effort(queries=100, pairs=16, orders=120)),
}
