"""In-context learning seen as a weight change: how far the linear form holds, and what the change looks like.

Everything is of one layer and in float64. Keys, values and queries are those of ``kshot.measure.dual``: per head, after
rotary positions. The meta-gradient of a demonstration is its own term of dW_ICL, the sum of v_i k_i^T over its tokens.
``demonstration`` names the demonstration of every token, 0 to k - 1, or -1 for tokens of none (start token,
description), which are left out of dW_ICL.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kshot.measure.dual import linear_attention, weight_update
from kshot.seeds import stream

ValuesAndKeys = tuple[Float[Tensor, "g _ dv"], Float[Tensor, "g _ dk"]]

# A meta-gradient so much smaller than the greatest of its head, or a difference between queries so much smaller than
# what they have in common, is rounding and has no direction.
_NO_DIRECTION, _ROUNDING = 1e-7, 1e-12


def relaxed(
    query: Float[Tensor, "h q dk"],
    output: Float[Tensor, "h q dv"],
    demonstrations: ValuesAndKeys,
    texts: Sequence[ValuesAndKeys],
    *,
    seed: int = 0,
    draws: int = 20,
) -> tuple[Mapping[str, Any], ...] | None:
    """How near the linear form comes to what attention really says, per query head, beside permuted values.

    ``query`` and ``output`` are the query vectors and real outputs (before the output projection) of q texts after the
    demonstrations; ``texts[j]`` are the values and keys of text j, which ends with its query. They may come from the
    prompt with demonstrations, or from the one without (W_ZSL of the zero-shot pass), whose keys are then to be moved
    to where the text stands (``kshot.measure.dual.moved``); a start token stays where it is, and is given once, with
    the demonstrations. Each mapping holds ``scale``, ``cosine`` in [-1, 1], ``r2`` and ``r2_centred``; ``null_cosine``,
    ``null_r2`` and ``null_r2_centred``, each with ``_low`` and ``_high`` (mean, least and greatest over the draws);
    ``n``, the queries; ``left_out``, those without a direction; and ``reason``, why what is None is None. Returns None
    for no queries.

    Claim: attention behaves like its relaxed form, softmax and scaling dropped: (W_ZSL + dW_ICL) q (Dai et al. 2023,
        section 3, where the form is assumed).
    Formula: with a_j = (W_ZSL,j + dW_ICL) q_j and b_j the real output, ``scale`` = sum_j a_j.b_j / sum_j |a_j|^2;
        ``cosine`` = mean_j cos(a_j, b_j), without the scale; ``r2`` = 1 - sum_j |b_j - scale a_j|^2 / sum_j |b_j|^2;
        ``r2_centred`` is ``r2`` of a_j and b_j, each less its mean over queries, with a scale of its own.
    Null: the same with values dealt anew to the keys, among the demonstrations and within each text: queries, keys,
        their products and the mean value stay, what each key stands for is lost. Random query directions would be a
        laxer null: their cosine is 0 by symmetry, although a constant mean value already agrees with the output.
    Departures: the paper reports no agreement with the real output. The null is fitted its own scale.
    Known problems: outputs of a head share a mean, and one mean explains much of ``r2`` and nothing of ``r2_centred``.
        Both forget the sign of ``scale``: a negative one is agreement turned round. Softmax does not see a shift of all
        scores and the linear form does: where most are negative it turns values round, and cosines near -1 come up.
        ``r2_centred`` means little for fewer queries than the width of a head. Linear attention has no norm over
        tokens, so long texts weigh more in ``scale`` and ``r2``, not in ``cosine``.
    """
    count = query.shape[1]
    assert len(texts) == count, f"{len(texts)} texts for {count} queries"
    if not count:
        return None
    query, real = query.double(), output.double()
    found = _agreement(_linear(query, demonstrations, texts), real)
    nulls = []
    for draw in range(draws):
        shown = _dealt(demonstrations, stream(seed, "relaxed", draw))
        own = [_dealt(text, stream(seed, "relaxed", draw, j)) for j, text in enumerate(texts)]
        nulls.append(_agreement(_linear(query, shown, own), real))
    return tuple({**here, **_null([null[i] for null in nulls])} for i, here in enumerate(found))


def _linear(
    query: Float[Tensor, "h q dk"], demonstrations: ValuesAndKeys, texts: Sequence[ValuesAndKeys]
) -> Float[Tensor, "h q dv"]:
    values, keys = (part.double() for part in demonstrations)
    own = [linear_attention(v.double(), k.double(), query[:, j : j + 1]) for j, (v, k) in enumerate(texts)]
    return linear_attention(values, keys, query) + torch.cat(own, dim=1)


def _dealt(pair: ValuesAndKeys, rng: np.random.Generator) -> ValuesAndKeys:
    values, keys = pair
    return values[:, torch.from_numpy(rng.permutation(values.shape[1])).to(values.device)], keys


def _agreement(linear: Float[Tensor, "h q dv"], real: Float[Tensor, "h q dv"]) -> list[dict[str, Any]]:
    product, explained = _fitted(linear, real)
    _, centred = _fitted(_centred(linear), _centred(real))
    squared, total = linear.square().sum((1, 2)).tolist(), real.square().sum((1, 2)).tolist()
    lengths = linear.norm(dim=-1) * real.norm(dim=-1)
    found = []
    for i in range(len(squared)):
        seen = lengths[i] > 0
        cosines = (linear[i] * real[i]).sum(-1)[seen] / lengths[i][seen]
        defined = explained[i] is not None
        reasons = ["the linear form is zero"] * (not squared[i]) + ["the real output is zero"] * (not total[i])
        reasons += ["no query has both a linear form and a real output"] * (defined and not len(cosines))
        reasons += ["queries do not differ in what is said to them"] * (defined and centred[i] is None)
        found.append(
            {
                "scale": product[i] / squared[i] if defined else None,
                "cosine": float(cosines.mean()) if len(cosines) else None,
                "r2": explained[i],
                "r2_centred": centred[i],
                "n": real.shape[1],
                "left_out": int((~seen).sum()),
                "reason": "; ".join(reasons) or None,
            }
        )
    return found


def _fitted(a: Float[Tensor, "h q dv"], b: Float[Tensor, "h q dv"]) -> tuple[list[float], list[float | None]]:
    """a . b, and how much of b the multiple of a explains that is nearest to it; None where one of them is nothing."""
    product = (a * b).sum((1, 2)).tolist()
    squares = [tensor.square().sum((1, 2)).tolist() for tensor in (a, b)]
    both = zip(product, *squares, strict=True)
    return product, [None if not (aa and bb) else ab**2 / (aa * bb) for ab, aa, bb in both]


def _centred(x: Float[Tensor, "h q d"]) -> Float[Tensor, "h q d"]:
    """Less the mean over queries. Rounding of a mean must not pass for a difference: that is zero."""
    found = x - x.mean(1, keepdim=True)
    real = found.square().sum((1, 2)) > _ROUNDING**2 * x.square().sum((1, 2))
    return found * real[:, None, None]


def _null(drawn: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Mean, least and greatest of every figure of agreement over the draws."""
    found: dict[str, float | None] = {}
    for name in ("cosine", "r2", "r2_centred"):
        values = [one[name] for one in drawn if one[name] is not None]
        found[f"null_{name}"] = sum(values) / len(values) if values else None
        found |= {f"null_{name}_low": min(values, default=None), f"null_{name}_high": max(values, default=None)}
    return found


def meta_gradients(
    values: Float[Tensor, "g t dv"], keys: Float[Tensor, "g t dk"], demonstration: Sequence[int]
) -> Float[Tensor, "g k k"]:
    """The inner products of the demonstrations' meta-gradients, per key-value head; squared norms diagonally.

    Claim: each demonstration adds its own term to the weights, as an example adds its gradient (Dai et al. 2023,
        section 3).
    Formula: <M_a, M_b> = sum over i in a, j in b of (v_i . v_j)(k_i . k_j), M_a = sum over i in a of v_i k_i^T; so no
        matrix of the heads' width is formed.
    Null: off the diagonal 0 in the mean, for values and keys of independent random directions.
    Departures: tokens of no demonstration have no term. Sum over the heads for the update of the whole layer.
    Known problems: demonstrations share their layout, and so do their terms: products are large where they say nothing
        of the examples. Later demonstrations have read the earlier ones, so a term is not its demonstration's alone.
    """
    members = _members(values.shape[1], demonstration)
    values, keys = values.double(), keys.double()
    products = values.new_zeros(len(values), len(members), len(members))
    shown = np.concatenate([np.zeros(0, dtype=np.int64), *members])
    bounds = np.cumsum([0, *(len(own) for own in members)])
    # After one another, the columns of a demonstration are a slice; row by row, memory is that of one demonstration.
    all_values, all_keys = values[:, shown], keys[:, shown]
    for a, own in enumerate(members):
        pairs = (values[:, own] @ all_values.transpose(1, 2)) * (keys[:, own] @ all_keys.transpose(1, 2))
        columns = pairs.sum(1)
        for b, (begin, stop) in enumerate(pairwise(bounds)):
            products[:, a, b] = columns[:, begin:stop].sum(-1)
    return (products + products.transpose(1, 2)) / 2


def demonstration_terms(
    values: Float[Tensor, "g t dv"],
    keys: Float[Tensor, "g t dk"],
    demonstration: Sequence[int],
    query: Float[Tensor, "h s dk"],
) -> Float[Tensor, "h s k dv"]:
    """What each demonstration's meta-gradient makes of a query: the terms whose sum is dW_ICL q.

    Claim: what a demonstration does to a query is its meta-gradient times the query (Dai et al. 2023, section 3).
    Formula: M_a q = sum over tokens i of demonstration a of v_i (k_i . q).
    Null: 0 in the mean, for keys in random directions.
    Departures: the paper sums over demonstrations at once.
    Known problems: softmax weighs tokens otherwise; see ``relaxed`` for how much of the real output this form has.
    """
    values, keys, query = values.double(), keys.double(), query.double()
    members = _members(values.shape[1], demonstration)
    terms = [linear_attention(values[:, own], keys[:, own], query) for own in members]
    return torch.stack(terms, dim=2) if terms else query.new_zeros(*query.shape[:2], 0, values.shape[2])


def update_norm(products: Float[Tensor, "g k k"]) -> Float[Tensor, "g k"]:
    """The Frobenius norm of dW_ICL with the first demonstration, the first two, and so on, per key-value head.

    ``products`` are those of ``meta_gradients``.

    Claim: demonstrations change the weights more and more, the more there are (Dai et al. 2023, section 3).
    Formula: |sum over a <= n of M_a|_F = sqrt(sum over a, b <= n of <M_a, M_b>), for n = 1 to k.
    Null: grows as sqrt(n) for terms at right angles, as n for equal ones; it bends below sqrt(n) where terms cancel.
    Departures: the paper reports no norms. Divide by the norm of W_ZSL to compare layers: values have scales of theirs.
    Known problems: order matters. Terms of a shared layout make it grow as n whatever the examples are.
    """
    total = products.double().cumsum(1).cumsum(2).diagonal(dim1=1, dim2=2)
    # Terms that cancel leave a rounding error of either sign.
    return total.clamp_min(0).sqrt()


def effective_rank(
    values: Float[Tensor, "g t dv"], keys: Float[Tensor, "g t dk"], demonstration: Sequence[int]
) -> tuple[tuple[float | None, ...], ...]:
    """How many directions dW_ICL has, with the first demonstration, the first two, and so on: (g, k) numbers.

    They are 1 or more; None where dW_ICL is zero.

    Claim: demonstrations that teach different things change the weights in more directions.
    Formula: exp(-sum_i p_i ln p_i), p_i = sigma_i / sum_j sigma_j over the singular values of dW_ICL (Roy and Vetterli
        2007, section 2).
    Null: at most the smaller of the number of tokens and the width of a head d; 0.805 d for independent normal values
        and keys of many more tokens than d (quarter-circle law; 0.80 at d = 64).
    Departures: none from Roy and Vetterli; Dai et al. look at no ranks.
    Known problems: shared means of keys and of values are one large direction, which lowers it whatever is taught.
        More tokens raise it, so compare demonstrations of like length.
    """
    members = _members(values.shape[1], demonstration)
    values, keys = values.double(), keys.double()
    total = values.new_zeros(len(values), values.shape[2], keys.shape[2])
    found = []
    for own in members:
        total = total + weight_update(values[:, own], keys[:, own])
        sigma = torch.linalg.svdvals(total)
        whole = sigma.sum(-1, keepdim=True)
        ranks = torch.special.entr(sigma / whole).sum(-1).exp().tolist()
        found.append([rank if size else None for rank, size in zip(ranks, whole[:, 0].tolist(), strict=True)])
    return tuple(zip(*found, strict=True)) if found else ((),) * len(values)


def angles(
    products: Float[Tensor, "g k k"],
    labels: Sequence[str],
    *,
    centred: bool = False,
    seed: int = 0,
    draws: int = 199,
) -> tuple[Mapping[str, Any], ...]:
    """The mean cosine between meta-gradients of the same label and of different ones, per key-value head.

    ``products`` are those of ``meta_gradients``, ``labels`` those of the demonstrations in their order. ``centred``
    takes the mean meta-gradient away first. Each mapping holds ``same``, ``different`` and ``difference``, None where
    undefined, with ``reason``; ``null_low`` and ``null_high``, between which the difference is in 95 % of the draws;
    ``by_label``, the mean cosine within each label; ``n_same`` and ``n_different``, the pairs; ``left_out``, the
    demonstrations whose meta-gradient is zero.

    Claim: demonstrations of one label pull the weights the same way, as their gradients would.
    Formula: mean over pairs a < b of <M_a, M_b> / (|M_a| |M_b|); ``difference`` is same less different.
    Null: a difference of 0, with ``null_low`` and ``null_high`` from labels dealt anew to the demonstrations.
        ``same`` and ``different`` are far above 0 without any teaching, near -1 / (k - 1) where centred.
    Departures: the paper looks at no angles.
    Known problems: the label's own tokens are among those of a demonstration, so equal words alone make ``same`` the
        larger. Neighbours stand at like positions: labels that come in blocks are nearer for that.
    """
    size = products.shape[-1]
    assert len(labels) == size, f"{len(labels)} labels for {size} demonstrations"
    products = products.double()
    least = _NO_DIRECTION**2 * products.diagonal(dim1=1, dim2=2).amax(-1) if size else products.new_zeros(len(products))
    if centred and size:
        rows = products.mean(1, keepdim=True)
        products = products - rows - rows.transpose(1, 2) + rows.mean(2, keepdim=True)
    return tuple(
        _angles(own.cpu().numpy(), float(low), labels, seed, draws) for own, low in zip(products, least, strict=True)
    )


def _angles(products: np.ndarray, least: float, labels: Sequence[str], seed: int, draws: int) -> dict[str, Any]:
    squared = np.diag(products)
    kept = np.flatnonzero(squared > least)
    names = sorted({labels[int(i)] for i in kept})
    own = np.array([names.index(labels[int(i)]) for i in kept], dtype=np.int64)
    cosines = products[np.ix_(kept, kept)] / np.sqrt(np.outer(squared[kept], squared[kept]))
    first, second = np.triu_indices(len(kept), 1)
    cosine = cosines[first, second]
    same = own[first] == own[second]
    within, across = _mean(cosine[same]), _mean(cosine[~same])
    low = high = None
    if within is not None and across is not None:
        rng = stream(seed, "angles")
        dealt = [rng.permutation(own) for _ in range(draws)]
        alike = [new[first] == new[second] for new in dealt]
        drawn = [cosine[pair].mean() - cosine[~pair].mean() for pair in alike]
        low, high = (float(x) for x in np.quantile(drawn, [0.025, 0.975])) if drawn else (None, None)
    reasons = ["no two demonstrations share a label"] * (within is None)
    reasons += ["no two demonstrations have different labels"] * (across is None)
    by_label = {name: _mean(cosine[same & (own[first] == i)]) for i, name in enumerate(names)}
    alone = [name for name, value in by_label.items() if value is None]
    reasons += [f"one demonstration alone has the label {', '.join(alone)}"] * bool(alone)
    return {
        "same": within,
        "different": across,
        "difference": None if within is None or across is None else within - across,
        "null_low": low,
        "null_high": high,
        "by_label": by_label,
        "n_same": int(same.sum()),
        "n_different": int((~same).sum()),
        "left_out": len(labels) - len(kept),
        "reason": "; ".join(reasons) or None,
    }


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _members(tokens: int, demonstration: Sequence[int]) -> list[np.ndarray]:
    """The tokens of every demonstration."""
    of = np.asarray(demonstration, dtype=np.int64)
    assert of.shape == (tokens,), f"{of.size} names of demonstrations for {tokens} tokens"
    count = int(of.max(initial=-1)) + 1
    found = [np.flatnonzero(of == i) for i in range(count)]
    empty = [i for i, own in enumerate(found) if not len(own)]
    assert not empty, f"demonstrations without a token: {empty}"
    return found
