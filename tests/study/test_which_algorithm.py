"""Which algorithm: the figures that claims are about are there, and a network that is a rule is found to be it."""

from typing import Any

import numpy as np
import pytest
import torch

from kshot.measure.intervals import wilson
from kshot.study.synth import against_rules
from kshot.study.synth import which_algorithm as module
from kshot.study.synth.against_rules import RULES
from kshot.study.synth.experiment import Given, judged
from kshot.study.synth.growing import cosine_row, mean_rows, way_row
from kshot.study.synth.nearest_ridge import PENALTIES, best_penalty, distances, nearest_ridge, penalties_apart
from kshot.study.synth.which_algorithm import WHICH_ALGORITHM
from kshot.synth.networks.mixing import Shape
from kshot.synth.oracles import descended, least_squares, nothing, ridge, ridge_of_unknown_noise
from kshot.synth.prompts import Prompts, Source
from kshot.synth.train import Training

SOURCE = Source(width=3, pairs=7)


def given(seed: int = 0) -> Given:
    return Given(size="smoke", seed=seed, say=lambda line: None)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    much = module._Much(
        source=SOURCE,
        shape=Shape(layers=1, heads=1, width=8),
        narrow=4,
        training=Training(steps=4, batch=8, learning_rate=1e-3),
        asked=40,
        fitted=6,
        queries=5,
    )
    monkeypatch.setattr(module, "_MUCH", {"smoke": much})


def answered(part: str, seed: int = 0) -> dict[str, Any]:
    return WHICH_ALGORITHM.parts[part].answer(given(seed))


def prompts(noise: float = 0.0, count: int = 300) -> Prompts:
    found = Source(width=3, pairs=7, noise=noise).batch(0, 0, count)
    return Prompts(found.xs.double(), found.ys.double(), found.means.double(), found.drawn)


def by_name(rows: list[dict[str, Any]]) -> dict[tuple[str, str], Any]:
    return {(row["measure"], row["variant"]): row for row in rows}


@pytest.mark.usefixtures("quick")
def test_every_claim_is_about_a_figure_that_is_there_with_an_interval() -> None:
    rows = [{"task": "x", "seed": 0, **row} for part in WHICH_ALGORITHM.parts for row in answered(part)["rows"]]
    names = [(row["measure"], row["variant"]) for row in rows]
    assert len(names) == len(set(names)), "no two parts measure the same"
    verdicts = judged("x", WHICH_ALGORITHM, rows, "smoke")
    assert [row for row in verdicts if row["observed"] is None or row["low"] is None] == []


@pytest.mark.parametrize("part", ["depth-2", "noise-1-4", "unknown-noise"])
@pytest.mark.usefixtures("quick")
def test_the_same_twice_and_something_else_with_another_seed(part: str) -> None:
    assert answered(part) == answered(part)
    assert answered(part)["rows"] != answered(part, 1)["rows"]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.usefixtures("quick")
def test_a_rule_is_nearest_to_itself(rule: str) -> None:
    rows, apart = against_rules.against_rules(given(), RULES[rule], "it", module._MUCH["smoke"])
    assert min(apart, key=lambda name: apart[name]) == rule
    found = by_name(rows)
    assert found["spd", f"it, {rule}"]["value"] == 0
    assert found["ilwd", f"it, {rule}"]["value"] < 1e-10
    assert all(found["spd", f"it, {name}"]["value"] > 0 for name in RULES if name != rule)


def test_implied_weights_are_those_of_a_linear_rule() -> None:
    asked = prompts(count=20)
    queries = torch.randn(20, 6, 3, generator=torch.Generator().manual_seed(1)).double()
    found = against_rules._implied(ridge(0.3), asked, queries)
    for b in range(20):
        x, y = asked.xs[b, :-1].numpy(), asked.ys[b, :-1].numpy()
        assert found[b].numpy() == pytest.approx(np.linalg.solve(x.T @ x + 0.3 * np.eye(3), x.T @ y), abs=1e-9)


def test_the_best_step_is_that_of_the_best_rate_for_every_number_of_pairs() -> None:
    asked = prompts(count=4000)
    best = (against_rules._best_step(asked.xs, asked.ys) - asked.ys).square().mean(dim=0)
    for rate in (0.02, 0.05, 0.1, 0.2, 0.4):
        other = (descended(rate, 1, mean=False)(asked.xs, asked.ys) - asked.ys).square().mean(dim=0)
        assert (best[1:] <= other[1:] * 1.01).all(), rate


@pytest.mark.parametrize("penalty", [0.0137, 0.25, 1.7])
def test_a_ridge_regression_is_found_by_its_penalty(penalty: float) -> None:
    rows, _ = nearest_ridge(given(), ridge(penalty), prompts(0.25), 0.25, "it")
    found = by_name(rows)
    assert found["best_penalty", "it"]["value"] == pytest.approx(penalty, rel=0.05)
    ratio = found["penalty_ratio", "it, over the noise"]
    assert ratio["value"] == pytest.approx(found["best_penalty", "it"]["value"] / 0.25)
    assert ratio["low"] <= ratio["value"] <= ratio["high"]
    exact = distances(ridge(penalty), ridge(0.25), prompts(0.25)).mean()
    assert found["spd", "it, ridge of the noise"]["value"] == pytest.approx(exact, abs=1e-12)


def test_least_squares_has_the_least_penalty_of_the_grid() -> None:
    rows, _ = nearest_ridge(given(), least_squares, prompts(), 0.0, "it")
    found = by_name(rows)
    assert found["best_penalty", "it"]["value"] == PENALTIES[0]
    assert found["spd", "it, ridge of the noise"]["value"] == 0
    assert ("penalty_ratio", "it, over the noise") not in found


def test_the_best_penalty_is_that_of_the_lowest_point_of_a_parabola() -> None:
    powers = np.log2(np.array(PENALTIES))
    for at in (-3.1, -6.0, 0.4):
        assert best_penalty(((powers - at) ** 2)[:, None]) == pytest.approx(2.0**at, rel=1e-9)
    assert best_penalty(powers[:, None]) == PENALTIES[0]
    assert best_penalty(-powers[:, None]) == PENALTIES[-1]


def test_knowing_the_noise_is_being_the_ridge_of_its_level_and_bayes_lies_near_it() -> None:
    levels = {"little": 0.01, "much": 1.0}
    rules = {name: ridge(level) for name, level in levels.items()}
    bayes = ridge_of_unknown_noise(tuple(levels.values()))
    for place, (name, level) in enumerate(levels.items()):
        asked = prompts(level)
        assert module._between(rules[name], rules, asked, (), 0)["value"] == pytest.approx(place, abs=1e-9)
        assert abs(module._between(bayes, rules, asked, (), 0)["value"] - place) < 0.5
        way = module._by_pairs(rules[name], rules, asked)
        assert [k for k, _ in way] == list(range(1, 7))
        assert [one for _, one in way] == pytest.approx([place] * 6, abs=1e-9)
        wrong = rules["much" if name == "little" else "little"]
        assert module._missed(bayes, asked).mean() < module._missed(wrong, asked).mean()


def test_one_penalty_for_all_prompts_does_not_choose_though_it_lies_on_both_right_sides() -> None:
    """What lies between the rules of two levels of noise is not halfway between them on prompts of either."""
    levels = (0.01, 1.0)
    rules = {"little": ridge(0.01), "much": ridge(1.0)}
    little, much = (prompts(level) for level in levels)
    between = [module._between(ridge(0.15), rules, own, (), 0)["value"] for own in (little, much)]
    assert between[0] < 0.5 < between[1]
    fixed = penalties_apart(given(), ridge(0.15), little, much, ("it",))
    assert fixed["value"] == pytest.approx(1.0, abs=0.1)
    assert fixed["high"] < 1.2
    chosen = penalties_apart(given(), ridge_of_unknown_noise(levels), little, much, ("it",))
    assert 4 < chosen["low"] <= chosen["value"] <= chosen["high"] < 100


def test_a_cosine_is_the_same_at_any_scale_and_a_distance_is_not() -> None:
    asked = prompts(0.25)
    own = against_rules._said(ridge(0.25), asked)
    for scale in (0.1, 1.0, 3.0):
        row = cosine_row("cosine", (), scale * own, own, 0)
        assert (row["value"], row["low"], row["high"]) == pytest.approx((1.0, 1.0, 1.0), abs=1e-9)
    other = np.random.default_rng(0).normal(size=own.shape)
    row = cosine_row("cosine", (), own, other, 0)
    by_hand = (own * other).sum() / np.sqrt((own**2).sum() * (other**2).sum())
    assert row["value"] == pytest.approx(by_hand, abs=1e-12)
    assert row["low"] < 0 < row["high"]
    assert cosine_row("cosine", (), own, 0 * own, 0)["value"] is None


def test_who_says_nothing_is_nearest_to_nothing() -> None:
    """He is nearer to a step of descent than to least squares, too, since a step says less."""
    asked = prompts(0.0)
    apart = {name: distances(nothing, rule, asked).mean() for name, rule in RULES.items()}
    assert apart["nothing"] == 0
    assert apart["best step"] < apart["least squares"]


def test_a_share_of_all_or_none_is_not_sure() -> None:
    assert mean_rows("accuracy", (), np.ones(10), 0)["low"] == pytest.approx(wilson(10, 10)[0])
    assert mean_rows("accuracy", (), np.zeros(10), 0)["high"] == pytest.approx(wilson(0, 10)[1])


def test_a_way_knows_nothing_of_what_is_missed_across_it() -> None:
    first, second = np.zeros((4, 2)), np.array([[2.0, 0.0]] * 4)
    at = np.array([[0.5, 3.0]] * 4)
    squares = [((one - other) ** 2).sum(axis=1) for one, other in ((at, first), (at, second), (first, second))]
    assert way_row("way", (), *squares, 0)["value"] == pytest.approx(0.25)
