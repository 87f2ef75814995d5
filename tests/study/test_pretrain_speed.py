"""What a step of ``kshot pretrain`` costs: counted by hand, under the roof of its machine, and losses for TensorBoard."""

import mmap
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cats import asked

from kshot.errors import KshotError
from kshot.study.environment import peak_rss_bytes
from kshot.study.pretrain.plan import PLANS, Arm
from kshot.study.pretrain.speed import operations, roofline
from kshot.study.pretraining import pretrain
from kshot.synth.networks.mixing import Shape


def test_the_roof_of_the_machine_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(PLANS["smoke"], context=10, batch=4, shape=Shape(layers=2, heads=2, width=16))
    language = Arm(network="transformer").language(50, plan)
    weights = language.start(torch.Generator().manual_seed(0))
    monkeypatch.setattr("kshot.study.pretrain.speed.memory_rate", lambda place: 100.0)
    monkeypatch.setattr("kshot.study.pretrain.speed._seconds", lambda *asked: 0.5 if asked[2].shape[1] == 10 else 0.25)
    rows, drawn = roofline("own", language, weights, plan, 30.0, 1e5)
    found = {(row["measure"], row["variant"]): row["value"] for row in rows}
    assert (found["pace", "own, prefill"], found["pace", "own, decode"]) == (4 * 10 / 0.5, 4 / 0.25)
    numbers = sum(own.numel() for own in weights.values())
    # The last of ten tokens sees ten, and two layers have kept a key and a value of nine in each of four rows.
    forward, alone = operations(weights, plan) / 3, 2 * (2 * 12 * 16**2 + 50 * 16) + 2 * 4 * 10 * 16
    kept = 4 * 4 * 2 * 2 * 9 * 16
    points = {name: values[0] for name, values in drawn["lines"].items() if name != "this machine"}
    assert points["training"] == pytest.approx((40 * 3 * forward / (40 * numbers), 30 * 3 * forward))
    assert points["prefill"] == pytest.approx((40 * forward / (4 * numbers), 80 * forward))
    assert points["decode"] == pytest.approx((4 * alone / (4 * numbers + kept), 16 * alone))
    for name, (x, y) in points.items():
        assert found["share_of_roof", f"own, {name}"] == pytest.approx(y / min(1e5, 100 * x))
    assert [1e5 / 100, 1e5] in drawn["lines"]["this machine"]


def test_the_arithmetic_of_a_token_by_hand() -> None:
    plan = replace(PLANS["smoke"], context=10, shape=Shape(layers=2, heads=2, width=16))
    weights = Arm(network="transformer").language(50, plan).start(torch.Generator().manual_seed(0))
    # Twelve squares of the width a layer, the head; scores and sums of ten tokens, half of which are seen.
    assert operations(weights, plan) == 6 * (2 * 12 * 16**2 + 50 * 16) + 3 * 2 * (4 * 10 * 16 / 2)
    relative = replace(plan, design=(("positions", "relative"),))
    assert operations(
        Arm(network="transformer").language(50, relative).start(torch.Generator()), relative
    ) == operations(weights, plan)
    plan = replace(plan, shape=Shape(layers=1, heads=1, width=16))
    lstm = Arm(network="lstm").language(50, plan).start(torch.Generator().manual_seed(0))
    assert operations(lstm, plan) == 6 * (2 * 4 * 16**2 + 50 * 16)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"objective": "span", "vocabulary": 380}, "the arithmetic of causal networks alone is counted"),
        ({"objective": "mlm", "vocabulary": 380}, "the arithmetic of causal networks alone is counted"),
        ({"objective": "prefix", "vocabulary": 380}, "the arithmetic of causal networks alone is counted"),
        ({"start": ""}, "the arithmetic of networks that are grown here alone is counted"),
        ({}, None),
    ],
)
def test_what_is_not_counted_has_no_share(
    more: dict[str, Any], said: str | None, file: Path, tiny_model_dir: Path
) -> None:
    if "start" in more:
        more = {**dict.fromkeys(("vocabulary", "layers", "heads", "width")), "start": str(tiny_model_dir)}
    measures = pretrain(asked(file, tokens=128, **more)).results["kshot"]["measures"]
    (row,) = [own for own in measures if own["measure"] == "mfu"]
    assert (row["value"] is None, row["reason"]) == (said is not None, said)
    assert any(own["measure"] == "share_of_roof" for own in measures) == (said is None)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process can be reset on Linux alone")
def test_memory_is_that_of_training(file: Path) -> None:
    held, piece = 400, bytes(1 << 20)
    with mmap.mmap(-1, held << 20) as large:
        for _ in range(held):
            large.write(piece)
    before = peak_rss_bytes()
    measures = pretrain(asked(file, tokens=64)).results["kshot"]["measures"]
    (row,) = [own for own in measures if own["measure"] == "memory"]
    assert 0 < row["value"] < before - (held << 19)


def test_losses_are_kept_for_tensorboard(file: Path, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out = tmp_path / "out"
    found = pretrain(asked(file, objective="prefix", vocabulary=370, tensorboard=True, output_path=str(out))).results[
        "kshot"
    ]
    read = events.EventAccumulator(str(out / "tensorboard" / "softmax-0")).Reload()
    losses = [one.value for one in read.Scalars("loss/train")]
    assert [one.step for one in read.Scalars("loss/train")] == list(range(1, found["plan"]["steps"] + 1))
    (row,) = [row for row in found["measures"] if row["measure"] == "training_loss"]
    assert np.mean(losses[-max(1, round(0.05 * len(losses))) :]) == pytest.approx(row["value"])
    (row,) = [row for row in found["measures"] if row["measure"] == "validation_loss"]
    assert read.Scalars("loss/held-out")[-1].value == pytest.approx(row["value"])


def test_without_the_package_nothing_is_begun(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(KshotError, match="pip install tensorboard"):
        pretrain(asked(file, tensorboard=True))
