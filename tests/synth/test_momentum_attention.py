"""Momentum in layers of linear self-attention: over passes it is heavy-ball, over tokens a decayed sum of values."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kshot.seeds import torch_stream
from kshot.synth.networks.linear_attention import Momentum, as_descent, linear_attention
from kshot.synth.oracles import descended
from kshot.synth.prompts import Source


def weights_of(momentum: Momentum, *, layers: int = 2, heads: int = 2, shared: bool = False) -> dict[str, torch.Tensor]:
    rng = torch_stream(0, "start", momentum)
    network = linear_attention(3, layers=layers, heads=heads, shared=shared, momentum=momentum)
    weights = {name: 30 * tensor.double() for name, tensor in network.start(rng).items()}
    return weights | {"decay": torch.randn(weights["decay"].shape, generator=rng, dtype=torch.float64)}


def prompts() -> tuple[torch.Tensor, torch.Tensor]:
    found = Source(width=3, pairs=5).batch(0, 0, 3)
    return found.xs.double(), found.ys.double()


@settings(max_examples=40)
@given(
    width=st.integers(1, 5), pairs=st.integers(1, 8), steps=st.integers(1, 5), momentum=st.sampled_from([0.1, 0.5, 0.9]),
    rate=st.sampled_from([0.05, 0.3]), seed=st.integers(0, 5),
)  # fmt: skip
def test_over_passes_it_is_descent_with_momentum_for_any_data(
    width: int, pairs: int, steps: int, momentum: float, rate: float, seed: int
) -> None:
    rng = torch_stream(seed, "any data")
    xs = torch.rand(4, pairs + 1, width, generator=rng, dtype=torch.float64) - 0.5
    ys = torch.randn(4, pairs + 1, generator=rng, dtype=torch.float64)
    weights = as_descent(width, pairs, rate, steps=steps, momentum=momentum)
    said = linear_attention(width, layers=steps, momentum="passes").says(weights, xs, ys)[:, 0]
    rival = descended(rate, steps, momentum=momentum)(xs, ys)[:, -1]
    assert torch.allclose(said, rival, rtol=1e-10, atol=1e-10)


def test_over_tokens_it_is_what_its_formula_says() -> None:
    (xs, ys), weights = prompts(), weights_of("tokens")
    said = linear_attention(3, layers=2, heads=2, momentum="tokens").says(weights, xs, ys)
    own = {name: tensor.numpy() for name, tensor in weights.items()}
    decays = 1 / (1 + np.exp(-own["decay"]))
    for b in range(3):
        tokens = [np.append(xs[b, j].numpy(), ys[b, j].item() if j < 4 else 0.0) for j in range(5)]
        for layer in range(2):
            later = []
            for t, token in enumerate(tokens):
                for h in range(2):
                    k, q, v, p = (own[name][layer, h] for name in ("keys", "queries", "values", "out"))
                    token = token + sum(p @ (v @ tokens[j]) * ((k @ tokens[j]) @ (q @ tokens[t])) for j in range(4))
                    token = token + sum(
                        (decays[layer, h] ** (t - i) * p @ (v @ tokens[i]) for i in range(t)), 0 * token
                    )
                later.append(token)
            tokens = later
        assert said[b, 0].item() == pytest.approx(-tokens[-1][-1], rel=1e-10)


@pytest.mark.parametrize("momentum", ["tokens", "passes"])
def test_without_decay_it_is_the_layer_alone(momentum: Momentum) -> None:
    (xs, ys), weights = prompts(), weights_of(momentum)
    without = linear_attention(3, layers=2, heads=2).says(weights, xs, ys)
    network = linear_attention(3, layers=2, heads=2, momentum=momentum)
    assert (network.says(weights, xs, ys) - without).abs().max() > 1e-6
    none = weights | {"decay": torch.full_like(weights["decay"], -torch.inf)}
    assert torch.allclose(network.says(none, xs, ys), without, atol=1e-12)


@pytest.mark.parametrize(("momentum", "ordered"), [("tokens", True), ("passes", False)])
def test_order_counts_where_it_is_said_to(momentum: Momentum, ordered: bool) -> None:
    (xs, ys), weights = prompts(), weights_of(momentum)
    network = linear_attention(3, layers=2, heads=2, momentum=momentum)
    assert network.ordered == ordered
    order = [3, 1, 0, 2, 4]
    said, other = network.says(weights, xs, ys), network.says(weights, xs[:, order], ys[:, order])
    assert torch.allclose(said, other, atol=1e-12) != ordered
    hidden = ys.clone()
    hidden[:, -1] += 2.0
    assert torch.equal(network.says(weights, xs, hidden), said), "the last answer is not seen"


@pytest.mark.parametrize(("momentum", "shape"), [("tokens", (1, 2)), ("passes", (1, 1))])
def test_decays_begin_at_a_half_and_are_learned(momentum: Momentum, shape: tuple[int, int]) -> None:
    network = linear_attention(3, layers=2, heads=2, shared=True, momentum=momentum)
    start = network.start(torch_stream(0, "start"))
    assert start["decay"].shape == shape
    assert (start["decay"].sigmoid() == 0.5).all()
    weights = {name: tensor.requires_grad_(True) for name, tensor in weights_of(momentum, shared=True).items()}
    network.says(weights, *prompts()).square().sum().backward()
    assert all(tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in weights.values())


def test_in_one_pass_the_sum_says_the_same_of_a_query_and_of_its_opposite() -> None:
    (xs, ys), weights = prompts(), weights_of("tokens", layers=1)
    opposite = torch.cat([xs[:, :-1], -xs[:, -1:]], dim=1)
    network, alone = linear_attention(3, heads=2, momentum="tokens"), linear_attention(3, heads=2)
    added = [network.says(weights, own, ys) - alone.says(weights, own, ys) for own in (xs, opposite)]
    assert added[0].abs().min() > 1e-6
    assert torch.allclose(*added, atol=1e-12)
