"""Samplers: pure functions of seed and step, each against its closed-form moments and an obvious computation."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from kshot.errors import UnknownName
from kshot.seeds import torch_stream
from kshot.synth.functions import FUNCTIONS, features
from kshot.synth.prompts import SHIFTS, Prompts, Source, between, taken

ALL = sorted(FUNCTIONS)


def batch(name: str, size: int = 4, seed: int = 0, step: int = 0, **more) -> Prompts:
    return Source(function=name, width=5, pairs=7, **more).batch(seed, step, size)


@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_and_step_is_the_same_batch_in_any_order(name: str) -> None:
    later, first = batch(name, step=3), batch(name, step=0)
    assert torch.equal(batch(name, step=3).xs, later.xs)
    assert torch.equal(batch(name, step=3).ys, later.ys)
    for other in (first, batch(name, step=3, seed=1)):
        assert not torch.equal(other.xs, later.xs)
        assert not torch.equal(other.ys, later.ys)


def test_the_same_batch_in_another_process() -> None:
    code = (
        "from kshot.synth.prompts import Source\n"
        "print(*(Source(function=n, width=5, pairs=7).batch(2, 9, 4).ys.double().sum().item().hex()"
        f" for n in {ALL!r}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    own = [batch(name, seed=2, step=9).ys.double().sum().item().hex() for name in ALL]
    assert run.stdout.split() == own


@pytest.mark.parametrize("name", [name for name in ALL if FUNCTIONS[name].variance(5) is not None])
def test_answers_have_the_variance_that_is_stated(name: str) -> None:
    found = Source(function=name, width=5, pairs=2).batch(0, 0, 40_000)
    assert found.means.mean().item() == pytest.approx(0.0, abs=0.06)
    # Answers to one function are no independent draws: the first of each prompt alone.
    assert found.means[:, 0].var().item() == pytest.approx(FUNCTIONS[name].variance(5), rel=0.08)


def test_inputs_have_the_moments_of_their_distribution() -> None:
    normal = batch("linear", 20_000).xs
    assert normal.mean().item() == pytest.approx(0.0, abs=0.01)
    assert normal.var().item() == pytest.approx(1.0, rel=0.01)
    flat = batch("linear", 20_000, reach=0.5).xs
    assert flat.abs().max().item() <= 0.5
    assert flat.var().item() == pytest.approx(1 / 12, rel=0.01)


def test_noise_has_its_variance_and_leaves_the_means() -> None:
    plain, noisy = batch("linear", 20_000), batch("linear", 20_000, noise=0.25)
    assert torch.equal(plain.ys, plain.means)
    assert torch.equal(noisy.means, plain.means)
    assert (noisy.ys - noisy.means).var().item() == pytest.approx(0.25, rel=0.02)


def test_logistic_answers_are_one_or_the_other_at_the_stated_rate() -> None:
    found = batch("logistic", 20_000)
    assert set(found.ys.unique().tolist()) == {-1.0, 1.0}
    sure = found.means > 0.8
    assert found.ys[sure].mean().item() == pytest.approx(found.means[sure].mean().item(), abs=0.01)
    logit = (found.xs * found.drawn["w"][:, None]).sum(-1)
    assert torch.allclose((1 + found.means) / 2, logit.sigmoid(), atol=1e-6)


def test_each_class_answers_as_an_obvious_computation_does() -> None:
    for name in ALL:
        found = batch(name)
        for b in range(4):
            own = {key: value[b].double().numpy() for key, value in found.drawn.items()}
            for n in range(7):
                x = found.xs[b, n].double().numpy()
                assert found.means[b, n].item() == pytest.approx(_obvious(name, own, x), abs=1e-5), name


def _obvious(name: str, own: dict[str, np.ndarray], x: np.ndarray) -> float:
    if name == "relu-network":
        hidden = [max(0.0, float(x @ own["inner"][:, j])) for j in range(100)]
        return float(np.sqrt(2 / 100) * sum(h * o for h, o in zip(hidden, own["outer"], strict=True)))
    if name == "decision-tree":
        node = 0
        for _ in range(4):
            node = 2 * node + (2 if x[int(own["coordinate"][node])] > 0 else 1)
        return float(own["leaf"][node - 15])
    if name == "sine":
        return float(own["amplitude"] * np.sin(x[0] + own["phase"]))
    if name == "logistic":
        return float(2 / (1 + np.exp(-x @ own["w"])) - 1)
    if name == "sparse-parity":
        return float(np.prod([x[int(i)] for i in own["subset"]]))
    if name == "recall":
        return float(own["values"][int(np.abs(own["keys"] - x).sum(axis=1).argmin())])
    if name == "random-features":
        x = features(torch.tensor(x)[None, None])[0, 0].numpy()
    return float(x @ own["w"])


def test_sparse_functions_have_three_weights() -> None:
    assert ((batch("sparse-linear", 500).drawn["w"] != 0).sum(1) == 3).all()


def test_parity_has_sides_and_recall_shows_keys_again() -> None:
    found = batch("sparse-parity", 200)
    assert set(found.xs.unique().tolist()) == set(found.ys.unique().tolist()) == {-1.0, 1.0}
    assert (found.drawn["subset"][:, 0] != found.drawn["subset"][:, 1]).all()
    found = batch("recall", 200)
    assert (found.xs[:, :, None] == found.drawn["keys"][:, None]).all(-1).any(-1).all(), "every input is a key"
    again = (found.xs[:, -1:] == found.xs[:, :-1]).all(-1)
    assert 0.4 < again.any(1).float().mean() < 0.7, "of 8 keys 6 pairs have shown the last one in 1 - (7/8)^6"
    seen = again.any(1)
    first = again.float().argmax(1)
    assert torch.equal(found.ys[seen, -1], found.ys[seen, first[seen]])


def test_the_map_of_features_is_one_for_all() -> None:
    xs = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(features(xs), features(xs.clone()))
    assert features(xs).shape == (2, 3, 20)


def test_a_curriculum_has_fewer_coordinates_and_pairs() -> None:
    source = Source(width=5, pairs=7)
    found = source.batch(0, 0, 4, pairs=3, active=2)
    assert found.xs.shape == (4, 3, 5)
    assert (found.xs[..., 2:] == 0).all()
    assert (found.xs[..., :2] != 0).all()


@pytest.mark.parametrize("name", ALL)
def test_a_pool_has_so_many_functions_and_no_other(name: str) -> None:
    source = Source(function=name, width=5, pairs=7, pool=3, pool_seed=1)
    tasks, found = source.tasks(), source.batch(0, 5, 200)
    key = next(iter(tasks))
    seen = {tuple(row.flatten().tolist()) for row in found.drawn[key]}
    assert seen == {tuple(row.flatten().tolist()) for row in tasks[key]}
    assert torch.equal(source.tasks()[key], tasks[key])
    assert not torch.equal(replace(source, pool_seed=2).tasks()[key], tasks[key])
    assert torch.equal(taken(tasks, torch.tensor([2, 0]))[key], tasks[key][[2, 0]])


def test_the_way_between_two_functions_keeps_their_length() -> None:
    rng = torch_stream(0, "between")
    one, other = torch.randn(6, 8, generator=rng), torch.randn(6, 8, generator=rng)
    assert torch.allclose(between(one, one, 0.3), one, atol=1e-6)
    lengths = (one.norm(dim=1) + other.norm(dim=1)) / 2
    for share in (0.0, 0.25, 0.5, 1.0):
        assert torch.allclose(between(one, other, share).norm(dim=1), lengths, atol=1e-5)
    ends = between(one, other, 1.0), between(one, other, 0.0)
    for end, task in zip(ends, (one, other), strict=True):
        assert torch.allclose(torch.cosine_similarity(end, task), torch.ones(6), atol=1e-6)


def shifted(name: str, size: int = 2000, width: int = 6, pairs: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch_stream(0, "shift", name)
    xs, queries = (torch.randn(size, pairs, width, generator=rng) for _ in range(2))
    return SHIFTS[name](rng, xs, queries)


def test_shifts_do_what_they_are_called() -> None:
    xs, queries = shifted("half-subspace")
    assert (torch.linalg.matrix_rank(torch.cat([xs, queries], dim=1), tol=1e-3) == 3).all()
    xs, queries = shifted("opposite-orthants")
    assert (torch.sign(xs) == torch.sign(xs[:, :1])).all()
    assert (torch.sign(queries) == -torch.sign(xs[:, :1])).all()
    xs, queries = shifted("random-orthants")
    assert (torch.sign(xs) == torch.sign(xs[:, :1])).all()
    assert 0.4 < (torch.sign(queries) == torch.sign(xs)).float().mean() < 0.6
    xs, queries = shifted("query-is-an-example")
    for k in range(1, 5):
        assert (queries[:, None, k] == xs[:, :k]).all(dim=2).any(dim=1).all(), "it was shown before"
    xs, _ = shifted("x-times-3")
    assert xs.var().item() == pytest.approx(9.0, rel=0.05)


@pytest.mark.parametrize("name", ["half-subspace", "skewed", "opposite-orthants", "random-orthants"])
def test_shifts_keep_the_length_of_inputs(name: str) -> None:
    for found in shifted(name):
        assert found.square().sum(-1).mean().item() == pytest.approx(6.0, rel=0.05)


def test_an_unknown_class_is_refused_by_name() -> None:
    with pytest.raises(UnknownName, match="did you mean 'linear'"):
        Source(function="linaer", width=5, pairs=7)
