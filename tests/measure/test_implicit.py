"""The dual form against loops over tokens in float64, on random layers and on a model's own projections.

Every check takes the module it looks at, so that it can be shown to fail on a copy with a fault in it (``MUTANTS``).
"""

import inspect
from collections.abc import Callable
from math import sqrt
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import zoo

from kshot.errors import NumericError
from kshot.measure import dual, implicit
from kshot.model.lm import LM
from kshot.seeds import torch_stream

EXACT = {"abs": 1e-10, "rel": 0}
TOKENS = tuple(np.random.default_rng(7).integers(3, 97, 23).tolist())
# Where the demonstrations begin (behind a start token), and where the query text begins.
START, TEXT = 1, 16


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch_stream(seed, "implicit", *shape))


def heads(seed: int = 0, t: int = 11) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values (g t dv), keys (g t dk), queries (h s dk), all widths and numbers different."""
    return drawn(2, t, 5, seed=seed), drawn(2, t, 3, seed=seed + 1), drawn(6, 4, 3, seed=seed + 2)


def slow_attention(values: Any, keys: Any, query: Any) -> np.ndarray:
    """sum_i v_i (k_i . q), one number at a time; three query heads in a row share a key-value head where g = h / 3."""
    v, k, q = (x.double().numpy() for x in (values, keys, query))
    share = len(q) // len(v)
    out = np.zeros((*q.shape[:2], v.shape[2]))
    for i in range(len(q)):
        for s in range(q.shape[1]):
            for t in range(v.shape[1]):
                product = sum(k[i // share, t, d] * q[i, s, d] for d in range(k.shape[2]))
                for w in range(v.shape[2]):
                    out[i, s, w] += v[i // share, t, w] * product
    return out


def slow_matrix(values: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """sum_i v_i k_i^T of one head."""
    total = np.zeros((values.shape[1], keys.shape[1]))
    for v, k in zip(values, keys, strict=True):
        total += np.outer(v, k)
    return total


def close(found: Any, expected: Any, **tolerance: float) -> None:
    found = found.numpy() if isinstance(found, torch.Tensor) else found
    expected = expected.numpy() if isinstance(expected, torch.Tensor) else expected
    assert found == pytest.approx(expected, **{**EXACT, **tolerance})


# ---------------------------------------------------------------------------------------------- linear attention


def check_linear_attention(d: ModuleType) -> None:
    values, keys, query = heads()
    close(d.linear_attention(values, keys, query), slow_attention(values, keys, query))
    for seed in range(5):
        v, k, q = heads(seed)
        close(d.linear_attention(v, k, q), d.applied(d.zero_shot_weight(v, k), q))


def check_identity(d: ModuleType) -> None:
    """Linear attention over [X' ; X] is (W_ZSL + dW_ICL) q."""
    for seed in range(5):
        values, keys, query = heads(seed)
        change, zero_shot = d.weight_update(values[:, :7], keys[:, :7]), d.zero_shot_weight(values[:, 7:], keys[:, 7:])
        for g in range(2):
            close(change[g], slow_matrix(values[g, :7].numpy(), keys[g, :7].numpy()))
            close(zero_shot[g], slow_matrix(values[g, 7:].numpy(), keys[g, 7:].numpy()))
        close(d.applied(change + zero_shot, query), slow_attention(values, keys, query))


def test_linear_attention_is_a_sum_over_tokens() -> None:
    check_linear_attention(dual)


def test_linear_attention_is_a_layer_and_its_change() -> None:
    check_identity(dual)


def test_heads_that_cannot_be_shared_are_refused() -> None:
    with pytest.raises(AssertionError, match="3 query heads cannot share 2"):
        dual.linear_attention(drawn(2, 4, 3), drawn(2, 4, 3), drawn(3, 1, 3))


# ------------------------------------------------------------------------------------- a model's own projections


def frequencies(lm: LM) -> np.ndarray:
    """The model's own table, in radians a position: kept in float32, and theta^(-2 i / d) where the rule is the plain one."""
    own, rope = lm.model.model.rotary_emb.inv_freq.double().numpy(), lm.model.config.rope_parameters
    if rope["rope_type"] == "default":
        d = lm.model.config.head_dim
        assert own == pytest.approx(float(rope["rope_theta"]) ** (-np.arange(0, d, 2) / d), rel=1e-6)
    return own


def rotated(rows: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    """(heads, t, d) at positions 0 to t - 1, one pair of coordinates at a time."""
    out, half = rows.copy(), rows.shape[2] // 2
    for t in range(rows.shape[1]):
        for i in range(half):
            c, s = np.cos(t * frequency[i]), np.sin(t * frequency[i])
            a, b = rows[:, t, i], rows[:, t, i + half]
            out[:, t, i], out[:, t, i + half] = a * c - b * s, b * c + a * s
    return out


def projections(lm: LM, tokens: tuple[int, ...], layer: int) -> dict[str, torch.Tensor]:
    """What the projections of a layer say to a whole sequence: q, k after rotary positions, v, and every head's output."""
    attention = lm.model.model.layers[layer].self_attn
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda module, inputs, out: seen.update({name: (inputs[0] if name == "o" else out)[0].double()})

    handles = [getattr(attention, f"{name}_proj").register_forward_hook(keep(name)) for name in "qkvo"]
    with torch.no_grad():
        lm.model(input_ids=torch.tensor([tokens]), use_cache=False)
    for handle in handles:
        handle.remove()
    d = lm.model.config.head_dim
    by_head = {name: x.unflatten(1, (-1, d)).transpose(0, 1).contiguous() for name, x in seen.items()}
    for name in "qk":
        by_head[name] = torch.from_numpy(rotated(by_head[name].numpy(), frequencies(lm)))
    return by_head


def models() -> list[LM]:
    """Random Llamas in float64 with two query heads to a key-value head."""
    return [zoo.lm("llama"), zoo.lm("llama-rope3")]


def scores_of(found: dict[str, torch.Tensor]) -> torch.Tensor:
    """Causal scores (h, t, t), scaled, written out head by head."""
    q, k = found["q"], found["k"]
    share, t = len(q) // len(k), q.shape[1]
    scores = torch.full((len(q), t, t), -torch.inf, dtype=torch.float64)
    for i in range(len(q)):
        for s in range(t):
            for j in range(s + 1):
                scores[i, s, j] = float(q[i, s] @ k[i // share, j]) / sqrt(q.shape[2])
    return scores


def check_real_identity(d: ModuleType) -> None:
    for lm in models():
        for layer in range(2):
            with zoo.Pure64():
                found = projections(lm, TOKENS, layer)
            values, keys, query = found["v"], found["k"], found["q"][:, -1:]
            change = d.weight_update(values[:, :TEXT], keys[:, :TEXT])
            zero_shot = d.zero_shot_weight(values[:, TEXT:], keys[:, TEXT:])
            close(d.applied(change + zero_shot, query), slow_attention(values, keys, query), rel=1e-12)


def check_real_split(d: ModuleType) -> None:
    """Both parts together are what every head really says: rotary positions and grouped heads are those of the model."""
    for lm in models():
        for layer in range(2):
            with zoo.Pure64():
                found = projections(lm, TOKENS, layer)
            parts = d.split(scores_of(found), found["v"], TEXT, start=START)
            close(parts.output, found["o"])
            assert parts.sees_text.all()
            # Position 0 is the start token, and sees no demonstration.
            assert parts.sees_demonstrations.sum() == parts.share[:, START:].numel()


def check_moved(d: ModuleType) -> None:
    """A text's keys behind the demonstrations are those it has alone, moved: in the first layer, and not above."""
    for lm in models():
        frequency = torch.from_numpy(frequencies(lm))
        for layer, same in ((0, True), (1, False)):
            with zoo.Pure64():
                behind, alone = projections(lm, TOKENS, layer), projections(lm, TOKENS[TEXT:], layer)
            here = behind["k"][:, TEXT:]
            there = d.moved(alone["k"], TEXT, frequency)
            assert (float((there - here).abs().max()) < 1e-10) == same
            assert float((alone["k"] - here).abs().max()) > 1e-2
            close(d.moved(there, -TEXT, frequency), alone["k"])


@pytest.mark.parametrize("check", [check_real_identity, check_real_split, check_moved])
def test_a_models_own_projections(check: Callable[[ModuleType], None]) -> None:
    check(dual)


def test_the_small_model_of_the_package(tiny_lm: LM) -> None:
    """In float32: keys and values as the engine keeps them are the rotated ones, and the identity holds on them."""
    prefix = tiny_lm.prefill(TOKENS)
    for layer in range(2):
        found = projections(tiny_lm, TOKENS, layer)
        keys, values = prefix.keys[layer][0].double(), prefix.values[layer][0].double()
        close(keys, found["k"], abs=1e-4)
        close(values, found["v"], abs=1e-4)
        query = found["q"][:, -1:]
        weights = dual.weight_update(values[:, :TEXT], keys[:, :TEXT]) + dual.zero_shot_weight(
            values[:, TEXT:], keys[:, TEXT:]
        )
        close(dual.applied(weights, query), slow_attention(values, keys, query))
        close(dual.split(scores_of(found), found["v"], TEXT).output, found["o"], abs=1e-4)


def test_only_pairs_that_have_a_frequency_are_moved() -> None:
    vectors = drawn(2, 3, 7)
    found = dual.moved(vectors, 1, torch.tensor([0.0, torch.pi / 2], dtype=torch.float64))
    close(found[..., [0, 2, 4, 5, 6]], vectors[..., [0, 2, 4, 5, 6]])
    close(found[..., 1], -vectors[..., 3])
    close(found[..., 3], vectors[..., 1])


# ------------------------------------------------------------------------------------------------ gradient descent


def check_descent(d: ModuleType) -> None:
    """Steps by autograd, one after another, against the error signals, for the squared and for the logistic loss."""
    inputs, wanted, start, query = drawn(6, 4), drawn(6, 3), drawn(3, 4), drawn(5, 4)
    right = torch.tensor([0, 2, 1, 1, 0, 2])
    rate, steps = 0.07, 4
    squared = lambda f: 0.5 * (f - wanted).square().sum()  # noqa: E731
    logistic = lambda f: torch.nn.functional.cross_entropy(f, right, reduction="sum")  # noqa: E731
    logistic_gradient = lambda f: f.softmax(-1) - torch.nn.functional.one_hot(right, 3)  # noqa: E731
    for loss, target in ((squared, wanted), (logistic, logistic_gradient)):
        course = d.descent(start, inputs, target, learning_rate=rate, steps=steps)
        weights = start.clone()
        close(course.weights[0], start)
        for step in range(steps):
            leaf = weights.clone().requires_grad_()
            outputs = inputs @ leaf.T
            outputs.retain_grad()
            loss(outputs).backward()
            close(course.signals[step], -rate * outputs.grad)
            weights = weights - rate * leaf.grad
            close(course.weights[step + 1], weights)
        assert loss(inputs @ weights.T) < loss(inputs @ start.T)
        close(d.as_attention(start, course.signals, inputs, query), query @ weights.T)
        plain = query @ start.T
        for signals in course.signals:
            for signal, x in zip(signals, inputs, strict=True):
                plain = plain + torch.outer(query @ x, signal)
        close(d.as_attention(start, course.signals, inputs, query), plain)


def test_descent_is_attention_to_the_training_inputs() -> None:
    check_descent(dual)


def test_no_steps_leave_the_layer_as_it_was() -> None:
    inputs, targets, start = drawn(6, 4), drawn(6, 3), drawn(3, 4)
    course = dual.descent(start, inputs, targets, learning_rate=0.1, steps=0)
    assert course.weights.shape == (1, 3, 4)
    assert course.signals.shape == (0, 6, 3)
    close(dual.as_attention(start, course.signals, inputs, drawn(5, 4)), drawn(5, 4) @ start.T)


def test_one_demonstration_by_hand() -> None:
    """x = (1, 2), y = 3, W = (0, 1): F = 2, the error signal is 0.1 (3 - 2), and W becomes (0.1, 1.2)."""
    one = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    start, target = torch.tensor([[0.0, 1.0]]).double(), torch.tensor([[3.0]]).double()
    course = dual.descent(start, one, target, learning_rate=0.1, steps=1)
    close(course.signals, np.array([[[0.1]]]))
    close(course.weights[1], np.array([[0.1, 1.2]]))


def test_a_rate_that_diverges_is_named() -> None:
    with pytest.raises(NumericError) as error:
        dual.descent(drawn(3, 4), drawn(6, 4), drawn(6, 3), learning_rate=1e200, steps=9)
    assert str(error.value) == (
        "gradient descent at a learning rate of 1e+200 left all numbers at step 2 of 9; try a smaller one"
    )


# ----------------------------------------------------------------------------------------------------------- split


def check_split(d: ModuleType) -> None:
    """The share by sums of exponentials, the parts by softmaxes of their own, one position at a time."""
    values, scores = drawn(2, 9, 5), 3 * drawn(6, 4, 9)
    scores[:, 0, 6:] = -torch.inf
    for start, of_prefix in ((0, 4), (1, 6), (2, 8)):
        found = d.split(scores, values, of_prefix, start=start)
        shown = [start <= i < of_prefix for i in range(9)]
        for h in range(6):
            for s in range(4):
                e, v = scores[h, s].exp().numpy(), values[h // 3].numpy()
                close(float(found.share[h, s]), e[shown].sum() / e.sum())
                close(found.demonstrations[h, s], (e[shown] @ v[shown]) / e[shown].sum())
                other = np.logical_not(shown)
                close(found.query_text[h, s], (e[other] @ v[other]) / e[other].sum())
                close(found.output[h, s], (e @ v) / e.sum())


def test_the_split_is_exact() -> None:
    check_split(dual)


def test_a_part_that_is_not_seen_has_no_weight() -> None:
    values, scores = drawn(2, 5, 3), drawn(2, 3, 5)
    scores[:, 0, :2] = -torch.inf
    scores[:, 1, 2:] = -torch.inf
    found = dual.split(scores, values, 2)
    assert found.share[:, 0].eq(0).all()
    assert found.share[:, 1].eq(1).all()
    assert found.sees_demonstrations.tolist() == [[False, True, True]] * 2
    assert found.sees_text.tolist() == [[True, False, True]] * 2
    close(found.output, torch.einsum("hst,htd->hsd", scores.softmax(-1), values))
    nothing = dual.split(scores[:, 2:], values, 0)
    assert nothing.share.eq(0).all()
    assert not nothing.sees_demonstrations.any()


def test_scores_of_any_size_are_split() -> None:
    values, scores = drawn(2, 5, 3), drawn(2, 3, 5) + 5000
    found = dual.split(scores, values, 2)
    close(found.output, torch.einsum("hst,htd->hsd", scores.softmax(-1), values))
    # One part is beyond the reach of exp: its own softmax is still there.
    far = torch.tensor([[[-2000.0, -2000.0, 0.0]]]).double()
    ones = torch.tensor([[[1.0], [3.0], [7.0]]]).double()
    found = dual.split(far, ones, 2)
    assert found.share.item() == 0
    assert found.demonstrations.item() == pytest.approx(2)
    assert found.sees_demonstrations.item()


@pytest.mark.parametrize("fill", [torch.nan, -torch.inf])
def test_a_softmax_of_nothing_is_named(fill: float) -> None:
    scores = drawn(2, 3, 5)
    scores[1, 2] = fill
    with pytest.raises(NumericError) as error:
        dual.split(scores, drawn(2, 5, 3), 2)
    assert str(error.value) == (
        "1 of 6 softmaxes cannot be split: a score is NaN, or no token is seen; give scores of positions that see "
        "themselves"
    )


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
    "heads shared by remainder": (dual, "query.unflatten(0, (heads, -1))",
        "query.unflatten(0, (-1, heads)).transpose(0, 1)", [check_linear_attention, check_real_split]),
    "keys one token late": (dual, '"gtw,gtd->gwd", values, keys', '"gtw,gtd->gwd", values, keys.roll(1, 1)',
        [check_identity, check_real_identity]),
    "sign of the error signal": (dual, "-learning_rate * gradient", "learning_rate * gradient", [check_descent]),
    "all signals at the first weights": (dual, "outputs = inputs @ current.T", "outputs = inputs @ weights.T",
        [check_descent]),
    "inputs in the order of steps": (dual, "inputs.repeat(steps, 1)", "inputs.repeat_interleave(steps, 0)",
        [check_descent]),
    "the layer itself forgotten": (dual, "return query @ weights.T + ", "return ", [check_descent]),
    "moved one position short": (dual, "(by * frequencies", "((by - 1) * frequencies", [check_moved]),
    "turned the other way": (dual, "first * cosine - second * sine, second * cosine + first * sine",
        "first * cosine + second * sine, second * cosine - first * sine", [check_moved]),
    "demonstrations one token late": (dual, "place >= start", "place > start", [check_split]),
    "demonstrations one token long": (dual, "place < of_prefix", "place <= of_prefix", [check_split]),
    "shares exchanged": (dual, "sigmoid(of_shown - of_text)", "sigmoid(of_text - of_shown)",
        [check_split, check_real_split]),
    "parts not normalised": (dual, "(scores - total.masked_fill(total == -torch.inf, 0)[..., None]).exp()",
        "scores.exp()", [check_split]),
    "the query of another text": (implicit, "query[:, j : j + 1]", "query[:, :1]", [check_relaxed]),
    "the scale turned round": (implicit, "product[i] / squared[i] if", "product[i] / total[i] if", [check_relaxed]),
    "cosine not normalised": (implicit, ".sum(-1)[seen] / lengths[i][seen]", ".sum(-1)[seen]", [check_relaxed]),
    "keys forgotten": (implicit, " * (keys[:, own] @ all_keys.transpose(1, 2))", "", [check_meta_gradients]),
    "names one too low": (implicit, "np.flatnonzero(of == i)", "np.flatnonzero(of == i - 1)",
        [check_meta_gradients, check_effective_rank]),
    "not cumulative": (implicit, ".cumsum(1).cumsum(2)", ".cumsum(1)", [check_update_norm]),
    "norm squared": (implicit, "clamp_min(0).sqrt()", "clamp_min(0)", [check_update_norm]),
    "singular values not normalised": (implicit, "entr(sigma / whole)", "entr(sigma)", [check_effective_rank]),
    "only the last demonstration": (implicit, "total = total + weight_update", "total = weight_update",
        [check_effective_rank]),
    "angles not normalised": (implicit, " / np.sqrt(np.outer(squared[kept], squared[kept]))", "",
        [check_angles, check_centred]),
    "pairs with oneself": (implicit, "np.triu_indices(len(kept), 1)", "np.triu_indices(len(kept), 0)", [check_angles]),
    "centred once": (implicit, "- rows - rows.transpose(1, 2) + rows", "- rows + 0 * rows", [check_centred]),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_fault_is_caught(name: str) -> None:
    module, right, wrong, checks = MUTANTS[name]
    source = inspect.getsource(module)
    assert source.count(right) == 1, f"{right!r} is in {module.__name__} {source.count(right)} times"
    mutant = ModuleType(module.__name__)
    exec(compile(source.replace(right, wrong), name, "exec"), mutant.__dict__)
    for check in checks:
        with pytest.raises(AssertionError):
            check(mutant)


HEADINGS = ["Claim", "Formula", "Null", "Departures", "Known problems"]
MEASURES = [dual.linear_attention, dual.weight_update, dual.zero_shot_weight, dual.descent, dual.as_attention, dual.split,
    implicit.relaxed, implicit.meta_gradients, implicit.demonstration_terms, implicit.update_norm,
    implicit.effective_rank, implicit.angles]  # fmt: skip


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.__name__)
def test_five_headings(measure: Callable[..., Any]) -> None:
    lines = (measure.__doc__ or "").splitlines()
    heads = [line.strip().split(":")[0] for line in lines if line[:4].isspace() and line[4:5].isupper()]
    assert [head for head in heads if head in HEADINGS] == HEADINGS
    assert len(lines[0]) <= 110
    assert lines[0].endswith(".")
