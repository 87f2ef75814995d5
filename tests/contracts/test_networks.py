"""What every network must do: begin from its seed alone, answer as it declares, and learn from every prompt."""

import pytest
import torch

from kshot.errors import KshotError
from kshot.seeds import torch_stream
from kshot.synth.networks import NETWORKS, matched
from kshot.synth.networks.mixing import Shape
from kshot.synth.networks.network import Network, parameters
from kshot.synth.prompts import Source

SHAPE = Shape(layers=2, heads=2, width=16)
DEAF = {"mlp-only"}


def made(name: str) -> Network:
    return NETWORKS[name].make(3, 6, SHAPE)


def weights_of(name: str, scale: float = 1.0) -> dict[str, torch.Tensor]:
    rng = torch_stream(0, "weights", name)
    return {
        key: tensor.double() + 0.3 * scale * torch.randn(tensor.shape, generator=rng, dtype=torch.float64)
        for key, tensor in made(name).start(rng).items()
    }


def prompts() -> tuple[torch.Tensor, torch.Tensor]:
    found = Source(width=3, pairs=6).batch(0, 0, 4)
    return found.xs.double(), found.ys.double()


@pytest.mark.parametrize("name", NETWORKS)
def test_it_begins_from_its_generator_alone(name: str) -> None:
    one, again, other = (made(name).start(torch_stream(seed, "start")) for seed in (0, 0, 1))
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)
    assert all(tensor.dtype == torch.float32 and tensor.is_contiguous() for tensor in one.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_causal_or_a_set_as_it_declares(name: str) -> None:
    network, (xs, ys), weights = made(name), prompts(), weights_of(name)
    said = network.says(weights, xs, ys)
    assert said.shape == ((4, 6) if network.causal else (4, 1))
    hidden = ys.clone()
    hidden[:, -1] += 2.0
    assert torch.equal(network.says(weights, xs, hidden)[:, -1], said[:, -1]), "the last answer is not seen"
    if network.causal:
        later, answers = xs.clone(), ys.clone()
        later[:, 3:] += 1.0
        answers[:, 2:] -= 1.0
        assert torch.allclose(network.says(weights, later, answers)[:, :3], said[:, :3], atol=1e-12)
    else:
        order = [3, 1, 0, 4, 2, 5]
        assert torch.allclose(network.says(weights, xs[:, order], ys[:, order]), said, atol=1e-12)
    earlier = ys.clone()
    earlier[:, 0] += 2.0
    seen = not torch.allclose(network.says(weights, xs, earlier)[:, -1], said[:, -1], atol=1e-6)
    assert seen == (name not in DEAF)


@pytest.mark.parametrize("name", NETWORKS)
def test_prompts_do_not_hear_one_another(name: str) -> None:
    network, (xs, ys), weights = made(name), prompts(), weights_of(name)
    together = network.says(weights, xs, ys)
    for b in range(4):
        assert torch.allclose(network.says(weights, xs[b : b + 1], ys[b : b + 1]), together[b : b + 1], atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_weight_is_learned_and_none_is_changed_by_asking(name: str) -> None:
    network, (xs, ys) = made(name), prompts()
    weights = {key: tensor.requires_grad_(True) for key, tensor in weights_of(name).items()}
    before = {key: tensor.detach().clone() for key, tensor in weights.items()}
    network.says(weights, xs, ys).square().sum().backward()
    assert all(torch.equal(weights[key], before[key]) for key in weights)
    idle = [key for key, tensor in weights.items() if tensor.grad is None or not tensor.grad.abs().sum() > 0]
    assert not idle


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "linear-self-attention"])
def test_numbers_of_parameters_can_be_matched(name: str) -> None:
    target = parameters(
        NETWORKS["transformer"].make(20, 41, Shape(layers=3, heads=2, width=64)).start(torch_stream(0, "s"))
    )
    shape = matched(NETWORKS[name], 20, 41, Shape(layers=3, heads=1, width=64), target)
    found = parameters(NETWORKS[name].make(20, 41, shape).start(torch_stream(0, "s")))
    assert abs(found - target) <= 0.02 * target


def test_what_cannot_be_matched_is_said() -> None:
    with pytest.raises(KshotError, match="no width gives this network"):
        matched(NETWORKS["linear-self-attention"], 3, 6, SHAPE, 1_000_000)
