"""The dual form and the split of attention against loops over tokens in float64, on random layers and on models' own projections.

Every check takes the module it looks at, so that it can be shown to fail on a copy with a fault in it (``MUTANTS``).
"""

from collections.abc import Callable
from math import sqrt
from types import ModuleType

import numpy as np
import pytest
import torch
import zoo
from loops import check_mutant, close, drawn, heads, slow_attention, slow_matrix

from kshot.errors import NumericError
from kshot.measure import dual
from kshot.model.lm import LM

TOKENS = tuple(np.random.default_rng(7).integers(3, 97, 23).tolist())
# Where the demonstrations begin (after a start token), and where the query text begins.
START, TEXT = 1, 16

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
    """A text's keys after the demonstrations are those it has alone, moved: in the first layer, and not above."""
    for lm in models():
        frequency = torch.from_numpy(frequencies(lm))
        for layer, same in ((0, True), (1, False)):
            with zoo.Pure64():
                after, alone = projections(lm, TOKENS, layer), projections(lm, TOKENS[TEXT:], layer)
            here = after["k"][:, TEXT:]
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


def check_momentum(d: ModuleType, momentum: float = 0.9) -> None:
    inputs, targets, start, query = drawn(6, 4), drawn(6, 3), drawn(3, 4), drawn(5, 4)
    rate, steps = 0.05, 7
    course = d.descent(start, inputs, targets, learning_rate=rate, steps=steps, momentum=momentum)
    leaf = start.clone().requires_grad_(True)
    optimiser = torch.optim.SGD([leaf], lr=rate, momentum=momentum)
    for step in range(steps):
        optimiser.zero_grad()
        ((inputs @ leaf.T - targets) ** 2).sum().div(2).backward()
        optimiser.step()
        close(course.weights[step + 1], leaf.detach())
    found = d.as_attention(start, course.signals, inputs, query, momentum)
    close(found, query @ course.weights[-1].T)
    # Its second term by the double sum of momentum attention: values of a step, decayed by its distance.
    values = [torch.einsum("tn,tm,sm->sn", own, inputs, query) for own in course.signals]
    decayed = sum(momentum ** (j - i) * values[i] for j in range(steps) for i in range(j))
    close(found - d.as_attention(start, course.signals, inputs, query), decayed)


@pytest.mark.parametrize("momentum", [0.3, 0.9])
def test_descent_with_momentum_is_attention_and_a_decayed_sum(momentum: float) -> None:
    check_momentum(dual, momentum)


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


# -------------------------------------------------------------------------------------------------- planted faults

MUTANTS = {
    "heads shared by remainder": ("query.unflatten(0, (heads, -1))",
        "query.unflatten(0, (-1, heads)).transpose(0, 1)", [check_linear_attention, check_real_split]),
    "keys one token late": ('"gtw,gtd->gwd", values, keys', '"gtw,gtd->gwd", values, keys.roll(1, 1)',
        [check_identity, check_real_identity]),
    "sign of the error signal": ("-learning_rate * gradient", "learning_rate * gradient", [check_descent]),
    "all signals at the first weights": ("outputs = inputs @ current.T", "outputs = inputs @ weights.T",
        [check_descent]),
    "inputs in the order of steps": ("inputs.repeat(signals.shape[0], 1)", "inputs.repeat_interleave(signals.shape[0], 0)",
        [check_descent]),
    "the layer itself forgotten": ("said = query @ weights.T + ", "said = ", [check_descent]),
    "momentum without its decay": ("decayed = momentum * (decayed", "decayed = (decayed", [check_momentum]),
    "momentum a step late": ("said = said + decayed", "said = said + momentum * decayed", [check_momentum]),
    "the first step's speed kept": ("speed = momentum * speed +", "speed = speed +", [check_momentum]),
    "moved one position short": ("(by * frequencies", "((by - 1) * frequencies", [check_moved]),
    "turned the other way": ("first * cosine - second * sine, second * cosine + first * sine",
        "first * cosine + second * sine, second * cosine - first * sine", [check_moved]),
    "demonstrations one token late": ("place >= start", "place > start", [check_split]),
    "demonstrations one token long": ("place < of_prefix", "place <= of_prefix", [check_split]),
    "shares exchanged": ("sigmoid(of_shown - of_text)", "sigmoid(of_text - of_shown)",
        [check_split, check_real_split]),
    "parts not normalised": ("(scores - total.masked_fill(total == -torch.inf, 0)[..., None]).exp()",
        "scores.exp()", [check_split]),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_fault_is_caught(name: str) -> None:
    right, wrong, checks = MUTANTS[name]
    check_mutant(dual, right, wrong, checks)
