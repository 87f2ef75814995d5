"""The same demonstrations in other orders, and the biases that order, balance and label words leave.

The three biases are those of Zhao et al. 2021, section 4. Each takes a table of log-probabilities and, as ``after``, the
same table calibrated; what is read is the softmax of a row, so scores of any rule of ``calibrate.SCORES`` that are
log-probabilities will do. All queries share their candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from math import factorial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats
from scipy.special import log_softmax, logsumexp, softmax

from kshot.data.task import Example, Task
from kshot.data.template import Template, fillable, filled
from kshot.errors import NumericError
from kshot.measure.arrangements import Arrangement, Of, candidate_logprobs, gold_columns, gold_logprob
from kshot.measure.intervals import mean_interval
from kshot.measure.metrics import accuracy
from kshot.measure.scoring import CONTENT_FREE
from kshot.model.adapted import Adapted
from kshot.seeds import stream

# Up to so many demonstrations all orders are 120 at most.
_ALL_ORDERS = 5


def all_orders(shots: int, *, sample: int = 120, seed: int = 0) -> tuple[Arrangement, ...]:
    """Every order of up to 5 demonstrations (120 at most); of more, ``sample`` distinct ones, the order as shown first.

    >>> all_orders(3)
    ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
    """
    if shots <= _ALL_ORDERS or sample >= factorial(shots):
        return tuple(permutations(range(shots)))
    rng = stream(seed, "orders", shots)
    found = {tuple(range(shots)): None}
    while len(found) < sample:
        found.setdefault(tuple(rng.permutation(shots).tolist()))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OrderScores:
    """What was said after every order of the same demonstrations, all in nats.

    ``shown[m, j]`` is the column of the label at place j of order m, -1 where queries have candidates of their own;
    ``content_free`` are rows for the inputs "N/A", "[MASK]" and "", None where the task has no labels of its own.
    ``accuracy`` is a share of the queries, ``gold_logprob`` that of the right label (``Of``).
    """

    orders: tuple[Arrangement, ...]
    shown: Int[np.ndarray, "m k"]
    logprobs: Float[np.ndarray, "m q c"]
    content_free: Float[np.ndarray, "m f c"] | None
    gold: Int[np.ndarray, "q"]
    accuracy: Float[np.ndarray, "m"]
    gold_logprob: Float[np.ndarray, "m q"]


def order_scores(
    adapted: Adapted,
    task: Task,
    examples: Sequence[Example],
    orders: Sequence[Arrangement],
    *,
    of: Of = "candidates",
) -> OrderScores | None:
    """Accuracy, log-probabilities and content-free rows after every order, from one pass; None for no queries.

    Raises MethodError where ``adapted`` shows no demonstrations of its own, DataError for an example without an answer,
    PromptError for a prompt beyond the context.

    Claim: the same demonstrations teach more or less by the order they stand in (Lu et al. 2022; Zhao et al. 2021).
    Formula: per order, ``metrics.accuracy`` of the sums, and log P(gold | order, x) of each query.
    Null: the same numbers after every order. Accuracies vary by chance too where the answers hang in the balance.
    Departures: none; content-free rows are those of ``contextual_calibration``, one prior for each order.
    Known problems: about one set of demonstrations. The best of many orders, chosen on these queries, looks better than
        it is on others.
    """
    if not examples or not orders:
        return None
    gold = gold_columns(task, examples)
    free = [] if task.kind != "classification" or adapted.channel else without_content(adapted.template, examples[0])
    table = candidate_logprobs(adapted, task, [*examples, *free], orders)
    n = len(examples)
    columns = [task.labels.index(e.label) if e.label in task.labels else -1 for e in adapted.demonstrations]
    return OrderScores(
        orders=tuple(orders),
        shown=np.array(columns, dtype=np.int64)[np.array(orders, dtype=np.int64)],
        logprobs=table[:, :n],
        content_free=table[:, n:] if free else None,
        gold=gold,
        accuracy=np.array([accuracy(own[:n], gold) for own in table], dtype=np.float64),
        gold_logprob=gold_logprob(table[:, :n], gold, of),
    )


def without_content(template: Template, example: Example) -> list[Example]:
    """An example with each content-free text in the place of all its texts; none where the layout shows no text."""
    if not fillable(template, example.fields):
        return []
    return [replace(example, fields=filled(example.fields, text)) for text in CONTENT_FREE]


def contextually_calibrated(
    logprobs: Float[np.ndarray, "m q c"], content_free: Float[np.ndarray, "m f c"]
) -> Float[np.ndarray, "m q c"]:
    """Tables over the labels for every arrangement, each corrected by its own content-free rows, in nats.

    The rule is ``calibrate.contextual_calibration``; here every arrangement has a prior of its own.
    """
    prior = logsumexp(content_free, axis=1, keepdims=True) - np.log(content_free.shape[1])
    return log_softmax(logprobs - prior, axis=-1)


def recency_bias(
    before: Float[np.ndarray, "m q c"], shown: Int[np.ndarray, "m k"], after: Float[np.ndarray, "m q c"] | None = None
) -> dict[str, Any] | None:
    """The probability of a label by the place of its last demonstration, before and after a calibration.

    ``shown[m, j]`` is the column of the label at place j of order m, -1 for none of them. Returns ``{before, after}``,
    each with ``curve`` (rows ``{place, probability, above, n}``, place 1 the farthest from the query; ``above`` what the
    label has at that place more than over all orders; n orders times labels), ``slope`` (probability a place) and
    ``contrast`` (probability), both ``{value, low, high, n}`` over queries or None, and then ``undefined`` says why.
    ``after`` is None where no table is given; None in all where there is no order, query or demonstration.

    Claim: a label is the likelier, the nearer to the query it was shown last (Zhao et al. 2021, section 4).
    Formula: slope: least squares of P(label | x) on the place of its last demonstration, within each label and query;
        contrast: mean over labels of P where its last demonstration is the last of all, less P where it is in the
        earliest place that occurs for that label. Both are means over queries, with an interval over these (``mean_interval``).
    Null: 0: the order does not matter, or not by a label's last place.
    Departures: the paper compares predicted shares over orders by eye; slope and contrast are ours, and are read off
        probabilities, so orders that do not change the answer count too. A label's own level is taken out, since
        different labels can stand in different places.
    Known problems: where one label is last another is not, so two labels tell of one effect, not of two. Which
        demonstration stands last changes with its label: with one set, content and place are apart only over all
        orders. With two demonstrations a label the earliest last place is the second: the contrast spans less then.
    """
    if not before.size or not shown.size:
        return None
    last = np.zeros((len(shown), before.shape[2]), dtype=np.int64)
    for place, column in enumerate(shown.T, 1):
        last[column >= 0, column[column >= 0]] = place
    return {name: None if t is None else _recency(t, last, shown.shape[1]) for name, t in _both(before, after)}


def _recency(table: Float[np.ndarray, "m q c"], last: Int[np.ndarray, "m c"], places: int) -> dict[str, Any]:
    p, is_shown = _probabilities(table), last > 0
    by_order = p.mean(axis=1)
    level = (by_order * is_shown).sum(axis=0) / np.maximum(is_shown.sum(axis=0), 1)
    curve = []
    for place in range(1, places + 1):
        at = last == place
        probability = float(by_order[at].mean()) if at.any() else None
        above = float((by_order - level)[at].mean()) if at.any() else None
        curve.append({"place": place, "probability": probability, "above": above, "n": int(at.sum())})
    apart = []
    for c in range(p.shape[2]):
        earliest = last[is_shown[:, c], c].min(initial=places)
        end, start = last[:, c] == places, last[:, c] == earliest
        if earliest < places and end.any():
            apart.append(p[end, :, c].mean(axis=0) - p[start, :, c].mean(axis=0))
    reasons = {
        "slope": "no label's last demonstration stands in two places among these orders",
        "contrast": "no label is last in one order and has its last demonstration earlier in another",
    }
    found = {"slope": _slopes(last, is_shown, p), "contrast": np.mean(apart, axis=0) if apart else None}
    return {"curve": curve, **_estimates(found, reasons)}


def majority_bias(
    before: Float[np.ndarray, "m q c"],
    shown: Int[np.ndarray, "m k"],
    gold: Int[np.ndarray, "q"],
    after: Float[np.ndarray, "m q c"] | None = None,
) -> dict[str, Any] | None:
    """How often a label is predicted against its share among the demonstrations, before and after a calibration.

    ``shown[m, j]`` is the column of the label at place j of set (or order) m, -1 for none of them; ``gold`` is -1 for
    queries that are left out. Returns ``{before, after}``, each with ``labels`` (rows ``{label, shown, predicted,
    probability, gold}``, shares in [0, 1], means over sets and queries), ``excess`` and ``slope``, both ``{value, low,
    high, n}`` over queries or None, and then ``undefined`` says why. ``after`` is None where no table is given; None in
    all where there is no set, labelled query or demonstration.

    Claim: labels that are frequent among the demonstrations are predicted too often (Zhao et al. 2021, section 4).
    Formula: excess: the predicted share of the label that most demonstrations have less its share in gold, mean over the
        sets that have one such label; slope: least squares, over sets and within each label, of the predicted share on
        the share among demonstrations.
    Null: 0 for both; slope is 1 where the predictions copy the balance of the demonstrations.
    Departures: the paper shows predicted shares for every balance, without a number; excess and slope are ours. Ties of a
        prediction go to the first label.
    Known problems: excess with one set is also what the model prefers anyway (``common_token_bias``) and what happens to
        stand last: average over orders, and over sets with other majorities. Queries share the sets, so the interval
        says nothing of other ones.
    """
    kept = gold >= 0
    if not before.size or not shown.size or not kept.any():
        return None
    columns, gold = np.arange(before.shape[2]), gold[kept]
    share = (shown[:, :, None] == columns).mean(axis=1)
    most = (share == share.max(axis=1, keepdims=True)) & (share > 0)
    single = most.sum(axis=1) == 1
    right = gold[:, None] == columns
    reasons = {
        "excess": "no set has one label more often than every other",
        "slope": "every label has the same share of the demonstrations in all sets",
    }

    def read(table: Float[np.ndarray, "m q c"]) -> dict[str, Any]:
        p = _probabilities(table[:, kept])
        said = _predicted(table[:, kept])
        over = ((said[single] - right) * most[single][:, None, :]).sum(axis=2).mean(axis=0) if single.any() else None
        rows = _rows(shown=share.mean(axis=0), predicted=said.mean(axis=(0, 1)), probability=p.mean(axis=(0, 1)),
                     gold=right.mean(axis=0))  # fmt: skip
        slope = _slopes(share, np.ones_like(share, dtype=bool), said)
        return {"labels": rows, **_estimates({"excess": over, "slope": slope}, reasons)}

    return {name: None if table is None else read(table) for name, table in _both(before, after)}


def common_token_bias(
    before: Float[np.ndarray, "q c"],
    content_free: Float[np.ndarray, "f c"],
    gold: Int[np.ndarray, "q"],
    after: Float[np.ndarray, "q c"] | None = None,
) -> dict[str, Any] | None:
    """How often a label is predicted against its log-probability without content, before and after a calibration.

    ``content_free`` holds log-probabilities of the labels after inputs without content; ``gold`` is -1 for queries that
    are left out. Returns ``{before, after}``, each with ``labels`` (rows ``{label, content_free, predicted, probability,
    gold}``, in nats and shares), ``slope`` (share a nat; ``{value, low, high, n}`` over queries or None) and
    ``rank_correlation`` (over labels, or None); ``undefined`` says why. ``after`` is None where no table is given; None
    in all where there is no labelled query or no content-free input.

    Claim: labels that the model likes to write anyway are predicted too often (Zhao et al. 2021, section 4).
    Formula: with b_c the log of the mean content-free probability, normalised over the labels: slope, least squares over
        labels of (predicted share - share in gold) on b; rank_correlation, Spearman's rho of the two.
    Null: 0 for both: what is predicted too often has nothing to do with the content-free input.
    Departures: the paper compares with the frequency of label words in text; the log-probability under a content-free
        input stands for it. The share in gold is taken off, so an uneven task is no bias.
    Known problems: after demonstrations the content-free input carries majority and recency bias too; after none
        (``Predictions.unconditional``) it is the label words alone. Two labels make a slope of one difference, and a
        rank correlation needs three. After a calibration by the same inputs a slope of the other sign means that too much
        was taken off.
    """
    kept = gold >= 0
    if not before.size or not len(content_free) or not kept.any():
        return None
    free = log_softmax(logsumexp(content_free, axis=0))
    right = gold[kept, None] == np.arange(before.shape[1])
    return {name: None if t is None else _common_token(t[kept], free, right) for name, t in _both(before, after)}


def _common_token(
    table: Float[np.ndarray, "q c"], free: Float[np.ndarray, "c"], right: Bool[np.ndarray, "q c"]
) -> dict[str, Any]:
    p, said = _probabilities(table), _predicted(table)
    excess = said - right
    finite = bool(np.isfinite(free).all())
    uneven = finite and bool(np.ptp(free) > 1e-12)
    slope = _slopes(free[:, None], np.ones((len(free), 1), dtype=bool), excess.T[:, :, None]) if uneven else None
    same = "the content-free inputs give all labels the same probability"
    found = _estimates({"slope": slope}, {"slope": same if finite else "a label has probability zero"})
    too_often = excess.sum(axis=0)
    if len(free) > 2 and uneven and np.ptp(too_often) > 0:
        found["rank_correlation"] = float(np.corrcoef(stats.rankdata(free), stats.rankdata(too_often))[0, 1])
    else:
        found["rank_correlation"] = None
        found["undefined"]["rank_correlation"] = "needs three labels that differ in both"
    rows = _rows(content_free=free, predicted=said.mean(axis=0), probability=p.mean(axis=0), gold=right.mean(axis=0))
    return {"labels": rows, **found}


def _both(before: np.ndarray, after: np.ndarray | None) -> tuple[tuple[str, Any], ...]:
    assert after is None or after.shape == before.shape, "the calibrated table is of the same queries and labels"
    return ("before", before), ("after", after)


def _probabilities(table: np.ndarray) -> np.ndarray:
    if not np.isfinite(table.max(axis=-1)).all():
        raise NumericError(
            "a table of log-probabilities holds nan or inf, or a row without a finite one; give each row a finite best"
        )
    return softmax(table, axis=-1)


def _predicted(table: np.ndarray) -> np.ndarray:
    """1 for the best label of a row, the first one where several tie, and 0 for the others."""
    return (table.argmax(axis=-1)[..., None] == np.arange(table.shape[-1])).astype(np.float64)


def _slopes(
    x: np.ndarray, counts: Bool[np.ndarray, "m c"], y: Float[np.ndarray, "m q c"]
) -> Float[np.ndarray, "q"] | None:
    """Per query the slope of y on x over m, within each c; None where x does not vary."""
    level = (x * counts).sum(axis=0) / np.maximum(counts.sum(axis=0), 1)
    centred = np.where(counts, x - level, 0.0)
    total = float((centred**2).sum())
    return np.einsum("mc,mqc->q", centred, y) / total if total > 1e-12 else None


def _estimates(found: dict[str, np.ndarray | None], reasons: dict[str, str]) -> dict[str, Any]:
    """Means over queries with their intervals; what is None comes with its reason."""
    said: dict[str, Any] = {}
    for name, values in found.items():
        if values is not None:
            low, high = mean_interval(values) or (None, None)
            said[name] = {"value": float(values.mean()), "low": low, "high": high, "n": len(values)}
        else:
            said[name] = None
    return {**said, "undefined": {name: reasons[name] for name, values in found.items() if values is None}}


def _rows(**columns: np.ndarray) -> list[dict[str, Any]]:
    count = len(next(iter(columns.values())))
    return [{"label": c, **{name: float(values[c]) for name, values in columns.items()}} for c in range(count)]
