"""Faults planted in the battery: in what its figures are made of, and in how claims are judged from them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from planting import Plant, caught, suite

from kshot.model import chat
from kshot.rivals import pool
from kshot.study.hypotheses import asking, claims, core, functions


def _accuracy_for_macro_f1(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        asking, "macro_f1s", lambda said, gold, labels: (said == np.broadcast_to(gold, said.shape)).mean(axis=1)
    )


def _half_for_the_whole(patch: pytest.MonkeyPatch) -> None:
    tests = suite("study/test_hypotheses_parts.py")

    def unstepped(right: Any) -> float | None:
        own = functions.split_half(right)
        return own / (2 - own) if own is not None else None

    patch.setattr(tests, "split_half", unstepped)


def _pairing_left_out(patch: pytest.MonkeyPatch) -> None:
    tests = suite("study/test_hypotheses_parts.py")
    patch.setattr(tests, "permutation_p", lambda x, y, seed: functions.permutation_p(np.sort(x), np.sort(y), seed))


def _last_demonstration_alone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pool.np, "cumsum", lambda values, axis: values)


def _not_weighed(patch: pytest.MonkeyPatch) -> None:
    tests = suite("study/test_hypotheses_parts.py")
    patch.setattr(tests, "mixture", lambda weights, tables: pool.mixture(np.zeros_like(weights), tables))


def _rival_of_other_draws(patch: pytest.MonkeyPatch) -> None:
    tests = suite("study/test_hypotheses_parts.py")

    def other(asked: Any, memory: Any, own: Any, steps: int | None) -> Any:
        return core.linear_map(asked, memory, replace(own, drawn=own.drawn[::-1]), steps)

    patch.setattr(tests, "linear_map", other)


def _not_widened(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(claims, "widening", lambda number, seeds: 1.0)


def _published_counts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(claims, "_counting", lambda lines, name: [line for line in lines if line["hypothesis"] == name])


def _protocols_thrown_together(patch: pytest.MonkeyPatch) -> None:
    tests = suite("study/test_hypotheses_claims.py")

    def of_the_first(measures: Any) -> Any:
        own = [line for line in claims.verdicts(measures) if line["protocol"] == "redrawn"]
        return [{**line, "protocol": protocol} for protocol in ("redrawn", "fixed") for line in own]

    patch.setattr(tests, "verdicts", of_the_first)


def _answers_open_twice(patch: pytest.MonkeyPatch) -> None:
    tests = suite("model/test_chat.py")

    def twice(codec: Any, template: Any) -> Any:
        found = chat.as_chat(codec, template)
        return replace(found, delimiter="assistant:\n")

    patch.setattr(tests, "as_chat", twice)


FAULTS: dict[str, tuple[str, str, Plant]] = {
    # fault: (test file, its check, how it is planted)
    "accuracy in the place of macro-F1": (
        "study/test_hypotheses_parts.py",
        "test_rows_are_the_metrics_with_intervals_that_hold_them",
        _accuracy_for_macro_f1,
    ),
    "the reliability of half the answers": (
        "study/test_hypotheses_parts.py",
        "test_reliability_and_what_noise_takes",
        _half_for_the_whole,
    ),
    "functions paired by rank": (
        "study/test_hypotheses_parts.py",
        "test_the_p_value_is_the_share_of_pairings",
        _pairing_left_out,
    ),
    "the last demonstration alone": (
        "study/test_hypotheses_parts.py",
        "test_a_posterior_by_hand",
        _last_demonstration_alone,
    ),
    "known tasks that all weigh alike": ("study/test_hypotheses_parts.py", "test_a_mixture_by_hand", _not_weighed),
    "a rival that saw other demonstrations": (
        "study/test_hypotheses_parts.py",
        "test_the_rivals_see_what_the_model_sees",
        _rival_of_other_draws,
    ),
    "intervals of one claim for many": (
        "study/test_hypotheses_claims.py",
        "test_intervals_are_widened_for_the_number_of_claims",
        _not_widened,
    ),
    "published figures that count": (
        "study/test_hypotheses_claims.py",
        "test_what_is_published_with_its_faults_counts_for_nothing",
        _published_counts,
    ),
    "protocols thrown together": (
        "study/test_hypotheses_claims.py",
        "test_protocols_are_judged_apart",
        _protocols_thrown_together,
    ),
    "an answer that is opened twice": (
        "model/test_chat.py",
        "test_it_is_the_text_of_the_same_turns",
        _answers_open_twice,
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_the_battery(fault: str) -> None:
    file, check, plant = FAULTS[fault]
    test: Callable[[], object] = getattr(suite(file), check)
    caught(test, plant)
