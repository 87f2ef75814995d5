"""Exact rivals of a language model on prompts of maps: what each says of every symbol of an answer.

A rule gives every symbol a weight, (b, m, v), m the symbols of all answers of a prompt one after another. It rests on the
demonstrations before, and on the right symbols before it in the same answer, as what a language model says does.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from kshot.synth.primitives import Maps, Shown, Space

Rule = Callable[[Shown], Float[Tensor, "b m v"]]

# Prompts are held against tables so many at a time.
_AT_ONCE = 256


def selection(space: Space, maps: Maps) -> Rule:
    """Bayes over a finite set of maps, all as probable: it answers as the maps do that fit what was shown.

    Where none fits, those count that have the fewest symbols wrong, which is the limit of errors in symbols that are ever
    more improbable. With the maps of training it is task selection; with all compositions of two it knows how to compose.

    Source: hypotheses 1 and 3 of Li et al. 2024; the rule is ours.
    """
    return partial(_selection, space=space, maps=maps)


def _selection(shown: Shown, *, space: Space, maps: Maps) -> Float[Tensor, "b m v"]:
    parts = zip(shown.xs.split(_AT_ONCE), shown.ys.split(_AT_ONCE), strict=True)
    return torch.cat([_of_the_best(space, maps, xs, ys.flatten(1)) for xs, ys in parts])


def _of_the_best(space: Space, maps: Maps, xs: Int[Tensor, "b n l"], ys: Int[Tensor, "b m"]) -> Float[Tensor, "b m v"]:
    said = space.sequences(maps[:, space.numbers(xs)]).flatten(2)
    wrong = (said != ys).int()
    before = wrong.cumsum(dim=2) - wrong
    best = before == before.amin(dim=0)
    votes = [(best & (said == symbol)).sum(dim=0) for symbol in range(space.symbols)]
    return torch.stack(votes, dim=-1) / best.sum(dim=0)[..., None]


def look_up(space: Space) -> Rule:
    """Symbol by symbol: what stood most often in the answers where this symbol stood in their inputs; all alike if nothing.

    It learns any map of symbols from its demonstrations, and no other.
    """
    return partial(_look_up, space=space)


def _look_up(shown: Shown, *, space: Space) -> Float[Tensor, "b m v"]:
    own = nn.functional.one_hot(shown.xs.flatten(1), space.symbols).float()
    met = torch.einsum("bmv,bmw->bmvw", own, nn.functional.one_hot(shown.ys.flatten(1), space.symbols).float())
    counts = torch.einsum("bmv,bmvw->bmw", own, met.cumsum(dim=1) - met)
    total = counts.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, counts / total.clamp(min=1), 1 / space.symbols)


def chosen(weights: Float[Tensor, "b m v"]) -> Float[Tensor, "b m v"]:
    """The probability of every symbol to be the one that is said: the one of greatest weight, equal ones as often each."""
    best = weights == weights.amax(dim=-1, keepdim=True)
    return best / best.sum(dim=-1, keepdim=True)


def together(one: Float[Tensor, "b m v"], other: Float[Tensor, "b m v"], length: int) -> Float[Tensor, "b n"]:
    """The probability that two choices are the same in all symbols of an answer, answer by answer."""
    return (one * other).sum(dim=-1).unflatten(1, (-1, length)).prod(dim=-1)


def right(shown: Shown, symbols: int) -> Float[Tensor, "b m v"]:
    """The choice of who knows the map."""
    return nn.functional.one_hot(shown.ys.flatten(1), symbols).float()
