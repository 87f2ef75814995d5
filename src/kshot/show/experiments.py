"""The terminal's text of ``kshot synth list EXPERIMENT``: what it asks, how long that takes, and what has to come out."""

from rich.table import Table
from rich.text import Text

from kshot.show.plain import plain_lines
from kshot.study.synth.experiment import SIZES, Claim, Experiment


def described(name: str, experiment: Experiment) -> str:
    """Its parts with minutes of one core by size, and its claims with bound, figure and sizes, in lines of at most 100 columns."""
    console, printed = plain_lines()
    console.print(Text(f"{name}: {experiment.about} ({experiment.source})"))
    console.print()
    parts = Table.grid(padding=(0, 2), expand=True)
    parts.add_column(no_wrap=True)
    parts.add_column(ratio=1)
    known = [size for size in SIZES if any(size in part.minutes for part in experiment.parts.values())]
    for _ in known:
        parts.add_column(justify="right", no_wrap=True)
    parts.add_row("part", "asks", *(f"{size}, core-min" for size in known))
    for own, part in experiment.parts.items():
        parts.add_row(Text(own), Text(part.asks), *(_minutes(part.minutes.get(size)) for size in known))
    console.print(parts)
    console.print()
    claims = Table.grid(padding=(0, 2), expand=True)
    for ratio in (6, 4, 2, 3):
        claims.add_column(ratio=ratio)
    claims.add_row("claim", "figure", "bound", "has to hold at")
    for claim in experiment.claims:
        told = f"{claim.measure.replace('_', ' ')}, {claim.variant}"
        claims.add_row(Text(f"{claim.text} [{claim.source}]"), Text(told), Text(claim.bound), Text(_sizes(claim)))
    console.print(claims)
    return printed()


def _minutes(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _sizes(claim: Claim) -> str:
    """
    >>> _sizes(Claim(text="", source="", measure="", variant="", at=("full", "paper")))
    'full and larger'
    """
    if not claim.at:
        return "a question"
    return claim.at[0] if claim.at[0] == SIZES[-1] else f"{claim.at[0]} and larger"
