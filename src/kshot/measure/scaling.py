"""How loss falls with parameters and tokens: the law, fitted, its uncertainty, and what it says of a budget."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize

from kshot.errors import MethodError
from kshot.seeds import stream

# Hoffmann et al. 2022, appendix D.3: errors of log loss beyond this count by their size alone.
_HUBER = 1e-3
# Where the search begins; of all the best end is kept.
_FLOORS, _RATES, _SIZES = (-1.0, 0.0, 1.0), (0.2, 0.5, 1.0), (0.0, 5.0, 10.0)
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


def scaling_law(
    parameters: Float[np.ndarray, "n"], tokens: Float[np.ndarray, "n"], losses: Float[np.ndarray, "n"]
) -> Law:
    """The law that fits runs best; MethodError for fewer than six of them, or of one size or number of tokens alone.

    Claim: what a larger model gains and what more text gains add up, each as a power, above the entropy of the text.
    Formula: the least sum of Huber(log L - log(E + A/N^a + B/D^b)) with delta 1e-3, by L-BFGS from a grid of beginnings
        (Hoffmann et al. 2022, section 3.3 and appendix D.3).
    Null: with losses that do not depend on N the scale of N is 0, or its power is; in the latter case A is a part of what
        the floor would be, and neither is known.
    Departures: the beginnings are 3^5 and not 4,500; on planted laws both end in the same place (tests). Powers are not
        below 0: with more of either no loss grows.
    Known problems: E and a power trade off where runs span less than a factor of ten in either; noise of a run is not that
        of a loss, so intervals come from ``bootstrapped`` runs.
    """
    if len(losses) < _LEAST or len(set(parameters)) < 2 or len(set(tokens)) < 2:
        raise MethodError(
            f"a law of {len(losses)} runs of {len(set(parameters))} sizes and {len(set(tokens))} numbers of tokens: what works "
            f"is {_LEAST} or more of two or more of each"
        )
    return _fitted(parameters, tokens, losses, product(_FLOORS, _SIZES, _RATES, _SIZES, _RATES))


def _fitted(
    parameters: Float[np.ndarray, "n"],
    tokens: Float[np.ndarray, "n"],
    losses: Float[np.ndarray, "n"],
    begins: Iterable[Sequence[float]],
) -> Law:
    """The best of all ends of a search."""
    n, d, target = np.log(parameters), np.log(tokens), np.log(losses)

    def missed(at: Float[np.ndarray, "p"]) -> tuple[float, Float[np.ndarray, "p"]]:
        floor, a, alpha, b, beta = at
        terms = np.stack([np.full_like(n, floor), a - alpha * n, b - beta * d])
        foreseen = np.logaddexp.reduce(terms)
        error = foreseen - target
        small = np.abs(error) <= _HUBER
        value = np.where(small, error**2 / 2, _HUBER * (np.abs(error) - _HUBER / 2)).sum()
        slope = np.where(small, error, _HUBER * np.sign(error))
        shares = np.exp(terms - foreseen) * slope
        return float(value), np.array(
            [shares[0].sum(), shares[1].sum(), -(shares[1] * n).sum(), shares[2].sum(), -(shares[2] * d).sum()]
        )

    bounds = [(None, None), (None, None), (0.0, None), (None, None), (0.0, None)]
    ends = [minimize(missed, begin, jac=True, method="L-BFGS-B", bounds=bounds) for begin in begins]
    floor, a, alpha, b, beta = min(ends, key=lambda end: float(end.fun)).x
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
            found.append(_fitted(parameters[own], tokens[own], losses[own], begins))
    return found
