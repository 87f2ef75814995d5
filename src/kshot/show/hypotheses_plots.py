"""Figures of the battery: something against how much of something there is, and functions of labels as a cloud."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from kshot.show.plots import COLOURS, SERIES, blank, styled
from kshot.show.words import Number

Point = tuple[Number, Number | None, Number | None, Number | None]
"""Where on the axis, the value, and its interval."""


def against(series: Mapping[str, Sequence[Point]], label: str, unit: str, top: float | None = None) -> Figure:
    """Each series against a number, with intervals; the axis ends at ``top``, None: after the greatest value."""
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
        axes.set_ylim(0, top)
        axes.set_xlabel(label)
        axes.set_ylabel(unit)
        axes.grid(axis="y")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=1)
    return figure


def functions(
    clouds: Sequence[tuple[Sequence[Number], Sequence[Number]]], means: Sequence[tuple[Number, Number]]
) -> Figure:
    """A point for every function, its accuracy of label words against that of inputs, and means of those alike."""
    with styled():
        figure, (axes,) = blank(340, 320)
        for place, (x, y) in enumerate(clouds):
            label = "a function" if place == 0 else None
            axes.plot(x, y, ".", color=COLOURS["muted"], alpha=0.5, markersize=4, label=label)
        axes.plot(
            *zip(*means, strict=True),
            "o",
            color=COLOURS["c1"],
            markersize=5,
            label="mean of a tenth of a seed's functions",
        )
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("accuracy of label words")
        axes.set_ylabel("accuracy of inputs")
        axes.grid()
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=1)
    return figure
