"""What demonstrations imply as a change of weights against loops over tokens in float64: the linear form, terms, norms, ranks, angles.

Every check takes the module it looks at, so that it can be shown to fail on a copy with a fault in it (``MUTANTS``).
"""

from math import sqrt
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from loops import EXACT, check_mutant, close, drawn, heads, slow_attention

from kshot.measure import dual, implicit

# --------------------------------------------------------------------------------------------------------- relaxed


def prompt(seed: int = 0, q: int = 5) -> tuple[Any, Any, Any]:
    """Query vectors (h q dk), demonstrations, and texts of different lengths, each with its values and keys."""
    texts = [(drawn(2, 2 + j, 5, seed=seed + j), drawn(2, 2 + j, 3, seed=seed + j)) for j in range(q)]
    return drawn(6, q, 3, seed=seed), (drawn(2, 11, 5, seed=seed), drawn(2, 11, 3, seed=seed)), texts


def slow_linear(query: Any, demonstrations: Any, texts: Any) -> np.ndarray:
    columns = []
    for j, (values, keys) in enumerate(texts):
        both = torch.cat([demonstrations[0], values], 1), torch.cat([demonstrations[1], keys], 1)
        columns.append(slow_attention(*both, query[:, j : j + 1]))
    return np.concatenate(columns, axis=1)


def check_relaxed(m: ModuleType) -> None:
    query, demonstrations, texts = prompt()
    linear = slow_linear(query, demonstrations, texts)
    real = 0.3 * linear + drawn(6, 5, 5, seed=4).numpy()
    found = m.relaxed(query, torch.from_numpy(real), demonstrations, texts, draws=3)
    for h in range(6):
        a, b = linear[h], real[h]
        scale = np.linalg.lstsq(a.reshape(-1, 1), b.ravel(), rcond=None)[0][0]
        cosines = [a[j] @ b[j] / np.linalg.norm(a[j]) / np.linalg.norm(b[j]) for j in range(5)]
        error = ((b - scale * a) ** 2).sum()
        assert found[h]["scale"] == pytest.approx(scale, **EXACT)
        assert found[h]["cosine"] == pytest.approx(np.mean(cosines), **EXACT)
        assert found[h]["r2"] == pytest.approx(1 - error / (b**2).sum(), **EXACT)
        a, b = a - a.mean(0), b - b.mean(0)
        own = np.linalg.lstsq(a.reshape(-1, 1), b.ravel(), rcond=None)[0][0]
        assert found[h]["r2_centred"] == pytest.approx(1 - ((b - own * a) ** 2).sum() / (b**2).sum(), **EXACT)
        assert (found[h]["n"], found[h]["left_out"], found[h]["reason"]) == (5, 0, None)
        assert found[h]["null_cosine_low"] <= found[h]["null_cosine"] <= found[h]["null_cosine_high"]


def test_the_relaxed_form_is_compared_head_by_head() -> None:
    check_relaxed(implicit)


def test_a_head_that_is_linear_agrees_wholly_and_its_null_does_not() -> None:
    query, demonstrations, texts = prompt()
    real = torch.from_numpy(-2.5 * slow_linear(query, demonstrations, texts))
    for head in implicit.relaxed(query, real, demonstrations, texts):
        assert head["scale"] == pytest.approx(-2.5, **EXACT)
        assert head["cosine"] == pytest.approx(-1, **EXACT)
        assert head["r2"] == pytest.approx(1, **EXACT)
        assert head["r2_centred"] == pytest.approx(1, **EXACT)
        assert head["null_r2_high"] < 0.95


def test_a_common_mean_is_agreement_without_any_pairing() -> None:
    """Values with one large mean: the null agrees as well as the form itself, which is what it is there to show."""
    query, demonstrations, texts = prompt()
    mean = drawn(5, seed=9) * 30
    query, lift = query + 8, lambda pair: (pair[0] + mean, pair[1] + 8)
    demonstrations, texts = lift(demonstrations), [lift(text) for text in texts]
    real = mean.expand(6, 5, 5) + drawn(6, 5, 5, seed=4)
    for head in implicit.relaxed(query, real, demonstrations, texts):
        assert head["cosine"] > 0.95
        assert head["null_cosine"] == pytest.approx(head["cosine"], abs=0.01)
        assert head["null_r2"] > 0.5
        assert head["r2_centred"] < 0.5


def test_the_null_keeps_the_pairs_of_queries_and_keys() -> None:
    """Equal values cannot be dealt anew: the null is the form itself."""
    query, (values, keys), texts = prompt()
    same = [(torch.ones_like(v), k) for v, k in texts]
    real = drawn(6, 5, 5, seed=4)
    for head in implicit.relaxed(query, real, (torch.ones_like(values), keys), same, draws=2):
        assert head["null_cosine"] == pytest.approx(head["cosine"], **EXACT)
        assert head["null_r2_high"] == pytest.approx(head["r2"], **EXACT)


def test_the_order_of_queries_changes_no_agreement() -> None:
    query, demonstrations, texts = prompt()
    real, order = drawn(6, 5, 5, seed=4), [3, 0, 4, 2, 1]
    before = implicit.relaxed(query, real, demonstrations, texts, draws=0)
    after = implicit.relaxed(query[:, order], real[:, order], demonstrations, [texts[i] for i in order], draws=0)
    for one, other in zip(before, after, strict=True):
        assert one["null_cosine"] is None
        assert {k: v for k, v in one.items() if v is not None} == pytest.approx(
            {k: v for k, v in other.items() if v is not None}, **EXACT
        )
    again = [implicit.relaxed(query, real, demonstrations, texts, seed=3, draws=2) for _ in range(2)]
    assert again[0] == again[1]


def test_what_has_no_direction_is_none_and_says_why() -> None:
    query, (values, keys), texts = prompt()
    real = drawn(6, 5, 5, seed=4)
    assert implicit.relaxed(query[:, :0], real[:, :0], (values, keys), []) is None
    real[0] = 0
    real[5, 2] = 0
    dead = [(torch.cat([0 * v[:1], v[1:]]), k) for v, k in texts]
    zero = torch.cat([0 * values[:1], values[1:]])
    found = implicit.relaxed(query, real, (zero, keys), dead, draws=2)
    assert [head["reason"] for head in found] == [
        "the linear form is zero; the real output is zero",
        *["the linear form is zero"] * 2,
        *[None] * 3,
    ]
    assert found[1]["cosine"] is None
    assert found[1]["null_cosine"] is None
    assert (found[0]["left_out"], found[5]["left_out"], found[4]["left_out"]) == (5, 1, 0)
    (one, *_) = implicit.relaxed(query[:, :1], drawn(6, 1, 5), (values, keys), texts[:1], draws=2)
    assert one["r2_centred"] is None
    assert one["reason"] == "queries do not differ in what is said to them"
    assert one["r2"] == pytest.approx(one["cosine"] ** 2, **EXACT)
    alike = query[:, :1].expand(6, 5, 3), drawn(6, 1, 5).expand(6, 5, 5), (values, keys), texts[:1] * 5
    (head, *_) = implicit.relaxed(*alike, draws=2)
    assert head["r2_centred"] is None
    assert head["null_r2_centred"] is None or head["null_r2_centred"] <= 1


# -------------------------------------------------------------------------------------------------- meta-gradients

OF = (-1, 0, 0, 0, 1, 2, 2, -1, 3, 3, 1)  # the demonstration of each of 11 tokens; those of 1 are apart


def matrices(values: torch.Tensor, keys: torch.Tensor, demonstration: tuple[int, ...] = OF) -> np.ndarray:
    """(g, k, dv, dk): each demonstration's own matrix, token by token."""
    count = max(demonstration) + 1
    found = np.zeros((len(values), count, values.shape[2], keys.shape[2]))
    for g in range(len(values)):
        for t, a in enumerate(demonstration):
            if a >= 0:
                found[g, a] += np.outer(values[g, t].numpy(), keys[g, t].numpy())
    return found


def check_meta_gradients(m: ModuleType) -> None:
    values, keys, query = heads()
    own = matrices(values, keys)
    close(m.meta_gradients(values, keys, OF), np.einsum("gaij,gbij->gab", own, own))
    terms = m.demonstration_terms(values, keys, OF, query)
    assert terms.shape == (6, 4, 4, 5)
    for h in range(6):
        for s in range(4):
            for a in range(4):
                close(terms[h, s, a], own[h // 3, a] @ query[h, s].numpy())
    shown = [t for t, a in enumerate(OF) if a >= 0]
    change = dual.weight_update(values[:, shown], keys[:, shown])
    close(terms.sum(2), dual.applied(change, query))


def check_update_norm(m: ModuleType) -> None:
    values, keys, _ = heads()
    own = matrices(values, keys)
    found = m.update_norm(m.meta_gradients(values, keys, OF))
    for g in range(2):
        for n in range(4):
            close(float(found[g, n]), np.linalg.norm(own[g, : n + 1].sum(0)))


def check_effective_rank(m: ModuleType) -> None:
    values, keys, _ = heads()
    own = matrices(values, keys)
    found = m.effective_rank(values, keys, OF)
    for g in range(2):
        for n in range(4):
            gram = own[g, : n + 1].sum(0).T @ own[g, : n + 1].sum(0)
            sigma = np.sqrt(np.linalg.eigvalsh(gram).clip(0))
            p = sigma / sigma.sum()
            assert found[g][n] == pytest.approx(np.exp(-sum(x * np.log(x) for x in p if x > 0)), abs=1e-6)
    # diag(3, 1) has singular values 3/4 and 1/4 of their sum.
    both = torch.eye(2).double()[None]
    (row,) = m.effective_rank(both * torch.tensor([[3.0], [1.0]]).double(), both, [0, 1])
    assert row == pytest.approx((1.0, np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25))), **EXACT)


def test_meta_gradients_are_the_demonstrations_own_terms() -> None:
    check_meta_gradients(implicit)


def test_norms_grow_demonstration_by_demonstration() -> None:
    check_update_norm(implicit)


def test_equal_terms_grow_as_n_and_terms_at_right_angles_as_its_root() -> None:
    close(implicit.update_norm(torch.ones(1, 4, 4).double()), np.array([[1.0, 2, 3, 4]]))
    close(implicit.update_norm(torch.eye(4).double()[None]), np.sqrt([[1.0, 2, 3, 4]]))
    cancelling = torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]]).double()
    close(implicit.update_norm(cancelling), np.array([[1.0, 0.0]]))


def test_effective_ranks() -> None:
    check_effective_rank(implicit)


def test_the_effective_rank_of_noise_is_that_of_the_quarter_circle() -> None:
    d, t = 32, 4000
    ((found,),) = implicit.effective_rank(drawn(1, t, d), drawn(1, t, d, seed=1), [0] * t)
    assert found / d == pytest.approx(0.805, abs=0.02)


def test_nothing_has_no_rank() -> None:
    values, keys, query = heads(t=4)
    dead = torch.cat([0 * values[:1], values[1:]])
    found = implicit.effective_rank(dead, keys, [0, 0, 1, -1])
    assert found[0] == (None, None)
    assert all(rank >= 1 for rank in found[1])
    assert implicit.effective_rank(values, keys, [-1] * 4) == ((), ())
    assert implicit.meta_gradients(values, keys, [-1] * 4).shape == (2, 0, 0)
    assert implicit.demonstration_terms(values, keys, [-1] * 4, query).shape == (6, 4, 0, 5)
    assert implicit.update_norm(implicit.meta_gradients(values, keys, [-1] * 4)).shape == (2, 0)
    assert implicit.angles(implicit.meta_gradients(values, keys, [-1] * 4), [])[0]["same"] is None


def test_every_token_has_a_name_and_every_demonstration_a_token() -> None:
    values, keys, _ = heads(t=4)
    with pytest.raises(AssertionError, match="3 names of demonstrations for 4 tokens"):
        implicit.meta_gradients(values, keys, [0, 0, 1])
    with pytest.raises(AssertionError, match=r"demonstrations without a token: \[1\]"):
        implicit.effective_rank(values, keys, [0, 0, 2, 2])


# ---------------------------------------------------------------------------------------------------------- angles


def check_angles(m: ModuleType) -> None:
    """Terms (1, 0), (1, 1) of one label and (0, 2) of another: cosines sqrt(1/2), 0, sqrt(1/2)."""
    rows = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]]).double()
    (found,) = m.angles((rows @ rows.T)[None], ["x", "x", "y"])
    half = sqrt(0.5)
    assert found["same"] == pytest.approx(half)
    assert found["different"] == pytest.approx(half / 2)
    assert found["difference"] == pytest.approx(half / 2)
    assert found["by_label"] == {"x": pytest.approx(half), "y": None}
    assert (found["n_same"], found["n_different"], found["left_out"]) == (1, 2, 0)
    assert found["reason"] == "one demonstration alone has the label y"


def check_centred(m: ModuleType) -> None:
    values, keys, _ = heads()
    own = matrices(values, keys)
    own = own - own.mean(1, keepdims=True)
    found = m.angles(m.meta_gradients(values, keys, OF), ["a", "b", "b", "a"], centred=True)
    for g in range(2):
        flat = own[g].reshape(4, -1)
        unit = flat / np.linalg.norm(flat, axis=1)[:, None]
        cosine = unit @ unit.T
        assert found[g]["same"] == pytest.approx((cosine[0, 3] + cosine[1, 2]) / 2, **EXACT)
        assert found[g]["by_label"]["b"] == pytest.approx(cosine[1, 2], **EXACT)
        across = [cosine[i, j] for i, j in ((0, 1), (0, 2), (1, 3), (2, 3))]
        assert found[g]["different"] == pytest.approx(np.mean(across), **EXACT)


def test_angles_by_hand() -> None:
    check_angles(implicit)


def test_angles_without_the_common_part() -> None:
    check_centred(implicit)


def test_labels_that_matter_are_outside_the_null_and_others_are_inside() -> None:
    labels = ["a", "b"] * 8
    centre = {"a": drawn(30, seed=1), "b": drawn(30, seed=2)}
    rows = torch.stack([centre[label] for label in labels]) + drawn(16, 30, seed=3)
    (found,) = implicit.angles((rows @ rows.T)[None], labels)
    assert found["difference"] > found["null_high"] > 0 > found["null_low"]
    inside = 0
    for seed in range(100):
        noise = drawn(16, 30, seed=seed)
        (found,) = implicit.angles((noise @ noise.T)[None], labels, draws=99)
        inside += found["null_low"] <= found["difference"] <= found["null_high"]
    assert 87 <= inside <= 100


def test_what_labels_leave_undefined_is_none_and_says_why() -> None:
    products = implicit.meta_gradients(*heads()[:2], OF)
    one, other = implicit.angles(products, ["a"] * 4)[0], implicit.angles(products, ["a", "b", "c", "d"])[0]
    assert one["reason"] == "no two demonstrations have different labels"
    assert (one["different"], one["difference"], one["null_low"]) == (None, None, None)
    assert other["same"] is None
    assert other["reason"] == ("no two demonstrations share a label; one demonstration alone has the label a, b, c, d")
    products[:, 2] = products[:, :, 2] = 0
    found = implicit.angles(products, ["a", "b", "a", "b"])[1]
    assert found["left_out"] == 1
    assert (found["n_same"], found["n_different"]) == (1, 2)
    equal = implicit.angles(torch.ones(1, 3, 3).double(), ["a", "a", "b"], centred=True)[0]
    assert (equal["left_out"], equal["same"]) == (3, None)


# -------------------------------------------------------------------------------------------------- planted faults

MUTANTS = {
    "the query of another text": ("query[:, j : j + 1]", "query[:, :1]", [check_relaxed]),
    "the scale turned round": ("product[i] / squared[i] if", "product[i] / total[i] if", [check_relaxed]),
    "cosine not normalised": (".sum(-1)[seen] / lengths[i][seen]", ".sum(-1)[seen]", [check_relaxed]),
    "keys forgotten": (" * (keys[:, own] @ all_keys.transpose(1, 2))", "", [check_meta_gradients]),
    "names one too low": ("np.flatnonzero(of == i)", "np.flatnonzero(of == i - 1)",
        [check_meta_gradients, check_effective_rank]),
    "not cumulative": (".cumsum(1).cumsum(2)", ".cumsum(1)", [check_update_norm]),
    "norm squared": ("clamp_min(0).sqrt()", "clamp_min(0)", [check_update_norm]),
    "singular values not normalised": ("entr(sigma / whole)", "entr(sigma)", [check_effective_rank]),
    "only the last demonstration": ("total = total + weight_update", "total = weight_update",
        [check_effective_rank]),
    "angles not normalised": (" / np.sqrt(np.outer(squared[kept], squared[kept]))", "",
        [check_angles, check_centred]),
    "pairs with oneself": ("np.triu_indices(len(kept), 1)", "np.triu_indices(len(kept), 0)", [check_angles]),
    "centred once": ("- rows - rows.transpose(1, 2) + rows", "- rows + 0 * rows", [check_centred]),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_fault_is_caught(name: str) -> None:
    right, wrong, checks = MUTANTS[name]
    check_mutant(implicit, right, wrong, checks)
