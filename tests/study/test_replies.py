"""Replies from planted rows: shown, contradicted and not, with intervals wide enough for their number."""

import math

import pytest

from kshot.study.catalogue import QUESTIONS
from kshot.study.over_seeds import LEAST, over_seeds, widening
from kshot.study.replies import replies

COST = "wrong labels cost"


def rows(contrast: str, values: list[float], half: float = 0.01, question: str = "labels", **more) -> list[dict]:
    none = dict.fromkeys(("layer", "null_low", "null_high", "published", "reason"))
    own = {
        "task": "films",
        "model": "tiny",
        "measure": f"why_{question}_contrast",
        "variant": contrast,
        "n": 30,
        "unit": "nats",
    }
    return [
        {**none, **own, "seed": seed, "value": value, "low": value - half, "high": value + half, "null": 0.0, **more}
        for seed, value in enumerate(values)
    ]


def judged(measures: list[dict]) -> list[dict]:
    return replies([*over_seeds(measures), *measures])


@pytest.mark.parametrize(
    ("values", "verdict"),
    [([0.5, 0.6, 0.55], "shown"), ([-0.5, -0.6, -0.55], "contradicted"), ([0.5, -0.4, 0.1], "not shown")],
)
def test_a_contrast_is_judged_by_its_seeds(values: list[float], verdict: str) -> None:
    (line,) = judged(rows(COST, values))
    assert line["verdict"] == verdict
    assert line["observed"] == pytest.approx(sum(values) / 3)
    assert (line["seeds"], line["question"], line["task"], line["when"]) == (3, "labels", "films", "")
    assert line["mechanism"] == QUESTIONS["labels"].rivals[0].mechanism


def test_one_seed_says_nothing_and_it_is_said() -> None:
    (line,) = judged(rows(COST, [0.5]))
    assert (line["verdict"], line["low"], line["observed"]) == ("not shown", None, 0.5)
    assert "one set of demonstrations" in line["reason"]


def test_a_handful_of_queries_says_nothing_and_it_is_said() -> None:
    (line,) = judged(rows(COST, [1.0, 1.0], half=0.0, n=LEAST - 1))
    assert (line["verdict"], line["low"], line["observed"]) == ("not shown", None, 1.0)
    assert f"{LEAST - 1} queries" in line["reason"]
    (line,) = judged(rows(COST, [1.0, 1.0], half=0.0, n=LEAST))
    assert line["verdict"] == "shown"


def test_what_is_undefined_keeps_its_reason() -> None:
    (line,) = judged(rows(COST, [0.5, 0.6], value=None, low=None, high=None, reason="of unequal length"))
    assert (line["verdict"], line["observed"]) == ("not shown", None)
    assert "of unequal length" in line["reason"]


def test_more_contrasts_together_are_judged_with_wider_intervals() -> None:
    alone = judged(rows(COST, [0.5, 0.6, 0.55]))[0]
    several = rows(COST, [0.5, 0.6, 0.55]) + rows("demonstrations with wrong labels still help", [0.1, 0.2, 0.3])
    several += rows(COST, [0.5, 0.5, 0.5], task="other")
    together = next(line for line in judged(several) if line["task"] == "films" and line["contrast"] == COST)
    assert together["high"] - together["low"] > 1.5 * (alone["high"] - alone["low"])
    assert widening(3, 3) == pytest.approx((together["high"] - together["low"]) / (alone["high"] - alone["low"]))


def test_every_size_and_model_has_a_line_of_its_own() -> None:
    name = "in-context is ahead of fine-tuned"
    found = [rows(f"{name}, {k} examples", [0.1, 0.2], question="learning") for k in (4, 16)]
    other = rows(f"{name}, 4 examples", [0.3, 0.2], question="learning", model="large")
    lines = judged([*found[0], *found[1], *other])
    assert [(line["model"], line["when"]) for line in lines] == [
        ("tiny", "4 examples"), ("tiny", "16 examples"), ("large", "4 examples"),
    ]  # fmt: skip


def test_seeds_that_vary_by_chance_are_seldom_called_an_effect() -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(300):
        drawn = [rows(rival.contrast, list(rng.normal(size=5)), half=0.0) for rival in QUESTIONS["labels"].rivals]
        wrong += any(line["verdict"] != "not shown" for line in judged([row for own in drawn for row in own]))
    assert wrong / 300 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)
