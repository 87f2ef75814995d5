"""What each arm costs, as a table, and as a figure where few stand beside each other."""

from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

from kshot.show import plots, words
from kshot.show.svg import svg
from kshot.show.words import Row
from kshot.study.summary import Apart, arm, differing
from kshot.study.verdict import learned

_ANSWERING = ("all queries", "per query", "queries/s", "tokens", "peak memory", "trained", "to store")
_LEARNING = (
    "learning",
    "one query<br>alone",
    "queries/s",
    "tokens",
    "peak memory",
    "trained",
    "training<br>FLOPs",
    "to store",
)


def costs_view(rows: Sequence[Row], name: str, key: str, shown: Callable[[Row], Row | None]) -> dict[str, Any]:
    """The values of the section on cost; ``shown`` gives the cell that stands for a row. No figure where panels show it."""
    apart = differing(rows)
    many = learned(rows)
    figure = None if many else _figure(rows, name, key, apart)
    return {
        "cost": figure,
        "cost_columns": [Markup(column) for column in (_LEARNING if many else _ANSWERING)],
        "costs": [
            {"arm": arm(row, apart), "cells": _learning(row) if many else _answering(row, shown(row) or {})}
            for row in rows
        ],
    }


def _figure(rows: Sequence[Row], name: str, key: str, apart: Apart) -> Markup:
    said = "; ".join(f"{arm(row, apart)} {words.duration(words.per_query(row))} per query" for row in rows)
    return svg(plots.cost(rows), key=f"{key}cost", title=f"Accuracy and cost, {name}", description=said)


def _speed(row: Row) -> str:
    speed = row["queries_per_second"]
    return words.decimals(speed, 0 if (speed or 0) >= 20 else 1)


def _answering(row: Row, cell: Row) -> list[str]:
    return [
        words.duration(row["seconds"]),
        words.duration(words.per_query(row)),
        _speed(row),
        words.count(row["tokens"]),
        words.size(cell.get("peak_rss_bytes")),
        words.count(cell.get("trainable_parameters")),
        words.size(cell.get("artefact_bytes")),
    ]


def _learning(row: Row) -> list[str]:
    alone = row.get("query_ms")
    return [
        words.duration(row.get("fit_seconds")),
        words.duration(None if alone is None else alone / 1000),
        _speed(row),
        words.count(row["tokens"]),
        words.size(row.get("peak_rss_bytes")),
        words.count(row.get("trainable_parameters")),
        words.powers(row.get("flops")),
        words.size(row.get("artefact_bytes")),
    ]
