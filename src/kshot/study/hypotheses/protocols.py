"""What it changes to draw demonstrations anew for every query, as published, where the fast protocol shows the same ones."""

from collections.abc import Mapping, Sequence
from typing import Any

from kshot.study.figures import figure
from kshot.study.hypotheses.core import CORE

_WAYS = ("redrawn", "fixed")


def between_protocols(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for every task as it is or altered that was asked both ways with one seed: macro-F1 redrawn less fixed.

    Both ways ask the same queries with the same answers from the same pool; the difference is that of a seed, and its
    interval, over seeds, comes later (``over_seeds``).
    """
    known = {
        (row["task"], row["model"], row["seed"], row["variant"]): row
        for row in rows
        if row["measure"] == "macro_f1" and row["value"] is not None
    }
    found = []
    for task, model, seed in dict.fromkeys(key[:3] for key in known):
        for name in CORE:
            one, other = (known.get((task, model, seed, f"{name}, {way}")) for way in _WAYS)
            if one is not None and other is not None:
                row = figure("protocol", (name,), value=one["value"] - other["value"], null=0.0, n=one["n"])
                found.append({"task": task, "model": model, "seed": seed, **row})
    return found
