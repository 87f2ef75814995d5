"""Changes of weights by name: what they do, what they leave alone, and whom they name."""

from dataclasses import replace

import pytest
import torch
import zoo
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

from kshot.errors import UnknownName
from kshot.model.delta import NO_CHANGE, Delta, LowRank, call, linear_layers, targets, weights
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
