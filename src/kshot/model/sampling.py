"""Which token comes next: the most probable, or one that is drawn, from all or from those that are probable enough."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from kshot.errors import KshotError, NumericError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn. At ``temperature`` 0 the most probable token is always the next.

    Logits are divided by the temperature; then all but the ``top_k`` most probable tokens are left out, then all but the
    smallest set that has ``top_p`` of the probability that is left (Holtzman et al. 2020). KshotError for what is no
    temperature, number or share.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise KshotError(f"temperature {self.temperature!r}: what works is a number, 0 or more")
        if self.top_k is not None and self.top_k < 1:
            raise KshotError(f"top-k {self.top_k!r}: what works is a whole number, 1 or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise KshotError(f"top-p {self.top_p!r}: what works is a share above 0, up to 1")

    def kept(self, logits: Float[Tensor, "b v"]) -> Float[Tensor, "b v"]:
        """log P of every token as it is drawn, in nats, float64; -inf of what is left out. The temperature is above 0.

        Tokens as probable as the last of the ``top_k`` stay with it; of tokens as probable as the last that ``top_p``
        needs, those with the lesser numbers stay.
        """
        logits = logits.double() / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[1]:
            least = logits.topk(self.top_k, dim=1).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        if self.top_p is not None and self.top_p < 1:
            falling, order = logits.sort(dim=1, descending=True, stable=True)
            shares = falling.softmax(dim=1)
            # What stands before a token has not enough yet: then it is needed.
            needed = shares.cumsum(dim=1) - shares < self.top_p
            needed[:, 0] = True
            logits = logits.masked_fill(~torch.zeros_like(needed).scatter(1, order, needed), -torch.inf)
        return logits.log_softmax(dim=1)

    def next(self, logits: Float[Tensor, "b v"], rng: np.random.Generator) -> Int[np.ndarray, "b"]:
        """The next token of every row; rows draw one after another, so that more rows leave the first as they are.

        NumericError where logits are no numbers, or no token has any probability.
        """
        # The greatest is none if any is.
        greatest = logits.amax(dim=1)
        if not bool(greatest.isfinite().all()):
            worst = float(greatest[~greatest.isfinite()][0])
            raise NumericError(
                f"the next token was asked for, and the greatest of its logits is {worst}; try --dtype float32, or another model"
            )
        if self.temperature == 0:
            return logits.argmax(dim=1).cpu().numpy()
        shares = self.kept(logits).exp().cumsum(dim=1).cpu().numpy()
        draws = rng.random(len(shares)) * shares[:, -1]
        return np.array(
            [int(np.searchsorted(own, draw, side="right")) for own, draw in zip(shares, draws, strict=True)]
        )
