"""Linear self-attention is gradient descent: to rounding with the weights of the construction, for any data."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kshot.seeds import torch_stream
from kshot.synth.networks.linear_attention import as_descent, at_one_scale, halfway, linear_attention, matrices
from kshot.synth.networks.network import parameters
from kshot.synth.optima import Tuned, each_tuned, one_step, tuned
from kshot.synth.oracles import descended
from kshot.synth.prompts import Source


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 6), pairs=st.integers(1, 8), steps=st.integers(1, 4), shrink=st.sampled_from([0.0, 0.1, -0.3]),
    rate=st.sampled_from([0.05, 0.3, -1.0]), scale=st.sampled_from([0.01, 1.0]), seed=st.integers(0, 5),
)  # fmt: skip
def test_the_construction_is_gradient_descent_for_any_data(
    width: int, pairs: int, steps: int, shrink: float, rate: float, scale: float, seed: int
) -> None:
    rng = torch_stream(seed, "any data")
    # Answers that no linear function gives.
    xs = scale * torch.randn(4, pairs + 1, width, generator=rng, dtype=torch.float64)
    ys = torch.randn(4, pairs + 1, generator=rng, dtype=torch.float64)
    weights = as_descent(width, pairs, rate, steps=steps, shrink=shrink)
    said = linear_attention(width, layers=steps).says(weights, xs, ys)[:, 0]
    rival = descended(rate, steps, shrink=shrink)(xs, ys)[:, -1]
    assert torch.allclose(said, rival, rtol=1e-10, atol=1e-10)


def test_a_layer_is_what_its_formula_says() -> None:
    width, heads = 3, 2
    network = linear_attention(width, layers=2, heads=heads)
    weights = {name: 30 * tensor.double() for name, tensor in network.start(torch_stream(0, "start")).items()}
    source = Source(width=width, pairs=5).batch(0, 0, 2)
    xs, ys = source.xs.double(), source.ys.double()
    said = network.says(weights, xs, ys)
    for b in range(2):
        tokens = [np.append(xs[b, j].numpy(), ys[b, j].item() if j < 4 else 0.0) for j in range(5)]
        for layer in range(2):
            own = {name: tensor[layer].numpy() for name, tensor in weights.items()}
            tokens = [
                e
                + sum(
                    own["out"][h] @ (own["values"][h] @ tokens[j]) * ((own["keys"][h] @ tokens[j]) @ (own["queries"][h] @ e))
                    for h in range(heads)
                    for j in range(4)
                )
                for e in tokens
            ]  # fmt: skip
        assert said[b, 0].item() == pytest.approx(-tokens[-1][-1], rel=1e-10)


def test_the_answer_of_the_query_is_not_seen_and_the_order_of_pairs_changes_nothing() -> None:
    network = linear_attention(4, layers=2, heads=2)
    weights = {name: 20 * tensor.double() for name, tensor in network.start(torch_stream(0, "start")).items()}
    found = Source(width=4, pairs=6).batch(0, 0, 3)
    xs, ys = found.xs.double(), found.ys.double()
    said = network.says(weights, xs, ys)
    assert said.abs().min() > 1e-6, "it says something"
    other = ys.clone()
    other[:, -1] += 5.0
    assert torch.equal(network.says(weights, xs, other), said)
    order = [3, 1, 0, 4, 2, 5]
    assert torch.allclose(network.says(weights, xs[:, order], ys[:, order]), said, atol=1e-12)


def test_shared_weights_are_the_same_layer_again() -> None:
    shared, own = linear_attention(4, layers=3, shared=True), linear_attention(4, layers=3)
    weights = {name: 20 * tensor for name, tensor in shared.start(torch_stream(0, "start")).items()}
    found = Source(width=4, pairs=6).batch(0, 0, 3)
    repeated = {name: tensor.expand(3, -1, -1, -1) for name, tensor in weights.items()}
    assert parameters(own.start(torch_stream(0, "start"))) == 3 * parameters(weights)
    assert torch.allclose(shared.says(weights, found.xs, found.ys), own.says(repeated, found.xs, found.ys), atol=1e-6)


def test_what_runs_away_is_held() -> None:
    weights = as_descent(2, 5, 1e4, steps=4)
    found = Source(width=2, pairs=6).batch(0, 0, 3)
    xs, ys = found.xs.double(), found.ys.double()
    assert linear_attention(2, layers=4).says(weights, xs, ys).abs().max() > 1e6
    assert linear_attention(2, layers=4, bound=10.0).says(weights, xs, ys).abs().max() <= 10.0


def test_matrices_are_all_that_counts() -> None:
    weights = as_descent(2, 5, 0.5)
    asks, adds = matrices(weights)
    assert torch.equal(asks[0], torch.diag(torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)))
    assert torch.equal(adds[0], torch.diag(torch.tensor([0.0, 0.0, -0.1], dtype=torch.float64)))


@pytest.mark.parametrize(
    ("reach", "rate", "loss", "of_nothing"),
    [(1.0, 1.515, 0.8249, 1.667), (0.5, 6.06, 0.2062, 0.4167)],
    ids=["the paper's text", "its code"],
)
def test_published_optima_are_recomputed(reach: float, rate: float, loss: float, of_nothing: float) -> None:
    found = one_step(10, 10, reach)
    assert found.rate == pytest.approx(rate, abs=5e-3)
    assert found.loss == pytest.approx(loss, abs=5e-5)
    assert found.of_nothing == pytest.approx(of_nothing, abs=5e-4)


@pytest.mark.parametrize("reach", [None, 0.5])
def test_optima_are_those_of_prompts(reach: float | None) -> None:
    found = Source(width=4, pairs=7, reach=reach).batch(0, 0, 200_000)
    best = one_step(4, 6, reach)

    def loss(rate: float) -> float:
        said = descended(rate, 1)(found.xs, found.ys)[:, -1]
        return float(((said - found.ys[:, -1]) ** 2).mean() / 2)

    assert loss(best.rate) == pytest.approx(best.loss, rel=0.02)
    assert loss(0.0) == pytest.approx(best.of_nothing, rel=0.02)
    assert loss(best.rate) < min(loss(0.9 * best.rate), loss(1.1 * best.rate))


def test_one_scale_changes_no_answer_and_halfway_is_between() -> None:
    found = Source(width=3, pairs=6).batch(0, 0, 5)
    xs, ys = found.xs.double(), found.ys.double()
    network = linear_attention(3)
    weights = {name: 40 * tensor.double() for name, tensor in network.start(torch_stream(3, "start")).items()}
    descent = as_descent(3, 5, 0.7)
    assert torch.allclose(network.says(at_one_scale(weights), xs, ys), network.says(weights, xs, ys), atol=1e-10)
    assert matrices(at_one_scale(weights))[0][0][:-1, :-1].diagonal().mean().item() == pytest.approx(1.0)
    for share, expected in ((1.0, weights), (0.0, descent)):
        said = network.says(halfway(weights, descent, share), xs, ys)
        assert torch.allclose(said, network.says(expected, xs, ys), atol=1e-10)
    stretched = {**descent, "keys": 4 * descent["keys"], "values": descent["values"] / 4}
    assert torch.allclose(network.says(halfway(stretched, descent), xs, ys), network.says(descent, xs, ys), atol=1e-10)


def test_tuned_steps_are_the_best_there_are() -> None:
    found = Source(width=4, pairs=7, reach=0.5).batch(0, 0, 4000)
    best = one_step(4, 6, 0.5)
    one = tuned(found, 1, 1.0)
    assert one.rates[0] == pytest.approx(best.rate, rel=0.05)
    assert one.loss == pytest.approx(best.loss, rel=0.1)
    two, plus, heavy = (
        tuned(found, 2, best.rate, momentum=heavy, shrink=shrink)
        for heavy, shrink in ((False, False), (False, True), (True, False))
    )
    assert two.loss < one.loss
    assert plus.loss < two.loss, "GD++ reaches further with as many steps"
    assert heavy.loss <= two.loss + 1e-9
    assert heavy.momentum != 0
    for around in (0.9, 1.1):
        said = descended(two.rates[0] * around, 2)(found.xs.double(), found.ys.double())[:, -1]
        assert float((said - found.ys[:, -1]).square().mean() / 2) > two.loss


@pytest.mark.parametrize("shrink", [False, True], ids=["gradient descent", "GD++"])
def test_steps_with_rates_of_their_own_reach_further(shrink: bool) -> None:
    """Also those of plain descent, whose slopes are all equal where its rates are."""
    source = Source(width=3, pairs=6, reach=0.5)
    tied = tuned(source.batch(0, 0, 300), 3, 1.0, shrink=shrink)
    each = each_tuned(tied, lambda number: source.batch(1, number, 128), 300)
    found = source.batch(2, 0, 4_000)

    def left(own: Tuned) -> float:
        return float((own.predictor(found.xs.double(), found.ys.double())[:, -1] - found.ys[:, -1]).square().mean() / 2)

    assert left(each) < 0.9 * left(tied)
    assert len({round(rate, 3) for rate in each.rates}) == 3
    assert each_tuned(tied, lambda number: source.batch(1, number, 128), 300) == each, "the same again"
