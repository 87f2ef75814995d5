"""Scaling: every claim has its figure, a ladder that follows a law is found to, and runs go on where they stopped."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kshot.measure.scaling import Law
from kshot.study.synth import scaling as module
from kshot.study.synth.experiment import Given, judged
from kshot.study.synth.scaling import SCALING, _Much, _Run
from kshot.synth.grammar import documents, ginc, inferred

LAW = Law(floor=2.3, parameters_scale=12.0, alpha=0.4, tokens_scale=60.0, beta=0.4)


def given(place: Path | None = None) -> Given:
    return Given(size="smoke", seed=0, say=lambda line: None, place=place)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    much = _Much(
        shapes=((1, 1, 4), (1, 1, 8), (1, 1, 12)), foreseen=(1, 1, 16), tokens=(512, 1_024), length=64, batch=8,
        rate=1e-2, held=8, prompts=16, draws=4,
    )  # fmt: skip
    monkeypatch.setattr(module, "_MUCH", {"smoke": much})


def ladder(**more: Any) -> dict[str, Any]:
    return SCALING.parts["ladder"].answer(given(**more))


@pytest.mark.usefixtures("quick")
def test_every_claim_is_about_a_figure_that_is_there() -> None:
    rows = [{"task": "scaling", "seed": 0, **row} for row in ladder()["rows"]]
    verdicts = judged("scaling", SCALING, rows, "smoke")
    assert [row for row in verdicts if row["observed"] is None] == []
    losses = [row for row in rows if row["measure"] == "loss"]
    assert len(losses) == 7
    held, _ = documents(ginc(0), module.unseen(given(), "held"), 8, 64)
    exact = -inferred(ginc(0), held).likelihood[:, 1:].mean()
    assert all(row["null"] == pytest.approx(exact) for row in losses)
    assert all(row["value"] > exact for row in losses), "nobody knows more than who made the text"


@pytest.mark.usefixtures("quick")
def test_a_ladder_that_follows_a_law_is_found_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(own: Given, mixture: Any, shape: tuple[int, int, int], tokens: int, held: Any) -> _Run:
        size = 100 * shape[2] ** 2
        loss = float(LAW.loss(np.array([float(size)]), np.array([float(tokens)]))[0])
        return _Run(parameters=size, tokens=tokens, loss=loss, accuracy=1 / loss)

    monkeypatch.setattr(module, "_run", run)
    rows = {(row["measure"], row["variant"]): row["value"] for row in ladder()["rows"]}
    assert rows["law_error", "mean over runs"] < 1e-3
    assert rows["foreseen_error", "the largest"] < 0.02
    assert rows["rank_agreement", "loss and accuracy on prompts"] == pytest.approx(1.0)


@pytest.mark.usefixtures("quick")
def test_runs_that_are_done_are_not_taken_again(tmp_path: Path) -> None:
    whole = ladder(place=tmp_path)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert len(kept) == 7
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert ladder(place=tmp_path) == whole
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
