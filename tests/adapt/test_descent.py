"""Fine-tuning of keys and values against slow loops in float64 that share nothing with it but the model's weights."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from descents import (
    RATE,
    SHOWN,
    TASK,
    TEMPLATE,
    Fault,
    assert_same,
    keys_only,
    line,
    moved,
    other_order,
    plain_queries,
    tiny64,
    tokens_of,
    wrong_sign,
)
from torch import Tensor

from kshot.adapt import descent
from kshot.adapt.descent import layer_causal_pass, one_pass
from kshot.adapt.train import Diverged
from kshot.errors import KshotError, ModelError
from kshot.model.delta import Delta
from kshot.model.lm import LM
from kshot.model.trace import traced


@pytest.fixture(scope="module")
def llama() -> LM:
    return tiny64()


def example_loss(net: torch.nn.Module, ids: Sequence[int]) -> Tensor:
    """The mean over tokens 1, 2, ... of -log p(token given those before it)."""
    logits = net(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]
    return -torch.stack([logits[i - 1].log_softmax(-1)[ids[i]] for i in range(1, len(ids))]).mean()


def plain_pass(lm: LM, rate: float = RATE) -> tuple[dict[str, Tensor], list[float]]:
    """torch's own SGD on a copy of the model, one demonstration after the other."""
    net = copy.deepcopy(lm.model)
    own = moved(net)
    for parameter in own.values():
        parameter.requires_grad_(True)
    optimiser, losses = torch.optim.SGD(list(own.values()), lr=rate), []
    for ids in tokens_of(lm):
        optimiser.zero_grad()
        loss = example_loss(net, ids)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return {n: p.detach() for n, p in own.items()}, losses


# --- one step per demonstration


def check_one_pass(lm: LM) -> None:
    with zoo.Pure64():
        assert_same(lm, one_pass(lm, TASK, TEMPLATE, SHOWN, RATE), plain_pass(lm))


@pytest.mark.parametrize("name", ["tiny", "llama", "qwen2", "gemma3", "opt", "llama-dynamic"])
def test_one_pass_is_that_of_torch(name: str) -> None:
    check_one_pass(tiny64() if name == "tiny" else zoo.lm(name))


def test_the_model_keeps_its_weights(llama: LM) -> None:
    before = {name: tensor.clone() for name, tensor in llama.model.state_dict().items()}
    for way in (one_pass, layer_causal_pass):
        found = way(llama, TASK, TEMPLATE, SHOWN[:1], RATE, record=True)
        assert not any(tensor.requires_grad for tensor in found.delta.dense.values())
        assert all(torch.equal(tensor, before[name]) for name, tensor in llama.model.state_dict().items())
        again = way(llama, TASK, TEMPLATE, SHOWN[:1], RATE)
        assert all(torch.equal(again.delta.dense[n], t) for n, t in found.delta.dense.items())
        assert again.losses == found.losses
    assert not any(parameter.requires_grad for parameter in llama.model.parameters())


def test_a_change_that_the_model_is_read_with_stays(llama: LM) -> None:
    up = "model.layers.0.mlp.up_proj.weight"
    twice = llama.model.get_parameter(up).detach() * 2
    other = tiny64()
    other.model.get_parameter(up).data.copy_(twice)
    with zoo.Pure64():
        found = one_pass(replace(llama, delta=Delta(dense={up: twice})), TASK, TEMPLATE, SHOWN, RATE)
        assert_same(other, found, plain_pass(other))


def answers_only(patch: pytest.MonkeyPatch) -> None:
    real = descent.gold_rows
    patch.setattr(descent, "gold_rows", lambda *given, whole: real(*given, whole=False))


def one_batch(patch: pytest.MonkeyPatch) -> None:
    real = descent.Recipe
    patch.setattr(descent, "Recipe", lambda **asked: real(**(asked | {"batch": 3})))


def clipped(patch: pytest.MonkeyPatch) -> None:
    real = descent.Recipe
    patch.setattr(descent, "Recipe", lambda **asked: real(**(asked | {"clip": 0.1})))


@pytest.mark.parametrize("fault", [wrong_sign, other_order, answers_only, keys_only, one_batch, clipped])
def test_planted_in_one_pass(fault: Fault, llama: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        check_one_pass(llama)


def test_in_16_bits_the_steps_are_taken_in_float32() -> None:
    """Steps that are smaller than a rounding of the weights add up all the same."""
    narrow = zoo.lm("llama", torch.bfloat16)
    before = moved(narrow.model)

    def changed(steps: int) -> float:
        found = one_pass(narrow, TASK, TEMPLATE, SHOWN[:1] * steps, 1e-4).delta.dense
        assert all(tensor.dtype == torch.bfloat16 for tensor in found.values())
        return float(torch.cat([(found[n] != before[n]).double().flatten() for n in before]).mean())

    assert changed(20) > 5 * changed(1)


# --- the queries on the way


def test_queries_are_those_before_each_update(llama: LM) -> None:
    found = one_pass(llama, TASK, TEMPLATE, SHOWN, RATE, record=True)
    assert found.queries is not None
    assert len(found.queries) == 3
    change: dict[str, Tensor] = {}
    for i, (ids, queries) in enumerate(zip(tokens_of(llama), found.queries, strict=True)):
        assert queries.dtype == np.float32
        assert queries == pytest.approx(plain_queries(llama, change, ids), abs=1e-4)
        change = dict(one_pass(llama, TASK, TEMPLATE, SHOWN[: i + 1], RATE).delta.dense)
        # those of the second layer would be others one step later
        after = plain_queries(llama, change, ids)
        assert np.abs(queries[1] - after[1]).max() > 1e-3
    assert one_pass(llama, TASK, TEMPLATE, SHOWN, RATE).queries is None


def test_recording_changes_nothing(llama: LM) -> None:
    one, other = (one_pass(llama, TASK, TEMPLATE, SHOWN, RATE, record=record) for record in (False, True))
    assert one.losses == other.losses
    assert all(torch.equal(one.delta.dense[n], t) for n, t in other.delta.dense.items())


def test_a_pass_that_begins_a_rounding_away() -> None:
    lm = zoo.lm("llama", torch.float32)
    # At a rate of nothing what is left is what it began with.
    still = one_pass(lm, TASK, TEMPLATE, SHOWN, 1e-30).delta.dense
    moved = one_pass(lm, TASK, TEMPLATE, SHOWN, 1e-30, rounded=0).delta.dense
    for name, tensor in still.items():
        above, below = (torch.nextafter(tensor, torch.full_like(tensor, end)) for end in (torch.inf, -torch.inf))
        assert ((moved[name] == above) | (moved[name] == below) | (moved[name] == tensor)).all()
        assert 0.6 < (moved[name] != tensor).float().mean() < 0.75
    again, other = (one_pass(lm, TASK, TEMPLATE, SHOWN, 1e-30, rounded=seed).delta.dense for seed in (0, 1))
    assert all(torch.equal(again[name], tensor) for name, tensor in moved.items())
    assert not all(torch.equal(other[name], tensor) for name, tensor in moved.items())


def test_the_moved_weights_can_be_read_with(llama: LM) -> None:
    found = one_pass(llama, TASK, TEMPLATE, SHOWN, RATE)
    ids = tuple(tokens_of(llama)[0])
    (was,), (now,) = (list(traced(m, [ids], [(-1,)])) for m in (llama, replace(llama, delta=found.delta)))
    assert np.abs(was.outputs - now.outputs).max() > 1e-4


# --- what cannot be


@pytest.mark.parametrize("way", [one_pass, layer_causal_pass])
def test_fused_projections(way: Any) -> None:
    assert line(lambda: way(zoo.lm("gpt2"), TASK, TEMPLATE, SHOWN, RATE)) == (
        "fine-tuning as published moves k_proj and v_proj, and gpt2 has no k_proj or v_proj (its linear layers are c_attn, "
        "c_fc, c_proj); what works is a model that projects keys and values by themselves, as Llama does"
    )


@pytest.mark.parametrize("way", [one_pass, layer_causal_pass])
def test_divergence(way: Any, tiny_lm: LM) -> None:
    """In float32 the products of such weights are no numbers."""
    said = line(lambda: way(tiny_lm, TASK, TEMPLATE, SHOWN, 3e38), Diverged)
    assert said.startswith("diverged at step ")
    assert said.endswith(" with sgd at learning rate 3e+38; try a smaller one")


def test_divergence_in_the_last_step() -> None:
    lm = tiny64()
    with torch.no_grad():
        # a hundred times the logits have about a hundred times the gradients
        lm.model.lm_head.weight.mul_(100.0)
    assert line(lambda: one_pass(lm, TASK, TEMPLATE, SHOWN[:1], 1e308), Diverged) == (
        "diverged at step 1: weights that are no numbers with sgd at learning rate 1e+308; try a smaller one"
    )


@pytest.mark.parametrize("way", [one_pass, layer_causal_pass])
def test_no_demonstrations_and_no_rate(way: Any, llama: LM) -> None:
    assert line(lambda: way(llama, TASK, TEMPLATE, (), RATE)) == (
        "task 'made': fine-tuning on no demonstrations; what works is one or more"
    )
    assert line(lambda: way(llama, TASK, TEMPLATE, SHOWN, -0.1), KshotError) == (
        "learning rate -0.1: what works is a number above 0"
    )


def test_a_demonstration_that_does_not_fit(llama: LM) -> None:
    assert "which reads 8" in line(lambda: one_pass(replace(llama, context=8), TASK, TEMPLATE, SHOWN, RATE))


def test_queries_of_what_cannot_be_traced() -> None:
    with pytest.raises(ModelError, match="cannot be traced"):
        one_pass(zoo.lm("llama-dynamic"), TASK, TEMPLATE, SHOWN, RATE, record=True)
