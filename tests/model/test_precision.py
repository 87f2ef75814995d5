"""Short products: near the float64 ones, for float32 alone, and over when they are over."""

import pytest
import torch

from kshot.model.precision import full_products, short_products

DRAWN = torch.Generator().manual_seed(0)
ONE, OTHER = (torch.randn(64, 512, generator=DRAWN, dtype=torch.float64) for _ in range(2))


def test_factors_are_rounded_to_eight_bits_at_worst() -> None:
    with short_products():
        found = ONE.float() @ OTHER.float().T
    # Each factor is off by 2^-9 of itself, and float32 sums add little to that.
    bound = 2.1 * 2.0**-9 * (ONE.abs() @ OTHER.abs().T)
    assert ((found.double() - ONE @ OTHER.T).abs() <= bound).all()


def test_float64_is_read_as_ever() -> None:
    expected = ONE @ OTHER.T
    with short_products():
        assert torch.equal(ONE @ OTHER.T, expected)


def _fails_inside() -> None:
    with short_products():
        assert torch.get_float32_matmul_precision() == "medium"
        raise ZeroDivisionError


def test_what_follows_is_read_as_before() -> None:
    expected, before = ONE.float() @ OTHER.float().T, torch.get_float32_matmul_precision()
    with pytest.raises(ZeroDivisionError):
        _fails_inside()
    assert torch.get_float32_matmul_precision() == before
    assert torch.equal(ONE.float() @ OTHER.float().T, expected)


def test_full_products_within_short_ones() -> None:
    expected = ONE.float() @ OTHER.float().T
    with short_products():
        short = torch.get_float32_matmul_precision()
        with full_products():
            assert torch.equal(ONE.float() @ OTHER.float().T, expected)
        assert torch.get_float32_matmul_precision() == short
