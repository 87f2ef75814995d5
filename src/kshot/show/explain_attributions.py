"""What the page of ``kshot explain`` says of all tasks together: how attributions rank demonstrations, and biases."""

from collections.abc import Sequence

from kshot.show import words
from kshot.show.explain_rows import EFFECTS, Line, by_variant
from kshot.show.words import Row

# Rank correlations over fewer queries say little.
_ENOUGH = 30


def agreement(measures: Sequence[Row], tasks: Sequence[str]) -> list[Line]:
    """How well cheap attributions rank demonstrations as expensive ones do: a line a pair, those of one correlation together.

    After the tasks stands what all their queries say together, where the record has it (``pooled``).
    """
    everywhere: list[str | None] = [*tasks, *([None] if pooled(measures) else [])]
    lines = by_variant(measures, everywhere, ("rank_agreement",))
    pairs = [(*pair_of(line["sub"]), line) for line in lines]
    found = []
    for kind in dict.fromkeys(kind for _, _, kind, _ in pairs):
        for place, (cheap, against, _, one) in enumerate([pair for pair in pairs if pair[2] == kind]):
            sub = ", ".join(filter(None, [f"against {against}" if against else "", kind]))
            found.append({**_null_of_zero_untold(one), "name": cheap, "sub": sub, "head": place == 0})
    return found


def pooled(measures: Sequence[Row]) -> int:
    """The number of queries of all tasks together that ranks are compared over; 0 where no row is of all tasks."""
    rows = [row for row in measures if row.get("measure") == "rank_agreement" and row.get("task") is None]
    return max((int(row.get("n") or 0) for row in rows), default=0)


def ranked(measures: Sequence[Row], tasks: Sequence[str]) -> str:
    """Over how many queries ranks are compared, of each task, and whether that is enough."""
    rows = [row for row in measures if row.get("measure") == "rank_agreement"]
    counts = {
        task: max((int(row.get("n") or 0) for row in rows if row.get("task") == task), default=0) for task in tasks
    }
    known = {task: n for task, n in counts.items() if n}
    if not known:
        return ""
    said = f"Queries: {words.listed([f'{n} of {task}' for task, n in known.items()])}."
    few = max(pooled(measures), *known.values()) < _ENOUGH
    return said + (f" Fewer than {_ENOUGH} say little; a greater --size asks more." if few else "")


def biases(measures: Sequence[Row], tasks: Sequence[str]) -> list[Line]:
    """Recency, majority-label and common-token bias, before and after calibration as the variants have it."""
    return [_null_of_zero_untold(one) for one in by_variant(measures, tasks, ("recency", "majority", "common_token"))]


def _null_of_zero_untold(one: Line) -> Line:
    """What the text below a table says of all its lines need not stand in each cell."""
    return {
        **one,
        "cells": [{**own, "null": "" if own["null"] == words.decimals(0) else own["null"]} for own in one["cells"]],
    }


def pair_of(variant: str) -> tuple[str, str, str]:
    """Of a comparison of attributions the cheap one, the expensive one and the correlation, in words.

    >>> pair_of("attention_mass vs leave_one_out/spearman")
    ('attention mass', 'leave-one-out', 'Spearman')
    """
    pair, _, kind = variant.partition("/") if " vs " in variant else (variant, "", "")
    cheap, _, against = pair.partition(" vs ")
    return _called(cheap), _called(against), kind.capitalize()


def _called(name: str) -> str:
    return EFFECTS.get(name.strip(), name.strip().replace("_", " "))
