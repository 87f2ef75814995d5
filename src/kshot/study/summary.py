"""Cells of one method and number of shots become a row; rows of one task are compared on the same queries."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kshot.measure.intervals import mcnemar, mean_interval, paired_permutation, wilson

Row = dict[str, Any]
Line = Mapping[str, Any]
Apart = Sequence[tuple[str, str, str]]

_MEASURED = ("accuracy", "test_low", "seed_low", "order_low", "macro_f1", "log_loss", "ece")


def summary(lines: Sequence[Line]) -> list[Row]:
    """One row per task, method, params and shots, in the order of the records.

    Accuracy and the other figures are means over the seeds that came to a result, demonstrations in the order picked;
    ``failed`` counts those that did not. ``test_*`` is the Wilson interval of that mean over test examples, ``seed_*``
    Student's t over seeds (null with one), ``order_*`` the least and greatest accuracy over
    orders of one demonstration set (null with one). ``score`` names what ``accuracy`` counts; ``scores`` is the accuracy
    by each scoring rule, null where a seed has none. What it costs is the mean over the seeds that were measured;
    ``flattened`` is the share of fits whose losses had stopped falling.
    """
    return [_row(group) for group in grouped(lines)]


def comparisons(lines: Sequence[Line]) -> list[Row]:
    """The best row of each task against every other on the same queries.

    ``n``, ``only_a`` and ``only_b`` count queries of all seeds together; ``p`` is that of ``paired_permutation`` over all
    seeds, times the number of pairs among the rows (Bonferroni): which row is the best was found on these queries, so
    any pair of rows might have been compared. ``p_values`` are exact McNemar tests, each seed by itself, uncorrected.
    What ran with one seed only (a method that draws nothing) stands against every seed of the other. Rows with wrong
    labels on purpose take no part.
    """
    found = []
    for task in dict.fromkeys(line["task"] for line in lines):
        groups = grouped([line for line in lines if line["task"] == task])
        apart = differing([group[0] for group in groups])
        scored = [group for group in groups if accuracy(group) is not None and not noisy(group[0])]
        if not scored:
            continue
        best = max(scored, key=lambda group: accuracy(group) or 0.0)
        pairs = len(scored) * (len(scored) - 1) // 2
        found += [_comparison(best, other, apart, pairs) for other in scored if other is not best]
    return found


def differing(rows: Sequence[Line]) -> Apart:
    """What tells rows of one task, method and number of shots apart: (task, method, parameter), no more than it takes.

    A row without a parameter differs from one that has it.
    """
    groups: dict[tuple[str, str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["method"], row["shots"]), []).append(row.get("params") or {})
    found: dict[tuple[str, str, str], None] = {}
    for (task, method, _), own in groups.items():
        chosen: list[str] = []
        # First, so that nobody has to guess from its other parameters that a row is an ensemble.
        for key in dict.fromkeys(["ensemble", *(key for params in own for key in params)]):
            if _kinds(own, [*chosen, key]) > _kinds(own, chosen):
                chosen.append(key)
        # Whether labels are wrong on purpose is never left to be guessed from the number of shots.
        chosen += ["noise"] if "noise" not in chosen and any(map(_is_noisy, own)) else []
        found |= dict.fromkeys((task, method, key) for key in chosen)
    return tuple(found)


def _kinds(own: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> int:
    return len({tuple(str(params.get(key)) for key in keys) for params in own})


def telling(row: Line, apart: Apart) -> dict[str, Any]:
    """Those parameters of a row that tell it from its namesakes."""
    params = row.get("params") or {}
    mine = [key for task, method, key in apart if (task, method) == (row["task"], row["method"])]
    return {key: params[key] for key in mine if key in params}


def arm(row: Line, apart: Apart = ()) -> str:
    """How comparisons, results and the page call a row.

    >>> arm(
    ...     {"task": "t", "method": "in-context", "shots": 4, "params": {"pick": "bm25"}}, [("t", "in-context", "pick")]
    ... )
    'in-context@4[pick=bm25]'
    """
    extra = ",".join(f"{key}={value}" for key, value in telling(row, apart).items())
    return f"{row['method']}@{row['shots']}" + (f"[{extra}]" if extra else "")


def called(row: Line, apart: Apart = ()) -> str:
    """A method with those parameters that tell it from its namesakes, without its number of shots.

    >>> called({"task": "t", "method": "in-context", "params": {"pick": "bm25"}}, [("t", "in-context", "pick")])
    'in-context (pick=bm25)'
    """
    extra = [f"{key}={value}" for key, value in telling(row, apart).items()]
    return f"{row['method']} ({', '.join(extra)})" if extra else str(row["method"])


def noisy(row: Line) -> bool:
    """Whether some of its examples have wrong labels on purpose: such rows are compared with clean ones and never win."""
    return _is_noisy(row.get("params") or {})


def _is_noisy(params: Mapping[str, Any]) -> bool:
    return bool(params.get("noise"))


def grouped(lines: Sequence[Line]) -> list[list[Line]]:
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(repr([line[key] for key in ("task", "method", "params", "shots")]), []).append(line)
    return list(groups.values())


def worked(group: Sequence[Line]) -> list[Line]:
    """The cells that a row is the mean of: demonstrations in the order picked, and a result."""
    return [line for line in group if line["order"] == 0 and not line.get("failed")]


def accuracy(group: Sequence[Line]) -> float | None:
    """The mean accuracy over the seeds of a row that came to a result; None where none did, or nothing is labelled."""
    return _mean(worked(group), "accuracy")


def _row(group: Sequence[Line]) -> Row:
    first = worked(group)
    n = min((line["n"] for line in first), default=0)
    mean = accuracy(group)
    over_test = wilson(mean * n, n) if mean is not None else None
    values = [line["accuracy"] for line in first]
    over_seeds = mean_interval(np.array(values, dtype=np.float64), within=(0.0, 1.0)) if mean is not None else None
    orders = [line["accuracy"] for line in group if first and line["seed"] == first[0]["seed"]]
    ordered = len(orders) > 1 and None not in orders
    seconds = _mean(first, "seconds")
    return {
        **{key: group[0][key] for key in ("task", "method", "params", "shots")},
        "seeds": [line["seed"] for line in first],
        "n": n,
        "accuracy": mean,
        "test_low": over_test[0] if over_test else None,
        "test_high": over_test[1] if over_test else None,
        "seed_low": over_seeds[0] if over_seeds else None,
        "seed_high": over_seeds[1] if over_seeds else None,
        "orders": len(orders),
        "order_low": min(orders) if ordered else None,
        "order_high": max(orders) if ordered else None,
        **{key: _mean(first, key) for key in ("macro_f1", "log_loss", "ece")},
        "seconds": seconds,
        "tokens": _mean(first, "tokens"),
        "queries_per_second": _speed(first, n),
        "score": next((line.get("score") for line in first), None),
        "scores": _scores(first),
        **_cost(first),
        **_failures([line for line in group if line["order"] == 0]),
    }


def _cost(lines: Sequence[Line]) -> Row:
    """Means over the cells where they were measured; null where nobody did."""
    trained = [line["training"] for line in lines if line.get("training")]
    keys = ("fit_seconds", "query_ms", "trainable_parameters", "artefact_bytes", "peak_rss_bytes")
    return {
        **{key: _of_known([line.get(key) for line in lines]) for key in keys},
        "flops": _of_known([training.get("flops") for training in trained]),
        "start_loss": _of_known([training.get("start") for training in trained]),
        "flattened": _of_known([training.get("flattened") for training in trained]),
    }


def _of_known(values: Sequence[Any]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _failures(lines: Sequence[Line]) -> Row:
    reasons = list(dict.fromkeys(str(line["failed"]) for line in lines if line.get("failed")))
    nothing = bool(lines) and all(line.get("failed") for line in lines)
    why = {"undefined": dict.fromkeys(_MEASURED, f"failed: {reasons[0]}")} if nothing else {}
    return {"failed": sum(bool(line.get("failed")) for line in lines), **why}


def _speed(lines: Sequence[Line], n: int) -> float | None:
    """Queries a second while queries were answered: what was spent on learning first does not count."""
    spent = [line["seconds"] - (line.get("fit_seconds") or 0) for line in lines if line.get("seconds") is not None]
    mean = float(np.mean(spent)) if spent else 0
    return n / mean if mean > 0 else None


def _scores(lines: Sequence[Line]) -> dict[str, float | None]:
    """The mean accuracy by each scoring rule over lines that all have it; None where one has not."""
    own: list[Mapping[str, Any]] = [line.get("scores") or {} for line in lines]
    found: dict[str, float | None] = {}
    for name in dict.fromkeys(name for scores in own for name in scores):
        values = [(scores.get(name) or {}).get("accuracy") for scores in own]
        known = [value for value in values if value is not None]
        found[name] = float(np.mean(known)) if len(known) == len(values) else None
    return found


def _mean(lines: Sequence[Line], key: str) -> float | None:
    known = [line[key] for line in lines if line.get(key) is not None]
    return float(np.mean(known)) if known and len(known) == len(lines) else None


def _comparison(a: Sequence[Line], b: Sequence[Line], apart: Apart, pairs: int) -> Row:
    lines = together(a, b)
    tests = {seed: mcnemar(*_marks(*own)) for seed, own in lines.items()}
    whole = over_all_seeds(lines)
    known = [test for test in tests.values() if test is not None]
    counts = {key: sum(test[key] for test in known) for key in ("n", "only_a", "only_b")}
    return {
        "task": a[0]["task"],
        "a": arm(a[0], apart),
        "b": arm(b[0], apart),
        **counts,
        "difference": whole["difference"] if whole else None,
        "p": min(1.0, pairs * whole["p"]) if whole else None,
        "p_values": {str(seed): None if test is None else test["p"] for seed, test in tests.items()},
    }


def together(a: Sequence[Line], b: Sequence[Line]) -> dict[int, tuple[Line, Line]]:
    """The cells of two rows seed by seed; one that ran with one seed only stands against every seed of the other."""
    by_seed = [{line["seed"]: line for line in worked(group)} for group in (a, b)]
    # A method that draws nothing has one seed however many were asked for; one whose other seeds failed has not.
    alone = [
        len(own) == 1 and not any(line.get("failed") for line in group)
        for own, group in zip(by_seed, (a, b), strict=True)
    ]
    seeds = [
        s for s in {**by_seed[0], **by_seed[1]} if all(one or s in own for own, one in zip(by_seed, alone, strict=True))
    ]
    return {s: (_of(by_seed[0], s), _of(by_seed[1], s)) for s in seeds}


def over_all_seeds(lines: Mapping[int, tuple[Line, Line]]) -> Row | None:
    """``paired_permutation`` of cells seed by seed, and ``difference``: the first's accuracy less the second's over the
    queries of all seeds that both were asked; None where there are none."""
    both = np.array([_asked_of(*pair) for pair in lines.values()], dtype=bool)
    if not both.any():
        return None
    differences = np.array([_differences(*pair) for pair in lines.values()], dtype=np.int64)
    # A query that one of the two left out, in every seed, was not asked.
    test = paired_permutation(differences[:, both.any(axis=0)])
    return None if test is None else {**test, "difference": int(differences.sum()) / int(both.sum())}


def _asked_of(a: Line, b: Line) -> list[bool]:
    return [x != "-" != y for x, y in zip(a["right"], b["right"], strict=True)]


def _differences(a: Line, b: Line) -> list[int]:
    pairs = zip(a["right"], b["right"], strict=True)
    return [0 if "-" in (x, y) else (x == "1") - (y == "1") for x, y in pairs]


def _of(own: Mapping[int, Line], seed: int) -> Line:
    return own[seed] if seed in own else next(iter(own.values()))


def _marks(a: Line, b: Line) -> tuple[np.ndarray, np.ndarray]:
    both = [(x == "1", y == "1") for x, y in zip(a["right"], b["right"], strict=True) if "-" not in (x, y)]
    return np.array([x for x, _ in both], dtype=bool), np.array([y for _, y in both], dtype=bool)
