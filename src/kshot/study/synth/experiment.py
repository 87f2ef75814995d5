"""What an experiment is: parts that leave figures, and what was published as bounds on these."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

Row = dict[str, Any]
Say = Callable[[str], None]
Size = Literal["smoke", "full", "paper"]
UNMEASURED = "not measured"
"""Why nothing came of a claim whose figure is not on record."""
SIZES: tuple[Size, ...] = ("smoke", "full", "paper")


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a part is answered with: its size and seed, whom to tell, where networks run, and a folder of its own for
    states of training, if any; ``question`` is the id of all else that these depend on, so that no other training goes
    on from them."""

    size: Size
    seed: int
    say: Say
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    place: Path | None = None
    question: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part by what it asks; ``answer`` gives ``rows`` (figures.figure) and may give ``pictures`` (growing.picture).

    ``minutes`` are those that one core takes of each size, measured or counted from measured steps (docs/LOG.md): they
    say how long to wait, and nothing else rests on them.
    """

    asks: str
    answer: Callable[[Given], dict[str, Any]] = field(repr=False)
    minutes: Mapping[Size, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Something published, as a bound on a figure: ``least`` or ``most``, in the unit of the measure.

    It must hold at the sizes of ``at``; at others it is shown, and nothing follows. Of none, it is a question.
    """

    text: str
    source: str
    measure: str
    variant: str
    least: float | None = None
    most: float | None = None
    at: tuple[Size, ...] = ("full", "paper")

    @property
    def bound(self) -> str:
        """The bound in words.

        >>> Claim(text="", source="", measure="loss", variant="", most=0.01).bound
        'at most 0.01'
        """
        sides = [("at least", self.least), ("at most", self.most)]
        return " and ".join(f"{word} {value:g}" for word, value in sides if value is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """Parts by name, and the claims that their figures are held against; ``much`` is what figures of each size depend on."""

    about: str
    source: str
    parts: Mapping[str, Part]
    claims: tuple[Claim, ...]
    much: Mapping[Size, Any] = field(default_factory=dict, repr=False)


def judged(name: str, experiment: Experiment, rows: Sequence[Row], size: Size) -> list[Row]:
    """A line for every claim of an experiment: what came of it, ``holds``, ``fails`` or ``undecided``.

    Judged on the figure over seeds where there is one, else on that of the seed; an interval on both sides of the bound
    decides nothing. ``must`` says whether the claim has to hold at this size, ``open`` that it has to at none: a question.
    """
    found = []
    for claim in experiment.claims:
        own = [
            row for row in rows if (row["task"], row["measure"], row["variant"]) == (name, claim.measure, claim.variant)
        ]
        row = next((row for row in own if row["seed"] is None), own[0] if own else None)
        found.append(
            {
                "task": name,
                "claim": claim.text,
                "source": claim.source,
                "statistic": f"{claim.measure}, {claim.variant}",
                "prediction": claim.bound,
                "observed": row and row["value"],
                "low": row and row["low"],
                "high": row and row["high"],
                "must": size in claim.at,
                "open": not claim.at,
                "verdict": _verdict(claim, row),
                "reason": UNMEASURED if row is None else row["reason"],
            }
        )
    return found


def _verdict(claim: Claim, row: Row | None) -> str:
    if row is None or row["value"] is None:
        return "undecided"
    low = row["value"] if row["low"] is None else row["low"]
    high = row["value"] if row["high"] is None else row["high"]
    least = -float("inf") if claim.least is None else claim.least
    most = float("inf") if claim.most is None else claim.most
    if least <= low and high <= most:
        return "holds"
    return "fails" if high < least or low > most else "undecided"
