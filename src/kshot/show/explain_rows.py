"""Which row of ``kshot.measures`` stands where: variants read word by word, tables of measures by tasks."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from kshot.show import words
from kshot.show.words import Number, Row

# What a word of a variant says, of each facet that of the published procedure first.
FACETS: Mapping[str, tuple[str, ...]] = {
    "position": ("appended label", "last prompt token"),
    "form": ("normalised", "raw"),
    "rate": ("published", "corrected"),
    "model": ("trained", "untrained", "trained embeddings"),
    "demonstrations": ("own", "the first few", "another task", "shuffled labels"),
    "descent": ("gradient descent", "layer-causal"),
    "moment": ("after", "before"),
    "run": ("zero-shot", "fine-tuned", "in-context"),
    "seed": ("best seed", "every seed"),
}
AS_PUBLISHED: Mapping[str, str] = {facet: own[0] for facet, own in FACETS.items() if facet != "run"}
CORRECTED: Mapping[str, str] = {
    **AS_PUBLISHED,
    "position": "last prompt token",
    "form": "raw",
    "rate": "corrected",
    "seed": "every seed",
}
# How a thing was measured may stand in for the published way, what was measured may not.
HOW = ("position", "form", "rate", "seed")
_FACET_OF = {word: facet for facet, own in FACETS.items() for word in own}
_ALSO = {"LCGD": "layer-causal", "layer-causal gradient descent": "layer-causal", "GD": "gradient descent"}
_FEW = re.compile(r"first \d+ demonstrations?")
_SHARES = ("accuracy", "rec2ftp", "repeatability")
NAMES = {
    "why_labels_accuracy": "accuracy",
    "why_labels_logprob": "log P of the gold label",
    "why_order_accuracy": "accuracy",
    "why_order_logprob": "log P of the gold label",
    "why_order_variance": "variance over orders",
    "why_learning_accuracy": "accuracy",
    "why_learning_logprob": "log P of the gold label",
    "rec2ftp": "Rec2FTP",
    "repeatability": "same answers when fine-tuned again from weights a rounding error away",
    "sim_aou": "SimAOU",
    "sim_am": "SimAM",
    "sim_am_delta": "SimAM-Δ",
    "kendall": "Kendall's τ",
    "example_kendall": "Kendall's τ of demonstrations",
    "top_k_recall": "top-k recall",
    "lambda": "λ",
    "relaxed_r2": "relaxed form, R²",
    "relaxed_cosine": "relaxed form, cosine",
    "update_norm": "norm of ΔW",
    "effective_rank": "effective rank of ΔW",
    "recency": "recency bias",
    "majority": "majority-label bias",
    "common_token": "common-token bias",
    "optimism": "optimism of the published rate",
}
# What a demonstration did, the dearest and most exact first.
EFFECTS = {
    "shapley": "Shapley value",
    "leave_one_out": "leave-one-out",
    "gradient_times_input": "gradient × input",
    "attention_effect": "attention, in nats",
    "meta_gradient_effect": "meta-gradient, in nats",
    "meta_gradient": "meta-gradient",
    "attention_mass": "attention mass",
}
# These are no change of the answer: the term along what heads say, and a share of attention.
NO_CHANGE = ("meta_gradient", "attention_mass")
SIMILARITIES = ("sim_aou", "sim_am", "sim_am_delta", "kendall")


def named(measure: str) -> str:
    """A measure as the papers spell it; its own name where we have none."""
    return NAMES.get(measure, measure.replace("_", " "))


def finite(value: Any) -> Any:
    """The same JSON value with None in the place of numbers that are none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value


def facets(variant: str | None) -> dict[str, str]:
    """What the words of a variant say, by facet; words that we do not know together as ``other``.

    >>> facets("raw, before fine-tuning, k=5")
    {'form': 'raw', 'moment': 'before', 'other': 'k=5'}
    """
    found: dict[str, str] = {}
    for word in filter(None, (part.strip() for part in (variant or "").split(","))):
        said = _ALSO.get(word, word)
        said = next((moment for moment in FACETS["moment"] if said.split()[0] == moment), said)
        said = "the first few" if _FEW.fullmatch(said) else said
        facet = _FACET_OF.get(said, "other")
        found[facet] = f"{found[facet]}, {said}" if facet == "other" and facet in found else said
    return found


def overall(measures: Sequence[Row]) -> list[Row]:
    """Rows over all layers; of each variant that over all seeds, else that of the least seed."""
    return of_one_seed([row for row in measures if row.get("layer") is None])


def of_one_seed(rows: Sequence[Row]) -> list[Row]:
    """Of rows that differ in their seed only, that of no seed (over all of them), else that of the least."""
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        key = tuple(row.get(name) for name in ("task", "measure", "variant", "layer"))
        seed, before = row.get("seed"), found.get(key, {}).get("seed")
        if key not in found or (before is not None and (seed is None or seed < before)):
            found[key] = row
    return list(found.values())


def distance(variant: str | None, want: Mapping[str, str]) -> int | None:
    """In how many ways a variant is measured otherwise than wanted; None where something else was measured."""
    own = facets(variant)
    apart = [facet for facet, said in own.items() if facet != "other" and said != want.get(facet, said)]
    if any(facet not in HOW for facet in apart):
        return None
    return len(apart) + ("other" in own)


def chosen(
    rows: Sequence[Row], measure: str, want: Mapping[str, str], *, told: Sequence[str] = (), exact: bool = False
) -> Row | None:
    """The row of a measure whose variant is nearest to ``want``, of equals a published one, the first; else None.

    A facet in ``told`` must be named by the variant itself; with ``exact`` the others may be unnamed, never otherwise;
    words that we do not know, such as the name of a null, may stand there.
    """
    best: tuple[tuple[int, bool], Row] | None = None
    for row in rows:
        if row.get("measure") != measure:
            continue
        own = facets(row.get("variant"))
        far = distance(row.get("variant"), want)
        if far is None or (exact and far > ("other" in own)) or any(own.get(facet) != want[facet] for facet in told):
            continue
        # Of equals the one that a paper has a figure of.
        rank = (far, not row.get("published"))
        if best is None or rank < best[0]:
            best = (rank, row)
    return best[1] if best else None


def number(row: Row, value: Any) -> str:
    """A figure in the row's own unit; a share that was published in per cent is written as a share."""
    if value is None or isinstance(value, str):
        return value or words.DASH
    if row.get("measure") == "learning_rate":
        return f"{value:.3g}"
    if row.get("unit") == "%":
        return f"{words.decimals(value, 1)} %"
    if row.get("measure") in _SHARES and value > 1:
        value = value / 100
    return _plain_zero(words.decimals(value, 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3))


def bounds(row: Row, low: Number | None, high: Number | None) -> str:
    """An interval with a word between bounds of which one is negative, since a dash would look like a minus."""
    if low is None or high is None:
        return ""
    return (
        f"{number(row, low)} to {number(row, high)}"
        if min(low, high) < 0
        else f"{number(row, low)}–{number(row, high)}"
    )


def cell(row: Row | None, missing: str = "not measured") -> dict[str, Any]:
    """What a table says of a row: ``text``, ``why`` where that is a dash, ``interval`` (``narrow``: shorter).

    ``null``, ``published``."""
    if row is None:
        return {"text": "", "why": missing, "interval": "", "narrow": "", "null": "", "published": []}
    value, null, low, high = (row.get(key) for key in ("value", "null", "low", "high"))
    return {
        "text": number(row, value),
        "why": str(row.get("reason") or "no reason recorded"),
        "interval": bounds(row, low, high) if value is not None else "",
        "narrow": _narrow(low, high) if value is not None else "",
        "null": number(row, null) if null is not None else "",
        "published": [(name, number(row, x)) for name, x in (row.get("published") or {}).items() if x is not None],
    }


def _narrow(low: Number | None, high: Number | None) -> str:
    """Two decimals a bound, and no dash beside a minus."""
    if low is None or high is None:
        return ""
    both = [_plain_zero(words.decimals(bound, 2)) for bound in (low, high)]
    return ("…" if both[0].startswith("−") else "–").join(both)


def _plain_zero(said: str) -> str:
    """What is rounded to nought has no sign."""
    return said.removeprefix("−") if not said.strip("−0.") else said


Line = dict[str, Any]


def line(name: str, sub: str, by_task: Sequence[Row | None]) -> Line:
    """A line of a table: ``name``, ``sub`` below it in small type, ``cells`` in the order of the tasks."""
    return {"name": name, "sub": sub, "cells": [cell(row) for row in by_task], "some": any(by_task)}


def beside_published(measures: Sequence[Row], tasks: Sequence[str]) -> list[Line]:
    """The lines of the paper's own tables, each from the variant nearest to the published one."""
    own = {task: [row for row in overall(measures) if row.get("task") == task] for task in tasks}
    asked: list[tuple[str, str, dict[str, str], tuple[str, ...]]] = [
        *((f"accuracy, {run}", "accuracy", {"run": run}, ("run",)) for run in FACETS["run"]),
        ("Rec2FTP", "rec2ftp", {}, ()),
        ("SimAOU", "sim_aou", {}, ()),
        ("SimAM before fine-tuning", "sim_am", {"moment": "before"}, ("moment",)),
        ("SimAM after fine-tuning", "sim_am", {}, ()),
        ("Kendall's τ", "kendall", {}, ()),
    ]
    lines = []
    for name, measure, more, told in asked:
        found = [chosen(own[task], measure, {**AS_PUBLISHED, **more}, told=told) for task in tasks]
        lines.append(line(name, _all_how(found), found))
    return [one for one in lines if one["some"]]


def how(variant: str | None) -> str:
    """How a variant was measured, whatever it was measured of.

    >>> how("appended label, raw, corrected, untrained")
    'appended label, raw, corrected rate'
    """
    own = facets(variant)
    said = {**own, "rate": f"{own['rate']} rate"} if "rate" in own else own
    return ", ".join(said[facet] for facet in (*HOW, "other") if facet in said)


def _all_how(rows: Sequence[Row | None]) -> str:
    return "; ".join(dict.fromkeys(filter(None, (how(row.get("variant")) for row in rows if row))))


# What one correction changes, and the words for it.
_CORRECTIONS: tuple[tuple[dict[str, str], str], ...] = (
    ({"rate": "corrected"}, "learning rate chosen on examples cut from train"),
    ({"form": "raw"}, "raw outputs, not normalised"),
    ({"position": "last prompt token"}, "at the last prompt token"),
    ({"form": "raw", "position": "last prompt token"}, "raw, at the last prompt token"),
    ({"rate": "corrected", "form": "raw", "position": "last prompt token"}, "all three"),
    ({"descent": "layer-causal", "rate": "corrected"}, "layer-causal gradient descent, corrected rate"),
    ({"descent": "layer-causal", "rate": "corrected", "form": "raw"}, "layer-causal, corrected rate, raw"),
    (
        {"demonstrations": "the first few", "rate": "corrected"},
        "gradient descent on the demonstrations of the layer-causal one",
    ),
)
_CONTROLS: tuple[tuple[dict[str, str], str], ...] = (
    ({"model": "untrained"}, "untrained model of the same shape"),
    ({"model": "trained embeddings"}, "trained embeddings, the rest untrained"),
    ({"demonstrations": "another task"}, "demonstrations of another task"),
    ({"demonstrations": "shuffled labels"}, "demonstrations with shuffled labels"),
)


def corrections(measures: Sequence[Row], tasks: Sequence[str]) -> list[Line]:
    """Each measure as published, then with each correction that was measured."""
    own = {task: [row for row in overall(measures) if row.get("task") == task] for task in tasks}
    asked = [("learning_rate", "learning rate", {}), ("accuracy", "accuracy, fine-tuned", {"run": "fine-tuned"})]
    asked += [(measure, named(measure), {}) for measure in ("repeatability", "rec2ftp", *SIMILARITIES)]
    lines: list[Line] = []
    for measure, name, more in asked:
        want = {**AS_PUBLISHED, **more}
        first = line(name, "as published", [chosen(own[t], measure, want, told=tuple(more), exact=True) for t in tasks])
        changed = _changed(own, tasks, measure, want, _CORRECTIONS)
        lines += [{**first, "head": True}, *changed] if changed else []
        if measure == "accuracy":
            for name, seed in ((named("optimism"), "every seed"), ("optimism of the best seed", "best seed")):
                told = ("seed",) if seed == "best seed" else ()
                found = [chosen(own[t], "optimism", {**want, "seed": seed}, told=told, exact=True) for t in tasks]
                lines += [{**line(name, "", found), "head": True}] if any(found) else []
    return lines


def controls(measures: Sequence[Row], tasks: Sequence[str]) -> list[Line]:
    """Each similarity, and the same where nothing was learned or nothing could be taught."""
    own = {task: [row for row in overall(measures) if row.get("task") == task] for task in tasks}
    every = [row for task in tasks for row in own[task]]
    lines: list[Line] = []
    for measure in SIMILARITIES:
        wanted = [{**AS_PUBLISHED, **change} for change, _ in _CONTROLS]
        found = [chosen(every, measure, w, told=tuple(c)) for w, (c, _) in zip(wanted, _CONTROLS, strict=True)]
        example = next((row for row in found if row), None)
        if example is None:
            continue
        # The controls may have been measured in one way only: what they stand beside is measured likewise.
        want = {**AS_PUBLISHED, **{k: said for k, said in facets(example.get("variant")).items() if k in HOW}}
        first = line(
            named(measure), how(example.get("variant")), [chosen(own[t], measure, want, exact=True) for t in tasks]
        )
        lines += [{**first, "head": True}, *_changed(own, tasks, measure, want, _CONTROLS)]
    return lines


def _changed(
    own: Mapping[str, Sequence[Row]],
    tasks: Sequence[str],
    measure: str,
    want: Mapping[str, str],
    changes: Sequence[tuple[dict[str, str], str]],
) -> list[Line]:
    lines = []
    for change, said in changes:
        found = [chosen(own[t], measure, {**want, **change}, told=tuple(change), exact=True) for t in tasks]
        lines += [{**line("", said, found), "head": False}] if any(found) else []
    return lines


def by_variant(measures: Sequence[Row], tasks: Sequence[str | None], names: Sequence[str]) -> list[Line]:
    """Every variant of the measures named, a line each in the order of the record."""
    rows = [row for row in overall(measures) if row.get("measure") in names]
    lines = []
    for measure in names:
        variants = list(dict.fromkeys(row.get("variant") or "" for row in rows if row["measure"] == measure))
        for number_of, variant in enumerate(variants):
            at = {
                row["task"]: row for row in rows if row["measure"] == measure and (row.get("variant") or "") == variant
            }
            name = named(measure) if number_of == 0 else ""
            lines.append(
                {
                    **line(
                        name,
                        variant.replace("_", " ") if measure != "rank_agreement" else variant,
                        [at.get(task) for task in tasks],
                    ),
                    "head": number_of == 0,
                }
            )
    return lines
