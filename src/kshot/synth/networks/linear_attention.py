"""Layers of linear self-attention, and the weights with which they are gradient descent.

A token is an input with its answer, e = (x, y), width d + 1; that of the query is (x, 0). A layer adds to every token

    sum over heads h of P_h sum_j V_h e_j (K_h e_j . Q_h e),

j over the pairs alone, and what is said is minus the query's last coordinate. With momentum a layer adds one of two more:

    over tokens   sum over heads h of P_h sum_(i < t) decay_h^(t - i) V_h e_i to token t,
    over passes   decay times what the layer before has added.

Source: von Oswald et al. 2023, proposition 1. A step that begins at weights that are not 0 would begin at
a query token (x, -W x); here all begin at 0. Momentum over tokens is that of Dai et al. 2023, section 5, without their
softmax; over passes it is heavy-ball, which their analogy is to.
"""

from functools import partial
from math import sqrt
from typing import Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from kshot.synth.networks.mixing import decayed
from kshot.synth.networks.network import Network, Weights

Momentum = Literal["tokens", "passes"]

# Of the weights' variance at the start, over layers and inputs of a unit: as published.
_START = 0.002


def linear_attention(
    width: int,
    *,
    layers: int = 1,
    heads: int = 1,
    shared: bool = False,
    bound: float | None = None,
    momentum: Momentum | None = None,
) -> Network:
    """``layers`` of linear self-attention over tokens of ``width`` + 1 coordinates; with ``shared`` weights one for all.

    ``bound`` holds every coordinate within plus and minus so much after each layer (10 where many layers were published).
    The decay of ``momentum`` is the logistic function of a weight, a half in the beginning; over tokens one for each head.
    """
    own, decays = 1 if shared else layers, {None: 0, "tokens": heads, "passes": 1}[momentum]
    return Network(
        start=partial(_start, width=width, layers=layers, shape=(own, heads), decays=decays),
        says=partial(_says, layers=layers, bound=bound, momentum=momentum),
        causal=False,
        ordered=momentum == "tokens",
    )


def _start(rng: Generator, *, width: int, layers: int, shape: tuple[int, int], decays: int) -> dict[str, Tensor]:
    spread = sqrt(_START / layers / (width + 1))
    found = {
        name: spread * torch.randn(*shape, width + 1, width + 1, generator=rng)
        for name in ("keys", "queries", "values", "out")
    }
    return found | ({"decay": torch.zeros(shape[0], decays)} if decays else {})


def _says(
    weights: Weights,
    xs: Float[Tensor, "b n d"],
    ys: Float[Tensor, "b n"],
    *,
    layers: int,
    bound: float | None,
    momentum: Momentum | None,
) -> Float[Tensor, "b 1"]:
    hidden = torch.cat([ys[:, :-1], torch.zeros_like(ys[:, -1:])], dim=1)
    tokens = torch.cat([xs, hidden[..., None]], dim=2)
    own, added = len(weights["keys"]), torch.zeros_like(tokens)
    for layer in range(layers):
        asks, adds = matrices(weights, layer % own)
        pairs = tokens[:, :-1]
        seen = pairs.transpose(1, 2) @ pairs
        # sum_j V e_j e_j' K' Q e, all tokens at once.
        change = torch.einsum("hoi,bij,hjk,bnk->bno", adds, seen, asks, tokens)
        if momentum is not None:
            decay = weights["decay"][layer % own].sigmoid()
            change = change + (decay * added if momentum == "passes" else _over_tokens(tokens, adds, decay))
        tokens, added = tokens + change, change
        if bound is not None:
            tokens = tokens.clamp(-bound, bound)
    return -tokens[:, -1:, -1]


def _over_tokens(
    tokens: Float[Tensor, "b n w"], adds: Float[Tensor, "h w w"], decay: Float[Tensor, "h"]
) -> Float[Tensor, "b n w"]:
    return decayed(torch.einsum("hoi,bni->bhno", adds, tokens), decay).sum(dim=1)


def matrices(weights: Weights, layer: int = 0) -> tuple[Float[Tensor, "h w w"], Float[Tensor, "h w w"]]:
    """K'Q and P V of every head of a layer: all that what is said depends on."""
    asks = weights["keys"][layer].transpose(1, 2) @ weights["queries"][layer]
    return asks, weights["out"][layer] @ weights["values"][layer]


def at_one_scale(weights: Weights) -> dict[str, Tensor]:
    """A layer of one head with the same answers, scaled so that K'Q is on average 1 on the inputs.

    What is said depends on the product of K'Q and P V alone, so trained weights are compared with others at one scale.
    """
    (asks,), (adds,) = matrices(weights)
    size = asks[:-1, :-1].diagonal().mean()
    return from_matrices(asks / size, adds * size)


def from_matrices(asks: Float[Tensor, "w w"], adds: Float[Tensor, "w w"]) -> dict[str, Tensor]:
    """A layer of one head with this K'Q and P V."""
    same = torch.eye(len(asks)).to(asks)
    found = {"keys": same, "queries": asks, "values": adds, "out": same}
    return {name: matrix[None, None] for name, matrix in found.items()}


def halfway(one: Weights, other: Weights, share: float = 0.5) -> dict[str, Tensor]:
    """A layer of one head between two others, both at one scale (``at_one_scale``): ``share`` 1 is ``one``.

    Source: von Oswald et al. 2023, section 3: where the loss between trained weights and those of descent is no higher
    than at either, they are the same solution.
    """
    pairs = [matrices(at_one_scale(weights)) for weights in (one, other)]
    asks, adds = (share * a[0] + (1 - share) * b[0].to(a[0]) for a, b in zip(*pairs, strict=True))
    return from_matrices(asks, adds)


def as_descent(
    width: int, pairs: int, rate: float, *, steps: int = 1, shrink: float = 0.0, momentum: float = 0.0
) -> dict[str, Tensor]:
    """The weights with which a layer for each step is a step of gradient descent on half the mean square over ``pairs``.

    ``shrink`` is gamma of GD++: inputs become (I - gamma X'X / pairs) x in the same layer. ``momentum`` between 0 and 1 is
    heavy-ball, for layers with momentum over passes. In float64, (steps, 1, width + 1, width + 1).

    Source: von Oswald et al. 2023, proposition 1; GD++ is theirs, too.
    """
    inputs = torch.eye(width + 1, dtype=torch.float64)
    inputs[-1, -1] = 0.0
    values = torch.zeros_like(inputs)
    values[-1, -1] = -1.0
    out = torch.eye(width + 1, dtype=torch.float64) * rate / pairs
    if shrink:
        values = values - inputs * shrink / rate
    one = {"keys": inputs, "queries": inputs, "values": values, "out": out}
    found = {name: matrix.expand(steps, 1, -1, -1).clone() for name, matrix in one.items()}
    kept = torch.full((steps, 1), momentum, dtype=torch.float64)
    return found | ({"decay": kept.logit()} if momentum else {})
