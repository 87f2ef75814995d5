"""Faults planted in training: gradients against those of one row after another, and what a course of it keeps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from planting import Plant, caught, suite

from kshot.adapt import checkpoint, course, initial, learn, train, tuning
from kshot.model import attention, delta, tiny
from kshot.model.lm import LM
from kshot.model.said import Part

# The order of ids is not that of frequency.


def test_a_vocabulary_that_is_taken_by_its_ids(tiny_lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    check = suite("adapt/test_initial.py").test_vocabulary_rows_are_of_the_commonest_tokens_none_twice
    counts = initial.counts
    by_id = lambda *given: dict(sorted(counts(*given).items()))  # noqa: E731
    caught(lambda: check(tiny_lm, monkeypatch), lambda patch: patch.setattr(initial, "counts", by_id))


def _positions_from_nought(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(attention.Pass, "positions", property(lambda self: self.depth))


def _no_gradient_of_values(patch: pytest.MonkeyPatch) -> None:
    again = train._again

    def cut(*given: Any) -> Any:
        prefix, delta = again(*given)
        return replace(prefix, values=tuple(value.detach() for value in prefix.values)), delta

    patch.setattr(train, "_again", cut)


def _scale_forgotten(patch: pytest.MonkeyPatch) -> None:
    added = delta._added
    patch.setattr(delta, "_added", lambda one: added(replace(one, scale=1.0)))


def _divergence_once_a_row(patch: pytest.MonkeyPatch) -> None:
    def once(frozen: torch.Tensor, now: Part) -> torch.Tensor:
        return (frozen.exp() * (frozen - now.logits.log_softmax(-1))).sum()

    patch.setattr(train, "_divergence", once)


@pytest.mark.parametrize(
    ("check", "given", "plant"),
    [
        ("test_soft_prompt", (20,), _positions_from_nought),
        ("test_free_prefix", ("llama", 20), _no_gradient_of_values),
        ("test_low_rank", (("all-linear",),), _scale_forgotten),
        ("test_divergence_from_the_frozen_model", (4096,), _divergence_once_a_row),
    ],
)
def test_faults_of_gradients(check: str, given: tuple[Any, ...], plant: Plant) -> None:
    tests = suite("adapt/test_train.py")
    first = () if check == "test_free_prefix" else (zoo.lm("llama"),)
    caught(lambda: getattr(tests, check)(*first, *given), plant)


def test_fine_tuning_that_writes_to_the_model() -> None:
    tests, own = suite("adapt/test_tuning.py"), tiny.tiny_lm()

    def plant(patch: pytest.MonkeyPatch) -> None:
        learn = tuning.learn

        def writing(*given: Any, **more: Any) -> Any:
            found = learn(*given, **more)
            for name, value in found.placed.delta.dense.items():
                own.model.get_parameter(name).data.copy_(value)
            return found

        patch.setattr(tuning, "learn", writing)

    method = next(m for m in tests.METHODS if isinstance(m, tuning.FineTune))
    caught(lambda: tests.test_the_model_is_not_touched_and_fits_are_the_same_to_the_bit(method, own), plant)


def test_a_choice_made_on_the_test_examples(tiny_lm: LM) -> None:
    check = suite("adapt/test_course.py").test_nothing_but_its_own_examples_is_looked_at

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(learn, "held_out", lambda task, examples, *_: (examples, task.test, "on the test examples"))

    caught(lambda: check(tiny_lm), plant)


def test_a_fit_that_goes_on_without_its_moments(tmp_path: Path) -> None:
    check, found = (
        suite("adapt/test_checkpoint.py").test_a_stopped_fit_goes_on_to_the_same_bits,
        checkpoint.Keeper.found,
    )

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(checkpoint.Keeper, "found", lambda self: replace(found(self), moments={}))

    caught(lambda: check(tmp_path, "adamw", "constant"), plant)


def test_a_prefix_that_its_neighbours_see(monkeypatch: pytest.MonkeyPatch) -> None:
    check, far = suite("model/test_together.py").test_as_one_at_a_time, attention.Pass.far

    def plant(patch: pytest.MonkeyPatch) -> None:
        def wide(self: Any, layer: int) -> Any:
            return tuple(replace(one, begin=0, stop=len(self.depth)) for one in far(self, layer))

        patch.setattr(attention.Pass, "far", wide)

    caught(lambda: check("llama", 4096, 4096, True, monkeypatch), plant)


def test_a_prefix_of_demonstrations_after_which_the_text_begins_again(tmp_path: Path) -> None:
    tests = suite("adapt/test_tuning.py")
    folders = iter(tmp_path / str(i) for i in range(9))

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(course.Start, "reader", lambda self, lm: lm)

    def check() -> None:
        method = tuning.PrefixTuning(shots=3, course=tests.STILL)
        tests.test_step_0_from_demonstrations_is_in_context_learning(method, True, next(folders))

    caught(check, plant)
