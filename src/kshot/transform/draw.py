"""Which examples of the pool stand before each query: new ones for every query, or the same for all."""

from typing import Literal

import numpy as np
from jaxtyping import Int

from kshot.errors import PromptError
from kshot.seeds import stream
from kshot.transform.written import Written

Protocol = Literal["redrawn", "fixed"]


def draw(written: Written, shots: int, seed: int, protocol: Protocol) -> Int[np.ndarray, "q k"]:
    """Rows of the pool, without repetition, in the order in which they are shown; of no query its own.

    ``redrawn``: for every query anew, as published by Li et al. 2024; ``fixed``: one draw, which all queries share.
    A query that stands in the pool is drawn for no other one either where the draw is shared. PromptError where the
    pool is too small.
    """
    rng = stream(seed, "drawn", written.name, protocol, shots)
    asked = {query.id for query in written.queries}
    allowed = np.array([i for i, piece in enumerate(written.pool) if piece.id not in asked], dtype=np.int64)
    if len(allowed) < shots:
        raise PromptError(
            f"task {written.name!r}: {shots} demonstrations were asked for and its pool has {len(allowed)}; ask fewer"
        )
    right = np.array([written.pool[i].shown == written.pool[i].gold for i in allowed], dtype=bool)
    count = 1 if protocol == "fixed" else len(written.queries)
    rows = [_row(allowed, right, written.right, shots, rng) for _ in range(count)]
    table = np.array(rows, dtype=np.int64).reshape(count, shots)
    return np.repeat(table, len(written.queries), axis=0) if protocol == "fixed" else table


def _row(
    allowed: Int[np.ndarray, "n"], right: np.ndarray, share: float | None, shots: int, rng: np.random.Generator
) -> Int[np.ndarray, "k"]:
    if share is None:
        return rng.choice(allowed, size=shots, replace=False)
    wanted = min(round(share * shots), int(right.sum()))
    wanted = max(wanted, shots - int((~right).sum()))
    parts = [
        rng.choice(allowed[own], size=size, replace=False) for own, size in ((right, wanted), (~right, shots - wanted))
    ]
    return rng.permutation(np.concatenate(parts))
