"""What every measure of what demonstrations do must do: repeat itself, leave its input alone, know no order of queries."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from kshot.measure import OF_DEMONSTRATIONS
from kshot.measure.per_layer import PerLayer

Q, L, H, G, T, D, E, K = 5, 3, 4, 2, 12, 8, 16, 4

# These ask a model; their own tests ask the tiny one.
OF_MODELS = {"gradient_times_input", "leave_one_out", "order_scores", "shapley"}
# Sums and identities of one layer, without queries of their own.
OF_LAYERS = {
    "angles", "as_attention", "demonstration_terms", "descent", "effective_rank", "linear_attention", "meta_gradients",
    "relaxed", "split", "update_norm", "weight_update", "zero_shot_weight",
}  # fmt: skip
OF_QUERIES = sorted(set(OF_DEMONSTRATIONS) - OF_MODELS - OF_LAYERS)


def arguments(name):
    """What a measure is given, and which places hold queries; a measure that is missing here has to be added."""
    rng = np.random.default_rng(3)
    owner = np.repeat(np.arange(K), T // K)
    if name == "rec2ftp":
        return [rng.random(Q) < 0.5 for _ in range(3)], {}, (0, 1, 2)
    if name == "repeatability":
        return [rng.random(Q) < 0.5 for _ in range(2)], {}, (0, 1)
    if name == "sim_aou":
        return [rng.normal(size=(Q, L, E)) for _ in range(3)], {"normalised": True}, (0, 1, 2)
    if name in ("sim_am", "sim_am_delta"):
        runs = 2 if name == "sim_am" else 3
        return [[rng.normal(size=(L, H, 3 + i)) for i in range(Q)] for _ in range(runs)], {}, tuple(range(runs))
    if name in ("kendall", "example_kendall", "top_k_recall"):
        maps = [[rng.normal(size=(L, T)) for _ in range(Q)] for _ in range(2)]
        return [*maps, *([owner] if name == "example_kendall" else [3] if name == "top_k_recall" else [])], {}, (0, 1)
    if name == "attention_mass":
        return [rng.random((Q, L, H, T)), owner, K], {}, (0,)
    if name == "direct_effect":
        return [rng.normal(size=(Q, L, H, D)), rng.normal(size=(Q, L, H, K, D))], {}, (0, 1)
    if name == "rank_agreement":
        return [rng.normal(size=(Q, K)) for _ in range(2)], {}, (0, 1)
    if name in ("recency_bias", "majority_bias"):
        shown = np.stack([rng.permutation(K) % 2 for _ in range(6)])
        tables = np.log(rng.dirichlet(np.ones(2), size=(6, Q)))
        gold = [rng.integers(0, 2, Q)] if name == "majority_bias" else []
        return [tables, shown, *gold], {}, ()
    if name == "common_token_bias":
        tables = np.log(rng.dirichlet(np.ones(3), size=Q)), np.log(rng.dirichlet(np.ones(3), size=2))
        return [*tables, rng.integers(0, 3, Q)], {}, (0, 2)
    return of_layers(name)


def of_layers(name):
    drawn = torch.Generator().manual_seed(4)

    def normal(*shape):
        return torch.randn(*shape, generator=drawn, dtype=torch.float64)

    values, keys, owner = normal(G, T, D), normal(G, T, D), [i // (T // K) for i in range(T)]
    products = OF_DEMONSTRATIONS["meta_gradients"](values, keys, owner)
    given = {
        "angles": [products, ["a", "b", "a", "b"]],
        "as_attention": [normal(E, D), normal(2, T, E), normal(T, D), normal(3, D)],
        "demonstration_terms": [values, keys, owner, normal(H, 3, D)],
        "descent": [normal(E, D), normal(T, D), normal(T, E)],
        "effective_rank": [values, keys, owner],
        "linear_attention": [values, keys, normal(H, 3, D)],
        "meta_gradients": [values, keys, owner],
        "relaxed": [normal(H, 2, D), normal(H, 2, D), (values, keys), [(normal(G, 3, D), normal(G, 3, D))] * 2],
        "split": [normal(H, 3, T), values, T // 2],
        "update_norm": [products],
        "weight_update": [values, keys],
        "zero_shot_weight": [values, keys],
    }
    return given[name], {"learning_rate": 0.01, "steps": 2} if name == "descent" else {}, ()


@pytest.mark.parametrize("name", sorted(set(OF_DEMONSTRATIONS) - OF_MODELS))
def test_a_measure_repeats_itself_and_leaves_its_input_alone(name):
    given, more, _ = arguments(name)
    before = copy.deepcopy(given)
    found = OF_DEMONSTRATIONS[name](*given, **more)
    assert plain(given) == plain(before)
    assert plain(OF_DEMONSTRATIONS[name](*before, **more)) == plain(found)


@pytest.mark.parametrize("name", [name for name in OF_QUERIES if arguments(name)[2]])
def test_the_order_of_queries_changes_nothing(name):
    given, more, places = arguments(name)
    order = np.random.default_rng(5).permutation(Q)
    moved = [
        value if i not in places else value[order] if isinstance(value, np.ndarray) else [value[j] for j in order]
        for i, value in enumerate(given)
    ]
    found, again = OF_DEMONSTRATIONS[name](*given, **more), OF_DEMONSTRATIONS[name](*moved, **more)
    if isinstance(found, PerLayer):
        assert np.allclose(again.values, found.values[order], atol=1e-12)
        assert (again.defined == found.defined[order]).all()
    elif isinstance(found, np.ndarray):
        assert np.allclose(again, found[order], atol=1e-12)
    else:
        assert same(plain(again), plain(found))


def same(one, other):
    """Figures over queries, whatever order they were summed in; intervals are drawn anew from rows in order."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other if one is None or isinstance(one, str) else one == pytest.approx(other, abs=1e-9)


def plain(value):
    """Any result as lists and numbers."""
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: plain(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [plain(own) for own in value]
    return value.tolist() if isinstance(value, np.ndarray | torch.Tensor) else value
