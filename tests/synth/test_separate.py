"""Inputs and answers as tokens of their own: by loops, what each token sees, and the weights that are descent."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kshot.seeds import torch_stream
from kshot.synth.networks.separate import as_copy_and_descent, attention, separate_tokens
from kshot.synth.oracles import descended
from kshot.synth.prompts import Source

NETWORK = separate_tokens(3, place=4, keys=5)


def weights_of(scale: float = 1.0) -> dict[str, torch.Tensor]:
    start = NETWORK.start(torch_stream(0, "start"))
    return {name: 2.0 * scale * tensor.double() for name, tensor in start.items()}


def prompts() -> tuple[torch.Tensor, torch.Tensor]:
    found = Source(width=3, pairs=5).batch(0, 0, 4)
    return found.xs.double(), found.ys.double()


def obvious_tokens(xs: np.ndarray, ys: np.ndarray, place: int) -> np.ndarray:
    """x, y, x ... x, and sines and cosines of where they stand."""
    rates = 2 * np.pi / 2.0 ** np.arange(1, place // 2 + 1)
    rows = []
    for t in range(2 * len(xs) - 1):
        content = np.append(xs[t // 2], 0.0) if t % 2 == 0 else np.append(0 * xs[0], ys[t // 2])
        rows.append(np.concatenate([content, np.sin(t * rates), np.cos(t * rates)]))
    return np.array(rows)


def test_it_is_what_its_formula_says() -> None:
    (xs, ys), weights = prompts(), weights_of()
    said, seen = NETWORK.says(weights, xs, ys), attention(weights, xs, ys, place=4)
    own = {name: tensor.numpy() for name, tensor in weights.items()}
    for b in range(4):
        tokens = obvious_tokens(xs[b].numpy(), ys[b].numpy(), 4)
        later = tokens.copy()
        for t, token in enumerate(tokens):
            scores = np.array([(own["queries"][0] @ token) @ (own["keys"][0] @ one) for one in tokens[:-1]])
            shares = np.exp(scores) / np.exp(scores).sum()
            assert seen[b, t].numpy() == pytest.approx(shares, abs=1e-12)
            later[t] = token + own["out"][0] @ own["values"][0] @ (shares @ tokens[:-1])
        query = later[-1]
        change = sum(
            own["out"][1] @ own["values"][1] @ one * ((own["keys"][1] @ one) @ (own["queries"][1] @ query))
            for one in later[:-1]
        )
        assert said[b, 0].item() == pytest.approx((query + change)[3], rel=1e-10)


@settings(max_examples=40)
@given(
    width=st.integers(1, 6), pairs=st.integers(1, 12), rate=st.sampled_from([0.05, 0.3, -1.0]), seed=st.integers(0, 5)
)
def test_copying_and_a_step_are_descent_for_any_data(width: int, pairs: int, rate: float, seed: int) -> None:
    rng = torch_stream(seed, "any data")
    xs = torch.randn(4, pairs + 1, width, generator=rng, dtype=torch.float64)
    ys = torch.randn(4, pairs + 1, generator=rng, dtype=torch.float64)
    said = separate_tokens(width).says(as_copy_and_descent(width, pairs, rate), xs, ys)[:, 0]
    assert torch.allclose(said, descended(rate, 1)(xs, ys)[:, -1], rtol=1e-10, atol=1e-10)


def test_weights_that_copy_hear_the_input_before_every_answer() -> None:
    xs, ys = prompts()
    seen = attention(as_copy_and_descent(3, 4, 0.3), xs, ys)
    assert seen.shape == (4, 9, 8)
    assert torch.allclose(seen.sum(dim=2), torch.ones(4, 9, dtype=torch.float64))
    for pair in range(4):
        assert seen[:, 2 * pair + 1, 2 * pair].min() > 1 - 1e-12
    blunt = attention(as_copy_and_descent(3, 4, 0.3, sharp=1.0), xs, ys)
    assert blunt[:, 1, 0].max() < 0.9


def test_prompts_are_by_themselves_in_order_and_without_the_answer() -> None:
    (xs, ys), weights = prompts(), weights_of()
    assert NETWORK.ordered
    assert not NETWORK.causal
    said = NETWORK.says(weights, xs, ys)
    assert said.shape == (4, 1)
    other = ys.clone()
    other[:, -1] += 3.0
    assert torch.equal(NETWORK.says(weights, xs, other), said)
    alone = torch.cat([NETWORK.says(weights, xs[b : b + 1], ys[b : b + 1]) for b in range(4)])
    assert torch.allclose(alone, said, atol=1e-12)
    order = [3, 1, 0, 2, 4]
    assert (NETWORK.says(weights, xs[:, order], ys[:, order]) - said).abs().max() > 1e-6
    for which in range(4):
        other = ys.clone()
        other[:, which] += 3.0
        assert (NETWORK.says(weights, xs, other) - said).abs().max() > 1e-6, "every pair is seen"


def test_every_weight_is_learned() -> None:
    weights = {name: tensor.requires_grad_(True) for name, tensor in weights_of().items()}
    NETWORK.says(weights, *prompts()).square().sum().backward()
    for name, tensor in weights.items():
        assert tensor.grad is not None
        assert (tensor.grad.abs().flatten(1).sum(dim=1) > 0).all(), name
