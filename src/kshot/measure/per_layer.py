"""Numbers of every query and layer, which of them mean something, and their mean with its interval."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from kshot.measure.intervals import RESAMPLES
from kshot.seeds import stream


@dataclass(frozen=True, slots=True)
class PerLayer:
    """A number for every query and layer; ``values`` hold no NaN, and mean something only where ``defined``.

    ``left_out`` comparisons (of single heads, where there are) are undefined. Of the ``pairs`` of entries within the
    maps of a rank correlation, ``tied`` are equal.
    """

    values: Float[np.ndarray, "q l"]
    defined: Bool[np.ndarray, "q l"]
    left_out: int
    tied: int = 0
    pairs: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """A mean and its interval, over layers and of each; ``n`` queries have a number, ``left_out`` cells (q, l) none.

    ``each`` is the mean of every query over the layers in which it has a number; None where that is none.
    """

    value: float | None
    low: float | None
    high: float | None
    layers: tuple[float | None, ...]
    layer_low: tuple[float | None, ...]
    layer_high: tuple[float | None, ...]
    n: int
    left_out: int
    each: tuple[float | None, ...]
    reason: str | None = None


def layered(values: np.ndarray, defined: np.ndarray, **counts: int) -> PerLayer:
    """Values with their mask; what is undefined is 0 and counted."""
    return PerLayer(np.where(defined, values, 0.0), defined, int((~defined).sum()), **counts)


def table_of(rows: Sequence[Sequence[float] | np.ndarray]) -> np.ndarray:
    """Rows as a float64 table, of no rows and columns where there is nothing."""
    return np.array(rows, dtype=np.float64) if len(rows) else np.zeros((0, 0))


def summary(values: Float[np.ndarray, "q l"], seed: int, *, defined: Bool[np.ndarray, "q l"] | None = None) -> Summary:
    """The mean over queries and then layers, that of each layer, and 95 % intervals over queries, in the same units.

    Formula: per layer the mean over defined queries, then over layers that have one. Of 9999 resamples of queries, each
    with all its layers, the middle 95 % (percentile bootstrap, Efron 1979). Rows are sorted first: the order of queries
    changes nothing. No interval for fewer than two queries; it knows nothing of the choice of demonstrations.
    """
    there = np.ones(values.shape, dtype=bool) if defined is None else defined
    table = np.hstack([np.where(there, values, 0.0), there]).astype(np.float64)
    sums, counts = (part.sum(axis=1) for part in np.hsplit(table, 2))
    each = _known(np.divide(sums, counts, out=np.full(len(table), np.nan), where=counts > 0))
    table = table[there.any(axis=1)]
    n, left_out = len(table), int((~there).sum())
    if n == 0:
        none = (None,) * values.shape[1]
        return Summary(None, None, None, none, none, none, 0, left_out, each, "no query has a value in any layer")
    table = table[np.lexsort(table.T)]
    found = _means(np.ones((1, n)), table)[0]
    ends = np.full((2, len(found)), np.nan)
    if n > 1:
        seen = ~np.isnan(found)
        drawn = np.concatenate([_means(weights, table)[:, seen] for weights in _resamples(n, seed)])
        # The same numbers, many times sooner where there is nothing to leave out.
        percentile = np.nanpercentile if np.isnan(drawn).any() else np.percentile
        ends[:, seen] = percentile(drawn, [2.5, 97.5], axis=0)
    mean, low, high = map(_known, (found, *ends))
    return Summary(mean[0], low[0], high[0], mean[1:], low[1:], high[1:], n, left_out, each)


def _resamples(n: int, seed: int) -> Iterator[np.ndarray]:
    rng = stream(seed, "summary")
    for count in [500] * (RESAMPLES // 500) + [RESAMPLES % 500]:  # all at once would not fit for many queries
        places = rng.integers(n, size=(count, n)) + n * np.arange(count)[:, None]
        yield np.bincount(places.ravel(), minlength=count * n).reshape(count, n).astype(np.float64)


def _means(weights: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Weighted means, a resample a row: over all layers, then of each; NaN in a layer without a value."""
    values, defined = np.hsplit(weights @ table, 2)
    layers = np.divide(values, defined, out=np.full(values.shape, np.nan), where=defined > 0)
    return np.column_stack([np.nanmean(layers, axis=1), layers])


def _known(values: np.ndarray) -> tuple[float | None, ...]:
    return tuple(None if np.isnan(v) else float(v) for v in values)
