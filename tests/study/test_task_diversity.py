"""Task diversity: the figures that claims are about are there, and a network that is a rule is found to be it."""

from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from kshot.study.synth import task_diversity as module
from kshot.study.synth.experiment import Given, judged
from kshot.study.synth.growing import ratio_row
from kshot.study.synth.task_diversity import TASK_DIVERSITY
from kshot.synth.networks.mixing import Shape
from kshot.synth.networks.network import Network
from kshot.synth.oracles import bayes_over_pool, ridge
from kshot.synth.prompts import Source
from kshot.synth.train import Training

SOURCE = Source(width=3, pairs=6, noise=0.25)


def given(seed: int = 0) -> Given:
    return Given(size="smoke", seed=seed, say=lambda line: None)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    much = module._Much(
        source=SOURCE,
        shape=Shape(layers=1, heads=1, width=8),
        training=Training(steps=6, batch=8, learning_rate=1e-3),
        asked=40,
        few=10,
    )
    monkeypatch.setattr(module, "_MUCH", {"smoke": much})


def answered(part: str, seed: int = 0) -> dict[str, Any]:
    return TASK_DIVERSITY.parts[part].answer(given(seed))


def by_name(found: dict[str, Any]) -> dict[tuple[str, str], float]:
    return {(row["measure"], row["variant"]): row["value"] for row in found["rows"]}


@pytest.mark.usefixtures("quick")
def test_every_claim_is_about_a_figure_that_is_there_with_an_interval() -> None:
    assert len(TASK_DIVERSITY.parts) >= 6
    rows = [
        {"task": "x", "seed": 0, **row}
        for part in ("pool-2", "pool-16", "pool-1024", "pool-65536")
        for row in answered(part)["rows"]
    ]
    verdicts = judged("x", TASK_DIVERSITY, rows, "smoke")
    assert [row for row in verdicts if row["observed"] is None or row["low"] is None] == []


@pytest.mark.usefixtures("quick")
def test_the_same_twice_and_something_else_with_another_seed() -> None:
    assert answered("pool-16") == answered("pool-16")
    assert by_name(answered("pool-16")) != by_name(answered("pool-16", 1))


@pytest.mark.usefixtures("quick")
def test_pictures_of_parts_are_joined_by_their_names() -> None:
    few, many = (answered(part)["pictures"] for part in ("pool-2", "pool-128"))
    assert [one["name"] for one in few] == [one["name"] for one in many]
    distance = [one for one in few if one["name"].startswith("distance")]
    assert all(set(one["lines"]) == {"from dMMSE", "from ridge"} for one in distance)
    assert all([at for at, _ in points] == [2.0] for one in distance for points in one["lines"].values())


@pytest.mark.parametrize(("name", "way"), [("dMMSE", 0.0), ("ridge", 1.0), ("halfway", 0.5), ("aside", 0.5)])
@pytest.mark.usefixtures("quick")
def test_a_network_that_is_a_rule_is_found_to_be_it(monkeypatch: pytest.MonkeyPatch, name: str, way: float) -> None:
    pool = torch.randn(16, 3, generator=torch.Generator().manual_seed(3))
    rules = {"dMMSE": bayes_over_pool(pool, 0.25), "ridge": ridge(0.25)}

    def says(weights: Any, xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        if name in rules:
            return rules[name](xs, ys)
        # What is missed across the line is of one size and both signs, so it counts for nothing.
        aside = 3.0 if name == "aside" else 0.0
        return (rules["dMMSE"](xs, ys) + rules["ridge"](xs, ys)) / 2 + aside * (-1.0) ** torch.arange(len(xs))[:, None]

    network = Network(start=lambda rng: {}, says=says, causal=True)
    # Every prompt twice, so that what is added to one is taken from its double.
    asked = SOURCE.batch(0, 0, 50)
    twice = type(asked)(*(part.repeat_interleave(2, dim=0) for part in (asked.xs, asked.ys, asked.means)), {})
    found = module._apart(network, {"w": torch.zeros(1)}, rules, twice)
    row = module._way_row(found, (), 0)
    assert row["value"] == pytest.approx(way, abs=1e-5)
    assert module._way(found) == pytest.approx(row["value"], abs=1e-9)
    if name in rules:
        assert found[name].max() < 1e-10
        assert found[f"error of {name}"] == pytest.approx(found["error of the network"], abs=1e-5)


def test_on_the_way_the_same_prompts_lead_from_one_task_of_the_pool_to_another() -> None:
    source = Source(width=3, pairs=6, noise=0.25, pool=4)
    tasks = source.tasks()["w"]
    one, half, other = (module._on_the_way(given(), source, share, 30) for share in (1.0, 0.5, 0.0))
    directions = torch.nn.functional.normalize(tasks)
    # Lengths at the ends are those of both tasks on average, as published.
    first, second = (torch.nn.functional.normalize(end.drawn["w"]) @ directions.T for end in (one, other))
    assert torch.allclose(first.amax(dim=1), torch.ones(30), atol=1e-5)
    assert torch.allclose(second.amax(dim=1), torch.ones(30), atol=1e-5)
    assert (first.argmax(dim=1) != second.argmax(dim=1)).all(), "never twice the same task"
    assert (torch.nn.functional.normalize(half.drawn["w"]) @ directions.T).max() < 1 - 1e-4
    assert torch.equal(one.xs, other.xs)
    assert torch.allclose(one.ys - one.means, other.ys - other.means, atol=1e-5)


def test_a_ratio_of_means_has_the_interval_of_the_delta_method() -> None:
    rng = np.random.default_rng(0)
    under = rng.gamma(4.0, size=400)
    over = 2 * under + rng.normal(size=400)
    row = ratio_row("error_ratio", ("a",), over, under, 0, null=1.0)
    ratio = over.mean() / under.mean()
    assert row["value"] == pytest.approx(ratio, abs=1e-12)
    spread = np.std(over - ratio * under, ddof=1) / np.sqrt(400) / under.mean()
    half = float(stats.norm.ppf(0.975)) * spread
    assert (row["high"] - row["low"]) / 2 == pytest.approx(half, rel=0.05)
    same = ratio_row("error_ratio", ("a",), 3 * under, under, 0)
    assert (same["low"], same["high"]) == pytest.approx((3.0, 3.0), abs=1e-9), (
        "prompts that are alike in ratio are sure"
    )
    nothing = ratio_row("error_ratio", ("a",), over, np.zeros(400), 0)
    assert nothing["value"] is None
    assert nothing["reason"]
