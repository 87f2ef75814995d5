"""How exactly matrices are multiplied where a float32 model is read."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def short_products() -> Iterator[None]:
    """Products of float32 matrices from factors rounded to 16 bits, summed in float32, where a processor has such units.

    For what is sampled, whose own error is larger: twice as fast on such a processor, the same as before on another.
    Float64 and 16-bit models are read as ever, and so is attention. Products of other threads meanwhile are short, too.
    """
    with _products("medium"):
        yield


@contextmanager
def full_products() -> Iterator[None]:
    """Every bit of float32 within: for the many small products of attention, which short ones make three times slower."""
    with _products("highest"):
        yield


@contextmanager
def _products(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
