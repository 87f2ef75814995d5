"""What ``kshot explain`` leaves behind, made up: three tasks, every measure, variant, picture and verdict. Nothing is measured."""

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np

from kshot.seeds import stream

Row = dict[str, Any]
LAYERS, HEADS, SHOTS = 12, 9, 6
TASKS: dict[str, dict[str, Any]] = {
    "sst2": {
        "labels": ["Negative", "Positive"],
        "texts": [
            "a gripping film <b>&</b> a warm one",
            "dull, from the first minute to the last",
            "it never comes alive",
        ],
    },
    "ag-news": {
        "labels": ["World", "Sports", "Business", "Technology"],
        "texts": ["Oil rises above $50 a barrel", "Late header sends United through", "New chip shown at fair"],
    },
    "colours-ja": {"labels": ["赤", "黄"], "texts": ["りんごは赤い", "バナナは黄色い", "いちごジャム"]},
}
PUBLISHED = {
    "accuracy": {"1.3B": 92.7, "2.7B": 95.0},
    "rec2ftp": {"1.3B": 91.84, "2.7B": 100.0},
    "sim_aou": {"1.3B": 0.110, "2.7B": 0.195},
    "sim_am": {"1.3B": 0.585, "2.7B": 0.687},
    "kendall": {"1.3B": 0.192, "2.7B": 0.213},
}
HOW = ("appended label, normalised, published", "appended label, normalised, corrected", "appended label, raw, published",
       "last prompt token, normalised, published", "last prompt token, raw, corrected")  # fmt: skip
CONTROLS = (
    "untrained, own",
    "trained embeddings, own",
    "trained, another task",
    "trained, shuffled labels",
)
EFFECTS = (
    "leave_one_out", "shapley", "attention_mass", "gradient_times_input", "meta_gradient", "attention_effect",
    "meta_gradient_effect",
)  # fmt: skip


def explained(*, tasks: Sequence[str] = tuple(TASKS), brief: bool = False) -> Row:
    """The value of ``kshot`` in results.json; ``brief`` with few rows by layer, which take long to draw."""
    return {
        "version": "0.0.test",
        "argv": ["kshot", "explain", *tasks, "--num-fewshot", str(SHOTS)],
        "settings": {"num_fewshot": SHOTS, "size": "medium", "of": "candidates"},
        "environment": {"python": "3.11", "torch": "2.13", "cpu": "a made-up processor", "threads": 1},
        "model": {
            "name": "made-up-135m",
            "caption": "Made-up 135M",
            "dtype": "float32",
            "device": "cpu",
            "context": 8192,
        },
        "tasks": {name: _task(name) for name in tasks},
        "measures": [row for name in tasks for row in _measures(name, brief)],
        "pictures": {name: _pictures(name) for name in tasks},
        "verdicts": verdicts(),
        "notes": ["ag-news: 22 demonstrations were asked for, 6 fit", "learning rates came from the cache"],
    }


def verdicts() -> list[Row]:
    lines = (
        ("in-context learning corrects what fine-tuning corrects", "Rec2FTP above its null", 0.12, 0.05, 0.19, "shown"),
        (
            "both move attention outputs the same way",
            "SimAOU above the null of its norms",
            -0.01,
            -0.03,
            0.02,
            "not shown",
        ),
        ("what is alike was learned", "SimAOU of an untrained model is smaller", -0.06, -0.09, -0.02, "contradicted"),
        ("the order of attention is that of the gradients", "Kendall above 0", 0.11, 0.08, 0.14, "shown"),
    )
    keys = ("claim", "prediction", "observed", "low", "high", "verdict")
    return [{**dict(zip(keys, line, strict=True)), "task": None} for line in lines]


def _task(name: str) -> Row:
    return {
        "description": "made up",
        "shots": SHOTS,
        "queries": 100,
        "labels": TASKS[name]["labels"],
        "template": {"input": "Sentence: {{text}}\nLabel:", "delimiter": " "},
    }


def row(task: str, measure: str, variant: str, value: float | None, **more: Any) -> Row:
    """One row, as the record has it; what is not told is null."""
    keys = ("layer", "low", "high", "null", "null_low", "null_high", "n", "unit", "published", "reason")
    own = {"task": task, "model": "made-up-135m", "seed": None, "measure": measure, "variant": variant, "value": value}
    return {**own, **dict.fromkeys(keys), **more}


def _measures(task: str, brief: bool) -> list[Row]:
    rng = stream(0, "explain", task)
    rows = []
    for run, level in (("zero-shot", 0.55), ("fine-tuned, published", 0.62), ("in-context", 0.81)):
        rows.append(_with(task, "accuracy", run, level, rng, published=PUBLISHED["accuracy"], null=0.5))
    rows.append(_with(task, "accuracy", "fine-tuned, corrected", 0.58, rng))
    rows.append(_with(task, "rec2ftp", "published", 0.84, rng, published=PUBLISHED["rec2ftp"], null=0.79))
    rows.append(_with(task, "rec2ftp", "corrected", 0.80, rng, null=0.78))
    rows += [row(task, "learning_rate", "published", 0.0005), row(task, "learning_rate", "corrected", 0.0007)]
    rows.append(_with(task, "optimism", "", 0.03, rng))
    for how in HOW[:1] if brief else HOW:
        for measure, level in (("sim_aou", 0.18), ("sim_am_delta", 0.26), ("kendall", 0.19))[: 1 if brief else 3]:
            rows += _layered(task, measure, f"{how}, trained, own", level, rng, published=PUBLISHED.get(measure))
        for moment, level in (("before fine-tuning", 0.5), ("after fine-tuning", 0.56)):
            rows += _layered(task, "sim_am", f"{how}, {moment}", level, rng, published=PUBLISHED["sim_am"])
    for control in () if brief else CONTROLS:
        for measure in ("sim_aou", "sim_am_delta"):
            rows += _layered(task, measure, f"appended label, raw, published, {control}", 0.14, rng)
    for measure, level in () if brief else (("lambda", 0.6), ("effective_rank", 4.2)):
        rows += _layered(task, measure, "", level, rng)
    for measure, level in () if brief else (("relaxed_cosine", 0.7), ("relaxed_r2", 0.4)):
        for own in ("in-context W_ZSL", "zero-shot W_ZSL"):
            rows += _layered(task, measure, own, level, rng)
    rows += _layered(task, "angle_same", "", 0.6, rng, unit="cosine")
    rows += _layered(task, "angle_different", "", 0.4, rng, unit="cosine")
    rows.append(_with(task, "update_norm", "", 31.4, rng))
    for cheap in EFFECTS[2:]:
        for against in EFFECTS[:2]:
            for kind in ("spearman", "kendall"):
                rows.append(_with(task, "rank_agreement", f"{cheap} vs {against}/{kind}", 0.3, rng, null=0.0, n=30))
    for bias in ("recency", "majority", "common_token"):
        rows.append(_with(task, bias, "before calibration", 0.12, rng, null=0.0))
        rows.append(_with(task, bias, "after calibration", 0.03, rng, null=0.0))
    return rows


def _with(task: str, measure: str, variant: str, level: float, rng: np.random.Generator, **more: Any) -> Row:
    value = level + 0.02 * float(rng.normal())
    return row(task, measure, variant, value, **{"low": value - 0.05, "high": value + 0.06, "n": 100, **more})


def _layered(task: str, measure: str, variant: str, level: float, rng: np.random.Generator, **more: Any) -> list[Row]:
    """A row over all layers and one for each of them."""
    null = {"null": 0.25 * level, "null_low": 0.2 * level, "null_high": 0.32 * level}
    found = [_with(task, measure, variant, level, rng, **null, **more)]
    for layer in range(LAYERS):
        own = level * (0.5 + layer / LAYERS)
        found.append(_with(task, measure, variant, own, rng, layer=layer, **null, unit=more.get("unit")))
    return found


def _pictures(task: str) -> Row:
    rng = stream(1, "explain", task)
    texts, labels = TASKS[task]["texts"], TASKS[task]["labels"]
    growing = np.cumsum(rng.random((LAYERS, SHOTS)), axis=1) * np.linspace(1, 3, LAYERS)[:, None]
    shown = []
    for i in range(SHOTS):
        effects = {effect: round(0.4 * float(rng.normal()), 4) for effect in EFFECTS}
        shown.append({"text": texts[i % 3], "label": labels[i % len(labels)], **effects, "shapley_error": 0.02})
    return {
        "lambda_heads": rng.random((LAYERS, HEADS)).round(3).tolist(),
        "update_norm": {"x": list(range(1, SHOTS + 1)), "layers": growing.round(3).tolist()},
        "effective_rank": {"x": list(range(1, SHOTS + 1)), "layers": (1 + growing).round(3).tolist()},
        "strip": {"query": texts[0] + " (query)", "gold": labels[0], "demonstrations": shown},
        "orders": [
            {
                "order": list(order),
                "accuracy": round(float(rng.normal(0.8, 0.03)), 2),
                "gold_logprob": -0.6 - 0.1 * i / 120,
            }
            for i, order in enumerate(list(permutations(range(5)))[:120])
        ],
    }


RECORD = explained()


def value_of(measure: str, variant: str, task: str = "sst2") -> str:
    """What the record says over all layers, read off without the page's own rules."""
    found = [
        r for r in RECORD["measures"]
        if (r["task"], r["measure"], r["variant"], r["layer"]) == (task, measure, variant, None)
    ]  # fmt: skip
    assert len(found) == 1
    return f"{found[0]['value']:.3f}"
