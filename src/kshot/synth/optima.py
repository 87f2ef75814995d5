"""What so many steps of gradient descent can reach: one by algebra, more with rates that are tuned on prompts."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor

from kshot.errors import MethodError
from kshot.synth.oracles import Predictor, descended
from kshot.synth.prompts import Prompts

# Of a search with a rate and a gamma for each step.
_ITERATIONS = 200


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
    """Steps of descent with the rates, momentum and shrinking that suit prompts best, a rate and a gamma for each step, and
    half the mean square they leave."""

    rates: tuple[float, ...]
    momentum: float = 0.0
    shrinks: tuple[float, ...]
    loss: float = float("nan")

    @property
    def predictor(self) -> Predictor:
        return descended(self.rates, len(self.rates), momentum=self.momentum, shrink=self.shrinks)


def tuned(
    prompts: Prompts, steps: int, begin: float, *, alike: bool = True, momentum: bool = False, shrink: bool = False
) -> Tuned:
    """The best of so many steps on the last answer of these prompts, searched from rate ``begin`` on.

    Steps that are ``alike`` have one rate and one gamma, by Nelder and Mead's simplex over both, from a momentum and a gamma
    of a tenth; others one each, by L-BFGS from those. Source: von Oswald et al. 2023 tune the former by line search, and
    train the latter where layers have weights of their own. MethodError where every rate tried diverges.
    """
    xs, ys = prompts.xs.double(), prompts.ys.double()
    names = ["rate", *["momentum"] * momentum, *["shrink"] * shrink]

    def made(at: np.ndarray) -> Tuned:
        own = dict(zip(names, map(float, at), strict=True))
        rates, shrinks = (own["rate"],) * steps, (own.get("shrink", 0.0),) * steps
        return Tuned(rates=rates, momentum=own.get("momentum", 0.0), shrinks=shrinks)

    def loss(at: np.ndarray) -> float:
        with torch.no_grad():
            left = float((made(at).predictor(xs, ys)[:, -1] - ys[:, -1]).square().mean() / 2)
        return left if np.isfinite(left) else 1e300

    start = [begin, *[0.1] * (len(names) - 1)]
    found = minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-9})
    if found.fun >= 1e300:
        raise MethodError(f"{steps} steps of descent diverge from rate {begin:g} on; try a smaller one")
    best = replace(made(found.x), loss=float(found.fun))
    return best if alike else _each_tuned(best, xs, ys, shrink)


def _each_tuned(best: Tuned, xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"], shrink: bool) -> Tuned:
    """Steps with a rate and a gamma each, from the best that are alike; no worse on these prompts."""
    steps = len(best.rates)

    def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        with torch.enable_grad():
            own = torch.from_numpy(at).requires_grad_(True)
            says = descended(own[:steps], steps, momentum=best.momentum, shrink=own[steps:] if shrink else 0.0)
            left = (says(xs, ys)[:, -1] - ys[:, -1]).square().mean() / 2
            (slope,) = torch.autograd.grad(left, own)
        return float(left.detach()), slope.numpy()

    start = np.array([*best.rates, *(best.shrinks if shrink else ())])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS})
    rates, rest = tuple(map(float, found.x[:steps])), tuple(map(float, found.x[steps:]))
    return Tuned(rates=rates, momentum=best.momentum, shrinks=rest or best.shrinks, loss=float(found.fun))
