"""How loss falls with parameters and tokens: the law, fitted, its uncertainty, and what it says of a budget."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float
from scipy.optimize import least_squares, minimize
from scipy.stats import linregress, t

from kshot.errors import MethodError
from kshot.seeds import stream

# Hoffmann et al. 2022, appendix D.3: errors of log loss beyond this count by their size alone.
_HUBER = 1e-3
# Where the search begins; of all the best end is kept.
_FLOORS, _RATES, _SIZES = (-1.0, 0.0, 1.0), (0.2, 0.5, 1.0), (0.0, 5.0, 10.0)
# So many of the best ends are searched on from, by a method that ends later.
_POLISHED = 3
# It ends where a step changes so small a share of the sum, or of where it is.
_END = 1e-9
_LEAST = 6
_TINY = 1e-300


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """L(N, D) = floor + parameters_scale / N^alpha + tokens_scale / D^beta."""

    floor: float
    parameters_scale: float
    alpha: float
    tokens_scale: float
    beta: float

    def loss(self, parameters: Float[np.ndarray, "n"], tokens: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """What it foresees, in nats."""
        return self.floor + self.parameters_scale / parameters**self.alpha + self.tokens_scale / tokens**self.beta

    def best(self, operations: float) -> tuple[float, float]:
        """Parameters and tokens at which a budget of operations, six a parameter and token, leaves the least loss.

        MethodError where loss does not fall with both. Source: Hoffmann et al. 2022, equation 4.
        """
        falls = (self.alpha, self.beta, self.parameters_scale, self.tokens_scale)
        if min(falls) <= 0:
            raise MethodError(f"the best use of a budget: {self} does not fall with parameters and with tokens")
        budget, both = operations / 6, self.alpha + self.beta
        ratio = (self.alpha * self.parameters_scale / (self.beta * self.tokens_scale)) ** (1 / both)
        return ratio * budget ** (self.beta / both), budget ** (self.alpha / both) / ratio


def power_law(
    counts: Float[np.ndarray, "n"], losses: Float[np.ndarray, "n"], floor: float = 0.0
) -> tuple[float, float, float]:
    """The power by which losses fall with parameters, or with tokens, alone, and its interval.

    Claim: where nothing else holds it back, loss falls with either as (c / x)^power (Kaplan et al. 2020, equations 1.1 and
        1.2: 0.076 of parameters, 0.095 of tokens).
    Formula: less the slope of log(L - floor) by log x, least squares; a t-interval of 95 per cent from what is left over.
    Null: 0.
    Departures: theirs has no floor; ``floor`` is the entropy of the text where that is known.
    Known problems: the other of the two has to be large; what it holds back bends the line, and the power is too small then.
    """
    if len(losses) < 3 or len(set(counts)) < 3 or losses.min() <= floor:
        raise MethodError(
            f"a power of {len(set(counts))} counts with losses from {losses.min():g} on and a floor of {floor:g}: what works is "
            "three or more, all above it"
        )
    found = linregress(np.log(counts), np.log(losses - floor))
    half = float(t.ppf(0.975, len(losses) - 2) * found.stderr)
    power = -float(found.slope)
    return power, power - half, power + half


def scaling_law(
    parameters: Float[np.ndarray, "n"], tokens: Float[np.ndarray, "n"], losses: Float[np.ndarray, "n"]
) -> Law:
    """The law that fits runs best; MethodError for fewer than six of them, or of one size or number of tokens alone.

    Claim: what a larger model gains and what more text gains add up, each as a power, above the entropy of the text.
    Formula: the least sum of Huber(log L - log(E + A/N^a + B/D^b)) with delta 1e-3, by L-BFGS from a grid of beginnings
        (Hoffmann et al. 2022, section 3.3 and appendix D.3).
    Null: with losses that do not depend on N the scale of N is 0, or its power is; in the latter case A is a part of what
        the floor would be, and neither is known.
    Departures: the beginnings are 3^5 and not 4,500; on planted laws both end in the same place (tests). The best ends are
        searched on from by a trust region, since L-BFGS stops early where a sum is as small as this. Powers are not below
        0: with more of either no loss grows.
    Known problems: E and a power trade off where runs span less than a factor of ten in either; noise of a run is not that
        of a loss, so intervals come from ``bootstrapped`` runs.
    """
    if len(losses) < _LEAST or len(set(parameters)) < 2 or len(set(tokens)) < 2:
        raise MethodError(
            f"a law of {len(losses)} runs of {len(set(parameters))} sizes and {len(set(tokens))} numbers of tokens: what works "
            f"is {_LEAST} or more of two or more of each"
        )
    errors = _errors(parameters, tokens, losses)
    return _law(errors, _searched(errors, product(_FLOORS, _SIZES, _RATES, _SIZES, _RATES))[:_POLISHED])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Errors:
    """Of log losses of runs, at log E, log A, alpha, log B and beta."""

    parameters: Float[np.ndarray, "n"]
    tokens: Float[np.ndarray, "n"]
    target: Float[np.ndarray, "n"]

    def of(self, at: Float[np.ndarray, "p"]) -> Float[np.ndarray, "n"]:
        return np.logaddexp.reduce(self._terms(at)) - self.target

    def slopes(self, at: Float[np.ndarray, "p"]) -> Float[np.ndarray, "n p"]:
        terms = self._terms(at)
        floor, size, text = np.exp(terms - np.logaddexp.reduce(terms))
        return np.stack([floor, size, -size * self.parameters, text, -text * self.tokens], axis=1)

    def huber(self, at: Float[np.ndarray, "p"]) -> tuple[float, Float[np.ndarray, "p"]]:
        """Their sum and its slope."""
        error = self.of(at)
        far = np.abs(error)
        value = np.where(far <= _HUBER, error**2 / 2, _HUBER * (far - _HUBER / 2)).sum()
        return float(value), np.clip(error, -_HUBER, _HUBER) @ self.slopes(at)

    def _terms(self, at: Float[np.ndarray, "p"]) -> Float[np.ndarray, "3 n"]:
        floor, a, alpha, b, beta = at
        return np.stack([np.full_like(self.target, floor), a - alpha * self.parameters, b - beta * self.tokens])


def _errors(
    parameters: Float[np.ndarray, "n"], tokens: Float[np.ndarray, "n"], losses: Float[np.ndarray, "n"]
) -> _Errors:
    return _Errors(parameters=np.log(parameters), tokens=np.log(tokens), target=np.log(losses))


def _searched(errors: _Errors, begins: Iterable[Sequence[float]]) -> list[Float[np.ndarray, "p"]]:
    """Where searches by L-BFGS end, the best first. The sum is so small that they end a little early."""
    bounds = [(None, None), (None, None), (0.0, None), (None, None), (0.0, None)]
    ends = [minimize(errors.huber, begin, jac=True, method="L-BFGS-B", bounds=bounds) for begin in begins]
    return [end.x for end in sorted(ends, key=lambda end: float(end.fun))]


def _law(errors: _Errors, begins: Iterable[Sequence[float] | Float[np.ndarray, "p"]]) -> Law:
    """The best of all ends of searches that end where nothing is left to gain."""
    ends = [
        least_squares(
            errors.of,
            np.asarray(begin),
            errors.slopes,
            bounds=([-np.inf, -np.inf, 0.0, -np.inf, 0.0], np.inf),
            x_scale="jac",
            loss="huber",
            f_scale=_HUBER,
            ftol=_END,
            xtol=_END,
            gtol=1e-12,
        )
        for begin in begins
    ]
    floor, a, alpha, b, beta = min(ends, key=lambda end: float(end.cost)).x
    return Law(
        floor=float(np.exp(floor)),
        parameters_scale=float(np.exp(a)),
        alpha=float(alpha),
        tokens_scale=float(np.exp(b)),
        beta=float(beta),
    )


def bootstrapped(
    parameters: Float[np.ndarray, "n"],
    tokens: Float[np.ndarray, "n"],
    losses: Float[np.ndarray, "n"],
    seed: int,
    draws: int = 100,
) -> Sequence[Law]:
    """The laws of runs drawn with replacement, searched for from that of all runs; a draw of one size or one number of
    tokens has none and is left out. MethodError as ``scaling_law``."""
    whole = scaling_law(parameters, tokens, losses)
    floor, a, b = np.log(np.maximum([whole.floor, whole.parameters_scale, whole.tokens_scale], _TINY))
    begin = [floor, a, whole.alpha, b, whole.beta]
    begins = [begin, *([begin[0] - way, *begin[1:]] for way in (-0.3, 0.3))]
    rng, found = stream(seed, "laws"), []
    for _ in range(draws):
        own = rng.integers(len(losses), size=len(losses))
        if len(set(parameters[own])) > 1 and len(set(tokens[own])) > 1:
            found.append(_law(_errors(parameters[own], tokens[own], losses[own]), begins))
    return found
