"""A question answered by interventions: what was predicted, the rival mechanisms, and what is measured of each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from kshot.errors import MethodError
from kshot.measure.arrangements import gold_logprob
from kshot.measure.calibrate import levelled
from kshot.measure.intervals import mean_interval
from kshot.study.compared import Row, Setting
from kshot.study.figures import figure

Say = Callable[[str], None]
Table = Float[np.ndarray, "*m q c"]
"""Log-probabilities of every candidate of every query, in nats."""


# After the name of a condition or a contrast: of answers from which ``levelled`` has taken what is said of all queries.
LEVELLED = "batch-calibrated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """A mechanism that may be what is behind, what is done to see, and the contrast that lies above 0 if it is.

    ``contrast`` is the name of a row of ``contrasts``: a mean over queries of differences within each query.
    """

    mechanism: str
    intervention: str
    contrast: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked, what was predicted before anything was run, the rivals, and what answers it for one setting.

    ``parts`` are by the names that ``kshot explain --parts`` gives them; their rows together are the answer.
    """

    asks: str
    prediction: str
    rivals: tuple[Rival, ...]
    parts: Mapping[str, Callable[[Setting, Say], list[Row]]] = field(repr=False)


def answered_part(part: Callable[[Setting, Say], list[Row]], setting: Setting, say: Say) -> list[Row]:
    """The rows of a part; MethodError where there is no label bias to speak of, since queries have no labels in common."""
    task, queries = setting.task, setting.queries
    if len({task.candidates(query) for query in queries}) > 1 or len(queries) < 2:
        raise MethodError(
            f"task {task.name!r}: what all queries are told alike needs 2 queries or more with the same labels"
        )
    return part(setting, say)


def condition_rows(question: str, tables: Mapping[str, Table], gold: Int[np.ndarray, "q"], seed: int) -> list[Row]:
    """Two rows for each condition: the mean log-probability of the gold label among the candidates, and the accuracy.

    A table may have orders before its queries: then both are means over these first.
    """
    rows = []
    for name, own in gold_logprobs(tables, gold).items():
        rows.append(mean_row(f"{question}_logprob", name, own, seed, unit="nats"))
        right = (tables[name].argmax(axis=-1) == gold).astype(np.float64).reshape(-1, len(gold)).mean(axis=0)
        rows.append(mean_row(f"{question}_accuracy", name, right, seed))
    return rows


def with_levelled(tables: Mapping[str, Table]) -> dict[str, Table]:
    """The same tables, and each once more without its label bias under its name and LEVELLED."""
    return {**tables, **{f"{name}, {LEVELLED}": levelled(table) for name, table in tables.items()}}


def gold_logprobs(tables: Mapping[str, Table], gold: Int[np.ndarray, "q"]) -> dict[str, Float[np.ndarray, "q"]]:
    """log P of the gold label among the candidates, of every query under each condition, meant over orders."""
    shaped = {name: table.reshape(-1, *table.shape[-2:]) for name, table in tables.items()}
    return {name: gold_logprob(table, gold).mean(axis=0) for name, table in shaped.items()}


def contrast_rows(question: str, contrasts: Mapping[str, Float[np.ndarray, "q"]], seed: int, unit: str) -> list[Row]:
    """A row for each contrast, 0 where its mechanism explains nothing or no more than the bar that stands in it."""
    return [mean_row(f"{question}_contrast", name, own, seed, unit=unit, null=0.0) for name, own in contrasts.items()]


def undefined(question: str, names: Sequence[str], reason: str) -> list[Row]:
    """Rows of contrasts that could not be had, and why."""
    return [figure(f"{question}_contrast", (name,), value=None, null=0.0, reason=reason) for name in names]


def mean_row(measure: str, name: str, values: Float[np.ndarray, "q"], seed: int, **more: Any) -> Row:
    """A mean over queries with its interval over them."""
    low, high = mean_interval(values, seed) or (None, None)
    return figure(measure, (name,), value=float(values.mean()), low=low, high=high, n=len(values), **more)
