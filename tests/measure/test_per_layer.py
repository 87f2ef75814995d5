"""Means over queries and layers and their intervals, by hand and against scipy."""

import numpy as np
import pytest
from scipy import stats

from kshot.measure.per_layer import summary


def test_a_summary_by_hand():
    found = summary(np.array([[0.0, 1.0], [0.5, 3.0]]), 0)
    assert (found.value, found.layers, found.n, found.left_out) == (1.125, (0.25, 2.0), 2, 0)
    # Two queries: a quarter of the resamples holds the first alone, a quarter the second.
    assert (found.low, found.high) == (0.5, 1.75)
    assert (found.layer_low, found.layer_high) == ((0.0, 1.0), (0.5, 3.0))
    assert found.reason is None


def test_what_is_undefined_is_in_no_mean():
    values = np.array([[1.0, 99.0, 99.0], [2.0, 5.0, 99.0], [99.0, 99.0, 99.0]])
    defined = np.array([[True, False, False], [True, True, False], [False, False, False]])
    found = summary(values, 0, defined=defined)
    assert (found.value, found.layers) == ((1.5 + 5) / 2, (1.5, 5.0, None))
    assert (found.n, found.left_out) == (2, 6)
    assert (found.low, found.high) == (1.0, 3.5)
    assert found.layer_low == (1.0, 5.0, None)
    assert found.layer_high == (2.0, 5.0, None)


def test_a_summary_of_little():
    found = summary(np.array([[0.25, 0.75]]), 0)
    assert (found.value, found.low, found.high) == (0.5, None, None)
    assert (found.layers, found.layer_low, found.layer_high) == ((0.25, 0.75), (None, None), (None, None))
    for values, defined in ((np.zeros((0, 2)), None), (np.ones((3, 2)), np.zeros((3, 2), dtype=bool))):
        found = summary(values, 0, defined=defined)
        assert (found.value, found.low, found.high, found.n) == (None, None, None, 0)
        assert found.layers == found.layer_low == found.layer_high == (None, None)
        assert found.reason == "no query has a value in any layer"
    flat = summary(np.full((9, 2), 0.3), 0)
    assert (flat.value, flat.low, flat.high) == pytest.approx((0.3, 0.3, 0.3), abs=1e-15)


def test_the_interval_is_that_of_scipy():
    values = np.random.default_rng(0).gamma(2.0, size=(60, 4))
    found = summary(values, 0)
    rival = stats.bootstrap(
        (values.mean(axis=1),), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((rival.low, rival.high), abs=0.02)
    assert found.low < found.value < found.high


def test_each_query_has_its_mean_over_the_layers_in_which_it_has_a_value():
    values = np.array([[1.0, 3.0], [5.0, 9.0], [2.0, 2.0]])
    defined = np.array([[True, True], [True, False], [False, False]])
    assert summary(values, 0, defined=defined).each == (2.0, 5.0, None)
    assert summary(values[2:], 0, defined=defined[2:]).each == (None,)
