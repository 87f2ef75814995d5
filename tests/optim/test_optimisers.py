"""Every rule against another that says the same: transformers' own, torch's, or a loop that spells it out."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.optimization import (
    Adafactor,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
    get_polynomial_decay_schedule_with_warmup,
)

from kshot.optim.optimisers import OPTIMISERS, SCHEDULES, Optimiser, adamw, rate
from kshot.seeds import torch_stream


def drawn(name: str, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch_stream(0, "optimisers", name), dtype=torch.float64)


def walk(name: str, start: dict[str, torch.Tensor], steps: int, *, decay: float = 0.0, moments=None, first: int = 0):
    """Leaves and optimiser after some steps along gradients that are drawn for each."""
    leaves = {key: value.clone().requires_grad_(True) for key, value in start.items()}
    optimiser = OPTIMISERS[name](leaves, decay, moments or {})
    for step in range(first, first + steps):
        for key, leaf in leaves.items():
            leaf.grad = drawn(f"{key} {step}", *leaf.shape).to(leaf.dtype) * (1 + step)
        optimiser.step(0.1 / (1 + step))
    return {key: leaf.detach() for key, leaf in leaves.items()}, optimiser


def test_adafactor_of_a_large_matrix_is_that_of_transformers() -> None:
    start = drawn("matrix", 130, 140)
    found, _ = walk("adafactor", {"w": start}, 20, decay=0.01)
    theirs = torch.nn.Parameter(start.clone())
    optimiser = Adafactor([theirs], lr=0.1, relative_step=False, scale_parameter=False, weight_decay=0.01)
    for step in range(20):
        theirs.grad = drawn(f"w {step}", 130, 140) * (1 + step)
        for group in optimiser.param_groups:
            group["lr"] = 0.1 / (1 + step)
        optimiser.step()
    assert (found["w"] - theirs.detach()).abs().max() < 1e-9


@pytest.mark.parametrize("shape", [(3, 5), (127, 130), (1, 2, 3, 4), (6,)])
def test_adafactor_of_anything_smaller_keeps_every_moment(shape: tuple[int, ...]) -> None:
    start = drawn("small", *shape)
    found, optimiser = walk("adafactor", {"w": start}, 6, decay=0.01)
    weights, moments = start.numpy().copy(), np.zeros(shape)
    for step in range(6):
        grad = (drawn(f"w {step}", *shape) * (1 + step)).numpy()
        keep = 1 - (step + 1) ** -0.8
        moments = keep * moments + (1 - keep) * (grad**2 + 1e-30)
        update = grad / np.sqrt(moments)
        update = update / max(1.0, np.sqrt(np.mean(update**2)))
        weights = weights - 0.1 / (1 + step) * (0.01 * weights + update)
    assert np.abs(found["w"].numpy() - weights).max() < 1e-12
    assert set(optimiser.moments()["w"]) == {"step", "square"}


def test_adamw_by_hand() -> None:
    start = drawn("adamw", 3, 4)
    found, _ = walk("adamw", {"w": start}, 5, decay=0.1)
    weights, first, second = start.numpy().copy(), 0.0, 0.0
    for step in range(5):
        grad, at = (drawn(f"w {step}", 3, 4) * (1 + step)).numpy(), 0.1 / (1 + step)
        first, second = 0.9 * first + 0.1 * grad, 0.999 * second + 0.001 * grad**2
        weights = weights * (1 - at * 0.1)
        mean, spread = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
        weights = weights - at * mean / (np.sqrt(spread) + 1e-8)
    assert np.abs(found["w"].numpy() - weights).max() < 1e-12


def test_eps_is_that_of_adamw() -> None:
    leaf = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    leaf.grad = torch.full_like(leaf, 3.0)
    adamw({"w": leaf}, 0.0, {}, eps=1.0).step(0.1)
    assert leaf.item() == pytest.approx(-0.1 * 3 / (3 + 1))


@pytest.mark.parametrize("name", OPTIMISERS)
def test_with_matrices_alone_the_others_do_not_decay(name: str) -> None:
    leaves = {"w": torch.ones(2, 3, requires_grad=True), "b": torch.ones(3, requires_grad=True)}
    for matrices, expected in ((True, {"w": 0.5, "b": 1.0}), (False, {"w": 0.5, "b": 0.5})):
        with torch.no_grad():
            for leaf in leaves.values():
                leaf.fill_(1.0)
                leaf.grad = torch.zeros_like(leaf)
        optimiser = OPTIMISERS[name](leaves, 5.0, {}, matrices=matrices)
        optimiser.step(0.1)
        assert {name: leaf.flatten()[0].item() for name, leaf in leaves.items()} == expected
        assert set(optimiser.moments()) <= {"w", "b"}


def test_sgd_by_hand() -> None:
    start = drawn("sgd", 3)
    found, _ = walk("sgd", {"w": start}, 3)
    expected = start - sum(drawn(f"w {step}", 3) * (1 + step) * 0.1 / (1 + step) for step in range(3))
    assert (found["w"] - expected).abs().max() < 1e-15


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_going_on_from_moments_gives_the_same_bits(name: str, dtype: torch.dtype) -> None:
    start = {"a b": drawn("x", 130, 128).to(dtype), "c": drawn("y", 1, 2, 3, 2).to(dtype)}
    whole, _ = walk(name, start, 6, decay=0.01)
    half, optimiser = walk(name, start, 3, decay=0.01)
    kept = {key: {k: v.clone() for k, v in own.items()} for key, own in optimiser.moments().items()}
    again, _ = walk(name, half, 3, decay=0.01, moments=kept, first=3)
    assert all(torch.equal(whole[key], again[key]) for key in start)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_leaf_without_a_gradient_stays(name: str) -> None:
    leaves = {"a": torch.ones(2, requires_grad=True), "b": torch.ones(2, requires_grad=True)}
    optimiser = OPTIMISERS[name](leaves, 0.0, {})
    assert isinstance(optimiser, Optimiser)
    leaves["a"].grad = torch.ones(2)
    optimiser.step(0.1)
    assert torch.equal(leaves["b"], torch.ones(2))
    assert not torch.equal(leaves["a"], torch.ones(2))
    assert "b" not in optimiser.moments()


@settings(max_examples=60, deadline=None)
@given(schedule=st.sampled_from(sorted(SCHEDULES)), warmup=st.integers(0, 9), steps=st.integers(1, 40))
def test_a_rate_rises_then_falls_and_is_never_above_the_one_given(schedule: str, warmup: int, steps: int) -> None:
    found = [rate(0.5, schedule, warmup, step, steps) for step in range(steps)]
    assert all(0 < value <= 0.5 for value in found)
    assert found[:warmup] == sorted(found[:warmup])
    assert found[warmup:] == sorted(found[warmup:], reverse=True)
    if steps > warmup:
        assert found[warmup] == 0.5


def test_schedules_are_those_of_transformers() -> None:
    from_theirs = {
        "linear": get_linear_schedule_with_warmup,
        "cosine": get_cosine_schedule_with_warmup,
        "polynomial": partial(get_polynomial_decay_schedule_with_warmup, power=2.0, lr_end=0.0),
    }
    for name, make in from_theirs.items():
        optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
        theirs = make(optimiser, num_warmup_steps=4, num_training_steps=20)
        for step in range(20):
            # Theirs begins its rise at 0, ours at the first step above it.
            if step >= 4:
                assert rate(0.5, name, 4, step, 20) == pytest.approx(theirs.get_last_lr()[0])
            optimiser.step()
            theirs.step()
