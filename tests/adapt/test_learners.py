"""What is learned, before its first step: shapes, kinds and starts."""

import pytest
import torch
import zoo
from hypothesis import given
from hypothesis import strategies as st

from kshot.adapt.learners import (
    cut_or_repeated,
    finished,
    free_prefix,
    leaf_type,
    low_rank,
    mapped_prefix,
    random_prefix,
    soft_rows,
    whole_weights,
)
from kshot.model.lm import LM

ALL = ("llama", "gpt2", "gemma3", "deepseek-mla")


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_leaves_are_float32_at_least_and_the_model_reads_its_own(dtype: torch.dtype, kept: torch.dtype) -> None:
    lm = zoo.lm("llama", dtype, check=False)
    assert leaf_type(lm) == kept
    start = lm.prefill((3, 4, 5))
    made = [soft_rows(lm, lm.embedded((3, 4))), free_prefix(lm, start), low_rank(lm, ("q_proj",), 2, 4.0, seed=0),
            whole_weights(lm, ("k_proj",)), mapped_prefix(lm, start, 4, seed=0, from_nothing=True)]  # fmt: skip
    for learner in made:
        assert {leaf.dtype for leaf in learner.leaves.values()} == {kept}
        placed = learner.placed(learner.leaves)
        read = [*placed.prefix.keys, *placed.prefix.values, *placed.delta.dense.values()]
        assert {tensor.dtype for tensor in read} <= {dtype}
        assert learner.parameters == sum(leaf.numel() for leaf in learner.leaves.values())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("network", [0, 5])
def test_a_prefix_begins_as_what_it_begins_from(name: str, network: int) -> None:
    """Through its network too, to the bit: keys and values of other widths among them."""
    lm = zoo.lm(name)
    start = lm.prefill((3, 4, 5, 6))
    learner = mapped_prefix(lm, start, network, seed=0, from_nothing=False) if network else free_prefix(lm, start)
    found = finished(lm, learner, learner.leaves).prefix
    assert found.tokens is None
    assert found.length == 4
    for a, b in zip((*found.keys, *found.values), (*start.keys, *start.values), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ALL)
def test_a_random_prefix_has_each_layers_measure(name: str) -> None:
    lm = zoo.lm(name)
    like = lm.prefill(range(3, 40))
    found = random_prefix(lm, like, 400, seed=0)
    for a, b in zip((*found.keys, *found.values), (*like.keys, *like.values), strict=True):
        assert a.shape == (1, b.shape[1], 400, b.shape[3])
        assert float(a.std()) == pytest.approx(float(b.std()), rel=0.05)
        assert float(a.mean()) == pytest.approx(float(b.mean()), abs=0.05 * float(b.std()))
    again, other = random_prefix(lm, like, 400, seed=0), random_prefix(lm, like, 400, seed=1)
    assert torch.equal(again.keys[0], found.keys[0])
    assert not torch.equal(other.keys[0], found.keys[0])


def test_what_is_finished_has_no_graph_and_keeps_its_rows(tiny_lm: LM) -> None:
    learner = soft_rows(tiny_lm, tiny_lm.embedded((3, 4)))
    leaves = {name: leaf.clone().requires_grad_(True) for name, leaf in learner.leaves.items()}
    found = finished(tiny_lm, learner, leaves).prefix
    assert torch.equal(found.embeddings, learner.leaves["prompt"])
    assert not any(t.requires_grad for t in (*found.keys, *found.values, found.embeddings))
    read = tiny_lm.prefill((3, 4))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found.keys, read.keys, strict=True))


def test_thin_matrices_begin_within_their_bound(tiny_lm: LM) -> None:
    learner = low_rank(tiny_lm, ("all-linear",), 64, 16.0, seed=0)
    for name, leaf in learner.leaves.items():
        if name.endswith(".up"):
            assert not leaf.any()
        else:
            bound = leaf.shape[1] ** -0.5
            assert 0.9 * bound < float(leaf.abs().max()) <= bound
    downs = [leaf for name, leaf in learner.leaves.items() if name.endswith("q_proj.down")]
    assert not torch.equal(*downs[:2]), "layers are drawn apart"


@given(tokens=st.lists(st.integers(), min_size=1, max_size=9), length=st.integers(0, 30))
def test_cut_or_repeated(tokens: list[int], length: int) -> None:
    found = cut_or_repeated(tokens, length)
    assert found == tuple((tokens * 31)[:length])
