"""results.json of what was grown on a text, and what networks gained over the first of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from kshot.measure.intervals import mean_interval
from kshot.study.figures import figure
from kshot.study.inquiry import drawn_pictures, plain_record
from kshot.study.over_seeds import over_seeds
from kshot.study.parts import Line
from kshot.study.pretrain.items import differences
from kshot.study.pretrain.study import FLOOR, Pretraining


def results_of(run: Mapping[str, Any], study: Pretraining, lines: Sequence[Line]) -> dict[str, Any]:
    """results.json: ``run`` as in run.json, and the lines of records.jsonl in the order of the cells."""
    gained = _gained(study, lines)
    own = [row for line in lines for row in line["rows"]] + gained + differences(lines, study.arms[0].name)
    corpus = study.tokens.corpus
    facts = {
        "name": corpus.name,
        "documents": len(corpus.train),
        "held_out": len(corpus.valid),
        "tokens": len(study.tokens.train.tokens),
        "held_out_tokens": len(study.tokens.valid.tokens),
        "vocabulary": study.tokens.marks.vocabulary,
        "hash": corpus.hash,
    }
    return plain_record(
        run,
        lines,
        results={corpus.name: {"alias": corpus.name}},
        corpus=facts,
        plan=_plan_facts(study),
        measures=[*over_seeds(own), *_seen(gained), *own],
        pictures=drawn_pictures(lines),
    )


def _plan_facts(study: Pretraining) -> dict[str, Any]:
    plan = study.plan
    return {
        "objective": study.objective,
        **_shape_facts(study),
        "context": plan.context,
        "batch": plan.batch,
        "steps": plan.steps,
        "tokens": plan.steps * plan.batch * plan.context,
        "learning_rate": plan.learning_rate,
        "schedule": plan.schedule,
    }


def _shape_facts(study: Pretraining) -> dict[str, Any]:
    if study.start is not None:
        return {"trained_further": study.start.name, "its_hash": study.start.hash}
    shape = study.plan.shape
    return {
        "network": study.arms[0].network,
        "layers": shape.layers,
        "heads": shape.heads,
        "width": shape.width,
        **dict(study.plan.design),
    }


def _gained(study: Pretraining, lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Nats a token by which each network is less surprised than the first of the same seed, by the same documents.

    The interval is over documents, the long ones in blocks as for perplexity: the mean over them of what varies as the ratio
    of two sums does (the delta method).
    """
    held = {(line["part"], line["seed"]): line for line in lines if line.get("by_document")}
    first = study.arms[0].name
    rows = []
    for (part, seed), line in held.items():
        base = held.get((first, seed))
        if part in (first, FLOOR) or base is None:
            continue
        for context, sums in line["by_document"].items():
            nats, counts = np.array(sums).T
            less = np.array(base["by_document"][context])[:, 0] - nats
            value = float(less.sum() / counts.sum())
            each = value + (less - value * counts) / counts.mean()
            low, high = mean_interval(each, seed) or (None, None)
            rows.append(
                {
                    "task": line["task"],
                    "model": "",
                    "seed": seed,
                    **figure(
                        "nats_gained", (part, f"context {context}", f"over {first}"), value=value, low=low, high=high,
                        null=0.0, n=int(counts.sum()), unit="nats",
                    ),
                }
            )  # fmt: skip
    return rows


def _seen(gained: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of gains over several seeds: the least true gain whose interval would lie above none four times in five.

    The interval is that of ``over_seeds``: half of it is t(0.975) s / sqrt(n), s the deviation among seeds, and half of that
    over documents beside, as the legs of a right angle. The gain found varies by as much as either, in the same way.
    """
    by_variant: dict[str, list[Mapping[str, Any]]] = {}
    for row in gained:
        by_variant.setdefault(row["variant"], []).append(row)
    found = []
    for variant, own in by_variant.items():
        if (n := len(own)) > 1:
            spread = float(np.std([row["value"] for row in own], ddof=1))
            wide = [(row["high"] - row["low"]) / 2 for row in own if row["low"] is not None]
            documents = float(np.mean(wide)) if wide else 0.0
            half, more = (float(stats.t.ppf(at, n - 1)) * spread / n**0.5 for at in (0.975, 0.8))
            chance = float(stats.norm.ppf(0.8) / stats.norm.ppf(0.975)) * documents
            least = float(np.hypot(half, documents) + np.hypot(more, chance))
            row = figure("least_gain_seen", (variant,), value=least, n=n, unit="nats")
            found.append({"task": own[0]["task"], "model": "", "seed": None, **row})
    return found
