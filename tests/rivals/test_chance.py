"""What guessing gives, against metrics one by one and against every order of the answers."""

from itertools import permutations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kshot.measure.metrics import macro_f1
from kshot.rivals.chance import guessed, macro_f1s


@given(seed=st.integers(0, 1000), c=st.integers(2, 5), q=st.integers(1, 12))
def test_many_at_once_are_one_by_one(seed: int, c: int, q: int) -> None:
    rng = np.random.default_rng(seed)
    said, gold = rng.integers(c, size=(4, q)), rng.integers(c, size=q)
    expected = [macro_f1(np.eye(c)[own], gold) for own in said]
    assert np.allclose(macro_f1s(said, gold[None], c), expected)


def test_guessing_is_the_mean_over_all_orders() -> None:
    said, gold = np.array([0, 0, 1, 1, 1, 2, 0]), np.array([0, 1, 1, 1, 2, 2, 0])
    every = np.array(list(permutations(said)))
    expected = macro_f1s(every, gold[None], 3)
    found = guessed(said, gold, 0, draws=4000)
    assert abs(found.macro_f1 - expected.mean()) < 4 * expected.std() / np.sqrt(4000)
    assert (found.low, found.high) == tuple(np.quantile(expected, (0.025, 0.975)))


def test_an_answer_that_is_always_the_same_cannot_be_guessed_better() -> None:
    gold = np.array([0] * 6 + [1] * 2)
    found = guessed(np.zeros(8, dtype=np.int64), gold, 0)
    assert found.macro_f1 == found.low == found.high == found.majority == (2 * 6 / 14) / 2


def test_guessing_is_not_one_over_the_number_of_classes() -> None:
    gold = np.arange(200) % 2
    assert abs(guessed(np.zeros(200, dtype=np.int64), gold, 0).macro_f1 - 1 / 3) < 1e-12
    assert abs(guessed(gold, gold, 0).macro_f1 - 1 / 2) < 0.02
