"""How tokens hear one another: kinds of attention with one signature, (b, h, t, d) queries, keys and values -> (b, h, t, d).

``causal`` tokens hear those up to themselves, others all. ``own`` are weights of the kind's own, by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

Heads = Float[Tensor, "b h t d"]
Mix = Callable[[Heads, Heads, Heads, Mapping[str, Tensor], bool], Heads]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixing:
    """A kind of attention. ``projects`` says whether tokens have queries, keys and values of their own; ``own`` begins
    weights of so many heads that the kind has besides."""

    about: str
    mix: Mix
    projects: bool = True
    own: Callable[[Generator, int], dict[str, Tensor]] = lambda rng, heads: {}


def _softmax(q: Heads, k: Heads, v: Heads, own: Mapping[str, Tensor], causal: bool) -> Heads:
    return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)


def _linear(q: Heads, k: Heads, v: Heads, own: Mapping[str, Tensor], causal: bool) -> Heads:
    scores = q @ k.transpose(2, 3)
    scores = scores.tril() if causal else scores
    # As many tokens as are heard: sums over long texts stay as large as over short ones.
    return scores @ v / _heard(q, causal)


def _kernel(q: Heads, k: Heads, v: Heads, own: Mapping[str, Tensor], causal: bool) -> Heads:
    # exp(-|q - k|^2 / (2 sqrt d)), and the part of |q|^2 is the same for all keys.
    scores = (q @ k.transpose(2, 3) - k.square().sum(-1)[:, :, None] / 2) / sqrt(q.shape[-1])
    return _weights(scores, causal) @ v


def _momentum(q: Heads, k: Heads, v: Heads, own: Mapping[str, Tensor], causal: bool) -> Heads:
    assert causal, "a decayed sum runs from the first token on"
    return _softmax(q, k, v, own, causal) + decayed(v, own["decay"].sigmoid()[:, None])


def decayed(values: Heads, decay: Float[Tensor, "h 1"]) -> Heads:
    """sum_(i < t) decay^(t - i) v_i of every head and token t, the second term of momentum attention."""
    t = values.shape[2]
    steps = torch.arange(t, device=values.device)
    apart = (steps[:, None] - steps).clamp(min=0)
    weights = torch.where(apart > 0, decay[..., None] ** apart, torch.zeros((), dtype=values.dtype))
    return weights.to(values.dtype) @ values


def _weights(scores: Float[Tensor, "b h t t"], causal: bool) -> Float[Tensor, "b h t t"]:
    if causal:
        t = scores.shape[-1]
        scores = scores.masked_fill(torch.ones(t, t, dtype=torch.bool, device=scores.device).triu(1), -torch.inf)
    return scores.softmax(dim=-1)


def _heard(q: Heads, causal: bool) -> Tensor:
    t = q.shape[2]
    return torch.arange(1, t + 1).to(q)[:, None] if causal else torch.full((1, 1), float(t)).to(q)


MIXINGS: Mapping[str, Mixing] = {
    "softmax": Mixing(about="softmax(Q K') V (Vaswani et al. 2017)", mix=_softmax),
    "linear": Mixing(about="Q K' V, a mean over what is heard", mix=_linear),
    "momentum": Mixing(
        about="softmax attention and a decayed sum of values, the decay learned for each head (Dai et al. 2023)",
        mix=_momentum,
        # A decay of 0.5 in the beginning.
        own=lambda rng, heads: {"decay": torch.zeros(heads)},
    ),
    "itself": Mixing(about="softmax(X X') X: no queries, keys or values of its own", mix=_softmax, projects=False),
    "kernel": Mixing(about="a Gaussian kernel of queries and keys (Nadaraya 1964, Watson 1964)", mix=_kernel),
}
