"""Traces against plain whole sequences: the same numbers at the same positions, whatever was packed beside them."""

import numpy as np
import pytest
import torch
import zoo

from kshot.errors import ModelError
from kshot.model import trace as trace_module
from kshot.model.lm import LM
from kshot.model.prefix import EMPTY
from kshot.model.trace import Trace, traced
from kshot.model.tree import Scored

# Sinks and caps stand between score and weight.
PLAIN = [name for name in zoo.TREE if name not in ("gemma2", "gpt-oss")]


def drawn(n: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(3, zoo.VOCABULARY, n).tolist())


PREFIX = drawn(13, 5)
TEXTS = (drawn(9, 1), drawn(4, 2), (*drawn(9, 1)[:6], 7, 8), drawn(4, 2), drawn(21, 3))
AT = ((-1, 0), (1, 2), (-1, -2), (3, 3), (10, 20))


def plain(lm: LM, prefix: tuple[int, ...], text: tuple[int, ...], at: tuple[int, ...]) -> np.ndarray:
    """(l, s, e): what every attention module says to the whole sequence, with nothing of ours in force."""
    said: list[torch.Tensor] = []
    modules = trace_module.attention_modules(lm)
    handles = [modules[i].register_forward_hook(lambda m, i, out: said.append(out[0])) for i in sorted(modules)]
    lm.model(input_ids=torch.tensor([prefix + text]), use_cache=False)
    for handle in handles:
        handle.remove()
    rows = [len(prefix) + (i if i >= 0 else len(text) + i) for i in at]
    return np.stack([out[0, rows].double().numpy() for out in said])


def runs(lm: LM, after: bool) -> list[Trace]:
    prefix = lm.prefill(PREFIX) if after else EMPTY
    return list(traced(lm, TEXTS, AT, prefix))


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", zoo.TREE)
def test_outputs_are_those_of_whole_sequences(name: str, after: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = zoo.lm(name)
    with torch.no_grad(), zoo.Pure64():
        found = runs(lm, after)
        monkeypatch.setattr(trace_module, "_TOKENS_PER_PASS", 14)
        again = runs(lm, after)
        for one, other, text, at in zip(found, again, TEXTS, AT, strict=True):
            expected = plain(lm, PREFIX if after else (), text, at)
            assert one.outputs == pytest.approx(expected, abs=1e-9)
            assert other.outputs == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", PLAIN)
def test_scores_and_values_make_the_heads(name: str, after: bool) -> None:
    lm = zoo.lm(name)
    with torch.no_grad(), zoo.Pure64():
        prefix = lm.prefill(PREFIX) if after else EMPTY
        for one, text in zip(traced(lm, TEXTS, AT, prefix), TEXTS, strict=True):
            layers, heads, _, p = one.to_prefix.shape
            assert (p, one.to_own.shape[-1]) == (prefix.length, len(text))
            for layer in range(layers):
                group = heads // one.values.shape[1]
                far = prefix.values[layer][0].numpy() if p else one.values[layer][:, :0]
                values = np.concatenate([far, one.values[layer]], axis=1)
                for head in range(heads):
                    expected = one.weights[layer, head] @ values[head // group]
                    assert one.heads[layer, head] == pytest.approx(expected, abs=1e-9)


def test_scores_are_scaled_products_and_the_future_is_not_seen() -> None:
    lm = zoo.lm("llama")
    with torch.no_grad(), zoo.Pure64():
        prefix = lm.prefill(PREFIX)
        one = next(traced(lm, TEXTS[:1], [(0, 5, -1)], prefix))
    width = one.queries.shape[-1]
    for layer in range(len(one.queries)):
        for head in range(one.queries.shape[1]):
            keys = prefix.keys[layer][0, head // 2].numpy()
            expected = one.queries[layer, head] @ keys.T / np.sqrt(width)
            assert one.to_prefix[layer, head] == pytest.approx(expected, abs=1e-12)
            own = one.queries[layer, head] @ one.keys[layer, head // 2].T / np.sqrt(width)
            for row, position in enumerate((0, 5, 8)):
                assert one.to_own[layer, head, row, : position + 1] == pytest.approx(
                    own[row, : position + 1], abs=1e-12
                )
                assert np.isneginf(one.to_own[layer, head, row, position + 1 :]).all()


def test_a_window_hides_what_lies_before_it() -> None:
    lm = zoo.lm("mistral")
    one = next(traced(lm, [TEXTS[4]], [(20,)], lm.prefill(PREFIX)))
    assert np.isneginf(one.to_prefix).all()
    seen = np.isfinite(one.to_own[:, :, 0])
    assert (seen.sum(-1) == zoo.WINDOW).all()
    assert seen[..., -zoo.WINDOW :].all()


def test_it_is_handed_over_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, passes = zoo.lm("llama"), []
    monkeypatch.setattr(trace_module, "_TOKENS_PER_PASS", 10)
    forward = type(lm).forward
    monkeypatch.setattr(type(lm), "forward", lambda self, *asked: passes.append(1) or forward(self, *asked))
    stream = traced(lm, TEXTS, AT)
    next(stream)
    assert len(passes) == 2, "one to find the modules, one for the first texts"
    list(stream)
    assert len(passes) > 3


def test_nothing_stays_behind() -> None:
    lm = zoo.lm("llama")
    before = lm.score([zoo.Scored((*TEXTS[0], 5), 3)]).sums()
    list(traced(lm, TEXTS, AT))
    assert all(not module._forward_hooks for module in lm.model.modules())
    assert (lm.score([zoo.Scored((*TEXTS[0], 5), 3)]).sums() == before).all()


def test_a_model_that_reads_whole_sequences_cannot_be_traced() -> None:
    lm = zoo.lm("bloom")
    with pytest.raises(
        ModelError, match=r"^bloom.* reads every sequence whole \(.*\): its attention cannot be traced$"
    ):
        next(traced(lm, TEXTS, AT))


@pytest.mark.parametrize("prefix", [(), PREFIX], ids=["alone", "after a prefix"])
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_what_is_scored_beside_texts_is_what_scoring_says(name: str, prefix: tuple[int, ...]) -> None:
    lm = zoo.lm(name)
    after = lm.prefill(prefix) if prefix else EMPTY
    beside = [
        [Scored((*text[:-1], token, token + 1), len(text) - 1) for token in range(3 + i % 2)] if i != 1 else []
        for i, text in enumerate(TEXTS)
    ]
    plain = list(traced(lm, TEXTS, AT, after))
    assert all(one.said == () for one in plain)
    for one, other, own in zip(traced(lm, TEXTS, AT, after, beside), plain, beside, strict=True):
        assert one.outputs == pytest.approx(other.outputs, abs=1e-5)
        assert len(one.said) == len(own)
        if own:
            whole = lm.score([Scored((*prefix, *s.tokens), len(prefix) + s.start) for s in own])
            for (values, best), expected, top in zip(one.said, whole.logprobs, whole.best, strict=True):
                assert values == pytest.approx(expected, abs=1e-5)
                assert best.tolist() == top.tolist()
