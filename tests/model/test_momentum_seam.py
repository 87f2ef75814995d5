"""Momentum attention in models that were trained without: every answer as whole sequences with the double sum give it."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from torch import Tensor

from kshot.errors import ModelError
from kshot.model.attention import Before, Pass, with_momentum
from kshot.model.hidden import last_hidden
from kshot.model.lm import LM
from kshot.model.momentum import Momentum
from kshot.model.prefix import EMPTY
from kshot.model.surgery import read_apart, read_through
from kshot.model.tree import Scored

NAMES = ("llama", "gemma3", "qwen3")
LAYERS, GROUPS, HEADS = 3, 2, 4
DECAY = torch.tensor([[0.3, 0.6], [0.9, 0.99], [0.5, 0.8]], dtype=torch.float64)
GATE = torch.tensor([[1.0, -0.5], [0.2, 0.1], [0.0, 2.0]], dtype=torch.float64)
KEYS = [Momentum(DECAY, kind="momentum-keys"), Momentum(DECAY, GATE, kind="momentum-keys")]


@pytest.fixture(autouse=True)
def pure() -> Iterator[None]:
    with zoo.Pure64():
        yield


def weights(momentum: Momentum, layer: int, group: int, t: int) -> Tensor:
    """(t, t): how much of each token before is added at a token, as published: power by power of the decay."""
    eta = float(momentum.decay[layer, group])
    gate = 1.0 if momentum.gate is None else float(momentum.gate[layer, group])
    rows = [[eta ** (at - i) if i < at else 0.0 for i in range(t)] for at in range(t)]
    found = torch.tensor(rows, dtype=torch.float64)
    if momentum.kind == "momentum-normalised":
        found = torch.cat([found[:1], found[1:] / found[1:].sum(-1, keepdim=True)])
    return gate * found


def whole_sum(values: Tensor, momentum: Momentum, layer: int) -> Tensor:
    """Of values (b, t, g d) of a layer what is added to its heads, (b, t, h d)."""
    own = values.unflatten(-1, (GROUPS, -1))
    each = [weights(momentum, layer, group, own.shape[1]) @ own[:, :, group] for group in range(GROUPS)]
    return torch.cat([each[head // (HEADS // GROUPS)] for head in range(HEADS)], dim=-1)


@contextmanager
def by_turning(lm: LM, momentum: Momentum) -> Iterator[None]:
    """The same model with the sum of keys added where they have been turned by their positions, layer after layer."""
    module, layer = sys.modules[type(lm.model).__module__], count()
    turn = module.apply_rotary_pos_emb

    def turned(*given: Any, **more: Any) -> tuple[Tensor, Tensor]:
        query, key = turn(*given, **more)
        at, t = next(layer) % LAYERS, key.shape[2]
        added = [weights(momentum, at, group, t) @ key[:, group] for group in range(GROUPS)]
        return query, key + torch.stack(added, 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "apply_rotary_pos_emb", turned)
        yield


@contextmanager
def by_hooks(lm: LM, momentum: Momentum) -> Iterator[None]:
    """The same model with the sum put between attention and its output projection, whole sequences at a time."""
    if momentum.kind == "momentum-keys":
        with by_turning(lm, momentum):
            yield
        return
    handles: list[Any] = []
    for layer, block in enumerate(lm.model.model.layers):
        held: list[Tensor] = []

        def keep(module: Any, given: Any, said: Tensor, held: list[Tensor] = held) -> None:
            held[:] = [said]

        def add(module: Any, given: Any, held: list[Tensor] = held, layer: int = layer) -> Any:
            return (given[0] + whole_sum(held[0], momentum, layer), *given[1:])

        handles.append(block.self_attn.v_proj.register_forward_hook(keep))
        handles.append(block.self_attn.o_proj.register_forward_pre_hook(add))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def expected(lm: LM, momentum: Momentum, sequences: Sequence[Scored]) -> np.ndarray:
    with torch.no_grad(), by_hooks(lm, momentum):
        found: np.ndarray = zoo.judge(lm.model, sequences).numpy()
    return found


@pytest.mark.parametrize(
    "momentum", [Momentum(DECAY), Momentum(DECAY, GATE), Momentum(DECAY, kind="momentum-normalised"), *KEYS]
)
@pytest.mark.parametrize("name", NAMES)
def test_packed_branches_after_a_prefix(name: str, momentum: Momentum) -> None:
    lm = replace(zoo.lm(name), momentum=momentum, tokens_per_pack=64)
    sequences = zoo.forest(np.random.default_rng(0), 21, 4)
    right = expected(lm, momentum, sequences)
    assert np.abs(lm.score(sequences).sums() - right).max() < 1e-9
    assert np.abs(lm.score(sequences, lm.prefill(sequences[0].tokens[:12])).sums() - right).max() < 1e-9


@pytest.mark.parametrize("momentum", [Momentum(DECAY, GATE), Momentum(DECAY, kind="momentum-normalised"), *KEYS])
def test_token_by_token_it_needs_one_vector_a_head_of_what_stands_before(momentum: Momentum) -> None:
    lm = replace(zoo.lm("llama"), momentum=momentum, tokens_per_pack=5)
    tokens = np.random.default_rng(0).integers(3, zoo.VOCABULARY, size=24).tolist()
    right = expected(lm, momentum, [Scored(tuple(tokens), 1)])
    prefix, found = lm.prefill(tokens[:8]), 0.0
    assert prefix.carried is not None
    logits, prefix = lm.read_on(tokens[8:9], prefix)
    for at in range(9, 24):
        found += float(logits.double().log_softmax(-1)[tokens[at]])
        logits, prefix = lm.read_on(tokens[at : at + 1], prefix)
        assert prefix.carried is not None
        for layer, own in enumerate(prefix.carried):
            assert own.shape == prefix.values[layer][:, :, 0].shape
            from_all = momentum.carried(prefix.keys[layer], prefix.values[layer], layer, None)
            assert (own - from_all).abs().max() < 1e-10
    whole = lm.score([Scored(tuple(tokens), 9)]).sums()[0]
    assert found == pytest.approx(whole, abs=1e-9)
    assert lm.score([Scored(tuple(tokens), 1)]).sums()[0] == pytest.approx(right[0], abs=1e-9)
    assert prefix.cut(10).carried is None, "what stands before fewer tokens is another vector"


@pytest.mark.parametrize("momentum", [Momentum(DECAY), *KEYS])
def test_several_prefixes_in_one_pass(momentum: Momentum) -> None:
    lm = replace(zoo.lm("llama"), momentum=momentum)
    groups = [zoo.forest(np.random.default_rng(seed), length, 2) for seed, length in ((1, 9), (2, 17))]
    found = lm.score_together([(own, lm.prefill(own[0].tokens[:5])) for own in groups])
    right = np.concatenate([expected(lm, momentum, own) for own in groups])
    assert np.abs(found.sums() - right).max() < 1e-9


@pytest.mark.parametrize("momentum", [Momentum(DECAY, GATE), *KEYS])
def test_rows_of_a_batch(momentum: Momentum) -> None:
    lm = zoo.lm("llama")
    tokens = torch.randint(3, zoo.VOCABULARY, (3, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        with by_hooks(lm, momentum):
            right = lm.model(input_ids=tokens, use_cache=False).logits
        with with_momentum(momentum):
            found = lm.model(input_ids=tokens, use_cache=False).logits
        plain = lm.model(input_ids=tokens, use_cache=False).logits
    assert (found - right).abs().max() < 1e-9
    assert (plain - right).abs().max() > 1e-3


def test_a_gate_of_zero_changes_nothing_and_learns() -> None:
    lm = zoo.lm("llama")
    sequences = zoo.forest(np.random.default_rng(3), 9, 3)
    gate = torch.zeros(LAYERS, GROUPS, dtype=torch.float64, requires_grad=True)
    gated = replace(lm, momentum=Momentum(DECAY, gate))
    assert np.array_equal(gated.score(sequences).sums(), lm.score(sequences).sums())
    with torch.enable_grad():
        total = sum(part.logprobs().sum() for part in gated.stream(sequences))
    (slope,) = torch.autograd.grad(total, gate)
    for layer, group in np.ndindex(LAYERS, GROUPS):
        step = torch.zeros_like(gate)
        step[layer, group] = 1e-5
        up, down = (replace(lm, momentum=Momentum(DECAY, way * step)).score(sequences).sums().sum() for way in (1, -1))
        assert float(slope[layer, group]) == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-6)


def test_hidden_states_are_those_of_momentum_attention() -> None:
    lm = zoo.lm("llama")
    texts = [(4, 5, 6, 7, 8), (4, 5, 9)]
    with_sum = replace(lm, momentum=Momentum(DECAY))
    alone = np.concatenate([last_hidden(with_sum, [text])[0] for text in texts])
    assert np.abs(last_hidden(with_sum, texts)[0] - alone).max() < 1e-5
    assert np.abs(last_hidden(lm, texts)[0] - alone).max() > 1e-3


def test_a_model_whose_attention_cannot_be_reached_is_refused() -> None:
    lm = replace(zoo.lm("gptj"), momentum=Momentum(DECAY))
    with pytest.raises(ModelError, match="has no attention that momentum could be added to"):
        lm.score([Scored((3, 4, 5), 1)])


@pytest.mark.parametrize("gate", [None, GATE])
def test_a_plain_causal_call_is_with_momentum_too(gate: Tensor | None) -> None:
    lm = replace(zoo.lm("llama"), momentum=Momentum(DECAY, gate))
    tokens = np.random.default_rng(0).integers(3, zoo.VOCABULARY, size=20)
    rows = np.array([7, 19])
    with torch.no_grad():
        found = lm.forward(tokens, None, rows)
        packed = Pass((Before(EMPTY, 0, 20),), np.arange(20), np.full(20, 20))
        assert (found - lm.forward(tokens, packed, rows)).abs().max() < 1e-9
        assert (found - replace(lm, momentum=None).forward(tokens, None, rows)).abs().max() > 1e-3


@pytest.mark.parametrize("momentum", [Momentum(DECAY, GATE), *KEYS])
def test_greedy_answers_grow_with_it(momentum: Momentum) -> None:
    lm = replace(zoo.lm("llama"), momentum=momentum)
    prompts = [(5, 6, 7, 8, 9), (5, 6, 11), (5, 6, 7, 12)]
    found = lm.greedy(prompts, lambda _: False, 6).texts
    for prompt, answer in zip(prompts, found, strict=True):
        tokens: tuple[int, ...] = prompt
        with torch.no_grad():
            for _ in range(6):
                best = int(lm.forward(np.array(tokens), None, np.array([len(tokens) - 1]))[0].argmax())
                if best in lm.ends:
                    break
                tokens = (*tokens, best)
        assert answer == lm.codec.decode(tokens[len(prompt) :])


def test_keys_that_hold_those_before_them_are_not_moved() -> None:
    lm = replace(zoo.lm("llama"), momentum=KEYS[0])
    for intervene in (read_through, partial(read_apart, owner=np.array([0, 0, 1, 1]))):
        with pytest.raises(ModelError, match="hold those of the tokens before them: nothing in it can be moved"):
            intervene(lm, (3, 4, 5, 6))


def test_features_of_a_model_whose_attention_cannot_be_reached_are_refused() -> None:
    lm = replace(zoo.lm("gptj"), momentum=Momentum(DECAY))
    with pytest.raises(ModelError, match="has no attention that momentum could be added to"):
        last_hidden(lm, [(3, 4, 5)])
