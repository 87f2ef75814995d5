"""Random heads, sums over tokens written as loops, and faults planted in a copy of a module."""

import inspect
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from kshot.seeds import torch_stream

EXACT = {"abs": 1e-10, "rel": 0}


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch_stream(seed, "implicit", *shape))


def heads(seed: int = 0, t: int = 11) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values (g t dv), keys (g t dk), queries (h s dk), all widths and numbers different."""
    return drawn(2, t, 5, seed=seed), drawn(2, t, 3, seed=seed + 1), drawn(6, 4, 3, seed=seed + 2)


def slow_attention(values: Any, keys: Any, query: Any) -> np.ndarray:
    """sum_i v_i (k_i . q), one number at a time; three query heads in a row share a key-value head where g = h / 3."""
    v, k, q = (x.double().numpy() for x in (values, keys, query))
    share = len(q) // len(v)
    out = np.zeros((*q.shape[:2], v.shape[2]))
    for i in range(len(q)):
        for s in range(q.shape[1]):
            for t in range(v.shape[1]):
                product = sum(k[i // share, t, d] * q[i, s, d] for d in range(k.shape[2]))
                for w in range(v.shape[2]):
                    out[i, s, w] += v[i // share, t, w] * product
    return out


def slow_matrix(values: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """sum_i v_i k_i^T of one head."""
    total = np.zeros((values.shape[1], keys.shape[1]))
    for v, k in zip(values, keys, strict=True):
        total += np.outer(v, k)
    return total


def close(found: Any, expected: Any, **tolerance: float) -> None:
    found = found.numpy() if isinstance(found, torch.Tensor) else found
    expected = expected.numpy() if isinstance(expected, torch.Tensor) else expected
    assert found == pytest.approx(expected, **{**EXACT, **tolerance})


def check_mutant(module: ModuleType, right: str, wrong: str, checks: Sequence[Callable[[ModuleType], None]]) -> None:
    """A copy of the module with ``wrong`` in the place of ``right`` fails every one of these."""
    source = inspect.getsource(module)
    assert source.count(right) == 1, f"{right!r} is in {module.__name__} {source.count(right)} times"
    mutant = ModuleType(module.__name__)
    exec(compile(source.replace(right, wrong), module.__name__, "exec"), mutant.__dict__)
    for check in checks:
        with pytest.raises(AssertionError):
            check(mutant)
