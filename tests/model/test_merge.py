"""The merged attention of a pack alone, against a softmax over everything that a node may see."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from kshot.model.merge import PATH, STRETCH, Far, merged_attention, own_part
from kshot.model.tree import Scored, ancestors_or_self, plan

HEADS, GROUPS, WIDTH, SCALE = 4, 2, 8, 0.3


@dataclass(frozen=True)
class Forest:
    depth: np.ndarray
    end: np.ndarray


def forest(paths: int, shared: int, step: int, after: int, seed: int = 0) -> Forest:
    """``paths`` of some ``step`` tokens more each, the first ``shared`` in common, with ``after`` short branches at every end."""
    rng = np.random.default_rng(seed)
    draw = lambda length: tuple(rng.integers(3, 50, length).tolist())  # noqa: E731
    trunk = draw(shared)
    sequences = []
    for one in range(paths):
        path = trunk + draw(step * (one + 1))
        tails = [draw(int(rng.integers(2, 30))) for _ in range(after)]
        sequences += [Scored(path + tail, len(path) + len(tail) - 1) for tail in tails]
    (pack,) = plan(sequences, tokens_per_pack=1 << 30, rows_per_pack=1 << 30, trunk=False).packs
    return Forest(pack.depth, pack.end)


FORESTS = {
    "many short branches after long paths": forest(4, 30, 90, 25),
    "one path far after another": forest(2, 300, 700, 3),
    "paths too short to be read apart": forest(6, 2, 8, 20),
}


def dense(query: Tensor, key: Tensor, value: Tensor, far: tuple[Far, ...], end: np.ndarray) -> Tensor:
    """(1, t, h, d): all scores at once, minus infinity where a node sees nothing."""
    share = HEADS // GROUPS
    seen = [torch.from_numpy(ancestors_or_self(end))]
    for one in far:
        before = torch.zeros(len(end), one.keys.shape[2], dtype=torch.bool)
        before[one.begin : one.stop] = True
        seen.append(before)
    keys = torch.cat([key, *(one.keys for one in far)], dim=2).repeat_interleave(share, dim=1)
    values = torch.cat([value, *(one.values for one in far)], dim=2).repeat_interleave(share, dim=1)
    scores = SCALE * query @ keys.transpose(2, 3)
    return (scores.masked_fill(~torch.cat(seen, dim=1), float("-inf")).softmax(-1) @ values).transpose(1, 2)


def asked(forest: Forest, prefixed: bool) -> tuple[tuple[Tensor, ...], tuple[Far, ...]]:
    rng = torch.Generator().manual_seed(0)
    draw = lambda heads, length: torch.randn(1, heads, length, WIDTH, generator=rng, dtype=torch.float64)  # noqa: E731
    nodes = len(forest.end)
    given = draw(HEADS, nodes), draw(GROUPS, nodes), draw(GROUPS, nodes)
    # The second prefix stands before the last branches only.
    cut = int(np.flatnonzero(forest.depth == 0)[-1])
    far = (Far(draw(GROUPS, 40), draw(GROUPS, 40), 0, nodes), Far(draw(GROUPS, 7), draw(GROUPS, 7), cut, nodes))
    return given, far if prefixed else ()


@pytest.mark.parametrize("prefixed", [False, True])
@pytest.mark.parametrize("name", FORESTS)
def test_equals_a_softmax_over_everything_seen(name, prefixed):
    given, far = asked(FORESTS[name], prefixed)
    own = own_part(FORESTS[name].depth, FORESTS[name].end, torch.float64)
    found = merged_attention(*given, far, own, SCALE)
    assert (found - dense(*given, far, FORESTS[name].end)).abs().max() < 1e-13


@pytest.mark.parametrize("name", FORESTS)
def test_gradients_equal_those_of_a_softmax_over_everything_seen(name):
    given, far = asked(FORESTS[name], prefixed=True)
    leaves = [tensor.requires_grad_() for tensor in (*given, far[0].keys, far[0].values)]
    own = own_part(FORESTS[name].depth, FORESTS[name].end, torch.float64)
    weights = torch.randn(1, len(FORESTS[name].end), HEADS, WIDTH, dtype=torch.float64)
    found = torch.autograd.grad((merged_attention(*given, far, own, SCALE) * weights).sum(), leaves)
    expected = torch.autograd.grad((dense(*given, far, FORESTS[name].end) * weights).sum(), leaves)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() < 1e-12 * other.abs().max()


def test_every_node_is_asked_once_and_a_path_is_seen_by_all_after_it():
    for name, forest in FORESTS.items():
        own = own_part(forest.depth, forest.end, torch.float64)
        assert int(own.real_queries.sum()) == len(forest.end)
        assert torch.equal(own.queries[own.slot_of], torch.arange(len(forest.end)))
        for path in own.paths:
            assert len(path.nodes) >= PATH
            assert path.stop - path.begin <= STRETCH
            assert (forest.end[path.nodes.numpy()] >= path.stop).all()
        assert bool(own.paths) == (name != "paths too short to be read apart")


def test_long_paths_are_no_keys_of_blocks():
    # What the masked blocks hold does not grow with the length of the path that they stand after.
    masked = [
        sum(group.mask.numel() for group in own_part(f.depth, f.end, torch.float64).groups)
        for f in (forest(1, 400, 100, 40), forest(1, 3600, 100, 40))
    ]
    assert masked[1] < masked[0] + 3200 * 4 * 64
