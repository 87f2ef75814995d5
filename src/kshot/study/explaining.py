"""``kshot explain``: the parts of the question become records, and the records one answer."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kshot.data import load_task
from kshot.data.published import suggested
from kshot.data.published_figures import beside
from kshot.data.task import Task
from kshot.errors import DataError, KshotError, OutputError
from kshot.model.lm import LM
from kshot.model.load import load_model
from kshot.packages import built_once, cache_dir
from kshot.study.claims import verdicts
from kshot.study.experiment import queries
from kshot.study.explain import PARTS, Study, layout_of
from kshot.study.explain_settings import ExplainSettings
from kshot.study.figures import EACH
from kshot.study.forecast import seconds_to_go
from kshot.study.inquiry import Inquiry, on_record, record, task_record, with_packing
from kshot.study.over_seeds import LEAST, of_best_seed, over_seeds
from kshot.study.over_tasks import over_tasks
from kshot.study.parts import Cell, Say, answered
from kshot.study.place import Finished, OnProgress, limit_notes, silent
from kshot.study.replies import replies
from kshot.study.sizes import SIZES, Size
from kshot.study.tasks import apart, tasks_of

log = logging.getLogger("kshot")

# The folder in a run's own that holds what was traced.
ARRAYS = "arrays"
# Attribution asks every subset of the demonstrations for every candidate of every query.
_MOST_LABELS = 50
# Whose demonstrations are shown to a task that is asked alone; either has few labels and is always at hand.
_OTHERS = ("country-continent", "colours")


def explain(
    asked: ExplainSettings,
    *,
    model: LM | None = None,
    tasks: Sequence[Task] = (),
    beneath: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Finished:
    """What demonstrations did to a model on each task, or what is still missing of it, on record.

    The records go to ``asked.output_path``, else to a folder of their own ``beneath`` the one given, else nowhere.
    ``model`` and ``tasks`` stand in for their names in the settings. Raises KshotError before anything is written where
    the question cannot be answered; parts that were finished are kept whatever happens.
    """
    say = on_progress or silent
    repeatable = model is None and not tasks
    say(0, None, "reading the tasks")
    tasks, kept_apart = apart(tuple(tasks) or tasks_of(asked, suggested))
    size = sized(asked, len(tasks))
    for task in tasks:
        _check(task, asked, size)
    say(0, None, f"loading {model.name if model else asked.model}")
    lm = model or load_model(asked.model, dtype=asked.dtype, device=asked.device)
    if asked.arrays and asked.output_path is None and beneath is None:
        raise KshotError("--arrays keeps files in the folder of the run; give output_path, too")
    # Where they go is known when the cells are; that they go somewhere is part of what the cells are.
    arrays = Path(ARRAYS) if asked.arrays else None
    study = Study(
        lm=lm, tasks=tasks, size=size, seeds=asked.seed, other=_other(tasks), parts=asked.parts, arrays=arrays
    )
    notes = [*kept_apart, *limit_notes(size.limit, tasks)]
    return on_record(_INQUIRY, asked, study, notes, typed=asked if repeatable else None, beneath=beneath, say=say)


def sized(asked: ExplainSettings, tasks: int) -> Size:
    """How much the settings ask of so many tasks: a size, with the numbers that are given instead of its own."""
    size = SIZES[asked.size]
    if size.attributed is not None:
        each = max(size.effort.queries, -(-size.attributed // tasks))
        size = replace(size, effort=replace(size.effort, queries=each))
    if asked.num_fewshot is not None:
        size = replace(size, shots=asked.num_fewshot, capped=False)
    if asked.limit is not None:
        size = replace(size, limit=asked.limit)
    if asked.template:
        size = replace(size, as_published=False, capped=False)
    return size if asked.learning_rate is None else replace(size, grid=(float(asked.learning_rate),), validation=0)


def _check(task: Task, asked: ExplainSettings, size: Size) -> None:
    """Everything that can be found wrong without a model."""
    pool = sum(example.label is not None for example in task.train)
    shots = layout_of(task)[1] if size.capped else size.shots
    if not any(example.label is not None for example in queries(task, size.limit)):
        raise DataError(f"task {task.name!r} has no labelled test examples to ask")
    if min(size.shots, shots) > pool:
        raise DataError(
            f"task {task.name!r}: asked for {min(size.shots, shots)} demonstrations, and its training pool has {pool} "
            f"labelled examples; give --num-fewshot at most {pool}"
        )
    if len(task.labels) > _MOST_LABELS:
        raise DataError(
            f"task {task.name!r} has {len(task.labels)} answers to choose from; an explanation works with at most {_MOST_LABELS}"
        )


def _other(tasks: Sequence[Task]) -> Task | None:
    """A task whose demonstrations say nothing of the one that is asked, where it is asked alone."""
    if len(tasks) > 1:
        return None
    return next(load_task(name) for name in _OTHERS if name != tasks[0].name)


def _line(study: Study, cell: Cell, before: Mapping[str, Any], say: Say) -> dict[str, Any]:
    """The line of a cell, of which a choice that is dear is made once for all runs."""
    found = _remembered(cell)
    if found is None:
        found = answered(study, PARTS, cell, before, say)
        _remember(study, cell, found)
    return found


def _remembered(cell: Cell) -> dict[str, Any] | None:
    """The learning rate of fine-tuning where another run has chosen it: it is dear, and the same for all of them."""
    if cell.part != "rates":
        return None
    try:
        found = json.loads((cache_dir() / "rates" / cell.id / "line.json").read_text(encoding="utf-8"))
        return {**found, "seconds": 0.0} if found["id"] == cell.id else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(study: Study, cell: Cell, line: Mapping[str, Any]) -> None:
    """Keep a choice for other runs; one that cannot be kept is made again there."""
    if cell.part != "rates" or line["failed"] or len(study.size.grid) == 1:
        return
    try:
        with built_once(cache_dir() / "rates" / cell.id) as fresh:
            (fresh / "line.json").write_text(json.dumps(line, ensure_ascii=False), encoding="utf-8")
    except OutputError as error:
        log.info("the chosen learning rate is not kept for other runs: %s", error)


def explained(run: Mapping[str, Any], study: Study, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """results.json of an explanation: ``run`` as in run.json, the lines of records.jsonl in the order of the cells."""
    own = [row for line in lines for row in line["rows"]]
    pooled = over_tasks(own)
    plain = [{name: value for name, value in row.items() if name not in EACH} for row in [*own, *pooled]]
    several = over_seeds(plain)
    measures = beside([*of_best_seed(plain), *several, *plain])
    facts = {task.name: _task_facts(study, task) for task in study.tasks}
    few = [
        f"{name}: {found['queries']} queries; means over fewer than {LEAST} are not judged"
        for name, found in facts.items()
        if found["queries"] < LEAST
    ]
    return record(
        run,
        study,
        lines,
        measures=measures,
        notes=few,
        tasks=facts,
        verdicts=verdicts([*several, *own]),
        replies=replies(measures),
        pictures={task.name: _pictures(task.name, lines) for task in study.tasks},
    )


def _task_facts(study: Study, task: Task) -> dict[str, Any]:
    setting = study.setting(task, study.seeds[0])
    return task_record(task, setting.template, shots=len(setting.demonstrations), queries=len(setting.queries))


def _pictures(task: str, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The pictures of every part, of the first seed that has them."""
    found: dict[str, Any] = {}
    for line in lines:
        if line["task"] == task:
            found = {**(line.get("pictures") or {}), **found}
    return found


def _ready(study: Study, run: Mapping[str, Any], directory: Path | None, missing: bool) -> Study:
    """With its arrays in the folder of the run."""
    study = with_packing(study, run, directory, missing)
    return study if study.arrays is None or directory is None else replace(study, arrays=directory / ARRAYS)


_INQUIRY = Inquiry(word="explain", line=_line, results=explained, forecast=seconds_to_go, ready=_ready)
