"""What is asked of all networks alike, item by item, and by how much each differs in it from the first."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from kshot.study.figures import figure
from kshot.study.parts import Line
from kshot.study.synth.growing import mean_rows

Row = dict[str, Any]

# A row's values of single items, until they are kept beside it.
_EACH = "each"
_DIGITS = 6


def item_rows(measure: str, variant: Sequence[str], values: Float[np.ndarray, "b"], seed: int, **more: Any) -> Row:
    """A row of a mean over items, as ``mean_rows``, that brings them with it; ``variant`` begins with the network's name."""
    return {**mean_rows(measure, variant, values, seed, **more), _EACH: values}


def apart(rows: Sequence[Row]) -> tuple[list[Row], dict[str, list[float]]]:
    """Rows as they are put on record, and the items of those that brought them, by measure and what was asked."""
    kept = [{name: value for name, value in row.items() if name != _EACH} for row in rows]
    return kept, {_what(row): [round(float(one), _DIGITS) for one in row[_EACH]] for row in rows if _known(row)}


def differences(lines: Sequence[Line], first: str) -> list[Row]:
    """Rows ``difference`` of what each network came to less what ``first`` did with the same seed, paired item by item."""
    base = {line["seed"]: line.get("by_item") or {} for line in lines if line["part"] == first}
    found = []
    for line in lines:
        if line["part"] == first:
            continue
        for what, values in (line.get("by_item") or {}).items():
            if (others := base.get(line["seed"], {}).get(what)) is not None and len(others) == len(values):
                own = {"task": line["task"], "model": "", "seed": line["seed"]}
                more = np.array(values) - np.array(others)
                variant = (line["part"], what, f"over {first}")
                found.append({**own, **_of(more, variant, line["seed"])})
    return found


def _of(more: Float[np.ndarray, "b"], variant: Sequence[str], seed: int) -> Row:
    if not more.any():
        # Networks that do the same on every item asked may differ on another.
        return figure("difference", variant, value=0.0, null=0.0, n=len(more))
    return mean_rows("difference", variant, more, seed, null=0.0)


def _known(row: Row) -> bool:
    return _EACH in row and bool(np.isfinite(row[_EACH]).all())


def _what(row: Row) -> str:
    _, _, rest = str(row["variant"]).partition(", ")
    return f"{row['measure']}, {rest}" if rest else str(row["measure"])
