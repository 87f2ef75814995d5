"""How far back a network sees: how much of what it knows at the end of a text hangs on each token before, by distance."""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from kshot.seeds import torch_stream
from kshot.study.pretrain.corpus import Tokens
from kshot.study.pretrain.items import item_rows
from kshot.study.pretrain.plan import Plan
from kshot.study.synth.growing import picture
from kshot.synth.networks.language import Language
from kshot.synth.networks.network import Weights

Row = dict[str, Any]

# What is near, in tokens, the last one included.
_NEAR = 8
# Texts whose passes are held at once.
_AT_ONCE = 8


def recency(
    language: Language, weights: Weights, tokens: Tokens, plan: Plan, named: tuple[str, int]
) -> tuple[list[Row], list[Row]]:
    """Rows of how much hangs on the last tokens of held-out texts, and a picture of how much on each, by distance.

    Shares of the norms of gradients, by embeddings, of what is known at the last token along a random direction.
    """
    name, seed = named
    rows = min(plan.texts, tokens.valid.rows(plan.context))
    if not rows:
        return [], []
    own = torch.from_numpy(tokens.valid.batch(0, 0, rows, plan.context)[:, :-1])
    shares = influence(language, weights, own, seed)
    near = item_rows("influence", (name, f"last {_NEAR} tokens"), shares[:, :_NEAR].sum(axis=1), seed,
                     null=min(1.0, _NEAR / shares.shape[1]))  # fmt: skip
    edges = [0, *(2**i for i in range(shares.shape[1].bit_length())), shares.shape[1]]
    points = [(float(max(a, 0.5)), float(shares[:, a:b].mean())) for a, b in pairwise(edges) if b > a]
    drawn = picture(
        "what hangs on a token", x="tokens before the last", y="share of a token", lines={name: points}, log_x=True,
        log_y=all(share > 0 for _, share in points),
    )  # fmt: skip
    return [near], [drawn]


def influence(language: Language, weights: Weights, texts: Int[Tensor, "b t"], seed: int) -> Float[np.ndarray, "b t"]:
    """Of every text the share of each token by its distance to the last, in float64; each row adds up to one."""
    table = weights[language.table].detach()
    along = torch.randn(table.shape[1], generator=torch_stream(seed, "influence")).to(table)
    found = []
    for some in texts.to(table.device).split(_AT_ONCE):
        b, t = some.shape
        # A token of its own at every place, so that each has a gradient of its own.
        own = table[some.flatten()].clone().requires_grad_(True)
        places = torch.arange(b * t, device=table.device).view(b, t)
        with torch.enable_grad():
            known = language.reads({**weights, language.table: own}, places, None)[:, -1]
            (gradient,) = torch.autograd.grad((known @ along).sum(), own)
        norms = gradient.view(b, t, -1).double().norm(dim=2).flip(1)
        found.append((norms / norms.sum(dim=1, keepdim=True).clamp_min(1e-300)).cpu().numpy())
    return np.concatenate(found)
