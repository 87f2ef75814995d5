"""What so many steps of gradient descent can reach: one by algebra, more with rates that are tuned on prompts."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import minimize

from kshot.errors import MethodError
from kshot.synth.oracles import Predictor, descended
from kshot.synth.prompts import Prompts


@dataclass(frozen=True, slots=True)
class Optimum:
    """The best rate of one step on half the mean square, its loss, and the loss of saying 0: half of mean squares."""

    rate: float
    loss: float
    of_nothing: float


def one_step(width: int, pairs: int, reach: float | None = None) -> Optimum:
    """One step from 0 on linear functions w ~ N(0, I) without noise; inputs uniform within ``reach``, or standard normal.

    With S = sum_j x_j x_j' over ``pairs`` N, s2 = E x^2 and m4 = E x^4 of a coordinate, the step says (rate / N) w'S x, and

        loss = 1/2 s2 tr E (I - (rate / N) S)^2 = 1/2 s2 d (1 - 2 rate s2 + rate^2 / N (m4 + (d + N - 2) s2^2)),

    least at rate = N s2 / (m4 + (d + N - 2) s2^2).
    """
    second, fourth = (1.0, 3.0) if reach is None else (reach**2 / 3, reach**4 / 5)
    spread = (fourth + (width + pairs - 2) * second**2) / pairs
    of_nothing = second * width / 2
    return Optimum(second / spread, of_nothing * (1 - second**2 / spread), of_nothing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """Steps of descent with the rate, momentum and shrinking that suit prompts best, and half the mean square they leave."""

    steps: int
    rate: float
    momentum: float = 0.0
    shrink: float = 0.0
    loss: float = float("nan")

    @property
    def predictor(self) -> Predictor:
        return descended(self.rate, self.steps, momentum=self.momentum, shrink=self.shrink)


def tuned(prompts: Prompts, steps: int, begin: float, *, momentum: bool = False, shrink: bool = False) -> Tuned:
    """The best of so many steps on the last answer of these prompts, searched from rate ``begin`` on.

    Source: von Oswald et al. 2023 tune one rate for all steps by line search, and gamma of GD++ with it; here by Nelder and
    Mead's simplex over both, from a momentum and a gamma of a tenth. MethodError where every rate tried diverges.
    """
    xs, ys = prompts.xs.double(), prompts.ys.double()
    names = ["rate", *["momentum"] * momentum, *["shrink"] * shrink]

    def made(at: np.ndarray) -> Tuned:
        own = dict(zip(names, map(float, at), strict=True))
        return Tuned(steps=steps, rate=own["rate"], momentum=own.get("momentum", 0.0), shrink=own.get("shrink", 0.0))

    def loss(at: np.ndarray) -> float:
        with torch.no_grad():
            left = float((made(at).predictor(xs, ys)[:, -1] - ys[:, -1]).square().mean() / 2)
        return left if np.isfinite(left) else 1e300

    start = [begin, *[0.1] * (len(names) - 1)]
    found = minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-9})
    if found.fun >= 1e300:
        raise MethodError(f"{steps} steps of descent diverge from rate {begin:g} on; try a smaller one")
    return replace(made(found.x), loss=float(found.fun))
