"""Layers over the tokens of prompts of pairs: Transformers, state spaces, and both in turn.

Every pair is two tokens, an input and its answer written as (y, 0, ..., 0); both go through one read-in, and answers are
read off inputs. Layers are pre-norm residual blocks as GPT-2's: h + mixing(norm h), then h + MLP(norm h).

Source: Garg et al. 2022 for the layout and the sizes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from kshot.errors import KshotError, UnknownName
from kshot.synth.networks.mixing import (
    ATTENTIONS,
    SPREAD,
    Hearing,
    Hidden,
    Mixing,
    Own,
    Shape,
    angles,
    inner_spread,
    linear,
    linear_start,
)
from kshot.synth.networks.network import Network, Weights
from kshot.synth.networks.state_space import STATE_SPACES

Positions = Literal["learned", "sinusoidal", "sinusoidal-concatenated", "rotary", "none"]
Norm = Literal["layer", "rms", "batch"]

MIXINGS: Mapping[str, Mixing] = {**ATTENTIONS, **STATE_SPACES}

SIZES: Mapping[str, Shape] = {
    "tiny": Shape(layers=3, heads=2, width=64),
    "small": Shape(layers=6, heads=4, width=128),
    "standard": Shape(layers=12, heads=8, width=256),
}
"""As published by Garg et al. 2022: 0.2, 1.2 and 9.5 million parameters with softmax attention and MLPs."""

_NORM_FLOOR = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """What layers are made of: ``mixing`` is one of MIXINGS for all of them, one for each, or None.

    Without a mask (``causal`` False) all tokens hear all, a pair is one token (x, y), that of the last input (x, 0), so
    that the order of pairs changes nothing.
    """

    mixing: str | tuple[str, ...] | None = "softmax"
    mlp: bool = True
    positions: Positions = "learned"
    norm: Norm = "layer"
    causal: bool = True


@dataclass(frozen=True, slots=True)
class _Plan:
    """All that a pass depends on besides weights and prompts; ``mixings`` has one a layer, None for none."""

    shape: Shape
    design: Design
    mixings: tuple[Mixing | None, ...]
    hearing: Hearing


_GPT = Design()


def transformer(width: int, pairs: int, shape: Shape, design: Design = _GPT) -> Network:
    """Layers for inputs of ``width`` and at most ``pairs`` pairs.

    Raises UnknownName, and KshotError for parts that do not go together.
    """
    kinds = design.mixing if isinstance(design.mixing, tuple) else (design.mixing,) * shape.layers
    for kind in kinds:
        if kind is not None and kind not in MIXINGS:
            raise UnknownName("kind of mixing", kind, MIXINGS)
    if len(kinds) != shape.layers:
        raise KshotError(f"{len(kinds)} kinds of mixing for {shape.layers} layers; what works is one, or one for each")
    positions = design.positions
    a_head = shape.heads * (1 if positions in ("learned", "none") else 2)
    if shape.width % a_head:
        raise KshotError(
            f"width {shape.width} of {shape.heads} heads with positions {positions!r}: what works is a multiple of {a_head}"
        )
    mixings = tuple(None if kind is None else MIXINGS[kind] for kind in kinds)
    ordered = [kind for kind, own in zip(kinds, mixings, strict=True) if own is not None and own.ordered]
    if not design.causal and (ordered or positions != "none"):
        found = f"{ordered[0]} hears what came before" if ordered else f"positions are {positions}"
        raise KshotError(f"a set has no order, and {found}; what works is positions='none' and attention without decay")
    plan = _Plan(shape, design, mixings, Hearing(causal=design.causal, rotary=positions == "rotary"))
    return Network(start=partial(_start, plan, width, pairs), says=partial(_says, plan), causal=design.causal)


def alternating(shape: Shape) -> tuple[str, ...]:
    """MambaFormer's layers: a Mamba block first, in the place of positions, then attention and Mamba in turn.

    Source: Park et al. 2024.

    >>> alternating(Shape(layers=4, heads=2, width=64))
    ('mamba', 'softmax', 'mamba', 'softmax')
    """
    return tuple("softmax" if i % 2 else "mamba" for i in range(shape.layers))


def _start(plan: _Plan, width: int, pairs: int, rng: Generator) -> dict[str, Tensor]:
    e = plan.shape.width
    found = linear_start(rng, "read_in", width + (0 if plan.design.causal else 1), e)
    if plan.design.positions == "sinusoidal-concatenated":
        found |= linear_start(rng, "join", 2 * e, e)
    if plan.design.positions == "learned":
        found["positions"] = SPREAD * torch.randn(2 * pairs, e, generator=rng)
    for i, mixing in enumerate(plan.mixings):
        own: dict[str, Tensor] = {}
        if mixing is not None:
            own |= _norm_start(plan, "norm") | mixing.start(rng, plan.shape)
        if plan.design.mlp:
            own |= _norm_start(plan, "mlp_norm")
            own |= linear_start(rng, "up", e, 4 * e) | linear_start(rng, "down", 4 * e, e, inner_spread(plan.shape))
        found |= {f"{i}.{name}": tensor for name, tensor in own.items()}
    return found | _norm_start(plan, "norm") | linear_start(rng, "read_out", e, 1)


def _norm_start(plan: _Plan, name: str) -> dict[str, Tensor]:
    e = plan.shape.width
    return {f"{name}.weight": torch.ones(e)} | ({} if plan.design.norm == "rms" else {f"{name}.bias": torch.zeros(e)})


def _says(plan: _Plan, weights: Weights, xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"]) -> Float[Tensor, "b s"]:
    hidden = linear(weights, "read_in", _two_a_pair(xs, ys) if plan.design.causal else _one_a_pair(xs, ys))
    hidden = _placed(plan, weights, hidden)
    layers = _by_layer(weights, plan.shape.layers)
    for own, mixing in zip(layers, plan.mixings, strict=True):
        if mixing is not None:
            hidden = hidden + mixing.mix(own, _norm(plan, own, "norm", hidden), plan.shape, plan.hearing)
        if plan.design.mlp:
            up = linear(own, "up", _norm(plan, own, "mlp_norm", hidden))
            hidden = hidden + linear(own, "down", nn.functional.gelu(up, approximate="tanh"))
    asked = hidden[:, ::2] if plan.design.causal else hidden[:, -1:]
    return linear(weights, "read_out", _norm(plan, weights, "norm", asked))[..., 0]


def _by_layer(weights: Weights, layers: int) -> list[dict[str, Tensor]]:
    found: list[dict[str, Tensor]] = [{} for _ in range(layers)]
    for name, tensor in weights.items():
        number, _, own = name.partition(".")
        if number.isdigit():
            found[int(number)][own] = tensor
    return found


def _placed(plan: _Plan, weights: Weights, hidden: Hidden) -> Hidden:
    """Tokens that know where they stand, where that is not for attention to tell."""
    t, e = hidden.shape[1:]
    if plan.design.positions == "learned":
        if t > len(weights["positions"]):
            raise KshotError(f"{(t + 1) // 2} pairs: the network has places for {len(weights['positions']) // 2}")
        return hidden + weights["positions"][:t]
    if plan.design.positions in ("sinusoidal", "sinusoidal-concatenated"):
        by = angles(t, e)
        waves = torch.cat([by.sin(), by.cos()], dim=1).to(hidden)
        if plan.design.positions == "sinusoidal":
            return hidden + waves
        return linear(weights, "join", torch.cat([hidden, waves.expand_as(hidden)], dim=-1))
    return hidden


def _two_a_pair(xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"]) -> Float[Tensor, "b t d"]:
    """x, y, x, y ... x: nothing is asked behind the last answer."""
    wide = torch.cat([ys[..., None], torch.zeros_like(xs[..., 1:])], dim=-1)
    return torch.stack([xs, wide], dim=2).flatten(1, 2)[:, :-1]


def _one_a_pair(xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"]) -> Float[Tensor, "b n d1"]:
    hidden = torch.cat([ys[:, :-1], torch.zeros_like(ys[:, -1:])], dim=1)
    return torch.cat([xs, hidden[..., None]], dim=-1)


def _norm(plan: _Plan, own: Own, name: str, hidden: Hidden) -> Hidden:
    weight, width = own[f"{name}.weight"], hidden.shape[-1:]
    if plan.design.norm == "rms":
        return nn.functional.rms_norm(hidden, width, weight, eps=_NORM_FLOOR)
    bias = own[f"{name}.bias"]
    if plan.design.norm == "batch":
        # Over the prompts of a batch, at every token by itself: what comes later in a prompt is not heard through it.
        mean, variance = hidden.mean(dim=0), hidden.var(dim=0, correction=0)
        return (hidden - mean) * torch.rsqrt(variance + _NORM_FLOOR) * weight + bias
    return nn.functional.layer_norm(hidden, width, weight, bias, eps=_NORM_FLOOR)
