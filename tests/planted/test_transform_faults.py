"""Faults planted in transforms, in draws and in the rivals of a model."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from planting import Plant, caught, suite

from kshot.rivals import chance, linear, logistic
from kshot.transform import draw as drawing
from kshot.transform import inputs, responses
from kshot.transform.lexicon import Lexicon


def _repeated(patch: pytest.MonkeyPatch) -> None:
    class Again(np.random.Generator):
        """A generator that puts back what it draws."""

        def choice(self, of: Any, size: int, replace: bool = True) -> Any:
            return super().choice(of, size=size, replace=True)

    patch.setattr(drawing, "stream", lambda *purpose: Again(np.random.PCG64(0)))


def _share_forgotten(patch: pytest.MonkeyPatch) -> None:
    row = drawing._row
    patch.setattr(drawing, "_row", lambda allowed, right, share, *rest: row(allowed, right, None, *rest))


def _separator_kept(patch: pytest.MonkeyPatch) -> None:
    tests = suite("transform/test_transforms.py")
    apply = tests.TRANSFORMS["prompt-altered"]

    def kept(written: Any, seed: int) -> Any:
        return replace(apply(written, seed), separator=written.separator)

    patch.setattr(tests, "TRANSFORMS", {**tests.TRANSFORMS, "prompt-altered": kept})


def _shuffled_in_part(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(inputs, "round", lambda n: int(n / 2), raising=False)


def _not_screened(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lexicon, "alike", lambda self, count, factor, rng, but: self.any(count, rng, but))


def _nothing_altered(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(responses, "answering", lambda written, words: written)


def _chosen_by_the_queries(patch: pytest.MonkeyPatch) -> None:
    def looking(counted: Any, shots: int, rng: Any) -> float:
        # Any function of what a query says.
        return float(logistic.PENALTIES[int(counted.queries[0].sum() + counted.queries[0].indices.sum()) % 10])

    patch.setattr(logistic, "_chosen", looking)


def _turned_round(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(logistic, "log_softmax", lambda logits, axis: -logits)


def _with_replacement(patch: pytest.MonkeyPatch) -> None:
    class Anew:
        def __init__(self, *purpose: Any) -> None:
            self.own = np.random.default_rng(0)

        def permutation(self, said: Any) -> Any:
            return self.own.choice(len(np.unique(said)), size=len(said))

    patch.setattr(chance, "stream", Anew)


def _one_step_more(patch: pytest.MonkeyPatch) -> None:
    tests = suite("rivals/test_linear.py")
    patch.setattr(tests, "by_descent", lambda x, y, n, steps: linear.by_descent(x, y, n, steps and steps + 1))


FAULTS: dict[str, tuple[str, str, tuple[Any, ...], Plant]] = {
    # fault: (test file, its check, what the check is given, how it is planted)
    "a share of right labels that is forgotten": (
        "transform/test_transforms.py",
        "test_so_many_labels_of_every_prompt_are_right",
        (0.25,),
        _share_forgotten,
    ),
    "examples that are drawn twice": (
        "transform/test_written.py",
        "test_a_draw_repeats_itself_and_no_example",
        ("redrawn",),
        _repeated,
    ),
    "a separator that stays as it is": (
        "transform/test_transforms.py",
        "test_the_same_token_moves_to_the_same_place_everywhere",
        (),
        _separator_kept,
    ),
    "half of the vocabulary for the whole": (
        "transform/test_transforms.py",
        "test_the_whole_vocabulary_moves",
        (),
        _shuffled_in_part,
    ),
    "arbitrary answers of any probability": (
        "transform/test_transforms.py",
        "test_arbitrary_answers_are_distinct_and_alike_in_probability",
        (),
        _not_screened,
    ),
    "answers that stay": (
        "transform/test_transforms.py",
        "test_what_is_said_to_be_kept_is_kept",
        ("response-altered",),
        _nothing_altered,
    ),
    "a penalty chosen by looking at queries": (
        "rivals/test_logistic.py",
        "test_no_query_is_looked_at",
        (),
        _chosen_by_the_queries,
    ),
    "logits the wrong way round": (
        "rivals/test_logistic.py",
        "test_words_that_tell_are_learned",
        (),
        _turned_round,
    ),
    "guesses that are drawn anew": (
        "rivals/test_chance.py",
        "test_guessing_is_the_mean_over_all_orders",
        (),
        _with_replacement,
    ),
    "a step too many": ("rivals/test_linear.py", "test_descent_in_the_dual_is_descent", (), _one_step_more),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_transforms_and_rivals(fault: str) -> None:
    file, check, given, plant = FAULTS[fault]
    test: Callable[..., object] = getattr(suite(file), check)
    caught(lambda: test(*given), plant)
