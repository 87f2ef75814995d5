"""Rank correlations of whole maps at once, against scipy row by row and loops over pairs."""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from scipy import special, stats

from kshot.measure import attention_ranks as module
from kshot.measure.attention_ranks import demonstration_mass, kendall, top_k_recall

# Around every power of two, where blocks and ranges of numbers change.
LENGTHS = (2, 3, 4, 5, 8, 15, 16, 17, 33, 64, 65, 255, 256, 257, 1025)


def maps(n: int, ties: str) -> list[np.ndarray]:
    both = np.random.default_rng(n).normal(size=(2, 3, n))
    rounded = {"none": (False, False), "icl": (True, False), "ft": (False, True), "both": (True, True)}[ties]
    both = [np.round(2 * own) if coarse else own for own, coarse in zip(both, rounded, strict=True)]
    if ties == "both":
        both[1][0, :2] = -np.inf
    return both


def judged(icl: np.ndarray, ft: np.ndarray) -> np.ndarray:
    return np.array([stats.kendalltau(x, y).statistic for x, y in zip(icl, ft, strict=True)])


def check_against_scipy(n: int, ties: str) -> None:
    icl, ft = maps(n, ties)
    found, expected = kendall([icl], [ft]), judged(icl, ft)
    assert np.array_equal(found.defined[0], ~np.isnan(expected))
    assert np.array_equal(found.values[0], np.nan_to_num(expected)), "to the bit"
    own = [sum(int(row[i] == row[j]) for i, j in combinations(range(n), 2)) for row in (*icl, *ft)] if n < 70 else []
    assert not own or found.tied == sum(own)


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("ties", ["none", "icl", "ft", "both"])
def test_tau_is_that_of_scipy(n: int, ties: str) -> None:
    check_against_scipy(n, ties)


def test_softmaxed_maps_are_those_of_scipy_too() -> None:
    rng = np.random.default_rng(0)
    icl, ft = (60 * rng.normal(size=(5, 300)) for _ in range(2))
    found = kendall([icl], [ft], published=True)
    assert np.array_equal(found.values[0], judged(*(special.softmax(m.astype(np.float32), axis=-1) for m in (icl, ft))))
    assert found.tied > 0


def test_a_row_with_what_is_no_number_has_no_order() -> None:
    icl, ft = maps(16, "none")
    ft[1, 3] = np.nan
    found = kendall([icl], [ft])
    assert found.defined.tolist() == [[True, False, True]]
    assert np.array_equal(found.values[0, [0, 2]], judged(icl, ft)[[0, 2]])


@pytest.mark.parametrize("n", [0, 1])
def test_maps_without_pairs(n: int) -> None:
    found = kendall([np.zeros((2, n))], [np.zeros((2, n))])
    assert (found.values.shape, found.defined.any(), found.pairs) == ((1, 2), False, 0)


def test_the_log_mass_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    scores, owner = 300 * rng.normal(size=(4, 50)), rng.integers(5, size=50) * 3
    scores[2, owner == 6] = -np.inf
    (found,) = demonstration_mass([scores], owner)
    logs = special.log_softmax(scores, axis=-1)
    expected = np.stack([special.logsumexp(logs[:, owner == k], axis=-1) for k in np.unique(owner)], axis=-1)
    assert found == pytest.approx(expected, rel=1e-12)
    assert np.isneginf(found[2, 2])


def test_recall_is_that_of_sets() -> None:
    rng = np.random.default_rng(0)
    icl, ft = (np.round(3 * rng.normal(size=(4, 40))) for _ in range(2))
    best = [[set(np.argsort(-row, kind="stable")[:7].tolist()) for row in m] for m in (icl, ft)]
    expected = [len(x & y) / 7 for x, y in zip(*best, strict=True)]
    assert top_k_recall([icl], [ft], 7).values[0].tolist() == expected


COMPARED, TIED, INVERSIONS = module._compared, module._tied, module._inversions
FAULTS: dict[str, tuple[str, Callable[..., object], tuple[int, str]]] = {
    "pairs within blocks forgotten": ("_compared", lambda values: 0 * COMPARED(values), (64, "none")),
    "one place off": ("_inversions", lambda orders: INVERSIONS(np.roll(orders, 1, axis=1)), (17, "none")),
    "the other sign": ("_inversions", lambda orders: INVERSIONS(orders[:, ::-1]), (17, "none")),
    "ties not counted": ("_tied", lambda again: 0 * TIED(again), (33, "ft")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_of_counting_are_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, wrong, asked = FAULTS[fault]
    check_against_scipy(*asked)
    monkeypatch.setattr(module, name, wrong)
    with pytest.raises(AssertionError):
        check_against_scipy(*asked)
