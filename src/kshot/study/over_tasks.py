"""One row over all tasks for what was measured query by query on each of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kshot.measure.intervals import mean_interval

Row = dict[str, Any]

# Correlations within a query: of the same meaning, whatever task the query is of.
_POOLED = ("rank_agreement",)


def over_tasks(rows: Sequence[Row]) -> list[Row]:
    """A row of task None for every (model, seed, measure, variant) that several tasks have query by query, and no others.

    Formula: the mean over the queries of all tasks, each query weighing the same, with an interval over them.
    Known problems: the interval is for queries of these tasks after these demonstrations; it knows nothing of another task.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["measure"] in _POOLED and row.get("each"):
            key = tuple(row.get(name) for name in ("model", "seed", "measure", "variant", "layer"))
            groups.setdefault(key, []).append(row)
    return [_pooled(own) for own in groups.values() if len({row.get("task") for row in own}) > 1]


def _pooled(rows: Sequence[Row]) -> Row:
    values = np.array([value for row in rows for value in row["each"]])
    seed = int(rows[0].get("seed") or 0)
    low, high = mean_interval(values, seed, within=(-1.0, 1.0)) or (None, None)
    own = {"value": float(values.mean()), "low": low, "high": high, "n": len(values)}
    return {**rows[0], **own, "task": None, "reason": None, "each": values.tolist()}
