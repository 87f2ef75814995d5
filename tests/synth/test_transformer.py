"""Transformers of pairs: against GPT-2 and naive sums in float64, and each keeps to what it sees."""

import sys
from dataclasses import replace
from itertools import product

import pytest
import torch
from transformers import GPT2Config, GPT2Model
from visibility import faults

from kshot.errors import KshotError, UnknownName
from kshot.seeds import torch_stream
from kshot.synth.networks import mixing
from kshot.synth.networks.layers import MIXINGS, SIZES, Design
from kshot.synth.networks.mixing import ATTENTIONS, MixingOptions, Shape, decayed, turned
from kshot.synth.networks.network import Network, Weights, parameters
from kshot.synth.networks.relative import BUCKETS, relative_bias
from kshot.synth.networks.transformer import alternating, transformer
from kshot.synth.prompts import Source

SHAPE = Shape(layers=2, heads=2, width=16)
KINDS: dict[str, Network] = {
    **{f"{kind}, {positions}": transformer(3, 6, SHAPE, Design(mixing=kind, positions=positions))
       for kind in MIXINGS for positions in ("learned", "rotary")},
    **{positions: transformer(3, 6, SHAPE, Design(positions=positions))
       for positions in ("sinusoidal", "sinusoidal-concatenated", "none")},
    **{f"relative, {kind}": transformer(3, 6, SHAPE, Design(mixing=kind, positions="relative"))
       for kind in ATTENTIONS if ATTENTIONS[kind].masks},
    "no MLP": transformer(3, 6, SHAPE, Design(mlp=None)),
    "RMS": transformer(3, 6, SHAPE, Design(norm="rms")),
    "MambaFormer": transformer(3, 6, SHAPE, Design(mixing=alternating(SHAPE), mlp=None, positions="none")),
    **{f"set, {kind}": transformer(3, 6, SHAPE, Design(mixing=kind, positions="none", causal=False))
       for kind in MIXINGS if not MIXINGS[kind].ordered},
}  # fmt: skip


def large(network: Network, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights at which everything is seen, in float64."""
    rng = torch_stream(seed, "weights")
    return {
        name: tensor.double() + 0.4 * torch.randn(tensor.shape, generator=rng, dtype=torch.float64)
        for name, tensor in network.start(rng).items()
    }


def prompts(size: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    found = Source(width=3, pairs=6).batch(0, 0, size)
    return found.xs.double(), found.ys.double()


@pytest.mark.parametrize("name", KINDS)
def test_each_hears_what_it_may_and_nothing_else(name: str) -> None:
    network = KINDS[name]
    assert faults(network, large(network), *prompts()) == set()


@pytest.mark.parametrize("causal", [True, False])
def test_a_target_in_the_token_of_its_query_is_found(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    network = KINDS["softmax, learned" if causal else "set, softmax"]
    # The package has a function of the module's name.
    module = sys.modules["kshot.synth.networks.transformer"]
    tokens = module._two_a_pair if causal else module._one_a_pair

    def leaking(xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
        found = tokens(xs, ys)
        if causal:
            found[:, ::2, 0] += ys
        else:
            found[..., -1] = ys
        return found

    monkeypatch.setattr(module, tokens.__name__, leaking)
    assert faults(network, large(network), *prompts()) == {"an answer is seen before it is asked for"}


def test_a_readout_one_place_off_is_found() -> None:
    network = KINDS["softmax, learned"]
    late = replace(network, says=lambda *asked: network.says(*asked).roll(-1, dims=1))
    assert "an answer is seen before it is asked for" in faults(late, large(network), *prompts())
    early = replace(network, says=lambda *asked: network.says(*asked).roll(1, dims=1))
    assert "an answer is not seen after it" in faults(early, large(network), *prompts())


@pytest.mark.parametrize("causal", [True, False])
def test_relative_positions_are_added_to_scores(causal: bool) -> None:
    rng = torch_stream(3, "relative")
    own = {name: torch.randn(own.shape, generator=rng).double() for name, own in
           ATTENTIONS["softmax"].start(rng, SHAPE).items()}  # fmt: skip
    table, hidden = torch.randn(BUCKETS, 2, generator=rng).double(), torch.randn(2, 9, 16, generator=rng).double()
    options = MixingOptions(causal=causal, bias=relative_bias(table, 9, causal=causal))
    found = ATTENTIONS["softmax"].mix(own, hidden, SHAPE, options, None)[0]
    q, k, v = (hidden @ own["qkv.weight"].T + own["qkv.bias"]).view(2, 9, 3, 2, 8).unbind(2)
    said = torch.zeros(2, 9, 2, 8, dtype=torch.float64)
    for b, t, h in product(range(2), range(9), range(2)):
        seen = range(t + 1) if causal else range(9)
        # Up to eight tokens apart every distance is a bucket of its own: after, and where all is seen also before.
        far = [(t - i if causal else abs(t - i) + (16 if i > t else 0)) for i in seen]
        scores = torch.stack([q[b, t, h] @ k[b, i, h] / 8**0.5 + table[at, h] for i, at in zip(seen, far, strict=True)])
        said[b, t, h] = sum(w * v[b, i, h] for w, i in zip(scores.softmax(0), seen, strict=True))
    slow = said.flatten(2) @ own["out.weight"].T + own["out.bias"]
    assert torch.allclose(found, slow, atol=1e-12)


def test_without_attention_nothing_is_seen() -> None:
    network, (xs, ys) = transformer(3, 6, SHAPE, Design(mixing=None)), prompts()
    weights = large(network)
    said = network.says(weights, xs, ys)
    assert torch.allclose(network.says(weights, xs, ys + 1.0), said)


def as_gpt2(weights: Weights) -> GPT2Model:
    """The same weights in transformers' own model."""
    config = GPT2Config(
        n_layer=2, n_head=2, n_embd=16, n_positions=12, vocab_size=1, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    )
    names = {
        "norm": "ln_1",
        "mlp_norm": "ln_2",
        "qkv": "attn.c_attn",
        "out": "attn.c_proj",
        "up": "mlp.c_fc",
        "down": "mlp.c_proj",
    }
    state = {"wpe.weight": weights["positions"], "wte.weight": torch.zeros(1, 16), "ln_f.weight": weights["norm.weight"],
             "ln_f.bias": weights["norm.bias"]}  # fmt: skip
    for i in range(2):
        for ours, theirs in names.items():
            matrix = weights[f"{i}.{ours}.weight"]
            # Their layers hold matrices as inputs by outputs.
            state[f"h.{i}.{theirs}.weight"] = matrix.T if matrix.ndim == 2 else matrix
            state[f"h.{i}.{theirs}.bias"] = weights[f"{i}.{ours}.bias"]
    model = GPT2Model(config).double().eval()
    model.load_state_dict(state)
    return model


def test_it_is_gpt2_to_rounding() -> None:
    network, (xs, ys) = KINDS["softmax, learned"], prompts()
    weights = large(network)
    tokens = []
    for k in range(6):
        tokens.append(xs[:, k])
        tokens.append(torch.nn.functional.pad(ys[:, k, None], (0, 2)))
    read = torch.stack(tokens[:-1], dim=1) @ weights["read_in.weight"].T + weights["read_in.bias"]
    hidden = as_gpt2(weights)(inputs_embeds=read).last_hidden_state[:, ::2]
    expected = hidden @ weights["read_out.weight"][0] + weights["read_out.bias"]
    assert torch.allclose(network.says(weights, xs, ys), expected, atol=1e-10)


@pytest.mark.parametrize(("size", "millions"), [("tiny", 0.2), ("small", 1.2), ("standard", 9.5)])
def test_sizes_have_the_published_number_of_parameters(size: str, millions: float) -> None:
    network = transformer(20, 101, SIZES[size])
    found = parameters(network.start(torch_stream(0, "start"))) / 1e6
    assert round(found, 1) == millions


@pytest.mark.parametrize(("kind", "causal"), [
    (kind, causal) for kind in ATTENTIONS for causal in (True, False)
    if kind in ("softmax", "linear", "kernel", "momentum") and (causal or not ATTENTIONS[kind].ordered)
])  # fmt: skip
def test_kinds_of_attention_are_their_sums(kind: str, causal: bool) -> None:
    rng = torch_stream(0, "heads")
    q, k, v = (torch.randn(2, 3, 5, 4, generator=rng, dtype=torch.float64) for _ in range(3))
    decay = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    attend = {
        "softmax": mixing._softmax,
        "linear": mixing._linear,
        "kernel": mixing._kernel,
        "momentum": mixing._momentum,
    }
    found = attend[kind](q, k, v, {"decay": decay}, mixing.MixingOptions(causal=causal))
    for b in range(2):
        for h in range(3):
            for t in range(5):
                seen = range(t + 1) if causal else range(5)
                one, eta = q[b, h, t], decay[h].sigmoid()
                if kind == "linear":
                    weights = torch.stack([one @ k[b, h, i] / len(seen) for i in seen])
                elif kind == "kernel":
                    weights = torch.stack([(-(one - k[b, h, i]).square().sum() / (2 * 4**0.5)).exp() for i in seen])
                    weights = weights / weights.sum()
                else:
                    weights = torch.stack([one @ k[b, h, i] / 4**0.5 for i in seen]).softmax(0)
                expected = sum(w * v[b, h, i] for w, i in zip(weights, seen, strict=True))
                if kind == "momentum":
                    expected = expected + sum(eta ** (t - i) * v[b, h, i] for i in range(t))
                assert torch.allclose(found[b, h, t], expected, atol=1e-10)


def test_a_decay_of_nothing_adds_nothing_and_is_learned() -> None:
    values = torch.randn(1, 2, 4, 3, generator=torch_stream(0, "values"), dtype=torch.float64)
    assert decayed(values, torch.zeros(2, dtype=torch.float64)).abs().max() == 0
    decay = torch.full((2,), 0.5, dtype=torch.float64, requires_grad=True)
    decayed(values, decay).sum().backward()
    assert decay.grad is not None
    assert decay.grad.isfinite().all()
    assert (decay.grad != 0).all()


def test_rotary_scores_know_distances_alone() -> None:
    rng = torch_stream(0, "rotary")
    q, k = (torch.randn(1, 1, 1, 8, generator=rng, dtype=torch.float64).expand(1, 1, 9, 8) for _ in range(2))
    scores = (turned(q) @ turned(k).transpose(2, 3))[0, 0]
    for apart in (-3, 0, 2):
        along = scores.diagonal(apart)
        assert torch.allclose(along, along[0].expand_as(along), atol=1e-12)
    assert not torch.allclose(scores[0, 0], scores[0, 3], atol=1e-3)


def test_longer_prompts_than_places_are_refused() -> None:
    network = KINDS["softmax, learned"]
    found = Source(width=3, pairs=9).batch(0, 0, 2)
    with pytest.raises(KshotError, match="17 tokens: the network has places for 12"):
        network.says(network.start(torch_stream(0, "start")), found.xs, found.ys)
    rotary = KINDS["softmax, rotary"]
    assert rotary.says(rotary.start(torch_stream(0, "start")), found.xs, found.ys).shape == (2, 9)


def test_wrong_options_are_refused_by_name() -> None:
    with pytest.raises(UnknownName, match="did you mean 'softmax'"):
        transformer(3, 6, SHAPE, Design(mixing="sofmax"))
    with pytest.raises(KshotError, match="a set has no order"):
        transformer(3, 6, SHAPE, Design(causal=False))
    with pytest.raises(KshotError, match="what works is a multiple of 2"):
        transformer(3, 6, replace(SHAPE, width=9))
    with pytest.raises(KshotError, match="'relative' need softmax attention in every layer"):
        transformer(3, 6, SHAPE, Design(mixing="linear", positions="relative"))
    with pytest.raises(KshotError, match="with positions 'rotary': what works is a multiple of 4"):
        transformer(3, 6, replace(SHAPE, width=10), Design(positions="rotary"))
    with pytest.raises(KshotError, match="mamba sees what came before alone"):
        transformer(3, 6, SHAPE, Design(mixing="mamba", positions="none", causal=False))
    with pytest.raises(KshotError, match="3 kinds of mixing for 2 layers"):
        transformer(3, 6, SHAPE, Design(mixing=("softmax",) * 3))


def test_batch_norm_is_over_prompts_and_no_token_hears_later_ones() -> None:
    network, (xs, ys) = transformer(3, 6, SHAPE, Design(norm="batch")), prompts(40)
    weights = large(network)
    said = network.says(weights, xs, ys)
    later = xs.clone()
    later[:, 3:] += 1.0
    assert torch.allclose(network.says(weights, later, ys)[:, :3], said[:, :3], atol=1e-12)
    # It is the norm over prompts: of one prompt all is its mean, and nothing is left but biases.
    alone = network.says(weights, xs[:1], ys[:1])
    assert torch.allclose(alone, alone[:, :1].expand_as(alone), atol=1e-6)
