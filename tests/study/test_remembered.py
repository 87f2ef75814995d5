"""What was read once is not read again, and what was not is read as ever."""

from dataclasses import replace

import numpy as np
import pytest
from small import films

from kshot.adapt.prompting import InContext
from kshot.measure.scoring import score
from kshot.model.lm import LM
from kshot.model.prefix import EMPTY
from kshot.model.tree import Scored
from kshot.study.remembered import Memory, Remembering, remembered_as

SEQUENCES = (Scored((5, 6, 7), 2), Scored((5, 6, 8, 9), 2), Scored((5, 3, 4), 1))


def remembered(lm: LM, sequences: tuple[Scored, ...]) -> Memory:
    found = lm.score(sequences)
    both = zip(sequences, found.logprobs, found.best, strict=True)
    return {remembered_as(s.tokens, s.start): (v, b) for s, v, b in both}


def test_all_that_is_known_is_not_read(tiny_lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Remembering.of(tiny_lm, remembered(tiny_lm, SEQUENCES))
    expected = tiny_lm.score(SEQUENCES[::-1])
    monkeypatch.setattr(LM, "forward", lambda *given: pytest.fail("it is read again"))
    found = own.score(SEQUENCES[::-1])
    assert found.tokens == 0
    for one, other in zip(found.logprobs, expected.logprobs, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert [b.tolist() for b in found.best] == [b.tolist() for b in expected.best]


@pytest.mark.parametrize("known", [(), (0,), (1,), (0, 2), (1, 2)])
def test_what_is_not_known_is_read_in_its_place(known: tuple[int, ...], tiny_lm: LM) -> None:
    own = Remembering.of(tiny_lm, remembered(tiny_lm, tuple(SEQUENCES[i] for i in known)))
    prefix = tiny_lm.prefill((5, 6))
    groups = [(SEQUENCES, EMPTY), (SEQUENCES[:2], prefix)]
    found, expected = own.score_together(groups), tiny_lm.score_together(groups)
    assert len(found.logprobs) == 5
    for one, other in zip(found.logprobs, expected.logprobs, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_another_start_is_another_question(tiny_lm: LM) -> None:
    own = Remembering.of(tiny_lm, remembered(tiny_lm, SEQUENCES[:1]))
    (found,) = own.score([replace(SEQUENCES[0], start=1)]).logprobs
    assert len(found) == 2


def test_a_name_is_short_and_of_one_sequence_alone() -> None:
    names = [remembered_as(tokens, start) for tokens in ((1, 2, 3), (1, 23), (12, 3), (3, 2, 1)) for start in (1, 2)]
    assert len(set(names)) == len(names)
    assert len(remembered_as((7,) * 10_000, 9_999)) == len(names[0]) <= 16, "however long the demonstrations are"


def test_after_a_prefix_without_tokens_nothing_is_remembered(tiny_lm: LM) -> None:
    own = Remembering.of(tiny_lm, remembered(tiny_lm, SEQUENCES))
    soft = tiny_lm.prefill(tiny_lm.embedded((9, 9, 9)))
    assert soft.tokens is None
    found, expected = own.score(SEQUENCES, soft), tiny_lm.score(SEQUENCES, soft)
    for one, other in zip(found.logprobs, expected.logprobs, strict=True):
        assert np.array_equal(one, other)


def test_predictions_are_the_same_with_and_without_a_memory(tiny_lm: LM) -> None:
    task = films()
    adapted = InContext(shots=3).fit(tiny_lm, task, task.train, 0)
    plain = score(adapted, task, task.test[:4], calibration=False).predictions
    again = score(replace(adapted, lm=Remembering.of(tiny_lm, {})), task, task.test[:4], calibration=False).predictions
    assert np.array_equal(plain.logprobs, again.logprobs)
