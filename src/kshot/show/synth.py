"""The page and the terminal's text of ``kshot synth``. It reads records and computes nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullFormatter
from rich.table import Table
from rich.text import Text

from kshot.show import words
from kshot.show.explain_rows import finite, overall
from kshot.show.plain import plain_lines
from kshot.show.plots import COLOURS, SERIES, blank, styled
from kshot.show.svg import svg
from kshot.show.templates import templates
from kshot.show.words import Row

# A value so many times as great as nine tenths of all is a peak that a picture need not hold.
_FAR = 3.0
# Ratios and cosines as near to 1 as this are told to a digit more.
_NEAR_ONE = 0.01
# What is left free below the least value, of all that is shown.
_MARGIN = 0.05
_DECADE = 10.0
MARKS = {"holds": "✓", "undecided": "○", "fails": "✗", "not yet": "–"}


def page(kshot: Mapping[str, Any]) -> str:
    """The page as HTML text, one self-contained file, the same for the same record (the value of ``kshot`` in results.json)."""
    return templates().get_template("synth.html.j2").render(_view(finite(words.clean(kshot))))


def text(kshot: Mapping[str, Any]) -> str:
    """Every published claim with its bound and what came, in lines of at most 100 columns."""
    ours = finite(words.clean(kshot))
    console, printed = plain_lines()
    console.print(Text(answer(ours)))
    for name in _names(ours):
        console.print()
        console.print(Text(name))
        table = Table.grid(padding=(0, 1))
        for width in (1, 1, 58, 36):
            table.add_column(width=width)
        for own in _claims(ours, name):
            table.add_row("", MARKS[_kind(own)], Text(own["claim"]), Text(f"{observed(own)} ({bound(own)})"))
        console.print(table)
    return printed()


def answer(kshot: Row) -> str:
    """How many published claims hold, and which that must hold at this size do not."""
    said = []
    for name in _names(kshot):
        own = _claims(kshot, name)
        if not own:
            said.append(f"{name}: no claim is about the parts that were asked for.")
            continue
        kept = [row for row in own if row["verdict"] == "holds"]
        said.append(f"{name}: {len(kept)} of {len(own)} claims hold.")
        if broken := [row["claim"] for row in own if row["must"] and row["verdict"] != "holds"]:
            said.append(f"Not shown, though it has to hold at this size: {words.listed(broken)}.")
        later = sum(not row["must"] and not row.get("open") for row in own)
        if later:
            said.append(f"{later} {'has' if later == 1 else 'have'} to hold at larger sizes only.")
        if asked := sum(bool(row.get("open")) for row in own):
            said.append(f"{asked} {'is a question' if asked == 1 else 'are questions'}: nothing has to hold.")
    return " ".join(said) or "The record holds no claim."


def observed(own: Row) -> str:
    """What came of a claim, with its interval."""
    if own["observed"] is None:
        return str(own["reason"] or "not measured")
    interval = "" if own["low"] is None else f", {_short(own['low'])} to {_short(own['high'])}"
    return _short(own["observed"]) + interval


def _kind(row: Row) -> str:
    """The verdict; what need not hold at this size and does not is no failure, but the answer to a question is one."""
    return str(row["verdict"]) if row["must"] or row.get("open") or row["verdict"] == "holds" else "not yet"


def bound(row: Row) -> str:
    """What was predicted, and where that need not come out here.

    >>> bound({"prediction": "at least 1", "must": False, "open": True})
    'at least 1, a question'
    """
    if row["must"]:
        return str(row["prediction"])
    return f"{row['prediction']}, {'a question' if row.get('open') else 'at larger sizes'}"


def _short(value: words.Number) -> str:
    """Three digits, and four of what is next to 1, where ratios and cosines are bound.

    >>> _short(0.23456), _short(1.00217)
    ('0.235', '1.002')
    """
    digits = 4 if abs(abs(value) - 1) < _NEAR_ONE else 3
    return f"{value:.{digits}g}".replace("-", "−")


def _names(kshot: Row) -> list[str]:
    return list(kshot.get("experiments") or {})


def _claims(kshot: Row, name: str) -> list[Row]:
    return [row for row in kshot.get("verdicts") or () if row["task"] == name]


def _view(kshot: Row) -> dict[str, Any]:
    """What the template needs: plain values, every text still to be escaped, figures as SVG."""
    names, version = _names(kshot), str(kshot.get("version") or "")
    settings = kshot.get("settings") or {}
    asked = [
        ("experiments", words.listed(names)),
        ("size", str(settings.get("size") or "")),
        ("seeds", words.listed(settings.get("seed") or [])),
    ]
    return {
        "version": version,
        "kicker": f"kshot synth {version}".strip(),
        "title": "Small models trained to learn in context",
        "asked": [(name, said) for name, said in asked if said],
        "answer": answer(kshot),
        "experiments": [_experiment(kshot, name, f"experiment-{place}") for place, name in enumerate(names, 1)],
        "notes": [str(note) for note in kshot.get("notes") or ()],
        "command": words.command(kshot.get("argv")),
        "model": [],
        "environment": words.facts(kshot.get("environment") or {}),
        "settings": words.facts(settings),
    }


def _experiment(kshot: Row, name: str, anchor: str) -> dict[str, Any]:
    facts = (kshot.get("experiments") or {})[name]
    rows = [row for row in overall(kshot.get("measures") or []) if row["task"] == name]
    drawn = [row for row in kshot.get("pictures") or () if row["task"] == name]
    return {
        "anchor": anchor,
        "name": name,
        "about": f"{facts['about']} ({facts['source']})",
        "claims": [
            {
                "mark": MARKS[_kind(row)],
                "kind": _kind(row),
                "claim": row["claim"],
                "source": row["source"],
                "statistic": str(row["statistic"]).replace("_", " "),
                "prediction": row["prediction"],
                "observed": observed(row),
                "must": row["must"],
                "open": bool(row.get("open")),
            }
            for row in _claims(kshot, name)
        ],
        "figures": line_figures(drawn, anchor),
        "rows": [_row(row) for row in rows],
    }


def _row(row: Row) -> dict[str, str]:
    value = "" if row["value"] is None else _short(row["value"])
    interval = "" if row["low"] is None else f"{_short(row['low'])} to {_short(row['high'])}"
    return {
        "measure": str(row["measure"]).replace("_", " "),
        "variant": str(row["variant"]),
        "value": value or str(row["reason"] or "not measured"),
        "interval": interval,
        "null": "" if row.get("null") is None else _short(row["null"]),
    }


def line_figures(drawn: Sequence[Row], anchor: str) -> list[dict[str, Any]]:
    """Every picture, its lines as means over seeds, with what it shows in words; first those of several parts together."""
    by_name: dict[str, list[Row]] = {}
    for one in drawn:
        by_name.setdefault(str(one["name"]), []).append(one)
    shown = []
    joined_first = sorted(by_name.items(), key=lambda item: len({one.get("part") for one in item[1]}) == 1)
    for place, (name, own) in enumerate(joined_first):
        lines = _means(own)
        told = "; ".join(
            f"{line}: " + ", ".join(f"{at:g} {_short(value)}" for at, value in points) for line, points in lines.items()
        )
        key = f"{anchor.replace('-', '')}p{place}"
        figure = svg(_drawn(lines, own[0]), key=key, title=name, description=f"{own[0]['x']}, {own[0]['y']}: {told}")
        shown.append({"heading": f"{name[0].upper()}{name[1:]}", "figure": figure})
    return shown


Points = list[tuple[words.Number, words.Number]]


def _means(pictures: Sequence[Row]) -> dict[str, Points]:
    """Lines by name: of each part the mean over its seeds, and of several parts with such a line their points together."""
    drawn: dict[str, dict[Any, list[Points]]] = {}
    for one in pictures:
        for line, points in one["lines"].items():
            known = [(at, value) for at, value in points if value is not None]
            drawn.setdefault(line, {}).setdefault(one.get("part"), []).append(known)
    return {line: _by_place([_over_seeds(lines) for lines in parts.values()]) for line, parts in drawn.items()}


def _over_seeds(lines: Sequence[Points]) -> Points:
    if len({len(points) for points in lines}) > 1:
        return _by_place(lines)
    # Point by point: seconds, say, are others with every seed.
    return [(_mean([at for at, _ in own]), _mean([value for _, value in own])) for own in zip(*lines, strict=True)]


def _by_place(lines: Sequence[Points]) -> Points:
    """At every place the mean of the lines that have a point there."""
    places: dict[words.Number, list[words.Number]] = {}
    for at, value in (point for points in lines for point in points):
        places.setdefault(at, []).append(value)
    return [(at, _mean(own)) for at, own in sorted(places.items())]


def _mean(values: Sequence[words.Number]) -> float:
    return sum(values) / len(values)


def _ends(lines: Mapping[str, Points]) -> tuple[float, float] | None:
    """Where a picture with a peak far above the rest ends, so that the rest can be read and the peak goes out of it above;
    None for no such peak."""
    values = sorted(value for points in lines.values() for _, value in points)
    low, high = values[0], values[int(0.9 * (len(values) - 1))]
    if high <= 0 or values[-1] <= _FAR * high:
        return None
    top = 1.2 * high
    return low - _MARGIN * (top - low), top


def _marks(lines: Mapping[str, Points], on: str) -> Locator:
    """Where a logarithmic axis is marked: at powers of ten, or where these are few between them, too."""
    values = [point["xy".index(on)] for points in lines.values() for point in points]
    reach = max(values) / max(min(values), 1e-300)
    if reach < _DECADE:
        return MaxNLocator(4)
    return LogLocator(subs=(1.0, 2.0, 5.0) if reach < 3 * _DECADE else (1.0,))


def _drawn(lines: Mapping[str, Points], axis: Row) -> Figure:
    many = len(lines) > 1
    with styled():
        figure, (axes,) = blank(340, 260 + (19 * len(lines) if many else 0))
        for place, (name, points) in enumerate(lines.items()):
            role, marker, dashes = SERIES[place % len(SERIES)]
            x, y = zip(*points, strict=True)
            # A second round of colours has hollow marks, and long lines have marks at some places only.
            face = COLOURS[role] if place < len(SERIES) else COLOURS["paper"]
            axes.plot(
                x, y, color=COLOURS[role], marker=marker, linestyle=dashes, label=name, markerfacecolor=face,
                markevery=max(1, len(points) // 8),
            )  # fmt: skip
        for on, scaled in (("x", axis["log_x"]), ("y", axis["log_y"])):
            if scaled:
                getattr(axes, f"set_{on}scale")("log")
                own = getattr(axes, f"{on}axis")
                own.set_major_locator(_marks(lines, on))
                own.set_major_formatter(FuncFormatter(lambda at, place: words.mark(at)))
                own.set_minor_formatter(NullFormatter())
        if not axis["log_y"] and (ends := _ends(lines)) is not None:
            axes.set_ylim(*ends)
        axes.set_xlabel(axis["x"])
        axes.set_ylabel(axis["y"])
        axes.grid(axis="y")
        if many:
            figure.legend(loc="outside lower left", ncols=1, frameon=False)
    return figure
