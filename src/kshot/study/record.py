"""What scoring a cell leaves behind: its figures, and a line for every query."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from kshot.data.predictions import Predictions
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import NumericError
from kshot.measure.calibrate import SCORES, why_undefined
from kshot.measure.intervals import wilson
from kshot.measure.metrics import accuracy, calibration_curve, confusion, ece, log_loss, macro_f1
from kshot.measure.scoring import Outcome
from kshot.model.adapted import Adapted, Training
from kshot.model.lm import LM
from kshot.study.cells import Cell
from kshot.study.environment import peak_rss_bytes

GREEDY = "greedy_exact_match"

# An open task has hundreds of candidate outputs: a sample keeps the best of them and the right one.
OPEN_CANDIDATES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A finished cell. ``figures`` is the cell of results.json; ``right`` has a letter for each test example of the task.

    "1" is right, "0" wrong, "-" unlabelled or left out: what paired comparisons need, in a hundred bytes.
    """

    figures: dict[str, Any]
    right: str


def record(
    cell: Cell, adapted: Adapted, task: Task, examples: Sequence[Example], outcome: Outcome, seconds: float
) -> tuple[Record, list[dict[str, Any]]]:
    """The record of a cell and its samples, one for each query that was asked."""
    predictions = outcome.predictions
    right = _right(predictions)
    known = {q: bool(r) for q, r in zip(predictions.ids, right, strict=True) if r is not None}
    marks = "".join("-" if e.id not in known else "1" if known[e.id] else "0" for e in examples)
    figures = {
        "id": cell.id,
        "task": cell.task,
        "model": adapted.lm.name,
        "method": cell.method,
        "params": dict(cell.params),
        "shots": cell.shots,
        "seed": cell.seed,
        "order": cell.order,
        **_accuracy(marks),
        **_measured(task, predictions),
        "seconds": seconds,
        "tokens": outcome.tokens,
        "trainable_parameters": adapted.trainable_parameters,
        "artefact_bytes": adapted.artefact_bytes,
        "peak_rss_bytes": peak_rss_bytes(),
        "dtype": str(adapted.lm.dtype).removeprefix("torch."),
        "device": str(adapted.lm.device),
        "demonstrations": [example.id for example in adapted.demonstrations],
        "dropped_demonstrations": outcome.dropped,
        "skipped": len(outcome.skipped),
        "repaired_seams": outcome.repaired,
        "training": None if adapted.training is None else training_facts(adapted.training),
        "notes": list(adapted.notes),
        "interpretation": None,
        "failed": None,
        "samples": None,
    }
    named = {"cell": cell.id, **{name: getattr(cell, name) for name in ("task", "method", "shots", "seed", "order")}}
    return Record(figures=figures, right=marks), samples_of(named, adapted.template, task, examples, predictions, right)


def came_to_nothing(cell: Cell, lm: LM, examples: Sequence[Example], reason: str, seconds: float) -> dict[str, Any]:
    """The line of a cell that failed: every figure is null, and ``failed`` says why."""
    unknown = ("accuracy", "accuracy_low", "accuracy_high", "macro_f1", "log_loss", "ece", "tokens", "artefact_bytes")
    return {
        **{name: getattr(cell, name) for name in ("id", "task", "method", "shots", "seed", "order")},
        "model": lm.name,
        "params": dict(cell.params),
        "n": 0,
        **dict.fromkeys(unknown),
        "score": "sum",
        "scores": {},
        "undefined": {},
        "confusion": None,
        "calibration": [],
        "seconds": seconds,
        "fit_seconds": None,
        "query_ms": None,
        "trainable_parameters": None,
        "peak_rss_bytes": peak_rss_bytes(),
        "dtype": str(lm.dtype).removeprefix("torch."),
        "device": str(lm.device),
        "demonstrations": [],
        "dropped_demonstrations": 0,
        "skipped": 0,
        "repaired_seams": 0,
        "training": None,
        "notes": [],
        "interpretation": None,
        "failed": reason,
        "samples": None,
        "right": "-" * len(examples),
    }


def training_facts(training: Training) -> dict[str, Any]:
    """How something was learned, as JSON knows it."""
    found = {option.name: getattr(training, option.name) for option in fields(Training)}
    return found | {"losses": list(training.losses), "search": [dict(one) for one in training.search]}


def _right(predictions: Predictions) -> list[bool | None]:
    """Whether each query was answered right; None where nobody knows the answer."""
    if predictions.greedy is not None:
        pairs = zip(predictions.greedy, predictions.gold_text, strict=True)
        return [None if gold is None else said == gold for said, gold in pairs]
    best = predictions.logprobs.argmax(axis=1) if len(predictions.ids) else np.zeros(0, dtype=np.int64)
    return [None if gold < 0 else bool(column == gold) for column, gold in zip(best, predictions.gold, strict=True)]


def _accuracy(marks: str) -> dict[str, Any]:
    n, right = len(marks) - marks.count("-"), marks.count("1")
    bounds = wilson(right, n)
    return {
        "n": n,
        "accuracy": right / n if n else None,
        "accuracy_low": bounds[0] if bounds else None,
        "accuracy_high": bounds[1] if bounds else None,
    }


def _measured(task: Task, predictions: Predictions) -> dict[str, Any]:
    """The figures of every scoring rule; those of ``sum`` at the top, with its confusion and calibration."""
    scores: dict[str, Any] = {}
    undefined: dict[str, str] = {}
    for name in SCORES:
        try:
            scores[name] = _rule(task, predictions, name)
        except NumericError as error:
            if name == "sum":
                raise
            scores[name], undefined[name] = None, str(error)
        if scores[name] is None:
            undefined.setdefault(name, why_undefined(name, predictions))
    plain = scores["sum"] or {}
    table, gold = SCORES["sum"](predictions), predictions.gold
    shared = task.kind == "classification" and table is not None
    return {
        "macro_f1": plain.get("macro_f1"),
        "log_loss": plain.get("log_loss"),
        "ece": plain.get("ece"),
        "score": "sum" if predictions.greedy is None else GREEDY,
        "scores": scores,
        "undefined": undefined,
        "confusion": confusion(table, gold, predictions.labels) if shared and table is not None else None,
        "calibration": [] if table is None else calibration_curve(table, gold) or [],
    }


def _rule(task: Task, predictions: Predictions, name: str) -> dict[str, float | None] | None:
    table, gold = SCORES[name](predictions), predictions.gold
    if table is None:
        return None
    return {
        "accuracy": accuracy(table, gold),
        # With a query or two for each answer, as open tasks have, it would say nothing.
        "macro_f1": None if task.kind == "open" else macro_f1(table, gold, predictions.labels),
        "log_loss": log_loss(table, gold),
        "ece": ece(table, gold),
    }


def samples_of(
    named: Mapping[str, Any],
    template: Template,
    task: Task,
    examples: Sequence[Example],
    predictions: Predictions,
    right: Sequence[bool | None],
    *,
    table: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """A line for every query that was asked; ``named`` says by whom, and stands in each.

    ``table`` are the scores that the answer is the best of: the log-probabilities, unless they are given.
    """
    by_id = {example.id: example for example in examples}
    lines = []
    for q, name in enumerate(predictions.ids):
        example, labels = by_id[name], predictions.labels[q]
        sums = predictions.logprobs[q, : len(labels)]
        ranked = np.argsort(-(sums if table is None else table[q, : len(labels)]), kind="stable")
        kept = set(ranked[:OPEN_CANDIDATES].tolist()) | {int(predictions.gold[q])}
        greedy = predictions.greedy[q] if predictions.greedy is not None else None
        lines.append(
            {
                **named,
                "doc_id": name,
                "gold": example.label,
                "pred": labels[int(ranked[0])] if greedy is None else greedy,
                "logprobs": {
                    label: float(value) if np.isfinite(value) else None
                    for c, (label, value) in enumerate(zip(labels, sums, strict=True))
                    if task.kind != "open" or c in kept
                },
                "right": right[q],
                "input": template.render(example.fields),
                "greedy": greedy,
            }
        )
    return lines
