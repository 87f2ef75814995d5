"""What the page says of a task that was learned in many ways: first what to take, then how sure, how dear, how it went."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from kshot.show import curves, tradeoff, words
from kshot.show.svg import svg
from kshot.show.words import Row
from kshot.study.summary import Apart, arm, called, differing, noisy
from kshot.study.verdict import RULE, learned, said_of_noise

# What a budget may be called among the settings, in the order in which it is told.
_BUDGET = ("budget", "validation", "search", "rates")
_TOKENS, _ROWS = 5, 20
_MARKS = {"better": "▲", "worse": "▼", "undecided": ""}
_SAYS = {
    "better": "better than in-context at the same size",
    "worse": "worse than in-context at the same size",
    "undecided": "not distinguishable from in-context at the same size",
}
_PAIR = {"in-context": "in-context at the same size", "zero-shot": "zero-shot", "best": "the best"}


def learning_view(ours: Row, name: str, key: str) -> dict[str, Any]:
    """The values of ``learning.html.j2`` and of the first screen for one task; ``key`` begins the ids of its figures.

    ``learned`` is False for a task that was only prompted, and of everything else there is then only ``taken`` and ``failed``.
    """
    rows = [row for row in ours["summary"] if row["task"] == name]
    cells = [cell for cell in ours["cells"] if cell["task"] == name]
    apart = differing(rows)
    taken = (ours.get("recommended") or {}).get(name)
    # What was only prompted has nothing to keep but the prompt, unless somebody has saved it.
    taken = taken if taken and (learned(rows) or taken.get("directory")) else None
    view: dict[str, Any] = {
        "learned": learned(rows),
        "taken": _taken(taken, rows, name, apart),
        "failed": _failed(cells, apart),
    }
    if not view["learned"]:
        return view
    pairs = [pair for pair in ours.get("paired") or () if pair["task"] == name]
    clean = [row for row in rows if not noisy(row)]
    series = series_of(clean, apart)
    return {
        **view,
        "overview": _overview(clean, taken, name, key, apart),
        "multiples": _multiples(series, name, key),
        "matrix": matrix(clean, pairs, apart),
        "pairs": [_pair(pair) for pair in pairs if pair["against"] in _PAIR],
        "tradeoff": _tradeoff(clean, name, key, apart),
        "noise": _noise(rows, pairs, key),
        "noise_said": said_of_noise(pairs),
        "training": _training([cell for cell in cells if cell.get("training")], rows, key, apart),
        "budget": [(n.replace("_", " "), str(v)) for n, v in _settings(ours).items() if n in _BUDGET and v is not None],
        "read": _read(cells, apart),
    }


def _settings(ours: Row) -> Mapping[str, Any]:
    settings = ours.get("settings") or {}
    return {name: settings[name] for name in _BUDGET if name in settings}


def series_of(rows: Sequence[Row], apart: Apart) -> dict[str, list[Row]]:
    """The rows of each way of teaching, by its name, smallest number of shots first."""
    series: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["shots"]):
        series.setdefault(called(row, apart), []).append(row)
    order = list(dict.fromkeys(called(row, apart) for row in rows))
    return {name: series[name] for name in order}


def _taken(taken: Row | None, rows: Sequence[Row], task: str, apart: Apart) -> dict[str, Any] | None:
    """What to take, in the words of the first screen."""
    if taken is None:
        return None
    same = [row for row in rows if all(row[key] == taken[key] for key in ("method", "params", "shots"))]
    row: Row = same[0] if same else {**taken, "task": task}
    facts = [
        (
            "accuracy",
            f"{words.decimals(row.get('accuracy'))} ({words.interval(row.get('test_low'), row.get('test_high'))})",
        ),
        ("learning takes", words.duration(row.get("fit_seconds"))),
        ("a query takes", words.duration(_milliseconds(row))),
        ("to store", words.size(row.get("artefact_bytes"))),
    ]
    return {
        "name": called(row, apart) + (f" with {taken['shots']} examples" if taken["shots"] else ""),
        "why": taken["why"],
        "facts": [(name, text) for name, text in facts if not text.startswith(words.DASH)],
        "rule": RULE,
        **saved(taken),
    }


def saved(taken: Row) -> dict[str, str]:
    """Where the artefact lies and the command that uses it; empty where nobody has saved it."""
    directory = taken.get("directory") or ""
    return {
        "directory": directory,
        "command": words.command(["kshot", "predict", directory, "FILE"]) if directory else "",
    }


def _milliseconds(row: Row) -> float | None:
    """Seconds for a query alone, else its share of all queries."""
    alone = row.get("query_ms")
    return alone / 1000 if alone is not None else words.per_query(row)


def _failed(cells: Sequence[Row], apart: Apart) -> list[dict[str, str]]:
    """Every reason once, with the cells it stopped."""
    found: dict[str, dict[str, list[str]]] = {}
    for cell in cells:
        if cell.get("failed"):
            found.setdefault(str(cell["failed"]), {}).setdefault(arm(cell, apart), []).append(str(cell["seed"]))
    return [
        {
            "reason": reason,
            "cells": words.listed(
                [f"{name} (seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)})" for name, seeds in arms.items()], 8
            ),
        }
        for reason, arms in found.items()
    ]


def overview(rows: Sequence[Row], taken: Row | None, apart: Apart) -> Figure:
    """The learning curves of one task in one panel: the best, in-context and ``taken`` in colour; wrong labels left out."""
    series = _with_result(series_of([row for row in rows if not noisy(row)], apart))
    known = {name: max(r["accuracy"] for r in own if r["accuracy"] is not None) for name, own in series.items()}
    best = max(known, key=lambda name: known[name], default=None)
    chosen = called({**taken, "task": rows[0]["task"]}, apart) if taken else None
    return curves.overview(series, best=best, taken=chosen)


def _overview(rows: Sequence[Row], taken: Row | None, name: str, key: str, apart: Apart) -> Markup:
    text = "; ".join(f"{n}: {_by_size(own)}" for n, own in series_of(rows, apart).items())
    figure = overview(rows, taken, apart)
    return svg(figure, key=f"{key}over", title=f"Accuracy against examples, {name}", description=text)


def _with_result(series: Mapping[str, list[Row]]) -> dict[str, list[Row]]:
    return {name: own for name, own in series.items() if any(row["accuracy"] is not None for row in own)}


def _by_size(rows: Sequence[Row]) -> str:
    return ", ".join(f"{words.decimals(row['accuracy'])} with {row['shots']}" for row in rows)


def _multiples(series: Mapping[str, list[Row]], name: str, key: str) -> list[Markup]:
    found = _with_result(series)
    return [
        svg(
            curves.multiple(found, own), key=f"{key}m{number}", title=f"{own}, {name}", description=_by_size(found[own])
        )
        for number, own in enumerate(found)
        if sum(row["accuracy"] is not None for row in found[own]) > 1
    ]


def matrix(rows: Sequence[Row], pairs: Sequence[Row], apart: Apart) -> dict[str, Any]:
    """Accuracy by method and number of shots, the best of each size marked, with what the paired tests say.

    ``shots`` heads the columns; a line has ``name`` and ``cells`` of ``{text, why, mark, says, best}``.
    """
    shots = sorted({row["shots"] for row in rows})
    verdicts = {pair["a"]: pair["verdict"] for pair in pairs if pair["against"] == "in-context"}
    best = {
        k: max((r["accuracy"] for r in rows if r["shots"] == k and r["accuracy"] is not None), default=None)
        for k in shots
    }
    lines = []
    for name, own in series_of(rows, apart).items():
        at = {row["shots"]: row for row in own}
        cells = []
        for k in shots:
            row = at.get(k)
            verdict = verdicts.get(arm(row, apart), "") if row else ""
            value = row["accuracy"] if row else None
            cells.append(
                {
                    "text": words.decimals(value) if row else "",
                    "why": words.why(row, "accuracy") if row else "",
                    "interval": words.interval(row["test_low"], row["test_high"]) if row and value is not None else "",
                    "mark": _MARKS.get(verdict, ""),
                    "says": _SAYS.get(verdict, ""),
                    "failed": row.get("failed", 0) if row else 0,
                    "best": value is not None and value == best[k] and sum(row["shots"] == k for row in rows) > 1,
                }
            )
        lines.append({"name": name, "cells": cells, "last": own[-1]})
    return {"shots": shots, "lines": lines}


def _pair(pair: Row) -> dict[str, Any]:
    difference = words.decimals(pair["difference"])
    return {
        "a": pair["a"],
        "b": pair["b"],
        "difference": difference if pair["difference"] <= 0 else "+" + difference,
        "counts": [words.count(pair[key]) for key in ("better", "worse", "n", "seeds")],
        "p": words.p_value(pair["p"]),
        "p_holm": words.p_value(pair["p_holm"]),
        "verdict": pair["verdict"],
    }


def largest(rows: Sequence[Row], apart: Apart) -> dict[str, Row]:
    """The row of each way of teaching at its largest number of shots that came to a result."""
    found = {name: [r for r in own if r["accuracy"] is not None] for name, own in series_of(rows, apart).items()}
    return {name: own[-1] for name, own in found.items() if own}


def _tradeoff(rows: Sequence[Row], name: str, key: str, apart: Apart) -> list[dict[str, Any]]:
    own = largest(rows, apart)
    panels = []
    for number, (cost, label) in enumerate(tradeoff.COSTS):
        points = tradeoff.costs_of(own, cost)
        if len(points) < 2 or not any(value for value, _ in points.values()):
            continue
        text = "; ".join(f"{n} {value:g}, accuracy {words.decimals(y)}" for n, (value, y) in points.items())
        figure = svg(
            tradeoff.scatter(own, cost, label),
            key=f"{key}c{number}",
            title=f"Accuracy against {label}, {name}",
            description=text,
        )
        missing = [n for n in own if n not in points]
        panels.append({"figure": figure, "missing": f"Not measured: {words.listed(missing)}." if missing else ""})
    return panels


def _noise(rows: Sequence[Row], pairs: Sequence[Row], key: str) -> list[Markup]:
    found: dict[tuple[str, float], list[Row]] = {}
    for pair in pairs:
        if pair["against"] == "clean":
            found.setdefault((pair["name"], pair["noise"]), []).append(pair)
    figures = []
    by_arm = {arm(row, differing(rows)): row for row in rows}
    for number, ((name, share), own) in enumerate(found.items()):
        clean, noised = (
            [by_arm[p["b"]] for p in own if p["b"] in by_arm],
            [by_arm[p["a"]] for p in own if p["a"] in by_arm],
        )
        title = f"{name}: clean examples against four times as many with {100 * share:g} % of the labels wrong"
        text = "; ".join(f"{p['shots']} clean: {words.decimals(p['difference'])} for the noisy" for p in own)
        figures.append(svg(curves.noise(own, clean, noised), key=f"{key}n{number}", title=title, description=text))
    return figures


def _training(cells: Sequence[Row], rows: Sequence[Row], key: str, apart: Apart) -> list[dict[str, Any]]:
    """For each way that takes steps: its losses, a line for each size, and what was tried with what was chosen."""
    by_name: dict[str, list[Row]] = {}
    for cell in cells:
        if not noisy(cell):
            by_name.setdefault(called(cell, apart), []).append(cell)
    found = []
    for number, (name, own) in enumerate(by_name.items()):
        lines = [
            _trained(row)
            for row in rows
            if not noisy(row) and called(row, apart) == name and row.get("flops") is not None
        ]
        text = "; ".join(
            f"{line['shots']} examples: starts at {line['start']}, flattened {line['flattened']}" for line in lines
        )
        figure = svg(curves.losses(own), key=f"{key}l{number}", title=f"Training losses of {name}", description=text)
        found.append(
            {
                "name": name,
                "figure": figure,
                "lines": lines,
                "search": [_search(cell) for cell in own if cell["training"].get("search")],
                "validation": next((c["training"]["validation"] for c in own if c["training"].get("validation")), ""),
            }
        )
    return found


def _trained(row: Row) -> dict[str, str]:
    share = row.get("flattened")
    seeds = len(row["seeds"])
    return {
        "shots": str(row["shots"]),
        "start": words.decimals(row.get("start_loss"), 2),
        "flattened": words.DASH if share is None else f"{round(share * seeds)} of {seeds}",
        "seconds": words.duration(row.get("fit_seconds")),
        "flops": words.powers(row.get("flops")),
    }


def _search(cell: Row) -> dict[str, Any]:
    """The values tried for one cell, in the order tried, those that were kept marked."""
    training = cell["training"]
    measured = ("loss", "accuracy", "steps")
    tried = [
        {
            "value": ", ".join(
                f"{n.replace('_', ' ')} {v:g}" if isinstance(v, float) else f"{n.replace('_', ' ')} {v}"
                for n, v in one.items()
                if n not in measured
            ),
            "says": ", ".join(
                f"{n} {words.decimals(one[n]) if n != 'steps' else one[n]}" for n in measured if one.get(n) is not None
            ),
            "chosen": bool(training["chosen"])
            and all(one.get(n) == v for n, v in training["chosen"].items() if n in one),
        }
        for one in training["search"]
    ]
    return {"shots": cell["shots"], "seed": cell["seed"], "tried": tried}


def _read(cells: Sequence[Row], apart: Apart) -> list[dict[str, Any]]:
    """What learned rows read as: of each arm the first seed's nearest tokens, and plain figures beside them."""
    found: dict[str, dict[str, Any]] = {}
    for cell in cells:
        own, name = cell.get("interpretation"), arm(cell, apart)
        if not own or name in found or noisy(cell):
            continue
        nearest = own.get("nearest") or []
        found[name] = {
            "name": name,
            "seed": cell["seed"],
            "facts": [
                (n.replace("_", " "), f"{v:.4g}" if isinstance(v, float) else str(v))
                for n, v in own.items()
                if n != "nearest" and isinstance(v, int | float | str)
            ],
            "rows": [
                {
                    "row": one["row"],
                    "tokens": [
                        (words.visible(token), words.decimals(cosine, 2))
                        for token, cosine in list(zip(one["tokens"], one["cosines"], strict=False))[:_TOKENS]
                    ],
                }
                for one in nearest[:_ROWS]
            ],
            "more": max(0, len(nearest) - _ROWS),
        }
    return list(found.values())
