"""Layer-causal descent against a slow loop in float64: every layer by itself, one token at a time."""

import copy
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
    heads,
    keys_only,
    line,
    moved,
    other_order,
    plain_queries,
    tiny64,
    tokens_of,
    turned,
    wrong_sign,
)
from torch import Tensor

from kshot.adapt import descent
from kshot.adapt.descent import layer_causal_pass, one_pass
from kshot.adapt.train import Diverged
from kshot.model.lm import LM


@pytest.fixture(scope="module")
def llama() -> LM:
    return tiny64()


def normed(x: Tensor, norm: Any) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + norm.variance_epsilon).sqrt() * norm.weight


def attention(layer: Any, net: Any, x: Tensor, query: Tensor, i: int, key: Tensor, value: Tensor) -> Tensor:
    """The attention output of position i, its query given, by a loop over heads."""
    own = layer.self_attn
    keys, values = turned(heads(x @ key.T, net)), heads(x @ value.T, net)
    group, said = query.shape[0] // keys.shape[0], []
    for h in range(query.shape[0]):
        scores = keys[h // group][: i + 1] @ query[h, i] / net.config.head_dim**0.5
        said.append(scores.softmax(0) @ values[h // group][: i + 1])
    return own.o_proj.weight @ torch.cat(said)


def slow_layer_causal(lm: LM, rate: float = RATE, stop: bool = True) -> tuple[dict[str, Tensor], list[float]]:
    """Layer by layer with every detach written out; without ``stop`` the gradient runs through all layers below."""
    net = copy.deepcopy(lm.model)
    own, losses = moved(net), []
    for parameter in own.values():
        parameter.requires_grad_(True)
    for ids in tokens_of(lm):
        for i in range(len(ids) - 1):
            hidden = net.model.embed_tokens.weight[torch.tensor(ids)]
            loss = torch.zeros((), dtype=torch.float64)
            for layer in net.model.layers:
                key, value = layer.self_attn.k_proj.weight, layer.self_attn.v_proj.weight
                x = normed(hidden, layer.input_layernorm)
                query = turned(heads(x @ layer.self_attn.q_proj.weight.T, net))
                fixed, held = (x.detach(), query.detach()) if stop else (x, query)
                said = attention(layer, net, fixed, held, i, key, value)
                logits = net.lm_head.weight @ normed(said, net.model.norm)
                loss = loss - logits.log_softmax(0)[ids[i + 1]]
                rows = [attention(layer, net, x, query, j, key, value) for j in range(len(ids))]
                hidden = hidden + torch.stack(rows)
                inner = normed(hidden, layer.post_attention_layernorm)
                gate = torch.nn.functional.silu(inner @ layer.mlp.gate_proj.weight.T)
                hidden = hidden + (gate * (inner @ layer.mlp.up_proj.weight.T)) @ layer.mlp.down_proj.weight.T
            grads = torch.autograd.grad(loss, list(own.values()))
            with torch.no_grad():
                for parameter, grad in zip(own.values(), grads, strict=True):
                    parameter -= rate * grad
            losses.append(float(loss.detach()))
    return {n: p.detach() for n, p in own.items()}, losses


SLOW = 0.002


@pytest.fixture(scope="module")
def judged(llama: LM) -> tuple[dict[str, Tensor], list[float]]:
    return slow_layer_causal(llama, SLOW)


def check_layer_causal(lm: LM, judged: tuple[dict[str, Tensor], list[float]]) -> None:
    with zoo.Pure64():
        found = layer_causal_pass(lm, TASK, TEMPLATE, SHOWN, SLOW)
    assert len(found.losses) == sum(len(ids) - 1 for ids in tokens_of(lm))
    assert_same(lm, found, judged, 1e-7)


def test_layer_causal_is_the_slow_loop(llama: LM, judged: tuple[dict[str, Tensor], list[float]]) -> None:
    check_layer_causal(llama, judged)


def test_the_stops_matter(llama: LM, judged: tuple[dict[str, Tensor], list[float]]) -> None:
    """The judge sees whether the gradient of a layer runs on into those below."""
    with zoo.Pure64():
        found = layer_causal_pass(llama, TASK, TEMPLATE, SHOWN, SLOW)
    with pytest.raises(AssertionError):
        assert_same(llama, found, slow_layer_causal(llama, SLOW, stop=False), 1e-7)


def wrong_target(patch: pytest.MonkeyPatch) -> None:
    real = descent._LayerCausal.gradients
    patch.setattr(
        descent._LayerCausal, "gradients", lambda own, leaves, before, target: real(own, leaves, before, before[-1])
    )


def no_final_norm(patch: pytest.MonkeyPatch) -> None:
    real = descent._layer_causal
    patch.setattr(descent, "_layer_causal", lambda *given: replace(real(*given), norm=torch.nn.Identity()))


def last_layer_only(patch: pytest.MonkeyPatch) -> None:
    real = descent._layer_causal

    def last(*given: Any) -> Any:
        found = real(*given)
        return replace(found, attentions=dict(list(found.attentions.items())[-1:]))

    patch.setattr(descent, "_layer_causal", last)


def first_weights(patch: pytest.MonkeyPatch) -> None:
    real = descent._LayerCausal._given
    patch.setattr(descent._LayerCausal, "_given", lambda own, leaves, tokens: real(own, own.learner.leaves, tokens))


@pytest.mark.parametrize(
    "fault", [wrong_sign, other_order, wrong_target, no_final_norm, last_layer_only, first_weights, keys_only]
)
def test_planted_in_layer_causal(
    fault: Fault, llama: LM, judged: tuple[dict[str, Tensor], list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        check_layer_causal(llama, judged)


def test_layer_causal_records_queries_too(llama: LM) -> None:
    found = layer_causal_pass(llama, TASK, TEMPLATE, SHOWN[:2], SLOW, record=True)
    assert found.queries is not None
    assert found.queries[0] == pytest.approx(plain_queries(llama, {}, tokens_of(llama)[0]), abs=1e-4)
    first = layer_causal_pass(llama, TASK, TEMPLATE, SHOWN[:1], SLOW).delta.dense
    expected = plain_queries(llama, dict(first), tokens_of(llama)[1])
    assert found.queries[1] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral", "gemma3"])
def test_layer_causal_on_other_architectures(name: str) -> None:
    """A window, biases, norms of keys: the loss of the first token is that of the modules' own words."""
    lm = zoo.lm(name)
    ids, said = tokens_of(lm)[0], []
    modules = [module for n, module in lm.model.named_modules() if n.endswith("self_attn")]
    handles = [module.register_forward_hook(lambda m, i, out: said.append(out[0][0, -1])) for module in modules]
    lm.model(input_ids=torch.tensor([ids[:1]]), use_cache=False)
    for handle in handles:
        handle.remove()
    logits = lm.model.lm_head(lm.model.model.norm(torch.stack(said)))
    expected = -float(logits.log_softmax(-1)[:, ids[1]].sum())
    found = layer_causal_pass(lm, TASK, TEMPLATE, SHOWN[:1], 1e-3)
    assert found.losses[0] == pytest.approx(expected, rel=1e-6)
    assert found.delta.dense.keys() == moved(lm.model).keys()


# --- what cannot be


def test_a_loss_far_above_guessing(llama: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layer-causal losses are judged by the mean of a demonstration: single tokens may well be that improbable."""
    steps = [len(ids) - 1 for ids in tokens_of(llama)]
    guessing = 2 * float(np.log(llama.model.config.vocab_size))
    losses = iter([guessing] * steps[0] + [5 * guessing] + [2.1 * guessing] * (steps[1] - 1))
    monkeypatch.setattr(descent._LayerCausal, "gradients", lambda own, leaves, before, target: next(losses))
    mean = guessing * (5 + 2.1 * (steps[1] - 1)) / steps[1]
    assert line(lambda: layer_causal_pass(llama, TASK, TEMPLATE, SHOWN, RATE), Diverged) == (
        f"diverged at step {steps[0] + steps[1]}: mean loss {mean:.3g} of a demonstration with sgd at learning rate 0.02; "
        "try a smaller one"
    )


def test_layer_causal_needs_the_final_norm_and_the_head_alone() -> None:
    begun = "layer-causal descent asks every layer through the final norm and the unembedding, and in "
    ended = "; what works is a model laid out as Llama is"
    assert line(lambda: layer_causal_pass(zoo.lm("opt"), TASK, TEMPLATE, SHOWN, RATE)) == (
        f"{begun}opt there is no final norm by that name{ended}"
    )
    capped = line(lambda: layer_causal_pass(zoo.lm("gemma2"), TASK, TEMPLATE, SHOWN, RATE))
    assert capped.startswith(f"{begun}gemma2 its logits differ from that by ")
    assert capped.endswith(f" of the largest: they are capped or scaled{ended}")


def test_layer_causal_needs_the_weights_as_they_are(llama: LM) -> None:
    changed = replace(llama, delta=one_pass(llama, TASK, TEMPLATE, SHOWN, RATE).delta)
    assert line(lambda: layer_causal_pass(changed, TASK, TEMPLATE, SHOWN, RATE)) == (
        f"layer-causal descent moves the weights of {llama.name} themselves, and it is read with a change of them; what "
        "works is the model without that change"
    )
