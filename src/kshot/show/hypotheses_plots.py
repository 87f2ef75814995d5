"""Figures of the battery: macro-F1 against how much of something there is, claims with their margin, functions."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from kshot.show.plots import COLOURS, SERIES, blank, styled
from kshot.show.words import Number

Point = tuple[Number, Number | None, Number | None, Number | None]
"""Where on the axis, the value, and its interval."""


def against(series: Mapping[str, Sequence[Point]], label: str, levels: Mapping[str, Number] | None = None) -> Figure:
    """Macro-F1 of each series against a number, with intervals; ``levels`` are dotted lines across, such as guessing."""
    with styled():
        figure, (axes,) = blank(340, 300)
        for place, (name, points) in enumerate(series.items()):
            role, marker, dashes = SERIES[place % len(SERIES)]
            known = [(at, float(value), low, high) for at, value, low, high in points if value is not None]
            x, y = [at for at, *_ in known], [value for _, value, *_ in known]
            axes.plot(x, y, color=COLOURS[role], marker=marker, linestyle=dashes, label=name)
            for at, _, low, high in known:
                if low is not None and high is not None:
                    axes.plot([at, at], [low, high], color=COLOURS[role], linewidth=1)
        for name, level in (levels or {}).items():
            axes.axhline(level, color=COLOURS["muted"], linestyle=":", linewidth=1.2, label=name)
        axes.set_ylim(0, 1)
        axes.set_xlabel(label)
        axes.set_ylabel("macro-F1")
        axes.grid(axis="y")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=1)
    return figure
