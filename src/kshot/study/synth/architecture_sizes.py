"""What architectures are compared on, and how much of it, by size."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from kshot.study.synth.contenders import Task
from kshot.study.synth.experiment import Size
from kshot.synth.networks.mixing import Shape
from kshot.synth.prompts import Source
from kshot.synth.train import Curriculum, Training


@dataclass(frozen=True, slots=True, kw_only=True)
class Much:
    """The task of every part, and prompts that no training has seen."""

    tasks: Mapping[str, Task]
    asked: int


def _task(function: str, width: int, pairs: int, steps: int, *, batch: int, rate: float, noise: float = 0.0) -> Task:
    return Task(
        source=Source(function=function, width=width, pairs=pairs, noise=noise),
        shape=Shape(layers=2, heads=2, width=48, spread=None),
        training=Training(
            steps=steps, batch=batch, learning_rate=rate, schedule="cosine", warmup=steps // 10, clip=1.0
        ),
    )


_short, _middling = partial(_task, batch=16, rate=3e-3), partial(_task, batch=32, rate=2e-3)


def _published(
    function: str, width: int, pairs: int, rate: float, curriculum: Curriculum | None = None, noise: float = 0.0
) -> Task:
    return Task(
        source=Source(function=function, width=width, pairs=pairs, noise=noise),
        shape=Shape(layers=12, heads=8, width=256),
        training=Training(steps=500_000, batch=64, learning_rate=rate, clip=100.0),
        curriculum=curriculum,
    )


MUCH: Mapping[Size, Much] = {
    "smoke": Much(
        tasks={
            "regression": _short("linear", 3, 9, 180),
            "sparse": _short("sparse-linear", 5, 9, 120),
            "hidden-layer": _short("relu-network", 3, 11, 100),
            "trees": _short("decision-tree", 3, 11, 120),
            "parity": _short("sparse-parity", 3, 9, 180),
            "recall": _short("recall", 3, 11, 120),
            "depth": _short("linear", 3, 9, 180),
            "beyond": _short("linear", 3, 7, 240, noise=0.25),
        },
        asked=1_280,
    ),
    "full": Much(
        tasks={
            "regression": _middling("linear", 5, 16, 12_000),
            "sparse": _middling("sparse-linear", 10, 16, 12_000),
            "hidden-layer": _middling("relu-network", 4, 24, 8_000),
            "trees": _middling("decision-tree", 4, 24, 8_000),
            "parity": _middling("sparse-parity", 4, 16, 12_000),
            "recall": _middling("recall", 4, 24, 8_000),
            "depth": _middling("linear", 5, 16, 12_000),
            "beyond": _middling("linear", 5, 11, 12_000, noise=0.25),
        },
        asked=1_280,
    ),
    "paper": Much(
        tasks={
            "regression": _published("linear", 20, 41, 1e-4, Curriculum(coordinates=5, pairs=11, pairs_by=2, every=2_000)),
            "sparse": _published(
                "sparse-linear", 20, 41, 1e-4, Curriculum(coordinates=5, pairs=11, pairs_by=2, every=2_000)
            ),
            "hidden-layer": _published(
                "relu-network", 20, 101, 1e-4, Curriculum(coordinates=5, pairs=26, pairs_by=5, every=2_000)
            ),
            "depth": _published("linear", 20, 41, 1e-4, Curriculum(coordinates=5, pairs=11, pairs_by=2, every=2_000)),
            "trees": _published(
                "decision-tree", 20, 101, 1e-4, Curriculum(coordinates=5, pairs=26, pairs_by=5, every=2_000)
            ),
            "parity": _published("sparse-parity", 10, 140, 4e-4),
            "recall": _published("recall", 20, 64, 2e-4),
            "beyond": _published(
                "linear", 20, 41, 1e-4, Curriculum(coordinates=5, pairs=11, pairs_by=2, every=2_000), 0.25
            ),
        },
        asked=1_280,
    ),
}  # fmt: skip
