"""Two layers over prompts whose inputs and answers are tokens of their own, and the weights with which they are descent.

Tokens are x_1, y_1, x_2 ... and the query; each is (x, 0, place) or (0, y, place), width d + 1 and the places' size p.
Places are sines and cosines with periods of 2, 4, 8 ... tokens, of which the first tells inputs from answers. The first
layer is softmax attention, the second linear; both add to every token what the tokens of the pairs, and they alone,
say to it. What is said is the query's coordinate of y.

Source: von Oswald et al. 2023: places of 10 and keys of 20 coordinates. One head, a softmax of plain products and
the periods are ours.
"""

from functools import partial
from math import pi, sqrt

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from kshot.synth.networks.network import Network, Weights

# Of weights at the start, times the root of the inputs of a unit: smaller ones take far longer to copy.
_SPREAD = 0.7


def separate_tokens(width: int, *, place: int = 10, keys: int = 20) -> Network:
    """The two layers for inputs of ``width``; the order of pairs counts. ``place`` is even."""
    return Network(
        start=partial(_start, width=width, place=place, keys=keys),
        says=partial(_says, place=place),
        causal=False,
        ordered=True,
    )


def _start(rng: Generator, *, width: int, place: int, keys: int) -> dict[str, Tensor]:
    e = width + 1 + place
    shapes = {"keys": (2, keys, e), "queries": (2, keys, e), "values": (2, e, e), "out": (2, e, e)}
    return {name: _SPREAD / sqrt(e) * torch.randn(shape, generator=rng) for name, shape in shapes.items()}


def _says(
    weights: Weights, xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"], *, place: int
) -> Float[Tensor, "b 1"]:
    tokens = _tokens(xs, ys, place)
    attended = attention(weights, xs, ys, place=place) @ tokens[:, :-1]
    tokens = tokens + attended @ (weights["out"][0] @ weights["values"][0]).T
    pairs, query = tokens[:, :-1], tokens[:, -1]
    scores = torch.einsum("btk,bk->bt", pairs @ weights["keys"][1].T, query @ weights["queries"][1].T)
    attended = torch.einsum("bt,bti->bi", scores, pairs) @ (weights["out"][1] @ weights["values"][1]).T
    return (query + attended)[:, xs.shape[2], None]


def attention(
    weights: Weights, xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"], *, place: int = 10
) -> Float[Tensor, "b t s"]:
    """What every token of the first layer sees: its shares of the s = 2 n - 2 tokens of the pairs; t is s and the query."""
    tokens = _tokens(xs, ys, place)
    asks, seen = tokens @ weights["queries"][0].T, tokens[:, :-1] @ weights["keys"][0].T
    return (asks @ seen.transpose(1, 2)).softmax(dim=-1)


def _tokens(xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"], place: int) -> Float[Tensor, "b t e"]:
    inputs = torch.cat([xs, torch.zeros_like(ys)[..., None]], dim=2)
    answers = torch.cat([torch.zeros_like(xs), ys[..., None]], dim=2)
    # The last answer is not shown.
    both = torch.stack([inputs, answers], dim=2).flatten(1, 2)[:, :-1]
    by = _angles(both.shape[1], place)
    places = torch.cat([by.sin(), by.cos()], dim=1).to(both)
    return torch.cat([both, places.expand(len(both), -1, -1)], dim=2)


def _angles(tokens: int, place: int) -> Float[Tensor, "t f"]:
    """How far along each period every token stands, in radians."""
    rates = pi / 2 ** torch.arange(place // 2, dtype=torch.float64)
    return torch.arange(tokens, dtype=torch.float64)[:, None] * rates


def as_copy_and_descent(
    width: int, pairs: int, rate: float, *, place: int = 10, keys: int = 20, sharp: float = 100.0
) -> dict[str, Tensor]:
    """The weights with which the first layer copies every x to its y, and the second is a step of descent. In float64.

    Answers see the token before them: products of places are greatest there, ``sharp`` times as large as 5 sines are,
    and an input sees an answer, of which nothing is copied. The step is that on half the mean square over ``pairs``.
    Keys have ``width`` and ``place`` coordinates or more.
    """
    e = width + 1 + place
    found = {
        name: torch.zeros(2, rows, e, dtype=torch.float64)
        for name, rows in (("keys", keys), ("queries", keys), ("values", e), ("out", e))
    }
    inputs, y, half = torch.arange(width), width, place // 2
    # sin and cos of a place, one further left.
    back = _angles(2, place)[1]
    first, second = width + 1 + torch.arange(half), width + 1 + half + torch.arange(half)
    sines, cosines = torch.arange(half), half + torch.arange(half)
    found["keys"][0, sines, first] = found["keys"][0, cosines, second] = 1.0
    found["queries"][0, sines, first] = found["queries"][0, cosines, second] = sharp * back.cos()
    found["queries"][0, sines, second], found["queries"][0, cosines, first] = -sharp * back.sin(), sharp * back.sin()
    found["keys"][1, inputs, inputs] = found["queries"][1, inputs, inputs] = 1.0
    found["values"][0, inputs, inputs] = found["out"][0, inputs, inputs] = 1.0
    found["values"][1, y, y], found["out"][1, y, y] = 1.0, rate / pairs
    return found
