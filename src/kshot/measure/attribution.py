"""What each demonstration did: the change of the gold label's log-probability, by removal, fair shares, gradient, attention.

Arrangements and value functions are those of ``measure/arrangements.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, sqrt
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from kshot.data.task import Example, Task
from kshot.errors import MethodError
from kshot.measure.arrangements import (
    Arrangement,
    Of,
    ValueFunction,
    gold_columns,
    sequences_after,
    shown_to_all,
    value_function,
)
from kshot.measure.intervals import mean_interval
from kshot.model.adapted import Adapted
from kshot.model.demonstrations import demonstration_of_tokens
from kshot.model.lm import LM
from kshot.model.prefix import Prefix
from kshot.model.prompts import channel_head
from kshot.model.tree import Scored, shared_beginning
from kshot.seeds import stream

# Up to so many demonstrations every subset of them is asked: 256 of 8.
EXACT = 8


def leave_one_out(
    adapted: Adapted, task: Task, examples: Sequence[Example], *, of: Of = "candidates"
) -> Float[np.ndarray, "q k"]:
    """What the gold label's log-probability gains from each demonstration, (q, k), in nats; positive: it helped.

    Claim: what would be lost if this demonstration alone were not there.
    Formula: v(all) - v(all but i), the others in their order (deletion; Cook 1977 for a training example of a model).
    Null: 0 for a demonstration that changes nothing. Two that say the same may both have 0.
    Departures: v is a log-probability of the answer among the candidates, or its sum (``of``), not a probability or a
        loss over a test set.
    Known problems: all that follows the removed one moves forward, and the balance of labels changes with it, so it is
        about the prompt as a whole and not about the content of one example. Says nothing about interactions.
    """
    whole = tuple(range(len(adapted.demonstrations)))
    values = value_function(adapted, task, examples, of=of)([whole, *(whole[:i] + whole[i + 1 :] for i in whole)])
    return (values[0] - values[1:]).T


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shapley:
    """Shapley values of k demonstrations for every query, in nats; ``values.sum(1)`` is ``full - empty``.

    ``errors`` are standard errors over ``pairs`` of permutations, None where all subsets were asked for. ``full`` and
    ``empty`` are the value with all demonstrations and with none; ``arrangements`` counts the prompts asked for.
    """

    values: Float[np.ndarray, "q k"]
    errors: Float[np.ndarray, "q k"] | None
    full: Float[np.ndarray, "q"]
    empty: Float[np.ndarray, "q"]
    pairs: int
    arrangements: int


def shapley(
    adapted: Adapted,
    task: Task,
    examples: Sequence[Example],
    *,
    of: Of = "candidates",
    exact_up_to: int = EXACT,
    pairs: int = 32,
    seed: int = 0,
) -> Shapley:
    """What the gold label's log-probability owes to each demonstration, in nats; positive: it helped.

    Exact up to ``exact_up_to`` demonstrations (2^k prompts a query), beyond from at least 2 ``pairs`` of permutations.

    Claim: each demonstration's share of what all of them together change, equal for equal ones, 0 for idle ones.
    Formula: phi_i = sum over S without i of |S|! (k - |S| - 1)! / k! (v(S + i) - v(S)) (Shapley 1953); sampled: the
        mean of v(those before i, and i) - v(those before i) over permutations, each with its reverse (Mitchell et al.
        2022), with the standard error of the mean over pairs.
    Null: 0 for a demonstration that changes nothing in any company. The values add up to v(all) - v(none).
    Departures: a permutation says who joins when; those that are there always stand in their original order.
    Known problems: subsets other than the whole are prompts that nobody uses, and the empty one is zero-shot: a good
        part of every value may be "there is a demonstration at all". The error of a sampled value is about the sampling
        alone, and wrong for few pairs.
    """
    value = value_function(adapted, task, examples, of=of)
    return shapley_values(value, len(adapted.demonstrations), exact_up_to=exact_up_to, pairs=pairs, seed=seed)


def shapley_values(
    value: ValueFunction, shots: int, *, exact_up_to: int = EXACT, pairs: int = 32, seed: int = 0
) -> Shapley:
    """The same for any value function of subsets of ``shots`` players, given as increasing tuples (see ``shapley``)."""
    if shots <= exact_up_to:
        return _exact(value, shots)
    if pairs < 2:
        raise MethodError(f"asked for Shapley values from {pairs} pair of permutations; an error needs 2 or more")
    return _sampled(value, shots, pairs, seed)


def _exact(value: ValueFunction, shots: int) -> Shapley:
    # Subset m shows demonstration i where bit i of m is set.
    subsets = [tuple(i for i in range(shots) if m >> i & 1) for m in range(1 << shots)]
    table = value(subsets)
    found = np.zeros((table.shape[1], shots))
    for i in range(shots):
        without = np.array([m for m in range(1 << shots) if not m >> i & 1])
        weights = np.array([1 / (shots * comb(shots - 1, len(subsets[m]))) for m in without])
        found[:, i] = weights @ (table[without | 1 << i] - table[without])
    return Shapley(values=found, errors=None, full=table[-1], empty=table[0], pairs=0, arrangements=len(table))


def _sampled(value: ValueFunction, shots: int, pairs: int, seed: int) -> Shapley:
    rng = stream(seed, "shapley", shots)
    at: dict[Arrangement, int] = {}
    walks: list[tuple[list[int], list[int]]] = []
    for one in [rng.permutation(shots).tolist() for _ in range(pairs)]:
        for order in (one, one[::-1]):
            steps = [tuple(sorted(order[:size])) for size in range(shots + 1)]
            walks.append((order, [at.setdefault(step, len(at)) for step in steps]))
    table = value(list(at))
    shares = np.zeros((2 * pairs, table.shape[1], shots))
    for share, (order, rows) in zip(shares, walks, strict=True):
        share[:, order] = np.diff(table[rows], axis=0).T
    # A permutation and its reverse are no two independent draws; the pairs are.
    by_pair = shares.reshape(pairs, 2, table.shape[1], shots).mean(axis=1)
    return Shapley(
        values=by_pair.mean(axis=0),
        errors=by_pair.std(axis=0, ddof=1) / sqrt(pairs),
        full=table[at[tuple(range(shots))]],
        empty=table[at[()]],
        pairs=pairs,
        arrangements=len(at),
    )


def gradient_times_input(
    adapted: Adapted, task: Task, examples: Sequence[Example], *, of: Of = "candidates"
) -> Float[np.ndarray, "q k"]:
    """How steeply the gold label's log-probability rises with each demonstration's embeddings, (q, k), in nats.

    Raises ModelError for a model that reads every sequence whole.

    Claim: a first-order stand-in for what removing a demonstration would change, at the price of one backward pass.
    Formula: sum over the tokens t of demonstration i of <dv/dE_t, E_t>, E_t the embedding (Shrikumar et al. 2016); it
        is dv/da at a = 1 where all embeddings of the demonstration are scaled by a.
    Null: 0 for a demonstration that v does not depend on. No sum is promised: unlike Shapley's, these add up to nothing.
    Departures: summed over the tokens of a demonstration, its separator among them (``demonstration_of_tokens``), signed.
    Known problems: an embedding of zero is no removal, and normalisation layers undo scaling, so values are small and
        their sizes mean little; ranks are what to read. Gradients saturate where the answer is certain. In bfloat16
        they are rounded to 3 digits. A token at the seam that changes with the query belongs to nobody.
    """
    shown, lm, gold = shown_to_all(adapted), adapted.reader, gold_columns(task, examples)
    found = np.zeros((len(examples), len(shown)))
    if not examples:
        return found
    sequences = sequences_after(adapted, task, examples, [tuple(range(len(shown)))])
    every = [s for own in sequences for s in own]
    shared = min(shared_beginning([s.tokens for s in every]), min(s.start for s in every) - 1)
    assert shared > 0, "all queries stand after the same demonstrations"
    tail = adapted.template.render(examples[0].fields)
    if adapted.channel:
        tail = channel_head(adapted.template, task.candidates(examples[0])[0]) + tail
    owners = demonstration_of_tokens(lm.codec, adapted.template, shown, followed_by=tail, channel=adapted.channel)
    members = owners[:shared, None] == np.arange(len(shown))
    with torch.enable_grad():
        rows = lm.embedded(every[0].tokens[:shared]).requires_grad_()
        prefix = lm.prefill(rows)
        for q, own in enumerate(sequences):
            after = [Scored(s.tokens[shared:], s.start - shared) for s in own]
            value = _differentiable(lm, after, prefix, int(gold[q]), of)
            # The graph of the prefix serves all queries.
            (slope,) = torch.autograd.grad(value, rows, retain_graph=True)
            found[q] = (slope.double() * rows.detach().double()).sum(dim=1).cpu().numpy() @ members
    return found


def attention_mass(
    weights: Float[np.ndarray, "q l h p"], owners: Int[np.ndarray, "p"], shots: int
) -> Float[np.ndarray, "q k"]:
    """The share of attention that falls on each demonstration, (q, k) in [0, 1], mean over layers and heads.

    ``weights`` are attention weights after the softmax, from one position of each query to the tokens of the prefix;
    ``owners`` names the demonstration of each of these tokens, -1 for none (``demonstration_of_tokens``).

    Claim: where the model looks is where the answer comes from.
    Formula: mean over layers and heads of sum over tokens t of demonstration i of softmax(scores)_t.
    Null: with even attention the demonstration's share of all tokens that are seen: long ones have more.
    Departures: the softmax runs over prefix and query together, so a row adds up to less than 1.
    Known problems: attention is not effect: values may be near zero where weights are large (the first token of a text
        draws much of it), it has no sign, and heads and layers that do nothing count like the others.
    """
    return weights.astype(np.float64).mean(axis=(1, 2)) @ (owners[:, None] == np.arange(shots))


def rank_agreement(
    cheap: Float[np.ndarray, "q k"], expensive: Float[np.ndarray, "q k"], *, seed: int = 0
) -> dict[str, Any] | None:
    """How well one attribution ranks the demonstrations of a query as another does: rank correlations in [-1, 1].

    Returns ``spearman`` and ``kendall``, each ``{value, low, high}`` over queries (None where no query has one, the
    interval None below two), ``n`` queries that count and ``undefined`` those that do not; None for no queries.

    Claim: the cheap attribution finds the demonstrations that the expensive one finds.
    Formula: per query Spearman's rho (Pearson's correlation of mean ranks) and Kendall's tau-b over its k
        demonstrations; the mean over queries, with an interval over queries (``mean_interval``).
    Null: 0 for orders that have nothing to do with each other.
    Departures: a query is undefined where either side gives all demonstrations the same value, where one of them is not
        finite, or where there are fewer than two: it is counted and left out, not taken for 0.
    Known problems: coarse for few demonstrations (rho of two is 1 or -1). All queries stand after the same
        demonstrations, so they share what is particular to these; the interval knows nothing of another set. A rank
        weighs a difference of a thousandth of a nat like one of a whole nat.
    """
    if not len(cheap):
        return None
    found = rank_correlations(cheap, expensive)
    count = len(found["spearman"])
    return {
        **{kind: _interval(values, seed) for kind, values in found.items()},
        "n": count,
        "undefined": len(cheap) - count,
    }


def rank_correlations(cheap: Float[np.ndarray, "q k"], expensive: Float[np.ndarray, "q k"]) -> dict[str, list[float]]:
    """``spearman`` and ``kendall`` of every query that has them, in the order of the queries (``rank_agreement``)."""
    both = np.stack([cheap, expensive], axis=1)
    pairs = both[np.isfinite(both).all(axis=(1, 2)) & (both != both[..., :1]).any(axis=2).all(axis=1)]
    return {
        "spearman": [float(np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1]) for a, b in pairs],
        "kendall": [float(stats.kendalltau(a, b).statistic) for a, b in pairs],
    }


def _differentiable(lm: LM, sequences: Sequence[Scored], prefix: Prefix, gold: int, of: Of) -> Tensor:
    """The gold label's log-probability of one query, with its graph."""
    sums: dict[int, Tensor] = {}
    for part in lm.stream(sequences, prefix, trunk=False):
        answers = part.logprobs().split(np.diff(part.bounds).tolist())
        sums |= {j: answer.sum() for j, answer in zip(part.members.tolist(), answers, strict=True)}
    found = torch.stack([sums[j] for j in range(len(sequences))])
    return found.log_softmax(0)[gold] if of == "candidates" else found[gold]


def _interval(values: list[float], seed: int) -> dict[str, float | None] | None:
    low, high = mean_interval(np.array(values), seed, within=(-1.0, 1.0)) or (None, None)
    return {"value": float(np.mean(values)), "low": low, "high": high} if values else None
