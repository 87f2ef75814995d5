"""A record of ten ways of teaching at three sizes and three seeds, made up: every method, noise, failures, training, a choice.

Right and wrong are drawn; rows, paired tests, the recommendation and the answer are computed from them as a run does.
"""

from typing import Any

import numpy as np
from fake_record import record as prompted

from kshot.measure.intervals import wilson
from kshot.seeds import stream
from kshot.study.answer import answer
from kshot.study.summary import comparisons, summary
from kshot.study.verdict import paired, recommend

Row = dict[str, Any]
SIZES = (4, 16, 64)
# accuracy at 4, 16, 64; seconds to learn at 4; parameters; bytes; milliseconds a query; whether steps are taken
METHODS: dict[str, tuple[tuple[float, ...], float, int, int, float, bool]] = {
    "in-context": ((0.66, 0.74, 0.77), 0.2, 0, 900, 14.0, False),
    "soft-prompt": ((0.55, 0.70, 0.80), 70.0, 11_520, 46_080, 13.0, True),
    "prefix": ((0.67, 0.76, 0.83), 80.0, 460_800, 921_600, 12.0, True),
    "lora": ((0.64, 0.82, 0.88), 95.0, 2_442_240, 9_768_960, 12.5, True),
    "fine-tune": ((0.62, 0.81, 0.885), 140.0, 134_515_008, 269_030_016, 12.1, True),
    "head": ((0.60, 0.74, 0.82), 0.8, 1_154, 4_616, 9.0, False),
    "tfidf": ((0.54, 0.60, 0.66), 0.02, 3_200, 25_600, 0.1, False),
    "nearest": ((0.53, 0.58, 0.63), 0.3, 0, 147_456, 9.1, False),
    "majority": ((0.50, 0.50, 0.51), 0.0, 0, 9, 0.0, False),
}
LABELS = ["negative", "positive"]


def record(*, n: int = 120, tasks: tuple[str, ...] = ("sst2",)) -> tuple[Row, list[Row]]:
    """results.json as a dict; no samples."""
    lines: list[Row] = []
    for task in tasks:
        hard = stream(0, "hard", task).random(n)
        lines.append(_line(task, "zero-shot", 0, 0, _marks(task, "zero-shot", 0, hard, 0.61)))
        for method, (reached, *_) in METHODS.items():
            for level, shots in enumerate(SIZES):
                for seed in (0, 1, 2):
                    if method == "fine-tune" and shots == 4 and seed != 1:
                        lines.append(_failed(task, method, shots, seed))
                        continue
                    right = _marks(task, method, seed + 10 * shots, hard, reached[level])
                    lines.append(_line(task, method, shots, seed, right))
        for method in ("in-context", "lora"):
            for level, shots in enumerate(SIZES):
                for seed in (0, 1, 2):
                    p = METHODS[method][0][level] + (0.02 if method == "lora" else -0.03)
                    right = _marks(task, method + "noise", seed + 10 * shots, hard, p)
                    lines.append(_line(task, method, 4 * shots, seed, right, noise=0.25))
        lines += [_failed(task, "prefix", 256, seed) for seed in (0, 1, 2)]
    return _results(lines, tasks), []


def _marks(task: str, method: str, seed: int, hard: np.ndarray, p: float) -> str:
    """Right where a query is not too hard, mostly: methods agree about which queries are."""
    noise = stream(seed, "fake", task, method).normal(size=len(hard)) * 0.22
    order = np.argsort(hard + noise)
    right = np.zeros(len(hard), bool)
    right[order[: round(p * len(hard) + 2 * stream(seed, "luck", task, method).normal())]] = True
    return "".join("1" if one else "0" for one in right)


def _line(task: str, method: str, shots: int, seed: int, right: str, **more: Any) -> Row:
    n, p = len(right), right.count("1") / len(right)
    _, seconds, parameters, stored, ms, steps = METHODS.get(method, METHODS["in-context"])
    fit = seconds * (1 + np.log2(max(shots, 4) / 4)) * (1 + 0.05 * seed)
    low, high = wilson(p * n, n) or (0.0, 1.0)
    scores = {"sum": {"accuracy": p, "macro_f1": p, "log_loss": 1 - p / 2, "ece": 0.1}}
    return {
        **_named(task, method, shots, seed, **more),
        "n": n,
        "accuracy": p,
        "accuracy_low": low,
        "accuracy_high": high,
        **{"macro_f1": p, "log_loss": 1 - p / 2, "ece": 0.1},
        "seconds": fit + n * ms / 1000 + 0.5,
        "fit_seconds": fit,
        "query_ms": ms + 0.05 * shots * (method == "in-context"),
        "tokens": 0 if method in ("tfidf", "majority") else n * 24 + 30 * shots * (method == "in-context"),
        "trainable_parameters": parameters,
        "artefact_bytes": stored * (shots if method == "in-context" else 1),
        "peak_rss_bytes": 1_200_000_000 + 4 * parameters,
        "dtype": "float32",
        "device": "cpu",
        "score": "sum",
        "scores": scores,
        "undefined": {},
        "confusion": {"labels": LABELS, "counts": [[n // 2, 3], [5, n // 2 - 8]]},
        "calibration": [],
        "demonstrations": [f"{task}:train:{i}" for i in range(shots)] if method == "in-context" else [],
        **{"dropped_demonstrations": 0, "skipped": 0, "repaired_seams": 0, "samples": None, "failed": None},
        "training": _training(method, shots, seed, fit) if steps else None,
        "interpretation": _interpretation(seed) if method == "soft-prompt" else None,
        "right": right,
    }


def _named(task: str, method: str, shots: int, seed: int, **more: Any) -> Row:
    params = ({"pick": "balanced"} if shots else {}) | more
    identity = f"{task}-{method}-{shots}-{seed}" + ("-noise" if more else "")
    return {
        **{"id": identity, "task": task, "model": "smollm2-135m", "method": method, "params": params},
        **{"shots": shots, "seed": seed, "order": 0},
    }


def _failed(task: str, method: str, shots: int, seed: int) -> Row:
    """A cell that came to nothing: every figure is null."""
    keys = (
        "accuracy", "accuracy_low", "accuracy_high", "macro_f1", "log_loss", "ece", "seconds", "fit_seconds", "query_ms",
        "tokens", "trainable_parameters", "artefact_bytes", "peak_rss_bytes", "score", "confusion", "training", "samples",
    )  # fmt: skip
    reason = f"diverged at step {40 + seed}: loss 31.2 with adamw at learning rate 0.01; try a smaller one"
    if method == "prefix":
        reason = "prefix of 8192 positions does not fit the context of 8192; give --methods prefix:length=N with N at most 8000"
    return {
        **_named(task, method, shots, seed),
        **dict.fromkeys(keys),
        **{"n": 0, "scores": {}, "calibration": [], "demonstrations": [], "right": "", "failed": reason},
        **{"dropped_demonstrations": 0, "skipped": 0, "repaired_seams": 0},
    }


def _training(method: str, shots: int, seed: int, seconds: float) -> Row:
    steps = 120 if shots == 4 else 300
    rng = stream(seed, "losses", method, shots)
    start = 1.1 + 0.1 * float(rng.random())
    losses = start * np.exp(-np.arange(steps) / (30 + shots)) + 0.12 * rng.random(steps)
    rates = (0.001, 0.003, 0.01)
    return {
        "parameters": METHODS[method][2],
        "steps": steps,
        "seconds": seconds,
        "tokens": steps * 700,
        "flops": steps * 700 * 6 * 1.35e8,
        "start": start,
        "losses": [float(value) for value in losses],
        "flattened": shots != 64,
        "chosen": {"learning_rate": rates[(seed + shots // 16) % 3]},
        "search": [
            {
                "learning_rate": rate,
                "loss": 0.6 - 0.1 * i + 0.03 * seed,
                "accuracy": 0.7 + 0.05 * i,
                "steps": 20 * (i + 1),
            }
            for i, rate in enumerate(rates)
        ],
        "validation": "a quarter of the examples, drawn by label, held out while the rate is chosen",
    }


def _interpretation(seed: int) -> Row:
    tokens = [[" good", " movie", "<b>"], [" Review", "はい", " the"], ["\n", " film", " films"]]
    return {
        "nearest": [
            {"row": i, "tokens": tokens[(i + seed) % 3], "cosines": [0.91 - 0.01 * i, 0.55, 0.41]} for i in range(24)
        ],
        "label_share": 0.05,
        "cluster_share": 0.2,
        "perplexity": 812.0,
    }


def _results(lines: list[Row], tasks: tuple[str, ...]) -> Row:
    """Everything around the rows as the record of prompting has it."""
    found, _ = prompted(n=12)
    rows, against, pairs = summary(lines), comparisons(lines), paired(lines)
    facts = {**found["kshot"]["tasks"]["bbc-headlines"], "labels": LABELS}
    recommended = recommend(rows, pairs)
    for task in tasks[:1]:
        recommended[task]["directory"] = f"kshot-results/{task}/artefacts/{task}"
    own = {
        "tasks": dict.fromkeys(tasks, facts),
        "settings": found["kshot"]["settings"] | {"budget": "300steps", "validation": "split"},
        "answer": {
            task: answer(
                [row for row in rows if row["task"] == task],
                [row for row in against if row["task"] == task],
                ("positive", 0.51),
                [row for row in pairs if row["task"] == task],
            )
            for task in tasks
        },
        "cells": [{name: value for name, value in line.items() if name != "right"} for line in lines],
        "summary": rows,
        "comparisons": against,
        "paired": pairs,
        "recommended": recommended,
        "notes": ["sst2: 5 of 91 cells came to no result; the means are over the others"],
    }
    return found | {"kshot": found["kshot"] | own}
