"""Do in-context learning and fine-tuning rank the training tokens alike? (Dai et al. 2023, section 4.2)

Maps over the demonstrations' tokens, (l, tokens) for each query; arrays of any float type, everything in float64.
"""

from collections.abc import Callable, Sequence
from math import comb

import numpy as np
from jaxtyping import Float, Int
from scipy import special, stats

from kshot.measure.per_layer import PerLayer, layered, table_of
from kshot.seeds import stream

TokenMaps = Sequence[Float[np.ndarray, "l _"]]


def kendall(icl: TokenMaps, ft: TokenMaps, *, published: bool = False) -> PerLayer:
    """Kendall's tau-b of two maps over the demonstrations' tokens, in [-1, 1], per query and layer.

    For each query (l, tokens of the demonstrations): ``icl`` is the scores before the softmax from the last token,
    ``ft`` the last token's query vector in the fine-tuned model times those that the training tokens had while it was
    fine-tuned; both are summed over heads.

    Claim: in-context learning ranks the training tokens as fine-tuning does (Dai et al. 2023, section 4.2).
    Formula: tau-b(m_ICL, m_FT) (Kendall 1945). ``published``: of their softmax in float32.
    Null: ``kendall_null``; 0, with standard deviation sqrt(2 (2n + 5) / (9 n (n - 1))) for n tokens without ties.
    Departures: a softmax keeps the order, so the corrected form goes without it. Undefined where a map is all ties.
        The published code reads the first 100 queries, without start and end tokens: hand in those.
    Known problems: sums over heads differ by hundreds, so that float32 underflows into ties: see ``tied``. Tokens of a
        demonstration rank together: without effect it spreads more than for independent tokens.
    """
    if published:
        icl, ft = ([special.softmax(m.astype(np.float32), axis=-1) for m in maps] for maps in (icl, ft))
    taus = _each(lambda x, y: stats.kendalltau(x, y).statistic, icl, ft)
    pairs = 2 * sum(len(m) * comb(m.shape[1], 2) for m in icl)
    return layered(np.nan_to_num(taus), ~np.isnan(taus), tied=_ties(icl) + _ties(ft), pairs=pairs)


def kendall_null(icl: TokenMaps, seed: int, *, published: bool = False) -> PerLayer:
    """``kendall`` with FT's maps replaced by uniform noise on [0, 1): the paper's random baseline, near 0."""
    noise = [stream(seed, "kendall-null", i).random(own.shape) for i, own in enumerate(icl)]
    return kendall(icl, noise, published=published)


def demonstration_mass(
    maps: TokenMaps, demonstration: Int[np.ndarray, "t"], *, published: bool = False
) -> list[Float[np.ndarray, "l k"]]:
    """The softmaxed mass of each demonstration, (l, k) per query, in the order of the numbers in ``demonstration``.

    ``published``: the mass in float32. Otherwise its logarithm in float64: of the same order, without underflow.
    """
    own = [demonstration == k for k in np.unique(demonstration)]
    if published:
        shares = [special.softmax(m.astype(np.float32), axis=-1) for m in maps]
        return [np.stack([m[:, of].sum(axis=-1) for of in own], axis=-1) for m in shares]
    logs = [special.log_softmax(m.astype(np.float64), axis=-1) for m in maps]
    return [np.stack([special.logsumexp(m[:, of], axis=-1) for of in own], axis=-1) for m in logs]


def example_kendall(
    icl: TokenMaps, ft: TokenMaps, demonstration: Int[np.ndarray, "t"], *, published: bool = False
) -> PerLayer:
    """Kendall's tau-b of two maps over demonstrations, in [-1, 1], per query and layer; maps as in ``kendall``.

    Claim: in-context learning ranks the training examples as fine-tuning does (published code of Dai et al. 2023).
    Formula: tau-b of the ``demonstration_mass`` of both; ``demonstration`` is that of each token.
    Null: 0, with standard deviation sqrt(2 (2k + 5) / (9 k (k - 1))) for k demonstrations of one length.
    Departures: the corrected form compares logarithms of the mass in float64.
    Known problems: long demonstrations have more mass in both. FT's map is no attention: one token has nearly all mass.
    """
    return kendall(*(demonstration_mass(maps, demonstration, published=published) for maps in (icl, ft)))


def top_k_recall(icl: TokenMaps, ft: TokenMaps, k: int) -> PerLayer:
    """The share of the k greatest entries of FT's map that are among the k greatest of ICL's, in [0, 1].

    Maps as in ``kendall`` (the published code takes k = 100), or those of ``demonstration_mass`` (k = 5).

    Claim: in-context learning and fine-tuning look at the same training tokens (published code of Dai et al. 2023).
    Formula: |top_k(m_ICL) and top_k(m_FT)| / k, per query and layer.
    Null: k / n for n entries in random order.
    Departures: undefined where a map has no more than k entries: it would be 1 whatever they are.
    Known problems: of equal entries the earlier is taken, on both sides: maps with ties agree by that alone.
    """
    assert k > 0, f"the {k} greatest"
    best = [[np.argsort(-m, axis=-1, kind="stable")[:, :k] for m in maps] for maps in (icl, ft)]
    shares = _each(lambda x, y: len(np.intersect1d(x, y)) / k, *best)
    return layered(shares, table_of([np.full(len(m), m.shape[1] > k) for m in icl]) > 0)


def _each(measure: Callable[..., float], a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> np.ndarray:
    return table_of([[measure(*pair) for pair in zip(x, y, strict=True)] for x, y in zip(a, b, strict=True)])


def _ties(maps: TokenMaps) -> int:
    times = [np.unique(row, return_counts=True)[1] for scores in maps for row in scores]
    return sum(int((n * (n - 1) // 2).sum()) for n in times)
