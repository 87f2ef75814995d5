"""Perplexity: windows by hand, a model to which all tokens are alike, and sliding windows as the plain forward has them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import zoo
from hypothesis import given
from hypothesis import strategies as st

from kshot.errors import PromptError
from kshot.measure.perplexity import (
    Surprise,
    bits_per_byte,
    perplexity,
    reading,
    surprise,
    undefined,
    windows,
)
from kshot.model.lm import LM
from kshot.model.tree import Scored


def of(*parts: list[float], size: int = 10) -> Surprise:
    return Surprise(by_document=tuple(map(np.array, parts)), bytes=size, context=8, stride=4)


def test_windows_by_hand() -> None:
    assert windows((5, 6, 7, 8, 9), 3, 2) == [Scored((5, 6, 7), 1), Scored((7, 8, 9), 1)]
    assert windows((5, 6, 7, 8), 3, 1) == [Scored((5, 6, 7), 1), Scored((6, 7, 8), 2)]
    assert windows((5, 6, 7), 3, 1, (1,)) == [Scored((1, 5, 6), 1), Scored((1, 6, 7), 2)]
    assert windows((5,), 3, 1) == []
    assert windows((), 3, 1, (1,)) == []


@given(st.integers(0, 60), st.integers(2, 20), st.integers(1, 20), st.integers(0, 2))
def test_every_token_is_scored_once_after_enough(length: int, room: int, stride: int, firsts: int) -> None:
    stride, first = min(stride, room if firsts else room - 1), tuple(range(900, 900 + firsts))
    tokens = tuple(range(length))
    found = windows(tokens, room + firsts, stride, first)
    scored = [token for one in found for token in one.tokens[one.start :]]
    assert scored == list(tokens[0 if firsts else 1 :])
    for place, one in enumerate(found):
        assert len(one.tokens) <= room + firsts
        assert one.tokens[:firsts] == first
        if place:
            assert one.start - firsts >= room - stride or one.start == len(one.tokens) - 1


def test_windows_that_make_no_sense() -> None:
    with pytest.raises(
        PromptError, match="a stride of 8: what works is a stride of 1 to 7, and a context of at least 2"
    ):
        windows((1, 2, 3), 8, 8)
    with pytest.raises(PromptError, match="a context of 2 tokens"):
        windows((1, 2, 3), 2, 1, (1,))


def test_perplexity_by_hand() -> None:
    half = float(np.log(2))
    value, low, high = perplexity(of([half, half], [half]))
    assert (value, low, high) == pytest.approx((2, 2, 2))
    assert bits_per_byte(of([half, half], [half], size=6)) == pytest.approx(0.5)
    value, low, high = perplexity(of([0.0, 0.0, 0.0], [4.0]))
    assert value == pytest.approx(np.exp(1.0)), "tokens count alike, not documents"
    assert low is not None
    assert high is not None
    assert low < value < high
    assert perplexity(of([half])) == (pytest.approx(2), None, None), "one document has no spread"
    assert perplexity(of([])) == (None, None, None)
    assert bits_per_byte(of([])) is None


def test_a_long_document_counts_as_blocks() -> None:
    rng = np.random.default_rng(0)
    long = rng.exponential(size=6_100)
    found = of(long.tolist(), [1.0] * 2_900)
    assert [len(block) for block in found.blocks] == [2_034, 2_033, 2_033, 2_900]
    assert np.concatenate(found.blocks[:3]).tolist() == long.tolist()
    value, low, high = perplexity(of(long.tolist()))
    assert value == pytest.approx(np.exp(long.mean()))
    assert low is not None
    assert high is not None
    assert low < value < high, "one long document has a spread"


def test_a_perplexity_that_is_no_number_is_said() -> None:
    found = of([800.0, 800.0])
    assert perplexity(found) == (None, None, None)
    assert undefined(found) == "a mean surprise of 800 nats per token, whose exponential is no number"
    assert bits_per_byte(found) == pytest.approx(1_600 / np.log(2) / 10)
    for number in (np.inf, np.nan):
        assert perplexity(of([number])) == (None, None, None)
        assert bits_per_byte(of([number])) is None
    assert undefined(of([1.0])) is None


def test_texts_share_the_tokens_that_are_read() -> None:
    codec = zoo.lm("llama").codec
    texts = [["a text of some length", "and more"], ["another one of some length"]]
    found = reading(codec, texts, 8, limit=10)
    (first, _), (other,) = (codec.encode(own) for own in texts)
    assert found.documents == (first[:5], other[:5])
    assert sum(map(len, reading(codec, texts, 8).documents)) == sum(len(t) for own in texts for t in codec.encode(own))


def test_a_model_to_which_all_tokens_are_alike_has_the_size_of_the_vocabulary() -> None:
    lm = zoo.lm("llama")
    with torch.no_grad():
        lm.model.lm_head.weight.zero_()
    value, _, _ = perplexity(surprise(lm, ["some words", "and a few more of them"], 8))
    assert value == pytest.approx(zoo.VOCABULARY)


def test_sliding_windows_are_those_of_the_plain_forward() -> None:
    lm = replace(zoo.lm("llama"), tokens_per_pack=40)
    texts = ["a text of some length", "short", "and another text, longer than all of the others"]
    with zoo.Pure64():
        found = surprise(lm, texts, 12, 5)
    first = lm.codec.first
    for text, said in zip(texts, found.by_document, strict=True):
        tokens = lm.codec.encode([text])[0]
        nats: list[float] = []
        with torch.no_grad(), zoo.Pure64():
            reached = 0 if first else 1
            for begin in range(0, len(tokens), 5):
                row = [*first, *tokens[begin : begin + 12 - len(first)]]
                logprobs = lm.model(input_ids=torch.tensor([row]), use_cache=False).logits[0].double().log_softmax(-1)
                for at in range(len(first) + reached - begin, len(row)):
                    nats.append(-float(logprobs[at - 1, row[at]]))
                reached = max(reached, begin + 12 - len(first))
                if reached >= len(tokens):
                    break
        assert np.abs(said - np.array(nats)).max() < 1e-9
    (tokens, *_) = lm.codec.encode(texts)
    with zoo.Pure64():
        few = surprise(lm, texts, 12, 5, limit=len(tokens) + 2)
    assert [len(part) for part in few.by_document] == [len(tokens) - (not first), 2 - (not first)]
    assert np.abs(few.by_document[0] - found.by_document[0]).max() < 1e-12


def test_bytes_are_those_of_what_is_scored(tiny_lm: LM) -> None:
    # A token of the tiny model is a byte, and the first of a text has nothing before it.
    found = surprise(tiny_lm, ["猫が", "cat"], 8)
    assert found.bytes == found.tokens == 5 + 2
    assert surprise(tiny_lm, [""], 8).tokens == 0


def test_a_context_that_the_model_does_not_read(tiny_lm: LM) -> None:
    with pytest.raises(PromptError, match=r"a context of 999999 tokens: .* reads \d+; give a shorter one"):
        surprise(replace(tiny_lm, context=512), ["x"], 999_999)
