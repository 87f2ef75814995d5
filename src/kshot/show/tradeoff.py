"""Accuracy against what it costs: a panel for each kind of cost, and the ways of teaching that nothing beats in both."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kshot.show import words
from kshot.show.plots import COLOURS, blank, styled
from kshot.show.words import Number, Row
from kshot.study.verdict import PROMPTED

COSTS = (
    ("fit_seconds", "seconds to learn"),
    ("flops", "training FLOPs"),
    ("trainable_parameters", "trained parameters"),
    ("artefact_bytes", "bytes stored"),
    ("query_ms", "milliseconds a query"),
    ("peak_rss_bytes", "peak memory, bytes"),
)
_WIDTH, _HEIGHT = 330, 250
# Below the least cost that is not nothing, by this factor, stands nothing: a logarithm has no place for it.
_NOUGHT = 0.25
# Width of a letter and height of a line, as shares of the panel; where a name may stand beside its mark.
_LETTER, _LINE = 0.0215, 0.068
_SIDES = ((1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1.1), (0, -1.1), (1, 2), (-1, 2), (1, -2), (-1, -2))


def front(points: Mapping[str, tuple[Number, Number]]) -> list[str]:
    """The names that no other beats, by (cost, accuracy): from the cheapest to the most accurate.

    >>> front({"a": (1, 0.5), "b": (2, 0.4), "c": (3, 0.9)})
    ['a', 'c']
    """
    found: list[str] = []
    for name in sorted(points, key=lambda name: (points[name][0], -points[name][1])):
        if not found or points[name][1] > points[found[-1]][1]:
            found.append(name)
    return found


def costs_of(rows: Mapping[str, Row], key: str) -> dict[str, tuple[float, float]]:
    """Cost and accuracy of the rows that have both; where nothing is learned, learning it took no operation."""
    found: dict[str, tuple[float, float]] = {}
    for name, row in rows.items():
        cost = row.get(key)
        if key == "flops" and cost is None and row.get("trainable_parameters") == 0 and row["method"] in PROMPTED:
            cost = 0
        if cost is not None and row["accuracy"] is not None:
            found[name] = (float(cost), row["accuracy"])
    return found


def scatter(rows: Mapping[str, Row], key: str, label: str) -> Figure:
    """One mark a row by its name, cost to the right (logarithmic, with a place for nothing); the Pareto front is drawn.

    Marks on the front are filled. ``key`` names the field of a row that is the cost.
    """
    points = costs_of(rows, key)
    least = min((cost for cost, _ in points.values() if cost > 0), default=1.0)
    most = max((cost for cost, _ in points.values()), default=1.0) or 1.0
    free = any(cost <= 0 for cost, _ in points.values())
    nought = least * _NOUGHT
    placed = {name: (cost if cost > 0 else nought, y) for name, (cost, y) in points.items()}
    best = front(points)
    accuracies = [row["accuracy"] for row in rows.values() if row["accuracy"] is not None] or [0.0, 1.0]
    powers = _powers(least, most)
    left, right = min([nought if free else least, 10.0 ** powers[0]]), max([most, 10.0 ** powers[-1]])
    with styled():
        figure, (axes,) = blank(_WIDTH, _HEIGHT)
        axes.set_xscale("log")
        air = max(right / left, 10) ** 0.1
        left, right = left / air, right * air
        axes.set_xlim(left, right)
        axes.set_ylim(min(accuracies) - 0.05, max(accuracies) + 0.05)
        corners = [placed[name] for name in best]
        steps = [(*one, x) for one, x in zip(corners, [*(x for x, _ in corners[1:]), right], strict=True)]
        x, y = [c[0] for c in corners], [c[1] for c in corners]
        axes.plot([*x, right], [*y, *y[-1:]], drawstyle="steps-post", color=COLOURS["c1"], linewidth=1.2, zorder=1)
        for name, (cost, accuracy) in placed.items():
            on = name in best
            colour = COLOURS["c1" if on else "muted"]
            axes.plot(cost, accuracy, "o", color=colour, markerfacecolor=colour if on else COLOURS["paper"], zorder=3)
        _name(axes, placed, best, steps)
        ticks = [*([nought] if free else []), *(10.0**power for power in powers)]
        axes.set_xticks(ticks, [*(["0"] if free else []), *(_power(power, key) for power in powers)])
        axes.set_xticks([], minor=True)
        axes.set_xlabel(label)
        axes.set_ylabel("accuracy")
        axes.grid(axis="y")
    return figure


def _powers(least: Number, most: Number) -> list[int]:
    """Powers of ten to be written at the axis: two at least, four at most."""
    first, last = math.ceil(math.log10(least) - 1e-9), math.floor(math.log10(most) + 1e-9)
    if last <= first:
        first, last = math.floor(math.log10(least)), math.ceil(math.log10(most))
        last = max(last, first + 1)
    return list(range(first, last + 1, -(-(last - first) // 4) or 1))


def _power(power: int, key: str) -> str:
    if key.endswith("bytes"):
        return words.size(10.0**power)
    return f"{10.0**power:g}" if -3 <= power <= 3 else f"1e{power}"


def _name(
    axes: Axes,
    placed: Mapping[str, tuple[Number, Number]],
    best: Sequence[str],
    steps: Sequence[tuple[Number, Number, Number]],
) -> None:
    """Each name beside its mark, where it covers the least of marks, names and the front: tried in a fixed order."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    span = math.log(right / left)
    marks = {n: (math.log(x / left) / span, (y - low) / (high - low)) for n, (x, y) in placed.items()}
    taken = [(x - 0.015, y - 0.025, x + 0.015, y + 0.025) for x, y in marks.values()]
    # The front: what runs to the right of each of its marks, then up to the next.
    flat = [(math.log(x / left) / span, (y - low) / (high - low), math.log(to / left) / span) for x, y, to in steps]
    taken += [(x, y - 0.012, to, y + 0.012) for x, y, to in flat]
    taken += [(to - 0.006, y, to + 0.006, up) for (_, y, to), (_, up, _) in pairwise(flat)]
    for name in sorted(marks, key=lambda name: (name not in best, -marks[name][1])):
        x, y = marks[name]
        text = words.pinched(name, 22)
        boxes = [_box(x, y, side, len(text) * _LETTER) for side in _SIDES]
        costs = [_covered(box, taken) + 0.002 * number for number, box in enumerate(boxes)]
        box = boxes[costs.index(min(costs))]
        taken.append(box)
        axes.text(
            (box[0] + box[2]) / 2,
            (box[1] + box[3]) / 2,
            text,
            transform=axes.transAxes,
            ha="center",
            va="center",
            color=COLOURS["ink" if name in best else "muted"],
        )


Box = tuple[Number, Number, Number, Number]


def _box(x: Number, y: Number, side: tuple[Number, Number], width: Number) -> Box:
    across, up = side
    centre = x + across * (width / 2 + 0.022) if across else x
    return centre - width / 2, y + up * 0.055 - _LINE / 2, centre + width / 2, y + up * 0.055 + _LINE / 2


def _covered(box: Box, taken: Sequence[Box]) -> Number:
    """The area of a box that others have already, or that lies outside the panel, with a penalty for the latter."""
    outside = max(0.0, -box[0]) + max(0.0, box[2] - 1) + max(0.0, -box[1]) + max(0.0, box[3] - 1)
    shared = 0.0
    for other in taken:
        across = min(box[2], other[2]) - max(box[0], other[0])
        up = min(box[3], other[3]) - max(box[1], other[1])
        shared += max(0.0, across) * max(0.0, up)
    return 10 * shared + outside
