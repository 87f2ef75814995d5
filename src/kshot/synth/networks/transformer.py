"""Transformers over prompts of pairs: every pair is two tokens, an input and its answer, and answers are read off inputs.

Layers are pre-norm residual blocks as GPT-2's: h + attention(norm h), then h + MLP(norm h). An answer is written as
(y, 0, ..., 0), as wide as an input, and both go through one read-in.

Source: Garg et al. 2022 for the layout and the sizes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import log, sqrt
from typing import Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from kshot.errors import KshotError, UnknownName
from kshot.synth.networks.mixing import MIXINGS, Mixing
from kshot.synth.networks.network import Network, Weights

Positions = Literal["learned", "sinusoidal", "sinusoidal-concatenated", "rotary", "none"]
Norm = Literal["layer", "rms"]

# Sinusoidal and rotary positions turn at rates from 1 down to this (Vaswani et al. 2017).
_SLOWEST = 1e-4
# Of a weight at the start, as in GPT-2.
_SPREAD = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Layers, heads and width of a network."""

    layers: int
    heads: int
    width: int

    def __post_init__(self) -> None:
        if self.width % (2 * self.heads):
            raise KshotError(f"width {self.width} and {self.heads} heads: what works is a width of even heads")


SIZES: Mapping[str, Shape] = {
    "tiny": Shape(layers=3, heads=2, width=64),
    "small": Shape(layers=6, heads=4, width=128),
    "standard": Shape(layers=12, heads=8, width=256),
}
"""As published by Garg et al. 2022: 0.2, 1.2 and 9.5 million parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """All that a pass depends on besides weights and prompts."""

    shape: Shape
    mixing: Mixing | None
    mlp: bool
    positions: Positions
    norm: Norm
    causal: bool


def transformer(
    width: int,
    pairs: int,
    shape: Shape,
    *,
    mixing: str | None = "softmax",
    mlp: bool = True,
    positions: Positions = "learned",
    norm: Norm = "layer",
    causal: bool = True,
) -> Network:
    """A Transformer for inputs of ``width`` and at most ``pairs`` pairs; ``mixing`` is one of MIXINGS, None is no attention.

    Without a mask (``causal`` False) all tokens hear all, the last answer is not among them, and a pair is one token
    (x, y), so that without positions the order of pairs changes nothing. Raises UnknownName.
    """
    if mixing is not None and mixing not in MIXINGS:
        raise UnknownName("kind of attention", mixing, MIXINGS)
    if not causal and positions != "none":
        raise KshotError(f"a set has no order: positions {positions!r} go with a mask; what works is 'none'")
    plan = _Plan(
        shape=shape,
        mixing=None if mixing is None else MIXINGS[mixing],
        mlp=mlp,
        positions=positions,
        norm=norm,
        causal=causal,
    )
    return Network(start=partial(_start, plan, width, pairs), says=partial(_says, plan), causal=causal)


def _start(plan: _Plan, width: int, pairs: int, rng: Generator) -> dict[str, Tensor]:
    e, inner = plan.shape.width, _SPREAD / sqrt(2 * plan.shape.layers)
    of_positions = e if plan.positions == "sinusoidal-concatenated" else 0
    found = _linear_start(rng, "read_in", width + (0 if plan.causal else 1), e)
    if of_positions:
        found |= _linear_start(rng, "join", 2 * e, e)
    if plan.positions == "learned":
        found["positions"] = _SPREAD * torch.randn(2 * pairs, e, generator=rng)
    for i in range(plan.shape.layers):
        if plan.mixing is not None:
            found |= _norm_start(plan, f"{i}.norm", e)
            if plan.mixing.projects:
                found |= _linear_start(rng, f"{i}.qkv", e, 3 * e) | _linear_start(rng, f"{i}.out", e, e, inner)
            found |= {f"{i}.{name}": own for name, own in plan.mixing.own(rng, plan.shape.heads).items()}
        if plan.mlp:
            found |= _norm_start(plan, f"{i}.mlp_norm", e)
            found |= _linear_start(rng, f"{i}.up", e, 4 * e) | _linear_start(rng, f"{i}.down", 4 * e, e, inner)
    return found | _norm_start(plan, "norm", e) | _linear_start(rng, "read_out", e, 1)


def _linear_start(rng: Generator, name: str, inputs: int, outputs: int, spread: float = _SPREAD) -> dict[str, Tensor]:
    weight = spread * torch.randn(outputs, inputs, generator=rng)
    return {f"{name}.weight": weight, f"{name}.bias": torch.zeros(outputs)}


def _norm_start(plan: _Plan, name: str, e: int) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.ones(e)} | ({f"{name}.bias": torch.zeros(e)} if plan.norm == "layer" else {})


def _says(plan: _Plan, weights: Weights, xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"]) -> Float[Tensor, "b s"]:
    hidden = _linear(weights, "read_in", _two_a_pair(xs, ys) if plan.causal else _one_a_pair(xs, ys))
    t, e = hidden.shape[1:]
    if plan.positions == "learned":
        if t > len(weights["positions"]):
            raise KshotError(f"{(t + 1) // 2} pairs: the network has places for {len(weights['positions']) // 2}")
        hidden = hidden + weights["positions"][:t]
    elif plan.positions == "sinusoidal":
        hidden = hidden + _waves(t, e).to(hidden)
    elif plan.positions == "sinusoidal-concatenated":
        hidden = _linear(weights, "join", torch.cat([hidden, _waves(t, e).to(hidden).expand_as(hidden)], dim=-1))
    for i in range(plan.shape.layers):
        if plan.mixing is not None:
            hidden = hidden + _heard(plan, weights, i, _norm(plan, weights, f"{i}.norm", hidden))
        if plan.mlp:
            up = _linear(weights, f"{i}.up", _norm(plan, weights, f"{i}.mlp_norm", hidden))
            hidden = hidden + _linear(weights, f"{i}.down", nn.functional.gelu(up, approximate="tanh"))
    asked = hidden[:, ::2] if plan.causal else hidden[:, -1:]
    return _linear(weights, "read_out", _norm(plan, weights, "norm", asked))[..., 0]


def _two_a_pair(xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"]) -> Float[Tensor, "b t d"]:
    """x, y, x, y ... x: nothing is asked behind the last answer."""
    wide = torch.cat([ys[..., None], torch.zeros_like(xs[..., 1:])], dim=-1)
    return torch.stack([xs, wide], dim=2).flatten(1, 2)[:, :-1]


def _one_a_pair(xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"]) -> Float[Tensor, "b n d1"]:
    hidden = torch.cat([ys[:, :-1], torch.zeros_like(ys[:, -1:])], dim=1)
    return torch.cat([xs, hidden[..., None]], dim=-1)


def _heard(plan: _Plan, weights: Weights, i: int, hidden: Float[Tensor, "b t e"]) -> Float[Tensor, "b t e"]:
    assert plan.mixing is not None
    b, t, e = hidden.shape
    heads = plan.shape.heads
    if plan.mixing.projects:
        q, k, v = _linear(weights, f"{i}.qkv", hidden).view(b, t, 3, heads, e // heads).permute(2, 0, 3, 1, 4)
    else:
        q = k = v = hidden.view(b, t, heads, e // heads).transpose(1, 2)
    if plan.positions == "rotary":
        q, k = turned(q), turned(k)
    own = {name: weights[f"{i}.{name}"] for name in ("decay",) if f"{i}.{name}" in weights}
    said = plan.mixing.mix(q, k, v, own, plan.causal).transpose(1, 2).reshape(b, t, e)
    return _linear(weights, f"{i}.out", said) if plan.mixing.projects else said


def _linear(weights: Weights, name: str, hidden: Tensor) -> Tensor:
    return nn.functional.linear(hidden, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _norm(plan: _Plan, weights: Weights, name: str, hidden: Tensor) -> Tensor:
    if plan.norm == "rms":
        return nn.functional.rms_norm(hidden, hidden.shape[-1:], weights[f"{name}.weight"], eps=1e-5)
    return nn.functional.layer_norm(hidden, hidden.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])


def _angles(t: int, width: int) -> Float[Tensor, "t f"]:
    rates = torch.exp(torch.arange(width // 2, dtype=torch.float64) * (log(_SLOWEST) / (width // 2)))
    return torch.arange(t, dtype=torch.float64)[:, None] * rates


def _waves(t: int, e: int) -> Float[Tensor, "t e"]:
    angles = _angles(t, e)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def turned(vectors: Float[Tensor, "b h t d"]) -> Float[Tensor, "b h t d"]:
    """Queries or keys turned by their positions (Su et al. 2021), coordinate i with i + d / 2."""
    angles = _angles(vectors.shape[2], vectors.shape[3])
    cosine, sine = angles.cos().to(vectors), angles.sin().to(vectors)
    first, second = vectors.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
