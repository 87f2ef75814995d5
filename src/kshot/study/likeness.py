"""In-context learning against fine-tuning on one set of demonstrations: every measure at every position, with its null."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from kshot.measure.attention_ranks import (
    demonstration_mass,
    example_kendall,
    kendall,
    kendall_null,
    top_k_recall,
)
from kshot.measure.per_layer import PerLayer
from kshot.measure.similarity import (
    sim_am,
    sim_am_delta,
    sim_am_permuted,
    sim_aou,
    sim_aou_aligned_null,
    sim_aou_null,
    sim_aou_published_null,
    sim_aou_simulated_null,
)
from kshot.model.delta import Delta
from kshot.model.lm import LM
from kshot.study.arrays import Keep
from kshot.study.figures import layered_figures
from kshot.study.three_runs import POSITIONS, RUNS, Seen, Texts, walked

# The published code takes the rank correlations of so many queries, and these numbers of greatest entries.
KENDALL_QUERIES, TOP_EXAMPLES, TOP_TOKENS = 100, 5, 100


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """What fine-tuning on the demonstrations left: the change of weights, and the query vectors of the training tokens.

    ``queries`` (l, h, t, d) are those of all demonstrations' tokens, one demonstration after another, each recorded
    before its own update; ``places`` says where each of them stands among the tokens of the in-context prefix, and
    ``owner`` to which demonstration it belongs.
    """

    delta: Delta
    queries: Float[np.ndarray, "l h t d"]
    places: Int[np.ndarray, "t"]
    owner: Int[np.ndarray, "t"]


def trained(asked: Texts, delta: Delta, rows: Sequence[tuple[int, ...]], queries: Sequence[np.ndarray]) -> Trained:
    """The training tokens that stand in the prefix, too: of every demonstration as many as both begin with.

    ``rows`` are the demonstrations as fine-tuning read them, without first tokens, ``queries`` (l, h, t, d) theirs.
    """
    places, kept, owner = [], [], []
    prefix = np.array(asked.tokens)
    for a, (row, own) in enumerate(zip(rows, queries, strict=True)):
        at = np.flatnonzero(asked.owner == a)
        n = _same(prefix[at].tolist(), row)
        places.append(at[:n])
        kept.append(own[:, :, :n])
        owner.append(np.full(n, a))
    return Trained(
        delta=delta,
        queries=np.concatenate(kept, axis=2),
        places=np.concatenate(places),
        owner=np.concatenate(owner),
    )


def _same(one: Sequence[int], other: Sequence[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@dataclass(slots=True, eq=False)
class _Gathered:
    """Values of one measure, a few queries at a time."""

    parts: list[PerLayer] = field(default_factory=list)

    def whole(self) -> PerLayer:
        return PerLayer(
            np.concatenate([part.values for part in self.parts]),
            np.concatenate([part.defined for part in self.parts]),
            sum(part.left_out for part in self.parts),
            sum(part.tied for part in self.parts),
            sum(part.pairs for part in self.parts),
        )


Key = tuple[str, tuple[str, ...]]


def likeness(
    lm: LM,
    asked: Texts,
    learned: Trained,
    *,
    seed: int,
    named: Sequence[str] = (),
    brief: bool = False,
    keep: Keep | None = None,
) -> list[dict[str, Any]]:
    """Rows of every measure (``figures.figure``), over layers and of each; ``named`` words go into every variant.

    ``keep`` gets what was traced and answered, a few queries at a time.

    ``brief`` keeps what the critique asks of a control: SimAOU in both forms with the nulls of its lengths and of its
    part along zero-shot, SimAM before and after fine-tuning, SimAM-delta, and Kendall of scores.
    """
    gathered: dict[Key, _Gathered] = {}
    nulls: dict[Key, Key] = {}
    done = 0
    for batch in walked(lm, asked, learned.delta):
        if keep is not None:
            keep(done, batch)
        drawn, ranked = seed + 1_000_003 * done, max(0, KENDALL_QUERIES - done)
        for position, seen in zip(POSITIONS, batch, strict=True):
            found = _outputs(seen, position, drawn, brief) + _maps(seen, position, drawn, brief)
            if ranked and len(learned.places):
                found += _ranks(seen, learned, position, drawn, ranked, brief)
            for key, own, null in found:
                gathered.setdefault(key, _Gathered()).parts.append(own)
                if null is not None:
                    nulls[key] = (key[0], (*key[1], "null"))
                    gathered.setdefault(nulls[key], _Gathered()).parts.append(null)
        done += len(batch[0].to_demonstrations)
    rows = []
    for key, each in gathered.items():
        if key not in nulls.values():
            null = gathered[nulls[key]].whole() if key in nulls else None
            rows += layered_figures(key[0], (*named, *key[1]), each.whole(), null=null, seed=seed)
    return rows


# (measure and variant, values, values of its null) of a few queries.
Found = list[tuple[Key, PerLayer, PerLayer | None]]


def _outputs(seen: Seen, position: str, seed: int, brief: bool) -> Found:
    zsl, ft, icl = (seen.outputs[run] for run in RUNS)
    found: Found = []
    for form, normalised in (("normalised", True), ("raw", False)):
        own = sim_aou(icl, zsl, ft, normalised=normalised)
        nulls = {
            "lengths kept": sim_aou_null(icl, zsl, ft)
            if normalised
            else sim_aou_simulated_null(icl, zsl, ft, seed=seed, normalised=False),
            "lengths and part along zero-shot kept": sim_aou_aligned_null(icl, zsl, ft, normalised=normalised),
        }
        if not brief:
            nulls["uniform noise as published"] = sim_aou_published_null(icl, zsl, seed, normalised=normalised)
        found += [(("sim_aou", (position, form, f"null: {against}")), own, null) for against, null in nulls.items()]
    return found


def _maps(seen: Seen, position: str, seed: int, brief: bool) -> Found:
    zsl, ft, icl = (seen.maps[run] for run in RUNS)
    before, after = sim_am(icl, zsl), sim_am(icl, ft)
    found: Found = [
        (("sim_am", (position, "after fine-tuning")), after, before),
        (("sim_am", (position, "before fine-tuning")), before, None),
    ]
    if not brief:
        permuted = sim_am_permuted(icl, ft, seed)
        found.append((("sim_am", (position, "after fine-tuning", "null: tokens permuted")), after, permuted))
    found.append((("sim_am_delta", (position,)), sim_am_delta(icl, zsl, ft), None))
    return found


def _ranks(seen: Seen, learned: Trained, position: str, seed: int, ranked: int, brief: bool) -> Found:
    icl = [scores[:, :, learned.places].sum(axis=1) for scores in seen.to_demonstrations[:ranked]]
    ft = _fine_tuned_maps(learned.queries, np.stack(seen.last_queries[:ranked]))
    found: Found = [(("kendall", (position, "scores")), kendall(icl, ft), kendall_null(icl, seed))]
    if brief:
        return found
    found.append((("example_kendall", (position, "scores")), example_kendall(icl, ft, learned.owner), None))
    form = "softmax in float32 as published"
    null = kendall_null(icl, seed, published=True)
    found.append((("kendall", (position, form)), kendall(icl, ft, published=True), null))
    examples = example_kendall(icl, ft, learned.owner, published=True)
    found.append((("example_kendall", (position, form)), examples, None))
    found.append((("top_k_recall", (position, f"{TOP_TOKENS} tokens")), top_k_recall(icl, ft, TOP_TOKENS), None))
    one, other = (demonstration_mass(scores, learned.owner) for scores in (icl, ft))
    found.append(
        (("top_k_recall", (position, f"{TOP_EXAMPLES} demonstrations")), top_k_recall(one, other, TOP_EXAMPLES), None)
    )
    return found


def _fine_tuned_maps(
    trained_on: Float[np.ndarray, "l h t d"], last: Float[np.ndarray, "q l h d"]
) -> list[Float[np.ndarray, "l t"]]:
    """Query vectors of the training tokens times that of a query's last token, summed over heads, query by query."""
    # Both query vectors are recorded with the scale of attention on them.
    scale = 1 / last.shape[-1]
    found = np.empty((len(last), len(trained_on), trained_on.shape[2]))
    for layer, own in enumerate(trained_on):
        heads = own.transpose(1, 0, 2).reshape(own.shape[1], -1).astype(np.float64)
        # A matrix product rounds equal rows differently at its edges, which would break the ties of equal tokens.
        found[:, layer] = scale * np.einsum("qd,td->qt", last[:, layer].reshape(len(last), -1), heads)
    return list(found)
