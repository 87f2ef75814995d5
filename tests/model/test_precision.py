"""Short products: near the full ones, of linear layers of this model alone, and over when they are over."""

import pytest
import torch
import zoo
from torch import nn

from kshot.model import precision
from kshot.model.lm import LM
from kshot.model.precision import short_products

Patch = pytest.MonkeyPatch
TOKENS = torch.arange(3, 12)[None]


@pytest.fixture
def units(monkeypatch: Patch) -> None:
    """As on a processor that multiplies bfloat16, whatever this one does: without them torch emulates it."""
    monkeypatch.setattr(precision, "_has_units", lambda: True)


def lm_of(dtype: torch.dtype, name: str = "llama") -> LM:
    return zoo.lm(name, dtype)


@pytest.mark.usefixtures("units")
@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_factors_and_products_are_rounded_to_eight_bits_at_worst(name: str) -> None:
    """Of each layer that is no head; qwen2 has biases, which are added in full."""
    model = lm_of(torch.float32, name).model
    head = model.get_output_embeddings()
    drawn = torch.Generator().manual_seed(0)
    linear = [module for module in model.modules() if isinstance(module, nn.Linear) and module is not head]
    assert any(layer.bias is not None for layer in linear) == (name == "qwen2")
    for layer in linear:
        given = torch.randn(5, layer.in_features, generator=drawn)
        with short_products(model):
            found = layer(given)
        exact, weight = given.double(), layer.weight.double()
        bias = 0.0 if layer.bias is None else layer.bias.double()
        # Each factor is off by 2^-9 of itself, and so is the sum before the bias.
        bound = 3.2 * 2.0**-9 * (exact.abs() @ weight.abs().T)
        assert ((found.double() - exact @ weight.T - bias).abs() <= bound).all()
        assert not torch.equal(found, layer(given))
        assert found.dtype == torch.float32


@pytest.mark.usefixtures("units")
def test_the_head_and_changed_weights_are_read_in_full() -> None:
    model = lm_of(torch.float32).model
    head, layer = model.get_output_embeddings(), model.model.layers[0].mlp.down_proj
    given, other = torch.ones(2, head.in_features) / 3, torch.ones(2, layer.in_features) / 3
    changed = layer.weight.detach() * 1.01
    expected = head(given), nn.functional.linear(other, changed)
    with short_products(model):
        assert torch.equal(head(given), expected[0])
        assert torch.equal(nn.functional.linear(other, changed), expected[1])


@pytest.mark.usefixtures("units")
def test_gradients_go_through() -> None:
    """A sum of a layer's outputs has the column sums of its weight for a gradient, rounded."""
    layer = (model := lm_of(torch.float32).model).model.layers[0].mlp.down_proj
    given = torch.ones(1, layer.in_features, requires_grad=True)
    with short_products(model):
        layer(given).sum().backward()
    assert given.grad is not None
    expected = layer.weight.double().sum(0)
    assert ((given.grad[0].double() - expected).abs() <= 2.1 * 2.0**-8 * layer.weight.double().abs().sum(0)).all()


@pytest.mark.usefixtures("units")
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_formats_are_read_as_ever(dtype: torch.dtype) -> None:
    model = lm_of(dtype).model
    expected = model(TOKENS).logits
    with short_products(model):
        assert torch.equal(model(TOKENS).logits, expected)


def test_a_processor_without_such_units_reads_as_ever(monkeypatch: Patch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    model = lm_of(torch.float32).model
    expected = model(TOKENS).logits
    with short_products(model):
        assert torch.equal(model(TOKENS).logits, expected)


@pytest.mark.parametrize("unit", ["avx512_bf16", "amx_bf16"])
def test_either_unit_will_do(unit: str, monkeypatch: Patch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {unit: True})
    model = lm_of(torch.float32).model
    expected = model(TOKENS).logits
    with short_products(model):
        assert not torch.equal(model(TOKENS).logits, expected)


def _fails_inside(lm: LM) -> None:
    with short_products(lm.model):
        raise ZeroDivisionError


@pytest.mark.usefixtures("units")
def test_what_follows_is_read_as_before() -> None:
    lm = lm_of(torch.float32)
    expected = lm.model(TOKENS).logits
    with pytest.raises(ZeroDivisionError):
        _fails_inside(lm)
    assert torch.equal(lm.model(TOKENS).logits, expected)
