"""Language models: networks that say of every token of a text what the next one is.

Layers of attention or state spaces as in ``layers.py``, with one matrix for tokens that are read and said, as GPT-2 has;
or recurrent cells, or a window of tokens, with one for each.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import sqrt
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from kshot.errors import KshotError
from kshot.synth.networks.layers import Design, Past, layers, layers_start, normed, passed, passed_on
from kshot.synth.networks.mixing import Shape, linear, linear_start
from kshot.synth.networks.network import Weights
from kshot.synth.networks.recurrent import CELLS, cells_start, states
from kshot.synth.networks.transformer import alternating


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """A language model; a value without weights of its own, so one may be asked with many.

    ``reads(weights, tokens, beside)`` maps texts (b, t) to what is known at each of their tokens, (b, t, e), and
    ``head(weights, known)`` that to logits, (..., v). It is causal, what comes later changes nothing, but where the
    design has no mask. ``beside`` is how many tokens at the beginning of each text all others see, (b,), or what an
    encoder reads, (b, u). ``table`` names the weights that a token is looked up in. ``goes_on`` is ``reads`` of tokens that
    stand after others, where what those leave is known; None of a network that has no such and reads all of them again.
    """

    start: Callable[[Generator], dict[str, Tensor]]
    reads: Callable[[Weights, Int[Tensor, "b t"], Int[Tensor, "b"] | Int[Tensor, "b u"] | None], Float[Tensor, "b t e"]]
    head: Callable[[Weights, Float[Tensor, "*b e"]], Float[Tensor, "*b v"]]
    table: str = "embedding"
    goes_on: Callable[[Weights, Int[Tensor, "b u"], Any], tuple[Float[Tensor, "b u e"], Any]] | None = None

    def reads_on(self, weights: Weights, tokens: Int[Tensor, "b u"], past: Any) -> tuple[Float[Tensor, "b u e"], Any]:
        """What is known at tokens after a ``past`` (None: at the first of texts), and the past of those that come next.

        A past is what the network keeps of tokens, or they themselves; one serves as often as it is asked.
        """
        if self.goes_on is not None:
            return self.goes_on(weights, tokens, past)
        every = tokens if past is None else torch.cat([past, tokens], dim=1)
        return self.reads(weights, every, None)[:, -tokens.shape[1] :], every

    def says(self, weights: Weights, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t v"]:
        """The logits of what stands after each token, or in its place where there is no mask."""
        return self.head(weights, self.reads(weights, tokens, None))


Texts = Int[Tensor, "b t"]
Beside = Int[Tensor, "b"] | Int[Tensor, "b u"] | None
Make = Callable[[int, int, Shape], Language]
"""Of the size of the vocabulary, the greatest number of tokens of a text, and a shape."""


_GPT = Design()
_LLAMA = Design(mlp="swiglu", biases=False, positions="rotary", norm="rms")
_STATE_SPACE = Design(mlp=None, positions="none", norm="rms")

WINDOW = 5
"""Tokens that a neural n-gram knows the next one by."""

DESIGNS: Mapping[str, Design] = {
    "transformer": _GPT,
    "llama": _LLAMA,
    "attention-only": Design(mlp=None),
    "encoder": Design(causal=False),
}
"""Those whose kind of attention can be chosen."""


def layered(vocabulary: int, length: int, shape: Shape, design: Design = _GPT) -> Language:
    """Layers of this design; UnknownName, and KshotError for parts that do not go together."""
    plan = layers(shape, design)

    def start(rng: Generator) -> dict[str, Tensor]:
        found = {"embedding": shape.begin * torch.randn(vocabulary, shape.width, generator=rng)}
        return found | layers_start(plan, length, rng)

    def reads(weights: Weights, tokens: Texts, beside: Beside) -> Float[Tensor, "b t e"]:
        embedded = nn.functional.embedding(tokens, weights["embedding"])
        return normed(plan, weights, passed(plan, weights, embedded, prefix=beside))

    def goes_on(weights: Weights, tokens: Texts, past: Past | None) -> tuple[Float[Tensor, "b t e"], Past]:
        embedded = nn.functional.embedding(tokens, weights["embedding"])
        found, after = passed_on(plan, weights, embedded, past)
        return normed(plan, weights, found), after

    def head(weights: Weights, known: Float[Tensor, "*b e"]) -> Float[Tensor, "*b v"]:
        return nn.functional.linear(known, weights["embedding"])

    return Language(start=start, reads=reads, head=head, goes_on=goes_on if design.causal else None)


def _with_cells(vocabulary: int, length: int, shape: Shape, *, cell: str) -> Language:
    gates, run = CELLS[cell]

    def start(rng: Generator) -> dict[str, Tensor]:
        found = {"embedding": torch.randn(vocabulary, shape.width, generator=rng)}
        spread = 1 / sqrt(3 * shape.width)
        return found | cells_start(rng, shape, gates) | linear_start(rng, "read_out", shape.width, vocabulary, spread)

    def reads(weights: Weights, tokens: Texts, beside: Beside) -> Float[Tensor, "b t e"]:
        if beside is not None:
            raise KshotError(f"a beginning that all tokens see needs attention, and a network of {cell} cells has none")
        return states(weights, nn.functional.embedding(tokens, weights["embedding"]), shape, run)

    def head(weights: Weights, known: Float[Tensor, "*b e"]) -> Float[Tensor, "*b v"]:
        return linear(weights, "read_out", known)

    return Language(start=start, reads=reads, head=head)


def _windowed(vocabulary: int, length: int, shape: Shape) -> Language:
    """The neural n-gram of Bengio et al. 2003: the last WINDOW tokens, one hidden layer, and a way past it."""
    e = shape.width

    def start(rng: Generator) -> dict[str, Tensor]:
        found = {"embedding": torch.randn(vocabulary, e, generator=rng)}
        spread = 1 / sqrt(WINDOW * e)
        return (
            found
            | linear_start(rng, "hidden", WINDOW * e, 4 * e, spread)
            | linear_start(rng, "past", WINDOW * e, e, spread, bias=False)
            | linear_start(rng, "out", 4 * e, e, 1 / sqrt(4 * e))
            | linear_start(rng, "read_out", e, vocabulary, 1 / sqrt(e))
        )

    def reads(weights: Weights, tokens: Texts, beside: Beside) -> Float[Tensor, "b t e"]:
        if beside is not None:
            raise KshotError("a beginning that all tokens see needs attention, and a neural n-gram has none")
        embedded = nn.functional.embedding(tokens, weights["embedding"])
        # Before the first token stands nothing.
        wide = nn.functional.pad(embedded, (0, 0, WINDOW - 1, 0)).unfold(1, WINDOW, 1).flatten(2)
        return linear(weights, "past", wide) + linear(weights, "out", torch.tanh(linear(weights, "hidden", wide)))

    def head(weights: Weights, known: Float[Tensor, "*b e"]) -> Float[Tensor, "*b v"]:
        return linear(weights, "read_out", known)

    return Language(start=start, reads=reads, head=head)


def _mambaformer(vocabulary: int, length: int, shape: Shape) -> Language:
    return layered(vocabulary, length, shape, replace(_STATE_SPACE, mixing=alternating(shape)))


LANGUAGES: Mapping[str, Make] = {
    **{name: partial(layered, design=design) for name, design in DESIGNS.items() if design.causal},
    "linear-transformer": partial(layered, design=Design(mixing="linear")),
    "momentum-transformer": partial(layered, design=Design(mixing="momentum")),
    "rnn": partial(_with_cells, cell="rnn"),
    "gru": partial(_with_cells, cell="gru"),
    "lstm": partial(_with_cells, cell="lstm"),
    "neural-ngram": _windowed,
    "mamba": partial(layered, design=replace(_STATE_SPACE, mixing="mamba")),
    "mambaformer": _mambaformer,
}


def cross_entropy(logits: Float[Tensor, "b t v"], tokens: Int[Tensor, "b t"]) -> Float[Tensor, ""]:
    """The mean surprise of every token but the first of a text at what was said before it, in nats."""
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
