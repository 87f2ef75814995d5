"""What scoring gives back, whoever answered."""

from dataclasses import dataclass
from typing import Literal

from kshot.data.predictions import Predictions

Overlength = Literal["drop-demo", "skip", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Predictions with what they cost and what had to be done to get them.

    ``tokens`` is how many tokens the model ran; ``repaired`` prompts whose last tokens changed when an answer followed;
    ``dropped`` demonstrations that did not fit (the most that any query lost); ``skipped`` ids of queries left out.
    """

    predictions: Predictions
    tokens: int
    repaired: int = 0
    dropped: int = 0
    skipped: tuple[str, ...] = ()
