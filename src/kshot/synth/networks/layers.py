"""Layers over tokens: what is mixed among them and within each, where they stand, and how layers are put together.

Layers are pre-norm residual blocks as GPT-2's: h + mixing(norm h), then h + MLP(norm h), and a norm after the last.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from kshot.errors import KshotError, UnknownName
from kshot.synth.networks.mixing import (
    ATTENTIONS,
    Hidden,
    Kept,
    Mixing,
    MixingOptions,
    Own,
    Shape,
    angles,
    inner_spread,
    linear,
    linear_start,
)
from kshot.synth.networks.network import Weights
from kshot.synth.networks.relative import BUCKETS, relative_bias
from kshot.synth.networks.state_space import STATE_SPACES

Positions = Literal["learned", "sinusoidal", "sinusoidal-concatenated", "rotary", "relative", "none"]
Norm = Literal["layer", "rms", "batch"]
Mlp = Literal["gelu", "swiglu"]

MIXINGS: Mapping[str, Mixing] = {**ATTENTIONS, **STATE_SPACES}

SIZES: Mapping[str, Shape] = {
    "tiny": Shape(layers=3, heads=2, width=64),
    "small": Shape(layers=6, heads=4, width=128),
    "standard": Shape(layers=12, heads=8, width=256),
}
"""As published by Garg et al. 2022: 0.2, 1.2 and 9.5 million parameters with softmax attention and MLPs."""

NORM_FLOOR = 1e-5
# Of attention and MLPs; norms and state spaces keep theirs.
_BIASES = ("qkv.bias", "out.bias", "gate.bias", "up.bias", "down.bias")
_ALL = slice(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """What layers are made of: ``mixing`` is one of MIXINGS for all of them, one for each, or None.

    ``mlp`` is GPT-2's, four times as wide as a token, or SwiGLU (Shazeer 2020), two thirds of that and with a gate; None:
    none. Without ``biases`` attention and MLPs have matrices alone. Without a mask (``causal`` False) all tokens see all.
    ``eta`` in (0, 1) is the decay of momentum in all heads; None: each learns its own.
    """

    mixing: str | tuple[str, ...] | None = "softmax"
    mlp: Mlp | None = "gelu"
    biases: bool = True
    positions: Positions = "learned"
    norm: Norm = "layer"
    causal: bool = True
    eta: float | None = None


@dataclass(frozen=True, slots=True)
class Layers:
    """All that a pass through layers depends on besides weights and tokens; ``mixings`` has one a layer, None for none."""

    shape: Shape
    design: Design
    mixings: tuple[Mixing | None, ...]
    options: MixingOptions


def layers(shape: Shape, design: Design) -> Layers:
    """Layers of a shape and design; UnknownName, and KshotError for parts that do not go together."""
    kinds = design.mixing if isinstance(design.mixing, tuple) else (design.mixing,) * shape.layers
    for kind in kinds:
        if kind is not None and kind not in MIXINGS:
            raise UnknownName("kind of mixing", kind, MIXINGS)
    if len(kinds) != shape.layers:
        raise KshotError(f"{len(kinds)} kinds of mixing for {shape.layers} layers; what works is one, or one for each")
    positions = design.positions
    a_head = shape.heads * (1 if positions in ("learned", "relative", "none") else 2)
    if shape.width % a_head:
        raise KshotError(
            f"width {shape.width} of {shape.heads} heads with positions {positions!r}: what works is a multiple of {a_head}"
        )
    mixings = tuple(None if kind is None else MIXINGS[kind] for kind in kinds)
    ordered = [kind for kind, own in zip(kinds, mixings, strict=True) if own is not None and own.ordered]
    if not design.causal and ordered:
        raise KshotError(
            f"{ordered[0]} sees what came before alone; without a mask what works is attention without decay"
        )
    if positions == "relative" and not all(own is not None and own.masks for own in mixings):
        raise KshotError("positions 'relative' need softmax attention in every layer, with momentum or without")
    if design.eta is not None and not 0 < design.eta < 1:
        raise KshotError(f"a decay of {design.eta}: what works is a number between 0 and 1")
    options = MixingOptions(causal=design.causal, rotary=positions == "rotary", eta=design.eta)
    return Layers(shape, design, mixings, options)


def layers_start(plan: Layers, places: int, rng: Generator) -> dict[str, Tensor]:
    """Their weights at the start; learned positions for so many tokens."""
    e = plan.shape.width
    found: dict[str, Tensor] = {}
    if plan.design.positions == "sinusoidal-concatenated":
        found |= linear_start(rng, "join", 2 * e, e, plan.shape.begin)
    if plan.design.positions == "learned":
        found["positions"] = plan.shape.begin * torch.randn(places, e, generator=rng)
    if plan.design.positions == "relative":
        found["relative"] = torch.randn(BUCKETS, plan.shape.heads, generator=rng) / e**0.5
    for i, mixing in enumerate(plan.mixings):
        own: dict[str, Tensor] = {}
        if mixing is not None:
            own |= _norm_start(plan, "norm") | mixing.start(rng, plan.shape)
        if plan.design.mlp is not None:
            own |= _norm_start(plan, "mlp_norm") | _mlp_start(plan, rng)
        if not plan.design.biases:
            own = {name: tensor for name, tensor in own.items() if name not in _BIASES}
        if plan.design.eta is not None:
            own.pop("decay", None)
        found |= {f"{i}.{name}": tensor for name, tensor in own.items()}
    return found | _norm_start(plan, "norm")


@dataclass(frozen=True, slots=True)
class Past:
    """How many tokens stand before, and what they have kept in each layer, None of one in which nothing is mixed."""

    length: int
    kept: tuple[Kept | None, ...]


def passed(
    plan: Layers, weights: Weights, hidden: Hidden, asked: slice = _ALL, prefix: Int[Tensor, "b"] | None = None
) -> Float[Tensor, "b a e"]:
    """The ``asked`` tokens after all layers, before the last norm (``normed``); all tokens of a text see its first ``prefix``.

    KshotError for more tokens than there are places, and for layers that cannot be told what they see.
    """
    return _through(plan, weights, hidden, None, asked, _seeing(plan, hidden, prefix))[0]


def passed_on(plan: Layers, weights: Weights, hidden: Hidden, past: Past | None) -> tuple[Hidden, Past]:
    """Tokens after all layers that stand after those of a ``past`` (None: after none), and the past of whoever comes next.

    KshotError as ``passed``.
    """
    past = past or Past(0, (None,) * plan.shape.layers)
    found, kept = _through(plan, weights, hidden, past, _ALL, plan.options)
    return found, Past(past.length + hidden.shape[1], kept)


def _through(
    plan: Layers, weights: Weights, hidden: Hidden, past: Past | None, asked: slice, options: MixingOptions
) -> tuple[Float[Tensor, "b a e"], tuple[Kept | None, ...]]:
    """Nothing is kept where no past is given."""
    before = 0 if past is None else past.length
    hidden = _placed(plan, weights, hidden, before)
    if plan.design.positions == "relative":
        bias = relative_bias(weights["relative"], before + hidden.shape[1], causal=plan.design.causal)
        options = replace(options, bias=bias)
    layers, found = by_layer(weights, plan.shape.layers), list[Kept | None]()
    for i, (own, mixing) in enumerate(zip(layers, plan.mixings, strict=True)):
        kept = None if past is None else past.kept[i]
        if mixing is not None:
            added, kept = mixing.mix(own, normed(plan, own, hidden), plan.shape, options, kept)
            hidden = hidden + added
        if past is not None:
            found.append(kept)
        if i == len(layers) - 1:
            # Nothing is mixed among tokens from here on, so the others have said what they had to say.
            hidden = hidden[:, asked]
        if plan.design.mlp is not None:
            hidden = hidden + _mlp(plan, own, normed(plan, own, hidden, "mlp_norm"))
    return hidden, tuple(found)


def _seeing(plan: Layers, hidden: Hidden, prefix: Int[Tensor, "b"] | None) -> MixingOptions:
    if prefix is None:
        return plan.options
    if not all(mixing is not None and mixing.masks for mixing in plan.mixings):
        raise KshotError(
            "a beginning that all tokens see needs softmax attention in every layer, with momentum or without"
        )
    places = torch.arange(hidden.shape[1], device=hidden.device)
    mask = (places[:, None] >= places) | (places < prefix[:, None, None])
    return replace(plan.options, mask=mask[:, None])


def _mlp_start(plan: Layers, rng: Generator) -> dict[str, Tensor]:
    e, begin, inner = plan.shape.width, plan.shape.begin, inner_spread(plan.shape)
    if plan.design.mlp == "gelu":
        return linear_start(rng, "up", e, 4 * e, begin) | linear_start(rng, "down", 4 * e, e, inner)
    # As many parameters in three matrices as in two.
    wide = round(8 * e / 3)
    return (
        linear_start(rng, "gate", e, wide, begin)
        | linear_start(rng, "up", e, wide, begin)
        | linear_start(rng, "down", wide, e, inner)
    )


def _mlp(plan: Layers, own: Own, hidden: Hidden) -> Hidden:
    up = linear(own, "up", hidden)
    if plan.design.mlp == "gelu":
        return linear(own, "down", nn.functional.gelu(up, approximate="tanh"))
    return linear(own, "down", nn.functional.silu(linear(own, "gate", hidden)) * up)


def _norm_start(plan: Layers, name: str) -> dict[str, Tensor]:
    e = plan.shape.width
    return {f"{name}.weight": torch.ones(e)} | ({} if plan.design.norm == "rms" else {f"{name}.bias": torch.zeros(e)})


def by_layer(weights: Weights, layers: int) -> list[dict[str, Tensor]]:
    """The weights of each of so many layers by their own names."""
    found: list[dict[str, Tensor]] = [{} for _ in range(layers)]
    for name, tensor in weights.items():
        number, _, own = name.partition(".")
        if number.isdigit():
            found[int(number)][own] = tensor
    return found


def _placed(plan: Layers, weights: Weights, hidden: Hidden, before: int) -> Hidden:
    """Tokens after so many that know where they stand, where that is not for attention to tell."""
    t, e = hidden.shape[1:]
    if plan.design.positions == "learned":
        if before + t > len(weights["positions"]):
            raise KshotError(f"{before + t} tokens: the network has places for {len(weights['positions'])}")
        return hidden + weights["positions"][before : before + t]
    if plan.design.positions in ("sinusoidal", "sinusoidal-concatenated"):
        by = angles(t, e, before)
        waves = torch.cat([by.sin(), by.cos()], dim=1).to(hidden)
        if plan.design.positions == "sinusoidal":
            return hidden + waves
        return linear(weights, "join", torch.cat([hidden, waves.expand_as(hidden)], dim=-1))
    return hidden


def normed(plan: Layers, own: Own, hidden: Hidden, name: str = "norm") -> Hidden:
    """Tokens after a norm: the last one, where ``own`` are the weights of all."""
    weight, width = own[f"{name}.weight"], hidden.shape[-1:]
    if plan.design.norm == "rms":
        return nn.functional.rms_norm(hidden, width, weight, eps=NORM_FLOOR)
    bias = own[f"{name}.bias"]
    if plan.design.norm == "batch":
        # Over the prompts of a batch, at every token by itself: what comes later in a prompt is not seen through it.
        mean, variance = hidden.mean(dim=0), hidden.var(dim=0, correction=0)
        return (hidden - mean) * torch.rsqrt(variance + NORM_FLOOR) * weight + bias
    return nn.functional.layer_norm(hidden, width, weight, bias, eps=NORM_FLOOR)
