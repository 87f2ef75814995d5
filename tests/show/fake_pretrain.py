"""What ``kshot pretrain`` leaves behind, made up: two networks and an n-gram model, with gains and an ability. Nothing is grown."""

from typing import Any

from kshot.study.figures import figure

Row = dict[str, Any]


def grown(**settings: Any) -> Row:
    """The value of ``kshot`` in results.json."""
    rows: list[Row] = []
    for name, scale in (("softmax", 1.0), ("momentum 0.3", 0.9)):
        rows += [
            figure("perplexity", (name, "context 64"), value=40.1 * scale, n=900, unit="tokens"),
            figure("perplexity", (name, "context 128"), value=38.7 * scale, n=900, unit="tokens"),
            figure("bits_per_byte", (name, "context 128"), value=1.93 * scale, n=900, unit="bits"),
            figure("parameters", (name,), value=12_345.0, unit="parameters"),
            figure("tokens_per_second", (name,), value=6_789.0, unit="tokens/s"),
            figure("mfu", (name,), value=0.31, unit="share"),
            figure("copy_accuracy", (name,), value=0.52 * scale, low=0.5 * scale, high=0.6 * scale, null=0.01, n=64),
        ]
    rows += [
        figure("perplexity", ("n-gram", "context 5"), value=55.5, n=900, unit="tokens"),
        figure("bits_per_byte", ("n-gram", "context 5"), value=2.2, n=900, unit="bits"),
        figure("nats_gained", ("momentum 0.3", "context 128", "over softmax"), value=0.1054, low=0.05, high=0.16, null=0.0,
               n=900, unit="nats"),
    ]  # fmt: skip
    cells = [
        {"task": "notes", "part": part, "seed": 0, "seconds": 60.0, "failed": None, "saved": saved, "notes": []}
        for part, saved in (("n-gram", None), ("softmax", "models/softmax-0"), ("momentum 0.3", "models/momentum-0"))
    ]
    return {
        "version": "0.1.0",
        "argv": ["kshot", "pretrain", "notes.txt", "--output-path", "out"],
        "settings": {"size": "smoke", "seed": [0], "start": None, **settings},
        "environment": {"torch": "2.13.0", "cpu": "a made-up processor"},
        "corpus": {"name": "notes", "tokens": 54_321},
        "plan": {"objective": "causal", "tokens": 98_765, "context": 128},
        "measures": [{"task": "notes", "model": "", "seed": 0, **row} for row in rows],
        "pictures": [],
        "cells": cells,
        "notes": ["notes: one twentieth is held out"],
    }
