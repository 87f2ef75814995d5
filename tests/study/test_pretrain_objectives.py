"""Objectives, optimisers and parts of layers of ``kshot pretrain``, each on its own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cats import asked, rows_of

from kshot.errors import KshotError
from kshot.pretrain.objectives import IGNORED
from kshot.show import pretrain as shown
from kshot.study import pretraining
from kshot.study.pretrain.corpus import corpus_of, in_tokens
from kshot.study.pretrain.growing import as_tensors, jumps, lesson, loss_of
from kshot.study.pretrain.plan import PLANS, Arm
from kshot.study.pretraining import pretrain
from kshot.synth.networks.mixing import Shape


@pytest.mark.parametrize("objective", ["prefix", "mlm"])
def test_other_objectives_come_to_their_own_loss(objective: str, file: Path) -> None:
    results = pretrain(asked(file, objective=objective, vocabulary=380, learning_rate=1e-2, tokens=30_000)).results
    (row,) = [row for row in results["kshot"]["measures"] if row["measure"] == "validation_loss"]
    assert 0 < row["value"] < 0.5 * np.log(380)
    assert "held-out loss" in shown.answer(results["kshot"])
    assert all(cell["saved"] is None for cell in results["kshot"]["cells"])


@pytest.mark.parametrize("objective", ["span", "prefix", "denoise"])
def test_an_encoder_decoder_learns_spans_and_the_rest_of_texts(objective: str, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    more = {"objective": objective, "network": "t5", "vocabulary": 380, "learning_rate": 1e-2, "tokens": 30_000}
    results = pretrain(asked(file, **more, output_path=str(out))).results
    (row,) = [row for row in results["kshot"]["measures"] if row["measure"] == "validation_loss"]
    assert 0 < row["value"] < 0.6 * np.log(380)
    (cell,) = results["kshot"]["cells"]
    assert (out / cell["saved"] / "model.safetensors").is_file()
    assert "kshot generate" not in shown.text(results["kshot"], out)


def test_the_loss_is_that_of_the_places_that_are_said(file: Path) -> None:
    tokens = in_tokens(corpus_of([str(file)]), 380, None, hides=True)
    shape = Shape(layers=1, heads=2, width=16)
    language = Arm(network="encoder").language(380, replace(PLANS["smoke"], context=16, shape=shape))
    weights = language.start(torch.Generator().manual_seed(0))
    own = lesson(tokens, tokens.train, "mlm", (0, 3), (4, 16))
    logits = language.says(weights, torch.from_numpy(own.read)).double().log_softmax(-1)
    places = np.argwhere(own.said != IGNORED)
    by_hand = -np.mean([logits[b, t, own.said[b, t]].item() for b, t in places])
    assert float(loss_of(language, weights, *as_tensors(own))) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("optimiser", ["adafactor", "sgd"])
def test_other_optimisers_learn(optimiser: str, file: Path) -> None:
    rate = {"adafactor": 1e-2, "sgd": 0.5}[optimiser]
    results = pretrain(asked(file, optimiser=optimiser, learning_rate=rate, tokens=20_000)).results
    (row,) = [row for row in results["kshot"]["measures"] if row["measure"] == "validation_loss"]
    assert row["value"] < 0.7 * np.log(270)


def test_the_parts_of_layers_can_be_chosen(file: Path, tmp_path: Path) -> None:
    chosen = {"network": "transformer", "positions": "relative", "norm": "rms", "mlp": "swiglu"}
    study = pretraining._study(asked(file, **chosen), lambda *_: None)
    weights = study.language(study.arms[0]).start(torch.Generator())
    assert {"relative", "0.gate.weight", "0.qkv.bias"} <= set(weights)
    assert not {"positions", "norm.bias"} & set(weights)
    assert not study.arms[0].saves(study.plan), "transformers has no such network"
    assert study.arms[0].saves(replace(study.plan, design=()))
    results = pretrain(asked(file, **chosen, output_path=str(tmp_path / "out"))).results
    assert results["kshot"]["plan"]["positions"] == "relative"
    (cell,) = [own for own in results["kshot"]["cells"] if own["part"] == "softmax"]
    assert cell["saved"] is None
    assert rows_of(results)["perplexity", "softmax, context 16", 0]["value"] > 1
    with pytest.raises(KshotError, match="--norm: a network lstm has its own way"):
        asked(file, network="lstm", norm="rms")
    with pytest.raises(KshotError, match="'relative' need softmax attention"):
        pretraining._study(asked(file, attention="linear", positions="relative"), lambda *_: None)


def test_a_loss_that_jumps_is_said_with_its_step() -> None:
    calm = [3.0 + 0.01 * (i % 5) for i in range(200)]
    assert jumps(calm) == []
    wild = [*calm[:120], 5.0, 4.8, *calm[122:]]
    assert [(step, round(before, 2), now) for step, before, now in jumps(wild)] == [(121, 3.02, 5.0)]
    assert jumps([9.0] * 10) == []
