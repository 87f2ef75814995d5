"""What answers prompts of pairs by weights that were trained: every network by its name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Generator

from kshot.errors import KshotError
from kshot.synth.networks.layers import Design
from kshot.synth.networks.linear_attention import linear_attention
from kshot.synth.networks.mixing import Shape
from kshot.synth.networks.network import Network, parameters
from kshot.synth.networks.recurrent import flattened, recurrent
from kshot.synth.networks.transformer import alternating, transformer


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A network by its name: made for inputs of a width, at most so many pairs, and a shape."""

    about: str
    make: Callable[[int, int, Shape], Network]


def _linear_layers(width: int, pairs: int, shape: Shape) -> Network:
    return linear_attention(width, layers=shape.layers, heads=shape.heads)


def _recurrent(width: int, pairs: int, shape: Shape, *, cell: str, attends: bool = False) -> Network:
    return recurrent(width, shape, cell=cell, attends=attends)


def _designed(width: int, pairs: int, shape: Shape, **own: Any) -> Network:
    return transformer(width, pairs, shape, Design(**own))


def _mambaformer(width: int, pairs: int, shape: Shape) -> Network:
    return transformer(width, pairs, shape, replace(_STATE_SPACE, mixing=alternating(shape)))


def _state_space(width: int, pairs: int, shape: Shape, *, mixing: str) -> Network:
    return transformer(width, pairs, shape, replace(_STATE_SPACE, mixing=mixing))


_STATE_SPACE = Design(mlp=None, positions="none", norm="rms")

NETWORKS: Mapping[str, Kind] = {
    "transformer": Kind(about="as GPT-2: softmax attention and MLPs", make=transformer),
    "linear-transformer": Kind(about="the same without the softmax", make=partial(_designed, mixing="linear")),
    "momentum-transformer": Kind(
        about="the same with a decayed sum of values beside attention", make=partial(_designed, mixing="momentum")
    ),
    "kernel-transformer": Kind(about="the same with a Gaussian kernel", make=partial(_designed, mixing="kernel")),
    "itself": Kind(
        about="softmax(X X') X and MLPs: no queries, keys or values", make=partial(_designed, mixing="itself")
    ),
    "attention-only": Kind(about="softmax attention without MLPs", make=partial(_designed, mlp=None)),
    "mlp-only": Kind(about="MLPs without attention: sees nothing", make=partial(_designed, mixing=None)),
    "encoder": Kind(
        about="softmax attention without a mask, a pair a token",
        make=partial(_designed, positions="none", causal=False),
    ),
    "linear-self-attention": Kind(about="layers of linear self-attention over (x, y)", make=_linear_layers),
    "rnn": Kind(about="an Elman network", make=partial(_recurrent, cell="rnn")),
    "rnn-attending": Kind(
        about="an Elman network that asks its past before it answers",
        make=partial(_recurrent, cell="rnn", attends=True),
    ),
    "lstm": Kind(about="long short-term memory", make=partial(_recurrent, cell="lstm")),
    "gru": Kind(about="gated recurrent units", make=partial(_recurrent, cell="gru")),
    "s4d": Kind(about="a diagonal state space, by FFT", make=partial(_state_space, mixing="s4d")),
    "mamba": Kind(about="a state space that selects, S6", make=partial(_state_space, mixing="mamba")),
    "mambaformer": Kind(about="Mamba first, then attention and Mamba in turn", make=_mambaformer),
    "mlp": Kind(about="plain layers over the prompt as one vector", make=flattened),
}


def matched(kind: Kind, width: int, pairs: int, shape: Shape, target: int) -> Shape:
    """The shape with the width at which a network has about ``target`` parameters: the nearest there is.

    KshotError where the nearest is more than 2 per cent away.
    """
    step = shape.heads
    low, high = 1, 2
    while _count(kind, width, pairs, replace(shape, width=high * step)) < target:
        low, high = high, 2 * high
        if high > 1 << 20:
            break
    while high - low > 1:
        middle = (low + high) // 2
        below = _count(kind, width, pairs, replace(shape, width=middle * step)) < target
        low, high = (middle, high) if below else (low, middle)
    both = [replace(shape, width=own * step) for own in (low, high)]
    best = min(both, key=lambda own: abs(_count(kind, width, pairs, own) - target))
    found = _count(kind, width, pairs, best)
    if abs(found - target) > 0.02 * target:
        raise KshotError(
            f"no width gives this network {target} parameters to 2 per cent: {best.width} gives {found}; what works is "
            "another number of layers or fewer heads"
        )
    return best


def _count(kind: Kind, width: int, pairs: int, shape: Shape) -> int:
    return parameters(kind.make(width, pairs, shape).start(Generator()))
