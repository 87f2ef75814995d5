"""Heads left out one by one add up to what attention says; a copying head is found."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import zoo

from kshot.errors import ModelError
from kshot.model import tiny
from kshot.model.delta import Delta, LowRank
from kshot.model.heads import induction_scores, without_heads
from kshot.model.lm import LM
from kshot.model.load import load_model
from kshot.model.trace import traced
from kshot.model.tree import Scored

TEXT = (1, 5, 9, 7, 5, 3)


def said(lm: LM) -> np.ndarray:
    """What the first layer's attention says at the last token."""
    with zoo.Pure64():
        (trace,) = traced(lm, [TEXT], [[-1]])
    return trace.outputs[0, 0]


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3"])
def test_heads_add_up(name: str) -> None:
    lm = zoo.lm(name)
    with zoo.Pure64():
        (trace,) = traced(lm, [TEXT], [[-1]])
    heads = [(0, h) for h in range(trace.heads.shape[1])]
    whole, nothing = said(lm), said(without_heads(lm, heads))
    parts = sum(whole - said(without_heads(lm, [head])) for head in heads)
    assert np.abs(whole - nothing - parts).max() < 1e-12
    assert np.abs(whole - nothing).max() > 1e-6


def test_no_weight_is_touched_and_none_left_out_is_the_model() -> None:
    lm = zoo.lm("llama")
    before = [p.detach().clone() for p in lm.model.parameters()]
    fewer = without_heads(lm, [(0, 1), (1, 0), (0, 0)])
    sequences = [Scored((1, 2, 3, 4), 2)]
    assert abs(fewer.score(sequences).sums()[0] - lm.score(sequences).sums()[0]) > 1e-9
    assert without_heads(lm, []) is lm
    assert all(torch.equal(a, b) for a, b in zip(before, lm.model.parameters(), strict=True))
    # What is left out twice is left out once, and a second leaving out keeps the first.
    again = without_heads(without_heads(lm, [(0, 1)]), [(1, 0), (0, 0)])
    assert again.score(sequences).sums() == pytest.approx(fewer.score(sequences).sums(), abs=1e-12)


def test_a_model_whose_heads_speak_elsewhere_is_refused() -> None:
    with pytest.raises(ModelError, match="its heads cannot be told apart"):
        without_heads(zoo.lm("bloom"), [(0, 0)])


def test_attending_evenly_is_no_induction() -> None:
    """Where keys say nothing every token in sight gets as much: 1 over how many there are."""
    own = tiny.tiny_lm()
    for layer in own.model.model.layers:
        layer.self_attn.k_proj.weight.data.zero_()
    begun, n = len(own.codec.first), 40
    expected = np.mean([1 / (begun + n + i + 1) for i in range(n - 1)])
    assert np.abs(induction_scores(own) - expected).max() < 1e-6


@pytest.mark.smollm2
def test_a_trained_model_has_heads_that_copy() -> None:
    scores = induction_scores(load_model("smollm2-135m"))
    assert scores.max() > 0.5
    assert np.median(scores) < 0.1


@pytest.mark.parametrize(
    ("name", "projection"), [("llama", "model.layers.0.self_attn.o_proj"), ("gpt2", "transformer.h.0.attn.c_proj")]
)
def test_a_head_left_out_does_not_speak_through_a_change_of_the_projection(name: str, projection: str) -> None:
    lm = zoo.lm(name)
    generator = torch.Generator().manual_seed(0)
    down, up = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((2, 32), (32, 2)))
    changed = replace(lm, delta=Delta({projection: LowRank(down, up, 1.0)}))
    nothing = said(without_heads(changed, [(0, head) for head in range(4)]))
    assert np.abs(nothing - said(without_heads(lm, [(0, head) for head in range(4)]))).max() < 1e-12
    assert torch.equal(changed.delta.low_rank[projection].down, down)


@pytest.mark.parametrize("head", [(0, 4), (3, 0), (0, -1), (-1, 0)])
def test_a_head_that_there_is_not_is_refused(head: tuple[int, int]) -> None:
    with pytest.raises(
        ModelError, match=rf"head {head[1]} of layer {head[0]} was asked for, and llama has 3 layers of 4 heads"
    ):
        without_heads(zoo.lm("llama"), [head])
