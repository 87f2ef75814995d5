"""An MLP under linear self-attention, and descent on an MLP's features: by loops, by autograd, and one as the other."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kshot.seeds import torch_stream
from kshot.synth.networks.featured import as_step, features_of, mlp_and_attention, step_on_features
from kshot.synth.networks.network import Network, parameters
from kshot.synth.oracles import descended, on_features
from kshot.synth.prompts import Source

BLOCK, STEP = mlp_and_attention(2, embedding=6, hidden=9), step_on_features(2, embedding=6, hidden=9)


def weights_of(network: Network) -> dict[str, torch.Tensor]:
    rng = torch_stream(0, "weights")
    return {
        name: tensor.double() + 0.2 * torch.randn(tensor.shape, generator=rng, dtype=torch.float64)
        for name, tensor in network.start(rng).items()
    }


def prompts(pairs: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    found = Source(width=2, pairs=pairs).batch(0, 0, 4)
    return found.xs.double(), found.ys.double()


def gelu(value: float) -> float:
    return value * (1 + math.erf(value / math.sqrt(2))) / 2


def mapped(weights: dict[str, torch.Tensor], token: torch.Tensor) -> torch.Tensor:
    read = weights["read_in.weight"] @ token + weights["read_in.bias"]
    up = weights["up.weight"] @ read + weights["up.bias"]
    active = torch.tensor([gelu(float(value)) for value in up], dtype=torch.float64)
    return read + weights["down.weight"] @ active + weights["down.bias"]


def test_a_block_is_what_its_formula_says() -> None:
    (xs, ys), weights = prompts(), weights_of(BLOCK)
    said = BLOCK.says(weights, xs, ys)
    for b in range(4):
        tokens = [
            mapped(weights, torch.cat([xs[b, j], ys[b, j : j + 1] if j < 5 else torch.zeros(1).double()]))
            for j in range(6)
        ]
        query = tokens[-1]
        seen = sum(
            weights["values"] @ one * ((weights["keys"] @ one) @ (weights["queries"] @ query)) / 5
            for one in tokens[:-1]
        )
        answer = weights["read_out.weight"] @ (query + weights["out"] @ seen) + weights["read_out.bias"]
        assert said[b, 0].item() == pytest.approx(answer.item(), rel=1e-10)


def test_a_step_is_one_of_autograd_on_half_the_mean_square() -> None:
    (xs, ys), weights = prompts(), weights_of(STEP)
    said = STEP.says(weights, xs, ys)
    for b in range(4):
        start = weights["read_out.weight"][0].clone().requires_grad_(True)
        features = torch.stack([mapped(weights, x) for x in xs[b]])
        loss = (features[:-1] @ start - ys[b, :-1]).square().mean() / 2
        (slope,) = torch.autograd.grad(loss, start)
        moved = start.detach() - weights["log_rate"].exp() * slope
        assert said[b, 0].item() == pytest.approx((moved @ features[-1]).item(), rel=1e-10)


def test_from_nothing_it_is_the_rival_that_is_known() -> None:
    (xs, ys), weights = prompts(), weights_of(STEP)
    weights["read_out.weight"] = torch.zeros_like(weights["read_out.weight"])
    known = on_features(descended(float(weights["log_rate"].exp()), 1), lambda xs: features_of(weights, xs))
    assert torch.allclose(STEP.says(weights, xs, ys)[:, 0], known(xs, ys)[:, -1], atol=1e-10)


@settings(max_examples=20)
@given(seed=st.integers(0, 100), pairs=st.integers(2, 9), scale=st.sampled_from([0.1, 1.0, 5.0]))
def test_a_block_with_the_weights_of_the_construction_is_the_step(seed: int, pairs: int, scale: float) -> None:
    rng = torch_stream(seed, "any data")
    xs = scale * torch.randn(3, pairs, 2, generator=rng, dtype=torch.float64)
    ys = torch.randn(3, pairs, generator=rng, dtype=torch.float64)
    weights = weights_of(STEP)
    said = mlp_and_attention(2, embedding=7, hidden=9).says(as_step(weights), xs, ys)
    assert torch.allclose(said, STEP.says(weights, xs, ys), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("network", [BLOCK, STEP], ids=["block", "step"])
def test_prompts_are_sets_by_themselves_without_the_answer(network: Network) -> None:
    (xs, ys), weights = prompts(), weights_of(network)
    said = network.says(weights, xs, ys)
    assert said.shape == (4, 1)
    other = ys.clone()
    other[:, -1] += 3.0
    assert torch.equal(network.says(weights, xs, other), said)
    order = [3, 1, 0, 4, 2, 5]
    assert torch.allclose(network.says(weights, xs[:, order], ys[:, order]), said, atol=1e-12)
    alone = torch.cat([network.says(weights, xs[b : b + 1], ys[b : b + 1]) for b in range(4)])
    assert torch.allclose(alone, said, atol=1e-12)
    other = ys.clone()
    other[:, 0] += 3.0
    assert (network.says(weights, xs, other) - said).abs().min() > 1e-6, "pairs are seen"


@pytest.mark.parametrize("network", [BLOCK, STEP], ids=["block", "step"])
def test_every_weight_is_learned(network: Network) -> None:
    weights = {name: tensor.requires_grad_(True) for name, tensor in weights_of(network).items()}
    network.says(weights, *prompts()).square().sum().backward()
    assert [name for name, tensor in weights.items() if tensor.grad is None or not tensor.grad.abs().sum() > 0] == []


def test_sizes_as_published() -> None:
    mlp = 40 * 160 + 160 + 160 * 40 + 40
    block, step = (network(1).start(torch_stream(0, "s")) for network in (mlp_and_attention, step_on_features))
    assert parameters(block) == (2 * 40 + 40) + mlp + 4 * 40 * 40 + 41
    assert parameters(step) == (40 + 40) + mlp + 40 + 1
