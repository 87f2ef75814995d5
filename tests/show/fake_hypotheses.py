"""What ``kshot hypotheses`` leaves behind, made up: two tasks and chains of relations. Nothing is measured."""

from collections.abc import Sequence
from typing import Any

from kshot.seeds import stream
from kshot.study.hypotheses.claims import HYPOTHESES
from kshot.study.hypotheses.core import SELECTED as CLAIMED
from kshot.study.hypotheses.functions import CORRELATED, PAIRED

Row = dict[str, Any]
TASKS = {"films": ["bad", "good"], "色": ["赤", "黄"]}
ALTERED = ("original", "response-altered", "prompt-altered", "memory-random")
CLAIMS = (
    ("H1", "a response-altered task is answered by guessing", "supported", 0.004),
    ("H1", "the same with any tokens as answers", "supported", 0.011),
    ("H2", "a permuted vocabulary hides nothing", "rejected", -0.291),
    ("H3", "maps of words that were seen are learned more readily", "undecided", None),
)
CHAINS = ("first letter of the capital of", "plural of the French for")


def hypothesised(*, tasks: Sequence[str] = tuple(TASKS), protocols: Sequence[str] = ("redrawn", "fixed")) -> Row:
    """The value of ``kshot`` in results.json."""
    return {
        "version": "0.0.test",
        "argv": ["kshot", "hypotheses", *tasks, "--seed", "0,1"],
        "settings": {"num_fewshot": 8, "size": "smoke"},
        "environment": {"python": "3.11", "torch": "2.13", "cpu": "a made-up processor", "threads": 1},
        "model": {"name": "made-up-135m", "caption": "Made-up 135M", "dtype": "bfloat16", "device": "cpu"},
        "tasks": {name: {"labels": TASKS.get(name, ["a", "b"]), "shots": 8} for name in tasks},
        "hypotheses": dict(HYPOTHESES),
        "verdicts": [line for name in tasks for protocol in protocols for line in verdicts(name, protocol)],
        "measures": [*(one for name in tasks for one in _of(name, protocols)), *_relations()],
        "pictures": {name: _pictures() for name in tasks},
        "cells": [{"task": name, "part": "fast", "seed": seed, "failed": None} for name in tasks for seed in (0, 1)],
        "notes": [f"{tasks[0]}: a note of its own"],
    }


def row(task: str, measure: str, variant: str, value: float | None, seed: int | None = None, **more: Any) -> Row:
    """A row with an interval of a tenth around its value; ``more`` stands instead."""
    around = (None, None) if value is None else (value - 0.05, value + 0.05)
    found = {"task": task, "model": "made-up-135m", "seed": seed, "measure": measure, "variant": variant}
    found |= {"value": value, "unit": "", "layer": None, "low": around[0], "high": around[1], "null": None}
    return found | {"null_low": None, "null_high": None, "n": 32, "published": None, "reason": None} | more


def verdicts(task: str, protocol: str) -> list[Row]:
    """Every hypothesis, then its claims."""
    found = []
    for name in HYPOTHESES:
        own = [claim for claim in CLAIMS if claim[0] == name]
        found.append(_verdict(task, protocol, name, None, own[-1][2], f"1 of {len(own)} claims", None))
        for _, claim, verdict, value in own:
            found.append(_verdict(task, protocol, name, claim, verdict, value, "any tokens" in claim))
    return found


def _verdict(
    task: str, protocol: str, name: str, claim: str | None, verdict: str, observed: Any, published: Any
) -> Row:
    number = isinstance(observed, float)
    return {
        "hypothesis": name, "claim": claim, "source": "made up", "prediction": f"what {name} predicts", "published": bool(published),
        "observed": observed, "low": observed - 0.09 if number else None, "high": observed + 0.09 if number else None,
        "verdict": verdict, "reason": "undefined in all 2 seeds" if observed is None else None, "seeds": 2, "n": 32,
        "task": task, "protocol": protocol,
    }  # fmt: skip


def _of(task: str, protocols: Sequence[str]) -> list[Row]:
    rng = stream(7, "hypothesised", task)
    found = []
    for protocol in protocols:
        for name in ALTERED:
            for what in ("", ", always one label", ", regression"):
                value = float(rng.uniform(0.1, 0.9))
                found.append(row(task, "macro_f1", f"{name}, {protocol}{what}", value, null=0.31))
                found += [row(task, "macro_f1", f"{name}, {protocol}{what}", value + s / 100, s) for s in (0, 1)]
        for seed in (0, 1):
            found.append(row(task, "accuracy", f"original, {protocol}", 0.5, seed))
            found.append(row(task, "accuracy", "original, without 14 other heads", 0.5, seed, n=96))
        reason = f"undefined in all 2 seeds: no synonym of {TASKS.get(task, ['a'])[0]!r} is known"
        found.append(row(task, "macro_f1", f"memory-synonym, {protocol}", None, reason=reason))
    found.append(row(task, "contrast", "the task falls more without copying heads", 0.125, null=0.0))
    found.append(row(task, "contrast", f"{CLAIMED}, fixed", 0.375, null=0.0))
    found.append(row(task, "correlation", CORRELATED, 0.25, null=0.0))
    found.append(row(task, "p_value", f"{CORRELATED}, {PAIRED}", 0.021))
    found.append(row(task, "reliability", "memory-random", 0.625))
    found.append(row(task, "reliability", "response-altered", None, reason="all functions do alike"))
    if len(protocols) > 1:
        found.append(row(task, "protocol", "original", 0.077, null=0.0))
    found += [row(task, "macro_f1", f"memory-random, fixed, linear map, {steps} steps", 0.98) for steps in (30, 300)]
    found += [row(task, "macro_f1", f"original, {share}% right", 0.3 + share / 500) for share in (0, 50, 100)]
    found += [row(task, "macro_f1", f"original, {shots} shots", 0.4 + shots / 100) for shots in (1, 2, 4, 8)]
    found += [row(task, "entropy", f"original, {shots} demonstrations", 3 / (1 + shots)) for shots in (0, 1, 2)]
    return found


def _relations() -> list[Row]:
    found = []
    for i, chain in enumerate(CHAINS):
        one, other = chain.split(" the ")
        own = {"": 0.25, f", {one} alone": 0.5, f", {other} alone": 0.75}
        found += [row("relations", "accuracy", chain + part, value + i / 100) for part, value in own.items()]
        found.append(row("relations", "half_way", chain, 0.125))
    return [
        *found,
        row("relations", "correlation", "a chain goes with the product of its parts", 0.59, low=0.2, high=0.8),
    ]


def _pictures() -> list[Row]:
    binned = [{"memory": 0.25, "altered": 0.375, "n": 2.0}, {"memory": 0.625, "altered": 0.5, "n": 2.0}]
    functions = {"memory": [0.2, 0.3, 0.6, 0.65], "altered": [0.25, 0.5, 0.5, 0.5], "binned": binned}
    return [
        {"seed": 1, "synonyms": {"1": ["poor", "fine"]}},
        {"seed": 0, "functions": functions},
        {
            "seed": 0,
            "synonyms": {"1": ["awful", "great"], "2": ["dreadful", "grand"]},
            "senses": {
                "1": [["awful/a00000001"], ["great/a00000002"]],
                "2": [["awful/a00000001", "dreadful/a00000003"], ["great/a00000002", "grand/a00000004"]],
            },
        },
    ]
