"""A question in parts as a run: from a study and its cells to records in a folder, and from these to results.json."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kshot.data import task_hash
from kshot.data.task import Task
from kshot.data.template import Template
from kshot.study.environment import environment
from kshot.study.experiment import layout_facts, standing
from kshot.study.parts import Cell, Line, Say, answer_missing, notes_of
from kshot.study.place import Finished, OnProgress, begun, folder, opened
from kshot.study.results import model_facts
from kshot.study.store import RESULTS


def _as_it_is(study: Any, directory: Path | None, missing: bool) -> Any:
    return study


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """What a command that answers in parts does of its own.

    ``line`` answers a cell of a study, ``forecast`` says how long cells take (None: nobody knows), ``results`` makes
    results.json of run.json, the study and its lines. ``ready`` makes the study ready once its folder is known, and
    whether any cell is missing.
    """

    word: str
    line: Callable[[Any, Cell, Mapping[str, Line], Say], Line] = field(repr=False)
    results: Callable[[Mapping[str, Any], Any, Sequence[Line]], dict[str, Any]] = field(repr=False)
    forecast: Callable[[Any, Sequence[Cell]], float | None] = field(repr=False, default=lambda study, missing: None)
    ready: Callable[[Any, Path | None, bool], Any] = field(repr=False, default=_as_it_is)


def on_record(
    inquiry: Inquiry,
    asked: Any,
    study: Any,
    notes: Sequence[str],
    *,
    repeatable: bool,
    beneath: Path | None,
    say: OnProgress,
) -> Finished:
    """Every cell of the study answered and kept: in ``asked.output_path``, else in a folder ``beneath``, else nowhere.

    ``study`` has a model, tasks, cells and an identity. Its packs are those of the run that is gone on with.
    """
    cells = study.cells()
    about = {**standing(study.lm), "tasks": {task.name: {"hash": task_hash(task)} for task in study.tasks}}
    names = [inquiry.word, *(task.name for task in study.tasks)]
    directory = folder(asked.output_path, beneath, names, study.lm.name, study.identity)
    run = begun(
        inquiry.word, asked, study.lm, {"identity": study.identity, "facts": about}, notes, repeatable=repeatable
    )
    with opened(directory, run) as store:
        tokens, rows = store.run["packing"]
        study = replace(study, lm=replace(study.lm, tokens_per_pack=tokens, rows_per_pack=rows))
        held = {line["id"] for line in store.lines}
        study = inquiry.ready(study, directory, any(cell.id not in held for cell in cells))
        lines = answer_missing(
            cells,
            store,
            say,
            line=lambda *given: inquiry.line(study, *given),
            forecast=lambda missing: inquiry.forecast(study, missing),
        )
        value = inquiry.results(store.run, study, lines)
        store.write(RESULTS, value)
        return Finished(results=value, directory=directory)


def record(
    run: Mapping[str, Any],
    study: Any,
    lines: Sequence[Mapping[str, Any]],
    *,
    measures: Sequence[Mapping[str, Any]],
    notes: Sequence[str] = (),
    **own: Any,
) -> dict[str, Any]:
    """results.json: ``run`` as in run.json, the lines of records.jsonl in the order of the cells, and the command's ``own``."""
    kept = [{name: value for name, value in line.items() if name not in ("rows", "pictures")} for line in lines]
    return {
        "results": {task.name: _lm_eval_row(task.name, measures) for task in study.tasks},
        "date": run["date"],
        "total_evaluation_time_seconds": str(sum(line["seconds"] for line in lines)),
        "kshot": {
            **{name: run[name] for name in ("version", "argv", "settings", "identity")},
            "model": model_facts(study.lm),
            "environment": environment(),
            "measures": measures,
            **own,
            "cells": kept,
            "notes": [*run["notes"], *notes, *notes_of(lines)],
        },
    }


def _lm_eval_row(task: str, measures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Accuracies under lm-eval's names, over seeds or of the first."""
    found: dict[str, Any] = {"alias": task}
    for row in measures:
        if row["task"] == task and row["measure"] == "accuracy":
            found.setdefault(f"acc,{row['variant']}", row["value"])
    return found


def task_record(task: Task, template: Template, **own: Any) -> dict[str, Any]:
    """What a record says of a task in a layout, with what else is its ``own``."""
    return {
        "labels": list(task.labels),
        **own,
        "train": len(task.train),
        "test": len(task.test),
        "source": task.source,
        "description": template.description,
        **layout_facts(replace(task, template=template, layouts=())),
        "hash": task_hash(task),
    }
