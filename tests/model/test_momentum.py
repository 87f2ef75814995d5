"""The decayed sum of momentum attention: fast ways against the double sum in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kshot.model.momentum import along_branches, carried, doubled, summed_weights, velocities

DECAY = torch.tensor([0.3, 0.9, 0.999], dtype=torch.float64)


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def obvious(values: Tensor, decay: Tensor) -> Tensor:
    """sum_(i < t) decay^(t - 1 - i) v_i, term by term."""
    found = torch.zeros_like(values)
    for t in range(values.shape[-2]):
        for i in range(t):
            found[..., t, :] += (decay ** (t - 1 - i))[:, None] * values[..., i, :]
    return found


def test_by_hand() -> None:
    found = velocities(torch.tensor([[[1.0], [10.0], [100.0]]]), torch.tensor([0.5]))
    assert found.tolist() == [[[0.0], [1.0], [10.5]]]


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 33, 70, 256, 300])
def test_any_length_is_the_double_sum(length: int) -> None:
    values = drawn(2, 3, length, 4)
    assert (velocities(values, DECAY) - obvious(values, DECAY)).abs().max() < 1e-10


@given(st.integers(1, 60), st.integers(0, 60))
def test_a_text_may_be_read_in_two(first: int, then: int) -> None:
    values = drawn(1, 3, first + then, 2)
    before = carried(values[..., :first, :], DECAY)
    whole = velocities(values, DECAY)
    if then:
        assert (velocities(values[..., first:, :], DECAY, before) - whole[..., first:, :]).abs().max() < 1e-10
    after = carried(values[..., first:, :], DECAY, before)
    assert (after - carried(values, DECAY)).abs().max() < 1e-10


def test_token_by_token_it_is_one_vector_a_head() -> None:
    values = drawn(1, 3, 40, 2)
    whole, state = velocities(values, DECAY), torch.zeros(1, 3, 2, dtype=torch.float64)
    for t in range(40):
        assert (state - whole[..., t, :]).abs().max() < 1e-10
        state = DECAY[:, None] * state + values[..., t, :]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.integers(0, 5))
def test_branches_have_only_their_own_ancestors_before_them(wanted: list[int], long: int) -> None:
    depth = [0]
    for one in wanted:
        depth.append(min(one, depth[-1] + 1))
    # A stretch in which paths grow deeper than what is doubled once or twice.
    depth += list(range(depth[-1] + 1, depth[-1] + 1 + 9 * long))
    values = drawn(1, 3, len(depth), 2)
    found = along_branches(values, doubled(np.array(depth)), DECAY)
    path: list[int] = []
    for node, at in enumerate(depth):
        path[at:] = [node]
        alone = obvious(values[..., path, :], DECAY)[..., -1, :]
        assert (found[..., node, :] - alone).abs().max() < 1e-10


def test_a_single_path_is_a_text() -> None:
    values = drawn(1, 3, 50, 2)
    found = along_branches(values, doubled(np.arange(50)), DECAY)
    assert (found - velocities(values, DECAY)).abs().max() < 1e-10


def test_gradients() -> None:
    decay = torch.tensor([0.3, 0.8], dtype=torch.float64, requires_grad=True)
    values, before = (drawn(*shape).requires_grad_(True) for shape in ((1, 2, 35, 2), (1, 2, 2)))
    ancestors = doubled(np.array([0, 1, 2, 2, 1, 0, 1, 2, 3, 4]))
    few = drawn(1, 2, 10, 2).requires_grad_(True)
    assert torch.autograd.gradcheck(velocities, (values, decay, before))
    assert torch.autograd.gradcheck(carried, (values, decay, before))
    assert torch.autograd.gradcheck(lambda own, rate: along_branches(own, ancestors, rate), (few, decay))


def test_a_normalised_sum_of_ones_is_one() -> None:
    ones = torch.ones(1, 3, 200, 1, dtype=torch.float64)
    total = DECAY[:, None, None] * velocities(ones, DECAY)
    weights = summed_weights(DECAY, torch.arange(200))
    assert weights[:, 0].abs().max() == 0
    assert (total[0, :, 1:, 0] / weights[:, 1:] - 1).abs().max() < 1e-10


def test_in_float32_and_bfloat16_it_is_the_sum_to_their_rounding() -> None:
    values = drawn(1, 3, 300, 8)
    exact = velocities(values, DECAY)
    for number, bound in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        found = velocities(values.to(number), DECAY.to(torch.float32))
        assert found.dtype == number
        assert ((found.double() - exact).abs().max() / exact.abs().max()) < bound
