"""Do in-context learning and fine-tuning rank the training tokens alike? (Dai et al. 2023, section 4.2)

Maps over the demonstrations' tokens, (l, tokens) for each query; arrays of any float type, everything in float64.
"""

from collections.abc import Sequence
from math import comb

import numpy as np
from jaxtyping import Bool, Float, Int, UInt
from scipy import special

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
        demonstration rank together: without effect it spreads more than for independent tokens. With rotary positions
        (the paper's models have none) FT's map also tells where its tokens stood: each demonstration in a text of its
        own, the query in another.
    """
    if published:
        icl, ft = ([special.softmax(m.astype(np.float32), axis=-1) for m in maps] for maps in (icl, ft))
    found = [_taus(x, y) for x, y in zip(icl, ft, strict=True)]
    taus = table_of([own for own, _ in found])
    pairs = 2 * sum(len(m) * comb(m.shape[1], 2) for m in icl)
    return layered(np.nan_to_num(taus), ~np.isnan(taus), tied=sum(tied for _, tied in found), pairs=pairs)


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
    if published:
        own = [demonstration == k for k in np.unique(demonstration)]
        shares = [special.softmax(m.astype(np.float32), axis=-1) for m in maps]
        return [np.stack([m[:, of].sum(axis=-1) for of in own], axis=-1) for m in shares]
    together = np.argsort(demonstration, kind="stable")
    _, begin, count = np.unique(demonstration[together], return_index=True, return_counts=True)
    return [_log_sums(special.log_softmax(m.astype(np.float64), axis=-1)[:, together], begin, count) for m in maps]


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
    shares = [_common(x, y, m.shape[1]) / k for x, y, m in zip(*best, icl, strict=True)]
    return layered(table_of(shares), table_of([np.full(len(m), m.shape[1] > k) for m in icl]) > 0)


def _common(one: Int[np.ndarray, "l _"], other: Int[np.ndarray, "l _"], n: int) -> Int[np.ndarray, "l"]:
    """How many of the places 0 to n - 1 are in both rows."""
    there = np.zeros((len(one), n), dtype=bool)
    np.put_along_axis(there, one, True, axis=1)
    return np.take_along_axis(there, other, axis=1).sum(axis=1)


def _log_sums(logs: Float[np.ndarray, "l t"], begin: Int[np.ndarray, "k"], count: Int[np.ndarray, "k"]) -> np.ndarray:
    """log sum exp of neighbouring tokens, ``count`` of them from ``begin`` on, (l, k)."""
    most = np.maximum.reduceat(logs, begin, axis=1)
    most = np.where(np.isneginf(most), 0.0, most)
    with np.errstate(divide="ignore"):
        return most + np.log(np.add.reduceat(np.exp(logs - np.repeat(most, count, axis=1)), begin, axis=1))


def _taus(x: Float[np.ndarray, "l t"], y: Float[np.ndarray, "l t"]) -> tuple[Float[np.ndarray, "l"], int]:
    """tau-b of every row, NaN where it has no order, and how many pairs are tied in x and in y.

    The statistic of scipy.stats.kendalltau to the bit, all rows in one go: that one takes ten times as long.
    """
    n = x.shape[1]
    by_x = np.argsort(x, axis=1)
    rising = np.take_along_axis(x, by_x, axis=1), np.sort(y, axis=1)
    again = [own[:, 1:] == own[:, :-1] for own in rising]
    ties = bool(again[0].any() or again[1].any())
    if ties:
        by_x = np.lexsort((y, x), axis=-1)
    in_turn = np.take_along_axis(y, by_x, axis=1)
    # Equal entries of y keep their order, and so do those of y within equal ones of x: neither counts as an inversion.
    discordant = _inversions(np.argsort(in_turn, axis=1, kind="stable" if ties else None))
    of_x, of_y, of_both = (_tied(own) for own in (*again, again[0] & (in_turn[:, 1:] == in_turn[:, :-1])))
    pairs = comb(n, 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        taus = (pairs - of_x - of_y + of_both - 2 * discordant) / np.sqrt(pairs - of_x) / np.sqrt(pairs - of_y)
    taus[np.isnan(x).any(axis=1) | np.isnan(y).any(axis=1)] = np.nan
    return np.clip(taus, -1.0, 1.0), int(of_x.sum() + of_y.sum())


def _tied(again: Bool[np.ndarray, "l _"]) -> Int[np.ndarray, "l"]:
    """Pairs of equal entries in sorted rows, from whether each entry but the first equals the one before."""
    place = np.arange(1, again.shape[1] + 1)
    begin = np.maximum.accumulate(np.where(again, 0, place), axis=1)
    return np.where(again, place - begin, 0).sum(axis=1)


def _inversions(orders: Int[np.ndarray, "l n"]) -> Int[np.ndarray, "l"]:
    """Pairs in the wrong order in each row, a permutation of 0 to n - 1.

    Places are cut into blocks of about sqrt(n), and numbers into ranges as wide: a table counts the pairs that are in
    two blocks and two ranges, and within a block or a range each number is compared with each.
    """
    rows, n = orders.shape
    width = 1 << (n.bit_length() + 1) // 2
    blocks = -(-n // width)
    # What fills the last block is greater than all before it.
    filled = np.tile(np.arange(blocks * width), (rows, 1))
    filled[:, :n] = orders
    ranges, within = np.divmod(filled, width)
    cells = (np.arange(rows)[:, None] * blocks + np.arange(blocks * width) // width) * blocks + ranges
    table = np.bincount(cells.ravel(), minlength=rows * blocks**2).reshape(rows, blocks, blocks)
    earlier = table.cumsum(axis=1) - table
    greater = earlier.sum(axis=2, keepdims=True) - earlier.cumsum(axis=2)
    small = np.min_scalar_type(width)
    by_range = np.argsort(ranges.astype(small), axis=1, kind="stable")
    alike = np.take_along_axis(within, by_range, axis=1)
    return (table * greater).sum(axis=(1, 2)) + sum(
        _compared(own.astype(small).reshape(rows, blocks, width)) for own in (ranges, alike)
    )


def _compared(values: UInt[np.ndarray, "l _ w"]) -> Int[np.ndarray, "l"]:
    """Pairs along the last axis of which the first is greater, over all blocks of a row; w fits the type."""
    rows, blocks, width = values.shape
    lines = np.moveaxis(values, 2, 0).reshape(width, -1)
    found = np.zeros(rows * blocks, dtype=np.int64)
    for apart in range(1, width):
        found += (lines[:-apart] > lines[apart:]).view(np.uint8).sum(axis=0, dtype=values.dtype)
    return found.reshape(rows, blocks).sum(axis=1)
