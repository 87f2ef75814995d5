"""Curves of many ways of teaching: over the number of examples, over training steps, and with labels that are wrong."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kshot.show import words
from kshot.show.plots import COLOURS, across, blank, intervals, styled
from kshot.show.words import Number, Row

Series = Mapping[str, Sequence[Row]]

_DASHES = "--"
# How many points a curve of losses keeps: what a panel of a hundred pixels can show.
_POINTS = 60


def overview(series: Series, *, best: str | None = None, taken: str | None = None) -> Figure:
    """Accuracy against examples of every way of teaching in one panel, each named at the end of its line.

    ``series`` holds the rows of each name; ``best`` and in-context stand in colour with both intervals, ``taken`` in
    another where it is neither; the rest is grey. One size only is continued as a dotted level.
    """
    colours = {"in-context": "c2", **({taken: "c3"} if taken else {}), **({best: "c1"} if best else {})}
    low, high = _range(series)
    with styled():
        figure, (axes,) = blank(400, 340)
        for name in sorted(series, key=lambda name: name in colours):
            _line(axes, series[name], COLOURS[colours.get(name, "muted")], loud=name in colours)
        loud = [name for name in series if name in colours]
        for number, name in enumerate(loud):
            for row in _known(series[name]):
                intervals(axes, row, 7.0 * (number - (len(loud) - 1) / 2), COLOURS[colours[name]])
        _axes(axes, series, low, high)
        _names(axes, series, {name: COLOURS[colours.get(name, "muted")] for name in series}, low, high)
    return figure


def multiple(series: Series, name: str) -> Figure:
    """One way of teaching with both intervals, in-context learning dashed beside it, the others grey behind it."""
    low, high = _range(series)
    with styled():
        figure, (axes,) = blank(252, 190)
        for other in series:
            if other not in (name, "in-context"):
                _line(axes, series[other], COLOURS["rule" if len(_known(series[other])) > 1 else "muted"], loud=False)
        if "in-context" in series and name != "in-context":
            _line(axes, series["in-context"], COLOURS["c2"], dashes=_DASHES)
        _line(axes, series[name], COLOURS["c1"])
        for row in _known(series[name]):
            intervals(axes, row, 0, COLOURS["c1"])
        _axes(axes, series, low, high)
        axes.set_title(words.pinched(name, 34), loc="left", fontsize=11.5)
        axes.set_xlabel("")
        axes.set_ylabel("")
    return figure


def noise(pairs: Sequence[Row], clean: Sequence[Row], noisy: Sequence[Row]) -> Figure:
    """Clean examples (solid) against four times as many with wrong labels (dashed), over the number of clean ones.

    Rows of one method; ``pairs`` are their comparisons, which say which noisy row stands beside which clean one.
    """
    by_shots = {row["shots"]: row for row in clean}
    beside = {row["shots"]: row for row in noisy}
    sizes = sorted({pair["shots"] for pair in pairs})
    series: Series = {
        "clean": [by_shots[k] for k in sizes if k in by_shots],
        "noisy": [{**beside[4 * k], "shots": k} for k in sizes if 4 * k in beside],
    }
    low, high = _range(series)
    with styled():
        figure, (axes,) = blank(252, 190)
        for (name, rows), colour, dashes, dodge in zip(
            series.items(), ("c1", "c2"), ("-", _DASHES), (-5.0, 5.0), strict=True
        ):
            _line(axes, rows, COLOURS[colour], dashes=dashes, marker="o" if name == "clean" else "s")
            for row in rows:
                intervals(axes, row, dodge, COLOURS[colour])
        _axes(axes, series, low, high)
        axes.set_title(words.pinched(pairs[0]["name"], 34), loc="left", fontsize=11.5)
        axes.set_xlabel("clean examples k (noisy: 4k)")
        axes.set_ylabel("")
    return figure


def losses(cells: Sequence[Row]) -> Figure:
    """Training losses of one method, a panel for each number of examples, seeds laid over each other.

    A square is the mean loss over all examples before the first step; lines are means over neighbouring steps.
    """
    sizes = sorted({cell["shots"] for cell in cells})
    with styled():
        figure, panels = blank(max(120 * len(sizes), 200), 150, columns=len(sizes))
        for axes, shots in zip(panels, sizes, strict=True):
            own = [cell["training"] for cell in cells if cell["shots"] == shots]
            for training in own:
                x, y = _thinned(training["losses"])
                axes.plot(x, y, color=COLOURS["c1"], linewidth=1.1, alpha=0.75)
                if training["start"] is not None:
                    axes.plot(0, training["start"], "s", color=COLOURS["c2"], markersize=4)
            axes.set_title(f"{shots} {'example' if shots == 1 else 'examples'}", loc="left", fontsize=11.5)
            most = max((len(training["losses"]) for training in own), default=1)
            axes.set_xlim(-0.04 * most, 1.02 * most)
            axes.set_ylim(bottom=0, top=_top(own))
            axes.locator_params(nbins=3)
            axes.grid(axis="y")
        panels[0].set_ylabel("loss, nats")
        for axes in panels:
            axes.set_xlabel("steps")
    return figure


def _top(trainings: Sequence[Row]) -> Number:
    """A single leap of the loss does not squeeze all curves: what is above three times the greatest start is cut off."""
    values = [value for training in trainings for value in training["losses"] if np.isfinite(value)]
    starts = [training["start"] for training in trainings if training["start"] is not None]
    greatest = max([*values, *starts], default=1.0)
    return 1.08 * min(greatest, 3 * max(starts)) if starts and max(starts) > 0 else 1.08 * greatest or 1.0


def _thinned(values: Sequence[Number]) -> tuple[list[Number], list[Number]]:
    """Means over neighbouring steps, and where they stand."""
    parts = np.array_split(np.asarray(values, dtype=np.float64), max(1, min(_POINTS, len(values))))
    ends = np.cumsum([len(part) for part in parts])
    middles = [float(end - (len(part) - 1) / 2) for end, part in zip(ends, parts, strict=True)]
    return middles, [float(part.mean()) for part in parts if len(part)] or [float("nan")]


def _known(rows: Sequence[Row]) -> list[Row]:
    return sorted((row for row in rows if row["accuracy"] is not None), key=lambda row: row["shots"])


def _line(
    axes: Axes, rows: Sequence[Row], colour: str, *, loud: bool = True, dashes: str = "-", marker: str = "o"
) -> None:
    points = _known(rows)
    x, y = [across(row["shots"]) for row in points], [row["accuracy"] for row in points]
    if len(points) == 1:
        axes.axhline(y[0], linestyle=(0, (1, 3)), linewidth=1.3 if loud else 1.0, color=colour, zorder=1)
    elif points:
        look: dict[str, Any] = {"linewidth": 2.0, "markersize": 5.5} if loud else {"linewidth": 1.0, "markersize": 0}
        axes.plot(x, y, dashes, marker=marker, color=colour, zorder=3 if loud else 1.5, **look)


def _range(series: Series) -> tuple[Number, Number]:
    """The same for all panels of a task: every interval, and a little air."""
    keys = ("accuracy", "test_low", "test_high", "seed_low", "seed_high")
    found = [row[key] for rows in series.values() for row in rows for key in keys if row[key] is not None]
    return max(-0.02, min(found, default=0.0) - 0.03), min(1.02, max(found, default=1.0) + 0.03)


def _axes(axes: Axes, series: Series, low: Number, high: Number) -> None:
    found = [_known(rows) for rows in series.values()]
    shots = sorted({row["shots"] for rows in found if len(rows) > 1 for row in rows})
    shots = shots or sorted({row["shots"] for rows in found for row in rows}) or [0]
    axes.set_ylim(low, high)
    step = 0.1 if high - low <= 0.65 else 0.25
    ticks = [round(i * step, 2) for i in range(int(1 / step) + 1) if low <= i * step <= high]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([across(k) for k in shots], [str(k) for k in shots])
    axes.set_xlim(across(shots[0]) - 0.5, across(shots[-1]) + 0.5)
    axes.set_xlabel("examples")
    axes.set_ylabel("accuracy")
    axes.grid(axis="y")


def _names(axes: Axes, series: Series, colours: Mapping[str, str], low: Number, high: Number) -> None:
    """The names at the ends of the lines, moved apart where they would stand on each other, with a hair line to each."""
    ends = {name: _known(rows)[-1]["accuracy"] for name, rows in series.items() if _known(rows)}
    heights = apart(ends, (high - low) * 0.052, low, high)
    right = axes.get_xlim()[1]
    for name, y in heights.items():
        last = across(_known(series[name])[-1]["shots"]) if len(_known(series[name])) > 1 else right
        hair: dict[str, Any] = {"linewidth": 0.6, "clip_on": False, "zorder": 1}
        axes.plot([last, right], [ends[name], y], color=COLOURS["muted"], **hair)
        axes.annotate(
            words.pinched(name, 26),
            (right, y),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=colours[name],
            annotation_clip=False,
        )


def apart(ends: Mapping[str, Number], gap: Number, low: Number, high: Number) -> dict[str, Number]:
    """Heights at least ``gap`` apart in the order of ``ends``, near them, within ``low`` and ``high`` where there is room.

    >>> apart({"a": 0.5, "b": 0.5}, 0.2, 0, 1)
    {'a': 0.4, 'b': 0.6}
    """
    blocks: list[list[str]] = []
    centres: list[Number] = []
    for name in sorted(ends, key=lambda name: ends[name]):
        blocks.append([name])
        centres.append(ends[name])
        while len(blocks) > 1 and centres[-1] - centres[-2] < gap * (len(blocks[-1]) + len(blocks[-2])) / 2 - 1e-12:
            blocks[-2:] = [blocks[-2] + blocks[-1]]
            mean = float(np.mean([ends[inner] for inner in blocks[-1]]))
            half = gap * len(blocks[-1]) / 2
            centres[-2:] = [min(max(mean, low + half), high - half)]
    return {
        name: round(centre + gap * (i - (len(block) - 1) / 2), 6)
        for block, centre in zip(blocks, centres, strict=True)
        for i, name in enumerate(block)
    }
