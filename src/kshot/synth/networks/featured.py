"""An MLP over tokens and a layer of linear self-attention, and its rival: gradient descent on a linear layer over an MLP.

Both read a token into ``embedding`` coordinates, h = A e + a, and go through h + D gelu(U h + u) + v. The first reads
(x, y), that of the query (x, 0), and attends to the pairs as ``linear_attention.py`` does. The second reads x alone, into
features f, and says W f(x) with

    W = W0 + rate / N sum over the N pairs of (y_j - W0 f(x_j)) f(x_j)',

one step of descent on half the mean square; MLP, W0 and rate are trained through it.

Source: von Oswald et al. 2023, with 40 coordinates and 160 hidden units; that W0 is trained, too, is ours.
"""

from functools import partial
from math import log, sqrt

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from kshot.synth.networks.mixing import SPREAD, linear, linear_start
from kshot.synth.networks.network import Network, Weights

# Attention begins small beside the tokens, as a step of descent does.
_ATTENTION, _RATE = 0.02, 0.002


def mlp_and_attention(width: int, *, embedding: int = 40, hidden: int = 160) -> Network:
    """One block over tokens of ``width`` + 1 coordinates; the sum over pairs is a mean."""
    return Network(
        start=partial(_block_start, inputs=width + 1, embedding=embedding, hidden=hidden),
        says=_block_says,
        causal=False,
    )


def step_on_features(width: int, *, embedding: int = 40, hidden: int = 160) -> Network:
    """One step of descent on trained features of the inputs, from a trained start at a trained rate."""
    return Network(
        start=partial(_step_start, inputs=width, embedding=embedding, hidden=hidden), says=_step_says, causal=False
    )


def _mlp_start(rng: Generator, inputs: int, embedding: int, hidden: int) -> dict[str, Tensor]:
    shapes = {"read_in": (inputs, embedding), "up": (embedding, hidden), "down": (hidden, embedding)}
    found: dict[str, Tensor] = {}
    for name, (narrow, wide) in shapes.items():
        found |= linear_start(rng, name, narrow, wide, 1 / sqrt(narrow))
    return found


def _features(weights: Weights, tokens: Float[Tensor, "b n i"]) -> Float[Tensor, "b n e"]:
    read = linear(weights, "read_in", tokens)
    return read + linear(weights, "down", nn.functional.gelu(linear(weights, "up", read)))


def _block_start(rng: Generator, *, inputs: int, embedding: int, hidden: int) -> dict[str, Tensor]:
    found = _mlp_start(rng, inputs, embedding, hidden)
    for name in ("keys", "queries", "values", "out"):
        found[name] = _ATTENTION * torch.randn(embedding, embedding, generator=rng)
    return found | linear_start(rng, "read_out", embedding, 1, 1 / sqrt(embedding))


def _block_says(weights: Weights, xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"]) -> Float[Tensor, "b 1"]:
    shown = torch.cat([ys[:, :-1], torch.zeros_like(ys[:, -1:])], dim=1)
    tokens = _features(weights, torch.cat([xs, shown[..., None]], dim=2))
    pairs, query = tokens[:, :-1], tokens[:, -1]
    scores = torch.einsum("bni,bi->bn", pairs @ weights["keys"].T, query @ weights["queries"].T)
    attended = torch.einsum("bn,bni->bi", scores, pairs) / pairs.shape[1]
    return linear(weights, "read_out", query + attended @ weights["values"].T @ weights["out"].T)


def _step_start(rng: Generator, *, inputs: int, embedding: int, hidden: int) -> dict[str, Tensor]:
    found = _mlp_start(rng, inputs, embedding, hidden)
    found |= linear_start(rng, "read_out", embedding, 1, SPREAD, bias=False)
    return found | {"log_rate": torch.tensor(log(_RATE))}


def _step_says(weights: Weights, xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"]) -> Float[Tensor, "b 1"]:
    features = _features(weights, xs)
    pairs, query = features[:, :-1], features[:, -1]
    left = ys[:, :-1] - linear(weights, "read_out", pairs)[..., 0]
    change = torch.einsum("bn,bni->bi", left, pairs) * weights["log_rate"].exp() / pairs.shape[1]
    return linear(weights, "read_out", query) + (change * query).sum(dim=1, keepdim=True)


def features_of(weights: Weights, xs: Float[Tensor, "b n d"]) -> Float[Tensor, "b n e"]:
    """The features of inputs on which ``step_on_features`` descends."""
    return _features(weights, xs)


def as_step(weights: Weights) -> dict[str, Tensor]:
    """The weights with which a block of one coordinate more is this step on features: the last coordinate carries y.

    Source: von Oswald et al. 2023, who stack the MLP below the layer of their construction.
    """
    found = {
        "read_in.weight": _with_corner(weights["read_in.weight"], 1.0),
        "read_in.bias": nn.functional.pad(weights["read_in.bias"], (0, 1)),
        "up.weight": nn.functional.pad(weights["up.weight"], (0, 1)),
        "up.bias": weights["up.bias"],
        "down.weight": nn.functional.pad(weights["down.weight"], (0, 0, 0, 1)),
        "down.bias": nn.functional.pad(weights["down.bias"], (0, 1)),
    }
    start, same = weights["read_out.weight"], torch.eye(weights["read_out.weight"].shape[1]).to(weights["up.bias"])
    features = _with_corner(same, 0.0)
    left = torch.cat([torch.zeros_like(features[:-1]), nn.functional.pad(-start, (0, 1), value=1.0)])
    return found | {
        "keys": features,
        "queries": features,
        "values": left,
        "out": weights["log_rate"].exp() * torch.eye(len(features)).to(features),
        "read_out.weight": nn.functional.pad(start, (0, 1), value=1.0),
        "read_out.bias": torch.zeros_like(start[0, :1]),
    }


def _with_corner(matrix: Float[Tensor, "o i"], value: float) -> Float[Tensor, "o1 i1"]:
    """The matrix with a row and a column more: 0, but for their corner."""
    found = nn.functional.pad(matrix, (0, 1, 0, 1))
    found[-1, -1] = value
    return found
