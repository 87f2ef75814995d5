"""Faults planted in measures and in rules of scoring: one for each."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from planting import Plant, caught, suite

from kshot.measure import MEASURES, calibrate, metrics
from kshot.measure.calibrate import SCORES
from kshot.measure.soft_prompt import Neighbour
from kshot.model.lm import LM


def _ties_counted(right_a: Any, right_b: Any) -> Any:
    """Half of the queries on which the two agree, given to each."""
    only_a, only_b = int(np.sum(right_a & ~right_b)), int(np.sum(right_b & ~right_a))
    half = (len(right_a) - only_a - only_b) // 2
    split = np.arange(len(right_a)) < only_a + half
    return MEASURES["mcnemar"](split, np.arange(len(right_a)) >= len(right_a) - only_b - half)


def _by_inner_product(model: LM, rows: torch.Tensor, count: int = 5) -> Any:
    """Neighbours of which the longest come first."""
    best = (rows @ model.embedded(range(258)).T).topk(count)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [[Neighbour(t, "", c, False) for t, c in zip(*own, strict=True)] for own in pairs]


MEASURE_FAULTS: dict[str, tuple[str, str, Callable[[Any], Callable[..., Any]]]] = {
    # measure: (test file, its check, the measure made wrong)
    "accuracy": ("metrics", "test_accuracy_by_hand", lambda f: lambda s, g: f(s, np.maximum(g, 0))),
    "mean_interval": (
        "intervals",
        "test_bootstrap_is_near_the_normal_interval_of_many_values",
        lambda f: lambda v, **more: f(v[: len(v) // 4], **more),
    ),
    "calibration_curve": (
        "metrics",
        "test_bins_are_closed_above",
        lambda f: lambda s, g, bins=15: f(s, g, bins + 1),
    ),
    "cluster_share": (
        "soft_prompt",
        "test_cluster_share_by_hand",
        lambda f: lambda near, *n: f([row[:2] for row in near], *n),
    ),
    "confusion": (
        "metrics",
        "test_confusion_has_gold_in_rows",
        lambda f: lambda *a: (found := f(*a)) | {"counts": np.transpose(found["counts"]).tolist()},
    ),
    "domain_share": (
        "soft_prompt",
        "test_domain_share_by_hand",
        lambda f: lambda near, *more: f([row[:1] for row in near], *more),
    ),
    "ece": (
        "metrics",
        "test_ece_by_hand",
        lambda f: (
            lambda s, g: (
                abs(sum(r["n"] * (r["accuracy"] - r["confidence"]) for r in metrics.calibration_curve(s, g))) / len(g)
            )
        ),
    ),
    "label_share": ("soft_prompt", "test_label_share_by_hand", lambda f: MEASURES["domain_share"]),
    "log_loss": ("metrics", "test_log_loss_by_hand_in_nats", lambda f: lambda s, g: f(s, g) / np.log(2)),
    "macro_f1": ("metrics", "test_macro_f1_by_hand", lambda f: lambda s, g, labels=None: metrics.accuracy(s, g)),
    "mcnemar": ("intervals", "test_mcnemar_by_hand", lambda f: _ties_counted),
    "nearest_tokens": (
        "soft_prompt",
        "test_neighbours_are_those_of_a_search_in_float64",
        lambda f: _by_inner_product,
    ),
    "prompt_perplexity": (
        "soft_prompt",
        "test_perplexity_token_by_token",
        # A token that was never scored counts in the mean.
        lambda f: lambda *a: (found := f(*a)) and found | {"value": found["value"] ** (found["n"] / (found["n"] + 1))},
    ),
    "repeated_share": (
        "soft_prompt",
        "test_repeated_share_by_hand",
        lambda f: lambda near, *n: f([row[::-1] for row in near], *n),
    ),
    "tied": (
        "metrics",
        "test_a_tie_goes_to_the_first_candidate_and_is_counted",
        lambda f: lambda s, g: f(s + 1e-9 * np.arange(s.shape[1]), g),
    ),
    "wilson": ("intervals", "test_wilson_by_hand", lambda f: lambda k, n, *c: f(k, n + 1, *c)),
}


@pytest.mark.parametrize("name", MEASURES)
def test_faults_of_measures(name: str) -> None:
    assert name in MEASURE_FAULTS, f"{name} has no planted fault: add one, with the check that catches it"
    file, check, wrong = MEASURE_FAULTS[name]
    tests = suite(f"measure/test_{file}.py")
    caught(getattr(tests, check), lambda patch: patch.setattr(tests, name, wrong(MEASURES[name])))


def _other_prior(patch: pytest.MonkeyPatch) -> None:
    mean = calibrate._mean_probability
    patch.setattr(calibrate, "_mean_probability", lambda rows: -mean(rows))


def _rule(name: str, wrong: Callable[[Any], Any]) -> Plant:
    return lambda patch: patch.setitem(SCORES, name, wrong)


SCORE_FAULTS: dict[str, tuple[str, Plant]] = {
    "batch_calibration": ("test_batch_calibration_by_hand", _other_prior),
    "character_length_normalized": (
        "test_lengths_by_hand",
        _rule("character_length_normalized", lambda p: p.logprobs / p.tokens),
    ),
    "contextual_calibration": ("test_contextual_calibration_by_hand", _other_prior),
    "domain_context_calibration": (
        "test_each_calibration_reads_its_own_rows",
        _rule("domain_context_calibration", calibrate.contextual_calibration),
    ),
    "sum": ("test_lengths_by_hand", _rule("sum", calibrate.token_length_normalized)),
    "token_length_normalized": (
        "test_lengths_by_hand",
        _rule("token_length_normalized", lambda p: p.logprobs / (p.tokens + 1)),
    ),
    "unconditional_likelihood_normalized": (
        "test_lengths_by_hand",
        _rule("unconditional_likelihood_normalized", lambda p: p.logprobs + p.unconditional),
    ),
}


@pytest.mark.parametrize("name", SCORES)
def test_faults_of_rules_of_scoring(name: str) -> None:
    assert name in SCORE_FAULTS, f"{name} has no planted fault: add one, with the check that catches it"
    check, plant = SCORE_FAULTS[name]
    caught(getattr(suite("measure/test_calibrate.py"), check), plant)
