"""A predictor against textbook rules: how far apart what they say is, how alike it is at any scale, and the weights implied.

SPD is the squared difference of predictions, ILWD that of the weights of least squares on what is said of further inputs
(Akyürek et al. 2023). A distance favours rules that say little over those that say much, whatever is said: so beside
distances stand cosines, and among the rules is who says nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kshot.seeds import torch_stream
from kshot.study.synth.experiment import Given, Row
from kshot.study.synth.growing import asked_prompts, cosine_row, mean_rows, ratio_row, unseen
from kshot.study.synth.nearest_ridge import distances
from kshot.synth.optima import one_step
from kshot.synth.oracles import Predictor, averaging, descended, least_squares, nearest, nothing, one_pass, ridge
from kshot.synth.prompts import Prompts, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Much:
    """How many prompts of a source are asked; ``fitted`` of them ``queries`` further inputs each, for implied weights."""

    source: Source
    asked: int
    fitted: int
    queries: int


def _best_step(xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """A step of descent from 0 at the best rate for as many pairs as there are before each query."""
    d = xs.shape[-1]
    return averaging(xs, ys) * torch.tensor([one_step(d, max(k, 1)).rate for k in range(xs.shape[1])]).to(xs)


RULES: Mapping[str, Predictor] = {
    "least squares": least_squares,
    "ridge 0.1": ridge(0.1),
    "best step": _best_step,
    "step 0.01": descended(0.01, 1, mean=False),
    "step 0.02": descended(0.02, 1, mean=False),
    "one pass 0.01": one_pass(0.01),
    "one pass 0.03": one_pass(0.03),
    "3 nearest": nearest(3),
    "nothing": nothing,
}
"""Akyürek et al. 2023, but for the best step and for nothing, which any rule is nearer to than to a greater one."""


def _implied(says: Predictor, asked: Prompts, queries: Float[Tensor, "b q d"]) -> Float[Tensor, "b d"]:
    """The w of least squares on what is said of further inputs after all pairs of a prompt but the last."""
    (b, q, d), n = queries.shape, asked.xs.shape[1]
    xs = torch.cat([asked.xs[:, None, :-1].expand(b, q, n - 1, d), queries[:, :, None]], dim=2).flatten(0, 1)
    said = says(xs, asked.ys.repeat_interleave(q, dim=0))[:, -1].double().view(b, q, 1)
    wide = queries.double()
    return torch.linalg.solve(wide.transpose(1, 2) @ wide, wide.transpose(1, 2) @ said)[..., 0]


def against_rules(given: Given, says: Predictor, word: str, much: Much) -> tuple[list[Row], dict[str, float]]:
    """Rows of the distances from every rule, and the distances of predictions by rule."""
    asked = asked_prompts(given, much.source, much.asked)
    apart = {name: distances(says, rule, asked) for name, rule in RULES.items()}
    rows = [mean_rows("spd", (word, name), values, given.seed) for name, values in apart.items()]
    rows += _cosines(given, says, word, asked)
    rows += [
        ratio_row("spd_ratio", (word, f"{one} over {other}"), apart[one], apart[other], given.seed, null=1.0)
        for one, other in (
            ("best step", "least squares"),
            ("ridge 0.1", "best step"),
            ("ridge 0.1", "least squares"),
            ("best step", "nothing"),
            ("ridge 0.1", "nothing"),
        )
    ]
    few = Prompts(asked.xs[: much.fitted], asked.ys[: much.fitted], asked.means[: much.fitted], {})
    shape = (len(few.xs), much.queries, much.source.width)
    queries = torch.randn(shape, generator=torch_stream(unseen(given, "queries"), "queries"))
    own = _implied(says, few, queries)
    for name, rule in RULES.items():
        squares = (own - _implied(rule, few, queries)).square().sum(dim=1)
        rows.append(mean_rows("ilwd", (word, name), squares.numpy(), given.seed))
    return rows, {name: float(values.mean()) for name, values in apart.items()}


def _cosines(given: Given, says: Predictor, word: str, asked: Prompts) -> list[Row]:
    """How alike what is said is to what each rule says, at any scale: a distance is least from rules that say little."""
    own = _said(says, asked)
    others = {name: _said(rule, asked) for name, rule in RULES.items() if rule is not nothing}
    return [cosine_row("cosine", (word, name), own, said, given.seed) for name, said in others.items()]


def _said(says: Predictor, asked: Prompts) -> Float[np.ndarray, "b n"]:
    """Of every answer after one pair or more."""
    return says(asked.xs, asked.ys)[:, 1:].double().numpy()
