"""Rivals that are fitted to every prompt by itself: penalised and tree regression, and a small network by descent.

A fit takes milliseconds to seconds, so each is asked at some places only: ``at`` counts the pairs before the query, and
what is said at other places is NaN.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import sqrt
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import Lasso
from sklearn.tree import DecisionTreeRegressor
from torch import Tensor

from kshot.seeds import torch_stream
from kshot.synth.oracles import Predictor
from kshot.synth.train import Training

# Baselines of Garg et al. 2022.
_TREES, _BOOSTED_DEPTH, _BOOSTED_RATE = 50, 4, 0.1
LASSO_PENALTY = 0.01
"""The best of those that they try."""


def lasso(penalty: float, at: Sequence[int]) -> Predictor:
    """Least squares with an L1 penalty, |y - X w|^2 / (2 k) + penalty |w|_1, without an intercept."""
    return _fitted(lambda: Lasso(alpha=penalty, fit_intercept=False, max_iter=10_000), at)


def greedy_tree(depth: int, at: Sequence[int]) -> Predictor:
    """A regression tree grown greedily to this depth (Breiman et al. 1984); ties between splits are broken alike each time."""
    return _fitted(lambda: DecisionTreeRegressor(max_depth=depth, random_state=0), at)


def boosted_trees(at: Sequence[int]) -> Predictor:
    """Gradient boosting of 50 trees of depth 4 at rate 0.1 (Friedman 2001), the settings of Garg et al. 2022 for XGBoost."""
    return _fitted(
        lambda: GradientBoostingRegressor(
            n_estimators=_TREES, max_depth=_BOOSTED_DEPTH, learning_rate=_BOOSTED_RATE, random_state=0
        ),
        at,
    )


def _fitted(make: Callable[[], Any], at: Sequence[int]) -> Predictor:
    def says(xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        inputs, answers = xs.double().numpy(), ys.double().numpy()
        said = np.full(answers.shape, np.nan)
        for b in range(len(inputs)):
            for k in at:
                own = make().fit(inputs[b, :k], answers[b, :k]) if k else None
                said[b, k] = own.predict(inputs[b, k : k + 1])[0] if own is not None else 0.0
        return torch.from_numpy(said).to(xs)

    return says


# Garg et al. 2022, appendix; their code takes 100 steps of 100 pairs instead.
_ADAM = Training(steps=5000, batch=10, learning_rate=5e-3)


def small_network(at: Sequence[int], *, hidden: int = 100, training: Training = _ADAM, seed: int = 0) -> Predictor:
    """A network of one hidden layer of ReLUs, sqrt(2 / hidden) v . relu(U x), fitted to each prompt by Adam.

    Every step takes a batch of the pairs, drawn with replacement; of ``training`` steps, batch and rate count.
    """
    return partial(_by_adam, at=tuple(at), hidden=hidden, training=training, seed=seed)


def _by_adam(
    xs: Float[Tensor, "b n d"],
    ys: Float[Tensor, "b n"],
    *,
    at: tuple[int, ...],
    hidden: int,
    training: Training,
    seed: int,
) -> Float[Tensor, "b n"]:
    said = torch.full_like(ys, torch.nan)
    for k in at:
        rng = torch_stream(seed, "small network", k)
        inner = torch.randn(len(xs), xs.shape[-1], hidden, generator=rng).to(xs).requires_grad_(True)
        outer = torch.randn(len(xs), hidden, generator=rng).to(xs).requires_grad_(True)
        # Every number is moved by its own moments, so that prompts are fitted side by side as they would be alone.
        optimiser = torch.optim.Adam([inner, outer], lr=training.learning_rate)
        for _ in range(training.steps if k else 0):
            with torch.enable_grad():
                drawn = torch.randint(k, (len(xs), min(training.batch, k)), generator=rng)
                shown = xs.gather(1, drawn[..., None].expand(-1, -1, xs.shape[-1]))
                loss = (_network(inner, outer, shown) - ys.gather(1, drawn)).square().mean(dim=1).sum()
                inner.grad, outer.grad = torch.autograd.grad(loss, (inner, outer))
            optimiser.step()
        # Without a pair nothing is known, and 0 is the mean of what may come.
        said[:, k] = _network(inner, outer, xs[:, k : k + 1])[:, 0].detach() if k else 0.0
    return said


def _network(
    inner: Float[Tensor, "b d h"], outer: Float[Tensor, "b h"], xs: Float[Tensor, "b n d"]
) -> Float[Tensor, "b n"]:
    return sqrt(2 / outer.shape[1]) * torch.einsum("bnh,bh->bn", torch.relu(torch.bmm(xs, inner)), outer)
