"""Does a first layer learn to put every answer beside its input? Inputs and answers as tokens of their own.

Two layers, softmax and linear, over x_1, y_1, x_2 ... and the query, against the one step of descent that the second can
take where the first has copied. Copying has two ways: answers see their inputs, or inputs their answers. A layer
that copies x alone loses nothing by seeing answers, whose x is 0, so beside what a token sees of its partner
stands the partner's share in what it sees of all tokens of the other kind.
"""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from kshot.seeds import torch_stream
from kshot.study.figures import figure
from kshot.study.synth.against_descent import (
    LINEAR,
    VON_OSWALD,
    alike_rows,
    along_pictures,
    asked_of,
    loss_ratio,
    losses_of,
    trained_on,
    watching,
)
from kshot.study.synth.experiment import Claim, Given, Part, Row
from kshot.study.synth.growing import mean_rows, picture
from kshot.synth.networks.network import Weights
from kshot.synth.networks.separate import as_copy_and_descent, attention, separate_tokens
from kshot.synth.optima import one_step
from kshot.synth.oracles import descended
from kshot.synth.prompts import Prompts

_WAYS = ("answers to their inputs", "inputs to their answers")
# Prompts whose attention is looked at.
_LOOKED_AT = 500


def _separate(given: Given) -> dict[str, Any]:
    """Two layers against one step, and what the first sees, along training and at its end."""
    network, asked = separate_tokens(10), asked_of(given)
    rival = descended(one_step(10, 10, 0.5).rate, 1, last=True)
    few = Prompts(asked.xs[:_LOOKED_AT], asked.ys[:_LOOKED_AT], asked.means[:_LOOKED_AT], {})
    beside = watching(network, rival, asked)

    def look(step: int, weights: Weights) -> dict[str, float]:
        shares = {way: float(share.mean()) for way, (_, share) in _of_partners(weights, few).items()}
        return {**(beside(step, weights) or {}), **shares}

    done = trained_on(given, network, "separate tokens", look=look)
    weights = done.weights
    says = partial(network.says, weights)
    own, least = losses_of(says, asked), losses_of(rival, asked)
    rows = [
        _identity(given),
        mean_rows("loss", ("separate tokens",), own, given.seed, null=float(least.mean())),
        loss_ratio(own, least, ("separate tokens", "over the best step"), given.seed),
        *alike_rows(says, rival, asked, ("separate tokens",), given.seed),
        *_partner_rows(weights, few, given.seed),
    ]
    shares = {way: done.along(way) for way in _WAYS}
    share = picture(
        "copying, along training", x="steps of training", y="share of the partner", lines=shares, log_x=True
    )
    return {
        "rows": rows,
        "pictures": [*along_pictures(done, "two layers", "separate tokens, along training"), share],
    }


def _identity(given: Given) -> Row:
    """Copying and then a step, on data that no linear function gives, in float64."""
    rng = torch_stream(given.seed, "any data of separate tokens")
    xs = torch.randn(64, 11, 10, generator=rng, dtype=torch.float64)
    ys = torch.randn(64, 11, generator=rng, dtype=torch.float64)
    said = separate_tokens(10).says(as_copy_and_descent(10, 10, 0.3), xs, ys)[:, 0]
    apart = (said - descended(0.3, 1)(xs, ys)[:, -1]).abs().max()
    return figure("greatest_difference", ("copying and descent against a step",), value=float(apart), n=len(xs))


def _of_partners(weights: Weights, asked: Prompts) -> dict[str, tuple[Float[Tensor, "b n1"], Float[Tensor, "b n1"]]]:
    """By the way of copying, for every pair of a prompt: what a token sees of its partner, and of this among its kind."""
    with torch.no_grad():
        shares = attention(weights, asked.xs, asked.ys)
    found = {}
    # The query is the last token; its answer is no token.
    for way, own in zip(_WAYS, (shares[:, 1::2, ::2], shares[:, :-1:2, 1::2]), strict=True):
        partner = own.diagonal(dim1=1, dim2=2)
        found[way] = (partner, partner / own.sum(dim=2))
    return found


def _partner_rows(weights: Weights, asked: Prompts, seed: int) -> list[Row]:
    pairs = LINEAR.pairs - 1
    rows, shares = [], {}
    for way, (partner, share) in _of_partners(weights, asked).items():
        shares[way] = share.double().mean(dim=1).numpy()
        rows += [
            mean_rows("attention_to_partner", (way,), partner.double().mean(dim=1).numpy(), seed, null=1 / (2 * pairs)),
            mean_rows("share_of_partner", (way,), shares[way], seed, null=1 / pairs),
        ]
    way = max(shares, key=lambda own: shares[own].mean())
    return [*rows, mean_rows("share_of_partner", ("the greater of both",), shares[way], seed, null=1 / pairs)]


SEPARATE_PARTS = {
    "separate-tokens": Part(
        asks="inputs and answers as tokens of their own: what two layers learn",
        answer=_separate,
        minutes={"smoke": 0.2, "full": 6.0},
    )
}

SEPARATE_CLAIMS = (
    Claim(
        text="a first layer that copies and a second of the construction are a step of descent (the weights are ours)",
        source=VON_OSWALD,
        measure="greatest_difference",
        variant="copying and descent against a step",
        most=1e-10,
        at=("smoke", "full", "paper"),
    ),
    Claim(
        text="a first layer over separate tokens learns to put answers and inputs beside each other",
        source=VON_OSWALD,
        measure="share_of_partner",
        variant="the greater of both",
        least=0.8,
    ),
    Claim(
        text="two layers over separate tokens do as well as the best step",
        source=VON_OSWALD,
        measure="loss_ratio",
        variant="separate tokens, over the best step",
        most=1.05,
    ),
    Claim(
        text="they depend on the query as the best step does",
        source=VON_OSWALD,
        measure="sensitivity_cosine",
        variant="separate tokens",
        least=0.95,
    ),
)
