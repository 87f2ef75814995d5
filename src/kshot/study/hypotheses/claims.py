"""The three hypotheses, what each predicts of the battery, and whether it came so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kshot.study.hypotheses import core, functions, orders
from kshot.study.over_seeds import widening, within_range

Row = dict[str, Any]
Predicts = Literal["none", "at least", "more"]

# A difference of less, in macro-F1 or in correlation, is taken for none: a bar of ours.
MARGIN = 0.1
_SOURCE = "Li et al. 2024"

HYPOTHESES: Mapping[str, str] = {
    "H1": "Task selection: the prompt's task is one of the finite set of tasks that were seen in pre-training, and "
    "demonstrations only tell which one.",
    "H2": "Meta-learning: the prompt's task may be any, also one never seen; a learning algorithm runs in context and "
    "learns it from the demonstrations.",
    "H3": "Composition: the prompt's task is a composition of tasks that were seen in pre-training, and demonstrations "
    "tell which ones.",
}
"""By the support of the distribution from which the task of a prompt is drawn (Li et al. 2024)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a hypothesis predicts of the row of this measure and name: no difference, at least none, or more than none.

    ``published`` marks what is as published, with its known faults: it is shown and counts for nothing.
    """

    hypothesis: str
    claim: str
    prediction: str
    measure: Literal["contrast", "correlation"]
    name: str
    predicts: Predicts
    published: bool = False
    source: str = _SOURCE


CLAIMS: tuple[Claim, ...] = (
    Claim(hypothesis="H1", claim="a response-altered task was never seen, so it is answered by guessing",
          prediction="macro-F1 of response-altered = that of guessing",
          measure="contrast", name=core.SELECTED, predicts="none"),
    Claim(hypothesis="H1", claim="the same with any tokens as answers",
          prediction="macro-F1 of response-altered, not screened = that of guessing",
          measure="contrast", name=core.SELECTED_AS_PUBLISHED, predicts="none", published=True),
    Claim(hypothesis="H2", claim="with a permuted vocabulary the model is no worse than a regression on its tokens",
          prediction="macro-F1 of prompt-altered ≥ that of a regression on the same tokens",
          measure="contrast", name=core.LEARNED, predicts="at least"),
    Claim(hypothesis="H2", claim="the same with the layout kept, against the regression as published",
          prediction="macro-F1 of prompt-altered, layout kept ≥ that of the regression as published",
          measure="contrast", name=core.LEARNED_AS_PUBLISHED, predicts="at least", published=True),
    Claim(hypothesis="H2", claim="label words are mapped to arbitrary answers as a linear learner maps them",
          prediction="macro-F1 of tau_g in context = that of tau_g-Linear",
          measure="contrast", name=core.LINEAR, predicts="none"),
    Claim(hypothesis="H2", claim="the functions that are learned are those a linear learner learns",
          prediction="accuracies of tau_g in context and of tau_g-Linear correlate over functions",
          measure="correlation", name=functions.CORRELATED_LINEAR, predicts="more"),
    Claim(hypothesis="H3", claim="where the label map alone is learned better, the response-altered task is too",
          prediction="accuracies of response-altered and of tau_g correlate over functions",
          measure="correlation", name=functions.CORRELATED, predicts="more"),
    Claim(hypothesis="H3", claim="maps of words that were seen in pre-training are learned more readily",
          prediction="macro-F1 of tau_g with synonyms, antonyms, keywords > that with arbitrary words",
          measure="contrast", name=core.NATURALLY, predicts="more"),
    Claim(hypothesis="H3", claim="the further a synonym, the less readily it is learned",
          prediction="macro-F1 of tau_g with synonyms > that with synonyms of the highest order",
          measure="contrast", name=orders.FALLS, predicts="more"),
)  # fmt: skip


def verdicts(measures: Sequence[Row]) -> list[dict[str, Any]]:
    """A line ``{hypothesis, claim, source, prediction, observed, low, high, verdict, reason, task, protocol, seeds, n}``
    for every claim of every task and protocol with rows; then, with ``claim`` None, one for each hypothesis.

    ``measures`` are rows of each seed and over seeds.

    Claim: ``supported``: what is predicted of the figure holds whatever pools, queries and answers were drawn;
        ``rejected``: its contrary does; ``undecided``: neither, or one seed, or a model that cannot do the task as it is.
    Formula: the interval over seeds (``over_seeds``; every seed draws its own queries, n of the N that the test set has,
        and sqrt(n / N) of their half-width is added for the choice of the test set), with m claims judged on a task its
        half-widths times t(1 - 0.05 / 2m) / t(1 - 0.05 / 2) of S - 1 degrees of freedom (Bonferroni). With MARGIN d: no
        difference is supported within (-d, d), rejected above or below 0; at least none is supported above -d, rejected below 0;
        more than none is supported above 0, rejected below d. A hypothesis is rejected where one of its claims is,
        supported where all are that have a figure.
    Null: were every difference 0, at most one task in twenty has a ``rejected`` of no difference or at least none, or a
        ``supported`` of more than none.
    Departures: the paper compares means and tests nothing; the margin is ours.
    Known problems: what is not predicted by any hypothesis is laid to none. Few seeds have wide intervals. A margin
        that is wide against what the task as it is gains over guessing makes guessing easy to support.
    """
    places = list(dict.fromkeys((row["task"], protocol) for row in measures if (protocol := _protocol(row))))
    found = []
    for task, protocol in places:
        own = [row for row in measures if row["task"] == task and _protocol(row) in (None, protocol)]
        found += _of_task(own, task, protocol)
    return found


def _protocol(row: Row) -> str | None:
    """The protocol of a contrast; None for a row that is of no protocol in particular."""
    if row["measure"] != "contrast":
        return None
    said = str(row["variant"]).rsplit(", ", 1)[-1]
    return said if said in ("redrawn", "fixed") else None


def _of_task(rows: Sequence[Row], task: str, protocol: str) -> list[dict[str, Any]]:
    looks = [(claim, found) for claim in CLAIMS if (found := _found(rows, claim.measure, claim.name, protocol))]
    able = _found(rows, "contrast", core.ABLE, protocol)
    number = sum(_sure(found) for _, found in looks)
    unable = _unable(able) if able is not None and _sure(able) else None
    lines = [_judged(claim, found, number, unable) | {"task": task, "protocol": protocol} for claim, found in looks]
    return [*lines, *(_whole(name, lines, task, protocol) for name in HYPOTHESES if _counting(lines, name))]


def _found(rows: Sequence[Row], measure: str, name: str, protocol: str) -> Row | None:
    """The row over seeds of this name, with how many seeds it has; that of the only seed has no interval over seeds."""
    named = (name, f"{name}, {protocol}")
    own = [row for row in rows if row["measure"] == measure and row["variant"] in named]
    if not own:
        return None
    single = [row for row in own if row.get("seed") is not None]
    whole = next((row for row in own if row.get("seed") is None), own[0])
    return {**whole, "seeds": sum(row.get("value") is not None for row in single)}


def _sure(row: Row) -> bool:
    return row.get("seed") is None and None not in (row.get("value"), row.get("low"), row.get("high"))


def _unable(able: Row) -> str | None:
    """Why nothing can be told from a model that does not do the task as it is, or is not known to."""
    if able["high"] < MARGIN:
        return "this model is too small to tell: it answers the task as it is no better than by guessing"
    if able["low"] <= 0:
        return "the task as it is was not shown to be answered better than by guessing; ask more seeds or queries"
    return None


def _judged(claim: Claim, row: Row, number: int, unable: str | None) -> dict[str, Any]:
    line = {
        "hypothesis": claim.hypothesis,
        "claim": claim.claim,
        "source": claim.source,
        "prediction": claim.prediction,
        "published": claim.published,
        "observed": row.get("value"),
        "low": None,
        "high": None,
        "verdict": "undecided",
        "reason": row.get("reason"),
        "seeds": row["seeds"],
        "n": row.get("n"),
    }
    if not _sure(row):
        return {**line, "reason": line["reason"] or "one seed: give --seed 0,1,2"}
    factor = widening(number, row["seeds"])
    value = row["value"]
    low = within_range(row["measure"], value - factor * max(0.0, value - row["low"]))
    high = within_range(row["measure"], value + factor * max(0.0, row["high"] - value))
    if unable is not None:
        return {**line, "low": low, "high": high, "reason": unable}
    return {**line, "low": low, "high": high, "verdict": verdict(claim.predicts, low, high)}


def verdict(predicts: Predicts, low: float, high: float) -> str:
    """What an interval says of a prediction.

    >>> (
    ...     verdict("none", -0.05, 0.06),
    ...     verdict("none", 0.2, 0.4),
    ...     verdict("at least", -0.5, -0.2),
    ...     verdict("more", -0.2, 0.3),
    ... )
    ('supported', 'rejected', 'rejected', 'undecided')
    """
    if predicts == "none":
        return "supported" if low > -MARGIN and high < MARGIN else "rejected" if low > 0 or high < 0 else "undecided"
    if predicts == "at least":
        return "supported" if low > -MARGIN else "rejected" if high < 0 else "undecided"
    return "supported" if low > 0 else "rejected" if high < MARGIN else "undecided"


def _counting(lines: Sequence[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    return [line for line in lines if line["hypothesis"] == name and not line["published"]]


def _whole(name: str, lines: Sequence[Mapping[str, Any]], task: str, protocol: str) -> dict[str, Any]:
    own = _counting(lines, name)
    # Of what is not defined, such as a correlation of what does not vary, nothing was predicted.
    said = [line["verdict"] for line in own if line["observed"] is not None]
    judged = "rejected" if "rejected" in said else "supported" if set(said) == {"supported"} else "undecided"
    return {
        "hypothesis": name,
        "claim": None,
        "source": _SOURCE,
        "prediction": HYPOTHESES[name],
        "published": False,
        "observed": f"{said.count('supported')} of {len(said)} claims supported, {said.count('rejected')} rejected",
        "low": None,
        "high": None,
        "verdict": judged,
        "reason": next((line["reason"] for line in own if judged == "undecided" and line["reason"]), None),
        "seeds": max(line["seeds"] for line in own),
        "n": None,
        "task": task,
        "protocol": protocol,
    }
