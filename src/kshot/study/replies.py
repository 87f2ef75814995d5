"""What interventions say of the open questions: each rival mechanism judged, with intervals widened for their number."""

from collections.abc import Mapping, Sequence
from typing import Any

from kshot.study.catalogue import QUESTIONS
from kshot.study.catalogue.question import Rival
from kshot.study.over_seeds import LEAST, widening

Row = dict[str, Any]

# Of a single set of demonstrations nothing can be said of others.
_LEAST_SEEDS = 2


def replies(measures: Sequence[Row]) -> list[dict[str, Any]]:
    """A line ``{question, asks, prediction, mechanism, intervention, contrast, task, model, when, observed, unit, low,
    high, seeds, n, verdict, reason}`` for every contrast that was measured, on every task.

    ``measures`` are rows over seeds (``over_seeds``) and of each seed, of any models; ``when`` is what a contrast's row
    says besides its name, such as a number of examples.

    Claim: ``shown``: the contrast lies above 0 whatever demonstrations and queries were drawn, so its mechanism holds as
        far as the intervention tells; ``contradicted``: below; ``not shown``: neither, or undefined, of one seed, or of fewer than LEAST queries.
    Formula: the interval over seeds and queries, with m contrasts judged together its half-widths times
        t(1 - 0.05 / 2m) / t(1 - 0.05 / 2), quantiles of S - 1 degrees of freedom for S seeds (Bonferroni).
    Null: were every contrast 0, at most one run in twenty has a ``shown`` or ``contradicted``.
    Departures: none.
    Known problems: few seeds have wide intervals; a mechanism that explains less than the bar in its contrast is
        contradicted although it may be at work. An intervention takes the model to where no text does.
    """
    lines = [line for name in QUESTIONS for line in _of_question(name, measures)]
    number = sum(line["low"] is not None for line in lines)
    return [_judged(line, number) for line in lines]


def _of_question(name: str, measures: Sequence[Row]) -> list[dict[str, Any]]:
    question = QUESTIONS[name]
    found = []
    for rival in question.rivals:
        groups: dict[tuple[Any, ...], list[Row]] = {}
        for row in measures:
            if row.get("measure") == f"why_{name}_contrast" and (when := _when(row, rival)) is not None:
                groups.setdefault((row.get("model"), row["task"], when), []).append(row)
        for (model, task, when), rows in groups.items():
            about = {"question": name, "asks": question.asks, "prediction": question.prediction}
            about |= {"mechanism": rival.mechanism, "intervention": rival.intervention, "contrast": rival.contrast}
            found.append({**about, "task": task, "model": model, "when": when, **_observed(rows)})
    return found


def _when(row: Row, rival: Rival) -> str | None:
    """What the row's variant says after the name of the contrast; None where it is of another."""
    variant = str(row.get("variant") or "")
    if variant == rival.contrast:
        return ""
    return variant.removeprefix(rival.contrast + ", ") if variant.startswith(rival.contrast + ", ") else None


def _observed(rows: Sequence[Row]) -> dict[str, Any]:
    """The figure over seeds, else that of the only seed, which has no interval over seeds."""
    single = [row for row in rows if row.get("seed") is not None]
    whole = next((row for row in rows if row.get("seed") is None), single[0] if single else rows[0])
    seeds = sum(row.get("value") is not None for row in single)
    sure = seeds >= _LEAST_SEEDS and whole.get("seed") is None
    why = None if sure else "one set of demonstrations: give --seed 0,1,2,3,4"
    if sure and (whole.get("n") or 0) < LEAST:
        sure, why = (
            False,
            f"{whole.get('n')} queries, of which fewer than {LEAST} are not judged: give --limit {LEAST} or more",
        )
    reason = whole.get("reason") or why
    return {
        "observed": whole.get("value"),
        "unit": whole.get("unit") or "",
        "low": whole.get("low") if sure else None,
        "high": whole.get("high") if sure else None,
        "seeds": seeds,
        "n": whole.get("n"),
        "reason": reason,
    }


def _judged(line: Mapping[str, Any], number: int) -> dict[str, Any]:
    value, low, high = line["observed"], line["low"], line["high"]
    if value is None or low is None or high is None:
        return {**line, "low": None, "high": None, "verdict": "not shown"}
    factor = widening(number, line["seeds"])
    low, high = value - factor * max(0.0, value - low), value + factor * max(0.0, high - value)
    verdict = "shown" if low > 0 else "contradicted" if high < 0 else "not shown"
    return {**line, "low": low, "high": high, "verdict": verdict}
