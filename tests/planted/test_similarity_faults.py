"""Faults planted in what holds in-context learning against fine-tuning: updates, maps, ranks and their nulls."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from planting import Plant, caught, suite

from kshot.measure import attention_ranks, similarity

SIMILARITY, KENDALL = "measure/test_similarity.py", "measure/test_kendall.py"


def _instead(name: str, wrong: Callable[..., Any]) -> Plant:
    """In the place of this function wherever it is known: in the measures, and in the tests that call it."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        for module in (similarity, attention_ranks, suite(SIMILARITY), suite(KENDALL)):
            if name in vars(module):
                patch.setattr(module, name, wrong)

    return plant


_update, _sim_am = similarity._update, similarity.sim_am
_kendall, _mass = attention_ranks.kendall, attention_ranks.demonstration_mass
_null, _rec2ftp = similarity.sim_aou_null, similarity.rec2ftp


def _wrong_sign(run: Any, base: Any, normalised: bool, rounding: Any) -> Any:
    return _update(base + (base - run) * (run[0, 0, 0] > base[0, 0, 0]), base, normalised, rounding)


def _added(run: Any, base: Any, normalised: bool, rounding: Any) -> Any:
    return _update(run + 2 * base, base, normalised, rounding)


def _never_normalised(run: Any, base: Any, normalised: bool, rounding: Any) -> Any:
    return _update(run, base, False, rounding)


def _no_length(x: Any) -> Any:
    return x.astype(np.float64), np.linalg.norm(x, axis=-1) > 0


def _one_token_on(a: Any, b: Any) -> Any:
    return _sim_am(a, [np.roll(m, 1, axis=-1) for m in b])


def _one_token_later(icl: Any, ft: Any, *, published: bool = False) -> Any:
    return _kendall(icl, [np.roll(m, 1, axis=-1) for m in ft], published=published)


def _next_demonstration(maps: Any, demonstration: Any, *, published: bool = False) -> Any:
    return _mass(maps, np.roll(demonstration, 1), published=published)


def _null_otherwise(wrong: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda *runs: dataclasses.replace(found := _null(*runs), values=wrong(found.values))


def _accuracy_on_all(zsl: Any, ft: Any, icl: Any) -> Any:
    return dataclasses.replace(_rec2ftp(zsl, ft, icl), expected=float(icl.mean()))


UNRELATED = "test_unrelated_updates_of_the_observed_lengths_give_the_null"
FAULTS: dict[str, tuple[str, str, tuple[Any, ...], Plant]] = {
    # fault: (test file, its check, what the check is given, how it is planted)
    "a sign error in one update": (SIMILARITY, "test_sim_aou_by_hand", (), _instead("_update", _wrong_sign)),
    "zero-shot added instead of taken away": (
        SIMILARITY, "test_sim_aou_is_that_of_loops", (False, np.float64), _instead("_update", _added)),
    "outputs not normalised": (
        SIMILARITY, "test_sim_aou_is_that_of_loops", (True, np.float64), _instead("_update", _never_normalised)),
    "outputs not normalised, by hand": (
        SIMILARITY, "test_sim_aou_by_hand", (), _instead("_update", _never_normalised)),
    "outputs not normalised, against the null": (SIMILARITY, UNRELATED, (), _instead("_update", _never_normalised)),
    "cosines without lengths": (SIMILARITY, "test_sim_am_by_hand", (), _instead("_unit", _no_length)),
    "cosines of updates without lengths": (
        SIMILARITY, "test_sim_am_of_identical_runs_is_one", (), _instead("_unit", _no_length)),
    "a map one token on": (SIMILARITY, "test_sim_am_is_that_of_loops", (), _instead("sim_am", _one_token_on)),
    "a map one token on, by hand": (SIMILARITY, "test_sim_am_by_hand", (), _instead("sim_am", _one_token_on)),
    "training tokens one on": (
        KENDALL, "test_kendall_is_that_of_loops", (False,), _instead("kendall", _one_token_later)),
    "training tokens one on, by hand": (KENDALL, "test_kendall_by_hand", (), _instead("kendall", _one_token_later)),
    "each demonstration has a token of the one before": (
        KENDALL, "test_the_mass_of_demonstrations_is_that_of_loops", (),
        _instead("demonstration_mass", _next_demonstration)),
    **{
        f"a null {how}, {check}": (SIMILARITY, check, (), _instead("sim_aou_null", _null_otherwise(wrong)))
        for how, wrong in (
            ("halved", lambda v: v / 2), ("without its half", lambda v: 2 * v), ("without its root", lambda v: v**2))
        for check in (UNRELATED, "test_the_null_of_sim_aou_is_that_of_loops")
    },
    **{
        f"a null from accuracy on all queries, {check}": (
            SIMILARITY, check, (), _instead("rec2ftp", _accuracy_on_all))
        for check in ("test_rec2ftp_by_hand", "test_rec2ftp_expects_what_independence_gives")
    },
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_similarities(fault: str) -> None:
    file, check, given, plant = FAULTS[fault]
    test: Callable[..., object] = getattr(suite(file), check)
    caught(lambda: test(*given), plant)
