"""Which claims of the account that in-context learning is gradient descent hold, judged from rows of measures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal

import numpy as np
from scipy import stats

from kshot.data.published_figures import RATES, counted, said
from kshot.measure.per_layer import summary
from kshot.study.over_seeds import CONFIDENCE, LEAST, over_seeds, widening, within_range

Row = dict[str, Any]

# Of the squared length of what heads say, a form that is to stand for them explains at least half: a bar of ours.
BAR = 0.5
_EXACT = ("accuracy", "rec2ftp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim in words, the row that it is about, and what it says that row lies above.

    ``words`` are those of the row's variant. ``above``: ``zero``; ``null``, its own; ``rival``, the row with the words
    ``rival``; ``bar``, both its null and BAR. A claim with ``twin`` is left out where the row of those words says the same.
    """

    text: str
    measure: str
    words: tuple[str, ...]
    above: Literal["zero", "null", "rival", "bar"]
    rival: tuple[str, ...] = ()
    twin: tuple[str, ...] | None = None

    @property
    def prediction(self) -> str:
        what = {"zero": "above 0", "bar": f"above its null and above {BAR}, a bar of ours"}
        how = [f"{word} rate" if word in RATES else word for word in self.words if not word.startswith("null: ")]
        return f"{what.get(self.above, 'a difference above 0')} ({', '.join(how)})"


_HERE, _PAPER = ("corrected", "last prompt token"), ("published", "appended label")
_LENGTHS, _ALONG = "null: lengths kept", "null: lengths and part along zero-shot kept"
_RAW = (*_HERE, "raw", _LENGTHS)
_CAUSAL = "layer-causal"


def _against(text: str, measure: str, words: tuple[str, ...], other: str) -> Claim:
    """The model as it is against the row with one more word."""
    return Claim(text=text, measure=measure, words=words, above="rival", rival=(*words, other))


CLAIMS: tuple[Claim, ...] = (
    Claim(text="Rec2FTP exceeds the agreement that the marginals give by chance",
          measure="rec2ftp", words=("corrected",), above="null"),
    Claim(text="Rec2FTP at the published rate exceeds the agreement that the marginals give by chance",
          measure="rec2ftp", words=("published",), above="null", twin=("corrected",)),
    Claim(text="SimAOU as published (normalised, appended label) is above zero",
          measure="sim_aou", words=(*_PAPER, "normalised", _LENGTHS), above="zero"),
    Claim(text="normalised SimAOU exceeds that of unrelated updates of the same lengths",
          measure="sim_aou", words=(*_HERE, "normalised", _LENGTHS), above="null"),
    Claim(text="raw SimAOU exceeds what updates share along the zero-shot output alone",
          measure="sim_aou", words=(*_HERE, "raw", _ALONG), above="null"),
    _against("raw SimAOU exceeds that of an untrained model of the same shape", "sim_aou", _RAW, "untrained"),
    _against("raw SimAOU exceeds that of a model with trained embeddings only", "sim_aou", _RAW, "trained embeddings"),
    _against("raw SimAOU exceeds that with shuffled labels", "sim_aou", _RAW, "shuffled labels"),
    _against("raw SimAOU exceeds that with demonstrations of another task", "sim_aou", _RAW, "another task"),
    Claim(text="SimAM after fine-tuning exceeds SimAM before it",
          measure="sim_am", words=(*_HERE, "after fine-tuning"), above="null"),
    Claim(text="SimAM as published (appended label) exceeds SimAM before fine-tuning",
          measure="sim_am", words=(*_PAPER, "after fine-tuning"), above="null"),
    Claim(text="SimAM after fine-tuning exceeds that of permuted tokens",
          measure="sim_am", words=(*_HERE, "after fine-tuning", "null: tokens permuted"), above="null"),
    Claim(text="SimAM-Δ is above zero", measure="sim_am_delta", words=_HERE, above="zero"),
    _against("SimAM-Δ exceeds that of an untrained model of the same shape", "sim_am_delta", _HERE, "untrained"),
    Claim(text="Kendall's τ exceeds that of a random map", measure="kendall", words=(*_HERE, "scores"), above="null"),
    Claim(text="Kendall's τ as published (appended label) exceeds that of a random map",
          measure="kendall", words=(*_PAPER, "softmax in float32 as published"), above="null"),
    Claim(text="raw SimAOU with layer-causal gradient descent is no less than with gradient descent",
          measure="sim_aou", words=(*_RAW, _CAUSAL), above="rival", rival=_RAW),
    Claim(text="SimAM-Δ with layer-causal gradient descent is no less than with gradient descent",
          measure="sim_am_delta", words=(*_HERE, _CAUSAL), above="rival", rival=_HERE),
    Claim(text="the relaxed linear form explains what heads say: its R² exceeds its null and 0.5",
          measure="relaxed_r2", words=("in-context W_ZSL",), above="bar"),
)  # fmt: skip
"""At the corrected rate and the last prompt token, raw where the normalisation alone would agree; as published beside it."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A figure and how far it may be off on either side; None where that is not known. ``seeds`` it is a mean over."""

    value: float
    below: float | None
    above: float | None
    measure: str = ""
    seeds: int = 1

    def widened(self, claims: int) -> tuple[float, float] | None:
        """Its bounds, wide enough for so many claims together."""
        if self.below is None or self.above is None:
            return None
        factor = widening(claims, self.seeds)
        ends = self.value - factor * self.below, self.value + factor * self.above
        return within_range(self.measure, ends[0]), within_range(self.measure, ends[1])


_ZERO = _Part(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class _Look:
    """A claim on one task: what was measured, what it has to lie above, and whether their difference is reported."""

    claim: Claim
    own: _Part | None
    other: _Part
    reason: str = ""
    difference: bool = False

    def judged(self) -> bool:
        return self.own is not None and None not in (self.own.widened(1), self.other.widened(1))


def verdicts(measures: Sequence[Row]) -> list[dict[str, Any]]:
    """A line ``{claim, prediction, observed, low, high, verdict, seeds, task}`` for every claim with rows: first over all
    tasks (``task`` None), then of each task. With one task there is one line a claim, of task None with that task's figures.

    Rows over seeds (``over_seeds``) are taken where there are any, else those of the least seed; ``seeds`` counts them,
    over tasks the fewest of any.

    Claim: ``shown`` is what the figures say whatever queries were drawn, and of two seeds or more whatever demonstrations;
        of one seed it is said of its one set of demonstrations and no other. ``contradicted`` is that they say the
        opposite; ``not shown`` is neither, also where a figure is undefined, has no interval, or is a mean over fewer
        than LEAST queries.
    Formula: ``observed`` is the figure, or its difference to its null or rival. ``shown`` where the whole interval lies
        above 0 (for BAR: above it and above the null), ``contradicted`` where it lies below. A difference is taken query
        by query, of those that have both, and its interval is that of ``per_layer.summary``, then of ``over_seeds``. With
        m claims judged on a task every half-width is first multiplied by t(1 - 0.05 / 2m) / t(1 - 0.05 / 2), quantiles of
        S - 1 degrees of freedom for S seeds and normal ones for one (Bonferroni), and that of a figure then cut to what
        the measure can be; ``low`` and ``high`` are these wider bounds. Over tasks ``shown`` is what is shown on every task asked, ``contradicted`` what is so on any
        and shown on none; ``observed`` counts tasks.
    Null: where every figure is what it is held against, at most one task in twenty has a ``shown`` or ``contradicted``.
        Of one seed that is so of the figures of its set alone: two maps of that set which have nothing to do with one
        another are still alike or unlike by chance, in the same way for all queries.
    Departures: the papers test nothing. The relaxed form has no interval of one seed; that of its mean over layers (t)
        stands in for it, although layers are no sample.
    Known problems: the expected agreement of Rec2FTP has no interval. Few seeds have wide intervals. Queries without a value in some layers weigh a little differently in a difference and in its two figures. An untrained model is one draw of weights with each seed. Several tasks have several chances to contradict.
        Gradient descent on shuffled labels, or on another task, is gradient descent too: that the likeness be less
        there is more than the account needs, and says what the likeness depends on.
    """
    tasks = list(dict.fromkeys(row["task"] for row in measures))
    found = {task: _of_task([row for row in measures if row["task"] == task], task) for task in tasks}
    if len(tasks) == 1:
        return [{**line, "task": None} for line in found[tasks[0]].values()]
    overall = []
    for claim in CLAIMS:
        lines = [found[task][claim.text] for task in tasks if claim.text in found[task]]
        overall += [_over_tasks(lines, len(tasks))] if lines else []
    return [*overall, *(line for task in tasks for line in found[task].values())]


def _over_tasks(lines: Sequence[Mapping[str, Any]], asked: int) -> dict[str, Any]:
    counts = {kind: sum(line["verdict"] == kind for line in lines) for kind in ("shown", "contradicted")}
    shown, against = counts.values()
    observed = f"shown on {shown} of {asked} tasks"
    observed += f", contradicted on {against}" if against else ""
    observed += f", not measured on {asked - len(lines)}" if len(lines) < asked else ""
    verdict = "shown" if shown == asked else "contradicted" if against and not shown else "not shown"
    seeds = min(line["seeds"] for line in lines)
    none = {"low": None, "high": None, "task": None}
    return {**lines[0], **none, "observed": observed, "verdict": verdict, "seeds": seeds}


def _of_task(rows: Sequence[Row], task: str) -> dict[str, dict[str, Any]]:
    """The line of every claim that has rows, by its words."""
    looks = [look for claim in CLAIMS if (look := _looked(claim, rows)) is not None]
    judged = sum(look.judged() for look in looks)
    return {look.claim.text: _line(look, judged, task) for look in looks}


def _line(look: _Look, claims: int, task: str) -> dict[str, Any]:
    observed: float | str = look.reason
    low = high = None
    verdict = "not shown"
    if look.own is not None:
        base = look.other.value if look.difference else 0.0
        observed = look.own.value - base
        own, other = look.own.widened(claims), look.other.widened(claims)
        if own is not None and other is not None:
            verdict = "shown" if own[0] > other[1] else "contradicted" if own[1] < other[0] else verdict
            low, high = (own[0] - other[1], own[1] - other[0]) if look.difference else own
    return {
        "claim": look.claim.text,
        "prediction": look.claim.prediction,
        "observed": observed,
        "low": low,
        "high": high,
        "verdict": verdict,
        "seeds": look.own.seeds if look.own is not None else 1,
        "task": task,
    }


def _looked(claim: Claim, rows: Sequence[Row]) -> _Look | None:
    """What a claim is about on one task; None where a row that it needs was not measured."""
    own = _found(rows, claim.measure, claim.words, numbers=_CAUSAL in claim.words)
    rival = own
    if claim.above == "rival":
        rival = _found(rows, claim.measure, claim.rival, numbers=_CAUSAL in claim.words)
    if not own or not rival:
        return None
    row = _whole(own)
    if claim.twin is not None:
        twin = _whole(_found(rows, claim.measure, claim.twin))
        if twin and all(twin.get(key) == row.get(key) for key in ("value", "null", "n")):
            return None
    if row.get("value") is None:
        return _Look(claim, None, _ZERO, str(row.get("reason") or "undefined"))
    if claim.above == "zero":
        return _Look(claim, _part(row), _ZERO)
    if claim.above == "bar":
        part = _part(row)
        part = part if part.below is not None else _over_layers(rows, row) or part
        return _Look(claim, part, _Part(max(BAR, row.get("null") or 0.0), 0.0, 0.0))
    if claim.above == "null" and row.get("null") is None:
        return _Look(claim, None, _ZERO, "its null is undefined")
    if claim.above == "rival" and _whole(rival).get("value") is None:
        return _Look(claim, None, _ZERO, str(_whole(rival).get("reason") or "its rival is undefined"))
    if row["measure"] in _EXACT:
        # What chance gives from the marginals is a number without bounds of its own.
        return _Look(claim, _part(row), _Part(row["null"], 0.0, 0.0), difference=True)
    less = _difference(own, rival, "null_each" if claim.above == "null" else "each")
    if less.get("value") is None:
        return _Look(claim, None, _ZERO, str(less.get("reason") or "no seed has both"))
    return _Look(claim, _part(less), _ZERO)


def _difference(own: Mapping[Any, Row], other: Mapping[Any, Row], name: str) -> Row:
    """The row of what each query has more than in ``other``, where ``name`` holds its values; over seeds if there are several."""
    found = []
    for seed, row in own.items():
        # Of the row over all seeds no query has a value.
        if seed is not None and seed in other:
            # A control is asked the first of the queries.
            pairs = list(zip(row["each"], other[seed][name], strict=False))
            values = [0.0 if None in pair else pair[0] - pair[1] for pair in pairs]
            both = [None not in pair for pair in pairs]
            seen = summary(np.array(values)[:, None], seed, defined=np.array(both)[:, None])
            less = {"value": seen.value, "low": seen.low, "high": seen.high, "n": seen.n, "reason": seen.reason}
            found.append({**row, "measure": "difference", **less})
    return _whole({row.get("seed"): row for row in [*over_seeds(found), *found]})


def _whole(found: Mapping[Any, Row]) -> Row:
    """The row over all seeds with how many have a value, else that of the least seed; an empty one where there is none."""
    if None in found:
        known = [row for seed, row in found.items() if seed is not None and row.get("value") is not None]
        return {**found[None], "seeds": len(known)}
    return found[min(found)] if found else {}


def _part(row: Mapping[str, Any]) -> _Part:
    value, low, high = (row.get(key) for key in ("value", "low", "high"))
    assert value is not None
    measure, seeds = str(row["measure"]), int(row.get("seeds") or 1)
    few = measure not in _EXACT and row.get("n") is not None and row["n"] < LEAST
    if low is None or high is None or few:
        return _Part(float(value), None, None, measure, seeds)
    # A percentile of resamples may lie beyond the mean by rounding.
    return _Part(float(value), max(0.0, value - low), max(0.0, high - value), measure, seeds)


def _found(rows: Sequence[Row], measure: str, words: Sequence[str], *, numbers: bool = False) -> dict[Any, Row]:
    """The rows over all layers with just these words, by their seeds.

    ``numbers``: those that say how many demonstrations they had go before others.
    """
    exact: dict[Any, Row] = {}
    counting: dict[Any, Row] = {}
    for row in rows:
        if row.get("layer") is not None or row.get("measure") != measure:
            continue
        more = said(row) - set(words)
        numbered = bool(more) and numbers and all(map(counted, more))
        if set(words) <= said(row) and (numbered or not more):
            (counting if numbered else exact).setdefault(row.get("seed"), row)
    return counting or exact


def _over_layers(rows: Sequence[Row], whole: Row) -> _Part | None:
    """The mean of a row with the interval of its mean over layers (t); None for fewer than two layers with a value."""
    same = [
        row
        for row in rows
        if row.get("layer") is not None
        and all(row.get(key) == whole.get(key) for key in ("measure", "variant", "seed"))
    ]
    values = [row["value"] for row in same if row.get("value") is not None]
    if len(values) < 2:
        return None
    t = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    half = t * stdev(values) / math.sqrt(len(values))
    return _Part(fmean(values), half, half, str(whole["measure"]))
