"""What so many steps of gradient descent can reach: one by algebra, more with rates that are tuned on prompts."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor

from kshot.errors import MethodError
from kshot.synth.oracles import Predictor, descended
from kshot.synth.prompts import Prompts

# Of Adam where each step has a rate and a gamma of its own: its own rate, and the greatest slope that it follows.
_RATE, _CLIP = 0.05, 0.1
# Logarithms of the first and the last rate over the one they begin from. What descent leaves is symmetric in its rates:
# from equal ones all slopes are equal, and they would stay so.
_SPREAD = 0.5


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
    """Steps of descent with the rates, momentum and gammas that suit prompts best, and half the mean square they leave."""

    rates: tuple[float, ...]
    momentum: float = 0.0
    shrinks: tuple[float, ...]
    loss: float = float("nan")

    @property
    def predictor(self) -> Predictor:
        """Of the last input alone, (b, 1)."""
        return descended(self.rates, len(self.rates), momentum=self.momentum, shrink=self.shrinks, last=True)


def tuned(prompts: Prompts, steps: int, begin: float, *, momentum: bool = False, shrink: bool = False) -> Tuned:
    """The best of so many steps with one rate and one gamma on the last answer of these prompts, from rate ``begin`` on.

    By Nelder and Mead's simplex over both, from a momentum and a gamma of a tenth. Source: von Oswald et al. 2023, by line
    search. MethodError where every rate tried diverges.
    """
    xs, ys = prompts.xs.double(), prompts.ys.double()
    names = ["rate", *["momentum"] * momentum, *["shrink"] * shrink]

    def made(at: np.ndarray) -> Tuned:
        own = dict(zip(names, map(float, at), strict=True))
        rates, shrinks = (own["rate"],) * steps, (own.get("shrink", 0.0),) * steps
        return Tuned(rates=rates, momentum=own.get("momentum", 0.0), shrinks=shrinks)

    def loss(at: np.ndarray) -> float:
        with torch.no_grad():
            left = float(_left(made(at).predictor, xs, ys))
        return left if np.isfinite(left) else 1e300

    start = [begin, *[0.1] * (len(names) - 1)]
    found = minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-9})
    if found.fun >= 1e300:
        raise MethodError(f"{steps} steps of descent diverge from rate {begin:g} on; try a smaller one")
    return replace(made(found.x), loss=float(found.fun))


def each_tuned(best: Tuned, fresh: Callable[[int], Prompts], rounds: int) -> Tuned:
    """Steps with a rate and a gamma each, from steps that are nearly alike, by Adam on prompts that are new in every round.

    As von Oswald et al. 2023 train them. On prompts that are the same in all rounds steps are found that leave a thousand
    times the usual error on one prompt in some thousands (docs/LOG.md). Rates and gammas are moved by factors, which
    suits all of them alike; the loss is that of the last round.
    """
    steps = len(best.rates)
    begin = torch.tensor([*best.rates, *best.shrinks], dtype=torch.float64)
    factors = torch.zeros(2 * steps, dtype=torch.float64)
    factors[:steps] = torch.linspace(-_SPREAD, _SPREAD, steps, dtype=torch.float64)
    factors.requires_grad_()
    optimiser = torch.optim.Adam([factors], lr=_RATE)
    # Constant for the first half, then to zero.
    falling = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda done: min(1.0, 2 * (1 - done / rounds)))
    for number in range(rounds):
        found = fresh(number)
        with torch.enable_grad():
            own = begin * factors.exp()
            says = descended(own[:steps], steps, momentum=best.momentum, shrink=own[steps:], last=True)
            left = _left(says, found.xs.double(), found.ys.double())
            (factors.grad,) = torch.autograd.grad(left, [factors])
        torch.nn.utils.clip_grad_norm_([factors], _CLIP)
        optimiser.step()
        falling.step()
    ended = (begin * factors.detach().exp()).tolist()
    return replace(best, rates=tuple(ended[:steps]), shrinks=tuple(ended[steps:]), loss=float(left.detach()))


def _left(says: Predictor, xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"]) -> Float[Tensor, ""]:
    """Half the mean square of what is missing to the last answer."""
    return (says(xs, ys)[:, -1] - ys[:, -1]).square().mean() / 2
