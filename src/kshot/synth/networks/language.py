"""Language models: networks that say of every token of a text what the next one is.

Layers of attention or state spaces as in ``layers.py``, with one matrix for tokens that are read and said, as GPT-2 has;
or recurrent cells, with one for each.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import sqrt

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from kshot.synth.networks.layers import Design, layers, layers_start, normed, passed
from kshot.synth.networks.mixing import Shape, linear, linear_start
from kshot.synth.networks.network import Weights
from kshot.synth.networks.recurrent import CELLS, cells_start, states
from kshot.synth.networks.transformer import alternating


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """A language model; a value without weights of its own, so one may be asked with many.

    ``says(weights, tokens)`` maps texts (b, t) to logits of the token behind each of theirs, (b, t, v). It is causal: what
    comes later changes nothing.
    """

    start: Callable[[Generator], dict[str, Tensor]]
    says: Callable[[Weights, Int[Tensor, "b t"]], Float[Tensor, "b t v"]]


Make = Callable[[int, int, Shape], Language]
"""Of the size of the vocabulary, the greatest number of tokens of a text, and a shape."""


_GPT = Design()
_LLAMA = Design(mlp="swiglu", biases=False, positions="rotary", norm="rms")
_STATE_SPACE = Design(mlp=None, positions="none", norm="rms")


def layered(vocabulary: int, length: int, shape: Shape, design: Design = _GPT) -> Language:
    """Layers of this design; UnknownName, and KshotError for parts that do not go together."""
    plan = layers(shape, design)

    def start(rng: Generator) -> dict[str, Tensor]:
        found = {"embedding": shape.begin * torch.randn(vocabulary, shape.width, generator=rng)}
        return found | layers_start(plan, length, rng)

    def says(weights: Weights, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t v"]:
        hidden = passed(plan, weights, nn.functional.embedding(tokens, weights["embedding"]))
        return normed(plan, weights, hidden) @ weights["embedding"].T

    return Language(start=start, says=says)


def _with_cells(vocabulary: int, length: int, shape: Shape, *, cell: str) -> Language:
    gates, run = CELLS[cell]

    def start(rng: Generator) -> dict[str, Tensor]:
        found = {"embedding": torch.randn(vocabulary, shape.width, generator=rng)}
        spread = 1 / sqrt(3 * shape.width)
        return found | cells_start(rng, shape, gates) | linear_start(rng, "read_out", shape.width, vocabulary, spread)

    def says(weights: Weights, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t v"]:
        return linear(
            weights, "read_out", states(weights, nn.functional.embedding(tokens, weights["embedding"]), shape, run)
        )

    return Language(start=start, says=says)


def _mambaformer(vocabulary: int, length: int, shape: Shape) -> Language:
    return layered(vocabulary, length, shape, replace(_STATE_SPACE, mixing=alternating(shape)))


LANGUAGES: Mapping[str, Make] = {
    "transformer": layered,
    "llama": partial(layered, design=_LLAMA),
    "linear-transformer": partial(layered, design=Design(mixing="linear")),
    "momentum-transformer": partial(layered, design=Design(mixing="momentum")),
    "attention-only": partial(layered, design=Design(mlp=None)),
    "rnn": partial(_with_cells, cell="rnn"),
    "gru": partial(_with_cells, cell="gru"),
    "lstm": partial(_with_cells, cell="lstm"),
    "mamba": partial(layered, design=replace(_STATE_SPACE, mixing="mamba")),
    "mambaformer": _mambaformer,
}


def cross_entropy(logits: Float[Tensor, "b t v"], tokens: Int[Tensor, "b t"]) -> Float[Tensor, ""]:
    """The mean surprise of every token but the first of a text at what was said before it, in nats."""
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
