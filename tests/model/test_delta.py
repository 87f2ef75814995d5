"""Changes of weights by name: what they do, what they leave alone, and whom they name."""

from dataclasses import replace
from threading import Thread

import numpy as np
import pytest
import torch
import zoo
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

from kshot.errors import ModelError, UnknownName
from kshot.model.delta import NO_CHANGE, Delta, LowRank, call, linear_layers, targets, weights
from kshot.model.hidden import last_hidden, mean_hidden
from kshot.model.tree import Scored
from kshot.seeds import torch_stream

NAMES = [name for name in zoo.TREE if name != "gpt-oss"]


def noise(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return (torch.randn(*shape, generator=torch_stream(0, "delta", *shape), dtype=torch.float64) * 0.2).to(dtype)


def thin(net, names: dict[str, tuple[int, int]], scale: float = 1.5) -> Delta:
    return Delta({name: LowRank(noise(2, read), noise(say, 2), scale) for name, (read, say) in names.items()})


def logits(net, delta: Delta) -> torch.Tensor:
    with zoo.Pure64(), torch.no_grad():
        return call(net, delta, input_ids=torch.tensor([[5, 6, 7, 8]]), use_cache=False).logits


@pytest.mark.parametrize("name", NAMES)
def test_beside_a_layer_is_another_weight_of_it(name: str) -> None:
    net = zoo.model(name, torch.float64)
    delta = thin(net, targets(net, ("all-linear",)))
    whole = {}
    for layer, one in delta.low_rank.items():
        module, change = net.get_submodule(layer), one.scale * one.up @ one.down
        whole[f"{layer}.weight"] = module.weight.detach() + (change.T if isinstance(module, Conv1D) else change)
    found = logits(net, delta)
    assert (found - logits(net, Delta(dense=whole))).abs().max() < 1e-9
    with zoo.Pure64(), torch.no_grad():
        asked = {"input_ids": torch.tensor([[5, 6, 7, 8]]), "use_cache": False}
        expected = functional_call(net, whole, (), asked, tie_weights=True).logits
    assert (found - expected).abs().max() < 1e-9
    assert (found - logits(net, NO_CHANGE)).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3"])
def test_nothing_is_the_identity_to_the_bit(name: str) -> None:
    net = zoo.model(name, torch.float32)
    ids = {"input_ids": torch.tensor([[5, 6, 7, 8]]), "use_cache": False}
    with torch.no_grad():
        plain = net(**ids).logits
        zero = Delta(
            {n: LowRank(noise(2, i).float(), torch.zeros(o, 2), 3.0) for n, (i, o) in linear_layers(net).items()}
        )
        for delta in (NO_CHANGE, Delta(), zero, Delta(dense={n: p.clone() for n, p in net.named_parameters()})):
            assert torch.equal(call(net, delta, **ids).logits, plain)
    assert not NO_CHANGE
    assert zero


def test_a_weight_that_is_tied_changes_in_both_places() -> None:
    net = zoo.model("gpt2", torch.float64)
    name = "transformer.wte.weight"
    assert "lm_head.weight" not in dict(net.named_parameters())
    other = dict(net.named_parameters())[name].detach() + noise(zoo.VOCABULARY, 32)
    found, own = logits(net, Delta(dense={name: other})), zoo.model("gpt2", torch.float64)
    own.transformer.wte.weight.data.copy_(other)
    assert own.lm_head.weight is own.transformer.wte.weight
    assert (found - logits(own, NO_CHANGE)).abs().max() < 1e-12


def test_hooks_are_gone_even_where_a_call_fails() -> None:
    net = zoo.model("llama", torch.float64)
    name = "model.layers.0.self_attn.q_proj"
    with pytest.raises(RuntimeError):
        call(net, Delta({name: LowRank(noise(2, 9), noise(32, 2), 1.0)}), input_ids=torch.tensor([[1, 2]]))
    assert not net.get_submodule(name)._forward_hooks


@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral", "gemma2", "bloom"])
def test_the_engine_reads_with_it(name: str) -> None:
    """A packed pass with a change is a packed pass of the model that was changed."""
    lm = zoo.lm(name)
    delta = thin(lm.model, targets(lm.model, ("all-linear",)))
    delta = replace(
        delta, dense={n: p + noise(*p.shape) for n, p in lm.model.named_parameters() if "norm" in n or "ln_f" in n}
    )
    sequences = [Scored((3, 4, 5, 6), 2), Scored((3, 4, 7), 2), Scored((8, 9), 1)]
    own = zoo.model(name, torch.float64)
    with torch.no_grad():
        for layer, one in delta.low_rank.items():
            module, change = own.get_submodule(layer), one.scale * one.up @ one.down
            module.weight.add_(change.T if isinstance(module, Conv1D) else change)
        for n, value in delta.dense.items():
            own.get_parameter(n).copy_(value)
    with torch.no_grad(), zoo.Pure64():
        expected = zoo.judge(own, sequences).numpy()
        found = replace(lm, delta=delta).score(sequences).sums()
        assert abs(found - expected).max() < 1e-9
        assert abs(lm.score(sequences).sums() - expected).max() > 1e-3


def test_whom_a_name_names() -> None:
    llama, gpt2 = zoo.model("llama", torch.float32), zoo.model("gpt2", torch.float32)
    assert len(targets(llama, ("all-linear",))) == 3 * 7
    assert "lm_head" not in targets(llama, ("all-linear",))
    assert set(targets(llama, ("q_proj", "model.layers.1.mlp.up_proj"))) == {
        *(f"model.layers.{i}.self_attn.q_proj" for i in range(3)),
        "model.layers.1.mlp.up_proj",
    }
    assert targets(gpt2, ("c_attn",))["transformer.h.0.attn.c_attn"] == (32, 96)
    everything = dict(llama.named_parameters())
    assert weights(llama, ("all",)).keys() == everything.keys()
    last = set(weights(llama, ("last-1",)))
    assert last == {n for n in everything if n.startswith("model.layers.2.")} | {"model.norm.weight"}
    assert set(weights(llama, ("last-3",))) == {n for n in everything if ".layers." in n} | {"model.norm.weight"}
    assert set(weights(llama, ("k_proj", "v_proj"))) == {n for n in everything if "k_proj" in n or "v_proj" in n}
    assert set(weights(llama, ("model.layers.0",))) == {n for n in everything if n.startswith("model.layers.0.")}
    opt = set(weights(zoo.model("opt", torch.float32), ("last-1",)))
    assert {name for name in opt if ".layers." not in name} == {
        f"model.decoder.final_layer_norm.{w}" for w in ("weight", "bias")
    }
    assert set(weights(gpt2, ("last-1",))) >= {"transformer.ln_f.weight", "transformer.h.2.mlp.c_fc.bias"}


@pytest.mark.parametrize(("asked", "near"), [("q_prj", "q_proj"), ("all-liner", "all-linear")])
def test_a_target_that_is_none_names_the_nearest(asked: str, near: str) -> None:
    with pytest.raises(UnknownName, match=rf"^unknown target module '{asked}'; did you mean .*'{near}'"):
        targets(zoo.model("llama", torch.float32), ("q_proj", asked))


@pytest.mark.parametrize(
    ("asked", "near"),
    [("k_prj", "k_proj"), ("last-x", "last-1"), ("last-0", "last-1"), ("last-9", "last-1"), ("mlpp", "mlp")],
)
def test_weights_that_are_none_name_the_nearest(asked: str, near: str) -> None:
    with pytest.raises(UnknownName, match=rf"^unknown weights '{asked}'; did you mean .*'{near}'"):
        weights(zoo.model("llama", torch.float32), (asked,))


def test_what_it_weighs() -> None:
    delta = Delta({"b": LowRank(noise(2, 3), noise(4, 2), 1.0)}, {"a": noise(5).float()})
    assert [tuple(t.shape) for t in delta.tensors()] == [(2, 3), (4, 2), (5,)]
    assert delta.nbytes == 8 * (6 + 8) + 4 * 5


def test_threads_that_share_a_model_do_not_share_their_changes(tiny_lm) -> None:
    """The planted way to see it: each thread scores again and again, and always hears its own model."""
    name = "model.layers.0.self_attn.q_proj"
    twice = {f"{name}.weight": tiny_lm.model.get_parameter(f"{name}.weight").detach() * 2}
    thin = Delta({name: LowRank(noise(4, 32).float() * 9, noise(32, 4).float() * 9, 1.0)})
    readers = [tiny_lm, replace(tiny_lm, delta=thin), replace(tiny_lm, delta=Delta(dense=twice))]
    sequences = [Scored((1, 2, 3, 4, 5), 1), Scored((7, 8, 9, 4, 5), 1)]
    right = [reader.score(sequences).sums() for reader in readers]
    wrong: list[int] = []

    def again(i: int) -> None:
        for _ in range(40):
            if not np.allclose(readers[i].score(sequences).sums(), right[i], atol=1e-4):
                wrong.append(i)

    threads = [Thread(target=again, args=(i,)) for i in range(len(readers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom"])
def test_features_are_those_of_the_changed_model(name: str) -> None:
    lm = zoo.lm(name)
    delta = thin(lm.model, targets(lm.model, ("all-linear",)))
    delta = replace(delta, dense={n: p + noise(*p.shape) for n, p in lm.model.named_parameters() if "norm" in n})
    own = zoo.lm(name)
    with torch.no_grad():
        for layer, one in delta.low_rank.items():
            module, change = own.model.get_submodule(layer), one.scale * one.up @ one.down
            module.weight.add_(change.T if isinstance(module, Conv1D) else change)
        for n, value in delta.dense.items():
            own.model.get_parameter(n).copy_(value)
    texts = [(3, 4, 5), (3, 4, 6, 7)]
    with zoo.Pure64():
        for read in (last_hidden, mean_hidden):
            found, right = read(replace(lm, delta=delta), texts)[0], read(own, texts)[0]
            assert np.abs(found - right).max() < 1e-9
            assert np.abs(read(lm, texts)[0] - right).max() > 1e-3


def test_one_change_on_top_of_another() -> None:
    lm = zoo.lm("llama")
    layers = targets(lm.model, ("q_proj", "o_proj"))
    first, second = thin(lm.model, layers), thin(lm.model, targets(lm.model, ("o_proj", "up_proj")), 0.5)
    first = replace(first, dense={"model.norm.weight": noise(32)})
    sequences = [Scored((3, 4, 5, 6), 2)]
    with zoo.Pure64():
        found = replace(lm, delta=first).changed(second).score(sequences).sums()
        whole = dict(first.dense)
        for delta in (first, second):
            for layer, one in delta.low_rank.items():
                key = f"{layer}.weight"
                whole[key] = whole.get(key, lm.model.get_parameter(key).detach()) + one.scale * one.up @ one.down
        assert np.abs(found - replace(lm, delta=Delta(dense=whole)).score(sequences).sums()).max() < 1e-9
    assert lm.changed(NO_CHANGE) is lm
    with pytest.raises(ModelError, match=r"both replace 'model.norm.weight'; what works is one of them"):
        replace(lm, delta=first).changed(Delta(dense={"model.norm.weight": noise(32)}))


def test_its_hash_is_of_what_it_changes_and_to_what() -> None:
    one = LowRank(noise(2, 3), noise(4, 2), 1.0)
    deltas = [
        Delta({"b": one}),
        Delta({"c": one}),
        Delta({"b": replace(one, scale=2.0)}),
        Delta({"b": one}, {"a": noise(5)}),
        Delta({"b": one}, {"a": noise(5).bfloat16()}),
        Delta({"b": one}, {"a": noise(5) + 1e-9}),
    ]
    assert len({delta.hash for delta in deltas}) == len(deltas)
    assert Delta({"b": replace(one, down=one.down.clone())}).hash == deltas[0].hash
