"""How exactly matrices are multiplied where a float32 model is read."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def short_products() -> Iterator[None]:
    """Products of float32 matrices from factors rounded to 16 bits, summed in float32, where a processor has such units.

    For what is sampled, whose own error is larger: twice as fast on such a processor, the same as before on another.
    Float64 and 16-bit models are read as ever. Products of other threads meanwhile are short, too.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
