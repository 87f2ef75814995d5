"""What is hidden and what is to be said, on rows made by hand and on many."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kshot.errors import KshotError
from kshot.pretrain.objectives import (
    IGNORED,
    OBJECTIVES,
    Marks,
    causal,
    continued,
    denoised,
    masked,
    prefix,
    span_mask,
    spans,
    unhidden,
)
from kshot.seeds import stream

SENTINELS = tuple(range(900, 960))
MARKS = Marks(vocabulary=1000, end=0, mask=999, sentinels=SENTINELS)


def rows(b: int, t: int) -> np.ndarray:
    """Rows of t tokens and the one after them, all different."""
    return 1 + np.arange(b * (t + 1)).reshape(b, t + 1) % 800


def test_causal_by_hand() -> None:
    found = causal(np.array([[5, 6, 7]]), MARKS, stream(0, "x"))
    assert (found.read.tolist(), found.said.tolist()) == ([[5, 6]], [[6, 7]])
    assert (found.prefix, found.source) == (None, None)


@given(st.integers(0, 50))
def test_the_rest_of_a_text_is_said_of_its_beginning(seed: int) -> None:
    given_rows = rows(4, 9)
    found = continued(given_rows, MARKS, stream(seed, "continued"))
    assert found.source is not None
    for own, source, read, said in zip(given_rows, found.source, found.read, found.said, strict=True):
        assert [*source, *said] == own.tolist()
        assert read.tolist() == [MARKS.end, *said[:-1]]
        assert 1 <= len(source) <= 8


@given(st.integers(0, 50))
def test_a_prefix_is_seen_whole_and_the_rest_is_said(seed: int) -> None:
    given_rows = rows(4, 9)
    found = prefix(given_rows, MARKS, stream(seed, "prefix"))
    assert found.prefix is not None
    for own, length, read, said in zip(given_rows, found.prefix, found.read, found.said, strict=True):
        assert 1 <= length <= 8, "a token that all see, and one that is said after it"
        assert read.tolist() == own[:-1].tolist()
        assert said[: length - 1].tolist() == [IGNORED] * (length - 1)
        assert said[length - 1 :].tolist() == own[length:].tolist()


def test_hidden_words_are_as_many_as_published() -> None:
    given_rows = rows(200, 100)
    found = masked(given_rows, MARKS, stream(0, "masked"))
    own, chosen = given_rows[:, :-1], found.said != IGNORED
    assert (found.said[chosen] == own[chosen]).all()
    assert (found.read[~chosen] == own[~chosen]).all(), "what is not to be said is left as it is"
    shares = chosen.mean(), (found.read[chosen] == MARKS.mask).mean(), (found.read[chosen] == own[chosen]).mean()
    assert shares == pytest.approx((0.15, 0.8, 0.1), abs=0.02)


def test_of_every_row_something_is_hidden() -> None:
    found = masked(rows(300, 2), MARKS, stream(0, "short"))
    assert ((found.said != IGNORED).sum(axis=1) >= 1).all()


@given(st.integers(2, 80), st.integers(0, 20))
def test_hidden_spans_come_back(t: int, seed: int) -> None:
    given_rows = rows(3, t)
    found = spans(given_rows, MARKS, stream(seed, "spans"))
    assert found.source is not None
    hidden = max(1, round(0.15 * t))
    count = max(1, round(hidden / 3))
    assert found.source.shape == (3, t - hidden + count)
    assert found.said.shape == (3, hidden + count + 1)
    for own, source, read, said in zip(given_rows, found.source, found.read, found.said, strict=True):
        assert unhidden(source, said, SENTINELS) == own[:-1].tolist()
        assert read.tolist() == [0, *said[:-1].tolist()]
        assert [token for token in source.tolist() if token in SENTINELS] == list(SENTINELS[:count])
        assert [token for token in said.tolist() if token in SENTINELS] == list(SENTINELS[: count + 1])


@given(st.integers(2, 80), st.integers(0, 20))
def test_a_text_is_said_whole_of_one_with_masks(t: int, seed: int) -> None:
    given_rows = rows(3, t)
    found = denoised(given_rows, MARKS, stream(seed, "denoised"))
    assert found.source is not None
    hidden = max(1, round(0.3 * t))
    count = min(max(1, round(hidden / 3)), t - hidden)
    assert found.source.shape == (3, t - hidden + count)
    for own, source, read, said in zip(given_rows, found.source, found.read, found.said, strict=True):
        assert said.tolist() == own[:-1].tolist()
        assert read.tolist() == [MARKS.end, *own[:-2].tolist()]
        pieces = [[]]
        for token in source.tolist():
            if token == MARKS.mask:
                pieces.append([])
            else:
                pieces[-1].append(token)
        assert len(pieces) == count + 1
        # All that was left stands in its order, with something missing wherever a mask is.
        at = 0
        for i, piece in enumerate(pieces):
            if piece:
                begin = said.tolist().index(piece[0], at)
                assert begin > at or i == 0
                assert said[begin : begin + len(piece)].tolist() == piece
                at = begin + len(piece)
        assert at < t, "a text ends with what is hidden"


def test_spans_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.array([False, True, True, False, False, True])
    monkeypatch.setattr("kshot.pretrain.objectives.span_mask", lambda *asked: mask)
    monkeypatch.setattr("kshot.pretrain.objectives._CORRUPTED", 0.5)
    monkeypatch.setattr("kshot.pretrain.objectives._SPAN", 1.5)
    found = spans(np.array([[1, 2, 3, 4, 5, 6, 7]]), MARKS, stream(0, "x"))
    assert found.source is not None
    assert found.source.tolist() == [[1, 900, 4, 5, 901]]
    assert found.said.tolist() == [[900, 2, 3, 901, 6, 902]]
    assert found.read.tolist() == [[0, 900, 2, 3, 901, 6]]


def test_spans_of_all_lengths_come() -> None:
    masks = np.stack([span_mask(6, 3, 2, stream(seed, "mask")) for seed in range(300)])
    assert (masks.sum(axis=1) == 3).all()
    assert not masks[:, 0].any()
    assert masks[:, -1].all()
    # Two ways to part three hidden tokens, two to part what stands between, each as often as any other.
    kinds, counts = np.unique(masks, axis=0, return_counts=True)
    assert len(kinds) == 4
    assert counts.min() > 50


def test_spans_that_do_not_fit_are_refused() -> None:
    with pytest.raises(KshotError, match="3 spans of 3 hidden tokens do not fit into 5"):
        span_mask(5, 3, 3, stream(0, "x"))
    with pytest.raises(KshotError, match="rows of 400 tokens have 20 hidden spans, and the tokenizer has 3 sentinels"):
        spans(rows(1, 400), Marks(vocabulary=1000, end=0, sentinels=(1, 2, 3)), stream(0, "x"))
    with pytest.raises(KshotError, match="denoising needs a tokenizer with a mask token"):
        denoised(rows(1, 4), Marks(vocabulary=1000, end=0), stream(0, "x"))
    with pytest.raises(KshotError, match="masked words need a tokenizer with a mask token"):
        masked(rows(1, 4), Marks(vocabulary=1000, end=0), stream(0, "x"))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_same_generator_gives_the_same_lesson_and_rows_are_left_alone(name: str) -> None:
    given_rows = rows(3, 20)
    before = given_rows.copy()
    one, other = (OBJECTIVES[name](given_rows, MARKS, stream(3, "lesson")) for _ in range(2))
    assert (given_rows == before).all()
    assert (one.read == other.read).all()
    assert (one.said == other.said).all()
    assert one.read.shape == one.said.shape
