"""The linear rival against gradient descent step by step, and against the least-squares map."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kshot.rivals.linear import by_descent


def by_steps(inputs: np.ndarray, outputs: np.ndarray, counts: np.ndarray, steps: int) -> np.ndarray:
    """The map itself, moved step by step, demonstration by demonstration."""
    x, y = np.repeat(inputs, counts, axis=0), np.repeat(outputs, counts, axis=0)
    eta = 1 / np.linalg.eigvalsh(x.T @ x / len(x)).max()
    w = np.zeros((outputs.shape[1], inputs.shape[1]))
    for _ in range(steps):
        gradient = sum(np.outer(w @ one - other, one) for one, other in zip(x, y, strict=True)) / len(x)
        w = w - eta * gradient
    return np.array([[-((w @ q - o) ** 2).sum() for o in outputs] for q in inputs])


@given(seed=st.integers(0, 1000), steps=st.integers(1, 40), c=st.integers(2, 5))
def test_descent_in_the_dual_is_descent(seed: int, steps: int, c: int) -> None:
    rng = np.random.default_rng(seed)
    inputs, outputs = rng.normal(size=(c, 7)), rng.normal(size=(c, 7))
    counts = rng.integers(0, 4, size=c)
    counts[rng.integers(c)] += 1
    found, expected = by_descent(inputs, outputs, counts, steps), by_steps(inputs, outputs, counts, steps)
    assert np.abs(found - expected).max() < 1e-10


def test_its_limit_is_the_least_squares_map_of_least_norm() -> None:
    rng = np.random.default_rng(0)
    inputs, outputs, counts = rng.normal(size=(3, 7)), rng.normal(size=(3, 7)), np.array([2, 1, 3])
    x, y = np.repeat(inputs, counts, axis=0), np.repeat(outputs, counts, axis=0)
    w = np.linalg.lstsq(x, y, rcond=None)[0].T
    expected = np.array([[-((w @ q - o) ** 2).sum() for o in outputs] for q in inputs])
    assert np.abs(by_descent(inputs, outputs, counts, None) - expected).max() < 1e-10
    assert np.abs(by_descent(inputs, outputs, counts, 10**6) - expected).max() < 1e-6


def test_every_label_that_is_shown_is_learned_in_the_limit() -> None:
    rng = np.random.default_rng(1)
    inputs, outputs = rng.normal(size=(4, 9)), rng.normal(size=(4, 9))
    table = by_descent(inputs, outputs, np.array([1, 5, 2, 1]), None)
    assert table.argmax(axis=1).tolist() == [0, 1, 2, 3]
    assert np.abs(np.diag(table)).max() < 1e-12


@pytest.mark.parametrize("steps", [1, 30, None])
def test_two_inputs_that_are_one_are_both_answered_with_the_commoner(steps: int | None) -> None:
    rng = np.random.default_rng(2)
    outputs = rng.normal(size=(2, 5))
    inputs = np.repeat(rng.normal(size=(1, 5)), 2, axis=0)
    table = by_descent(inputs, outputs, np.array([1, 9]), steps)
    assert table.argmax(axis=1).tolist() == [1, 1]


def test_inputs_of_no_length_teach_nothing() -> None:
    table = by_descent(np.zeros((2, 3)), np.eye(2, 3), np.array([1, 1]), 5)
    assert np.allclose(table, -1.0)
