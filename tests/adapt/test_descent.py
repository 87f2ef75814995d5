"""Fine-tuning of keys and values against slow loops in float64 that share nothing with it but the model's weights."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from torch import Tensor

from kshot.adapt import descent
from kshot.adapt.descent import Descended, layer_causal_pass, one_pass
from kshot.adapt.train import Diverged
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import KshotError, MethodError, ModelError
from kshot.model.lm import LM
from kshot.model.load import frozen
from kshot.model.sources import Source
from kshot.model.tiny import tiny_model
from kshot.model.trace import traced

TEMPLATE = Template(input="a: {{text}}\nb:", words={"x": "up", "y": "down"})
SHOWN = tuple(
    Example(id=str(i), fields={"text": text}, label=label)
    for i, (text, label) in enumerate([("one", "x"), ("three", "y"), ("on", "y")])
)
TASK = Task(name="made", kind="classification", labels=("x", "y"), train=SHOWN, test=SHOWN[:1], template=TEMPLATE)
# Written out by hand: the demonstrations as texts.
TEXTS = ("a: one\nb: up", "a: three\nb: down", "a: on\nb: down")
RATE = 0.02


def tiny64() -> LM:
    """The tiny Llama of bytes in float64."""
    model, tokenizer = tiny_model()
    source = Source(name="tiny", caption="tiny", folder=Path(), kind="directory", hash="0")
    return frozen(model.double(), tokenizer, source)


@pytest.fixture(scope="module")
def llama() -> LM:
    return tiny64()


def tokens_of(lm: LM) -> list[list[int]]:
    return [lm.codec.tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]


def moved(net: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {n: p for n, p in net.named_parameters() if "k_proj" in n or "v_proj" in n}


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


def assert_same(lm: LM, found: Descended, expected: tuple[dict[str, Tensor], list[float]], bound: float = 1e-9) -> None:
    """The weights, and their changes to the same share of the largest change; the losses."""
    wanted, losses = expected
    before = moved(lm.model)
    assert not found.delta.low_rank
    assert found.delta.dense.keys() == wanted.keys()
    for name, tensor in wanted.items():
        size = float((tensor - before[name]).abs().max())
        # without rotary positions a bias of all keys shifts all scores alike, which a softmax does not see
        assert size > 1e-6 or name.endswith("k_proj.bias"), f"{name} is not moved"
        assert float((found.delta.dense[name] - tensor).abs().max()) <= bound * max(size, 1.0), name
    assert found.losses == pytest.approx(losses, rel=bound)


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


Fault = Callable[[pytest.MonkeyPatch], None]


def wrong_sign(patch: pytest.MonkeyPatch) -> None:
    sgd = descent.OPTIMISERS["sgd"]

    def uphill(*given: Any) -> Any:
        inner = sgd(*given)
        inner.inner.param_groups[0]["maximize"] = True
        return inner

    patch.setitem(descent.OPTIMISERS, "sgd", uphill)


def other_order(patch: pytest.MonkeyPatch) -> None:
    real = descent.gold_rows
    patch.setattr(descent, "gold_rows", lambda *given, **asked: real(*given, **asked)[::-1])


def answers_only(patch: pytest.MonkeyPatch) -> None:
    real = descent.gold_rows
    patch.setattr(descent, "gold_rows", lambda *given, whole: real(*given, whole=False))


def keys_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(descent, "MOVED", ("k_proj",))


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


def plain_queries(lm: LM, change: dict[str, Tensor], ids: list[int]) -> np.ndarray:
    """(l, h, t, d) of the bare model with some weights changed: q_proj's words, turned by hand."""
    net = copy.deepcopy(lm.model)
    with torch.no_grad():
        for name, tensor in change.items():
            net.get_parameter(name).copy_(tensor)
        said: list[Tensor] = []
        for layer in net.model.layers:
            layer.self_attn.q_proj.register_forward_hook(lambda m, i, out: said.append(out[0]))
        net(input_ids=torch.tensor([ids]), use_cache=False)
    return np.stack([turned(heads(q, net)).numpy() for q in said])


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


# --- layer-causal: every layer by itself, one token at a time


def heads(rows: Tensor, net: Any) -> Tensor:
    """(t, h * d) -> (h, t, d)."""
    return rows.unflatten(1, (-1, net.config.head_dim)).transpose(0, 1)


def turned(x: Tensor) -> Tensor:
    """Rotary positions by hand: coordinates i and i + d/2 turn by position / 10000^(2i / d)."""
    d, half = x.shape[-1], x.shape[-1] // 2
    rates = 10000.0 ** (-2.0 * torch.arange(half, dtype=torch.float64) / d)
    angle = torch.arange(x.shape[-2], dtype=torch.float64)[:, None] * rates
    one, other = x[..., :half], x[..., half:]
    return torch.cat([one * angle.cos() - other * angle.sin(), other * angle.cos() + one * angle.sin()], dim=-1)


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


def line(call: Callable[[], object], error: type[KshotError] = MethodError) -> str:
    with pytest.raises(error) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


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


def test_layer_causal_needs_the_final_norm_and_the_head_alone() -> None:
    begun = "layer-causal descent asks every layer through the final norm and the unembedding, and in "
    ended = "; what works is a model laid out as Llama is"
    assert line(lambda: layer_causal_pass(zoo.lm("opt"), TASK, TEMPLATE, SHOWN, RATE)) == (
        f"{begun}opt there is no final norm by that name{ended}"
    )
    capped = line(lambda: layer_causal_pass(zoo.lm("gemma2"), TASK, TEMPLATE, SHOWN, RATE))
    assert capped.startswith(f"{begun}gemma2 its logits differ from that by ")
    assert capped.endswith(f" of the largest: they are capped or scaled{ended}")


def test_queries_of_what_cannot_be_traced() -> None:
    with pytest.raises(ModelError, match="cannot be traced"):
        one_pass(zoo.lm("llama-dynamic"), TASK, TEMPLATE, SHOWN, RATE, record=True)
