"""Demonstrations read apart, grafted and moved: against whole sequences with a mask of their own, and text in that order."""

import numpy as np
import pytest
import torch
import zoo

from kshot.errors import ModelError
from kshot.model.lm import LM
from kshot.model.surgery import grafted, moved, read_apart, read_through, turned
from kshot.model.tree import Scored

HEAD, LENGTHS = 2, (5, 3, 7)
OWNER = np.array([-1] * HEAD + [i for i, n in enumerate(LENGTHS) for _ in range(n)])
TOKENS = tuple(np.random.default_rng(3).integers(3, zoo.VOCABULARY, len(OWNER)).tolist())
QUERY = (9, 8, 7, 6)
TURNED = ["llama", "llama-rope3", "qwen2", "qwen3", "mistral", "gemma3", "phi3", "gpt-neox"]
NOT_TURNED = ["gpt2", "opt"]


def blocks(tokens: tuple[int, ...], order: tuple[int, ...]) -> tuple[int, ...]:
    """The demonstrations of a text in another order, after what stands before them."""
    own = np.array(tokens)
    return (*own[OWNER < 0].tolist(), *(token for i in order for token in own[i == OWNER].tolist()))


def masked(lm: LM, tokens: tuple[int, ...], sees: np.ndarray) -> torch.Tensor:
    """The logits of the model's own forward of a whole sequence, each token seeing what the table says."""
    mask = torch.zeros(1, 1, *sees.shape, dtype=torch.float64).masked_fill_(~torch.from_numpy(sees), -torch.inf)
    return lm.model(input_ids=torch.tensor([tokens]), attention_mask=mask, use_cache=False).logits[0]


@pytest.mark.parametrize("name", ["llama", "llama-rope3", "gpt2", "gpt-neox", "qwen3"])
def test_a_query_after_demonstrations_read_apart_is_that_of_a_mask_of_blocks(name: str) -> None:
    lm = zoo.lm(name)
    n = len(TOKENS)
    owner = np.concatenate([OWNER, np.full(len(QUERY), len(LENGTHS))])
    sees = np.tri(n + len(QUERY), dtype=bool)
    apart = (owner[:, None] != owner[None, :]) & (owner[None, :] >= 0) & (owner[:, None] < len(LENGTHS))
    with torch.no_grad(), zoo.Pure64():
        logits = masked(lm, TOKENS + QUERY, sees & ~apart)
        expected = logits[n - 1 + 1, QUERY[1]] - logits[n - 1 + 1].logsumexp(-1)
        found = lm.score([Scored(QUERY[:2], 1)], read_apart(lm, TOKENS, OWNER)).sums()
        whole = lm.score([Scored(QUERY[:2], 1)], read_through(lm, TOKENS)).sums()
    assert found[0] == pytest.approx(float(expected), abs=1e-9)
    assert abs(whole[0] - found[0]) > 1e-4


@pytest.mark.parametrize("name", zoo.TREE)
def test_a_single_demonstration_apart_is_read_as_ever(name: str) -> None:
    lm = zoo.lm(name)
    with zoo.Pure64():
        apart, through = read_apart(lm, TOKENS, np.minimum(OWNER, 0)), read_through(lm, TOKENS)
    for one, other in zip((*apart.keys, *apart.values), (*through.keys, *through.values), strict=True):
        assert torch.allclose(one, other, atol=1e-10)
    assert apart.tokens is None
    assert through.tokens is None


@pytest.mark.parametrize("name", TURNED)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_demonstrations_apart_and_moved_are_those_read_there(name: str, order: tuple[int, ...]) -> None:
    lm = zoo.lm(name)
    # Nothing stands before them: what does is nearer to some than to others.
    tokens, owner = TOKENS[HEAD:], OWNER[HEAD:]
    there = tuple(t for i in order for t in np.array(tokens)[owner == i].tolist())
    places = np.repeat(np.arange(len(order)), [LENGTHS[i] for i in order])
    with zoo.Pure64():
        found = moved(lm, read_apart(lm, tokens, owner), owner, order)
        expected = read_apart(lm, there, places)
    for one, other in zip((*found.keys, *found.values), (*expected.keys, *expected.values), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("name", TURNED)
def test_moved_demonstrations_keep_what_they_read(name: str) -> None:
    lm, order = zoo.lm(name), (2, 0, 1)
    with zoo.Pure64():
        read = read_through(lm, TOKENS)
        found, there = moved(lm, read, OWNER, order), read_through(lm, blocks(TOKENS, order))
    # In the first layer a key tells its token and its position only; values anywhere tell what was read.
    assert torch.allclose(found.keys[0], there.keys[0], atol=1e-6)
    assert not torch.allclose(found.values[-1], there.values[-1], atol=1e-3)
    own = np.concatenate([np.flatnonzero(i == OWNER) for i in (-1, *order)])
    assert torch.equal(found.values[-1], read.values[-1][:, :, own])


def test_turning_there_and_back_is_nothing() -> None:
    lm = zoo.lm("llama")
    with zoo.Pure64():
        keys = read_through(lm, TOKENS).keys
        by = np.arange(len(TOKENS)) * 3 - 20
        again = turned(lm, turned(lm, keys, by), -by)
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(keys, again, strict=True))


@pytest.mark.parametrize("name", NOT_TURNED)
def test_positions_that_are_no_turn_are_said(name: str) -> None:
    with pytest.raises(ModelError, match=f"keys of {name} cannot be moved"):
        moved(zoo.lm(name), read_through(zoo.lm(name), TOKENS), OWNER, (1, 0, 2))


def test_a_model_read_whole_is_said() -> None:
    with pytest.raises(ModelError, match="reads every sequence whole"):
        read_apart(zoo.lm("gptj"), TOKENS, OWNER)


def test_a_graft_changes_these_positions_and_no_others() -> None:
    lm = zoo.lm("llama")
    own, donor = read_through(lm, TOKENS), read_through(lm, TOKENS[::-1])
    found = grafted(own, donor, [4, 9])
    for mixed, one, other in zip(
        (*found.keys, *found.values), (*own.keys, *own.values), (*donor.keys, *donor.values), strict=True
    ):
        at = np.isin(np.arange(len(TOKENS)), [4, 9])
        assert torch.equal(mixed[:, :, at], other[:, :, at])
        assert torch.equal(mixed[:, :, ~at], one[:, :, ~at])
    everything = grafted(own, donor, range(len(TOKENS)))
    assert all(torch.equal(one, other) for one, other in zip(everything.keys, donor.keys, strict=True))
