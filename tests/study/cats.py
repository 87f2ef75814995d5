"""A small text, and networks that are grown on it in seconds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kshot.study.pretrain_settings import PretrainSettings, make_pretrain_settings

TINY: dict[str, Any] = {
    "tokens": 1_000, "context": 16, "batch": 4, "vocabulary": 270, "layers": 1, "heads": 2, "width": 16,
}  # fmt: skip
TIMED = ("tokens_per_second", "mfu", "memory", "pace", "share_of_roof")
TEXTS = [f"The cat number {i} sat on mat {i * i % 7}, and a dog ran after it.\n" * 2 for i in range(60)]


def asked(file: Path, **more: Any) -> PretrainSettings:
    return make_pretrain_settings(**{"tasks": (str(file),), **TINY, "device": "cpu", **more})


def rows_of(results: Mapping[str, Any]) -> dict[tuple[str, str, int | None], dict[str, Any]]:
    return {(row["measure"], row["variant"], row["seed"]): row for row in results["kshot"]["measures"]}
