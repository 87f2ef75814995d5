"""Likeness of predictors by hand and against finite differences."""

import numpy as np
import pytest
import torch

from kshot.measure.predictors import prediction_distance, sensitivities, sensitivity_cosine, sensitivity_distance


def quadratic(xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
    """Of every answer at once, as a causal network would: (mean of y before) times |x|^2."""
    before = torch.cat([torch.zeros_like(ys[:, :1]), ys.cumsum(1)[:, :-1]], dim=1)
    return before * xs.square().sum(-1)


def test_sensitivities_are_derivatives_by_the_last_input_alone() -> None:
    drawn = torch.Generator().manual_seed(0)
    xs = torch.randn(4, 3, 2, generator=drawn, dtype=torch.float64)
    ys = torch.randn(4, 3, generator=drawn, dtype=torch.float64)
    before = xs.clone()
    said, slope = sensitivities(quadratic, xs, ys)
    assert torch.equal(xs, before)
    assert said == pytest.approx(quadratic(xs, ys)[:, -1].numpy())
    for i in range(2):
        moved = xs.clone()
        moved[:, -1, i] += 1e-6
        expected = (quadratic(moved, ys)[:, -1].numpy() - said) / 1e-6
        assert slope[:, i] == pytest.approx(expected, abs=1e-4)


def test_distances_and_cosines_by_hand() -> None:
    assert prediction_distance(np.array([1.0, -2.0]), np.array([4.0, -2.0])).tolist() == [3.0, 0.0]
    one, other = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]]), np.array([[6.0, 8.0], [0.0, 2.0], [1.0, 0.0]])
    assert sensitivity_cosine(one, other)[:2] == pytest.approx([1.0, 0.0])
    assert np.isnan(sensitivity_cosine(one, other)[2]), "undefined is not 0"
    assert sensitivity_distance(one, other) == pytest.approx([5.0, np.sqrt(5.0), 1.0])


def test_random_directions_have_the_stated_null() -> None:
    rng = np.random.default_rng(0)
    found = sensitivity_cosine(rng.normal(size=(20_000, 9)), rng.normal(size=(20_000, 9)))
    assert found.mean() == pytest.approx(0.0, abs=0.01)
    assert found.std() == pytest.approx(1 / 3, abs=0.01)
