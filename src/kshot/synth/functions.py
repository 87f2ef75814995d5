"""Classes of functions that are learned in context: one is drawn for every prompt, and answers every input of it.

A drawn function is a dict of tensors whose first axis counts prompts (``Drawn``). All is in float32 as it is drawn, on
the CPU, from the generator that is given and nothing else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import pi, sqrt

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from kshot.seeds import torch_stream

Drawn = Mapping[str, Tensor]
"""So many functions of one class: tensors by name, (b, ...)."""

# As published: Garg et al. 2022.
_NONZERO, _HIDDEN, _DEPTH = 3, 100, 4
# von Oswald et al. 2023 as their paper has it; their code draws amplitudes up to 0.5.
_AMPLITUDES = (0.1, 5.0)
# Park et al. 2024.
_PARITY, _KEYS = 2, 8
# Units of the map of ``random-features``, which is one for all prompts and seeds.
FEATURES = 20


def _with_noise(rng: Generator, means: Float[Tensor, "b n"], variance: float) -> Float[Tensor, "b n"]:
    return means + sqrt(variance) * torch.randn(means.shape, generator=rng) if variance else means


def _one_or_the_other(rng: Generator, means: Float[Tensor, "b n"], variance: float) -> Float[Tensor, "b n"]:
    assert not variance, "answers of two values are noisy as they are"
    return torch.where(torch.rand(means.shape, generator=rng) < (1 + means) / 2, 1.0, -1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionClass:
    """How functions of d inputs are drawn, what they answer, and by what a squared error is divided to be comparable.

    ``answer`` gives every input of a prompt the mean of its y; ``show`` is that mean as it is seen, given a variance of
    noise. ``variance`` is that of the means over functions and inputs, None where it has no simple form. ``inputs`` are
    those of so many pairs of drawn functions, where a class has inputs of its own.
    """

    about: str
    draw: Callable[[Generator, int, int], Drawn]
    answer: Callable[[Drawn, Float[Tensor, "b n d"]], Float[Tensor, "b n"]]
    show: Callable[[Generator, Float[Tensor, "b n"], float], Float[Tensor, "b n"]] = _with_noise
    unit: Callable[[int], float] = lambda width: 1.0
    variance: Callable[[int], float | None] = lambda width: None
    inputs: Callable[[Generator, Drawn, int], Float[Tensor, "b n d"]] | None = None


def _linear(rng: Generator, b: int, d: int) -> Drawn:
    return {"w": torch.randn(b, d, generator=rng)}


def _sparse(rng: Generator, b: int, d: int) -> Drawn:
    kept = torch.rand(b, d, generator=rng).argsort(dim=1)[:, : min(_NONZERO, d)]
    mask = torch.zeros(b, d).scatter_(1, kept, 1.0)
    return {"w": torch.randn(b, d, generator=rng) * mask}


def _dot(drawn: Drawn, xs: Float[Tensor, "b n d"]) -> Float[Tensor, "b n"]:
    return torch.einsum("bnd,bd->bn", xs, drawn["w"].to(xs))


def _logistic(drawn: Drawn, xs: Float[Tensor, "b n d"]) -> Float[Tensor, "b n"]:
    return torch.tanh(_dot(drawn, xs) / 2)


def _network(rng: Generator, b: int, d: int) -> Drawn:
    return {"inner": torch.randn(b, d, _HIDDEN, generator=rng), "outer": torch.randn(b, _HIDDEN, generator=rng)}


def _relu(drawn: Drawn, xs: Float[Tensor, "b n d"]) -> Float[Tensor, "b n"]:
    hidden = torch.relu(torch.bmm(xs, drawn["inner"].to(xs)))
    return sqrt(2 / _HIDDEN) * torch.einsum("bnh,bh->bn", hidden, drawn["outer"].to(xs))


def _tree(rng: Generator, b: int, d: int) -> Drawn:
    return {
        "coordinate": torch.randint(d, (b, 2**_DEPTH - 1), generator=rng),
        "leaf": torch.randn(b, 2**_DEPTH, generator=rng),
    }


def _leaf(drawn: Drawn, xs: Float[Tensor, "b n d"]) -> Float[Tensor, "b n"]:
    node = torch.zeros(xs.shape[:2], dtype=torch.long)
    for _ in range(_DEPTH):
        asked = drawn["coordinate"].gather(1, node)
        node = 2 * node + 1 + (xs.gather(2, asked[..., None])[..., 0] > 0)
    return drawn["leaf"].to(xs).gather(1, node - (2**_DEPTH - 1))


def _sine(rng: Generator, b: int, d: int) -> Drawn:
    low, high = _AMPLITUDES
    return {
        "amplitude": low + (high - low) * torch.rand(b, generator=rng),
        "phase": pi * torch.rand(b, generator=rng),
    }


def _wave(drawn: Drawn, xs: Float[Tensor, "b n d"]) -> Float[Tensor, "b n"]:
    return drawn["amplitude"].to(xs)[:, None] * torch.sin(xs[..., 0] + drawn["phase"].to(xs)[:, None])


def _of_features(rng: Generator, b: int, d: int) -> Drawn:
    return {"w": torch.randn(b, FEATURES, generator=rng)}


def features(xs: Float[Tensor, "b n d"]) -> Float[Tensor, "b n m"]:
    """The fixed random map of ``random-features``: m = 20 units tanh(A x) with A ~ N(0, 1/d), one A for each width d."""
    width = xs.shape[-1]
    fixed = torch.randn(width, FEATURES, generator=torch_stream(0, "random features", width)) / sqrt(width)
    return torch.tanh(xs @ fixed.to(xs))


def _parity(rng: Generator, b: int, d: int) -> Drawn:
    return {
        "subset": torch.rand(b, d, generator=rng).argsort(dim=1)[:, : min(_PARITY, d)],
        "width": torch.full((b,), d),
    }


def _sides(rng: Generator, drawn: Drawn, n: int) -> Float[Tensor, "b n d"]:
    b, d = len(drawn["width"]), int(drawn["width"][0])
    return torch.randint(2, (b, n, d), generator=rng) * 2.0 - 1.0


def _product(drawn: Drawn, xs: Float[Tensor, "b n d"]) -> Float[Tensor, "b n"]:
    return xs.gather(2, drawn["subset"][:, None].expand(-1, xs.shape[1], -1)).prod(dim=2)


def _memory(rng: Generator, b: int, d: int) -> Drawn:
    return {"keys": torch.randn(b, _KEYS, d, generator=rng), "values": torch.randn(b, _KEYS, generator=rng)}


def _shown_keys(rng: Generator, drawn: Drawn, n: int) -> Float[Tensor, "b n d"]:
    keys = drawn["keys"]
    which = torch.randint(keys.shape[1], (len(keys), n), generator=rng)
    return keys.gather(1, which[..., None].expand(-1, -1, keys.shape[2]))


def _value_of_nearest(drawn: Drawn, xs: Float[Tensor, "b n d"]) -> Float[Tensor, "b n"]:
    return drawn["values"].to(xs).gather(1, torch.cdist(xs, drawn["keys"].to(xs)).argmin(dim=2))


FUNCTIONS: Mapping[str, FunctionClass] = {
    "linear": FunctionClass(
        about="y = w x, w ~ N(0, I)", draw=_linear, answer=_dot, unit=float, variance=float,
    ),
    "sparse-linear": FunctionClass(
        about="y = w x, all but 3 coordinates of w are 0", draw=_sparse, answer=_dot,
        unit=lambda width: float(min(_NONZERO, width)), variance=lambda width: float(min(_NONZERO, width)),
    ),
    "relu-network": FunctionClass(
        about="a network of 100 hidden units", draw=_network, answer=_relu, unit=float, variance=float,
    ),
    "decision-tree": FunctionClass(
        about="a tree of depth 4 that asks for signs", draw=_tree, answer=_leaf, variance=lambda width: 1.0,
    ),
    "sine": FunctionClass(about="y = a sin(x + phase) of the first coordinate", draw=_sine, answer=_wave),
    "logistic": FunctionClass(
        about="y = 1 with probability 1 / (1 + exp(-w x)), else -1", draw=_linear, answer=_logistic,
        show=_one_or_the_other,
    ),
    "random-features": FunctionClass(
        about="y = w f(x), f a fixed map to 20 features", draw=_of_features,
        answer=lambda drawn, xs: _dot(drawn, features(xs)), unit=lambda width: float(FEATURES),
    ),
    "sparse-parity": FunctionClass(
        about="the product of 2 coordinates, all of them 1 or -1", draw=_parity, answer=_product, inputs=_sides,
        variance=lambda width: 1.0,
    ),
    "recall": FunctionClass(
        about="the value of a key that may have been shown: 8 keys a prompt, drawn again and again", draw=_memory,
        answer=_value_of_nearest, inputs=_shown_keys, variance=lambda width: 1.0,
    ),
}  # fmt: skip
"""Garg et al. 2022 (the first four), von Oswald et al. 2023 (sine), Bai et al. 2023 (logistic), Guo et al. 2024 (features),
Park et al. 2024 (parity; recall is theirs with numbers for values, and keys that come again in place of a last query)."""
