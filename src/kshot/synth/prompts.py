"""Prompts of functions: so many pairs of an input and its answer, drawn anew for every (seed, step)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from kshot.errors import UnknownName
from kshot.seeds import torch_stream
from kshot.synth.functions import FUNCTIONS, Drawn, FunctionClass


@dataclass(frozen=True, slots=True, eq=False)
class Prompts:
    """b prompts of n pairs: inputs, answers as they are shown, the means of these, and the functions themselves."""

    xs: Float[Tensor, "b n d"]
    ys: Float[Tensor, "b n"]
    means: Float[Tensor, "b n"]
    drawn: Drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where prompts come from: a class of functions, the width of inputs, pairs, and the variance of noise.

    Inputs are standard normal, or uniform between ``-reach`` and ``reach``, or those of the class. ``pool`` functions are drawn once, by
    ``pool_seed``, and every prompt has one of them; None draws a new one for each. Raises UnknownName.
    """

    function: str = "linear"
    width: int
    pairs: int
    noise: float = 0.0
    reach: float | None = None
    pool: int | None = None
    pool_seed: int = 0

    def __post_init__(self) -> None:
        if self.function not in FUNCTIONS:
            raise UnknownName("class of functions", self.function, FUNCTIONS)

    @property
    def functions(self) -> FunctionClass:
        return FUNCTIONS[self.function]

    def batch(self, seed: int, step: int, size: int, *, pairs: int | None = None, active: int | None = None) -> Prompts:
        """``size`` prompts, a pure function of all arguments; of ``pairs`` pairs, all coordinates but the first ``active`` 0.

        Source: Garg et al. 2022 for both, which grow in the course of training there.
        """
        rng = torch_stream(seed, "prompts", self.function, step)
        drawn = self.drawn(rng, size)
        xs = self.inputs(rng, drawn, size, pairs or self.pairs)
        if active is not None:
            xs[..., active:] = 0.0
        return self.answered(rng, drawn, xs)

    def inputs(self, rng: Generator, drawn: Drawn, size: int, pairs: int) -> Float[Tensor, "b n d"]:
        """So many inputs of so many prompts of these functions."""
        if self.functions.inputs is not None:
            return self.functions.inputs(rng, drawn, pairs)
        shape = (size, pairs, self.width)
        if self.reach is None:
            return torch.randn(shape, generator=rng)
        return self.reach * (2 * torch.rand(shape, generator=rng) - 1)

    def drawn(self, rng: Generator, size: int) -> Drawn:
        """So many functions: new ones, or ones of the pool."""
        if self.pool is None:
            return self.functions.draw(rng, size, self.width)
        return taken(self.tasks(), torch.randint(self.pool, (size,), generator=rng))

    def tasks(self) -> Drawn:
        """The functions of the pool."""
        assert self.pool is not None, "new functions are drawn for every prompt"
        rng = torch_stream(self.pool_seed, "pool", self.function, self.width, self.pool)
        return self.functions.draw(rng, self.pool, self.width)

    def answered(self, rng: Generator, drawn: Drawn, xs: Float[Tensor, "b n d"]) -> Prompts:
        """Prompts of these functions and inputs."""
        means = self.functions.answer(drawn, xs)
        return Prompts(xs, self.functions.show(rng, means, self.noise), means, drawn)


def taken(drawn: Drawn, which: Int[Tensor, "b"]) -> Drawn:
    """Functions by their numbers."""
    return {name: tensor[which] for name, tensor in drawn.items()}


def between(one: Float[Tensor, "b d"], other: Float[Tensor, "b d"], share: float) -> Float[Tensor, "b d"]:
    """Linear functions on the way from ``other`` (share 0) to ``one`` (share 1), as long as both are on average.

    Source: Raventos et al. 2023, equation 5.
    """
    mixed = share * one + (1 - share) * other
    length = (one.norm(dim=1, keepdim=True) + other.norm(dim=1, keepdim=True)) / 2
    return length * mixed / mixed.norm(dim=1, keepdim=True)


Shift = Callable[[Generator, Float[Tensor, "b n d"], Float[Tensor, "b n d"]], tuple[Tensor, Tensor]]
"""What prompts never seen in training are like: inputs of pairs and of queries, one query for every length of prompt."""


def _subspace(rng: Generator, xs: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    d = xs.shape[-1]
    basis = torch.linalg.qr(torch.randn(len(xs), d, max(1, d // 2), generator=rng)).Q
    # As long on average as inputs of the whole space.
    project = basis @ basis.transpose(1, 2) * sqrt(d / basis.shape[-1])
    return xs @ project, queries @ project


def _orthants(rng: Generator, xs: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    sign = _signs(rng, xs)
    return xs.abs() * sign, queries.abs() * -sign


def _random_orthants(rng: Generator, xs: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    return xs.abs() * _signs(rng, xs), queries.abs() * _signs(rng, xs)


def _signs(rng: Generator, xs: Tensor) -> Tensor:
    return torch.randint(2, (len(xs), 1, xs.shape[-1]), generator=rng) * 2.0 - 1.0


def _skewed(rng: Generator, xs: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    d = xs.shape[-1]
    # Standard deviations 1, 1/2, 1/3 ... in a random basis, as long on average as standard normal inputs.
    scale = 1 / torch.arange(1, d + 1)
    scale = scale * sqrt(d / float((scale**2).sum()))
    turn = torch.linalg.qr(torch.randn(len(xs), d, d, generator=rng)).Q
    return (xs * scale) @ turn, (queries * scale) @ turn


def _seen(rng: Generator, xs: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    # The query after k pairs is one of them; the first has none to be.
    places = (torch.rand(xs.shape[:2], generator=rng) * torch.arange(xs.shape[1])).long()
    again = xs.gather(1, places[..., None].expand_as(xs))
    return xs, torch.cat([queries[:, :1], again[:, 1:]], dim=1)


def _times(factor: float) -> Shift:
    return lambda rng, xs, queries: (factor * xs, factor * queries)


SHIFTS: Mapping[str, Shift] = {
    "none": lambda rng, xs, queries: (xs, queries),
    "half-subspace": _subspace,
    "opposite-orthants": _orthants,
    "random-orthants": _random_orthants,
    "skewed": _skewed,
    "query-is-an-example": _seen,
    **{f"x-times-{name}": _times(factor) for name, factor in (("1/3", 1 / 3), ("1/2", 0.5), ("2", 2.0), ("3", 3.0))},
}
"""Garg et al. 2022; ``random-orthants`` is theirs, ``opposite-orthants`` the hardest case of it."""
