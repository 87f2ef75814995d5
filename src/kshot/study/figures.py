"""Rows of ``kshot.measures``: what a measure found, its interval, and what it would be without an effect."""

from collections.abc import Sequence
from typing import Any

from kshot.measure.per_layer import PerLayer, Summary, summary

# The values of a row query by query, and those of its null; undefined ones are None.
EACH = ("each", "null_each")
# Of cosines and correlations that were computed in float32.
_PLACES = 8


def figure(
    measure: str, variant: Sequence[str] = (), *, value: float | None, unit: str = "", **more: Any
) -> dict[str, Any]:
    """One row, without the task, model and seed that it belongs to.

    ``more`` are ``layer`` (None for all), ``low`` and ``high`` (the interval), ``null`` with ``null_low`` and
    ``null_high``, ``n``, ``published`` (the paper's figures by model) and ``reason`` (why there is no value).
    """
    known = ("layer", "low", "high", "null", "null_low", "null_high", "n", "published", "reason")
    unknown = [name for name in more if name not in known]
    assert not unknown, f"a row has no {unknown}"
    return {
        "measure": measure,
        "variant": ", ".join(variant),
        "value": value,
        "unit": unit,
        **{name: more.get(name) for name in known},
    }


def layered_figures(
    measure: str, variant: Sequence[str], found: PerLayer, *, null: PerLayer | None = None, seed: int, unit: str = ""
) -> list[dict[str, Any]]:
    """A row over all layers and one for each, from values of every query and layer; the null likewise.

    The row over all layers also has its values query by query (``EACH``), to be set against those of another.
    """
    own = summary(found.values, seed, defined=found.defined)
    base = summary(null.values, seed, defined=null.defined) if null is not None else None
    whole = figure(
        measure, variant, value=own.value, unit=unit, low=own.low, high=own.high, n=own.n, reason=own.reason,
        **_null_of(base, None),
    )  # fmt: skip
    layers = [
        figure(
            measure, variant, value=value, unit=unit, layer=i, low=own.layer_low[i], high=own.layer_high[i], n=own.n,
            **_null_of(base, i),
        )
        for i, value in enumerate(own.layers)
    ]  # fmt: skip
    whole |= {"each": shortened(own.each), "null_each": shortened(base.each) if base is not None else None}
    return [whole, *layers]


def shortened(values: Sequence[float | None]) -> list[float | None]:
    """Values query by query as a record keeps them."""
    return [None if value is None else round(value, _PLACES) for value in values]


def _null_of(base: Summary | None, layer: int | None) -> dict[str, float | None]:
    if base is None:
        return {}
    if layer is None:
        return {"null": base.value, "null_low": base.low, "null_high": base.high}
    return {"null": base.layers[layer], "null_low": base.layer_low[layer], "null_high": base.layer_high[layer]}
