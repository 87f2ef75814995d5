"""How sure a number is: over test examples (Wilson), over seeds (Student's t, bootstrap), and between two methods (McNemar, permutation)."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import signal, stats

from kshot.seeds import stream

RESAMPLES = 9999

FEW = 20
"""Resamples of fewer values are no interval of their mean."""

# Beyond so many places convolving directly takes seconds; by Fourier it is as exact as 1e-16, absolute.
_MANY = 20_000


def wilson(
    successes: int | float | np.integer, n: int | np.integer, confidence: float = 0.95
) -> tuple[float, float] | None:
    """The interval of a share of ``n`` test examples: ``(low, high)`` in [0, 1]; None for no examples.

    ``successes`` need not be whole: the mean accuracy over seeds, times n, is meant too.

    Claim: covers the accuracy on all such examples in about ``confidence`` of the samples of n examples.
    Formula: with p = successes / n and z the normal quantile of (1 + confidence) / 2,
        (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n) (Wilson 1927; no continuity correction).
    Null: all shares that a z-test would not reject; its width shrinks as 1 / sqrt(n).
    Departures: equal to scipy's ``binomtest(...).proportion_ci(method="wilson")`` where successes is whole; written
        out because that one takes nothing else.
    Known problems: about the choice of test examples only: demonstrations, seeds and templates vary besides, and the
        examples are taken to be independent. For a mean over seeds it is the interval of one run with that accuracy.
    """
    if n == 0:
        return None
    assert 0 <= successes <= n, f"{successes} successes of {n}"
    z2 = float(stats.norm.ppf((1 + confidence) / 2)) ** 2
    share = float(successes) / int(n)
    centre = share + z2 / (2 * n)
    reach = np.sqrt(z2 * share * (1 - share) / n + (z2 / (2 * n)) ** 2)
    low, high = (centre - reach) / (1 + z2 / n), (centre + reach) / (1 + z2 / n)
    # At the ends the bound is the share itself, which rounding must not step over.
    return max(0.0, min(float(low), share)), min(1.0, max(float(high), share))


def mean_interval(
    values: Float[np.ndarray, "n"],
    seed: int = 0,
    confidence: float = 0.95,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> tuple[float, float] | None:
    """The interval of a mean over seeds, queries or texts: ``(low, high)``; None for fewer than two values.

    In the units of ``values``, and cut to what these can be (``within``).

    Claim: where the mean over all seeds (queries, texts) lies, judged from these.
    Formula: of FEW values or more bias-corrected and accelerated bootstrap of the mean, 9999 resamples (Efron 1987;
        scipy.stats.bootstrap); of fewer mean +- t sd / sqrt(n), Student's t of n - 1 degrees of freedom.
    Null: (v, v) where all values are v.
    Departures: resamples of a handful of values are too alike: an interval of 95 % from them covers 52 % for two values
        and 87 % for six. BCa divides 0 by 0 where the values do not vary; they are their own interval then, which is
        what the percentile bootstrap says. Values are sorted first, so the order in which seeds ran changes nothing.
    Known problems: of three seeds t is 4.3 and of two 12.7, which is as little as they say. Values far from normal are
        covered less often. An interval over seeds knows nothing of the choice of test examples.
    """
    if len(values) < 2:
        return None
    values = np.sort(values)
    least, greatest = float(values[0]), float(values[-1])
    # Differences that are rounding alone would make the acceleration 0/0 as well.
    if greatest - least <= 1e-12 * max(1.0, abs(least), abs(greatest)):
        return least, greatest
    if len(values) < FEW:
        mean = float(values.mean())
        half = (
            float(stats.t.isf((1 - confidence) / 2, len(values) - 1)) * float(values.std(ddof=1)) / len(values) ** 0.5
        )
        return max(within[0], mean - half), min(within[1], mean + half)
    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=confidence,
        method="BCa",
        rng=stream(seed, "bootstrap"),
    ).confidence_interval
    return float(found.low), float(found.high)


def mcnemar(right_a: Bool[np.ndarray, "q"], right_b: Bool[np.ndarray, "q"]) -> dict[str, Any] | None:
    """Two methods on the same queries: ``{n, only_a, only_b, difference, p}``; None for no queries.

    ``only_a`` counts the queries that a alone has right; ``difference`` is a's accuracy less b's; ``p`` is two-sided.

    Claim: a and b are right equally often on such queries; p is the chance of a split at least as uneven if so.
    Formula: p = P(|X - m/2| >= |only_a - m/2|), X ~ Binomial(m, 1/2), m = only_a + only_b (McNemar 1947, exact form).
    Null: p is at least as great as uniform on [0, 1]; 1 where the two never disagree.
    Departures: exact, without chi-square or mid-p. With m = 0 the only possible split was seen, so p is 1.
    Known problems: conservative for small m (m < 6 can never reach 0.05). One run of each method: it says nothing
        about other demonstrations or seeds, and p-values of several seeds on the same queries are not independent.
    """
    n = len(right_a)
    if n == 0:
        return None
    only_a, only_b = int(np.sum(right_a & ~right_b)), int(np.sum(right_b & ~right_a))
    unlike = only_a + only_b
    p = float(stats.binomtest(only_a, unlike, 0.5).pvalue) if unlike else 1.0
    return {"n": n, "only_a": only_a, "only_b": only_b, "difference": (only_a - only_b) / n, "p": p}


def paired_permutation(differences: Int[np.ndarray, "s q"]) -> dict[str, Any] | None:
    """Two methods on the same queries over all seeds: ``{n, better, worse, p}``; None for no queries.

    ``differences`` is 1 where a alone is right in that seed, -1 where b alone is, 0 where neither or both are, or where
    they were not both asked. ``n`` counts queries, ``better`` those that a has right in more seeds than b, ``worse``
    those where b has; ``p`` is two-sided.

    Claim: a and b are right equally often on such queries, on average over these seeds; p is the chance of a total
        difference at least as great if so.
    Formula: with d_q the sum over seeds, p = P(|sum_q e_q d_q| >= |sum_q d_q|), e_q = +-1 independent and even: the
        sign of a query is flipped in all seeds together (permutation test of paired data, Fisher 1935; of clusters).
    Null: p is at least as great as uniform on [0, 1]; 1 where all d_q are 0. With one seed it is McNemar's exact test.
    Departures: nothing is drawn: the distribution of the sum is counted, queries of equal |d_q| together.
    Known problems: queries are taken to be independent of one another, seeds are not taken to be, and are these seeds
        only: it says nothing of other demonstrations or initialisations. Coarse where few queries differ.
    """
    seeds, queries = differences.shape
    if seeds == 0 or queries == 0:
        return None
    totals = differences.sum(axis=0).astype(np.int64)
    sizes = np.abs(totals)
    # position i of the law is the chance of a sum of i - reach, counted in steps of one
    law = np.ones(1)
    for size in range(1, int(sizes.max(initial=0)) + 1):
        number = int((sizes == size).sum())
        own = np.zeros(2 * size * number + 1)
        own[:: 2 * size] = stats.binom.pmf(np.arange(number + 1), number, 0.5) if number else 1.0
        law = np.convolve(law, own) if len(law) < _MANY else np.maximum(signal.fftconvolve(law, own), 0)
    reach = int(sizes.sum())
    far = np.abs(np.arange(2 * reach + 1) - reach) >= abs(int(totals.sum()))
    found = {"n": queries, "better": int((totals > 0).sum()), "worse": int((totals < 0).sum())}
    return {**found, "p": min(1.0, float(law[far].sum()))}


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in the same order: the chance of any false rejection among them is bounded.

    Formula: the i-th smallest of m times (m - i + 1), never below the one before, at most 1 (Holm 1979).
    """
    order = sorted(range(len(values)), key=lambda i: values[i])
    found, before = [0.0] * len(values), 0.0
    for rank, i in enumerate(order):
        before = found[i] = max(before, min(1.0, (len(values) - rank) * values[i]))
    return found
