"""A question in parts as a run: from a study and its cells to records in a folder, and from these to results.json."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kshot.data import task_hash
from kshot.data.task import Task
from kshot.data.template import Template
from kshot.study.environment import environment
from kshot.study.experiment import layout_facts, standing
from kshot.study.parts import Cell, Line, Say, duration, notes_of
from kshot.study.place import Finished, OnProgress, begun, folder, opened, packing, stopped
from kshot.study.results import model_facts
from kshot.study.side_by_side import Room, answers, room_for
from kshot.study.store import RESULTS, Memory, Store

log = logging.getLogger("kshot")

# Seconds of a run that is left alone.
_LONG = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a run is of: what its figures depend on besides its cells, what else run.json says of it, the words of which its
    folder has its name, and the bytes and the device of what answers."""

    facts: dict[str, Any]
    more: dict[str, Any]
    names: tuple[str, ...]
    of: str
    weights: int
    device: str


def of_model(study: Any) -> About:
    """A study of a model on tasks."""
    lm = study.lm
    return About(
        facts={**standing(lm), "tasks": {task.name: {"hash": task_hash(task)} for task in study.tasks}},
        more={"packing": packing(lm)},
        names=tuple(task.name for task in study.tasks),
        of=lm.name,
        weights=sum(p.numel() * p.element_size() for p in lm.model.parameters()),
        device=lm.device.type,
    )


def with_packing(study: Any, run: Mapping[str, Any], directory: Path | None, missing: bool) -> Any:
    """A study of a model whose packs are those of the run that is gone on with."""
    tokens, rows = run["packing"]
    return replace(study, lm=replace(study.lm, tokens_per_pack=tokens, rows_per_pack=rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """What a command that answers in parts does of its own.

    ``line`` answers a cell of a study, ``forecast`` says how many seconds each of some takes (None: nobody knows),
    ``results`` makes results.json of run.json, the study and its lines. ``about`` says what a study is of, and ``ready``
    makes it ready once run.json and its folder are known, and whether any cell is missing.
    """

    word: str
    line: Callable[[Any, Cell, Mapping[str, Line], Say], Line] = field(repr=False)
    results: Callable[[Mapping[str, Any], Any, Sequence[Line]], dict[str, Any]] = field(repr=False)
    forecast: Callable[[Any, Sequence[Cell]], Sequence[float] | None] = field(
        repr=False, default=lambda study, missing: None
    )
    about: Callable[[Any], About] = field(repr=False, default=of_model)
    ready: Callable[[Any, Mapping[str, Any], Path | None, bool], Any] = field(repr=False, default=with_packing)


def on_record(
    inquiry: Inquiry,
    asked: Any,
    study: Any,
    notes: Sequence[str],
    *,
    typed: Any | None,
    beneath: Path | None,
    say: OnProgress,
) -> Finished:
    """Every cell of the study answered and kept: in ``asked.output_path``, else in a folder ``beneath``, else nowhere.

    ``study`` has cells and an identity; ``typed`` as ``begun`` has it.
    """
    cells, about = study.cells(), inquiry.about(study)
    names = [inquiry.word, *about.names]
    directory = folder(asked.output_path, beneath, names, about.of, study.identity)
    facts = {"identity": study.identity, "facts": about.facts, **about.more}
    with opened(directory, begun(inquiry.word, asked, facts, notes, typed=typed)) as store:
        held = {line["id"] for line in store.lines}
        study = inquiry.ready(study, store.run, directory, any(cell.id not in held for cell in cells))
        room = room_for(about.weights, about.device, cells)
        lines = _answer_missing(inquiry, study, (cells, room), store, say)
        value = inquiry.results(store.run, study, lines)
        store.write(RESULTS, value)
        return Finished(results=value, directory=directory)


def _answer_missing(
    inquiry: Inquiry, study: Any, asked: tuple[Sequence[Cell], Room], store: Store | Memory, say: OnProgress
) -> list[Line]:
    """The lines of all cells in their order; those that the store does not hold yet are answered and kept."""
    cells, room = asked
    held: dict[str, Line] = {found["id"]: found for found in store.lines}
    if missing := [cell for cell in cells if cell.id not in held]:
        seconds = _forecast(inquiry, study, missing, len(held), len(cells), say)
        missing = _longest_first(missing, seconds) if room.processes > 1 else missing

    def answer(cell: Cell, tell: Say) -> Line:
        before = {c.part: held[c.id] for c in cells if (c.task, c.seed) == (cell.task, cell.seed) and c.id in held}
        return inquiry.line(study, cell, before, tell)

    def tell(cell: Cell, what: str) -> None:
        say(len(held), len(cells), f"{cell.title} ({what})" if what else cell.title)

    try:
        with closing(answers(missing, answer, tell, room)) as answered:
            for cell, found in answered:
                samples = [{"cell": cell.id, **sample} for sample in found.pop("samples", [])]
                # What it took of the machine, of which so many others had their part at the time.
                found["seconds"] /= room.processes
                held[cell.id] = store.append(found, samples)
    except KeyboardInterrupt as stop:
        stopped(stop, store, len(held), len(cells))
        raise
    say(len(cells), len(cells), "done")
    return [held[cell.id] for cell in cells]


def _forecast(
    inquiry: Inquiry, study: Any, missing: Sequence[Cell], done: int, total: int, say: OnProgress
) -> Sequence[float]:
    """Seconds of each missing cell, told as a whole; all alike where nobody knows."""
    say(done, total, "timing a few queries")
    seconds = inquiry.forecast(study, missing)
    if seconds is None:
        return [0.0] * len(missing)
    # Of a run of hours it stands in the log that is kept of it, where nobody watches.
    level = logging.WARNING if sum(seconds) > _LONG else logging.INFO
    log.log(level, "%s to go", duration(sum(seconds)))
    say(done, total, f"{duration(sum(seconds))} to go")
    return seconds


def _longest_first(cells: Sequence[Cell], seconds: Sequence[float]) -> list[Cell]:
    """Long cells begin first, and what they need before them: none is then left alone at the end."""
    own = dict(zip(cells, seconds, strict=True))
    after = {cell: max((own[c] for c in cells if _needs(c, cell)), default=0.0) for cell in cells}
    return sorted(cells, key=lambda cell: -own[cell] - after[cell])


def _needs(cell: Cell, other: Cell) -> bool:
    return (cell.task, cell.seed, cell.needs) == (other.task, other.seed, other.part)


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
    results = {task.name: _lm_eval_row(task.name, measures) for task in study.tasks}
    return plain_record(run, lines, results=results, notes=notes, model=model_facts(study.lm), measures=measures, **own)


def plain_record(
    run: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
    *,
    results: Mapping[str, Any],
    notes: Sequence[str] = (),
    **own: Any,
) -> dict[str, Any]:
    """The same of a study that is not of one model; what makes a line long stands in ``own`` and not in its cell."""
    long = ("rows", "pictures", "by_document")
    return {
        "results": dict(results),
        "date": run["date"],
        "total_evaluation_time_seconds": str(sum(line["seconds"] for line in lines)),
        "kshot": {
            **{name: run[name] for name in ("version", "argv", "settings", "identity")},
            "environment": environment(),
            **own,
            "cells": [{name: value for name, value in line.items() if name not in long} for line in lines],
            "notes": [*run["notes"], *notes, *notes_of(lines)],
        },
    }


def drawn_pictures(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The pictures of all lines, each with the task, seed and part that it is of."""
    return [
        {"task": line["task"], "seed": line["seed"], "part": line["part"], **drawn}
        for line in lines
        for drawn in line.get("pictures", ())
    ]


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
