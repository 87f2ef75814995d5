"""Prompts that are not like those of training: inputs elsewhere, steeper functions, a query for every number of pairs."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from kshot.seeds import torch_stream
from kshot.study.synth.experiment import Given
from kshot.study.synth.growing import errors, unseen
from kshot.synth.oracles import Predictor
from kshot.synth.prompts import SHIFTS, Prompts, Shift, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is done to inputs, and by what the weights of linear functions are multiplied."""

    inputs: Shift = SHIFTS["none"]
    steeper: float = 1.0


_TIMES = {"1/3": 1 / 3, "1/2": 0.5, "2": 2.0, "3": 3.0}
CHANGES: Mapping[str, Change] = {
    **{name: Change(inputs=shift) for name, shift in SHIFTS.items()},
    **{f"w-times-{word}": Change(steeper=times) for word, times in _TIMES.items()},
}
"""As Garg et al. 2022 have them, and ``skewed`` as Grazzi et al. 2024; ``none`` is what training is like."""


def changed(source: Source, change: Change, rng: Generator, size: int) -> tuple[Prompts, Prompts]:
    """Pairs of ``size`` prompts, and as many queries of the same functions: that at k is asked after k pairs.

    From generators alike all changes have the same functions and inputs to begin with.
    """
    drawn = source.drawn(rng, size)
    assert change.steeper == 1 or set(drawn) == {"w"}, "only linear functions are made steeper by their weights"
    steeper = {name: change.steeper * tensor for name, tensor in drawn.items()} if change.steeper != 1 else drawn
    xs, queries = (source.inputs(rng, drawn, size, source.pairs) for _ in range(2))
    xs, queries = change.inputs(rng, xs, queries)
    return source.answered(rng, steeper, xs), source.answered(rng, steeper, queries)


def after(says: Predictor, pairs: Prompts, queries: Prompts, k: int) -> Float[Tensor, "b"]:
    """What is said of the query after the first k pairs; its answer is not shown."""
    xs = torch.cat([pairs.xs[:, :k], queries.xs[:, k : k + 1]], dim=1)
    return says(xs, torch.cat([pairs.ys[:, :k], torch.zeros_like(queries.ys[:, :1])], dim=1))[:, -1]


def shifted_errors(
    given: Given, source: Source, rivals: Mapping[str, Predictor], at: Mapping[str, int], size: int
) -> dict[tuple[str, str, str], Float[np.ndarray, "b"]]:
    """Squared errors by change, rival and number of pairs, prompt by prompt, in the unit of the class of functions."""
    unit, found = source.functions.unit(source.width), {}
    for change, own in CHANGES.items():
        pairs, queries = changed(source, own, torch_stream(unseen(given, "shifted"), "prompts"), size)
        for rival, says in rivals.items():
            for place, k in at.items():
                said = after(says, pairs, queries, k)[:, None]
                found[change, rival, place] = errors(said, queries.ys[:, [k]], unit)[:, 0]
    return found
