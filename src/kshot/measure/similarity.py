"""Does in-context learning act as fine-tuning does? Three runs on the same queries (Dai et al. 2023, section 4).

``zsl`` is zero-shot, ``ft`` fine-tuned with the zero-shot prompt, ``icl`` in-context: compared as published, and as the
critique has it (Deutch et al. 2024). Arrays of any float type; everything is in float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from kshot.measure.intervals import wilson
from kshot.measure.per_layer import PerLayer, layered, table_of
from kshot.seeds import stream

ROUNDING = 1e-6  # two runs that differ by less, relative to their length, differ by the rounding of float32

Outputs = Float[np.ndarray, "q l e"]
HeadMaps = Sequence[Float[np.ndarray, "l h _"]]
_Directions = tuple[np.ndarray, np.ndarray]  # vectors of length 1 along the last axis, and which of them have one


@dataclass(frozen=True, slots=True)
class Recovered:
    """A share of ``n`` queries, its Wilson interval, and what chance gives; ``wrong``: zero-shot's wrong answers."""

    value: float | None
    low: float | None
    high: float | None
    expected: float | None
    n: int
    wrong: int
    reason: str | None = None


def rec2ftp(
    zsl_right: Bool[np.ndarray, "q"], ft_right: Bool[np.ndarray, "q"], icl_right: Bool[np.ndarray, "q"]
) -> Recovered:
    """The share of the queries corrected by fine-tuning that in-context learning corrects too, in [0, 1].

    Claim: in-context learning covers most of what fine-tuning learns (Dai et al. 2023, section 4.2).
    Formula: #(FT right, ZSL wrong, ICL right) / #(FT right, ZSL wrong); Wilson's interval.
    Null: ``expected`` = #(ICL right, ZSL wrong) / #(ZSL wrong). All counts are of queries that zero-shot has wrong: if
        FT and ICL are independent there, P(ICL right | FT right, ZSL wrong) = P(ICL right | ZSL wrong). ICL's accuracy
        on all queries would not do: it also counts those that zero-shot has right.
    Departures: a share, not a percentage. The paper has no null.
    Known problems: whatever is right often scores high: read ICL's accuracy on all queries beside it. Queries that are
        easy for both raise it above ``expected``. Where fine-tuning corrects everything the two are equal.
    """
    wrong = ~zsl_right
    n, hits = int((wrong & ft_right).sum()), int((wrong & ft_right & icl_right).sum())
    expected = float(icl_right[wrong].mean()) if wrong.any() else None
    interval = wilson(hits, n)
    if interval is None:
        reason = "fine-tuning corrected no query" if wrong.any() else "zero-shot has no query wrong"
        return Recovered(None, None, None, expected, n, int(wrong.sum()), reason)
    return Recovered(hits / n, *interval, expected, n, int(wrong.sum()))


@dataclass(frozen=True, slots=True)
class Repeated:
    """A share of ``n`` queries, its Wilson interval, and what chance gives."""

    value: float | None
    low: float | None
    high: float | None
    expected: float | None
    n: int


def repeatability(once: Bool[np.ndarray, "q"], again: Bool[np.ndarray, "q"]) -> Repeated:
    """The share of queries answered alike, right or wrong, by fine-tuning begun a rounding away, in [0, 1].

    Claim: where fine-tuning ends is what its demonstrations and its rate make of the weights, not how numbers are rounded.
    Formula: #(right in both, or wrong in both) / #; Wilson's interval. ``again`` is the same pass from weights moved by
        up to one unit in the last place of float32 (``descent.one_pass``).
    Null: 1 where the pass repeats. ``expected`` = p p' + (1 - p)(1 - p'), p and p' the shares of right answers: two passes
        that have nothing to do with each other.
    Departures: ours; the papers ask it of no pass, and another processor rounds otherwise.
    Known problems: one other rounding is one draw. Wrong answers may differ and count as alike. A pass after which one
        label is always said repeats, and says nothing.
    """
    n, alike = len(once), int((once == again).sum())
    interval = wilson(alike, n)
    if interval is None:
        return Repeated(None, None, None, None, n)
    p, q = float(once.mean()), float(again.mean())
    return Repeated(alike / n, *interval, p * q + (1 - p) * (1 - q), n)


def sim_aou(icl: Outputs, zsl: Outputs, ft: Outputs, *, normalised: bool, rounding: float = ROUNDING) -> PerLayer:
    """SimAOU: the cosine of the two updates of the attention output, in [-1, 1], per query and layer.

    h is what self-attention says at one position, after its output projection and before the residual.

    Claim: in-context learning moves attention outputs in the direction fine-tuning does (Dai et al. 2023, section 4.2).
    Formula: cos(h_ICL - h_ZSL, h_FT - h_ZSL). ``normalised`` (published): each h divided by its L2 norm beforehand.
    Null: raw ``sim_aou_raw_null``; normalised ``sim_aou_null``, which is not 0; published ``sim_aou_published_null``.
    Departures: an update no longer than ``rounding`` times the longer h has no direction, and is left out.
    Known problems: normalised, both updates hold a piece of -h_ZSL, so unrelated ones agree (Deutch et al. 2024,
        section 3.1). Raw, both may share a direction that no learning made: compare with untrained models.
    """
    return layered(*_cosines(_update(icl, zsl, normalised, rounding), _update(ft, zsl, normalised, rounding)))


def sim_aou_published_null(
    icl: Outputs, zsl: Outputs, seed: int, *, normalised: bool = True, rounding: float = ROUNDING
) -> PerLayer:
    """The baseline of the published code: FT's update replaced by i.i.d. noise, uniform on [0, 1).

    Near sqrt(3)/2 times the cosine of ICL's update with the vector of ones; it says nothing of the normalisation.
    """
    noise = stream(seed, "sim-aou-published-null").random(icl.shape)
    return layered(*_cosines(_update(icl, zsl, normalised, rounding), _unit(noise)))


def sim_aou_null(icl: Outputs, zsl: Outputs, ft: Outputs, *, rounding: float = ROUNDING) -> PerLayer:
    """Normalised SimAOU of unrelated updates of the observed lengths, in [0, 1/2), defined where ``sim_aou`` is.

    (1/2) sqrt((1 - 1/s1)(1 - 1/s2)), s = sqrt(1 + |r|^2 / |z|^2), with z = h_ZSL and the raw updates r = h_ICL - z and
    h_FT - z: the cosine where both are orthogonal to z and to each other, as random directions nearly are in high
    dimension. 1/4 where |r|^2 = 3 |z|^2 (Deutch et al. 2024, section 3.1). Real updates may lie along z instead.
    """
    z = np.maximum(_norm(zsl), 1e-100)
    one, other = (1 - 1 / np.sqrt(1 + (_norm(run, zsl) / z) ** 2) for run in (icl, ft))
    return layered(np.sqrt(one * other) / 2, sim_aou(icl, zsl, ft, normalised=True, rounding=rounding).defined)


def sim_aou_aligned_null(
    icl: Outputs, zsl: Outputs, ft: Outputs, *, normalised: bool = True, rounding: float = ROUNDING
) -> PerLayer:
    """SimAOU of updates that keep what they have along z = h_ZSL, and are unrelated beside it; defined as ``sim_aou``.

    Normalised (1/2) sqrt((1 - c1)(1 - c2)) with c = cos(h_run, z), raw cos(r1, z) cos(r2, z): the cosine where the parts
    orthogonal to z are orthogonal to each other. The null of ``sim_aou_null`` has r orthogonal to z; real updates may
    shrink, stretch or turn z itself, and two runs that do agree by that alone.
    """
    defined = sim_aou(icl, zsl, ft, normalised=normalised, rounding=rounding).defined
    z, _ = _unit(zsl)
    runs = (_unit(run)[0] if normalised else _unit(run.astype(np.float64) - zsl)[0] for run in (icl, ft))
    one, other = ((run * z).sum(axis=-1) for run in runs)
    null = np.sqrt(np.maximum(1 - one, 0.0) * np.maximum(1 - other, 0.0)) / 2 if normalised else one * other
    return layered(null, defined)


def sim_aou_simulated_null(
    icl: Outputs, zsl: Outputs, ft: Outputs, *, seed: int, normalised: bool = True, rounding: float = ROUNDING
) -> PerLayer:
    """SimAOU of one draw per query and layer: both updates keep their lengths and get random directions.

    Uniform on the sphere, so uncorrelated with h_ZSL and with each other: the normalised mean tends to ``sim_aou_null``
    with an error of order 1 / e, the raw one has ``sim_aou_raw_null``.
    """
    drawn = []
    for run, name in ((icl, "icl"), (ft, "ft")):
        direction, _ = _unit(stream(seed, "sim-aou-null", name).standard_normal(zsl.shape))
        drawn.append(zsl + _norm(run, zsl)[..., None] * direction)
    return sim_aou(drawn[0], zsl, drawn[1], normalised=normalised, rounding=rounding)


def sim_aou_raw_null(width: int) -> tuple[float, float]:
    """Mean and standard deviation of raw SimAOU of a random direction: 0 and 1 / sqrt(e) for a width of e.

    For one query and layer: queries share directions, so their mean has more than 1 / sqrt(q) of it.
    """
    return 0.0, float(width**-0.5)


def sim_am(a: HeadMaps, b: HeadMaps) -> PerLayer:
    """SimAM: the cosine of two attention maps over the tokens of the query text, mean over heads, in [-1, 1].

    For each query an array of scores before the softmax from one position, (l, h, its tokens), no demonstrations.

    Claim: in-context learning looks at the query text more as the model does after fine-tuning than as it did before
        (Dai et al. 2023, section 4.2): cos(m_ICL, m_FT) > cos(m_ICL, m_ZSL).
    Formula: per query and layer, mean over heads of cos(m_a, m_b), each over tokens.
    Null: the paper's is "before fine-tuning", cos(m_ICL, m_ZSL); ``sim_am_permuted`` what agrees without places.
    Departures: heads whose map is all zeros are left out of the mean and counted.
    Known problems: it compares maps, not updates: mostly it tells how far fine-tuning has drifted, which its learning
        rate decides (Deutch et al. 2024). Scores are not centred: a common offset agrees with everything.
    """
    return _over_heads([_cosines(_unit(x), _unit(y)) for x, y in zip(a, b, strict=True)])


def sim_am_delta(icl: HeadMaps, zsl: HeadMaps, ft: HeadMaps, *, rounding: float = ROUNDING) -> PerLayer:
    """SimAM-delta: the cosine of the two updates of the attention map, mean over heads, in [-1, 1]; as ``sim_am``.

    Claim: in-context learning moves attention maps in the direction fine-tuning does (Deutch et al. 2024).
    Formula: per query and layer, mean over heads of cos(m_ICL - m_ZSL, m_FT - m_ZSL), each over tokens.
    Null: 0 for unrelated updates of mean zero; that of an untrained model; the differences in ``sim_am_permuted``.
    Departures: a head whose update is no longer than ``rounding`` times the longer map is left out and counted.
    Known problems: with relative positions the first layer's scores within the query text are the same in ICL and ZSL,
        and ICL's update there is rounding: in half precision give a greater ``rounding``. Offsets agree, as in SimAM.
    """
    runs = zip(icl, zsl, ft, strict=True)
    return _over_heads([_cosines(_update(x, z, False, rounding), _update(y, z, False, rounding)) for x, z, y in runs])


def sim_am_permuted(a: HeadMaps, b: HeadMaps, seed: int) -> PerLayer:
    """SimAM with the tokens of ``b`` permuted: what agrees without places. One permutation per query, by its index."""
    orders = [stream(seed, "sim-am-permuted", i).permutation(own.shape[-1]) for i, own in enumerate(b)]
    return sim_am(a, [own[..., order] for own, order in zip(b, orders, strict=True)])


def _norm(run: np.ndarray, base: np.ndarray | float = 0.0) -> np.ndarray:
    apart = run.astype(np.float64) - base
    return np.sqrt(np.einsum("...e,...e->...", apart, apart))


def _unit(x: np.ndarray) -> _Directions:
    length = _norm(x)
    return x / np.where(length > 0, length, 1.0)[..., None], length > 0


def _update(run: np.ndarray, base: np.ndarray, normalised: bool, rounding: float) -> _Directions:
    real: np.ndarray | bool = True
    if normalised:
        (run, one), (base, other) = _unit(run), _unit(base)
        real = one & other
    far = _norm(run, base) > rounding * np.maximum(_norm(run), _norm(base))
    return _unit(run.astype(np.float64) - base)[0], far & real


def _cosines(a: _Directions, b: _Directions) -> tuple[np.ndarray, np.ndarray]:
    defined = a[1] & b[1]
    return np.where(defined, np.clip(np.einsum("...e,...e->...", a[0], b[0]), -1.0, 1.0), 0.0), defined


def _over_heads(cosines: Sequence[tuple[np.ndarray, np.ndarray]]) -> PerLayer:
    heads = table_of([defined.sum(axis=-1) for _, defined in cosines])
    sums = table_of([own.sum(axis=-1) for own, _ in cosines])
    left_out = sum(int((~defined).sum()) for _, defined in cosines)
    return PerLayer(sums / np.maximum(heads, 1), heads > 0, left_out)
