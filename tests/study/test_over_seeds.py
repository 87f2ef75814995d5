"""Rows over seeds against intervals computed by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from kshot.study import over_seeds as module
from kshot.study.over_seeds import of_best_seed, over_seeds, widening, within_range

# t of 1 and of 2 degrees of freedom that 2.5 % lie beyond, from a printed table.
T1, T2 = 12.7062, 4.3027


def row(seed, value, low=None, high=None, **more) -> dict:
    return {
        "task": "films", "model": "tiny", "seed": seed, "measure": "recency", "variant": "slope", "layer": None,
        "value": value, "low": low, "high": high, "null": None, "null_low": None, "null_high": None, "n": 30,
        "unit": "", "published": None, "reason": None, **more,
    }  # fmt: skip


def three() -> list[dict]:
    values = (0.5, 0.7, 0.6)
    nulls = (0.0, 0.3, 0.3)
    return [
        row(seed, v, v - 0.1, v + 0.2, null=null, null_low=null - 0.1, null_high=null + 0.2, published={"1.3B": 0.5})
        for seed, (v, null) in enumerate(zip(values, nulls, strict=True))
    ]


def test_three_seeds_by_hand() -> None:
    (found,) = over_seeds(three())
    # sd 0.1 over 3 seeds; each side with its own half-width over examples
    among = T2 * 0.1 / math.sqrt(3)
    assert (
        found["low"] == pytest.approx(0.6 - math.sqrt(among**2 + 0.1**2), abs=1e-5) == pytest.approx(0.33221, abs=1e-5)
    )
    assert (
        found["high"] == pytest.approx(0.6 + math.sqrt(among**2 + 0.2**2), abs=1e-5) == pytest.approx(0.91892, abs=1e-5)
    )
    assert found["value"] == pytest.approx(0.6)
    assert (found["null"], found["null_low"], found["null_high"]) == pytest.approx((0.2, 0.1, 0.4))
    assert (found["seed"], found["n"], found["reason"]) == (None, 30, None)
    assert found["published"] == {"1.3B": 0.5}
    assert list(found) == list(three()[0])


def test_half_widths_over_examples_do_not_average_out() -> None:
    (found,) = over_seeds([row(seed, 0.5, 0.4, 0.8) for seed in range(5)])
    assert (found["low"], found["high"]) == pytest.approx((0.4, 0.8))


def test_two_seeds_by_hand() -> None:
    (found,) = over_seeds([row(0, 0.1, 0.1, 0.1), row(1, 0.3, 0.3, 0.3)])
    # sd is 0.2 / sqrt(2), and over sqrt(2) seeds that is 0.1
    assert (found["low"], found["high"]) == pytest.approx((0.2 - 0.1 * T1, 0.2 + 0.1 * T1), abs=1e-4)


@pytest.mark.parametrize("fault", ["normal instead of t", "examples forgotten", "seeds forgotten", "half-widths added"])
def test_a_wrong_formula_would_be_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault == "normal instead of t":
        monkeypatch.setattr(module.stats.t, "ppf", lambda q, df: stats.norm.ppf(q))
    wrong = {
        "examples forgotten": lambda a, b: a,
        "seeds forgotten": lambda a, b: b,
        "half-widths added": lambda a, b: a + b,
    }
    if fault in wrong:
        monkeypatch.setattr(module.math, "hypot", wrong[fault])
    with pytest.raises(AssertionError):
        test_three_seeds_by_hand()


def test_widening_by_hand() -> None:
    assert widening(0) == widening(1) == 1.0
    assert widening(10) == pytest.approx(2.80703 / 1.95996, abs=1e-5)
    assert widening(1, 3) == 1.0
    assert widening(10, 3) == pytest.approx(14.0890 / 4.30265, abs=1e-4)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_of_many_claims_without_effect_one_run_in_twenty_shows_any(seeds: int) -> None:
    claims, runs, wrong = 19, 200, []
    drawn, factor = np.random.default_rng(0).normal(size=(runs, claims, seeds)), widening(19, seeds)
    for run in drawn:
        rows = [row(seed, float(value), task=f"t{i}") for i, own in enumerate(run) for seed, value in enumerate(own)]
        bounds = [(own["value"] - own["low"], abs(own["value"])) for own in over_seeds(rows)]
        assert len(bounds) == claims
        wrong.append(any(far > factor * half for half, far in bounds))
    # 0.05 and three standard errors; with normal quantiles it is 0.46, 0.35 and 0.22.
    assert sum(wrong) / runs < 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_a_row_for_everything_of_two_seeds_and_nothing_else() -> None:
    rows = [*three(), row(0, 0.1, variant="contrast"), row(0, 0.2, task="other"), row(1, 0.2, task="another")]
    rows += [row(seed, 0.1 * layer, layer=layer) for seed in (0, 1) for layer in (0, 1)]
    found = over_seeds(rows)
    assert [(r["task"], r["variant"], r["layer"]) for r in found] == [
        ("films", "slope", layer) for layer in (None, 0, 1)
    ]
    assert all(r["seed"] is None for r in found)
    assert over_seeds([*rows, *found]) == []
    assert over_seeds([]) == []
    assert over_seeds([row(0, 0.1), row(0, 0.2)]) == [], "one seed twice is one seed"


def test_the_order_of_rows_changes_no_figure() -> None:
    one, other = over_seeds(three())[0], over_seeds(three()[::-1])[0]
    for key in ("value", "low", "high", "null", "n"):
        assert one[key] == pytest.approx(other[key], abs=1e-12)


def test_undefined_in_some_seeds() -> None:
    none = row(3, None, n=0, null=9.0, reason="fine-tuning corrected no query")
    (found,) = over_seeds([*three(), none])
    (without,) = over_seeds(three())
    assert {**found, "reason": None} == without
    assert found["reason"] == "defined in 3 of 4 seeds: fine-tuning corrected no query"


def test_one_value_has_no_interval_over_seeds() -> None:
    (found,) = over_seeds([row(0, 0.5, 0.4, 0.6), row(1, None, reason="nothing")])
    assert (found["value"], found["low"], found["high"]) == (0.5, None, None)
    assert found["reason"] == "defined in 1 of 2 seeds: nothing"


def test_undefined_in_all_seeds() -> None:
    (found,) = over_seeds([row(seed, None, n=0, null=0.2, reason=f"no {what}") for seed, what in enumerate("aba")])
    assert (found["value"], found["low"], found["high"], found["n"]) == (None, None, None, 0)
    assert found["reason"] == "undefined in all 3 seeds: no a; no b"
    (silent,) = over_seeds([row(0, None), row(1, None)])
    assert silent["reason"] == "undefined in all 2 seeds"


@pytest.mark.parametrize(
    ("measure", "value", "least", "greatest"),
    [("accuracy", 0.9, -1, 1.0), ("rec2ftp", 0.1, 0.0, 9), ("sim_aou", 0.9, -9, 1.0), ("kendall", -0.9, -1.0, 9),
     ("learning_rate", 0.01, 0.0, 9), ("relaxed_r2", 0.9, -9, 1.0)],
)  # fmt: skip
def test_bounds_stay_within_what_the_measure_can_be(measure: str, value: float, least: float, greatest: float) -> None:
    rows = [
        row(0, value - 0.05, value - 0.1, value, measure=measure),
        row(1, value + 0.05, value, value + 0.1, measure=measure),
    ]
    (found,) = over_seeds(rows)
    assert found["low"] == least or (found["low"] > least and found["high"] == greatest)
    assert found["high"] <= greatest
    assert found["low"] >= least


def test_what_has_no_range_is_not_cut() -> None:
    assert within_range("recency", 7.0) == 7.0
    assert within_range("accuracy", -0.1) == 0.0


def test_no_interval_over_examples_leaves_that_over_seeds() -> None:
    (found,) = over_seeds([row(seed, v, measure="learning_rate") for seed, v in enumerate((0.5, 0.7, 0.6))])
    assert found["high"] - found["value"] == pytest.approx(T2 * 0.1 / math.sqrt(3), abs=1e-5)


def test_bounds_that_say_how_far_heads_or_orders_lie_apart_are_averaged() -> None:
    heads = [
        row(seed, v, v - 0.3, v + 0.3, measure="relaxed_r2", unit="over heads", layer=1)
        for seed, v in enumerate((0.2, 0.4))
    ]
    orders = [row(seed, v, v - 0.1, v + 0.1, measure="order_accuracy") for seed, v in enumerate((0.5, 0.7))]
    found = over_seeds([*heads, *orders])
    assert [(r["low"], r["high"]) for r in found] == [pytest.approx((0.0, 0.6)), pytest.approx((0.5, 0.7))]
    # over all layers the record has no bounds, and seeds give some
    (whole,) = over_seeds(
        [row(seed, v, measure="relaxed_r2", unit="over heads") for seed, v in enumerate((0.2, 0.21, 0.22))]
    )
    assert whole["high"] - whole["value"] == pytest.approx(T2 * 0.01 / math.sqrt(3), abs=1e-5)


def test_rows_are_not_touched() -> None:
    rows = three()
    over_seeds(rows)
    assert rows == three()


def accuracies(*values: float) -> list[dict]:
    rows = []
    for seed, value in enumerate(values):
        own = {"measure": "accuracy", "seed": seed}
        rows += [
            row(**own, value=value, variant="in-context"),
            row(**own, value=0.5, variant="zero-shot"),
            row(**own, value=0.1 + value, variant="published, fine-tuned"),
            row(**own, value=0.2 + value, variant="corrected, fine-tuned"),
            row(seed, 0.3 + value, measure="sim_am", variant="published, appended label"),
            row(seed, 0.9, measure="sim_am", variant="published, appended label", layer=3),
        ]
    return rows


def test_the_best_seed_is_that_of_the_published_procedure() -> None:
    rows = accuracies(0.5, 0.75, 0.4)
    found = {(one["measure"], one["variant"]): one for one in of_best_seed(rows)}
    assert {key: one["value"] for key, one in found.items()} == {
        ("optimism", "best seed"): pytest.approx(0.75 - 0.55),
        ("accuracy", "in-context, best seed"): 0.75,
        ("accuracy", "zero-shot, best seed"): 0.5,
        ("accuracy", "published, fine-tuned, best seed"): 0.85,
        ("sim_am", "published, appended label, best seed"): 1.05,
    }
    assert all(one["seed"] is None for one in found.values())
    assert found["optimism", "best seed"]["null"] == 0.0


def test_of_equal_seeds_the_least_and_of_one_seed_none() -> None:
    rows = accuracies(0.5, 0.75, 0.75)
    rows = [{**one, "value": one["seed"]} if one["measure"] == "sim_am" else one for one in rows]
    assert {one["value"] for one in of_best_seed(rows) if one["measure"] == "sim_am"} == {1}
    assert of_best_seed(accuracies(0.5)) == []
    assert of_best_seed([]) == []


def test_each_task_has_a_best_seed_of_its_own() -> None:
    other = [{**one, "task": "songs"} for one in accuracies(0.8, 0.6)]
    best = [one for one in of_best_seed([*accuracies(0.5, 0.75), *other]) if one["variant"] == "in-context, best seed"]
    assert [(one["task"], one["value"]) for one in best] == [("films", 0.75), ("songs", 0.8)]
