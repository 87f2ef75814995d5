"""Intervals and paired tests against scipy, hand-computed numbers and their symmetries."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from kshot.measure.intervals import holm, mcnemar, mean_interval, paired_permutation, wilson

shares = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
pairs = st.integers(1, 30).flatmap(lambda n: st.tuples(arrays(np.bool_, n), arrays(np.bool_, n)))
few = st.lists(st.integers(0, 100), min_size=2, max_size=8).map(lambda values: np.array(values) / 100)


def test_wilson_by_hand():
    # 8 of 10 at z = 1.96: the interval of Wilson 1927 is (0.4902, 0.9433).
    low, high = wilson(8, 10)
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)


def test_wilson_of_nothing_is_none():
    assert wilson(0, 0) is None


def test_wilson_takes_a_mean_of_several_runs():
    low, high = wilson(7.5, 10)
    assert wilson(7, 10)[0] < low < wilson(8, 10)[0]
    assert wilson(7, 10)[1] < high < wilson(8, 10)[1]


@pytest.mark.parametrize(("successes", "n"), [(3, 2), (-1, 4)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(AssertionError, match="successes of"):
        wilson(successes, n)


@settings(deadline=None)
@given(shares, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_wilson_agrees_with_scipy_and_holds_the_share(share, confidence):
    successes, n = share
    low, high = wilson(successes, n, confidence)
    rival = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert (low, high) == (pytest.approx(rival.low, abs=1e-12), pytest.approx(rival.high, abs=1e-12))
    assert 0 <= low <= successes / n <= high <= 1


@settings(deadline=None)
@given(shares)
def test_wilson_mirrors(share):
    successes, n = share
    low, high = wilson(successes, n)
    assert wilson(n - successes, n) == (pytest.approx(1 - high, abs=1e-12), pytest.approx(1 - low, abs=1e-12))


def test_wilson_covers_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = [low <= 0.7 <= high for low, high in (wilson(int(k), 50) for k in rng.binomial(50, 0.7, 2000))]
    assert 0.93 <= np.mean(covered) <= 0.97


@pytest.mark.parametrize("values", [[], [0.5]])
def test_an_interval_needs_two_values(values):
    assert mean_interval(np.array(values)) is None


@pytest.mark.parametrize("values", [[0.5, 0.5], [0.1 + 0.2, 0.3, 0.3], [1.0] * 5])
def test_the_interval_of_equal_values_is_that_value(values):
    low, high = mean_interval(np.array(values))
    assert low == pytest.approx(values[0], abs=1e-15)
    assert high == pytest.approx(values[0], abs=1e-15)


@settings(max_examples=30, deadline=None)
@given(few)
def test_an_interval_lies_around_the_mean_and_within_what_values_can_be(values):
    low, high = mean_interval(values, within=(0.0, 1.0))
    assert 0.0 <= low <= values.mean() + 1e-12
    assert values.mean() - 1e-12 <= high <= 1.0


def test_the_interval_of_few_values_is_students():
    # t of 2 degrees of freedom is 4.3027 in printed tables.
    low, high = mean_interval(np.array([0.2, 0.3, 0.4]))
    assert (low, high) == pytest.approx(
        (0.3 - 4.3027 * 0.1 / math.sqrt(3), 0.3 + 4.3027 * 0.1 / math.sqrt(3)), abs=1e-5
    )


@pytest.mark.parametrize("n", [2, 3, 6, 19])
def test_the_interval_of_few_values_covers_as_often_as_it_says(n):
    drawn = np.random.default_rng(0).normal(size=(600, n))
    covered = [low <= 0 <= high for low, high in map(mean_interval, drawn)]
    assert np.mean(covered) > 0.95 - 3 * math.sqrt(0.05 * 0.95 / 600)


@settings(max_examples=10, deadline=None)
@given(few, st.randoms())
def test_an_interval_does_not_ask_in_which_order_seeds_ran(values, random):
    shuffled = list(values)
    random.shuffle(shuffled)
    assert mean_interval(np.array(shuffled)) == mean_interval(values)


def test_bootstrap_is_near_the_normal_interval_of_many_values():
    values = np.random.default_rng(0).normal(0.6, 0.1, 200)
    reach = 1.96 * values.std(ddof=1) / math.sqrt(200)
    low, high = mean_interval(values)
    assert low == pytest.approx(values.mean() - reach, abs=0.002)
    assert high == pytest.approx(values.mean() + reach, abs=0.002)
    assert mean_interval(values, seed=1) != (low, high)


def test_mcnemar_by_hand():
    # a alone right 1 time, b alone 5 times: p = 2 * (C(6,0) + C(6,1)) / 2^6 = 14 / 64.
    a = np.array([True] * 1 + [False] * 5 + [True] * 4)
    b = np.array([False] * 1 + [True] * 5 + [True] * 4)
    found = mcnemar(a, b)
    assert found == {"n": 10, "only_a": 1, "only_b": 5, "difference": -0.4, "p": pytest.approx(14 / 64)}


def test_mcnemar_of_nothing_is_none():
    assert mcnemar(np.array([], dtype=bool), np.array([], dtype=bool)) is None


@settings(deadline=None)
@given(pairs)
def test_mcnemar_is_symmetric(pair):
    a, b = pair
    one, other = mcnemar(a, b), mcnemar(b, a)
    assert (one["only_a"], one["only_b"], one["n"]) == (other["only_b"], other["only_a"], other["n"])
    assert one["difference"] == -other["difference"] == pytest.approx(a.mean() - b.mean())
    assert one["p"] == pytest.approx(other["p"])
    assert 0 < one["p"] <= 1


@settings(deadline=None)
@given(arrays(np.bool_, st.integers(1, 30)))
def test_mcnemar_of_a_method_with_itself_is_one(a):
    assert mcnemar(a, a)["p"] == 1.0
    assert mcnemar(a, a)["difference"] == 0


@settings(deadline=None)
@given(pairs)
def test_mcnemar_agrees_with_counting_all_outcomes(pair):
    found = mcnemar(*pair)
    m, k = found["only_a"] + found["only_b"], found["only_a"]
    as_extreme = [math.comb(m, i) for i in range(m + 1) if abs(i - m / 2) >= abs(k - m / 2)]
    assert found["p"] == pytest.approx(sum(as_extreme) / 2**m)


small = st.tuples(st.integers(1, 3), st.integers(1, 7)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.integers(-1, 1))
)


@settings(deadline=None)
@given(small)
def test_the_permutation_test_counts_all_flips_of_whole_queries(differences):
    found = paired_permutation(differences)
    totals = differences.sum(axis=0)
    flips = [sum(s * d for s, d in zip(signs, totals, strict=True)) for signs in product((-1, 1), repeat=len(totals))]
    assert found["p"] == pytest.approx(np.mean([abs(flip) >= abs(totals.sum()) for flip in flips]))
    assert (found["n"], found["better"], found["worse"]) == (len(totals), (totals > 0).sum(), (totals < 0).sum())
    assert paired_permutation(-differences)["p"] == pytest.approx(found["p"])


@settings(deadline=None)
@given(pairs)
def test_with_one_seed_the_permutation_test_is_mcnemar(pair):
    a, b = pair
    assert paired_permutation((a.astype(int) - b.astype(int))[None])["p"] == pytest.approx(mcnemar(a, b)["p"])


def test_seeds_that_repeat_each_other_add_no_evidence():
    one = np.array([[1] * 9 + [-1] * 2 + [0] * 20])
    alone, thrice = paired_permutation(one), paired_permutation(np.repeat(one, 3, axis=0))
    assert thrice["p"] == pytest.approx(alone["p"])
    # taken for independent, three seeds would have made it far surer
    assert paired_permutation(np.tile(one, 3))["p"] < alone["p"] / 5


def test_the_permutation_test_rejects_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    shared = rng.integers(-1, 2, (400, 1, 60))
    keep = rng.random((400, 3, 60)) < 0.7
    ps = [paired_permutation(found)["p"] for found in shared * keep]
    assert 0.02 <= np.mean(np.array(ps) < 0.05) <= 0.07


def test_the_permutation_test_of_many_queries_is_the_same_by_fourier():
    rng = np.random.default_rng(1)
    differences = rng.integers(-1, 2, (3, 9000))
    total = differences.sum(axis=0)
    z = abs(total.sum()) / math.sqrt((total**2).sum())
    assert paired_permutation(differences)["p"] == pytest.approx(2 * stats.norm.sf(z), abs=0.01)


def test_the_permutation_test_of_nothing_is_none():
    assert paired_permutation(np.zeros((0, 4), dtype=int)) is None
    assert paired_permutation(np.zeros((2, 0), dtype=int)) is None
    assert paired_permutation(np.zeros((2, 3), dtype=int))["p"] == 1.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
