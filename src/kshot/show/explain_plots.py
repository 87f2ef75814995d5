"""Figures of ``kshot explain``: curves over layers with their nulls, head maps, norms of weight changes, orders."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from kshot.show import words
from kshot.show.plots import COLOURS, SERIES, blank, styled
from kshot.show.words import Number, Row

# Lines beside the measured one: role, dashes in units of the line's width, marker.
RIVALS: Mapping[str, tuple[str, tuple[float, ...], str]] = {
    "before": ("muted", (1.0, 2.0), "x"),
    "layer-causal": ("c5", (7.0, 2.0), "v"),
    "untrained": ("c2", (4.0, 2.0), "s"),
    "trained embeddings": ("c3", (6.0, 2.0, 1.5, 2.0), "^"),
    "another task": ("c4", (1.5, 1.5), "D"),
    "shuffled labels": ("c6", (3.0, 1.5, 1.0, 1.5), "P"),
    "different": ("c2", (4.0, 2.0), "s"),
    "zero-shot W_ZSL": ("c2", (4.0, 2.0), "s"),
}
_LEVELS = 12


def over_layers(rows: Sequence[Row], title: str, rivals: Mapping[str, Sequence[Row]] | None = None) -> Figure:
    """One measure by layer with its interval (shaded) and its null (grey, ruled), rivals dashed beside it.

    ``rows`` have ``layer`` and ``value``; ``rivals`` are further rows by a name of RIVALS. A layer without a value
    is a gap in the line.
    """
    own = sorted(rows, key=lambda row: row["layer"])
    with styled():
        figure, (axes,) = blank(252, 190)
        _null(axes, own)
        for name, others in (rivals or {}).items():
            role, dashes, marker = RIVALS[name]
            beside = sorted(others, key=lambda row: row["layer"])
            look: dict[str, Any] = {"linestyle": (0, dashes), "marker": marker, "markersize": 4, "linewidth": 1.2}
            every = max(1, len(beside) // 5)
            axes.plot(_of(beside, "layer"), _of(beside, "value"), color=COLOURS[role], markevery=every, **look)
        x, low, high = _of(own, "layer"), _of(own, "low"), _of(own, "high")
        axes.fill_between(x, low, high, color=COLOURS["c1"], alpha=0.25, linewidth=0)
        axes.plot(x, _of(own, "value"), "o-", color=COLOURS["c1"], markersize=3.5 if len(own) > 8 else 5, zorder=3)
        axes.axhline(0, color=COLOURS["muted"], linewidth=0.7, zorder=0.5)
        axes.set_title(words.pinched(title, 36), loc="left", fontsize=11.5)
        axes.set_xlabel("layer")
        axes.locator_params(axis="x", nbins=6, integer=True)
        axes.locator_params(axis="y", nbins=5)
        axes.grid(axis="y")
    return figure


def _of(rows: Sequence[Row], key: str) -> np.ndarray:
    """Numbers for matplotlib, which leaves a gap at nan."""
    return np.array([np.nan if row.get(key) is None else row[key] for row in rows], dtype=np.float64)


def _null(axes: Axes, rows: Sequence[Row]) -> None:
    x, middle, low, high = (_of(rows, key) for key in ("layer", "null", "null_low", "null_high"))
    axes.plot(x, middle, linestyle=(0, (1, 1.5)), color=COLOURS["muted"], linewidth=1.6, zorder=1)
    axes.fill_between(x, low, high, color=COLOURS["muted"], alpha=0.22, linewidth=0, zorder=0.8)
    known = np.isfinite(low) & np.isfinite(high)
    if known.sum() > 1:
        # Rules across the band, so that it is told from the measured interval without colour.
        at = np.linspace(x[known][0], x[known][-1], 41)
        bottom, top = np.interp(at, x[known], low[known]), np.interp(at, x[known], high[known])
        gap = np.full_like(at, np.nan)
        rules = np.stack([at, at, gap], axis=1).ravel(), np.stack([bottom, top, gap], axis=1).ravel()
        axes.plot(*rules, color=COLOURS["muted"], linewidth=0.6, alpha=0.8, zorder=0.9)


def head_map(heads: Sequence[Sequence[Number | None]]) -> Figure:
    """The share of attention on the demonstrations, layers down and heads across: the darker the more; crossed where unknown."""
    layers, width = len(heads), max((len(row) for row in heads), default=0)
    with styled():
        figure, (axes,) = blank(max(150, 74 + 17 * width), 66 + 9 * layers)
        squares: dict[int, list[tuple[int, int]]] = {}
        for y, row in enumerate(heads):
            for x, value in enumerate(row):
                if value is None:
                    axes.plot(x, y, "x", color=COLOURS["muted"], markersize=4)
                else:
                    squares.setdefault(round(min(1.0, max(0.0, value)) * _LEVELS), []).append((x, y))
        for level, places in sorted(squares.items()):
            # One path for all squares of a shade: thousands of heads stay a small file.
            path = Path.make_compound_path(*(_square(x, y) for x, y in places))
            alpha = 0.04 + 0.96 * level / _LEVELS
            axes.add_patch(PathPatch(path, facecolor=COLOURS["c1"], alpha=alpha, linewidth=0))
        axes.set_xlim(-0.6, width - 0.4)
        axes.set_ylim(layers - 0.4, -0.6)
        axes.locator_params(nbins=6, integer=True)
        axes.set_xlabel("head")
        axes.set_ylabel("layer")
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure


def _square(x: Number, y: Number) -> Path:
    left, right, top, bottom = x - 0.44, x + 0.44, y - 0.44, y + 0.44
    return Path([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], closed=True)


def growth(sizes: Sequence[Number], layers: Sequence[Sequence[Number | None]]) -> Figure:
    """A line for each layer over the number of demonstrations, deeper layers darker; some of them named at their ends."""
    with styled():
        figure, (axes,) = blank(300, 230)
        named = {0, len(layers) // 2, len(layers) - 1}
        for layer, values in enumerate(layers):
            y = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
            x = np.asarray(sizes[: len(y)], dtype=np.float64)
            y = y[: len(x)]
            depth = layer / max(1, len(layers) - 1)
            dashes: Any = "-" if layer in named else (0, (4, 1.5))
            axes.plot(x, y, linestyle=dashes, color=COLOURS["c1"], alpha=0.2 + 0.8 * depth, linewidth=1 + 0.8 * depth)
        _ends(axes, sizes, {f"layer {i}": layers[i] for i in sorted(named) if 0 <= i < len(layers)})
        axes.set_xlabel("demonstrations")
        axes.locator_params(axis="x", nbins=6, integer=True)
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
    return figure


def _ends(axes: Axes, sizes: Sequence[Number], series: Mapping[str, Sequence[Number | None]]) -> None:
    """The names after the last points; of names at the same height the lower one gives way."""
    last = {name: values[-1] for name, values in series.items() if values and values[-1] is not None}
    gap = 0.07 * max((abs(y) for y in last.values()), default=1)
    below: float | None = None
    for name, y in sorted(last.items(), key=lambda item: -float(item[1] or 0)):
        height = float(y or 0) if below is None else min(float(y or 0), below - gap)
        below = height
        at: dict[str, Any] = {"xytext": (5, 0), "textcoords": "offset points", "annotation_clip": False}
        axes.annotate(name, (float(sizes[-1]), height), va="center", color=COLOURS["muted"], **at)


def orders(rows: Sequence[Row], key: str, label: str, shown: Sequence[int] | None) -> Figure:
    """A dot for each order of the demonstrations at its ``key``, equals piled up; the order ``shown`` is the filled diamond."""
    known = sorted((row for row in rows if row.get(key) is not None), key=lambda row: row[key])
    values = [float(row[key]) for row in known]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    width = max(high - low, 1e-3 * max(abs(low), abs(high), 1e-3))
    piles: dict[int, int] = {}
    places = []
    for value in values:
        column = round((value - low) / width * 44)
        places.append(piles.get(column, 0))
        piles[column] = places[-1] + 1
    tallest = max(piles.values(), default=1)
    small = min(6.0, 5.5 * 14 / max(14, tallest))
    with styled():
        figure, (axes,) = blank(340, 78 + int(7.2 * min(14, tallest)))
        own = [shown is not None and list(row.get("order") or ()) == list(shown) for row in known]
        looks: tuple[dict[str, Any], ...] = (
            {
                "marker": "o",
                "markersize": small,
                "color": COLOURS["c1"],
                "markerfacecolor": COLOURS["paper"],
                "zorder": 3,
            },
            {"marker": "D", "markersize": 8, "color": COLOURS["c2"], "zorder": 4},
        )
        for kind, look in enumerate(looks):
            x, y = (
                [v for v, is_own in zip(found, own, strict=True) if is_own == bool(kind)] for found in (values, places)
            )
            axes.plot(x, y, linestyle="", clip_on=False, **look)
        axes.set_ylim(-0.8, max(tallest, 2) - 0.2)
        axes.set_xlim(low - 0.06 * width, high + 0.06 * width)
        axes.set_yticks([])
        axes.locator_params(axis="x", nbins=6)
        axes.set_xlabel(label)
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
    return figure


def forest(
    groups: Mapping[str, Sequence[tuple[str, Number | None, Number | None, Number | None]]],
    unit: str,
    margin: Number = 0,
) -> Figure:
    """Contrasts under their names, a mark with its interval for each ``(where, value, low, high)``, and the line at 0.

    The same place has the same mark and colour throughout; what has no value stands as a cross at 0. What lies within
    a ``margin`` of 0 is shaded.
    """
    places = list(dict.fromkeys(place for own in groups.values() for place, *_ in own))
    rows = sum(1 + len(own) for own in groups.values())
    with styled():
        figure, (axes,) = blank(520, 64 + 17 * rows)
        y = 0.0
        for name, own in groups.items():
            axes.annotate(name, (0, y), xycoords=("axes fraction", "data"), va="center", fontsize=11.5)
            for place, value, low, high in own:
                y += 1
                role, marker, _ = SERIES[places.index(place) % len(SERIES)]
                if low is not None and high is not None:
                    axes.plot([low, high], [y, y], color=COLOURS[role], linewidth=1.6)
                at_value, look = (0.0, ("x", "muted")) if value is None else (float(value), (marker, role))
                axes.plot(at_value, y, look[0], color=COLOURS[look[1]])
                at: dict[str, Any] = {"xytext": (6, 0), "textcoords": "offset points", "annotation_clip": False}
                axes.annotate(words.shorten(place, 34), (1, y), xycoords=("axes fraction", "data"), va="center",
                              fontsize=10, color=COLOURS["muted"], **at)  # fmt: skip
            y += 1
        if margin:
            axes.axvspan(-margin, margin, color=COLOURS["muted"], alpha=0.12, linewidth=0, zorder=0.1)
        axes.axvline(0, color=COLOURS["muted"], linewidth=1, zorder=0.5)
        axes.set_ylim(y - 0.4, -0.7)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=6)
        axes.grid(axis="x")
        axes.set_xlabel(unit)
    return figure
