"""What each demonstration did, by every account of it, and what their order did."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kshot.measure.arrangements import gold_columns
from kshot.measure.attribution import (
    EXACT,
    attention_mass,
    gradient_times_input,
    leave_one_out,
    rank_agreement,
    rank_correlations,
    shapley,
)
from kshot.measure.direct import attended_parts, direct_effect, head_slopes, linear_parts
from kshot.measure.implicit import demonstration_terms
from kshot.measure.order_effects import (
    all_orders,
    common_token_bias,
    contextually_calibrated,
    majority_bias,
    order_scores,
    recency_bias,
)
from kshot.model.adapted import Adapted
from kshot.model.demonstrations import read_ahead
from kshot.model.precision import short_products
from kshot.model.prefix import Prefix
from kshot.model.trace import Trace, traced
from kshot.study.compared import Row, Setting
from kshot.study.figures import figure, shortened
from kshot.study.three_runs import Texts

Table = Float[np.ndarray, "q k"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is asked: queries that are attributed, pairs of permutations beyond 8 demonstrations, orders."""

    queries: int = 30
    pairs: int = 8
    orders: int = 24


def in_context(setting: Setting) -> Adapted:
    """The demonstrations of a setting before every query."""
    return Adapted(
        lm=setting.lm,
        template=setting.template,
        demonstrations=setting.demonstrations,
        prefix=read_ahead(setting.lm, setting.template, setting.demonstrations),
        method="in-context",
        kind=setting.task.kind,
        labels=setting.task.labels,
    )


def sampled(setting: Setting) -> bool:
    """Whether there are too many demonstrations for every subset of them to be asked."""
    return len(setting.demonstrations) > EXACT


def attributed(
    setting: Setting, effort: Effort, *, named: Sequence[str] = (), watch: Callable[[str], None] | None = None
) -> tuple[list[Row], dict[str, Any]]:
    """Rows of how well the cheap accounts rank demonstrations as the expensive ones do, and a strip of one query.

    Each account is the change of the gold label's log-probability among the candidates, (q, k), but for two that are
    none: the share of attention, and how far the meta-gradient's term goes along what heads say. Beyond EXACT
    demonstrations Shapley values are sampled: they, and gradients, are then read in short products, which moves them by
    less than a tenth of what sampling does (docs/LOG.md). What one demonstration alone changes is too little for that.
    """
    say = watch or (lambda what: None)
    adapted, queries = in_context(setting), setting.queries[: effort.queries]
    with short_products(setting.lm.model) if sampled(setting) else nullcontext():
        say("Shapley values")
        fair = shapley(adapted, setting.task, queries, pairs=effort.pairs, seed=setting.seed)
        say("gradients")
        slopes = gradient_times_input(adapted, setting.task, queries)
    say("leaving one out, and attention")
    removed = leave_one_out(adapted, setting.task, queries)
    tables = {
        "leave_one_out": removed,
        "gradient_times_input": slopes,
        **_from_traces(setting, len(queries)),
    }
    rows = []
    for expensive, table in (("shapley", fair.values), ("leave_one_out", removed)):
        for cheap, own in tables.items():
            if cheap != expensive and len(own) == len(table):
                rows += _agreement(f"{cheap} vs {expensive}", own, table, setting.seed, named)
    shown = [_shown(setting, i) for i in range(len(setting.demonstrations))]
    for name, table in (("shapley", fair.values), *tables.items()):
        for i, one in enumerate(shown):
            one[name] = float(table[0, i]) if len(table) == len(queries) else None
    for i, one in enumerate(shown):
        one["shapley_error"] = None if fair.errors is None else float(fair.errors[0, i])
    query = queries[0]
    strip = {"query": setting.template.render(query.fields), "gold": query.label, "demonstrations": shown}
    return rows, {"strip": strip}


def _shown(setting: Setting, i: int) -> dict[str, Any]:
    one = setting.demonstrations[i]
    return {"text": setting.template.demonstration(one.fields, one.label or ""), "label": one.label}


def _agreement(name: str, cheap: Table, expensive: Table, seed: int, named: Sequence[str]) -> list[Row]:
    found, each = rank_agreement(cheap, expensive, seed=seed), rank_correlations(cheap, expensive)
    rows = []
    for kind in ("spearman", "kendall"):
        own = (found or {}).get(kind) or {"value": None, "low": None, "high": None}
        reason = None if own["value"] is not None else "no query ranks its demonstrations in both"
        n = (found or {}).get("n", 0)
        row = figure("rank_agreement", (*named, f"{name}/{kind}"), **own, null=0.0, n=n, reason=reason)
        rows.append(row | {"each": shortened(each[kind])})
    return rows


def _from_traces(setting: Setting, count: int) -> dict[str, Table]:
    """What is read off the last prompt token, of every query that reads alike in both prompts.

    Attention mass, the meta-gradient's term along what heads say, and what either is worth to the answer.
    """
    lm, asked = setting.lm, setting.texts()
    prefix = lm.prefill(asked.tokens)
    wanted = {query.id for query in setting.queries[:count]}
    kept = [i for i, query in enumerate(asked.queries) if query.id in wanted]
    found: dict[str, list[np.ndarray]] = {}
    traces = traced(lm, [asked.after[i] for i in kept], [asked.positions[i][:1] for i in kept], prefix)
    for i, trace in zip(kept, traces, strict=True):
        weights = trace.weights[None, :, :, 0, : prefix.length]
        own = {
            "attention_mass": attention_mass(weights, asked.owner, len(setting.demonstrations))[0],
            "meta_gradient": _along(trace, asked, prefix),
            **_effects(setting, asked, prefix, i, trace),
        }
        for name, values in own.items():
            found.setdefault(name, []).append(values)
    return {name: np.array(values) for name, values in found.items()}


def _along(trace: Trace, asked: Texts, prefix: Prefix) -> np.ndarray:
    """How far each meta-gradient's term goes along what the head says, heads and layers alike."""
    total, owner = np.zeros(int(asked.owner.max()) + 1), asked.owner.tolist()
    for layer, (keys, values) in enumerate(_demonstrations(prefix)):
        said = torch.from_numpy(trace.heads[layer, :, 0])
        own = demonstration_terms(values, keys, owner, torch.from_numpy(trace.queries[layer, :, :1]))
        along = torch.einsum("hkw,hw->hk", own[:, 0], said / said.norm(dim=-1, keepdim=True).clamp_min(1e-12))
        length = own[:, 0].norm(dim=-1).sum(dim=1, keepdim=True).clamp_min(1e-12)
        total += (along / length).mean(dim=0).numpy()
    return total / len(prefix.keys)


def _effects(setting: Setting, asked: Texts, prefix: Prefix, i: int, trace: Trace) -> dict[str, np.ndarray]:
    """What each demonstration's part in what heads say at the last prompt token is worth, in nats, by either form."""
    (gold,) = gold_columns(setting.task, [asked.queries[i]])
    at = len(asked.after[i]) + asked.positions[i][0]
    slopes = head_slopes(setting.lm, asked.answers_after[i], prefix, int(gold), at)
    softmax, linear = [], []
    for layer, (keys, values) in enumerate(_demonstrations(prefix)):
        weights = torch.from_numpy(trace.weights[layer, :, 0, : prefix.length])
        softmax.append(attended_parts(weights, values, asked.owner, len(setting.demonstrations)))
        query, said = (torch.from_numpy(part[layer, :, 0]) for part in (trace.queries, trace.heads))
        # Tokens after the position are not seen from it.
        text = torch.from_numpy(trace.values[layer, :, : at + 1]), torch.from_numpy(trace.keys[layer, :, : at + 1])
        linear.append(linear_parts(query, said, (values, keys), text, asked.owner.tolist()))
    parts = {"attention_effect": softmax, "meta_gradient_effect": linear}
    return {name: direct_effect(slopes[None], torch.stack(own)[None].numpy())[0] for name, own in parts.items()}


def _demonstrations(prefix: Prefix) -> Iterator[tuple[Tensor, Tensor]]:
    """Keys and values of every layer, where traces are: on the processor, in float64."""
    for keys, values in zip(prefix.keys, prefix.values, strict=True):
        yield keys[0].double().cpu(), values[0].double().cpu()


def ordered(setting: Setting, effort: Effort, *, named: Sequence[str] = ()) -> tuple[list[Row], dict[str, Any]]:
    """Rows of what order, balance and label words do, before and after contextual calibration; a point for every order.

    Beyond EXACT demonstrations read in short products: an answer moves by about a thirtieth of what orders move it.
    """
    adapted = in_context(setting)
    orders = all_orders(len(setting.demonstrations), sample=effort.orders, seed=setting.seed)
    with short_products(setting.lm.model) if sampled(setting) else nullcontext():
        found = order_scores(adapted, setting.task, setting.queries[: effort.queries], orders)
    assert found is not None, "there are queries and orders"
    points = [
        {"order": list(order), "accuracy": float(accuracy), "gold_logprob": float(own.mean())}
        for order, accuracy, own in zip(found.orders, found.accuracy, found.gold_logprob, strict=True)
    ]
    spread = [float(q) for q in np.quantile(found.accuracy, [0.0, 1.0])]
    n = len(found.orders)
    rows = [
        figure(
            "order_accuracy",
            (*named, "mean over orders"),
            value=float(found.accuracy.mean()),
            low=spread[0],
            high=spread[1],
            n=n,
        )
    ]
    if found.content_free is not None:
        after = contextually_calibrated(found.logprobs, found.content_free)
        gold = gold_columns(setting.task, setting.queries[: effort.queries])
        rows += _bias("recency", recency_bias(found.logprobs, found.shown, after), ("slope", "contrast"), named)
        rows += _bias("majority", majority_bias(found.logprobs, found.shown, gold, after), ("slope", "excess"), named)
        # The order as shown is the one that is asked for everywhere else.
        common = common_token_bias(found.logprobs[0], found.content_free[0], gold, after[0])
        rows += _bias("common_token", common, ("slope",), named)
    return rows, {"orders": points}


def _bias(name: str, found: dict[str, Any] | None, figures: Sequence[str], named: Sequence[str]) -> list[Row]:
    rows = []
    for when in ("before", "after"):
        own = (found or {}).get(when) or {}
        for which in figures:
            one = own.get(which) or {"value": None, "low": None, "high": None, "n": 0}
            reasons = own.get("undefined") or {}
            reason = (
                None if one["value"] is not None else str(reasons.get(which, "undefined for these labels and orders"))
            )
            variant = (*named, which, f"{when} calibration")
            rows.append(
                figure(
                    name,
                    variant,
                    value=one["value"],
                    low=one["low"],
                    high=one["high"],
                    n=one["n"],
                    null=0.0,
                    reason=reason,
                )
            )
    return rows
