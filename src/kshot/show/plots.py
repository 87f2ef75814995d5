"""Figures from rows and cells of a record. Each returns a matplotlib Figure about as wide as a phone, at one unit a pixel."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.transforms import ScaledTranslation

from kshot.show import words
from kshot.show.words import Row
from kshot.study.summary import arm, differing

# Roles by colour for light paper; a page may give every role another colour. The lines keep 4.5:1 and more against white.
COLOURS = {
    "ink": "#1b1e23",
    "muted": "#5c636d",
    "rule": "#d5d8dd",
    "paper": "#fdfdfc",
    "c1": "#0a5ea8",
    "c2": "#bf4408",
    "c3": "#0b7a6b",
    "c4": "#8b3ba1",
    "c5": "#876700",
    "c6": "#4b5058",
}
SERIES = (("c1", "o", "-"), ("c2", "s", "--"), ("c3", "^", "-."), ("c4", "D", ":"), ("c5", "v", "-"), ("c6", "P", "--"))
STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 11.5,
    "axes.edgecolor": COLOURS["muted"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.labelsize": 11.5,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.labelsize": 11.5,
    "ytick.labelsize": 11.5,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "text.color": COLOURS["ink"],
    "grid.color": COLOURS["rule"],
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 11.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "lines.linewidth": 1.6,
    "lines.markersize": 6,
}
_WIDTH = 340
_QUARTERS = ([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
_EAST_ASIAN = (
    "Noto Sans CJK JP",
    "Noto Sans JP",
    "IPAexGothic",
    "Hiragino Sans",
    "Yu Gothic",
    "Microsoft YaHei",
    "PingFang SC",
)


@cache
def _fonts() -> tuple[str, ...]:
    """The default face, then those here that know Han characters and kana."""
    here = {font.name for font in font_manager.fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in _EAST_ASIAN if name in here))


def styled() -> Any:
    """The look of every figure, for the length of a ``with``."""
    return rc_context({**STYLE, "font.family": list(_fonts())})


def blank(width: int, height: int, *, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of so many pixels with its panels, row by row."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=144, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def accuracy_against_shots(rows: Sequence[Row]) -> Figure:
    """Accuracy against the number of demonstrations, one panel a task, with both intervals.

    A dot is the mean over seeds; the thin capped line beside it the interval over test examples, the thick band the
    interval over seeds. A method with one number of shots is continued as a dotted level.
    """
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    columns = min(3, max(1, len(tasks)))
    lines = -(-len(tasks) // columns) or 1
    series = {task: _series([row for row in rows if row["task"] == task]) for task in tasks}
    legend = max((-(-len(own) // _legend_columns(own)) for own in series.values()), default=0)
    with styled():
        figure, panels = blank(_WIDTH * columns, (256 + 19 * legend) * lines, rows=lines, columns=columns)
        for axes, task in zip(panels, tasks, strict=False):
            _accuracy_panel(axes, series[task])
            if len(tasks) > 1:
                axes.set_title(words.shorten(task, 40), loc="left", fontsize=12)
        for axes in panels[len(tasks) :]:
            axes.set_axis_off()
    return figure


def _series(rows: Sequence[Row]) -> dict[str, list[Row]]:
    apart = differing(rows)
    series: dict[str, list[Row]] = {}
    for row in rows:
        series.setdefault(words.method(row, apart), []).append(row)
    return series


def _legend_columns(series: Mapping[str, Any]) -> int:
    return 2 if max(map(len, series)) < 20 else 1


def _accuracy_panel(axes: Axes, series: Mapping[str, Sequence[Row]]) -> None:
    shots = sorted({row["shots"] for rows in series.values() for row in rows})
    for number, (name, rows) in enumerate(series.items()):
        role, marker, dashes = SERIES[number % len(SERIES)]
        colour = COLOURS[role]
        points = sorted((row for row in rows if row["accuracy"] is not None), key=lambda row: row["shots"])
        x, y = [across(row["shots"]) for row in points], [row["accuracy"] for row in points]
        dodge = _dodge(name, series)
        # A second round of colours has hollow marks.
        face = colour if number < len(SERIES) else COLOURS["paper"]
        look: dict[str, Any] = {"marker": marker, "color": colour, "markerfacecolor": face, "zorder": 3}
        axes.plot(x, y, dashes, label=words.pinched(name, 38), transform=shifted(axes, dodge), **look)
        if len(points) == 1 and len(shots) > 1:
            axes.axhline(y[0], linestyle=(0, (1, 3)), linewidth=1.1, color=colour, zorder=1)
        for row in points:
            intervals(axes, row, dodge, colour)
    axes.set_ylim(-0.02, 1.02)
    axes.set_yticks(*_QUARTERS)
    axes.set_xticks([across(k) for k in shots], [str(k) for k in shots])
    axes.set_xlim(across(shots[0]) - 0.6, across(shots[-1]) + 0.6)
    axes.set_xlabel("shots (demonstrations)")
    axes.set_ylabel("accuracy")
    axes.grid(axis="y")
    below = axes.transAxes + ScaledTranslation(0, -40 / 72, _scale(axes))
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": below}
    axes.legend(ncols=_legend_columns(series), handlelength=2.6, columnspacing=1.6, **place)


def _dodge(name: str, series: Mapping[str, Sequence[Row]]) -> words.Number:
    """Points to the side, where another line has marks at the same numbers of shots."""
    own = {row["shots"] for row in series[name]}
    crowd = [other for other, rows in series.items() if own & {row["shots"] for row in rows}]
    return min(16, 48 / len(crowd)) * (crowd.index(name) - (len(crowd) - 1) / 2) if len(crowd) > 1 else 0


def across(shots: int) -> float:
    """Where a number of shots stands: doublings are equally far apart, and zero has a place."""
    return float(np.log2(1 + shots))


def shifted(axes: Axes, points: words.Number) -> Any:
    return axes.transData + ScaledTranslation(points / 72, 0, _scale(axes))


def _scale(axes: Axes) -> Any:
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure.dpi_scale_trans


def intervals(axes: Axes, row: Row, dodge: words.Number, colour: str) -> None:
    x = across(row["shots"])
    if row["test_low"] is not None and row["test_high"] is not None:
        bounds = [row["test_low"], row["test_high"]]
        axes.plot(
            [x, x], bounds, "_-", color=colour, linewidth=1.1, markersize=7, transform=shifted(axes, dodge), zorder=2
        )
    if row["seed_low"] is not None and row["seed_high"] is not None:
        bounds = [row["seed_low"], row["seed_high"]]
        at = shifted(axes, dodge + 7)
        axes.plot([x, x], bounds, color=colour, linewidth=5, alpha=0.5, solid_capstyle="butt", transform=at, zorder=2)


def order_spread(cells: Sequence[Row]) -> Figure:
    """Accuracy of the same demonstrations in each order: a line per set of demonstrations, from least to greatest.

    Takes the cells of one task; those with a single order are left out. The filled mark is the order as picked.
    """
    sets = order_sets(cells)
    apart = differing(cells)
    with styled():
        figure, (axes,) = blank(_WIDTH, 74 + 34 * max(1, len(sets)))
        for level, members in enumerate(reversed(sets)):
            known = [cell for cell in members if cell["accuracy"] is not None]
            values = [cell["accuracy"] for cell in known]
            if values:
                axes.plot([min(values), max(values)], [level, level], color=COLOURS["c1"], linewidth=1.1, zorder=1)
            for cell in known:
                first = cell["order"] == 0
                axes.plot(
                    cell["accuracy"],
                    level,
                    marker="D" if first else "o",
                    color=COLOURS["c1"],
                    markersize=6.5 if first else 7,
                    markerfacecolor=COLOURS["c1"] if first else COLOURS["paper"],
                    markeredgecolor=COLOURS["c1"],
                    markeredgewidth=1.2,
                    zorder=3 if first else 2,
                )
        names = [f"{words.pinched(arm(s[0], apart), 26)}\nseed {s[0]['seed']}" for s in reversed(sets)]
        axes.set_yticks(range(len(sets)), names)
        axes.set_ylim(-0.6, len(sets) - 0.4)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xticks(*_QUARTERS)
        axes.set_xlabel("accuracy")
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
    return figure


def order_sets(cells: Sequence[Row]) -> list[list[Row]]:
    """Cells that differ in their order only, together; sets of one left out."""
    groups: dict[tuple[str, str, str, int, int], list[Row]] = {}
    for cell in cells:
        key = (cell["task"], cell["method"], str(cell.get("params")), cell["shots"], cell["seed"])
        groups.setdefault(key, []).append(cell)
    return [group for group in groups.values() if len(group) > 1]


def reliability(cell: Row) -> Figure:
    """Accuracy against confidence in bins of one cell; a mark's area is its share of queries, a stem its distance from the
    dotted diagonal, which is perfect calibration."""
    bins = [
        b for b in cell["calibration"] or () if b["n"] and b["accuracy"] is not None and b["confidence"] is not None
    ]
    most = max((b["n"] for b in bins), default=1)
    with styled():
        figure, (axes,) = blank(300, 290)
        axes.plot([0, 1], [0, 1], linestyle=(0, (1, 3)), linewidth=1.2, color=COLOURS["muted"])
        x, y = [b["confidence"] for b in bins], [b["accuracy"] for b in bins]
        axes.vlines(x, x, y, color=COLOURS["c1"], linewidth=1.3, alpha=0.6)
        axes.scatter(x, y, s=[12 + 110 * b["n"] / most for b in bins], color=COLOURS["c1"], linewidths=0, zorder=3)
        axes.set_xticks(*_QUARTERS)
        axes.set_yticks(*_QUARTERS)
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.03, 1.03)
        axes.set_aspect("equal")
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
        axes.grid()
    return figure


def confusion(cell: Row, *, limit: int = 20) -> Figure:
    """Counts of gold (down) by predicted (across) labels of one cell, shaded by the share of the row; the first ``limit`` labels."""
    table: Mapping[str, Any] = cell["confusion"]
    labels = [words.shorten(str(label), 16) for label in table["labels"][:limit]]
    counts = [row[:limit] for row in table["counts"][:limit]]
    side = 46 if len(labels) <= 6 else 32
    with styled():
        longest = max((len(label) for label in labels), default=0)
        figure, (axes,) = blank(90 + 6 * longest + side * len(labels), 64 + 6 * longest + side * len(labels))
        for i, row in enumerate(counts):
            for j, value in enumerate(row):
                share = value / (sum(row) or 1)
                face = COLOURS["c1"] if i == j else COLOURS["c2"]
                axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=face, alpha=0.5 * share, linewidth=0))
                axes.text(j, i, str(value), ha="center", va="center", color=COLOURS["ink" if value else "muted"])
        axes.set_xticks(range(len(labels)), labels, rotation=90 if longest > 5 else 0)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_xlim(-0.5, len(labels) - 0.5)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_aspect("equal")
        axes.set_xlabel("predicted")
        axes.set_ylabel("gold")
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure


def cost(rows: Sequence[Row]) -> Figure:
    """What each arm of one task reaches and what it costs, line by line: accuracy on the left, seconds per query on the right."""
    apart = differing(rows)
    levels = range(len(rows))[::-1]
    with styled():
        figure, (left, right) = blank(_WIDTH, 66 + 26 * max(1, len(rows)), columns=2)
        figure.set_layout_engine("constrained", wspace=0.1)
        for level, row in zip(levels, rows, strict=True):
            if row["accuracy"] is not None:
                left.plot(row["accuracy"], level, "o", color=COLOURS["c1"])
                if row["test_low"] is not None and row["test_high"] is not None:
                    left.plot([row["test_low"], row["test_high"]], [level, level], color=COLOURS["c1"], linewidth=1.1)
            seconds = words.per_query(row)
            if seconds is not None:
                right.barh(level, seconds * 1000, height=0.5, color=COLOURS["c3"])
        left.set_yticks(list(levels), [words.pinched(arm(row, apart), 26) for row in rows])
        left.set_xlim(-0.04, 1.04)
        left.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        left.set_xlabel("accuracy")
        right.set_yticks([])
        right.set_xlim(left=0)
        right.locator_params(axis="x", nbins=4)
        right.set_xlabel("ms per query")
        for axes in (left, right):
            axes.set_ylim(-0.6, len(rows) - 0.4)
            axes.grid(axis="x")
            axes.spines["left"].set_visible(False)
    return figure
