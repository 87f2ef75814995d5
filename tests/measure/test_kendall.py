"""Orders of attention maps and of demonstrations: cases done by hand, loops by definition, and unrelated maps."""

import math
from itertools import combinations

import numpy as np
import pytest
from traced_runs import OWNERS, L, Q, one, standard_error, token_maps

from kshot.measure.attention_ranks import demonstration_mass, example_kendall, kendall, kendall_null, top_k_recall


def plain_tau(x, y):
    """tau-b by its definition: concordant less discordant pairs, over those that are untied in either."""
    agree, untied_x, untied_y = 0, 0, 0
    for i, j in combinations(range(len(x)), 2):
        one, other = int(np.sign(x[i] - x[j])), int(np.sign(y[i] - y[j]))
        agree, untied_x, untied_y = agree + one * other, untied_x + abs(one), untied_y + abs(other)
    return agree / math.sqrt(untied_x * untied_y)


def test_kendall_by_hand():
    # One of six pairs is the other way round.
    x, y = [np.array([[1.0, 2.0, 3.0, 4.0]])], [np.array([[1.0, 3.0, 2.0, 4.0]])]
    assert one(kendall(x, y)) == pytest.approx(4 / 6, abs=1e-15)
    assert one(kendall(x, [-x[0]])) == pytest.approx(-1, abs=1e-15)


def test_the_published_softmax_ties_by_underflow():
    # In float32 exp(-200) is 0: three of the four tokens tie, and tau-b is 3 / sqrt(3 * 6).
    x, y = [np.array([[0.0, 200.0, 400.0, 600.0]])], [np.array([[0.0, 1.0, 2.0, 3.0]])]
    found = kendall(x, y, published=True)
    assert one(found) == pytest.approx(3 / math.sqrt(18), abs=1e-15)
    assert (found.tied, found.pairs) == (3, 12)
    corrected = kendall(x, y)
    assert one(corrected) == pytest.approx(1, abs=1e-15)
    assert (corrected.tied, corrected.pairs) == (0, 12)


@pytest.mark.parametrize("published", [False, True])
def test_kendall_is_that_of_loops(published):
    icl, ft = token_maps()
    icl[0][1, 3] = icl[0][1, 7]
    found = kendall(icl, ft, published=published)
    expected = [[plain_tau(x, y) for x, y in zip(*own, strict=True)] for own in zip(icl, ft, strict=True)]
    assert np.abs(found.values - expected).max() < 1e-12
    assert found.tied == 1
    assert found.pairs == 2 * Q * L * 66


def test_a_map_of_ties_has_no_order():
    icl, ft = token_maps()
    icl[2][1] = 5.0
    found = kendall(icl, ft)
    assert np.argwhere(~found.defined).tolist() == [[2, 1]]
    assert found.left_out == 1
    assert np.isfinite(found.values).all()


@pytest.mark.parametrize("published", [False, True])
def test_kendall_with_noise_is_around_nought(published):
    icl = [np.random.default_rng(i).normal(size=(2, 50)) for i in range(300)]
    found = kendall_null(icl, 0, published=published).values
    deviation = math.sqrt(2 * (2 * 50 + 5) / (9 * 50 * 49))
    assert abs(found.mean()) < 4 * deviation / math.sqrt(found.size)
    assert found.std() == pytest.approx(deviation, rel=0.15)


def test_the_mass_of_demonstrations_is_that_of_loops():
    icl, _ = token_maps()
    masses, logs = (demonstration_mass(icl, OWNERS, published=p) for p in (True, False))
    assert masses[0].dtype == np.float32
    for scores, mass, log in zip(icl, masses, logs, strict=True):
        for layer in range(L):
            parts = [math.exp(x) for x in scores[layer]]
            expected = [sum(p for p, o in zip(parts, OWNERS, strict=True) if o == k) / sum(parts) for k in (0, 2, 4, 9)]
            assert mass[layer] == pytest.approx(expected, rel=1e-5)
            assert np.exp(log[layer]) == pytest.approx(expected, rel=1e-12)


def test_example_kendall_by_hand():
    # Masses in the ratios 2 : 3 : 1 and 3 : 2 : 1: one of three pairs is the other way round.
    owners = np.array([0, 0, 1, 1, 2])
    icl, ft = [np.log([[1.0, 1.0, 2.0, 1.0, 1.0]])], [np.log([[1.0, 2.0, 1.0, 1.0, 1.0]])]
    for published in (False, True):
        assert one(example_kendall(icl, ft, owners, published=published)) == pytest.approx(1 / 3, abs=1e-12)


def test_example_kendall_without_underflow():
    # All mass in float32 is on the last demonstration; the order of the others is left in the logarithms.
    owners = np.arange(4)
    icl, ft = [np.array([[0.0, 200.0, 400.0, 600.0]])], [np.array([[200.0, 0.0, 400.0, 600.0]])]
    assert one(example_kendall(icl, ft, owners)) == pytest.approx(4 / 6, abs=1e-15)
    rounded = example_kendall(icl, ft, owners, published=True)
    assert one(rounded) == pytest.approx(1, abs=1e-15)
    assert (rounded.tied, rounded.pairs) == (6, 12)


def test_top_k_recall_by_hand():
    x, y = [np.array([[9.0, 8.0, 7.0, 0.0, 1.0]])], [np.array([[0.0, 5.0, 4.0, 6.0, 1.0]])]
    assert one(top_k_recall(x, y, 3)) == pytest.approx(2 / 3)
    assert one(top_k_recall(x, y, 1)) == 0
    assert one(top_k_recall(x, x, 2)) == 1
    # All of five are always among five.
    whole = top_k_recall(x, y, 5)
    assert (whole.left_out, whole.defined.any()) == (1, False)


def test_top_k_recall_of_unrelated_maps_is_a_share():
    rng = np.random.default_rng(0)
    icl, ft = ([rng.normal(size=(2, 40)) for _ in range(300)] for _ in range(2))
    found = top_k_recall(icl, ft, 10).values
    assert abs(found.mean() - 10 / 40) < 4 * standard_error(found)
