"""Recurrent networks over prompts of pairs, and one of plain layers that sees a prompt as one long vector.

A token of a recurrent network is (x, y before it): what it says of an answer rests on all pairs before and on x.
"""

from collections.abc import Callable, Mapping
from functools import partial
from math import sqrt

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from kshot.errors import KshotError, UnknownName
from kshot.synth.networks.mixing import Shape, linear, linear_start
from kshot.synth.networks.network import Network, Weights

Cells = Float[Tensor, "b t e"]
Run = Callable[[Cells, list[Tensor], int], Cells]


def _run(kind: Callable[..., tuple[Tensor, ...]], states: int, hidden: Cells, flat: list[Tensor], layers: int) -> Cells:
    zero = hidden.new_zeros(layers, len(hidden), hidden.shape[-1])
    begin = zero if states == 1 else (zero, zero)
    # Biases, layers, no dropout, not in training, one direction, prompts first.
    return kind(hidden, begin, flat, True, layers, 0.0, False, False, True)[0]


# The weights of a layer.
_CELL = ("in", "state", "in_bias", "state_bias")
# The gates of a cell, and how it runs.
CELLS: Mapping[str, tuple[int, Run]] = {
    "rnn": (1, partial(_run, torch.rnn_tanh, 1)),
    "gru": (3, partial(_run, torch.gru, 1)),
    "lstm": (4, partial(_run, torch.lstm, 2)),
}
"""Elman 1990, Cho et al. 2014, Hochreiter and Schmidhuber 1997; as torch's modules of these names have them."""


def recurrent(width: int, shape: Shape, *, cell: str = "lstm", attends: bool = False) -> Network:
    """Layers of one cell, all of the same width; with ``attends`` the last layer asks its own past before it answers.

    That is additive attention (Bahdanau et al. 2015) of the state at a token to the states before it, and the answer is
    read off both. Raises UnknownName.
    """
    if cell not in CELLS:
        raise UnknownName("cell", cell, CELLS)
    return Network(
        start=partial(_start, width=width, shape=shape, gates=CELLS[cell][0], attends=attends),
        says=partial(_says, shape=shape, run=CELLS[cell][1], attends=attends),
        causal=True,
    )


def _start(rng: Generator, *, width: int, shape: Shape, gates: int, attends: bool) -> dict[str, Tensor]:
    e, spread = shape.width, _spread(shape)
    found = linear_start(rng, "read_in", width + 1, e, 1 / sqrt(width + 1)) | cells_start(rng, shape, gates)
    if attends:
        found |= linear_start(rng, "asks", e, e, spread) | linear_start(rng, "past", e, e, spread, bias=False)
        found |= linear_start(rng, "scores", e, 1, spread, bias=False)
    return found | linear_start(rng, "read_out", 2 * e if attends else e, 1, spread)


def _spread(shape: Shape) -> float:
    # As torch begins its recurrent layers, but normal; half of the uniform's range is sqrt(3) standard deviations.
    return 1 / sqrt(3 * shape.width)


def cells_start(rng: Generator, shape: Shape, gates: int) -> dict[str, Tensor]:
    """Weights of layers of a cell with so many gates at the start."""
    e, found = shape.width, {}
    for i in range(shape.layers):
        for name, size in zip(_CELL, ((gates * e, e), (gates * e, e), (gates * e,), (gates * e,)), strict=True):
            found[f"{i}.{name}"] = _spread(shape) * torch.randn(size, generator=rng)
    return found


def states(weights: Weights, hidden: Cells, shape: Shape, run: Run) -> Cells:
    """The state of the last layer after every token."""
    return run(hidden, [weights[f"{i}.{name}"] for i in range(shape.layers) for name in _CELL], shape.layers)


def _says(
    weights: Weights, xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"], *, shape: Shape, run: Run, attends: bool
) -> Float[Tensor, "b n"]:
    before = torch.cat([torch.zeros_like(ys[:, :1]), ys[:, :-1]], dim=1)
    hidden = linear(weights, "read_in", torch.cat([xs, before[..., None]], dim=-1))
    found = states(weights, hidden, shape, run)
    if attends:
        found = torch.cat([found, attended(weights, found)], dim=-1)
    return linear(weights, "read_out", found)[..., 0]


def attended(weights: Weights, states: Cells) -> Cells:
    """What every state is told by those before it: sum_j softmax_j(v . tanh(W s_t + U s_j)) s_j; the first is told 0."""
    t = states.shape[1]
    mixed = torch.tanh(linear(weights, "asks", states)[:, :, None] + linear(weights, "past", states)[:, None])
    scores = linear(weights, "scores", mixed)[..., 0]
    past = torch.ones(t, t, dtype=torch.bool, device=states.device).tril(-1)
    # A softmax over nothing is nothing.
    told = scores.masked_fill(~past, -torch.inf)[:, 1:].softmax(dim=-1) @ states
    return torch.cat([torch.zeros_like(states[:, :1]), told], dim=1)


def flattened(width: int, pairs: int, shape: Shape) -> Network:
    """Plain layers over a prompt as one vector of all its numbers: each answer from those before it, the rest written as 0."""
    return Network(
        start=partial(_flat_start, width=width, pairs=pairs, shape=shape),
        says=partial(_flat_says, pairs=pairs, shape=shape),
        causal=True,
    )


def _flat_start(rng: Generator, *, width: int, pairs: int, shape: Shape) -> dict[str, Tensor]:
    inputs = pairs * (width + 1) + width
    found: dict[str, Tensor] = {}
    for i in range(shape.layers):
        found |= linear_start(rng, f"{i}", inputs, shape.width, sqrt(2 / inputs))
        inputs = shape.width
    return found | linear_start(rng, "read_out", inputs, 1, 1 / sqrt(inputs))


def _flat_says(
    weights: Weights, xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"], *, pairs: int, shape: Shape
) -> Float[Tensor, "b n"]:
    n = xs.shape[1]
    if n > pairs:
        raise KshotError(f"{n} pairs: the network has places for {pairs}")
    written = nn.functional.pad(torch.cat([xs, ys[..., None]], dim=-1), (0, 0, 0, pairs - n))
    shown = torch.ones(n, pairs, dtype=torch.bool, device=xs.device).tril(-1)
    # The query stands first, wherever it is in the prompt.
    hidden = torch.cat([xs, (written[:, None] * shown[..., None]).flatten(2)], dim=-1)
    for i in range(shape.layers):
        hidden = torch.relu(linear(weights, f"{i}", hidden))
    return linear(weights, "read_out", hidden)[..., 0]
