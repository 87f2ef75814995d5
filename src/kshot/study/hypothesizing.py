"""``kshot hypotheses``: the parts of the battery become records, and the records a verdict on each hypothesis."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from kshot.data import load_task
from kshot.data.published import LI_2024, named
from kshot.data.task import Task
from kshot.data.template import content
from kshot.errors import DataError, KshotError
from kshot.model.lm import LM
from kshot.model.load import load_model
from kshot.study.hypotheses.battery import PARTS, Battery
from kshot.study.hypotheses.claims import HYPOTHESES, verdicts
from kshot.study.hypotheses.forecast import seconds_to_go
from kshot.study.hypotheses.protocols import between_protocols
from kshot.study.hypotheses.scale import REDRAWN, SCALES, Scale
from kshot.study.hypotheses_settings import HypothesesSettings
from kshot.study.inquiry import Inquiry, on_record, record, task_record, with_packing
from kshot.study.over_seeds import over_seeds
from kshot.study.parts import answered
from kshot.study.place import STATE, Finished, OnProgress, silent
from kshot.study.tasks import apart, tasks_of

log = logging.getLogger("kshot")

# A function of labels is learned from labels that come again: of more than so many a handful of demonstrations shows few.
_MOST_LABELS = 15
# Whose inputs are texts of elsewhere for a task that is asked alone, and how many of them are taken.
_OTHERS, _TEXTS = ("bbc-headlines", "commonsense-qa"), 500


def hypotheses(
    asked: HypothesesSettings,
    *,
    model: LM | None = None,
    tasks: Sequence[Task] = (),
    beneath: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Finished:
    """Which account of in-context learning fits a model on each task, or what is still missing of it, on record.

    The records go to ``asked.output_path``, else to a folder of their own ``beneath`` the one given, else nowhere.
    ``model`` and ``tasks`` stand in for their names in the settings. Raises KshotError before anything is written where
    the question cannot be answered; parts that were finished are kept whatever happens.
    """
    say = on_progress or silent
    repeatable = model is None and not tasks
    say(0, None, "reading the tasks")
    tasks, notes = apart(tuple(tasks) or tasks_of(asked, partial(named, LI_2024)))
    tasks = tuple(_with_labels(task) for task in tasks)
    scale = scaled(asked)
    for task in tasks:
        _check(task, scale)
    say(0, None, f"loading {model.name if model else asked.model}")
    lm = model or load_model(asked.model, dtype=asked.dtype, device=asked.device)
    battery = Battery(lm=lm, tasks=tasks, scale=scale, elsewhere=_elsewhere(tasks))
    notes = [*notes, *_of_few_seeds(scale)]
    return on_record(_INQUIRY, asked, battery, notes, typed=asked if repeatable else None, beneath=beneath, say=say)


def scaled(asked: HypothesesSettings) -> Scale:
    """How much the settings ask: a size, with the numbers that are given instead of its own; given seeds are all asked."""
    scale = SCALES[asked.size]
    if asked.num_fewshot is not None:
        scale = replace(scale, shots=asked.num_fewshot)
    if asked.limit is not None:
        scale = replace(scale, limit=asked.limit, over=None)
    if asked.parts:
        scale = replace(scale, parts=asked.parts)
    return replace(scale, seeds=asked.seed, redrawn=None, beside=None) if asked.seed else scale


def _of_few_seeds(scale: Scale) -> list[str]:
    """Notes about parts that are not asked of all seeds."""
    every = len(scale.seeds)
    few = [part for part in scale.parts if len(scale.seeds_of(part)) < every]
    beside = [part for part in few if part != REDRAWN]
    notes = []
    if REDRAWN in few:
        said = f"the first {scale.redrawn} of {every} seeds, and so its own verdicts rest on fewer"
        notes.append(f"{REDRAWN}: {said}; --seed names seeds for all parts")
    if beside:
        said = f"the first {scale.beside} of {every} seeds, since no verdict rests on them"
        notes.append(f"{', '.join(beside)}: {said}; --seed names seeds for all parts")
    return notes


def _with_labels(task: Task) -> Task:
    """A relation with few answers as a task with these labels; of more, how many there are, to be refused by name."""
    if task.kind != "open":
        return task
    outputs = tuple(sorted({example.label for example in (*task.train, *task.test) if example.label is not None}))
    return replace(task, kind="classification" if 2 <= len(outputs) <= _MOST_LABELS else "open", labels=outputs)


def _check(task: Task, scale: Scale) -> None:
    """Everything that can be found wrong without a model."""
    if task.kind == "open":
        raise DataError(
            f"task {task.name!r} has {len(task.labels)} different answers, and a map of answers is learned from 2 to "
            f"{_MOST_LABELS} of them that come again and again; relations like it are asked one after another by "
            "--parts relations of any task with labels"
        )
    if task.kind != "classification":
        raise DataError(
            f"task {task.name!r} is of kind {task.kind}: what its labels are called cannot be altered; what works is a "
            "task with the same labels for every query"
        )
    if not 2 <= len(task.labels) <= _MOST_LABELS:
        raise DataError(
            f"task {task.name!r} has {len(task.labels)} labels; a map of labels is learned from 2 to {_MOST_LABELS} of them"
        )
    labelled = sum(example.label is not None for example in task.train)
    pool = min(labelled, scale.pool)
    if scale.shots > pool:
        found = f"its training pool has {labelled} labelled examples"
        if pool < labelled:
            found += f", of which every seed draws {pool}"
        raise DataError(
            f"task {task.name!r}: asked for {scale.shots} demonstrations, and {found}; give --num-fewshot at most {pool}"
        )
    if not any(example.label is not None for example in task.test):
        raise DataError(f"task {task.name!r} has no labelled test examples to ask")


def _elsewhere(tasks: Sequence[Task]) -> dict[str, tuple[str, ...]]:
    """Texts that are no inputs of each task: those of the next in turn, else of one that is at hand; none where none is."""
    if len(tasks) > 1:
        return {task.name: _texts(tasks[(i + 1) % len(tasks)]) for i, task in enumerate(tasks)}
    (task,) = tasks
    for name in _OTHERS:
        if name != task.name:
            try:
                return {task.name: _texts(load_task(name))}
            except KshotError as error:
                log.info("no texts of elsewhere from %s: %s", name, error)
    return {}


def _texts(task: Task) -> tuple[str, ...]:
    return tuple(content(task.template, example.fields) for example in task.train[:_TEXTS])


def concluded(run: Mapping[str, Any], battery: Battery, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """results.json of the battery: ``run`` as in run.json, the lines of records.jsonl in the order of the cells."""
    own = [row for line in lines for row in line["rows"]]
    own += between_protocols(own)
    measures = [*_over_seeds(battery, own), *own]
    shots = battery.scale.shots
    drawn = [line for line in lines if line.get("pictures")]
    return record(
        run,
        battery,
        lines,
        measures=measures,
        tasks={task.name: task_record(task, task.template, shots=shots) for task in battery.tasks},
        hypotheses=dict(HYPOTHESES),
        verdicts=verdicts(measures),
        pictures={
            task.name: [{"seed": line["seed"], **line["pictures"]} for line in drawn if line["task"] == task.name]
            for task in battery.tasks
        },
    )


def _over_seeds(battery: Battery, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows over seeds, each with the interval that is left of its own where every seed draws queries of one test set."""
    scale = battery.scale
    sizes = {task.name: sum(example.label is not None for example in task.test) for task in battery.tasks}
    over = scale.over or scale.limit
    return over_seeds([of_test_set(row, sizes.get(row["task"]), None if over == "all" else int(over)) for row in rows])


def of_test_set(row: Mapping[str, Any], size: int | None, over: int | None) -> dict[str, Any]:
    """A row of one seed with half-widths for the choice of its task's test set of ``size`` examples alone.

    What a seed draws of the test set varies between seeds and is in their spread; which test set there is, is the same
    for all and never shrinks with their number. Where a query says v more or less, n of them have a half-width of
    h = z v / sqrt(n), and the test set one of z v / sqrt(N) = h sqrt(n / N), which is all of h where all are asked.

    A correlation has an interval over functions, which every seed draws anew. That stays as it is where ``over``
    queries of each (None: all) are most of the test set, for want of a better one: with 200 functions and all of 64
    queries the spread of 20 seeds alone holds the truth 80 times of 100. Of words that make a test of their own
    (``size`` None) there are no others, so nothing is left.
    """
    if row.get("low") is None or row.get("high") is None:
        return {**row}
    if row["measure"] == "correlation":
        whole = size is not None and (over is None or 2 * over > size)
        return {**row} if whole else {**row, "low": None, "high": None}
    if size is None:
        return {**row, "low": None, "high": None}
    share, value = math.sqrt(min(1.0, row["n"] / size)), row["value"]
    return {**row, "low": value - share * (value - row["low"]), "high": value + share * (row["high"] - value)}


def _ready(battery: Battery, run: Mapping[str, Any], directory: Path | None, missing: bool) -> Battery:
    """With the words of one token, which take seconds to find, where there is something left to ask; and a place to keep."""
    battery = with_packing(battery, run, directory, missing)
    battery = battery if directory is None else replace(battery, place=directory / STATE)
    return battery.with_words() if missing else battery


_INQUIRY = Inquiry(
    word="hypotheses",
    line=lambda battery, cell, before, say: answered(battery, PARTS, cell, before, say),
    results=concluded,
    forecast=seconds_to_go,
    ready=_ready,
)
