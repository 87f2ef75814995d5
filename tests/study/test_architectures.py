"""Architectures: equal parameters at every size, judged as is said, rivals right by counting, and nothing beyond places."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kshot.seeds import torch_stream
from kshot.study.synth import architectures as module
from kshot.study.synth.architectures import ARCHITECTURES, positioned
from kshot.study.synth.contenders import (
    COMPARED,
    DEEP,
    Task,
    compared_in,
    counted,
    equal_network,
    every_subset,
    seen_before,
)
from kshot.study.synth.experiment import Given, Size, judged
from kshot.study.synth.growing import answers
from kshot.synth.oracles import nearest
from kshot.synth.prompts import Source
from kshot.synth.train import Training

PARTS = tuple(ARCHITECTURES.parts)


def given(seed: int = 0) -> Given:
    return Given(size="smoke", seed=seed, say=lambda line: None)


def answered(part: str, seed: int = 0) -> dict[str, Any]:
    return ARCHITECTURES.parts[part].answer(given(seed))


def by_name(found: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["measure"], row["variant"]): row for row in found["rows"]}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of four prompts."""

    def few(task: Task) -> Task:
        return replace(task, training=Training(steps=2, batch=4))

    smoke = module.MUCH["smoke"]
    tasks = {part: few(task) for part, task in smoke.tasks.items()}
    monkeypatch.setattr(module, "MUCH", {"smoke": replace(smoke, tasks=tasks, asked=40)})


@pytest.mark.usefixtures("quick")
def test_every_claim_is_about_a_figure_that_is_there_and_sizes_are_equal() -> None:
    rows = [{"task": "x", "seed": 0, **row} for part in PARTS for row in answered(part)["rows"]]
    verdicts = judged("x", ARCHITECTURES, rows, "smoke")
    assert [row["statistic"] for row in verdicts if row["observed"] is None] == []
    must = [row for row in verdicts if row["must"]]
    assert len(must) == len(PARTS)
    assert {row["verdict"] for row in must} == {"holds"}
    unsure = [row for row in rows if row["low"] is None and not row["measure"].startswith("parameters")]
    assert {row["variant"] for row in unsure} == {
        "beyond, learned, 2 n to 3 n pairs",
        "beyond, learned, 2 n to 3 n pairs over n",
    }


@pytest.mark.usefixtures("quick")
def test_the_same_twice_and_another_with_another_seed() -> None:
    assert answered("recall") == answered("recall")
    assert answered("recall") != answered("recall", seed=1)


@pytest.mark.parametrize("size", ["smoke", "full"])
@pytest.mark.parametrize("part", PARTS)
def test_parameters_are_equal_at_every_size(part: str, size: Size) -> None:
    task = module.MUCH[size].tasks[part]
    networks = (
        positioned(task)
        if part == "beyond"
        else {name: equal_network(name, task.source, task.shape) for name in compared_in(part)}
    )  # fmt: skip
    *counts, apart = counted(part, networks, task)
    assert [row["variant"] for row in counts] == [f"{part}, {name}" for name in networks]
    assert apart["value"] <= 0.02
    assert apart["value"] == pytest.approx(max(abs(row["value"] / row["null"] - 1) for row in counts))


def test_a_deep_transformer_has_twice_the_layers_and_the_same_parameters() -> None:
    task = module.MUCH["full"].tasks["depth"]
    layers = []
    for name in compared_in("depth"):
        weights = equal_network(name, task.source, task.shape).start(torch_stream(0, "start"))
        layers.append(len({key.split(".")[0] for key in weights if key[0].isdigit()}))
    assert compared_in("depth") == ("transformer", DEEP, "mamba")
    assert layers == [2, 4, 4]


@pytest.mark.parametrize("name", COMPARED)
def test_parameters_are_equal_as_published(name: str) -> None:
    task = module.MUCH["paper"].tasks["recall"]
    *_, apart = counted("recall", {name: equal_network(name, task.source, task.shape)}, task)
    assert apart["value"] <= 0.02


def test_inputs_that_came_before() -> None:
    xs = torch.tensor(
        [[[1.0, 2.0], [1.0, 3.0], [1.0, 2.0], [1.0, 3.0]], [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [0.0, 1.0]]]
    )
    assert seen_before(xs).tolist() == [[False, False, True, True], [False] * 4]


def test_every_subset_is_the_mean_over_those_that_fit() -> None:
    found = Source(function="sparse-parity", width=5, pairs=12).batch(0, 0, 20)
    said = every_subset(found.xs.double(), found.ys.double(), 2)
    for b in range(20):
        left = list(combinations(range(5), 2))
        for k in range(12):
            xs = found.xs[b, k].tolist()
            mean = sum(prod(xs[i] for i in own) for own in left) / len(left)
            assert float(said[b, k]) == pytest.approx(mean, abs=1e-6)
            left = [own for own in left if prod(xs[i] for i in own) == float(found.ys[b, k])]


@pytest.mark.usefixtures("quick")
def test_only_the_last_quarter_of_regression_counts_and_all_that_was_shown_of_recall(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def told(part: str, says: Callable[[Tensor, Tensor], Tensor]) -> dict[tuple[str, str], dict[str, Any]]:
        monkeypatch.setattr(module, "answers", lambda network, weights, xs, ys: says(xs.double(), ys.double()))
        return by_name(answered(part))

    pairs = module.MUCH["smoke"].tasks["regression"].source.pairs
    late = torch.arange(pairs) >= pairs - pairs // 4
    rows = told("regression", lambda xs, ys: torch.where(late, ys + 2.0, 100.0))
    assert rows["error", "regression, mamba"]["value"] == pytest.approx(4 / 3), "in units of three coordinates"
    assert rows["error_ratio", "regression, mamba over transformer"]["value"] == pytest.approx(1.0)

    rows = told("recall", nearest(1))
    assert rows["error", "recall, shown before, lstm"]["value"] == pytest.approx(0.0, abs=1e-12)
    assert rows["error", "recall, never shown, lstm"]["value"] > 1
    rows = told("recall", lambda xs, ys: torch.zeros_like(ys))
    assert rows["error", "recall, never shown, lstm"]["value"] == pytest.approx(1.0, abs=0.5)

    rows = told("parity", lambda xs, ys: -ys / 9)
    assert rows["accuracy", "parity, s4d"]["value"] == 0.0
    assert rows["accuracy", "parity, every subset"]["value"] > 0.8
    assert rows["accuracy_gain", "parity, s4d over transformer"]["value"] == 0.0
    # Of three coordinates two products of three are of one sign wherever not all are, 3/4 x 2/3 + 1/4 right.
    assert rows["accuracy", "parity, nothing shown"]["value"] == pytest.approx(0.75, abs=0.15)
    assert rows["accuracy", "parity, mamba"]["null"] == rows["accuracy", "parity, nothing shown"]["value"]


@pytest.mark.usefixtures("quick")
def test_learned_positions_end_where_training_did_and_others_go_on() -> None:
    found = answered("beyond")
    n = module.MUCH["smoke"].tasks["beyond"].source.pairs - 1
    lines = found["pictures"][0]["lines"]
    assert {name: len(points) for name, points in lines.items()} == {
        **dict.fromkeys(("ridge", "sinusoidal", "rotary", "none", "mamba"), 3 * n + 1),
        "learned": n + 1,
    }
    rows = by_name(found)
    gone = rows["error_ratio", "beyond, learned, 2 n to 3 n pairs over n"]
    assert gone["value"] is None
    assert "the network has places for" in gone["reason"]
    assert rows["error", "beyond, learned, n pairs"]["value"] is not None
    near, far = (rows["error", f"beyond, mamba, {word}"]["value"] for word in ("n pairs", "2 n to 3 n pairs"))
    assert rows["error_ratio", "beyond, mamba, 2 n to 3 n pairs over n"]["value"] == pytest.approx(far / near)
    assert lines["mamba"][n][1] == pytest.approx(near)
    assert np.mean([value for _, value in lines["mamba"][2 * n :]]) == pytest.approx(far)
    assert rows["error_ratio", "beyond, mamba, 2 n to 3 n pairs over n"]["null"] < 1, "ridge learns from more pairs"


@pytest.mark.parametrize("name", ["sinusoidal", "rotary", "none", "mamba"])
def test_more_pairs_after_change_nothing_of_those_before(name: str) -> None:
    task = module.MUCH["smoke"].tasks["beyond"]
    network = positioned(task)[name]
    weights = network.start(torch_stream(0, "start"))
    found = replace(task.source, pairs=3 * task.source.pairs).batch(0, 0, 8)
    whole, part = (answers(network, weights, found.xs[:, :k], found.ys[:, :k]) for k in (21, 7))
    assert torch.allclose(whole[:, :7], part, atol=1e-5)
