"""Recurrent networks against torch's own modules, attention to the past by hand, and a prompt as one vector."""

import pytest
import torch
from torch import nn
from visibility import faults

from kshot.errors import KshotError, UnknownName
from kshot.seeds import torch_stream
from kshot.synth.networks.mixing import Shape
from kshot.synth.networks.network import Network
from kshot.synth.networks.recurrent import CELLS, attended, flattened, recurrent
from kshot.synth.prompts import Source

SHAPE = Shape(layers=2, heads=1, width=8)
ALL: dict[str, Network] = {
    **{cell: recurrent(3, SHAPE, cell=cell) for cell in CELLS},
    "attending": recurrent(3, SHAPE, cell="rnn", attends=True),
    "flattened": flattened(3, 6, SHAPE),
}


def large(network: Network) -> dict[str, torch.Tensor]:
    rng = torch_stream(0, "weights")
    return {name: 1.5 * tensor.double() for name, tensor in network.start(rng).items()}


def prompts() -> tuple[torch.Tensor, torch.Tensor]:
    found = Source(width=3, pairs=6).batch(0, 0, 4)
    return found.xs.double(), found.ys.double()


@pytest.mark.parametrize("name", ALL)
def test_each_hears_what_it_may_and_nothing_else(name: str) -> None:
    network = ALL[name]
    assert faults(network, large(network), *prompts()) == set()


@pytest.mark.parametrize("cell", CELLS)
def test_cells_are_those_of_torch(cell: str) -> None:
    network, (xs, ys) = ALL[cell], prompts()
    weights = large(network)
    module = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[cell](8, 8, 2, batch_first=True).double()
    names = {"in": "weight_ih", "state": "weight_hh", "in_bias": "bias_ih", "state_bias": "bias_hh"}
    module.load_state_dict(
        {f"{theirs}_l{i}": weights[f"{i}.{ours}"] for i in range(2) for ours, theirs in names.items()}
    )
    before = torch.nn.functional.pad(ys[:, :-1], (1, 0))
    read = torch.cat([xs, before[..., None]], dim=-1) @ weights["read_in.weight"].T + weights["read_in.bias"]
    expected = module(read)[0] @ weights["read_out.weight"][0] + weights["read_out.bias"]
    assert torch.allclose(network.says(weights, xs, ys), expected, atol=1e-12)


def test_attention_to_the_past_by_hand() -> None:
    weights = large(ALL["attending"])
    states = torch.randn(1, 4, 8, generator=torch_stream(0, "states"), dtype=torch.float64)
    found = attended(weights, states)
    assert (found[0, 0] == 0).all()
    for t in range(1, 4):
        scores = [
            weights["scores.weight"][0]
            @ torch.tanh(
                weights["asks.weight"] @ states[0, t] + weights["asks.bias"] + weights["past.weight"] @ states[0, j]
            )
            for j in range(t)
        ]
        shares = torch.stack(scores).softmax(0)
        assert torch.allclose(found[0, t], sum(w * states[0, j] for j, w in enumerate(shares)), atol=1e-12)


def test_gradients_reach_every_weight() -> None:
    xs, ys = prompts()
    for name, network in ALL.items():
        weights = {key: tensor.requires_grad_(True) for key, tensor in large(network).items()}
        network.says(weights, xs, ys).square().sum().backward()
        assert all(tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in weights.values()), name


def test_wrong_cells_and_long_prompts_are_refused() -> None:
    with pytest.raises(UnknownName, match="did you mean 'lstm'"):
        recurrent(3, SHAPE, cell="lsmt")
    found = Source(width=3, pairs=7).batch(0, 0, 2)
    network = ALL["flattened"]
    with pytest.raises(KshotError, match="7 pairs: the network has places for 6"):
        network.says(network.start(torch_stream(0, "start")), found.xs, found.ys)
