"""What drawing demonstrations anew changes, by hand."""

from typing import Any

import pytest

from kshot.study.hypotheses.protocols import between_protocols
from kshot.study.over_seeds import over_seeds


def row(
    variant: str, value: float | None, *, seed: int = 0, measure: str = "macro_f1", task: str = "t"
) -> dict[str, Any]:
    named = {"task": task, "model": "m", "seed": seed, "layer": None}
    return named | {"measure": measure, "variant": variant, "value": value, "n": 7, "reason": None}


def test_redrawn_less_fixed_of_every_task_and_seed() -> None:
    rows = [
        row("original, fixed", 0.5),
        row("original, redrawn", 0.75),
        row("original, redrawn", 0.25, seed=1),
        row("original, fixed", 0.5, seed=1),
        row("original, redrawn", 1.0, task="other"),
        row("original, fixed", 0.0, task="other"),
        # of a rival, of another measure, of one protocol alone, of what is undefined
        row("original, redrawn, regression", 0.9),
        row("original, fixed, regression", 0.1),
        row("response-altered, redrawn", 0.3, measure="accuracy"),
        row("response-altered, fixed", 0.1, measure="accuracy"),
        row("prompt-altered, redrawn", 0.3),
        row("memory-synonym, redrawn", None),
        row("memory-synonym, fixed", 0.4),
    ]
    found = between_protocols(rows)
    said = [(one["task"], one["seed"], one["variant"], one["value"], one["n"]) for one in found]
    assert said == [("t", 0, "original", 0.25, 7), ("t", 1, "original", -0.25, 7), ("other", 0, "original", 1.0, 7)]
    assert {one["measure"] for one in found} == {"protocol"}


def test_the_interval_is_that_of_seeds() -> None:
    rows = [
        row(f"original, {way}", value, seed=seed)
        for seed, apart in enumerate([0.1, 0.2, 0.3])
        for way, value in (("redrawn", 0.5 + apart), ("fixed", 0.5))
    ]
    (whole,) = over_seeds(between_protocols(rows))
    assert whole["value"] == pytest.approx(0.2)
    # t of 2 degrees of freedom, 4.302653, times 0.1 by the root of 3
    assert whole["high"] - whole["value"] == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-6)


def test_one_protocol_alone_has_no_difference() -> None:
    assert between_protocols([row("original, fixed", 0.5)]) == []
