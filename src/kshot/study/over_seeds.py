"""One row over all seeds for what was measured with each of them, sure of as much as seeds and test examples allow."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from scipy import stats

Row = dict[str, Any]

CONFIDENCE = 0.95
# Resamples of fewer queries are no interval of one set of demonstrations: what they give is not judged.
LEAST = 20
# Of accuracies; nothing was fine-tuned for them.
_WITHOUT_RATE = ("zero-shot", "in-context")
_SHARE, _COSINE, _POSITIVE = (0.0, 1.0), (-1.0, 1.0), (0.0, math.inf)
_RANGES: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(("accuracy", "order_accuracy", "rec2ftp", "repeatability", "top_k_recall", "lambda"), _SHARE),
    **dict.fromkeys(("sim_aou", "sim_am", "sim_am_delta", "kendall", "example_kendall", "rank_agreement"), _COSINE),
    **dict.fromkeys(("relaxed_cosine", "angle_same", "angle_different", "optimism"), _COSINE),
    **dict.fromkeys(("contrast", "correlation", "protocol"), _COSINE),
    **dict.fromkeys(("macro_f1", "reliability", "p_value", "half_way"), _SHARE),
    "entropy": _POSITIVE,
    **dict.fromkeys(("relaxed_r2", "relaxed_r2_centred"), (-math.inf, 1.0)),
    **dict.fromkeys(("learning_rate", "update_norm", "effective_rank"), _POSITIVE),
    **dict.fromkeys(("loss", "loss_apart", "loss_ratio", "greatest_difference", "best_rate"), _POSITIVE),
    **dict.fromkeys(("prediction_distance", "sensitivity_distance"), _POSITIVE),
    "sensitivity_cosine": _COSINE,
    # Of small models.
    **dict.fromkeys(("agreement", "mastered", "foreseen", "posterior", "decay", "ruled_out"), _SHARE),
    **dict.fromkeys(("attention_to_partner", "share_of_partner", "order_spread"), _SHARE),
    **dict.fromkeys(("accuracy_gain", "accuracy_over", "accuracy_difference", "posterior_gain"), _COSINE),
    **dict.fromkeys(("rule_distance", "task_error", "error_ratio", "spd", "spd_ratio", "ilwd"), _POSITIVE),
    **dict.fromkeys(("best_penalty", "penalty_ratio", "parameters", "parameters_apart"), _POSITIVE),
    **dict.fromkeys(("kl_to_exact", "mastered_over_trained", "distance_ratio"), _POSITIVE),
    # Of language models grown from text.
    **dict.fromkeys(("copy_accuracy", "prompt_accuracy", "order_flips", "repeated", "rank_one", "influence"), _SHARE),
    **dict.fromkeys(("copy_nats", "nats_by_distance", "tokens_per_second", "pace", "mfu"), _POSITIVE),
    **dict.fromkeys(("memory", "share_of_roof", "law_error", "foreseen_error", "floor_error"), _POSITIVE),
    # Of soft prompts.
    **dict.fromkeys(("exact_match", "legal", "sentinel_emitted", "accuracy_of_labels"), _SHARE),
    **dict.fromkeys(("exact_match_gain", "gap"), _COSINE),
    **dict.fromkeys(("training_loss", "validation_loss", "bits_per_byte"), _POSITIVE),
    "perplexity": (1.0, math.inf),
}


def within_range(measure: str, bound: float) -> float:
    """A bound of an interval, cut to the values that the measure can take; as it is where those have no end.

    >>> within_range("accuracy", 1.04), within_range("sim_aou", -1.2), within_range("recency", 1.04)
    (1.0, -1.0, 1.04)
    """
    least, greatest = _RANGES.get(measure, (-math.inf, math.inf))
    return min(greatest, max(least, bound))


def widening(claims: int, seeds: int = 1) -> float:
    """How many times wider an interval of 95 % becomes, so that it holds for so many claims together (Bonferroni).

    Student's t of one degree of freedom less than there are seeds; normal quantiles where there is one, and the interval
    is over queries.

    >>> widening(1), round(widening(10), 3), round(widening(10, 5), 2), round(widening(10, 50), 2)
    (1.0, 1.432, 2.02, 1.46)
    """
    missed = (1 - CONFIDENCE) / 2
    levels = np.array([missed / max(1, claims), missed])
    together, alone = np.asarray(stats.t.isf(levels, seeds - 1) if seeds > 1 else stats.norm.isf(levels))
    return float(together / alone)


def over_seeds(rows: Sequence[Row]) -> list[Row]:
    """A row of seed None for every (task, model, measure, variant, layer) with rows of two seeds or more, and no others.

    ``value`` is the mean over seeds, ``null`` and its bounds are means over the same seeds, ``n`` is that of the seed
    with the fewest: all ask the same examples. Undefined values are left out and ``reason`` says of how many seeds;
    with one value left there is no interval.

    Claim: ``low`` to ``high`` holds, 95 times of 100, the mean over all seeds and all such test examples.
    Formula: value +- sqrt((t sd / sqrt(S))^2 + h^2), either side with its own h, the mean over seeds of the half-width
        that the row has over test examples; t of S - 1 degrees of freedom, sd over S seeds with S - 1. The same
        examples are asked with every seed, so their half-widths do not shrink with S. Cut to ``within_range``.
    Null: with equal values in all seeds it is the interval over test examples, averaged.
    Departures: bounds that say how far heads or orders lie apart are no interval of the value, and are averaged.
    Known problems: two seeds have t = 12.7, and hardly ever say anything. What seeds vary about is in both parts, in sd
        and a little in h, so it is rather too wide. The interval of a learning rate is that of its mean, not of the rate.
    """
    groups: dict[tuple[Any, ...], dict[Any, Row]] = {}
    done = set()
    for row in rows:
        key = tuple(row.get(name) for name in ("task", "model", "measure", "variant", "layer"))
        if row.get("seed") is None:
            done.add(key)
        else:
            groups.setdefault(key, {}).setdefault(row["seed"], row)
    return [_mean(list(own.values())) for key, own in groups.items() if len(own) > 1 and key not in done]


def of_best_seed(rows: Sequence[Row]) -> list[Row]:
    """The published procedure takes the seed whose demonstrations answer best: its rows, and what that choice adds.

    For every (task, model) with two seeds or more: the rows over all layers at the published rate, and the accuracies
    that no rate belongs to, of the seed with the greatest accuracy in context on the scored examples (of equals the
    least), with ``best seed`` after their variants and no seed of their own; and ``optimism, best seed``, that accuracy
    less the mean over seeds. Its intervals are over test examples alone, as if no choice had been made.
    """
    found = []
    for task, model in dict.fromkeys((row.get("task"), row.get("model")) for row in rows):
        own = [row for row in rows if (row.get("task"), row.get("model")) == (task, model) and row.get("layer") is None]
        asked = {
            row["seed"]: row["value"]
            for row in own
            if (row["measure"], row["variant"]) == ("accuracy", "in-context") and row["value"] is not None
        }
        if len(asked) < 2:
            continue
        best = max(sorted(asked), key=asked.__getitem__)
        gain = {"measure": "optimism", "value": asked[best] - fmean(asked.values()), "low": None, "high": None}
        whole = next(row for row in own if row["measure"] == "accuracy")
        found.append({**whole, **gain, "variant": "best seed", "seed": None, "null": 0.0})
        found += [
            {**row, "variant": f"{row['variant']}, best seed", "seed": None}
            for row in own
            if row["seed"] == best and (_at_published_rate(row) or row["variant"] in _WITHOUT_RATE)
        ]
    return found


def _at_published_rate(row: Row) -> bool:
    return "published" in str(row["variant"]).split(", ")


def _mean(rows: Sequence[Row]) -> Row:
    """Rows of one thing, one of each seed, as one row."""
    first, known = rows[0], [row for row in rows if row.get("value") is not None]
    counts = [row["n"] for row in known or rows if row.get("n") is not None]
    return {
        **first,
        "seed": None,
        "value": fmean(row["value"] for row in known) if known else None,
        **dict(zip(("low", "high"), _bounds(known), strict=True)),
        **{name: _average(known or rows, name) for name in ("null", "null_low", "null_high")},
        "n": min(counts) if counts else None,
        "published": next((row["published"] for row in rows if row.get("published")), None),
        "reason": _reason(rows, known),
    }


def _bounds(rows: Sequence[Row]) -> tuple[float | None, float | None]:
    if len(rows) < 2:
        return None, None
    if _of_a_spread(rows[0]) and (low := _average(rows, "low")) is not None:
        return low, _average(rows, "high")
    values = np.array([row["value"] for row in rows], dtype=np.float64)
    count, mean = len(values), float(values.mean())
    t = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1))
    among = t * float(values.std(ddof=1)) / math.sqrt(count)
    # A percentile of resamples may lie beyond the mean by rounding; such a side is no narrower than nothing.
    below = [max(0.0, row["value"] - row["low"]) for row in rows if row.get("low") is not None]
    above = [max(0.0, row["high"] - row["value"]) for row in rows if row.get("high") is not None]
    down, up = (math.hypot(among, fmean(side) if side else 0.0) for side in (below, above))
    measure = str(rows[0].get("measure"))
    return within_range(measure, mean - down), within_range(measure, mean + up)


def _of_a_spread(row: Row) -> bool:
    """Whether the bounds of a row say how far heads or orders lie apart."""
    return row.get("unit") == "over heads" or row.get("measure") == "order_accuracy"


def _average(rows: Sequence[Row], name: str) -> float | None:
    known = [row[name] for row in rows if row.get(name) is not None]
    return fmean(known) if known else None


def _reason(rows: Sequence[Row], known: Sequence[Row]) -> str | None:
    if len(known) == len(rows):
        return None
    why = "; ".join(dict.fromkeys(str(row["reason"]) for row in rows if row.get("value") is None and row.get("reason")))
    why = f": {why}" if why else ""
    if not known:
        return f"undefined in all {len(rows)} seeds{why}"
    return f"defined in {len(known)} of {len(rows)} seeds{why}"
