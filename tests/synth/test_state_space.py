"""State spaces: the scan is the recurrence, the convolution is the recurrence, to rounding in float64."""

import math
from collections.abc import Callable

import pytest
import torch

from kshot.seeds import torch_stream
from kshot.synth.networks.mixing import MixingOptions, Shape
from kshot.synth.networks.selective import by_scan, scan, selective
from kshot.synth.networks.state_space import STATE_SPACES, kernel

Selective = Callable[..., torch.Tensor]

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


def selection(t: int, *, b: int = 2, m: int = 3, s: int = 4) -> list[torch.Tensor]:
    """Steps, rates, and what is fed, written and read."""
    rng = torch_stream(0, "selection", t)
    shapes = ((b, t, m), (m, s), (b, t, m), (b, t, s), (b, t, s))
    step, rate, *rest = (torch.randn(shape, generator=rng, dtype=torch.float64) for shape in shapes)
    return [tensor.requires_grad_(True) for tensor in (step.abs(), -rate.abs(), *rest)]


def token_by_token(
    step: torch.Tensor, rate: torch.Tensor, inner: torch.Tensor, writes: torch.Tensor, reads: torch.Tensor
) -> torch.Tensor:
    state, said = torch.zeros(len(step), *rate.shape, dtype=step.dtype), []
    for t in range(step.shape[1]):
        fed = (step[:, t] * inner[:, t])[..., None] * writes[:, t, None]
        state = torch.exp(step[:, t, :, None] * rate) * state + fed
        said.append((state * reads[:, t, None]).sum(-1))
    return torch.stack(said, dim=1)


@pytest.mark.parametrize("does", [selective, by_scan])
@pytest.mark.parametrize("t", [1, 2, 3, 40])
def test_what_is_read_is_the_recurrence_and_so_are_its_slopes(t: int, does: Selective) -> None:
    given = selection(t)
    found, expected = does(*given), token_by_token(*given)
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn(found.shape, generator=torch_stream(0, "slopes", t), dtype=torch.float64)
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), given, materialize_grads=True),
        torch.autograd.grad((expected * weights).sum(), given, materialize_grads=True),
        strict=True,
    ):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)


def test_its_slopes_are_those_of_small_steps() -> None:
    assert torch.autograd.gradcheck(selective, selection(4, b=1, m=2, s=2))


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
    found = STATE_SPACES["mamba"].mix(own, hidden, SHAPE, MixingOptions(causal=True), None)[0]
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


def test_selection_by_hand() -> None:
    step, inner, ones = torch.tensor([[[0.5], [1.0]]]), torch.tensor([[[3.0], [0.0]]]), torch.ones(1, 2, 2)
    said = selective(step, torch.tensor([[-2.0, -4.0]]), inner, torch.tensor([[[1.0, 10.0]] * 2]), ones)
    assert said[0, :, 0].tolist() == pytest.approx([16.5, 1.5 * math.exp(-2) + 15 * math.exp(-4)])


def test_s4d_by_fft_is_the_recurrence_of_its_states() -> None:
    own = start("s4d")
    hidden = torch.randn(2, 11, 8, generator=torch_stream(0, "hidden"), dtype=torch.float64)
    found = STATE_SPACES["s4d"].mix(own, hidden, SHAPE, MixingOptions(causal=True), None)[0]
    step = own["step"].exp()[:, None]
    rate = torch.complex(-own["rate"].exp(), own["turn"])
    reads = torch.view_as_complex(own["reads"].contiguous())
    decay, writes = torch.exp(rate * step), (torch.exp(rate * step) - 1) / rate
    state = torch.zeros(2, 8, 32, dtype=torch.complex128)
    for t in range(11):
        state = decay * state + writes * hidden[:, t, :, None]
        seen = 2 * (reads * state).sum(-1).real
        said = torch.nn.functional.gelu(seen + own["skip"] * hidden[:, t])
        value, gate = (said @ own["out.weight"].T + own["out.bias"]).chunk(2, dim=-1)
        assert torch.allclose(found[:, t], value * gate.sigmoid(), atol=1e-10)
    assert kernel(own, 5).shape == (8, 5)
    assert torch.allclose(kernel(own, 11)[:, :5], kernel(own, 5), atol=1e-12), "it does not depend on the length"
