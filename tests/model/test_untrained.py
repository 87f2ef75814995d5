"""Models of the same shape without training: what is drawn, what is kept, and that nothing else is touched."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
import zoo

from kshot.model import untrained as module
from kshot.model.lm import LM
from kshot.model.momentum import Momentum
from kshot.model.trace import traced
from kshot.model.untrained import untrained

NAMES = [*zoo.TREE, *zoo.ROWS]
# The parameters of embeddings and norms, written out for two layouts of names.
KEPT = {
    "llama": ("embed_tokens", "norm", "lm_head"),
    "gpt2": ("wte", "wpe", "ln_1", "ln_2", "ln_f", "lm_head"),
    "gemma3": ("embed_tokens", "norm", "lm_head"),
    "opt": ("embed_tokens", "embed_positions", "layer_norm", "lm_head"),
}


def bits(lm: LM) -> dict[str, str]:
    """A hash of every tensor, by name."""
    state = lm.model.state_dict()
    return {n: hashlib.sha256(t.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest() for n, t in state.items()}


def weights(lm: LM) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in lm.model.named_parameters()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    """The names under which both hold the same bits."""
    assert one.keys() == other.keys()
    return [name for name in one if torch.equal(one[name], other[name])]


def kept(lm: LM, name: str) -> set[str]:
    return {n for n in weights(lm) if any(part in word for part in KEPT[name] for word in n.split("."))}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom"])
def test_it_is_a_frozen_model_of_the_same_shape(name: str, dtype: torch.dtype) -> None:
    lm = zoo.lm(name, dtype)
    found = untrained(lm, 0)
    assert type(found.model) is type(lm.model)
    assert {n: (p.shape, p.dtype) for n, p in weights(found).items()} == {
        n: (p.shape, p.dtype) for n, p in weights(lm).items()
    }
    assert {n: b.dtype for n, b in found.model.named_buffers()} == {n: b.dtype for n, b in lm.model.named_buffers()}
    assert (found.dtype, found.device, found.context) == (lm.dtype, lm.device, lm.context)
    assert (found.tokens_per_pack, found.rows_per_pack, found.route) == (
        lm.tokens_per_pack,
        lm.rows_per_pack,
        lm.route,
    )
    assert found.codec is lm.codec
    assert not found.model.training
    assert not any(p.requires_grad for p in found.model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_with_the_weights_put_back_it_is_the_model(name: str) -> None:
    """Configuration, buffers and the seam are those of the base: given its weights, the same answers to the bit."""
    lm = zoo.lm(name)
    found = untrained(lm, 3)
    texts = zoo.forest(np.random.default_rng(1), 12, 3)
    before = lm.score(texts).sums()
    assert np.abs(found.score(texts).sums() - before).max() > 1e-3
    with torch.no_grad():
        for parameter, own in zip(found.model.parameters(), lm.model.parameters(), strict=True):
            parameter.copy_(own)
    assert np.array_equal(found.score(texts).sums(), before)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_else_is_touched(name: str) -> None:
    lm = zoo.lm(name)
    before, attention = bits(lm), lm.model.config._attn_implementation
    torch.random.default_generator.manual_seed(7)
    state = torch.get_rng_state()
    for keep in (False, True):
        changed = untrained(lm, 0, keep_embeddings=keep)
        with torch.no_grad():
            for parameter in changed.model.parameters():
                parameter.add_(1.0)
        assert changed.model.config is not lm.model.config
    assert torch.equal(torch.get_rng_state(), state)
    assert bits(lm) == before
    assert lm.model.config._attn_implementation == attention


def test_the_draw_is_a_function_of_the_seed() -> None:
    lm = zoo.lm("llama")
    first = untrained(lm, 0)
    torch.rand(5)
    assert bits(untrained(lm, 0)) == bits(first)
    other = same(weights(untrained(lm, 1)), weights(first))
    assert other == [name for name in weights(lm) if "norm" in name]


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "opt"])
def test_trained_weights_do_not_matter_to_the_draw(name: str) -> None:
    lm = zoo.lm(name)
    before = weights(untrained(lm, 0))
    with torch.no_grad():
        for parameter in lm.model.parameters():
            parameter.mul_(2.0)
    assert same(weights(untrained(lm, 0)), before) == list(before)


def test_the_draw_is_that_of_the_models_own_rule() -> None:
    lm = zoo.lm("llama")
    assert lm.model.config.initializer_range == 0.02
    for name, parameter in weights(untrained(lm, 0)).items():
        if parameter.dim() > 1:
            assert float(parameter.std()) == pytest.approx(0.02, rel=0.15), name
        else:
            assert bool((parameter == 1).all()), name


def test_number_formats_share_a_draw() -> None:
    wide, narrow = (weights(untrained(zoo.lm("llama", dtype), 0)) for dtype in (torch.float64, torch.bfloat16))
    assert same({n: p.to(torch.bfloat16) for n, p in wide.items()}, narrow) == list(wide)


@pytest.mark.parametrize("name", KEPT)
def test_trained_embeddings_and_norms(name: str) -> None:
    lm = zoo.lm(name)
    found = same(weights(untrained(lm, 0, keep_embeddings=True)), weights(lm))
    assert set(found) == kept(lm, name)
    assert 0 < len(found) < len(weights(lm))
    assert same(weights(untrained(lm, 0)), weights(lm)) == []
    drawn = same(weights(untrained(lm, 0, keep_embeddings=True)), weights(untrained(lm, 0)))
    assert set(drawn) == set(weights(lm)) - kept(lm, name)


@pytest.mark.parametrize("fault", ["norms forgotten", "positions forgotten", "all kept"])
def test_planted_what_is_kept(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module._kept
    changed = {
        "norms forgotten": lambda model: [n for n in real(model) if "ln_" not in n],
        "positions forgotten": lambda model: [n for n in real(model) if "wpe" not in n],
        "all kept": lambda model: [n for n, _ in model.named_parameters()],
    }
    monkeypatch.setattr(module, "_kept", changed[fault])
    with pytest.raises(AssertionError):
        test_trained_embeddings_and_norms("gpt2")


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("name", ["gpt2", "gemma3", "llama"])
def test_tied_weights_stay_tied(name: str, keep: bool) -> None:
    lm = zoo.lm(name)
    found = untrained(lm, 0, keep_embeddings=keep).model
    tied = lm.model.get_output_embeddings().weight is lm.model.get_input_embeddings().weight
    assert tied == (name != "llama")
    assert (found.get_output_embeddings().weight is found.get_input_embeddings().weight) == tied


def test_name_and_hash_say_what_it_is() -> None:
    lm, other = zoo.lm("llama"), zoo.lm("gpt2")
    assert untrained(lm, 4).name == "llama-untrained-4"
    assert untrained(lm, 4, keep_embeddings=True).name == "llama-trained-embeddings-4"
    assert untrained(lm, 4).caption == "the shape of llama, untrained"
    assert untrained(lm, 4, keep_embeddings=True).caption == "the shape of llama, only its embeddings and norms trained"
    hashes = [untrained(lm, seed, keep_embeddings=keep).hash for seed in (0, 1) for keep in (False, True)]
    assert len({lm.hash, *hashes}) == 5
    assert untrained(lm, 1, keep_embeddings=True).hash == hashes[-1]
    # the zoo calls every model's weights by one hash: the name and the shape are no part of it
    assert untrained(other, 0).hash == hashes[0]


def test_it_can_be_traced(tiny_lm: LM) -> None:
    text = tuple(b"a text of no great length")
    for keep in (False, True):
        (one,) = traced(untrained(tiny_lm, 0, keep_embeddings=keep), [text], [(-1,)])
        assert np.isfinite(one.outputs).all()
        assert one.outputs.shape[0] == 2


def test_the_kind_of_attention_stays() -> None:
    lm = zoo.lm("llama")
    with_sum = replace(lm, momentum=Momentum(torch.full(lm.value_heads, 0.5, dtype=torch.float64)))
    assert untrained(with_sum, 0).momentum is with_sum.momentum
    assert untrained(lm, 0).momentum is None
