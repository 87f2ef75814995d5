"""The n-gram model: its formula spelt out over dictionaries, shares that add up, and a chain that is known."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kshot.errors import DataError
from kshot.pretrain.ngram import NGram, ngram
from kshot.seeds import stream


def spelt_out(text: list[int], order: int, vocabulary: int, context: tuple[int, ...], token: int) -> float:
    """Interpolated Kneser-Ney of one token, from the definition."""
    found = 1 / vocabulary
    for m in range(1, order + 1):
        if m - 1 > len(context):
            break
        grams = Counter(tuple(text[i : i + m]) for i in range(len(text) - m + 1))
        if m < order:
            longer = {tuple(text[i : i + m + 1]) for i in range(len(text) - m)}
            grams = Counter(gram[1:] for gram in longer)
        once, twice = (sum(count == n for count in grams.values()) for n in (1, 2))
        # A run that only the text begins with counts for nothing, and has no part in the rest.
        discount = once / (once + 2 * twice) if once and twice else 0.5
        own = context[len(context) - (m - 1) :]
        after = {gram[-1]: count for gram, count in grams.items() if gram[:-1] == own}
        total = sum(after.values())
        if total:
            found = (max(after.get(token, 0) - discount, 0) + discount * len(after) * found) / total
    return found


@given(st.integers(0, 500), st.integers(1, 4), st.integers(2, 5))
def test_it_is_the_formula(seed: int, order: int, vocabulary: int) -> None:
    rng = stream(seed, "text")
    text = rng.integers(vocabulary, size=40)
    model = ngram(text, order, vocabulary)
    asked = rng.integers(vocabulary, size=12)
    found = np.exp(model.logprobs(asked))
    for t, token in enumerate(asked.tolist()):
        context = tuple(asked[max(0, t - order + 1) : t].tolist())
        assert found[t] == pytest.approx(spelt_out(text.tolist(), order, vocabulary, context, token), abs=1e-12)


@given(st.integers(0, 300), st.integers(1, 5))
def test_shares_add_up(seed: int, order: int) -> None:
    rng = stream(seed, "text")
    model = ngram(rng.integers(6, size=50), order, 7)
    for length in range(order + 1):
        shares = model.shares(rng.integers(7, size=length))
        assert shares.sum() == pytest.approx(1)
        assert shares.min() > 0, "a token that never came may come"


def test_by_hand() -> None:
    # One token of two: counts of single tokens 3 and 1, a discount of a half.
    model = ngram(np.array([0, 0, 1, 0]), 1, 2)
    assert model.shares(np.zeros(0, dtype=np.int64)) == pytest.approx([2.5 / 4 + 0.25 * 0.5, 0.5 / 4 + 0.25 * 0.5])


def test_a_chain_is_known_as_it_is() -> None:
    rng = stream(0, "chain")
    rows = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]])
    states = [0]
    for draw in rng.random(60_000):
        states.append(int(np.searchsorted(rows[states[-1]].cumsum(), draw)))
    text = np.array(states[:50_000])
    held = np.array(states[50_000:])
    # What the chain itself says of the same text, and of its tokens one by one.
    known = -np.log(rows[held[:-1], held[1:]]).mean()
    single, pairs, long = (-ngram(text, order, 3).logprobs(held)[1:].mean() for order in (1, 2, 4))
    assert pairs == pytest.approx(known, abs=1e-3)
    assert long == pytest.approx(known, abs=5e-3)
    assert single > known + 0.1


def test_a_text_that_is_too_short() -> None:
    with pytest.raises(DataError, match="an n-gram model of order 3 of 3 tokens"):
        ngram(np.array([0, 1, 0]), 3, 2)
    assert isinstance(ngram(np.array([0, 1, 0, 1], dtype=np.uint16), 3, 2), NGram)
