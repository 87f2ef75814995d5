"""Exact rivals against textbook formulas, prompt by prompt and pair by pair."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsRegressor

from kshot.synth.functions import features
from kshot.synth.oracles import (
    Predictor,
    averaging,
    bayes_over_pool,
    descended,
    least_squares,
    logistic_regression,
    nearest,
    on_features,
    one_pass,
    ridge,
    ridge_of_unknown_noise,
)
from kshot.synth.prompts import Source

SOURCE = Source(width=3, pairs=8, noise=0.25)
EVERY: dict[str, Predictor] = {
    "averaging": averaging,
    "least squares": least_squares,
    "ridge": ridge(0.25),
    "nearest": nearest(),
    "descent": descended(0.3, 4),
    "momentum": descended(0.3, 4, momentum=0.5),
    "GD++": descended(0.3, 4, shrink=0.2),
    "pool": bayes_over_pool(torch.eye(3), 0.25),
    "features": on_features(ridge(0.25), features),
    "one pass": one_pass(0.1),
    "logistic": logistic_regression(draws=0),
    "posterior": logistic_regression(),
    "unknown noise": ridge_of_unknown_noise((0.05, 0.25, 1.0)),
}


def prompts(size: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    found = SOURCE.batch(0, 0, size)
    return found.xs.double(), found.ys.double()


def judged(predictor: Predictor, obvious: Callable[[np.ndarray, np.ndarray, np.ndarray], float]) -> None:
    xs, ys = prompts()
    said = predictor(xs, ys)
    for b in range(len(xs)):
        for k in range(1, xs.shape[1]):
            x, y, query = xs[b, :k].numpy(), ys[b, :k].numpy(), xs[b, k].numpy()
            assert said[b, k].item() == pytest.approx(obvious(x, y, query), abs=1e-10)


@pytest.mark.parametrize("name", EVERY)
def test_the_future_and_the_answer_itself_change_nothing(name: str) -> None:
    xs, ys = prompts()
    said = EVERY[name](xs, ys)
    for k in (0, 3, 7):
        other, answers = xs.clone(), ys.clone()
        other[:, k + 1 :] += 1.0
        answers[:, k:] -= 2.0
        assert torch.equal(EVERY[name](other, answers)[:, : k + 1], said[:, : k + 1])


@pytest.mark.parametrize("name", [name for name in EVERY if name != "one pass"])
def test_the_order_of_pairs_changes_nothing(name: str) -> None:
    xs, ys = prompts()
    order = [4, 2, 0, 1, 5, 6, 3, 7]
    assert torch.allclose(EVERY[name](xs[:, order], ys[:, order])[:, -1], EVERY[name](xs, ys)[:, -1], atol=1e-12)


@pytest.mark.parametrize("name", [name for name in EVERY if name != "pool"])
def test_of_nothing_it_says_nothing(name: str) -> None:
    assert (EVERY[name](*prompts())[:, 0] == 0).all()


def test_averaging() -> None:
    judged(averaging, lambda x, y, query: float((x * y[:, None]).mean(axis=0) @ query))


def test_least_squares_of_least_norm() -> None:
    judged(least_squares, lambda x, y, query: float(np.linalg.lstsq(x, y, rcond=None)[0] @ query))


def test_ridge() -> None:
    def obvious(x: np.ndarray, y: np.ndarray, query: np.ndarray) -> float:
        return float(np.linalg.inv(x.T @ x + 0.25 * np.eye(3)) @ x.T @ y @ query)

    judged(ridge(0.25), obvious)


def test_ridge_on_features() -> None:
    def mapped(x: np.ndarray) -> np.ndarray:
        return features(torch.tensor(x)[None])[0].numpy()

    def obvious(x: np.ndarray, y: np.ndarray, query: np.ndarray) -> float:
        own = mapped(x)
        return float(np.linalg.inv(own.T @ own + 0.25 * np.eye(20)) @ own.T @ y @ mapped(query[None])[0])

    judged(on_features(ridge(0.25), features), obvious)


def logistic_prompts(size: int, width: int, pairs: int) -> tuple[torch.Tensor, torch.Tensor]:
    found = Source(function="logistic", width=width, pairs=pairs).batch(0, 0, size)
    return found.xs.double(), found.ys.double()


@pytest.mark.parametrize("penalty", [0.1, 1.0, 10.0])
def test_logistic_regression(penalty: float) -> None:
    xs, ys = logistic_prompts(20, 3, 12)
    said = logistic_regression(penalty, draws=0)(xs, ys)
    for b in range(len(xs)):
        for k in range(2, 12):
            if len(ys[b, :k].unique()) < 2:
                continue
            own = LogisticRegression(C=1 / penalty, fit_intercept=False, tol=1e-10, max_iter=1000)
            one = own.fit(xs[b, :k], ys[b, :k]).predict_proba(xs[b, k : k + 1])[0, 1]
            assert said[b, k].item() == pytest.approx(2 * one - 1, abs=1e-5)


def test_the_posterior_of_logistic_functions_is_the_integral_over_all_of_them() -> None:
    xs, ys = logistic_prompts(20, 2, 9)
    grid = torch.cartesian_prod(*[torch.linspace(-7, 7, 281, dtype=torch.float64)] * 2)
    said, most_likely = (logistic_regression(draws=draws)(xs, ys) for draws in (4096, 0))
    for k in (1, 4, 8):
        signed = xs[:, :k] * ys[:, :k, None]
        chance = torch.sigmoid(torch.einsum("bkd,wd->bkw", signed, grid)).prod(dim=1)
        chance = chance * torch.exp(-grid.square().sum(dim=1) / 2)
        exact = (chance * torch.tanh(xs[:, k] @ grid.T / 2)).sum(dim=1) / chance.sum(dim=1)
        assert torch.allclose(said[:, k], exact, atol=0.02)
        assert (most_likely[:, k] - exact).abs().max() > 0.05


def test_no_rule_errs_less_on_logistic_functions_than_their_posterior() -> None:
    xs, ys = logistic_prompts(2000, 3, 12)
    rules = logistic_regression(), logistic_regression(draws=0), logistic_regression(0.1), ridge(1.0)
    errors = [float((rule(xs, ys) - ys).square()[:, 4:].mean()) for rule in rules]
    assert errors[0] == min(errors)
    assert len(set(errors)) == len(errors)


def test_nearest() -> None:
    def obvious(x: np.ndarray, y: np.ndarray, query: np.ndarray) -> float:
        return float(KNeighborsRegressor(min(3, len(x))).fit(x, y).predict(query[None])[0])

    judged(nearest(3), obvious)


def obvious_descent(
    x: np.ndarray, y: np.ndarray, query: np.ndarray, rate: float, steps: int, momentum: float, mean: bool
) -> float:
    w, v = np.zeros(3), np.zeros(3)
    for _ in range(steps):
        v = momentum * v + x.T @ (y - x @ w) / (len(x) if mean else 1)
        w = w + rate * v
    return float(w @ query)


@pytest.mark.parametrize(("steps", "momentum", "mean"), [(1, 0.0, True), (5, 0.0, False), (4, 0.6, True)])
def test_gradient_descent_and_momentum(steps: int, momentum: float, mean: bool) -> None:
    judged(
        descended(0.05, steps, momentum=momentum, mean=mean),
        partial(obvious_descent, rate=0.05, steps=steps, momentum=momentum, mean=mean),
    )


@pytest.mark.parametrize(
    "more", [{}, {"momentum": 0.5}, {"shrink": 0.2}, {"shrink": [0.1, 0.2, 0.3, 0.4]}, {"mean": False}]
)
def test_descent_of_the_last_input_alone_is_the_last_of_all(more: dict[str, Any]) -> None:
    xs, ys = prompts()
    every, alone = (descended([0.1, 0.2, 0.05, 0.1], 4, last=last, **more)(xs, ys) for last in (False, True))
    assert alone.shape == (len(xs), 1)
    assert torch.allclose(alone[:, 0], every[:, -1], atol=1e-12)


def test_descent_ends_at_least_squares() -> None:
    found = Source(width=3, pairs=30, noise=0.25).batch(0, 0, 5)
    xs, ys = found.xs.double(), found.ys.double()
    # Few pairs may nearly say nothing of some direction, in which descent takes for ever.
    said, best = descended(0.1, 2_000)(xs, ys), least_squares(xs, ys)
    assert torch.allclose(said[:, 15:], best[:, 15:], atol=1e-9)


def test_gd_plus_plus_shrinks_inputs_between_steps() -> None:
    def obvious(x: np.ndarray, y: np.ndarray, query: np.ndarray) -> float:
        said, left = 0.0, y.copy()
        for _ in range(3):
            change = 0.3 * x.T @ left / len(x)
            said, left = said + float(change @ query), left - x @ change
            shrink = np.eye(3) - 0.2 * x.T @ x / len(x)
            x, query = x @ shrink.T, shrink @ query
        return said

    judged(descended(0.3, 3, shrink=0.2), obvious)
    xs, ys = prompts()
    assert torch.equal(descended(0.3, 1, shrink=0.2)(xs, ys), descended(0.3, 1)(xs, ys)), "one step has nothing between"


def test_one_pass_takes_pairs_in_turn() -> None:
    def obvious(x: np.ndarray, y: np.ndarray, query: np.ndarray) -> float:
        w = np.zeros(3)
        for one, answer in zip(x, y, strict=True):
            w = w + 0.1 * (answer - w @ one) * one
        return float(w @ query)

    judged(one_pass(0.1), obvious)
    xs, ys = prompts()
    first = one_pass(0.1)(xs, ys)[:, 1]
    assert torch.allclose(first, descended(0.1, 1)(xs, ys)[:, 1]), "of one pair it is a step of descent"


def test_ridge_of_unknown_noise_weighs_by_the_likelihood_of_all_answers() -> None:
    levels = (0.05, 0.25, 1.0)

    def obvious(x: np.ndarray, y: np.ndarray, query: np.ndarray) -> float:
        density, said = [], []
        for own in levels:
            spread = x @ x.T + own * np.eye(len(x))
            density.append(stats.multivariate_normal(np.zeros(len(x)), spread).pdf(y))
            said.append(float(x.T @ np.linalg.solve(spread, y) @ query))
        return float(np.array(density) @ said / np.sum(density))

    judged(ridge_of_unknown_noise(levels), obvious)
    xs, ys = prompts()
    assert torch.allclose(ridge_of_unknown_noise((0.25,))(xs, ys), ridge(0.25)(xs, ys), atol=1e-12)


@pytest.mark.parametrize("at_once", [1, 3, 4096])
def test_bayes_over_a_pool(at_once: int) -> None:
    tasks = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def obvious(x: np.ndarray, y: np.ndarray, query: np.ndarray) -> float:
        likelihood = np.array([np.exp(-((y - x @ w) ** 2).sum() / (2 * 0.25)) for w in tasks.numpy()])
        return float((likelihood / likelihood.sum()) @ (tasks.numpy() @ query))

    judged(bayes_over_pool(tasks, 0.25, at_once=at_once), obvious)
    xs, ys = prompts()
    first = bayes_over_pool(tasks, 0.25)(xs, ys)[:, 0]
    assert torch.allclose(first, xs[:, 0] @ tasks.mean(0)), "without pairs the mean of the pool"


def test_a_pool_of_one_function_is_that_function() -> None:
    xs, ys = prompts()
    w = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)
    assert torch.allclose(bayes_over_pool(w, 0.25)(xs, ys), xs @ w[0], atol=1e-12)


def test_unlikely_pools_and_long_prompts_stay_finite() -> None:
    source = Source(width=3, pairs=200)
    found = source.batch(0, 0, 2)
    far = 1000 + torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    assert bayes_over_pool(far, 1e-3, at_once=7)(found.xs, found.ys).isfinite().all()


def test_ridge_with_the_noise_is_the_best_of_them() -> None:
    found = Source(width=3, pairs=12, noise=0.25).batch(0, 1, 4000)
    error = {
        name: ((one(found.xs, found.ys) - found.means) ** 2).mean(0)
        for name, one in {**EVERY, "much": ridge(2.5), "little": ridge(0.025)}.items()
        if name not in ("pool", "features")
    }
    for name in error:
        if name != "ridge":
            assert (error["ridge"][3:] <= error[name][3:] * 1.02).all(), name
