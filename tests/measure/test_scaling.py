"""Planted laws are found again, intervals hold them, and a budget is spent where a search finds no better."""

from dataclasses import astuple

import numpy as np
import pytest
from scipy.optimize import minimize

from kshot.errors import MethodError
from kshot.measure.scaling import Law, bootstrapped, power_law, scaling_law
from kshot.seeds import stream

CHINCHILLA = Law(floor=1.69, parameters_scale=406.4, alpha=0.34, tokens_scale=410.7, beta=0.28)
SMALL = Law(floor=2.4, parameters_scale=30.0, alpha=0.45, tokens_scale=900.0, beta=0.5)


def runs(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Seven sizes by seven numbers of tokens, three orders of magnitude of each."""
    sizes = np.logspace(low, low + 3, 7)
    numbers = np.logspace(high, high + 3, 7)
    grid = np.array([(n, d) for n in sizes for d in numbers])
    return grid[:, 0], grid[:, 1]


@pytest.mark.parametrize(("law", "low", "high"), [(CHINCHILLA, 7.5, 9.0), (SMALL, 4.0, 5.0)])
def test_a_planted_law_is_found_again(law: Law, low: float, high: float) -> None:
    parameters, tokens = runs(low, high)
    found = scaling_law(parameters, tokens, law.loss(parameters, tokens))
    assert (found.alpha, found.beta) == pytest.approx((law.alpha, law.beta), rel=0.03)
    assert found.floor == pytest.approx(law.floor, rel=0.03)
    assert found.loss(parameters, tokens) == pytest.approx(law.loss(parameters, tokens), rel=2e-3)


def test_a_run_that_went_wrong_moves_it_little() -> None:
    parameters, tokens = runs(4.0, 5.0)
    losses = SMALL.loss(parameters, tokens)
    losses[17] *= 1.5
    found = scaling_law(parameters, tokens, losses)
    assert (found.alpha, found.beta) == pytest.approx((SMALL.alpha, SMALL.beta), rel=0.05)


def test_intervals_hold_what_was_planted_as_often_as_they_say() -> None:
    """Laws of drawn runs are searched for to the end: of searches that stop near where they begin, a third held it."""
    parameters, tokens = runs(4.0, 5.0)
    held = 0
    for number in range(3):
        noise = np.exp(0.01 * stream(number, "noise").standard_normal(len(parameters)))
        laws = bootstrapped(parameters, tokens, SMALL.loss(parameters, tokens) * noise, number, draws=20)
        assert len(laws) == 20
        for name in ("floor", "alpha", "beta"):
            low, high = np.quantile([getattr(law, name) for law in laws], [0.025, 0.975])
            held += low <= getattr(SMALL, name) <= high
    assert held >= 7, "of 9"


def test_a_law_of_drawn_runs_is_the_best_there_is() -> None:
    """No other method finds less of the sum: the simplex of Nelder and Mead, from where the law is."""
    parameters, tokens = runs(4.0, 5.0)
    noise = np.exp(0.01 * stream(0, "noise").standard_normal(len(parameters)))
    losses = SMALL.loss(parameters, tokens) * noise

    def missed(at: np.ndarray) -> float:
        floor, a, alpha, b, beta = at
        said = np.exp(floor) + np.exp(a) / parameters**alpha + np.exp(b) / tokens**beta
        far = np.abs(np.log(said) - np.log(losses))
        return float(np.where(far <= 1e-3, far**2 / 2, 1e-3 * (far - 5e-4)).sum())

    law = scaling_law(parameters, tokens, losses)
    at = [np.log(law.floor), np.log(law.parameters_scale), law.alpha, np.log(law.tokens_scale), law.beta]
    options = {"xatol": 1e-9, "fatol": 1e-16, "maxiter": 4000, "maxfev": 4000}
    for way in (-0.02, 0.02):
        again = minimize(missed, [at[0] + way, *at[1:]], method="Nelder-Mead", options=options)
        assert missed(np.array(at)) <= again.fun * (1 + 1e-9)


def test_the_power_of_one_alone_is_found_and_its_interval_holds_it() -> None:
    counts = np.logspace(4, 7, 7)
    assert power_law(counts, (1e9 / counts) ** 0.076)[0] == pytest.approx(0.076, rel=1e-9)
    assert power_law(counts, 1.5 + (1e9 / counts) ** 0.3, 1.5)[0] == pytest.approx(0.3, rel=1e-9)
    held = 0
    for seed in range(200):
        noise = np.exp(0.02 * stream(seed, "noise").standard_normal(7))
        _, low, high = power_law(counts, (1e9 / counts) ** 0.1 * noise)
        held += low <= 0.1 <= high
    assert 0.9 <= held / 200 <= 0.99
    with pytest.raises(MethodError, match="all above it"):
        power_law(counts, (1e9 / counts) ** 0.1, 9.0)
    with pytest.raises(MethodError, match="a power of 2 counts"):
        power_law(counts[:2], counts[:2])


def test_the_best_of_a_budget_is_that_of_a_search() -> None:
    for law, operations in ((CHINCHILLA, 5.76e23), (SMALL, 1e14)):
        parameters, tokens = law.best(operations)
        assert 6 * parameters * tokens == pytest.approx(operations)
        sizes = np.exp(np.linspace(np.log(parameters) - 3, np.log(parameters) + 3, 6001))
        losses = law.loss(sizes, operations / 6 / sizes)
        assert sizes[losses.argmin()] == pytest.approx(parameters, rel=0.01)


def test_of_too_few_runs_there_is_no_law() -> None:
    one = np.ones(8)
    for parameters, tokens in ((one, np.arange(1.0, 9.0)), (np.arange(1.0, 9.0), one)):
        with pytest.raises(MethodError, match="two or more of each"):
            scaling_law(parameters, tokens, one)
    with pytest.raises(MethodError, match="a law of 5 runs"):
        scaling_law(np.arange(1.0, 6.0), np.arange(1.0, 6.0), np.ones(5))
    assert len(astuple(SMALL)) == 5
