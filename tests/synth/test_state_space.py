"""State spaces: the scan is the recurrence, the convolution is the recurrence, to rounding in float64."""

import math

import pytest
import torch

from kshot.seeds import torch_stream
from kshot.synth.networks.mixing import Hearing, Shape
from kshot.synth.networks.state_space import STATE_SPACES, kernel, recurred, scan, selected

SHAPE = Shape(layers=2, heads=2, width=8)


def recurrence(decay: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
    state, states = torch.zeros_like(added[:, 0]), []
    for t in range(added.shape[1]):
        state = decay[:, t] * state + added[:, t]
        states.append(state)
    return torch.stack(states, dim=1)


@pytest.mark.parametrize("t", [1, 2, 3, 7, 15, 16, 17, 100, 272, 300])
def test_the_scan_is_the_recurrence(t: int) -> None:
    rng = torch_stream(0, "scan", t)
    decay = torch.rand(2, t, 3, 4, generator=rng, dtype=torch.float64).requires_grad_(True)
    added = torch.randn(2, t, 3, 4, generator=rng, dtype=torch.float64).requires_grad_(True)
    found, expected = scan(decay, added), recurrence(decay, added)
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn(found.shape, generator=rng, dtype=torch.float64)
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), (decay, added), materialize_grads=True),
        torch.autograd.grad((expected * weights).sum(), (decay, added), materialize_grads=True),
        strict=True,
    ):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("t", [1, 2, 3, 40])
def test_states_one_after_another_are_the_scan_and_so_are_their_slopes(t: int) -> None:
    rng = torch_stream(0, "recurred", t)
    decay = torch.rand(2, t, 3, 4, generator=rng, dtype=torch.float64).requires_grad_(True)
    added = torch.randn(2, t, 3, 4, generator=rng, dtype=torch.float64).requires_grad_(True)
    found, expected = recurred(decay, added), recurrence(decay, added)
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn(found.shape, generator=rng, dtype=torch.float64)
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), (decay, added)),
        torch.autograd.grad((expected * weights).sum(), (decay, added), materialize_grads=True),
        strict=True,
    ):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(recurred, (decay[:1, :4, :2, 0], added[:1, :4, :2, 0]))
    assert torch.autograd.gradgradcheck(recurred, (decay[:1, :4, :2, 0], added[:1, :4, :2, 0]))


def test_a_state_that_forgets_at_once_or_never() -> None:
    added = torch.randn(1, 6, 2, generator=torch_stream(0, "added"), dtype=torch.float64)
    assert torch.equal(scan(torch.zeros_like(added), added), added)
    assert torch.allclose(scan(torch.ones_like(added), added), added.cumsum(1), atol=1e-12)


def test_a_state_that_never_forgets_over_many_stretches() -> None:
    added = torch.randn(1, 70, 2, generator=torch_stream(0, "added"), dtype=torch.float64)
    assert torch.allclose(scan(torch.full_like(added, 1.0), added), added.cumsum(1), atol=1e-12)


def start(kind: str) -> dict[str, torch.Tensor]:
    rng = torch_stream(0, "start", kind)
    return {
        name: tensor.double() + 0.1 * torch.randn(tensor.shape, generator=rng, dtype=torch.float64)
        for name, tensor in STATE_SPACES[kind].start(rng, SHAPE).items()
    }


def test_s6_is_its_formula_token_by_token() -> None:
    own = start("mamba")
    hidden = torch.randn(2, 9, 8, generator=torch_stream(0, "hidden"), dtype=torch.float64)
    found = STATE_SPACES["mamba"].mix(own, hidden, SHAPE, Hearing(causal=True))
    m, states = 16, 16
    for b in range(2):
        both = hidden[b] @ own["in.weight"].T
        inner, gate = both[:, :m], both[:, m:]
        state = torch.zeros(m, states, dtype=torch.float64)
        for t in range(9):
            mixed = own["conv.bias"] + sum(
                own["conv.weight"][:, 0, 3 - back] * inner[t - back] for back in range(4) if t >= back
            )
            u = mixed * mixed.sigmoid()
            of_token = own["of_token.weight"] @ u
            rank = own["step.weight"].shape[1]
            step = torch.log1p(torch.exp(own["step.weight"] @ of_token[:rank] + own["step.bias"]))
            writes, reads = of_token[rank : rank + states], of_token[rank + states :]
            state = torch.exp(-step[:, None] * own["rate"].exp()) * state + (step * u)[:, None] * writes
            said = (state @ reads + own["skip"] * u) * gate[t] * gate[t].sigmoid()
            assert torch.allclose(found[b, t], own["out.weight"] @ said, atol=1e-10)


def test_selection_says_what_a_token_does_to_the_states() -> None:
    step, inner = torch.tensor([[[0.5]]]), torch.tensor([[[3.0]]])
    decay, added = selected(step, torch.tensor([[-2.0, -4.0]]), inner, torch.tensor([[[1.0, 10.0]]]))
    assert decay[0, 0, 0].tolist() == pytest.approx([math.exp(-1), math.exp(-2)])
    assert added[0, 0, 0].tolist() == pytest.approx([1.5, 15.0])


def test_s4d_by_fft_is_the_recurrence_of_its_states() -> None:
    own = start("s4d")
    hidden = torch.randn(2, 11, 8, generator=torch_stream(0, "hidden"), dtype=torch.float64)
    found = STATE_SPACES["s4d"].mix(own, hidden, SHAPE, Hearing(causal=True))
    step = own["step"].exp()[:, None]
    rate = torch.complex(-own["rate"].exp(), own["turn"])
    reads = torch.view_as_complex(own["reads"].contiguous())
    decay, writes = torch.exp(rate * step), (torch.exp(rate * step) - 1) / rate
    state = torch.zeros(2, 8, 32, dtype=torch.complex128)
    for t in range(11):
        state = decay * state + writes * hidden[:, t, :, None]
        heard = 2 * (reads * state).sum(-1).real
        said = torch.nn.functional.gelu(heard + own["skip"] * hidden[:, t])
        value, gate = (said @ own["out.weight"].T + own["out.bias"]).chunk(2, dim=-1)
        assert torch.allclose(found[:, t], value * gate.sigmoid(), atol=1e-10)
    assert kernel(own, 5).shape == (8, 5)
    assert torch.allclose(kernel(own, 11)[:, :5], kernel(own, 5), atol=1e-12), "it does not depend on the length"
