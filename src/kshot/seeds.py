"""The only place that makes randomness: a generator is a pure function of a seed and a purpose."""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def digest(seed: int, *purpose: str | int) -> int:
    """A 64-bit number that depends on the seed and every word of the purpose, the same on every machine.

    >>> digest(0, "demonstrations") == digest(0, "demonstrations")
    True
    >>> digest(0, "demonstrations", 1) == digest(0, "demonstrations", 11)
    False
    """
    text = "\x1f".join([str(int(seed)), *(f"{type(part).__name__}:{part}" for part in purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def stream(seed: int, *purpose: str | int) -> np.random.Generator:
    """A NumPy generator for one purpose: ``stream(seed, "order", 3)`` never disturbs ``stream(seed, "order", 4)``."""
    return np.random.default_rng(digest(seed, *purpose))


def torch_stream(seed: int, *purpose: str | int) -> "torch.Generator":
    """The same for torch, on the CPU."""
    # Tasks are drawn without torch, which takes seconds to import: what has no task of a name need not wait for it.
    import torch

    return torch.Generator().manual_seed(digest(seed, *purpose) >> 1)
