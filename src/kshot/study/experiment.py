"""What is asked, as frozen cells, and an identity that changes with the numbers and with nothing else."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import torch

from kshot.data import task_hash
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import DataError
from kshot.model.lm import LM
from kshot.seeds import stream
from kshot.study.cells import Cell
from kshot.study.settings import Settings

# To be raised when a change of the engine, the scoring or the picking moves numbers: older folders are not gone on with.
ENGINE = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """The cells of a run with their ids; ``facts`` is everything else that its numbers depend on.

    ``identity`` is the SHA-256 of both, in hexadecimal: the same for the same question to the same model on such a
    machine, whatever folder it is written to and whenever.
    """

    facts: Mapping[str, Any]
    cells: tuple[Cell, ...]

    @property
    def identity(self) -> str:
        return _sha({"facts": dict(self.facts), "cells": [cell.id for cell in self.cells]})


def experiment(asked: Settings, lm: LM, tasks: Sequence[Task], cells: Sequence[Cell]) -> Experiment:
    """The experiment that asks this model for these cells."""
    everywhere = {**standing(lm), "limit": asked.limit, "overlength": asked.overlength}
    own = {task.name: {"hash": task_hash(task), **layout_facts(task)} for task in tasks}
    named = tuple(
        replace(cell, id=_sha({**everywhere, "task": own[cell.task], "cell": _facts(cell)})[:12]) for cell in cells
    )
    return Experiment(facts={**everywhere, "tasks": own}, cells=named)


def standing(lm: LM) -> dict[str, Any]:
    """Engine, model and machine as far as figures depend on them."""
    return {
        "engine": ENGINE,
        "model": lm.hash,
        **({"delta": lm.delta.hash} if lm.delta else {}),
        **({} if lm.momentum is None else {"momentum": lm.momentum.hash}),
        "route": lm.route.kind,
        "dtype": str(lm.dtype).removeprefix("torch."),
        "device": lm.device.type,
        "torch": torch.__version__,
        "transformers": version("transformers"),
        # Sums are split among threads and vector units: another number of either rounds otherwise.
        "threads": torch.get_num_threads(),
        "processor": torch.backends.cpu.get_cpu_capability(),
    }


def queries(task: Task, limit: int | str) -> tuple[Example, ...]:
    """The test examples of every cell of a task: ``limit`` of them drawn once for all, in the order of the split."""
    if limit == "all" or int(limit) >= len(task.test):
        return task.test
    chosen = stream(0, "test-examples").permutation(len(task.test))[: int(limit)]
    return tuple(task.test[i] for i in sorted(chosen))


def check_pool(task: Task, cells: Sequence[Cell]) -> None:
    """DataError where a cell of this task asks for more demonstrations than there are, or there is nothing to test."""
    if not task.test:
        raise DataError(f"task {task.name!r}: its test split is empty; there is nothing to measure")
    pool = sum(example.label is not None for example in task.train)
    most = max((cell.shots for cell in cells if cell.task == task.name), default=0)
    if most > pool:
        raise DataError(
            f"task {task.name!r}: asked for {most} shots, and its training pool has {pool} labelled examples; "
            f"give --num-fewshot at most {pool}"
        )


def template_facts(template: Template) -> dict[str, Any]:
    """A template as JSON knows it."""
    return {
        "input": template.input,
        "words": dict(template.words),
        "delimiter": template.delimiter,
        "separator": template.separator,
        "description": template.description,
    }


def layout_facts(task: Task) -> dict[str, Any]:
    """The template of a task, and the further layouts of one that has some, as JSON knows them."""
    more = {"layouts": [template_facts(layout) for layout in task.layouts]} if task.layouts else {}
    return {"template": template_facts(task.template), **more}


def _facts(cell: Cell) -> dict[str, Any]:
    names = ("task", "method", "shots", "seed", "order")
    return {**{name: getattr(cell, name) for name in names}, "params": dict(cell.params)}


def _sha(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
