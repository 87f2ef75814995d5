"""Relative positions: what a token adds to its scores by how far the other stands, in buckets, one table for all layers.

Source: Raffel et al. 2020, section 2.1, and the transformers library for what the paper leaves open.
"""

from math import log

import torch
from jaxtyping import Float, Int
from torch import Tensor

BUCKETS, FARTHEST = 32, 128
"""Half of the buckets are of one distance each, the others of ever more, up to the farthest."""


def relative_bias(table: Float[Tensor, "r h"], t: int, *, causal: bool) -> Float[Tensor, "h t t"]:
    """What is added to the score of every token (rows) with every other, for each head."""
    places = torch.arange(t, device=table.device)
    return table[buckets(places[None] - places[:, None], causal=causal)].permute(2, 0, 1)


def buckets(apart: Int[Tensor, "t u"], *, causal: bool) -> Int[Tensor, "t u"]:
    """The bucket of how far a token stands after the one that sees it (negative: before).

    >>> buckets(torch.tensor([[-200, -20, -3, 0, 3, 20]]), causal=False).tolist()
    [[15, 10, 3, 0, 19, 26]]
    """
    count = BUCKETS if causal else BUCKETS // 2
    after = torch.zeros_like(apart) if causal else (apart > 0).long() * count
    far = -apart.clamp(max=0) if causal else apart.abs()
    exact = count // 2
    large = exact + (torch.log(far.clamp(min=1) / exact) / log(FARTHEST / exact) * (count - exact)).long()
    return after + torch.where(far < exact, far, large.clamp(max=count - 1))
