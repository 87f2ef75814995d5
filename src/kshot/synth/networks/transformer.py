"""Layers over the tokens of prompts of pairs: Transformers, state spaces, and both in turn.

Every pair is two tokens, an input and its answer written as (y, 0, ..., 0); both go through one read-in, and answers are
read off inputs.

Source: Garg et al. 2022 for the layout and the sizes.
"""

from functools import partial

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from kshot.errors import KshotError
from kshot.synth.networks.layers import Design, Layers, layers, layers_start, normed, passed
from kshot.synth.networks.mixing import Shape, linear, linear_start
from kshot.synth.networks.network import Network, Weights

_GPT = Design()
# The tokens that answers are read off.
_INPUTS, _LAST = slice(None, None, 2), slice(-1, None)


def transformer(width: int, pairs: int, shape: Shape, design: Design = _GPT) -> Network:
    """Layers for inputs of ``width`` and at most ``pairs`` pairs.

    Without a mask a pair is one token (x, y), that of the last input (x, 0), so that the order of pairs changes nothing.
    Raises UnknownName, and KshotError for parts that do not go together.
    """
    plan = layers(shape, design)
    if not design.causal and design.positions != "none":
        raise KshotError(f"a set has no order, and positions are {design.positions}; what works is positions='none'")
    return Network(start=partial(_start, plan, width, pairs), says=partial(_says, plan), causal=design.causal)


def alternating(shape: Shape) -> tuple[str, ...]:
    """MambaFormer's layers: a Mamba block first, in the place of positions, then attention and Mamba in turn.

    Source: Park et al. 2024.

    >>> alternating(Shape(layers=4, heads=2, width=64))
    ('mamba', 'softmax', 'mamba', 'softmax')
    """
    return tuple("softmax" if i % 2 else "mamba" for i in range(shape.layers))


def _start(plan: Layers, width: int, pairs: int, rng: Generator) -> dict[str, Tensor]:
    e, spread = plan.shape.width, plan.shape.begin
    found = linear_start(rng, "read_in", width + (0 if plan.design.causal else 1), e, spread)
    return found | layers_start(plan, 2 * pairs, rng) | linear_start(rng, "read_out", e, 1, spread)


def _says(plan: Layers, weights: Weights, xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"]) -> Float[Tensor, "b s"]:
    hidden = linear(weights, "read_in", _two_a_pair(xs, ys) if plan.design.causal else _one_a_pair(xs, ys))
    hidden = passed(plan, weights, hidden, _INPUTS if plan.design.causal else _LAST)
    return linear(weights, "read_out", normed(plan, weights, hidden))[..., 0]


def _two_a_pair(xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"]) -> Float[Tensor, "b t d"]:
    """x, y, x, y ... x: nothing is asked after the last answer."""
    wide = torch.cat([ys[..., None], torch.zeros_like(xs[..., 1:])], dim=-1)
    return torch.stack([xs, wide], dim=2).flatten(1, 2)[:, :-1]


def _one_a_pair(xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"]) -> Float[Tensor, "b n d1"]:
    hidden = torch.cat([ys[:, :-1], torch.zeros_like(ys[:, -1:])], dim=1)
    return torch.cat([xs, hidden[..., None]], dim=-1)
