"""What a demonstration has heads write at the last prompt token, as a change of the gold label's log-probability.

What a head says there is a sum over what it reads, so each demonstration has a part in it: in softmax attention, and in
the linear form. Parts are turned into nats by how steeply the log-probability rises with what the head says.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from kshot.measure.arrangements import Of
from kshot.measure.dual import linear_attention
from kshot.measure.implicit import ValuesAndKeys, demonstration_terms
from kshot.model.attention import Before, Pass
from kshot.model.lm import LM
from kshot.model.prefix import Prefix
from kshot.model.said import Part
from kshot.model.tree import Scored, paths, plan


def direct_effect(
    slopes: Float[np.ndarray, "q l h w"], parts: Float[np.ndarray, "q l h k w"]
) -> Float[np.ndarray, "q k"]:
    """What the gold label's log-probability owes to what each demonstration writes, to first order, (q, k), nats.

    ``slopes`` are those of ``head_slopes``, ``parts`` what each of k demonstrations has in what every head says at the
    same token: ``attended_parts`` or ``linear_parts``.

    Claim: a demonstration acts by what it writes where the answer is read.
    Formula: sum over layers and heads of <dv/do, o_a>, o what the head says before the output projection, o_a the part
        of demonstration a in it: sum_i p_i v_i over its tokens i (softmax attention), or c M_a q (Dai et al. 2023,
        section 3), c the multiple of the whole linear form (W_ZSL + dW_ICL) q that is nearest to o.
    Null: 0 in the mean, for parts in random directions.
    Departures: the papers do not ask what a meta-gradient does to the answer. c is fitted to one query and head.
    Known problems: the last prompt token alone: what demonstrations do to earlier tokens of the query text, and to one
        another, is not counted. First order. Taken away, a part would leave its share of the softmax to the others; here
        it leaves nothing. ``kshot.measure.implicit.relaxed`` says how little of o the linear form may be, and a
        negative c turns its parts round.
    """
    return np.einsum("qlhw,qlhkw->qk", slopes.astype(np.float64), parts.astype(np.float64))


def head_slopes(
    lm: LM, candidates: Sequence[Scored], prefix: Prefix, gold: int, at: int, *, of: Of = "candidates"
) -> Float[np.ndarray, "l h w"]:
    """The derivative of the gold label's log-probability (``Of``) by what every head says at token ``at``, in nats.

    ``candidates`` stand after ``prefix`` and share their tokens up to ``at``, which counts from after it. What heads
    say is taken before the output projection.
    """
    assert all(s.tokens[: at + 1] == candidates[0].tokens[: at + 1] for s in candidates), "one token for all candidates"
    (pack,) = plan(candidates, tokens_per_pack=1 << 30, rows_per_pack=1 << 30, trunk=False).packs
    said: list[Tensor] = []
    current = Pass(
        (Before(prefix, 0, len(pack.tokens)),), pack.depth, pack.end, watch=lambda one: said.append(one.said)
    )
    with torch.enable_grad():
        # Weights are frozen: without rows that ask for a gradient there would be no graph.
        rows = lm.embedded(pack.tokens.tolist()).requires_grad_()
        logits = lm.forward(rows, current, pack.rows)
        part = Part(logits, pack.row_of, pack.targets, pack.members, pack.bounds, len(pack.tokens))
        answers = part.logprobs().split(np.diff(pack.bounds).tolist())
        sums = dict(zip(pack.members.tolist(), (answer.sum() for answer in answers), strict=True))
        found = torch.stack([sums[j] for j in range(len(candidates))])
        value = found.log_softmax(0)[gold] if of == "candidates" else found[gold]
        slopes = torch.autograd.grad(value, said)
    node = paths(pack)[0][at]
    return np.stack([slope[0, node].double().cpu().numpy() for slope in slopes])


def attended_parts(
    weights: Float[Tensor, "h p"], values: Float[Tensor, "g p w"], owners: Int[np.ndarray, "p"], shots: int
) -> Float[Tensor, "h k w"]:
    """What each demonstration has in what softmax attention says: its values times the weights on them, summed.

    ``owners`` names the demonstration of every token of the prefix, -1 for none.
    """
    members = torch.from_numpy(owners[:, None] == np.arange(shots)).to(weights)
    each = values.to(weights).repeat_interleave(weights.shape[0] // values.shape[0], 0)
    return torch.einsum("hp,pk,hpw->hkw", weights, members, each)


def linear_parts(
    query: Float[Tensor, "h dk"],
    said: Float[Tensor, "h w"],
    demonstrations: ValuesAndKeys,
    text: ValuesAndKeys,
    owners: Sequence[int],
) -> Float[Tensor, "h k w"]:
    """What each demonstration has in the linear form of what a head says: c M_a q, zero where the form itself is zero."""
    asked = query[:, None].double()
    terms = demonstration_terms(*demonstrations, owners, asked)[:, 0]
    each = [linear_attention(v.double(), k.double(), asked)[:, 0] for v, k in (demonstrations, text)]
    whole = each[0] + each[1]
    squared = whole.square().sum(-1)
    scale = torch.where(squared > 0, (whole * said.double()).sum(-1) / squared.clamp_min(1e-300), 0.0)
    return scale[:, None, None] * terms
